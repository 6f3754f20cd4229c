"""Guidance by a classifier: the gradient of a log-probability, added to the score."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from srk._fields import function
from srk.errors import IncompatibleError, ScoreError
from srk.scores.adapters import as_prediction
from srk.scores.base import Prediction, check_state
from srk.scores.inputs import (
    LevelFunction,
    check_input_scale,
    check_process,
    check_time_unit,
    scale_value,
    time_dtype,
    time_tensor,
    time_value,
)
from srk.scores.options import time_factor, training_steps
from srk.scores.weights import Scale, as_scale, weight_at

if TYPE_CHECKING:
    from srk.processes.base import ForwardProcess, Level


@attrs.frozen(eq=False)
class ClassifierGuided(Prediction):
    """Classifier guidance.

    S + w grad_x log p(y | x_t), so D + w (sigma^2/alpha) grad_x log p(y | x_t).

    With w = 1 and the exact log-probability this samples the posterior of the data given y. The
    gradient is taken by autograd, under the `no_grad` of `srk.solve` too. `Solution.nfe` counts the
    calls of the network, not those of the classifier.

    Arguments:
        prediction: the unconditional prediction.
        log_prob: callable (x, t) -> log p(y | x_t = x), shape (batch,), up to a constant;
            differentiable in x. It gets `input_scale * x` and a (batch,) tensor of times. The y is
            its own business: `lambda x, t: classifier(x, t).log_softmax(1)[:, y]`.
        scale: w, a number or a function of the level.
        time, time_scale, num_timesteps, input_scale: the unit of the time and the scale of the
            state that `log_prob` wants, as in `srk.NoisePrediction`.

    Raises:
        ScoreError: on a call, `log_prob` returns another shape or does not depend on x.
        IncompatibleError: on a call, at alpha = 0, where the score does not determine the denoiser.

    Source: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021; Song et al.
    2021, section 5.

    Examples:
        >>> import srk, torch
        >>> process = srk.EDM()
        >>> prior = srk.targets.Gaussian(0.0, 1.0)  # measured as y = x0 + noise of variance 0.25
        >>> def log_prob(x, sigma):
        ...     # x0 | x_t has mean gain x and variance gain sigma^2
        ...     gain = 1 / (1 + sigma[:, None] ** 2)
        ...     return (-((1.0 - gain * x) ** 2) / (2 * (gain * sigma[:, None] ** 2 + 0.25))).sum(1)
        >>> posterior = ClassifierGuided(prior.score(process), log_prob, time="sigma")
        >>> x = srk.solve(process, posterior, "srk2m", shape=(1000, 1), nfe=40, seed=0).x
        >>> # exactly N(0.8, 0.2)
        >>> round(x.mean().item(), 1), round(x.var().item(), 1)
        (0.8, 0.2)
    """

    prediction: Prediction = attrs.field(converter=as_prediction)
    log_prob: Callable[[Tensor, Tensor], Tensor] = attrs.field(
        validator=function("(x, t) -> log p(y | x)")
    )
    scale: Scale = attrs.field(default=1.0, converter=as_scale)
    time: str | LevelFunction = attrs.field(
        default="t", kw_only=True, validator=lambda _, __, value: check_time_unit(value)
    )
    time_scale: float = attrs.field(default=1.0, kw_only=True, converter=time_factor)
    num_timesteps: int | None = attrs.field(default=None, kw_only=True, converter=training_steps)
    input_scale: str | LevelFunction = attrs.field(
        default="x", kw_only=True, validator=lambda _, __, value: check_input_scale(value)
    )
    event_shape: tuple[int, ...] | None = attrs.field(init=False)

    @event_shape.default
    def _event_shape(self) -> tuple[int, ...] | None:
        return self.prediction.event_shape

    def bind(self, process: ForwardProcess) -> ClassifierGuided:
        """The same with its prediction bound to `process`."""
        if process.components > 1:
            raise IncompatibleError(
                f"a classifier of the data cannot guide the states of {process!r}; use "
                "srk.Reduced(srk.ClassifierGuided(...))"
            )
        check_process(self.time, process, self.num_timesteps)
        return attrs.evolve(self, prediction=self.prediction.bind(process))

    def select(self, rows: slice | Tensor, batch: int) -> ClassifierGuided:
        return attrs.evolve(self, prediction=self.prediction.select(rows, batch))

    def calls(self, t: float | None = None) -> int:
        return self.prediction.calls(t)

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        weight = weight_at(self.scale, level)
        if weight == 0.0 or level.sigma == 0.0:
            return self.prediction.denoise(x, level, process)
        if level.alpha == 0.0:
            raise IncompatibleError(
                f"at t = {level.t!r} the signal scale alpha is 0, so the gradient of log p(y | "
                "x_t) is 0 and does not determine the denoiser; "
                "start a little below the end, e.g. srk.Flow(t_max=0.999)"
            )
        # The gradient comes first: its memory is ours, and that of the network's result may not be.
        gradient = self.gradient(x, level, process)
        return self.prediction.denoise(x, level, process).add(
            gradient, alpha=weight * level.sigma * (level.sigma / level.alpha)
        )

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        weight = weight_at(self.scale, level)
        if weight == 0.0:
            return self.prediction.score(x, level, process)
        gradient = self.gradient(x, level, process)
        return self.prediction.score(x, level, process).add(gradient, alpha=weight)

    def gradient(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """grad_x log p(y | x_t = x), shape of `x`.

        Differentiable again where gradients are being recorded.
        """
        check_state(x)
        again = torch.is_grad_enabled() and x.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            at = x if again else x.detach().clone().requires_grad_()
            value = time_value(self.time, level, process, self.num_timesteps) * self.time_scale
            time = (
                time_tensor(round(value), at, torch.long)
                if self.time == "index-rounded"
                else time_tensor(value, at, time_dtype(x.dtype, None))
            )
            out = self.log_prob(at * scale_value(self.input_scale, level), time)
            if not isinstance(out, Tensor) or out.shape != x.shape[:1] or not out.requires_grad:
                got = (
                    f"a tensor of shape {tuple(out.shape)}"
                    if isinstance(out, Tensor)
                    else repr(out)
                )
                raise ScoreError(
                    f"log_prob must return a tensor of shape ({x.shape[0]},), one log-probability "
                    "for each sample, that depends on x by differentiable "
                    f"operations; it returned {got}"
                    + (
                        ""
                        if not isinstance(out, Tensor) or out.requires_grad
                        else ", which does not"
                    )
                )
            (gradient,) = torch.autograd.grad(out.sum(), at, create_graph=again)
        return gradient


__all__ = ["ClassifierGuided"]
