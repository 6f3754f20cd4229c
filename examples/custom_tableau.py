"""A stochastic Runge-Kutta method of one's own: written down, checked, registered, and its orders
measured.

    python examples/custom_tableau.py --out custom_tableau.png

Two stages, additive noise: the conditions of strong order 1.5 are, for drift weights alpha,
    abscissae c and stage weights w of W and k of H,

    alpha.e = 1,  alpha.c = 1/2,  alpha.w = 1/2,  alpha.k = 1,  alpha.(w^2 + k^2/12) = 1/2.

With c = w = (0, c2) and alpha = (1 - a, a) they leave c2 = 1/(2a) and a spread of k of 5 - 3/a
around its mean 1. Roessler's SRA1 has a = 2/3. Here is the other end, a = 3/5, where the spread is
zero: c2 = 5/6 and k = (1, 1), the same weight of the Levy area H in both stages. Ten seconds on one
core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import srk
from srk.analysis.plotting import MARKERS, PALETTE, house_style, work_axes

PROCESS = srk.OU(t_min=0.05, horizon=2.0)
TARGET = srk.targets.GaussianMixture([0.4, 0.6], [-1.0, 0.5], [0.6, 0.5])


def even_levy(name: str = "even-levy", k: Sequence[str | int] = (1, 1)) -> srk.StochasticTableau:
    """The tableau.

    Coefficients as strings are exact fractions, and the conditions are checked exactly.
    """
    return srk.StochasticTableau.from_wh(
        name,
        alpha=("2/5", "3/5"),
        A=((), ("5/6",)),
        c=(0, "5/6"),
        w=(0, "5/6"),
        k=k,
        strong_order=1.5,
        weak_order=2,
        advice="an example: the same weight of the Levy area in both stages",
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("custom_tableau.png"))
    parser.add_argument("--steps", type=int, nargs="+", default=(32, 64, 128, 256))
    parser.add_argument(
        "--paths", type=int, default=256, help="Brownian paths for the strong order"
    )
    args = parser.parse_args(argv)

    print("1. A wrong coefficient is refused, with the conditions that it breaks:\n")
    try:
        srk.register_tableau(even_levy("wrong", k=(1, "1/2")))
    except srk.errors.TableauError as error:
        print(error)

    print("\n2. The right ones are registered, and the name is a solver:\n")
    srk.register_tableau(even_levy())
    print(srk.solve(PROCESS, TARGET.score(PROCESS), "even-levy", shape=1000, nfe=50, seed=0))

    print(
        "\n3. Its orders, measured. Strong: on one Brownian path, median over paths; weak: "
        "from exact distributions on Gaussian data:\n"
    )
    solvers = ("even-levy", "sra1", "euler-maruyama")
    strong = srk.analysis.strong_orders(
        solvers, PROCESS, TARGET, steps=args.steps, paths=args.paths
    )
    weak = {
        solver: srk.analysis.weak_order(solver, PROCESS, steps=args.steps) for solver in solvers
    }
    for solver in solvers:
        declared = srk.solvers()[solver]
        print(
            f"{solver:15s} strong {strong[solver].slope:.2f} (declared "
            f"{declared.strong_order:g})   "
            f"weak {weak[solver].slope:.2f} (declared {declared.weak_order:g})"
        )

    with house_style("examples/custom_tableau.py") as plt:
        figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.3))
        for axis, orders, title in (
            (axes[0], strong, "strong error"),
            (axes[1], weak, "weak error, square root of the KL"),
        ):
            for i, (solver, order) in enumerate(orders.items()):
                axis.plot(
                    order.steps,
                    order.errors,
                    color=PALETTE[i],
                    marker=MARKERS[i],
                    label=f"{solver}: {order.slope:.2f}",
                )
                ideal = order.errors[-1] * (order.steps / order.steps[-1]) ** -float(
                    order.declared or 0
                )
                axis.plot(
                    order.steps,
                    ideal,
                    "--",
                    color="0.5",
                    linewidth=0.8,
                    zorder=1,
                    label="declared order" if i == 2 else None,
                )
            work_axes(axis, args.steps, "steps")
            axis.set_title(title)
            axis.legend(title="measured order", loc="lower left", fontsize="small")
            axis.set_ylim(bottom=min(float(order.errors[-1]) for order in orders.values()) / 8)
        axes[0].set_ylabel("error")
        figure.savefig(args.out)
        plt.close(figure)
    print(f"\nwrote {args.out}")


if __name__ == "__main__":
    main()
