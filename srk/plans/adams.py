r"""Exponential Adams methods with one network call per step: predict, evaluate, correct with that.

The state that a step hands on is the predicted one. The next step evaluates D there, and only then
corrects the state:

    xp' = (alpha'/alpha) e^{-ah} x + alpha' sum_j w_j D_j + sigma' sqrt(1 - e^{-2 tau^2 h}) z
    x'  = the same with D(xp') among the D_j, and the same z

where the D_j belong to this step's start and to earlier ones. Kept for that are the part of the
update without the D_j, then the past D_j. The first steps use as many D_j as there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs

from srk.plans.form import ZERO, LinearForm
from srk.plans.gauge import GaugeStep
from srk.plans.history import usable, warn_of_long_step
from srk.plans.lagrange import exponential_weights
from srk.plans.plan import StepPlan
from srk.plans.step import Step

#: (places in half log-SNR from the start of the step, h, rate a) -> weights of D there.
Weights = Callable[[Sequence[float], float, float], list[float]]


@attrs.frozen(slots=True)
class Carried:
    """What a corrector must know of the step before.

    Where it started and the rate a = 1 + tau^2 that it used.
    """

    lam: float
    rate: float


def adams_step(
    step: Step,
    tau: float,
    predictor: int,
    corrector: int,
    weights: tuple[Weights, Weights] | None = None,
    name: str = "",
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
    """
    start, stop, h = step.start, step.stop, step.h
    p, c = predictor, corrector
    predict, correct = weights or (exponential_weights, exponential_weights)
    rate = 1.0 + tau**2
    gauge = GaugeStep(start, stop, 0.0, tau)
    draft = step.draft(gauge.clock)
    node = draft.evaluate(draft.state, start)
    lams: list[float] = [start.lam]
    values: list[LinearForm] = [node.value]
    x = draft.state
    if step.memory:
        first = 1 if c else 0  # the row of the carried part comes before those of the past D_j
        lams += step.memory[first:]
        values += [draft.memory(i) for i in range(first, len(step.memory))]
        if c:
            carried: Carried = step.memory[0]
            places = [lam - carried.lam for lam in lams[:c]]
            noise = math.sqrt(carried.rate - 1.0)
            used = usable(step, places, places[0], noise, corrects=True)
            x = draft.memory(0) + start.alpha * _dot(
                correct([places[i] for i in used], places[0], carried.rate),
                [values[i] for i in used],
            )
    places = [lam - start.lam for lam in lams[:p]]
    used = usable(step, places, h, tau, corrects=c > 0)
    places = [places[i] for i in used]
    warn_of_long_step(step, places, tau, name)
    base = x * (stop.alpha / start.alpha * math.exp(-rate * h))
    if tau > 0.0:
        base = base + draft.normal(*gauge.interval) * gauge.noise_std(stop)
    new = base + stop.alpha * _dot(predict(places, h, rate), [values[i] for i in used])
    keep = [(base, Carried(start.lam, rate))] if c else []
    depth = max(p, c) - 1
    return draft.finish(new, keep=[*keep, *zip(values[:depth], lams[:depth], strict=True)])


def _dot(weights: list[float], values: list[LinearForm]) -> LinearForm:
    """The sum of w_j D_j over as many D_j as there are weights."""
    return sum((value * weight for weight, value in zip(weights, values, strict=False)), ZERO)
