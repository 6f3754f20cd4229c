"""srk: reverse diffusion processes with stochastic Runge-Kutta and every other solver of the field.

sol = srk.solve(process, score, solver="srk2")
"""

from srk import analysis, control, errors, integrators, noise, processes, scores, tableaus, targets
from srk._version import __version__
from srk.analysis.likelihood import log_likelihood
from srk.control import CONTROLLERS, StepController, register_controller
from srk.integrators import SOLVERS, Integrator, register_solver, register_tableau
from srk.noise import NOISES
from srk.processes import (
    EDM,
    OU,
    PROCESSES,
    VE,
    VP,
    Flow,
    ForwardProcess,
    LinearProcess,
    SubVP,
    VPCosine,
    VPDiscrete,
    process,
    register_process,
)
from srk.registry import Registry, callable_room
from srk.sampler import Sampler
from srk.scores import Data, EDMDenoiser, FlowVelocity, Noise, Score, Velocity
from srk.solution import Solution
from srk.solve import StepInfo, solve
from srk.tableaus import TABLEAUS, StochasticTableau


def solvers() -> Registry[Integrator]:
    """The registered solvers: a mapping from name to integrator, with a readable repr."""
    return SOLVERS


def controllers() -> Registry[type[StepController]]:
    """The registered step controllers and grids: a mapping from name to class, with a readable repr."""
    return CONTROLLERS


# srk.processes, srk.tableaus and srk.noise are rooms; called, each gives the registry of what is in it.
callable_room(processes, PROCESSES)
callable_room(tableaus, TABLEAUS)
callable_room(noise, NOISES)

__all__ = [
    "EDM",
    "OU",
    "VE",
    "VP",
    "Data",
    "EDMDenoiser",
    "Flow",
    "FlowVelocity",
    "ForwardProcess",
    "Integrator",
    "LinearProcess",
    "Noise",
    "Sampler",
    "Score",
    "Solution",
    "StepController",
    "StepInfo",
    "StochasticTableau",
    "SubVP",
    "VPCosine",
    "VPDiscrete",
    "Velocity",
    "__version__",
    "analysis",
    "control",
    "controllers",
    "errors",
    "integrators",
    "log_likelihood",
    "noise",
    "process",
    "processes",
    "register_controller",
    "register_process",
    "register_solver",
    "register_tableau",
    "scores",
    "solve",
    "solvers",
    "tableaus",
    "targets",
]
