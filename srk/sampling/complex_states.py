"""Runs of complex states: arguments go in as pairs of real numbers, and results come back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._checks import is_integer, shown
from srk._engine.memory import version
from srk._engine.recorder import StepInfo
from srk._modes import ordinary_tensors
from srk.errors import ArgumentError, IncompatibleError, SolveError
from srk.processes.base import ForwardProcess
from srk.scores.pairs import REAL, to_complex, to_pairs
from srk.solution import Saved, Solution


def complex_dtype(dtype: Any, x_init: Any) -> torch.dtype | None:
    """The complex dtype of a run; None where its states are real."""
    given = x_init.dtype if isinstance(x_init, Tensor) else None
    kind = given if dtype is None else dtype
    if not isinstance(kind, torch.dtype):
        return None
    if kind.is_complex and kind not in REAL:
        raise ArgumentError(
            f"complex samples are of dtype {' or '.join(map(str, REAL))}, not {kind}; e.g. "
            "dtype=torch.complex64"
        )
    if given is not None and given.is_complex and not kind.is_complex:
        raise ArgumentError(
            f"x_init is {given}, but dtype={dtype} would drop its imaginary part; leave dtype out, "
            "or give x_init.real"
        )
    return kind if kind in REAL else None


@attrs.frozen
class ComplexRun:
    """The arguments of a run of complex states as those of a real one, and its results back.

    Arguments:
        dtype: the complex dtype of the states.
    """

    dtype: torch.dtype

    @property
    def real(self) -> torch.dtype:
        """The dtype of the parts."""
        return REAL[self.dtype]

    def check(self, process: ForwardProcess) -> None:
        """Raise unless the process takes the parts of a complex number alike."""
        if process.statistic is None:
            raise IncompatibleError(
                f"complex states need a process that is linear in the state, not {process!r}; give "
                "it the real and imaginary parts as an axis of their own: torch.view_as_real(z)"
            )

    def solved(
        self,
        process: ForwardProcess,
        solve: Callable[..., Solution],
        shape: Any,
        x_init: Any,
        callback: Callable[..., Any] | None,
        **options: Any,
    ) -> Solution:
        """The solution of complex states.

        Arguments:
            process: what is reversed.
            solve: draws pairs of real numbers; takes the arguments of a `srk.Sampler`'s call.
            shape, x_init, callback: as the user gave them.
            options: the other arguments of the call.
        """
        self.check(process)
        try:
            return self.solution(
                solve(
                    self.shape(shape),
                    x_init=self.state(x_init),
                    dtype=self.real,
                    callback=self.callback(callback),
                    **options,
                )
            )
        except SolveError as error:
            raise SolveError(str(error), self.solution(error.solution)) from None

    def state(self, x_init: Any) -> Any:
        """The state to start from."""
        if not isinstance(x_init, Tensor) or x_init.layout is not torch.strided:
            return x_init
        return to_pairs(x_init.to(self.dtype))

    def shape(self, shape: Any) -> Any:
        """The shape of the samples; an int is a batch, as it was."""
        given = shape.tolist() if hasattr(shape, "tolist") else shape
        if given is None or is_integer(given) or not isinstance(given, Sequence):
            return shape
        return shape if isinstance(given, str | bytes) else (*given, 2)

    def callback(self, callback: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """A callback that is told of complex states, and may write to them."""
        if callback is None:
            return None

        def told(info: StepInfo) -> Any:
            with ordinary_tensors():  # a change of it is to be seen
                x = to_complex(info.x)
            denoised = None if info.denoised is None else to_complex(info.denoised)
            before = version(x)
            answer = callback(attrs.evolve(info, x=x, denoised=denoised))
            if version(x) != before:
                info.x.copy_(to_pairs(x))
            return answer

        return told

    def solution(self, made: Solution) -> Solution:
        """The solution of complex states."""
        with ordinary_tensors():
            return self._solution(made)

    def _solution(self, made: Solution) -> Solution:
        log_prob = made.log_prob
        if log_prob is not None:
            log_prob = self.density(log_prob, made.x)
        return attrs.evolve(
            made,
            x=to_complex(made.x),
            trajectory=_saved(made.trajectory),
            inputs=_saved(made.inputs),
            denoised=_saved(made.denoised),
            log_prob=log_prob,
        )

    def density(self, log_prob: Saved, u: Tensor) -> Saved:
        """The log-densities of the parts, of log-densities of pairs u = sqrt(2) (Re z, Im z)."""
        numbers = math.prod(u.shape[1:]) // 2
        return Saved(log_prob.times, log_prob.values + numbers * math.log(2.0))


def pairs_of(saved: Saved) -> Saved:
    """A trajectory of complex states as one of pairs."""
    if saved.values.dtype not in REAL:
        raise ArgumentError(f"a trajectory of {shown(saved.values.dtype)} is not complex")
    return Saved(saved.times, to_pairs(saved.values))


def _saved(saved: Saved | None) -> Saved | None:
    return None if saved is None else Saved(saved.times, to_complex(saved.values))
