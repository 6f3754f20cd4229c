"""What a step of the scheduler returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from srk.ecosystem.diffusers.interface import BaseOutput


@dataclass
class SRKSchedulerOutput(BaseOutput):  # type: ignore[misc]  # diffusers is untyped here
    r"""What `SRKScheduler.step` returns.

    The last four are there with `return_log_prob=True` or `prev_sample`, else None. With n
    coordinates of a sample, m the mean and s the standard deviation,

    $$
    \mathrm{log\_prob} = \sum_{i=1}^n
    \Big[-\frac{(x'_i - m_i)^2}{2 s^2} - \log s - \tfrac12 \log(2\pi)\Big]
    $$

    Arguments:
        prev_sample: the next network input, (batch, *event); after the last call the result.
        pred_original_sample: the denoised prediction at the sample that `step` was given, same
            shape.
        prev_sample_mean: the mean of `prev_sample` given all that the network saw and said before,
            same shape, in float32 or more; differentiable in `model_output`.
        std: its standard deviation, (batch, 1, ..., 1); 0 where the step draws no noise.
        log_prob: the log-density of `prev_sample`, in nats, all constants included, (batch,);
            differentiable in `model_output`, not in `prev_sample`. None where a step draws no
            noise.
        log_prob_mean: `log_prob`/n, the mean over coordinates, which is what the code of ddpo,
            Flow-GRPO and DanceGRPO calls log_prob.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor
    prev_sample_mean: Tensor | None = None
    std: Tensor | None = None
    log_prob: Tensor | None = None
    log_prob_mean: Tensor | None = None
