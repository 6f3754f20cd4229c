"""The orders that the checker derives from coefficients, measured on SDEs without Monte Carlo.

Strong: on a linear SDE a step is linear in the path, so the mean square of the global error is an
    exact recursion.
Weak: the expectation of a polynomial after one step is a finite Gauss-Hermite sum over (W, H), and
    the exact one is the Taylor series
`sum h^n L^n phi/n!` of the generator; on the Benes SDE (drift tanh) the law at the end is known in
closed form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
import sympy as sp
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from srk.tableaus import TABLEAUS, StochasticTableau

Array = NDArray[np.float64]
NAMES = sorted(TABLEAUS)


def step(
    t: StochasticTableau,
    x: Array,
    time: float,
    h: float,
    W: Array,
    H: Array,
    f: Callable[..., Array],
    g: Callable[[float], Array],
) -> Array:
    """One step as the module docstring of srk.tableaus.base states it.

    X, W, H are (..., d), g(t) is (d,).
    """
    a = t.arrays
    gs = [g(time + c * h) for c in a.c1]

    def noise(w: Array, k: Array) -> Array:
        return sum(
            (gm * (wm * W + km * H) for gm, wm, km in zip(gs, w, k, strict=True)), np.zeros_like(W)
        )

    rates: list[Array] = []
    for i in range(t.stages):
        drift = sum((a.A[i, j] * rates[j] for j in range(i)), np.zeros_like(x))
        rates.append(f(x + h * drift + noise(a.w[i], a.k[i]), time + a.c[i] * h))
    update = sum((al * r for al, r in zip(a.alpha, rates, strict=True)), np.zeros_like(x))
    return x + h * update + noise(a.bw, a.bk)


def slopes(errors: list[float]) -> list[float]:
    """Orders between successive halvings."""
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


# --- strong order
# ----------------------------------------------------------------------------


def linear_error(t: StochasticTableau, steps: int) -> float:
    """Root mean square error at time 1 for dX = (a X + cos s) ds + g(s) dB, g = 1 + sin 2s, X_0 =
    1.

    (error, X) obeys a linear recursion with Gaussian noise, so its second moments are exact.
    """
    a, h = -1.5, 1.0 / steps
    u, weights = leggauss(20)
    u, weights = (u + 1) * h / 2, weights * h / 2
    grow = math.exp(a * h)
    mean, second = np.array([0.0, 1.0]), np.array([[0.0, 0.0], [0.0, 1.0]])
    for n in range(steps):
        s = n * h

        def numeric(x: float, W: float, H: float, s: float = s) -> float:
            f, g = (
                (lambda y, r: a * y + math.cos(r)),
                (lambda r: np.array([1.0 + math.sin(2.0 * r)])),
            )
            return float(step(t, np.array([x]), s, h, np.array([W]), np.array([H]), f, g)[0])

        base = numeric(0, 0, 0)
        R, p, q = numeric(1, 0, 0) - base, numeric(0, 1, 0) - base, numeric(0, 0, 1) - base
        decay = np.exp(a * (h - u))
        shift = float(weights @ (decay * np.cos(s + u)))
        exact_kernel = decay * (1.0 + np.sin(2.0 * (s + u)))
        error_kernel = p + q * (0.5 - u / h) - exact_kernel  # W = int dB, H = int (1/2 - u/h) dB
        M, v = np.array([[R, R - grow], [0.0, grow]]), np.array([base - shift, shift])
        kernels = np.array([error_kernel, exact_kernel])
        second = (
            M @ second @ M.T
            + np.outer(M @ mean, v)
            + np.outer(v, M @ mean)
            + np.outer(v, v)
            + (kernels * weights) @ kernels.T
        )
        mean = M @ mean + v
    return math.sqrt(second[0, 0])


def quadratic_error(t: StochasticTableau, steps: int) -> float:
    """Root mean square error of Y at time 1 for dX = dB, dY = X^2 ds, X_0 = 1, from the Gaussian
    moments of (W, H, int B, int B^2).

    Per step the error is x D + E with D linear and E quadratic in the step's noise; all terms but
    the means of E are orthogonal.
    """
    h = 1.0 / steps

    def numeric(x: float, W: float, H: float) -> float:
        f, g = (lambda y, r: np.array([0.0, y[0] ** 2])), (lambda r: np.array([1.0, 0.0]))
        return float(
            step(t, np.array([x, 0.0]), 0.0, h, np.array([W, 0.0]), np.array([H, 0.0]), f, g)[1]
        )

    a, d = numeric(0, 1, 0), numeric(0, 0, 1)  # Y' = h x^2 + p x W + q x H + a W^2 + b W H + d H^2
    b = numeric(0, 1, 1) - a - d
    p, q = numeric(1, 1, 0) - numeric(1, 0, 0) - a, numeric(1, 0, 1) - numeric(1, 0, 0) - d
    linear = (h - p) ** 2 * h + (2 * h - q) ** 2 * h / 12  # 2 int B = h W + 2 h H
    mean = h**2 / 2 - a * h - d * h / 12
    cross = a * h**3 * (1 / 2 + 2 / 3) + b * h**3 / 12 + d * h**3 * (1 / 24 + 1 / 60)
    own = h**2 * (3 * a**2 + b**2 / 12 + d**2 / 48 + a * d / 6)
    variance = 7 / 12 * h**4 - 2 * cross + own - mean**2
    means_of_square = sum(1.0 + n * h for n in range(steps))  # E X_n^2
    bias = steps * (h - numeric(1, 0, 0)) * 1.0 + steps * mean
    return math.sqrt(means_of_square * linear + steps * variance + bias**2)


@pytest.mark.parametrize("name", NAMES)
def test_strong_order_of_a_linear_sde_with_time_dependent_noise(name: str) -> None:
    """At least the declared strong order, and exactly 1 for methods of order 1.

    A linear drift hides the h^(3/2) term of the others.
    """
    tableau = TABLEAUS[name]
    measured = slopes([linear_error(tableau, n) for n in (16, 32, 64, 128)])[-1]
    assert measured > tableau.strong_order - 0.05
    if tableau.strong_order == 1:
        assert measured == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_strong_order_of_a_nonlinear_sde_is_the_declared_one(name: str) -> None:
    tableau = TABLEAUS[name]
    errors = [quadratic_error(tableau, n) for n in (64, 128, 256, 512)]
    assert slopes(errors)[-1] == pytest.approx(tableau.strong_order, abs=0.05)


# --- weak order
# ----------------------------------------------------------------------------

START = (1.2, 1.0, -0.3)  # x, y, time


@lru_cache
def generator_series(varying: bool) -> tuple[float, ...]:
    """L^n phi / n! at START for n = 0 ... 6, of the SDE and the polynomial of `weak_error`."""
    x, y, s = sp.symbols("x y s")
    f = (-x + y**2 / 2 + s * y, x * y / 2 - y + s**2)
    g = (
        (1 + s + s**2 / 2, sp.Rational(7, 10) - s)
        if varying
        else (sp.Integer(1), sp.Rational(7, 10))
    )
    u, out = sp.Poly(x**3 + x * y + x**2 * y, x, y, s), []
    for n in range(7):
        out.append(
            float(u.eval(dict(zip((x, y, s), map(sp.Rational, map(str, START)), strict=True))))
            / math.factorial(n)
        )
        terms = [u.diff(s)] + [
            u.diff(z) * fz + u.diff(z).diff(z) * gz**2 / 2
            for z, fz, gz in zip((x, y), f, g, strict=True)
        ]
        u = sp.Poly(sum((sp.Poly(term, x, y, s) for term in terms), sp.Poly(0, x, y, s)), x, y, s)
    return tuple(out)


def weak_error(t: StochasticTableau, h: float, varying: bool) -> float:
    """|E phi(one step) - E phi(X_h)|, two coupled components with their own noises, nonlinear,
    drift (and g) depending on time.
    """
    nodes, weights = hermegauss(9)
    weights = weights / weights.sum()
    W1, H1, W2, H2 = (z.ravel() for z in np.meshgrid(nodes, nodes, nodes, nodes, indexing="ij"))
    weight = np.einsum("a,b,c,d->abcd", weights, weights, weights, weights).ravel()
    W, H = np.stack([W1, W2], -1) * math.sqrt(h), np.stack([H1, H2], -1) * math.sqrt(h / 12)

    def f(z: Array, s: float) -> Array:
        x, y = z[..., 0], z[..., 1]
        return np.stack([-x + y**2 / 2 + s * y, x * y / 2 - y + s**2], -1)

    def g(s: float) -> Array:
        return np.array([1 + s + s**2 / 2, 0.7 - s]) if varying else np.array([1.0, 0.7])

    z = step(t, np.broadcast_to(np.array(START[:2]), W.shape), START[2], h, W, H, f, g)
    x, y = z[:, 0], z[:, 1]
    exact = sum(c * h**n for n, c in enumerate(generator_series(varying)))
    return abs(float(weight @ (x**3 + x * y + x**2 * y)) - exact)


@pytest.mark.parametrize("varying", [False, True], ids=["constant g", "g(t)"])
@pytest.mark.parametrize("name", NAMES)
def test_weak_order_is_the_declared_one(name: str, varying: bool) -> None:
    """A weak order p shows as h^(p+1) in one step."""
    tableau = TABLEAUS[name]
    measured = slopes([weak_error(tableau, h, varying) for h in (0.02, 0.01, 0.005)])
    assert measured[-1] == pytest.approx(tableau.weak_order + 1, abs=0.05)


def benes_error(t: StochasticTableau, steps: int) -> float:
    """|E phi(X_1) - exact| for dX = tanh(X) dt + dB, phi = exp(-(x - 3/2)^2), by backward recursion
    of E phi on a grid.
    """
    start, h = 0.8, 1.0 / steps
    grid = np.linspace(-10.0, 10.0, 401)
    nodes, weights = hermegauss(12)
    weights = weights / weights.sum()
    W, H = nodes[:, None] * math.sqrt(h), nodes[None, :] * math.sqrt(h / 12)
    shape = (len(grid), len(nodes), len(nodes), 1)
    W, H = (np.broadcast_to(z[None, :, :, None], shape) for z in np.broadcast_arrays(W, H))
    x = np.broadcast_to(grid[:, None, None, None], shape)
    after = step(t, x, 0.0, h, W, H, lambda z, s: np.tanh(z), lambda s: np.ones(1))[..., 0]
    value = np.exp(-((after - 1.5) ** 2))
    for n in range(steps):
        level = np.einsum("iab,a,b->i", value, weights, weights)
        if n < steps - 1:
            value = make_interp_spline(grid, level, k=7)(np.clip(after, grid[0], grid[-1]))
    law = [
        (math.exp(sign * start) / (2 * math.cosh(start)), start + sign) for sign in (1, -1)
    ]  # a mixture of N(start +- 1, 1)
    exact = sum(p * math.exp(-((m - 1.5) ** 2) / 3) / math.sqrt(3) for p, m in law)
    return abs(float(make_interp_spline(grid, level, k=7)(start)) - exact)


@pytest.mark.parametrize("name", ["awr3", "sra1", "stochastic-heun", "euler"])
def test_weak_order_on_the_benes_sde_is_the_declared_one(name: str) -> None:
    """Against a closed-form law, after many steps."""
    coarse, fine = (
        benes_error(TABLEAUS[name], n) for n in ((16, 32) if name == "awr3" else (8, 16))
    )
    assert slopes([coarse, fine])[0] == pytest.approx(TABLEAUS[name].weak_order, abs=0.15)
    if name == "awr3":
        assert coarse < benes_error(TABLEAUS["sra1"], 32) / 100  # at equal cost, 64 calls
