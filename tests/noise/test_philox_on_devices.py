"""The same bits from NumPy, PyTorch and Triton, and the same normals from them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from srk.noise import philox
from srk.noise.counter import SampleNormals

SHAPES = [
    (3, 1),
    (2, 5),
    (4, 8),
    (3, 16),
    (2, 17),
    (2, 24),
    (3, 3, 5, 7),
    (2, 1000),
    (1, 64),
    (5, 2),
]
"""One and several blocks for each sample, odd and even numbers of them, odd numbers of values."""

SAMPLES: list[dict[str, Any]] = [
    {"seed": 7},
    {"seed": -3, "first_index": 5},
    {"seed": 2**70, "indices": [4, 5, 9, 0, (1 << 63) - 1]},
    {"seed": None, "seeds": [11, 0, 11, -1, 2**64]},
]

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None
    or tuple(map(int, torch.__version__.split(".")[:2])) < (2, 5),
    reason="needs a triton with uint64 in its interpreter: pip install triton",
)


def started(shape: tuple[int, ...], samples: dict[str, Any]) -> SampleNormals:
    given = {k: v[: shape[0]] if isinstance(v, list) else v for k, v in samples.items()}
    source = SampleNormals(**given)
    source.start(shape)
    return source


@pytest.mark.parametrize("samples", SAMPLES, ids=lambda s: "-".join(s))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_integer_operations_give_numpys_bits(
    shape: tuple[int, ...], samples: dict[str, Any]
) -> None:
    source = started(shape, samples)
    expected = source._words(("draw", 1.5), philox.Reference())
    keys, counters = source._on_device(torch.device("cpu"), ("draw", 1.5))
    assert torch.equal(philox.on_device(keys, counters, source._blocks), expected)
    table = torch.tensor(source._key_words(("draw", 1.5)))  # as `prepare` sends it
    assert torch.equal(philox.on_device(table, counters, source._blocks), expected)


@pytest.mark.parametrize("counter", [0, 2**63 - 2, 2**64 - 3, 2**64 - 1, 2**127 + 2**64 - 2])
def test_counters_carry_into_the_upper_word(counter: int) -> None:
    key = bytes(range(240, 256))
    expected = philox.Reference()([(key, counter, 6)])
    first = [[philox.signed(counter + 1), philox.signed((counter + 1) >> 64)]]
    words = torch.from_numpy(np.frombuffer(key, dtype="<i8").copy())[None]
    assert torch.equal(philox.on_device(words, torch.tensor(first), 6)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_device_draws_what_the_cpu_draws(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The path of other devices, run on the CPU; keys sent ahead or one by one are the same."""
    source = started(shape, SAMPLES[1])
    expected, found = torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
    source.fill(expected, "draw", 1.5)
    source._fill_on_device(found, ("draw", 1.5))
    # float32 rounds the logarithm and the cosine; 4.8e-7 is four units of the last place at 1
    resolution = max(4.8e-7, 4 * torch.finfo(dtype).eps)
    assert torch.allclose(found.double(), expected.double(), rtol=0, atol=resolution)


IN_THE_INTERPRETER = """
import torch
from test_philox_on_devices import SAMPLES, SHAPES, started
from srk.noise import philox_triton

worst = 0.0
for shape in SHAPES:
    for samples in SAMPLES:
        source = started(shape, samples)
        expected = torch.empty(shape)
        source.fill(expected, "draw", 1.5)
        out = torch.full((shape[0], expected[0].numel()), float("nan"))
        philox_triton.fill(out, *source._on_device(torch.device("cpu"), ("draw", 1.5)))
        worst = max(worst, float((out.view(shape) - expected).abs().max()))
print(worst)
"""


@needs_triton
def test_the_triton_kernel_in_the_interpreter() -> None:
    """Every shape and kind of sample, to the rounding of float32 functions."""
    folder = os.path.dirname(__file__)
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([folder, *sys.path]),
    }
    run = subprocess.run(
        [sys.executable, "-c", IN_THE_INTERPRETER],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) <= 4.8e-7


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_the_triton_kernel_compiles_without_a_gpu(capability: int) -> None:
    code = (
        "from srk.noise import philox_triton\n"
        f"print('.target sm_{capability}' in philox_triton.compile_for({capability})['ptx'])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == "True"
