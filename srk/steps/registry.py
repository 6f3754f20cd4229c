"""The step controllers that have a name."""

from __future__ import annotations

from srk.steps.adaptive import Adaptive
from srk.steps.align_your_steps import AlignYourStepsSD, AlignYourStepsSDXL, AlignYourStepsSVD
from srk.steps.budget import Budget
from srk.steps.controllers import CONTROLLERS, as_grid, register_controller
from srk.steps.grids import Gauge, LogSNR, Quadratic, Uniform
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

for _controller in (
    LogSNR,
    Uniform,
    Karras,
    Quadratic,
    Gauge,
    SGMUniform,
    Beta,
    LinearQuadratic,
    KLOptimal,
    Exponential,
    PolyExponential,
    Laplace,
    FlowShift,
    AlignYourStepsSD,
    AlignYourStepsSDXL,
    AlignYourStepsSVD,
    Budget,
    Adaptive,
):
    register_controller(_controller)

__all__ = ["CONTROLLERS", "as_grid", "register_controller"]
