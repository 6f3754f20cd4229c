r"""The probability-flow ODE with the divergence of its velocity.

It is written in coordinates in which it is smooth, and run by an embedded Runge-Kutta pair.

For a linear process and a reference variance $v$ of the data:

    n = sqrt(alpha^2 v + sigma^2)
    w = x/n
    c = log(sigma/(n + alpha sqrt(v))) = -asinh(sqrt(v) exp(lam))
    dw/dc = -tanh(c) w - D/sqrt(v)

`w` has unit variance at every level and does not move at all for N(0, v) data; `c` is the half
log-SNR (less a constant, negated) where there is little noise, and finite (0) at alpha = 0. The
divergence of the part that is linear in w is exact.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from srk._modes import asked
from srk.errors import IncompatibleError, ScoreError, SolveError
from srk.processes.base import ForwardProcess, Level, LinearProcess
from srk.scores import Prediction
from srk.scores.convert import combine

FIRST_STEP = 0.1
"""In units of c, that is about of log sigma."""

SMALLEST_STEP = 1e-9
"""Relative to the range of the clock."""


def wide(x: Tensor) -> torch.dtype:
    """Where log-densities are summed: float64, or the widest that the device of `x` has."""
    return torch.float32 if x.device.type == "mps" else torch.float64


@attrs.define
class Divergence:
    """The trace of the Jacobian of a network's output, exact or estimated, and what it cost.

    Arguments:
        prediction: whose output it is.
        vectors: the probes, shape (probes, batch, *event); None for the exact trace.
        chunk: how many directions are differentiated at once.
        differentiable: keep the graph of the trace itself.
        products: vector-Jacobian products so far.
    """

    prediction: Prediction
    vectors: Tensor | None
    chunk: int
    differentiable: bool
    products: int = 0

    def trace(self, out: Tensor, x: Tensor) -> Tensor:
        """tr(d out/d x) of each sample, shape (1, batch), or its estimates, shape (probes, batch).

        The sums are made in the precision `wide`.
        """
        if not out.requires_grad:
            raise self._undifferentiable()
        d = x[0].numel()
        n = d if self.vectors is None else len(self.vectors)
        self.products += n
        parts = []
        for first in range(0, n, self.chunk):
            last = min(first + self.chunk, n)
            if self.vectors is None:
                columns = torch.arange(first, last, device=x.device)
                rows = (
                    torch.nn.functional.one_hot(columns, d)
                    .to(x.dtype)[:, None]
                    .expand(-1, len(x), -1)
                    .reshape(-1, *x.shape)
                )
            else:
                rows = self.vectors[first:last]
            products = self._products(out, x, rows, keep=last < n)
            parts.append((products * rows).reshape(last - first, len(x), -1).sum(2, dtype=wide(x)))
        values = torch.cat(parts)
        return values.sum(0, keepdim=True) if self.vectors is None else values

    def _products(self, out: Tensor, x: Tensor, rows: Tensor, *, keep: bool) -> Tensor:
        """rows^T (d out/d x), of the shape of `rows`; `keep` the graph for more of them."""
        batched = len(rows) > 1
        try:
            (found,) = torch.autograd.grad(
                out,
                x,
                rows if batched else rows[0],
                retain_graph=keep or self.differentiable,
                create_graph=self.differentiable,
                allow_unused=True,
                is_grads_batched=batched,
            )
        except RuntimeError as error:
            if not batched:
                raise
            raise IncompatibleError(
                f"differentiating {len(rows)} directions of the network at once failed "
                f"({error}); use chunk=1, which takes one backward pass for each, "
                "or a smaller chunk if memory ran out"
            ) from error
        if found is None:
            raise self._undifferentiable()
        return found if batched else found[None]

    def _undifferentiable(self) -> IncompatibleError:
        return IncompatibleError(
            f"the output of {self.prediction!r} does not depend on its input by autograd, so "
            "it has no divergence; take torch.no_grad(), "
            "torch.inference_mode() and detach() out of the network's forward pass"
        )


class ProbabilityFlow(ABC):
    """The ODE in the coordinates and on the clock that it is integrated in.

    From `start` to `stop`, for states x/scale.
    """

    start: float
    stop: float
    first_step: float
    scale_start = 1.0
    scale_stop = 1.0

    def __init__(self, prediction: Prediction, divergence: Divergence) -> None:
        self.prediction, self.divergence = prediction, divergence
        self.evaluations = self.nfe = 0

    @abstractmethod
    def level(self, clock: float) -> Level:
        """The noise level there."""

    @abstractmethod
    def velocity(self, x: Tensor, state: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """The velocity of the state and its divergence (probes or 1, batch).

        `x` = scale `state` is what can be differentiated in.
        """

    @abstractmethod
    def scale(self, level: Level) -> float:
        """What x is divided by."""

    def rate(self, clock: float, state: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity, of the shape of `state`, and its divergence, shape (probes or 1, batch)."""
        level = self.level(clock)
        self.evaluations += 1
        self.nfe += self.prediction.calls(level.t)
        differentiable = self.divergence.differentiable
        with torch.enable_grad():  # also where the caller has switched it off
            x = (state if differentiable else state.detach()) * self.scale(level)
            if not x.requires_grad:
                x.requires_grad_()
            velocity, divergence = self.velocity(x, state, level)
        return (velocity, divergence) if differentiable else (velocity.detach(), divergence)


class LinearFlow(ProbabilityFlow):
    """That of a linear process: w over c, as in the module's docstring; `variance` is v."""

    first_step = FIRST_STEP

    def __init__(
        self,
        process: LinearProcess,
        start: Level,
        variance: float,
        prediction: Prediction,
        divergence: Divergence,
    ) -> None:
        super().__init__(prediction, divergence)
        if start.sigma == 0.0:
            raise IncompatibleError(
                f"at t = {start.t!r} the noise scale sigma is 0, where the ODE cannot start: "
                "the density may not exist there; "
                "give an own time with a little noise, e.g. t=1e-3"
            )
        self.process, self.root = process, math.sqrt(variance)
        self.first, self.last = start, process.level(process.t_max)
        self.start, self.stop = (
            -math.asinh(level.alpha * self.root / level.sigma) for level in (self.first, self.last)
        )
        self.scale_start, self.scale_stop = self.scale(self.first), self.scale(self.last)

    def scale(self, level: Level) -> float:
        return math.hypot(level.alpha * self.root, level.sigma)

    def level(self, clock: float) -> Level:
        if clock <= self.start:
            return self.first
        if clock >= self.stop:
            return self.last
        return self.process.level_at(math.log(math.sinh(-clock) / self.root))

    def velocity(self, x: Tensor, state: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        scale, d = self.scale(level), x[0].numel()
        cosine = level.alpha * self.root / scale  # -tanh(c)
        pair = self.prediction.coefficients(level)
        # The network's own output is what must be differentiable; D = a x + b output is so in any
        # case
        ask = self.prediction.denoise if pair is None else self.prediction.output
        out = asked(ask, x.clone(), level, self.process)  # no leaf, so that a change of it is seen
        a, b = pair or (0.0, 1.0)
        velocity = state * cosine - combine((a, b), x, out) / self.root
        if level.alpha == 0.0:  # where D is the mean of the data, whatever x
            return velocity, torch.zeros(1, len(x), dtype=wide(x), device=x.device)
        return velocity, (cosine - a * scale / self.root) * d - self.divergence.trace(out, x) * (
            b * scale / self.root
        )


class OwnTimeFlow(ProbabilityFlow):
    """That of any other process: dx/dt = drift - g^2 score/2 in its own time."""

    def __init__(
        self, process: ForwardProcess, start: float, prediction: Prediction, divergence: Divergence
    ) -> None:
        super().__init__(prediction, divergence)
        if np.ndim(process.diffusion(start)) > 0:
            raise IncompatibleError(
                f"log-densities need a scalar diffusion g(t), and that of {process!r} is a "
                "matrix; use a process such as srk.VP()"
            )
        self.process, self.start, self.stop = process, start, float(process.t_max)
        self.first_step = 0.01 * (self.stop - self.start)

    def scale(self, level: Level) -> float:
        return 1.0

    def level(self, clock: float) -> Level:
        return self.process.level(clock)

    def velocity(self, x: Tensor, state: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        score = asked(self.prediction.score, x.clone(), level, self.process)
        half = 0.5 * self.process.diffusion(level.t) ** 2
        drift = self.process.drift(level.t, x)
        divergence = -half * self.divergence.trace(score, x)
        if drift.requires_grad:
            divergence = divergence + self.divergence.trace(drift, x)
        return drift - half * score, divergence


def integrate(
    flow: ProbabilityFlow,
    x: Tensor,
    pair: Any,
    rtol: float,
    atol: float,
    steps: int | None,
    max_nfe: int,
) -> tuple[Tensor, Tensor, int, int]:
    """The state at the end of `flow` and the integral of its divergence (probes or 1, batch).

    The numbers of accepted and of rejected steps come back as well.

    The error of a step is the largest over samples of the root mean square over coordinates, or of
    that over probes of the divergence per coordinate.

    Arguments:
        flow: what is integrated.
        x: states at its start, unscaled, shape (batch, *event).
        pair: class of scipy with the coefficients of an explicit Runge-Kutta pair whose last stage
            is the first of the next step.
        rtol, atol: tolerances of a step.
        steps: so many equal steps instead.
        max_nfe: evaluations at most.
    """
    A, B, C, E = (coefficients.tolist() for coefficients in (pair.A, pair.B, pair.C, pair.E))
    exponent = -1.0 / (pair.error_estimator_order + 1)
    span, d = flow.stop - flow.start, x[0].numel()
    clock, state, change = (
        flow.start,
        x / flow.scale_start,
        torch.zeros((), dtype=wide(x), device=x.device),
    )
    h = min(flow.first_step, span)
    accepted, rejected, before = 0, 0, 1.0
    k, q = flow.rate(clock, state)
    while clock < flow.stop:
        if steps is not None:
            end = flow.start + span * (accepted + 1) / steps if accepted + 1 < steps else flow.stop
        else:
            end = clock + h if clock + 1.01 * h < flow.stop else flow.stop
        h = end - clock
        ks, qs = [k], [q]
        for a, c in zip(A[1:], C[1:], strict=True):
            k, q = flow.rate(clock + c * h, state + h * _sum(a, ks))
            ks.append(k)
            qs.append(q)
        new, total = state + h * _sum(B, ks), change + h * _sum(B, qs)
        if steps is not None and end == flow.stop:
            return _finite(flow, new, end), _finite(flow, total, end), steps, 0
        k, q = flow.rate(
            end, new
        )  # the first stage of the next step, and part of the error estimate
        norm = 0.0
        if steps is None:
            norm = _norm(
                h * _sum(E, [*ks, k]), state, new, h / d * _sum(E, [*qs, q]), change / d, rtol, atol
            )
        if norm <= 1.0:
            accepted += 1
            clock, state, change = end, new, total
            norm = max(norm, 1e-6)
            h *= max(
                0.2, min(3.0, 0.9 * norm ** (0.7 * exponent) * before ** (-0.4 * exponent))
            )  # PI control: fewer rejections
            before = norm
        else:
            rejected += 1
            k, q = _finite(flow, ks[0], clock), _finite(flow, qs[0], clock)
            h *= max(0.2, 0.9 * norm**exponent) if norm < math.inf else 0.2
        if clock < flow.stop and (flow.evaluations > max_nfe or h < SMALLEST_STEP * span):
            raise SolveError(
                f"the probability-flow ODE has reached t = {flow.level(clock).t:.6g} after "
                f"{flow.evaluations} evaluations (max_nfe={max_nfe}), with steps of "
                f"{h / span:.1g} of the way; loosen rtol={rtol:g} and atol={atol:g}, use "
                "float64, or choose a later t, where the distribution is smoother. "
                "Does the network return finite numbers there?",
                None,
            )
    return state, change, accepted, rejected


def _norm(
    k: Tensor, old: Tensor, new: Tensor, q: Tensor, change: Tensor, rtol: float, atol: float
) -> float:
    """The error in units of the tolerance, for the worst sample. Waits for the device."""
    with torch.no_grad():
        states = (
            (k / (atol + rtol * torch.maximum(old.abs(), new.abs())))
            .reshape(len(k), -1)
            .square()
            .mean(1)
            .sqrt()
        )
        divergences = (q / (atol + rtol * change.abs())).square().mean(0).sqrt()
        return float(torch.maximum(states.to(divergences.dtype), divergences).max())


def _sum(coefficients: list[float], terms: list[Tensor]) -> Tensor:
    """The sum of coefficients times terms; a row of A is longer than the terms there are."""
    total = coefficients[0] * terms[0]
    for a, term in zip(coefficients[1:], terms[1:], strict=False):
        if a != 0.0:
            total = total + a * term
    return total


def _finite(flow: ProbabilityFlow, tensor: Tensor, clock: float) -> Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise ScoreError(
            f"the probability-flow ODE is not finite at t = {flow.level(clock).t:.6g}: "
            f"{flow.prediction!r} or its derivative is nan or inf at or before it; "
            "look at its output there, or use float64"
        )
    return tensor
