"""One run of a sequence: its stages, what they may reuse, what makes them resumable. Started by `-m continual.run`."""
