"""The density of a step: log p(x_k+1 | x_k, what earlier steps kept), for Gaussian steps.

A log-density belongs to the states as they are stored. It is computed from the state before the
step, the network's results there, and the state after it, in float32 or more: so a run that keeps
log-densities and a second reading of its trajectory give the same numbers, in any dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from srk._engine.conditional import Conditional
from srk._engine.eager import Evaluate, Executor
from srk._engine.network import Network
from srk.errors import ArgumentError, IncompatibleError
from srk.noise.base import NoiseSource
from srk.plans.plan import Slot, Stage, StepPlan
from srk.solution import Saved


class _Silence(NoiseSource):
    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass

    def prior(self, out: Tensor) -> None:
        out.zero_()

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        out.zero_()


def check_gaussian(plans: Sequence[StepPlan], label: str) -> None:
    """Raise `IncompatibleError` unless every step's draws enter the new state alone, and some step
    draws.
    """
    if not any(plan.slots for plan in plans):
        raise IncompatibleError(
            f"{label} draws no noise here, so its steps have no density; use eta=1, or "
            "srk.log_likelihood for the flow's"
        )
    for plan in plans:
        rows = [*(stage.row for stage in plan.stages), *plan.keep]
        rows += [quantity.row for quantity in plan.quantities]
        if any(column.kind == "z" for row in rows for column, _ in row):
            raise IncompatibleError(
                f"a step of {label} is not Gaussian given the state: its draws enter an input of "
                "the network; log-densities exist for solver='ddpm', 'srk1', 'euler-maruyama', "
                "'ddim', 'dpmpp-2m-sde' and others that draw at the end of the step; for this one "
                "draw with save=('x', 'inputs') and ask Sampler.log_prob(solution)"
            )
        _deviation(plan)


class Results:
    """Passes on what `evaluate` returns, and remembers what it was in the step at hand.

    With `inputs` it also keeps what was asked in the whole run, with the times.
    """

    def __init__(self, evaluate: Evaluate, inputs: bool = False) -> None:
        self.evaluate = evaluate
        self.inputs: list[tuple[float, Tensor]] = []
        self._keeps_inputs = inputs
        self._values: list[Tensor] = []

    def __call__(self, x: Tensor, stage: Stage) -> Tensor:
        if self._keeps_inputs:
            self.inputs.append((stage.level.t, x.clone()))
        result = self.evaluate(x, stage)
        self._values.append(result.clone())  # the network may write to its own again
        return result

    def take(self) -> list[Tensor]:
        """The results since this was called last."""
        values, self._values = self._values, []
        return values


def log_density(
    plan: StepPlan,
    before: Tensor,
    memory: Sequence[Tensor],
    results: Sequence[Tensor],
    after: Tensor,
) -> Tensor:
    """log p(after | before, memory), shape (batch,), in nats, in at least float32.

    Arguments:
        plan: the step.
        before, memory: the state at its start, and what earlier steps kept.
        results: what the network returned in the step.
        after: the state at its end; no gradient flows through it.
    """
    dtype = torch.promote_types(before.dtype, torch.float32)
    given = iter(results)
    replay = Executor(lambda x, stage: next(given).to(dtype), _Silence(), reuse=False)
    mean = replay.run(plan, before.to(dtype), [kept.to(dtype) for kept in memory]).state
    std = _deviation(plan)
    square = ((after.detach().to(dtype) - mean) / std).square()
    n = math.prod(before.shape[1:])
    normalization = n * (math.log(std) + 0.5 * math.log(2 * math.pi))
    return square.reshape(before.shape[0], -1).sum(1) * -0.5 - normalization


def transition_log_prob(network: Network, plans: Sequence[StepPlan], saved: Saved) -> Saved:
    """Log-densities of the steps of a trajectory: see `srk.Sampler.log_prob`."""
    times = (plans[0].start.t, *(plan.stop.t for plan in plans))
    if saved.times != times:
        raise ArgumentError(
            f"the trajectory has {len(saved.times)} states from t = {saved.times[0]:g} to "
            f"{saved.times[-1]:g}, which are not the {len(times)} times of this sampler; use the "
            "same process, solver, grid and number of steps"
        )
    results = Results(network.ask)
    executor = Executor(results, _Silence(), reuse=False)
    memory: Sequence[Tensor] = ()
    ends, values = [], []
    prepared = map(network.prepare, plans)
    for plan, state, after in zip(prepared, saved.values[:-1], saved.values[1:], strict=True):
        # a network that writes to its input is told so, but what was saved stays as it is
        outcome = executor.run(plan, state.clone(), memory)
        told = results.take()
        if plan.slots:
            values.append(log_density(plan, state, memory, told, after))
            ends.append(plan.stop.t)
        memory = outcome.keep
    return Saved(tuple(ends), torch.stack(values))


def input_log_prob(
    network: Network, plans: Sequence[StepPlan], states: Saved, inputs: Saved
) -> Saved:
    """Log-densities of the network's inputs, each given those before it, and of the result.

    Arguments:
        network: the network that is asked at the inputs again.
        plans: the steps.
        states: the states at their ends, of which the first and the last are needed.
        inputs: what the network saw, (calls, batch, *event), at these times.

    Returns:
        The log-densities of those that bring new noise, (values, batch), and the times of the
        inputs (for the result: the end of the run).
    """
    calls = [stage.level.t for plan in plans for stage in plan.stages]
    if tuple(calls) != inputs.times[: len(calls)] or len(inputs.times) - len(calls) not in (0, 1):
        raise ArgumentError(
            f"the inputs were saved at {len(inputs.times)} calls, which are not the {len(calls)} "
            "calls of this sampler; use the same process, solver, grid and number of steps"
        )
    prepared = [network.prepare(plan) for plan in plans]
    known = Conditional(prepared, states.values[0])
    stages = [stage for plan in prepared for stage in plan.stages]
    ends: list[float] = []
    values: list[Tensor] = []

    def keep(t: float, seen: Tensor) -> None:
        ahead = known.next
        if ahead.std > 0.0:
            ends.append(t)
            values.append(ahead.log_density(seen))

    for t, stage, seen in zip(calls, stages, inputs.values, strict=False):
        keep(t, seen)
        known.tell(seen, network.ask(seen.clone(), stage).clone())
    keep(plans[-1].stop.t, states.values[-1])
    if not values:
        raise IncompatibleError(
            "the run draws no noise, so its inputs have no density; use eta=1, or "
            "srk.log_likelihood for the flow's"
        )
    return Saved(tuple(ends), torch.stack(values))


def _deviation(plan: StepPlan) -> float:
    """The standard deviation of the step's new state."""
    factors = []
    for column, value in plan.update:
        if column.kind == "z":
            if not isinstance(value, float):
                raise IncompatibleError(
                    "a step in phase space draws position and velocity together, and has no "
                    "log-density here; use a linear process"
                )
            factors.append(value)
    return math.hypot(*factors)
