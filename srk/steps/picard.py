"""Options of a run that is parallel in time."""

from __future__ import annotations

from typing import Any

import attrs

from srk._checks import integer, real
from srk.errors import ArgumentError


def _tolerance(value: Any) -> float:
    number = real(value, "tolerance", cure="it is a number that is not negative, e.g. 1e-3")
    if number < 0.0:
        raise ArgumentError(f"tolerance is not negative, but {number!r} is; e.g. 1e-3")
    return number


def _window(value: Any) -> int:
    return integer(value, "window", least=1, cure="it is the number of evaluations, e.g. window=32")


def _rows(value: Any) -> int | None:
    cure = "it is the number of rows in a batch, e.g. rows=16"
    return None if value is None else integer(value, "rows", least=1, cure=cure)


@attrs.frozen
class Picard:
    """Runs many steps at once: Picard iteration on the outputs of the network.

    The outputs of all the steps in a window are guessed. The solver's own steps turn the guesses
    into inputs, the network answers all of them in one batch, and the answers are the next guesses.
    Outputs that no longer change are final, and the window moves on. The result is that of the
    sequential run up to the tolerance, whatever the solver.

    It saves time where the device has room for a larger batch, and costs more network calls:
    `Solution.rounds` counts the batches, one after the other, and `Solution.nfe` all calls.

    Arguments:
        window: how many evaluations of a sample are in flight at a time. Memory grows with it: some
            dozen copies of a state for each.
        tolerance: an output is final when its change is below this. The change is the root mean
            square over the sample of alpha times that of the denoiser, relative to
            sqrt(alpha^2 + sigma^2), the size of a state of data of unit variance. With 0 only
            outputs whose inputs are known to be exact are final; there are then as many rounds as
            evaluations.
        rows: the most rows that the network gets in one batch; None for no limit. A round of more
            rows is cut into several batches.

    Raises:
        ArgumentError, ArgumentTypeError: an option that is no positive integer, or a tolerance that
            is negative.

    Source: Shih et al., "Parallel Sampling of Diffusion Models", NeurIPS 2023 (arXiv 2305.16317);
    docs/parallel.md says what is different here.

    Examples:
        >>> import srk
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> options = {"shape": (1, 1), "steps": 50, "noise": "keyed", "seed": 0}
        >>> score = target.score(process)
        >>> one = srk.solve(process, score, "ddpm", **options)
        >>> many = srk.solve(process, score, "ddpm", parallel=srk.Picard(), **options)
        >>> one.nfe, many.rounds < 20, bool((one.x - many.x).abs() < 0.01)
        (51, True, True)
    """

    window: int = attrs.field(default=32, converter=_window, kw_only=True)
    tolerance: float = attrs.field(default=1e-3, converter=_tolerance, kw_only=True)
    rows: int | None = attrs.field(default=None, converter=_rows, kw_only=True)


__all__ = ["Picard"]
