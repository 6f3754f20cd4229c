"""UniPC: the unified predictor-corrector for the probability-flow ODE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import attrs

from srk._fields import in_
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.adams import adams_step
from srk.plans.lagrange import exponential_weights
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class UniPC2(Integrator):
    r"""`unipc-2`: UniPC of order 2, data prediction.

    Its corrector re-uses the evaluation of the next step.

    One network call per step, order 3 (2 without the corrector); probability-flow ODE only.
    Predictor (hl the step before, B = h for bh1, 1 - e^{-h} for bh2) and corrector:

    $$
    \begin{aligned}
    x'_p &= \frac{\sigma'}{\sigma} x + \alpha' (1 - e^{-h}) D
        + \alpha' \frac{B}{2} \frac{h}{h_l} (D - D_\mathrm{old}) \\
    x' &= \frac{\sigma'}{\sigma} x + \alpha' \int e^{-(\lambda' - \lambda)} P(\lambda)\, d\lambda,
        \qquad P \text{ through } D_\mathrm{old}, D, D(x'_p)
    \end{aligned}
    $$

    With bh2 the predictor is DPM-Solver++(2M). The state handed on is the predicted one, so a run
    ends uncorrected. Equals diffusers' UniPCMultistepScheduler(solver_order=2) with
    lower_order_final=False.

    Arguments:
        variant: B(h), "bh1" or "bh2".
        corrector: False for UniP, the predictor alone.
    """

    name = "unipc-2"
    eta_range = (0.0, 0.0)
    reference = "Zhao et al. 2023, UniPC (arXiv 2302.04867), algorithms 5 to 8"
    advice = "ODE, one call, order 3: for few deterministic steps"

    order: ClassVar[int] = 2
    variant: Literal["bh1", "bh2"] = attrs.field(default="bh2", validator=in_(("bh1", "bh2")))
    corrector: bool = True

    @property
    def weak_order(self) -> float:  # type: ignore[override]
        return float(self.order + 1 if self.corrector else self.order)

    def plan(self, step: Step) -> StepPlan:
        return self.plan_orders(step, *self.orders)

    @property
    def orders(self) -> tuple[int, int]:
        """The orders of predictor and corrector; 0 for no corrector."""
        return self.order, self.order + 1 if self.corrector else 0

    def plan_orders(self, step: Step, predictor: int, corrector: int) -> StepPlan:
        """The step with other orders, as at the end of a run."""
        weights = self._predictor, self._corrector
        return adams_step(step, step.eta, predictor, corrector, weights, self.name)

    def _scale(self, h: float) -> float:
        return h if self.variant == "bh1" else -math.expm1(-h)

    def _predictor(self, places: Sequence[float], h: float, rate: float) -> list[float]:
        if len(places) == 2:
            slope = 0.5 * self._scale(h) * h / -places[1]
            return [slope - math.expm1(-h), -slope]
        return exponential_weights(places, h, rate)

    def _corrector(self, places: Sequence[float], h: float, rate: float) -> list[float]:
        if len(places) == 2:
            slope = 0.5 * self._scale(h)
            return [slope, -math.expm1(-h) - slope]
        return exponential_weights(places, h, rate)


@register_solver
@attrs.frozen(kw_only=True)
class UniPC3(UniPC2):
    r"""`unipc-3`: UniPC of order 3, data prediction.

    Its corrector re-uses the evaluation of the next step.

    One network call per step, order 4 (3 without the corrector); probability-flow ODE only. It is
    `unipc-2` with one more past D in predictor and corrector:

    $$
    x'_p = \frac{\sigma'}{\sigma} x + \alpha' \int e^{-(\lambda' - \lambda)} P(\lambda)\, d\lambda,
    \qquad P \text{ through the last three } D
    $$

    x' is the same with P through the last three D and that at x'_p. The order of the first two
    steps is lower, which shows only where a run starts at a level that already carries information.
    The two variants differ in these steps only: from order 3 on, B(h) cancels, and the method is
    the exponential Adams method of orders (3, 4), `sa-solver` at eta = 0. It equals diffusers'
    UniPCMultistepScheduler(solver_order=3) with lower_order_final=False.

    Arguments:
        variant: B(h), "bh1" or "bh2".
        corrector: False for UniP, the predictor alone.
    """

    name = "unipc-3"
    advice = "ODE, one call, order 4: for smooth scores; unipc-2 with guidance"

    order: ClassVar[int] = 3
