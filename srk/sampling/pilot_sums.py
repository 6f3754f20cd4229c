"""What a pilot run adds up: how far the denoiser moves, and how the probability-flow ODE bends."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from srk._checks import shown
from srk.errors import ArgumentError
from srk.processes.base import ForwardProcess, Level


@attrs.frozen
class Sums:
    """What a pilot has added up so far; a file of it lets a pilot that was stopped go on.

    Arguments:
        process, shape, steps, path, seed: which pilot it is.
        done: samples that are counted.
        calls: network calls, counted for each sample.
        pairs: of samples whose moves were multiplied.
        moved, crossed: sums over each step, of squares and of squared products of moves.
        times: of the grid.
        places: half log-SNRs of the second differences along the ODE.
        bends: at each of them the sums of |D''|^2, D'' . E'' and |E''|^2, one after the other, with
            E = (D - u)/s and the derivatives those in the half log-SNR.
    """

    process: str
    shape: tuple[int, ...]
    steps: int
    path: int
    seed: int
    done: int = 0
    calls: int = 0
    pairs: int = 0
    moved: tuple[float, ...] = ()
    crossed: tuple[float, ...] = ()
    times: tuple[float, ...] = ()
    places: tuple[float, ...] = ()
    bends: tuple[float, ...] = ()

    def add(self, meter: Meter, rows: int, nfe: int, times: Sequence[float]) -> Sums:
        """With the samples of another piece."""
        squares = torch.stack(meter.moved).cpu().numpy()
        products = torch.stack(meter.crossed).cpu().numpy()
        if self.done:
            squares, products = squares + self.moved, products + self.crossed
        return attrs.evolve(
            self,
            done=self.done + rows,
            calls=self.calls + rows * nfe,
            pairs=self.pairs + rows * (rows - 1),
            moved=tuple(squares.tolist()),
            crossed=tuple(products.tolist()),
            times=tuple(times),
        )

    def add_path(self, way: OdePath, calls: int) -> Sums:
        """With the paths of another piece along the ODE."""
        sums = torch.stack(way.sums).flatten().cpu().numpy() if way.sums else np.zeros(0)
        if self.bends:
            sums = sums + self.bends
        return attrs.evolve(
            self,
            calls=self.calls + calls,
            places=tuple(way.places),
            bends=tuple(sums.tolist()),
        )

    def bend(
        self, v: float, coordinates: int, lowest: float
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Where the ODE was seen to bend and how much, for `Profile`.

        Arguments:
            v: the gauge.
            coordinates: of all samples together.
            lowest: the last half log-SNR that the rounding of the states lets see.
        """
        lam, sums = np.array(self.places), np.array(self.bends).reshape(-1, 3)
        square = sums @ np.array([1.0, 2.0 * v, v * v])
        kept = (lam < lowest) & (square > 0.0) & np.isfinite(square)
        lam, square = lam[kept], square[kept]
        s = np.exp(-2.0 * lam)
        bend = s * (s + v) ** -1.5 * np.sqrt(square / coordinates)
        kept = bend > 0.0
        return tuple(lam[kept].tolist()), tuple(bend[kept].tolist())

    def write(self, path: Path) -> None:
        """Replace the file, never leaving half of one."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps({"srk-pilot": 2} | attrs.asdict(self)), encoding="utf-8")
        os.replace(part, path)

    def read(self, path: Path) -> Sums:
        """What was written by a pilot of the same process, shape, steps and seed."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            assert data.pop("srk-pilot") == 2
            lists: dict[str, Any] = {
                name: tuple(v) if isinstance(v, list) else v for name, v in data.items()
            }
            found = Sums(**lists)
            n = len(found.moved)
            assert 0 < found.done <= self.shape[0] and len(found.crossed) == n > 0
            assert len(found.times) > n and len(found.bends) == 3 * len(found.places)
            assert np.isfinite([*found.moved, *found.crossed, *found.places, *found.bends]).all()
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError):
            raise ArgumentError(
                f"{path} is no unfinished calibration; remove it, or give another file as resume="
            ) from None
        for name in ("process", "shape", "steps", "path", "seed"):
            here, there = getattr(self, name), getattr(found, name)
            if here != there:
                raise ArgumentError(
                    f"{path} is the unfinished calibration of {name} {shown(there)}, not of "
                    f"{shown(here)}; calibrate as then, remove it, or give another file as resume="
                )
        return found


class Meter:
    """A callback that adds up, on the device, how far the denoiser moves over each step, and the
    squared products of the samples' moves; of a phase-space process, of the data component.

    Arguments:
        process: what is reversed.
    """

    def __init__(self, process: ForwardProcess) -> None:
        self.process = process
        self.moved: list[Tensor] = []
        self.crossed: list[Tensor] = []
        self.last: Tensor | None = None

    def __call__(self, info: Any) -> None:
        self.see(info.denoised)

    def see(self, denoised: Tensor) -> None:
        denoised = self.process.data_of(denoised)
        if self.last is not None:
            move = (denoised - self.last).float().flatten(1)
            square = move.square().sum(1).double()
            self.moved.append(square.sum())
            if move.shape[0] > move.shape[1]:  # |M M^T|^2 = |M^T M|^2, which is smaller here
                wide = move.double()
                whole = (wide.T @ wide).square().sum()
                self.crossed.append(whole - wide.square().sum(1).square().sum())
            else:  # of many coordinates little is left beside the diagonal: that very one goes
                products = (move @ move.T).double().square()
                self.crossed.append(products.sum() - products.diagonal().sum())
        self.last = denoised


class OdePath:
    """A callback that follows the ODE and adds up, on the device, how its right-hand side bends:
    second derivatives in the half log-SNR of D and of E = (D - u)/s, see `Sums`.

    Arguments:
        process: the linear process.
    """

    def __init__(self, process: Any) -> None:
        self.process = process
        self.places: list[float] = []
        self.sums: list[Tensor] = []
        self.known: list[tuple[float, Tensor, Tensor]] = []
        self.state: tuple[Level, Tensor] | None = None

    def __call__(self, info: Any) -> None:
        self.see(info.denoised)
        self.state = (self.process.level(info.t), info.x.clone())

    def see(self, denoised: Tensor) -> None:
        """The denoiser at the end of the step before; the first state is not known."""
        if self.state is None or self.state[0].sigma == 0.0:
            return
        level, x = self.state
        # double: of data that are almost Gaussian little is left of D'' + v E''
        D = denoised.double().flatten(1)
        E = (D - x.double().flatten(1) / level.alpha) * (level.alpha / level.sigma) ** 2
        self.known = [*self.known[-2:], (level.lam, D, E)]
        if len(self.known) == 3:
            (a, *first), (b, *middle), (c, *last) = self.known
            # second divided differences, twice: the second derivative at the place in the middle
            d, e = (
                2.0 * ((z - y) / (c - b) - (y - w) / (b - a)) / (c - a)
                for w, y, z in zip(first, middle, last, strict=True)
            )
            self.places.append(b)
            products = torch.stack([d * d, d * e, e * e])
            self.sums.append(products.flatten(1).sum(1))
