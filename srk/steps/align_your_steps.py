"""Align Your Steps: tables of noise levels that were optimized for three models."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
import numpy as np

from srk.errors import IncompatibleError
from srk.steps.base import Grid, RunInfo
from srk.steps.grids import need_linear
from srk.steps.schedules import called_at


@attrs.frozen
class AlignYourSteps(Grid):
    """A table of noise levels that was optimized for a model, log-linear between its entries.

    Subclasses hold the tables `ays-sd`, `ays-sdxl` and `ays-svd`. The n calls are at the first n of
    n + 1 points.

    Source: A. Sabour, S. Fidler, K. Kreis, "Align Your Steps", arXiv 2404.14507, and the tables of
    its page, research.nvidia.com/labs/toronto-ai/AlignYourSteps.
    """

    remembered = True
    table: ClassVar[tuple[float, ...]] = ()
    model: ClassVar[str] = ""

    def times(self, info: RunInfo) -> list[float]:
        need_linear(self, info.process)
        process = info.process
        highest = process.level(process.t_max).r
        if not math.isclose(highest, self.table[0], rel_tol=0.05):
            raise IncompatibleError(
                f"the grid {self.name!r} is for {self.model}, whose sigma/alpha starts at "
                f"{self.table[0]:g}, and that of {process!r} starts at {highest:.6g}; use "
                "grid='kl-optimal' or grid='log-snr'"
            )

        def levels(n: int) -> list[float]:
            entries = np.linspace(0.0, 1.0, len(self.table))
            lam = -np.interp(np.linspace(0.0, 1.0, n + 1), entries, np.log(self.table))
            return [process.t_max, *(process.time(float(x)) for x in lam[1:-1])]

        return called_at(info, levels)


@attrs.frozen
class AlignYourStepsSD(AlignYourSteps):
    """`ays-sd`: noise levels optimized for Stable Diffusion 1.5, log-linear between the entries of
    a table (`AlignYourSteps`).
    """

    name = "ays-sd"
    model = "Stable Diffusion 1.5"
    table = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)


@attrs.frozen
class AlignYourStepsSDXL(AlignYourSteps):
    """`ays-sdxl`: noise levels optimized for Stable Diffusion XL, log-linear between the entries of
    a table (`AlignYourSteps`).
    """

    name = "ays-sdxl"
    model = "Stable Diffusion XL"
    table = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


@attrs.frozen
class AlignYourStepsSVD(AlignYourSteps):
    """`ays-svd`: noise levels optimized for Stable Video Diffusion, log-linear between the entries
    of a table (`AlignYourSteps`).
    """

    name = "ays-svd"
    model = "Stable Video Diffusion"
    table = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)


__all__ = [
    "AlignYourSteps",
    "AlignYourStepsSD",
    "AlignYourStepsSDXL",
    "AlignYourStepsSVD",
]
