"""Parts of a run that are evaluated together: one call of the network for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.density import Results
from srk._engine.eager import Evaluate, Request
from srk._engine.finite import NotFinite
from srk._engine.memory import changed_in_place, copy_of, version
from srk._engine.recorder import ends
from srk._engine.run import Run
from srk.noise.base import NoiseSource
from srk.plans.plan import Stage
from srk.processes.base import Level
from srk.scores.joint import BoundPrediction
from srk.solution import ProductSolution


@attrs.frozen(slots=True, eq=False)
class ProductStepInfo:
    """What a callback of a product sees after each step; dicts with the names of the parts.

    Arguments:
        index: number of the step, from 0.
        steps: how many there will be; None if that is not known.
        t: own time of each part.
        nfe: network calls so far.
        x: the states, (batch, *event). They are overwritten by the next step: clone what is kept.
        denoised: the denoised predictions at the start of the step; None for a part that has none.
    """

    index: int
    steps: int | None
    t: Mapping[str, float]
    nfe: int
    x: Mapping[str, Tensor]
    denoised: Mapping[str, Tensor | None]


Turn = Generator["Request | None", Any, None]
"""The steps of a part: they yield what they ask of the network, and None where it pauses."""


ProductCallback = Callable[[ProductStepInfo], bool | None]


class Part:
    """A part of a run: what belongs to it alone.

    Arguments:
        run: its recorder, watch and network.
        source: its started noise source.
    """

    steps = 0
    """The steps it takes, the final denoising not counted; 0 where nobody knows."""

    def __init__(self, run: Run, source: NoiseSource) -> None:
        self.run, self.source = run, source
        self.denoised: Tensor | None = None
        self.count = run.network.count
        self.ask: Evaluate = run.network
        """What the network says of the part, once all parts were asked together."""
        saves = run.job.saves
        if saves & {"log_prob", "inputs"}:
            self.ask = run.results = Results(run.network, inputs="inputs" in saves)

    def begin(self, level: Level) -> None:
        """Look at the state at the start, at that level, before the first step."""
        recorder = self.run.recorder
        self.run.watch.state(recorder.x, level.t)
        recorder.begin(level)
        self.run.watch.keep(recorder.x)

    def take(self, stop: Level, state: Tensor, asked: float) -> None:
        """A step counts that leads to `state` at `stop`; `asked`: where it asked first."""
        run, recorder = self.run, self.run.recorder
        network = run.network
        if not run.watch.immediate:
            run.watch.keep(state)
        self.denoised = first = network.first
        recorder.accept(stop, state, asked, first, self.count.calls)
        network.begin(recorder.accepted)


class Together:
    """Parts whose evaluations are made together: one call of the network for all.

    Arguments:
        parts: the run of each part.
        prediction: what is known of all parts.
        autocast: dtype for `torch.autocast` around the network.
        callback: told of each step; a true return value ends the run.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        prediction: BoundPrediction,
        autocast: torch.dtype | None = None,
        callback: ProductCallback | None = None,
    ) -> None:
        self.callback = callback
        if callback is not None:
            for part in parts.values():
                part.run.network.records = True
        self.parts: Mapping[str, Part] = parts
        self.prediction, self.autocast = prediction, autocast
        self.devices = sorted({part.run.recorder.x.device.type for part in parts.values()})
        self.calls = 0
        self.status = "done"

    def stops(self, index: int) -> bool:
        """Whether the callback ends the run after the step of that number."""
        if self.callback is None:
            return False
        recorders = {name: part.run.recorder for name, part in self.parts.items()}
        info = ProductStepInfo(
            index,
            max(part.steps for part in self.parts.values()) or None,
            {name: recorder.level.t for name, recorder in recorders.items()},
            self.calls,
            {name: recorder.x for name, recorder in recorders.items()},
            {name: part.denoised for name, part in self.parts.items()},
        )
        if not ends(self.callback(info)):
            return False
        self.status = "stopped"
        return True

    def finish(
        self,
        go: Callable[[], None],
        seed: int | None,
        grad: bool = False,
        bar: AbstractContextManager[Any] | None = None,
    ) -> tuple[ProductSolution, bool]:
        """The solution of a run that `go` takes to its end, and whether it failed.

        Arguments:
            go: takes all steps.
            seed: the seed of the run, which its solution tells.
            grad: whether gradients flow through the run.
            bar: a progress bar.
        """
        began = time.perf_counter()
        failed = False
        with torch.set_grad_enabled(grad), bar or nullcontext():
            try:
                go()
                status = self.status
            except NotFinite as failure:
                failed, status = True, failure.status
                for part in self.parts.values():
                    last = part.run.watch.last
                    if last is not None:
                        part.run.recorder.x = last
        seconds = time.perf_counter() - began
        solutions = {
            name: part.run.solution(status, part.source.seed, seconds)
            for name, part in self.parts.items()
        }
        made = ProductSolution(
            parts=solutions,
            status=status,
            nfe=self.calls,
            seed=seed,
            seconds=seconds,
            score_seconds=self.seconds,
        )
        return made, failed

    @property
    def seconds(self) -> float:
        """Time spent in the network, which the part that asks first pays for all."""
        return sum(part.run.network.count.seconds for part in self.parts.values())

    def settle(self) -> None:
        """Read what was seen on a device, after the run."""
        for name, part in self.parts.items():
            self._of(name, part.run.watch.settle, part.run.recorder.x)

    def drive(self, turns: Mapping[str, Turn]) -> None:
        """Take all parts to where they pause. `NotFinite` says which of them cannot go on."""
        parts, prediction, autocast = self.parts, self.prediction, self.autocast
        several = prediction.several
        # One network for all parts is told without a detour.
        direct = type(prediction) is BoundPrediction and len(prediction.shared) == 1
        told = prediction.shared[0] if direct else prediction
        results: dict[str, Any] = dict.fromkeys(turns)
        # The last to be told goes on first, since its result is still in the processor's cache; and
        # the first to be told is the one that has just gone on.
        seats = [(name, parts[name], turns[name].send) for name in reversed([*turns])]
        blank: dict[str, Any] = dict.fromkeys(parts)
        name = ""
        try:
            while True:
                # Each part goes on to its next question, or to where it pauses.
                states: dict[str, Tensor] = blank.copy()
                levels: dict[str, Level] = blank.copy()
                asked: list[tuple[str, Part, Stage, int]] = []
                for name, part, send in seats:
                    request = send(results[name])
                    if request is not None:
                        x, stage = request
                        states[name], levels[name] = x, stage.level
                        asked.append((name, part, stage, version(x)))
                if not asked:
                    return
                if len(asked) < len(parts):
                    moving = {name for name, _, _, _ in asked}
                    for name, part in parts.items():
                        if name not in moving:
                            states[name] = part.run.recorder.x
                            levels[name] = part.run.recorder.level
                asked.reverse()
                # All are asked before any goes on, for a network looks at all of them.
                told.ask(states, levels)
                calls = 0
                for name, part, stage, _ in asked:
                    x, before = states[name], part.count.calls
                    said = part.ask(x, stage) if autocast is None else self._cast(part, x, stage)
                    # The network of the next part may write to the memory of this result.
                    results[name] = copy_of(said) if several else said
                    if part.count.calls - before > calls:
                        calls = part.count.calls - before
                told.forget()
                self.calls += calls
                for name, _, _, written in asked:
                    if version(states[name]) != written:
                        raise changed_in_place()
                # Only the parts are to hold what they ask: see `Stepper.walk`.
                del states, request, x, said
        except NotFinite as failure:
            raise blamed(failure, name) from None

    def _cast(self, part: Part, x: Tensor, stage: Stage) -> Tensor:
        """What the network says, under autocast on the devices of all parts."""
        with ExitStack() as stack:
            cached = torch.is_autocast_cache_enabled()
            for device in self.devices:
                stack.enter_context(torch.autocast(device, self.autocast, cache_enabled=cached))
            return part.ask(x, stage)

    def _of(self, name: str, do: Callable[..., Any], *arguments: Any) -> Any:
        """`do`, whose failure is that of the part `name`."""
        try:
            return do(*arguments)
        except NotFinite as failure:
            raise blamed(failure, name) from None


def blamed(failure: NotFinite, name: str) -> NotFinite:
    """The failure as that of a part."""
    reason = failure.status.removeprefix("failed: ")
    return NotFinite(f"failed: in the part {name!r}, {reason}")
