r"""Exponential Adams methods with one network call per step: predict, evaluate, correct with that.

The state that a step hands on is the predicted one. The next step evaluates D there, and only then
corrects the state:

    xp' = (alpha'/alpha) e^{-ah} x + alpha' sum_j w_j D_j + sigma' sqrt(1 - e^{-2 tau^2 h}) z
    x'  = the same with D(xp') among the D_j, and the same z

where the D_j belong to this step's start and to earlier ones. Kept for that are the part of the
update without the D_j, then the past D_j. The first steps use as many D_j as there are.

In a gauge v > 0 (see `gauge`) it is the same with R in place of D: R is 0 for N(0, v) data, where D
is not, and the factors of x and of R are those of the gauge, so that such data are solved exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np

from srk.plans.form import ZERO, LinearForm, row_of
from srk.plans.gauge import GaugeStep, remainder
from srk.plans.history import usable, warn_of_long_step
from srk.plans.lagrange import exponential_weights, gauge_weights
from srk.plans.plan import Notes, StepPlan
from srk.plans.step import Step
from srk.processes.base import Level

FAR = 1e6
"""Noise over the variance of the gauge, squared levels, from which on R is that of infinite noise:
it differs from that by some thousandth of the deviation of the data."""
NEAREST = 0.5
"""Half log-SNR between that level and the next at which they are two places of a polynomial."""

#: (places in half log-SNR from the start of the step, h, rate a) -> weights of D there.
Weights = Callable[[Sequence[float], float, float], list[float]]


@attrs.frozen(slots=True)
class Carried:
    """What a corrector must know of the step before.

    Where it started and the rate a = 1 + tau^2 that it used.
    """

    start: Level
    rate: float


def adams_step(
    step: Step,
    tau: float,
    predictor: int,
    corrector: int,
    weights: tuple[Weights, Weights] | None = None,
    name: str = "",
    variance: float = 0.0,
    response: Callable[[Level], float] | None = None,
) -> StepPlan:
    """One step of a predictor and a corrector for du = a (D - u) dlam + tau sqrt2 r dW.

    Arguments:
        step: the step.
        tau: the stochasticity of this step, which may be another at the next; a = 1 + tau^2.
        predictor: order of the predictor, the number of its nodes.
        corrector: order of the corrector; 0 for none.
        weights: of D for predictor and corrector, where they are not those of the exact integral.
            The predictor's places are this step's start, 0, then earlier ones; the corrector's are
            the step's end, h, then its start, 0, then earlier ones.
        name: of the solver, for warnings.
        variance: v of the gauge; 0 for none. With it `weights` are those of the exact integral.
        response: with a gauge, how far D follows the state at a level, dD/du. It carries R from the
            predicted state, where it was evaluated, to the corrected one, in later steps too; None
            leaves R as it was evaluated.
    """
    start, stop = step.start, step.stop
    p, c = predictor, corrector
    whole, later = weights or (None, None)
    gauge = GaugeStep(start, stop, variance, tau)
    draft = step.draft(gauge.clock)
    node = draft.evaluate(draft.state, start)
    value = remainder(start, variance, node.x, node.value) if variance > 0.0 else node.value
    lams: list[float] = [start.lam]
    values: list[LinearForm] = [value]
    x = draft.state
    if step.memory:
        first = 1 if c else 0  # the row of the carried part comes before those of the past D_j
        lams += step.memory[first:]
        values += [draft.memory(i) for i in range(first, len(step.memory))]
        carried: Carried | None = step.memory[0] if c else None
        given = None
        if carried is not None:
            before = GaugeStep(carried.start, start, variance, math.sqrt(carried.rate - 1.0))
            if math.isfinite(carried.start.lam):
                places = [lam - carried.start.lam for lam in lams[:c]]
                used = usable(step, places, places[0], before.eta, corrects=True)
                given = _weights([places[i] for i in used], before, carried.rate, later)
            elif c > 1 and len(lams) > 1:
                used, given = [0, 1], _from_infinity(lams, before, step.process)
        if given is not None:
            x = draft.memory(0) + start.alpha * _dot(given, [values[i] for i in used])
            if response is not None:
                n = variance * start.alpha**2 + start.sigma**2
                change = n * response(start) - variance * start.alpha**2
                values[0] = value + (x - draft.state) * (change / start.sigma**2 / start.alpha)
    places = [lam - start.lam if i else 0.0 for i, lam in enumerate(lams[:p])]
    used = usable(step, places, step.h, tau, corrects=c > 0)
    places = [places[i] for i in used]
    warn_of_long_step(step, places, tau, name)
    rate = 1.0 + tau**2
    if variance > 0.0 or start.alpha == 0.0:
        base = gauge.carry(x, ZERO, stop)
    else:
        base = x * (stop.alpha / start.alpha * math.exp(-rate * step.h))
    if tau > 0.0:
        base = base + draft.normal(*gauge.interval) * gauge.noise_std(stop)
    new = base + stop.alpha * _dot(_weights(places, gauge, rate, whole), [values[i] for i in used])
    keep = [(base, Carried(start, rate))] if c else []
    if math.isinf(start.lam) and variance > 0.0:
        far = -0.5 * math.log(FAR * variance)
        lams[0] = far if far < stop.lam - NEAREST else start.lam
    # what is at infinite noise is no place of a polynomial
    past = [(v, lam) for v, lam in zip(values, lams, strict=True) if math.isfinite(lam)]
    return draft.finish(new, keep=[*keep, *past[: max(p, c) - 1]])


def _from_infinity(lams: Sequence[float], before: GaugeStep, process: Any) -> list[float]:
    """The corrector's weights of a step from infinite noise: of R at its end, and of that at its
    start, which stands for all noise above the level `lams[1]`.
    """
    far = GaugeStep(process.level_at(lams[1]), before.stop, before.v, before.eta)
    own, other = gauge_weights([lams[0] - lams[1], 0.0], far)
    return [own, other + gauge_weights([0.0], before)[0] - gauge_weights([0.0], far)[0]]


def denoised_end(plan: StepPlan, variance: float) -> StepPlan:
    """The last step of a run to the denoiser at its end, in place of the state there.

    D = (s R + v u)/(s + v) with s = (sigma/alpha)^2 and u = x/alpha at the end; R is on the
    line through its last two values, and what that gets wrong counts as s/(s + v).

    Arguments:
        plan: of `adams_step`, in the gauge `variance` > 0, with a corrector or without.
        variance: v of the gauge.
    """
    end, v = plan.stop, variance
    s = (end.sigma / end.alpha) ** 2
    notes = plan.notes
    assert isinstance(notes, Notes)
    known = [
        (lam, LinearForm(dict(row)) * factor)
        for lam, row, factor in zip(notes, plan.keep, notes.factors, strict=True)
        if not isinstance(lam, Carried)
    ][:2]
    lams = np.array([lam for lam, _ in known])
    ahead = LinearForm(dict(plan.update)) * (v / (s + v) / end.alpha)
    for j, (lam, value) in enumerate(known):
        others = np.delete(lams, j)
        ahead = ahead + value * (s / (s + v) * float(np.prod((end.lam - others) / (lam - others))))
    return attrs.evolve(plan, update=row_of(ahead), keep=(), notes=Notes())


def _weights(
    places: Sequence[float], gauge: GaugeStep, rate: float, given: Weights | None
) -> list[float]:
    """The weights of a step; `rate` is 1 + eta^2, exactly as it was given."""
    if gauge.v > 0.0:
        return gauge_weights(places, gauge)
    return (given or exponential_weights)(places, gauge.stop.lam - gauge.start.lam, rate)


def _dot(weights: list[float], values: list[LinearForm]) -> LinearForm:
    """The sum of w_j D_j over as many D_j as there are weights."""
    return sum((value * weight for weight, value in zip(weights, values, strict=False)), ZERO)
