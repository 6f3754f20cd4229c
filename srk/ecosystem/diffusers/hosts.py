"""The schedulers of diffusers, asked where the steps go: their own code answers, so it is theirs.

diffusers spaces the steps of its schedulers by rules that differ from class to class, and that
change from version to version. So none of these rules is written down here: a scheduler of the
class that a config came from is made, and its timesteps and sigmas are read off.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from srk.ecosystem.diffusers.configs import (
    END_AT_TRAINING_STEP_0,
    USUAL,
    is_continuous,
    parameters,
)
from srk.errors import ArgumentError

#: The schedulers that keep no list of sigmas: the level is that of the training step.
OF_TRAINING_STEPS = (
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
)

#: The schedulers that list two network calls for each step.
TWO_CALLS = (
    "DPMSolverSDEScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
)

SIGMA_SCHEDULES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


@attrs.frozen
class Spaced:
    """Where a scheduler of diffusers puts its steps.

    Arguments:
        timesteps: what the network is told at the start of each step.
        levels: sigma/alpha ("flow": sigma) at the start of each step and at the end of the last;
            None in a level stands for that of the training step.
        dtype: of the scheduler's `timesteps`.
    """

    timesteps: tuple[float, ...]
    levels: tuple[float | None, ...]
    dtype: torch.dtype


def host_name(config: Mapping[str, Any]) -> str:
    """The class that is asked: the one the config came from, or the usual one of its family.

    A class that lacks the sigma schedule that is asked for hands over to Euler's, which has all.
    """
    family = config.get("process") or "vp"
    name = str(config.get("host") or USUAL[family])
    if not parameters(name):  # not in the installed version
        name = USUAL[family]
    wanted = [key for key in SIGMA_SCHEDULES if config.get(key)]
    if family == "vp" and any(key not in parameters(name) for key in wanted):
        return "EulerDiscreteScheduler"
    if name == "PNDMScheduler":  # which lists calls of Runge-Kutta steps among the others
        return "DDIMScheduler"
    if name == "LTXEulerAncestralRFScheduler":
        return USUAL["flow"]
    return name


def host(config: Mapping[str, Any], name: str | None = None, **changes: Any) -> Any:
    """The scheduler of diffusers that `config` describes.

    Arguments:
        config: a config of `SRKScheduler`.
        name: its class; default: that of `host_name`.
        changes: arguments that the config has otherwise.
    """
    import diffusers

    name = name or host_name(config)
    given = {**config, **changes}
    if config.get("process") == "flow" and "flow_shift" not in given:
        given["flow_shift"] = given.get("shift")
    known = {
        key: given[key]
        for key, default in parameters(name).items()
        if key in given and (given[key] is not None or default is None)
    }
    try:
        return getattr(diffusers, name)(**known)
    except (ValueError, NotImplementedError, TypeError) as error:
        raise ArgumentError(
            f"{name} of diffusers, which is asked where the steps go, refuses the config: {error}"
        ) from error


def ask(
    config: Mapping[str, Any],
    *,
    steps: int | None = None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    mu: float | None = None,
    more: Mapping[str, Any] | None = None,
) -> Spaced | None:
    """Where the scheduler of diffusers puts its steps; None if it takes no such list.

    Arguments:
        config: a config of `SRKScheduler`.
        steps: how many; or
        timesteps, sigmas: lists as that scheduler takes them.
        mu: the shift of flow networks with `use_dynamic_shifting`.
        more: other arguments of `set_timesteps` that only some schedulers have.
    """
    name = host_name(config)
    explicit = timesteps is not None or (sigmas is not None and config.get("process") != "flow")
    if config.get("process") == "flow" and sigmas is not None and not _takes(name, "sigmas"):
        name = USUAL["flow"]
        config = {**config, "shift": config.get("flow_shift") or config.get("shift")}
    for key, value in (("timesteps", timesteps), ("sigmas", sigmas)):
        if value is not None and not _takes(name, key):
            return None
    changes: dict[str, Any] = dict.fromkeys(SIGMA_SCHEDULES, False) if explicit else {}
    if explicit:
        changes["use_lu_lambdas"] = False
    if (steps if sigmas is None else len(sigmas)) == 1:
        changes["shift_terminal"] = None  # the first level is also the last: nothing to stretch
    final = config.get("final_sigmas_type") or "zero"
    made = host(config, name, **changes)
    arguments: dict[str, Any] = {}
    if timesteps is not None:
        arguments["timesteps"] = list(timesteps)
    if sigmas is not None:
        arguments["sigmas"] = list(sigmas)
    if not arguments:
        arguments["num_inference_steps"] = steps
    if mu is not None and _takes(name, "mu") and config.get("use_dynamic_shifting"):
        arguments["mu"] = mu
    for key, value in (more or {}).items():
        if not _takes(name, key):
            raise ArgumentError(
                f"{key}={value!r} is an argument of other schedulers than {name}, where this "
                "config comes from; leave it out"
            )
        arguments[key] = value
    try:
        made.set_timesteps(**arguments)
    except (ValueError, AssertionError) as error:
        raise ArgumentError(
            f"{name} of diffusers refuses {_spoken(arguments)}: {error or 'no reason given'}"
        ) from error
    return _read(config, name, made, final)


def _takes(name: str, argument: str) -> bool:
    import diffusers

    return argument in inspect.signature(getattr(diffusers, name).set_timesteps).parameters


def _spoken(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def _read(config: Mapping[str, Any], name: str, made: Any, final: str) -> Spaced:
    """The timesteps and levels of a scheduler of diffusers whose `set_timesteps` was called."""
    calls = 2 if name in TWO_CALLS else 1
    timesteps = made.timesteps[::calls]
    times = tuple(float(t) for t in timesteps.tolist())
    if name in OF_TRAINING_STEPS:
        end = 0.0 if final == "zero" else None
        return Spaced(times, (*[None] * len(times), end), timesteps.dtype)
    values = [float(s) for s in made.sigmas.tolist()]
    inner, last = values[: calls * len(times) : calls], values[-1]
    has_option = "final_sigmas_type" in parameters(name)
    if not (has_option or (name in END_AT_TRAINING_STEP_0 and final == "sigma_min")):
        last = 0.0 if final == "zero" else inner[-1] if _ends_itself(config) else math.nan
    return Spaced(times, (*inner, None if math.isnan(last) else last), timesteps.dtype)


def _ends_itself(config: Mapping[str, Any]) -> bool:
    """Whether "sigma_min" means the last of the sigmas: a flow has no training step 0."""
    return config.get("process") in ("flow", "edm") or is_continuous(config)
