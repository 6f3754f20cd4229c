"""The tableaus of the literature, each under its registered name.

Registering one checks its order conditions.
"""

from __future__ import annotations

import math
from fractions import Fraction

from srk.tableaus.base import StochasticTableau
from srk.tableaus.registry import register_tableau

__all__ = [
    "AWR3",
    "EULER",
    "HEUN",
    "MIDPOINT",
    "SEA",
    "SHARK",
    "SOSRA",
    "SOSRA2",
    "SPARK",
    "SRA1",
    "SRA2",
    "SRA3",
]

_ROESSLER = (
    "Roessler 2010: Runge-Kutta methods for the strong approximation of solutions of SDEs, "
    "SIAM J. Numer. Anal. 48, 922"
)
_RACKAUCKAS = (
    "Rackauckas, Nie 2020: Stability-optimized high order methods for pathwise stiff SDEs, "
    "IEEE HPEC, arXiv 1804.04344"
)
_FOSTER = (
    "Foster, dos Reis, Strange 2023: High order splitting methods for SDEs satisfying a "
    "commutativity condition, arXiv 2210.17543"
)

SRA1 = register_tableau(
    StochasticTableau.from_sra(
        "sra1",
        alpha=("1/3", "2/3"),
        A=((), ("3/4",)),
        B=((), ("3/2",)),
        c=(0, "3/4"),
        c1=(1, 0),
        beta1=(1, 0),
        beta2=(-1, 1),
        strong_order=1.5,
        weak_order=2,
        alpha_hat=(1, 0),
        reference=_ROESSLER,
        advice="2 calls, strong 1.5: the classic, all stages on their own noise levels; the first "
        "choice for accuracy on the path",
    )
)
SRA2 = register_tableau(
    StochasticTableau.from_sra(
        "sra2",
        alpha=("1/3", "2/3"),
        A=((), ("3/4",)),
        B=((), ("3/2",)),
        c=(0, "3/4"),
        c1=("1/3", 1),
        beta1=(0, 1),
        beta2=("3/2", "-3/2"),
        strong_order=1.5,
        weak_order=2,
        alpha_hat=(1, 0),
        reference=_ROESSLER,
        advice="2 calls, strong 1.5: SRA1 with g read at 1/3 and 1, for a g that is singular at "
        "the start of a step; else SRA1",
    )
)
SRA3 = register_tableau(
    StochasticTableau.from_sra(
        "sra3",
        alpha=("1/6", "1/6", "2/3"),
        A=((), (1,), ("1/4", "1/4")),
        B=((), (0,), (1, "1/2")),
        c=(0, 1, "1/2"),
        c1=(1, 0, 0),
        beta1=(1, 0, 0),
        beta2=(-1, 1, 0),
        strong_order=1.5,
        weak_order=2,
        alpha_hat=(1, 0, 0),
        reference=_ROESSLER,
        advice="3 calls, strong 1.5, order 3 without noise: for small noise; its stages are off "
        "their noise levels",
    )
)
SOSRA = register_tableau(
    StochasticTableau.from_sra(
        "sosra",
        alpha=(0.2889874966892885, 0.6859880440839937, 0.025024459226717772),
        A=((), (0.6923962376159507,), (-3.1609142252828395, 4.1609142252828395)),
        B=((), (1.3371632704399763,), (1.442371048468624, 1.8632741501139225)),
        c=(0, 0.6923962376159507, 1),
        c1=(0, 0.041248171110700504, 1),
        beta1=(-16.792534242221663, 17.514995785380226, 0.27753845684143835),
        beta2=(0.4237535769069274, 0.6010381474428539, -1.0247917243497813),
        strong_order=1.5,
        weak_order=2,
        alpha_hat=(1, 0, 0),
        reference=_RACKAUCKAS,
        advice="3 calls, strong 1.5: large stability region, for mildly stiff drift and adaptive "
        "steps; stage 3 has 3.6 times its noise",
    )
)
SOSRA2 = register_tableau(
    StochasticTableau.from_sra(
        "sosra2",
        alpha=(0.4999999999999998, -0.9683897375354181, 1.4683897375354185),
        A=((), (1,), (0.9511849235504364, 0.04881507644956362)),
        B=((), (0.7686101171003622,), (0.43886792994934987, 0.7490415909204886)),
        c=(0, 1, 1),
        c1=(0, 1, 1),
        beta1=(0, 0.92438032145683, 0.07561967854316998),
        beta2=(1, -0.8169981105823436, -0.18300188941765633),
        strong_order=1.5,
        weak_order=2,
        alpha_hat=(1, 0, 0),
        reference=_RACKAUCKAS,
        advice="3 calls, strong 1.5: as SOSRA, both later stages at the end of the step (which "
        "detects stiffness); a negative weight",
    )
)
SHARK = register_tableau(
    StochasticTableau.from_wh(
        "shark",
        alpha=("2/5", "3/5"),
        A=((), ("5/6",)),
        c=(0, "5/6"),
        w=(0, "5/6"),
        k=(1, 1),
        strong_order=1.5,
        weak_order=2,
        alpha_hat=(1, 0),
        reference=_FOSTER + "; eq. (6.1)",
        advice="2 calls, strong 1.5: a smaller strong error than SRA1 at small steps; stage 1 "
        "carries noise at time 0",
    )
)
SEA = register_tableau(
    StochasticTableau.from_wh(
        "sea",
        alpha=(1,),
        A=((0,),),
        c=(0,),
        w=("1/2",),
        k=(1,),
        strong_order=1,
        weak_order=1,
        reference=_FOSTER + "; eq. (5.8)",
        advice="1 call, strong 1 (not 1.5): Euler at a shifted point, smaller strong error for one "
        "more Gaussian",
    )
)
_X = (3 - math.sqrt(3)) / 6
SPARK = register_tableau(
    StochasticTableau(  # reads g at the stages, as the splitting path does, hence not from_wh
        "spark",
        alpha=(_X, math.sqrt(3) / 3, _X),
        A=((), ("1/2",), (0, 1)),
        c=(0, "1/2", 1),
        w=((0, 0, 0), ("1/2", 0, 0), (0, 1, 0)),
        k=((0, 0, 0), (math.sqrt(3), 0, 0), (0, 0, 0)),
        c1=(0, "1/2", 1),
        bw=(_X, math.sqrt(3) / 3, _X),
        bk=(1, 0, -1),
        strong_order=1.5,
        weak_order=2,
        alpha_hat=("1/2", 0, "1/2"),
        bw_error=(_X - 0.5, math.sqrt(3) / 3, _X - 0.5),
        bk_error=(1, 0, -1),
        reference="Foster 2023: On the convergence of adaptive approximations for SDEs, "
        "arXiv 2311.14201; Definition 1.6",
        advice="3 calls, strong 1.5: all stages on their own noise levels and a trapezoidal "
        "embedded error: for adaptive steps",
    )
)
# Weak order 3 for additive noise. With weights >= 0 the conditions force w = c and Q = c (every
# stage has the noise of its own time),
# hence k_i = +-sqrt(12 c_i (1 - c_i)); alpha.k = 1 needs a negative k_i among them, and three
# stages do not suffice. With four, c and
# A_42 = 0 were chosen near the smallest sum of squares of the conditions of order 4; alpha solves
# alpha.(1, c, c^2, k) = (1, 1/2, 1/3,
# 1), and A_32 and A_43 the two conditions that are left. Stage i reads g at t + c_i h/2
# (interpolated), which is what weak order 3 asks
# for g(t).
_AWR3_C = (Fraction(0), Fraction(5, 12), Fraction(7, 12), Fraction(23, 24))
_AWR3_K = (0.0, 1.7078251276599331, 1.7078251276599331, -0.6922186552431729)
AWR3 = register_tableau(
    StochasticTableau(
        "awr3",
        alpha=(0.16731248881953122, 0.3101034346175182, 0.34671867856922724, 0.17586539799372333),
        A=(
            (),
            ("5/12",),
            (-0.06061020058277775, 0.6439435339161111),
            (0.2405248321257579, 0, 0.7178085012075754),
        ),
        c=_AWR3_C,
        w=tuple((c * (1 - c), c * c, 0) for c in _AWR3_C),
        k=tuple((k * (1 - c), k * c, 0) for k, c in zip(_AWR3_K, _AWR3_C, strict=True)),
        c1=(0, "1/2", 1),
        bw=("1/6", "2/3", "1/6"),
        bk=(1, 0, -1),
        strong_order=1.5,
        weak_order=3,
        alpha_hat=(0.22810448619947113, 0, 0.6392885352680182, 0.13260697853251066),
        bw_error=("-5/6", "2/3", "1/6"),
        bk_error=(1, 0, -1),
        reference="srk's own: after the order theory of Debrabant 2010, BIT (whose method is "
        "another one)",
        advice="4 calls, strong 1.5, weak 3: for the distribution of the result at small steps; "
        "positive weights, all stages on their noise levels",
    )
)
HEUN = register_tableau(
    StochasticTableau.from_wh(
        "stochastic-heun",
        alpha=("1/2", "1/2"),
        A=((), (1,)),
        c=(0, 1),
        w=(0, 1),
        k=(0, 0),
        strong_order=1,
        weak_order=2,
        alpha_hat=(1, 0),
        reference="Ruemelin 1982: Numerical treatment of stochastic differential equations, SIAM "
        "J. Numer. Anal. 19, 604",
        advice="2 calls, strong 1, weak 2: one Gaussian per step; the simplest "
        "method of weak order 2",
    )
)
MIDPOINT = register_tableau(
    StochasticTableau(
        "stochastic-midpoint",
        alpha=(0, 1),
        A=((), ("1/2",)),
        c=(0, "1/2"),
        w=((0,), ("1/2",)),
        k=((0,), (0,)),
        c1=("1/2",),
        bw=(1,),
        bk=(0,),
        strong_order=1,
        weak_order=1,
        alpha_hat=(1, 0),
        reference="Kloeden, Platen 1992: Numerical Solution of Stochastic Differential "
        "Equations, Springer",
        advice="2 calls, strong 1, weak 1 (its midpoint carries half its noise; weak 2 only for "
        "linear drift): for comparison",
    )
)
EULER = register_tableau(
    StochasticTableau(
        "euler",
        alpha=(1,),
        A=((0,),),
        c=(0,),
        w=((0,),),
        k=((0,),),
        c1=(0,),
        bw=(1,),
        bk=(0,),
        strong_order=1,
        weak_order=1,
        reference="Maruyama 1955: Continuous Markov processes and stochastic equations, Rend. "
        "Circ. Mat. Palermo 4, 48",
        advice="1 call, strong 1 (additive noise), weak 1: Euler-Maruyama, the baseline",
    )
)
