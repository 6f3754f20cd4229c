"""SEEDS: single-step exponential Runge-Kutta methods for the reverse SDE."""

from __future__ import annotations

import math
from typing import Literal

import attrs

from srk._fields import gt, in_, le
from srk.errors import ArgumentError
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.carried_noise import noise_path
from srk.plans.form import LinearForm
from srk.plans.gauge import GaugeStep
from srk.plans.phi import psi
from srk.plans.plan import StepPlan
from srk.plans.step import Step


@register_solver
@attrs.frozen(kw_only=True)
class SEEDS2(Integrator):
    r"""`seeds-2`: two-stage exponential Runge-Kutta, data prediction.

    The noise of both sub-intervals is carried exactly.

    Two network calls per step, strong order 1, weak order 2. In u = x/alpha, with a = 1 + eta^2, N
    the noise of the linear SDE (one path through stage and update) and c the node in half log-SNR:

    $$
    \begin{aligned}
    U &= e^{-ach} u + (1 - e^{-ach}) D + N_c \\
    \texttt{phi1:}\quad u' &= e^{-ah} u
        + (1 - e^{-ah}) \Big[D + \frac{D(U) - D}{2c}\Big] + N_1 \\
    \texttt{phi2:}\quad u' &= e^{-ah} u + (1 - e^{-ah}) D
        + \Big(1 - \frac{1 - e^{-ah}}{ah}\Big) \frac{D(U) - D}{c} + N_1
    \end{aligned}
    $$

    With c = 1/2 and "phi1", D(U) carries the whole step. At eta = 0 it is DPM-Solver++(2S).
    ComfyUI's `seeds_2` has both weights, its eta is our eta^2; diffusers' single-step SDE variant
    draws the noise of the stage anew and is another, less accurate method.

    Arguments:
        node: c, in (0, 1].
        weights: "phi1" (the published method) or "phi2" (exact for D linear in the half log-SNR,
            some 7 times less KL on Gaussian data).
    """

    name = "seeds-2"
    strong_order = 1.0
    weak_order = 2.0
    evaluations_per_step = 2
    reference = "Gonzalez et al. 2023, SEEDS (arXiv 2305.14267), algorithm 2, in data prediction"
    advice = "two calls, order 2 without a gauge"

    node: float = attrs.field(default=0.5, validator=[gt(0.0), le(1.0)])
    weights: Literal["phi1", "phi2"] = attrs.field(default="phi1", validator=in_(("phi1", "phi2")))

    def plan(self, step: Step) -> StepPlan:
        start, stop, h, c = step.start, step.stop, step.h, self.node
        x = (1.0 + step.eta**2) * h
        level = stop if c == 1.0 else step.process.level_at(start.lam + c * h)
        draft = step.draft(GaugeStep(start, stop, 0.0, step.eta).clock)
        noise = noise_path(draft, step)
        first = draft.evaluate(draft.state, start)
        u = draft.state / start.alpha
        inner = noise(level)
        node = draft.evaluate(
            (u * math.exp(-c * x) + first.value * psi(0, c * x) + inner) * level.alpha, level
        )
        slope = 0.5 * psi(0, x) / c if self.weights == "phi1" else psi(1, x) / c
        end = inner if c == 1.0 else noise(stop)
        return draft.finish(
            (u * math.exp(-x) + first.value * psi(0, x) + (node.value - first.value) * slope + end)
            * stop.alpha
        )


@register_solver
@attrs.frozen(kw_only=True)
class SEEDS3(Integrator):
    r"""`seeds-3`: three-stage exponential Runge-Kutta, data prediction.

    The noise of the sub-intervals is carried exactly.

    Three network calls per step, strong order 1, weak order 2 (order 3 at eta = 0). In u = x/alpha,
    with a = 1 + eta^2, N the noise of the linear SDE (one path through all stages), phi1(x) = 1 -
    e^{-x}, phi2(x) = 1 - phi1(x)/x and nodes r1, r2 in half log-SNR:

    $$
    \begin{aligned}
    U_1 &= e^{-a r_1 h} u + \varphi_1(a r_1 h) D + N_{r_1} \\
    U_2 &= e^{-a r_2 h} u + \varphi_1(a r_2 h) D
        + \tfrac{r_2}{r_1} \varphi_2(a r_2 h) (D(U_1) - D) + N_{r_2} \\
    u' &= e^{-a h} u + \varphi_1(a h) D + \tfrac1{r_2} \varphi_2(a h) (D(U_2) - D) + N_1
    \end{aligned}
    $$

    At eta = 0 it is DPM-Solver-3 with the denoiser in place of the noise. The same as ComfyUI's
    `seeds_3`, whose eta is our eta^2.

    Arguments:
        nodes: (r1, r2), 0 < r1 < r2 < 1.
    """

    name = "seeds-3"
    strong_order = 1.0
    weak_order = 2.0
    evaluations_per_step = 3
    reference = "Gonzalez et al. 2023, SEEDS (arXiv 2305.14267), algorithm 3, in data prediction"
    advice = "three calls; order 3 without noise, where unipc-3 is cheaper"

    nodes: tuple[float, float] = attrs.field(default=(1.0 / 3.0, 2.0 / 3.0))

    @nodes.validator
    def _check_nodes(self, _field: object, value: tuple[float, float]) -> None:
        if len(value) != 2 or not 0.0 < value[0] < value[1] < 1.0:
            raise ArgumentError(f"nodes must be (r1, r2) with 0 < r1 < r2 < 1, not {value!r}")

    def plan(self, step: Step) -> StepPlan:
        start, stop, h = step.start, step.stop, step.h
        r1, r2 = self.nodes
        x = (1.0 + step.eta**2) * h
        one, two = (step.process.level_at(start.lam + r * h) for r in self.nodes)
        draft = step.draft(GaugeStep(start, stop, 0.0, step.eta).clock)
        noise = noise_path(draft, step)
        first = draft.evaluate(draft.state, start)
        u = draft.state / start.alpha

        def carried(part: float) -> LinearForm:
            return u * math.exp(-part) + first.value * psi(0, part)

        second = draft.evaluate((carried(r1 * x) + noise(one)) * one.alpha, one)
        rise = (second.value - first.value) * (r2 / r1 * psi(1, r2 * x))
        third = draft.evaluate((carried(r2 * x) + rise + noise(two)) * two.alpha, two)
        return draft.finish(
            (carried(x) + (third.value - first.value) * (psi(1, x) / r2) + noise(stop)) * stop.alpha
        )
