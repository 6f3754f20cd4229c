"""Exponential integrators that mix the components of a phase-space process."""

from __future__ import annotations

import attrs

from srk._fields import in_
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.exponential import exponential_step
from srk.plans.history import usable_for_denoiser
from srk.plans.multistep import line, multistep_step
from srk.plans.phase import factor, of_data
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class GDDIM(Integrator):
    """`gddim`: an exponential integrator in all components at once.

    The network's prediction is frozen or extrapolated over the step.

    One network call per step. On a phase-space process such as `srk.CLD`, the linear part of the
    reverse family is solved exactly with k x k coefficients (see `srk.plans.phase`); at eta = 0 it
    is gDDIM with the coefficient K = R of the paper, at eta = 1 and order 1 the exact posterior
    given the predicted data, what `ddpm` is for a scalar process. On a scalar linear process it is
    `ddpm` (order 1) and `dpmpp-2m-sde` in the variant "heun" (order 2).

    Arguments:
        order: 1 freezes the denoiser over the step; 2 extrapolates it linearly in the half log-SNR
            through the last two steps.
    """

    name = "gddim"
    strong_order = 1.0
    infinite_noise = True
    phase = True
    reference = "Zhang, Tao, Chen 2022 (arXiv 2206.05564)"
    advice = "one call, order 2; DDIM for cld, with k x k coefficients"

    order: int = attrs.field(default=2, validator=in_((1, 2)))

    @property
    def weak_order(self) -> float:  # type: ignore[override]
        return float(self.order)

    def plan(self, step: Step) -> StepPlan:
        process, start, stop = step.process, step.start, step.stop
        flow = process.flow_given_data(start, stop, step.eta)
        if flow is None:
            if self.order == 1 or step.start.alpha == 0.0:
                return exponential_step(step)
            return multistep_step(step, line("heun"), name=self.name)
        phi, noise, slope = flow
        a0, a1 = process.kernel(start.t).mean, process.kernel(stop.t).mean
        draft = step.draft("phase")
        node = draft.evaluate(draft.state, start)
        new = node.x * phi + node.value * of_data(a1 - phi @ a0)
        if (
            self.order > 1
            and len(usable_for_denoiser(step, [start.lam, *step.memory], name=self.name)) > 1
        ):
            new = new + (node.value - draft.memory(0)) * of_data(
                slope / (start.lam - step.memory[0])
            )
        if step.eta > 0.0:
            new = new + draft.normal(-start.t, -stop.t) * factor(noise)
        return draft.finish(new, keep=[(node.value, start.lam)] if self.order > 1 else ())
