"""The noise of the reverse SDE, carried through the levels of a step."""

from __future__ import annotations

import math
from collections.abc import Callable

from srk.plans.form import ZERO, LinearForm
from srk.plans.gauge import GaugeStep
from srk.plans.step import Draft, Step
from srk.processes.base import Level


def noise_path(draft: Draft, step: Step) -> Callable[[Level], LinearForm]:
    """The noise of the reverse SDE in u = x/alpha, carried from the start of a step.

    It is asked for at levels inside the step, in order.

    Each call draws the noise of the sub-interval since the level before, and decays what came
    earlier: the exact joint distribution.
    """
    eta = step.eta
    rate = 1.0 + eta**2
    place, noise = step.start, ZERO

    def at(level: Level) -> LinearForm:
        nonlocal place, noise
        if eta > 0.0:
            h = level.lam - place.lam
            fresh = draft.normal(*GaugeStep(place, level, 0.0, eta).interval)
            noise = noise * math.exp(-rate * h) + fresh * (
                level.r * math.sqrt(-math.expm1(-2.0 * eta**2 * h))
            )
        place = level
        return noise

    return at
