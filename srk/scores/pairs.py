"""Complex states as pairs of real numbers.

A complex state z of shape (batch, *event) runs as the real state u of shape (batch, *event, 2), the
real and the imaginary part times sqrt(2). Complex noise of variance 1 (1/2 in each part) is then
unit noise of u, and the norm of u per number is the modulus of z. Every parameterization of a
network is linear in the state's unit, so that its output goes over in the same way as the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import singledispatch
from typing import Any, NoReturn

import attrs
import torch
from torch import Tensor

from srk.errors import IncompatibleError, ScoreError
from srk.processes.base import ForwardProcess, Level
from srk.scores.base import Prediction
from srk.scores.centred import Centred
from srk.scores.classifier import ClassifierGuided
from srk.scores.guidance import Guided
from srk.scores.guidance_methods import APG, CFGZero
from srk.scores.hooks import Hooked
from srk.scores.network_prediction import NetworkPrediction
from srk.scores.phase import PhasePrediction, PhaseScore, Reduced
from srk.scores.state_hook_base import StateHook, changes_state

UNIT = math.sqrt(2.0)
"""The modulus of z is that of u, whose two numbers are UNIT times its parts."""

REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}
"""The dtype of the parts of each complex dtype that a state may have."""


def to_pairs(z: Tensor) -> Tensor:
    """The real state of a complex one, (batch, *event, 2)."""
    return torch.view_as_real(z.resolve_conj()) * UNIT


def to_complex(u: Tensor) -> Tensor:
    """The complex state of a real one: the inverse of `to_pairs`."""
    return torch.view_as_complex((u * (1.0 / UNIT)).contiguous())


def _paired_shape(event: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if event is None else (*event, 2)


def _said(out: object, what: str, state: Tensor, *, twice: bool = False) -> Tensor:
    """What a network or a hook returned for a complex state, as pairs.

    Arguments:
        out: what it returned.
        what: who returned it, in words.
        state: the complex state, whose shape `out` must have.
        twice: it may have twice the channels, of which the first half is taken later.
    """
    if not isinstance(out, Tensor) or out.dtype not in REAL:
        got = out.dtype if isinstance(out, Tensor) else type(out).__name__
        raise ScoreError(
            f"{what} returned {got} for a complex state; it must return complex numbers, one for "
            "each of the state"
        )
    if out.shape != state.shape and not twice:
        raise ScoreError(
            f"{what} returned shape {tuple(out.shape)} for a complex state of shape "
            f"{tuple(state.shape)}; it must return one complex number for each of the state"
        )
    return to_pairs(out)


@attrs.frozen
class _PairedNetwork:
    """A network of complex states, called with pairs. Two are equal where their networks are."""

    network: Callable[..., Any]
    twice: bool

    def __call__(self, u: Tensor, *args: Any, **kwargs: Any) -> Any:
        z = to_complex(u)
        out = self.network(z, *args, **kwargs)
        return _said(out, f"the network {self.network!r}", z, twice=self.twice)


@attrs.frozen(eq=False)
class _PairedLogProb:
    """A log-probability of complex states, of pairs."""

    log_prob: Callable[..., Tensor]

    def __call__(self, u: Tensor, t: Tensor) -> Tensor:
        return self.log_prob(to_complex(u), t)


@attrs.frozen(eq=False)
class _Paired(Prediction):
    """A prediction of a kind of its own, whose `denoise` takes complex states."""

    prediction: Prediction
    event_shape: tuple[int, ...] | None = attrs.field(init=False)

    @event_shape.default
    def _event_shape(self) -> tuple[int, ...] | None:
        return _paired_shape(self.prediction.event_shape)

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        z = to_complex(x)
        out = self.prediction.denoise(z, level, process)
        return _said(out, f"denoise of {self.prediction!r}", z)

    def calls(self, t: float | None = None) -> int:
        return self.prediction.calls(t)

    def select(self, rows: slice | Tensor, batch: int) -> _Paired:
        return _Paired(self.prediction.select(rows, batch))


@singledispatch
def paired(prediction: Prediction) -> Prediction:
    """The prediction for the pairs of complex states; a bound one stays bound.

    Networks, log-probabilities and hooks see complex states; everything between them sees pairs, so
    that its norms and inner products are those of complex numbers.
    """
    return _Paired(prediction)


@paired.register
def _(prediction: NetworkPrediction) -> Prediction:
    if prediction.network_dtype not in (None, *REAL.values()):
        raise IncompatibleError(
            f"network_dtype={prediction.network_dtype} has no complex numbers; the network of "
            "complex states runs in float32 or float64, the dtype of their parts"
        )
    return attrs.evolve(
        prediction,
        network=_PairedNetwork(prediction.network, prediction.channels == "first-half"),
        event_shape=_paired_shape(prediction.event_shape),
    )


@paired.register
def _(prediction: Guided) -> Prediction:
    return prediction._with(paired, prediction._process)


@paired.register
def _(prediction: CFGZero) -> Prediction:
    return attrs.evolve(
        prediction,
        condition=paired(prediction.condition),
        reference=paired(prediction.reference),
    )


@paired.register
def _(prediction: APG) -> Prediction:
    longest = prediction.norm_threshold  # over all numbers, of which there are twice as many
    return attrs.evolve(
        prediction,
        condition=paired(prediction.condition),
        reference=paired(prediction.reference),
        norm_threshold=None if longest is None else longest * UNIT,
    )


@paired.register
def _(prediction: ClassifierGuided) -> Prediction:
    return attrs.evolve(
        prediction,
        prediction=paired(prediction.prediction),
        log_prob=_PairedLogProb(prediction.log_prob),
    )


@paired.register
def _(prediction: Hooked) -> Prediction:
    return Hooked(paired(prediction.prediction), *map(_paired_hook, prediction.hooks))


@paired.register
def _(prediction: Centred) -> Prediction:
    mean = prediction.process.mean
    wide = torch.promote_types(mean.dtype, torch.complex64)
    process = prediction.process.with_mean(to_pairs(mean.to(wide)))
    return Centred(paired(prediction.prediction), process)


@paired.register
def _(prediction: Reduced) -> Prediction:
    return Reduced(paired(prediction.prediction), _paired_shape(prediction.event_shape))


@paired.register
def _(prediction: PhaseScore) -> Prediction:
    return PhaseScore(paired(prediction.network))  # type: ignore[arg-type]  # a Score stays one


def refuse(prediction: Any) -> NoReturn:
    """For predictions that are made for real states; register it with `paired`."""
    raise IncompatibleError(
        f"{type(prediction).__name__} is for real states; give it the real and imaginary parts as "
        "an axis of their own: torch.view_as_real(z)"
    )


paired.register(PhasePrediction, refuse)


def _paired_hook(hook: Any) -> Any:
    """The hook on the denoised prediction, of pairs."""
    return _PairedAfter(hook) if isinstance(hook, StateHook) else _PairedHook(hook)


def paired_change(hook: StateHook) -> StateHook:
    """The hook that changes the state, of pairs."""
    assert changes_state(hook)
    return _PairedBefore(hook)


def _selected(hook: Any, rows: slice | Tensor, batch: int) -> Any:
    return hook.select(rows, batch) if hasattr(hook, "select") else hook


@attrs.frozen(eq=False)
class _PairedHook:
    hook: Callable[[Tensor, Level], Any]

    def __call__(self, denoised: Tensor, level: Level) -> Tensor:
        z = to_complex(denoised)
        return _said(self.hook(z, level), f"the hook {self.hook!r}", z)

    def select(self, rows: slice | Tensor, batch: int) -> _PairedHook:
        return _PairedHook(_selected(self.hook, rows, batch))


@attrs.frozen(eq=False)
class _PairedAfter(StateHook):
    hook: StateHook

    def after_call(self, denoised: Tensor, x: Tensor, level: Level) -> Tensor:
        z = to_complex(denoised)
        out = self.hook.after_call(z, to_complex(x), level)
        return _said(out, f"the hook {self.hook!r}", z)

    def select(self, rows: slice | Tensor, batch: int) -> _PairedAfter:
        return _PairedAfter(self.hook.select(rows, batch))


@attrs.frozen(eq=False)
class _PairedBefore(StateHook):
    hook: StateHook

    @property
    def normals(self) -> int | None:  # type: ignore[override]
        return self.hook.normals

    def before_step(self, x: Tensor, level: Level, normals: Tensor) -> Tensor:
        z = to_complex(x)
        out = self.hook.before_step(z, level, normals)
        return _said(out, f"the hook {self.hook!r}", z)

    def select(self, rows: slice | Tensor, batch: int) -> _PairedBefore:
        return _PairedBefore(self.hook.select(rows, batch))


__all__ = ["REAL", "paired", "paired_change", "refuse", "to_complex", "to_pairs"]
