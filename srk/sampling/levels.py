"""Runs whose elements, such as the frames of a video, have times of their own.

Elements with the same times are one group, and a group is a part of the run with plans of its own.
The network is called once for all groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from srk._checks import choice, shown
from srk._engine.product import PartRun, check_lockstep, run_product
from srk._engine.recorder import stacked
from srk._engine.run import Job
from srk._modes import ordinary, ordinary_tensors
from srk.errors import ArgumentError, IncompatibleError, SolveError
from srk.noise import NoiseSource, noise_source
from srk.noise.seeds import check_seed
from srk.plans.plan import Slot, StepPlan
from srk.processes.base import Level, LinearProcess
from srk.sampling.arguments import (
    autocast_given,
    batch_shape,
    device_given,
    dtype_given,
    process_given,
    saves_given,
    state_given,
)
from srk.sampling.sampler import Sampler
from srk.scores import NetworkPrediction, Prediction, as_prediction
from srk.scores.inputs import scale_value
from srk.scores.joint import BoundPrediction
from srk.scores.rewire import rewired
from srk.scores.shared import Answer, Shared
from srk.solution import Solution
from srk.steps.levels import Levels


def solve_levels(
    process: Any,
    score: Any,
    solver: Any,
    levels: Levels,
    *,
    shape: Any = None,
    x_init: Any = None,
    eta: Any = None,
    noise: Any = None,
    seed: int | None = None,
    device: Any = None,
    dtype: Any = None,
    denoise_final: Any = None,
    autocast: torch.dtype | None = None,
    grad: Any = False,
    save: Any = None,
    on_failure: Literal["raise", "return"] = "raise",
    **others: Any,
) -> Solution:
    """Draw samples whose elements have times of their own; arguments as in `srk.solve`.

    Arguments:
        process, score, solver: what is reversed, with which network, how.
        levels: the times.
        x_init: the whole state at the start, or the first elements of it; the rest is drawn.
        save: "x" keeps the states after each step.
        eta: stochasticity; where it is a list, of the steps of each element.
        shape, noise, seed, device, dtype, denoise_final, autocast, grad, on_failure: of the
            run.
        others: arguments that such a run does not take; an error for each that is given.
    """
    on_failure = choice(on_failure, ("raise", "return"), "on_failure")
    for name, value in others.items():
        if value:
            raise IncompatibleError(
                f"{name}={shown(value)} is not for a run with grid=srk.Levels(...) yet: its "
                "elements take steps of their own; leave it out"
            )
    grad = choice(grad, (False, True), "grad")
    saves = saves_given(save)
    if saves - {"x"}:
        raise IncompatibleError(
            f"save={shown(save)} is not for a run with grid=srk.Levels(...) yet, for the steps of "
            "an element are not those of the run; use save='x'"
        )
    process = process_given(process)
    if not isinstance(process, LinearProcess):
        raise IncompatibleError(
            "grid=srk.Levels(...) needs a linear process, whose elements are noisy each for "
            f"itself, e.g. srk.VP(), not {shown(process)}"
        )
    prediction = as_prediction(score).bind(process)
    start = _State(prediction, levels, shape, x_init, device_given(device), dtype_given(dtype))
    groups = _groups(levels)
    indices = {name: torch.tensor(of, device=start.place["device"]) for name, of in groups.items()}
    bound = bind_elements(prediction, process, start.axis, indices)
    if not isinstance(noise, NoiseSource) and not callable(noise):
        seed = check_seed(seed)
    source = noise_source(noise, seed)
    with ordinary_tensors():
        x = start.draw(process, source.fresh(), levels)
    parts: dict[str, PartRun] = {}
    for name, elements in groups.items():
        times = [process.snap(row[elements[0]]) for row in levels.schedule]
        moves = [a > b for a, b in pairwise(times)]
        own = [times[0], *(b for a, b in pairwise(times) if a > b)]
        sampler = Sampler(
            process,
            bound.parts[name],
            solver,
            grid=own if len(own) > 1 else [process.t_max, process.t_min],
            eta=eta,
            denoise_final=denoise_final,
            autocast=autocast_given(autocast),
        )
        sampler._check_grad(grad, x_init)
        draws = source.fresh()
        draws.start(x.shape, x.dtype, x.device)
        if start.drawn:
            draws.prior(torch.empty_like(x))
        with ordinary_tensors():
            state = x.index_select(start.axis, indices[name])
        if len(groups) > 1:
            draws = _Slice(draws, x, start.axis, indices[name])
        plans: list[StepPlan] = []
        etas: tuple[float, ...] = ()
        if len(own) > 1:
            plans, etas = sampler._planned(sampler._problem(state, draws))
        draws.prepare(plans)
        job = Job(
            process=process,
            prediction=sampler.prediction,
            method=sampler.method,
            eta=sampler._eta,
            etas=etas,
            label=sampler.label,
            denoise=sampler.denoise,
            autocast=sampler.autocast,
            grad=grad,
        )
        parts[name] = PartRun(job, plans, state, draws, process.level(times[0]), moves)
    rounds = max(len(part.order) for part in parts.values())
    for part in parts.values():  # those that have no final denoising
        part.order += [None] * (rounds - len(part.order))
    check_lockstep(parts)
    kept: list[Tensor] = []

    def keep(step: int) -> None:
        if "x" in saves and step < len(levels.schedule):  # not after the final denoising
            states = {name: part.run.recorder.x for name, part in parts.items()}
            kept.append(start.whole(states, indices).clone())

    made, failed = run_product(
        parts, bound, seed=source.seed, grad=grad, autocast=autocast, visit=keep
    )
    moving = next(made.parts[name] for name, part in parts.items() if part.plans)
    times_visited = tuple(max(row) for row in levels.schedule)
    solution = Solution(
        x=ordinary(start.whole(made.x, indices)),
        status=made.status,
        nfe=made.nfe,
        mean_nfe=float(made.nfe),
        steps=len(levels.schedule) - 1,
        rejected=0,
        times=times_visited,
        solver=moving.solver,
        eta=moving.eta,
        seed=source.seed,
        seconds=made.seconds,
        score_seconds=made.score_seconds,
        trajectory=stacked(list(zip(times_visited, kept, strict=False))),
    )
    if failed and on_failure == "raise":
        raise SolveError(
            f"{solution.status}; the state is in .solution.x (or use on_failure='return')", solution
        )
    return solution


def _groups(levels: Levels) -> dict[str, list[int]]:
    """The elements that have the same times, by a name for messages."""
    columns: dict[tuple[float, ...], list[int]] = {}
    for element, column in enumerate(zip(*levels.schedule, strict=True)):
        columns.setdefault(column, []).append(element)
    return {
        (
            f"element {elements[0]}"
            if len(elements) == 1
            else f"elements {elements[0]} to {elements[-1]}"
        ): elements
        for elements in columns.values()
    }


class _State:
    """The state at the start: of which shape, what of it is given, and what is drawn."""

    def __init__(
        self,
        prediction: Prediction,
        levels: Levels,
        shape: Any,
        x_init: Any,
        device: torch.device | None,
        dtype: torch.dtype | None,
    ) -> None:
        event = prediction.event_shape
        given = None if x_init is None else state_given(x_init, None, None)
        if given is not None and shape is None and event is None:
            whole: tuple[int, ...] = tuple(given.shape)
        else:
            whole = batch_shape(shape if given is None or shape else len(given), event)
        if not -len(whole) < levels.axis < len(whole):
            raise ArgumentError(
                f"axis={levels.axis} is none of a state of shape {whole} besides the batch"
            )
        self.axis = levels.axis % len(whole)
        if whole[self.axis] != levels.elements:
            raise ArgumentError(
                f"the schedule is for {levels.elements} elements, but the state of shape {whole} "
                f"has {whole[self.axis]} along axis {levels.axis}; make both the same"
            )
        if given is not None:
            cut = (*whole[: self.axis], given.shape[self.axis], *whole[self.axis + 1 :])
            if tuple(given.shape) != cut or given.shape[self.axis] > levels.elements:
                raise ArgumentError(
                    f"x_init of shape {tuple(given.shape)} is neither the state of shape {whole} "
                    f"nor the beginning of it along axis {levels.axis}"
                )
        self.given = given
        self.known = 0 if given is None else given.shape[self.axis]
        self.drawn = self.known < levels.elements
        if given is not None:
            device, dtype = device or given.device, dtype or given.dtype
        self.place: dict[str, Any] = {"device": device, "dtype": dtype or torch.float32}
        self.shape = whole

    def draw(self, process: LinearProcess, source: NoiseSource, levels: Levels) -> Tensor:
        """The state at the start; elements that are drawn must start where the prior is known."""
        for element, t in enumerate(levels.schedule[0][self.known :], self.known):
            if process.snap(t) != process.t_max:
                raise ArgumentError(
                    f"element {element} starts at t = {t!r}, below t_max = {process.t_max!r}, "
                    "where its distribution is not known; give its state there in x_init"
                )
        x = torch.empty(self.shape, **self.place)
        source.start(x.shape, x.dtype, x.device)
        if self.drawn:
            source.prior(x)
            x = process.initial_state(x)
        if self.given is None:
            return x
        given = self.given.to(**self.place)
        rest = x.narrow(self.axis, self.known, self.shape[self.axis] - self.known)
        return torch.cat([given, rest], self.axis)

    def whole(self, states: Mapping[str, Tensor], indices: Mapping[str, Tensor]) -> Tensor:
        """The states of all groups as one."""
        return assemble(states, indices, self.axis)


def assemble(states: Mapping[str, Tensor], indices: Mapping[str, Tensor], axis: int) -> Tensor:
    """The elements of all groups in their order."""
    if len(states) == 1:
        return next(iter(states.values()))
    order = torch.argsort(torch.cat([indices[name] for name in states]))
    return torch.cat(list(states.values()), axis).index_select(axis, order)


class _Slice(NoiseSource):
    """The noise of some elements: those of the draws of all, so that any grouping gives the same.

    Arguments:
        source: a started source for the whole state.
        like: a tensor of the shape of the whole state.
        axis, index: the elements.
    """

    def __init__(self, source: NoiseSource, like: Tensor, axis: int, index: Tensor) -> None:
        self.source, self.axis, self.index = source, axis, index
        self._whole = torch.empty_like(like)

    @property
    def seed(self) -> int | None:
        return self.source.seed

    def start(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        pass  # the source has been started

    def prepare(self, plans: Sequence[StepPlan]) -> None:
        self.source.prepare(plans)

    def prior(self, out: Tensor) -> None:
        self.source.prior(self._whole)
        out.copy_(self._whole.index_select(self.axis, self.index))

    def draw(self, slot: Slot, clock: str, out: Tensor) -> None:
        self.source.draw(slot, clock, self._whole)
        out.copy_(self._whole.index_select(self.axis, self.index))


class ElementsCall:
    """A network of all elements at their own times; its results by group.

    Arguments:
        adapter: the network.
        process: of all elements.
        axis: along which the elements lie.
        indices: the numbers of the elements of each group.
    """

    def __init__(
        self,
        adapter: NetworkPrediction,
        process: LinearProcess,
        axis: int,
        indices: Mapping[str, Tensor],
    ) -> None:
        self.adapter, self.process, self.axis, self.indices = adapter, process, axis, indices

    def __call__(
        self, states: Mapping[str, Tensor], levels: Mapping[str, Level]
    ) -> Mapping[str, Any]:
        adapter, axis, inputs, times = self.adapter, self.axis, {}, {}
        states = {name: states[name] for name in self.indices}
        for name, x in states.items():
            scale = scale_value(adapter.input_scale, levels[name])
            inputs[name] = x if scale == 1.0 else x * scale
            t = adapter.time_of(x, levels[name], self.process)
            times[name] = t[:, None].expand(-1, x.shape[axis])
        x = assemble(inputs, self.indices, axis)
        x = x.to(adapter.network_dtype or x.dtype)
        said = adapter.network(x, assemble(times, self.indices, 1), **adapter.model_kwargs)
        checked = adapter._checked(said, assemble(states, self.indices, axis))
        return {name: checked.index_select(axis, index) for name, index in self.indices.items()}


def bind_elements(
    prediction: Prediction,
    process: LinearProcess,
    axis: int,
    indices: Mapping[str, Tensor],
    names: Iterable[str] | None = None,
) -> BoundPrediction:
    """A prediction of all elements for each group of them: a network is called once for all.

    Arguments:
        prediction: an adapter, or guidance of some.
        process: of all elements.
        axis: along which the elements lie.
        indices: the numbers of the elements of each group, which may change between calls.
        names: the groups; those of `indices` by default.
    """
    what = "a run whose elements have times of their own"
    shared: dict[int, Shared] = {}

    def of(name: str) -> Prediction:
        def change(adapter: NetworkPrediction) -> Prediction:
            call = ElementsCall(adapter, process, axis, indices)
            asked = shared.setdefault(id(adapter), Shared(call))
            return attrs.evolve(
                adapter,
                network=Answer(asked, name, name),
                model_kwargs={},
                channels="all",
                event_shape=None,
            )

        return rewired(prediction, change, what)

    return BoundPrediction({name: of(name) for name in names or indices}, shared.values())
