"""The exact posterior: for data whose distribution, or covariance, is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from srk._modes import uncast
from srk.errors import ArgumentError, IncompatibleError
from srk.posterior.base import Posterior
from srk.processes.base import Level
from srk.scores.base import Prediction
from srk.targets.base import ExactScore
from srk.targets.gaussian import Gaussian

if TYPE_CHECKING:
    from srk.processes.base import ForwardProcess


@attrs.frozen(eq=False)
class Exact(Posterior):
    r"""The exact denoiser given a linear measurement, for Gaussian data and for known targets.

    $$D + C A^T (A C A^T + \Sigma_y)^{-1} (y - A D), \qquad C = \mathrm{Cov}(x_0 | x_t) = \sigma^2
    \Sigma (\alpha^2 \Sigma + \sigma^2 I)^{-1}$$

    for data of covariance Sigma. Given the exact score of a Gaussian or of a mixture, Sigma or
    the mixture is taken from there. Given a network and `covariance`, the data count as Gaussian
    in the update alone: a cheap method (one forward call) for fields whose power spectrum is
    known. It forms dense matrices, so that the samples must be small (some thousand numbers).

    Arguments:
        prediction: the exact score of a target (`target.score(process)`), or any prediction
            together with `covariance`.
        measurement: what was measured, by a linear operator.
        covariance: Sigma over the flattened sample: a number, variances (d,), or a matrix (d, d).

    Raises:
        IncompatibleError: the operator is not linear, or nothing says what the covariance is.

    Source: the conditional mean of jointly Gaussian variables; see docs/posterior.md.

    Examples:
        >>> import srk, torch
        >>> from srk.posterior import Measurement
        >>> process = srk.EDM()
        >>> prior = srk.targets.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.3, 0.3])
        >>> measurement = Measurement(torch.tensor([[1.0, 0.0]]), torch.tensor([0.9]), 0.2)
        >>> posterior = Exact(prior.score(process), measurement)
        >>> x = srk.solve(process, posterior, "srk2m", shape=1000, nfe=30, seed=0).x
        >>> bool((x[:, 0].mean() - prior.posterior(measurement).moments()[0][0]).abs() < 0.03)
        True
    """

    covariance: Any = attrs.field(default=None, kw_only=True)
    _axes: tuple[Tensor, Tensor | None] | None = attrs.field(init=False, repr=False)

    @_axes.default
    def _decompose(self) -> tuple[Tensor, Tensor | None] | None:
        """Variances of the data and the axes that they belong to; None for other targets."""
        inner = self.prediction
        if self.covariance is not None:
            return _axes(self.covariance)
        if isinstance(inner, ExactScore) and isinstance(inner.target, Gaussian):
            return inner.target.axes
        if isinstance(inner, ExactScore) and hasattr(inner.target, "posterior"):
            return None
        raise IncompatibleError(
            f"the exact posterior of {inner!r} is not known; give the exact score of a "
            "srk.targets.Gaussian or GaussianMixture, or the covariance of the data: "
            "srk.posterior.Exact(prediction, measurement, covariance=...); for any other data "
            "srk.posterior.MMPS comes closest"
        )

    def __attrs_post_init__(self) -> None:
        self._linear()

    def bind(self, process: ForwardProcess) -> Prediction:  # type: ignore[override]
        """The same bound to `process`; for a mixture, the exact score of its posterior."""
        bound = super().bind(process)
        inner = bound.prediction
        if bound._axes is None and isinstance(inner, ExactScore):
            target: Any = inner.target
            exact: Prediction = target.posterior(self.measurement).score(process)
            return exact
        return bound

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        if self._axes is None:
            return self.bind(process).denoise(x, level, process)
        denoised = self.prediction.denoise(x, level, process)
        if level.sigma == 0.0:
            return denoised
        r = self.measurement.residual(self._linear()(denoised))
        gain = self._gain(self._axes, tuple(x.shape[1:]), level).to(r)
        with uncast(x):
            return denoised + (r.flatten(1) @ gain.mT).reshape(x.shape)

    def _gain(
        self, axes: tuple[Tensor, Tensor | None], event: tuple[int, ...], level: Level
    ) -> Tensor:
        """C A^T (A C A^T + covariance of the noise)^-1, shape (d, m), float64 on the CPU."""
        one = self.measurement.operator(torch.zeros((1, *event), dtype=torch.float64))
        single = attrs.evolve(self.measurement, y=one[0], windows=())
        matrix, _, noise = single.system(event)
        variances, basis = axes
        d = matrix.shape[1]
        try:
            variances = variances.reshape(-1).expand(d)
        except RuntimeError:
            raise ArgumentError(
                f"the covariance has {variances.numel()} variances, but a sample of shape {event} "
                f"has {d} numbers"
            ) from None
        total = level.alpha**2 * variances + level.sigma**2
        given = variances * level.sigma**2 / total
        if basis is None:
            right = given[:, None] * matrix.mT
        else:
            right = basis @ (given[:, None] * (basis.mT @ matrix.mT))
        system = matrix @ right + noise
        # Measurements without noise that say the same twice leave a singular matrix.
        gain: Tensor = right @ torch.linalg.pinv(system, hermitian=True)
        return gain


def _axes(covariance: Any) -> tuple[Tensor, Tensor | None]:
    c = torch.as_tensor(covariance, dtype=torch.float64, device="cpu").detach()
    if c.ndim != 2 or c.shape[0] != c.shape[1]:
        variances, basis = c, None
    else:
        if not torch.allclose(c, c.mT, rtol=1e-8, atol=1e-12 * float(c.abs().max())):
            raise ArgumentError("the covariance of the data must be symmetric")
        variances, basis = torch.linalg.eigh((c + c.mT) / 2)
    if float(variances.min()) < -1e-10 * float(variances.abs().max()):
        raise ArgumentError(
            f"the covariance of the data has the negative variance {float(variances.min())!r}"
        )
    return variances.clamp_min(0.0), basis


__all__ = ["Exact"]
