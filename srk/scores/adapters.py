"""Adapters: a network of any of the usual parameterizations, read as the denoiser.

Each one calls the network with the input and the time that it was trained with, checks what comes
back, and says with which coefficients the denoiser follows from it: D = a x + b output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from torch import Tensor

from srk.errors import ArgumentTypeError, IncompatibleError
from srk.scores import convert
from srk.scores.base import Prediction, Rows, one_by_one
from srk.scores.inputs import LevelFunction, check_input_scale, check_time_unit, scale_value
from srk.scores.network_prediction import NetworkPrediction
from srk.scores.phase import PhaseScore

if TYPE_CHECKING:
    from srk.processes.base import ForwardProcess, Level
    from srk.processes.manifold import ManifoldProcess

__all__ = [
    "Data",
    "EDMDenoiser",
    "FlowVelocity",
    "NetworkPrediction",
    "NoisePrediction",
    "Score",
    "Velocity",
    "as_prediction",
]


class Score(NetworkPrediction):
    """A network that returns the score grad log p_t(x): D = (x + sigma^2 s)/alpha.

    Options: see `NetworkPrediction`.

    Undetermined at alpha = 0 (`IncompatibleError`). At high noise the difference cancels: the error
    of the score is magnified by sigma^2/alpha, as it must be. A bare callable `(x, t) -> score`
    given to `srk.solve` is wrapped in this.

    Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential
    Equations", 2021; Tweedie's formula.

    Examples:
        >>> import torch
        >>> from srk.processes import VP
        >>> process, x = VP(), torch.tensor([[2.0]])
        >>> score = Score(lambda x, t: -x)  # data N(0, 1) under a variance-preserving process
        >>> score.denoise(x, process.level(0.5), process) / process.alpha(0.5)  # D = alpha x
        tensor([[2.0000]])
    """

    _output_is = "score"

    def _on_manifold(self, process: ManifoldProcess) -> Prediction:
        return self

    def _in_phase_space(self, process: ForwardProcess) -> Prediction:
        if self.input_scale != "x":
            raise IncompatibleError(
                f"a network of the phase-space state of {process!r} gets it as it is; leave out "
                f"input_scale={self.input_scale!r}"
            )
        return PhaseScore(self)

    def coefficients(self, level: Level) -> convert.Pair:
        return convert.denoiser_from_score(level, scale_value(self.input_scale, level))

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """The score at `x`, straight from the network.

        Needs neither alpha nor sigma, so it serves nonlinear processes too.
        """
        return convert.combine(
            (0.0, scale_value(self.input_scale, level)), x, self.output(x, level, process)
        )

    def score_each(self, rows: Rows, process: ForwardProcess) -> Tensor:
        if type(self).score is not Score.score or self._asks_in_its_own_way("output"):
            return one_by_one(self, "score", rows, process)
        pairs = [(0.0, scale_value(self.input_scale, level)) for level in rows.levels]
        return self._combine_each(pairs, rows, process)


class NoisePrediction(NetworkPrediction):
    """A network that returns the noise E[eps | x_t]: D = (x - sigma eps)/alpha.

    Options: see `NetworkPrediction`.

    Undetermined at alpha = 0 (`IncompatibleError`).

    Source: Ho et al., "Denoising Diffusion Probabilistic Models", 2020.

    Examples:
        >>> network = lambda x, t: 0 * x
        >>> NoisePrediction(network, time="index", num_timesteps=1000, channels="first-half")
        NoisePrediction(<lambda>, time='index', num_timesteps=1000, channels='first-half')
    """

    _output_is = "noise"

    def coefficients(self, level: Level) -> convert.Pair:
        return convert.denoiser_from_noise(level)


class Data(NetworkPrediction):
    """A network that returns the denoiser E[x0 | x_t] itself. Options: see `NetworkPrediction`.

    Fine at every level. For `srk.Torus` and `srk.SO3` the network returns angles or rotations
    without noise, and the score is that of the heat kernel around them.

    Examples:
        >>> Data(lambda x, t: 0 * x, time="half-log-snr", event_shape=[3, 32, 32]).event_shape
        (3, 32, 32)
    """

    of_data = True
    _output_is = "data"

    def _on_manifold(self, process: ManifoldProcess) -> Prediction:
        return self

    def coefficients(self, level: Level) -> convert.Pair:
        return 0.0, 1.0


class Velocity(NetworkPrediction):
    """A network that returns v = alpha eps - sigma x0.

    D = (alpha x - sigma v)/(alpha^2 + sigma^2). Options: see `NetworkPrediction`.

    Fine at every level, alpha = 0 included. With `input_scale` k it returns v = k (alpha eps -
    sigma x0), the v of its own scale.

    Source: Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022.

    Examples:
        >>> network = lambda x, t: 0 * x  # a v-network of Stable Diffusion, in any process
        >>> Velocity(network, input_scale="vp", time="index", num_timesteps=1000)
        Velocity(<lambda>, time='index', num_timesteps=1000, input_scale='vp')
    """

    _output_is = "velocity"

    def coefficients(self, level: Level) -> convert.Pair:
        return convert.denoiser_from_velocity(level, scale_value(self.input_scale, level))


class FlowVelocity(NetworkPrediction):
    """A network that returns w = eps - x0: D = (x - sigma w)/(alpha + sigma).

    Options: see `NetworkPrediction`.

    Fine at every level, alpha = 0 included. In the rectified flow alpha = 1 - t, sigma = t it is
    dx/dt. For a network that returns x0 - eps, with time running from noise to data, wrap `lambda
    x, t: -network(x, 1 - t)`.

    Source: Lipman et al., "Flow Matching for Generative Modeling", 2023; Liu et al., "Flow Straight
    and Fast", 2023.

    Examples:
        >>> network = lambda x, t: 0 * x  # a flow network, in any process
        >>> FlowVelocity(network, input_scale="flow", time="flow")
        FlowVelocity(<lambda>, time='flow', input_scale='flow')
    """

    _output_is = "flow"

    def coefficients(self, level: Level) -> convert.Pair:
        return convert.denoiser_from_flow_velocity(level)


@attrs.frozen(eq=False, repr=False)
class EDMDenoiser(NetworkPrediction):
    """A network (u, sigma_edm) -> D that denoises u = x/alpha at noise sigma_edm = sigma/alpha.

    Options: see `NetworkPrediction`.

    Its input scale is "u" and its time "sigma", which are infinite at alpha = 0
    (`IncompatibleError`).

    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models",
    2022: the preconditioned D_theta.

    Examples:
        >>> import torch
        >>> from srk.processes import EDM, VP
        >>> denoiser = EDMDenoiser(lambda u, sigma: u / (1 + sigma[:, None] ** 2))  # data N(0, 1)
        >>> denoiser.denoise(torch.tensor([[2.0]]), EDM().level(1.0), EDM())
        tensor([[1.]])
        >>> process, x = VP(), torch.tensor([[2.0]])  # the same network in another process
        >>> denoiser.denoise(x, process.level(0.5), process) / process.alpha(0.5)
        tensor([[2.]])
    """

    of_data = True
    _output_is = "data"

    time: str | LevelFunction = attrs.field(
        default="sigma", kw_only=True, validator=lambda _, __, value: check_time_unit(value)
    )
    input_scale: str | LevelFunction = attrs.field(
        default="u", kw_only=True, validator=lambda _, __, value: check_input_scale(value)
    )

    def coefficients(self, level: Level) -> convert.Pair:
        return 0.0, 1.0


def as_prediction(obj: object) -> Prediction:
    """`obj` as a prediction.

    Predictions as they are, a bare callable `(x, t) -> score` as `Score(obj)`.

    Arguments:
        obj: an adapter, an exact score, or a callable; t is a (batch,) tensor in the process's own
            time.

    Raises:
        ArgumentTypeError: it is none of these.

    Examples:
        >>> as_prediction(lambda x, t: -x)
        Score(<lambda>)
    """
    if isinstance(obj, Prediction):
        return obj
    if isinstance(obj, type) and issubclass(obj, Prediction):
        raise ArgumentTypeError(
            f"{obj.__name__} is an adapter without its network; pass srk.{obj.__name__}(network)"
        )
    if callable(obj) and not isinstance(obj, type):
        return Score(obj)
    if callable(getattr(obj, "score", None)) and not isinstance(obj, type):
        raise ArgumentTypeError(
            f"{obj!r} is a distribution, not a score; pass its exact score: target.score(process)"
        )
    raise ArgumentTypeError(
        "a score is a callable (x, t) -> score, an adapter such as srk.NoisePrediction(network), "
        f"or a target's exact score, not {type(obj).__name__}"
    )
