"""What the machinery costs, side by side with the libraries that it is made of."""
