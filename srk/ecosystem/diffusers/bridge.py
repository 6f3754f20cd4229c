"""The other way: the networks of diffusers as predictions for `srk.solve`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from srk.ecosystem.diffusers.conventions import Convention, convention
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.processes.base import LinearProcess
from srk.scores import Guided, Hooked, Prediction


def from_diffusers(
    model: Any,
    scheduler: Any,
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    negative_kwargs: Mapping[str, Any] | None = None,
    guidance_scale: float | None = None,
    event_shape: tuple[int, ...] | None = None,
    network_dtype: torch.dtype | None = None,
) -> tuple[LinearProcess, Prediction]:
    """A network of diffusers and the process that it was trained with, for `srk.solve(process,
    score)`.

    Carried over: the noise schedule, what the network predicts, its time and input scale, learned
    variances (dropped), `clip_sample` and `thresholding`. Not carried over: the number and spacing
    of the steps, and the solver, which `srk.solve` chooses.

    Arguments:
        model: a network of diffusers (UNet or transformer), or a callable (x, t) -> Tensor with the
            same conventions.
        scheduler: its scheduler, or the config of one; see `SRKScheduler` for those that are known.
        model_kwargs: further arguments of every call: conditions as tensors of the batch of the run
            or of one row, which is repeated.
        negative_kwargs: the same for the unconditional call of classifier-free guidance; makes two
            calls for each evaluation. More on guidance: `srk.scores.Guided`.
        guidance_scale: w of D_u + w (D_c - D_u); needs `negative_kwargs`.
        event_shape: shape of one sample; default: that of the config of a `UNet2DModel`. Others are
            run at any size: give `shape` to `srk.solve`.
        network_dtype: dtype of the model where it is not that of the state; default: the model's
            own.

    Returns:
        The process, and the prediction.

    Raises:
        IncompatibleError: the scheduler is not known.
        ArgumentError: guidance_scale and negative_kwargs are not given together.

    Examples:
        >>> import srk
        >>> from diffusers import DDPMScheduler, UNet2DModel
        >>> unet = UNet2DModel(
        ...     sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,),
        ...     norm_num_groups=4, layers_per_block=1,
        ...     down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
        >>> process, score = from_diffusers(unet, DDPMScheduler())
        >>> srk.solve(process, score, "srk2m", shape=2, nfe=3, seed=0).x.shape
        torch.Size([2, 1, 8, 8])
    """
    if (guidance_scale is None) != (negative_kwargs is None):
        raise ArgumentError(
            "classifier-free guidance needs guidance_scale and negative_kwargs (the unconditional "
            "call's); give both or neither"
        )
    config = getattr(scheduler, "config", scheduler)
    if not isinstance(config, Mapping):
        raise ArgumentTypeError(
            f"scheduler must be a scheduler of diffusers or the config of one, not {scheduler!r}"
        )
    made = convention(config)
    options = {
        "event_shape": event_shape or _event_shape(model),
        "network_dtype": network_dtype or getattr(model, "dtype", None),
    }
    network = _caller(model, made)
    prediction: Prediction = made.prediction(
        network, model_kwargs=dict(model_kwargs or {}), **options
    )
    if guidance_scale is not None and negative_kwargs is not None:
        prediction = Guided(
            prediction,
            made.prediction(network, model_kwargs=dict(negative_kwargs), **options),
            guidance_scale,
        )
    return made.process, prediction if made.hook is None else Hooked(prediction, made.hook)


def from_pipeline(
    pipe: Any,
    *,
    prompt: str | list[str] | None = None,
    negative_prompt: str | list[str] | None = None,
    guidance_scale: float | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    negative_kwargs: Mapping[str, Any] | None = None,
    event_shape: tuple[int, ...] | None = None,
    network_dtype: torch.dtype | None = None,
) -> tuple[LinearProcess, Prediction]:
    """The network of a pipeline and its process, for `srk.solve(process, score)`.

    The states are those of the network: latents where the pipeline has an autoencoder, as in
    `pipe.vae.decode(sol.x / pipe.vae.config.scaling_factor).sample`. Encoding other than of
    `prompt`, safety checkers, adapters that act between the steps and the pipeline's own loop are
    not carried over.

    Arguments:
        pipe: a pipeline with a network `unet` or `transformer` and a scheduler.
        prompt: text, for pipelines whose `encode_prompt` gives one embedding and its negative
            (Stable Diffusion 1 and 2). For others give the
            embeddings that their network takes, as model_kwargs.
        negative_prompt: text to be guided away from; default the empty one.
        guidance_scale: of classifier-free guidance; with `prompt` 7.5 if not given, and 1 or less
            turns it off.
        model_kwargs, negative_kwargs, event_shape, network_dtype: see `from_diffusers`.

    Returns:
        The process, and the prediction.

    Raises:
        ArgumentTypeError: the pipeline has no network or scheduler where they are looked for.
        IncompatibleError: the scheduler is not known, or `prompt` cannot be encoded.

    Examples:
        >>> import srk
        >>> from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
        >>> unet = UNet2DModel(
        ...     sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,),
        ...     norm_num_groups=4, layers_per_block=1,
        ...     down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
        >>> process, score = from_pipeline(DDPMPipeline(unet, DDPMScheduler()))
        >>> process
        VPDiscrete(N=1000, alphas_cumprod=0.9999 .. 4.03583e-05)
    """
    model = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    if model is None or getattr(pipe, "scheduler", None) is None:
        raise ArgumentTypeError(
            f"{type(pipe).__name__} has no network `unet` or `transformer` with a `scheduler`; use "
            "srk.from_diffusers(model, scheduler)"
        )
    conditions = dict(model_kwargs or {})
    if prompt is None and negative_prompt is not None:
        raise ArgumentError("negative_prompt needs a prompt to guide to; give both")
    if prompt is not None:
        guided = guidance_scale is None or guidance_scale > 1.0
        encoded: Any = (
            pipe.encode_prompt(prompt, pipe.device, 1, guided, negative_prompt)
            if hasattr(pipe, "encode_prompt")
            else ()
        )
        if len(encoded) != 2 or not isinstance(encoded[0], Tensor):
            raise IncompatibleError(
                f"the prompts of {type(pipe).__name__} do not become one embedding and its "
                "negative; encode them with the pipeline, and give what its network takes: "
                "model_kwargs={'encoder_hidden_states': ...}, negative_kwargs=..., "
                "guidance_scale=..."
            )
        guidance_scale = (7.5 if guidance_scale is None else guidance_scale) if guided else None
        negative_kwargs = {**conditions, "encoder_hidden_states": encoded[1]} if guided else None
        conditions["encoder_hidden_states"] = encoded[0]
    return from_diffusers(
        model,
        pipe.scheduler,
        model_kwargs=conditions,
        negative_kwargs=negative_kwargs,
        guidance_scale=guidance_scale,
        event_shape=event_shape,
        network_dtype=network_dtype,
    )


def _caller(model: Any, made: Convention) -> Callable[..., Tensor]:
    """The model as a function of (x, t) and its conditions."""
    if not callable(model):
        raise ArgumentTypeError(
            f"a model is a network of diffusers or a callable (x, t) -> Tensor, not {model!r}"
        )
    forward = getattr(model, "forward", model)
    named = "hidden_states" in inspect.signature(forward).parameters
    per_mille = made.family == "flow" and type(model).__name__.startswith(
        "Flux"
    )  # they multiply the time by 1000 themselves

    def call(x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        given = {name: _rows(value, x.shape[0]) for name, value in conditions.items()}
        time = t / 1000 if per_mille else t
        out = model(hidden_states=x, timestep=time, **given) if named else model(x, time, **given)
        result: Tensor = out if isinstance(out, Tensor) else out[0]
        return result

    return call


def _rows(value: Any, batch: int) -> Any:
    """A condition of one row for every sample of the batch."""
    if isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == 1 and batch > 1:
        return value.expand(batch, *value.shape[1:])
    return value


def _event_shape(model: Any) -> tuple[int, ...] | None:
    """The shape of one sample, where the network is for one size: an unconditional UNet."""
    if type(model).__name__ != "UNet2DModel" or model.config.sample_size is None:
        return None
    size = model.config.sample_size
    return (model.config.in_channels, *((size, size) if isinstance(size, int) else size))
