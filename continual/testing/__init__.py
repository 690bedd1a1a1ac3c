"""Checks that an outside package can run on its own method: inherit from `MitigationConformance` in a test file.

from continual.testing import MitigationConformance


class TestFading(MitigationConformance):
    options = {"type": "fading:Fading", "ratio": 0.25}
    zero = {"weight": 0}  # options at which it must change nothing
"""

from continual.testing.conformance import InProcessConformance, MitigationConformance, TwoRankConformance

__all__ = ["InProcessConformance", "MitigationConformance", "TwoRankConformance"]
