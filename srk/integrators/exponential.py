"""Exponential Euler in its frames (DDPM), and the exponential SRA1 scheme."""

from __future__ import annotations

import math
from typing import Literal

import attrs
import numpy as np

from srk.integrators.base import Integrator
from srk.plans.exponential import exponential_step
from srk.plans.gauge import GaugeStep
from srk.plans.ou import ou_time
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@attrs.frozen(kw_only=True)
class DDPM(Integrator):
    """`ddpm`: exponential Euler, the linear part of the reverse SDE exact and the network frozen over the step.

    One network call per step, weak order 1, strong order 1. What is frozen is the frame:

    - "data" (default): the denoiser D. eta = 1 is DDPM ancestral sampling, eta = 0 is DDIM;
      u' = e^{-ah} u + (1 - e^{-ah}) D + r1 sqrt(1 - e^{-2 eta^2 h}) z with u = x/alpha, a = 1 + eta^2.
    - "noise": eps = (x - alpha D)/sigma (DPM-Solver's form); u' = u - a (r0 - r1) eps + eta sqrt(r0^2 - r1^2) z.
    - "score": the score s itself, in the variance-preserving scale and the Ornstein-Uhlenbeck clock (the textbook exponential integrator);
      Y' = e^d Y + (1 + eta^2)(e^d - 1) s + eta sqrt(e^{2d} - 1) z.

    At eta = 0 all frames are first-order solvers of the probability-flow ODE; "data" and "noise" are then both DDIM.

    Arguments:
        frame: what is frozen: "data", "noise" or "score".
    """

    name = "ddpm"
    strong_order = 1.0
    weak_order = 1.0
    infinite_noise = True
    reference = (
        "Ho et al. 2020 (arXiv 2006.11239), eq. 7; Song et al. 2021 (arXiv 2010.02502) for eta"
    )
    advice = "the baseline: robust, one call, order 1"

    frame: Literal["data", "noise", "score"] = attrs.field(
        default="data", validator=attrs.validators.in_(("data", "noise", "score"))
    )

    def plan(self, step: Step) -> StepPlan:
        start, stop, eta = step.start, step.stop, step.eta
        if self.frame == "data" or start.alpha == 0.0:
            return exponential_step(step)
        a = 1.0 + eta**2
        r0, r1 = start.r, stop.r
        board = step.draft("gauge(inf,1)")
        node = board.evaluate(board.state, start)
        noise = board.normal(-(r0**2), -(r1**2)) * (
            stop.alpha * eta * r1 * math.sqrt(math.expm1(2.0 * step.h))
        )
        carried = node.x * (stop.alpha / start.alpha)
        if self.frame == "noise":
            eps = (node.x - node.value * start.alpha) / start.sigma
            return board.finish(carried - eps * (stop.alpha * a * r1 * math.expm1(step.h)) + noise)
        # The score of y = x/sqrt(alpha^2 + sigma^2) is sqrt(alpha^2 + sigma^2) s
        scale0, scale1 = math.hypot(start.alpha, start.sigma), math.hypot(stop.alpha, stop.sigma)
        score = (node.value * start.alpha - node.x) * (scale0 / start.sigma**2)
        d = ou_time(start) - ou_time(stop)
        return board.finish(carried + score * (scale1 * a * math.expm1(d)) + noise)


@attrs.frozen(kw_only=True)
class ETDSRA1(Integrator):
    """`etd-sra1`: SRA1 with the linear part exact, in the half log-SNR.

    Two network calls per step, strong order 1.5, weak order 2 (eta = 1). With a = 1 + eta^2, p1 = 1 - e^{-ah}, p2 = h - p1/a, the noise M of the step
    and Z = int a e^{-a(h - t)} M_t dt, jointly Gaussian, and node c:

        b = p2/(c h),    Xc = e^{-ach} u + (1 - e^{-ach}) D + Z/b,    u' = e^{-ah} u + p1 D + b (D(Xc) - D) + M

    Arguments:
        node: c, the place of the stage in the half log-SNR, in (0, 1].
    """

    name = "etd-sra1"
    evaluations_per_step = 2
    strong_order = 1.5
    weak_order = 2.0
    reference = "Roessler 2010, SRA1, in exponential (Lawson/ETD) form; srk docs: The mathematics"
    advice = "two calls, strong order 1.5 without a gauge; srk2s is more accurate"

    node: float = attrs.field(
        default=0.75, validator=[attrs.validators.gt(0.0), attrs.validators.le(1.0)]
    )

    def plan(self, step: Step) -> StepPlan:
        start, stop, eta, h, c = step.start, step.stop, step.eta, step.h, self.node
        a = 1.0 + eta**2
        level = stop if c == 1.0 else step.process.level_at(start.lam + c * h)
        gauge = GaugeStep(start, stop, 0.0, eta)
        board = step.draft(gauge.clock)
        first = board.evaluate(board.state, start)
        p1 = -math.expm1(-a * h)
        b = _phi2(a * h) / c
        t0, t1 = gauge.interval
        if eta > 0.0:

            def lag(t: np.ndarray) -> np.ndarray:
                # h - (lam - lam0) as a function of the clock T; log(s) is -2 lam
                return 0.5 * gauge.log_noise(t)

            # both integrals are in units of u at the end of the step
            m, z = board.functionals(t0, t1, [lambda t: np.ones_like(t), lambda t: a * lag(t)])
            std = gauge.noise_std(stop) / stop.alpha / math.sqrt(t1 - t0)
            m, z = m * std, z * std
        else:
            m = z = board.state * 0.0
        u = board.state / start.alpha
        node = board.evaluate(
            (u * math.exp(-a * c * h) - first.value * math.expm1(-a * c * h) + z / b) * level.alpha,
            level,
        )
        new = u * math.exp(-a * h) + first.value * p1 + (node.value - first.value) * b + m
        return board.finish(new * stop.alpha)


def _phi2(x: float) -> float:
    """(1/h) p2 = 1 - (1 - e^{-x})/x, without cancellation."""
    if x < 1e-2:
        return x / 2 - x**2 / 6 + x**3 / 24 - x**4 / 120 + x**5 / 720 - x**6 / 5040
    return 1.0 + math.expm1(-x) / x
