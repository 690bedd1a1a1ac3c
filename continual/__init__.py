"""Fine-tune a language model on task after task; measure, show and prevent forgetting."""

__version__ = "0.1.0"
