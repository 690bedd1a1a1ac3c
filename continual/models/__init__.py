"""Models as folders: their files, their hash, how they are built, loaded and exported."""

from continual.models.start import model_hash, start_model

__all__ = ["model_hash", "start_model"]
