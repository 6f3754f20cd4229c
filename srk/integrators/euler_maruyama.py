"""Euler-Maruyama for the reverse SDE in the process's own time."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.differentiate import derivative


@register_solver
@attrs.frozen(kw_only=True)
class EulerMaruyama(Integrator):
    """`euler-maruyama`: the reverse SDE in the process's own time, everything frozen over the step.

    One network call per step, weak order 1, strong order 1 (the noise is additive). x' = x + dt (-f
    x + (1 + eta^2)/2 g^2 s) + eta g sqrt(dt) z. Works for any process, linear or not. At eta = 0 it
    is the Euler method for the probability-flow ODE. A step from alpha = 0, where g is infinite, is
    exponential Euler, unless a rule of `srk.eta` gives eta g.
    """

    name = "euler-maruyama"
    strong_order = 1.0
    weak_order = 1.0
    linear_only = False
    reference = "Maruyama 1955; Song et al. 2021 (arXiv 2011.13456)"
    advice = "the textbook baseline; needs many small steps"

    def plan_step(self, step: Step) -> StepPlan:
        if step.diffusion is not None and step.linear and step.stop.sigma > 0.0:
            return self._with_diffusion(step, step.diffusion)
        return super().plan_step(step)

    def _with_diffusion(self, step: Step, diffusion: float) -> StepPlan:
        """The step from alpha = 0 with a finite eta g: the ODE's velocity there is finite too."""
        process, start, stop = step.process, step.start, step.stop
        dt = start.t - stop.t
        ends = process.t_min, process.t_max
        alpha_rate = derivative(lambda t: float(process.alpha(t)), start.t, *ends)
        sigma_rate = derivative(lambda t: float(process.sigma(t)), start.t, *ends)
        draft = step.draft("time")
        node = draft.evaluate(draft.state, start)
        velocity = node.value * alpha_rate + node.x * (sigma_rate / start.sigma)
        pull = node.x * (0.5 * diffusion**2 / start.sigma**2)
        noise = draft.increment(-start.t, -stop.t) * diffusion
        return draft.finish(draft.state - (velocity + pull) * dt + noise)

    def plan(self, step: Step) -> StepPlan:
        dt = step.start.t - step.stop.t
        draft = step.draft("time")
        drift = draft.drift(draft.state, step.start)
        g = step.process.diffusion(step.start.t)
        return draft.finish(
            draft.state + drift * dt + draft.increment(-step.start.t, -step.stop.t) * (step.eta * g)
        )
