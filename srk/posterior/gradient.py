r"""Methods that take the gradient of the network: DPS, SDA, PiGDM, TMPD, MMPS.

With $r = y - A D$, $J = \partial D/\partial x$ and $V = (\sigma^2/\alpha) J$ they all have the form

$$D + V A^T M^{-1} r,$$

where M stands for the covariance $A V A^T + \Sigma_y$ of y given x_t:

    DPS      M = covariance of the noise alone (or a step of its own)
    SDA      M = covariance of the noise + gamma (sigma/alpha)^2 I
    PiGDM    M = covariance of the noise + r_t^2 A A^T
    TMPD     M = covariance of the noise + the row sums of A V A^T
    MMPS     M as it is, by conjugate gradients: exact for Gaussian data
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from srk._checks import as_float
from srk.errors import ArgumentError
from srk.posterior.base import Posterior, Pullback, Weight, as_weight, needs_signal, weight_at
from srk.posterior.measurement import Measurement
from srk.processes.base import Level, LinearProcess

if TYPE_CHECKING:
    from srk.processes.base import ForwardProcess
    from srk.scores.base import Prediction


def _scale(level: Level) -> float:
    """sigma^2/alpha, by which a gradient of log p(y | x_t) enters the denoiser."""
    return level.sigma * (level.sigma / level.alpha)


def _not_negative(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value >= 0.0:
        raise ArgumentError(f"{attribute.name} is a number >= 0, not {value!r}")


@attrs.frozen(eq=False)
class GradientPosterior(Posterior):
    """A posterior that corrects the denoiser with products of its transposed Jacobian."""

    def calls(self, t: float | None = None) -> int:
        """A forward and a backward call of the network."""
        return 2 * self.prediction.calls(t)

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        if level.sigma == 0.0:
            return self.prediction.denoise(x, level, process)
        needs_signal(level, self)
        return self.corrected(Pullback(self.prediction, x, level, process), level)

    @abstractmethod
    def corrected(self, pull: Pullback, level: Level) -> Tensor:
        """The denoiser given the measurement, from that without it and its pullback."""


@attrs.frozen(eq=False)
class DPS(GradientPosterior):
    r"""Diffusion posterior sampling: y is measured of D as if x_0 were known to be D.

    $$D + w \frac{\sigma^2}{\alpha} \nabla_x \log N(y; A(D(x)), \Sigma_y)$$

    It costs a forward and a backward call. The approximation ignores the uncertainty of x_0, so
    that the pull towards y is far too strong while the noise of the state is large: with little
    measurement noise it needs many steps, or the paper's own steps (`DPS.of_paper`), which scale
    the gradient to a length that does not depend on the noise of y. Measured biases stand in
    docs/posterior.md. Nonlinear operators are welcome. A better choice at three times the cost is
    `MMPS`.

    Arguments:
        prediction: the prediction without the measurement.
        measurement: what was measured.
        weight: w, a number or a function of the noise level.
        normalized: instead of the likelihood's gradient use that of the distance,
            D - w grad_x |y - A(D(x))|, as the paper's algorithm 1 does.

    Source: Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems", ICLR
    2023 (arXiv 2209.14687), equation (16) and algorithm 1.

    Examples:
        >>> import srk, torch
        >>> process, prior = srk.EDM(), srk.targets.Gaussian(torch.zeros(2), 1.0)
        >>> measurement = Measurement(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]), 1.0)
        >>> posterior = DPS(prior.score(process), measurement)
        >>> sol = srk.solve(process, posterior, "ddpm", shape=2000, nfe=100, seed=0, grid="log-snr")
        >>> sol.nfe  # 50 evaluations, each a forward and a backward call
        100
    """

    weight: Weight = attrs.field(default=1.0, converter=as_weight, kw_only=True)
    normalized: bool = attrs.field(default=False, kw_only=True)

    @classmethod
    def of_paper(
        cls,
        prediction: Prediction,
        measurement: Measurement,
        process: LinearProcess,
        times: Sequence[float],
        zeta: float = 1.0,
    ) -> DPS:
        """DPS with the steps of its algorithm 1, for the solver "ddpm" on the grid `times`.

        The paper moves the state by -zeta grad |y - A(D)| after each step of DDPM. In terms of the
        denoiser this is a weight zeta/b, with b the coefficient of D in that step, which depends
        on both ends of the step: hence the grid.

        Arguments:
            prediction, measurement: as for `DPS`.
            process: the process.
            times: the own times of the run, decreasing; pass the same as `grid` to `srk.solve`.
            zeta: the step size of the authors' program, 0.3 to 1 with 1000 steps; where the
                paper writes zeta' grad |y - A(D)|^2/|y - A(D)|, zeta = 2 zeta'.
        """
        levels = [process.level(t) for t in times]
        if len(levels) < 2 or any(b.t >= a.t for a, b in itertools.pairwise(levels)):
            raise ArgumentError(f"times are at least two and decrease, not {list(times)!r}")
        weights = {}
        for start, stop in itertools.pairwise(levels):
            weights[start.t] = zeta / (stop.alpha * (1.0 - (stop.r / start.r) ** 2))
        known = sorted(weights)

        def weight(level: Level) -> float:
            nearest = min(known, key=lambda t: abs(t - level.t))
            near = abs(nearest - level.t) <= 1e-9 * max(1.0, abs(level.t))
            return weights[nearest] if near else 0.0  # the final denoising: no step follows

        return cls(prediction, measurement, weight=weight, normalized=True)

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        if weight_at(self.weight, level) == 0.0:
            return self.prediction.denoise(x, level, process)
        return super().denoise(x, level, process)

    def corrected(self, pull: Pullback, level: Level) -> Tensor:
        weight = weight_at(self.weight, level)
        value, _, transposed = self.measurement.operator.linearize(pull.denoised)
        r = self.measurement.residual(value)
        if self.normalized:
            length = r.flatten(1).norm(dim=1).reshape(-1, *[1] * (r.ndim - 1))
            length = length.clamp_min(torch.finfo(r.dtype).tiny)
            return pull.denoised + weight * pull(transposed(r / length))
        gradient = pull(transposed(self.measurement.precision(r)))
        return pull.denoised + (weight * _scale(level)) * gradient


@attrs.frozen(eq=False)
class SDA(GradientPosterior):
    r"""Score-based data assimilation: a likelihood that widens with the noise of the state.

    $$D + \frac{\sigma^2}{\alpha} \nabla_x \log N(y; A(D(x)), \Sigma_y + \gamma
    \frac{\sigma^2}{\alpha^2} I)$$

    It is made for trajectories of dynamical systems, where A reads some variables at some times
    and may be nonlinear; it costs a forward and a backward call, and is stable where `DPS` is
    not. gamma stands for A Cov(x_0) A^T in units of the noise; a value too small pulls too hard,
    one too large ignores y until late.

    Arguments:
        prediction: the prediction without the measurement.
        measurement: what was measured.
        gamma: the widening; the paper uses 1e-2 for data of unit variance.

    Source: Rozet and Louppe, "Score-based Data Assimilation", NeurIPS 2023 (arXiv 2306.10574),
    the stable likelihood score of section 3.2.

    Examples:
        >>> import srk, torch
        >>> process, prior = srk.EDM(), srk.targets.Gaussian(torch.zeros(2), 1.0)
        >>> observed = Measurement(lambda x: x[:, :1].tanh(), torch.tensor([0.5]), 0.1)
        >>> posterior = SDA(prior.score(process), observed, gamma=1.0)
        >>> x = srk.solve(process, posterior, shape=500, nfe=128, seed=0).x
        >>> bool((x[:, 0].tanh() - 0.5).abs().mean() < 0.2)
        True
    """

    gamma: float = attrs.field(
        default=1e-2, converter=as_float, kw_only=True, validator=_not_negative
    )

    def corrected(self, pull: Pullback, level: Level) -> Tensor:
        value, _, transposed = self.measurement.operator.linearize(pull.denoised)
        r = self.measurement.residual(value)
        weighted = self.measurement.precision(r, self.gamma * level.r**2)
        return pull.denoised + _scale(level) * pull(transposed(weighted))


@attrs.frozen(eq=False)
class PiGDM(GradientPosterior):
    r"""Pseudoinverse guidance: Cov(x_0 | x_t) is taken as $r_t^2 I$ in the likelihood.

    $$D + \frac{\sigma^2}{\alpha} J^T A^T (r_t^2 A A^T + \sigma_y^2 I)^{-1} (y - A D), \qquad
    r_t^2 = \frac{v \sigma^2}{v \alpha^2 + \sigma^2}$$

    for data of variance v. It costs a forward and a backward call, needs a linear operator with
    a known spectrum (matrices, masks, blurs, block averages) and may do without noise. It is
    exact for data N(0, v I).

    Arguments:
        prediction: the prediction without the measurement.
        measurement: what was measured, with noise of one standard deviation.
        data_std: sqrt(v), the standard deviation of the data in one coordinate.

    Source: Song et al., "Pseudoinverse-Guided Diffusion Models for Inverse Problems", ICLR 2023,
    equation (7), with its r_t for data of unit variance.

    Examples:
        >>> import srk, torch
        >>> process, prior = srk.EDM(), srk.targets.Gaussian(torch.zeros(2), 1.0)
        >>> measurement = Measurement(torch.tensor([[1.0, 1.0]]), torch.tensor([1.0]), 0.5)
        >>> posterior = PiGDM(prior.score(process), measurement)
        >>> x = srk.solve(process, posterior, "srk2m", shape=4000, nfe=64, seed=0).x
        >>> exact = prior.posterior(measurement)
        >>> bool((x.mean(0) - exact.mean).abs().max() < 0.05)
        True
    """

    data_std: float = attrs.field(default=1.0, converter=as_float, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.data_std > 0.0:
            raise ArgumentError(f"data_std is positive, not {self.data_std!r}; e.g. 0.5")
        self._linear()
        self._std()

    def corrected(self, pull: Pullback, level: Level) -> Tensor:
        value, _, transposed = self._linear().linearize(pull.denoised)
        v = self.data_std**2
        spread = v * level.sigma**2 / (v * level.alpha**2 + level.sigma**2)
        noise = self._std() ** 2

        def inverse(values: Tensor) -> Tensor:
            # What A does not see at all stays out: 1/0 there would be noise.
            total = spread * values + noise
            return torch.where(total > 0.0, 1.0 / total, 0.0)

        w = self._spectrum(pull.denoised).of(inverse, self.measurement.residual(value))
        return pull.denoised + _scale(level) * pull(transposed(w))


@attrs.frozen(eq=False)
class TMPD(GradientPosterior):
    r"""Tweedie moment projection: A V A^T by its row sums.

    $$D + V A^T \frac{y - A D}{A V A^T 1 + \sigma_y^2}, \qquad V = \frac{\sigma^2}{\alpha} J^T,$$

    with the division number by number. It costs a forward and two backward calls, whatever the
    operator, and is exact for Gaussian data where A V A^T is diagonal.

    Arguments:
        prediction: the prediction without the measurement.
        measurement: what was measured, with independent noise. Nonlinear operators are linearized.

    Source: Boys et al., "Tweedie Moment Projected Diffusions for Inverse Problems", TMLR 2024
    (arXiv 2310.06721), with its approximation by row sums.

    Examples:
        >>> import srk, torch
        >>> process, prior = srk.EDM(), srk.targets.Gaussian(torch.zeros(2), 1.0)
        >>> measurement = Measurement(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]), 0.5)
        >>> TMPD(prior.score(process), measurement).calls()
        3
    """

    def calls(self, t: float | None = None) -> int:
        """A forward and two backward calls of the network."""
        return 3 * self.prediction.calls(t)

    def corrected(self, pull: Pullback, level: Level) -> Tensor:
        value, product, transposed = self.measurement.operator.linearize(pull.denoised)
        r = self.measurement.residual(value)
        sums = product(_scale(level) * pull(transposed(torch.ones_like(r))))
        # A row sum may be negative where the entries of A V A^T differ in sign; a variance is not.
        total = sums.clamp_min(0.0) + self.measurement.variance(r)
        total = total.clamp_min(torch.finfo(r.dtype).tiny)
        return pull.denoised + _scale(level) * pull(transposed(r / total))


@attrs.frozen(eq=False)
class MMPS(GradientPosterior):
    r"""Moment matching: the covariance of y given x_t as it is, by conjugate gradients.

    $$D + V A^T (A V A^T + \Sigma_y)^{-1} (y - A D), \qquad V = \frac{\sigma^2}{\alpha} J^T$$

    It costs a forward call and a backward call for each iteration, and is exact for Gaussian data
    with as many iterations as there are different measured directions; 3 to 5 suffice in
    practice. Nothing is calibrated. Nonlinear operators are linearized at D.

    The number of iterations is fixed, so that nothing waits for the device; a sample whose
    residual vanishes, or for which V is not positive along the search direction (which a trained
    network may do), keeps the solution it has.

    Arguments:
        prediction: the prediction without the measurement.
        measurement: what was measured.
        iterations: the bound on conjugate-gradient iterations.

    Source: Rozet et al., "Learning Diffusion Priors from Observations by Expectation
    Maximization", NeurIPS 2024 (arXiv 2405.13712), moment matching posterior sampling.

    Examples:
        >>> import srk, torch
        >>> process = srk.EDM()
        >>> prior = srk.targets.Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
        >>> measurement = Measurement(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]), 0.1)
        >>> posterior = MMPS(prior.score(process), measurement, iterations=1)
        >>> x = srk.solve(process, posterior, "srk2m", shape=4000, nfe=64, seed=0).x
        >>> exact = prior.posterior(measurement)
        >>> bool((x.mean(0) - exact.mean).abs().max() < 0.05)
        True
    """

    iterations: int = attrs.field(default=3, kw_only=True)

    @iterations.validator
    def _check_iterations(self, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(f"iterations is a positive int, not {value!r}; e.g. 3")

    def calls(self, t: float | None = None) -> int:
        """A forward call of the network, and a backward call for each iteration."""
        return (1 + self.iterations) * self.prediction.calls(t)

    def corrected(self, pull: Pullback, level: Level) -> Tensor:
        value, product, transposed = self.measurement.operator.linearize(pull.denoised)
        scale = _scale(level)
        r = self.measurement.residual(value)
        step, square = r, _inner(r, r)
        first = square
        correction = torch.zeros_like(pull.denoised)
        for _ in range(self.iterations):
            # V A^T p serves twice: in the product of the matrix, and in the sum V A^T w itself,
            # so that no further backward call is needed at the end.
            lifted = scale * pull(transposed(step))
            image = self.measurement.add_noise_covariance(step, product(lifted))
            curvature = _inner(step, image)
            good = (curvature > 0.0) & (square > 1e-28 * first)
            length = torch.where(good, square / torch.where(good, curvature, 1.0), 0.0)
            correction = correction + _like(length, lifted) * lifted
            r = r - _like(length, r) * image
            new = _inner(r, r)
            growth = torch.where(good, new / torch.where(good, square, 1.0), 0.0)
            step = torch.where(_like(good, r), r + _like(growth, r) * step, torch.zeros_like(r))
            square = torch.where(good, new, torch.zeros_like(new))
        return pull.denoised + correction


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each sample, shape (batch,), in float32 or more."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return (a.to(wide) * b.to(wide)).flatten(1).sum(1)


def _like(value: Tensor, x: Tensor) -> Tensor:
    """`value` (batch,) as numbers that multiply samples like `x`."""
    shaped = value.reshape(-1, *[1] * (x.ndim - 1))
    return shaped if value.dtype == torch.bool else shaped.to(x.dtype)


__all__ = ["DPS", "MMPS", "SDA", "TMPD", "PiGDM"]
