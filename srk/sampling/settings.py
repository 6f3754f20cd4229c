"""What a sampler is made of: what was given, checked, in the one form that the rest works with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from srk._checks import choice, flag
from srk._engine.run import Job
from srk.errors import IncompatibleError
from srk.eta import Eta
from srk.integrators import Integrator, integrator
from srk.integrators.on_schedule import OnSchedule
from srk.noise import NoiseSource
from srk.processes.base import ForwardProcess, LinearProcess
from srk.processes.manifold import retraction
from srk.sampling.arguments import (
    autocast_given,
    controller_given,
    eta_given,
    hooks_given,
    process_given,
)
from srk.sampling.compatible import check_moved, parallel_given
from srk.sampling.pilot import calibrated, check_guidance, placed
from srk.sampling.planning import validate
from srk.sampling.run_end import Closing, steps_and_end
from srk.scores import Prediction, as_prediction
from srk.scores.centred import bound_to
from srk.scores.hooks import Hook, with_hooks
from srk.scores.state_hook_base import StateHook, changes_state
from srk.steps import Grid, Levels, Profile, RunInfo, StepController
from srk.steps.picard import Picard
from srk.tableaus import StochasticTableau

Compile = Literal[False, "step", "loop"]
Calls = Literal["free", "schedule"]


@attrs.frozen(eq=False, kw_only=True, slots=False)
class Settings:
    """What was given to a sampler, checked.

    Arguments:
        given: the process as the user gave it, which may have a mean.
        process: what solvers reverse: that process less its mean.
        prediction: the network's prediction, bound to the process, with hooks.
        method: the integrator that plans.
        label: what solutions call the solver.
        eta: the stochasticity, as `srk.eta.as_eta` gives it.
        one_eta: the number that stands for it where one number has to.
        steps: number of steps; None where the controller decides.
        control: the grid, or the controller.
        denoise: whether a run ends with the denoised prediction.
        closing: what makes the last step lead to that prediction, which then costs no call of its
            own; None where it is a call.
        mean: whether the last step is taken without its noise.
        autocast: dtype for `torch.autocast` around the network.
        compile: what is compiled: nothing, each "step", or the whole "loop".
        check_network: whether to look at the first outputs of the network.
        parallel: how many steps are taken at once; None for one after the other.
        hooks: what changes the state before each step.
    """

    given: ForwardProcess
    process: ForwardProcess
    prediction: Prediction
    method: Integrator
    label: str
    eta: Any
    one_eta: float
    steps: int | None
    control: StepController
    denoise: bool
    closing: Closing | None
    mean: bool
    autocast: torch.dtype | None
    compile: Compile
    check_network: bool
    parallel: Picard | None
    hooks: tuple[StateHook, ...]

    @cached_property
    def grid(self) -> Grid | None:
        """The grid; None where a controller decides the steps as a run goes."""
        return self.control if isinstance(self.control, Grid) else None

    @property
    def final(self) -> bool:
        """Whether a final denoising, one more call, follows the last step."""
        return self.denoise and self.closing is None

    def info(self, **of_run: Any) -> RunInfo:
        """What a grid may know of a run: process, solver, steps and eta, and what is known of the
        run itself.
        """
        return RunInfo(self.process, self.method, self.steps, self.one_eta, **of_run)

    def problem(self, x: Tensor, source: NoiseSource) -> RunInfo:
        """What a controller may know of the run from the state `x` with this noise."""
        return self.info(
            noise=source,
            score=self.prediction,
            shape=tuple(x.shape),
            device=x.device,
            dtype=x.dtype,
            autocast=self.autocast,
            seed=source.seed,
        )

    def job(self, etas: tuple[float, ...] = (), **of_call: Any) -> Job:
        """What one run is to do; of one on a fixed grid with the stochasticity of each step.

        Arguments:
            etas: the stochasticity of each step of a fixed grid.
            of_call: `grad`, `saves`, `callback` and `progress`, as `Job` takes them, and a
                `prediction` that belongs to the run.
        """
        of_call.setdefault("prediction", self.prediction)
        return Job(
            process=self.process,
            method=self.method,
            eta=self.one_eta,
            etas=etas,
            label=self.label,
            denoise=self.final,
            autocast=self.autocast,
            compiled=self.compile == "step",
            parallel=self.parallel,
            hooks=self.hooks,
            **of_call,
        )


def settings_given(
    process: ForwardProcess,
    score: Prediction | Callable[..., Tensor],
    solver: str | Integrator | StochasticTableau = "auto",
    *,
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | StepController | Levels | Sequence[float] | Tensor | None = None,
    controller: str | StepController | None = None,
    profile: Profile | None = None,
    eta: Eta | None = None,
    denoise_final: bool | Literal["mean"] | None = None,
    autocast: torch.dtype | None = None,
    compile: Compile = False,
    calls: Calls = "free",
    parallel: Picard | None = None,
    check_network: bool = True,
    hooks: Iterable[Hook] = (),
) -> Settings:
    """Check the arguments of a sampler, alone and against each other; they are those of
    `srk.Sampler`, and so are the errors.
    """
    whole = process_given(process)
    validate(whole)
    process = whole.centred  # what solvers reverse
    method = integrator(solver)
    linear = process.statistic is not None
    mean = isinstance(denoise_final, str) and denoise_final == "mean"
    given: Any = False if mean else denoise_final
    wanted = None if given is None else flag(given, "denoise_final")
    if wanted and not linear:
        raise IncompatibleError(
            f"denoise_final needs a denoiser, which {process!r} has not; leave denoise_final out"
        )
    if profile is not None:
        method = calibrated(profile, method, whole)
    stochasticity: Any = eta_given(eta, method, process)
    constant = isinstance(stochasticity, float)
    # what stands for all steps where one number has to
    one: float = stochasticity if constant else method.default_eta
    if profile is not None:
        where = controller if grid is None else grid
        fitted = placed(profile, method, where, one)
        grid, controller = (fitted, None) if fitted is not where else (grid, controller)
    if choice(calls, ("free", "schedule"), "calls") == "schedule":
        method = OnSchedule(method)
    compiled: Compile = choice(compile, (False, "step", "loop"), "compile")
    given_hooks = hooks_given(hooks)
    changes: tuple[StateHook, ...] = tuple(filter(changes_state, given_hooks))
    if changes and not isinstance(whole, LinearProcess):
        raise IncompatibleError(
            f"the hook {changes[0]!r} changes the state before each step, which needs a "
            f"linear process, not {whole!r}"
        )
    prediction = bound_to(with_hooks(as_prediction(score), given_hooks), whole)
    if profile is not None:
        check_guidance(profile, prediction, process)
    denoise = linear if wanted is None else wanted
    control = controller_given(grid, controller, linear)
    count, closing = steps_and_end(
        process,
        method,
        control,
        one,
        steps=steps,
        nfe=nfe,
        denoise=denoise,
        # a hook has its say in the denoised prediction, which is then asked for
        may_close=constant and not given_hooks,
        calls=prediction.calls(),
    )
    own = control.own_steps if isinstance(control, Grid) else None
    known = count if own is None else own
    label = method.name
    if constant:
        label = method.label(process, stochasticity, known)
        method = method.choose(process, stochasticity, known)
    elif calls == "schedule":
        raise IncompatibleError(
            "calls='schedule' places the steps for one eta of the whole run, but eta changes "
            "from step to step; give one number, or leave out calls='schedule'"
        )
    if calls == "schedule" and not isinstance(control, Grid):
        raise IncompatibleError(
            f"calls='schedule' needs a schedule, but {control!r} decides its steps as "
            "it goes; use grid='log-snr' or a list of times"
        )
    together = parallel_given(parallel, compiled, control)
    if retraction(process) is not None:
        check_moved(process, compiled, together, control)
    return Settings(
        given=whole,
        process=process,
        prediction=prediction,
        method=method,
        label=label,
        eta=stochasticity,
        one_eta=one,
        steps=count,
        control=control,
        denoise=denoise,
        closing=closing,
        mean=mean,
        autocast=autocast_given(autocast),
        compile=compiled,
        check_network=flag(check_network, "check_network"),
        parallel=together,
        hooks=changes,
    )
