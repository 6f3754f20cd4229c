"""Predictions for phase-space states.

What a network or a target says of the data, as the denoiser of all components.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np
from torch import Tensor

from srk._modes import asked, ordinary_tensors
from srk.errors import IncompatibleError
from srk.processes.kernel import mix
from srk.scores.base import Prediction, check_state

if TYPE_CHECKING:
    from srk.processes.base import ForwardProcess, Level, LinearProcess


class _AskedScore(Protocol):
    """What `PhaseScore` needs of an `srk.Score`: to be asked, checked and cut by samples."""

    @property
    def event_shape(self) -> tuple[int, ...] | None: ...
    def _call(self, x: Tensor, level: Level, process: ForwardProcess) -> Any: ...
    def _checked(self, out: Any, x: Tensor) -> Tensor: ...
    def select(self, rows: slice | Tensor, batch: int) -> Prediction: ...


class PhasePrediction(Prediction):
    """A prediction for states of shape (batch, k, *event), as those of a `PhaseProcess`.

    Implement `predict`, the rest follows.
    """

    @abstractmethod
    def predict(self, z: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """E[x0 | z_t = z], shape (batch, *event), for states of shape (batch, k, *event)."""

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """E[z_0 | z_t], shape (batch, k, *event).

        The data, and what is known of the auxiliary components at t = 0.
        """
        process = need_phase(process)
        data, kernel = self.predict(x, level, process), process.kernel(level.t)
        out = mix(np.vstack([np.zeros((1, len(kernel.mean))), kernel.auxiliary]), x)
        shift = kernel.auxiliary @ kernel.mean
        for i, value in enumerate(shift, 1):
            out[:, i].sub_(data, alpha=float(value))
        out[:, 0].copy_(data)
        return out

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """The whole score C^-1 (a D - z), shape (batch, k, *event)."""
        process = need_phase(process)
        data, kernel = self.predict(x, level, process), process.kernel(level.t)
        inverse = np.linalg.inv(kernel.covariance)
        out = mix(-inverse, x)
        for i, value in enumerate(inverse @ kernel.mean):
            out[:, i].add_(data, alpha=float(value))
        return out


@attrs.frozen(eq=False)
class Reduced(PhasePrediction):
    """A prediction for scalar processes, used on phase-space states.

    It sees their sufficient statistic m = x0 + rho eps.

    D(z) = E[x0 | m] exactly, so a network that was trained for any linear process serves here:
    `srk.Reduced(srk.NoisePrediction(network, input_scale="vp", ...))` needs its input scale and
    time unit, as it would under another linear process (alpha = 1, sigma = rho), and a process that
    does not begin noisier than its own.

    Arguments:
        prediction: an adapter, or an exact score.

    Examples:
        >>> import srk, torch
        >>> process, vp = srk.CLD(t_max=0.9), srk.VP(t_min=1e-9)  # at 0.9 as noisy as VP at 0.98
        >>> network = lambda x, t: x * vp.sigma(t)[:, None]  # the noise in N(0, 1) data under VP
        >>> time = lambda level: vp.time(level.lam)
        >>> noise = srk.NoisePrediction(network, input_scale="vp", time=time)
        >>> score = srk.Reduced(noise)
        >>> sol = srk.solve(process, score, "srk2m", shape=(1000, 2, 1), nfe=20, seed=0)
        >>> abs(sol.x[:, 0].std().item() - 1) < 0.1
        True
    """

    prediction: Prediction
    event_shape: tuple[int, ...] | None = attrs.field(default=None, alias="_event_shape")

    def bind(self, process: ForwardProcess) -> Reduced:
        process = need_phase(process)
        inner = self.prediction.bind(_statistic(process))
        event = inner.event_shape
        return type(self)(inner, None if event is None else process.state_shape(event))

    def predict(self, z: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        check_phase_state(z, process)
        with ordinary_tensors():
            x = read(process.kernel(level.t).reading, z)
        return asked(self.prediction.denoise, x, level, _statistic(process))

    def calls(self, t: float | None = None) -> int:
        return self.prediction.calls(t)

    def select(self, rows: slice | Tensor, batch: int) -> Prediction:
        return type(self)(self.prediction.select(rows, batch), self.event_shape)


@attrs.frozen(eq=False)
class PhaseScore(PhasePrediction):
    """A network of the phase-space state that returns the score.

    What a bare callable (z, t) -> score or `srk.Score` becomes under a `PhaseProcess`.

    The network gets z of shape (batch, k, *event) and the time; `lambda z, t: network(z.flatten(1,
    2), t)` hands it the components concatenated along the channels. It returns the whole score
    (batch, k, *event), of which only the components that noise enters are used, or that of the one
    component that noise enters, (batch, *event), for CLD the velocity's. The denoiser follows from
    G^T s = G^T C^-1 (a D - z).

    Arguments:
        network: the `srk.Score` with its options.
    """

    network: _AskedScore
    event_shape: tuple[int, ...] | None = attrs.field(init=False)

    @event_shape.default
    def _event_shape(self) -> tuple[int, ...] | None:
        return self.network.event_shape

    def predict(self, z: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        check_phase_state(z, process)
        weights, of_state = process.read_score(level.t)
        noisy = np.flatnonzero(weights)
        out = self.network._call(z, level, process)
        one = len(noisy) == 1 and isinstance(out, Tensor) and out.ndim == z.ndim - 1
        out = self.network._checked(out, z[:, noisy[0]] if one else z)
        said = out * float(weights[noisy[0]]) if one else read(weights, out)
        return said.add_(read(of_state, z))

    def select(self, rows: slice | Tensor, batch: int) -> Prediction:
        part = self.network.select(rows, batch)
        return PhaseScore(part)  # type: ignore[arg-type]  # a part of a Score is one


def read(weights: Any, z: Tensor) -> Tensor:
    """The combination of components sum_i weights[i] z[:, i], shape (batch, *event)."""
    out = z[:, 0] * float(weights[0])
    for i, value in enumerate(weights[1:], 1):
        out.add_(z[:, i], alpha=float(value))
    return out


def _statistic(process: ForwardProcess) -> LinearProcess:
    statistic = process.statistic
    if statistic is None:
        raise IncompatibleError(
            f"{process!r} has several components, so it must have a statistic: the linear process "
            "through which they know the data"
        )
    return statistic


def need_phase(process: ForwardProcess) -> ForwardProcess:
    """`process`, if its state has several components; `IncompatibleError` otherwise."""
    if process.components > 1:
        return process
    raise IncompatibleError(
        "this prediction is for states of a phase-space process such as srk.CLD(), not of "
        f"{process!r}; use the adapter itself there"
    )


def check_phase_state(z: Tensor, process: ForwardProcess) -> None:
    """Raise unless `z` is a floating-point tensor of shape (batch, k, *event)."""
    check_state(z)
    process.check_shape(z.shape)
