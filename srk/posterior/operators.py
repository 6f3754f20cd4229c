r"""What is measured: the operator A of $y = A(x_0) + \text{noise}$.

A linear operator is given by a matrix, or by a function and (optionally) its adjoint. The methods
of this package need products with A and its adjoint; some also need functions of $A A^T$, which a
`Spectrum` gives: in closed form where the operator knows it, else from a dense matrix.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, ScoreError

Function = Callable[[Tensor], Tensor]

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
        return r * function(torch.tensor(self.value, dtype=r.dtype, device=r.device))


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
        u = self.vectors.to(device=r.device, dtype=r.dtype)
        factor = function(self.values.to(device=r.device, dtype=r.dtype))
        return (((r.flatten(1) @ u) * factor) @ u.mT).reshape(r.shape)


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
        key = like.device, like.dtype
        if key not in self._moved:
            with torch.inference_mode(False):
                self._moved[key] = self._dense.to(device=like.device, dtype=like.dtype)
        moved: Tensor = self._moved[key]
        return moved

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


def _wide(x: Tensor) -> Tensor:
    """`x` in a dtype that a Fourier transform takes: float32 or more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@attrs.frozen(eq=False)
class _Mask:
    event: tuple[int, ...]
    where: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.event:
            raise ArgumentError(
                f"the mask is for samples of shape {self.event}, not {tuple(x.shape[1:])}"
            )
        return x.flatten(1)[:, self.where.to(x.device)]

    def adjoint(self, v: Tensor) -> Tensor:
        out = v.new_zeros((len(v), math.prod(self.event)))
        return out.index_copy(1, self.where.to(v.device), v).reshape(len(v), *self.event)


def mask(known: Tensor) -> Linear:
    """Inpainting: the numbers of a sample where `known` is true.

    Arguments:
        known: booleans of the shape of one sample; true where the data are measured.

    Returns:
        An operator with measurements of shape (batch, number of true values).

    Examples:
        >>> import torch
        >>> mask(torch.tensor([True, False, True]))(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., 3.]])
    """
    if not isinstance(known, Tensor) or known.dtype != torch.bool or not bool(known.any()):
        raise ArgumentTypeError(
            "the mask is a boolean tensor of the shape of one sample, true where the data are "
            "measured at least once; e.g. mask(weights > 0.5)"
        )
    where = known.detach().cpu().flatten().nonzero()[:, 0]
    made = _Mask(tuple(known.shape), where)
    name = f"mask of {len(where)} numbers"
    return Linear(made.forward, made.adjoint, spectrum=Flat(1.0), name=name)


@attrs.frozen(eq=False)
class _Blur:
    kernel: Tensor

    def response(self, size: tuple[int, ...]) -> Tensor:
        """The transfer function on images of this size, complex128 on the CPU."""
        if any(k > n for k, n in zip(self.kernel.shape, size, strict=True)):
            raise ArgumentError(
                f"the kernel of shape {tuple(self.kernel.shape)} is larger than the image, {size}"
            )
        h, w = self.kernel.shape
        padded = F.pad(self.kernel, (0, size[1] - w, 0, size[0] - h))
        out: Tensor = torch.fft.fft2(padded.roll((-(h // 2), -(w // 2)), (0, 1)))
        return out

    def power(self, size: tuple[int, ...]) -> Tensor:
        return self.response(size).abs().square()

    def forward(self, x: Tensor) -> Tensor:
        return self._filtered(x, self.response(tuple(x.shape[-2:])))

    def adjoint(self, v: Tensor) -> Tensor:
        return self._filtered(v, self.response(tuple(v.shape[-2:])).conj())

    def _filtered(self, x: Tensor, factor: Tensor) -> Tensor:
        wide = _wide(x)
        factor = factor.to(device=x.device, dtype=wide.dtype.to_complex())
        out: Tensor = torch.fft.ifft2(torch.fft.fft2(wide) * factor).real
        return out.to(x.dtype)


def blur(kernel: Tensor) -> Linear:
    """Deblurring: circular convolution of images with a kernel, over the last two axes.

    Arguments:
        kernel: shape (h, w), odd sizes, its centre the origin; not larger than the image.

    Examples:
        >>> import torch
        >>> blur(torch.ones(1, 3) / 3)(torch.tensor([[[3.0, 0.0, 0.0, 0.0]]]))
        tensor([[[1., 1., 0., 1.]]])
    """
    kernel = torch.as_tensor(kernel).detach().double().cpu()
    if kernel.ndim != 2 or not all(size % 2 for size in kernel.shape):
        raise ArgumentError(
            f"the kernel of a blur has shape (h, w) with odd sizes, not {tuple(kernel.shape)}"
        )
    made = _Blur(kernel)
    name = f"blur, {kernel.shape[0]} x {kernel.shape[1]}"
    return Linear(made.forward, made.adjoint, spectrum=Convolution(made.power), name=name)


def gaussian_kernel(std: float, size: int | None = None) -> Tensor:
    """A Gaussian kernel of sum 1 for `blur`.

    Arguments:
        std: standard deviation in pixels, positive.
        size: odd size; default three standard deviations to each side.
    """
    if not std > 0.0:
        raise ArgumentError(f"the standard deviation of a blur is positive, not {std!r}; e.g. 1.5")
    half = math.ceil(3 * std) if size is None else size // 2
    line = torch.exp(-0.5 * (torch.arange(-half, half + 1, dtype=torch.float64) / std) ** 2)
    return torch.outer(line, line) / line.sum() ** 2


@attrs.frozen
class _Downsample:
    factor: int

    def forward(self, x: Tensor) -> Tensor:
        *lead, h, w = x.shape
        k = self.factor
        if len(lead) < 1 or h % k or w % k:
            raise ArgumentError(
                f"downsample({k}) takes images whose sides it divides, not {tuple(x.shape)}"
            )
        return x.reshape(*lead, h // k, k, w // k, k).mean((-3, -1))

    def adjoint(self, v: Tensor) -> Tensor:
        k = self.factor
        return v.repeat_interleave(k, -1).repeat_interleave(k, -2) / k**2


def downsample(factor: int) -> Linear:
    """Super-resolution: means over blocks of factor x factor pixels of the last two axes.

    Arguments:
        factor: a positive integer that divides the image's height and width.

    Examples:
        >>> import torch
        >>> downsample(2)(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]))
        tensor([[[1.5000]]])
    """
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise ArgumentError(f"the factor is a positive integer, not {factor!r}; e.g. 4")
    made = _Downsample(factor)
    spectrum, name = Flat(factor**-2), f"downsampling by {factor}"
    return Linear(made.forward, made.adjoint, spectrum=spectrum, name=name)


@attrs.frozen(eq=False)
class _Radon:
    turns: Tensor

    def forward(self, x: Tensor) -> Tensor:
        *lead, h, w = x.shape
        if h != w or len(lead) < 1:
            raise ArgumentError(f"radon takes square images, not {tuple(x.shape)}")
        images = _wide(x).reshape(1, -1, h, w)
        rays = []
        for turn in self.turns.to(images):
            grid = F.affine_grid(turn[None], [1, 1, h, w], align_corners=False)
            rays.append(F.grid_sample(images, grid, align_corners=False)[0].sum(-2))
        return torch.stack(rays, 1).reshape(*lead, len(rays), w).to(x.dtype)


def radon(angles: Sequence[float] | Tensor) -> Linear:
    """Tomography: sums along parallel rays at several angles, of square images.

    Arguments:
        angles: in radians; at angle 0 the rays run along the columns.

    Returns:
        An operator on (batch, *, n, n) with measurements (batch, *, number of angles, n), in units
        of pixels. Images are rotated by bilinear interpolation about their centre; what lies
        outside is 0. Products with the transpose are made by automatic differentiation.

    Examples:
        >>> import torch
        >>> radon([0.0])(torch.ones(1, 4, 4))
        tensor([[[4., 4., 4., 4.]]])
    """
    theta = torch.as_tensor(angles, dtype=torch.float64).reshape(-1).cpu()
    if theta.numel() == 0 or not bool(torch.isfinite(theta).all()):
        raise ArgumentError("radon needs at least one angle in radians, and finite ones")
    c, s, zero = theta.cos(), theta.sin(), torch.zeros_like(theta)
    turns = torch.stack([torch.stack([c, -s, zero], 1), torch.stack([s, c, zero], 1)], 1)
    return Linear(_Radon(turns).forward, name=f"Radon transform, {len(theta)} angles")


@attrs.frozen(eq=False)
class _Fourier:
    size: tuple[int, ...]
    where: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[-2:]) != self.size:
            raise ArgumentError(
                f"the frequencies are those of images {self.size}, not {tuple(x.shape[-2:])}"
            )
        spectrum = torch.fft.fft2(_wide(x), norm="ortho").flatten(-2)
        return torch.view_as_real(spectrum.index_select(-1, self.where.to(x.device))).to(x.dtype)

    def adjoint(self, v: Tensor) -> Tensor:
        values = torch.view_as_complex(_wide(v).contiguous())
        full = values.new_zeros((*values.shape[:-1], math.prod(self.size)))
        full = full.index_copy(-1, self.where.to(v.device), values)
        full = full.reshape(*values.shape[:-1], *self.size)
        out: Tensor = torch.fft.ifft2(full, norm="ortho").real
        return out.to(v.dtype)


def fourier(known: Tensor) -> Linear:
    """Fourier sampling (accelerated MRI): some coefficients of the unitary 2-D Fourier transform.

    Arguments:
        known: booleans (h, w) over the frequencies in the order of `torch.fft.fft2`.

    Returns:
        An operator on real (batch, *, h, w) with measurements (batch, *, number of true values, 2):
        real and imaginary parts. Noise is that of each part.

    Examples:
        >>> import torch
        >>> fourier(torch.tensor([[True, False]]))(torch.tensor([[[1.0, 1.0]]]))
        tensor([[[1.4142, 0.0000]]])
    """
    if not isinstance(known, Tensor) or known.dtype != torch.bool or known.ndim != 2:
        raise ArgumentTypeError(
            "the frequencies that are sampled are a boolean tensor (h, w), in the order of "
            "torch.fft.fft2"
        )
    where = known.detach().cpu().flatten().nonzero()[:, 0]
    made = _Fourier(tuple(known.shape), where)
    return Linear(made.forward, made.adjoint, name=f"{len(where)} Fourier coefficients")


def as_operator(value: Any) -> Operator:
    """`value` as an operator: a matrix becomes `Linear`, a function `Nonlinear`."""
    if isinstance(value, Operator):
        return value
    if callable(value) and not isinstance(value, Tensor | type):
        return Nonlinear(value)
    return Linear(value)


__all__ = [
    "Linear",
    "Nonlinear",
    "Operator",
    "Spectrum",
    "as_operator",
    "blur",
    "downsample",
    "fourier",
    "gaussian_kernel",
    "mask",
    "radon",
]
