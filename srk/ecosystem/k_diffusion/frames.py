"""In which frame a host runs its model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch

from srk._checks import is_real
from srk.errors import IncompatibleError

Frame = Literal["auto", "edm", "flow"]


def frame_of(model: Any) -> Literal["edm", "flow"]:
    """The frame in which a host runs a model: "flow" for SD3, Flux and their kin, else "edm".

    ComfyUI, Forge and A1111 wrap their models several times; inside is an object with a method
    `noise_scaling(sigma, noise, latent)`, which makes the state of the first step. It is asked for
    the state without noise at sigma = 1/2, which is 1/2 of the latent in the frame of rectified
    flow and the latent itself in that of k-diffusion.

    Arguments:
        model: what the host passes to a sampler.

    Returns:
        The frame; "edm" for a model with nothing of the kind, such as a plain function.

    Raises:
        IncompatibleError: the state is neither.
    """
    for thing in _inside(model):
        scaling = getattr(thing, "noise_scaling", None)
        if callable(scaling):
            latent = torch.ones(1, 1, 1, 1)
            share = float(scaling(torch.tensor(0.5), torch.zeros(1, 1, 1, 1), latent).mean())
            if abs(share - 0.5) < 1e-3:
                return "flow"
            if abs(share - 1.0) < 1e-3:
                return "edm"
            raise IncompatibleError(
                f"the model's state at sigma = 0.5 holds {share:.4g} of the latent, which is "
                "neither the frame of k-diffusion (1) nor that of rectified flow (0.5)"
            )
    return "edm"


def guidance_scale_of(model: Any, extra_args: Mapping[str, Any]) -> float | None:
    """The guidance scale that a host runs a model at; None where it does not say.

    A1111 and Forge pass it as `cond_scale`; in ComfyUI it is the attribute `cfg` of a guider.

    Arguments:
        model: what the host passes to a sampler.
        extra_args: the arguments that it passes on to the model.
    """
    said: list[Any] = [extra_args.get("cond_scale")]
    said += [getattr(thing, "cfg", None) for thing in _inside(model)]
    return next((float(scale) for scale in said if is_real(scale)), None)


def _inside(model: Any) -> Iterator[Any]:
    """A model and the objects that a host has wrapped in it, each once."""
    waiting: list[Any] = [model]
    seen: set[int] = set()
    while waiting and len(seen) < 64:
        thing = waiting.pop(0)
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        yield thing
        for name in ("model_sampling", "predictor", "inner_model", "model_wrap", "model"):
            inner = getattr(thing, name, None)
            if inner is not None:
                waiting.append(inner)
