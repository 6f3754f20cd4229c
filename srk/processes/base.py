r"""Forward processes: what is reversed.

A scalar linear process is $x_t = \alpha(t) x_0 + \sigma(t) \varepsilon$. It IS its $\alpha$ and
$\sigma$; everything else follows:

    lam(t) = log(alpha/sigma)          the half log-SNR, decreasing in t
    f(t)   = d log(alpha)/dt           drift f x
    g(t)^2 = -2 sigma^2 dlam/dt        diffusion g

Two ends may be exact limits: alpha = 0 (lam = -inf, pure noise) at `t_max`, where f and g are
infinite, and sigma = 0 (lam = +inf, pure data) at `t_min`, where g is finite. All of this is
float64 on the CPU: it makes coefficients, never touches a batch of samples.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, overload

import torch

from srk.errors import IncompatibleError, TimeError
from srk.processes.components import Components
from srk.processes.consistency import check_consistent, check_ends
from srk.processes.differentiate import derivative
from srk.processes.elementwise import elementwise, is_number, per_sample
from srk.processes.level import Level
from srk.processes.parameters import as_number, check_data, same_lam
from srk.processes.time_range import snapped_to_end, time_in_range

__all__ = ["ForwardProcess", "Level", "LinearProcess"]


class ForwardProcess(Components, ABC):
    """A diffusion `dx = drift(t, x) dt + diffusion(t) dW` that turns data into noise.

    Subclass this for a process whose transition kernel is not known in closed form; it is then
    reversed in its own time from `drift` and `diffusion`. For `x_t = alpha x_0 + sigma eps`
    subclass `LinearProcess`, which serves every solver.

    Where states cannot be added, such as angles or rotations, a subclass has a method
    `retract(x, dx)` that moves states by tangent vectors (see `ManifoldProcess`), and solvers whose
    steps are increments go through it.
    """

    name: ClassVar[str] = ""
    t_min: float
    t_max: float

    @abstractmethod
    def drift(self, t: float, x: torch.Tensor) -> torch.Tensor:
        """The forward drift at own time `t` for states `x` of shape (batch, *event); same shape."""

    @abstractmethod
    def diffusion(self, t: float) -> float:
        """The scalar diffusion coefficient g(t) at own time `t`."""

    @abstractmethod
    def sample_prior(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Draw states of shape `shape` = (batch, *event) from their distribution at `t_max`."""

    @property
    def statistic(self) -> LinearProcess | None:
        """The linear process through which the data are seen; None where there is none.

        A linear process itself, or a statistic of a state of several components. Its level has a
        log-SNR, and its denoiser is that of the data.
        """
        return None

    @property
    def centred(self) -> ForwardProcess:
        """The process of the state less `centre`, which solvers reverse; else the process."""
        return self

    def initial_state(self, normals: torch.Tensor) -> torch.Tensor:
        """The state at `t_max` from which the reversal starts.

        Arguments:
            normals: unit normals in the shape of the state, (batch, *event); may be overwritten.

        Returns:
            A draw from the distribution of `sample_prior`, which follows from `normals` alone.
        """
        # `sample_prior` wants a generator of its own. Its seed is a draw, too, so that it shares no
        # numbers with the draws of the steps.
        bits = normals.flatten()[:2].cpu().double().view(torch.int64).sum()
        generator = torch.Generator(normals.device).manual_seed(int(bits) & (2**63 - 1))
        drawn = self.sample_prior(
            normals.shape, generator=generator, device=normals.device, dtype=normals.dtype
        )
        return normals.copy_(drawn)

    def data_scale(self, t: float) -> float:
        """How large data of size 1 are in the state at own time `t`; 1 where that is not known."""
        return 1.0

    def level(self, t: float) -> Level:
        """The point of the process at own time `t`.

        It is that of the statistic; without one only the time is known and the rest is nan.
        """
        statistic = self.statistic
        if statistic is not None:
            return statistic.level(self.check_time(t))
        return Level(self.check_time(t), math.nan, math.nan, math.nan)

    def level_at(self, lam: float) -> Level:
        """The level at half log-SNR `lam` of the statistic."""
        return self._seen().level_at(lam)

    def lam(self, t: Any) -> Any:
        """Half log-SNR of the statistic at own time `t` (float or array)."""
        return self._seen().lam(t)

    def time(self, lam: float) -> float:
        """Own time at which the half log-SNR of the statistic is `lam`."""
        return self._seen().time(lam)

    def _seen(self) -> LinearProcess:
        if self.statistic is None:
            raise IncompatibleError(f"{self!r} has no log-SNR; use a linear process")
        return self.statistic

    def check_time(self, t: float) -> float:
        """`t` as a float in [t_min, t_max].

        A time that overshoots an end by rounding, that of float32 included, is that end.

        Raises:
            TimeError: `t` is outside.
            ArgumentTypeError: it is not a number.
        """
        return time_in_range(self, t)

    def snap(self, t: float) -> float:
        """`check_time`, where a time that is an end to float32 becomes that end.

        For times that users compute in float32, or read from a file that holds them so.
        """
        return snapped_to_end(self, self.check_time(t))

    def validate(self) -> None:
        """Raise `ArgumentError` or `ArgumentTypeError` unless the process is usable; cheap."""
        check_ends(self)


class LinearProcess(ForwardProcess):
    """A process `x_t = alpha(t) x_0 + sigma(t) eps`, eps ~ N(0, I), given by `alpha` and `sigma`.

    A subclass provides `alpha`, `sigma`, `t_min` and `t_max`. Everything else has a default that
    follows from these: the inverse of the half log-SNR by root finding, the rates by numerical
    differentiation (about 1e-11 relative, also at the ends; `alpha` and `sigma` are never evaluated
    outside the range, one float at a time). Override them where a closed form exists; override
    `lam` where log(alpha/sigma) cancels.

    Examples:
        >>> import math
        >>> from srk.processes import LinearProcess
        >>> class Trigonometric(LinearProcess):
        ...     name, t_min, t_max = "trigonometric", 0.0, math.pi / 2
        ...
        ...     def alpha(self, t):
        ...         return math.cos(t)
        ...
        ...     def sigma(self, t):
        ...         return math.sin(t)
        >>> process = Trigonometric()
        >>> process.validate()
        >>> abs(process.time(0.0) - math.pi / 4) < 1e-15  # equal signal and noise
        True
        >>> abs(process.diffusion(math.pi / 4) - math.sqrt(2)) < 1e-12
        True
    """

    @abstractmethod
    def alpha(self, t: Any) -> Any:
        """Signal scale at own time `t`. Must accept a float.

        Those of srk accept arrays and tensors too.
        """

    @abstractmethod
    def sigma(self, t: Any) -> Any:
        """Noise scale at own time `t`. Must accept a float.

        Those of srk accept arrays and tensors too.
        """

    def lam(self, t: Any) -> Any:
        """Half log-SNR log(alpha/sigma) at own time `t` (float or array).

        Strictly decreasing, -inf at alpha = 0, +inf at sigma = 0.
        """
        if not is_number(t):
            return elementwise(self.lam, t)
        alpha, sigma = float(self.alpha(t)), float(self.sigma(t))
        if sigma == 0.0:
            return math.inf
        return math.log(alpha) - math.log(sigma) if alpha != 0.0 else -math.inf

    def time(self, lam: float) -> float:
        """Own time at which the half log-SNR is `lam`, the inverse of `lam(t)`, on [t_min, t_max].

        Raises:
            TimeError: `lam` is outside the range of the half log-SNR by more than rounding.
        """
        lam = as_number(lam, "a half log-SNR")
        first, last = float(self.lam(self.t_min)), float(self.lam(self.t_max))
        if last < lam < first:
            return float(min(max(self._inverse(lam), self.t_min), self.t_max))
        if lam >= first and same_lam(lam, first):
            return float(self.t_min)
        if lam <= last and same_lam(lam, last):
            return float(self.t_max)
        raise TimeError(
            f"the half log-SNR {lam!r} is outside the range of {self!r}, which is [{last!r}, "
            f"{first!r}]"
        )

    def _inverse(self, lam: float) -> float:
        """`time` strictly inside the range.

        Here by root finding, in the built-in processes in closed form.
        """
        from scipy.optimize import brentq  # scipy is slow to import

        def excess(t: float) -> float:  # bounded, for lam may be infinite at the ends
            return min(max(float(self.lam(t)) - lam, -1e3), 1e3)

        return float(brentq(excess, self.t_min, self.t_max, xtol=1e-300, rtol=1e-15, maxiter=4000))

    def log_alpha_rate(self, t: float) -> float:
        """f(t) = d log(alpha)/dt; -inf where alpha = 0."""
        alpha = float(self.alpha(t))
        if alpha == 0.0:
            return -math.inf
        return (
            self._derivative(lambda s: float(self.alpha(s)), t) / alpha
        )  # alpha is smooth where its logarithm is not

    def lam_rate(self, t: float) -> float:
        """d lam/dt, negative; -inf where alpha = 0 or sigma = 0."""
        if math.isinf(float(self.lam(t))):
            return -math.inf
        return self._derivative(lambda s: float(self.lam(s)), t)

    def _derivative(self, function: Callable[[float], float], t: float) -> float:
        return derivative(function, t, self.t_min, self.t_max)

    def drift(self, t: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """f(t) x for states `x` of shape (batch, *event); infinite where alpha = 0.

        `t` is one own time, or a tensor of shape (batch,) on any device.
        """
        if isinstance(t, torch.Tensor) and t.ndim:
            return per_sample(self.log_alpha_rate, t, x) * x
        t = float(t)
        return self.log_alpha_rate(t) * x

    @overload
    def diffusion(self, t: float) -> float: ...
    @overload
    def diffusion(self, t: Any) -> Any: ...
    def diffusion(self, t: Any) -> Any:
        """g(t) = sigma sqrt(-2 dlam/dt), for a number, an array or a tensor of own times.

        It is infinite where alpha = 0, and finite where sigma = 0.
        """
        if not is_number(t):
            return elementwise(self.diffusion, t)
        sigma = float(self.sigma(t))
        if sigma == 0.0:  # there g^2 = d sigma^2/dt
            return math.sqrt(max(0.0, self._derivative(lambda s: float(self.sigma(s)) ** 2, t)))
        return sigma * math.sqrt(-2.0 * self.lam_rate(t))

    def level(self, t: float) -> Level:
        """The noise level at own time `t` (checked to lie in the range)."""
        t = self.check_time(t)
        return Level(t, float(self.alpha(t)), float(self.sigma(t)), float(self.lam(t)))

    def reverse_drift(self, level: Level, eta: float) -> tuple[float, float]:
        """(A, B) = (-f - c/sigma^2, c alpha/sigma^2) with c = (1 + eta^2)/2 g^2."""
        half = 0.5 * (1.0 + eta * eta)
        f, g2 = float(self.log_alpha_rate(level.t)), float(self.diffusion(level.t)) ** 2
        return (
            -f - half * g2 / level.sigma**2,
            half * g2 * level.alpha / level.sigma**2,
        )

    def level_at(self, lam: float) -> Level:
        """The noise level at half log-SNR `lam`; its own `lam` differs from that by rounding only.

        Close to alpha = 0 a time in float64 cannot resolve lam (d lam/dt is about 1/alpha there).
        The smaller of alpha and sigma is then taken from `lam` and the larger, so that the level is
        consistent; its time is the nearest float64.
        """
        lam = as_number(lam, "a half log-SNR")
        level = self.level(self.time(lam))
        at_end = level.t in (self.t_min, self.t_max) and same_lam(lam, level.lam)
        if at_end or abs(level.lam - lam) <= 1e-14 * max(1.0, abs(lam)):
            return level
        if lam < 0.0:
            return Level(level.t, level.sigma * math.exp(lam), level.sigma, lam)
        return Level(level.t, level.alpha, level.alpha * math.exp(-lam), lam)

    @property
    def statistic(self) -> LinearProcess:
        """The process itself, for it is linear."""
        return self

    def initial_state(self, normals: torch.Tensor) -> torch.Tensor:
        """`normals` times `prior_std`, in place."""
        return normals.mul_(self.prior_std)

    def data_scale(self, t: float) -> float:
        """alpha at own time `t`."""
        return self.level(t).alpha

    @property
    def prior_std(self) -> float:
        """Standard deviation of the states that the reversal starts from: sigma(t_max)."""
        return float(self.sigma(self.t_max))

    def sample_prior(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Draw states of shape `shape` = (batch, *event) from N(0, prior_std^2 I)."""
        noise = torch.randn(tuple(shape), generator=generator, device=device, dtype=dtype)
        return noise.mul_(self.prior_std)

    def perturb(
        self, x0: torch.Tensor, t: float | torch.Tensor, *, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Draw x_t = alpha x_0 + sigma eps given data, as training does.

        Arguments:
            x0: data, shape (batch, *event).
            t: own time, one number or a tensor of shape (batch,) on any device.
            generator: where eps comes from; PyTorch's global one by default.

        Returns:
            Tensor of the shape, dtype and device of `x0`.

        Examples:
            >>> import torch
            >>> from srk.processes import Flow
            >>> x0, t = torch.zeros(2, 3), torch.tensor([0.001, 1.0])
            >>> Flow().perturb(x0, t, generator=torch.Generator().manual_seed(0)).shape
            torch.Size([2, 3])
        """
        check_data(x0)
        if isinstance(t, torch.Tensor) and t.ndim:
            alpha = per_sample(lambda s: self.level(s).alpha, t, x0)
            sigma = per_sample(lambda s: self.level(s).sigma, t, x0)
            noise = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
            return noise.mul_(sigma).add_(x0 * alpha)
        level = self.level(float(t))
        noise = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        return noise.mul_(level.sigma).add_(x0, alpha=level.alpha)

    def validate(self) -> None:
        """Raise unless alpha, sigma, lam and time are those of one process.

        Alpha and sigma must be finite and not negative, lam must agree with them and decrease
        strictly, and `time` must invert it.

        Looks at 65 points (a fraction of a millisecond): it finds the usual slips, it does not
        prove their absence.
        """
        super().validate()
        check_consistent(self)
