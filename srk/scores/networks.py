"""Networks of the field's code bases.

For each calling convention a function that gives the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.processes.base import Level, LinearProcess
from srk.processes.discrete import VPDiscrete
from srk.processes.subvp import SubVP
from srk.processes.ve import VE
from srk.processes.vp import VP
from srk.scores.adapters import (
    Data,
    EDMDenoiser,
    NoisePrediction,
    Score,
)
from srk.scores.inputs import LevelFunction
from srk.scores.network_prediction import Network, NetworkPrediction


def guided_diffusion(
    model: Network,
    process: VPDiscrete | None = None,
    *,
    learn_sigma: bool = False,
    predict: Literal["noise", "data"] = "noise",
    rescale_timesteps: bool = False,
    timestep_map: Sequence[int] | None = None,
    num_timesteps: int | None = None,
    rounded: bool = False,
    **options: Any,
) -> NetworkPrediction:
    """A network of improved-diffusion (iDDPM) or guided-diffusion.

    `model(x, t, y=...)`, t the training index.

    The names of the arguments are those of their `create_model_and_diffusion`. The adapter serves
    every linear process, by the index of the same signal-to-noise ratio. Indices between those of
    the training are passed as they are, for the network embeds them as real numbers.

    Arguments:
        model: callable (x, t, **model_kwargs) -> output (batch, C, ...), or (batch, 2C, ...) with
            `learn_sigma`.
        process: the discrete process of the training, `srk.VPDiscrete(betas=diffusion.betas)`;
            default the linear schedule with 1000 steps.
        learn_sigma: the second half of the output's channels is the learned variance, which is left
            out: the solvers of srk have their own.
        predict: "noise", or "data" for `predict_xstart`.
        rescale_timesteps: the model wants the index times 1000/N, N the number of training steps.
        timestep_map: where `process` has the betas of a respaced chain (`SpacedDiffusion`): the
            training index of each of its steps, `diffusion.timestep_map`. A grid of
            `respaced_timesteps` on the training process does the same without it.
        num_timesteps: N, where it is not the length of `process`, that is with `timestep_map`.
        rounded: pass the nearest index as torch.long, for a network that looks it up in a table.
        options: model_kwargs (e.g. {"y": labels}), event_shape, network_dtype, as in
            `srk.NoisePrediction`.

    Returns:
        A `srk.NoisePrediction` or `srk.Data`.

    Raises:
        ArgumentError: an unknown `predict`, or a map that does not fit the process.
        TimeError: on a call, at a noise level outside the training range.

    Source: Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021;
    github.com/openai/guided-diffusion.

    Examples:
        >>> import srk, torch
        >>> model = lambda x, t: torch.cat([0.1 * x, torch.zeros_like(x)], 1)  # noise and variance
        >>> score = guided_diffusion(model, learn_sigma=True, event_shape=(3, 8, 8))
        >>> grid = respaced_timesteps(1000, "25")
        >>> srk.solve(srk.VPDiscrete(), score, "ddpm", grid=grid, seed=0).nfe
        25
    """
    if predict not in ("noise", "data"):
        raise ArgumentError(
            f"predict is 'noise' (epsilon) or 'data' (predict_xstart=True), not {predict!r}"
        )
    home = VPDiscrete() if process is None else process
    if not isinstance(home, VPDiscrete):
        raise ArgumentTypeError(
            "process is the discrete process of the training, e.g. "
            f"srk.VPDiscrete(betas=diffusion.betas), not {process!r}"
        )
    length = len(home.alphas_cumprod)
    if timestep_map is not None and (len(timestep_map) != length or num_timesteps is None):
        raise ArgumentError(
            f"timestep_map has {len(timestep_map)} entries for a process of {length} steps; give "
            "one index for each step of the respaced process, and the length of "
            "the training as num_timesteps: guided_diffusion(model, "
            "srk.VPDiscrete(betas=diffusion.betas), timestep_map=diffusion.timestep_map, "
            "num_timesteps=1000)"
        )
    factor = 1000.0 / (num_timesteps or length) if rescale_timesteps else 1.0
    steps = np.arange(length)

    def time(level: Level) -> float:
        index = home.time(level.lam)
        return factor * (
            index if timestep_map is None else float(np.interp(index, steps, timestep_map))
        )

    network = _rounded(model) if rounded else model
    adapter = NoisePrediction if predict == "noise" else Data
    return adapter(
        network,
        time=time,
        input_scale="vp",
        channels="first-half" if learn_sigma else "all",
        **options,
    )


def respaced_timesteps(num_timesteps: int, sections: str | int | Sequence[int]) -> list[int]:
    """The training steps that a respaced chain of improved- or guided-diffusion visits.

    They are a grid for `srk.solve` with `srk.VPDiscrete`.

    Their sampler also starts with unit noise where the first step is not the last of the training,
    as with "ddim25"; `srk.solve` then asks for that state: `x_init`.

    Arguments:
        num_timesteps: number of training steps.
        sections: number of steps; or one for each of several equal sections of the training steps,
            the first at the data, as a list or as "10,15,20"; or "ddimN" for every k-th step such
            that there are N.

    Returns:
        Indices from noise to data, decreasing. The last one is 0, because the final denoising
        of `srk.solve` is the last step of their sampler.

    Raises:
        ArgumentError: more steps than there are, or no integer stride for "ddimN".

    Source: Nichol and Dhariwal 2021, section 4; `space_timesteps` of
    github.com/openai/guided-diffusion.

    Examples:
        >>> respaced_timesteps(300, "3,2")
        [299, 150, 149, 74, 0]
        >>> respaced_timesteps(1000, "ddim5")
        [800, 600, 400, 200, 0]
    """
    if isinstance(sections, str) and sections.startswith("ddim"):
        wanted = _count(sections.removeprefix("ddim"))
        stride = next(
            (i for i in range(1, num_timesteps) if len(range(0, num_timesteps, i)) == wanted), None
        )
        if stride is None:
            raise ArgumentError(
                f"no integer stride visits exactly {wanted} of {num_timesteps} steps; use "
                f"{str(wanted)!r} for a stride that is rounded"
            )
        return list(range(0, num_timesteps, stride))[::-1]
    parts = (
        sections.split(",")
        if isinstance(sections, str)
        else [sections]
        if isinstance(sections, int)
        else sections
    )
    counts = [_count(part) for part in parts]
    size, extra = divmod(num_timesteps, len(counts))
    steps: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        length = size + (i < extra)
        if count > length:
            raise ArgumentError(
                f"a section of {length} training steps cannot give {count}; ask for fewer than "
                f"{num_timesteps} in all, spread over {len(counts)} sections"
            )
        spacing = (length - 1) / (count - 1) if count > 1 else 1.0
        # sums, not products: the rounding of theirs
        place = 0.0
        for _ in range(count):
            steps.append(start + round(place))
            place += spacing
        start += length
    return steps[::-1]


def score_sde(
    model: Network, process: LinearProcess, *, num_scales: int | None = None, **options: Any
) -> NetworkPrediction:
    """A network of score_sde (NCSN++, DDPM++).

    `model(x, labels)`, whose labels and output depend on the process of the training.

    | process              | labels                     | output                 |
    | -------------------- | -------------------------- | ---------------------- |
    | VP, SubVP            | 999 t                      | -sigma times the score |
    | VPDiscrete           | the training index         | -sigma times the score |
    | VE                   | sigma                      | the score              |
    | VE with `num_scales` | (N - 1)(1 - t), torch.long | the score              |

    The adapter serves every linear process, by the time of the same signal-to-noise ratio. The data
    are in the range of the training: [0, 1], or [-1, 1] with `config.data.centered`.

    Arguments:
        model: callable (x, labels) -> output of the shape of `x`; the network itself, not
            `get_score_fn(sde, model)`, which is a bare score for `srk.solve`.
        process: the process of the training.
        num_scales: N, for a VE network trained on a finite list of noise levels
            (`config.training.continuous = False`).
        options: model_kwargs, event_shape, network_dtype, as in `srk.NoisePrediction`.

    Returns:
        A `srk.NoisePrediction` or, for VE, a `srk.Score`.

    Raises:
        IncompatibleError: another process.
        TimeError: on a call, at a noise level outside the training range.

    Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential
    Equations", 2021; github.com/yang-song/score_sde_pytorch, models/utils.py.

    Examples:
        >>> import srk, torch
        >>> # data N(0, 1) under VP: score -x
        >>> model = lambda x, labels: x * srk.VP().sigma(labels[0].item() / 999)
        >>> score = score_sde(model, srk.VP())
        >>> level = srk.VP().level(0.5)
        >>> score.denoise(torch.tensor([[2.0]]), level, srk.VP()) / level.alpha
        tensor([[2.0000]])
    """
    scale = _scale_of(process)
    if isinstance(process, VE):
        if num_scales is None:
            return Score(model, time="sigma", input_scale="u", **options)
        last = num_scales - 1
        return Score(
            _rounded(model),
            time=lambda level: last * (1.0 - process.time(level.lam)),
            input_scale="u",
            **options,
        )
    if num_scales is not None:
        raise ArgumentError(
            "num_scales is for srk.VE; a network trained on a finite list of betas has the "
            f"process srk.VPDiscrete, not {process!r}"
        )
    if isinstance(process, (VP, SubVP)):
        return NoisePrediction(
            model, time=lambda level: 999.0 * process.time(level.lam), input_scale=scale, **options
        )
    if isinstance(process, VPDiscrete):
        return NoisePrediction(
            model, time=lambda level: process.time(level.lam), input_scale=scale, **options
        )
    raise IncompatibleError(
        f"score_sde trains with VP, SubVP, VE or VPDiscrete, not {process!r}; use an adapter, "
        "e.g. srk.NoisePrediction(model, time=...)"
    )


def edm(
    net: Network,
    class_labels: Tensor | None = None,
    *,
    expand_sigma: bool = False,
    model_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> EDMDenoiser:
    """A network of EDM or EDM2.

    `net(x, sigma, class_labels)`, the denoiser at x0 + sigma eps, with any of their
    preconditionings.

    The network is called in float32 and its output cast back to the dtype of the state. Load it
    yourself, from a source that you trust: EDM distributes pickles, which run code when they are
    opened.

    Arguments:
        net: callable (x, sigma, class_labels=..., **model_kwargs) -> D. Without `class_labels` it
            is called as net(x, sigma, **model_kwargs).
        class_labels: one-hot labels, shape (batch, label_dim); None for unconditional.
        expand_sigma: pass sigma as (batch, 1, ..., 1) instead of (batch,). EDM's own networks take
            both.
        model_kwargs: further keyword arguments, e.g. {"force_fp32": True}.
        options: event_shape (default: from the network's `img_channels` and `img_resolution`, where
            it has them), network_dtype.

    Returns:
        A `srk.EDMDenoiser`, for every linear process.

    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models",
    2022; github.com/NVlabs/edm, training/networks.py.

    Examples:
        >>> import srk, torch
        >>> def net(x, sigma, class_labels=None):  # data N(0, 1)
        ...     return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)
        >>> options = {"eta": 0.0, "grid": "karras", "steps": 18, "seed": 0}
        >>> srk.solve(srk.EDM(), edm(net), "edm-heun", shape=(2, 3, 8, 8), **options).nfe
        37
    """
    if (
        options.get("event_shape") is None
        and hasattr(net, "img_channels")
        and hasattr(net, "img_resolution")
    ):
        options["event_shape"] = (net.img_channels, net.img_resolution, net.img_resolution)
    options.setdefault("network_dtype", torch.float32)

    def network(x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        return net(x, sigma.reshape(-1, *[1] * (x.ndim - 1)) if expand_sigma else sigma, **kwargs)

    labels = {} if class_labels is None else {"class_labels": class_labels}
    return EDMDenoiser(network, model_kwargs={**labels, **(model_kwargs or {})}, **options)


def k_diffusion(
    model: Network, extra_args: Mapping[str, Any] | None = None, **options: Any
) -> EDMDenoiser:
    """A model of k-diffusion: `model(x, sigma, **extra_args)`, the denoiser at x0 + sigma eps.

    Their wrappers of other networks included.

    Arguments:
        model: callable (x, sigma, **extra_args) -> D, sigma of shape (batch,).
        extra_args: keyword arguments of every call, e.g. {"class_cond": labels}.
        options: event_shape, network_dtype, as in `srk.NoisePrediction`.

    Returns:
        A `srk.EDMDenoiser`, for every linear process.

    Source: github.com/crowsonkb/k-diffusion. The other way round, srk's solvers for k-diffusion's
    hosts: `srk.ecosystem.k_diffusion`.

    Examples:
        >>> import srk
        >>> model = lambda x, sigma: x / (1 + sigma[:, None] ** 2)  # data N(0, 1)
        >>> srk.solve(srk.EDM(), k_diffusion(model), "srk2m", shape=(4, 1), nfe=20, seed=0).nfe
        20
    """
    return EDMDenoiser(model, model_kwargs=dict(extra_args or {}), **options)


def _rounded(model: Network) -> Network:
    def network(x: Tensor, t: Tensor, **kwargs: Any) -> Tensor:
        return model(x, t.round().long(), **kwargs)

    return network


def _scale_of(home: LinearProcess) -> LevelFunction:
    """The factor that brings a state of any process to the scale of `home`.

    The signal-to-noise ratio stays the same.
    """

    def scale(level: Level) -> float:
        there = home.level_at(level.lam)
        factor = there.sigma / level.sigma if level.lam < 0.0 else there.alpha / level.alpha
        return 1.0 if abs(factor - 1.0) < 1e-12 else factor  # the process itself, up to rounding

    return scale


def _count(value: Any) -> int:
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise ArgumentError(
            f"a number of steps is a positive integer, not {value!r}; e.g. "
            "respaced_timesteps(1000, '25') or '10,15,20'"
        )
    return count


__all__ = ["edm", "guided_diffusion", "k_diffusion", "respaced_timesteps", "score_sde"]
