"""What a step is, whatever the solver.

The plan, the forms that it is written in, and the mathematics that solvers share.
"""

from srk.plans.form import LinearForm
from srk.plans.matrix import Matrix
from srk.plans.plan import Column, Slot, Stage, StepPlan
from srk.plans.step import Draft, Node, Step

__all__ = ["Column", "Draft", "LinearForm", "Matrix", "Node", "Slot", "Stage", "Step", "StepPlan"]
