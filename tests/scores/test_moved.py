"""What a user gives on another device or in another dtype is moved once."""

import gc
import weakref

import torch

from srk.scores.moved import moved

CPU, META = torch.device("cpu"), torch.device("meta")


def test_a_copy_is_kept_until_the_tensor_changes() -> None:
    given = torch.arange(3.0)
    assert moved(given, CPU) is given
    one = moved(given, CPU, torch.float64)
    assert moved(given, CPU, torch.float64) is one
    assert moved(given, META).device == META
    given.add_(1.0)
    assert torch.equal(moved(given, CPU, torch.float64), given.double())


def test_a_copy_lives_as_long_as_its_tensor() -> None:
    given = torch.arange(3.0)
    copy = weakref.ref(moved(given, CPU, torch.float64))
    del given
    gc.collect()
    assert copy() is None


def test_gradients_flow_and_inference_mode_passes() -> None:
    given = torch.arange(3.0, requires_grad=True)
    assert moved(given, CPU, torch.float64).requires_grad
    with torch.inference_mode():
        made = torch.arange(3.0)
        assert torch.equal(moved(made, CPU, torch.float64), made.double())
        outside = torch.arange(3.0)
    plain = torch.arange(3.0)
    with torch.inference_mode():
        kept = moved(plain, CPU, torch.float64)
    assert not kept.is_inference()
    assert torch.equal(outside, plain)
