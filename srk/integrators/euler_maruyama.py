"""Euler-Maruyama for the reverse SDE in the process's own time."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class EulerMaruyama(Integrator):
    """`euler-maruyama`: the reverse SDE in the process's own time, everything frozen over the step.

    One network call per step, weak order 1, strong order 1 (the noise is additive). x' = x + dt (-f
    x + (1 + eta^2)/2 g^2 s) + eta g sqrt(dt) z. Works for any process, linear or not. At eta = 0 it
    is the Euler method for the probability-flow ODE.
    """

    name = "euler-maruyama"
    strong_order = 1.0
    weak_order = 1.0
    linear_only = False
    reference = "Maruyama 1955; Song et al. 2021 (arXiv 2011.13456)"
    advice = "the textbook baseline; needs many small steps"

    def plan(self, step: Step) -> StepPlan:
        dt = step.start.t - step.stop.t
        board = step.draft("time")
        drift = board.drift(board.state, step.start)
        g = step.process.diffusion(step.start.t)
        return board.finish(
            board.state + drift * dt + board.increment(-step.start.t, -step.stop.t) * (step.eta * g)
        )
