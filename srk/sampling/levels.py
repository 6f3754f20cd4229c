"""Samplers whose elements, such as the frames of a video, have times of their own.

Elements with the same times are one group, and a group is a part of the run with plans of its own.
The network is called once for all groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from srk._checks import choice, flag, integer, shown
from srk._engine.levels import SlicedNoise
from srk._engine.product import PartReplay, PartRun, check_lockstep
from srk._engine.recorder import Recorder, StepInfo
from srk._modes import ordinary, ordinary_tensors
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, SolveError
from srk.noise import NoiseSource, ZeroNoise, noise_source
from srk.noise.seeds import check_seed
from srk.processes.base import LinearProcess
from srk.sampling.arguments import (
    autocast_given,
    callback_given,
    device_given,
    dtype_given,
    hooks_given,
    process_given,
    saves_given,
)
from srk.sampling.compatible import check_grad
from srk.sampling.levels_groups import Columns, check_still
from srk.sampling.levels_start import Start
from srk.sampling.planning import validate
from srk.sampling.sampler import Sampler
from srk.scores import as_prediction
from srk.scores.centred import Centred, hidden_each, seen, told
from srk.scores.conventions import watching
from srk.scores.hooks import Hook, with_hooks
from srk.solution import Saved, Solution, join
from srk.steps.levels import Levels

REFUSED = {
    "steps": "the schedule says how many steps there are; leave it out",
    "nfe": "the schedule says how many steps there are; make it of as many times, e.g. "
    "srk.Levels.pyramid(times, elements)",
    "controller": "it is the old name of grid; use grid=...",
    "profile": "a profile places the steps, which stand in the schedule; make its times with the "
    "profile, e.g. srk.Sampler(process, score, steps=20, profile=profile)",
    "compile": "a compiled kernel reaches from one network call to the next of one state, while "
    "the groups of elements meet at each call; leave it out",
    "calls": "an element may stand still at a time of its own, which is the end of a step and not "
    "where calls='schedule' would call the network; leave it out",
    "parallel": "its elements step together, one call after the other; leave it out",
}
"""Arguments of `srk.Sampler` that such a run does not take, and what to do instead."""


class LevelsSampler:
    """A run made ready whose elements have times of their own.

    What `srk.Sampler` is for one time; `srk.Sampler(..., grid=srk.Levels(...))` makes one, too. Its
    arguments are those of `srk.solve` that say how samples are made; those of the call say which.

    Arguments:
        process: a linear process, or one around a mean.
        score: a network in one of the adapters, or `srk.Guided` or `srk.Hooked` of such.
        solver: as in `srk.solve`.
        grid: the times of the elements.
        eta: stochasticity; where it is a list, of the steps of each element.
        denoise_final, autocast, check_network: as in `srk.solve`.
        hooks: functions of the denoised prediction, which get that of all elements, once for each
            group of the same times with its level; what they return counts for that group.
        steps, nfe, controller, profile, compile, calls, parallel: an error for each that is given.

    Raises:
        ArgumentError, ArgumentTypeError, IncompatibleError, TimeError: see `srk.errors`.

    Examples:
        >>> import srk, torch
        >>> process = srk.VP()
        >>> def network(x, t):  # x: (batch, frames, 2), t: (batch, frames); the data are N(0, 1)
        ...     return process.alpha(t)[:, :, None].to(x) * x
        >>> levels = srk.Levels.pyramid([1.0, 0.5, 0.2, 0.001], 3)
        >>> sampler = srk.LevelsSampler(process, srk.Data(network), "srk2m", grid=levels)
        >>> [sampler(shape=(4, 3, 2), seed=seed).nfe for seed in range(2)]
        [6, 6]
    """

    def __init__(
        self,
        process: Any,
        score: Any,
        solver: Any = "auto",
        *,
        grid: Levels,
        eta: Any = None,
        denoise_final: bool | Literal["mean"] | None = None,
        autocast: torch.dtype | None = None,
        check_network: bool = True,
        hooks: Iterable[Hook] = (),
        steps: None = None,
        nfe: None = None,
        controller: None = None,
        profile: None = None,
        compile: Literal[False] = False,
        calls: Literal["free"] = "free",
        parallel: None = None,
    ) -> None:
        if not isinstance(grid, Levels):
            raise ArgumentTypeError(
                f"grid is the times of the elements, srk.Levels(...), not {shown(grid)}; with one "
                "time for all elements it is for srk.Sampler"
            )
        _refuse(steps=steps, nfe=nfe, controller=controller, profile=profile, parallel=parallel)
        _refuse(compile=choice(compile, (False, "step", "loop"), "compile"))
        if choice(calls, ("free", "schedule"), "calls") == "schedule":
            _refuse(calls=calls)
        self.given = process_given(process)
        validate(self.given)
        linear = self.given.centred
        if not isinstance(linear, LinearProcess):
            raise IncompatibleError(
                "grid=srk.Levels(...) needs a linear process, whose elements are noisy each for "
                f"itself, e.g. srk.VP(), not {shown(process)}"
            )
        self.process, self.levels = linear, grid
        self.check_network = flag(check_network, "check_network")
        self._looked = False  # whether a run has looked at the outputs of the network
        acting = hooks_given(hooks)
        check_still(acting)
        self.prediction = with_hooks(as_prediction(score), acting).bind(self.given)
        options = {
            "eta": eta,
            "denoise_final": denoise_final,
            "autocast": autocast_given(autocast),
        }
        self._columns = Columns(self.given, linear, self.prediction, grid, solver, options)

    @property
    def times(self) -> tuple[float, ...]:
        """The largest time of the elements at each end of a step."""
        return self._columns.times

    def __call__(
        self,
        shape: Sequence[int] | int | None = None,
        *,
        x_init: Tensor | None = None,
        noise: str | NoiseSource | Callable[..., Any] | None = None,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        save: str | Iterable[str] | None = None,
        callback: Callable[[StepInfo], bool | None] | None = None,
        progress: bool = False,
        on_failure: Literal["raise", "return"] = "raise",
        grad: Any = False,
        microbatch: int | None = None,
    ) -> Solution:
        """Draw samples; arguments, result and errors are those of `srk.solve`.

        `x_init` is the whole state or the first elements of it. What is told of a step is of all
        elements, at the largest of their times: the state, and the denoised prediction, which of an
        element that stands still is what was said last of it (NaN before its first step).
        """
        on_failure = choice(on_failure, ("raise", "return"), "on_failure")
        grad = choice(grad, (False, True, "checkpoint"), "grad")
        if grad == "checkpoint":
            raise IncompatibleError(
                "grad='checkpoint' is not for a run with grid=srk.Levels(...): it repeats the "
                "steps of one state; use grad=True"
            )
        saves = saves_given(save)
        if "inputs" in saves:
            raise IncompatibleError(
                "save='inputs' is not for a run with grid=srk.Levels(...): its network calls "
                "belong to several steps of several elements; save 'x', 'denoised' or 'log_prob'"
            )
        options: dict[str, Any] = {
            "saves": saves,
            "callback": callback_given(callback),
            "progress": flag(progress, "progress"),
            "grad": grad,
        }
        check_grad(grad, self._columns.first.settings.compile, x_init)
        if not isinstance(noise, NoiseSource) and not callable(noise):
            seed = check_seed(seed)
        wanted = "generator" if microbatch is None else "keyed"
        source = noise_source(wanted if noise is None else noise, seed)
        event = self.prediction.event_shape
        place = device_given(device), dtype_given(dtype)
        start = Start(event, self.levels, shape, x_init, *place, bool(grad))
        solver = self._columns.first.method
        if microbatch is None:
            solver.check_shape(start.shape)
            solution, failed = self._run(self._columns, start, source, **options)
            return _made(solution, failed, on_failure)
        size = integer(microbatch, "microbatch", least=1)
        batch, *rest = start.shape
        solver.check_shape((size, *rest), cut=True)
        solutions = []
        for first in range(0, batch, size):
            count = min(size, batch - first)
            piece = self._columns.select(slice(first, first + count), batch)
            given = None if x_init is None else x_init[first : first + count]
            small = Start(event, self.levels, (count, *rest), given, *place, bool(grad))
            solution, failed = self._run(piece, small, source.part(first, count), **options)
            solutions.append(_made(solution, failed, on_failure))
        return join(solutions)

    def _run(
        self,
        columns: Columns,
        start: Start,
        source: NoiseSource,
        *,
        saves: frozenset[str],
        callback: Callable[[StepInfo], bool | None] | None,
        progress: bool,
        grad: bool,
    ) -> tuple[Solution, bool]:
        """One run of some samples: its solution, and whether it failed."""
        with ordinary_tensors():
            like = start.empty()
            axis, indices = start.axis, columns.indices(like.device)
            bound, whole = columns.bound(axis, like), columns.whole(like)
            mean = None
            if isinstance(whole, Centred):
                mean = whole.process.centre(like).expand_as(like)
            with torch.set_grad_enabled(grad):
                x = start.draw(self.process, source.fresh(), self.levels, mean)
        look = self.check_network and start.given is None and not self._looked
        with watching(self.given, wanted=look):
            jobs = columns.jobs(bound, x, source, saves)
            parts: dict[str, PartRun] = {}
            for name, (job, plans) in jobs.items():
                draws = source.fresh()
                draws.start(x.shape, x.dtype, x.device)
                if start.drawn:
                    draws.prior(torch.empty_like(x))
                with ordinary_tensors(), torch.set_grad_enabled(grad):
                    state = x.index_select(axis, indices[name])
                if len(jobs) > 1:
                    draws = SlicedNoise(draws, x, axis, indices[name])
                draws.prepare(plans)
                level = self.process.level(columns.start(name))
                own = attrs.evolve(job, grad=grad)
                parts[name] = PartRun(own, plans, state, draws, level, columns.moves(name))
            recorder = Recorder(x, saves, told(whole, callback), len(columns.times) - 1)
            groups, lockstep = columns.together(parts, bound, axis, recorder)
            check_lockstep(parts)
            bar = recorder.bar(columns.first.method.name) if progress else nullcontext()
            made, failed = lockstep.finish(lockstep.go, source.seed, grad, bar)
        self._looked = self._looked or look
        trajectory, denoised, log_prob = recorder.saved()
        with torch.set_grad_enabled(grad), ordinary_tensors():
            solution = Solution(
                x=ordinary(groups.whole(made.x)),
                status=made.status,
                nfe=made.nfe,
                mean_nfe=float(made.nfe),
                steps=recorder.accepted,
                rejected=0,
                times=tuple(recorder.times),
                solver=columns.first.label,
                eta=made.parts[columns.one].eta,
                seed=source.seed,
                seconds=made.seconds,
                score_seconds=made.score_seconds,
                trajectory=trajectory,
                denoised=denoised,
                log_prob=log_prob,
            )
            return seen(whole, solution), failed

    def log_prob(
        self, trajectory: Saved | Solution, *, samples: slice | Sequence[int] | Tensor | None = None
    ) -> Saved:
        """Log-densities of the steps of a saved run under this sampler's network, differentiable in
        its parameters.

        As `srk.Sampler.log_prob`: draw with `save="x"`, change the network, ask again. Given the
        states before it, the elements of a step are independent, so that their log-densities are
        added up.

        Arguments:
            trajectory: a solution, or the states at the times of this sampler.
            samples: which samples of the batch; conditions of the network are cut alike.

        Returns:
            The largest time at the end of each step that draws noise, and log-densities in nats,
            shape (steps, batch).

        Raises:
            IncompatibleError: the solver's step is not Gaussian given the state.
            ArgumentError: the trajectory was not saved, or has other times.
        """
        saved = trajectory.trajectory if isinstance(trajectory, Solution) else trajectory
        if saved is None:
            raise ArgumentError("the solution holds no trajectory; draw it with save='x'")
        if saved.times != self.times:
            raise ArgumentError(
                f"the trajectory has {len(saved.times)} states from t = {saved.times[0]:g} to "
                f"{saved.times[-1]:g}, which are not the {len(self.times)} of this sampler; use "
                "the same process and schedule"
            )
        columns = self._columns
        if samples is not None:
            batch = saved.values.shape[1]
            rows = torch.arange(batch, device=saved.values.device)[samples]
            columns, saved = columns.select(rows, batch), Saved(saved.times, saved.values[:, rows])
        like = saved.values[0]
        axis, indices = self.levels.axis % like.ndim, columns.indices(like.device)
        bound, whole = columns.bound(axis, like), columns.whole(like)
        states = hidden_each(whole, saved).values
        jobs = columns.jobs(bound, like, ZeroNoise(), frozenset({"log_prob"}))
        parts: dict[str, PartRun] = {}
        for name, (job, plans) in jobs.items():
            first, moves = columns.start(name), columns.moves(name)
            ends = [0, *(k + 1 for k, moved in enumerate(moves) if moved)]
            mine = states[ends].index_select(axis + 1, indices[name])
            own = Saved((first, *(plan.stop.t for plan in plans)), mine)
            job = attrs.evolve(job, denoise=False, grad=True)
            parts[name] = PartReplay(name, job, plans, own, self.process.level(first), moves)
        recorder = Recorder(like, total=len(self.times) - 1)
        _, lockstep = columns.together(parts, bound, axis, recorder)
        lockstep.go()
        density = recorder.saved()[2]
        assert density is not None  # `Columns.jobs` has looked
        return density

    def __repr__(self) -> str:
        label = self._columns.first.label
        return (
            f"LevelsSampler({self.given!r}, {self.prediction!r}, {label!r}, "
            f"{self.levels.elements} elements, steps={len(self.times) - 1})"
        )


def _refuse(**given: Any) -> None:
    """Raise for an argument that is given although such a run does not take it."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise IncompatibleError(
                f"{name}={shown(value)} is not for a run with grid=srk.Levels(...): {REFUSED[name]}"
            )


def _made(solution: Solution, failed: bool, on_failure: str) -> Solution:
    """The solution, if the run has not failed or the caller wants it all the same."""
    if failed and on_failure == "raise":
        raise SolveError(
            f"{solution.status}; the state is in .solution.x (or use on_failure='return')", solution
        )
    return solution


Sampler.of_levels = LevelsSampler

__all__ = ["LevelsSampler"]
