"""Scores of a model: lm-eval tasks and the loss on texts. Import what you need from the modules; this one is empty,
so that the names and the check of task names stay free of torch and ray."""
