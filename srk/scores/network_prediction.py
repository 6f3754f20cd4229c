"""What all adapters share: the call of the network, its options, and the way to the denoiser.

An adapter adds what the output means: the coefficients of D = a x + b output.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor

from srk.errors import ArgumentError, IncompatibleError
from srk.processes.manifold import ManifoldProcess
from srk.scores import conventions, convert
from srk.scores.base import Prediction, Rows, check_state, one_by_one
from srk.scores.inputs import (
    LevelFunction,
    check_input_scale,
    check_process,
    check_time_unit,
    row_numbers,
    scale_value,
    time_dtype,
    time_rows,
    time_tensor,
    time_value,
)
from srk.scores.options import (
    check_dtype,
    check_kwargs,
    check_network,
    event_shape_of,
    shown_options,
    time_factor,
    training_steps,
)
from srk.scores.returned import checked_output

if TYPE_CHECKING:
    from srk.processes.base import ForwardProcess, Level

Network = Callable[..., Tensor]

OutputKind = Literal["score", "noise", "data", "velocity", "flow"]
"""What the output of a network is, in the words of `srk.scores.conventions`."""

_WAYS_TO_READ = ("coefficients", "denoise", "output", "_call", "time_of")
"""The methods of an adapter that say what its network is asked and what the output means."""


@lru_cache(maxsize=256)
def _known_output(cls: type[NetworkPrediction]) -> OutputKind | None:
    """What the output of an adapter of this class is, if its class reads it as the one that says
    so does.
    """
    says = next(base for base in cls.__mro__ if "_output_is" in vars(base))
    same = cls is says or all(getattr(cls, way) is getattr(says, way) for way in _WAYS_TO_READ)
    return cls._output_is if same else None


@attrs.frozen(eq=False, repr=False)
class NetworkPrediction(Prediction):
    """A network call and its options; the adapters below add what the output means.

    Arguments:
        network: callable (x, t, **model_kwargs) -> output. It gets `input_scale * x` of shape
            (batch, *event) and a (batch,) tensor of times on the same device, and returns a tensor
            of the shape of `x`.
        time: the unit in which the network wants the noise level: "t" (the process's own time),
            "sigma" (sigma/alpha, the EDM sigma), "log-snr" (2 log(alpha/sigma)), "half-log-snr",
            "flow" (sigma/(alpha + sigma)), "index" (training step, fractional: the own time of
            `srk.VPDiscrete`, otherwise `(num_timesteps - 1) t / max(t_max, 1)`), "index-rounded"
            (the same as torch.long), or a function of the level that returns a float, e.g. `lambda
            level: vp.time(level.lam)` for a network trained with the process `vp`.
        time_scale: factor of the time, e.g. 1000.0.
        num_timesteps: number of training steps, for the "index" units.
        input_scale: factor k of the network's input k x: "x" (1), "u" (1/alpha), "vp"
            (1/sqrt(alpha^2 + sigma^2)), "flow" (1/(alpha + sigma)), or a function of the level. The
            output then belongs to the level (k alpha, k sigma): with "vp", a network of a
            variance-preserving process serves every process of the package.
        event_shape: shape of one sample; makes `shape` optional in `srk.solve`.
        model_kwargs: further keyword arguments of every call; tensors of per-sample conditions are
            passed as they are.
        network_dtype: dtype of the network's input where it is not the state's (e.g.
            torch.bfloat16); the output is cast back. The time arrives in this dtype too, but never
            in less than float32.
        channels: "first-half" keeps the first half of the output's channels (dim 1): for networks
            that also learn the variance.

    Raises:
        ScoreError: on a call, when the output is not a tensor or has another shape, dtype or
            device.
        IncompatibleError: on a call, where the output cannot determine the denoiser or the time is
            infinite.
    """

    of_data: ClassVar[bool] = False
    """Whether the output is of the data themselves, not of them less the mean of `srk.Shifted`."""

    _output_is: ClassVar[OutputKind | None] = None
    """What the output is, beside `coefficients` that depend on the level and `input_scale` alone.

    It holds for a subclass that reads the output as this class does (`_known_output`).
    """

    network: Network = attrs.field(validator=check_network)
    time: str | LevelFunction = attrs.field(
        default="t", kw_only=True, validator=lambda _, __, value: check_time_unit(value)
    )
    time_scale: float = attrs.field(default=1.0, kw_only=True, converter=time_factor)
    num_timesteps: int | None = attrs.field(default=None, kw_only=True, converter=training_steps)
    input_scale: str | LevelFunction = attrs.field(
        default="x", kw_only=True, validator=lambda _, __, value: check_input_scale(value)
    )
    event_shape: tuple[int, ...] | None = attrs.field(
        default=None, kw_only=True, converter=event_shape_of
    )
    model_kwargs: Mapping[str, Any] = attrs.field(
        factory=dict, kw_only=True, validator=check_kwargs
    )
    network_dtype: torch.dtype | None = attrs.field(
        default=None, kw_only=True, validator=check_dtype
    )
    channels: Literal["all", "first-half"] = attrs.field(default="all", kw_only=True)

    @channels.validator
    def _check_channels(self, attribute: attrs.Attribute[Any], value: object) -> None:
        if value not in ("all", "first-half"):
            raise ArgumentError(f"channels is 'all' or 'first-half', not {value!r}")

    def bind(self, process: ForwardProcess) -> Prediction:
        """Check that `process` has the time unit that the network wants.

        Returns itself, or for phase-space states what reads them.
        """
        check_process(self.time, process, self.num_timesteps)
        if process.components > 1:
            return self._in_phase_space(process)
        if isinstance(process, ManifoldProcess):
            return self._on_manifold(process)
        return self

    def _on_manifold(self, process: ManifoldProcess) -> Prediction:
        name = type(self).__name__
        raise IncompatibleError(
            f"srk.{name} says what was added to the data, but {process!r} moves them along a "
            "curved space; a network of its states returns the score, srk.Score(network), or "
            "the data without noise, srk.Data(network)"
        )

    def _in_phase_space(self, process: ForwardProcess) -> Prediction:
        name = type(self).__name__
        raise IncompatibleError(
            f"srk.{name} is for a network of the data, but the states of {process!r} have "
            f"{process.components} components; if it was trained for a scalar process, "
            f"use srk.Reduced(srk.{name}(...)); a network of the phase-space state returns the "
            "score: srk.Score(network)"
        )

    def output(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """The network's output at `x`, checked and in the dtype of the state.

        The network is called with the input and the time that it wants.
        """
        check_state(x)
        out = self._checked(self._call(x, level, process), x)
        watch = conventions.current()
        if watch is not None and (kind := self._known_output) is not None:
            watch.see(self, self.network, kind, x, out, level, scale_value(self.input_scale, level))
        return out

    def outputs(
        self, levels: Sequence[Level], like: Tensor, process: ForwardProcess
    ) -> Callable[[Tensor, int], Tensor]:
        """`output` at the levels of a run, as a function of the state and of the level's number.

        What does not depend on the state is made once for all of them, the times above all.

        Arguments:
            levels: the levels, in the order of the run.
            like: a state of the shape, dtype and device of those to come.
            process: the process that is reversed.
        """
        made = None
        # Times for another device would have to be sent there; functions are asked in their turn.
        asks_functions = callable(self.time) or callable(self.input_scale)
        if like.is_cpu and not asks_functions and not self._asks_in_its_own_way("output"):
            try:
                made = self._ready(levels, like, process)
            except IncompatibleError:  # of one level; `output` says so if a run gets there
                made = None
        return made or (lambda x, number: self.output(x, levels[number], process))

    def _ready(
        self, levels: Sequence[Level], like: Tensor, process: ForwardProcess
    ) -> Callable[[Tensor, int], Tensor] | None:
        """The function that `outputs` gives; None where its times would take much memory."""
        times = self._times(levels, like, process)
        if times is None:
            return None
        unit, known = self.input_scale, self.input_scale == "x"
        scales = [1.0] * len(levels) if known else [scale_value(unit, level) for level in levels]
        network, kwargs, cast = self.network, self.model_kwargs, self.network_dtype
        listen = self._listener(levels, like, scales, network)

        def ask(x: Tensor, number: int) -> Tensor:
            scale = scales[number]
            given = x if scale == 1.0 else x * scale
            if cast is not None:
                given = given.to(cast)
            return listen(network(given, times[number], **kwargs), x, number)

        return ask

    def _listener(
        self,
        levels: Sequence[Level],
        like: Tensor,
        scales: Sequence[float],
        network: Callable[..., Any],
    ) -> Callable[[Tensor, Tensor, int], Tensor]:
        """What takes an output at a state of one of the levels: checks it, shows it to a watch.

        Arguments:
            levels: where the network will be asked, in order.
            like: a state of the shape, dtype and device of those to come.
            scales: the scale of the input at each level.
            network: who answers, for messages.
        """
        shape, dtype, device = like.shape, like.dtype, like.device
        whole, kind = self.channels == "all", self._known_output
        watch = None if kind is None else conventions.current()

        def listen(out: Tensor, x: Tensor, number: int) -> Tensor:
            nonlocal watch
            if not (
                whole
                and out.__class__ is Tensor
                and out.shape == shape
                and out.dtype is dtype
                and out.device == device
            ):
                out = self._checked(out, x)
            if watch is not None and kind is not None:
                more = watch.see(self, network, kind, x, out, levels[number], scales[number])
                watch = watch if more else None
            return out

        return listen

    def _times(
        self, levels: Sequence[Level], like: Tensor, process: ForwardProcess
    ) -> list[Tensor] | None:
        """`time_of` at each of the levels."""
        unit, steps, factor = self.time, self.num_timesteps, self.time_scale
        if unit == "t":
            values = [level.t * factor for level in levels]
        else:
            values = [time_value(unit, level, process, steps) * factor for level in levels]
        if unit == "index-rounded":
            return time_rows(list(map(round, values)), like, torch.long)
        return time_rows(values, like, time_dtype(like.dtype, self.network_dtype))

    @property
    def reading(self) -> Hashable | None:
        """What `coefficients` depend on besides the level; None where that is not known."""
        known = self._known_output is not None and not callable(self.input_scale)
        return (type(self), self.input_scale) if known else None

    @property
    def _known_output(self) -> OutputKind | None:
        """`_output_is`, unless a subclass of the class that says so reads the output otherwise."""
        return _known_output(type(self))

    def _call(self, x: Tensor, level: Level, process: ForwardProcess) -> Any:
        scale = scale_value(self.input_scale, level)
        network_input = x if scale == 1.0 else x * scale
        if self.network_dtype is not None:
            network_input = network_input.to(self.network_dtype)
        return self.network(network_input, self.time_of(x, level, process), **self.model_kwargs)

    def time_of(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """The (batch,) tensor of times that the network gets with the states `x` at `level`."""
        value = time_value(self.time, level, process, self.num_timesteps) * self.time_scale
        if self.time == "index-rounded":
            return time_tensor(round(value), x, torch.long)
        return time_tensor(value, x, time_dtype(x.dtype, self.network_dtype))

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        pair = self.coefficients(
            level
        )  # first: it says in a clear message where no output can help
        out = self.output(x, level, process)
        return convert.combine_around(pair, x, out, process.centre(x), self.of_data)

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        """The score that follows from the denoiser; on a torus, or of rotations, that of the noise
        around the data that the network says.
        """
        if isinstance(process, ManifoldProcess):
            return process.kernel_score(x, self.output(x, level, process), level.sigma**2)
        return super().score(x, level, process)

    def denoise_each(self, rows: Rows, process: ForwardProcess) -> Tensor:
        """The denoiser at states of several levels, in one call of the network."""
        if self._asks_in_its_own_way("denoise"):
            return one_by_one(self, "denoise", rows, process)
        pairs = [self.coefficients(level) for level in rows.levels]
        denoised = self._combine_each(pairs, rows, process)
        mean = process.select(rows.samples, rows.batch).centre(rows.x)
        return denoised if mean is None else denoised + mean

    def score_each(self, rows: Rows, process: ForwardProcess) -> Tensor:
        """The score at states of several levels, in one call of the network."""
        if self._asks_in_its_own_way("denoise") or self._asks_in_its_own_way("score"):
            return one_by_one(self, "score", rows, process)
        pairs = []
        for level in rows.levels:
            (a, b), (c, d) = convert.score_from_denoiser(level), self.coefficients(level)
            pairs.append((a + b * c, b * d))
        return self._combine_each(pairs, rows, process)

    def _asks_in_its_own_way(self, what: str) -> bool:
        """Whether a subclass has changed how its network is asked for one level."""
        cls, base = type(self), NetworkPrediction
        return not (
            cls.output is base.output
            and cls._call is base._call
            and cls.time_of is base.time_of
            and getattr(cls, what) is getattr(base, what)
        )

    def _combine_each(
        self, pairs: Sequence[convert.Pair], rows: Rows, process: ForwardProcess
    ) -> Tensor:
        """a x + b output with coefficients for each row; around a mean, of what is less it."""
        check_state(rows.x)
        x, levels = rows.x, rows.levels
        scales = [scale_value(self.input_scale, level) for level in levels]
        times = torch.cat(
            [self.time_of(x[group], level, process) for group, level in rows.groups()]
        )
        given = x.clone() if scales.count(1.0) == len(scales) else x * row_numbers(scales, x)
        if self.network_dtype is not None:
            given = given.to(self.network_dtype)
        chosen = self.select(rows.samples, rows.batch)
        assert isinstance(chosen, NetworkPrediction)
        out = self._checked(self.network(given, times, **chosen.model_kwargs), x)
        watch = conventions.current()
        if watch is not None and (kind := self._known_output) is not None:
            group, level = next(rows.groups())
            watch.see(self, self.network, kind, x[group], out[group], level, scales[0])
        mean = process.select(rows.samples, rows.batch).centre(x)
        if mean is not None:
            x, out = x - mean, out - mean if self.of_data else out
        a, b = zip(*pairs, strict=True)
        scaled = out if b.count(1.0) == len(b) else out * row_numbers(b, x)
        return scaled if a.count(0.0) == len(a) else scaled + x * row_numbers(a, x)

    def select(self, rows: slice | Tensor, batch: int) -> Prediction:
        """The same network with the conditions of these samples.

        Tensors in `model_kwargs` whose first axis is the batch are cut.
        """
        cut = {
            name: value[rows]
            if isinstance(value, Tensor) and value.ndim > 0 and len(value) == batch
            else value
            for name, value in self.model_kwargs.items()
        }
        return attrs.evolve(self, model_kwargs=cut) if self.model_kwargs else self

    @abstractmethod
    def coefficients(self, level: Level) -> convert.Pair:
        """(a, b) with D = a x + b output, in float64.

        `IncompatibleError` where the output does not determine D.
        """

    def _checked(self, out: object, x: Tensor) -> Tensor:
        return checked_output(self, out, x)

    def __repr__(self) -> str:
        network = getattr(self.network, "__name__", type(self.network).__name__)
        return f"{type(self).__name__}({', '.join([network, *shown_options(self)])})"
