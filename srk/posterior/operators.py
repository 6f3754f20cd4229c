"""Operators of imaging: masks, blur, lower resolution, projections, Fourier coefficients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from srk._checks import integer, is_real, need, shown
from srk.errors import ArgumentError, ArgumentTypeError
from srk.posterior.linear import Linear
from srk.posterior.spectra import Convolution, Flat
from srk.scores.moved import moved


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
        return x.flatten(1)[:, moved(self.where, x.device)]

    def adjoint(self, v: Tensor) -> Tensor:
        out = v.new_zeros((len(v), math.prod(self.event)))
        return out.index_copy(1, moved(self.where, v.device), v).reshape(len(v), *self.event)


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
    need(kernel, (Tensor, list), "the kernel of a blur", "a tensor of shape (h, w)")
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
    if size is not None:
        size = integer(size, "the size of a blur", least=1)
    if not (is_real(std) and std > 0.0):
        raise ArgumentError(
            f"the standard deviation of a blur is positive, not {shown(std)}; e.g. 1.5"
        )
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
        return torch.view_as_real(spectrum.index_select(-1, moved(self.where, x.device))).to(
            x.dtype
        )

    def adjoint(self, v: Tensor) -> Tensor:
        values = torch.view_as_complex(_wide(v).contiguous())
        full = values.new_zeros((*values.shape[:-1], math.prod(self.size)))
        full = full.index_copy(-1, moved(self.where, v.device), values)
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


__all__ = ["blur", "downsample", "fourier", "gaussian_kernel", "mask", "radon"]
