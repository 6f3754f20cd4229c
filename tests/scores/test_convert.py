"""Conversions between the denoiser and what networks predict."""

from __future__ import annotations

import math

import pytest
import torch

from srk.errors import IncompatibleError
from srk.processes import EDM, VP, Flow, Level
from srk.scores import convert

LEVELS = [
    VP().level(0.5),
    Flow().level(0.3),
    EDM().level(2.0),
    *(Level(0.5, a, s, math.log(a / s)) for a, s in [(1.0, 1e-6), (1.0, 1e6), (1e-4, 1.0)]),
]
PAIRS = [
    (convert.to_score, convert.denoiser_from_score),
    (convert.to_noise, convert.denoiser_from_noise),
    (convert.to_velocity, convert.denoiser_from_velocity),
    (convert.to_flow_velocity, convert.denoiser_from_flow_velocity),
]
NAMES = ["score", "noise", "velocity", "flow velocity"]


@pytest.mark.parametrize(("there", "back"), PAIRS, ids=NAMES)
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: f"r={level.r:.0e}")
def test_the_denoiser_survives_a_round_trip_at_both_noise_ends(there, back, level):
    x0, eps = torch.randn(2, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = level.alpha * x0 + level.sigma * eps
    denoised = convert.combine(back(level), x, there(x0, x, level))
    # D comes back from a difference of numbers of size r, so its rounding is eps (1 + r).
    assert (denoised - x0).abs().max() < 1e-14 * (1 + level.r)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: f"r={level.r:.0e}")
def test_conversions_are_the_definitions_when_the_denoiser_is_right(level):
    """With D = x0 the noise is eps, v = alpha eps - sigma x0, w = eps - x0, s = -eps/sigma."""
    x0, eps = torch.randn(2, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    alpha, sigma = level.alpha, level.sigma
    x = alpha * x0 + sigma * eps
    size = 1e-14 * (1 + 1 / level.r)  # (x - alpha D)/sigma cancels at small sigma
    assert (convert.to_noise(x0, x, level) - eps).abs().max() < size
    assert (
        convert.to_velocity(x0, x, level) - (alpha * eps - sigma * x0)
    ).abs().max() < size * max(alpha, sigma)
    assert (convert.to_flow_velocity(x0, x, level) - (eps - x0)).abs().max() < size
    assert (convert.to_score(x0, x, level) + eps / sigma).abs().max() < size / sigma


def test_the_denoiser_follows_from_v_and_flow_velocity_at_alpha_zero():
    level = Flow().level(1.0)
    assert convert.denoiser_from_velocity(level) == (0.0, -1.0)
    assert convert.denoiser_from_flow_velocity(level) == (1.0, -1.0)


@pytest.mark.parametrize("back", [convert.denoiser_from_score, convert.denoiser_from_noise])
def test_score_and_noise_at_alpha_zero_name_the_cure(back):
    with pytest.raises(IncompatibleError, match=r"alpha is 0.*srk\.FlowVelocity.*t_max=0\.999"):
        back(Flow().level(1.0))


@pytest.mark.parametrize("there", [there for there, _ in PAIRS], ids=NAMES)
def test_nothing_follows_from_the_denoiser_without_noise(there):
    x = torch.zeros(1, 1)
    with pytest.raises(IncompatibleError, match=r"sigma is 0.*t_min > 0"):
        there(x, x, Level(0.0, 1.0, 0.0, math.inf))


def test_combine_ignores_the_state_when_its_coefficient_is_zero():
    infinite = torch.full((1, 1), math.inf)
    assert convert.combine((0.0, 2.0), infinite, torch.ones(1, 1)).item() == 2.0
