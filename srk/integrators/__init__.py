"""Solvers: planners of steps, one or one numbered family a file, and their registry."""

from __future__ import annotations

from srk.integrators.base import Integrator
from srk.integrators.registry import SOLVERS, register_solver
from srk.plans.form import LinearForm
from srk.plans.gauge import GaugeClock, GaugeStep
from srk.plans.matrix import Matrix
from srk.plans.plan import Column, Slot, Stage, StepPlan
from srk.plans.step import Draft, Node, Step

# The order of these is the order in which solvers are listed.
# isort: off
from srk.integrators.auto import Auto
from srk.integrators.srk2m import SRK2M, SRK2MLocal
from srk.integrators.srk2s import SRK2S
from srk.integrators.srk1 import SRK1
from srk.integrators.ddpm import DDPM
from srk.integrators.euler_maruyama import EulerMaruyama
from srk.integrators.reverse_diffusion import ReverseDiffusion
from srk.integrators.etd_sra1 import ETDSRA1
from srk.integrators.wcw import WCW
from srk.integrators.dpmpp_2m_sde import DPMpp2MSDE
from srk.integrators.dpmpp_3m_sde import DPMpp3MSDE, DPMpp3MSDECorrected
from srk.integrators.dpmpp_sde import DPMppSDE
from srk.integrators.dpmpp_2s_ancestral import DPMpp2SAncestral
from srk.integrators.euler_ancestral import EulerAncestral
from srk.integrators.dpm2_ancestral import DPM2Ancestral
from srk.integrators.edm import EDMDPM2, EDMDPMpp2S, EDMEuler, EDMHeun
from srk.integrators.edm import Boltz1, Boltz2, Chai1, GenCast
from srk.integrators.ddim import DDIM
from srk.integrators.dpmpp_2m import DPMpp2M
from srk.integrators.dpmpp_3m import DPMpp3M
from srk.integrators.dpm_solver import DPMSolver2, DPMSolver3
from srk.integrators.euler import Euler
from srk.integrators.heun import Heun
from srk.integrators.dpm2 import DPM2
from srk.integrators.lms import LMS
from srk.integrators.sa_solver import SASolver
from srk.integrators.seeds import SEEDS2, SEEDS3
from srk.integrators.er_sde import ERSDE1, ERSDE2, ERSDE3
from srk.integrators.ddram import DDRaM
from srk.integrators.accelerated_ddpm import AcceleratedDDPM
from srk.integrators.unipc import UniPC2, UniPC3
from srk.integrators.deis import DEIS2, DEIS3
from srk.integrators.gauge_adams import GaugeAdams
from srk.integrators.gddim import GDDIM
from srk.integrators.sscs import SSCS
from srk.integrators.lcm import LCM
from srk.integrators.tcd import TCD
from srk.integrators.consistency import Consistency
from srk.integrators.tableau import TableauSolver, integrator, register_tableau
from srk.integrators.predictor_corrector import PredictorCorrector
from srk.integrators.on_schedule import OnSchedule
# isort: on

SOLVERS.register("srk2", SOLVERS["srk2s"])

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS2",
    "DEIS3",
    "DPM2",
    "EDMDPM2",
    "ERSDE1",
    "ERSDE2",
    "ERSDE3",
    "ETDSRA1",
    "GDDIM",
    "LCM",
    "LMS",
    "SEEDS2",
    "SEEDS3",
    "SOLVERS",
    "SRK1",
    "SRK2M",
    "SRK2S",
    "SSCS",
    "TCD",
    "WCW",
    "AcceleratedDDPM",
    "Auto",
    "Boltz1",
    "Boltz2",
    "Chai1",
    "Column",
    "Consistency",
    "DDRaM",
    "DPM2Ancestral",
    "DPMSolver2",
    "DPMSolver3",
    "DPMpp2M",
    "DPMpp2MSDE",
    "DPMpp2SAncestral",
    "DPMpp3M",
    "DPMpp3MSDE",
    "DPMpp3MSDECorrected",
    "DPMppSDE",
    "Draft",
    "EDMDPMpp2S",
    "EDMEuler",
    "EDMHeun",
    "Euler",
    "EulerAncestral",
    "EulerMaruyama",
    "GaugeAdams",
    "GaugeClock",
    "GaugeStep",
    "GenCast",
    "Heun",
    "Integrator",
    "LinearForm",
    "Matrix",
    "Node",
    "OnSchedule",
    "PredictorCorrector",
    "ReverseDiffusion",
    "SASolver",
    "SRK2MLocal",
    "Slot",
    "Stage",
    "Step",
    "StepPlan",
    "TableauSolver",
    "UniPC2",
    "UniPC3",
    "integrator",
    "register_solver",
    "register_tableau",
]
