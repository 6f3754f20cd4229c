r"""The samplers of EDM with churn (Karras et al. 2022).

Euler, Heun and midpoint in r = sigma/alpha.

All act on u = x/alpha, where du/dr = (u - D)/r. Churn adds noise at the start of a step, from r up
to r^ = (1 + gamma) r, and the ODE goes
down from there:

    u^ = u + S_noise sqrt(r^^2 - r^2) z,    u' = ODE step of u^ from r^ to r'

Both halves keep the distribution (for S_noise = 1), so it has the order of the ODE method.
"""

from __future__ import annotations

import math

import attrs

from srk.errors import IncompatibleError
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.form import LinearForm
from srk.plans.plan import StepPlan
from srk.plans.slopes import euler, heun, level_at, midpoint
from srk.plans.step import Draft, Step
from srk.processes.base import Level

#: gamma is cut here: never more new noise than there is (Algorithm 2)
LARGEST_GAMMA = math.sqrt(2.0) - 1.0


@attrs.frozen(kw_only=True)
class _Churned(Integrator):
    """Algorithm 2 of EDM with any ODE step.

    gamma = min(eta^2 S_churn/N, sqrt2 - 1) where S_min <= r <= S_max, N the number of steps of the
    grid. Without S_churn it follows from
    eta alone: gamma = eta^2 h gives the noise of du = (1 + eta^2)(D - u) dlam + eta sqrt2 r dW in
        the limit of short steps.
    """

    noise_free = True

    s_churn: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.ge(0.0))
    )
    s_min: float = attrs.field(default=0.0, validator=attrs.validators.ge(0.0))
    s_max: float = attrs.field(default=math.inf, validator=attrs.validators.ge(0.0))
    s_noise: float = attrs.field(default=1.0, validator=attrs.validators.gt(0.0))

    def _down(self, board: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
        raise NotImplementedError

    def plan(self, step: Step) -> StepPlan:
        start, stop = step.start, step.stop
        board = step.draft("half-log-snr")
        u = board.state / start.alpha
        hat = self._raised(step)
        if hat is not start:
            u = u + board.normal(start.lam, stop.lam) * (
                self.s_noise * math.sqrt((hat.r - start.r) * (hat.r + start.r))
            )
        return board.finish(self._down(board, u, hat, stop) * stop.alpha)

    def _raised(self, step: Step) -> Level:
        """The level r^ that churn raises the start to; the start itself where there is none."""
        gamma = self._gamma(step) if self.s_min <= step.start.r <= self.s_max else 0.0
        if gamma == 0.0:
            return step.start
        hat = level_at(step.process, step.start.lam - math.log1p(gamma))
        return hat if hat.r > step.start.r else step.start

    def _gamma(self, step: Step) -> float:
        e = step.eta**2
        if self.s_churn is None:
            return min(e * step.h, LARGEST_GAMMA) if math.isfinite(step.h) else 0.0
        if step.steps is None:
            raise IncompatibleError(
                f"s_churn={self.s_churn!r} of {self.name} is spread over the steps of a "
                "grid, but the step controller does not say how "
                "many there will be; use a grid, or leave s_churn out: the churn then "
                "follows from eta"
            )
        return min(e * self.s_churn / step.steps, LARGEST_GAMMA)


@register_solver
@attrs.frozen(kw_only=True)
class EDMHeun(_Churned):
    """`edm-heun`: EDM's stochastic sampler (Algorithm 2): churn up, Heun down.

    Two network calls per step, the first one at the raised level r^ = (1 + gamma) r; weak order 2.
    With d^ the slope (u - D)/r at r^:

        gamma = min(eta^2 S_churn/N, sqrt2 - 1)  where S_min <= r <= S_max, else 0
        u^ = u + S_noise sqrt(r^^2 - r^2) z
        u_2 = u^ + (r' - r^) d^
        u' = u^ + (r' - r^) (d^ + d_2)/2

    With `s_churn`, eta = 1 (the default) is the algorithm and eta = 0 is `heun`. Without it, gamma
    = min(eta^2 h, sqrt2 - 1) with h the step in the half log-SNR, which in the limit of short steps
    is srk's reverse SDE of that eta; on a log-SNR grid S_churn = log(r_max/r_min) is eta = 1. N
    counts the steps of the grid, one to sigma = 0 included. The raised level may lie above t_max
    for the EDM process, as in the algorithm; for other processes, whose networks know no such time,
    churn stops at t_max. Elsewhere: k-diffusion `sample_heun`.

    Arguments:
        s_churn: S_churn, the total churn; None lets it follow from eta.
        s_min, s_max: churn only where sigma/alpha lies in this range.
        s_noise: factor of the churn noise; 1 keeps the distribution, the paper uses up to 1.007
            against lost detail.
    """

    name = "edm-heun"
    evaluations_per_step = 2
    weak_order = 2.0
    reference = "Karras et al. 2022 (arXiv 2206.00364), algorithm 2"
    advice = "two calls, order 2, single step; EDM's churn"

    def _down(self, board: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
        return heun(board, u, start, stop)


@register_solver
@attrs.frozen(kw_only=True)
class EDMEuler(_Churned):
    """`edm-euler`: churn up, Euler down; k-diffusion's "euler" (at eta = 0 the deterministic DDIM).

    One network call per step, at the raised level; weak order 1. gamma as in `edm-heun`, u' = u^ +
    (r' - r^) d^. Elsewhere: k-diffusion `sample_euler`; diffusers `EulerDiscreteScheduler`.

    Arguments:
        s_churn, s_min, s_max, s_noise: as in `edm-heun`.
    """

    name = "edm-euler"
    weak_order = 1.0
    reference = "k-diffusion 0.1.1, sample_euler; Karras et al. 2022 (arXiv 2206.00364)"
    advice = "one call, order 1, with EDM's churn"

    def _down(self, board: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
        return euler(board, u, start, stop)


@register_solver
@attrs.frozen(kw_only=True)
class EDMDPM2(_Churned):
    """`edm-dpm2`: churn up, the midpoint method of `dpm2` down.

    Two network calls per step, the first one at the raised level; weak order 2. gamma as in
    `edm-heun`, the middle at sqrt(r^ r').
    Elsewhere: k-diffusion `sample_dpm_2`.

    Arguments:
        s_churn, s_min, s_max, s_noise: as in `edm-heun`.
    """

    name = "edm-dpm2"
    evaluations_per_step = 2
    weak_order = 2.0
    reference = "k-diffusion 0.1.1, sample_dpm_2; Karras et al. 2022 (arXiv 2206.00364)"
    advice = "two calls, order 2, single step, with EDM's churn"

    def _down(self, board: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
        return midpoint(board, u, start, stop)
