r"""Guidance: predictions made of other predictions.

Everything here is a change of the score, and so of the denoiser, for s = (alpha D - x)/sigma^2:

    s = s_ref + sum_i w_i (s_i - s_ref)        D = D_ref + sum_i w_i (D_i - D_ref)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
from torch import Tensor

from srk._checks import as_float
from srk.errors import ArgumentError, IncompatibleError, ScoreError
from srk.processes.base import Level, LinearProcess
from srk.scores import convert
from srk.scores.adapters import as_prediction
from srk.scores.base import Prediction, Rows
from srk.scores.network_prediction import NetworkPrediction
from srk.scores.weights import Scale, as_scales, weight_at

if TYPE_CHECKING:
    from srk.processes.base import ForwardProcess

_NO_LEVEL = Level(math.nan, math.nan, math.nan, math.nan)
_QUANTITIES: Mapping[str, Callable[[Level], convert.Pair]] = {
    "denoised": lambda level: (0.0, 1.0),
    "noise": convert.noise_from_denoiser,
    "velocity": convert.velocity_from_denoiser,
}


def _conditions(value: Any) -> tuple[Prediction, ...]:
    return tuple(
        map(as_prediction, value if isinstance(value, list | tuple) else [value])
    )  # a network, too, may be iterable


@attrs.frozen(eq=False)
class Guided(Prediction):
    """Guidance by differences of predictions.

    D = D_ref + sum_i w_i (D_i - D_ref), in the score of a nonlinear process likewise.

    One formula, several uses:

    - classifier-free guidance: `condition` is the network with its condition, `reference` the one
      without; w = 1 is the condition alone, w = 0 the reference (Ho and Salimans write w - 1);
    - negative conditions: `reference` is the network with the condition to keep away from; or one
      of several conditions has a negative scale;
    - several conditions: one scale each (composable diffusion);
    - autoguidance: `condition` is the good network, `reference` a weaker version of it.

    Only what has a weight at a level is evaluated there: at w = 1 the reference is not, which is
    what `srk.scores.limited` saves outside its interval. `Solution.nfe` counts what was evaluated,
    a batch of k predictions as k calls.

    Arguments:
        condition: a prediction (an adapter, an exact score, a callable (x, t) -> score), or a
            sequence of them.
        reference: the prediction to extrapolate from.
        scale: w: a number, or a function of the level that returns one; for several conditions a
            sequence, one scale each.
        rescale: phi in [0, 1]: the guided prediction q is multiplied by phi std(q_cond)/std(q) + 1
            - phi, standard deviations over each sample, against over-exposure at large scales. For
            one condition and linear processes.
        rescale_in: what q is: "denoised" (D), "noise" or "velocity"; diffusers rescales the output
            of the network.
        batched: evaluate the network once on a batch of all conditions instead of once for each.
            They must be adapters of the same network with the same options but for `model_kwargs`;
            tensors there whose first size is the batch or 1 are concatenated.

    Raises:
        ArgumentError, ArgumentTypeError: numbers of scales and conditions differ, or options that
            contradict each other.
        IncompatibleError: `rescale` for a nonlinear process.
        ScoreError: on a call, `model_kwargs` that cannot be put in one batch.

    Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022; Liu et al., "Compositional
    Visual Generation with Composable Diffusion Models", 2022; Lin et al., "Common Diffusion Noise
    Schedules and Sample Steps are Flawed", 2023, section 3.4 (rescale); Karras et al., "Guiding a
    Diffusion Model with a Bad Version of Itself", 2024.

    Examples:
        >>> import srk
        >>> process = srk.VP()
        >>> wanted = srk.targets.Gaussian(1.0, 0.1).score(process)
        >>> everything = srk.targets.Gaussian(0.0, 1.0).score(process)
        >>> srk.solve(process, Guided(wanted, everything, 2.0), steps=10, seed=0).nfe
        22
        >>> interval = srk.scores.limited(2.0, 0.3, 5.0)
        >>> srk.solve(process, Guided(wanted, everything, interval), steps=10, seed=0).nfe
        14
    """

    conditions: tuple[Prediction, ...] = attrs.field(converter=_conditions, alias="condition")
    reference: Prediction = attrs.field(converter=as_prediction)
    scales: tuple[Scale, ...] = attrs.field(converter=as_scales, alias="scale")
    rescale: float = attrs.field(default=0.0, kw_only=True, converter=as_float)
    rescale_in: Literal["denoised", "noise", "velocity"] = attrs.field(
        default="denoised", kw_only=True
    )
    batched: bool = attrs.field(default=False, kw_only=True)
    event_shape: tuple[int, ...] | None = attrs.field(init=False)
    _process: ForwardProcess | None = attrs.field(
        default=None, kw_only=True, alias="_process", repr=False
    )

    @event_shape.default
    def _event_shape(self) -> tuple[int, ...] | None:
        return next((p.event_shape for p in self._all if p.event_shape is not None), None)

    def __attrs_post_init__(self) -> None:
        if len(self.scales) != len(self.conditions) or not self.conditions:
            raise ArgumentError(
                f"{len(self.conditions)} conditions and {len(self.scales)} scales: give each "
                "condition its scale, e.g. Guided([a, b], reference, [2.0, 1.5])"
            )
        if not 0.0 <= self.rescale <= 1.0:
            raise ArgumentError(
                f"rescale is a fraction between 0 (off) and 1, not {self.rescale!r}; e.g. "
                "rescale=0.7"
            )
        if self.rescale and len(self.conditions) > 1:
            raise ArgumentError(
                f"rescale={self.rescale!r} refers to THE condition, but there are "
                f"{len(self.conditions)}; leave it out"
            )
        if self.rescale_in not in _QUANTITIES:
            raise ArgumentError(
                f"rescale_in is one of {', '.join(map(repr, _QUANTITIES))}, not {self.rescale_in!r}"
            )
        if self.batched:
            _check_alike(self._all)

    @property
    def _all(self) -> tuple[Prediction, ...]:
        return (self.reference, *self.conditions)

    def _with(
        self, change: Callable[[Prediction], Prediction], process: ForwardProcess | None
    ) -> Guided:
        reference, *conditions = map(change, self._all)
        return attrs.evolve(self, condition=conditions, reference=reference, _process=process)

    def bind(self, process: ForwardProcess) -> Guided:
        """The same with all its predictions bound to `process`."""
        if self.rescale and not isinstance(process, LinearProcess):
            raise IncompatibleError(
                f"rescale={self.rescale!r} acts on the denoiser, which {process!r} has not; leave "
                "it out"
            )
        return self._with(lambda prediction: prediction.bind(process), process)

    def select(self, rows: slice | Tensor, batch: int) -> Guided:
        return self._with(lambda prediction: prediction.select(rows, batch), self._process)

    def calls(self, t: float | None = None) -> int:
        """Network calls of one evaluation at own time `t` (known once bound); None.

        The most at any time.
        """
        if t is not None and self._process is not None:
            level = _level(self._process, t)
        elif any(map(callable, self.scales)):
            return sum(prediction.calls(t) for prediction in self._all)
        else:
            level = _NO_LEVEL
        used = zip(self._all, self._weights(level), strict=True)
        return sum(prediction.calls(t) for prediction, weight in used if weight != 0.0)

    def _weights(self, level: Level) -> tuple[float, ...]:
        """Coefficients of the reference and of the conditions; they add up to 1."""
        weights = [weight_at(scale, level) for scale in self.scales]
        return (1.0 - sum(weights), *weights)

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        return self._guide(self._evaluate("denoise", x, level, process), x, level)

    def _guide(self, terms: Iterable[tuple[float, Tensor]], x: Tensor, level: Level) -> Tensor:
        """The guided denoiser of weighted denoisers at `x`."""
        guided, last, count = _sum(terms)
        if self.rescale == 0.0 or count < 2:
            return guided
        a, b = _QUANTITIES[self.rescale_in](level)
        q = convert.combine((a, b), x, guided)
        ratio = _spread(convert.combine((a, b), x, last)) / _spread(q)
        factor = torch.where(
            torch.isfinite(ratio), self.rescale * ratio + (1.0 - self.rescale), 1.0
        )
        return convert.combine((-a / b, 1.0 / b), x, q * factor)

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """The guided score.

        Without `rescale` straight from the scores, so that it serves nonlinear processes and loses
        nothing at small sigma.
        """
        if self.rescale == 0.0:
            return _sum(self._evaluate("score", x, level, process))[0]
        return convert.to_score(self.denoise(x, level, process), x, level)

    def denoise_each(self, rows: Rows, process: ForwardProcess) -> Tensor:
        parts = [
            self._guide(terms, rows.x[group], level)
            for terms, group, level in self._evaluate_each("denoise_each", rows, process)
        ]
        return torch.cat(parts)

    def score_each(self, rows: Rows, process: ForwardProcess) -> Tensor:
        if self.rescale != 0.0:
            return super().score_each(rows, process)
        parts = self._evaluate_each("score_each", rows, process)
        return torch.cat([_sum(terms)[0] for terms, _, _ in parts])

    def _evaluate_each(
        self, what: str, rows: Rows, process: ForwardProcess
    ) -> list[tuple[list[tuple[float, Tensor]], slice, Level]]:
        """What `_evaluate` gives, for each level, with its rows; a prediction is asked once."""
        groups = list(rows.groups())
        weights = [self._weights(level) for _, level in groups]
        wanted = [
            [group for (group, _), weight in zip(groups, weights, strict=True) if weight[i] != 0.0]
            for i in range(len(self._all))
        ]
        answers: list[Iterator[Tensor]] = []
        if self.batched and all(len(w) == len(groups) for w in wanted):
            number, count = len(self._all), len(rows.levels)
            together = _together([p.select(rows.samples, rows.batch) for p in self._all], count)
            many = Rows(
                rows.x.repeat(number, *[1] * (rows.x.ndim - 1)),
                list(rows.levels) * number,
                torch.arange(number * count, device=rows.x.device),
                number * count,
            )
            each = process.select(rows.samples.repeat(number), rows.batch)
            values = getattr(together, what)(many, each).chunk(number)
            answers = [iter([value[group] for group, _ in groups]) for value in values]
        else:
            for prediction, used in zip(self._all, wanted, strict=True):
                parts = [rows.part(group) for group in used]
                if not parts:
                    answers.append(iter(()))
                    continue
                given = Rows(
                    torch.cat([part.x for part in parts]),
                    [level for part in parts for level in part.levels],
                    torch.cat([part.samples for part in parts]),
                    rows.batch,
                )
                # The next network may write to the memory of this result.
                value = getattr(prediction, what)(given, process).clone()
                answers.append(iter(value.split([len(part.levels) for part in parts])))
        return [
            (
                [(w, next(a)) for w, a in zip(weight, answers, strict=True) if w != 0.0],
                group,
                level,
            )
            for (group, level), weight in zip(groups, weights, strict=True)
        ]

    def _evaluate(
        self, what: str, x: Tensor, level: Level, process: ForwardProcess
    ) -> Iterator[tuple[float, Tensor]]:
        """(weight, value) of each prediction that has a weight, the reference first.

        A value lasts until the next one is asked for: two networks may write to one buffer.
        """
        weighted = [
            (weight, p)
            for p, weight in zip(self._all, self._weights(level), strict=True)
            if weight != 0.0
        ]
        if not self.batched:
            for weight, prediction in weighted:
                value = getattr(prediction, what)(x, level, process)
                # Times another weight the sum has memory of its own.
                yield weight, value.clone() if weight == 1.0 and len(weighted) > 1 else value
            return
        # one prediction goes this way, too: a condition of one row is spread over the batch here
        together = _together([p for _, p in weighted], len(x))
        copies = x
        if len(weighted) > 1:
            copies = x.repeat(len(weighted), *[1] * (x.ndim - 1))
            samples = torch.arange(len(x), device=x.device).repeat(len(weighted))
            process = process.select(samples, len(x))  # each may have a mean of its own
        values = getattr(together, what)(copies, level, process).chunk(len(weighted))
        yield from ((weight, value) for (weight, _), value in zip(weighted, values, strict=True))


def _level(process: ForwardProcess, t: float) -> Level:
    """The level at own time `t`, which churn may raise above t_max."""
    linear = process.centred
    if not isinstance(linear, LinearProcess) or process.t_min <= t <= process.t_max:
        return process.level(t)
    return Level(t, float(linear.alpha(t)), float(linear.sigma(t)), float(linear.lam(t)))


def _spread(q: Tensor) -> Tensor:
    """Standard deviation over each sample, shape (batch, 1, ...)."""
    return q.reshape(len(q), -1).std(1, correction=0).reshape(-1, *[1] * (q.ndim - 1))


def _sum(terms: Iterable[tuple[float, Tensor]]) -> tuple[Tensor, Tensor, int]:
    """The weighted sum, the last value, and how many there are; a value is read before the next."""
    total: Tensor | None = None
    count, value = 0, None
    for weight, value in terms:
        if total is not None:
            total = total.add(value, alpha=weight)
        elif weight == 1.0:
            total = value
        else:
            total = value * weight
        count += 1
    assert total is not None
    assert value is not None
    return total, value, count


def _check_alike(predictions: tuple[Prediction, ...]) -> None:
    """Raise unless all are adapters of one network that differ in `model_kwargs` alone."""
    first = predictions[0]
    for other in predictions:
        same = isinstance(first, NetworkPrediction) and type(other) is type(first)
        names = [
            field.name for field in attrs.fields(NetworkPrediction) if field.name != "model_kwargs"
        ]
        if not same or any(getattr(other, name) != getattr(first, name) for name in names):
            raise ArgumentError(
                "batched=True needs adapters of one network that differ in model_kwargs only, "
                f"not {first!r} and {other!r}; leave it out to call each by itself"
            )


def _same(a: Any, b: Any) -> bool:
    """Whether two values of `model_kwargs` are the same; arrays are if they are one object."""
    if a is b:
        return True
    try:
        return bool(a == b)
    except (TypeError, ValueError, RuntimeError):  # of arrays, which have no single answer
        return False


def _together(predictions: list[Any], batch: int) -> NetworkPrediction:
    """One adapter for a batch of all.

    Tensors of `model_kwargs` that belong to samples are concatenated, all else must be the same.
    """
    names = {name for p in predictions for name in p.model_kwargs}
    joined: dict[str, Any] = {}
    for name in names:
        values = [p.model_kwargs.get(name) for p in predictions]
        if all(isinstance(v, Tensor) and v.ndim > 0 and v.shape[0] in (1, batch) for v in values):
            joined[name] = torch.cat([v.expand(batch, *v.shape[1:]) for v in values])
        elif any(isinstance(v, Tensor) for v in values) or not all(
            _same(v, values[0]) for v in values
        ):
            raise ScoreError(
                f"model_kwargs[{name!r}] cannot be put in one batch: with batched=True it must be "
                "the same for all conditions, or for each a tensor whose first size is "
                f"the batch ({batch}) or 1, such as the embedding of the empty prompt; use "
                "batched=False"
            )
        else:
            joined[name] = values[0]
    made: NetworkPrediction = attrs.evolve(predictions[0], model_kwargs=joined)
    return made


__all__ = ["Guided"]
