"""What can be known before a start: checks, facts of models and tokenizers, resources, estimates, the plan."""
