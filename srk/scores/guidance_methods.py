r"""Guidance beyond one scale: APG, CFG-Zero*, CFG++, autoguidance.

Each replaces $D_u + w (D_c - D_u)$ by another rule, with D_c the prediction given the
condition and D_u the one without it (or that of a weaker network). docs/guidance-methods.md says
which is which.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from srk._checks import as_float, is_real, shown
from srk.errors import ArgumentError, IncompatibleError
from srk.processes.base import Level, LinearProcess
from srk.scores.adapters import as_prediction
from srk.scores.base import Prediction, Rows
from srk.scores.convert import to_flow_velocity
from srk.scores.guidance import Guided
from srk.scores.inputs import LevelFunction
from srk.scores.weights import Scale, as_scale, weight_at

if TYPE_CHECKING:
    from typing import Self

    from srk.processes.base import ForwardProcess


@attrs.frozen(eq=False)
class _Pair(Prediction):
    """A prediction given a condition, one without it, and a scale."""

    condition: Prediction = attrs.field(converter=as_prediction)
    reference: Prediction = attrs.field(converter=as_prediction)
    scale: Scale = attrs.field(default=2.0, converter=as_scale)
    batched: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        self._both()  # the checks of `Guided` serve here too

    @property
    def event_shape(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Shape of one sample, where one of the predictions knows it."""
        known = self.condition.event_shape
        return self.reference.event_shape if known is None else known

    def bind(self, process: ForwardProcess) -> Self:
        """The same with both predictions bound to `process`."""
        if not isinstance(process, LinearProcess):
            raise IncompatibleError(
                f"{type(self).__name__} acts on the denoiser, which {process!r} has not; use a "
                "linear process, or srk.Guided"
            )
        return attrs.evolve(
            self, condition=self.condition.bind(process), reference=self.reference.bind(process)
        )

    def select(self, rows: slice | Tensor, batch: int) -> Self:
        """The same for some samples of a batch."""
        return attrs.evolve(
            self,
            condition=self.condition.select(rows, batch),
            reference=self.reference.select(rows, batch),
        )

    def calls(self, t: float | None = None) -> int:
        """Those of both predictions."""
        return self.condition.calls(t) + self.reference.calls(t)

    def coefficients(self, level: Level) -> tuple[float, float] | None:
        """None: no single output determines the denoiser."""
        return None

    def _both(self) -> Guided:
        # at the scale 2 both predictions have a weight, so that both are asked
        return Guided(self.condition, self.reference, 2.0, batched=self.batched)

    def _denoised(self, x: Tensor, level: Level, process: ForwardProcess) -> tuple[Tensor, Tensor]:
        """(D_c, D_u), in one call of the network where they are batched."""
        values = self._both()._evaluate("denoise", x, level, process)
        _, reference = next(values)
        if not self.batched:  # the other network may write to the memory of this result
            reference = reference.clone()
        _, condition = next(values)
        return condition, reference

    @abstractmethod
    def _guide(self, condition: Tensor, reference: Tensor, x: Tensor, level: Level) -> Tensor:
        """The guided denoiser at `x` of the two denoisers."""

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        condition, reference = self._denoised(x, level, process)
        return self._guide(condition, reference, x, level)

    def denoise_each(self, rows: Rows, process: ForwardProcess) -> Tensor:
        parts = []
        for terms, group, level in self._both()._evaluate_each("denoise_each", rows, process):
            (_, reference), (_, condition) = terms
            parts.append(self._guide(condition, reference, rows.x[group], level))
        return torch.cat(parts)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each sample, shaped to multiply samples; in float32 or more."""
    wide = torch.promote_types(a.dtype, torch.float32)
    value = (a.to(wide) * b.to(wide)).flatten(1).sum(1)
    return value.reshape(-1, *[1] * (a.ndim - 1))


@attrs.frozen(eq=False)
class APG(_Pair):
    r"""Adaptive projected guidance: the part of the guidance along D_c is damped.

    $$D_c + (w - 1) (\Delta_\perp + \eta \Delta_\parallel), \qquad \Delta = (D_c - D_u) \min(1,
    \rho/|D_c - D_u|)$$

    with the parallel part that along D_c, sample by sample. The parallel part is what
    oversaturates pictures at large scales. Two calls for each evaluation. The paper's momentum,
    a memory of earlier steps, is left out: a prediction answers for a state and keeps nothing, so
    that every solver may ask it in any order.

    Arguments:
        condition: the prediction given the condition.
        reference: the prediction without it.
        scale: w, a number or a function of the level; 1 is the condition alone.
        eta: how much of the parallel part is kept; 1 is `srk.Guided` (without a threshold).
        norm_threshold: rho, the longest that the difference may be; None for no limit. It is a
            length over all numbers of a sample.
        batched: one call for both, for adapters of one network that differ in `model_kwargs`.

    Source: Sadat et al., "Eliminating Oversaturation and Artifacts of High Guidance Scales in
    Diffusion Models", ICLR 2025 (arXiv 2410.02416), algorithm 1.

    Examples:
        >>> import srk, torch
        >>> process = srk.EDM()
        >>> a, b = (srk.targets.Gaussian([m, 0.0], 1.0).score(process) for m in (1.0, 0.0))
        >>> x = torch.tensor([[0.0, 1.0]])
        >>> APG(a, b, 3.0).denoise(x, process.level(1.0), process)
        tensor([[1., 0.]])
    """

    eta: float = attrs.field(default=0.0, converter=as_float, kw_only=True)
    norm_threshold: float | None = attrs.field(default=None, kw_only=True)

    @norm_threshold.validator
    def _check_threshold(self, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None and not value > 0.0:
            raise ArgumentError(f"norm_threshold is a positive length or None, not {value!r}")

    def _guide(self, condition: Tensor, reference: Tensor, x: Tensor, level: Level) -> Tensor:
        difference = condition - reference
        if self.norm_threshold is not None:
            length = _dot(difference, difference).sqrt().clamp_min(1e-30)
            difference = difference * (self.norm_threshold / length).clamp_max(1.0).to(x.dtype)
        square = _dot(condition, condition)
        share = torch.where(
            square > 0.0, _dot(difference, condition) / torch.where(square > 0.0, square, 1.0), 0.0
        )
        parallel = share.to(x.dtype) * condition
        changed = difference + (self.eta - 1.0) * parallel
        return condition + (weight_at(self.scale, level) - 1.0) * changed


@attrs.frozen(eq=False)
class CFGZero(_Pair):
    r"""CFG-Zero*: the unconditional velocity is scaled to fit the conditional one.

    $$s^* v_u + w (v_c - s^* v_u), \qquad s^* = \langle v_c, v_u \rangle/|v_u|^2$$

    sample by sample, with v the flow velocity; and v = 0 while the flow time sigma/(alpha + sigma)
    is above `zero_above`, where the velocity of a trained network is worse than none. Two calls for
    each evaluation. Made for flow-matching models.

    Arguments:
        condition: the prediction given the condition.
        reference: the prediction without it.
        scale: w, a number or a function of the level.
        zero_above: flow time above which the state does not move, in (0, 1]; the paper zeroes the
            first 4 per cent of the steps. 1 for never.
        batched: one call for both, for adapters of one network that differ in `model_kwargs`.

    Source: Fan et al., "CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models",
    2025 (arXiv 2503.18886), algorithm 1.

    Examples:
        >>> import srk, torch
        >>> process = srk.Flow()
        >>> a, b = (srk.targets.Gaussian([m, 0.0], 0.5).score(process) for m in (1.0, 0.0))
        >>> x = srk.solve(process, CFGZero(a, b, 2.0), "euler", shape=4, nfe=20, seed=0, eta=0.0).x
        >>> x.shape
        torch.Size([4, 2])
    """

    zero_above: float = attrs.field(default=1.0, converter=as_float, kw_only=True)

    @zero_above.validator
    def _check_zero(self, attribute: attrs.Attribute[Any], value: float) -> None:
        if not 0.0 < value <= 1.0:
            raise ArgumentError(f"zero_above is a flow time in (0, 1], not {value!r}; e.g. 0.96")

    def _still(self, level: Level) -> bool:
        return level.sigma / (level.alpha + level.sigma) > self.zero_above

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        if self._still(level):
            return x / (level.alpha + level.sigma)
        return super().denoise(x, level, process)

    def _guide(self, condition: Tensor, reference: Tensor, x: Tensor, level: Level) -> Tensor:
        total = level.alpha + level.sigma
        if self._still(level):
            return x / total
        if level.sigma == 0.0:
            return condition
        v, u = to_flow_velocity(condition, x, level), to_flow_velocity(reference, x, level)
        square = _dot(u, u)
        fit = torch.where(square > 0.0, _dot(v, u) / torch.where(square > 0.0, square, 1.0), 1.0)
        scaled = fit.to(x.dtype) * u
        velocity = scaled + weight_at(self.scale, level) * (v - scaled)
        return (x - level.sigma * velocity) / total


def autoguidance(
    network: Prediction | Callable[..., Tensor],
    weak: Prediction | Callable[..., Tensor],
    scale: float | LevelFunction,
    *,
    rescale: float = 0.0,
) -> Guided:
    """Guidance by a weaker network with the same condition, away from its mistakes.

    It is `Guided` with the weaker network as reference: $D_w + w (D - D_w)$. The weaker one is an
    earlier or a smaller checkpoint. It sharpens samples without drawing them to the condition.

    Arguments:
        network, weak: predictions, with the same condition or both without.
        scale: w, a number or a function of the level, such as `srk.scores.limited(...)`.
        rescale: as in `Guided`.

    Source: Karras et al., "Guiding a Diffusion Model with a Bad Version of Itself", NeurIPS 2024.

    Examples:
        >>> import srk
        >>> process = srk.EDM()
        >>> sharp, blurred = (srk.targets.Gaussian(0.0, v).score(process) for v in (1.0, 1.5))
        >>> autoguidance(sharp, blurred, 2.0).calls()
        2
    """
    return Guided(network, weak, scale, rescale=rescale)


def cfg_plus_plus(scale: float, process: LinearProcess, times: Sequence[float]) -> LevelFunction:
    r"""CFG++ as a scale for `Guided`: the guided denoiser, with the unconditional noise.

    The paper's step is $\alpha' D_\lambda + \sigma' \varepsilon_u$ with $D_\lambda = D_u +
    \lambda (D_c - D_u)$. It is the step of DDIM at the scale $w = \lambda/(1 - r'/r)$, r =
    sigma/alpha, which depends on both ends of the step: hence the grid. On a grid that is uniform
    in the log-SNR, CFG++ is guidance with one constant scale.

    Arguments:
        scale: lambda, in [0, 1].
        process: the process.
        times: the own times of the run, decreasing; pass the same as `grid` to `srk.solve`, with
            the solver "ddim" at eta=0.

    Returns:
        A function of the level, for `Guided`; between the times of the grid it is that of the step.

    Source: Chung et al., "CFG++: Manifold-Constrained Classifier Free Guidance for Diffusion
    Models", ICLR 2025 (arXiv 2406.08070), algorithm 2.

    Examples:
        >>> from srk.processes import EDM
        >>> w = cfg_plus_plus(0.5, EDM(), [8.0, 4.0, 1.0])
        >>> w(EDM().level(8.0)), round(w(EDM().level(4.0)), 4)
        (1.0, 0.6667)
    """
    if not (is_real(scale) and 0.0 <= scale <= 1.0):
        raise ArgumentError(
            f"the scale of CFG++ is a number in [0, 1], not {shown(scale)}; e.g. 0.6"
        )
    levels = [process.level(t) for t in times]
    if len(levels) < 2 or any(b.t >= a.t for a, b in itertools.pairwise(levels)):
        raise ArgumentError(f"times are at least two and decrease, not {list(times)!r}")
    steps = [
        (stop.t, scale / (1.0 - stop.r / start.r)) for start, stop in itertools.pairwise(levels)
    ]

    def weight(level: Level) -> float:
        near = 1e-9 * max(1.0, abs(level.t))
        for stop, value in steps:
            if level.t > stop + near:
                return value
        return scale  # the final denoising: no noise is put back

    return weight


__all__ = ["APG", "CFGZero", "autoguidance", "cfg_plus_plus"]
