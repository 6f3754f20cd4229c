"""Per-sample normals: their law, and that a sample does not know its batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from srk.errors import ArgumentError, ArgumentTypeError
from srk.noise.counter import SampleNormals, draw_key

pytestmark = pytest.mark.usefixtures("global_rng_untouched")


def fill(
    shape: tuple[int, ...],
    *name: str | float,
    dtype: torch.dtype = torch.float32,
    seed: int | None = 0,
    **which: object,
) -> torch.Tensor:
    normals = SampleNormals(seed, **which)  # type: ignore[arg-type]
    normals.start(shape)
    out = torch.empty(shape, dtype=dtype)
    normals.fill(out, *name)
    return out


@pytest.mark.parametrize("event", [1, 2, 7, 8, 50])
def test_the_numbers_are_standard_normal(event: int) -> None:
    z = fill((200_000 // event, event), "law").double().flatten()
    assert scipy.stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    n = len(z)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((z**power).mean()) - moment) < 4 * math.sqrt(variance / n)


def test_tails_reach_beyond_five() -> None:
    z = fill((4, 2_000_000), "tail").abs()
    assert torch.isfinite(z).all()
    for edge in (3.0, 4.0, 4.5):
        expected = z.numel() * 2 * scipy.stats.norm.sf(edge)
        assert abs(float((z > edge).sum()) - expected) < 5 * math.sqrt(expected)
    assert z.max() > 5.0


def test_elements_of_a_sample_samples_draws_and_seeds_are_independent() -> None:
    # 16 elements of a sample, of its neighbour, of another draw, of another seed
    n = 40_000
    a = fill((n + 1, 16), "one")
    parts = [a[:-1], a[1:], fill((n, 16), "two"), fill((n, 16), "one", seed=1)]
    z = torch.cat(parts, dim=1).double()
    correlation = z.T @ z / n - torch.eye(64, dtype=torch.float64)
    assert correlation.abs().max() < 5.5 / math.sqrt(n)
    squares = (z**2 - 1) / math.sqrt(2)
    assert (squares.T @ squares / n)[~torch.eye(64, dtype=torch.bool)].abs().max() < 6 / math.sqrt(
        n
    )


@pytest.mark.parametrize("event", [(1,), (5,), (3, 4, 4), (3, 32, 32)])
def test_a_sample_is_the_same_bit_for_bit_in_any_batch(event: tuple[int, ...]) -> None:
    whole = fill((13, *event), "draw", 0.25)
    assert torch.equal(whole[4:9], fill((5, *event), "draw", 0.25, first_index=4))
    order = [7, 0, 1, 2, 12, 11, 5, 5]
    assert torch.equal(whole[order], fill((8, *event), "draw", 0.25, indices=order))
    assert torch.equal(whole[order], fill((8, *event), "draw", 0.25, indices=np.array(order)))


def test_seeds_give_the_first_sample_of_each() -> None:
    rows = fill((3, 6), "draw", seed=None, seeds=[5, 9, 5])
    assert torch.equal(rows[0], rows[2])
    assert torch.equal(rows[1], fill((1, 6), "draw", seed=9)[0])


def test_the_dtype_only_rounds_the_numbers() -> None:
    double = fill((4, 10), "draw", dtype=torch.float64)
    assert torch.equal(double.float(), fill((4, 10), "draw"))
    assert torch.equal(double.half(), fill((4, 10), "draw", dtype=torch.float16))


def test_golden_numbers_are_those_of_numpy_philox() -> None:
    # An independent reading of the documented recipe: same bits, same map
    key = int.from_bytes(draw_key(0, "draw", 1.5), "little")
    words = np.random.Philox(key=key, counter=3 * 1).random_raw(4)
    bits = np.asarray(words).view(np.uint32)
    u = ((bits[:4] & 0x7FFFFFFF) + 1.0) / 2.0**31
    angle = bits[4:].view(np.int32) * math.pi / 2.0**31
    expected = np.concatenate(
        [np.sqrt(-2 * np.log(u)) * np.cos(angle), np.sqrt(-2 * np.log(u)) * np.sin(angle)]
    )
    np.testing.assert_allclose(
        fill((1, 8), "draw", 1.5, first_index=3)[0].numpy(), expected, rtol=0, atol=2e-6
    )


def test_negative_zero_is_zero_and_large_indices_and_seeds_are_fine() -> None:
    assert draw_key(0, -0.0) == draw_key(0, 0.0)
    assert draw_key(0, "a", "b") != draw_key(0, "ab")
    assert torch.isfinite(fill((2, 3), "x", seed=-(2**80), first_index=2**62)).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": 0, "first_index": 3, "indices": [1]}, ArgumentError, "give one of them"),
        ({"seed": 0, "seeds": [1]}, ArgumentError, "leave seed out"),
        ({"seed": 0, "first_index": -1}, ArgumentError, "at least 0"),
        ({"seed": "a"}, ArgumentTypeError, "seed must be an int"),
        ({"seed": 0, "indices": [0.5]}, ArgumentTypeError, "must be an int"),
    ],
)
def test_bad_arguments_say_what_is_wrong(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SampleNormals(**arguments)  # type: ignore[arg-type]


def test_a_list_that_does_not_fit_the_batch_is_refused() -> None:
    with pytest.raises(ArgumentError, match="2 entries, but the batch has 3"):
        SampleNormals(0, indices=[1, 2]).start((3, 2))


@pytest.mark.gpu
def test_the_gpu_has_the_same_numbers_to_rounding() -> None:
    normals = SampleNormals(0)
    normals.start((8, 3, 32, 32))
    out = torch.empty(8, 3, 32, 32, device="cuda")
    normals.fill(out, "draw")
    torch.testing.assert_close(out.cpu(), fill((8, 3, 32, 32), "draw"), rtol=0, atol=5e-6)
