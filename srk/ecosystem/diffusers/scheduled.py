"""The timesteps of a run, and which of them comes next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from srk.ecosystem.diffusers.configured import Configured
from srk.ecosystem.diffusers.grids import levels
from srk.ecosystem.diffusers.route import LastOrders, Route, last_orders_of
from srk.ecosystem.diffusers.running import Entry, Left, Running
from srk.errors import (
    ArgumentError,
    ArgumentTypeError,
)
from srk.sampling.planning import step_etas
from srk.scores.inputs import time_value
from srk.steps import RunInfo, Times


class Scheduled(Configured):
    """A scheduler with timesteps, one for each network call, and a count of them."""

    timesteps: Tensor
    sigmas: Tensor
    num_inference_steps: int | None
    _values: list[float]
    _route: Route | None
    _begin_index: int | None
    _step_index: int | None
    _run: Running | None
    _left: Left | None
    _noised: bool
    _sigmas_then: Tensor

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
        original_inference_steps: int | None = None,
        strength: float | None = None,
    ) -> None:
        """Choose the noise levels of a run and forget the last one.

        Arguments:
            num_inference_steps: number of steps.
            device: where `timesteps` shall be.
            timesteps: instead, the network's times at the start of each step, decreasing. For flow
                networks they may be given beside `sigmas`: what the network is told at each.
            sigmas: instead, noise levels: sigma/alpha down to the end of the last step (0 for the
                data), or for flow networks sigma before `shift`, whose end at 0 is added. With
                `grid`, the list that a flow pipeline makes where its user gives none says only how
                many steps there are.
            mu: shift of flow networks with `use_dynamic_shifting`.
            original_inference_steps, strength: of LCMScheduler, for the configs of that class.

        Raises:
            ArgumentError, TimeError, IncompatibleError: the levels or the solver are not possible;
                each message names the cure.
        """
        request = {
            "num_inference_steps": num_inference_steps,
            "timesteps": _listed(timesteps),
            "sigmas": _listed(sigmas),
            "mu": None if mu is None else float(mu),
            "original_inference_steps": original_inference_steps,
            "strength": strength,
        }
        left = None
        run = self._run
        if run is not None and not run.walk.done and self._request is not None:
            left = Left(self._request, self._entries, self.integrator, run)
        self._prepare(request, device)
        self._left = left
        self._begin_index = self._step_index = self._run = None
        self._noised = False

    def _prepare(self, request: dict[str, Any], device: torch.device | str | None = None) -> None:
        """Make the entries of a run."""
        made, asked = self._convention, self._eta
        self._last, self._told = None, ()
        method = self.integrator
        # grids and the form of a solver go by one number
        eta = asked if isinstance(asked, float) else method.default_eta
        method.check(made.process, eta)
        more = {
            key: request[key]
            for key in ("original_inference_steps", "strength")
            if request[key] is not None
        }
        found = levels(
            self.config,
            made,
            method,
            eta,
            steps=request["num_inference_steps"],
            timesteps=request["timesteps"],
            sigmas=request["sigmas"],
            mu=request["mu"],
            more=more,
        )
        times, denoise, process = list(found.times), found.denoise, made.process
        if made.family == "edm" and times[0] > process.t_max:
            process = attrs.evolve(process, sigma_max=times[0])  # type: ignore[misc]
        if len(set(times)) > 1:
            self._checked(times, RunInfo(process, method, None, eta))
        given = request["timesteps"] is not None or request["sigmas"] is not None
        if len(set(times)) + denoise < 2 and (given or len(times) < 2):
            explicit = {key: request[key] for key in ("timesteps", "sigmas")}
            raise ArgumentError(
                f"{explicit} make no step; give at least two levels, or final_sigmas_type='zero'"
            )
        told = found.told or ()
        self._told = tuple((process.level(t).r, said) for t, said in zip(times, told, strict=False))
        self._last = self._last_orders(times, denoise)
        self._route = Route(process, self.integrator, eta, tuple(times), denoise)
        moves = len(self._route.grid) - 1
        if denoise and isinstance(asked, tuple) and len(asked) == moves + 1:
            asked = asked[:moves]  # the denoising step draws nothing
        etas, first = step_etas(asked, process, self.integrator, self._route.grid)
        if not isinstance(asked, float):
            # a run of steps that all have one eta is that of a number
            one = etas[0] if len(set(etas)) == 1 else etas
            self._route = attrs.evolve(self._route, eta=one, diffusion=first)
        plans, prediction = self._route.plans(), self._prediction
        said_at = dict(reversed(list(zip(times, told, strict=False))))
        self._entries = []
        theirs = bool(told)
        for step, plan in enumerate(plans):
            for stage, entry in enumerate(plan.stages):
                at = entry.level
                if told and stage == 0 and at.t == times[step]:
                    timestep = told[step]
                elif step + 1 < len(told) and at.t == plan.stop.t == times[step + 1]:
                    timestep = told[step + 1]
                elif at.t in said_at:
                    timestep = said_at[at.t]
                else:
                    timestep = time_value(prediction.time, at, process, None)
                    timestep *= prediction.time_scale
                    if self.config.round_timesteps and made.family == "vp":
                        timestep = float(round(timestep))
                    theirs = False
                self._entries.append(Entry(at, step, stage, float(timestep)))
        values = [entry.timestep for entry in self._entries]
        if theirs:
            dtype = found.dtype
        else:
            whole = made.family == "vp" and all(value.is_integer() for value in values)
            dtype = torch.int64 if whole else torch.float32
        self.timesteps = torch.tensor(values, dtype=dtype, device=device)
        noisy = [*(entry.level for entry in self._entries), plans[-1].stop]
        self.sigmas = torch.tensor(
            [level.sigma if made.family == "flow" else level.r for level in noisy],
            dtype=torch.float32,
        )
        self._values = self.timesteps.tolist()
        self.num_inference_steps = len(plans)
        self._request = request
        self._sigmas_then = self.sigmas.clone()

    def _checked(self, times: list[float], problem: RunInfo) -> None:
        """Raise if the times are not those of a run; equal ones are steps of no length."""
        Times([t for i, t in enumerate(times) if i == 0 or t != times[i - 1]]).times(problem)

    def _last_orders(self, times: list[float], denoise: bool) -> LastOrders | None:
        """The rule of the config for the last steps, where the solver is of that kind."""
        config, rule = self.config, last_orders_of(self._method())
        lower, euler = bool(config.get("lower_order_final")), bool(config.get("euler_at_final"))
        if rule is None or not (lower or (euler and rule == "short")):
            return None
        moves = len(set(times)) - 1
        stops = len(times) - 1 - moves
        trailing = 0
        while trailing < stops and times[-2 - trailing] == times[-1]:
            trailing += 1
        total = len(times) - 1 + denoise
        return LastOrders(
            always=rule == "always",
            euler=euler,
            total=total if lower else 10**9,
            after=trailing + denoise,
        )

    @property
    def begin_index(self) -> int | None:
        """Entry of `timesteps` at which the run starts, if `set_begin_index` said so."""
        return self._begin_index

    @property
    def step_index(self) -> int | None:
        """Entry of `timesteps` that comes next; None before the run."""
        return self._step_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start the next run at entry `begin_index` of `timesteps`, as image-to-image pipelines do.

        It ends a run that is under way.
        """
        if not 0 <= begin_index < max(1, len(self._entries)):
            raise ArgumentError(
                f"begin_index={begin_index} is not an entry of the {len(self._entries)} timesteps"
            )
        self._begin_index, self._step_index, self._run = begin_index, None, None

    def index_for_timestep(self, timestep: Any, schedule_timesteps: Tensor | None = None) -> int:
        """The entry of `timesteps` that `timestep` stands for, at the start of a run."""
        self._ready()
        return self._position(timestep, None)

    def previous_timestep(self, timestep: Any) -> Any:
        """The entry of `timesteps` after `timestep`, as DDPMScheduler has it; -1 after the last."""
        if not self._entries:
            return timestep - 1
        index = self._position(timestep, None)
        return self.timesteps[index + 1] if index + 1 < len(self._entries) else torch.tensor(-1)

    def _ready(self) -> None:
        """A scheduler that is used before `set_timesteps` takes every training step."""
        if not self._entries:
            device = self.timesteps.device
            self._prepare(
                {
                    "num_inference_steps": int(self.config.num_train_timesteps),
                    "timesteps": None,
                    "sigmas": None,
                    "mu": 0.0 if self.config.use_dynamic_shifting else None,
                    "original_inference_steps": None,
                    "strength": None,
                },
                device,
            )

    def _index(self, timestep: Any) -> int:
        """The entry that `timestep` stands for: the next one, or where a run starts."""
        self._ready()
        index = self._step_index
        if index is None or index == len(self._entries):
            index = self._begin_index
        return self._position(timestep, index)

    def _position(self, timestep: Any, index: int | None) -> int:
        """The entry that `timestep` stands for, which must be `index` where that is known."""
        own = (
            isinstance(timestep, Tensor)
            and timestep.untyped_storage().data_ptr() == self.timesteps.untyped_storage().data_ptr()
        )
        if own and timestep.numel() == 1:
            # an element of `timesteps` knows its position, even where its value repeats
            said = timestep.storage_offset()
            if index is None or said == index:
                return int(said)
            raise self._lost(index, float(self._values[said]))
        if index is not None and isinstance(timestep, Tensor) and timestep.device.type != "cpu":
            return index  # to look at it would wait for the device
        value = _number(timestep)
        same = comparison(timestep, value)
        if index is not None:
            if same(self._values[index]):
                return index
            raise self._lost(index, value)
        places = [i for i, known in enumerate(self._values) if same(known)]
        if not places:
            raise ArgumentError(
                f"timestep {value!r} is not among the timesteps {_short(self._values)}; iterate "
                "over scheduler.timesteps"
            )
        return next((i for i in places if self._entries[i].stage == 0), places[0])

    def _lost(self, index: int, value: float) -> ArgumentError:
        return ArgumentError(
            f"step() was called with timestep {value!r}, but entry {index}, which is "
            f"{self._values[index]!r}, comes next; call it once for each entry of "
            "scheduler.timesteps in order, and call set_timesteps (or set_begin_index) before a "
            "new run"
        )


def _listed(values: Any) -> list[float] | None:
    if values is None:
        return None
    listed = [
        float(value)
        for value in (values.tolist() if isinstance(values, (Tensor, np.ndarray)) else values)
    ]
    if not listed:
        raise ArgumentError("timesteps and sigmas must not be empty")
    return listed


def _number(timestep: Any) -> float:
    if isinstance(timestep, Tensor) and timestep.numel() > 1:
        timestep = timestep.flatten()[0]
    try:
        return float(timestep)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            f"timestep must be an entry of scheduler.timesteps, not {timestep!r}"
        ) from error


def comparison(timestep: Any, value: float) -> Any:
    """Whether a known timestep is the given one, in the precision that this one came in."""
    dtype = timestep.dtype if isinstance(timestep, Tensor) else None
    if dtype in (torch.float16, torch.bfloat16):
        return lambda known: float(torch.tensor(known, dtype=dtype)) == value
    if dtype is not None and not dtype.is_floating_point:
        return lambda known: int(known) == value or abs(value - known) <= 1e-6 * abs(value)
    return lambda known: abs(value - known) <= 1e-6 * abs(value)


def _short(values: list[float]) -> str:
    """The values, for a message."""
    shown = ", ".join(f"{value:g}" for value in values[:12])
    return f"[{shown}{', ...' if len(values) > 12 else ''}]"
