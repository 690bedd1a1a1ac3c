"""Samples of a model after its start token alone or after prompts, stored as token ids and packed into rows."""
