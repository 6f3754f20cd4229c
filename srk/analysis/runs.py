"""The runs of a comparison: read from a file, continued, written and announced."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from srk._checks import integer
from srk._progress import progress_bar
from srk.analysis.comparison import Comparison, Point
from srk.errors import ArgumentError

FLOORS = 4
"""Sets of exact samples for the floor, a repeat."""


@attrs.define
class Runs:
    """The runs of a comparison: every solver at every budget, repeated, each made once.

    Arguments:
        labels: of the solvers, in the order of the result.
        budgets: numbers of network calls, ascending.
        repeats: runs of each solver at each budget.
        metrics: names of the metrics.
        settings: what says which comparison it is.
        resume: JSON file to read first and to write after each run, or None.
    """

    labels: Sequence[str]
    budgets: Sequence[int]
    repeats: int
    metrics: Sequence[str]
    settings: Mapping[str, Any]
    resume: str | os.PathLike[str] | None
    points: list[Point] = attrs.field(init=False)
    floors: list[dict[str, float]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.points, self.floors = resumed(self.resume, self.settings)

    def make(
        self,
        floors: Callable[[int], list[dict[str, float]]],
        run: Callable[[str, int, int], Point | None],
        progress: bool,
    ) -> Comparison:
        """The comparison, in which the runs that are missing are made.

        Arguments:
            floors: repeat -> the metrics of each of `FLOORS` sets of exact samples.
            run: (label, budget, repeat) -> the point, or None where the budget buys no step.
            progress: show a progress bar.
        """
        made = {(point.solver, point.nfe, point.repeat) for point in self.points}
        total = self.repeats * (1 + len(self.labels) * len(self.budgets))
        with bar(progress, total) as tick:
            for repeat in range(self.repeats):
                known = len(self.floors) >= FLOORS * (repeat + 1)
                tick(f"floor, repeat {repeat + 1}", known)
                if not known:
                    self.floors += floors(repeat)
                    write(self.resume, self.result())
                for budget, label in itertools.product(self.budgets, self.labels):
                    done = (label, budget, repeat) in made
                    tick(f"{label}, NFE {budget}, repeat {repeat + 1}", done)
                    point = None if done else run(label, budget, repeat)
                    if point is not None:
                        self.points.append(point)
                        write(self.resume, self.result())
        return self.result()

    def result(self) -> Comparison:
        """What has been measured so far, ordered by budget and solver."""
        order = {label: i for i, label in enumerate(self.labels)}
        points = sorted(
            self.points, key=lambda p: (p.nfe, order.get(p.solver, len(order)), p.repeat)
        )
        return Comparison(
            tuple(points), tuple(self.floors), tuple(self.metrics), dict(self.settings)
        )


def budgets_of(nfe: Sequence[int], repeats: int, samples: int, example: str) -> list[int]:
    """The budgets, ascending, each once; checked together with the other numbers of runs."""
    budgets = sorted({integer(budget, "nfe", least=1) for budget in nfe})
    if not budgets:
        raise ArgumentError(f"nfe names no budget; e.g. nfe={example}")
    for name, value, least in (("repeats", repeats, 1), ("samples", samples, 2)):
        if value < least:
            raise ArgumentError(f"{name} must be at least {least}, not {value!r}")
    return budgets


def resumed(
    path: str | os.PathLike[str] | None, settings: Mapping[str, Any]
) -> tuple[list[Point], list[dict[str, float]]]:
    if path is None or not Path(path).exists():
        return [], []
    try:
        earlier = Comparison.from_json(Path(path).read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(
            f"{os.fspath(path)!r} is not the JSON of a comparison ({error}); remove it or "
            "name another file"
        ) from error
    # More solvers, budgets or repeats than last time are welcome; everything else must agree
    differ = [k for k, v in settings.items() if k != "solvers" and earlier.settings.get(k) != v]
    known = {entry.partition(": ")[0]: entry for entry in earlier.settings.get("solvers", [])}
    differ += [
        f"solver {e.partition(': ')[0]}"
        for e in settings["solvers"]
        if known.get(e.partition(": ")[0], e) != e
    ]
    if differ:
        raise ArgumentError(
            f"{os.fspath(path)!r} holds another comparison (other {', '.join(differ)}); "
            "remove it or name another file"
        )
    labels = {entry.partition(": ")[0] for entry in settings["solvers"]}
    return [point for point in earlier.points if point.solver in labels], list(earlier.floors)


def write(path: str | os.PathLike[str] | None, result: Comparison) -> None:
    """Write the JSON whole or not at all, so that a run stopped at any time can be resumed."""
    if path is None:
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    partial.write_text(result.to_json(), encoding="utf-8")
    partial.replace(target)


@contextmanager
def bar(show: bool, total: int) -> Iterator[Callable[[str, bool], None]]:
    """A progress bar; the function it gives announces a run (or one made earlier)."""
    if not show:
        yield lambda what, made: None
        return
    with progress_bar("", total) as advance:
        started = False

        def tick(what: str, made: bool) -> None:
            nonlocal started
            advance(int(started), description=what)
            started = True

        yield tick
