"""Checks of the arguments of a run against each other: what does not go together, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from srk.errors import ArgumentTypeError, IncompatibleError
from srk.processes.base import ForwardProcess
from srk.processes.manifold import retraction
from srk.scores.state_hook_base import StateHook
from srk.steps import Grid, StepController
from srk.steps.picard import Picard

Gradient = Literal[False, True, "checkpoint"]


def parallel_given(parallel: object, compile: Any, control: StepController) -> Picard | None:
    """`parallel`, if it is a `Picard` that a sampler with this grid can follow."""
    if parallel is None:
        return None
    if not isinstance(parallel, Picard):
        raise ArgumentTypeError(
            "parallel is a srk.Picard or None, not "
            f"{parallel!r}; e.g. parallel=srk.Picard(window=32, tolerance=1e-3)"
        )
    if compile:
        raise IncompatibleError(
            f"compile={compile!r} makes kernels for one step after the other, but "
            "parallel= takes many at once; leave one of the two out"
        )
    if not isinstance(control, Grid):
        raise IncompatibleError(
            f"parallel= needs a fixed grid: {control!r} decides its steps as it goes; "
            "use grid='log-snr'"
        )
    return parallel


def check_moved(
    process: ForwardProcess, compile: Any, parallel: Picard | None, control: StepController
) -> None:
    """Raise if something that was asked for adds up states, which a retraction forbids."""
    asked = {
        "compile": compile,
        "parallel": parallel,
        "an adaptive grid": not isinstance(control, Grid),
    }
    for what, given in asked.items():
        if given:
            raise IncompatibleError(
                f"{what} is not for {process!r}: it adds and subtracts states, but those "
                "of this process are moved by increments; leave it out and use a fixed grid"
            )


def check_grad(grad: Gradient, compile: Any, x_init: Tensor | None) -> None:
    """Raise if gradients cannot flow as `grad` wants."""
    if grad and compile:
        raise IncompatibleError(
            f"compile={compile!r} writes into the buffers that gradients need; use "
            f"compile=False with grad={grad!r}"
        )
    inference = isinstance(x_init, Tensor) and x_init.is_inference()
    if grad and (torch.is_inference_mode_enabled() or inference):
        raise IncompatibleError(
            f"grad={grad!r} records what torch.inference_mode forgets: leave that mode, and "
            "give a clone of an x_init that was made in it"
        )


def check_unrolled(grad: Gradient) -> None:
    """Raise if gradients are asked of steps that are taken at once."""
    if grad:
        raise IncompatibleError(
            f"grad={grad!r} has no meaning with parallel=: the steps are iterated until they no "
            "longer change, and gradients would go through every round; use parallel=None"
        )


def check_density(process: ForwardProcess, hooks: Sequence[StateHook]) -> None:
    """Raise if hooks change the state between the steps, or a step is not Gaussian."""
    if retraction(process) is not None:
        raise IncompatibleError(
            f"a step of {process!r} moves the state by a Gaussian increment, but the "
            "state after it is not Gaussian, and its density is not known here; leave out "
            "log_prob"
        )
    if hooks:
        raise IncompatibleError(
            f"the hook {hooks[0]!r} changes the state before each step at random, so that "
            "the states of a trajectory alone do not say what a step began from; log-densities "
            "need a run without it"
        )
