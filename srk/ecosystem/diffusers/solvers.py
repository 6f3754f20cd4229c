"""What a scheduler of diffusers is called here, and what its options mean for our solvers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from srk.errors import IncompatibleError

#: The timesteps between which SASolverScheduler adds noise, ends included, if it is not told.
NOISY = (200.0, 800.0)


@attrs.frozen
class NoisyTimesteps:
    """SA-Solver's default stochasticity in diffusers: 1 from timestep 200 to 800, else 0.

    Arguments:
        told: sigma/alpha at the starts of the steps, with the timestep that the network is told.
    """

    told: tuple[tuple[float, float], ...]

    def __call__(self, r: float) -> float:
        if not self.told:
            return 1.0
        distance = [abs(math.log(known) - math.log(r)) for known, _ in self.told]
        timestep = self.told[distance.index(min(distance))][1]
        return float(NOISY[0] <= timestep <= NOISY[1])


def options_of(
    config: Mapping[str, Any], solver: str, told: tuple[tuple[float, float], ...]
) -> dict[str, Any]:
    """The options that a config of diffusers has for the solver that its own class runs.

    Arguments:
        config: a config of `SRKScheduler`.
        solver: the name of the solver.
        told: sigma/alpha at the starts of the steps, with their timesteps.
    """
    host, kind = config.get("host"), config.get("solver_type")
    if host == "SASolverScheduler" and solver == "sa-solver":
        return {
            "predictor": int(config.get("predictor_order", 2)),
            "corrector": int(config.get("corrector_order", 2)),
            "few_steps": True,
            "tau": config.get("tau_func") or NoisyTimesteps(told),
        }
    if host == "UniPCMultistepScheduler" and solver in ("unipc-2", "unipc-3"):
        return {"variant": kind} if kind in ("bh1", "bh2") else {}
    if solver in ("dpmpp-2m", "dpmpp-2m-sde") and kind in ("midpoint", "heun"):
        return {"variant": kind}
    return {}


#: The solver and eta of the schedulers that have no choice of method.
PLAIN: Mapping[str, tuple[str, float | None]] = {
    "CogVideoXDDIMScheduler": ("ddim", 0.0),
    "CosineDPMSolverMultistepScheduler": ("dpmpp-2m-sde", 1.0),
    "DDIMParallelScheduler": ("ddim", 0.0),
    "DDIMScheduler": ("ddim", 0.0),
    "DDPMParallelScheduler": ("ddpm", 1.0),
    "DDPMScheduler": ("ddpm", 1.0),
    "EDMEulerScheduler": ("ddim", 0.0),
    "EulerAncestralDiscreteScheduler": ("euler-ancestral", 1.0),
    "EulerDiscreteScheduler": ("ddim", 0.0),
    "FlowMatchEulerDiscreteScheduler": ("ddim", 0.0),
    "HeunDiscreteScheduler": ("heun", 0.0),
    "KDPM2AncestralDiscreteScheduler": ("dpm2-ancestral", 1.0),
    "KDPM2DiscreteScheduler": ("dpm2", 0.0),
    "LMSDiscreteScheduler": ("lms", 0.0),
}


def solver_of(config: Mapping[str, Any]) -> tuple[str, float | None]:
    """The solver and the stochasticity that the scheduler has which a config came from.

    Raises:
        IncompatibleError: none of ours is that scheduler's.
    """
    host, order = config.get("host"), int(config.get("solver_order") or 2)
    kind = config.get("algorithm_type") or "dpmsolver++"
    found: tuple[str, float | None] | None = PLAIN.get(str(host))
    if host == "FlowMatchEulerDiscreteScheduler" and config.get("stochastic_sampling"):
        found = None
    elif host == "SASolverScheduler" and config.get("algorithm_type") == "data_prediction":
        found = "sa-solver", 1.0
    elif host == "DEISMultistepScheduler":
        found = {1: "ddim", 2: "deis-2", 3: "deis-3"}.get(order, "deis-3"), 0.0
    elif host == "UniPCMultistepScheduler" and config.get("predict_x0", True):
        found = {1: None, 2: ("unipc-2", 0.0), 3: ("unipc-3", 0.0)}.get(order)
    elif host in ("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"):
        known = {
            ("dpmsolver++", 1): ("ddim", 0.0),
            ("dpmsolver++", 2): ("dpmpp-2m", 0.0),
            ("dpmsolver++", 3): ("dpmpp-3m", 0.0),
            ("dpmsolver", 1): ("ddim", 0.0),
            ("sde-dpmsolver++", 1): ("ddpm", 1.0),
            ("sde-dpmsolver++", 2): ("dpmpp-2m-sde", 1.0),
        }
        found = known.get((kind, order))
    if found is None:
        raise IncompatibleError(
            "solver='host' asks for the solver of "
            f"{host or 'a scheduler that the config does not name'} with the options of the "
            "config, and none of ours is that one; name a solver: "
            "solver='srk2m', or solver='dpmpp-2m' for an ODE"
        )
    return found
