"""Hooks that see the state: what structure predictors do to their points around a network call.

A `StateHook` may change the state itself before each step, with random numbers of the sample's own
noise, and may change the denoised prediction with the state that it was asked for in view.
"""

from __future__ import annotations

import math
from typing import Any, TypeGuard

import attrs
import torch
from torch import Tensor

from srk._checks import as_float, real
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, ScoreError
from srk.processes.base import Level
from srk.scores.selection import Windows, cut


class StateHook:
    """A hook that sees the state. Subclass it and override one of the two methods, or both.

    `srk.solve(hooks=[...])` and `srk.Sampler(hooks=[...])` take such objects, next to functions
    (denoised, level) -> denoised. One that has `after_call` alone may be given to `srk.Hooked` too.

    Attributes:
        normals: how many unit normals a sample needs for each `before_step`; None for as many as it
            has numbers. They are the first
            numbers of a draw of the run's noise source, so that with noise="keyed" they belong to
            the sample and the step, whatever the batch.

    Examples:
        >>> import srk, torch
        >>> class Center(srk.scores.StateHook):
        ...     def before_step(self, x, level, normals):
        ...         return x - x.mean(1, keepdim=True)
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.0, 1.0, event_shape=(3,))
        >>> options = {"shape": (4, 3), "steps": 10, "seed": 0, "denoise_final": False}
        >>> sol = srk.solve(process, target.score(process), "ddpm", hooks=[Center()], **options)
    """

    normals: int | None = 0

    def before_step(self, x: Tensor, level: Level, normals: Tensor) -> Tensor:
        """The state to begin a step from. The default is the state as it is.

        Arguments:
            x: the state at the start of a step, (batch, *event); not to be written to.
            level: the noise level there, with attributes t, alpha and sigma.
            normals: unit normals, (batch, self.normals).

        Returns:
            A tensor like `x`.
        """
        return x

    def after_call(self, denoised: Tensor, x: Tensor, level: Level) -> Tensor:
        """The denoised prediction to go on with. The default is that of the network.

        Arguments:
            denoised: what the network predicts, (batch, *event); not to be written to.
            x: the state that it was asked for, of the same shape.
            level: the noise level there.

        Returns:
            A tensor like `denoised`.
        """
        return denoised

    def select(self, rows: slice | Tensor, batch: int) -> StateHook:
        """The hook for some of the samples of a batch, as `srk.scores.base.Prediction.select`."""
        return self

    def __call__(self, denoised: Tensor, level: Level) -> Tensor:
        raise ArgumentTypeError(
            f"{self!r} sees the state and is no function (denoised, level); give it to "
            "srk.solve(..., hooks=[...])"
        )


def check_returned(out: object, like: Tensor, who: str, what: str) -> None:
    """Raise `ScoreError` unless a hook has returned a tensor like the one that it was given.

    Arguments:
        out: what it returned.
        like: a tensor of that shape, dtype and device.
        who, what: the hook, and what it was given, in words.
    """
    if isinstance(out, Tensor):
        if (out.shape, out.dtype, out.device) == (like.shape, like.dtype, like.device):
            return
        got = f"{tuple(out.shape)}, {out.dtype}, {out.device}"
    else:
        got = repr(out)
    raise ScoreError(
        f"{who} returned {got}; it must return a tensor like {what}: {tuple(like.shape)}, "
        f"{like.dtype}, {like.device}"
    )


def changes_state(hook: object) -> TypeGuard[StateHook]:
    """Whether the hook has a `before_step` of its own."""
    return isinstance(hook, StateHook) and type(hook).before_step is not StateHook.before_step


def changes_prediction(hook: object) -> bool:
    """Whether the hook acts on the denoised prediction."""
    if not isinstance(hook, StateHook):
        return True
    return type(hook).after_call is not StateHook.after_call


def prediction_part(hook: Any) -> Any:
    """The hook without what it does to the state."""
    return _AfterCall(hook) if changes_state(hook) else hook


@attrs.frozen(eq=False)
class _AfterCall(StateHook):
    """What a hook does to the prediction alone."""

    hook: StateHook

    def after_call(self, denoised: Tensor, x: Tensor, level: Level) -> Tensor:
        return self.hook.after_call(denoised, x, level)

    def select(self, rows: slice | Tensor, batch: int) -> _AfterCall:
        return _AfterCall(self.hook.select(rows, batch))


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
        points, normals = _points(x).to(wide), normals.to(wide)
        centred = points - _center(points, _weights(self.mask, x, points, self._windows))
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
        points, wanted = _points(denoised).to(wide), _points(x).to(wide) / level.alpha
        weights = _weights(self.weights, x, points, self._windows)
        centre, goal = _center(points, weights), _center(wanted, weights)
        points, wanted = points - centre, wanted - goal
        moved = points @ best_rotation(points, wanted, weights) + goal
        return moved.reshape(x.shape).to(x.dtype)

    def select(self, rows: slice | Tensor, batch: int) -> RigidAlign:
        return attrs.evolve(self, windows=(*self._windows, (rows, batch)))


@attrs.frozen
class LowTemperature(StateHook):
    """DiffDock's low-temperature sampling: the score is made larger where the noise is large.

    The score s becomes c s, and so D becomes u + c (D - u) with u = x/alpha and r = sigma/alpha:

        c = (lambda + T psi/2)/(1 + psi/2),    lambda = (s_data + r)/(s_data + r/T)

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


def rotation(quaternions: Tensor) -> Tensor:
    """The rotations of quaternions (w, x, y, z) of any length, to be multiplied from the right:
    points @ rotation. The quaternion 0 rotates nothing.

    Arguments:
        quaternions: shape (batch, 4). Four unit normals give a uniform rotation.

    Returns:
        Shape (batch, 3, 3).
    """
    size = quaternions.norm(dim=-1, keepdim=True)
    w, x, y, z = (quaternions / torch.where(size > 0.0, size, 1.0)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y),
        2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x),
        2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(-1, 3, 3)


SQUARINGS = 40
"""The matrix is raised to the power 2^40, which tells apart eigenvalues that differ by 1e-11."""


def best_rotation(source: Tensor, goal: Tensor, weights: Tensor | None = None) -> Tensor:
    """The rotation that takes centred points nearest to others: source @ rotation ~ goal.

    It is that of the unit quaternion q for which q^T N q is largest, N Horn's symmetric 4 x 4
    matrix: the eigenvector of the largest eigenvalue, which repeated squaring of the shifted
    matrix leaves over.

    Arguments:
        source, goal: shape (batch, points, 3), with their weighted means at 0.
        weights: shape (batch or 1, points, 1), or None.

    Returns:
        Shape (batch, 3, 3).
    """
    left = source if weights is None else source * weights
    s = left.mT @ goal
    xx, xy, xz, yx, yy, yz, zx, zy, zz = s.flatten(1).unbind(1)
    rows = [
        xx + yy + zz, yz - zy, zx - xz, xy - yx,
        yz - zy, xx - yy - zz, xy + yx, zx + xz,
        zx - xz, xy + yx, yy - xx - zz, yz + zy,
        xy - yx, zx + xz, yz + zy, zz - xx - yy,
    ]  # fmt: skip
    horn = torch.stack(rows, -1).reshape(-1, 4, 4)
    # N/|N| + 1 has no negative eigenvalue. Without points N is 0, and any rotation is right.
    size = horn.square().sum((1, 2), keepdim=True)
    unit = horn * torch.where(size > 0.0, size, 1.0).rsqrt()
    power = unit + torch.eye(4, dtype=s.dtype, device=s.device)
    for _ in range(SQUARINGS):
        power = power @ power
        power = power / power.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    # What is left is q q^T: its column of the largest diagonal entry is q, times a number.
    column = power.diagonal(dim1=1, dim2=2).argmax(1)
    return rotation(power.gather(2, column[:, None, None].expand(-1, 4, 1))[..., 0])


def _points(x: Tensor) -> Tensor:
    """The state as points, (batch, points, 3)."""
    if x.is_complex():
        raise IncompatibleError(
            f"the state is {x.dtype}, but points in space are real; give this hook to a run of "
            "coordinates"
        )
    if x.ndim < 3 or x.shape[-1] != 3:
        raise ArgumentError(
            f"the state has shape {tuple(x.shape)}, but points in space have (batch, ..., points, "
            "3); give this hook to a run of coordinates"
        )
    return x.reshape(len(x), -1, 3)


def _weights(given: Tensor | None, x: Tensor, points: Tensor, windows: Windows) -> Tensor | None:
    """The weights of the points, (batch or 1, points, 1)."""
    if given is None:
        return None
    own = cut(given, x.ndim - 1, windows)
    if own.shape not in (x.shape[1:-1], x.shape[:-1], (1, *x.shape[1:-1])):
        raise ArgumentError(
            f"the points have the weights of shape {tuple(own.shape)}, but the state of shape "
            f"{tuple(x.shape)} needs {tuple(x.shape[1:-1])} or {tuple(x.shape[:-1])}: one for each "
            "point"
        )
    return own.to(points).reshape(-1, points.shape[1], 1)


def _center(points: Tensor, weights: Tensor | None) -> Tensor:
    """The weighted mean of the points, (batch, 1, 3)."""
    if weights is None:
        return points.mean(1, keepdim=True)
    total = weights.sum(1, keepdim=True)
    return (points * weights).sum(1, keepdim=True) / torch.where(total == 0.0, 1.0, total)


__all__ = ["CenterRandomAugmentation", "LowTemperature", "RigidAlign", "StateHook"]
