"""What a scheduler's config says: which class of diffusers it is of, and in our words what it asks
for.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from srk.errors import ArgumentError, IncompatibleError
from srk.integrators import SOLVERS

#: The arguments of `SRKScheduler`.
OURS = (
    "solver",
    "solver_options",
    "eta",
    "grid",
    "profile",
    "guidance_scale",
    "noise",
    "seed",
    "process",
    "host",
    "frame",
    "round_timesteps",
    "calls",
    "prediction_type",
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "variance_type",
    "clip_sample",
    "clip_sample_range",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "timestep_spacing",
    "steps_offset",
    "final_sigmas_type",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "rho",
    "sigma_min",
    "sigma_max",
    "sigma_data",
    "shift",
    "use_dynamic_shifting",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "shift_terminal",
    "time_shift_type",
)

#: The schedulers of diffusers whose configs are understood, by the family of their networks. Of
#: classes that take the same arguments, and so cannot be told apart by a config without a class
#: name, the first is taken; their steps go to the same noise levels.
FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(
        [
            "DDIMScheduler",
            "DDIMParallelScheduler",
            "DDPMScheduler",
            "DDPMParallelScheduler",
            "DEISMultistepScheduler",
            "DPMSolverMultistepScheduler",
            "DPMSolverSDEScheduler",
            "DPMSolverSinglestepScheduler",
            "EulerAncestralDiscreteScheduler",
            "EulerDiscreteScheduler",
            "HeunDiscreteScheduler",
            "LMSDiscreteScheduler",
            "KDPM2DiscreteScheduler",
            "KDPM2AncestralDiscreteScheduler",
            "LCMScheduler",
            "PNDMScheduler",
            "SASolverScheduler",
            "TCDScheduler",
            "UniPCMultistepScheduler",
            "CogVideoXDDIMScheduler",
            "CogVideoXDPMScheduler",
        ],
        "vp",
    ),
    **dict.fromkeys(
        [
            "FlowMatchEulerDiscreteScheduler",
            "FlowMatchHeunDiscreteScheduler",
            "FlowMatchLCMScheduler",
            "LTXEulerAncestralRFScheduler",
        ],
        "flow",
    ),
    **dict.fromkeys(
        [
            "EDMDPMSolverMultistepScheduler",
            "EDMEulerScheduler",
            "CosineDPMSolverMultistepScheduler",
        ],
        "edm",
    ),
}

#: The scheduler that is asked where the steps go, for a network whose config names none.
USUAL: Mapping[str, str] = {
    "vp": "DDPMScheduler",
    "flow": "FlowMatchEulerDiscreteScheduler",
    "edm": "EDMEulerScheduler",
}

#: Classes of diffusers that are recognised in order to be refused, and what to do instead.
REFUSED: Mapping[str, str] = {
    "CMStochasticIterativeScheduler": (
        "its network is a consistency model, whose output is the end of the trajectory and not a "
        "denoiser that a solver could integrate; keep that scheduler"
    ),
    "DDIMInverseScheduler": (
        "it goes from data to noise, while a solver of srk reverses the process; keep that "
        "scheduler for the inversion"
    ),
    "DPMSolverMultistepInverseScheduler": (
        "it goes from data to noise, while a solver of srk reverses the process; keep that "
        "scheduler for the inversion"
    ),
    "RePaintScheduler": (
        "its pipeline hands the known pixels to `step` and jumps up again, which needs its own "
        "update; keep that scheduler"
    ),
    "ScoreSdeVeScheduler": (
        "its pipeline calls a corrector between the steps; use srk.solve with srk.VE"
    ),
    "DDPMWuerstchenScheduler": (
        "its times are ratios of a continuous cosine schedule with a scale of its own; keep it"
    ),
    "UnCLIPScheduler": (
        "its pipelines give `step` the previous timestep and a learned variance; keep it"
    ),
    "IPNDMScheduler": "its levels are not those of a list of betas; keep it",
    "SCMScheduler": "its network predicts on the circle (cos t, sin t); keep it",
    "HeliosScheduler": "it changes the resolution between its stages; keep it",
    "HeliosDMDScheduler": "it changes the resolution between its stages; keep it",
    "FlowMapEulerDiscreteScheduler": (
        "its network maps between two times and needs both; keep that scheduler"
    ),
}

#: Options that each say where the steps go, so that at most one of them can hold.
SCHEDULES = (
    "grid",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
)

#: The schedulers whose list of levels ends at that of training step 0, without an option.
END_AT_TRAINING_STEP_0 = ("DEISMultistepScheduler", "SASolverScheduler")


@cache
def parameters(name: str) -> Mapping[str, Any]:
    """The arguments of a scheduler class of diffusers with their defaults, in order.

    An argument without a default has `inspect.Parameter.empty`. A class that the installed version
    of diffusers does not have gives an empty mapping.
    """
    import diffusers

    try:
        found = inspect.signature(getattr(diffusers, name).__init__).parameters
    except (AttributeError, ImportError, RuntimeError):
        return {}
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        key: parameter.default
        for key, parameter in found.items()
        if key != "self" and parameter.kind not in kinds
    }


def class_of(config: Mapping[str, Any]) -> str | None:
    """The class of diffusers that a config is of, if it can be told.

    The config of a scheduler that was constructed, not loaded, names no class. It begins with all
    the arguments of its class, in any order, and what it took over from other classes stands after
    them; so the class is the one with the most arguments that are the first keys.
    """
    name = config.get("_class_name")
    if name is not None:
        return str(name)
    keys = [key for key in config if not key.startswith("_")]
    found: str | None = None
    for known in (*FAMILIES, *REFUSED):
        own = parameters(known)
        if own and set(own) == set(keys[: len(own)]) and len(own) > len(parameters(found or "")):
            found = known
    return found


def translate(
    config: Mapping[str, Any], ours: Iterable[str], explicit: Mapping[str, Any]
) -> dict[str, Any]:
    """The config of another scheduler in the words of `SRKScheduler`.

    What its class takes by default is filled in, and the class is remembered as `host`: it is asked
    later where the steps go. Keys of ours that are no arguments of that class are dropped. They
    came from an earlier change of scheduler and say nothing about this one.

    Arguments:
        config: the other scheduler's config.
        ours: names of the arguments of `SRKScheduler`.
        explicit: what the user said beside the config.

    Raises:
        IncompatibleError: the network is not known, and `process` does not say what it is.
    """
    name, given = class_of(config), explicit.get("process")
    if name is not None and name in REFUSED and not given:
        raise IncompatibleError(
            f"the config is that of {name}, which SRKScheduler cannot replace: {REFUSED[name]}. "
            "If the network has another use, say what it is: process='vp' (or 'flow', 'edm'), "
            "prediction_type='epsilon'"
        )
    own = parameters(name) if name in FAMILIES else {}
    known = {key: value for key, value in config.items() if key != "_use_default_values"}
    if own:
        dropped = set(ours) - set(own)
        known = {key: value for key, value in known.items() if key not in dropped}
        for key, default in own.items():
            if default is not inspect.Parameter.empty:
                known.setdefault(key, default)
        if "final_sigmas_type" not in own:
            short = name in END_AT_TRAINING_STEP_0
            known["final_sigmas_type"] = "sigma_min" if short else "zero"
    family = FAMILIES.get(name) if name else _family(known)
    if family is None and not given:
        raise IncompatibleError(
            f"{name or 'a config with the keys ' + ', '.join(known)} is not that of a scheduler "
            "whose networks srk knows; say what they are: process='vp' (or 'flow', 'edm'), "
            f"prediction_type='epsilon'. Known: {', '.join(FAMILIES)}"
        )
    asked = {**known, **explicit}
    if asked.get("use_flow_sigmas") or asked.get("prediction_type") == "flow_prediction":
        family = "flow"
        known.setdefault("shift", known.get("flow_shift") or 1.0)
    if is_continuous(asked):
        family, known["sigma_data"] = "edm", 1.0
    if asked.get("invert_sigmas"):
        raise IncompatibleError(
            "invert_sigmas=True of the scheduler's config has no counterpart in srk: its network's "
            "time runs from noise at 0 to data at 1; keep that scheduler"
        )
    known["process"] = given or family
    known["host"] = name if name in FAMILIES and known["process"] == family else None
    return known


def is_continuous(config: Mapping[str, Any]) -> bool:
    """Whether an Euler scheduler's network is preconditioned with times log(sigma)/4."""
    return (
        config.get("timestep_type") == "continuous"
        and config.get("prediction_type") == "v_prediction"
    )


def settle(config: dict[str, Any], explicit: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what it inherited and an explicit keyword contradicts.

    Raises:
        ArgumentError: two explicit keywords contradict each other.
    """
    said = [key for key in SCHEDULES if explicit.get(key)]
    if len(said) > 1:
        raise ArgumentError(f"{' and '.join(said)} exclude each other; set one of them")
    off: dict[str, Any] = {}
    if said:
        off.update({key: None if key == "grid" else False for key in SCHEDULES if key not in said})
    elif "timestep_spacing" in explicit or any(key in explicit for key in SCHEDULES[1:]):
        off["grid"] = None
    dropped = "profile" in explicit and explicit["profile"] is None
    if dropped and config.get("grid") == "budget":
        off["grid"] = None
    if "solver" in explicit and explicit["solver"] != config.get("solver"):
        off |= {"solver_options": None, "eta": None}
    if "shift" in explicit or "flow_shift" in explicit:
        off["use_dynamic_shifting"] = False
        both = explicit.get("shift", explicit.get("flow_shift"))
        off |= {key: both for key in ("shift", "flow_shift") if key in config}
    if explicit.get("process") and explicit["process"] != config.get("process"):
        off["host"] = None
    changes = {key: value for key, value in off.items() if key not in explicit and key in config}
    return {**config, **changes}


def profile_places(config: Mapping[str, Any], explicit: Mapping[str, Any]) -> bool:
    """Whether a profile that the user gives says where the steps go: where nothing else does.

    As in `srk.solve`, it places those of runs with noise, and of solvers that it places on the
    ODE too.
    """
    spaced = any(key in explicit for key in (*SCHEDULES, "timestep_spacing"))
    eta = explicit.get("eta", config.get("eta"))
    solver = SOLVERS.get(explicit.get("solver", config.get("solver")) or "auto")
    places = eta != 0.0 or (solver is not None and solver.profiled)
    return explicit.get("profile") is not None and not spaced and places


def _family(config: Mapping[str, Any]) -> str | None:
    """The family of a config whose class is not known, by its keys."""
    if "sigma_data" in config:
        return "edm"
    if "beta_start" in config or "beta_schedule" in config or "trained_betas" in config:
        return "vp"
    return "flow" if "shift" in config else None
