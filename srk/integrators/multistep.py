r"""Multistep methods of the DPM-Solver++ family: one network call a step, the denoiser extrapolated through earlier ones.

With h the step in the half log-SNR, h1 and h2 the two steps before, a = 1 + eta^2, u = x/alpha, r = sigma/alpha:

    u' = e^{-ah} u + psi_0 D + psi_1 d_1 + psi_2 d_2 + r' sqrt(1 - e^{-2 eta^2 h}) z        psi_k = psi_k(ah), see `phi`

where D + d_1 t + d_2 t^2, t the fraction of the step, passes through the denoisers at the starts of this step and of the ones before.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs

from srk.integrators.base import Integrator
from srk.plans.form import ZERO, LinearForm
from srk.plans.gauge import GaugeStep
from srk.plans.history import usable_for_denoiser
from srk.plans.phi import psi
from srk.plans.plan import StepPlan
from srk.plans.step import Draft, Step


class _Multistep(Integrator):
    """What the family shares: the exponential Euler step, a correction from earlier denoisers, and what is kept of them."""

    _depth: ClassVar[int] = 2

    def plan(self, step: Step) -> StepPlan:
        gauge = GaugeStep(step.start, step.stop, 0.0, step.eta)
        board = step.draft(gauge.clock)
        node = board.evaluate(board.state, step.start)
        # what the steps before kept is the denoiser at their start; the note is the half log-SNR there
        history = [(node.value, step.start.lam)] + [
            (board.memory(i), lam) for i, lam in enumerate(step.memory)
        ]
        used = [
            history[i]
            for i in usable_for_denoiser(step, [lam for _, lam in history], name=self.name)
        ]
        ah = (1.0 + step.eta**2) * step.h
        new = (
            gauge.carry(board.state, node.value, step.stop)
            + self._correction(used, step.h, ah) * step.stop.alpha
        )
        return board.finish(new + _noise(board, gauge), keep=history[: self._depth - 1])

    def _correction(
        self, history: list[tuple[LinearForm, float]], h: float, ah: float
    ) -> LinearForm:
        raise NotImplementedError


def _noise(board: Draft, gauge: GaugeStep) -> LinearForm:
    return board.normal(*gauge.interval) * gauge.noise_std(gauge.stop)


@attrs.frozen(kw_only=True)
class _Line(_Multistep):
    """The line through two denoisers, in the two ways of the DPM-Solver++ code."""

    variant: Literal["midpoint", "heun"] = attrs.field(
        default="midpoint", validator=attrs.validators.in_(("midpoint", "heun"))
    )

    def _correction(
        self, history: list[tuple[LinearForm, float]], h: float, ah: float
    ) -> LinearForm:
        if len(history) < 2:
            return ZERO
        (d, lam), (d1, lam1) = history
        weight = 0.5 * psi(0, ah) if self.variant == "midpoint" else psi(1, ah)
        return (d - d1) * (weight * h / (lam - lam1))


@attrs.frozen(kw_only=True)
class DPMpp2MSDE(_Line):
    """`dpmpp-2m-sde`: DPM-Solver++(2M) SDE, the second-order multistep method of k-diffusion.

    One network call per step, weak order 2, strong order 1. With D1 the denoiser of the step before and h1 its length, the correction to
    exponential Euler is

        "midpoint"  (1/2) psi_0 (h/h1) (D - D1)            "heun"  psi_1 (h/h1) (D - D1)

    The first step, and one after a step from alpha = 0, is `ddpm`. At eta = 0 it is `dpmpp-2m`. Elsewhere: k-diffusion
    `sample_dpmpp_2m_sde`, whose eta is our eta^2 (so that 0 and 1 are the same); diffusers
    `DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=2)` at eta = 1.

    Arguments:
        variant: "midpoint" or "heun", k-diffusion's solver_type.
    """

    name = "dpmpp-2m-sde"
    strong_order = 1.0
    weak_order = 2.0
    reference = "Lu et al. 2022 (arXiv 2211.01095); k-diffusion 0.1.1, sample_dpmpp_2m_sde"
    advice = "one call, order 2; the most used stochastic sampler of image models"


@attrs.frozen(kw_only=True)
class DPMpp2M(_Line):
    """`dpmpp-2m`: DPM-Solver++(2M), `dpmpp-2m-sde` for the probability-flow ODE (eta = 0).

    One network call per step, order 2. In the variant "midpoint", u' = e^{-h} u + (1 - e^{-h}) (D + (h/(2 h1)) (D - D1)). Elsewhere:
    k-diffusion `sample_dpmpp_2m`; diffusers `DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2)`.

    Arguments:
        variant: "midpoint" or "heun".
    """

    name = "dpmpp-2m"
    weak_order = 2.0
    eta_range = (0.0, 0.0)
    reference = "Lu et al. 2022 (arXiv 2211.01095), algorithm 2; k-diffusion 0.1.1, sample_dpmpp_2m"
    advice = "ODE, one call, order 2; the usual deterministic sampler of image models"


class _Quadratic(_Multistep):
    """The quadratic through three denoisers; `_curvature` is the factor of its second-order term, 1 where it is integrated exactly."""

    _depth = 3
    _curvature: ClassVar[float] = 1.0

    def _correction(
        self, history: list[tuple[LinearForm, float]], h: float, ah: float
    ) -> LinearForm:
        if len(history) < 2:
            return ZERO
        (d, lam), (d1, lam1) = history[:2]
        slope = (d - d1) * (h / (lam - lam1))
        if len(history) < 3:
            return slope * psi(1, ah)
        d2, lam2 = history[2]
        before = (d1 - d2) * (h / (lam1 - lam2))
        bend = (slope - before) * (h / (lam - lam2))  # h^2 times the second divided difference
        return (slope + bend * ((lam - lam1) / h)) * psi(1, ah) + bend * (
            self._curvature * psi(2, ah)
        )


@attrs.frozen(kw_only=True)
class DPMpp3MSDE(_Quadratic):
    """`dpmpp-3m-sde`: DPM-Solver++(3M) SDE as k-diffusion ships it, with its second-order term HALF of what it should be.

    One network call per step, weak order 2, strong order 1. Integrating the quadratic through the last three denoisers would add
    psi_1 d_1 + psi_2 d_2; the code adds psi_1 d_1 + (1/2) psi_2 d_2, because it takes the second divided difference for the second
    derivative, which is twice that. `dpmpp-3m-sde-corrected` has the full term. The first step is `ddpm`, the second `dpmpp-2m-sde` in the
    variant "heun". Elsewhere: k-diffusion `sample_dpmpp_3m_sde`, whose eta is our eta^2.
    """

    name = "dpmpp-3m-sde"
    strong_order = 1.0
    weak_order = 2.0
    reference = "k-diffusion 0.1.1, sample_dpmpp_3m_sde, after Lu et al. 2022 (arXiv 2211.01095)"
    advice = "one call, order 2; more accurate than dpmpp-2m-sde from some 40 steps on, much less below 15"

    _curvature = 0.5


@attrs.frozen(kw_only=True)
class DPMpp3MSDECorrected(_Quadratic):
    """`dpmpp-3m-sde-corrected`: `dpmpp-3m-sde` with the second-order term that integrates a quadratic denoiser exactly.

    One network call per step, weak order 2 (the noise allows no more), strong order 1. The correction to exponential Euler is
    psi_1 d_1 + psi_2 d_2. At eta = 0 it is of order 3 but for its first two steps, which show only where the run starts at a noise level
    that already carries information. No other package has it.
    """

    name = "dpmpp-3m-sde-corrected"
    strong_order = 1.0
    weak_order = 2.0
    reference = "srk; the quadratic of Lu et al. 2022 (arXiv 2211.01095) integrated exactly"
    advice = "one call, order 2; dpmpp-3m-sde without its error, more accurate than dpmpp-2m-sde from some 30 steps on"


@attrs.frozen(kw_only=True)
class DPMpp3M(_Quadratic):
    """`dpmpp-3m`: DPM-Solver++(3M) for the probability-flow ODE (eta = 0), as its authors and diffusers ship it: `dpmpp-3m-sde` at eta = 0.

    One network call per step, order 2, not 3: the second-order term is half of what it should be (see `dpmpp-3m-sde`);
    `dpmpp-3m-sde-corrected` at eta = 0 has the full term. Elsewhere: k-diffusion `sample_dpmpp_3m_sde(eta=0)`; diffusers
    `DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=3)`, with solver_type="heun" for the same second step.
    """

    name = "dpmpp-3m"
    weak_order = 2.0
    eta_range = (0.0, 0.0)
    reference = "Lu et al. 2022 (arXiv 2211.01095), multistep third order as in their code"
    advice = "ODE, one call, order 2; more accurate than dpmpp-2m from some 15 steps on"

    _curvature = 0.5
