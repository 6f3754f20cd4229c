"""experimental"""
from __future__ import annotations
import math
from typing import Any, Callable
import attrs
from srk.integrators.base import Integrator, Step
from srk.integrators.gauge import GaugeStep
from srk.integrators.plan import ZERO, LinearForm, StepPlan


@attrs.frozen(kw_only=True)
class X2M(Integrator):
    name = "x2m"
    strong_order = 1.0
    weak_order = 2.0
    eta_range = (1.0, 1.0)
    infinite_noise = True
    v: Any = 0.5          # number or function (s0, s1) -> v
    c: float = 0.25
    beta: Any = 1.0       # number or function of (kept count, v, ...)
    beta2: float = 0.0    # second step beta (one old node): unused
    depth: int = 2
    rule: Any = None      # function(list of (H), c) -> weights
    first: str = "mean"

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "startup_evaluations", int(self.first == "evaluate"))

    def plan(self, step: Step) -> StepPlan:
        s0 = math.inf if step.start.alpha == 0 else step.start.r ** 2
        s1 = step.stop.r ** 2
        v = self.v(s0, s1, step) if callable(self.v) else self.v
        g = GaugeStep(step.start, step.stop, v, 1.0)
        board = step.draft(g.clock)
        kept = step.memory
        R = [board.memory(2 * i) + board.memory(2 * i + 1) * v for i in range(len(kept) // 2)]
        notes = kept[::2]
        tau = lambda s: 1.0 / (s + v)
        H = [tau(n[1]) - tau(n[0]) for n in notes]
        c = self.c(step, v) if callable(self.c) else self.c
        if not R:
            pred = ZERO
            if self.first == "evaluate":
                n = board.evaluate(board.state, step.start)
                a, sg = step.start.alpha, step.start.sigma
                pred = n.value + (n.value * a * a - n.x * a) * (v / sg**2)
        elif self.rule is not None:
            w = self.rule(H, tau(s1) - tau(s0), c, len(R))
            pred = ZERO
            for wi, r in zip(w, R):
                pred = pred + r * wi
        elif len(R) == 1:
            pred = R[0]
        else:
            b = self.beta * H[0] / (H[0] + H[1])
            pred = R[0] * (1 + b) - R[1] * b
        level = g.node(step.process, c)
        b = board.normal(*g.interval)
        j = b * 0.5
        if c > 0.25:
            j = j + board.normal(*g.interval, (0.0, 1.0)) * math.sqrt(c - 0.25)
        x = g.carry(board.state, pred, level, c) + j * g.noise_std(level, c)
        node = board.evaluate(x, level)
        a, sg = level.alpha, level.sigma
        E = (node.value * a * a - node.x * a) / sg**2
        Rn = node.value + E * v
        new = g.carry(board.state, Rn, step.stop) + b * g.noise_std(step.stop)
        note = (s0, s1, level.r**2)
        keep = [(node.value, note), (E, note)] + [(board.memory(i), kept[i]) for i in range(len(kept))]
        return board.finish(new, keep=keep[: 2 * self.depth])
