"""srk reverses diffusion processes, by stochastic Runge-Kutta and every other solver of the field.

sol = srk.solve(process, score, solver="srk2")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from srk import analysis, errors, eta, integrators, posterior, scores, steps, targets
from srk._version import __version__
from srk.analysis.likelihood import log_likelihood
from srk.citations import cite
from srk.ecosystem.names import find
from srk.integrators import SOLVERS, Integrator, register_solver, register_tableau
from srk.noise import NOISES, register_noise
from srk.processes import (
    CLD,
    EDM,
    OU,
    PROCESSES,
    SO3,
    VE,
    VP,
    Flow,
    ForwardProcess,
    LinearProcess,
    PhaseProcess,
    Product,
    SubVP,
    Torus,
    VPCosine,
    VPDiscrete,
    process,
    register_process,
)
from srk.registry import Registry, callable_package
from srk.sampling import (
    ProductSampler,
    ProductStepInfo,
    Roll,
    Sampler,
    StepInfo,
    calibrate,
    invert,
    roll,
    solve,
)
from srk.scores import (
    ClassifierGuided,
    Data,
    EDMDenoiser,
    FlowVelocity,
    Guided,
    Hooked,
    NoisePrediction,
    Reduced,
    Score,
    Velocity,
)
from srk.solution import ProductSolution, Solution
from srk.steps import CONTROLLERS, Levels, Picard, Profile, StepController, register_controller
from srk.storage import SampleSet, sample_to
from srk.tableaus import TABLEAUS, StochasticTableau

if TYPE_CHECKING:  # checkers know no package that can be called
    from srk._tables import noise, processes, tableaus
else:
    from srk import noise, processes, tableaus

    # called, each of these packages gives the registry of what is in it
    callable_package(processes, PROCESSES)
    callable_package(tableaus, TABLEAUS)
    callable_package(noise, NOISES)


def solvers() -> Registry[Integrator]:
    """The registered solvers: a mapping from name to integrator, with a table as its repr."""
    return SOLVERS


def controllers() -> Registry[type[StepController]]:
    """The registered grids and step controllers: a mapping from name to class, with a table as
    its repr.
    """
    return CONTROLLERS


def __getattr__(name: str) -> Any:
    if name in ("from_diffusers", "from_pipeline"):  # needs diffusers, an optional package
        from srk.ecosystem import diffusers

        return getattr(diffusers, name)
    if name == "control":  # the old name of srk.steps, which warns
        return import_module("srk.control")
    if name == "Noise":
        return scores.Noise  # which warns
    raise AttributeError(f"module 'srk' has no attribute {name!r}")


__all__ = [
    "CLD",
    "EDM",
    "OU",
    "SO3",
    "VE",
    "VP",
    "ClassifierGuided",
    "Data",
    "EDMDenoiser",
    "Flow",
    "FlowVelocity",
    "ForwardProcess",
    "Guided",
    "Hooked",
    "Integrator",
    "Levels",
    "LinearProcess",
    "NoisePrediction",
    "PhaseProcess",
    "Picard",
    "Product",
    "ProductSampler",
    "ProductSolution",
    "ProductStepInfo",
    "Profile",
    "Reduced",
    "Roll",
    "SampleSet",
    "Sampler",
    "Score",
    "Solution",
    "StepController",
    "StepInfo",
    "StochasticTableau",
    "SubVP",
    "Torus",
    "VPCosine",
    "VPDiscrete",
    "Velocity",
    "__version__",
    "analysis",
    "calibrate",
    "cite",
    "controllers",
    "errors",
    "eta",
    "find",
    "integrators",
    "invert",
    "log_likelihood",
    "noise",
    "posterior",
    "process",
    "processes",
    "register_controller",
    "register_noise",
    "register_process",
    "register_solver",
    "register_tableau",
    "roll",
    "sample_to",
    "scores",
    "solve",
    "solvers",
    "steps",
    "tableaus",
    "targets",
]
