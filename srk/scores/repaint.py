"""RePaint's hook: the known part of the state, freshly noised before each step."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from srk.processes.base import Level
from srk.scores.hooks import Replace
from srk.scores.state_hook_base import StateHook


@attrs.frozen(eq=False, init=False)
class RePaint(StateHook):
    """Inpainting as RePaint does it: the known part of the STATE is overwritten before each step.

    It becomes alpha known + sigma z with fresh z, drawn from the run's own noise, and the denoised
    prediction there becomes `known`, so that the samples end with it. Alone it is the imputation of
    Song et al. 2021; with `grid=srk.steps.RePaint()`, which jumps back and forth so that both parts
    agree, it is RePaint.

    Arguments:
        known: the data, of a shape that broadcasts to (batch, *event); its values outside the mask
            do not matter.
        mask: boolean, true where the data are known, likewise; a mask of numbers in [0, 1] blends.

    Raises:
        ArgumentTypeError: the mask is not a tensor of booleans or floating-point numbers.
        IncompatibleError: in a run, the solver keeps what it knew of the state before the step; one
            without a memory, such as "ddpm", can do it.

    Source: Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models",
    2022, arXiv 2201.09865, algorithm 1.

    Examples:
        >>> import srk, torch
        >>> vp, target = srk.VP(), srk.targets.Gaussian(0.0, 1.0, event_shape=(2,))
        >>> hook = srk.scores.RePaint(torch.tensor([0.5, 0.0]), torch.tensor([True, False]))
        >>> grid = srk.steps.RePaint(jump=2, resamplings=3)
        >>> run = {"shape": 4, "steps": 10, "grid": grid, "hooks": [hook], "seed": 0}
        >>> srk.solve(vp, target.score(vp), "ddpm", **run).x[:, 0]
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    normals = None  # as many as a sample has numbers

    replace: Replace

    def __init__(self, known: Tensor, mask: Tensor) -> None:
        self.__attrs_init__(Replace(known, mask))

    def before_step(self, x: Tensor, level: Level, normals: Tensor) -> Tensor:
        if x.is_complex():  # noise of variance 1 has 1/2 in each part
            noise = torch.view_as_complex(normals.reshape(*x.shape, 2)) * 0.5**0.5
        else:
            noise = normals.reshape(x.shape)
        return self.replace.put(x, level.alpha, noise * level.sigma)

    def after_call(self, denoised: Tensor, x: Tensor, level: Level) -> Tensor:
        return self.replace(denoised, level)

    def select(self, rows: slice | Tensor, batch: int) -> RePaint:
        """The hook for some of the samples of a batch."""
        made = RePaint.__new__(RePaint)
        made.__attrs_init__(self.replace.select(rows, batch))
        return made


__all__ = ["RePaint"]
