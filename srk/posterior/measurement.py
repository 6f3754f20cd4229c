r"""A measurement: what was observed of a sample, through which operator, with how much noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._modes import uncast
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.posterior.linear import Linear, Operator, as_operator
from srk.scores.moved import moved

Windows = tuple[tuple[slice | Tensor, int], ...]
"""Selections of samples, one after the other: which samples, of how many."""


def _tensor(value: Any) -> Tensor:
    try:
        out = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentTypeError(
            f"y is the measured tensor of shape (*measured) or (batch, *measured), not {value!r}"
        ) from None
    return out if out.dtype.is_floating_point else out.to(torch.get_default_dtype())


@attrs.frozen(eq=False)
class Measurement:
    r"""$y = A(x_0) + n$ with Gaussian noise n, of a given standard deviation or covariance.

    Arguments:
        operator: A: `Linear`, `Nonlinear`, a matrix (read as `Linear`) or a function of a batch
            (read as `Nonlinear`).
        y: what was measured, shape (*measured) for all samples, or (batch, *measured) for a
            measurement of each sample.
        noise_std: standard deviation of the noise, in the units of y: a number, or a tensor that
            broadcasts to (*measured). 0 is allowed for the methods that can do without noise.
        covariance: the covariance (m, m) of the noise over the flattened measurement, instead.

    Raises:
        ArgumentError: neither or both of `noise_std` and `covariance`; a negative standard
            deviation, a covariance that is not symmetric positive definite.

    Examples:
        >>> import torch
        >>> A = torch.tensor([[1.0, 0.0]])
        >>> measurement = Measurement(Linear(A), torch.tensor([0.5]), noise_std=0.1)
        >>> measurement.log_likelihood(torch.tensor([[0.5, 3.0], [0.6, 3.0]])).round(decimals=3)
        tensor([1.3840, 0.8840])
    """

    operator: Operator = attrs.field(converter=as_operator)
    y: Tensor = attrs.field(converter=_tensor)
    noise_std: float | Tensor | None = attrs.field(default=None)
    covariance: Tensor | None = attrs.field(default=None, kw_only=True)
    _windows: Windows = attrs.field(default=(), kw_only=True, repr=False, alias="windows")

    def __attrs_post_init__(self) -> None:
        if not bool(torch.isfinite(self.y).all()):
            raise ArgumentError("y holds NaN or infinity; leave such numbers out of the operator")
        if (self.noise_std is None) == (self.covariance is None):
            raise ArgumentError(
                "the noise of a measurement is given by noise_std or by covariance, one of them; "
                "e.g. srk.posterior.Measurement(operator, y, noise_std=0.1)"
            )

    @noise_std.validator
    def _check_std(self, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
            raise ArgumentTypeError(f"noise_std is a number or a tensor, not {value!r}")
        std = torch.as_tensor(value)
        if not bool((torch.isfinite(std) & (std >= 0.0)).all()):
            raise ArgumentError(f"noise_std is finite and not negative, not {value!r}; e.g. 0.1")

    @covariance.validator
    def _check_covariance(self, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None:
            return
        if not isinstance(value, Tensor) or value.ndim != 2 or value.shape[0] != value.shape[1]:
            raise ArgumentTypeError(
                "covariance is a tensor (m, m) over the flattened measurement; for independent "
                "noise use noise_std"
            )
        wide = value.detach().double().cpu()
        asymmetry = float((wide - wide.mT).abs().max())
        if asymmetry > 1e-8 * float(wide.abs().max()) or int(torch.linalg.cholesky_ex(wide)[1]):
            raise ArgumentError(
                f"the covariance of the noise must be symmetric and positive definite; its least "
                f"eigenvalue is {float(torch.linalg.eigvalsh((wide + wide.mT) / 2)[0])!r}, its "
                f"asymmetry {asymmetry!r}"
            )

    @property
    def linear(self) -> bool:
        """Whether the operator is linear."""
        return isinstance(self.operator, Linear)

    @property
    def isotropic_std(self) -> float | None:
        """The standard deviation, where it is one number for all measured values."""
        std = self.noise_std
        if std is None or (isinstance(std, Tensor) and std.numel() > 1):
            return None
        return float(std)

    def select(self, rows: slice | Tensor, batch: int) -> Measurement:
        """The measurement for some of the samples of a batch."""
        return attrs.evolve(self, windows=(*self._windows, (rows, batch)))

    def observed(self, like: Tensor) -> Tensor:
        """y for measurements `like`, (batch, *measured), in its dtype and on its device.

        Raises:
            ArgumentError: y is of another shape.
        """
        y = moved(self.y, like.device, like.dtype)
        if y.ndim == like.ndim:
            for rows, batch in self._windows:
                if len(y) == batch:
                    y = y[rows if isinstance(rows, slice) else rows.to(y.device)]
        if y.ndim == like.ndim - 1:
            y = y[None]
        if tuple(y.shape[1:]) != tuple(like.shape[1:]) or len(y) not in (1, len(like)):
            raise ArgumentError(
                f"y has shape {tuple(self.y.shape)}, but {self.operator!r} measures "
                f"{tuple(like.shape[1:])} of each sample: y has this shape, or that of the batch, "
                f"{tuple(like.shape)}"
            )
        return y

    def residual(self, predicted: Tensor) -> Tensor:
        """y - predicted, for `predicted` = A(x) of shape (batch, *measured)."""
        return self.observed(predicted) - predicted

    def add_noise_covariance(self, v: Tensor, to: Tensor) -> Tensor:
        """`to` + (covariance of the noise) v, shapes (batch, *measured)."""
        if self.covariance is not None:
            matrix = moved(self.covariance, v.device, v.dtype)
            with uncast(v):
                return to + (v.flatten(1) @ matrix).reshape(v.shape)
        variance = self.variance(v)
        return to + v * variance

    def variance(self, like: Tensor) -> Tensor | float:
        """The variances of the noise, broadcastable to `like`: its diagonal."""
        if self.covariance is not None:
            diagonal = moved(self.covariance, like.device, like.dtype).diagonal()
            return diagonal.reshape(like.shape[1:])
        assert self.noise_std is not None
        if isinstance(self.noise_std, Tensor):
            return moved(self.noise_std, like.device, like.dtype).square()
        return float(self.noise_std) ** 2

    def precision(self, r: Tensor, extra: float = 0.0) -> Tensor:
        """(covariance of the noise + extra I)^-1 r, shapes (batch, *measured).

        Raises:
            IncompatibleError: the noise is 0 and nothing is added.
        """
        if self.covariance is not None:
            matrix = moved(self.covariance, r.device, torch.float64)
            matrix = matrix + extra * torch.eye(len(matrix), dtype=matrix.dtype, device=r.device)
            solved: Tensor = torch.linalg.solve(matrix, r.flatten(1).double().mT).mT
            return solved.to(r.dtype).reshape(r.shape)
        variance = self.variance(r)
        total = variance + extra
        if not isinstance(total, Tensor) and total == 0.0:
            raise IncompatibleError(
                "the likelihood of a measurement without noise has no density: give noise_std > 0, "
                "or use a method that can do without: PiGDM, MMPS, DDNM, DDRM"
            )
        return r / total

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p(y | x_0 = x) in nats, shape (batch,), for samples `x` (batch, *event)."""
        predicted = self.operator(x)
        r = self.residual(predicted)
        distance = (r * self.precision(r)).flatten(1).sum(1)
        if self.covariance is not None:
            volume = float(torch.logdet(2.0 * math.pi * self.covariance.detach().double().cpu()))
        else:
            spread = torch.as_tensor(self.noise_std, dtype=torch.float64).cpu()
            logs = torch.log(2.0 * math.pi * spread.square()).expand(tuple(r.shape[1:]))
            volume = float(logs.sum())
        return -0.5 * (distance + volume)

    def system(self, event: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix A (m, d), y (m,) and the noise covariance (m, m), float64 on the CPU.

        Raises:
            IncompatibleError: the operator is not linear, or y belongs to a batch.
        """
        if not isinstance(self.operator, Linear):
            raise IncompatibleError(
                f"an exact posterior needs a linear operator, not {self.operator!r}; e.g. "
                "srk.posterior.Linear(A)"
            )
        matrix = self.operator.matrix(event)
        with torch.no_grad():
            shape = self.operator(torch.zeros((1, *event), dtype=torch.float64)).shape
        y = self.observed(torch.zeros(shape, dtype=torch.float64, device="cpu"))
        if self.covariance is not None:
            noise = self.covariance.detach().to(device="cpu", dtype=torch.float64)
        else:
            std = torch.as_tensor(self.noise_std, dtype=torch.float64).cpu()
            noise = std.square().expand(tuple(shape[1:])).flatten().diag()
        return matrix, y[0].flatten(), noise

    def whitened(self, event: Sequence[int]) -> Measurement:
        """The same measurement with noise of one standard deviation, for methods that need that.

        Where the noise is not that already, operator and y are multiplied by the inverse of a
        square root of its covariance, so that the noise becomes N(0, I).

        Arguments:
            event: shape of one sample.
        """
        if self.isotropic_std is not None:
            return self
        with torch.no_grad():
            one = self.operator(torch.zeros((1, *event), dtype=torch.float64))[0]
        matrix, _, noise = attrs.evolve(self, y=one, windows=()).system(event)
        factor = torch.linalg.cholesky(noise)
        white = torch.linalg.solve_triangular(factor, matrix, upper=False)
        flat = self.y.to(device="cpu", dtype=torch.float64).reshape(-1, len(noise))
        y = torch.linalg.solve_triangular(factor, flat.mT, upper=False).mT
        single = self.y.ndim == one.ndim
        return Measurement(Linear(white), y[0] if single else y, 1.0, windows=self._windows)

    @classmethod
    def simulate(
        cls,
        operator: Operator | Tensor,
        x: Tensor,
        noise_std: float,
        *,
        seed: int | None = None,
    ) -> Measurement:
        """A measurement of known samples with fresh noise: for tests and examples.

        Arguments:
            operator: the forward operator.
            x: samples, shape (batch, *event); of one sample, y is shared by every batch.
            noise_std: standard deviation of the noise.
            seed: seed of the noise.
        """
        made = as_operator(operator)
        with torch.no_grad():
            clean = made(x)
        generator = torch.Generator().manual_seed(0 if seed is None else int(seed))
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        y = clean + float(noise_std) * noise.to(clean)
        return cls(made, y[0] if len(y) == 1 else y, noise_std)


__all__ = ["Measurement"]
