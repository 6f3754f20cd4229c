r"""Predictor-corrector methods: any solver, with Langevin steps at each level.

A corrector leaves the noise level alone. It is a step of Langevin dynamics, whose invariant
distribution is that of the state at this level, with the score s = (alpha D - x)/sigma^2:

    x' = x + e s + sqrt(2 e) z

"langevin" takes e = 2 (snr |z|/|s|)^2 from the norms, which the device knows alone; "ald" (annealed
Langevin dynamics) takes e = 2 (snr sigma)^2 from the level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

from srk._checks import choice, flag, integer, positive, shown
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.integrators.base import Integrator
from srk.integrators.reverse_diffusion import ReverseDiffusion
from srk.integrators.tableau import integrator
from srk.plans.plan import FEW, Over, StepPlan, join
from srk.plans.step import Step
from srk.processes.base import ForwardProcess, Level, LinearProcess

if TYPE_CHECKING:
    from srk.steps.profile import Profile

Corrector = Literal["langevin", "ald"]


def _count(value: Any) -> int:
    return integer(value, "the number of corrector steps", least=1)


def _corrector(value: Any) -> Corrector:
    return choice(value, ("langevin", "ald"), "corrector")  # type: ignore[no-any-return]


def _snr(value: Any) -> float:
    return positive(value, "snr", cure="score_sde has 0.16 for VE, SGMSE 0.5")


def _norms(value: Any) -> Over:
    return choice(value, ("sample", "batch", "auto"), "norms")  # type: ignore[no-any-return]


def _decay(value: Any) -> bool:
    return flag(value, "decay")


def _predictor(value: Any) -> Integrator:
    made = integrator(value)
    if isinstance(made, PredictorCorrector):
        raise ArgumentTypeError(
            f"the predictor of a predictor-corrector method is a solver of its own, not {made!r}; "
            "steps=2 makes two corrector steps"
        )
    return made


@attrs.frozen
class PredictorCorrector(Integrator):
    r"""Any solver, with `steps` Langevin steps before each of its steps.

    They take `steps` network calls more in each step, the final denoising included. With
    N = (x - alpha D)/sigma, so that the score is -N/sigma, one corrector step is

    $$
    \begin{aligned}
    x' &= x - \frac{e}{\sigma} N + \sqrt{2 e}\; z \\
    e &= 2 a \big(\mathrm{snr}\, \sigma\, |z|/|N|\big)^2 \text{ for } \texttt{langevin}, \qquad
    e = 2 a\, (\mathrm{snr}\, \sigma)^2 \text{ for } \texttt{ald}
    \end{aligned}
    $$

    At a fixed `snr` the corrector's own error stays, whatever the number of steps. On data N(m, v)
    "ald" settles at the variance V/(1 - e/(2 V)) instead of V = alpha^2 v + sigma^2, which is next
    to V where sigma^2 is small against it, as at the end of a run. "langevin" settles at a variance
    that is too large by the fraction snr^2 with norms="batch", and by snr^2 + 4/d with
    norms="sample", d the numbers of a state.

    "ald" is linear, so that its exact distribution on Gaussian data is known
    (`srk.analysis.gaussian_distribution`); "langevin" is not, because its step size depends on the
    draws. Draws of the corrector are independent of those of the predictor with every noise source:
    a Brownian path drives the predictor alone.

    Arguments:
        predictor: the solver: a name, an integrator or a tableau.
        corrector: "langevin" or "ald".
        snr: what codes call the signal-to-noise ratio: it sets the length of the corrector steps.
        steps: how many corrector steps.
        norms: "sample" takes the norms of "langevin" for each sample, so that a sample does not
            depend on its batch. "batch" takes their means over the batch, as score_sde and SGMSE
            do, and as states of few numbers need; below 5 the ratio of one sample has no finite
            variance. "auto" takes "batch" below 5 numbers and "sample" from 5 on.
        decay: whether a is (alpha/alpha')^2 with alpha' at the end of the step, as in score_sde on
            discrete betas, where it is 1 - beta; else a = 1.

    Raises:
        ArgumentError, ArgumentTypeError: an option is none of its kind, or the predictor is a
            predictor-corrector method already.
        IncompatibleError: in a run, for a process that is not linear; for states of too few numbers
            and for pieces of a batch, as said at `norms`.

    Source: Song et al. 2021, arXiv 2011.13456, algorithms 2 to 5 (appendix G).

    Examples:
        >>> import srk
        >>> vp, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04, event_shape=(64,))
        >>> solver = srk.integrators.PredictorCorrector("ddpm", corrector="langevin", snr=0.1)
        >>> sol = srk.solve(vp, target.score(vp), solver, shape=4, steps=10, seed=0)
        >>> sol.nfe, sol.solver
        (22, 'ddpm + langevin')
    """

    # mypy takes the type of the default
    predictor: Integrator = attrs.field(  # type: ignore[assignment]
        default="euler-maruyama", converter=_predictor
    )
    corrector: Corrector = attrs.field(default="langevin", kw_only=True, converter=_corrector)
    snr: float = attrs.field(default=0.16, kw_only=True, converter=_snr)
    corrector_steps: int = attrs.field(default=1, kw_only=True, alias="steps", converter=_count)
    norms: Over = attrs.field(default="auto", kw_only=True, converter=_norms)
    decay: bool = attrs.field(default=False, kw_only=True, converter=_decay)

    @classmethod
    def score_sde(cls, process: Literal["ve", "vp"]) -> PredictorCorrector:
        """What score_sde runs by default: its `reverse_diffusion` with one step of "langevin".

        Norms are over the batch, as in that code.

        Arguments:
            process: "ve" for snr = 0.16; "vp" for snr = 0.01 with the factor 1 - beta. For sub-VP
                its configurations run no corrector: solver="euler-maruyama".

        Examples:
            >>> import srk
            >>> srk.integrators.PredictorCorrector.score_sde("ve").snr
            0.16
        """
        if process not in ("ve", "vp"):
            raise ArgumentError(
                f"score_sde runs correctors for 've' and 'vp', not for {shown(process)}; its "
                "configurations for sub-VP are solver='euler-maruyama'"
            )
        variance_preserving = process == "vp"
        return cls(
            ReverseDiffusion(),
            corrector="langevin",
            snr=0.01 if variance_preserving else 0.16,
            norms="batch",
            decay=variance_preserving,
        )

    @classmethod
    def sgmse(cls) -> PredictorCorrector:
        """What SGMSE runs by default: one step of "ald" with snr = 0.5, then Euler-Maruyama.

        With `srk.OUVE`, 30 uniform steps whose last one goes from t = 0.03 to 0, and
        denoise_final=False, which leaves that step without noise.

        Examples:
            >>> import srk
            >>> srk.integrators.PredictorCorrector.sgmse().evaluations_per_step
            2
        """
        return cls(ReverseDiffusion(forward="euler"), corrector="ald", snr=0.5)

    @property
    def name(self) -> str:  # type: ignore[override]  # that of both parts
        return f"{self.predictor.name} + {self.corrector}"

    @property
    def evaluations_per_step(self) -> int:  # type: ignore[override]
        return self.predictor.evaluations_per_step + self.corrector_steps

    @property
    def startup_evaluations(self) -> int:  # type: ignore[override]
        return self.predictor.startup_evaluations

    @property
    def end_evaluations(self) -> int:  # type: ignore[override]
        return self.predictor.end_evaluations + self.corrector_steps

    @property
    def eta_range(self) -> tuple[float, float]:  # type: ignore[override]
        return self.predictor.eta_range

    @property
    def core(self) -> Integrator:
        return self.predictor.core

    @property
    def default_eta(self) -> float:
        return self.predictor.default_eta

    @property
    def profiled(self) -> bool:  # type: ignore[override]
        return self.predictor.profiled

    def calibrated(self, profile: Profile) -> Integrator:
        return attrs.evolve(self, predictor=self.predictor.calibrated(profile))

    @property
    def infinite_noise(self) -> bool:  # type: ignore[override]
        return self.predictor.infinite_noise

    @property
    def reference(self) -> str:  # type: ignore[override]
        return f"{self.predictor.reference}; Song et al. 2021 (arXiv 2011.13456), algorithms 2 to 5"

    @property
    def one_eta(self) -> bool:
        return self.predictor.one_eta

    def choose(self, process: ForwardProcess, eta: float, steps: int | None) -> Integrator:
        return attrs.evolve(self, predictor=self.predictor.choose(process, eta, steps))

    def on_grid(self, process: ForwardProcess, times: Sequence[float], eta: float) -> Integrator:
        return attrs.evolve(self, predictor=self.predictor.on_grid(process, times, eta))

    def label(self, process: ForwardProcess, eta: float, steps: int | None) -> str:
        return f"{self.predictor.label(process, eta, steps)} + {self.corrector}"

    def check(self, process: ForwardProcess, eta: float) -> None:
        self.predictor.check(process, eta)
        if not isinstance(process, LinearProcess):
            raise IncompatibleError(
                f"a corrector needs the score of a linear process, not of {process!r}; use the "
                f"predictor alone: solver={self.predictor.name!r}"
            )

    def check_shape(self, shape: Sequence[int], *, cut: bool = False) -> None:
        self.predictor.check_shape(shape, cut=cut)
        if self.corrector != "langevin":
            return
        size = math.prod(shape[1:])
        if self.norms == "sample" and size < FEW:
            raise IncompatibleError(
                f"corrector='langevin' takes its step from |z|/|score| of each sample, and states "
                f"of {size} number{'s' * (size > 1)} make a ratio that is too wild (below "
                f"{FEW} the step has no finite variance); use norms='batch', or "
                "corrector='ald'"
            )
        if cut and (self.norms == "batch" or (self.norms == "auto" and size < FEW)):
            raise IncompatibleError(
                "norms='batch' (which is the default for states of fewer than 5 numbers) "
                "takes the steps of the corrector from the batch as a whole, which "
                "microbatch= would cut; use norms='sample', or leave microbatch out"
            )

    def plan_step(self, step: Step) -> StepPlan:
        return self._corrected(step, self.predictor.plan_step(step))

    def plan(self, step: Step) -> StepPlan:
        return self._corrected(step, self.predictor.plan(step))

    def final_step(self, process: Any, start: Level, eta: float, index: int) -> StepPlan:
        plan = self.predictor.final_step(process, start, eta, index)
        return self._corrected(Step(process, plan.start, plan.stop, eta, index), plan)

    def _corrected(self, step: Step, predicted: StepPlan) -> StepPlan:
        """The corrector steps at the start of the step, then the predictor's plan of it."""
        start = step.start
        factor = start.alpha / step.stop.alpha if self.decay else 1.0
        length = factor * self.snr * math.sqrt(2.0)  # sqrt(e)/sigma where the norms are equal
        if length == 0.0:  # at alpha = 0
            return predicted
        draft = step.draft(predicted.clock)
        x, draws = draft.state, _beside(predicted, step)
        for number in range(self.corrector_steps):
            node = draft.evaluate(x, start)
            noise = (node.x - node.value * start.alpha) / start.sigma
            z = draft.normal(*draws(number))
            if self.corrector == "langevin":
                noise = draft.formed(noise)
                ratio = draft.norms(z, noise, self.norms)
                noise, z = draft.formed(noise, ratio, 2.0), draft.formed(z, ratio)
            x = node.x - noise * (length**2 * start.sigma)
            x = x + z * (math.sqrt(2.0) * length * start.sigma)
        return join(draft.finish(x), predicted)


def _beside(plan: StepPlan, step: Step) -> Callable[[int], tuple[float, float, tuple[float, ...]]]:
    """The corrector's draws: at the point of the plan's clock where the step starts.

    An interval without length is on no path, so that the draws are independent of the predictor's;
    and they stay what they are where a step is taken again with another end.
    """
    at = plan.slots[0].start if plan.slots else -step.start.t

    def draw(number: int) -> tuple[float, float, tuple[float, ...]]:
        return at, at, (*[0.0] * (2 + number), 1.0)

    return draw


__all__ = ["PredictorCorrector"]
