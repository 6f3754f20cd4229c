"""In which frame a host runs its model."""

from __future__ import annotations

from typing import Any, Literal

import torch

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
    waiting: list[Any] = [model]
    seen: set[int] = set()
    while waiting and len(seen) < 64:
        thing = waiting.pop(0)
        if id(thing) in seen:
            continue
        seen.add(id(thing))
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
        for name in ("model_sampling", "predictor", "inner_model", "model_wrap", "model"):
            inner = getattr(thing, name, None)
            if inner is not None:
                waiting.append(inner)
    return "edm"
