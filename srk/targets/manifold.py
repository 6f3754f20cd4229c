"""Mixtures on the torus and on the rotations, whose score is exact at every noise level."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from srk._checks import shown
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.processes.base import ForwardProcess
from srk.processes.level import Level
from srk.processes.manifold import ManifoldProcess
from srk.processes.so3 import SO3
from srk.processes.torus import Torus
from srk.scores.base import Prediction
from srk.targets.base import check_count, parameter
from srk.targets.drawing import draw_options


class ManifoldMixture:
    """Base of `TorusMixture` and `RotationMixture`: points that Brownian motion has spread.

    A component is the heat kernel of variance std^2 around its mean, so that after the noise of a
    process it is that of variance std^2 + sigma(t)^2.

    Arguments:
        space: the process whose space it is; its noise does not matter.
        weights: K positive numbers.
        means: the points, shape (K, *event).
        stds: the widths of the components, K numbers or one, which may be 0.
    """

    kind: ClassVar[type[ManifoldProcess]]

    def __init__(self, space: ManifoldProcess, weights: Any, means: Tensor, stds: Any) -> None:
        w, s = parameter(weights, "the weights"), parameter(stds, "the standard deviations")
        if w.ndim != 1 or w.numel() == 0 or float(w.min()) <= 0.0:
            raise ArgumentError(f"the weights are K positive numbers, not {shown(weights)}")
        if means.ndim < 2 or len(means) != len(w):
            raise ArgumentError(
                f"the means have shape {tuple(means.shape)}; for {len(w)} weights it is "
                f"({len(w)}, *event)"
            )
        if s.ndim > 1 or s.numel() not in (1, len(w)) or float(s.min()) < 0.0:
            raise ArgumentError(
                f"the standard deviations are {len(w)} numbers >= 0, or one, not {shown(stds)}"
            )
        self.space = space
        self.weights, self.means, self.stds = w / w.sum(), means, s.expand(len(w)).clone()
        self.event_shape = tuple(means.shape[1:])

    def score(self, process: ManifoldProcess) -> ManifoldScore:
        """The exact score of this target under `process`, to be given to `srk.solve`."""
        return ManifoldScore(self, self._own(process))

    def log_density(
        self, x: Tensor, process: ManifoldProcess | None = None, t: float | None = None
    ) -> Tensor:
        """Log-density at own time `t` of `process`, or of the data; differentiable in `x`.

        Arguments:
            x: states, shape (batch, *event).
            process, t: a process and its own time, both or neither.

        Returns:
            A tensor (batch,), per unit of each angle of a torus, relative to the uniform
            distribution for rotations.
        """
        space, variance = self._at(process, t)
        return torch.logsumexp(self._logs(x, space, variance), 1).to(x.dtype)

    def score_at(self, x: Tensor, process: ManifoldProcess, variance: float) -> Tensor:
        """The score where noise of `variance` has come to the data: tangent vectors at `x`."""
        shares = torch.softmax(self._logs(x, process, variance), 1)
        means, spread = self._components(x, variance)
        scores = process.kernel_score(x[:, None].to(means.dtype), means, spread)
        weights = shares.reshape(*shares.shape, *[1] * len(self.event_shape))
        return (weights * scores).sum(1).to(x.dtype)

    def sample(
        self,
        n: int,
        process: ManifoldProcess | None = None,
        t: float | None = None,
        *,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw exact samples of the data, or of the noisy data at own time `t` of `process`.

        Arguments:
            n: how many.
            process, t: a process and its own time, both or neither.
            generator: where the randomness comes from; PyTorch's global generator by default.
            seed: makes a generator of its own instead.
            dtype, device: of the samples.

        Returns:
            Tensor of shape (n, *event).
        """
        n = check_count(n, 0, "n is the number of samples")
        options = draw_options(generator, seed, dtype, device)
        space, variance = self._at(process, t)
        chances = torch.rand(n, **options)
        normals = torch.randn((n, *self.event_shape), **options)
        steps = self.weights.cumsum(0).to(chances)
        which = torch.searchsorted(steps, chances, right=True).clamp_max(len(steps) - 1)
        means, spread = self._components(normals, variance)
        kind = options["dtype"]
        return space.move(means[which].to(kind), normals, spread[which].to(kind))

    def _own(self, process: object) -> ManifoldProcess:
        if not isinstance(process, self.kind):
            raise ArgumentTypeError(
                f"{self!r} has a score under an srk.{self.kind.__name__}, not {shown(process)}"
            )
        own, given = getattr(self.space, "period", None), getattr(process, "period", None)
        if own != given:
            raise IncompatibleError(
                f"{self!r} has the period {own!r}, but {process!r} has {given!r}; make both the "
                "same"
            )
        return process

    def _at(self, process: object, t: float | None) -> tuple[ManifoldProcess, float]:
        """The space, and the variance of the noise."""
        if (process is None) != (t is None):
            raise ArgumentError(
                "process and t belong together; give both for the distribution at time t, or "
                "neither for the data"
            )
        if process is None or t is None:
            return self.space, 0.0
        own = self._own(process)
        return own, own.level(t).sigma ** 2

    def _components(self, x: Tensor, variance: float) -> tuple[Tensor, Tensor]:
        """Means (K, *event), and variances that broadcast with them."""
        kind = torch.float32 if x.device.type == "mps" else torch.float64
        means = self.means.to(x.device, kind)
        spread = (self.stds.square() + variance).to(x.device, kind)
        return means, spread.reshape(-1, *[1] * len(self.event_shape))

    def _logs(self, x: Tensor, space: ManifoldProcess, variance: float) -> Tensor:
        """Logarithms of the weighted components, (batch, K)."""
        if tuple(x.shape[1:]) != self.event_shape:
            raise ArgumentError(
                f"{self!r} has samples of shape {self.event_shape}; a state of shape "
                f"{tuple(x.shape)} is none of its"
            )
        if float(self.stds.min()) == 0.0 and variance == 0.0:
            raise IncompatibleError(
                f"{self!r} has points without width, which have no density without noise; give "
                "process and t"
            )
        means, spread = self._components(x, variance)
        logs = space.log_kernel(x[:, None].to(means.dtype), means, spread)
        return logs.reshape(*logs.shape[:2], -1).sum(2) + self.weights.log().to(logs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.weights)} components, {self.event_shape})"


class TorusMixture(ManifoldMixture):
    """A mixture of wrapped normal distributions, independent in each angle of a component.

    Arguments:
        weights: K positive numbers.
        means: angles, shape (K, *event).
        stds: widths, K numbers or one; 0 for points.
        period: after which an angle comes back; that of the process. None for 2 pi.

    Examples:
        >>> import srk, torch
        >>> target = TorusMixture([1.0], [[3.0]], [0.5])
        >>> a, b = torch.tensor([[3.1]]), torch.tensor([[-3.1]])  # 0.08 apart, across pi
        >>> (target.log_density(a) - target.log_density(b)).abs().item() < 0.1
        True
    """

    kind = Torus

    def __init__(self, weights: Any, means: Any, stds: Any, *, period: float | None = None) -> None:
        space = Torus() if period is None else Torus(period=period)
        points = space.wrap(parameter(means, "the means"))
        super().__init__(space, weights, points, stds)


class RotationMixture(ManifoldMixture):
    """A mixture of IGSO(3) distributions: rotations that Brownian motion has spread.

    Arguments:
        weights: K positive numbers.
        means: rotation vectors, shape (K, 3), or (K, ..., 3) for several rotations in a sample.
        stds: widths in radians, K numbers or one; 0 for points.

    Examples:
        >>> import torch
        >>> target = RotationMixture([0.5, 0.5], [[0.0, 0.0, 1.0], [2.0, 0.0, 0.0]], 0.2)
        >>> target.sample(3, seed=0).shape
        torch.Size([3, 3])
    """

    kind = SO3

    def __init__(self, weights: Any, means: Any, stds: Any) -> None:
        points = parameter(means, "the means")
        if points.ndim < 2 or points.shape[-1] != 3:
            raise ArgumentError(
                f"the means are rotation vectors, shape (K, ..., 3), not {tuple(points.shape)}; "
                "srk.SO3.from_matrix(matrices) makes them of matrices"
            )
        super().__init__(SO3(), weights, points, stds)


@attrs.frozen(eq=False)
class ManifoldScore(Prediction):
    """The exact score of `target` under `process`: a prediction, and a callable (x, t) -> score."""

    target: ManifoldMixture
    process: ManifoldProcess
    event_shape: tuple[int, ...] | None = attrs.field(init=False)

    @event_shape.default
    def _event_shape(self) -> tuple[int, ...]:
        return self.target.event_shape

    def bind(self, process: ForwardProcess) -> Prediction:
        """The exact score of the same target under `process`."""
        return ManifoldScore(self.target, self.target._own(process))

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        raise IncompatibleError(f"there is no mean of the data of {self.target!r}; use its score")

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        return self.target.score_at(x, self.process, level.sigma**2)

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The score at states `x` and one own time for all of them, or one for each."""
        if isinstance(t, Tensor) and t.ndim and len(t) > 1 and bool((t != t[0]).any()):
            return torch.cat([self(x[i : i + 1], float(time)) for i, time in enumerate(t)])
        own = float(t if not isinstance(t, Tensor) else t.flatten()[0])
        return self.target.score_at(x, self.process, self.process.level(own).sigma ** 2)
