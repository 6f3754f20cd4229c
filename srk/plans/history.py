r"""Which past evaluations a multistep method may use, and when its extrapolation goes too far.

A multistep method extrapolates what the network said through earlier evaluations. Differences of
evaluations at nearly the same time are worth nothing over a step that is much longer than what lies
between them, because besides the change of the denoiser they contain

- noise: along a run at eta the denoiser moves by some eta sqrt(h_1) over a gap h_1, so that a step
  h carries its slope too far where h/h_1 exceeds `NOISE`/eta;
- rounding, of which h/h_1 is the amplification, and (h/h_1)(h/h_2) that in the difference of two
  differences: `ROUNDING`/resolution;
- behind a corrector, the correction of the state that was made in between: `CORRECTION`.

Of evaluations closer than that the earlier one is left out. Where the noise itself, sigma/alpha, is
below the resolution, the denoiser is the state to rounding and has no slope: extrapolating it adds
up the rounding of all steps, so that there the first order is taken. The order is lower in that
step, and only there: a sliver in a grid then costs what the step costs at the lower order. The
limits lie where, on Gaussian data, extrapolation begins to do harm, and above the ratios of the
grids that published methods are run on.

A step that is longer than the ones before, but not by that much, is taken as the method's formula
has it. Where the noise in its extrapolation, measured by A = sum |w_j| / |sum w_j| of the weights,
exceeds that of exponential Euler several times, `warn_of_long_step` says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from srk.errors import GridWarning
from srk.plans.lagrange import exponential_weights
from srk.plans.step import Step

NOISE = 20.0
ROUNDING = 1e-3
CORRECTION = 100.0
#: In half precision the steps of usual grids must still pass.
COARSEST = 20.0
#: A of equal steps is 2, 4 and 7 through two, three and four evaluations.
AMPLIFIED = 20.0


def usable(
    step: Step, places: Sequence[float], length: float, eta: float, *, corrects: bool = False
) -> list[int]:
    """The numbers of the evaluations that a step may use; the first is among them.

    Arguments:
        step: the step.
        places: where the evaluations lie, the latest first, in the variable of the interpolation.
        length: of the step, in that variable.
        eta: the stochasticity over the step.
        corrects: whether the state is corrected between evaluations.
    """
    ratio = max(ROUNDING / step.resolution, COARSEST)
    if eta > 0.0:
        ratio = min(ratio, NOISE / eta)
    if corrects:
        ratio = min(ratio, CORRECTION)
    chosen = [0]
    if step.start.r < step.resolution:
        return chosen
    amplified = 1.0
    for i in range(1, len(places)):
        gap = abs(places[i] - places[chosen[-1]])
        if gap * ratio < abs(length):
            continue
        # Each difference of differences divides by a gap, so that their amplifications multiply.
        amplified *= max(1.0, abs(length) / gap)
        if amplified > max(ROUNDING / step.resolution, COARSEST**2):
            break
        chosen.append(i)
    return chosen


def usable_for_denoiser(
    step: Step, lams: Sequence[float], eta: float | None = None, name: str = ""
) -> list[int]:
    """`usable` for a denoiser that is extrapolated in the half log-SNR; warns of a long step.

    Arguments:
        step: the step, at whose start the first evaluation lies.
        lams: half log-SNR of the evaluations, the latest first.
        eta: the stochasticity over the step where it is not `step.eta`.
        name: of the solver.
    """
    eta = step.eta if eta is None else eta
    chosen = usable(step, lams, step.h, eta)
    warn_of_long_step(step, [lams[i] - step.start.lam for i in chosen], eta, name)
    return chosen


def warn_of_long_step(step: Step, places: Sequence[float], eta: float, name: str) -> None:
    """Warn where extrapolation through `places`, from the start of the step, amplifies noise."""
    if eta == 0.0 or len(places) < 2 or step.h <= -places[1]:
        return
    weights = exponential_weights(places, step.h, 1.0 + eta**2)
    amplified = sum(map(abs, weights)) / abs(sum(weights))
    if amplified * eta <= AMPLIFIED:
        return
    warnings.warn(
        f"step {step.index} of {name}, from t = {step.start.t:.6g} to {step.stop.t:.6g}, is "
        f"{step.h / -places[1]:.3g} times as long in half log-SNR as the one before it: the method "
        f"extrapolates the network through {len(places)} evaluations, which amplifies the noise in "
        f"them {amplified:.3g} times. Use steps even in log-SNR (grid='log-snr'), or a solver that "
        "bears it: 'srk2m', 'ddpm'",
        GridWarning,
        stacklevel=2,
    )
