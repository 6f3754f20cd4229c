r"""Methods that need no gradient of the network: DiffPIR, DDNM, DDRM.

They change the denoised prediction by what A can see of it, $D + A^T f(A A^T) (y - A D)$, and cost
one forward call:

    DiffPIR   f(s) = 1/(s + sigma_y^2/k),  k = (sigma/alpha)^2/lambda: a proximal step
    DDNM      f(s) = 1/s: the projection onto A x = y
    DDRM      f(s) = eta_b/s where the state is noisier than y, 0 elsewhere
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from srk._checks import as_float
from srk.errors import ArgumentError
from srk.posterior.base import Posterior
from srk.posterior.spectra import Function
from srk.processes.base import Level

if TYPE_CHECKING:
    from srk.processes.base import ForwardProcess


def _inverse(values: Tensor) -> Tensor:
    """1/s, and 0 for directions that A does not see."""
    seen = values > 0.0
    return torch.where(seen, 1.0 / torch.where(seen, values, 1.0), 0.0)


@attrs.frozen(eq=False)
class _Spectral(Posterior):
    def __attrs_post_init__(self) -> None:
        self._linear()
        self._std()

    def calls(self, t: float | None = None) -> int:
        """Those of the prediction inside: no backward call is made."""
        return self.prediction.calls(t)

    def _corrected(self, x: Tensor, denoised: Tensor, function: Function) -> Tensor:
        operator = self._linear()
        r = self.measurement.residual(operator(denoised))
        w = self._spectrum(x).of(function, r)
        return denoised + operator.transpose(w, tuple(x.shape[1:]))


@attrs.frozen(eq=False)
class DiffPIR(_Spectral):
    r"""Plug-and-play restoration: a proximal step from D towards the measurement.

    $$\arg\min_{x} \; |y - A x|^2 + \rho |x - D|^2, \qquad \rho = \lambda \sigma_y^2
    \frac{\alpha^2}{\sigma^2}$$

    That is the posterior mean if Cov(x_0 | x_t) were (sigma/alpha)^2/lambda I. It costs one forward
    call. At zeta = 0 the paper's next state is that of DDIM (here: any deterministic solver); its
    zeta > 0 is a stochastic one. Without noise of y it is `DDNM`.

    Arguments:
        prediction: the prediction without the measurement.
        measurement: what was measured, with noise of one standard deviation.
        weight: lambda; the paper uses 3 to 25 for images.

    Source: Zhu et al., "Denoising Diffusion Models for Plug-and-Play Image Restoration", CVPRW
    2023 (arXiv 2305.08995), algorithm 1.

    Examples:
        >>> import srk, torch
        >>> from srk.posterior import Measurement
        >>> process, prior = srk.EDM(), srk.targets.Gaussian(torch.zeros(2), 1.0)
        >>> measurement = Measurement(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]), 0.1)
        >>> DiffPIR(prior.score(process), measurement).calls()
        1
    """

    weight: float = attrs.field(default=7.0, converter=as_float, kw_only=True)

    @weight.validator
    def _check_weight(self, attribute: attrs.Attribute[Any], value: float) -> None:
        if not value > 0.0:
            raise ArgumentError(f"weight is positive, not {value!r}; the paper uses 3 to 25")

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        denoised = self.prediction.denoise(x, level, process)
        if level.sigma == 0.0:
            return denoised
        rho = self.weight * self._std() ** 2 * (level.alpha / level.sigma) ** 2

        def proximal(values: Tensor) -> Tensor:
            return _inverse(values) if rho == 0.0 else 1.0 / (values + rho)

        return self._corrected(x, denoised, proximal)


@attrs.frozen(eq=False)
class DDNM(_Spectral):
    r"""Null-space sampling: what A sees of the denoised prediction is replaced by y.

    $$A^+ y + (I - A^+ A) D$$

    The samples satisfy A x = y exactly, with the noise of y in them: use it for measurements
    without noise, or with little. It costs one forward call.

    Arguments:
        prediction: the prediction without the measurement.
        measurement: what was measured; its noise is ignored.

    Source: Wang et al., "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model",
    ICLR 2023 (arXiv 2212.00490), equation (13). The variant DDNM+ for noisy measurements depends on
    the solver's next step; `DDRM` and `DiffPIR` take noise into account.

    Examples:
        >>> import srk, torch
        >>> from srk.posterior import Measurement
        >>> process, prior = srk.EDM(), srk.targets.Gaussian(torch.zeros(2), 1.0)
        >>> measurement = Measurement(torch.tensor([[1.0, 1.0]]), torch.tensor([1.0]), 0.0)
        >>> x = srk.solve(process, DDNM(prior.score(process), measurement), shape=3, seed=0).x
        >>> x.sum(1).round(decimals=4)
        tensor([1., 1., 1.])
    """

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        return self._corrected(x, self.prediction.denoise(x, level, process), _inverse)


@attrs.frozen(eq=False)
class DDRM(_Spectral):
    r"""Restoration in the singular vectors of A: y is used where the state is noisier than y.

    In a direction of singular value s, in which y says $\bar y$ with noise $\sigma_y/s$,

    $$(1 - \eta_b) D + \eta_b \bar y \quad \text{where} \; \sigma/\alpha \ge \sigma_y/s, \qquad D
    \quad \text{elsewhere.}$$

    That is the mean of the paper's next state at its eta = 1; the noise around it is the
    solver's, while the paper's is narrower by the noise of y (its chain jumps between two noise
    levels, which no denoiser of a level can express). It costs one forward call.

    Arguments:
        prediction: the prediction without the measurement.
        measurement: what was measured, with noise of one standard deviation.
        eta_b: how much of the measurement is used, in (0, 1]; the paper uses 1.

    Source: Kawar et al., "Denoising Diffusion Restoration Models", NeurIPS 2022, equations (7)
    and (8).

    Examples:
        >>> import srk, torch
        >>> from srk.posterior import Measurement
        >>> process, prior = srk.EDM(), srk.targets.Gaussian(torch.zeros(2), 1.0)
        >>> measurement = Measurement(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]), 0.1)
        >>> method = DDRM(prior.score(process), measurement)
        >>> x = torch.tensor([[2.0, 2.0]])
        >>> [method.denoise(x, process.level(s), process).tolist() for s in (1.0, 0.05)]
        [[[1.0, 1.0]], [[1.995..., 1.995...]]]
    """

    eta_b: float = attrs.field(default=1.0, converter=as_float, kw_only=True)

    @eta_b.validator
    def _check_eta(self, attribute: attrs.Attribute[Any], value: float) -> None:
        if not 0.0 < value <= 1.0:
            raise ArgumentError(f"eta_b lies in (0, 1], not {value!r}; the paper uses 1")

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        noise, spread = self._std(), level.r

        def used(values: Tensor) -> Tensor:
            noisier = values.sqrt() * spread >= noise
            return torch.where(noisier, self.eta_b * _inverse(values), 0.0)

        return self._corrected(x, self.prediction.denoise(x, level, process), used)


__all__ = ["DDNM", "DDRM", "DiffPIR"]
