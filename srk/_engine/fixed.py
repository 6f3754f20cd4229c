"""A run whose plans are made before it begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from srk._engine.density import Results, log_density
from srk._engine.eager import Outcome, steps
from srk._engine.finite import Watch
from srk._engine.network import Network
from srk._engine.recorder import Recorder
from srk._engine.retract import executor_for
from srk.noise import NoiseSource, ReplayNoise
from srk.plans.plan import Slot, StepPlan

TakeStep = Callable[[StepPlan, Tensor, Sequence[Tensor]], Outcome]


def run_fixed(
    plans: Sequence[StepPlan],
    step: TakeStep,
    network: Network,
    watch: Watch,
    recorder: Recorder,
    results: Results | None = None,
) -> None:
    """Take the steps `plans`, already in terms of what the network says.

    Arguments:
        plans: the steps in order.
        step: takes one of them.
        network, watch, recorder: the parts of the run.
        results: what the network returned in a step, where log-densities are kept.
    """
    recorder.begin(plans[0].start)
    watch.keep(recorder.x)
    for plan, before, memory, outcome in steps(plans, step, recorder.x):
        if not watch.immediate:
            watch.keep(outcome.state)
        if results is not None:
            told = results.take()
            if plan.slots:
                density = log_density(plan, before, memory, told, outcome.state)
                recorder.density(plan.stop.t, density)
        if recorder.accept(
            plan.stop, outcome.state, plan.asked, network.first, network.count.calls
        ):
            return
        network.begin(recorder.accepted)


class Checkpointed:
    """Takes steps whose network calls are repeated in the backward pass, with the same draws.

    Arguments:
        evaluate: the network, or what listens to it.
        network: the network, whose counts the repetition leaves alone.
        noise: a started noise source.
    """

    def __init__(
        self, evaluate: Callable[..., Tensor], network: Network, noise: NoiseSource
    ) -> None:
        self.evaluate, self.network = evaluate, network
        self.draws = _Draws(noise)
        self.executor = executor_for(network.process, evaluate, self.draws, reuse=False)

    def __call__(self, plan: StepPlan, state: Tensor, memory: Sequence[Tensor]) -> Outcome:
        drawn: list[Tensor] | None = None

        def take(x: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
            nonlocal drawn
            if drawn is None:
                self.draws.values = []
                outcome = self.executor.run(plan, x, kept)
                drawn = self.draws.values
            else:  # the backward pass: the same calls again, which count as no others
                count = self.network.count
                before = count.calls, count.work
                process, again = self.network.process, ReplayNoise(drawn)
                replay = executor_for(process, self.network, again, reuse=False)
                outcome = replay.run(plan, x, kept)
                count.calls, count.work = before
            return outcome.state, *outcome.keep

        after, *keep = checkpoint(take, state, *memory, use_reentrant=False)
        return Outcome(after, keep, None)


class _Draws(NoiseSource):
    """Another source's draws, of which those of the last step are kept."""

    def __init__(self, source: NoiseSource) -> None:
        self.source = source
        self.values: list[Tensor] = []

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.source.start(shape, dtype, device)

    def prior(self, out: Tensor) -> None:
        self.source.prior(out)

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        self.source.draw(slot, clock, out)
        self.values.append(out.clone())
