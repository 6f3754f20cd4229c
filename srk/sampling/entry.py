"""solve(): draw samples in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, overload

import torch
from torch import Tensor

from srk._checks import shown
from srk._engine.recorder import StepInfo
from srk._engine.together import ProductStepInfo
from srk.errors import ArgumentTypeError
from srk.eta import Eta
from srk.integrators import Integrator
from srk.noise import NoiseSource
from srk.processes.base import ForwardProcess
from srk.processes.product import Product
from srk.sampling.compatible import Gradient
from srk.sampling.product import solve_product
from srk.sampling.sampler import Sampler
from srk.sampling.settings import Calls, Compile
from srk.scores import Prediction, ProductPrediction
from srk.scores.hooks import Hook
from srk.solution import ProductSolution, Solution
from srk.steps import Levels, Profile, StepController
from srk.steps.picard import Picard
from srk.tableaus import StochasticTableau

T = TypeVar("T")
Each: TypeAlias = T | Mapping[str, T]
"""One value, or for the parts of a product a value for each by name."""


@overload
def solve(
    process: ForwardProcess,
    score: Prediction | Callable[..., Tensor],
    solver: str | Integrator | StochasticTableau = "auto",
    *,
    shape: Sequence[int] | int | None = None,
    x_init: Tensor | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | StepController | Levels | Sequence[float] | Tensor | None = None,
    controller: str | StepController | None = None,
    profile: Profile | None = None,
    eta: Eta | None = None,
    noise: str | NoiseSource | Callable[..., Any] | None = None,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    denoise_final: bool | Literal["mean"] | None = None,
    autocast: torch.dtype | None = None,
    compile: Compile = False,
    calls: Calls = "free",
    parallel: Picard | None = None,
    check_network: bool = True,
    hooks: Iterable[Hook] = (),
    grad: Gradient = False,
    microbatch: int | None = None,
    save: str | Iterable[str] | None = None,
    callback: Callable[[StepInfo], bool | None] | None = None,
    progress: bool = False,
    on_failure: Literal["raise", "return"] = "raise",
) -> Solution: ...
@overload
def solve(
    process: Product,
    score: ProductPrediction,
    solver: Each[str | Integrator | StochasticTableau] = "auto",
    *,
    shape: Mapping[str, Sequence[int] | int] | int | None = None,
    x_init: Mapping[str, Tensor] | None = None,
    steps: Each[int | None] = None,
    nfe: int | None = None,
    grid: Each[str | StepController | Sequence[float] | Tensor | None] = None,
    controller: None = None,
    profile: Mapping[str, Profile] | None = None,
    eta: Each[float | None] = None,
    noise: Each[str | NoiseSource | Callable[..., Any] | None] = None,
    seed: int | None = None,
    device: Each[torch.device | str | None] = None,
    dtype: Each[torch.dtype | None] = None,
    denoise_final: Each[bool | Literal["mean"] | None] = None,
    autocast: torch.dtype | None = None,
    compile: Each[Literal[False, "step"]] = False,
    calls: Calls = "free",
    parallel: None = None,
    check_network: bool = True,
    hooks: Mapping[str, Iterable[Hook]] | None = None,
    grad: bool = False,
    microbatch: int | None = None,
    save: str | Iterable[str] | None = None,
    callback: Callable[[ProductStepInfo], bool | None] | None = None,
    progress: bool = False,
    on_failure: Literal["raise", "return"] = "raise",
) -> ProductSolution: ...
def solve(
    process: ForwardProcess | Product,
    score: Prediction | ProductPrediction | Callable[..., Tensor],
    solver: Any = "auto",
    *,
    shape: Any = None,
    x_init: Any = None,
    steps: Any = None,
    nfe: int | None = None,
    grid: Any = None,
    controller: str | StepController | None = None,
    profile: Any = None,
    eta: Any = None,
    noise: Any = None,
    seed: int | None = None,
    device: Any = None,
    dtype: Any = None,
    denoise_final: Any = None,
    autocast: torch.dtype | None = None,
    compile: Any = False,
    calls: Calls = "free",
    parallel: Picard | None = None,
    check_network: bool = True,
    hooks: Any = (),
    grad: Gradient = False,
    microbatch: int | None = None,
    save: str | Iterable[str] | None = None,
    callback: Callable[..., bool | None] | None = None,
    progress: bool = False,
    on_failure: Literal["raise", "return"] = "raise",
) -> Solution | ProductSolution:
    """Draw samples by reversing `process` with the network `score`.

    Arguments:
        process: the forward process, e.g. `srk.VP()`; or several in an `srk.Product`, whose state
            is a dict of tensors. Then `shape`, `x_init`, `profile` and `hooks` are dicts, `solver`,
            `steps`, `grid`, `eta`, `noise`, `device`, `dtype`, `denoise_final` and `compile` may
            be, and the score is `srk.scores.Joint` or `srk.scores.Independent`.
        score: a callable (x, t) -> score with x of shape (batch, *event) and t a (batch,) tensor of
            the process's own time; or an adapter around a network of another kind
            (`srk.NoisePrediction`, `srk.Data`, `srk.Velocity`, `srk.FlowVelocity`,
            `srk.EDMDenoiser`); or the exact score of a target.
        solver: a registered name (`srk.solvers()`), an integrator object with options, or a
            tableau. The default, "auto", picks by process, eta and number of steps.
        shape: (batch, *event) of the samples. Optional where the score knows its event shape: then
            an int is the batch, and the default is one sample.
        steps: number of steps (default 50).
        nfe: number of network calls to spend instead, the final denoising included; the solver
            takes the steps that it buys. A guided prediction may make two or more calls for each
            evaluation, and pays for them here.
        grid: name of a grid (`srk.controllers()`), a decreasing list of own times, a controller, or
            `srk.Levels` for elements with times of their own. Default "log-snr" for linear
            processes, else "uniform".
        profile: what `srk.calibrate` measured of the network: it places the steps (where no grid is
            given; with eta = 0 those of `auto` and `gauge-adams` only), and tells `auto` the
            variance of the data and to solve the ODE where no eta is given.
        eta: stochasticity; 1 is the reverse SDE, 0 the probability-flow ODE. Default: 1 where the
            solver is defined for it, else 0; `auto` with a profile: 0. Or one value a step: a
            function of the noise level at its start (attributes t, alpha, sigma, lam), a list, or a
            rule of `srk.eta`.
        noise: name of a noise source (`srk.noise()`), an `srk.noise.NoiseSource`, or a function
            (slot, clock, out) that draws; default "generator".
        seed: seed of the run; the global random state is never touched.
        device, dtype: of the samples; default those of `x_init`, else the CPU and float32. With
            torch.complex64 or complex128 the network sees complex states, and the noise has
            variance 1, half of it in each part.

    Other Arguments:
        x_init: state to start from, (batch, *event), instead of a draw from the prior; it is not
            modified.
        controller: the old name of `grid`.
        denoise_final: end with the denoised prediction at t_min, one more network call. Default:
            yes where the process has a denoiser. "mean" takes the last step without its noise
            instead. `gauge-adams`, and so `auto` with a profile or with eta=0, knows that
            prediction without a call (fewer than 16 steps to t_min, no hooks), and makes one more
            step of it for the same `nfe`.
        autocast: dtype for `torch.autocast` around the network, e.g. torch.bfloat16; the state
            keeps its own (for a network whose weights are in that dtype use the adapter's
            `network_dtype`).
        compile: "step" compiles the arithmetic between two network calls into one kernel
            (TorchInductor; some seconds for each kernel at the first call of a shape, and on the
            CPU it needs a C++ compiler); with noise="keyed" the kernel draws the noise where it
            uses it. "loop" captures the whole run as a CUDA graph; it pays with a `srk.Sampler`
            that is kept and called again.
        calls: where the network is called. "free" lets the solver choose times inside its steps;
            "schedule" calls it at the times of the grid, all but the last, and nowhere else, as
            networks of discrete times and caches indexed by the step need. The solvers of this
            package then run in a form of their own (`srk.integrators.OnSchedule`); other solvers
            can do it if they call once a step, at its start.
        parallel: `srk.Picard(window=32, tolerance=1e-3)` takes many steps at once, for a device
            that is idle with small batches: fewer batches one after the other (`Solution.rounds`),
            more calls in all (`Solution.nfe`). For fixed grids; the noise is then "keyed" by
            default.
        check_network: look at the first outputs of the network, and warn (`ConventionWarning`)
            where they do not fit its adapter, e.g. where a network predicts the noise and is passed
            bare. A look costs five sums of the state; no step waits for a device.
        hooks: functions (denoised, level) -> denoised that change what the network predicts, as in
            `srk.Hooked`, and objects of kind `srk.scores.StateHook`, which see the state and may
            change it before each step, e.g. `[srk.scores.CenterRandomAugmentation()]`.
        grad: True lets gradients flow through the run, to `x_init`, to the network's parameters and
            to its conditions; "checkpoint" recomputes each step in the backward pass instead of
            remembering what the network did.
        microbatch: draw at most so many samples at a time. The noise is then "keyed" by default,
            and the result does not depend on this number beyond the network's own rounding.
        save: "x", "denoised", "log_prob", "inputs" or several: keep the states after each step, the
            denoised predictions, the log-densities of the steps given what came before (for solvers
            whose step is Gaussian, such as "ddpm"; nats, differentiable with `grad`), or what the
            network was asked at.
        callback: called with a `StepInfo` (of a product a `ProductStepInfo`) after each accepted
            step; a true return value stops the run.
        progress: show a progress bar with step, NFE and time left.
        on_failure: what to do when the network returns something that is not finite: "raise" a
            `SolveError`, or "return" the solution, whose status says so. Both carry the last finite
            state.

    Returns:
        A `Solution`; for a product a `ProductSolution`, which holds dicts.

    Raises:
        ArgumentError, ArgumentTypeError, UnknownNameError: an argument is not what it says above.
        TimeError, IncompatibleError: the grid is not usable, or two parts do not go together.
        ScoreError: the network returned no tensor of the shape of its state, as a rule.
        SolveError: the run failed, with `on_failure="raise"`. Each message names the cure.

    Examples:
        >>> import srk
        >>> process = srk.VP()
        >>> target = srk.targets.Gaussian(0.5, 0.04)
        >>> sol = srk.solve(process, target.score(process), "srk2m", shape=(4, 1), nfe=20, seed=0)
        >>> sol.x.shape, sol.nfe, sol.status
        (torch.Size([4, 1]), 20, 'done')
    """
    if isinstance(process, Product):
        return solve_product(
            process,
            score,
            solver,
            shape=shape,
            x_init=x_init,
            steps=steps,
            nfe=nfe,
            grid=grid,
            eta=eta,
            noise=noise,
            seed=seed,
            device=device,
            dtype=dtype,
            denoise_final=denoise_final,
            autocast=autocast,
            calls=calls,
            grad=grad,
            save=save,
            on_failure=on_failure,
            controller=controller,
            profile=profile,
            compile=compile,
            microbatch=microbatch,
            callback=callback,
            progress=progress,
            parallel=parallel,
            check_network=check_network,
            hooks=hooks,
        )
    if isinstance(score, ProductPrediction):
        raise ArgumentTypeError(
            f"{shown(score)} is for the parts of a product, but the process is {shown(process)}; "
            "give srk.Product(a=..., b=...)"
        )
    sampler = Sampler(
        process,
        score,
        solver,
        steps=steps,
        nfe=nfe,
        grid=grid,
        controller=controller,
        profile=profile,
        eta=eta,
        denoise_final=denoise_final,
        autocast=autocast,
        compile=compile,
        calls=calls,
        parallel=parallel,
        check_network=check_network,
        hooks=hooks,
    )
    return sampler(
        shape,
        x_init=x_init,
        noise=noise,
        seed=seed,
        device=device,
        dtype=dtype,
        save=save,
        callback=callback,
        progress=progress,
        on_failure=on_failure,
        grad=grad,
        microbatch=microbatch,
    )


__all__ = ["StepInfo", "solve"]
