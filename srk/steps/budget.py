"""A grid for a given number of network calls, from how fast the denoiser moves along the half
log-SNR, or from how much the probability-flow ODE bends there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import attrs
import numpy as np

from srk._fields import ge, gt, instance_of, le, lt
from srk.errors import ArgumentError
from srk.steps.base import Grid, RunInfo, steps_of
from srk.steps.grids import from_log_snr, need_linear
from srk.steps.profile import Array, Profile

LEAST_RESIDUAL = 0.02
"""1 - mmse/r^2 below this counts as this."""
STEEPEST = 4.0
"""Largest change of the logarithm of a grid's density per half log-SNR. Near a sudden peak the
steps become shorter one by one: no grid has a sliver beside a long step, on which multistep methods
lose their footing."""
_POINTS = 2001  # where the density of a grid is integrated

_finite = attrs.validators.and_(gt(-math.inf), lt(math.inf))


@attrs.frozen
class Criterion:
    r"""What a budget grid equidistributes over the half log-SNR, with r = sigma/alpha:

    $$
    (1 - \mathrm{uniform})\, \mathrm{normalized}\big[q^\mathrm{power}\, r^{-\mathrm{slope}}
    (1 - \mathrm{mmse}/r^2)^\mathrm{residual}\big] + \mathrm{uniform}
    $$

    1 - mmse/r^2 = E|x/alpha - D|^2/(d r^2) is the part of the noise that the denoiser removes,
    taken as 0.02 at least. On N(m, v) data, s = r^2, a step h of `ddpm` leaves a relative error
    4 h^2 v s/(v + s)^2 of the variance, of which the fraction v/(v + s) reaches the end: together
    2 h^2 q (1 - mmse/r^2)/r^2. For a given number of steps the sum is least where their density is
    the square root of the factor of h^2: (1/2, 1, 1/2). Without the residual, (1/2, 1) is that of
    the KL of trajectories; (1/3, 0) is that of the mean square.

    Where the density would jump it is smoothed (`STEEPEST`), so that neighbouring steps have
    lengths that are comparable.

    Arguments:
        power: of q, at least 0.
        slope: of 1/r.
        residual: of 1 - mmse/r^2.
        uniform: share of the steps that is spread evenly, in [0, 1].
    """

    power: float = attrs.field(validator=ge(0.0))
    slope: float = attrs.field(validator=_finite)
    residual: float = attrs.field(default=0.0, validator=_finite)
    uniform: float = attrs.field(
        default=0.1,
        validator=attrs.validators.and_(ge(0.0), le(1.0)),
    )

    def density(self, profile: Profile, x: Array) -> Array:
        """Steps per half log-SNR, of integral 1 over the equidistant points `x`, shape (n,)."""
        residual = np.clip(1.0 - profile.mmse(x) * np.exp(2.0 * x), LEAST_RESIDUAL, 1.0)
        log = (
            self.power * np.log(profile.density(x))
            + self.slope * x
            + self.residual * np.log(residual)
        )
        return _smoothed(log, x, self.uniform)

    def points(self, profile: Profile, n: int, noisy: float, clean: float) -> Array:
        """n + 1 half log-SNRs from `noisy` to `clean`, exact at the ends, between which the
        integral of the density is the same.
        """
        return _divided(lambda x: self.density(profile, x), n, noisy, clean)


@attrs.frozen
class Bend:
    r"""What `gauge-adams` equidistributes over the half log-SNR: the part of the ODE that it must
    predict, as far as it bends:

    $$
    (1 - \mathrm{uniform})\, \mathrm{normalized}\big[\mathrm{bend}^\mathrm{power}\big]
    + \mathrm{uniform}
    $$

    A step h of a method of order p leaves an error h^(p+1) times a derivative of order p of what it
    predicts; their sum is least where the density of the steps is the (p+1)-th root of that
    derivative, hence 1/4 for order 3. The second derivative stands for the third; the fourth, with
    its own root, measured no better (docs: Research notes).

    Arguments:
        power: of the bend of the profile, at least 0.
        uniform: share of the steps that is spread evenly, in [0, 1].
    """

    power: float = attrs.field(default=0.25, validator=ge(0.0))
    uniform: float = attrs.field(
        default=0.1,
        validator=attrs.validators.and_(ge(0.0), le(1.0)),
    )

    def density(self, profile: Profile, x: Array) -> Array:
        """Steps per half log-SNR, of integral 1 over the equidistant points `x`, shape (n,)."""
        return _smoothed(self.power * profile.log_bend(x), x, self.uniform)

    def points(self, profile: Profile, n: int, noisy: float, clean: float) -> Array:
        """As `Criterion.points`."""
        return _divided(lambda x: self.density(profile, x), n, noisy, clean)


def _smoothed(log: Array, x: Array, uniform: float) -> Array:
    """A density of integral 1 over `x` from its logarithm, nowhere steeper than `STEEPEST`."""
    # the smallest function above it that is nowhere steeper
    rise = STEEPEST * x
    log = np.maximum.accumulate(log + rise) - rise
    log = np.maximum.accumulate((log - rise)[::-1])[::-1] + rise
    shape = np.exp(log - log.max())
    even = uniform / (x[-1] - x[0])
    density: Array = (1.0 - uniform) * shape / np.trapezoid(shape, x) + even
    return density


def _divided(density: Callable[[Array], Array], n: int, noisy: float, clean: float) -> Array:
    """n + 1 points from `noisy` to `clean`, between which the integral of `density` is the same."""
    x = np.linspace(noisy, clean, _POINTS)
    values = density(x)
    mass = np.concatenate([[0.0], np.cumsum((values[1:] + values[:-1]) / 2.0)])
    points: Array = np.interp(np.arange(n + 1) / n * mass[-1], mass, x)
    points[0], points[-1] = noisy, clean
    return points


CRITERIA: dict[str, Criterion | Bend] = {
    "concentrated": Criterion(0.6, 0.7, 0.4),
    "broad": Criterion(0.4, 0.5),
    "network": Criterion(0.45, 0.25),
    "bend": Bend(),
    "kl": Criterion(0.5, 1.0),
    "l2": Criterion(1.0 / 3.0, 0.0),
    "even": Criterion(0.0, 0.0, uniform=1.0),
}
"""By name: two that measured best on mixtures with the solvers of their time
(benchmarks/results/budget.md); the one that networks and mixtures both gain from with noise, and
the one for the ODE (docs/calibration.md); two of theory, KL of the trajectories and mean square;
and the steps of `log-snr`."""
EVEN = frozenset({"deis-2", "deis-3", "unipc-2", "unipc-3"})
"""Solvers whose default is "even": no criterion that was tried is better than `log-snr` for them
(docs/calibration.md)."""
CONCENTRATED = frozenset({"ddpm", "srk1", "srk2s", "srk2m"})
"""Solvers whose default is "concentrated": those that take the denoiser as it is, and those of
srk in one gauge clock. Most others extrapolate it: "broad". Those in a gauge that follows the
noise (`auto`, `srk2m-local`): "network". `gauge-adams`: "bend" where that was measured."""


def _criterion(value: Any) -> Criterion | Bend | None:
    if value is None or isinstance(value, Criterion | Bend):
        return value
    if value not in CRITERIA:
        raise ArgumentError(
            f"criterion is one of {', '.join(map(repr, CRITERIA))}, an srk.steps.Criterion or an "
            f"srk.steps.Bend, not {value!r}"
        )
    return CRITERIA[value]


@attrs.frozen
class Budget(Grid):
    """`budget`: exactly the steps that `nfe` buys, placed where the denoiser changes.

    A `Profile` says where it moves, for solvers with noise, and where the ODE bends, for
    `gauge-adams`. Without one, a sampler measures it in a pilot run before its first samples, and
    keeps it for that network; `srk.solve`, which makes a sampler for each call, does so each time.
    The calls of that pilot are not in `Solution.nfe`. To pay for it once, and to know what it cost,
    measure first: `profile = srk.calibrate(process, score)`.

    Arguments:
        profile: measured before; None lets the sampler measure one.
        criterion: what is equidistributed: a name ("concentrated", "broad", "network", "bend",
            "kl", "l2", "even"), a `Criterion`, a `Bend`, or None for the one measured best for the
            solver.
        samples, steps, seed: of the sampler's pilot.

    Raises:
        IncompatibleError: the process has no log-SNR.
        ArgumentError: the profile does not cover the process, or there is none.

    Examples:
        >>> import srk
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.0, 0.25)
        >>> score = target.score(process)
        >>> grid = srk.steps.Budget(srk.calibrate(process, score))
        >>> srk.solve(process, score, "srk2m", shape=8, grid=grid, nfe=20, seed=0).nfe
        20
    """

    name = "budget"
    remembered = True

    profile: Profile | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(
            instance_of(Profile, "an srk.Profile, as srk.calibrate measures it")
        ),
    )
    criterion: (
        Criterion
        | Bend
        | Literal["concentrated", "broad", "network", "bend", "kl", "l2", "even"]
        | None
    ) = attrs.field(default=None, converter=_criterion)
    samples: int | None = None
    steps: int = 32
    seed: int = 0

    def times(self, info: RunInfo) -> list[float]:
        process, n = info.process, steps_of(info)
        need_linear(self, process)
        profile = self.profile
        if profile is None:
            raise ArgumentError(
                "the grid 'budget' has no network to measure here; give it a profile: "
                "grid=srk.steps.Budget(srk.calibrate(process, score))"
            )
        profile.check(process)
        criterion = self._chosen(info, bool(profile.bend))
        return from_log_snr(process, lambda n, a, b: criterion.points(profile, n, a, b), n)

    def bends(self, info: RunInfo) -> bool:
        """Whether the steps go by the bend of a profile that has one."""
        return isinstance(self._chosen(info, True), Bend)

    def _chosen(self, info: RunInfo, bend: bool) -> Criterion | Bend:
        if isinstance(self.criterion, Criterion | Bend):
            return self.criterion
        solver: Any = info.solver
        core = getattr(solver, "core", solver)
        if core is not solver:  # some forms let it choose after the grid
            solver = core.choose(info.process, info.eta, info.steps)
        name = getattr(solver, "name", "")
        if name == "gauge-adams":
            return CRITERIA["bend" if bend else "network"]
        stage = getattr(solver, "stage", None)
        if name == "auto" or getattr(stage, "follows", False):
            return CRITERIA["network"]
        if name in EVEN:
            return CRITERIA["even"]
        return CRITERIA["concentrated" if name in CONCENTRATED else "broad"]
