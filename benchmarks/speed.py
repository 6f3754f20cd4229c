"""What a step costs beside the network: srk, the peers and a bare in-place loop, as ratios in one
run.

    PYTHONPATH=<k-diffusion, diffusers> python benchmarks/speed.py [--device cuda] [--threads 1]
    [--quick] [--write]

The bare loop is what one would write by hand: coefficients ready, noise drawn in place, updates in
place, nothing checked and nothing recorded. Everybody takes 50 steps on the same shapes with the
same network; contestants take turns, and a figure is the median of many turns. On the CPU with one
thread the processor time of that thread is taken, so that other work on the machine matters little;
otherwise the time on the wall, with the GPU waited for before the clock is read. Peers that are not
installed are left out. `--write` puts the tables into benchmarks/results/speed-cpu.md or
speed-gpu.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import platform
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import srk
from srk.integrators import Column
from srk.sampling import planning
from srk.steps import LogSNR, RunInfo

STEPS = 50
SHAPES = [(64, 2), (64, 3, 32, 32), (16, 3, 64, 64), (4, 4, 64, 64), (1, 16, 128, 128)]
VP = srk.VP()
Run = Callable[[], Any]
Maker = Callable[["Case"], Run]


class Case:
    """A shape, a device and a network (x, t) -> denoiser."""

    def __init__(self, shape: tuple[int, ...], device: str, network: str) -> None:
        self.shape, self.device = shape, torch.device(device)
        self.network = small_unet(shape[1], self.device) if network == "u-net" else multiply
        self.name = network


def multiply(x: Tensor, t: Tensor) -> Tensor:
    return x * 0.5


def small_unet(channels: int, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Three convolutions with a bottleneck at half the resolution.

    Enough work for a network, little enough to see the solver.
    """
    torch.manual_seed(0)
    down, middle = nn.Conv2d(channels, 32, 3, stride=2, padding=1), nn.Conv2d(32, 32, 3, padding=1)
    net = nn.Sequential(
        down,
        nn.SiLU(),
        middle,
        nn.SiLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(32, channels, 3, padding=1),
    )
    net = net.to(device).eval()
    return lambda x, t: net(x)


# -- bare loops
# ------------------------------------------------------------


def rows(solver: str) -> list[list[dict[Column, float]]]:
    plans = planning.plan_grid(VP, srk.solvers()[solver], LogSNR().times(RunInfo(VP, None, STEPS)))
    return [[dict(row) for row in (plan.stages[0].row, plan.update, *plan.keep)] for plan in plans]


def bare_ddpm(case: Case) -> Run:
    X, E, Z = Column("x"), Column("E"), Column("z")
    numbers = [(u[X], u[E], u[Z]) for _, u in rows("ddpm")]
    generator = torch.Generator(case.device)

    def run() -> Tensor:
        generator.manual_seed(0)
        x = torch.randn(case.shape, generator=generator, device=case.device)
        z, t = torch.empty_like(x), torch.empty(case.shape[0], device=case.device)
        for a, b, c in numbers:
            D = case.network(x, t)
            z.normal_(generator=generator)
            x.mul_(a).add_(D, alpha=b).add_(z, alpha=c)
        return x

    return run


def bare_srk2m(case: Case) -> Run:
    X, E, Z, XC = Column("x"), Column("E"), Column("z"), Column("X")
    numbers = [
        (
            s.get(X, 0.0),
            s[Z],
            s.get(Column("m", 0), 0.0),
            s.get(Column("m", 1), 0.0),
            u[X],
            u.get(XC, 0.0),
            u[E],
            u[Z],
            k[0][XC],
            k[0][E],
        )
        for s, u, *k in rows("srk2m")
    ]
    generator = torch.Generator(case.device)

    def run() -> Tensor:
        generator.manual_seed(0)
        x = torch.randn(case.shape, generator=generator, device=case.device)
        z, t = torch.empty_like(x), torch.empty(case.shape[0], device=case.device)
        R1, R2 = torch.zeros_like(x), torch.zeros_like(x)
        for sx, sz, s1, s2, ux, uc, ue, uz, kc, ke in numbers:
            z.normal_(generator=generator)
            node = R2.mul_(s2).add_(R1, alpha=s1).add_(x, alpha=sx).add_(z, alpha=sz)
            D = case.network(node, t)
            x.mul_(ux).add_(node, alpha=uc).add_(D, alpha=ue).add_(z, alpha=uz)
            R1, R2 = node.mul_(kc).add_(D, alpha=ke), R1
        return x

    return run


# -- srk
# ------------------------------------------------------------


def ours(solver: str, noise: str = "generator", compile: Any = False) -> Maker:
    def make(case: Case) -> Run:
        if compile == "loop" and case.device.type != "cuda":
            raise LookupError("a CUDA graph needs a GPU")
        sampler = srk.Sampler(
            VP, srk.Data(case.network), solver, steps=STEPS, denoise_final=False, compile=compile
        )
        return lambda: sampler(case.shape, seed=0, noise=noise, device=case.device)

    return make


# -- peers
# ------------------------------------------------------------


def need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise LookupError(f"{module} is not installed")


def torchsde_solver(method: str) -> Maker:
    def make(case: Case) -> Run:
        need("torchsde")
        import torchsde

        class Reverse(nn.Module):
            """The reverse process on [0, 1 - t_min], flattened to (batch, d)."""

            noise_type, sde_type = "additive" if method == "srk" else "diagonal", "ito"

            def _g(self, t: Tensor) -> float:
                return float(VP.diffusion(max(VP.t_max - float(t), VP.t_min)))

            def f(self, t: Tensor, y: Tensor) -> Tensor:
                own = max(VP.t_max - float(t), VP.t_min)
                level, g2 = VP.level(own), float(VP.diffusion(own)) ** 2
                denoised = case.network(y.view(case.shape), t.expand(case.shape[0])).view(y.shape)
                return y * (0.5 * g2 - g2 / level.sigma**2) + denoised * (
                    g2 * level.alpha / level.sigma**2
                )

            def g(self, t: Tensor, y: Tensor) -> Tensor:
                g = self._g(t)
                return (
                    torch.full_like(y, g)
                    if self.noise_type == "diagonal"
                    else g * torch.ones_like(y)[..., None]
                )

        sde, n = Reverse(), math.prod(case.shape[1:])
        if method == "srk":
            sde.noise_type = "diagonal"  # additive noise would be a (batch, d, d) matrix
        span = torch.linspace(0, VP.t_max - VP.t_min, 2, device=case.device)

        def run() -> Tensor:
            y0 = torch.randn(case.shape[0], n, device=case.device)
            levy = "space-time" if method == "srk" else "none"
            bm = torchsde.BrownianInterval(
                float(span[0]),
                float(span[1]),
                size=y0.shape,
                device=case.device,
                entropy=0,
                levy_area_approximation=levy,
            )
            out: Tensor = torchsde.sdeint(
                sde, y0, span, bm=bm, method=method, dt=float(span[1]) / STEPS
            )[-1]
            return out

        return run

    return make


def k_diffusion_sampling() -> Any:
    """k_diffusion.sampling without the package's other imports, which need torchvision."""
    if "k_diffusion.sampling" in sys.modules:
        return sys.modules["k_diffusion.sampling"]
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        raise LookupError("k_diffusion is not installed")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations or [])
    sys.modules["k_diffusion"] = package
    for name in ("torchdiffeq", "torchvision", "torchvision.transforms"):
        if (
            name.partition(".")[0] in sys.modules
            or importlib.util.find_spec(name.partition(".")[0]) is None
        ):
            stub = types.ModuleType(name)
            stub.__path__ = []
            stub.__getattr__ = lambda attribute: None  # type: ignore[method-assign]
            sys.modules.setdefault(name, stub)
    return importlib.import_module("k_diffusion.sampling")


def k_diffusion(sampler: str, tree: bool) -> Maker:
    def make(case: Case) -> Run:
        sampling = k_diffusion_sampling()
        sigmas = sampling.get_sigmas_karras(STEPS, 0.01, 80.0, device=case.device)
        function = getattr(sampling, f"sample_{sampler}")
        kwargs = (
            {}
            if tree
            else {"noise_sampler": lambda a, b: torch.randn(case.shape, device=case.device)}
        )

        def run() -> Tensor:
            x = torch.randn(case.shape, device=case.device) * 80.0
            out: Tensor = function(
                lambda x, s: case.network(x, s), x, sigmas, disable=True, **kwargs
            )
            return out

        return run

    return make


def diffusers(scheduler: str, **options: Any) -> Maker:
    def make(case: Case) -> Run:
        need("diffusers")
        import diffusers

        made = getattr(diffusers, scheduler)(
            num_train_timesteps=1000, prediction_type="sample", **options
        )

        def run() -> Tensor:
            made.set_timesteps(STEPS, device=case.device)
            x = torch.randn(case.shape, device=case.device)
            for t in made.timesteps:
                x = made.step(case.network(x, t), t, x).prev_sample
            return x

        return run

    return make


CONTESTANTS: dict[str, dict[str, Maker]] = {
    "ddpm": {
        "bare loop": bare_ddpm,
        "srk ddpm": ours("ddpm"),
        "srk ddpm, keyed noise": ours("ddpm", "keyed"),
        "srk ddpm, compile=step": ours("ddpm", compile="step"),
        "srk ddpm, compile=step, keyed noise": ours("ddpm", "keyed", "step"),
        "srk ddpm, compile=loop": ours("ddpm", compile="loop"),
        "diffusers DDPMScheduler": diffusers("DDPMScheduler", clip_sample=False),
        "k-diffusion euler_ancestral": k_diffusion("euler_ancestral", False),
        "torchsde euler": torchsde_solver("euler"),
    },
    "second order": {
        "bare loop": bare_srk2m,
        "srk srk2m": ours("srk2m"),
        "srk srk2m, compile=step": ours("srk2m", compile="step"),
        "srk srk2m, compile=step, keyed noise": ours("srk2m", "keyed", "step"),
        "srk srk2m, compile=loop": ours("srk2m", compile="loop"),
        "srk auto": ours("auto"),
        "srk dpmpp-2m-sde": ours("dpmpp-2m-sde"),
        "diffusers DPMSolverMultistep (sde)": diffusers(
            "DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"
        ),
        "k-diffusion dpmpp_2m_sde, plain noise": k_diffusion("dpmpp_2m_sde", False),
        "k-diffusion dpmpp_2m_sde, its tree": k_diffusion("dpmpp_2m_sde", True),
        "torchsde srk": torchsde_solver("srk"),
    },
}


# -- measuring
# ------------------------------------------------------------


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def turns(runs: dict[str, Run], device: torch.device, seconds: float) -> dict[str, float]:
    """Median seconds of each run, called in turn; a slow one takes fewer turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.no_grad():
        for run in runs.values():
            run()
            run()
        end = time.perf_counter() + seconds * len(runs)
        turn = 0
        while turn < 3 or time.perf_counter() < end:
            for name, run in runs.items():
                if times[name] and sum(times[name]) > 2 * seconds and turn >= 3:
                    continue
                began = now(device)
                run()
                times[name].append(now(device) - began)
            turn += 1
    return {name: statistics.median(values) for name, values in times.items()}


class Traffic(TorchDispatchMode):
    """Counts operators, and the elements that they read and write of tensors as large as the
    state.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.operators, self.elements = size, 0, 0

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.__name__:
            self.operators += 1
            touched = [
                x
                for x in [*args, *(kwargs or {}).values()]
                if isinstance(x, Tensor) and x.numel() >= self.size
            ]
            written = [out] if isinstance(out, Tensor) and out.numel() >= self.size else []
            if func.__name__.startswith(("normal_", "zero_", "copy_")):
                touched = touched[1:]  # written only
            self.elements += sum(x.numel() for x in touched + written)
        return out


def traffic(case: Case, run: Run) -> tuple[float, float]:
    """Operators per step, and elements moved per step and element of the state, without the
    network's own.
    """
    inner = case.network
    size = math.prod(case.shape)
    whole = Traffic(size)
    with torch.no_grad(), whole:
        run()
    x, t = (
        torch.zeros(case.shape, device=case.device),
        torch.zeros(case.shape[0], device=case.device),
    )
    alone = Traffic(size)
    with torch.no_grad(), alone:
        inner(x, t)
    return (
        whole.operators / STEPS - alone.operators,
        whole.elements / STEPS / size - alone.elements / size,
    )


def device_counts(run: Run) -> tuple[float, float]:
    """Kernels and waits for the device per step, by the profiler."""
    from torch.profiler import ProfilerActivity, profile

    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as prof:
        run()
        torch.cuda.synchronize()
    events = prof.events() or []
    kernels = sum(
        1 for e in events if e.device_type == torch.autograd.DeviceType.CUDA and "Mem" not in e.name
    )
    waits = sum(1 for e in events if "Synchronize" in e.name) - 1  # ours
    return kernels / STEPS, waits / STEPS


def build(group: str, case: Case) -> tuple[dict[str, Run], list[str]]:
    runs, missing = {}, []
    for name, maker in CONTESTANTS[group].items():
        try:
            runs[name] = maker(case)
            with torch.no_grad():
                runs[name]()
        except (LookupError, ImportError) as error:
            runs.pop(name, None)
            missing.append(f"{name}: {error}")
    return runs, missing


def slopes(device: str, seconds: float) -> list[str]:
    """How the time of a srk2m run grows, as the slope of log time against log size over the last
    doubling and over the whole range.
    """
    lines = [
        "| growth with | sizes | time per step, us | slope, all | slope, last doubling |",
        "|---|---|---|---:|---:|",
    ]

    def cost(shape: tuple[int, ...], steps: int) -> float:
        sampler = srk.Sampler(VP, srk.Data(multiply), "srk2m", steps=steps, denoise_final=False)
        return turns(
            {"": lambda: sampler(shape, seed=0, device=device)}, torch.device(device), seconds / 4
        )[""]

    for what, sizes, measure in (
        (
            "batch (dimension 3072)",
            [16, 32, 64, 128],
            lambda n: cost((n, 3, 32, 32), STEPS) / STEPS,
        ),
        ("dimension (batch 64)", [768, 1536, 3072, 6144], lambda n: cost((64, n), STEPS) / STEPS),
        ("steps, whole run (64, 3, 32, 32)", [25, 50, 100], lambda n: cost((64, 3, 32, 32), n)),
    ):
        found = [measure(n) for n in sizes]
        overall = math.log(found[-1] / found[0]) / math.log(sizes[-1] / sizes[0])
        final = math.log(found[-1] / found[-2]) / math.log(sizes[-1] / sizes[-2])
        lines.append(
            f"| {what} | {', '.join(map(str, sizes))} | "
            f"{', '.join(f'{1e6 * f:.0f}' for f in found)} | {overall:.2f} | {final:.2f} |"
        )
        print(lines[-1], flush=True)
    return lines


def per_call(device: str, seconds: float, shapes: list[tuple[int, ...]]) -> list[str]:
    """What a step of srk2m takes relative to one of ddpm, both one network call, measured in
    turns.
    """
    modes: dict[str, tuple[str, Any]] = {
        "eager": ("generator", False),
        "compile=step": ("generator", "step"),
        "compile=step, keyed noise": ("keyed", "step"),
    }
    if device != "cpu":
        modes["compile=loop"] = ("generator", "loop")
    lines = [
        "| srk2m / ddpm | " + " | ".join("x".join(map(str, s)) for s in shapes) + " |",
        "|---|" + "---:|" * len(shapes),
    ]
    found: dict[str, list[float]] = {"bare loops": [], **{mode: [] for mode in modes}}
    for shape in shapes:
        case = Case(shape, device, "one multiplication")
        runs: dict[str, Run] = {
            "bare loops ddpm": bare_ddpm(case),
            "bare loops srk2m": bare_srk2m(case),
        }
        for mode, (noise, compile) in modes.items():
            runs |= {
                f"{mode} {solver}": ours(solver, noise, compile)(case)
                for solver in ("ddpm", "srk2m")
            }
        times = turns(runs, torch.device(device), seconds)
        for mode, ratios in found.items():
            ratios.append(times[f"{mode} srk2m"] / times[f"{mode} ddpm"])
    lines += [
        f"| {mode} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |"
        for mode, ratios in found.items()
    ]
    print("\n".join(lines), flush=True)
    return lines


def tables(args: argparse.Namespace) -> list[str]:
    device = torch.device(args.device)
    lines: list[str] = []
    left_out: set[str] = set()
    for network in ("one multiplication", "u-net"):
        shapes = [s for s in SHAPES if network != "u-net" or len(s) == 4]
        shapes = shapes[: 2 if network == "u-net" else 4] if args.quick else shapes
        for group in CONTESTANTS:
            found: dict[tuple[int, ...], dict[str, float]] = {}
            for shape in shapes:
                case = Case(shape, args.device, network)
                runs, missing = build(group, case)
                left_out |= set(missing)
                found[shape] = turns(runs, device, args.seconds)
                print(
                    network,
                    group,
                    shape,
                    {n: round(v / found[shape]["bare loop"], 2) for n, v in found[shape].items()},
                    flush=True,
                )
            header = [
                f"### {group}, network: {network}",
                "",
                "Time per step relative to the bare loop (first row: its microseconds per step)."
                + (
                    " The network's own time scatters by some 15% here."
                    if network == "u-net"
                    else ""
                ),
                "",
            ]
            header += [
                "| | " + " | ".join("x".join(map(str, s)) for s in shapes) + " |",
                "|---|" + "---:|" * len(shapes),
            ]
            header.append(
                "| bare loop, us | "
                + " | ".join(f"{1e6 * found[s]['bare loop'] / STEPS:.1f}" for s in shapes)
                + " |"
            )
            names = [
                n
                for n in CONTESTANTS[group]
                if n != "bare loop" and any(n in found[s] for s in shapes)
            ]
            header += [
                f"| {n} | "
                + " | ".join(
                    f"{found[s][n] / found[s]['bare loop']:.2f}" if n in found[s] else ""
                    for s in shapes
                )
                + " |"
                for n in names
            ]
            lines += [*header, ""]
    lines += [
        "### Two orders for one network call",
        "",
        "Time per step of srk2m relative to ddpm, network: one multiplication; both call it "
        "once a step.",
        "",
    ]
    lines += [*per_call(args.device, args.seconds, SHAPES[:4] if args.quick else SHAPES), ""]
    lines += [
        "### Work per step",
        "",
        "Shape (64, 3, 32, 32), one multiplication as network, whose own work is taken off.",
        "",
    ]
    if device.type == "cuda":
        lines += ["| | kernels per step | waits for the device per step |", "|---|---:|---:|"]
    else:
        lines += [
            "| | operators per step | elements moved per element of the state |",
            "|---|---:|---:|",
        ]
    for group in CONTESTANTS:
        case = Case((64, 3, 32, 32), args.device, "one multiplication")
        runs, _ = build(group, case)
        for name, run in runs.items():
            if device.type == "cuda":
                a, b = device_counts(run)
            elif "compile" in name or "torchsde" in name:
                # the counter sees operators, not compiled kernels; torchsde's own tree would be
                # counted with it
                continue
            else:
                a, b = traffic(case, run)
            lines.append(f"| {group}: {name} | {a:.1f} | {b:.1f} |")
    lines += [
        "",
        "The least is 3: state read, prediction read, state written.",
        "",
        "### Growth",
        "",
        *slopes(args.device, args.seconds),
        "",
    ]
    if left_out:
        lines += ["Left out: " + "; ".join(sorted(left_out)) + ".", ""]
    return lines


def planning_times() -> list[str]:
    lines = [
        "### Planning",
        "",
        f"Milliseconds for {STEPS} steps on the log-SNR grid, nothing remembered.",
        "",
        "| solver | ms |",
        "|---|---:|",
    ]
    for solver in ("ddpm", "srk2m", "srk2m-local", "srk2s", "sra1", "etd-sra1", "wcw"):
        method = srk.solvers()[solver]

        def plan() -> None:
            planning.forget()
            planning.plan_grid(VP, method, LogSNR().times(RunInfo(VP, method, STEPS)))  # noqa: B023

        lines.append(f"| {solver} | {1e3 * turns({'': plan}, torch.device('cpu'), 0.5)['']:.1f} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each contestant and shape")
    parser.add_argument(
        "--quick", action="store_true", help="fewer shapes, a quarter of a second each"
    )
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.seconds = 0.25
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    with torch.no_grad():
        for solver, bare in (("ddpm", bare_ddpm), ("srk2m", bare_srk2m)):
            case = Case((4, 3, 8, 8), "cpu", "one multiplication")
            assert torch.allclose(bare(case)(), ours(solver)(case)().x, rtol=1e-3, atol=1e-3), (
                "the bare loop and srk must do the same"
            )
    machine = (
        f"one {torch.cuda.get_device_name()} GPU"
        if args.device.startswith("cuda")
        else f"{os.cpu_count()}-core {platform.machine()} cloud machine, CPU"
    )
    clock = "processor time" if args.device == "cpu" and args.threads == 1 else "wall-clock time"
    lines = [
        f"## {args.threads} thread{'s' if args.threads > 1 else ''}",
        "",
        f"Machine: {machine}; torch {torch.__version__}; Python {platform.python_version()}; "
        f"{clock}; {STEPS} steps.",
        f"Command: `python benchmarks/speed.py --device {args.device} --threads "
        f"{args.threads}{' --quick' if args.quick else f' --seconds {args.seconds:g}'} "
        "--write`.",
        "",
        *tables(args),
        *planning_times(),
    ]
    print("\n".join(lines))
    if args.write:
        where = (
            Path(__file__).parent
            / "results"
            / f"speed-{'cpu' if args.device == 'cpu' else 'gpu'}.md"
        )
        before = where.read_text(encoding="utf-8") if where.exists() else "# Speed\n"
        parts = before.split("\n## ")
        kept = [part for part in parts[1:] if not part.startswith(lines[0].removeprefix("## "))]
        where.write_text(
            "\n## ".join([parts[0].rstrip() + "\n", *kept, "\n".join(lines).removeprefix("## ")]),
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
