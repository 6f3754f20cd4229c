"""Which host runs what, and what calls at the host's own times cost.

    python benchmarks/hosts.py matrix [--comfyui PATH]     writes docs/hosts.md
    python benchmarks/hosts.py calls                       writes the table of docs/schedule.md
    python benchmarks/hosts.py names                       writes the tables of docs/names.md

`matrix` runs the samplers in stand-ins of the hosts (tests/support/hosts.py) and, where the path of
a ComfyUI is given whose packages are installed, inside that ComfyUI, with an exact denoiser in
place of a network. Two minutes, two minutes and a second on one core.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

import srk
from srk.analysis import gaussian_distribution
from srk.ecosystem import comfyui, k_diffusion, names
from srk.integrators import OnSchedule, integrator
from srk.processes.base import LinearProcess
from srk.steps import RunInfo, as_grid

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
import hosts  # noqa: E402  # the stand-ins

#: The least W2 that the table of calls tells from 0.
RESOLUTION = 0.005
HOUSE = ["srk2", "srk2m", "srk2m-local", "auto"]
SPREAD = math.sqrt(1.09)  # of hosts.DATA
KINDS = {
    "eps": "eps (SD, SDXL)",
    "v": "v",
    "zero-snr": "v, zero SNR",
    "edm": "EDM",
    "flow": "flow (SD3, Flux)",
}


@attrs.frozen(eq=False)
class Host:
    """A host with a model of one kind.

    Arguments:
        name, kind: what it is.
        sigmas: a schedule of the host, of so many steps.
        run: sample with a solver on a schedule, a seed and perhaps a mask; gives the samples and
            the noise levels at which the network was called.
    """

    name: str
    kind: str
    sigmas: Callable[[int], Tensor]
    run: Callable[..., tuple[Tensor, list[float]]]


def stand_ins() -> Iterator[Host]:
    """ComfyUI, Forge and A1111 as stand-ins."""
    models = {"ComfyUI": hosts.ComfyModel, "Forge": hosts.ForgeModel, "A1111": hosts.A1111Model}
    for (name, model), kind in itertools.product(models.items(), ["eps", "zero-snr", "flow"]):
        made = model(kind)
        extra: dict[str, Any] = {} if name == "ComfyUI" else {"cond": None, "uncond": None}

        def run(
            solver: str,
            sigmas: Tensor,
            seed: int = 1,
            made: Any = made,
            extra: dict[str, Any] = extra,
        ) -> tuple[Tensor, list[float]]:
            called: list[float] = []

            def network(x: Tensor, sigma: Tensor, seed: int, **kwargs: Any) -> Tensor:
                called.append(float(sigma[0]))
                out: Tensor = made(x, sigma, **kwargs)
                return out

            network.inner_model = made  # type: ignore[attr-defined]
            sample = k_diffusion.sampler(solver, noise="brownian")
            x = hosts.first_state(made.sampling, sigmas, seed)
            return sample(network, x, sigmas, extra_args={"seed": seed, **extra}), called

        yield Host(f"{name} (stand-in)", kind, made.sampling.karras, run)


def real_comfyui(path: Path) -> Iterator[Host]:
    """A ComfyUI itself: its own samplers, guider, model sampling and schedules."""
    sys.argv = [sys.argv[0], "--cpu"]
    sys.path.insert(0, str(path))
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_patcher
    import comfy.sample
    import comfy.samplers
    import comfy.supported_models_base

    comfyui.register()
    try:
        from comfyui_version import __version__ as version
    except ImportError:
        version = "of an unknown version"
    types = comfy.model_base.ModelType
    kinds = {
        "eps": (types.EPS, {}),
        "v": (types.V_PREDICTION, {}),
        "zero-snr": (types.V_PREDICTION, {"zsnr": True}),
        "edm": (types.EDM, {}),
        "flow": (types.FLOW, {"shift": 3.0}),
    }
    called: list[float] = []

    class Network(torch.nn.Module):
        """What a network of the kind says if its denoised prediction is exact."""

        dtype = torch.float32

        def __init__(self, kind: str) -> None:
            super().__init__()
            self.kind, self.sigma = kind, 0.0

        def forward(self, scaled: Tensor, t: Tensor, **kwargs: Any) -> Tensor:
            s = self.sigma
            called.append(s)
            if self.kind == "flow":
                return (scaled - hosts.denoiser(scaled, s, True)) / s
            x = scaled * math.sqrt(s * s + 1)
            denoised = hosts.denoiser(x, s, False)
            if self.kind == "eps":
                return (x - denoised) / s
            v = (x / (s * s + 1) - denoised) * math.sqrt(s * s + 1) / s
            return -v if self.kind == "edm" else v

    class Model(comfy.model_base.BaseModel):  # type: ignore[misc, name-defined]
        def _apply_model(self, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            self.diffusion_model.sigma = float(t[0])
            out: Tensor = super()._apply_model(x, t, *args, **kwargs)
            return out

        def get_dtype(self) -> torch.dtype:
            return torch.float32

        def get_dtype_inference(self) -> torch.dtype:
            return torch.float32

        def memory_required(self, *args: Any, **kwargs: Any) -> int:
            return 0

    for kind, (form, settings) in kinds.items():
        config = comfy.supported_models_base.BASE({"disable_unet_model_creation": True})
        config.unet_config = {"disable_unet_model_creation": True}
        config.latent_format = comfy.latent_formats.SD15()
        config.sampling_settings = settings
        model = Model(config, form, device="cpu")
        model.diffusion_model = Network(kind)
        cpu = torch.device("cpu")
        patcher = comfy.model_patcher.ModelPatcher(model, cpu, cpu)

        def sigmas(steps: int, patcher: Any = patcher) -> Tensor:
            sampling = patcher.get_model_object("model_sampling")
            found: Tensor = comfy.samplers.calculate_sigmas(sampling, "karras", steps)
            return found

        def run(
            solver: str,
            sigmas: Tensor,
            seed: int = 1,
            patcher: Any = patcher,
            scale: float = config.latent_format.scale_factor,
        ) -> tuple[Tensor, list[float]]:
            called.clear()
            (sampler,) = comfyui.SRKSampler().get_sampler(solver)
            noise = torch.randn(hosts.SHAPE, generator=torch.Generator().manual_seed(seed))
            conditions = [[torch.zeros(1, 1, 8), {}]]
            out = comfy.sample.sample_custom(
                patcher, noise, 1.0, sampler, sigmas, conditions, conditions,
                torch.zeros(hosts.SHAPE), seed=seed, disable_pbar=True,
            )  # fmt: skip
            return out * scale, list(called)

        yield Host(f"ComfyUI {version}", kind, sigmas, run)


def matrix(found: Sequence[Host]) -> str:
    """The table of hosts and kinds of models."""
    lines = [
        "| host | model | solvers that run | error of the spread, 40 steps | calls at the sigmas |"
        " same seed again | 20 against 40 steps |",
        "|---|---|---|---|---|---|---|",
    ]
    for host in found:
        forty = host.sigmas(40)
        pictures = {solver: host.run(solver, forty) for solver in HOUSE}
        worst = max(abs(float(x.std()) / SPREAD - 1) for x, _ in pictures.values())
        exact = all(calls == forty[:-1].tolist() for _, calls in pictures.values())
        again = torch.equal(host.run("srk2m", forty)[0], pictures["srk2m"][0])
        pair = torch.stack([host.run("srk2m", host.sigmas(n))[0].flatten() for n in (20, 40)])
        runs = sum(
            bool(torch.isfinite(host.run(solver, host.sigmas(6))[0]).all())
            for solver in srk.solvers()
        )
        lines.append(
            f"| {host.name} | {KINDS[host.kind]} | {runs} of {len(srk.solvers())} "
            f"| {100 * worst:.1f} % | {'yes' if exact else 'no'} | {'yes' if again else 'no'} "
            f"| {float(torch.corrcoef(pair)[0, 1]):.3f} |"
        )
        sys.stdout.write(lines[-1] + "\n")
    return "\n".join(lines) + "\n"


# -- calls -----------------------------------------------------------------------------------------


def targets() -> dict[str, srk.targets.GaussianMixture]:
    mixture = srk.targets.GaussianMixture
    return {
        "three modes": mixture([0.3, 0.5, 0.2], [[-1.0], [0.3], [1.2]], [0.1, 0.05, 0.2]),
        "narrow and broad": mixture([0.8, 0.2], [[-0.2], [0.9]], [0.02, 0.3]),
        "four modes": mixture([0.25] * 4, [[-1.3], [-0.4], [0.5], [1.2]], [0.05, 0.1, 0.1, 0.05]),
        "N(0, 1)": mixture([1.0], [[0.0]], [1.0]),
    }


def grids(steps: int) -> dict[str, tuple[LinearProcess, list[float]]]:
    """Schedules of hosts: so many levels above 0, then 0."""

    def edm(name: str, low: float) -> list[float]:
        return [*as_grid(name).times(RunInfo(srk.EDM(low, 14.6), None, steps - 1)), 0.0]

    shifted = [3 * t / (1 + 2 * t) for t in np.linspace(1.0, 1e-3, steps).tolist()]
    return {
        "log-SNR": (srk.EDM(0.0, 14.6), edm("log-snr", 0.03)),
        "Karras": (srk.EDM(0.0, 14.6), edm("karras", 0.03)),
        "flow, shift 3": (srk.Flow(0.0), [*shifted, 0.0]),
    }


def distance(
    target: srk.targets.GaussianMixture, process: LinearProcess, times: list[float], solver: str,
    calls: k_diffusion.Calls, n: int,
) -> float:  # fmt: skip
    """W2 to the exact distribution: by the exact law of the run for a Gaussian, else by quantiles.

    The first is no less than `RESOLUTION`, which is about what sampling adds to the second.
    """
    if len(target.weights) == 1:
        method = integrator(solver)
        if calls == "schedule":
            method = OnSchedule(method)
        std = float(target.stds)
        law = gaussian_distribution(method, process, 0.0, std**2, grid=times)
        return math.hypot(math.sqrt(float(law.variance[0])) - std, RESOLUTION)
    generator = torch.Generator().manual_seed(1)
    level = process.level(times[0])
    x = level.sigma * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    x = x + level.alpha * target.sample(n, generator=generator, dtype=torch.float64)
    out = srk.solve(
        process, target.score(process), solver, x_init=x, grid=times, seed=3, calls=calls
    ).x
    exact = target.quantile((torch.arange(n, dtype=torch.float64) + 0.5) / n).flatten()
    return float((out.flatten().sort().values - exact).square().mean().sqrt())


def calls_table(n: int = 32000) -> str:
    """The geometric mean of W2 over the targets and its ratio, schedule over free."""
    lines = [
        "| grid | calls | " + " | ".join(f"`{solver}`" for solver in HOUSE) + " |",
        "|---|---|" + "---|" * len(HOUSE),
    ]
    ratios: dict[str, list[float]] = {solver: [] for solver in HOUSE}
    for steps in (6, 8, 10, 12, 16, 20, 30):
        for grid, (process, times) in grids(steps).items():
            cells = []
            for solver in HOUSE:
                # free, srk2 makes two calls a step, so it takes half as many
                few = grids((steps + 1) // 2)[grid][1] if solver == "srk2" else times
                logs = {
                    calls: np.log([
                        distance(target, process, at, solver, calls, n)
                        for target in targets().values()
                    ])
                    for calls, at in (("schedule", times), ("free", few))
                }  # fmt: skip
                mean = float(np.exp(logs["schedule"].mean()))
                ratio = float(np.exp((logs["schedule"] - logs["free"]).mean()))
                ratios[solver].append(ratio)
                cells.append(f"{mean:.4f} ({ratio:.2f})")
            lines.append(f"| {grid} | {steps} | " + " | ".join(cells) + " |")
            sys.stdout.write(lines[-1] + "\n")
    means = [f"({np.exp(np.mean(np.log(ratios[solver]))):.2f})" for solver in HOUSE]
    worst = [f"({max(ratios[solver]):.2f})" for solver in HOUSE]
    for name, row in (("all", means), ("worst", worst)):
        lines.append(f"| {name} | | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def put(path: Path, text: str) -> None:
    """Replace what stands between the marks of a page."""
    page = path.read_text(encoding="utf-8")
    start, stop = "<!-- made by benchmarks/hosts.py -->\n", "<!-- until here -->\n"
    before, _, rest = page.partition(start)
    path.write_text(before + start + text + stop + rest.partition(stop)[2], encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["matrix", "calls", "names"])
    parser.add_argument("--comfyui", type=Path, help="folder of a ComfyUI to run in")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "matrix":
        found = list(stand_ins())
        if arguments.comfyui is not None:
            found = [*real_comfyui(arguments.comfyui), *found]
        put(ROOT / "docs" / "hosts.md", "\n" + matrix(found) + "\n")
    elif arguments.what == "calls":
        put(ROOT / "docs" / "schedule.md", "\n" + calls_table() + "\n")
    else:
        put(ROOT / "docs" / "names.md", "\n" + names.table() + "\n")


if __name__ == "__main__":
    main()
