"""What a sampler plans: the steps of its runs, checked, and the grid that it measures for them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from operator import is_
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.density import check_gaussian
from srk._engine.resolution import resolution
from srk._engine.run import Controlled, Route
from srk.errors import IncompatibleError, TimeError
from srk.plans.plan import StepPlan, without_noise
from srk.sampling.arguments import batch_shape
from srk.sampling.compatible import Gradient, check_density
from srk.sampling.pilot import MakeSampler, measured
from srk.sampling.planning import plan_run
from srk.sampling.settings import Settings
from srk.steps import Budget, Grid, RunInfo
from srk.values import unchanging

Planned = tuple[tuple[StepPlan, ...], tuple[float, ...]]
"""The steps of a fixed grid, and the stochasticity of each."""


class Planner:
    """Makes the plans of one sampler, and remembers what it has measured for them.

    Arguments:
        make: `srk.Sampler`, which measures draw with.
    """

    def __init__(self, make: MakeSampler) -> None:
        self._make = make
        self._profiles: dict[Hashable, Budget] = {}
        self._last: tuple[StepPlan, StepPlan] | None = None  # a last step, and what it becomes
        # What the last plans were made from, all of it unchanging, and these plans.
        self._known: tuple[tuple[Any, ...], bool, Planned] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Plans are made again rather than copied.
        return {**self.__dict__, "_last": None, "_known": None}

    def route(
        self,
        settings: Settings,
        problem: RunInfo,
        *,
        given: bool,
        grad: Gradient,
        saves: frozenset[str],
    ) -> tuple[Route, tuple[float, ...]]:
        """The planned steps of a run and the eta of each, or its controller.

        Arguments:
            settings: of the sampler.
            problem: what a controller may know.
            given: whether the state at the start is the caller's.
            grad, saves: as in the call; both need planned steps.
        """
        if settings.grid is None:
            check_controlled(settings, grad, saves)
            return Controlled(settings.control, problem), (settings.one_eta,)
        plans, etas = self.planned(settings, problem)
        check_planned(settings, plans, given, grad, saves)
        return plans, etas

    def planned(self, settings: Settings, problem: RunInfo | None = None) -> Planned:
        """The steps of a fixed grid as numbers, and the eta of each."""
        if settings.grid is None:
            raise IncompatibleError(
                f"{settings.control!r} decides its steps as it goes; only a fixed grid has plans"
            )
        info = problem or settings.info()
        grid = self.measured(settings, settings.grid, info)
        eps = resolution(info.dtype or torch.float64, settings.autocast, settings.prediction)
        what = grid, info.process, info.solver, info.steps, info.eta, settings.eta, eps
        known = self._known
        if known is None or not all(map(is_, known[0], what)) or known[1] != settings.mean:
            made = self._made(settings, grid, info, eps)
            known = what, settings.mean, made
            if grid.remembered and all(map(unchanging, what)):
                self._known = known
        return known[2]

    def _made(self, settings: Settings, grid: Grid, info: RunInfo, eps: float) -> Planned:
        """The same where it is not known; `eps` is the resolution of the run."""
        plans, etas = plan_run(grid, info, settings.eta, eps)
        change = without_noise if settings.mean else settings.closing
        if change is not None:
            last = self._last
            if last is None or last[0] is not plans[-1]:
                self._last = last = plans[-1], change(plans[-1])
            plans = *plans[:-1], last[1]
        return plans, etas

    def measured(self, settings: Settings, grid: Grid, info: RunInfo) -> Grid:
        """The grid, with the profile that it lacks measured once for each kind of state."""
        if not isinstance(grid, Budget) or grid.profile is not None:
            return grid
        if info.shape is None:  # whatever was measured, if anything was
            return next(iter(self._profiles.values()), grid)
        score = settings.prediction if info.score is None else info.score
        kind = id(score), info.shape, info.device, info.dtype
        known = self._profiles.get(kind)
        if known is None:
            assert info.device is not None
            assert info.dtype is not None
            known = measured(
                grid,
                self._make,
                settings.process,
                score,
                info.shape,
                bend=grid.bends(info),
                device=info.device,
                dtype=info.dtype,
                autocast=settings.autocast,
            )
            if score is settings.prediction:
                self._profiles[kind] = known
        return known

    def piloted(
        self,
        settings: Settings,
        shape: Sequence[int] | int | None,
        x_init: Tensor | None,
        device: torch.device | None,
        dtype: torch.dtype | None,
    ) -> Settings:
        """The settings, with a grid that is the same for all pieces of a batch."""
        if settings.grid is None:
            return settings
        size: tuple[int, ...]
        if isinstance(x_init, Tensor):
            size, place, kind = tuple(x_init.shape), x_init.device, x_init.dtype
        else:
            size = batch_shape(shape, settings.prediction.event_shape)
            place, kind = torch.empty(0).device, torch.float32
        info = settings.info(shape=size, device=device or place, dtype=dtype or kind)
        return attrs.evolve(settings, control=self.measured(settings, settings.grid, info))


def check_controlled(settings: Settings, grad: Gradient, saves: frozenset[str]) -> None:
    """Raise if something was asked for that needs a fixed grid, where a controller decides."""
    for wanted, what in (
        (settings.compile, "compile"),
        (grad, "grad"),
        ("log_prob" in saves, "save='log_prob'"),
        ("inputs" in saves, "save='inputs'"),
        (not isinstance(settings.eta, float), "eta by level"),
        (settings.mean, "denoise_final='mean'"),
        (settings.hooks, "a hook that changes the state"),
    ):
        if wanted:
            raise IncompatibleError(
                f"{what} needs a fixed grid: {settings.control!r} decides its steps as it "
                "goes; use grid='log-snr'"
            )


def check_planned(
    settings: Settings,
    plans: Sequence[StepPlan],
    given: bool,
    grad: Gradient,
    saves: frozenset[str],
) -> None:
    """Raise if the steps do not begin where the state is known, or cannot have what was asked for.

    Arguments:
        settings, plans: of the run.
        given, grad, saves: as `Planner.route` takes them.
    """
    if not given and plans[0].start.t != settings.process.t_max:
        raise TimeError(
            f"the grid starts at t = {plans[0].start.t!r}, below t_max = "
            f"{settings.process.t_max!r}, where the prior is not known; give the state there as "
            "x_init, or let the grid start at process.t_max"
        )
    if "inputs" in saves and (settings.parallel is not None or grad == "checkpoint"):
        raise IncompatibleError(
            "save='inputs' keeps the network's inputs in the order of the calls; leave out "
            "parallel= and grad='checkpoint'"
        )
    if "log_prob" in saves:
        check_density(settings.process, settings.hooks)
        check_gaussian(plans, settings.label)
    if settings.hooks and any(plan.keep for plan in plans):
        raise IncompatibleError(
            f"{settings.label} keeps what the network said in earlier steps, but the hook "
            f"{settings.hooks[0]!r} changes the state between steps, so that both would not fit "
            "together; use a solver of single steps, such as 'boltz2', 'edm-heun', 'srk2s' or "
            "'ddpm'"
        )
