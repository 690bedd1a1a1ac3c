"""What a task that is not in the matrix of associations makes forget, from a few of its cells. NumPy alone."""
