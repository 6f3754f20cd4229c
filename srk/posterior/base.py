"""What the methods share: a prediction inside, a measurement, and products with the Jacobian."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from srk._engine.memory import changed_in_place, version
from srk._modes import uncast
from srk.errors import ArgumentTypeError, IncompatibleError
from srk.posterior.linear import Linear
from srk.posterior.measurement import Measurement
from srk.posterior.spectra import Spectrum
from srk.processes.base import Level, LinearProcess
from srk.scores.adapters import as_prediction
from srk.scores.base import Prediction, check_state
from srk.scores.pairs import paired, refuse

if TYPE_CHECKING:
    from typing import Self

    from srk.processes.base import ForwardProcess

Weight = float | Callable[[Level], float]
"""A number, or a function of the noise level."""


def weight_at(weight: Weight, level: Level) -> float:
    """The number that a weight is at `level`."""
    return float(weight(level)) if callable(weight) else weight


def as_weight(value: Any) -> Weight:
    """`value` as a weight; `ArgumentTypeError` unless it is a finite number or a function."""
    if callable(value):
        return value  # type: ignore[no-any-return]
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ArgumentTypeError(
        f"a weight is a finite number or a function of the noise level, not {value!r}; e.g. 1.0"
    )


def _measurement(value: Any) -> Measurement:
    if isinstance(value, Measurement):
        return value
    raise ArgumentTypeError(
        f"the second argument is what was measured, not {value!r}; e.g. "
        "srk.posterior.Measurement(operator, y, noise_std=0.1)"
    )


@attrs.frozen(eq=False)
class Posterior(Prediction):
    r"""Base of the methods: the denoiser $E[x_0 | x_t, y]$, made of the one without y.

    With $D = E[x_0 | x_t]$ and $V = \mathrm{Cov}(x_0 | x_t) = (\sigma^2/\alpha) \, \partial D /
    \partial x$, each method puts something for the gradient of log p(y | x_t) in

    $$E[x_0 | x_t, y] = D + \frac{\sigma^2}{\alpha} \nabla_x \log p(y | x_t).$$

    Since the result is a denoiser, every solver samples with it.

    Arguments:
        prediction: the prediction without the measurement: an adapter around a network, an exact
            score, or a callable (x, t) -> score.
        measurement: what was measured.
    """

    prediction: Prediction = attrs.field(converter=as_prediction)
    measurement: Measurement = attrs.field(converter=_measurement)

    @property
    def event_shape(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Shape of one sample, where the prediction knows it."""
        return self.prediction.event_shape

    def bind(self, process: ForwardProcess) -> Self:
        """The same with its prediction bound to `process`."""
        if not isinstance(process, LinearProcess):
            raise IncompatibleError(
                f"{type(self).__name__} needs a process x_t = alpha x0 + sigma eps, not "
                f"{process!r}; e.g. srk.VP(), or for phase-space states "
                f"srk.Reduced(srk.posterior.{type(self).__name__}(...))"
            )
        return attrs.evolve(self, prediction=self.prediction.bind(process))

    def select(self, rows: slice | Tensor, batch: int) -> Self:
        """The same for some samples of a batch: conditions and measurements are cut."""
        return attrs.evolve(
            self,
            prediction=self.prediction.select(rows, batch),
            measurement=self.measurement.select(rows, batch),
        )

    @abstractmethod
    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """The denoiser given the measurement."""

    def coefficients(self, level: Level) -> tuple[float, float] | None:
        """None: what the network says does not determine this denoiser by two numbers."""
        return None

    def _linear(self) -> Linear:
        operator = self.measurement.operator
        if isinstance(operator, Linear):
            return operator
        raise IncompatibleError(
            f"{type(self).__name__} needs a linear operator, not {operator!r}; for nonlinear ones "
            "use srk.posterior.MMPS, DPS, SDA or TMPD"
        )

    def _std(self) -> float:
        std = self.measurement.isotropic_std
        if std is not None:
            return std
        raise IncompatibleError(
            f"{type(self).__name__} needs noise of one standard deviation; multiply the "
            "measurement by the inverse square root of its covariance: "
            f"srk.posterior.{type(self).__name__}(prediction, measurement.whitened(event_shape))"
        )

    def _spectrum(self, x: Tensor) -> Spectrum:
        return self._linear().spectrum(tuple(x.shape[1:]))


paired.register(Posterior, refuse)


def needs_signal(level: Level, method: object) -> None:
    """Raise where alpha = 0: there the state says nothing of the data, and no gradient does."""
    if level.alpha == 0.0:
        raise IncompatibleError(
            f"at t = {level.t!r} the signal scale alpha is 0, so that {type(method).__name__} has "
            "no gradient there that determines the denoiser; start a little below the end, e.g. "
            "srk.Flow(t_max=0.999)"
        )


class Pullback:
    """The denoiser at a state, and products of the transposed Jacobian with vectors.

    One forward call of the network; each product is one backward call. It works under the
    `no_grad` of a run and in inference mode; where gradients are being recorded, the products are
    differentiable again.

    Arguments:
        prediction: what is evaluated.
        x, level, process: where.
    """

    def __init__(
        self, prediction: Prediction, x: Tensor, level: Level, process: ForwardProcess
    ) -> None:
        check_state(x)
        self.again = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            inside = self.again and x.requires_grad
            self._at = x if inside else x.detach().clone().requires_grad_()
            # The network gets a copy that is no leaf: if it writes to its input, that is noticed
            # here as in every run, and not by automatic differentiation.
            given = self._at.clone()
            before = version(given)
            self._out = prediction.denoise(given, level, process)
            if version(given) != before:
                raise changed_in_place()
        if not self._out.requires_grad:
            raise IncompatibleError(
                f"the output of {prediction!r} does not depend on the state by differentiable "
                "operations, and this method needs its gradient; remove no_grad and detach from "
                "the network, or use srk.posterior.DiffPIR, DDRM or DDNM, which need none"
            )
        self.denoised = self._out if self.again else self._out.detach()

    def __call__(self, v: Tensor) -> Tensor:
        """The transposed Jacobian of the denoiser times `v`, shapes (batch, *event)."""
        # Each operation goes back in the dtype that autocast gave it on the way there.
        with torch.inference_mode(False), torch.enable_grad(), uncast(v):
            (out,) = torch.autograd.grad(
                self._out,
                self._at,
                v if self.again else v.detach().clone(),
                retain_graph=True,
                create_graph=self.again,
            )
        return out


__all__ = ["Posterior", "Pullback", "Weight", "as_weight", "needs_signal", "weight_at"]
