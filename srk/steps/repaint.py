"""RePaint: each piece of the way down several times, with jumps up between."""

from __future__ import annotations

from typing import Any

import attrs

from srk._checks import integer
from srk.steps.base import Grid, RunInfo
from srk.steps.rising import RisingGrid, base_grid


def _jump(value: Any) -> int:
    return integer(value, "the length of a jump", least=1)


def _resamplings(value: Any) -> int:
    return integer(value, "the number of resamplings", least=1)


@attrs.frozen
class RePaint(RisingGrid):
    """Go down in pieces, each several times, with a jump up by forward noise between.

    Inpainting by replacing the known part lets the unknown part follow only slowly; going back and
    forth lets both agree. When the run first reaches a level j = 0, jump, 2 jump, ..., counted from
    the last level with noise and more than `jump` levels below the first, it jumps up by `jump`
    levels and comes down again, `resamplings` - 1 times. The jump is one step of the forward
    process, which has the distribution of the paper's `jump` single ones.

    Use it with a hook that puts the known part in: `srk.scores.RePaint(known, mask)` is the
    paper's, which overwrites that part of the state before each step; `srk.scores.Replace(known,
    mask)` replaces the prediction, and serves solvers with a memory too.

    Arguments:
        jump: the length of a jump, in steps.
        resamplings: how often each piece is gone down; 1 is the base grid.
        base: the grid of the way down: a name, a grid or a list of times. `steps=` counts its
            steps: 249 and the final denoising are the 250 of the paper.
        noise_scale: factor of the noise of the jumps; 1 is the forward process.

    Source: Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models",
    2022, arXiv 2201.09865, algorithm 1 and appendix B.

    Examples:
        >>> import srk
        >>> srk.steps.RePaint(jump=2, resamplings=2, base=[5, 4, 3, 2, 1, 0]).levels(
        ...     srk.steps.RunInfo(srk.VPDiscrete(), None, None)
        ... )
        [5.0, 4.0, 3.0, 2.0, 4.0, 3.0, 2.0, 1.0, 0.0, 2.0, 1.0, 0.0]
    """

    name = "repaint"
    jump: int = attrs.field(default=10, converter=_jump)
    resamplings: int = attrs.field(default=10, converter=_resamplings)
    base: Grid = attrs.field(default="uniform", converter=base_grid)  # type: ignore[assignment]

    @property
    def own_steps(self) -> int | None:
        return self.base.own_steps

    def levels(self, info: RunInfo) -> list[float]:
        down = self.base.times(info)
        last = len(down) - 1 if info.process.level(down[-1]).sigma > 0.0 else len(down) - 2
        # the numbers of the paper count levels from the last one with noise
        left = dict.fromkeys(range(0, last + 1 - self.jump, self.jump), self.resamplings - 1)
        times, at = [down[0]], 0
        while True:
            if left.get(last - at, 0) > 0:
                left[last - at] -= 1
                at -= self.jump
            elif at == len(down) - 1:
                break
            else:
                at += 1
            times.append(down[at])
        return times


__all__ = ["RePaint"]
