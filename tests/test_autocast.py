"""Under autocast= weights are cast once a run, and every run sees them as they are."""

from collections import Counter

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import srk

VP = srk.VP()


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
