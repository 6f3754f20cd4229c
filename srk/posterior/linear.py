r"""What is measured: the operator A of $y = A(x_0) + \text{noise}$.

A linear operator is given by a matrix, or by a function and (optionally) its adjoint. The methods
of this package need products with A and its adjoint; some also need functions of $A A^T$, which a
`Spectrum` gives: in closed form where the operator knows it, else from a dense matrix.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from srk._modes import uncast
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, ScoreError
from srk.posterior.spectra import Dense, Function, Spectrum
from srk.scores.moved import moved

LARGEST = 2**26
"""The most numbers of a dense matrix that is formed from a function (512 MB in float64)."""


class Operator(ABC):
    """A forward operator: a batch of samples (batch, *event) to measurements (batch, *measured)."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A(x) for `x` of shape (batch, *event)."""

    @abstractmethod
    def linearize(self, x: Tensor) -> tuple[Tensor, Function, Function]:
        """A(x), and the products with the derivative of A at `x` and with its transpose."""


class Nonlinear(Operator):
    """A differentiable forward function of a batch, for example a phase retrieval or a simulator.

    `DPS`, `SDA`, `MMPS` and `TMPD` accept it; the last two linearize it at the denoised prediction.

    Arguments:
        function: a callable of (batch, *event) -> (batch, *measured), differentiable, that treats
            each sample by itself.

    Examples:
        >>> import torch
        >>> operator = Nonlinear(lambda x: x.square())
        >>> value, product, transposed = operator.linearize(torch.tensor([[3.0]]))
        >>> value, product(torch.tensor([[1.0]])), transposed(torch.tensor([[1.0]]))
        (tensor([[9.]]), tensor([[6.]]), tensor([[6.]]))
    """

    def __init__(self, function: Function) -> None:
        if isinstance(function, type) or not callable(function):
            raise ArgumentTypeError(
                f"a forward operator is a callable of a batch of samples, not {function!r}; e.g. "
                "srk.posterior.Nonlinear(lambda x: x.square())"
            )
        self.function = function

    def __call__(self, x: Tensor) -> Tensor:
        return _checked(self.function(x), x, self)

    def linearize(self, x: Tensor) -> tuple[Tensor, Function, Function]:
        with torch.inference_mode(False), torch.enable_grad():
            point = x if x.requires_grad else x.detach().clone().requires_grad_()
            value = self(point)
            # The transpose of the transpose is the product; both come from one recorded call.
            dual = torch.zeros_like(value, requires_grad=True)
            (pulled,) = torch.autograd.grad(value, point, dual, create_graph=True)

        def product(v: Tensor) -> Tensor:
            out: Tensor = torch.autograd.grad(
                pulled, dual, v, retain_graph=True, allow_unused=True, materialize_grads=True
            )[0]
            return out

        def transposed(w: Tensor) -> Tensor:
            (out,) = torch.autograd.grad(value, point, w, retain_graph=True)
            return out

        return value.detach(), product, transposed

    def __repr__(self) -> str:
        return f"Nonlinear({getattr(self.function, '__name__', type(self.function).__name__)})"


class Linear(Operator):
    """A linear forward operator: a matrix, or a function of a batch.

    Arguments:
        forward: a matrix (m, d) over the flattened event, for measurements of shape (batch, m); or
            a linear function of (batch, *event) -> (batch, *measured).
        adjoint: a function of (batch, *measured) -> (batch, *event), the transpose. Without it,
            products with the transpose are made by automatic differentiation.
        spectrum: what is known of A A^T in closed form; without it, a dense matrix is formed
            where a method asks for it.
        name: what the operator is called in messages.

    Raises:
        ArgumentError: the matrix is not two-dimensional or not finite.
        ArgumentTypeError: `forward` is neither a matrix nor a function.

    Examples:
        >>> import torch
        >>> operator = Linear(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        >>> operator(torch.tensor([[2.0, 3.0]]))
        tensor([[2., 5.]])
        >>> operator.transpose(torch.tensor([[1.0, 1.0]]), (2,))
        tensor([[2., 1.]])
        >>> Linear(lambda x: x.cumsum(1)).matrix((3,))
        tensor([[1., 0., 0.],
                [1., 1., 0.],
                [1., 1., 1.]], dtype=torch.float64)
    """

    def __init__(
        self,
        forward: Tensor | Sequence[Sequence[float]] | Function,
        adjoint: Function | None = None,
        *,
        spectrum: Spectrum | None = None,
        name: str = "",
    ) -> None:
        self._dense: Tensor | None = None
        self._function: Function | None = None
        if not isinstance(forward, type) and callable(forward) and not isinstance(forward, Tensor):
            self._function = forward
        else:
            try:
                dense = torch.as_tensor(forward).detach()
            except (TypeError, ValueError, RuntimeError):
                raise ArgumentTypeError(
                    f"a linear operator is a matrix (m, d) or a function of a batch, not "
                    f"{forward!r}; e.g. srk.posterior.Linear(torch.eye(3)[:2])"
                ) from None
            if dense.ndim != 2 or not bool(torch.isfinite(dense).all()):
                raise ArgumentError(
                    f"the matrix of a linear operator is finite and has shape (m, d), not "
                    f"{tuple(dense.shape)}; a vector that is one measurement is A[None]"
                )
            self._dense = dense.to(device="cpu", dtype=torch.float64)
        if adjoint is not None and not callable(adjoint):
            raise ArgumentTypeError(
                f"adjoint is a function of a batch of measurements, not {adjoint!r}; leave it out "
                "for automatic differentiation"
            )
        self.adjoint = adjoint
        self.name = name
        self._spectrum = spectrum
        self._moved: dict[Any, Any] = {}

    def __call__(self, x: Tensor) -> Tensor:
        if self._dense is None:
            assert self._function is not None
            return _checked(self._function(x), x, self)
        flat = x.flatten(1)
        if flat.shape[1] != self._dense.shape[1]:
            raise ArgumentError(
                f"{self!r} takes samples of {self._dense.shape[1]} numbers, but these have shape "
                f"{tuple(x.shape[1:])}, {flat.shape[1]} numbers"
            )
        with uncast(x):
            return flat @ self._on(x).mT

    def transpose(self, v: Tensor, event: Sequence[int]) -> Tensor:
        """A^T v for measurements `v` of shape (batch, *measured).

        Arguments:
            v: the measurements.
            event: shape of one sample.

        Returns:
            Tensor of shape (batch, *event).
        """
        if self._dense is not None:
            with uncast(v):
                return (v.flatten(1) @ self._on(v)).reshape(len(v), *event)
        if self.adjoint is not None:
            return self.adjoint(v)
        assert self._function is not None
        recorded = torch.is_grad_enabled() and v.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            zero = torch.zeros((len(v), *event), dtype=v.dtype, device=v.device)
            out = self(zero.requires_grad_())
            w = v if recorded else v.detach().clone()
            (result,) = torch.autograd.grad(out, zero, w, create_graph=recorded)
        return result

    def linearize(self, x: Tensor) -> tuple[Tensor, Function, Function]:
        event = tuple(x.shape[1:])
        return self(x), self.__call__, lambda w: self.transpose(w, event)

    def matrix(self, event: Sequence[int]) -> Tensor:
        """The dense matrix (m, d), float64 on the CPU; from a function, by d columns.

        Arguments:
            event: shape of one sample.

        Raises:
            IncompatibleError: the matrix would have more than 2^26 numbers.
        """
        if self._dense is not None:
            return self._dense
        key = "matrix", tuple(event)
        if key not in self._moved:
            d = math.prod(event)
            with torch.inference_mode(False), torch.no_grad():
                one = self(torch.zeros((1, *event), dtype=torch.float64))
                if d * one.numel() > LARGEST:
                    raise IncompatibleError(
                        f"the matrix of {self!r} for samples of shape {tuple(event)} would have "
                        f"{one.numel()} x {d} numbers, too many to form; use a method that needs "
                        "products only (MMPS, TMPD, DPS), or give `spectrum`"
                    )
                eye = torch.eye(d, dtype=torch.float64).reshape(d, *event)
                columns = [self(part).flatten(1) for part in torch.split(eye, 256)]
                self._moved[key] = torch.cat(columns).mT.contiguous()
        dense: Tensor = self._moved[key]
        return dense

    def spectrum(self, event: Sequence[int]) -> Spectrum:
        """Functions of A A^T for samples of shape `event`, made once."""
        if self._spectrum is not None:
            return self._spectrum
        key = "spectrum", tuple(event)
        if key not in self._moved:
            dense = self.matrix(event)
            with torch.inference_mode(False), torch.no_grad():
                u, s, _ = torch.linalg.svd(dense, full_matrices=True)
                values = torch.zeros(len(u), dtype=u.dtype)
                values[: len(s)] = s.square()
                # What rounding leaves of a singular value of zero is zero.
                values[values <= values.max() * 1e-20] = 0.0
            self._moved[key] = Dense(u, values)
        known: Spectrum = self._moved[key]
        return known

    def _on(self, like: Tensor) -> Tensor:
        """The matrix in the dtype and on the device of `like`; moved once."""
        assert self._dense is not None
        return moved(self._dense, like.device, like.dtype)

    def __repr__(self) -> str:
        if self.name:
            return f"Linear({self.name})"
        if self._dense is not None:
            return f"Linear(matrix of {' x '.join(map(str, self._dense.shape))})"
        return f"Linear({getattr(self._function, '__name__', type(self._function).__name__)})"


def _checked(out: object, x: Tensor, operator: Operator) -> Tensor:
    if not isinstance(out, Tensor) or out.ndim == 0 or len(out) != len(x):
        got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else repr(out)
        raise ScoreError(
            f"{operator!r} must return a tensor (batch, *measured) for a batch of {len(x)} "
            f"samples; it returned {got}"
        )
    return out


def as_operator(value: Any) -> Operator:
    """`value` as an operator: a matrix becomes `Linear`, a function `Nonlinear`."""
    if isinstance(value, Operator):
        return value
    if callable(value) and not isinstance(value, Tensor | type):
        return Nonlinear(value)
    return Linear(value)


__all__ = ["Linear", "Nonlinear", "Operator", "as_operator"]
