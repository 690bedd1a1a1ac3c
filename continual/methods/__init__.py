"""The method that the project is named for; the others live in `baselines`."""
