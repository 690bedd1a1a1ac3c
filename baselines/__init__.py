"""Methods to compare with, each in a file of its own, written against the public contract only."""
