"""Strong orders of torchsde's solvers and of ours, side by side on the same Brownian paths."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from srk._columns import aligned
from srk.analysis.orders import (
    Order,
    end_state,
    root_mean_squares,
    step_counts,
    strong_from_distances,
)
from srk.analysis.paths import GridPath
from srk.analysis.validation import METHODS, Frame, Method, follow, load_torchsde
from srk.errors import ArgumentError
from srk.integrators import Integrator, TableauSolver
from srk.plans.plan import StepPlan
from srk.processes import OU, VP
from srk.processes.base import LinearProcess
from srk.sampling.planning import plan_grid
from srk.steps import RunInfo, as_grid
from srk.tableaus import TABLEAUS
from srk.targets import GaussianMixture

PROCESSES: Mapping[str, LinearProcess] = {
    "ou": OU(t_min=0.3, horizon=1.0),
    "vp": VP(t_min=0.25, t_max=0.5),
}
"""Both start where a mixture is far from Gaussian, so that the terms of every order count."""

TARGET = GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.4, 0.4])

TOLERANCE = 0.25
"""Of a measured strong order on a target that is not Gaussian."""

EQUAL = 1e-6
"""Largest difference of the two slopes: both run the same method on the same paths."""


@attrs.frozen(slots=True)
class Slope:
    """One method on one SDE.

    The strong order of ours and of torchsde's, both against one fine run on the same paths.
    """

    process: str
    frame: Frame
    method: str
    ours: Order
    theirs: Order

    @property
    def difference(self) -> float:
        """Of the two slopes."""
        return abs(self.ours.slope - self.theirs.slope)


@attrs.frozen(slots=True, repr=False)
class Slopes:
    """All pairs of strong orders.

    Arguments:
        rows: one per process, frame and method.
        version: torchsde's.
    """

    rows: tuple[Slope, ...]
    version: str

    @property
    def success(self) -> bool:
        """Whether the slopes agree in every row and are those declared.

        They agree to `EQUAL`, and are within `TOLERANCE` of the declared order.
        """
        return all(
            row.difference <= EQUAL
            and abs(row.ours.slope - (row.ours.declared or 0.0)) <= TOLERANCE
            for row in self.rows
        )

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table.

        The declared order, both slopes, and the interval of ours.
        """
        body = []
        for row in self.rows:
            low, high = row.ours.interval
            slopes = [f"{row.theirs.slope:.3f}", f"{row.ours.slope:.3f}", f"{low:.2f}-{high:.2f}"]
            body.append([row.process, row.frame, row.method, f"{row.ours.declared:g}", *slopes])
        return ["process", "frame", "method", "order", "torchsde", "srk", "95 %"], body

    def __repr__(self) -> str:
        header, body = self.cells()
        lines = aligned([header, *body])
        return (
            f"strong orders of torchsde {self.version} and of srk on the same paths\n"
            + "\n".join(lines)
        )


def torchsde_slopes(
    processes: Iterable[str] = tuple(PROCESSES),
    *,
    frames: Sequence[Frame] = ("raw", "localization"),
    methods: Iterable[str] | None = None,
    steps: Sequence[int] = (32, 64, 128),
    reference_steps: int | None = None,
    paths: int = 512,
    seed: int = 0,
    watch: Callable[[Slope], None] | None = None,
) -> Slopes:
    """Measure the strong orders of torchsde's solvers and of ours on the same Brownian paths.

    Both are measured against the same fine run of SRA1.

    Errors are medians over paths, as in `srk.analysis.strong_order`; the target is a
    one-dimensional mixture, the grid uniform in log-SNR.

    Arguments:
        processes: names out of "ou", "vp".
        frames: "raw" is the reverse SDE in the process's own time, "localization" the clock in
            which the noise is constant.
        methods: names out of torchsde's, as in `srk.analysis.torchsde_agreement`; default all.
        steps: step counts, increasing.
        reference_steps: of the fine run; default 8 times the largest of `steps`.
        paths: number of paths.
        seed: of starts and paths.
        watch: called with each row as it is done.

    Raises:
        ArgumentError: an unknown process or method.
        MissingExtraError: torchsde is not installed.
    """
    torchsde = load_torchsde()
    counts = step_counts(steps)
    known = [method.name for method in METHODS]
    processes, names = list(processes), known if methods is None else list(methods)
    for given, choices in ((processes, list(PROCESSES)), (names, known)):
        if unknown := [name for name in given if name not in choices]:
            raise ArgumentError(
                f"there is no {unknown[0]!r} here; choose out of {', '.join(choices)}"
            )
    chosen = [method for method in METHODS if method.name in names]
    fine = reference_steps or 8 * counts[-1]
    rows = []
    for name, frame in itertools.product(processes, frames):
        paired = _OnePath.of(PROCESSES[name], frame, chosen, counts, fine, paths, seed)
        for method in chosen:
            distances = paired.distances(torchsde, method)
            ours = method.ours(frame)
            against = f"sra1 with {fine} steps on the same path"
            mine, theirs = (
                strong_from_distances(label, ours, counts, run, against, seed)
                for label, run in zip((ours.name, method.name), distances, strict=True)
            )
            rows.append(Slope(name, frame, method.name, mine, theirs))
            if watch is not None:
                watch(rows[-1])
    return Slopes(tuple(rows), str(torchsde.__version__))


@attrs.frozen(eq=False)
class _OnePath:
    """The runs of several methods on one Brownian path, and the end of the fine run there."""

    process: LinearProcess
    frame: Frame
    planned: Mapping[str, list[list[StepPlan]]]
    path: GridPath
    begin: Tensor
    end: Tensor

    @classmethod
    def of(
        cls,
        process: LinearProcess,
        frame: Frame,
        methods: Sequence[Method],
        counts: Sequence[int],
        fine: int,
        paths: int,
        seed: int,
    ) -> _OnePath:
        begin = TARGET.sample(paths, process, process.t_max, seed=seed, dtype=torch.float64)
        sra1 = TableauSolver(TABLEAUS["sra1"], *((0.0,) if frame == "localization" else ()))
        best = _plans(process, sra1, fine)
        planned = {
            method.name: [_plans(process, method.ours(frame), n) for n in counts]
            for method in methods
        }
        path = GridPath.of([best, *(plans for runs in planned.values() for plans in runs)], seed)
        end = end_state(best, TARGET, begin, path)
        return cls(process, frame, planned, path, begin, end)

    def distances(self, torchsde: Any, method: Method) -> tuple[np.ndarray, np.ndarray]:
        """The distances of our ends and of torchsde's to the fine run, each (counts, paths)."""
        size = float(self.end.square().mean().sqrt())
        found = []
        for plans in self.planned[method.name]:
            self.path.start(self.begin.shape, self.begin.dtype, self.begin.device)
            *_, ends = follow(
                torchsde, method, plans, self.process, TARGET, self.begin, self.frame, self.path
            )
            level = plans[-1].stop
            scale = 1.0 if self.frame == "raw" else level.sigma**2 / level.alpha
            found.append([root_mean_squares(x * scale - self.end) / size for x in ends])
        mine, theirs = zip(*found, strict=True)
        return np.stack(mine), np.stack(theirs)


def _plans(process: LinearProcess, method: Integrator, steps: int) -> list[StepPlan]:
    return plan_grid(process, method, as_grid("log-snr").times(RunInfo(process, method, steps)))
