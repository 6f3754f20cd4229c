"""Agreement with torchsde, trajectory by trajectory.

Its solvers and ours reverse the same SDE, driven by the same Brownian path.

torchsde is an independent implementation; with additive noise several of its methods are tableaus
of ours. Both are given W and the Levy area of the same path, in float64, and must agree to rounding
at every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from srk._columns import aligned
from srk._engine.eager import Executor
from srk.analysis.paths import GridPath
from srk.errors import ArgumentError, MissingExtraError
from srk.integrators import EulerMaruyama, Integrator, TableauSolver
from srk.plans.plan import Stage, StepPlan
from srk.processes import EDM, OU, VE, VP, SubVP, VPCosine
from srk.processes.base import Level, LinearProcess
from srk.sampling.planning import plan_grid
from srk.steps import RunInfo, as_grid
from srk.tableaus import TABLEAUS, StochasticTableau
from srk.targets import GaussianMixture
from srk.targets.base import Target

Frame = Literal["raw", "localization"]

BOUND = 1e-10
"""Largest relative difference that counts as agreement."""

PROCESSES: Mapping[str, LinearProcess] = {
    "vp": VP(),
    "edm": EDM(sigma_min=0.02),
    "ve": VE(),
    "sub-vp": SubVP(),
    "ou": OU(t_min=1e-3),
    "cosine": VPCosine(t_max=0.98),
}
"""What is reversed: each starts at alpha > 0, where the raw frame is defined."""

# torchsde's midpoint reads g at the start in the stage and at the midpoint in the update; its
# euler_heun is Euler with the mean of g at
# both ends. In the raw frame, where g depends on time, these two are tableaus that we do not ship.
_MIDPOINT = StochasticTableau(
    "torchsde-midpoint",
    (0, 1),
    ((), ("1/2",)),
    (0, "1/2"),
    ((0, 0), ("1/2", 0)),
    ((0, 0), (0, 0)),
    (0, "1/2"),
    (0, 1),
    (0, 0),
    strong_order=1,
    weak_order=1,
)
_EULER_HEUN = StochasticTableau(
    "torchsde-euler-heun",
    (1,),
    ((),),
    (0,),
    ((0, 0),),
    ((0, 0),),
    (0, 1),
    ("1/2", "1/2"),
    (0, 0),
    strong_order=1,
    weak_order=1,
)


@attrs.frozen(slots=True)
class Method:
    """A method of torchsde and ours that it should equal.

    Arguments:
        name: torchsde's name; "srk (g_prod)" is `srk` on an SDE that offers only g_prod.
        sde_type: "ito" or "stratonovich".
        ours: what it is in a frame.
    """

    name: str
    sde_type: str
    ours: Callable[[Frame], Integrator]

    @property
    def product(self) -> bool:
        """Whether the SDE offers g_prod in place of a dense g."""
        return self.name.endswith("(g_prod)")


def _tableau(raw: str | StochasticTableau, clock: str) -> Callable[[Frame], Integrator]:
    return lambda frame: (
        TableauSolver(raw) if frame == "raw" else TableauSolver(TABLEAUS[clock], 0.0)
    )


def _euler(frame: Frame) -> Integrator:
    return EulerMaruyama() if frame == "raw" else TableauSolver(TABLEAUS["euler"], 0.0)


METHODS: tuple[Method, ...] = (
    Method("euler", "ito", _euler),
    Method("milstein", "ito", _euler),
    Method("srk", "ito", _tableau("sra1", "sra1")),
    Method("srk (g_prod)", "ito", _tableau("sra1", "sra1")),
    Method("heun", "stratonovich", _tableau("stochastic-heun", "stochastic-heun")),
    Method("midpoint", "stratonovich", _tableau(_MIDPOINT, "stochastic-midpoint")),
    Method("euler_heun", "stratonovich", _tableau(_EULER_HEUN, "euler")),
)


@attrs.frozen(slots=True)
class Row:
    """One comparison.

    `difference` is the largest over steps of |ours - torchsde|/|ours|, both the maximum over paths
    and coordinates.
    """

    process: str
    frame: Frame
    dimension: int
    grid: str
    method: str
    ours: str
    difference: float


@attrs.frozen(slots=True, repr=False)
class Agreement:
    """All comparisons.

    Arguments:
        rows: one per process, frame, dimension, grid and method.
        version: torchsde's.
    """

    rows: tuple[Row, ...]
    version: str

    @property
    def worst(self) -> Row:
        """The row with the largest difference."""
        return max(
            self.rows, key=lambda row: row.difference if math.isfinite(row.difference) else math.inf
        )

    @property
    def success(self) -> bool:
        """Whether every row agrees to `BOUND`."""
        return self.worst.difference <= BOUND

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table.

        For each process and frame, the largest difference per method, over dimensions and grids.
        """
        methods = list(dict.fromkeys(row.method for row in self.rows))
        worst: dict[tuple[str, str], dict[str, float]] = {}
        for row in self.rows:
            cell = worst.setdefault((row.process, row.frame), {})
            cell[row.method] = max(cell.get(row.method, 0.0), row.difference)
        body = [
            [process, frame, *(f"{cell[m]:.0e}" if m in cell else "-" for m in methods)]
            for (process, frame), cell in worst.items()
        ]
        return ["process", "frame", *methods], body

    def __repr__(self) -> str:
        header, body = self.cells()
        lines = aligned([header, *body])
        return (
            f"largest relative difference to torchsde {self.version} over {len(self.rows)} runs\n"
            + "\n".join(lines)
        )


def mixture(dimension: int) -> GaussianMixture:
    """The target: three components, the means spread over all axes."""
    axes = torch.arange(dimension, dtype=torch.float64)
    means = torch.stack(
        [torch.cos(1.0 + axes), -0.7 * torch.cos(2.0 * axes), 1.2 * torch.sin(0.5 + axes)]
    )
    return GaussianMixture([0.3, 0.5, 0.2], means, [0.3, 0.2, 0.4])


def torchsde_agreement(
    processes: Iterable[str] = tuple(PROCESSES),
    *,
    frames: Sequence[Frame] = ("raw", "localization"),
    dimensions: Sequence[int] = (1, 2, 16),
    grids: Sequence[str] = ("uniform", "log-snr"),
    methods: Iterable[str] | None = None,
    steps: int = 12,
    paths: int = 8,
    seed: int = 0,
    watch: Callable[[Row], None] | None = None,
) -> Agreement:
    """Run torchsde's solvers and ours on the same paths and compare them step by step.

    Arguments:
        processes: names out of "vp", "edm", "ve", "sub-vp", "ou", "cosine".
        frames: "raw" is the reverse SDE in the process's own time (time-dependent g);
            "localization" is dZ = D dl + dB with l = alpha^2/sigma^2.
        dimensions: of the Gaussian mixtures that are sampled.
        grids: fixed grids by name; each is uniform in at most one of the clocks compared.
        methods: names out of torchsde's "euler", "milstein", "srk", "srk (g_prod)", "heun",
            "midpoint", "euler_heun"; default all.
        steps, paths: size of each run.
        seed: of starts and paths.
        watch: called with each row as it is done.

    Raises:
        MissingExtraError: torchsde is not installed.
    """
    torchsde = load_torchsde()
    chosen = [method for method in METHODS if methods is None or method.name in set(methods)]
    rows = []
    for name in processes:
        if name not in PROCESSES:
            raise ArgumentError(
                f"there is no process {name!r} here; choose out of {', '.join(PROCESSES)}"
            )
        process = PROCESSES[name]
        for frame in frames:
            for dimension in dimensions:
                target = mixture(dimension)
                begin = target.sample(paths, process, process.t_max, seed=seed, dtype=torch.float64)
                for grid in grids:
                    for method in chosen:
                        ours = method.ours(frame)
                        times = as_grid(grid).times(RunInfo(process, ours, steps))
                        difference = _compare(
                            torchsde,
                            method,
                            ours,
                            plan_grid(process, ours, times),
                            process,
                            target,
                            begin,
                            frame,
                            seed,
                        )
                        rows.append(
                            Row(name, frame, dimension, grid, method.name, ours.name, difference)
                        )
                        if watch is not None:
                            watch(rows[-1])
    return Agreement(tuple(rows), str(torchsde.__version__))


def load_torchsde() -> Any:
    try:
        import torchsde
    except ImportError:
        raise MissingExtraError("the comparison with torchsde", "torchsde", "validation") from None
    return torchsde


def _compare(
    torchsde: Any,
    method: Method,
    ours: Integrator,
    plans: list[StepPlan],
    process: LinearProcess,
    target: Target,
    begin: Tensor,
    frame: Frame,
    seed: int,
) -> float:
    clock = plans[0].clock
    # The path is known at every end of a step, also where one of the two draws nothing beyond W
    path = GridPath(
        {clock: [end for plan in plans for slot in plan.slots for end in (slot.start, slot.stop)]},
        seed,
    )
    path.start(begin.shape, begin.dtype, begin.device)
    worst = 0.0
    for mine, theirs in follow(torchsde, method, plans, process, target, begin, frame, path):
        worst = max(worst, float((mine - theirs).abs().max() / mine.abs().max()))
        if not math.isfinite(worst):
            return math.inf
    return worst


def follow(
    torchsde: Any,
    method: Method,
    plans: Sequence[StepPlan],
    process: LinearProcess,
    target: Target,
    begin: Tensor,
    frame: Frame,
    path: GridPath,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Our state and torchsde's after each planned step on the started `path`.

    Both are in the coordinates of `frame`; torchsde takes one step an interval.
    """
    clock = plans[0].clock
    sde = (_RawSDE if frame == "raw" else _LocalizationSDE)(process, target, method)
    driver = _Driver(path, clock, tuple(begin.shape))

    def denoiser(x: Tensor, stage: Stage) -> Tensor:
        return target.denoise(x, stage.level)

    executor = Executor(denoiser, path)
    state, theirs = begin.clone(), sde.to_frame(begin, plans[0].start)
    for plan in plans:
        state = executor.run(plan, state, []).state
        ends = torch.tensor([plan.slots[0].start, plan.slots[0].stop], dtype=torch.float64)
        with torch.random.fork_rng(
            devices=[]
        ):  # torchsde's argument check draws from the global generator
            # dt beyond the interval: one step, whose end is the interval's
            steps = torchsde.sdeint(
                sde,
                theirs,
                ends,
                bm=driver,
                method=method.name.partition(" ")[0],
                dt=float(2.0 * (ends[1] - ends[0])),
            )
        theirs = steps[-1]
        yield sde.to_frame(state, plan.stop), theirs


class _Driver:
    """Our path as torchsde's Brownian motion: (W, U) with U = int (B - B_start) = h (W/2 + H)."""

    levy_area_approximation = "space-time"

    def __init__(self, path: GridPath, clock: str, shape: tuple[int, ...]) -> None:
        self.path, self.clock, self.shape = path, clock, shape

    def __call__(self, ta: Any, tb: Any, return_U: bool = False, return_A: bool = False) -> Any:
        w, levy = self.path.increments(float(ta), float(tb), self.clock)
        return (w, (float(tb) - float(ta)) * (0.5 * w + levy)) if return_U else w


class _SDE:
    """A reverse SDE as torchsde wants it: drift f(t, y), and g(t, y) dense or g_prod(t, y, v)."""

    noise_type = "additive"

    def __init__(self, process: LinearProcess, target: Target, method: Method) -> None:
        self.process, self.target, self.sde_type = process, target, method.sde_type
        if method.product:
            self.g_prod = lambda t, y, v: self.amplitude(float(t)) * v
        else:
            self.g = lambda t, y: (
                self.amplitude(float(t))
                * torch.eye(y.shape[1], dtype=y.dtype).expand(y.shape[0], -1, -1)
            )

    def amplitude(self, t: float) -> float:
        return 1.0


class _RawSDE(_SDE):
    """dy = (-f y + g^2 s) dtau + g dB in the clock tau = -t."""

    def f(self, tau: Any, y: Tensor) -> Tensor:
        t = self.process.check_time(-float(tau))
        score: Tensor = self.target.score(self.process)(y, t)
        return score * self.process.diffusion(t) ** 2 - y * self.process.log_alpha_rate(t)

    def amplitude(self, t: float) -> float:
        return self.process.diffusion(self.process.check_time(-t))

    def to_frame(self, x: Tensor, level: Level) -> Tensor:
        return x


class _LocalizationSDE(_SDE):
    """dZ = D dl + dB in the clock l = alpha^2/sigma^2, Z = (alpha/sigma^2) x."""

    def f(self, clock: Any, z: Tensor) -> Tensor:
        level = self.process.level_at(0.5 * math.log(float(clock)))
        denoised: Tensor = self.target.denoise(z * (level.sigma**2 / level.alpha), level)
        return denoised

    def to_frame(self, x: Tensor, level: Level) -> Tensor:
        return x * (level.alpha / level.sigma**2)
