"""What the numbers of a run can resolve: the rounding of its state and of its network."""

from __future__ import annotations

from functools import cache

import torch

from srk.scores import Prediction


def resolution(dtype: torch.dtype, autocast: torch.dtype | None, prediction: Prediction) -> float:
    """Relative rounding of the state and of what the network says, the coarser of the two.

    Arguments:
        dtype: of the state.
        autocast: the dtype that the network runs in under `torch.autocast`, or None.
        prediction: an adapter may run its network in a dtype of its own (`network_dtype`).

    Returns:
        The largest `torch.finfo(...).eps`, which `srk.integrators.Step.resolution` hands to the
        planner.
    """
    network = getattr(prediction, "network_dtype", None)
    return _coarsest(dtype, autocast, network)


@cache
def _coarsest(*kinds: torch.dtype | None) -> float:
    return max(torch.finfo(kind).eps for kind in kinds if kind is not None)
