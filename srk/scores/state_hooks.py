"""What structure predictors do to their points around a network call, as hooks."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from srk._checks import as_float, real
from srk._modes import uncast
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.processes.base import Level
from srk.scores.rigid import as_points, best_rotation, center_of, rotation, weights_of
from srk.scores.selection import Windows
from srk.scores.state_hook_base import StateHook


def _given_weights(value: object, what: str) -> Tensor | None:
    if value is None or (
        isinstance(value, Tensor) and (value.dtype == torch.bool or value.dtype.is_floating_point)
    ):
        return value
    raise ArgumentTypeError(
        f"{what} is a tensor of booleans or floating-point numbers, of shape (points,) or (batch, "
        "points), or None for all points alike; e.g. mask.bool()"
    )


@attrs.frozen(eq=False)
class CenterRandomAugmentation(StateHook):
    """The centre random augmentation of AlphaFold 3: the points of each sample are centred, turned
    and shifted at random before each step.

    The state is changed for good, not only for the network. With a network that knows no
    preferred frame the distribution of the shape stays what it is; for others it takes away what
    their predictions depend on the frame.

    Arguments:
        shift: standard deviation of the shift, in units of the data; 1 in AlphaFold 3, Boltz and
            Chai-1. The state is shifted by alpha times it.
        mask: which points make the centre, booleans or weights of shape (*event without its last
            axis) or with the batch in front; None for all. All points are moved.

    The state has shape (batch, ..., points, 3). The rotation is uniform: that of a quaternion of
    four normals.

    Source: Abramson et al., "Accurate structure prediction of biomolecular interactions with
    AlphaFold 3", Nature 630, 2024, supplement, algorithm 19.

    Examples:
        >>> import srk, torch
        >>> x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
        >>> hook = CenterRandomAugmentation(shift=0.0)
        >>> moved = hook.before_step(x, srk.EDM().level(1.0), torch.ones(2, 7))
        >>> bool((torch.pdist(moved[0]) - torch.pdist(x[0])).abs().max() < 1e-5)
        True
        >>> bool(moved.mean(1).abs().max() < 1e-6)
        True
    """

    shift: float = attrs.field(default=1.0)
    mask: Tensor | None = attrs.field(default=None)
    _windows: Windows = attrs.field(default=(), kw_only=True, repr=False)

    normals = 7

    @shift.validator
    def _check_shift(self, attribute: attrs.Attribute[float], value: object) -> None:
        real(value, "shift", least=0.0, cure="it is a standard deviation")

    @mask.validator
    def _check_mask(self, attribute: attrs.Attribute[Tensor | None], value: object) -> None:
        _given_weights(value, "mask")

    def before_step(self, x: Tensor, level: Level, normals: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        points, normals = as_points(x).to(wide), normals.to(wide)
        centred = points - center_of(points, weights_of(self.mask, x, points, self._windows))
        with uncast(x):
            turned = centred @ rotation(normals[:, :4])
        moved = turned + normals[:, None, 4:] * (level.alpha * self.shift)
        return moved.reshape(x.shape).to(x.dtype)

    def select(self, rows: slice | Tensor, batch: int) -> CenterRandomAugmentation:
        return attrs.evolve(self, windows=(*self._windows, (rows, batch)))


@attrs.frozen(eq=False)
class RigidAlign(StateHook):
    """A rigid alignment of the denoised points to the noisy ones, as Boltz has it.

    D becomes the rotated and shifted D that is nearest to x/alpha in the weighted mean of squares.
    Boltz moves the noisy points to D instead; that is the same sample in another frame, which the
    next `CenterRandomAugmentation` forgets.

    Arguments:
        weights: the weights of the points, booleans or numbers of shape (*event without its last
            axis) or with the batch in front; None for all alike. All points are moved.

    The rotation is proper (no reflection). It comes from Horn's quaternion by a fixed number of
    products of matrices, so that no device is waited for. Where the points leave it open (fewer
    than three, or on a line), it is one of the best.

    Source: Kabsch, "A solution for the best rotation to relate two sets of vectors", Acta
    Crystallographica A32, 1976; Horn, "Closed-form solution of absolute orientation using unit
    quaternions", J. Opt. Soc. Am. A 4, 1987.

    Examples:
        >>> import srk, torch
        >>> x = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0))
        >>> turned = x @ rotation(torch.tensor([[0.9, 0.1, -0.3, 0.2]])) + 4.0
        >>> aligned = RigidAlign().after_call(turned, x, srk.EDM().level(1.0))
        >>> bool((aligned - x).abs().max() < 1e-4)
        True
    """

    weights: Tensor | None = attrs.field(default=None)
    _windows: Windows = attrs.field(default=(), kw_only=True, repr=False)

    @weights.validator
    def _check_weights(self, attribute: attrs.Attribute[Tensor | None], value: object) -> None:
        _given_weights(value, "weights")

    def after_call(self, denoised: Tensor, x: Tensor, level: Level) -> Tensor:
        if level.alpha == 0.0:  # the state is noise alone: there is nothing to align to
            return denoised
        wide = torch.promote_types(x.dtype, torch.float32)
        points, wanted = as_points(denoised).to(wide), as_points(x).to(wide) / level.alpha
        weights = weights_of(self.weights, x, points, self._windows)
        centre, goal = center_of(points, weights), center_of(wanted, weights)
        points, wanted = points - centre, wanted - goal
        with uncast(x):
            moved = points @ best_rotation(points, wanted, weights) + goal
        return moved.reshape(x.shape).to(x.dtype)

    def select(self, rows: slice | Tensor, batch: int) -> RigidAlign:
        return attrs.evolve(self, windows=(*self._windows, (rows, batch)))


@attrs.frozen
class LowTemperature(StateHook):
    r"""DiffDock's low-temperature sampling: the score is made larger where the noise is large.

    The score s becomes c s, and so D becomes u + c (D - u) with u = x/alpha and r = sigma/alpha:

    $$
    c = \frac{\lambda + T\psi/2}{1 + \psi/2}, \qquad
    \lambda = \frac{s_\mathrm{data} + r}{s_\mathrm{data} + r/T}
    $$

    With `eta=hook.eta`, which is sqrt(1 + psi), "euler-maruyama" and `denoise_final="mean"` this is
    DiffDock's sampler. Its T is an inverse temperature: samples concentrate for T > 1. DiffDock
    runs positions, rotations and torsions each with numbers of their own.

    Arguments:
        temperature: T, positive; 1 changes nothing, above 1 the score is larger.
        psi: how much noise is added and taken away again besides that of the reverse SDE; at least
            0, and 0 is the reverse SDE.
        sigma_data: s_data, the level above which the score changes, in units of the data. DiffDock
            takes exp(a log(sigma_max) + (1 - a) log(sigma_min)) with a number a.

    Source: Corso et al., "DiffDock: Diffusion Steps, Twists, and Turns for Molecular Docking", ICLR
    2023, and its code for sampling (`temp_sampling`, `temp_psi`, `temp_sigma_data`).

    Examples:
        >>> import srk
        >>> process, target = srk.VE(), srk.targets.Gaussian(0.0, 1.0)
        >>> hook = srk.scores.LowTemperature(3.0, sigma_data=0.5)
        >>> run = {"shape": (4000, 1), "steps": 200, "seed": 0, "denoise_final": "mean"}
        >>> solver, score = "euler-maruyama", target.score(process)
        >>> x = srk.solve(process, score, solver, eta=hook.eta, hooks=[hook], **run).x
        >>> x.var().item() < 0.8
        True
    """

    temperature: float = attrs.field(converter=as_float)
    psi: float = attrs.field(default=0.0, converter=as_float, kw_only=True)
    sigma_data: float = attrs.field(converter=as_float, kw_only=True)

    def __attrs_post_init__(self) -> None:
        for name, value, least in (
            ("temperature", self.temperature, "positive"),
            ("sigma_data", self.sigma_data, "positive"),
        ):
            if not 0.0 < value < math.inf:
                raise ArgumentError(f"{name} is {least} and finite, not {value!r}; e.g. 0.5")
        real(self.psi, "psi", least=0.0)

    @property
    def eta(self) -> float:
        """The stochasticity of the run, sqrt(1 + psi)."""
        return math.sqrt(1.0 + self.psi)

    def factor(self, level: Level) -> float:
        """c, by which the score is multiplied at a level; at alpha = 0 its limit."""
        r, t = (level.sigma / level.alpha if level.alpha else math.inf), self.temperature
        ratio = t if math.isinf(r) else (self.sigma_data + r) / (self.sigma_data + r / t)
        return (ratio + 0.5 * t * self.psi) / (1.0 + 0.5 * self.psi)

    def after_call(self, denoised: Tensor, x: Tensor, level: Level) -> Tensor:
        c = self.factor(level)
        if level.alpha == 0.0:
            raise IncompatibleError(
                f"{self!r} scales the score, which does not determine the denoiser at t = "
                f"{level.t!r}, where alpha = 0; start a little below the end, e.g. "
                "srk.Flow(t_max=0.999)"
            )
        return denoised * c + x * ((1.0 - c) / level.alpha)


__all__ = [
    "CenterRandomAugmentation",
    "LowTemperature",
    "RigidAlign",
    "StateHook",
    "best_rotation",
    "rotation",
]
