"""srk reverses diffusion processes, by stochastic Runge-Kutta and every other solver of the field.

sol = srk.solve(process, score, solver="srk2")

What the package offers is imported when it is first asked for, so that `import srk` and
`srk --version` are quick.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from srk._version import __version__

if TYPE_CHECKING:  # what checkers read; they know no package that can be called
    from srk import analysis, errors, eta, integrators, posterior, scores, steps, targets
    from srk._tables import noise, processes, tableaus
    from srk.analysis.likelihood import log_likelihood
    from srk.citations import cite
    from srk.ecosystem.names import find
    from srk.integrators import Integrator, register_solver, register_tableau
    from srk.noise import register_noise
    from srk.processes import (
        CLD,
        EDM,
        OU,
        OUVE,
        SO3,
        VE,
        VP,
        Flow,
        ForwardProcess,
        LinearProcess,
        PhaseProcess,
        Product,
        Shifted,
        SubVP,
        Torus,
        VPCosine,
        VPDiscrete,
        process,
        register_process,
    )
    from srk.registry import Registry
    from srk.sampling import (
        LevelsSampler,
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
    from srk.steps import Levels, Picard, Profile, StepController, register_controller
    from srk.storage import SampleSet, sample_to
    from srk.tableaus import StochasticTableau

_FROM = {
    "srk.analysis.likelihood": "log_likelihood",
    "srk.citations": "cite",
    "srk.ecosystem.names": "find",
    "srk.integrators": "Integrator register_solver register_tableau",
    "srk.noise": "register_noise",
    "srk.processes": (
        "CLD EDM OU OUVE SO3 VE VP Flow ForwardProcess LinearProcess PhaseProcess Product "
        "Shifted SubVP Torus VPCosine VPDiscrete process register_process"
    ),
    "srk.sampling": (
        "LevelsSampler ProductSampler ProductStepInfo Roll Sampler StepInfo calibrate invert roll "
        "solve"
    ),
    "srk.scores": (
        "ClassifierGuided Data EDMDenoiser FlowVelocity Guided Hooked NoisePrediction Reduced "
        "Score Velocity"
    ),
    "srk.solution": "ProductSolution Solution",
    "srk.steps": "Levels Picard Profile StepController register_controller",
    "srk.storage": "SampleSet sample_to",
    "srk.tableaus": "StochasticTableau",
}
"""Where the public names are defined, those of packages left out."""

_WHERE = {name: module for module, names in _FROM.items() for name in names.split()}


def solvers() -> "Registry[Integrator]":
    """The registered solvers: a mapping from name to integrator, with a table as its repr."""
    from srk.integrators import SOLVERS

    return SOLVERS


def controllers() -> "Registry[type[StepController]]":
    """The registered grids and step controllers: a mapping from name to class, with a table as
    its repr.
    """
    from srk.steps import CONTROLLERS

    return CONTROLLERS


def __getattr__(name: str) -> Any:
    if name in ("from_diffusers", "from_pipeline"):  # needs diffusers, an optional package
        return getattr(import_module("srk.ecosystem.diffusers"), name)
    if name == "Noise":
        return import_module("srk.scores").Noise  # which warns
    if name in _WHERE:
        found = getattr(import_module(_WHERE[name]), name)
        globals()[name] = found
        return found
    # a package; "control" is the old name of srk.steps, which warns
    if not name.startswith("_") and find_spec(f"srk.{name}") is not None:
        return import_module(f"srk.{name}")
    raise AttributeError(f"module 'srk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "CLD",
    "EDM",
    "OU",
    "OUVE",
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
    "LevelsSampler",
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
    "Shifted",
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
