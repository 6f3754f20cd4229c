"""Where every target takes its randomness from."""

from __future__ import annotations

import pytest
import torch

import srk

TARGETS = {
    "gaussian": srk.targets.Gaussian(torch.zeros(2), 1.0),
    "mixture": srk.targets.GaussianMixture([1.0], torch.zeros(1, 2), [1.0]),
    "torus": srk.targets.TorusMixture([1.0], torch.zeros(1, 2), [0.5]),
    "rotations": srk.targets.RotationMixture([1.0], torch.eye(3)[None], [0.5]),
}


@pytest.mark.parametrize("name", TARGETS)
def test_samples_are_drawn_on_the_default_device(name: str) -> None:
    """No device is at hand but the CPU and "meta", which has shapes and no numbers."""
    with torch.device("meta"):
        assert TARGETS[name].sample(3, dtype=torch.float64).device.type == "meta"
    assert TARGETS[name].sample(3).device.type == "cpu"


@pytest.mark.parametrize("name", TARGETS)
def test_a_generator_and_a_seed_are_alternatives(name: str) -> None:
    given = torch.Generator().manual_seed(3)
    with pytest.raises(srk.errors.ArgumentError, match=r"generator and seed = 3 are alternatives"):
        TARGETS[name].sample(2, generator=given, seed=3)
    assert torch.equal(TARGETS[name].sample(2, generator=given), TARGETS[name].sample(2, seed=3))
