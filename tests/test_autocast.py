"""Under autocast= weights are cast once a run, and every run sees them as they are."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import srk

VP = srk.VP()
TURNED = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0))).Q
COVARIANCE = (TURNED * torch.linspace(0.1, 1.0, 6)) @ TURNED.mT
COVARIANCE = 0.5 * (COVARIANCE + COVARIANCE.mT)


class Casts(TorchDispatchMode):
    """Counts conversions of dtype by the shape of what is converted."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default:
            self.shapes[tuple(args[0].shape)] += 1
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_once_a_run() -> None:
    layer = nn.Linear(5, 5, bias=False)
    sampler = srk.Sampler(VP, srk.Data(lambda x, t: layer(x)), steps=6, autocast=torch.bfloat16)
    for _ in range(2):
        with Casts() as casts:
            first = sampler(shape=(3, 5), seed=0)
        assert casts.shapes[5, 5] == 1
    with torch.no_grad():
        layer.weight.mul_(0.0)
    assert not torch.equal(sampler(shape=(3, 5), seed=0).x, first.x)


def test_a_callback_may_change_the_weights() -> None:
    layer = nn.Linear(5, 5, bias=False)

    def change(info: object) -> None:
        with torch.no_grad():
            layer.weight.mul_(0.9)

    options = {"steps": 4, "shape": (3, 5), "seed": 0, "callback": change}
    score = srk.Data(lambda x, t: layer(x))
    with Casts() as casts:
        srk.solve(VP, score, "ddpm", autocast=torch.bfloat16, **options)
    assert casts.shapes[5, 5] == 5


def test_a_failed_run_leaves_no_casts() -> None:
    layer = nn.Linear(5, 5, bias=False)
    broken = srk.Data(lambda x, t: layer(x) / 0.0 if t[0] < 0.5 else layer(x))
    srk.solve(VP, broken, shape=(3, 5), steps=6, autocast=torch.bfloat16, on_failure="return")
    with torch.no_grad():
        layer.weight.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        assert not layer(torch.ones(1, 5)).any()


def still(x: Tensor, t: Tensor) -> Tensor:
    """A network without products of matrices, which autocast leaves alone."""
    return (0.7 * x * (1.0 - 0.5 * t.reshape(-1, *[1] * (x.ndim - 1)).to(x))).tanh()


MEASURED = srk.posterior.Measurement(
    srk.posterior.Linear(TURNED[:2]), torch.tensor([0.3, -0.2]), noise_std=0.1
)
GAUSSIAN = srk.targets.Gaussian(torch.linspace(-1, 1, 6), COVARIANCE)
MIXTURE = srk.targets.GaussianMixture([0.3, 0.7], torch.randn(2, 6), [0.3, 0.5])
DRAWS: dict[str, Callable[..., srk.Solution]] = {
    "augmentation": lambda **how: srk.solve(
        srk.EDM(),
        srk.Data(still),
        "ddpm",
        shape=(2, 4, 3),
        hooks=[srk.scores.CenterRandomAugmentation()],
        **how,
    ),
    "alignment": lambda **how: srk.solve(
        srk.EDM(), srk.Data(still), "ddpm", shape=(2, 4, 3), hooks=[srk.scores.RigidAlign()], **how
    ),
    "picard": lambda **how: srk.solve(
        VP, srk.Data(still), "ddpm", shape=(3, 6), parallel=srk.Picard(window=4), **how
    ),
    "gaussian": lambda **how: srk.solve(VP, GAUSSIAN.score(VP), shape=(3, 6), **how),
    "mixture": lambda **how: srk.solve(VP, MIXTURE.score(VP), shape=(3, 6), **how),
    "empirical": lambda **how: srk.solve(
        VP, srk.targets.Empirical(torch.randn(20, 6)).score(VP), shape=(3, 6), **how
    ),
    "exact": lambda **how: srk.solve(
        VP, srk.posterior.Exact(GAUSSIAN.score(VP), MEASURED), shape=(3, 6), **how
    ),
    "mmps": lambda **how: srk.solve(
        VP, srk.posterior.MMPS(GAUSSIAN.score(VP), MEASURED), shape=(3, 6), **how
    ),
    "ddrm": lambda **how: srk.solve(
        VP, srk.posterior.DDRM(srk.Data(still), MEASURED), shape=(3, 6), **how
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_what_is_computed_around_a_network_is_not_rounded(name: str) -> None:
    """Autocast rounds the products of matrices of the network, and no others."""
    options: dict[str, Any] = {"steps": 5, "seed": 0}

    def draw(**how: Any) -> Tensor:
        torch.manual_seed(0)
        return DRAWS[name](**options, **how).x

    wanted = draw()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(draw(), wanted)
    if name != "picard":  # its steps are those of the network's rounding
        assert torch.allclose(draw(autocast=torch.bfloat16), wanted, rtol=1e-5, atol=1e-5)
