r"""The samplers of EDM with churn (Karras et al. 2022): Euler, Heun, midpoint and DPM-Solver++(2S).

All act on u = x/alpha, where du/dr = (u - D)/r with r = sigma/alpha. Churn adds noise at the start
of a step, from r up to r^ = (1 + gamma) r, and the ODE goes down from there:

    u^ = u + S_noise sqrt(r^^2 - r^2) z,    u' = u^ + step_scale (ODE step of u^ from r^ to r' - u^)

Both halves keep the distribution (for S_noise = 1 and step_scale = 1), so it has the order of the
ODE method. Structure predictors of the AlphaFold 3 kind use step_scale > 1: each step goes further
than the ODE would, which samples at a lower temperature.
"""

from __future__ import annotations

import math
from typing import Literal

import attrs

from srk._fields import ge, gt, in_
from srk.errors import ArgumentError, IncompatibleError
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.form import LinearForm
from srk.plans.plan import StepPlan
from srk.plans.slopes import data_midpoint, euler, heun, level_at, midpoint
from srk.plans.step import Draft, Step
from srk.processes.base import Level

#: gamma is cut here where it follows from S_churn: never more new noise than there is (Algorithm 2)
LARGEST_GAMMA = math.sqrt(2.0) - 1.0


@attrs.frozen(kw_only=True)
class _Churned(Integrator):
    """Algorithm 2 of EDM with any ODE step.

    gamma = min(eta^2 S_churn/N, sqrt2 - 1) inside the range, N the number of steps of the grid.
    Without S_churn it follows from eta alone: gamma = eta^2 h gives the noise of
    du = (1 + eta^2)(D - u) dlam + eta sqrt2 r dW in the limit of short steps. A number `gamma` is
    taken as it is, times eta^2, and not cut.
    """

    noise_free = True

    s_churn: float | None = attrs.field(default=None, validator=attrs.validators.optional(ge(0.0)))
    gamma: float | None = attrs.field(default=None, validator=attrs.validators.optional(ge(0.0)))
    s_min: float = attrs.field(default=0.0, validator=ge(0.0))
    s_max: float = attrs.field(default=math.inf, validator=ge(0.0))
    range_by: Literal["start", "stop"] = attrs.field(
        default="start", validator=in_(("start", "stop"))
    )
    s_noise: float = attrs.field(default=1.0, validator=gt(0.0))
    step_scale: float = attrs.field(default=1.0, validator=gt(0.0))

    def __attrs_post_init__(self) -> None:
        if self.s_churn is not None and self.gamma is not None:
            raise ArgumentError(
                f"s_churn={self.s_churn!r} and gamma={self.gamma!r} both say how much noise a "
                "step of the solver adds; give one of them: s_churn is spread over the steps, "
                "gamma is that of each step"
            )

    def _down(self, draft: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
        raise NotImplementedError

    def plan(self, step: Step) -> StepPlan:
        start, stop = step.start, step.stop
        draft = step.draft("half-log-snr")
        u = draft.state / start.alpha
        hat = self._raised(step)
        if hat is not start:
            # a step to sigma = 0 ends at infinity; a source that holds a path needs a piece of it
            end = stop.lam if math.isfinite(stop.lam) else start.lam + 1.0
            u = u + draft.normal(start.lam, end) * (
                self.s_noise * math.sqrt((hat.r - start.r) * (hat.r + start.r))
            )
        down = self._down(draft, u, hat, stop)
        if self.step_scale != 1.0:
            down = u + (down - u) * self.step_scale
        return draft.finish(down * stop.alpha)

    def _raised(self, step: Step) -> Level:
        """The level r^ that churn raises the start to; the start itself where there is none."""
        gamma = self._gamma(step) if self._in_range(step) else 0.0
        if gamma == 0.0:
            return step.start
        hat = level_at(step.process, step.start.lam - math.log1p(gamma))
        return hat if hat.r > step.start.r else step.start

    def _in_range(self, step: Step) -> bool:
        """Whether the step's churn lies between S_min and S_max."""
        if self.range_by == "stop":
            return self.s_min < step.stop.r <= self.s_max
        return self.s_min <= step.start.r <= self.s_max

    def _gamma(self, step: Step) -> float:
        e = step.eta**2
        if self.gamma is not None:
            return e * self.gamma
        if self.s_churn is None:
            return min(e * step.h, LARGEST_GAMMA) if math.isfinite(step.h) else 0.0
        if step.steps is None:
            raise IncompatibleError(
                f"s_churn={self.s_churn!r} of {self.name} is spread over the steps of a grid, but "
                "the step controller does not say how many there will be; use a grid, or leave "
                "s_churn out: the churn then follows from eta"
            )
        return min(e * self.s_churn / step.steps, LARGEST_GAMMA)


@register_solver
@attrs.frozen(kw_only=True)
class EDMHeun(_Churned):
    r"""`edm-heun`: EDM's stochastic sampler (Algorithm 2): churn up, Heun down.

    Two network calls per step, the first one at the raised level r^ = (1 + gamma) r; weak order 2.
    With d^ the slope (u - D)/r at r^:

    $$
    \begin{aligned}
    \gamma &= \min\big(\eta^2 S_\mathrm{churn}/N,\; \sqrt2 - 1\big)
        \text{ where } S_{\min} \le r \le S_{\max}, \text{ else } 0 \\
    \hat u &= u + S_\mathrm{noise} \sqrt{\hat r^2 - r^2}\; z \\
    u_2 &= \hat u + (r' - \hat r)\, \hat d, \qquad
    u' = \hat u + \tfrac12 (r' - \hat r) (\hat d + d_2)
    \end{aligned}
    $$

    With `s_churn`, eta = 1 (the default) is the algorithm and eta = 0 is `heun`. Without it,
    gamma = min(eta^2 h, sqrt2 - 1) with h the step in the half log-SNR, which in the limit of short
    steps is srk's reverse SDE of that eta; on a log-SNR grid S_churn = log(r_max/r_min) is eta = 1.
    N counts the steps of the grid, one to sigma = 0 included. The raised level may lie above t_max
    for the EDM process, as in the algorithm; for other processes, whose networks know no such time,
    churn stops at t_max. Elsewhere: k-diffusion `sample_heun`.

    Arguments:
        s_churn: S_churn, the total churn; None lets it follow from eta.
        gamma: the relative raise of the noise in each step, instead of S_churn/N; it is not cut at
            sqrt2 - 1.
        s_min, s_max: churn only where sigma/alpha lies in this range.
        range_by: which end of a step decides whether it is in the range: its "start" (s_min and
            s_max included), or its "stop" (above s_min).
        s_noise: factor of the churn noise; 1 keeps the distribution, the paper uses up to 1.007
            against lost detail.
        step_scale: factor of the whole step down, the last one to sigma = 0 included; 1 is the ODE.
    """

    name = "edm-heun"
    evaluations_per_step = 2
    weak_order = 2.0
    reference = "Karras et al. 2022 (arXiv 2206.00364), algorithm 2"
    advice = "two calls, order 2, single step; EDM's churn"

    def _down(self, draft: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
        return heun(draft, u, start, stop)


@register_solver
@attrs.frozen(kw_only=True)
class EDMEuler(_Churned):
    """`edm-euler`: churn up, Euler down; k-diffusion's "euler" (at eta = 0 the deterministic DDIM).

    One network call per step, at the raised level; weak order 1. gamma as in `edm-heun`,
    u' = u^ + (r' - r^) d^. Elsewhere: k-diffusion `sample_euler`; diffusers
    `EulerDiscreteScheduler`.

    Arguments:
        s_churn, gamma, s_min, s_max, range_by, s_noise, step_scale: as in `edm-heun`.
    """

    name = "edm-euler"
    weak_order = 1.0
    reference = "k-diffusion 0.1.1, sample_euler; Karras et al. 2022 (arXiv 2206.00364)"
    advice = "one call, order 1, with EDM's churn"

    def _down(self, draft: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
        return euler(draft, u, start, stop)


@register_solver
@attrs.frozen(kw_only=True)
class EDMDPM2(_Churned):
    """`edm-dpm2`: churn up, the midpoint method of `dpm2` down.

    Two network calls per step, the first one at the raised level; weak order 2. gamma as in
    `edm-heun`, the middle at sqrt(r^ r'). Elsewhere: k-diffusion `sample_dpm_2`.

    Arguments:
        s_churn, gamma, s_min, s_max, range_by, s_noise, step_scale: as in `edm-heun`.
    """

    name = "edm-dpm2"
    evaluations_per_step = 2
    weak_order = 2.0
    reference = "k-diffusion 0.1.1, sample_dpm_2; Karras et al. 2022 (arXiv 2206.00364)"
    advice = "two calls, order 2, single step, with EDM's churn"

    def _down(self, draft: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
        return midpoint(draft, u, start, stop)


@register_solver
@attrs.frozen(kw_only=True)
class EDMDPMpp2S(_Churned):
    r"""`edm-dpmpp-2s`: churn up, DPM-Solver++(2S) in data form down.

    Two network calls per step, the first one at the raised level; weak order 2. gamma as in
    `edm-heun`; with H = log(r^/r') and D_m the denoiser at the middle sqrt(r^ r'):

    $$
    u_m = e^{-H/2} \hat u + (1 - e^{-H/2}) \hat D, \qquad
    u' = e^{-H} \hat u + (1 - e^{-H}) D_m
    $$

    At eta = 0 it is `dpmpp-2s-ancestral` at eta = 0, DPM-Solver++(2S). A step to sigma = 0 is the
    denoiser.

    Arguments:
        s_churn, gamma, s_min, s_max, range_by, s_noise, step_scale: as in `edm-heun`.
    """

    name = "edm-dpmpp-2s"
    evaluations_per_step = 2
    weak_order = 2.0
    reference = (
        "Price et al. 2023, GenCast (arXiv 2312.15796); Lu et al. 2022 (arXiv 2211.01095); Karras "
        "et al. 2022 (arXiv 2206.00364)"
    )
    advice = "two calls, order 2, single step, data form, with EDM's churn"

    def _down(self, draft: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
        return data_midpoint(draft, u, start, stop)


@register_solver
@attrs.frozen(kw_only=True)
class Boltz1(EDMEuler):
    """`boltz1`: the sampler of AlphaFold 3 as Boltz-1 runs it.

    `edm-euler` with gamma = 0.605 in steps that end above sigma = 1.107, churn noise times 0.901,
    steps times 1.638. Sigmas are in the units of the coordinates (angstrom): on `srk.EDM`, from
    160 sigma_data to 4e-4 sigma_data with rho = 7 and sigma_data = 16, then 0. It samples at a
    lower temperature than the data's, so that it has no order.

    Arguments:
        s_churn, gamma, s_min, s_max, range_by, s_noise, step_scale: as in `edm-heun`.
    """

    name = "boltz1"
    weak_order = None  # type: ignore[assignment]  # it has another temperature
    reference = (
        "Wohlwend et al. 2024, Boltz-1 (doi 10.1101/2024.11.19.624167); Abramson et al. 2024, "
        "AlphaFold 3, algorithm 18 (doi 10.1038/s41586-024-07487-w)"
    )
    advice = "structure prediction: one call, churn by the end of the step, long steps"

    gamma: float | None = 0.605
    s_min: float = 1.107
    range_by: Literal["start", "stop"] = "stop"
    s_noise: float = 0.901
    step_scale: float = 1.638


@register_solver
@attrs.frozen(kw_only=True)
class Boltz2(EDMEuler):
    """`boltz2`: the sampler of AlphaFold 3 as Boltz-2 runs it.

    `edm-euler` with gamma = 0.8 in steps that end above sigma = 1, churn noise times 1.003, steps
    times 1.5. Levels and units as in `boltz1`.

    Arguments:
        s_churn, gamma, s_min, s_max, range_by, s_noise, step_scale: as in `edm-heun`.
    """

    name = "boltz2"
    weak_order = None  # type: ignore[assignment]  # it has another temperature
    reference = (
        "Passaro et al. 2025, Boltz-2 (doi 10.1101/2025.06.14.659707); Abramson et al. 2024, "
        "AlphaFold 3, algorithm 18 (doi 10.1038/s41586-024-07487-w)"
    )
    advice = "structure prediction: one call, churn by the end of the step, long steps"

    gamma: float | None = 0.8
    s_min: float = 1.0
    range_by: Literal["start", "stop"] = "stop"
    s_noise: float = 1.003
    step_scale: float = 1.5


@register_solver
@attrs.frozen(kw_only=True)
class Chai1(EDMHeun):
    """`chai1`: EDM's stochastic sampler with the settings of Chai-1.

    `edm-heun` with S_churn = 80 between sigma = 4e-4 and 80 and churn noise times 1.003; gamma is
    min(80/N, sqrt2 - 1) by the level at the start of a step.

    Arguments:
        s_churn, gamma, s_min, s_max, range_by, s_noise, step_scale: as in `edm-heun`.
    """

    name = "chai1"
    weak_order = None  # type: ignore[assignment]  # it has another temperature
    reference = (
        "Chai Discovery 2024, Chai-1 (doi 10.1101/2024.10.10.615955); Karras et al. 2022 (arXiv "
        "2206.00364), algorithm 2"
    )
    advice = "structure prediction: two calls, EDM's churn"

    s_churn: float | None = 80.0
    s_min: float = 4e-4
    s_max: float = 80.0
    s_noise: float = 1.003


@register_solver
@attrs.frozen(kw_only=True)
class GenCast(EDMDPMpp2S):
    """`gencast`: the sampler of the weather model GenCast.

    `edm-dpmpp-2s` with S_churn = 2.5 in steps that start at sigma = 0.75 or above and churn noise
    times 1.05. GenCast takes 20 levels from sigma = 80 to 0.03 with rho = 7, then 0, where the
    denoiser is returned; its noise is white on the sphere (a noise source of your own).

    Arguments:
        s_churn, gamma, s_min, s_max, range_by, s_noise, step_scale: as in `edm-heun`.
    """

    name = "gencast"
    weak_order = None  # type: ignore[assignment]  # it has another temperature
    reference = (
        "Price et al. 2023, GenCast (arXiv 2312.15796); Lu et al. 2022 (arXiv 2211.01095); Karras "
        "et al. 2022 (arXiv 2206.00364)"
    )
    advice = "weather: two calls, data form, EDM's churn at high noise"

    s_churn: float | None = 2.5
    s_min: float = 0.75
    s_noise: float = 1.05
