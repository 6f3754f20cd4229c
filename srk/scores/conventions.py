r"""Does the network say what its adapter says it does? A look at three of its outputs.

An adapter for the wrong kind of network gives samples that are wrong and finite. Some things are
true of every right adapter, whatever the data and their scale are. With x = alpha x0 + sigma eps,
n = x/sigma and the implied noise e = (x - alpha D)/sigma = E[eps | x]:

    E[n . e] = d        at high noise also n . e = d up to the scale of the data in units of sigma
    E[D . x] >= 0       and D is a constant at alpha = 0, where the state knows nothing of the data
    E[e] = 0            E|e|^2 <= d

So three moments of the first output, where the state is almost pure noise, tell a network that
predicts noise (its output is n), the score (-n/sigma) and the data or v (hardly any of n) apart.
Where the adapter reads the data, a large share of n in the output could also mean data with a
second moment of sigma/alpha; the later state tells whether they have it. A look at equal signal and
noise asks for E[e] = 0, which a flow with its time reversed fails.

A warning needs both: an output that the adapter cannot explain, and another adapter that can.
Everything is computed from sums that stay on the device until the run is over.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from torch import Tensor

from srk.errors import ConventionWarning
from srk.processes.base import ForwardProcess, LinearProcess
from srk.scores.moments import Moments, moments, sums, suspect, undecided

if TYPE_CHECKING:
    from srk.processes.base import Level

HIGH = 10.0
"""The first look counts where sigma/alpha is at least this."""

LOW = 0.1
"""The look at low noise is the first evaluation at or below this sigma/alpha."""

AFTER = 5
"""The later looks count from this evaluation of a run on: before, its state is too coarse."""

FEWEST = 96
"""So many numbers are needed in a state: with fewer, the moments say too little."""


ADVICE = {
    "score": "the score: srk.Score(network)",
    "noise": "the noise: srk.NoisePrediction(network)",
    "data": "the data: srk.Data(network)",
    "velocity": "v = alpha eps - sigma x0: srk.Velocity(network)",
    "flow": "the flow velocity eps - x0: srk.FlowVelocity(network)",
    "reversed": (
        "x0 - eps with time from noise to data: srk.FlowVelocity(lambda x, t: -network(x, 1 - t))"
    ),
}


_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


class Looks:
    """The three looks at one network."""

    def __init__(self, adapter: object, network: object, kind: str, flow: bool) -> None:
        self.network = network  # keeps its id from being used again
        self.adapter, self.kind, self.flow = adapter, kind, flow
        self.warned = False
        self._evaluations = 0
        self._wanted = set() if kind in ("noise", "score") else {"middle", "low"}
        self._seen: dict[str, tuple[Tensor, Level, float, int]] = {}
        self._known: dict[str, Moments] = {}

    def see(self, x: Tensor, y: Tensor, level: Level, scale: float) -> bool:
        """Take a look, if this evaluation is one of the three; whether there is one to come."""
        r = level.r
        self._evaluations += 1
        if self._evaluations == 1:
            if r >= HIGH and x.numel() >= FEWEST:
                self._look("first", x, y, level, scale)
                if x.device.type == "cpu":  # no device to wait for: say it before the time is spent
                    self.judge()
                    first = self._moments("first")
                    if self.warned or first is None or not undecided(self.kind, self.flow, first):
                        self._wanted.clear()
            else:
                self._wanted.clear()
        if "middle" in self._wanted and r <= 1.2:
            self._wanted.discard("middle")
            if r >= 0.3 and self._evaluations >= AFTER:  # not a state that is just coarse
                self._look("middle", x, y, level, scale)
        if "low" in self._wanted and r <= LOW:
            self._wanted.clear()
            if self._evaluations >= AFTER:
                self._look("low", x, y, level, scale)
        return bool(self._wanted)

    def _moments(self, name: str) -> Moments | None:
        """What a look has found, which waits for the device when it is first asked."""
        if name not in self._known and name in self._seen:
            self._known[name] = moments(*self._seen[name])
        return self._known.get(name)

    def _look(self, name: str, x: Tensor, y: Tensor, level: Level, scale: float) -> None:
        if level.sigma > 0.0:
            self._seen[name] = (sums(x, y), level, scale, x.numel())

    @property
    def open(self) -> bool:
        """Whether there is something that was not judged yet."""
        on_cpu = all(seen[0].device.type == "cpu" for seen in self._seen.values())
        return bool(self._seen) and not (on_cpu and len(self._seen) == 1)

    def judge(self) -> None:
        """Read the sums, and warn where the adapter does not fit."""
        if self.warned:
            return
        found = suspect(self.kind, self.flow, *map(self._moments, ("first", "middle", "low")))
        if found:
            self.warned = True
            said = ADVICE[self.kind].partition(":")[0]
            likely = ", or ".join(ADVICE[kind] for kind in found)
            warnings.warn(
                f"{self.adapter!r} reads the output of its network as {said}, but the output does "
                "not "
                f"behave like that. It looks like {likely}. If the samples are right, switch this "
                "check off: check_network=False",
                ConventionWarning,
                stacklevel=2,
            )


class Watch:
    """The looks at all networks of one run.

    Arguments:
        flow: whether the process has alpha + sigma = 1, on which flow networks are trained; None
            for a product whose parts do not agree.
        flows: the same for the parts of a product by name.
    """

    def __init__(self, flow: bool | None, flows: Mapping[str, bool] | None = None) -> None:
        self.flow, self.flows = flow, flows or {}
        self._looks: dict[int, Looks] = {}

    def see(
        self,
        adapter: object,
        network: object,
        kind: str,
        x: Tensor,
        y: Tensor,
        level: Level,
        scale: float,
    ) -> bool:
        """Called after each network call; whether this network is to be seen again."""
        looks = self._looks.get(id(network))
        if looks is None:
            flow = self.flows.get(getattr(network, "name", ""), self.flow)
            if flow is None:
                return False
            looks = self._looks[id(network)] = Looks(adapter, network, kind, flow)
        return looks.see(x, y, level, scale)

    def finish(self) -> None:
        """Read what was seen, once, and warn."""
        for looks in self._looks.values():
            if looks.open:
                looks.judge()


def current() -> Watch | None:
    """The watch of the run that is going on in this thread, if there is one."""
    return _WATCH.get()


@contextmanager
def watching(
    process: ForwardProcess | Mapping[str, ForwardProcess], wanted: bool = True
) -> Iterator[None]:
    """Watch the networks of a run that starts from its prior, and warn at its end.

    Arguments:
        process: what is reversed, or the process of each part of a product.
        wanted: False watches nothing.
    """
    parts = process if isinstance(process, Mapping) else {"": process}
    flows = {name: _of_flow(one) for name, one in parts.items() if isinstance(one, LinearProcess)}
    if not wanted or not flows:
        yield
        return
    alike = len(flows) == len(parts) and len({*flows.values()}) == 1
    watch = Watch(next(iter(flows.values())) if alike else None, flows)
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)
    watch.finish()


def _of_flow(process: LinearProcess) -> bool:
    """Whether alpha + sigma = 1."""
    middle = process.level(0.5 * (process.t_min + process.t_max))
    return abs(middle.alpha + middle.sigma - 1.0) < 1e-9


__all__ = ["Watch", "current", "watching"]
