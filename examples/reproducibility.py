"""Noise that belongs to the sample: the same digit in any batch, and the same digit drawn with more
and more steps.

    python examples/reproducibility.py --out reproducibility.png

With noise="generator" a sample depends on the batch it was drawn in, and another number of steps is
another path. noise="keyed" ties the draws to the index of the sample; noise="brownian" gives each
sample one Brownian path for all step counts, so that the picture settles. A few seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import srk
from srk.analysis.plotting import house_style
from srk.targets import datasets

PROCESS = srk.VP()
STEPS = (10, 20, 40, 80, 160)


def draw(score: object, digits: int, noise: object, steps: int, **options: object) -> Tensor:
    """Digits of 64 pixels by DDPM, the method whose samples change most with the number of
    steps.
    """
    return srk.solve(PROCESS, score, "ddpm", shape=digits, steps=steps, noise=noise, **options).x


def same_digits(x: Tensor, y: Tensor) -> str:
    return (
        "the same to the last bit"
        if torch.equal(x, y)
        else f"differ by up to {float((x - y).abs().max()):.2g}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=10, help="digits in a row")
    parser.add_argument("--out", type=Path, default=Path("reproducibility.png"))
    args = parser.parse_args(argv)
    score = srk.targets.Empirical(datasets.digits().flatten(1)).score(PROCESS)

    print("32 digits, drawn twice with one seed, and then in batches of 8:\n")
    for noise in ("generator", "keyed", "brownian"):
        before = torch.get_rng_state()
        whole = draw(score, 32, noise, 40, seed=0)
        again = draw(score, 32, noise, 40, seed=0)
        if noise == "generator":
            parts = [
                draw(score, 8, noise, 40, seed=0) for _ in range(4)
            ]  # a seed is all there is: four times the same
        else:
            source = srk.noise.KeyedNoise if noise == "keyed" else srk.noise.BrownianNoise
            parts = [draw(score, 8, source(seed=0, first_index=i), 40) for i in range(0, 32, 8)]
        assert torch.equal(
            before, torch.get_rng_state()
        )  # the global random state is never touched
        print(
            f"  {noise:10s} twice: {same_digits(whole, again)};  in batches: "
            f"{same_digits(whole, torch.cat(parts))}"
        )

    rows = {
        noise: [draw(score, args.n, noise, steps, seed=1) for steps in STEPS]
        for noise in ("generator", "brownian")
    }
    print(f"\nroot mean square difference of a pixel to the digits of {STEPS[-1]} steps:\n")
    for noise, found in rows.items():
        distances = [float((x - found[-1]).square().mean().sqrt()) for x in found[:-1]]
        print(
            f"  {noise:10s}"
            + "".join(
                f"  {steps} steps {d:.3f}" for steps, d in zip(STEPS, distances, strict=False)
            )
        )

    with house_style("examples/reproducibility.py") as plt:
        figure, columns = plt.subplots(len(STEPS), 2, figsize=(9.0, 2.6))
        for column, (noise, found) in enumerate(rows.items()):
            for axis, steps, x in zip(columns[:, column], STEPS, found, strict=True):
                # a frame of one pixel around every digit
                strip = torch.nn.functional.pad(x.reshape(-1, 8, 8), (1, 1, 1, 1), value=-1.0)
                axis.imshow(
                    torch.cat(list(strip), dim=1).numpy(),
                    cmap="gray_r",
                    vmin=-1,
                    vmax=1,
                    aspect="equal",
                )
                axis.set_ylabel(f"{steps} steps", rotation=0, ha="right", va="center")
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            columns[0, column].set_title(f'noise="{noise}"')
        figure.savefig(args.out)
        plt.close(figure)
    print(f"\nwrote {args.out}")


if __name__ == "__main__":
    main()
