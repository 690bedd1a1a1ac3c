"""Samples of a model after its start token alone or after prompts, stored as token ids and packed into rows."""

from continual.sampling.sample import sample_rows, sample_set
from continual.sampling.settings import SampleSettings, sample_seed
from continual.sampling.start import bos_start, task_starts, template_start

__all__ = ["SampleSettings", "bos_start", "sample_rows", "sample_seed", "sample_set", "task_starts", "template_start"]
