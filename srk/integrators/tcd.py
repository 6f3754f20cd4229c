"""The sampler of trajectory consistency distillation."""

from __future__ import annotations

import math

import attrs

from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.gauge import GaugeStep
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.base import Level
from srk.processes.discrete import VPDiscrete


@register_solver
@attrs.frozen(kw_only=True)
class TCD(Integrator):
    r"""`tcd`: DDIM to a level below the end of the step, and the forward process back up.

    One network call per step, for consistency models. eta is the paper's gamma, between `ddim`
    without noise (0) and all noise drawn anew, close to `lcm` (1, the default here as of every
    solver; diffusers' default is 0.3). With t' the own time of the end of the step and
    r_s = sigma/alpha at the time t_s = (1 - eta) t':

    $$
    u' = D + \frac{r_s}{r} (u - D) + \sqrt{r'^2 - r_s^2}\; z, \qquad u = x/\alpha
    $$

    On `VPDiscrete` t_s is rounded down to a training index. A step to sigma = 0 is the denoiser.
    Between 0 and 1 eta is not the eta of the reverse SDE, and the method has no order. Elsewhere:
    diffusers `TCDScheduler` with the same eta.
    """

    name = "tcd"
    infinite_noise = True
    eta_range = (0.0, 1.0)
    reference = "Zheng et al. 2024, TCD (arXiv 2402.19159), algorithm 4"
    advice = "consistency models, 2 to 8 calls, with a choice of noise"

    def plan(self, step: Step) -> StepPlan:
        start, stop = step.start, step.stop
        down = self._below(step)
        gauge = GaugeStep(start, stop, 0.0, step.eta)
        draft = step.draft(gauge.clock)
        node = draft.evaluate(draft.state, start)
        kept = down.r / start.r if start.alpha else 0.0
        carried = draft.state * (stop.alpha * down.r / start.sigma)
        up = math.sqrt(max(0.0, (stop.r - down.r) * (stop.r + down.r)))
        noise = draft.normal(*gauge.interval) * (stop.alpha * up)
        return draft.finish(carried + node.value * (stop.alpha * (1.0 - kept)) + noise)

    def _below(self, step: Step) -> Level:
        """The level that the deterministic part of the step goes down to."""
        process, stop = step.process, step.stop
        t = (1.0 - step.eta) * stop.t
        if isinstance(process, VPDiscrete):
            t = float(math.floor(t))
        level: Level = process.level(max(min(t, stop.t), process.t_min))
        return level if level.r < stop.r else stop
