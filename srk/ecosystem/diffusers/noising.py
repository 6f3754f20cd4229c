"""Noise put on data at the timesteps of a scheduler."""

from __future__ import annotations

import torch
from torch import Tensor

from srk.ecosystem.diffusers.conventions import Convention
from srk.ecosystem.diffusers.scheduled import Scheduled, comparison
from srk.errors import (
    ArgumentError,
)
from srk.processes.base import Level


class Noising(Scheduled):
    """A scheduler that makes noisy states of data, for training and image-to-image pipelines."""

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha x0 + sigma eps at the network times `timesteps`, in the run or of the training.

        Arguments:
            original_samples: x0, (batch, *event).
            noise: eps, same shape.
            timesteps: (batch,) or one for all.
        """
        self._noised = True
        alpha, sigma = self._scales(original_samples, timesteps)
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` under the name and argument order of the flow schedulers."""
        return self.add_noise(sample, noise, torch.as_tensor(timestep))

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha eps - sigma x0, what a network with "v_prediction" is trained to say."""
        if self.config.frame is not None:
            raise ArgumentError("get_velocity is for training; make a scheduler without frame")
        alpha, sigma = self._scales(sample, timesteps)
        return alpha * noise - sigma * sample

    def _scales(self, sample: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma (in the frame of the states) at `timesteps`, to be multiplied with x0."""
        timesteps = torch.as_tensor(timesteps)
        level = [self._level(t) for t in timesteps.flatten().cpu()]
        if len(level) not in (1, sample.shape[0]):
            raise ArgumentError(
                f"{len(level)} timesteps for {sample.shape[0]} samples; give one for all, or one "
                "for each"
            )
        pairs = [(at.alpha, at.sigma) for at in level]
        if self.config.frame is not None:
            pairs = [(1.0, at.r) for at in level]
        shape = (-1, *[1] * (sample.ndim - 1))
        alpha, sigma = (
            torch.tensor(values, dtype=sample.dtype, device=sample.device).view(shape)
            for values in zip(*pairs, strict=True)
        )
        return alpha, sigma

    def _level(self, timestep: Tensor) -> Level:
        """The level of a timestep: of the run where it is one of those, else of the training."""
        value = float(timestep)
        same = comparison(timestep, value)
        begin = self._begin_index if self._step_index is None else self._step_index
        first = begin or 0
        order = [*range(first, len(self._values)), *range(first)]
        made: Convention = self._convention
        found = next((i for i in order if same(self._values[i])), None)
        return made.level(value) if found is None else self._entries[found].level
