"""The watch for NaN and inf, and who is to blame for them.

On the CPU every result is looked at when it comes. Elsewhere looking would wait for the device, so
that what is found stays there until the run has ended.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


class NotFinite(Exception):
    """A run cannot go on. `status` says why; `solve` makes a `SolveError` or a status of it."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


Culprit = Literal["score", "state"]


class Watch:
    """Looks at what a run computes.

    Arguments:
        state: the state at the start, (batch, *event).
    """

    def __init__(self, state: Tensor) -> None:
        self.immediate = state.device.type == "cpu"
        self.step = 0
        self._batch = state.shape[0]
        self._half = state.dtype.itemsize < 4
        # What was seen on the device: zero where all was finite, NaN where not, and what it was.
        self._seen: list[Tensor] = []
        self._places: list[tuple[Culprit, int, float]] = []
        self._finite: Tensor | None = None
        self._last: Tensor | None = None

    def result(self, x: Tensor, result: Tensor, t: float) -> None:
        """Look at what the network returned for `x` at own time `t`."""
        if not self.immediate:
            self._note("state", x, t)
            self._note("score", result, t)
            return
        # In float32 or more, for a sum overflows early in half precision.
        total = result.sum(dtype=torch.float32) if self._half else result.sum()
        if not math.isfinite(total.item()) and (bad := _not_finite(result)):
            # The sum of finite numbers may overflow, so that it was looked at again.
            blamed = _not_finite(x)
            raise self._failure("state" if blamed else "score", self.step, t, blamed or bad, x)

    def state(self, x: Tensor, t: float) -> None:
        """Look at the state, which the network may have been too polite to complain about."""
        if not self.immediate:
            self._note("state", x, t)
            return
        total = x.sum(dtype=torch.float32) if self._half else x.sum()
        if not math.isfinite(total.item()) and (bad := _not_finite(x)):
            raise self._failure("state", self.step, t, bad, x)

    def keep(self, x: Tensor) -> None:
        """Keep the state on the device, if all was finite up to here."""
        if self.immediate:
            return
        if self._last is None or self._finite is None:
            self._last = x.detach().clone()
        else:
            self._last = torch.where(self._finite, x.detach(), self._last)

    def settle(self, x: Tensor) -> None:
        """Read what was seen, once, after the run that ended with the state `x`."""
        if not self._seen:
            return
        ok = (torch.stack(self._seen) == 0.0).cpu()
        if bool(ok.all()):
            return
        culprit, step, t = self._places[int((~ok).nonzero()[0])]
        raise self._failure(culprit, step, t, _not_finite(x), x)

    @property
    def last(self) -> Tensor | None:
        """The last finite state, where the run could not be stopped in time."""
        return self._last

    def copy(self) -> Watch:
        """What a replayed graph has seen is what the captured run has; its tensors are the same."""
        made = Watch.__new__(Watch)
        made.__dict__.update(self.__dict__)
        made._last = None if self._last is None else self._last.clone()
        return made

    def _note(self, culprit: Culprit, tensor: Tensor, t: float) -> None:
        # 0 * x is 0 for a finite number and NaN otherwise, so that no sum can overflow
        seen = torch.mul(tensor.detach(), 0.0).sum()
        self._seen.append(seen)
        self._places.append((culprit, self.step, t))
        finite = seen == 0.0
        self._finite = finite if self._finite is None else self._finite & finite

    def _failure(self, culprit: Culprit, step: int, t: float, bad: int, x: Tensor) -> NotFinite:
        where = f"at step {step} (t = {t:.6g}) in {bad or 'some'} of {self._batch} samples"
        if culprit == "score":
            return NotFinite(f"failed: the score returned NaN or inf {where}")
        return NotFinite(
            f"failed: the state is NaN or inf {where}, and not by the score's fault: look at "
            f"x_init, the noise source, a callback that writes to the state, and the range of "
            f"{x.dtype} (up to {torch.finfo(x.dtype).max:.3g})"
        )


def _not_finite(tensor: Tensor) -> int:
    """In how many samples there is a NaN or inf."""
    return int((~torch.isfinite(tensor)).reshape(tensor.shape[0], -1).any(1).sum())
