"""Restart and RePaint against plain runs at equal numbers of network calls, on mixtures.

    python benchmarks/restart.py    # two minutes of one core; writes benchmarks/results/restart.md

Restart: the one-dimensional mixture of .3 N(-1, .1^2), .5 N(.3, .05^2) and .2 N(1.2, .2^2) under
EDM from sigma = 80 to 0.002, with the settings that its code publishes for CIFAR-10. The network is
exact, or wrong by e s sin(4 x/sqrt(1/2 + sigma^2) + 1), where s = .3 sigma/sqrt(sigma^2 + .09) is
about the posterior deviation of the data. W2 to the exact distribution of the data, 100000 samples,
mean of two seeds.

RePaint: a coordinate of a two-dimensional distribution is known, the other is drawn, under VP with
`ddpm`. W2 of its 20000 samples to the exact posterior.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import srk
from srk.steps import RePaint, Restart

OUT = Path(__file__).parent / "results" / "restart.md"
EDM, VP = srk.EDM(0.002, 80.0), srk.VP()
DATA = srk.targets.GaussianMixture([0.3, 0.5, 0.2], [-1.0, 0.3, 1.2], [0.1, 0.05, 0.2])
COUNT, KNOWN = 100_000, 20_000


def network(error: float) -> srk.Data:
    """The denoiser of the data, wrong by `error` times the deviation of the posterior."""
    score = DATA.score(EDM)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        sigma = t.view(-1, 1)
        exact = x + sigma.square() * score(x, t)
        if error == 0.0:
            return exact
        deviation = 0.3 * sigma / (sigma.square() + 0.09).sqrt()
        return exact + error * deviation * torch.sin(4.0 * x / (0.5 + sigma.square()).sqrt() + 1.0)

    return srk.Data(denoise)


def quantiles(samples: Tensor, count: int) -> Tensor:
    """The means of the samples between `count` + 1 quantiles."""
    return samples.flatten().double().sort().values.reshape(count, -1).mean(1)


def w2(x: Tensor, exact: Tensor) -> float:
    """W2 between the samples and a distribution in one dimension, given by its quantiles."""
    return float((x.double().flatten().sort().values - exact).square().mean().sqrt())


def restart() -> list[str]:
    """The table of Restart."""
    exact = quantiles(DATA.sample(20 * COUNT, seed=9), COUNT)
    floor = w2(DATA.sample(COUNT, seed=5), exact)
    rows = [
        f"W2; the floor is {floor:.3f}.",
        "",
        "| error | method | 43 calls | 75 calls | 115 calls |",
        "|---|---|---|---|---|",
    ]
    churned = srk.integrators.EDMHeun(s_churn=10.0, s_min=0.01, s_max=50.0)
    for error in (0.0, 0.1, 0.3):
        score = network(error)
        for name, solver in (
            ("`heun`", "heun"),
            ("`edm-heun`, churn 10", churned),
            ("`ddpm`", "ddpm"),
            ("`heun` with Restart", None),
        ):
            cells = []
            for nfe in (43, 75, 115):
                grid = Restart.published("cifar10-vp", nfe) if solver is None else "karras"
                how = {"grid": grid} if solver is None else {"grid": grid, "nfe": nfe}
                values = []
                for seed in (0, 1):
                    sol = srk.solve(
                        EDM,
                        score,
                        solver or "heun",
                        shape=(COUNT, 1),
                        seed=seed,
                        check_network=False,
                        **how,
                    )
                    assert sol.nfe <= nfe
                    values.append(w2(sol.x, exact))
                cells.append(f"{sum(values) / 2:.3f}")
            rows.append(f"| {error:g} | {name} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    return rows


def posterior_of_mixture(target: srk.targets.GaussianMixture, known: float) -> Tensor:
    """Samples of the second coordinate given the first."""
    weights, means, std = target.weights, target.means, target.stds
    log = weights.log() - 0.5 * ((known - means[:, 0]) / std).square() - std.log()
    generator = torch.Generator().manual_seed(3)
    k = torch.multinomial(log.softmax(0), 10 * KNOWN, replacement=True, generator=generator)
    noise = torch.randn(10 * KNOWN, generator=generator, dtype=torch.float64)
    return means[k, 1] + std[k] * noise


def repaint() -> list[str]:
    """The table of RePaint."""
    noise = torch.randn(10 * KNOWN, generator=torch.Generator().manual_seed(3)).double()
    gaussian = srk.targets.Gaussian([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]])
    means, std = [[-1.0, -1.0], [0.2, 0.9], [1.0, -0.3]], [0.35, 0.3, 0.4]
    mixture = srk.targets.GaussianMixture([0.3, 0.3, 0.4], means, std)
    mask = torch.tensor([True, False])
    rows = [
        "| data | method | 51 calls | 251 calls | 501 calls |",
        "|---|---|---|---|---|",
    ]
    for name, target, known, exact in (
        ("Gaussian, correlation 0.8", gaussian, 1.5, 1.2 + 0.6 * noise),
        ("three modes", mixture, 0.6, posterior_of_mixture(mixture, 0.6)),
    ):
        wanted = quantiles(exact, KNOWN)
        data = torch.tensor([known, 0.0])
        for method, hook in (
            ("`Replace`", srk.scores.Replace(data, mask)),
            ("`RePaint`", srk.scores.RePaint(data, mask)),
        ):
            for kind in ("plain", "jumps"):
                cells = []
                for nfe, resamplings in ((51, 1), (251, 5), (501, 10)):
                    if kind == "jumps" and resamplings == 1:
                        cells.append("")
                        continue
                    grid = RePaint(resamplings=resamplings, base="log-snr")
                    how = {"grid": grid, "steps": 50} if kind == "jumps" else {"nfe": nfe}
                    sol = srk.solve(
                        VP, target.score(VP), "ddpm", shape=KNOWN, seed=0, hooks=[hook], **how
                    )
                    assert sol.nfe == nfe, sol.nfe
                    cells.append(f"{w2(sol.x[:, 1], wanted):.3f}")
                rows.append(f"| {name} | {method}, {kind} | {' | '.join(cells)} |")
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    text = [
        "# Restart and RePaint",
        "",
        "<!-- written by benchmarks/restart.py -->",
        "",
        "## Restart",
        "",
        *restart(),
        "",
        "## RePaint",
        "",
        *repaint(),
    ]
    OUT.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
