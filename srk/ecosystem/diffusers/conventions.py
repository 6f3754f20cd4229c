"""What a diffusers scheduler's config says about its network: which process, in which scale, at
which time, predicting what.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor

from srk.ecosystem.diffusers.configs import OURS, translate
from srk.ecosystem.diffusers.hosts import host
from srk.errors import ArgumentError
from srk.processes import EDM, Flow, VPDiscrete
from srk.processes.base import Level, LinearProcess
from srk.scores import (
    Clip,
    Data,
    DynamicThreshold,
    FlowVelocity,
    NetworkPrediction,
    NoisePrediction,
    Velocity,
)
from srk.scores.convert import Pair

#: Adapter for each prediction type of the families that have adapters in srk.scores.
ADAPTERS: Mapping[str, type[NetworkPrediction]] = {
    "epsilon": NoisePrediction,
    "v_prediction": Velocity,
    "sample": Data,
    "flow_prediction": FlowVelocity,
}

#: What the networks of each family may predict, the usual first.
KINDS: Mapping[str, tuple[str, ...]] = {
    "vp": ("epsilon", "v_prediction", "sample"),
    "flow": ("flow_prediction", "epsilon", "sample"),
    "edm": ("epsilon", "v_prediction"),
}


@attrs.frozen(eq=False, repr=False, kw_only=True)
class Preconditioned(NetworkPrediction):
    """The bare network F of an EDM preconditioning: D = c_skip u + c_out F(c_in u, log(sigma)/4),
    for the process `srk.EDM`.

    With s = sigma_data: c_skip = s^2/(sigma^2 + s^2), |c_out| = sigma s/sqrt(sigma^2 + s^2),
    c_in = 1/sqrt(sigma^2 + s^2).

    Arguments:
        sigma_data: standard deviation of the data that the network was trained with.
        sign: sign of c_out; -1 where F is the velocity ("v_prediction").

    Source: Karras et al. 2022, arXiv 2206.00364, table 1.
    """

    sigma_data: float
    sign: float = 1.0

    def coefficients(self, level: Level) -> Pair:
        s, c = self.sigma_data, math.hypot(level.sigma, self.sigma_data)
        return (s / c) ** 2, self.sign * level.sigma * (s / c)


COSINE = "CosineDPMSolverMultistepScheduler"


def _logarithm(level: Level) -> float:
    """The time that EDM's networks see: log(sigma)/4."""
    return 0.25 * math.log(level.sigma)


def _angle(level: Level) -> float:
    """The time that Stable Audio's network sees: the angle of (1, sigma), in right angles."""
    return math.atan(level.sigma) * 2.0 / math.pi


@attrs.frozen(eq=False, kw_only=True)
class Convention:
    """How a network sees a noisy state, so that what a pipeline feeds to it is what it expects.

    Arguments:
        family: "vp" (states sqrt(a) x0 + sqrt(1 - a) eps, time = training index), "flow"
            ((1 - s) x0 + s eps, time = s times the number of training steps) or "edm" (x0 + sigma
        process: the process of these states.
        adapter: class of the network's adapter.
        options: keyword arguments of the adapter.
        hook: what bounds the denoiser (`clip_sample`, `thresholding`), if anything.
        prior_std: standard deviation of the first state.
    """

    family: str
    process: LinearProcess
    adapter: type[NetworkPrediction]
    options: Mapping[str, Any]
    hook: Clip | DynamicThreshold | None = None
    prior_std: float = 1.0

    def prediction(self, network: Any, **options: Any) -> NetworkPrediction:
        """The adapter around `network`, a callable (x, t) -> output."""
        return self.adapter(network, **{**self.options, **options})

    def level(self, time: float) -> Level:
        """The noise level at network time `time`; just beyond the last training step it is that."""
        if self.family == "vp":
            last = self.process.t_max
            return self.process.level(last if last < time <= last + 1.0 else time)
        if self.family == "flow":
            return self.process.level(time / self.options["time_scale"])
        angle = self.options["time"] is _angle
        sigma, last = (
            math.tan(0.5 * math.pi * time) if angle else math.exp(4.0 * time),
            self.process.t_max,
        )
        return self.process.level(
            last if last < sigma < last * (1.0 + 1e-5) else sigma
        )  # a time in float32


def convention(config: Mapping[str, Any]) -> Convention:
    """The convention of a scheduler's config.

    Raises:
        IncompatibleError: the config asks for what srk has no counterpart of.
        ArgumentError: a value makes no sense.
    """
    if "solver_options" not in config:  # another scheduler's
        config = translate(config, OURS, {})
    family = config.get("process") or "vp"
    options: dict[str, Any] = {}
    if config.get("variance_type") in ("learned", "learned_range"):
        options["channels"] = "first-half"
    train = int(config.get("num_train_timesteps", 1000))
    if family not in KINDS:
        raise ArgumentError(f"process must be 'vp', 'flow' or 'edm', not {family!r}")
    kind = config.get("prediction_type") or KINDS[family][0]
    if kind not in KINDS[family]:
        raise ArgumentError(
            f"prediction_type={kind!r} is not known for process={family!r}; it is one of "
            f"{', '.join(map(repr, KINDS[family]))}"
        )
    hook = _hook(config)
    if family == "edm":
        data, highest = (
            float(config.get("sigma_data") or 0.5),
            float(config.get("sigma_max") or 80.0),
        )
        options |= {
            "sigma_data": data,
            "sign": -1.0 if kind == "v_prediction" else 1.0,
            "time": _angle if config.get("host") == COSINE else _logarithm,
            "input_scale": lambda level: 1.0 / math.hypot(level.sigma, data),
        }
        return Convention(
            family=family,
            process=EDM(sigma_min=0.0, sigma_max=highest),
            adapter=Preconditioned,
            options=options,
            hook=hook,
            prior_std=math.hypot(highest, 1.0),
        )
    if family == "flow":
        options |= {"time": "flow", "time_scale": float(train)}
        return Convention(
            family=family,
            process=Flow(t_min=0.0),
            adapter=ADAPTERS[kind],
            options=options,
            hook=hook,
        )
    options |= {"time": "index"}
    return Convention(
        family=family,
        process=VPDiscrete(alphas_cumprod=alphas_cumprod(config)),
        adapter=ADAPTERS[kind],
        options=options,
        hook=hook,
    )


def alphas_cumprod(config: Mapping[str, Any]) -> Tensor:
    """alphas_cumprod of a config of `SRKScheduler`, to the bit those of its scheduler of diffusers.

    The scheduler itself is asked, so that what its class does to them (`snr_shift_scale`, zero
    terminal SNR) is done.
    """
    made = host(config)
    if not hasattr(made, "alphas_cumprod"):
        made = host({**config, "process": "vp", "host": None})
    found: Tensor = made.alphas_cumprod
    return found.detach().cpu()


def _hook(config: Mapping[str, Any]) -> Clip | DynamicThreshold | None:
    if config.get("thresholding"):
        quantile, largest = config.get("dynamic_thresholding_ratio"), config.get("sample_max_value")
        return DynamicThreshold(
            0.995 if quantile is None else quantile, largest=1.0 if largest is None else largest
        )
    if config.get("clip_sample"):
        bound = config.get("clip_sample_range")
        return Clip(-1.0, 1.0) if bound is None else Clip(-bound, bound)
    return None
