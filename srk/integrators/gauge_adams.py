"""The exponential Adams methods in a gauge: our own method for few deterministic steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from srk._checks import is_integer
from srk._fields import ge, le
from srk.errors import ArgumentError
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.adams import adams_step, denoised_end
from srk.plans.gauge import check_variance
from srk.plans.gauge_node import DATA_VARIANCE, Curve, check_curve, curve_variance
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.base import ForwardProcess, Level, LinearProcess

HIGHEST = 5
"""The highest order of a predictor or corrector."""
CALL_FROM = 16
"""Number of steps from which the denoised prediction at the end is worth a call: what is left
without it, where data are as narrow as the noise there, is then no smaller than other errors."""
LEFT = 0.01
"""Variance of the noise at the end of a process, over that of the gauge, up to which the denoised
prediction there is known without a call."""


def _order(low: int) -> Any:
    def check(_instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if not is_integer(value) or not low <= value <= HIGHEST:
            raise ArgumentError(
                f"{field.name} must be an int from {low} to {HIGHEST}, not {value!r}"
            )

    return check


@register_solver
@attrs.frozen(kw_only=True)
class GaugeAdams(Integrator):
    r"""`gauge-adams`: UniPC in the coordinates in which Gaussian data are solved exactly.

    The remainder R = D + v (D - u)/s, with u = x/alpha and s = (sigma/alpha)^2, is 0 for N(0, v)
    data. A step that ends at s' is

    $$
    u' = e^{-L / 2} u + \sum_j R_j \int l_j \, d\big(e^{-L / 2}\big), \qquad
    L(s) = \log\frac{s + v}{s' + v}
    $$

    with the Lagrange polynomials l_j, in the half log-SNR, of the last p levels (predictor), then
    of the last c with the new one among them (corrector: it re-uses the evaluation of the next
    step). D was evaluated at the predicted state; R there is carried to the corrected one by
    dD/du = w/(w + s), with w from `curve`. v = 0 gives `sa-solver` at eta = 0, which is `unipc-3`
    but for its first two steps. One network call per step, order c, at most p + 1; ODE only. The
    state handed on is the predicted one, so a run ends uncorrected.

    A run of fewer than 16 steps to the end of the process makes no call for its final denoising:
    D = (s R + v u)/(s + v) there, with R from the line through its last two values, of which little
    counts where the noise s left is small (at most v/100). That is one step more for the same
    number of calls.

    `auto` takes it with a profile, which knows v and places the steps; there its error is, in the
    mean, below that of all other methods tried (docs: Calibrate once per network).

    Arguments:
        data_variance: v, the variance of the data per coordinate, in squared units of the data.
        predictor: order p, 1 to 5.
        corrector: order c, 1 to 5; 0 for none.
        curve: w, what is still open at a level as the variance of Gaussian data that leave as much
            open: pairs (half log-SNR, log w), between which log w is linear.
            `srk.Profile.curve()` makes it of what was measured. None: v at all levels.
        response: the part of dD/du that is counted, in [0, 1]: 0 measured best with fewer than
            seven steps, 1 from there on.
    """

    name = "gauge-adams"
    eta_range = (0.0, 0.0)
    infinite_noise = True
    profiled = True
    reference = "srk (docs: The mathematics, gauge clock), after UniPC (arXiv 2302.04867)"
    advice = "ODE, one call, order 4; knows the scale of the data: with a profile, for few steps"

    data_variance: float = attrs.field(default=DATA_VARIANCE, converter=check_variance)
    predictor: int = attrs.field(default=3, validator=_order(1))
    corrector: int = attrs.field(default=4, validator=_order(0))
    curve: Curve | None = attrs.field(
        default=None,
        converter=check_curve,
        repr=lambda curve: "None" if curve is None else f"<{len(curve)} points>",
    )
    response: float = attrs.field(default=1.0, validator=attrs.validators.and_(ge(0.0), le(1.0)))

    @property
    def weak_order(self) -> float:  # type: ignore[override]
        if not self.corrector:
            return float(self.predictor)
        # the state at which the corrector evaluates is that of the predictor
        return float(min(self.corrector, self.predictor + 1))

    def plan(self, step: Step) -> StepPlan:
        return adams_step(
            step,
            step.eta,
            self.predictor,
            self.corrector,
            name=self.name,
            variance=self.data_variance,
            response=self._response,
        )

    def closing(
        self, process: ForwardProcess, eta: float, steps: int | None
    ) -> Callable[[StepPlan], StepPlan] | None:
        if not isinstance(process, LinearProcess) or steps is None or steps >= CALL_FROM:
            return None
        if max(self.predictor, self.corrector) == 1:  # which keeps nothing to extrapolate from
            return None
        end, v = process.level(process.t_min), self.data_variance
        if not 0.0 < end.sigma**2 <= LEFT * v * end.alpha**2:
            return None
        return partial(denoised_end, variance=v)

    def _response(self, level: Level) -> float:
        """dD/du at a level, as far as it is counted."""
        w = self.data_variance
        if self.curve is not None:
            w = curve_variance(self.curve, level.lam)
        return self.response * w * level.alpha**2 / (w * level.alpha**2 + level.sigma**2)
