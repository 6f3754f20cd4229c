"""Forward processes: what is reversed. One process a file.

`base` has the contracts, `registry` the names.
"""

import sys

from srk.processes.around_mean import AroundMean, Shifted
from srk.processes.base import ForwardProcess, Level, LinearProcess
from srk.processes.cld import CLD
from srk.processes.cosine import VPCosine
from srk.processes.discrete import VPDiscrete
from srk.processes.edm import EDM
from srk.processes.flow import Flow
from srk.processes.manifold import ManifoldProcess
from srk.processes.ou import OU
from srk.processes.ouve import OUVE
from srk.processes.phase import PhaseProcess, statistic
from srk.processes.preserving import VariancePreserving
from srk.processes.product import Product
from srk.processes.registry import PROCESSES, process, register_process
from srk.processes.so3 import SO3
from srk.processes.subvp import SubVP
from srk.processes.torus import Torus
from srk.processes.ve import VE, VarianceExploding
from srk.processes.vp import VP
from srk.registry import callable_package

callable_package(sys.modules[__name__], PROCESSES)  # srk.processes() is the table of its names

__all__ = [
    "CLD",
    "EDM",
    "OU",
    "OUVE",
    "PROCESSES",
    "SO3",
    "VE",
    "VP",
    "AroundMean",
    "Flow",
    "ForwardProcess",
    "Level",
    "LinearProcess",
    "ManifoldProcess",
    "PhaseProcess",
    "Product",
    "Shifted",
    "SubVP",
    "Torus",
    "VPCosine",
    "VPDiscrete",
    "VarianceExploding",
    "VariancePreserving",
    "process",
    "register_process",
    "statistic",
]
