"""Problems by name: a process, and data whose score is exact."""

from __future__ import annotations

import math
from typing import Any

import torch

from srk.errors import IncompatibleError, UnknownNameError
from srk.processes import process as make_process
from srk.processes.base import LinearProcess
from srk.targets import Empirical, GaussianMixture, datasets
from srk.targets.base import Target

TARGETS = ("digits", "fashion", "mixture")


def named_problem(process: str, target: str, **parameters: Any) -> tuple[LinearProcess, Target]:
    """A process and a target with exact score by name, for the command line.

    Arguments:
        process: a registered linear process.
        target: "digits" (1797 x 64), "fashion" (10000 images of Fashion-MNIST x 784), or "mixture"
            (a ring of 8 Gaussians in 2-D).
        parameters: of the process, e.g. beta_max=15.0.

    Raises:
        UnknownNameError, MissingExtraError, MissingDataError: no such process or target, or its
            data are not here.
        IncompatibleError: the process is not linear.
    """
    chosen = make_process(process, **parameters)
    if not isinstance(chosen, LinearProcess):
        raise IncompatibleError(
            f"the exact score of a data set needs a linear process, not {process!r}; e.g. 'vp'"
        )
    if target == "mixture":
        angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        return chosen, GaussianMixture(
            [1.0] * 8, torch.stack([angles.cos(), angles.sin()], 1), [0.05] * 8
        )
    if target == "digits":
        return chosen, Empirical(datasets.digits().flatten(1))
    if target == "fashion":
        return chosen, Empirical(datasets.fashion_mnist(10_000).flatten(1))
    raise UnknownNameError("target", target, TARGETS)
