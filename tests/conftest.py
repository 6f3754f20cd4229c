"""What all tests share.

One thread a worker, GPU tests skipped without a GPU, a check that random states are left alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest
import torch

import srk

torch.set_num_threads(
    1
)  # pytest-xdist runs two workers; more threads than cores slow each other down

# The same examples in every run, so that a failure in CI is one that a person sees too; no
# deadline, for torch's first calls are slow.
hypothesis.settings.register_profile("srk", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("srk")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; none here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture
def global_rng_untouched() -> Iterator[None]:
    """Fail a test that changes a global random state.

    Python's, NumPy's, torch's on the CPU or on any GPU.
    """

    def states() -> dict[str, object]:
        # The legacy global state is what is watched.
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            "random": random.getstate(),
            "numpy.random": (kind, keys.tolist(), *rest),
            "torch": torch.get_rng_state().tolist(),
            **{f"torch.cuda:{i}": state.tolist() for i, state in enumerate(cuda)},
        }

    for name in ("diffusers", "rich.style"):  # whose imports draw from Python's generator, once
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    before = states()
    yield
    after = states()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"the test changed the global random state of {', '.join(changed)}"


@pytest.fixture
def registries_restored() -> Iterator[None]:
    """Take what a test registered out again."""
    before = [
        (registry, set(registry))
        for registry in (
            srk.processes(),
            srk.solvers(),
            srk.tableaus(),
            srk.controllers(),
            srk.noise(),
        )
    ]
    yield
    for registry, names in before:
        for name in set(registry) - names:
            registry.unregister(name)
