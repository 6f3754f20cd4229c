"""SA-Solver: stochastic exponential Adams methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from srk._checks import is_integer
from srk.errors import ArgumentError
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.adams import adams_step
from srk.plans.lagrange import exponential_weights
from srk.plans.plan import StepPlan
from srk.plans.step import Step

Tau = Callable[[float], float] | tuple[float, float] | None


def _tau(value: Any) -> Tau:
    if value is None or callable(value):
        return value  # type: ignore[no-any-return]
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0.0 <= low < high:
        raise ArgumentError(
            "tau must be None, a function of sigma/alpha, or an interval (low, high) of "
            f"sigma/alpha, not {value!r}; "
            "a constant tau is eta: srk.solve(..., 'sa-solver', eta=0.5)"
        )
    return (low, high)


def _order(low: int, high: int) -> Any:
    def check(_instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if not is_integer(value) or not low <= value <= high:
            raise ArgumentError(f"{field.name} must be an int from {low} to {high}, not {value!r}")

    return check


@register_solver
@attrs.frozen(kw_only=True)
class SASolver(Integrator):
    r"""`sa-solver`: stochastic Adams predictor and corrector in the half log-SNR, data prediction.

    One network call per step (predict, evaluate, correct), strong order 1, weak order 2; with
    corrector=2 and predictor 2 to 4, order 3 on linear problems. With a = 1 + tau^2 and l_j the
    Lagrange polynomials of the last p times (predictor), or of the last c times with that of the
    new state among them (corrector, same z):

    $$
    x' = \frac{\alpha'}{\alpha} e^{-ah} x
    + \alpha' \sum_j D_j \int a\, e^{-a(\lambda' - \lambda)} l_j(\lambda)\, d\lambda
    + \sigma' \sqrt{1 - e^{-2 \tau^2 h}}\; z
    $$

    tau is eta. Orders (3, 4) are the default of the authors' code; at eta = 0 they are `unipc-3`
    (with few_steps, its variant bh1 to the last step), and (1, 0) is `ddpm`. The state handed on is
    the predicted one, so a run ends uncorrected. Equals, with few_steps=True, diffusers'
    SASolverScheduler (lower_order_final=False), whose float32 coefficients lose their digits at
    orders 3 and 4; here they are float64 and nothing cancels.

    Arguments:
        predictor: order of the predictor, 1 to 4.
        corrector: order of the corrector, 1 to 4; 0 for none.
        tau: where the noise goes. None: tau = eta everywhere; a function of sigma/alpha that
            multiplies eta; or an interval (low, high) of sigma/alpha outside of which tau is 0.
        few_steps: where the order is 2, integrate the slope of D without the exponential: an O(h^3)
            change that the authors make at few steps and diffusers always.
    """

    name = "sa-solver"
    strong_order = 1.0
    reference = "Xue et al. 2023, SA-Solver (arXiv 2309.05019), eq. 14 and 17"
    advice = "one call, order 2 with a small constant; for 30 steps and more"

    predictor: int = attrs.field(default=3, validator=_order(1, 4))
    corrector: int = attrs.field(default=4, validator=_order(0, 4))
    tau: Tau = attrs.field(default=None, converter=_tau)
    few_steps: bool = False

    @property
    def weak_order(self) -> float:  # type: ignore[override]
        # A corrector of order 1 is implicit Euler with the D of the predicted state: it takes the
        # order back to 1
        high = self.corrector != 1 and max(self.predictor, self.corrector) > 1
        return 2.0 if high else 1.0

    def plan(self, step: Step) -> StepPlan:
        return self.plan_orders(step, *self.orders)

    @property
    def orders(self) -> tuple[int, int]:
        """The orders of predictor and corrector; 0 for no corrector."""
        return self.predictor, self.corrector

    def plan_orders(self, step: Step, predictor: int, corrector: int) -> StepPlan:
        """The step with other orders, as at the end of a run."""
        weights = (_slope_predictor, _slope_corrector) if self.few_steps else None
        return adams_step(step, self._tau(step), predictor, corrector, weights, self.name)

    def _tau(self, step: Step) -> float:
        r = step.start.r
        if self.tau is None:
            return step.eta
        if callable(self.tau):
            return step.eta * float(self.tau(r))
        return step.eta if self.tau[0] <= r <= self.tau[1] else 0.0


def _slope_predictor(places: Sequence[float], h: float, rate: float) -> list[float]:
    if len(places) == 2:
        return _with_slope(0.5 * rate * h**2 / -places[1], rate * h, first=0)
    return exponential_weights(places, h, rate)


def _slope_corrector(places: Sequence[float], h: float, rate: float) -> list[float]:
    if len(places) == 2:
        return _with_slope(0.5 * rate * h, rate * h, first=1)
    return exponential_weights(places, h, rate)


def _with_slope(slope: float, x: float, first: int) -> list[float]:
    """Weights of two nodes.

    1 - e^{-x} on the one at the start of the step (number `first`), `slope` on node 0 less node 1.
    """
    weights = [slope, -slope]
    weights[first] -= math.expm1(-x)
    return weights
