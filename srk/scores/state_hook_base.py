"""Hooks that see the state: what structure predictors do to their points around a network call.

A `StateHook` may change the state itself before each step, with random numbers of the sample's own
noise, and may change the denoised prediction with the state that it was asked for in view.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import attrs
from torch import Tensor

from srk.errors import ArgumentTypeError, ScoreError
from srk.processes.base import Level


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
