"""A run that is parallel in time: Picard iteration on the table of what the network says.

With the draws fixed, the inputs of all evaluations follow from the outputs. So the steps are run
with the outputs of a table, which calls no network; the network is asked for all inputs at once;
its answers are the next table. An output whose predecessors are final has an exact input, so that
each round makes at least one more output final.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import attrs
import torch
from torch import Tensor

from srk._engine.changes import StateChanges
from srk._engine.density import log_density
from srk._engine.eager import Executor, Outcome
from srk._engine.memory import version
from srk._engine.network import Network, checked, folded_with
from srk._engine.recorder import Recorder
from srk._engine.remembered import Remembered
from srk._engine.resolution import resolution
from srk._engine.secants import Secants
from srk.errors import IncompatibleError
from srk.noise.base import NoiseSource
from srk.plans.plan import Stage, StepPlan
from srk.processes.base import ForwardProcess, LinearProcess
from srk.scores.base import Rows
from srk.scores.inputs import row_numbers
from srk.scores.state_hook_base import StateHook
from srk.steps.picard import Picard

SHARE = 0.7
"""How much of the derivative of unit Gaussian data is taken for that of the denoiser."""


def slope(stage: Stage, process: ForwardProcess) -> float:
    """The number c in D = c x + F, where the table holds F.

    It is a share of the derivative of the denoiser of unit Gaussian data. What is left to the
    iteration then changes less with the state than D does near the data, and than the noise does
    far from it.
    """
    level = stage.level
    if stage.kind != "denoiser" or not isinstance(process, LinearProcess):
        return 0.0
    return SHARE * level.alpha / (level.alpha**2 + level.sigma**2)


def sent(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Numbers of the host on the device, without waiting for it."""
    made = torch.tensor(numbers, device="cpu")
    return (made.pin_memory() if device.type == "cuda" else made).to(device, non_blocking=True)


@attrs.frozen
class Entry:
    """One evaluation of the run.

    Arguments:
        stage: the stage that asks.
        slope: c in D = c x + F.
        unit: the factor by which a change of F becomes one relative to the size of the state.
        calls: network calls that it costs.
    """

    stage: Stage
    slope: float
    unit: float
    calls: int


class ParallelRun:
    """Takes the steps of a run, many at a time.

    Arguments:
        plans: the steps in order, in terms of the denoiser; the final denoising may be the last.
        final: whether the last plan is the final denoising.
        network: what is asked, with the counts and the watch of the run.
        recorder: what is kept of the run.
        noise: the started noise source.
        options: window and tolerance.
        densities: whether log-densities are kept.
        hooks: what changes the state before each step.
    """

    def __init__(
        self,
        plans: Sequence[StepPlan],
        final: bool,
        network: Network,
        recorder: Recorder,
        noise: NoiseSource,
        options: Picard,
        densities: bool,
        hooks: Sequence[StateHook] = (),
    ) -> None:
        self.network, self.recorder, self.options = network, recorder, options
        self.final, self.densities = final, densities
        self.noise = Remembered(noise)
        self.change = StateChanges(hooks, self.noise)
        self.executor = Executor(network, self.noise, reuse=False)
        process = network.process
        self.plans: list[StepPlan] = []
        self.entries: list[Entry] = []
        self.firsts = [0]
        for plan in plans:
            pairs = tuple((slope(stage, process), 1.0) for stage in plan.stages)
            self.plans.append(folded_with(plan, pairs))
            self.entries += [
                Entry(stage, c, self._unit(stage), network.prediction.calls(stage.level.t))
                for stage, (c, _) in zip(plan.stages, pairs, strict=True)
            ]
            self.firsts.append(len(self.entries))
        self.batch = recorder.x.shape[0]
        # For each sample: how many inputs are final, and how many outputs. A final input has its
        # output in the next sweep, which may still follow what the inputs before it have become.
        self.front = [0] * self.batch
        self.settled = [0] * self.batch
        self.spent = [0] * self.batch
        self.table: dict[int, Tensor] = {}
        dtype = recorder.x.dtype
        self.wide = torch.promote_types(dtype, torch.float32)
        rounding = resolution(dtype, network.autocast, network.prediction)
        self.secants = Secants(recorder.x.flatten(1).to(self.wide), rounding)
        self.step, self.state = 0, recorder.x
        self.memory: Sequence[Tensor] = ()
        self.rounds = 0

    def _unit(self, stage: Stage) -> float:
        """The factor that turns a change of the result into one relative to the state's size.

        A change d of the denoiser is a change alpha d of the state's mean, whose size is
        sqrt(alpha^2 + sigma^2) for data of unit variance.
        """
        level, process = stage.level, self.network.process
        if stage.kind == "denoiser":
            return level.alpha / math.hypot(level.alpha, level.sigma)
        g2 = process.diffusion(level.t) ** 2
        half = 0.5 * (1.0 + self.network.eta**2) * g2
        if half == 0.0:
            return math.inf
        if isinstance(process, LinearProcess):  # the drift is that of a score
            return level.sigma**2 / math.hypot(level.alpha, level.sigma) / half
        # About the variance that the noise has collected since t_min.
        return max(level.t - process.t_min, 0.0) * g2 / half

    def go(self) -> None:
        """Take all steps."""
        self.recorder.begin(self.plans[0].start)
        total = len(self.entries)
        while self.step < len(self.plans):
            inputs = self._sweep()
            self.settled = list(self.front)
            if self.recorder.status != "done" or min(self.front) == total:
                return
            self._round(inputs)

    def _end(self, sample: int) -> int:
        """The first entry past the window of a sample."""
        return min(self.front[sample] + self.options.window, len(self.entries))

    def _sweep(self) -> dict[int, Tensor]:
        """Run the steps from the last final state with the table; what they ask of the network."""
        final, end = min(self.front), max(map(self._end, range(self.batch)))
        self.secants.forget(self.firsts[self.step])
        inputs: dict[int, Tensor] = {}
        state, memory = self.state, self.memory
        for k in range(self.step, len(self.plans)):
            plan, first = self.plans[k], self.firsts[k]
            self.noise.step = k
            state = self.change(state, plan.start, k)
            walk = self.executor.walk(plan, state, memory)
            result: Tensor | None = None
            number = first
            while True:
                try:
                    x, _ = walk.send(result)  # type: ignore[arg-type]  # None begins
                except StopIteration as stop:
                    outcome: Outcome = stop.value
                    break
                if number >= end:
                    walk.close()
                    return inputs
                inputs[number] = x
                self.table[number] = result = self._output(number, x)
                number += 1
            if self.firsts[k + 1] <= final and k == self.step:
                self._accept(k, inputs, state, memory, outcome)
                if self.recorder.status != "done":
                    return inputs
            state, memory = outcome.state, outcome.keep
        return inputs

    def _output(self, number: int, x: Tensor) -> Tensor:
        """What the table holds for an evaluation at the states `x`: final, or a guess."""
        done = [number < settled for settled in self.settled]
        if all(done):
            return self.table[number]
        guess = self.secants.guess(number, x.flatten(1).to(self.wide)).view_as(x).to(x.dtype)
        if any(done):
            final = sent(done, x.device)
            return torch.where(final.view(-1, *[1] * (x.ndim - 1)), self.table[number], guess)
        return guess

    def _accept(
        self,
        k: int,
        inputs: dict[int, Tensor],
        state: Tensor,
        memory: Sequence[Tensor],
        outcome: Outcome,
    ) -> None:
        """Step `k` is final: go on from its end."""
        recorder, network, plan = self.recorder, self.network, self.plans[k]
        first, after = self.firsts[k], self.firsts[k + 1]
        network.watch.step = k
        self.step, self.state, self.memory = k + 1, outcome.state, outcome.keep
        self.noise.forget(k)
        told = [self.table.pop(m) for m in range(first, after)]
        self._count()
        if self.final and k == len(self.plans) - 1:
            recorder.finish(outcome.state)
            return
        if self.densities and plan.slots:
            density = log_density(plan, state, memory, told, outcome.state)
            recorder.density(plan.stop.t, density)
        denoised = None
        if recorder.wants_denoised and told and self.entries[first].stage.kind == "denoiser":
            denoised = told[0].add(inputs[first], alpha=self.entries[first].slope)
        before = version(outcome.state)
        recorder.accept(plan.stop, outcome.state, plan.asked, denoised, network.count.calls)
        if version(outcome.state) != before:
            raise IncompatibleError(
                "the callback wrote to the state, but with parallel= later steps have begun by "
                "then; leave parallel= out"
            )
        network.watch.keep(outcome.state)

    def _round(self, inputs: dict[int, Tensor]) -> None:
        """Ask the network for all inputs in the windows of the samples, and look what changed."""
        self.rounds += 1
        wanted = [
            (m, [s for s in range(self.batch) if self.front[s] <= m < self._end(s)])
            for m in sorted(inputs)
        ]
        places = [(m, s) for m, samples in wanted for s in samples]
        device = self.state.device
        samples = sent([s for _, s in places], device)
        x = torch.cat([self._rows(inputs[m], who) for m, who in wanted if who])
        old = torch.cat([self._rows(self.table[m], who) for m, who in wanted if who])
        new = self._ask(x, [self.entries[m] for m, _ in places], samples)
        changes = (
            (new - old).to(self.wide).reshape(len(places), -1).square().mean(1).sqrt().tolist()
        )
        first = [i for i, (m, s) in enumerate(places) if m == self.front[s]]
        level = self.entries[min(self.front)].stage.level
        self.network.watch.step = self.step
        exact_rows = sent(first, device)
        self.network.watch.result(x[exact_rows], new[exact_rows], level.t)
        exact = list(self.front)
        for (m, s), change in zip(places, changes, strict=True):
            self.spent[s] += self.entries[m].calls
            # The input of the first was exact. The others, in the order of the entries, are final
            # as long as all before them are.
            small = change * self.entries[m].unit < self.options.tolerance
            if m == exact[s] or (m == self.front[s] and small):
                self.front[s] += 1
        self._learn(places, samples, x, new)

    def _learn(
        self, places: Sequence[tuple[int, int]], samples: Tensor, x: Tensor, new: Tensor
    ) -> None:
        """Take up what the network said at the rows `x`, one for each pair (entry, sample)."""
        first, count = places[0][0], places[-1][0] - places[0][0] + 1
        numbers = [m - first for m, _ in places]
        at = sent(numbers, x.device)
        inputs = x.new_zeros((count, self.batch, x[0].numel()), dtype=self.wide)
        outputs = torch.zeros_like(inputs)
        asked = torch.zeros((count, self.batch), dtype=torch.bool, device=x.device)
        inputs[at, samples] = x.flatten(1).to(self.wide)
        outputs[at, samples] = new.flatten(1).to(self.wide)
        asked[at, samples] = True
        self.secants.learn(first, inputs, outputs, asked)

    def _rows(self, tensor: Tensor, who: Sequence[int]) -> Tensor:
        return tensor if len(who) == self.batch else tensor[sent(who, tensor.device)]

    def _count(self) -> None:
        count = self.network.count
        count.calls, count.work = max(self.spent), sum(self.spent) / self.batch

    def _ask(self, x: Tensor, entries: Sequence[Entry], samples: Tensor) -> Tensor:
        """What the table is to hold for the rows `x`."""
        size = self.options.rows or len(entries)
        began = time.perf_counter()
        parts = []
        for first in range(0, len(entries), size):
            rows = slice(first, first + size)
            parts += list(self._ask_some(x[rows], entries[rows], samples[rows]))
        self.network.count.seconds += time.perf_counter() - began
        return torch.cat(parts)

    def _ask_some(self, x: Tensor, entries: Sequence[Entry], samples: Tensor) -> Iterator[Tensor]:
        first = 0
        for i in range(1, len(entries) + 1):
            if i < len(entries) and entries[i].stage.kind == entries[first].stage.kind:
                continue
            part = entries[first:i]
            rows = Rows(x[first:i], [e.stage.level for e in part], samples[first:i], self.batch)
            result = checked(rows.x, self.network.ask_each(rows, part[0].stage.kind))
            slopes = [entry.slope for entry in part]
            yield result - rows.x * row_numbers(slopes, x) if any(slopes) else result.clone()
            first = i
