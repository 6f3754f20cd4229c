"""Steps of the probability-flow ODE in r = sigma/alpha: du/dr = (u - D)/r."""

from __future__ import annotations

import math

from srk.plans.form import LinearForm
from srk.plans.step import Draft
from srk.processes.base import Level, LinearProcess
from srk.processes.edm import EDM


def level_at(process: LinearProcess, lam: float) -> Level:
    """The level at `lam`.

    Above t_max it goes on for EDM, whose time is sigma and whose networks take any, and stops there
    for others.
    """
    top = process.level(process.t_max)
    if lam >= top.lam:
        return process.level_at(lam)
    if isinstance(process, EDM):
        r = math.exp(-lam)
        return Level(r, 1.0, r, lam)
    return top


def slope(draft: Draft, u: LinearForm, level: Level) -> tuple[LinearForm, LinearForm]:
    """(u - D)/r, and D, at the state `u` in the scale of the data."""
    node = draft.evaluate(u * level.alpha, level)
    return (node.x / level.alpha - node.value) / level.r, node.value


def euler(draft: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
    """Euler's method in r from `start` to `stop`."""
    d, denoised = slope(draft, u, start)
    return denoised if stop.sigma == 0.0 else u + d * (stop.r - start.r)


def heun(draft: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
    """Heun's method in r; two network calls."""
    d, denoised = slope(draft, u, start)
    if stop.sigma == 0.0:
        return denoised
    d2, _ = slope(draft, u + d * (stop.r - start.r), stop)
    return u + (d + d2) * (0.5 * (stop.r - start.r))


def midpoint(draft: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
    """The midpoint method in r, the middle taken in log r; two network calls."""
    d, denoised = slope(draft, u, start)
    if stop.sigma == 0.0:
        return denoised
    level = level_at(draft.step.process, 0.5 * (start.lam + stop.lam))
    d2, _ = slope(draft, u + d * (level.r - start.r), level)
    return u + d2 * (stop.r - start.r)


def data_midpoint(draft: Draft, u: LinearForm, start: Level, stop: Level) -> LinearForm:
    """DPM-Solver++(2S): the denoiser of the middle in log r frozen over the step; two calls."""
    H = stop.lam - start.lam
    first = draft.evaluate(u * start.alpha, start)
    if stop.sigma == 0.0:
        return first.value
    level = level_at(draft.step.process, start.lam + 0.5 * H)
    middle = u * math.exp(-0.5 * H) - first.value * math.expm1(-0.5 * H)
    node = draft.evaluate(middle * level.alpha, level)
    return u * math.exp(-H) - node.value * math.expm1(-H)
