"""bayesflow: its diffusion models, sampled by any solver of srk.

Nothing of bayesflow is imported. Its networks are those of Keras, and must run on the backend
torch (`KERAS_BACKEND=torch`), where their tensors are those of PyTorch.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
from torch import Tensor

from srk._checks import shown
from srk.errors import ArgumentError, ArgumentTypeError, ScoreError
from srk.processes import EDM, VPCosine
from srk.processes.base import LinearProcess
from srk.scores import Prediction, Score


@attrs.frozen(eq=False)
class _Asked:
    """(z, log_snr) -> the score of a diffusion model of bayesflow."""

    network: Any

    def __call__(self, z: Tensor, log_snr: Tensor, conditions: Tensor | None = None) -> Tensor:
        level = log_snr.to(z.dtype).reshape(-1, *[1] * (z.ndim - 1)).expand(*z.shape[:-1], 1)
        score = self.network.score(z, log_snr_t=level, conditions=conditions, training=False)
        if not isinstance(score, Tensor):
            raise ScoreError(
                f"the network of bayesflow returned {type(score).__name__}, not a torch.Tensor; "
                "set KERAS_BACKEND=torch before the first import of keras"
            )
        return score


def from_bayesflow(
    network: Any, conditions: Tensor | None = None
) -> tuple[LinearProcess, Prediction]:
    """A diffusion model of bayesflow as the process and the score of `srk.solve`.

    The network is asked by its log-SNR alone, so that the process is one of srk with the same
    relation of alpha and sigma between the same ends: `srk.VPCosine` where the variance is
    preserved, `srk.EDM` where it explodes.

    Arguments:
        network: a `bayesflow.networks.DiffusionModel` that is built or trained.
        conditions: what the network is conditioned on, (batch, *conditions), a row for each sample:
            summaries of the data as the approximator makes them, in its standardized units. They
            are cut with the batch.

    Returns:
        The process and the prediction. States and samples are in the units of the network. Where
        an approximator standardizes its variables, its own `standardizer` brings them back.

    Raises:
        ArgumentTypeError: it is no such network.
        ArgumentError: its schedule is of another kind.
        ScoreError: on a call, Keras runs on another backend than torch.

    Examples:
        >>> import srk, torch
        >>> class Schedule:  # in place of bayesflow's
        ...     _variance_type, log_snr_min, log_snr_max = "preserving", -15.0, 15.0
        >>> class Network:
        ...     noise_schedule = Schedule()
        ...     def score(self, z, log_snr_t, conditions, training):
        ...         alpha2 = log_snr_t.sigmoid()  # data N(0.5, 0.04)
        ...         return -(z - 0.5 * alpha2.sqrt()) / (0.04 * alpha2 + 1 - alpha2)
        >>> process, score = from_bayesflow(Network())
        >>> x = srk.solve(process, score, "srk2m", shape=(1000, 2), nfe=30, seed=0).x
        >>> round(x.mean().item(), 1), round(x.std().item(), 1)
        (0.5, 0.2)
    """
    schedule = getattr(network, "noise_schedule", None)
    if schedule is None or not callable(getattr(network, "score", None)):
        raise ArgumentTypeError(
            "from_bayesflow takes a bayesflow.networks.DiffusionModel, which has a noise_schedule "
            f"and a score, not {shown(network)}; e.g. approximator.inference_network"
        )
    low, high = 0.5 * float(schedule.log_snr_min), 0.5 * float(schedule.log_snr_max)
    kind = schedule._variance_type
    if kind == "preserving":
        first, last = (2.0 / math.pi * math.atan(math.exp(-lam)) for lam in (high, low))
        process: LinearProcess = VPCosine(s=0.0, t_min=first, t_max=last)
    elif kind == "exploding":
        process = EDM(sigma_min=math.exp(-high), sigma_max=math.exp(-low))
    else:
        raise ArgumentError(
            f"the noise schedule is of the kind {kind!r}; srk knows 'preserving' and 'exploding'"
        )
    given = {} if conditions is None else {"conditions": conditions}
    return process, Score(_Asked(network), time="log-snr", model_kwargs=given)


__all__ = ["from_bayesflow"]
