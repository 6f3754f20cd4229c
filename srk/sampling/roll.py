"""A window that rolls over an endless sequence of frames, and gives each one when it is done."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from srk._checks import integer, shown
from srk._engine.finite import NotFinite
from srk._engine.product import Lockstep, PartRun
from srk._modes import ordinary_tensors
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, SolveError
from srk.eta import Eta
from srk.integrators import Integrator
from srk.noise import noise_source, part_seed
from srk.noise.seeds import check_seed
from srk.processes.base import ForwardProcess, LinearProcess
from srk.processes.level import Level
from srk.sampling.arguments import batch_shape, device_given, dtype_given, one_time, process_given
from srk.sampling.sampler import Sampler
from srk.scores import Prediction, as_prediction
from srk.scores.elements import bind_elements
from srk.scores.joint import BoundPrediction
from srk.steps import Grid, StepController
from srk.tableaus import StochasticTableau

PAST = "past"
"""The name of the frames that are done, among those that the network sees."""


def roll(
    process: ForwardProcess,
    score: Prediction | Callable[..., Tensor],
    solver: str | Integrator | StochasticTableau = "auto",
    *,
    window: int,
    shape: Sequence[int],
    context: int = 1,
    axis: int = 1,
    x_init: Tensor | None = None,
    steps: int | None = None,
    grid: str | StepController | Sequence[float] | Tensor | None = None,
    eta: Eta | None = None,
    noise: str = "keyed",
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    denoise_final: bool | Literal["mean"] | None = None,
    autocast: torch.dtype | None = None,
) -> Roll:
    """Frames one after the other, without an end: an iterator that gives each when it is done.

    A window of frames between noise and data rolls over the sequence. All its frames take a step
    with each call of the network; when the first is done it is given out, and the next enters as
    noise. Memory holds the window and the context, however long the sequence is. It is
    `srk.Levels.rolling` for a sequence that nobody has to know the length of.

    The noise of a frame follows from the seed and the number of the frame: with noise="keyed" it is
    the same in any batch.

    Arguments:
        process: a linear process.
        score: a network in one of the adapters, or `srk.Guided` of such. It gets x of shape (batch,
            frames, ...) and times of shape (batch, frames): the context, then the window. In the
            beginning the context is shorter, and frames of the window that have not begun stand
            there at `t_max`.
        solver: as in `srk.solve`, with as many network calls in each step.
        window: how many frames are between noise and data; at most one for each step.
        shape: (batch, *event) of one frame.
        context: how many of the last finished frames the network sees, at `t_min`.
        axis: where the network wants the axis of the frames; not 0, the batch.
        x_init: frames to go on from, in the shape that the network sees, (batch, frames, ...).
        steps, grid, eta, denoise_final: the steps of each frame, as in `srk.solve`.
        noise: the name of a noise source.
        seed, device, dtype, autocast: as in `srk.solve`.

    Returns:
        An iterator of tensors of shape `shape`, with the attributes `nfe` and `seed`.

    Raises:
        ArgumentError, ArgumentTypeError, IncompatibleError, ScoreError, SolveError: see
            `srk.errors`.

    Source: Chen et al., "Diffusion Forcing", 2024; Ruhe et al., "Rolling Diffusion Models", 2024;
    Kim et al., "FIFO-Diffusion", 2024.

    Examples:
        >>> import itertools, srk, torch
        >>> process = srk.VP()
        >>> def network(x, t):  # x: (batch, frames, 2), t: (batch, frames); the data are N(0, 1)
        ...     return process.alpha(t)[:, :, None].to(x) * x
        >>> frames = srk.roll(process, srk.Data(network), window=4, shape=(3, 2), steps=11, seed=0)
        >>> [frame.shape for frame in itertools.islice(frames, 2)]
        [torch.Size([3, 2]), torch.Size([3, 2])]
        >>> frames.nfe  # 12 for the first frame, 3 for each that follows
        15
    """
    process = process_given(process)
    if not isinstance(process, LinearProcess):
        raise IncompatibleError(
            f"srk.roll needs a linear process, e.g. srk.VP(), not {shown(process)}"
        )
    if not isinstance(noise, str):
        raise ArgumentTypeError(
            "every frame has noise of its own, so that noise is the name of a source, e.g. "
            f"noise='keyed', not {shown(noise)}"
        )
    one_time(grid, "each frame of srk.roll")
    bound = as_prediction(score).bind(process)
    options: dict[str, Any] = {
        "steps": steps,
        "grid": grid,
        "eta": eta,
        "denoise_final": denoise_final,
        "autocast": autocast,
    }
    whole = batch_shape(shape, None)
    axis = integer(axis, "axis")
    if axis == 0 or not -len(whole) <= axis <= len(whole):
        raise ArgumentError(
            f"axis={axis} is no place for the frames among the axes of {whole}; axis 0 is the "
            "batch, and axis=1 puts them after it"
        )
    frame = list(whole)
    frame.insert(axis if axis > 0 else axis + len(whole) + 1, 1)
    return Roll(
        process,
        bound,
        solver,
        options,
        window=integer(window, "window", least=1),
        context=integer(context, "context", least=0),
        frame=tuple(frame),
        axis=axis % (len(whole) + 1),
        x_init=x_init,
        noise=noise,
        seed=check_seed(seed),
        place={"device": device_given(device), "dtype": dtype_given(dtype) or torch.float32},
    )


class Roll(Iterator[Tensor]):
    """The frames of `srk.roll`.

    Attributes:
        nfe: network calls so far.
        seed: the seed that repeats the sequence.
        finished: how many frames are done.
    """

    def __init__(
        self,
        process: LinearProcess,
        prediction: Prediction,
        solver: Any,
        options: Mapping[str, Any],
        *,
        window: int,
        context: int,
        frame: tuple[int, ...],
        axis: int,
        x_init: Tensor | None,
        noise: str,
        seed: int,
        place: Mapping[str, Any],
    ) -> None:
        self.window, self.context, self.axis = window, context, axis
        self.process, self.frame, self.noise, self.seed = process, frame, noise, seed
        self.place, self.finished = place, 0
        self._round = 0
        self._past = self._given(x_init)
        slots = [f"frame {i} of the window" for i in range(window)]
        # filled anew at each round: which element of the network's input each slot is
        self._indices: dict[str, Tensor] = {}
        everybody = bind_elements(prediction, process, axis, self._indices, slots)
        self._bound = _Window(everybody, self)
        self._samplers = {
            name: Sampler(process, everybody.parts[name], solver, **options) for name in slots
        }
        self._slots = slots
        first = self._samplers[slots[0]]
        if not isinstance(first.control, Grid):
            raise IncompatibleError(
                f"{first.control!r} decides its steps as it goes, but all frames take theirs "
                "together; use grid='log-snr' or a list of times"
            )
        source = noise_source(noise, seed)
        problem = first.settings.problem(torch.empty(frame, **place), source)
        self._plans, self._etas = first._route(problem, given=False, grad=False, saves=frozenset())
        assert isinstance(self._plans, Sequence)
        self._parts: dict[str, PartRun] = {}
        self._numbers: dict[str, int] = {}
        self._lockstep = Lockstep(self._parts, self._bound, first.settings.autocast)
        with ordinary_tensors():
            self._enter(0)
        self.rounds = len(self._parts[slots[0]].plans)
        """Steps that a frame takes, its final denoising included."""
        counts = {plan.evaluations for plan in self._parts[slots[0]].plans}
        if len(counts) > 1:
            raise IncompatibleError(
                f"the steps of a frame make {sorted(counts)} evaluations, but all frames of the "
                "window are evaluated together; use a solver with one evaluation a step, such as "
                "'srk2m', or denoise_final=False"
            )
        if window > self.rounds:
            raise ArgumentError(
                f"window={window} frames cannot be in work at a time where a frame takes "
                f"{self.rounds} steps; take more steps, or a smaller window"
            )
        with ordinary_tensors():
            for number in range(1, window):
                self._enter(number)

    def __copy__(self) -> Roll:
        """A second sequence that goes on from here by itself, with the same network."""
        kept: dict[int, Any] = {}
        for shared in self._bound.shared:
            adapter = getattr(shared.call, "adapter", None)
            if adapter is not None:
                kept[id(adapter)] = adapter
        return copy.deepcopy(self, kept)

    @property
    def nfe(self) -> int:
        """Network calls so far."""
        return self._lockstep.calls

    def __next__(self) -> Tensor:
        """The next frame, (batch, *event)."""
        done: Tensor | None = None
        while done is None:
            moving = [
                name for name, number in self._numbers.items() if self._start(number) <= self._round
            ]
            self._place()
            try:
                with torch.no_grad():
                    self._lockstep.take(moving)
                self._round += 1
                with ordinary_tensors():  # the next frame may be asked for outside of this mode
                    done = self._leave()
            except NotFinite as failure:
                part = self._parts[self._slots[self.finished % self.window]]
                raise SolveError(
                    f"{failure.status}; frames before number {self.finished} are not touched",
                    part.run.solution(failure.status, self.seed, self._lockstep.seconds),
                ) from None
        return done

    def _start(self, number: int) -> int:
        """The round in which a frame takes its first step."""
        return number * self.rounds // self.window

    def _given(self, x_init: Tensor | None) -> Tensor | None:
        if x_init is None:
            return None
        if not isinstance(x_init, Tensor):
            raise ArgumentTypeError(
                f"x_init is a tensor of the frames to go on from, not {shown(x_init)}"
            )
        wanted = (
            *self.frame[: self.axis],
            x_init.shape[self.axis] if x_init.ndim > self.axis else 0,
            *self.frame[self.axis + 1 :],
        )
        if tuple(x_init.shape) != wanted or wanted[self.axis] < 1:
            raise ArgumentError(
                f"x_init of shape {tuple(x_init.shape)} is no sequence of frames of shape "
                f"{self.frame} along axis {self.axis}"
            )
        return self._last(x_init.detach().to(**self.place))

    def _last(self, frames: Tensor) -> Tensor | None:
        """The last frames that the network sees."""
        count = min(self.context, frames.shape[self.axis])
        if count == 0:
            return None
        return frames.narrow(self.axis, frames.shape[self.axis] - count, count).contiguous()

    def _enter(self, number: int) -> None:
        """A frame enters the window as noise."""
        name = self._slots[number % self.window]
        sampler, plans = self._samplers[name], self._plans
        assert isinstance(plans, Sequence)
        source = noise_source(self.noise, part_seed(self.seed, f"frame {number}"))
        x = torch.empty(self.frame, **self.place)
        source.start(x.shape, x.dtype, x.device)
        source.prior(x)
        x = self.process.initial_state(x)
        source.prepare(plans)
        self._parts[name] = part = PartRun(sampler.settings.job(self._etas), plans, x, source)
        self._lockstep.enter(name)
        self._numbers[name] = number
        part.start()

    def _place(self) -> None:
        """Say which element of the network's input each frame is."""
        self._indices.clear()
        count = 0
        if self._past is not None:
            count = self._past.shape[self.axis]
            self._indices[PAST] = torch.arange(count, device=self._past.device)
        for offset in range(self.window):
            name = self._slots[(self.finished + offset) % self.window]
            device = self._parts[name].run.recorder.x.device
            self._indices[name] = torch.tensor([count + offset], device=device)

    def _leave(self) -> Tensor | None:
        """The first frame of the window, if it is done; the next one enters."""
        if self._round - self._start(self.finished) < self.rounds:
            return None
        name = self._slots[self.finished % self.window]
        part = self._parts.pop(name)
        part.run.watch.settle(part.run.recorder.x)
        x = part.run.recorder.x
        past = x if self._past is None else torch.cat([self._past, x], self.axis)
        self._past = self._last(past)
        self._enter(self.finished + self.window)
        self.finished += 1
        return x.select(self.axis, 0).clone()


class _Window(BoundPrediction):
    """The frames of the window, seen behind those that are done."""

    def __init__(self, bound: BoundPrediction, owner: Roll) -> None:
        super().__init__(bound.parts, bound.shared)
        self.owner = owner
        self.clean = owner.process.level(owner.process.t_min)

    def ask(self, states: Mapping[str, Tensor], levels: Mapping[str, Level]) -> None:
        past = self.owner._past
        if past is not None:
            states, levels = {PAST: past, **states}, {PAST: self.clean, **levels}
        super().ask(states, levels)


__all__ = ["Roll", "roll"]
