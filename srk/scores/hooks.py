"""Hooks: functions of the denoised prediction, applied wherever a solver asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from srk._checks import as_float, shown
from srk._fields import function
from srk._modes import version
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, ScoreError
from srk.processes.base import Level, LinearProcess
from srk.scores.adapters import as_prediction
from srk.scores.base import Prediction, Rows
from srk.scores.moved import moved
from srk.scores.selection import Windows, cut, fits
from srk.scores.state_hook_base import (
    StateHook,
    changes_prediction,
    changes_state,
    check_returned,
    prediction_part,
)

if TYPE_CHECKING:
    from srk.processes.base import ForwardProcess

Hook = Callable[[Tensor, Level], Tensor] | StateHook


@attrs.frozen(eq=False, init=False)
class Hooked(Prediction):
    """A prediction whose denoiser goes through hooks: D becomes h_n(... h_1(D)).

    The solver then reverses another process, whose denoiser is the hooked one: every evaluation of
    a step and the final denoising see it, and the noise and the score follow from it.

    Arguments:
        prediction: an adapter, a guided prediction, an exact score, or a callable (x, t) -> score.
        hooks: callables (denoised, level) -> denoised, applied in order; D has shape (batch,
            *event) and is not theirs to overwrite. A hook that belongs to samples may have a method
            select(rows, batch), as `Prediction` has. A `srk.scores.StateHook` sees the state too;
            one that changes the state itself belongs into `hooks=` of `srk.solve`.

    Raises:
        ArgumentError: a hook changes the state.
        IncompatibleError: for a nonlinear process, which has no denoiser.
        ScoreError: on a call, a hook returns another shape, dtype or device.

    Examples:
        >>> import srk
        >>> process = srk.VP()
        >>> score = srk.targets.Gaussian(0.0, 1.0, event_shape=(3,)).score(process)
        >>> clipped = Hooked(score, Clip(), lambda denoised, level: denoised.round(decimals=2))
        >>> x = srk.solve(process, clipped, "srk2m", shape=100, nfe=20, seed=0).x
        >>> x.abs().max().item() <= 1.0
        True
    """

    prediction: Prediction
    hooks: tuple[Hook, ...]
    event_shape: tuple[int, ...] | None

    def __init__(self, prediction: Prediction | Callable[..., Tensor], *hooks: Hook) -> None:
        for hook in check_hooks(hooks):
            if changes_state(hook):
                raise ArgumentError(
                    f"the hook {hook!r} changes the state before each step, which a prediction "
                    "cannot; give it to the run: srk.solve(..., hooks=[hook])"
                )
        inner = as_prediction(prediction)
        self.__attrs_init__(inner, hooks, inner.event_shape)

    def bind(self, process: ForwardProcess) -> Hooked:
        """The same with its prediction bound to `process`."""
        if process.components > 1:
            raise IncompatibleError(
                f"hooks act on the denoised data, of which the states of {process!r} hold more; "
                "hook what is read from them: srk.Reduced(srk.Hooked(...))"
            )
        if not isinstance(process.centred, LinearProcess):
            raise IncompatibleError(
                f"hooks act on the denoiser, which {process!r} has not; use a linear process, or "
                "change the score itself"
            )
        return Hooked(self.prediction.bind(process), *self.hooks)

    def select(self, rows: slice | Tensor, batch: int) -> Hooked:
        hooks = selected(self.hooks, rows, batch)
        return Hooked(self.prediction.select(rows, batch), *hooks)

    def calls(self, t: float | None = None) -> int:
        return self.prediction.calls(t)

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        return self._hooked(self.prediction.denoise(x, level, process), x, level)

    def denoise_each(self, rows: Rows, process: ForwardProcess) -> Tensor:
        denoised = self.prediction.denoise_each(rows, process)
        parts = []
        for group, level in rows.groups():
            chosen = self.select(rows.samples[group], rows.batch)
            # The next call of a hook may write to the memory of this one.
            parts.append(chosen._hooked(denoised[group], rows.x[group], level).clone())
        return torch.cat(parts)

    def _hooked(self, denoised: Tensor, x: Tensor, level: Level) -> Tensor:
        """The denoised prediction at `x` after all hooks."""
        for hook in self.hooks:
            before = version(denoised)
            out = (
                hook.after_call(denoised, x, level)
                if isinstance(hook, StateHook)
                else hook(denoised, level)
            )
            if version(denoised) != before:
                raise ScoreError(
                    f"the hook {hook!r} wrote into the denoised prediction, which may be memory of "
                    "the network or the state itself; return a new tensor, e.g. "
                    "denoised.clamp(-1, 1)"
                )
            check_returned(out, x, f"the hook {hook!r}", "the denoised prediction")
            denoised = out
        return denoised


def check_hooks(hooks: tuple[Any, ...]) -> tuple[Hook, ...]:
    """The hooks, if they are hooks."""
    for hook in hooks:
        if isinstance(hook, type) or not callable(hook):
            raise ArgumentTypeError(
                f"a hook is a callable (denoised, level) -> denoised, or a srk.scores.StateHook, "
                f"not {hook!r}; e.g. srk.scores.hooks.Clip(-1.0, 1.0)"
            )
    return hooks


def with_hooks(prediction: Prediction, hooks: Iterable[Hook]) -> Prediction:
    """The prediction with those of the hooks of a run that act on it."""
    acting = [prediction_part(hook) for hook in hooks if changes_prediction(hook)]
    return Hooked(prediction, *acting) if acting else prediction


def selected(hooks: Iterable[Any], rows: slice | Tensor, batch: int) -> tuple[Any, ...]:
    """The hooks for some of the samples of a batch."""
    return tuple(hook.select(rows, batch) if hasattr(hook, "select") else hook for hook in hooks)


@attrs.frozen
class Clip:
    """Static thresholding: D clipped to the range of the data.

    Arguments:
        low, high: the range; -1 to 1 for most image networks.

    Raises:
        ArgumentError: low >= high.

    Source: Ho et al., "Denoising Diffusion Probabilistic Models", 2020.

    Examples:
        >>> import torch
        >>> Clip()(torch.tensor([[-3.0, 0.5]]), None)
        tensor([[-1.0000,  0.5000]])
    """

    low: float = attrs.field(default=-1.0, converter=as_float)
    high: float = attrs.field(default=1.0, converter=as_float)

    def __attrs_post_init__(self) -> None:
        if not self.low < self.high:
            raise ArgumentError(
                f"Clip needs low < high, not low = {self.low!r}, high = {self.high!r}"
            )

    def __call__(self, denoised: Tensor, level: Level) -> Tensor:
        _check_ordered(self, denoised)
        return denoised.clamp(self.low, self.high)


@attrs.frozen
class DynamicThreshold:
    """Dynamic thresholding.

    D clipped to [-s, s] and divided by s/bound, s the q-quantile of |D| over each sample, if it is
    above the bound.

    Made for classifier-free guidance at large scales in pixel space; not for latents, whose range
    is not known.

    Arguments:
        quantile: q, in (0, 1].
        bound: the data lie in [-bound, bound].
        largest: s is at most this; None for no limit.

    Raises:
        ArgumentError: a quantile, bound or limit out of range.

    Source: Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language
    Understanding", 2022, section 2.3.

    Examples:
        >>> import torch
        >>> DynamicThreshold(0.5)(torch.tensor([[1.0, 2.0, -4.0], [0.1, 0.2, 0.3]]), None)
        tensor([[ 0.5000,  1.0000, -1.0000],
                [ 0.1000,  0.2000,  0.3000]])
    """

    quantile: float = attrs.field(default=0.995, converter=as_float)
    bound: float = attrs.field(default=1.0, converter=as_float)
    largest: float | None = None

    def __attrs_post_init__(self) -> None:
        if not 0.0 < self.quantile <= 1.0:
            raise ArgumentError(
                f"the quantile lies in (0, 1], not {self.quantile!r}; e.g. DynamicThreshold(0.995)"
            )
        if not self.bound > 0.0:
            raise ArgumentError(
                f"bound is positive, the largest absolute value of the data, not {self.bound!r}"
            )
        if self.largest is not None and not self.largest >= self.bound:
            raise ArgumentError(
                f"largest is at least the bound {self.bound!r}, not {self.largest!r}"
            )

    def __call__(self, denoised: Tensor, level: Level) -> Tensor:
        _check_ordered(self, denoised)
        values = denoised.reshape(len(denoised), -1).abs()
        # torch.quantile wants float32 or more and at most 2^24 numbers; sorting has neither limit
        ordered = values.to(torch.promote_types(values.dtype, torch.float32)).sort(1).values
        place = self.quantile * (ordered.shape[1] - 1)
        low = int(place)
        high = min(low + 1, ordered.shape[1] - 1)
        s = (
            torch.lerp(ordered[:, low], ordered[:, high], place - low)
            .clamp(self.bound, self.largest)
            .to(denoised.dtype)
        )
        s = s.reshape(-1, *[1] * (denoised.ndim - 1))
        return torch.minimum(torch.maximum(denoised, -s), s) * (self.bound / s)


def _check_ordered(hook: object, denoised: Tensor) -> None:
    """Raise where numbers are complex, which have no range."""
    if denoised.is_complex():
        raise IncompatibleError(
            f"{hook!r} keeps real numbers in a range, but the state is complex; limit its modulus "
            "by a hook of your own"
        )


def _is_tensor(owner: object, attribute: attrs.Attribute[Tensor], value: object) -> None:
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(
            f"{attribute.name} is a tensor of data, not {shown(value)}; e.g. "
            f"torch.as_tensor({attribute.name})"
        )


@attrs.frozen(eq=False)
class Replace:
    """Replacement: D is the known value where the mask says so; for inpainting.

    The known part of the samples ends exactly at `known`. The rest is drawn given the noisy known
    part of the state, not given the known data itself, so the result is not the exact posterior
    (docs/guidance.md has numbers). `srk.scores.RePaint` differs: it overwrites the known part of
    the STATE with freshly noised data at each step; here the state is the solver's own, so that
    every solver and grid works as it is.

    Arguments:
        known: the data, of a shape that broadcasts to (batch, *event); its values outside the mask
            do not matter.
        mask: boolean, true where the data are known, likewise; a mask of numbers in [0, 1] blends,
            mask known + (1 - mask) D.

    Raises:
        ArgumentTypeError: `known` is no tensor, or the mask is not one of booleans or
            floating-point numbers.
        ArgumentError: on a call, one of the two does not broadcast to the samples, or `known` is
            complex and the samples are not.

    Source: Song et al. 2021, section 5 and appendix I.2 (imputation); Lugmayr et al., "RePaint",
    2022.

    Examples:
        >>> import torch
        >>> hook = Replace(torch.tensor([0.5, 0.0]), torch.tensor([True, False]))
        >>> hook(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), None)
        tensor([[0.5000, 2.0000],
                [0.5000, 4.0000]])
    """

    known: Tensor = attrs.field(validator=_is_tensor)
    mask: Tensor = attrs.field()
    _windows: Windows = attrs.field(default=(), kw_only=True, repr=False)

    @mask.validator
    def _check_mask(self, attribute: attrs.Attribute[Tensor], value: object) -> None:
        if not isinstance(value, Tensor) or not (
            value.dtype == torch.bool or value.dtype.is_floating_point
        ):
            raise ArgumentTypeError(
                "the mask is a tensor of booleans, true where the data are known, or of weights "
                "in [0, 1]; e.g. mask.bool()"
            )

    def __call__(self, denoised: Tensor, level: Level) -> Tensor:
        return self.put(denoised)

    def put(self, into: Tensor, scale: float = 1.0, noise: Tensor | None = None) -> Tensor:
        """The tensor with scale known + noise where the mask says so, (batch, *event)."""
        if self.known.is_complex() and not into.is_complex():
            raise ArgumentError(
                f"known is {self.known.dtype}, but the samples are {into.dtype}; give known.real, "
                f"or draw complex samples: dtype={self.known.dtype}"
            )
        given = moved(self.known, into.device, into.dtype), moved(self.mask, into.device)
        known, mask = (cut(value, into.ndim, self._windows) for value in given)
        for name, value in (("known", known), ("mask", mask)):
            if not fits(value, into.shape):
                raise ArgumentError(
                    f"{name} has shape {tuple(value.shape)}, which does not broadcast to samples "
                    f"of shape {tuple(into.shape)}; give one of shape {tuple(into.shape[1:])} for "
                    f"all samples, or of shape {tuple(into.shape)}"
                )
        if scale != 1.0:
            known = known * scale
        if noise is not None:
            known = known + noise
        if mask.dtype == torch.bool:
            return torch.where(mask, known, into)
        return torch.lerp(into, known, mask.to(into.dtype))

    def select(self, rows: slice | Tensor, batch: int) -> Replace:
        """The hook for some of the samples of a batch.

        What has the batch as its first axis is cut.
        """
        return attrs.evolve(self, windows=(*self._windows, (rows, batch)))


@attrs.frozen(eq=False)
class Project:
    """Projection onto linear measurements y = A x0.

    D becomes D - A+ (A D - y), so that the samples satisfy them exactly.

    Arguments:
        forward: A, a function of tensors (batch, *event).
        inverse: A+, a right inverse of A: A A+ y = y. The pseudo-inverse makes the projection
            orthogonal: for averages over blocks, the value repeated over the block.
        measured: y, of a shape that broadcasts with what `forward` returns.

    Source: Wang et al., "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model"
    (DDNM), 2023.

    Examples:
        >>> import torch
        >>> average, spread = lambda x: x.mean(1, keepdim=True), lambda y: y.expand(-1, 2)
        >>> mean = Project(average, spread, torch.tensor(1.0))
        >>> mean(torch.tensor([[0.0, 1.0]]), None)
        tensor([[0.5000, 1.5000]])
    """

    forward: Callable[[Tensor], Tensor] = attrs.field(validator=function("of the data, x -> A x"))
    inverse: Callable[[Tensor], Tensor] = attrs.field(
        validator=function("of measurements, y -> A+ y")
    )
    measured: Tensor = attrs.field(validator=_is_tensor)
    _windows: Windows = attrs.field(default=(), kw_only=True, repr=False)

    def __call__(self, denoised: Tensor, level: Level) -> Tensor:
        predicted = self.forward(denoised)
        measured = moved(self.measured, denoised.device, denoised.dtype)
        y = cut(measured, predicted.ndim, self._windows)
        sizes = zip(reversed(y.shape), reversed(predicted.shape), strict=False)
        if y.ndim > predicted.ndim or any(size not in (1, whole) for size, whole in sizes):
            raise ArgumentError(
                f"Project has measured of shape {tuple(self.measured.shape)}, and forward returns "
                f"{tuple(predicted.shape)} for a state of shape {tuple(denoised.shape)}; measured "
                "must broadcast with that: give forward(x0) for the x0 that was measured"
            )
        return denoised - self.inverse(predicted - y)

    def select(self, rows: slice | Tensor, batch: int) -> Project:
        """The hook for some of the samples of a batch.

        Measurements whose first axis is the batch are cut.
        """
        return attrs.evolve(self, windows=(*self._windows, (rows, batch)))


__all__ = ["Clip", "DynamicThreshold", "Hooked", "Project", "Replace"]
