"""Scores: what the network says, turned into the denoiser."""

from srk.scores import networks
from srk.scores.adapters import (
    Data,
    EDMDenoiser,
    FlowVelocity,
    NetworkPrediction,
    Noise,
    Score,
    Velocity,
    as_prediction,
)
from srk.scores.base import Prediction
from srk.scores.convert import to_flow_velocity, to_noise, to_score, to_velocity
from srk.scores.guidance import ClassifierGuided, Guided, limited
from srk.scores.guidance_methods import APG, CFGZero, autoguidance, cfg_plus_plus
from srk.scores.hooks import Clip, DynamicThreshold, Hooked, Project, Replace
from srk.scores.phase import PhasePrediction, PhaseScore, Reduced

__all__ = [
    "APG",
    "CFGZero",
    "ClassifierGuided",
    "Clip",
    "Data",
    "DynamicThreshold",
    "EDMDenoiser",
    "FlowVelocity",
    "Guided",
    "Hooked",
    "NetworkPrediction",
    "Noise",
    "PhasePrediction",
    "PhaseScore",
    "Prediction",
    "Project",
    "Reduced",
    "Replace",
    "Score",
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
