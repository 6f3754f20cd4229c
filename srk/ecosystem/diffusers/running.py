"""A run of a scheduler: its network calls, where it stands, and what another may take over."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import attrs

from srk.ecosystem.diffusers.walk import Walk
from srk.integrators import Integrator
from srk.processes.base import Level

Stochasticity = float | tuple[float, ...]
"""One eta, or one for each step."""


@attrs.frozen
class Entry:
    """One network call: where it is, and which evaluation of which step."""

    level: Level
    step: int
    stage: int
    timestep: float


@attrs.define
class Running:
    """A run under way: where it started, with which stochasticity, and which entry comes next."""

    walk: Walk
    begin: int
    eta: Stochasticity
    index: int
    resolution: float


@attrs.frozen
class Left:
    """A run that stopped before its end, and the entries that it followed."""

    request: dict[str, Any]
    entries: list[Entry]
    method: Integrator
    run: Running


#: Schedulers with a run under way, one of which may be handed over to another scheduler.
under_way: weakref.WeakSet[Any] = weakref.WeakSet()
lock = threading.Lock()
