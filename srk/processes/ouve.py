"""The Ornstein-Uhlenbeck process with exploding variance, of speech enhancement."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs
import torch

from srk.errors import ArgumentError
from srk.processes.around_mean import AroundMean, Windows, as_mean, told_shape
from srk.processes.base import LinearProcess
from srk.processes.elementwise import library, log
from srk.processes.parameters import check_range, parameter


@attrs.frozen
class CentredOUVE(LinearProcess):
    r"""`OUVE` around 0: $dz = -\theta z\,dt + \sigma_{\min} k^t \sqrt{2 \log k}\,dw$, k =
    sigma_max/sigma_min.

    With alpha = e^(-theta t),

        sigma^2 = sigma_min^2 log k/(theta + log k) (k^(2t) - e^(-2 theta t)).

    Arguments:
        theta: rate at which the mean is approached.
        sigma_min, sigma_max: scale of the diffusion at t = 0 and 1.
        t_min, t_max: ends of own time; the reversal starts at t_max.

    Examples:
        >>> from srk.processes.ouve import CentredOUVE
        >>> round(CentredOUVE().sigma(1.0), 4)
        0.389
    """

    theta: float = parameter(1.5)
    sigma_min: float = parameter(0.05)
    sigma_max: float = parameter(0.5)
    t_min: float = parameter(0.03)
    t_max: float = parameter(1.0)

    def __attrs_post_init__(self) -> None:
        check_range(self.t_min, self.t_max)
        if not (self.theta >= 0.0 and 0.0 < self.sigma_min < self.sigma_max):
            raise ArgumentError(
                "OUVE needs theta >= 0 and 0 < sigma_min < sigma_max, not theta = "
                f"{self.theta!r}, sigma_min = {self.sigma_min!r}, sigma_max = {self.sigma_max!r}"
            )

    @property
    def growth(self) -> float:
        """log(sigma_max/sigma_min)."""
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Any) -> Any:
        return library(t).exp(-self.theta * t)

    def _r2(self, t: Any) -> Any:
        """(sigma/alpha)^2."""
        rate = self.theta + self.growth
        return self.sigma_min**2 * self.growth / rate * library(t).expm1(2.0 * rate * t)

    def sigma(self, t: Any) -> Any:
        return self.alpha(t) * library(t).sqrt(self._r2(t))

    def lam(self, t: Any) -> Any:
        return -0.5 * log(self._r2(t))

    def _inverse(self, lam: float) -> float:
        rate = self.theta + self.growth
        ratio = math.exp(-2.0 * lam) / self.sigma_min**2 * rate / self.growth
        return math.log1p(ratio) / (2.0 * rate)

    def log_alpha_rate(self, t: float) -> float:
        """f(t) = -theta."""
        return -self.theta

    def diffusion(self, t: Any) -> Any:
        """g(t) = sigma_min (sigma_max/sigma_min)^t sqrt(2 log(sigma_max/sigma_min))."""
        return self.sigma_min * library(t).exp(self.growth * t) * math.sqrt(2.0 * self.growth)


@attrs.frozen(eq=False)
class OUVE(AroundMean):
    r"""Ornstein-Uhlenbeck, variance exploding: from clean speech to noisy speech plus noise.

    $$dx = \theta (y - x)\,dt + \sigma_{\min} k^t \sqrt{2 \log k}\,dw, \qquad k =
    \sigma_{\max}/\sigma_{\min}$$

    so that the mean goes from x_0 to the noisy y, $x_t = y + e^{-\theta t} (x_0 - y) + \sigma_t
    \varepsilon$. The reversal starts at y + sigma(t_max) noise, as SGMSE's does; that leaves out
    e^(-theta t_max) (x_0 - y), which is 0.22 (x_0 - y) for the default parameters. Networks see x_t
    (usually with y as a further condition, by `model_kwargs`) and are those of `srk.Shifted`.

    Arguments:
        theta: rate at which the mean is approached, gamma in the first paper.
        sigma_min, sigma_max: scale of the diffusion at t = 0 and 1.
        mean: y, a number, one tensor of the shape of a sample, or one for each sample,
            (batch, *event); on any device and of any dtype, complex for complex states such as
            spectrograms.
        t_min, t_max: ends of own time.

    Raises:
        ArgumentError: a parameter is out of range, or `mean` is not finite; when the process is
            used, the shape of `mean` does not fit the states.
        ArgumentTypeError: `mean` is missing or no number.

    Source: Welker, Richter, Gerkmann, "Speech Enhancement with Score-Based Generative Models in the
    Complex STFT Domain", Interspeech 2022; Richter et al., "Speech Enhancement and Dereverberation
    with Diffusion-based Generative Models", 2023.

    Examples:
        >>> import srk, torch
        >>> process = srk.OUVE(theta=1.5, sigma_min=0.05, sigma_max=0.5, mean=torch.ones(3))
        >>> process.level(1.0).alpha == torch.tensor(-1.5, dtype=torch.float64).exp().item()
        True
        >>> process.initial_state(torch.zeros(2, 3))
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """

    name: ClassVar[str] = "ouve"

    theta: float = parameter(1.5)
    sigma_min: float = parameter(0.05)
    sigma_max: float = parameter(0.5)
    mean: torch.Tensor = attrs.field(default=None, converter=as_mean, repr=told_shape, kw_only=True)
    t_min: float = parameter(0.03)
    t_max: float = parameter(1.0)
    _windows: Windows = attrs.field(default=(), kw_only=True, repr=False)
    _centred: CentredOUVE = attrs.field(init=False, repr=False)

    @_centred.default
    def _make_centred(self) -> CentredOUVE:
        return CentredOUVE(self.theta, self.sigma_min, self.sigma_max, self.t_min, self.t_max)

    @property
    def centred(self) -> LinearProcess:
        """The process of the state less the mean."""
        return self._centred
