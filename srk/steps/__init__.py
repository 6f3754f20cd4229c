"""Where the steps of a run go: grids, adaptive steps, and profiles of networks."""

from srk.steps.adaptive import Adaptive
from srk.steps.align_your_steps import AlignYourSteps
from srk.steps.base import Decision, Grid, Report, RunInfo, StepController
from srk.steps.budget import Bend, Budget, Criterion
from srk.steps.grids import Gauge, LogSNR, Quadratic, Times, Uniform
from srk.steps.levels import Levels
from srk.steps.picard import Picard
from srk.steps.profile import Profile
from srk.steps.registry import CONTROLLERS, as_grid, register_controller
from srk.steps.repaint import RePaint
from srk.steps.restart import Restart
from srk.steps.rising import Rising, RisingGrid
from srk.steps.schedules import (
    Beta,
    Exponential,
    FlowShift,
    Karras,
    KLOptimal,
    Laplace,
    LinearQuadratic,
    PolyExponential,
    SGMUniform,
)

__all__ = [
    "CONTROLLERS",
    "Adaptive",
    "AlignYourSteps",
    "Bend",
    "Beta",
    "Budget",
    "Criterion",
    "Decision",
    "Exponential",
    "FlowShift",
    "Gauge",
    "Grid",
    "KLOptimal",
    "Karras",
    "Laplace",
    "Levels",
    "LinearQuadratic",
    "LogSNR",
    "Picard",
    "PolyExponential",
    "Profile",
    "Quadratic",
    "RePaint",
    "Report",
    "Restart",
    "Rising",
    "RisingGrid",
    "RunInfo",
    "SGMUniform",
    "StepController",
    "Times",
    "Uniform",
    "as_grid",
    "register_controller",
]


def __getattr__(name: str) -> object:
    if name == "Problem":  # the old name of RunInfo, which warns
        from srk.steps import base

        return base.__getattr__(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
