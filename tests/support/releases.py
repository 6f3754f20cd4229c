"""Marks for tests that need a certain release of a library."""

from __future__ import annotations

import pytest
import torch

from srk.storage.networks import SAFE_TORCH

needs_safe_torch = pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < SAFE_TORCH,
    reason="this torch cannot read weights safely, so srk refuses to (a test of its own says so)",
)
