"""What the network is expected to say, from what it said before: Broyden's method.

A run that is parallel in time guesses the outputs of all evaluations in its window. Between two
rounds the input of an evaluation moves, and its output with it. These moves tell how the output
depends on the input along a few directions, for the evaluation itself and, since its neighbours
ask nearly the same function, for them too. So a guess follows the input that it is asked for,
which brings the iteration close to Newton's method without a derivative of the network.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from srk._modes import uncast

KEPT = 3
"""How many moves of an evaluation are kept."""
BEFORE, AFTER = 6, 3
"""How many evaluations before and after it tell an evaluation what they have seen."""
DAMPING = 1e-3
"""How far a move that was seen is believed less than fully."""


@lru_cache(maxsize=8)
def neighbours(count: int, device: torch.device) -> Tensor:
    """For each of `count` evaluations the moves that it looks at, in the order of learning.

    Move number a of evaluation e has the number a (count + 1) + e; number `count` stands for none.
    Those of distant evaluations come first and its own last, older ones before newer ones.
    """
    offsets = sorted(range(-BEFORE, AFTER + 1), key=lambda offset: -abs(offset))
    numbers = [
        [
            a * (count + 1) + e + offset if 0 <= e + offset < count else count
            for offset in offsets
            for a in range(KEPT)
        ]
        for e in range(count)
    ]
    return torch.tensor(numbers, device="cpu").to(device, non_blocking=True)


class Secants:
    """Guesses the outputs of the evaluations of a run, for each sample by itself.

    With the last input x0 and output f0 of an evaluation, the guess at x is

        f0 + Y w,    N w = S^T (x - x0),

    where the columns of S are moves of inputs, scaled to unit length, those of Y what they changed
    in the outputs, and N is the upper triangle of S^T S. These are the rank-one corrections of
    Broyden's method, one for each move in its order, in closed form. An evaluation that was never
    asked gets the last output of the latest one that was.

    Arguments:
        like: flattened states, (batch, n), whose dtype and device the guesses have.
        rounding: relative rounding of inputs and outputs. A move of less than its square root tells
            nothing.

    Source: Broyden, "A Class of Methods for Solving Nonlinear Simultaneous Equations", Math. Comp.
    19, 1965; the closed form: Byrd, Nocedal, Schnabel, "Representations of Quasi-Newton Matrices",
    Math. Programming 63, 1994, section 5.
    """

    def __init__(self, like: Tensor, rounding: float) -> None:
        self.first = 0
        self.shortest = rounding**0.5
        empty = like.new_zeros((0, *like.shape))
        self.inputs, self.outputs = empty, empty
        batch, size = like.shape
        # (batch, KEPT, evaluations + 1, n); the last is zero
        self.moves, self.effects = (like.new_zeros((batch, KEPT, 1, size)) for _ in range(2))
        self.known = torch.zeros((0, like.shape[0]), dtype=torch.bool, device=like.device)
        self.latest = torch.zeros_like(like)
        self._solved: Tensor | None = None

    def learn(self, first: int, inputs: Tensor, outputs: Tensor, asked: Tensor) -> None:
        """Take up a round: what evaluations first, first + 1, ... were asked, and answered.

        Arguments:
            first: the first evaluation.
            inputs, outputs: (evaluations, batch, n).
            asked: which samples were asked, (evaluations, batch).
        """
        self._cover(first + len(inputs))
        rows = slice(first - self.first, first - self.first + len(inputs))
        move, effect = inputs - self.inputs[rows], outputs - self.outputs[rows]
        length = torch.linalg.vector_norm(move, dim=-1, keepdim=True)
        least = self.shortest * torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
        told = ((asked & self.known[rows])[..., None]) & (length > least)
        for table, new in ((self.moves, move), (self.effects, effect)):
            latest = (new / length).transpose(0, 1)[:, None]
            shifted = torch.cat([table[:, 1:, rows], latest], 1)
            which = told.transpose(0, 1)[:, None]
            table[:, :, rows] = torch.where(which, shifted, table[:, :, rows])
        self.inputs[rows] = torch.where(asked[..., None], inputs, self.inputs[rows])
        self.outputs[rows] = torch.where(asked[..., None], outputs, self.outputs[rows])
        self.known[rows] |= asked
        # the last evaluation that each sample was ever asked, which is in this round
        count = len(asked) - 1 - asked.flip(0).to(torch.int8).argmax(0)
        late = outputs[count, torch.arange(len(count), device=count.device)]
        self.latest = torch.where(asked.any(0)[:, None], late, self.latest)
        self._solved = None

    def forget(self, before: int) -> None:
        """Evaluations before this one, and those that their neighbours look at, are done with."""
        drop = before - BEFORE - self.first
        if drop > 0:
            self.first += drop
            self.inputs, self.outputs = self.inputs[drop:], self.outputs[drop:]
            self.known = self.known[drop:]
            self.moves = self.moves[:, :, drop:].contiguous()
            self.effects = self.effects[:, :, drop:].contiguous()
            self._solved = None

    def guess(self, number: int, x: Tensor) -> Tensor:
        """What evaluation `number` is expected to say at the states `x`, (batch, n)."""
        at = number - self.first
        if at >= len(self.known):
            return self.latest.clone()
        inverse = self._inverse()
        moves, effects = self.moves.flatten(1, 2), self.effects.flatten(1, 2)
        order = neighbours(len(self.known), x.device)[at]
        with uncast(x):
            along = torch.einsum("bpn,bn->bp", moves[:, order], x - self.inputs[at])
            weights = torch.einsum("bpq,bq->bp", inverse[:, at], along)
            change = torch.einsum("bpn,bp->bn", effects[:, order], weights)
        known = self.known[at][:, None]
        # what is not finite is a matter for the network's watch, not for a guess
        change = torch.where(known & change.isfinite(), change, 0.0)
        return torch.where(known, self.outputs[at], self.latest) + change

    def _cover(self, stop: int) -> None:
        """Make room for evaluations up to `stop`."""
        more = stop - self.first - len(self.known)
        if more > 0:
            tables = self.moves, self.effects
            self.moves, self.effects = (F.pad(t, (0, 0, 0, more)) for t in tables)
            self.inputs, self.outputs = (
                F.pad(t, (0, 0, 0, 0, 0, more)) for t in (self.inputs, self.outputs)
            )
            self.known = F.pad(self.known, (0, 0, 0, more))

    def _inverse(self) -> Tensor:
        """The inverses of N, of each sample for each evaluation."""
        if self._solved is None:
            moves = self.moves.flatten(1, 2)
            with uncast(moves):
                products = moves @ moves.mT
            order = neighbours(len(self.known), moves.device)
            near = products[:, order[:, :, None], order[:, None, :]].triu(1)
            identity = torch.eye(near.shape[-1], dtype=near.dtype, device=near.device)
            triangle = near + (1.0 + DAMPING) * identity
            self._solved = torch.linalg.solve_triangular(
                triangle, identity.expand_as(triangle), upper=True
            )
        return self._solved
