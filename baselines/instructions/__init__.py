"""The parts of `instruction_synthesis`: who answers and judges, how answers are judged, what is a duplicate."""
