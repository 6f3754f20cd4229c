"""Predictions of a process around a mean, as solvers see them: of the state less the mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from srk._modes import asked, ordinary_tensors
from srk.scores.base import Prediction, Rows
from srk.solution import Saved, Solution

if TYPE_CHECKING:
    from srk.processes.around_mean import AroundMean
    from srk.processes.base import ForwardProcess, Level


@attrs.frozen(eq=False)
class Centred(Prediction):
    """A prediction of x as one of z = x - y, for the linear process of z.

    It is asked at z, passes x = z + y on, and takes y off what it is told of the data.

    Arguments:
        prediction: bound to `process`; it sees x.
        process: the process around y.
    """

    prediction: Prediction
    process: AroundMean

    @property
    def event_shape(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Shape of one sample, where the prediction knows it."""
        return self.prediction.event_shape

    @property
    def network_dtype(self) -> torch.dtype | None:
        """The dtype that the network runs in, where the adapter gives one of its own."""
        kind: torch.dtype | None = getattr(self.prediction, "network_dtype", None)
        return kind

    def bind(self, process: ForwardProcess) -> Centred:
        """Itself: it is bound."""
        return self

    def select(self, rows: slice | Tensor, batch: int) -> Centred:
        return Centred(self.prediction.select(rows, batch), self.process.select(rows, batch))

    def calls(self, t: float | None = None) -> int:
        return self.prediction.calls(t)

    def placed(self, like: Tensor) -> Centred:
        """The same with the mean on the device and in the dtype of the states `like`."""
        process = self.process.placed(like)
        return self if process is self.process else Centred(self.prediction, process)

    def denoise(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        mean = self.process.centre(x)
        with ordinary_tensors():
            shown = x + mean
        return asked(self.prediction.denoise, shown, level, self.process) - mean

    def score(self, x: Tensor, level: Level, process: ForwardProcess) -> Tensor:
        shown = self.process.visible(x)
        return asked(self.prediction.score, shown, level, self.process)

    def denoise_each(self, rows: Rows, process: ForwardProcess) -> Tensor:
        given, mean = self._shown(rows)
        return self.prediction.denoise_each(given, self.process) - mean

    def score_each(self, rows: Rows, process: ForwardProcess) -> Tensor:
        return self.prediction.score_each(self._shown(rows)[0], self.process)

    def _shown(self, rows: Rows) -> tuple[Rows, Tensor]:
        mean = self.process.select(rows.samples, rows.batch).centre(rows.x)
        return rows._replace(x=rows.x + mean), mean


def bound_to(prediction: Prediction, process: ForwardProcess) -> Prediction:
    """The prediction bound to `process`, for a solver of `process.centred`."""
    bound = prediction.bind(process)
    if process.centred is process:
        return bound
    around: Any = process
    return Centred(bound, around)


def placed(prediction: Prediction, like: Tensor) -> Prediction:
    """The prediction for a run whose states are as `like`."""
    return prediction.placed(like) if isinstance(prediction, Centred) else prediction


def hidden(prediction: Prediction, x: Tensor) -> Tensor:
    """The state that a solver moves, for the state `x` that users see; a new one if it differs."""
    return x - prediction.process.centre(x) if isinstance(prediction, Centred) else x


def hidden_each(prediction: Prediction, saved: Saved) -> Saved:
    """Kept states as a solver moves them."""
    if not isinstance(prediction, Centred):
        return saved
    states = [hidden(prediction, x) for x in saved.values]
    return attrs.evolve(saved, values=torch.stack(states))


def told(
    prediction: Prediction, callback: Callable[[Any], bool | None] | None
) -> Callable[[Any], bool | None] | None:
    """A callback that is shown what users see, and may write to the state, as it could before."""
    if callback is None or not isinstance(prediction, Centred):
        return callback
    inner, process = callback, prediction.process

    def shown(info: Any) -> bool | None:
        mean = process.centre(info.x)
        with ordinary_tensors():  # a change of it is to be seen
            x = info.x + mean
        denoised = None if info.denoised is None else info.denoised + mean
        before = x._version
        answer = inner(attrs.evolve(info, x=x, denoised=denoised))
        if x._version != before:
            with torch.no_grad():
                info.x.copy_(x - mean)
        return answer

    return shown


def told_of_parts(
    predictions: Mapping[str, Prediction], callback: Callable[[Any], bool | None] | None
) -> Callable[[Any], bool | None] | None:
    """`told` for the parts of a product, of which those around a mean are shown with it."""
    around = {
        name: prediction.process
        for name, prediction in predictions.items()
        if isinstance(prediction, Centred)
    }
    if callback is None or not around:
        return callback
    inner = callback

    def shown(info: Any) -> bool | None:
        x, denoised = {**info.x}, {**info.denoised}
        for name, process in around.items():
            x[name] = process.visible(info.x[name])
            if denoised[name] is not None:
                denoised[name] = denoised[name] + process.centre(denoised[name])
        before = {name: x[name]._version for name in around}
        answer = inner(attrs.evolve(info, x=x, denoised=denoised))
        for name, process in around.items():
            if x[name]._version != before[name]:
                with torch.no_grad():
                    info.x[name].copy_(x[name] - process.centre(x[name]))
        return answer

    return shown


def seen(prediction: Prediction, solution: Solution) -> Solution:
    """The solution with the states and the predictions that users see."""
    if not isinstance(prediction, Centred):
        return solution
    mean = prediction.process.centre(solution.x)

    def moved(saved: Saved | None) -> Saved | None:
        return None if saved is None else attrs.evolve(saved, values=saved.values + mean)

    with ordinary_tensors():
        return attrs.evolve(
            solution,
            x=solution.x + mean,
            trajectory=moved(solution.trajectory),
            inputs=moved(solution.inputs),
            denoised=moved(solution.denoised),
        )
