"""Grids by the names that hosts and papers give them.

A schedule of ComfyUI, k-diffusion or diffusers is a list of n noise levels at which the network is
called, followed by no noise. Here a grid of n steps has n + 1 times. So where the process ends
without noise, `steps=n` takes the n levels and the end; where it ends with some noise left,
`steps=n` takes n + 1 levels, and the final denoising is the call at the last. Either way `nfe=n`
with a solver of one call a step calls the network at the n levels of the host's schedule of n
steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
import numpy as np

from srk._checks import real
from srk._fields import gt, lt
from srk.errors import ArgumentError, IncompatibleError
from srk.processes.base import LinearProcess
from srk.processes.phase import statistic
from srk.steps.base import Grid, RunInfo, steps_of
from srk.steps.grids import LogSNR, from_log_snr, need_linear

_positive = attrs.validators.and_(gt(0.0), lt(math.inf))


def called_at(info: RunInfo, levels: Callable[[int], Sequence[float] | np.ndarray]) -> list[float]:
    """The own times of a schedule.

    Arguments:
        info: the process and the number of steps.
        levels: n -> the own times of the n network calls, decreasing from t_max.
    """
    process, n = info.process, steps_of(info)
    free = statistic(process) is not None and process.level(process.t_min).sigma == 0.0
    times = [float(t) for t in levels(n if free else n + 1)]
    times[0] = float(process.t_max)
    if times[-1] <= process.t_min and not free:
        raise ArgumentError(
            f"{n} steps of this schedule go below the end of {process!r}, t_min = "
            f"{process.t_min!r}; take fewer steps, or a process that ends at less noise"
        )
    return [*times, float(process.t_min)] if free else times


# -- in own time ----------------------------------------------------------------------------------


@attrs.frozen
class SGMUniform(Grid):
    """`sgm-uniform`: equal steps in own time, with the network not called at the end of the range.

    The times of the n calls are t_max + (t_min - t_max) k/n for k < n.

    Source: the discretization of Stability AI's generative-models; `sgm_uniform` of ComfyUI.
    """

    name = "sgm-uniform"
    remembered = True

    def times(self, info: RunInfo) -> list[float]:
        hi, lo = info.process.t_max, info.process.t_min
        return called_at(info, lambda n: [hi + (lo - hi) * (k / n) for k in range(n)])


@attrs.frozen
class Beta(Grid):
    """`beta`: own times at equal steps of a Beta distribution's quantiles, many near both ends.

    The times of the n calls are t_min + (t_max - t_min) F^-1(1 - k/n) for k < n. A host with a
    discrete network rounds them to its training times.

    Arguments:
        alpha, beta: of the Beta distribution.

    Source: "Beta Sampling is All You Need", arXiv 2407.12173; `beta` of ComfyUI.
    """

    name = "beta"
    remembered = True
    alpha: float = attrs.field(default=0.6, validator=_positive)
    beta: float = attrs.field(default=0.6, validator=_positive)

    def times(self, info: RunInfo) -> list[float]:
        hi, lo = info.process.t_max, info.process.t_min

        def levels(n: int) -> np.ndarray:
            from scipy import stats  # scipy is slow to import

            quantile = stats.beta.ppf(1.0 - np.arange(n) / n, self.alpha, self.beta)
            return np.asarray(lo + (hi - lo) * quantile)

        return called_at(info, levels)


@attrs.frozen
class LinearQuadratic(Grid):
    """`linear-quadratic`: a first half of short equal steps, a second half that grows with the
    square of the number; for flow models of videos.

    With n calls, m = n/2 (rounded down), the threshold c and k the number of the call, the noise is
    1 - c k/m for k <= m, and a parabola through that, with the same slope there, down to 0. It is
    taken as the fraction of the way from t_min to t_max.

    Arguments:
        threshold: c, the noise that the first half removes.

    Source: "Movie Gen", arXiv 2410.13720, section 3.4.2; `linear_quadratic` of ComfyUI, from
    Genmo's Mochi.
    """

    name = "linear-quadratic"
    remembered = True
    threshold: float = attrs.field(default=0.025, validator=[gt(0.0), lt(0.5)])

    def times(self, info: RunInfo) -> list[float]:
        hi, lo = info.process.t_max, info.process.t_min

        def levels(n: int) -> list[float]:
            m, c = max(1, n // 2), self.threshold
            rest, slope = n - m, c / m
            # removed(m + j) = c + slope j + curve j^2, which is 1 at j = rest
            curve = (1.0 - c - slope * rest) / rest**2 if rest else 0.0
            removed = [
                slope * k if k < m else c + slope * (k - m) + curve * (k - m) ** 2 for k in range(n)
            ]
            return [lo + (hi - lo) * (1.0 - x) for x in removed]

        return called_at(info, levels)


@attrs.frozen
class FlowShift(Grid):
    """`flow-shift`: the equal steps of flow models, shifted towards noise.

    The times of the n calls are s t/(1 + (s - 1) t) at t = 1 - k/n for k < n, with the shift s.

    Arguments:
        shift: s; 3 is that of Stable Diffusion 3. `FlowShift.dynamic` computes one from the size
            of the picture.

    Source: P. Esser et al., "Scaling Rectified Flow Transformers", arXiv 2403.03206, section
    5.3.2.
    """

    name = "flow-shift"
    remembered = True
    shift: float = attrs.field(default=3.0, validator=_positive)

    @staticmethod
    def dynamic(
        tokens: int,
        *,
        base_tokens: int = 256,
        max_tokens: int = 4096,
        base_shift: float = 0.5,
        max_shift: float = 1.15,
    ) -> FlowShift:
        """The shift e^mu, with mu linear in the number of tokens of the picture.

        Arguments:
            tokens: how many tokens the network sees (for Flux: height x width / 256 in pixels).
            base_tokens, max_tokens: two numbers of tokens.
            base_shift, max_shift: mu at these.

        Source: Flux, as diffusers' `calculate_shift` and `use_dynamic_shifting` have it.
        """
        count = real(tokens, "tokens", least=1)
        share = (count - base_tokens) / (max_tokens - base_tokens)
        return FlowShift(math.exp(base_shift + (max_shift - base_shift) * share))

    def times(self, info: RunInfo) -> list[float]:
        process, s = info.process, self.shift
        level = process.level(process.t_max)
        if not (process.t_max == 1.0 and level.alpha == 0.0 and level.sigma == 1.0):
            raise IncompatibleError(
                "the grid 'flow-shift' shifts the times of a flow that starts at t = 1, which "
                f"{process!r} is not; use srk.Flow(), or grid='log-snr'"
            )

        def levels(n: int) -> list[float]:
            return [s * t / (1.0 + (s - 1.0) * t) for t in (1.0 - k / n for k in range(n))]

        return called_at(info, levels)


# -- in sigma/alpha -------------------------------------------------------------------------------


@attrs.frozen
class Karras(Grid):
    """`karras`: equal steps in (sigma/alpha)^(1/rho).

    Arguments:
        rho: the exponent; 7 is the paper's.
        sigma_min, sigma_max: sigma/alpha at the ends of the schedule; None takes the ends of the
            process. A run that starts below the noise of the process needs an `x_init`.

    Source: T. Karras et al. 2022, arXiv 2206.00364, eq. 5.
    """

    name = "karras"
    remembered = True
    rho: float = attrs.field(default=7.0, validator=_positive)
    sigma_min: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(_positive)
    )
    sigma_max: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(_positive)
    )

    def times(self, info: RunInfo) -> list[float]:
        need_linear(self, info.process)

        def points(n: int, noisy: float, clean: float) -> np.ndarray:
            a, b = math.exp(-noisy / self.rho), math.exp(-clean / self.rho)
            return -self.rho * np.log(a + (b - a) * (np.arange(n + 1) / n))

        noisy, clean = _given(info.process, self.sigma_max, self.sigma_min)
        return from_log_snr(info.process, points, steps_of(info), noisy, clean)


def _given(
    process: LinearProcess, sigma_max: float | None, sigma_min: float | None
) -> tuple[float | None, float | None]:
    """Ends given as sigma/alpha, in half log-SNR; None for an end of the process."""
    first, last = process.level(process.t_max), process.level(process.t_min)
    if sigma_max is not None and sigma_min is not None and not sigma_min < sigma_max:
        raise ArgumentError(
            f"sigma_min must be below sigma_max, not {sigma_min!r} and {sigma_max!r}"
        )
    ends: list[float | None] = []
    for sigma, end, name in ((sigma_max, first, "sigma_max"), (sigma_min, last, "sigma_min")):
        if sigma is None or math.isclose(sigma, end.r, rel_tol=1e-3):
            ends.append(None)
            continue
        if not last.r < sigma < first.r:
            raise ArgumentError(
                f"{name} = {sigma!r} is outside of {process!r}, whose sigma/alpha goes from "
                f"{last.r:.6g} to {first.r:.6g}; leave it out, or make the process with that end"
            )
        ends.append(-math.log(sigma))
    return ends[0], ends[1]


@attrs.frozen
class Exponential(LogSNR):
    """`exponential`: equal steps in log(sigma/alpha); the name that hosts have for `log-snr`.

    Source: k-diffusion, `get_sigmas_exponential`.
    """

    name = "exponential"


@attrs.frozen
class PolyExponential(Grid):
    """`polyexponential`: log(sigma/alpha) falls with a power of the share of the steps left.

    Arguments:
        rho: the power; 1 is `exponential`, more puts more steps at little noise.

    Source: k-diffusion, `get_sigmas_polyexponential`.
    """

    name = "polyexponential"
    remembered = True
    rho: float = attrs.field(default=1.0, validator=_positive)

    def times(self, info: RunInfo) -> list[float]:
        need_linear(self, info.process)

        def points(n: int, noisy: float, clean: float) -> np.ndarray:
            return clean - (clean - noisy) * (1.0 - np.arange(n + 1) / n) ** self.rho

        return from_log_snr(info.process, points, steps_of(info))


@attrs.frozen
class KLOptimal(Grid):
    """`kl-optimal`: equal steps in arctan(sigma/alpha), which minimize a bound of the KL divergence
    for Gaussian data of variance 1.

    Source: A. Sabour, S. Fidler, K. Kreis, "Align Your Steps", arXiv 2404.14507, eq. 14;
    `kl_optimal` of ComfyUI.
    """

    name = "kl-optimal"
    remembered = True

    def times(self, info: RunInfo) -> list[float]:
        need_linear(self, info.process)

        def points(n: int, noisy: float, clean: float) -> np.ndarray:
            a, b = math.atan(math.exp(-noisy)), math.atan(math.exp(-clean))
            points = -np.log(np.tan(a + (b - a) * (np.arange(n + 1) / n)))
            points[0], points[-1] = noisy, clean
            return np.asarray(points)

        return from_log_snr(info.process, points, steps_of(info))


@attrs.frozen
class Laplace(Grid):
    """`laplace`: log(sigma/alpha) at equal steps of a Laplace distribution's quantiles.

    Where points of the formula would lie beyond an end of the process, or next to it, the quantiles
    are those of the distribution cut off at the ends, so that every step has a length.

    Arguments:
        mu: the log(sigma/alpha) around which the steps are densest.
        beta: the width of the distribution.

    Source: T. Hang et al., "Improved Noise Schedule for Diffusion Training", arXiv 2407.03297;
    `get_sigmas_laplace` of ComfyUI.
    """

    name = "laplace"
    remembered = True
    mu: float = 0.0
    beta: float = attrs.field(default=0.5, validator=_positive)

    def times(self, info: RunInfo) -> list[float]:
        need_linear(self, info.process)

        def points(n: int, noisy: float, clean: float) -> np.ndarray:
            lam = self._quantiles(np.arange(n + 1) / n)
            lam[0], lam[-1] = noisy, clean
            h = np.diff(lam)
            if h.min() <= 0.0 or (n > 2 and min(h[0] / h[1], h[-1] / h[-2]) < 0.1):
                first, last = self._share(noisy), self._share(clean)
                lam = self._quantiles(first + (last - first) * np.arange(n + 1) / n, rounding=0.0)
                lam[0], lam[-1] = noisy, clean
            return lam

        return from_log_snr(info.process, points, steps_of(info))

    def _quantiles(self, share: np.ndarray, rounding: float = 1e-5) -> np.ndarray:
        """Half log-SNRs below which lie these shares of the distribution; the formula of the host
        has 1e-5 to keep the logarithm finite.
        """
        with np.errstate(divide="ignore"):
            tail = np.log(1.0 - 2.0 * np.abs(0.5 - share) + rounding)
        return np.asarray(self.beta * np.sign(0.5 - share) * tail - self.mu)

    def _share(self, lam: float) -> float:
        """The share of the distribution below a half log-SNR."""
        x = (lam + self.mu) / self.beta
        return 0.5 * math.exp(x) if x < 0.0 else 1.0 - 0.5 * math.exp(-x)


__all__ = [
    "Beta",
    "Exponential",
    "FlowShift",
    "KLOptimal",
    "Karras",
    "Laplace",
    "LinearQuadratic",
    "PolyExponential",
    "SGMUniform",
    "called_at",
]
