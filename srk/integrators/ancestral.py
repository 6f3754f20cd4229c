"""Ancestral methods: a step of the ODE to a level below the end of the step, and noise back up to it."""

from __future__ import annotations

import math

import attrs

from srk.integrators.base import Integrator
from srk.plans.ancestral import ancestral_noise, ancestral_step
from srk.plans.gauge import GaugeStep
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@attrs.frozen(kw_only=True)
class EulerAncestral(Integrator):
    """`euler-ancestral`: Euler down, noise up. At eta = 1 it is DDPM; for eta <= 1 it is `ddim` under k-diffusion's name.

    One network call per step, weak order 1, strong order 1.

        u' = e^{-H} u + (1 - e^{-H}) D + r_up z

    Elsewhere: k-diffusion `sample_euler_ancestral` with the same eta (for eta > 1, r_up is cut at r' as there); diffusers
    `EulerAncestralDiscreteScheduler` at eta = 1.
    """

    name = "euler-ancestral"
    strong_order = 1.0
    weak_order = 1.0
    infinite_noise = True
    reference = "k-diffusion 0.1.1, sample_euler_ancestral"
    advice = "one call, order 1; ddpm under another name"

    def plan(self, step: Step) -> StepPlan:
        start, stop = step.start, step.stop
        gauge = GaugeStep(start, stop, 0.0, step.eta)
        board = step.draft(gauge.clock)
        node = board.evaluate(board.state, start)
        H, up = ancestral_step(step.h, step.eta)
        down = math.sqrt(max(0.0, 1.0 - up**2)) if math.isinf(step.h) else math.exp(step.h - H)
        carried = board.state * (
            stop.sigma * down / start.sigma
        )  # e^{-H} alpha'/alpha, finite at alpha = 0
        return board.finish(
            carried - node.value * (stop.alpha * math.expm1(-H)) + ancestral_noise(board, gauge, up)
        )


@attrs.frozen(kw_only=True)
class DDIM(EulerAncestral):
    """`ddim`: the sampler of Song et al. 2021 with their eta, from the deterministic DDIM (0) to DDPM (1).

    One network call per step, weak order 1, strong order 1. In their notation, for a variance-preserving process,

        x' = alpha' D + sqrt(sigma'^2 - s^2) eps + s z        s = eta (sigma'/sigma) sqrt(1 - alpha^2/alpha'^2)

    which for any linear process is `euler-ancestral` with s = alpha' r_up. Between 0 and 1 the method `ddpm` at eta makes another, equally
    valid step: it solves srk's reverse SDE of that eta exactly with D frozen, where DDIM scales the standard deviation of the posterior;
    the two agree to first order in the step. From alpha = 0 it carries the noise on, as the formula says. Elsewhere: diffusers
    `DDIMScheduler(clip_sample=False)` with its eta.
    """

    name = "ddim"
    eta_range = (0.0, 1.0)
    reference = "Song et al. 2021 (arXiv 2010.02502), eq. 12 and 16"
    advice = "one call, order 1, with DDIM's eta; eta=0 is the deterministic baseline"


@attrs.frozen(kw_only=True)
class DPM2Ancestral(Integrator):
    """`dpm2-ancestral`: the midpoint method in log r (noise form) down, noise up.

    Two network calls per step, weak order 2, strong order 1. With m halfway between the start and r_down in the half log-SNR (at eta = 1
    the end of the step):

        u_m = e^{-H/2} u + (1 - e^{-H/2}) D,    u' = u + (r_down - r) (u_m - D_m)/r_m + r_up z

    For eta > 1 the midpoint would lie below the end of the step. Elsewhere: k-diffusion `sample_dpm_2_ancestral` with the same eta;
    diffusers `KDPM2AncestralDiscreteScheduler`.
    """

    name = "dpm2-ancestral"
    evaluations_per_step = 2
    strong_order = 1.0
    weak_order = 2.0
    eta_range = (0.0, 1.0)
    reference = "k-diffusion 0.1.1, sample_dpm_2_ancestral"
    advice = "two calls, order 2 at small steps only; dpmpp-2s-ancestral is more accurate"

    def plan(self, step: Step) -> StepPlan:
        return _ancestral_midpoint(step, data=False)


@attrs.frozen(kw_only=True)
class DPMpp2SAncestral(Integrator):
    """`dpmpp-2s-ancestral`: DPM-Solver++(2S), the midpoint method in log r (data form), down, noise up.

    Two network calls per step, weak order 2, strong order 1. With m halfway between the start and r_down in the half log-SNR (at eta = 1
    the end of the step):

        u_m = e^{-H/2} u + (1 - e^{-H/2}) D,    u' = e^{-H} u + (1 - e^{-H}) D_m + r_up z

    For eta > 1 the midpoint would lie below the end of the step. At eta = 0 it is DPM-Solver++(2S). Elsewhere: k-diffusion
    `sample_dpmpp_2s_ancestral` with the same eta.
    """

    name = "dpmpp-2s-ancestral"
    evaluations_per_step = 2
    strong_order = 1.0
    weak_order = 2.0
    eta_range = (0.0, 1.0)
    reference = "k-diffusion 0.1.1, sample_dpmpp_2s_ancestral, after Lu et al. 2022 (arXiv 2211.01095), algorithm 1"
    advice = "two calls, order 2, single step"

    def plan(self, step: Step) -> StepPlan:
        return _ancestral_midpoint(step, data=True)


def _ancestral_midpoint(step: Step, *, data: bool) -> StepPlan:
    """One step of either midpoint method: `data` freezes D at the midpoint, otherwise the noise (u - D)/r."""
    start, stop = step.start, step.stop
    gauge = GaugeStep(start, stop, 0.0, step.eta)
    board = step.draft(gauge.clock)
    H, up = ancestral_step(step.h, step.eta)
    first = board.evaluate(board.state, start)
    level = stop if step.eta == 1.0 else step.process.level_at(start.lam + 0.5 * H)
    u = board.state / start.alpha
    node = board.evaluate(
        (u * math.exp(-0.5 * H) - first.value * math.expm1(-0.5 * H)) * level.alpha, level
    )
    if data:
        down = u * math.exp(-H) - node.value * math.expm1(-H)
    else:
        down = u + (node.x / level.alpha - node.value) * (start.r * math.expm1(-H) / level.r)
    return board.finish(down * stop.alpha + ancestral_noise(board, gauge, up))
