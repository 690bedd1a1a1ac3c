"""What scores of forecasts and units of associations are called, by the names in their files."""

SCORES = {"rmse": "RMSE", "f1": "F1", "auc": "AUC"}
UNITS = {"nats": "nats per token", "lost": "share of answers"}
"""By the kind of a matrix."""
