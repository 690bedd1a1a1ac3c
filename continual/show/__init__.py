"""What a user sees of a run: the terminal, tables and plots, MLflow, the report."""
