"""Scores: what the network says, turned into the denoiser."""

from srk.scores.adapters import Data, EDMDenoiser, FlowVelocity, NetworkPrediction, Noise, Score, Velocity, as_prediction
from srk.scores.base import Prediction
from srk.scores.convert import to_flow_velocity, to_noise, to_score, to_velocity

__all__ = [
    "Data",
    "EDMDenoiser",
    "FlowVelocity",
    "NetworkPrediction",
    "Noise",
    "Prediction",
    "Score",
    "Velocity",
    "as_prediction",
    "to_flow_velocity",
    "to_noise",
    "to_score",
    "to_velocity",
]
