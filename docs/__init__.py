"""The manual, as Markdown pages, and the command that renews what is generated in them."""
