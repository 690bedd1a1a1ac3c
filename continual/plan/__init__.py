"""What would run: from the configuration, the store and the ledger. Imports neither torch nor ray."""

from continual.plan.make import Plan, StagePlan, make_plan
from continual.plan.render import render

__all__ = ["Plan", "StagePlan", "make_plan", "render"]
