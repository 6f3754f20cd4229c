"""Scores: what the network says, turned into the denoiser."""

import warnings
from typing import Any

from srk.scores import networks
from srk.scores.adapters import (
    Data,
    EDMDenoiser,
    FlowVelocity,
    NetworkPrediction,
    NoisePrediction,
    Score,
    Velocity,
    as_prediction,
)
from srk.scores.base import Prediction
from srk.scores.classifier import ClassifierGuided
from srk.scores.convert import to_flow_velocity, to_noise, to_score, to_velocity
from srk.scores.guidance import Guided
from srk.scores.guidance_methods import APG, CFGZero, autoguidance, cfg_plus_plus
from srk.scores.hooks import Clip, DynamicThreshold, Hooked, Project, Replace
from srk.scores.joint import Independent, Joint, ProductPrediction
from srk.scores.joint_guided import JointGuided
from srk.scores.phase import PhasePrediction, PhaseScore, Reduced
from srk.scores.repaint import RePaint
from srk.scores.state_hooks import CenterRandomAugmentation, LowTemperature, RigidAlign, StateHook
from srk.scores.weights import limited

__all__ = [
    "APG",
    "CFGZero",
    "CenterRandomAugmentation",
    "ClassifierGuided",
    "Clip",
    "Data",
    "DynamicThreshold",
    "EDMDenoiser",
    "FlowVelocity",
    "Guided",
    "Hooked",
    "Independent",
    "Joint",
    "JointGuided",
    "LowTemperature",
    "NetworkPrediction",
    "NoisePrediction",
    "PhasePrediction",
    "PhaseScore",
    "Prediction",
    "ProductPrediction",
    "Project",
    "RePaint",
    "Reduced",
    "Replace",
    "RigidAlign",
    "Score",
    "StateHook",
    "Velocity",
    "as_prediction",
    "autoguidance",
    "cfg_plus_plus",
    "limited",
    "networks",
    "to_flow_velocity",
    "to_noise",
    "to_score",
    "to_velocity",
]


def __getattr__(name: str) -> Any:
    if name == "Noise":
        warnings.warn(
            "srk.Noise is now srk.NoisePrediction; the old name goes with the next release",
            DeprecationWarning,
            stacklevel=3,
        )
        return NoisePrediction
    raise AttributeError(f"module 'srk.scores' has no attribute {name!r}")
