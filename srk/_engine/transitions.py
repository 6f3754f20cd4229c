"""The density of a step: log p(x_k+1 | x_k, what earlier steps kept), for solvers whose step is Gaussian."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from srk._engine.executor import Executor
from srk.errors import ArgumentError, IncompatibleError
from srk.noise.base import NoiseSource
from srk.plans.plan import Slot, Stage, StepPlan
from srk.processes.base import ForwardProcess
from srk.scores import Prediction
from srk.solution import Saved


class Draws(NoiseSource):
    """Another source's draws, of which those of the last step are kept."""

    def __init__(self, source: NoiseSource) -> None:
        self.source = source
        self.values: list[Tensor] = []

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.source.start(shape, dtype, device)

    def prior(self, out: Tensor) -> None:
        self.source.prior(out)

    def begin(self) -> None:
        """A new step begins."""
        self.values = []

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        self.source.draw(slot, clock, out)
        self.values.append(out.clone())


class _Silence(NoiseSource):
    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass

    def prior(self, out: Tensor) -> None:
        out.zero_()

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        out.zero_()


def check_gaussian(plans: Sequence[StepPlan], label: str) -> None:
    """Raise `IncompatibleError` unless every step's draws enter the new state alone, and some step draws."""
    if not any(plan.slots for plan in plans):
        raise IncompatibleError(
            f"{label} draws no noise here, so its steps have no density; use eta=1, or srk.log_likelihood for the flow's"
        )
    for plan in plans:
        rows = [*(stage.row for stage in plan.stages), *plan.keep]
        if any(column.kind == "z" for row in rows for column, _ in row):
            raise IncompatibleError(
                f"a step of {label} is not Gaussian given the state: its draws enter an input of the network; "
                "log-densities exist for solver='ddpm', 'srk1', 'euler-maruyama', 'ddim', 'dpmpp-2m-sde' and others that draw at the end of the step"
            )


def log_density(plan: StepPlan, state: Tensor, draws: Sequence[Tensor]) -> Tensor:
    """log p(state | what the step started from), shape (batch,), from the draws of the step's update in order.

    The value is that of the draws; the gradient is that of the mean, with the new state held fixed.
    """
    factors = _factors(plan)
    shift = state.detach() - state
    for factor, draw in zip(factors, draws, strict=True):
        shift = shift + draw * factor
    return _normal(shift, math.hypot(*factors))


def transition_log_prob(
    process: ForwardProcess, prediction: Prediction, plans: Sequence[StepPlan], saved: Saved
) -> Saved:
    """Log-densities of the steps of a trajectory: see `srk.Sampler.log_prob`."""
    times = (plans[0].start.t, *(plan.stop.t for plan in plans))
    if saved.times != times:
        raise ArgumentError(
            f"the trajectory has {len(saved.times)} states from t = {saved.times[0]:g} to {saved.times[-1]:g}, which are not the {len(times)} times of "
            "this sampler; use the same process, solver, grid and number of steps"
        )

    def evaluate(x: Tensor, stage: Stage) -> Tensor:
        if stage.kind == "denoiser":
            return prediction.denoise(x, stage.level, process)
        raise IncompatibleError(
            f"{process!r} is not linear; draw with save='log_prob' and grad=True instead"
        )

    executor = Executor(evaluate, _Silence(), reuse=False)
    memory: list[Tensor] = []
    ends, values = [], []
    for plan, state, after in zip(plans, saved.values[:-1], saved.values[1:], strict=True):
        outcome = executor.run(plan, state, memory)
        memory = outcome.keep
        if plan.slots:
            values.append(_normal(after - outcome.state, math.hypot(*_factors(plan))))
            ends.append(plan.stop.t)
    return Saved(tuple(ends), torch.stack(values))


def _factors(plan: StepPlan) -> list[float]:
    """The coefficients of the step's draws in its update."""
    factors = []
    for column, value in plan.update:
        if column.kind == "z":
            if not isinstance(value, float):
                raise IncompatibleError(
                    "a step in phase space draws position and velocity together, and has no log-density here; use a linear process"
                )
            factors.append(value)
    return factors


def _normal(difference: Tensor, std: float) -> Tensor:
    n = math.prod(difference.shape[1:])
    return (difference / std).square().flatten(1).sum(1) * -0.5 - n * (
        math.log(std) + 0.5 * math.log(2 * math.pi)
    )
