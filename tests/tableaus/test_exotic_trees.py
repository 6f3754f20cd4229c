"""Weak order conditions generated anew, by brute force, from all forests of trees and all pairings
of their noise leaves.

The increment of X is a sum over trees whose nodes are f and whose leaves are noise (a leaf of
degree d carries the d-th derivative of g). The expectation of a product of increments is, by Wick's
theorem, a sum over pairings of the leaves; with several Brownian motions each pairing is a
condition of its own. Exact side: every node v has a time s_v below its parent's (below 1 for a
root) and a pair of leaves contributes `int_0^min(s_v, s_v') u^(d + d') du/(d! d'!)`. Method's side:
a sum over stages, a pair contributes the covariance of the stages' noises. A disconnected forest
gives the product of its components, so connected ones suffice.
"""

from __future__ import annotations

import itertools
import math
import string
from fractions import Fraction
from functools import lru_cache
from typing import Any

import attrs
import numpy as np
import pytest

from srk.tableaus import ORDER_CONDITIONS, TABLEAUS, StochasticTableau, check_tableau

ROOT = -1  # the parent of a root, and the place of the update's own noise


@attrs.frozen
class Forest:
    """Nodes 0..n-1 with their parents, and pairs of noise leaves ((place, degree), (place,
    degree)); place ROOT is the update's noise.
    """

    parents: tuple[int, ...]
    pairs: tuple[tuple[tuple[int, int], tuple[int, int]], ...]

    @property
    def order(self) -> int:
        return len(self.parents) + len(self.pairs) + sum(d + e for (_, d), (_, e) in self.pairs)

    @property
    def varying_g(self) -> bool:
        return any(d + e for (_, d), (_, e) in self.pairs)

    def connected(self) -> bool:
        # ROOT is no link: two update noises in different pairs belong to different components
        links: list[set[tuple[Any, ...]]] = [
            {("n", i), ("n", p)} for i, p in enumerate(self.parents) if p != ROOT
        ]
        links += [
            {("n", a) if a != ROOT else ("l", j, 0), ("n", b) if b != ROOT else ("l", j, 1)}
            for j, ((a, _), (b, _)) in enumerate(self.pairs)
        ]
        vertices = (
            {("n", i) for i in range(len(self.parents))}.union(*links)
            if links
            else {("n", i) for i in range(len(self.parents))}
        )
        grown = {next(iter(vertices))}
        reached: set[tuple[Any, ...]] = set()
        while reached != grown:
            reached = set(grown)
            for link in links:
                if link & grown:
                    grown |= link
        return grown == vertices

    def exact(self) -> Fraction:
        """The expectation in the SDE's own expansion (h = 1), by summing over the orderings of the
        nodes' times.
        """
        factor, n = Fraction(1), len(self.parents)
        for (_, d), (_, e) in self.pairs:
            factor /= (d + e + 1) * math.factorial(d) * math.factorial(e)
        total = Fraction(0)
        for order in itertools.permutations(range(n)):  # order[0] is the earliest
            rank = {v: r for r, v in enumerate(order)}
            if any(p != ROOT and rank[p] < rank[v] for v, p in enumerate(self.parents)):
                continue
            powers = [0] * (n + 1)
            for (a, d), (b, e) in self.pairs:
                powers[min(n if a == ROOT else rank[a], n if b == ROOT else rank[b])] += d + e + 1
            value, exponent = Fraction(1), 0
            for r in range(n):  # integrate the earliest time out, from 0 to the next
                exponent += powers[r] + 1
                value /= exponent
            total += value
        return factor * total

    def method(self, t: StochasticTableau) -> float:
        """The same expectation for one step of the tableau."""
        a = t.arrays
        letters = string.ascii_lowercase
        subscripts, factors = [], []
        for i, p in enumerate(self.parents):
            subscripts.append(letters[i] if p == ROOT else letters[p] + letters[i])
            factors.append(a.alpha if p == ROOT else a.A)

        def noise(place: int, degree: int) -> tuple[np.ndarray, np.ndarray]:
            moment = a.c1**degree / math.factorial(degree)
            w, k = (a.bw, a.bk) if place == ROOT else (a.w, a.k)
            return w @ moment, k @ moment

        for (x, d), (y, e) in self.pairs:
            (w, k), (v, j) = noise(x, d), noise(y, e)
            subscripts.append("".join(letters[place] for place in (x, y) if place != ROOT))
            factors.append(np.multiply.outer(w, v) + np.multiply.outer(k, j) / 12)
        return float(np.einsum(",".join(subscripts) + "->", *factors))


@lru_cache
def forests(max_order: int, varying_g: bool = False) -> tuple[Forest, ...]:
    """All connected forests up to an order (some appear in several labellings, which does no
    harm).
    """
    found: dict[Any, Forest] = {}
    for n in range(max_order + 1):
        for parents in itertools.product(*(range(ROOT, v) for v in range(n))):
            for pairs in range(max_order - n + 1):
                spare = max_order - n - pairs if varying_g else 0
                leaves = [
                    (place, degree) for place in range(ROOT, n) for degree in range(spare + 1)
                ]
                couples = list(itertools.combinations_with_replacement(leaves, 2))
                for chosen in itertools.combinations_with_replacement(couples, pairs):
                    forest = Forest(parents, chosen)
                    if 0 < forest.order <= max_order and forest.connected():
                        found[canonical(forest)] = forest
    return tuple(found.values())


def canonical(forest: Forest) -> Any:
    n = len(forest.parents)
    best = None
    for relabel in itertools.permutations(range(n)):
        to = dict(enumerate(relabel)) | {ROOT: ROOT}
        parents = [0] * n
        for v, p in enumerate(forest.parents):
            parents[to[v]] = to[p]
        pairs = sorted(tuple(sorted((to[x], d) for x, d in pair)) for pair in forest.pairs)
        key = (tuple(parents), tuple(pairs))
        best = key if best is None or key < best else best
    return best


def defects(t: StochasticTableau, max_order: int, varying_g: bool) -> list[Forest]:
    """The generated conditions that the tableau violates."""
    return [
        forest
        for forest in forests(max_order, varying_g)
        if abs(forest.method(t) - float(forest.exact())) > 1e-12 * 50
    ]  # SOSRA: terms to 17


@pytest.mark.parametrize("varying_g", [False, True], ids=["constant g", "g(t)"])
@pytest.mark.parametrize("name", sorted(TABLEAUS))
def test_the_weak_order_reported_is_the_one_the_generated_conditions_give(
    name: str, varying_g: bool
) -> None:
    report = check_tableau(TABLEAUS[name])
    reported = report.weak_order_varying if varying_g else report.weak_order
    assert reported == max(
        (p for p in (1, 2, 3) if not defects(TABLEAUS[name], p, varying_g)), default=0
    )


@pytest.mark.parametrize("varying_g", [False, True], ids=["constant g", "g(t)"])
def test_the_listed_conditions_are_exactly_the_generated_ones(varying_g: bool) -> None:
    """On a random tableau every generated residual is a listed one of the same order, and
    conversely: none is missing, none is too much.
    """
    draw = np.random.default_rng(0).normal
    s, m = 4, 3
    A = np.tril(draw(size=(s, s)), -1)
    bw, bk = draw(size=m), draw(size=m)
    bw[-1], bk[-1] = (
        1 - bw[:-1].sum(),
        -bk[:-1].sum(),
    )  # the list is written for an update noise of W
    t = StochasticTableau(
        "random",
        draw(size=s),
        A,
        A.sum(1),
        draw(size=(s, m)),
        draw(size=(s, m)),
        draw(size=m),
        bw,
        bk,
    )
    report = check_tableau(t)
    listed = [
        c
        for c in ORDER_CONDITIONS
        if c.weak and (varying_g or not c.varying_g) and c.name != "c = A e"
    ]
    generated = [
        (forest.order, forest.method(t) - float(forest.exact())) for forest in forests(3, varying_g)
    ]
    # a derivative of g appears in the generated conditions with its 1/2!
    scale = {c.name: 0.5 if c.name == "bw.c1^2 = 1/3" else 1.0 for c in listed}
    residuals = [
        (int(c.weak or 0), scale[c.name] * float(report.residuals[c.name])) for c in listed
    ]

    def found(item: tuple[int, float], among: list[tuple[int, float]]) -> bool:
        return any(
            item[0] == order and item[1] == pytest.approx(value, abs=1e-11)
            for order, value in among
        )

    assert all(found(item, residuals) for item in generated if abs(item[1]) > 1e-13)
    assert all(found(item, generated) for item in residuals if abs(item[1]) > 1e-13)


def test_number_of_exotic_conditions() -> None:
    """2, 3 and 11 connected conditions of order 1, 2 and 3 (constant g)."""
    orders = [forest.order for forest in forests(3)]
    assert [orders.count(p) for p in (1, 2, 3)] == [2, 3, 11]
