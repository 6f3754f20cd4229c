"""Brownian motion on a curved space: processes whose states are moved by increments."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor

from srk._checks import choice
from srk.errors import ArgumentError
from srk.processes.base import ForwardProcess
from srk.processes.elementwise import per_sample
from srk.processes.level import Level
from srk.processes.parameters import as_number, check_data, parameter

Schedule = Literal["exponential", "log"]


def retraction(process: object) -> Callable[[Tensor, Tensor], Tensor] | None:
    """`retract` of a process whose states are moved by increments; None where they are added.

    Examples:
        >>> import srk
        >>> retraction(srk.VP()) is None, retraction(srk.Torus()) is None
        (True, False)
    """
    found: Callable[[Tensor, Tensor], Tensor] | None = getattr(process, "retract", None)
    return found


def _schedule(value: Any) -> Any:
    return choice(value, ("exponential", "log"), "schedule")


@attrs.frozen
class ManifoldProcess(ForwardProcess):
    """Brownian motion on a space that is not flat or not infinite: dx = g(t) dW.

    The noise at own time t is what Brownian motion of variance sigma(t)^2 makes of the data (the
    heat kernel); at `t_max` it is nearly uniform, and the reversal starts from the uniform
    distribution. A state is moved by `retract(x, dx)`, where dx is a tangent vector of the shape of
    the state; the score is such a vector. Own time runs from 0 to 1.

    Base of `srk.Torus` and `srk.SO3`. A `ForwardProcess` of your own gets the same treatment from
    the solvers as soon as it has a method `retract(x, dx)`.

    Arguments:
        sigma_min: noise at t = 0, in radians (in units of the period on a torus with another one).
        sigma_max: noise at t = 1.
        schedule: "exponential": sigma_min^(1 - t) sigma_max^t. "log": log((1 - t) e^sigma_min + t
            e^sigma_max), which spends less time at little noise.
    """

    flat: ClassVar[bool] = False
    """Whether increments from different points may be added up, as on a torus."""

    sigma_min: float = parameter(0.1)
    sigma_max: float = parameter(1.5)
    schedule: Schedule = attrs.field(default="exponential", converter=_schedule, kw_only=True)
    t_min: float = attrs.field(default=0.0, init=False, repr=False)
    t_max: float = attrs.field(default=1.0, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ArgumentError(
                f"{type(self).__name__} needs 0 < sigma_min < sigma_max, not sigma_min = "
                f"{self.sigma_min!r}, sigma_max = {self.sigma_max!r}"
            )

    def sigma(self, t: float) -> float:
        """Noise at own time `t`: the square root of the variance of the heat kernel."""
        t = as_number(t, "a time")
        if self.schedule == "log":
            low, high = self.sigma_min, self.sigma_max
            return high + math.log(t + (1.0 - t) * math.exp(low - high))
        return float(self.sigma_min ** (1.0 - t) * self.sigma_max**t)

    def time_at(self, sigma: float) -> float:
        """Own time at which the noise is `sigma`."""
        low, high = self.sigma_min, self.sigma_max
        if self.schedule == "log":
            t = math.expm1(sigma - low) / math.expm1(high - low)
        else:
            t = math.log(sigma / low) / math.log(high / low)
        return self.check_time(t)

    def diffusion(self, t: float) -> float:
        """g(t), the square root of the rate of sigma^2."""
        sigma, low, high = self.sigma(t), self.sigma_min, self.sigma_max
        if self.schedule == "log":
            rate = (math.exp(high - sigma) - math.exp(low - sigma)) * sigma
        else:
            rate = sigma**2 * math.log(high / low)
        return math.sqrt(2.0 * rate)

    def drift(self, t: float, x: Tensor) -> Tensor:
        """0: Brownian motion has no drift."""
        return torch.zeros_like(x)

    def level(self, t: float) -> Level:
        """The noise at own time `t`, with alpha = 1: data do not shrink."""
        t = self.check_time(t)
        sigma = self.sigma(t)
        return Level(t, 1.0, sigma, -math.log(sigma))

    @abstractmethod
    def retract(self, x: Tensor, dx: Tensor) -> Tensor:
        """The state that the increment `dx`, a tangent vector at `x`, leads to.

        Arguments:
            x: states, shape (batch, *event).
            dx: tangent vectors at these, of the same shape.
        """

    @abstractmethod
    def move(self, x0: Tensor, normals: Tensor, variance: float | Tensor) -> Tensor:
        """Where Brownian motion of `variance` leads from `x0`, drawn exactly.

        Arguments:
            x0: states, shape (batch, *event).
            normals: unit normals of the same shape, from which the draw follows.
            variance: one number, or a tensor that broadcasts with the states.
        """

    @abstractmethod
    def log_kernel(self, x: Tensor, x0: Tensor, variance: float | Tensor) -> Tensor:
        """Log-density of the heat kernel: of `x` where Brownian motion of `variance` starts at
        `x0`.

        Arguments:
            x, x0: states whose shapes broadcast.
            variance: one number, or a tensor that broadcasts with the states.

        Returns:
            One number for each angle of a torus (per unit), or for each rotation (relative to the
            uniform distribution).
        """

    @abstractmethod
    def kernel_score(self, x: Tensor, x0: Tensor, variance: float | Tensor) -> Tensor:
        """Gradient of `log_kernel` in `x`: a tangent vector at `x`, of its shape."""

    def initial_state(self, normals: Tensor) -> Tensor:
        """A draw from the uniform distribution, which follows from unit `normals` alone."""
        return normals.copy_(self.uniform(normals))

    @abstractmethod
    def uniform(self, normals: Tensor) -> Tensor:
        """Uniform states that follow from unit normals of the same shape."""

    def sample_prior(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draw states of shape `shape` = (batch, *event) from the uniform distribution."""
        normals = torch.randn(tuple(shape), generator=generator, device=device, dtype=dtype)
        return self.uniform(normals)

    def perturb(
        self, x0: Tensor, t: float | Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw noisy states given data, as training does; the draw is exact.

        Arguments:
            x0: data, shape (batch, *event).
            t: own time, one number or a tensor of shape (batch,) on any device.
            generator: where the noise comes from; PyTorch's global one by default.
        """
        check_data(x0)
        normals = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        if isinstance(t, Tensor) and t.ndim:
            variance = per_sample(lambda s: self.sigma(self.check_time(s)) ** 2, t, x0)
            return self.move(x0, normals, variance)
        return self.move(x0, normals, self.sigma(self.check_time(float(t))) ** 2)


def variance_like(variance: float | Tensor, x: Tensor) -> Tensor:
    """The variance as a tensor of the dtype and on the device of `x`."""
    if isinstance(variance, Tensor):
        return variance.to(x)
    return torch.full((), variance, dtype=x.dtype, device=x.device)


def precise(x: Tensor) -> torch.dtype:
    """The dtype of the computations of a kernel: float64 where the device has it."""
    return torch.float32 if x.device.type == "mps" else torch.float64
