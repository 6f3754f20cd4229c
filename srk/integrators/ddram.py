"""DDRaM: the randomized midpoint for denoising diffusion."""

from __future__ import annotations

import math
from typing import Any, Literal

import attrs
import numpy as np

from srk._checks import is_integer
from srk._fields import in_
from srk.errors import ArgumentTypeError
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.carried_noise import noise_path
from srk.plans.gauge import GaugeStep
from srk.plans.ou import ou_step, preserving_score
from srk.plans.phi import psi
from srk.plans.plan import StepPlan
from srk.plans.step import Step
from srk.processes.base import Level


def _seed(value: Any) -> int | None:
    if value is not None and (not is_integer(value) or value < 0):
        raise ArgumentTypeError(
            f"seed must be an int >= 0, or None for a midpoint that is not random, not {value!r}"
        )
    return None if value is None else int(value)


@register_solver
@attrs.frozen(kw_only=True)
class DDRaM(Integrator):
    r"""`ddram`: the denoising diffusion randomized midpoint method.

    It is exponential Euler through a stage at a random point of the step.

    Two network calls per step, strong order 1. The stage lies at a random elapsed time tau whose
    density is the kernel of the exact drift, so that the update is right on average; z1 and z2 are
    the noise before and after the stage. Two frames, with a = 1 + eta^2: in "score", Y is x in the
    variance-preserving scale and d the step in Ornstein-Uhlenbeck time; in "data", u = x/alpha and
    h is the step in half log-SNR.

    "score", the published frame, has the density of e^{-tau} on [0, d]:

    $$
    \begin{aligned}
    Y_m &= e^\tau Y + a\, (e^\tau - 1)\, s(Y) + \eta \sqrt{e^{2\tau} - 1}\; z_1 \\
    Y' &= e^d Y + a\, (e^d - 1)\, s(Y_m) + \eta\, e^{d - \tau} \sqrt{e^{2\tau} - 1}\; z_1
        + \eta \sqrt{e^{2(d - \tau)} - 1}\; z_2
    \end{aligned}
    $$

    "data" has the density of e^{-a(h - tau)} on [0, h], with N the noise of the linear SDE:

    $$
    \begin{aligned}
    U_m &= e^{-a\tau} u + (1 - e^{-a\tau}) D + N_\tau \\
    u' &= e^{-ah} u + (1 - e^{-ah}) D(U_m) + N_h
    \end{aligned}
    $$

    An integrator plans numbers, so tau is a number of the step: it comes from `seed` and the index
    of the step, the same for all samples of a run and for all runs of one object. For places that
    differ by run, pass the run's seed here too. seed=None puts the stage at the
    mean of the density: a deterministic midpoint, in the frame "data" of weak order 2.

    Arguments:
        frame: "score" or "data": what is frozen.
        seed: seed of the random places, or None for the mean place.
    """

    name = "ddram"
    evaluations_per_step = 2
    strong_order = 1.0
    reference = (
        "Zhang, Huan, Huang, Boffi, Chen, Chewi 2025, Sublinear iterations can suffice even "
        "for DDPMs (arXiv 2511.04844)"
    )
    advice = "two calls; for its theory: seeds-2 and srk2s are more accurate"

    frame: Literal["score", "data"] = attrs.field(default="score", validator=in_(("score", "data")))
    seed: int | None = attrs.field(default=0, converter=_seed)

    def _fraction(self, index: int, x: float) -> float:
        """A place in [0, 1], of density proportional to e^{-x place}: random, or its mean."""
        if self.seed is None:
            return 1.0 - psi(1, x) / psi(0, x)
        uniform = float(np.random.default_rng([self.seed, index]).random())
        return -math.log1p(-uniform * psi(0, x)) / x

    def plan(self, step: Step) -> StepPlan:
        return self._score(step) if self.frame == "score" else self._data(step)

    def _score(self, step: Step) -> StepPlan:
        start, stop, eta = step.start, step.stop, step.eta
        d = ou_step(start, stop)
        tau = self._fraction(step.index, d) * d
        r1 = (
            stop.r**2
        )  # 1 + r^2 = e^{2 t} in Ornstein-Uhlenbeck time t; the stage is d - tau before the end
        middle: Level = step.process.level_at(
            -0.5 * math.log(r1 + (1.0 + r1) * math.expm1(2.0 * (d - tau)))
        )
        draft = step.draft("gauge(inf,1)")
        first = draft.evaluate(draft.state, start)
        # In u = x/alpha = e^t Y nothing decays: the growth is that of Y alone, and noise keeps its
        # size
        u = draft.state / start.alpha
        z1, z2 = (
            draft.normal(-(start.r**2), -(middle.r**2)),
            draft.normal(-(middle.r**2), -(stop.r**2)),
        )
        before = z1 * (eta * middle.r * math.sqrt(math.expm1(2.0 * (middle.lam - start.lam))))
        after = z2 * (eta * stop.r * math.sqrt(math.expm1(2.0 * (stop.lam - middle.lam))))
        rise = (
            (1.0 + eta**2) / middle.alpha * math.hypot(middle.alpha, middle.sigma) * math.expm1(tau)
        )
        node = draft.evaluate(
            (u + preserving_score(first, start) * rise + before) * middle.alpha, middle
        )
        rise = (1.0 + eta**2) / stop.alpha * math.hypot(stop.alpha, stop.sigma) * math.expm1(d)
        return draft.finish(
            (u + preserving_score(node, middle) * rise + before + after) * stop.alpha
        )

    def _data(self, step: Step) -> StepPlan:
        start, stop = step.start, step.stop
        x = (1.0 + step.eta**2) * step.h
        part = x * (1.0 - self._fraction(step.index, x))
        level: Level = step.process.level_at(start.lam + part / (1.0 + step.eta**2))
        draft = step.draft(GaugeStep(start, stop, 0.0, step.eta).clock)
        noise = noise_path(draft, step)
        first = draft.evaluate(draft.state, start)
        u = draft.state / start.alpha
        node = draft.evaluate(
            (u * math.exp(-part) + first.value * psi(0, part) + noise(level)) * level.alpha, level
        )
        return draft.finish((u * math.exp(-x) + node.value * psi(0, x) + noise(stop)) * stop.alpha)
