"""Functions of A A^T, in closed form where an operator knows it, else from a dense matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from srk._modes import uncast
from srk.scores.moved import moved

Function = Callable[[Tensor], Tensor]


class Spectrum(ABC):
    """Functions of A A^T, the symmetric matrix of measurements by measurements."""

    @abstractmethod
    def apply(self, function: Function, r: Tensor) -> Tensor:
        """f(A A^T) r for measurements `r` of shape (batch, *measured), in float32 or more.

        Arguments:
            function: f, of a tensor of eigenvalues (the squared singular values of A).
            r: the vectors to which it is applied.
        """

    def of(self, function: Function, r: Tensor) -> Tensor:
        """The same for measurements of any dtype, which the result keeps."""
        return self.apply(function, r.to(torch.promote_types(r.dtype, torch.float32))).to(r.dtype)


@attrs.frozen
class Flat(Spectrum):
    """A A^T = value I: masks, block averages, and every matrix with orthogonal rows."""

    value: float

    def apply(self, function: Function, r: Tensor) -> Tensor:
        return r * function(torch.full((), self.value, dtype=r.dtype, device=r.device))


@attrs.frozen(eq=False)
class Convolution(Spectrum):
    """A A^T is a circular convolution over the last two axes.

    Arguments:
        power: a function of the image size (h, w) that gives the power spectrum, (h, w).
    """

    power: Callable[[tuple[int, ...]], Tensor]

    def apply(self, function: Function, r: Tensor) -> Tensor:
        factor = function(self.power(tuple(r.shape[-2:])).to(device=r.device, dtype=r.dtype))
        out: Tensor = torch.fft.ifft2(torch.fft.fft2(r) * factor).real
        return out.to(r.dtype)


@attrs.frozen(eq=False)
class Dense(Spectrum):
    """A A^T = U diag(values) U^T, from a singular value decomposition of a matrix A."""

    vectors: Tensor
    values: Tensor

    def apply(self, function: Function, r: Tensor) -> Tensor:
        u = moved(self.vectors, r.device, r.dtype)
        factor = function(moved(self.values, r.device, r.dtype))
        with uncast(r):
            return (((r.flatten(1) @ u) * factor) @ u.mT).reshape(r.shape)


__all__ = ["Convolution", "Dense", "Flat", "Function", "Spectrum"]
