"""How a run ends: whether the last step leads to the denoised prediction, or a call of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from srk.errors import SRKError
from srk.integrators import Integrator
from srk.plans.plan import StepPlan
from srk.processes.base import ForwardProcess
from srk.sampling.arguments import steps_given
from srk.steps import Budget, Grid, RunInfo, StepController

Closing = Callable[[StepPlan], StepPlan]
"""What makes of a last step one that leads to the denoised prediction; see `Integrator.closing`."""


def steps_and_end(
    process: ForwardProcess,
    method: Integrator,
    control: StepController,
    eta: float,
    *,
    steps: Any,
    nfe: Any,
    denoise: bool,
    may_close: bool,
    calls: int,
) -> tuple[int | None, Closing | None]:
    """The number of steps, and what closes the last of them; None where a call does.

    Arguments:
        process, method, control, eta: what is reversed, by which solver, with which grid.
        steps, nfe, calls: as `steps_given` takes them.
        denoise: whether the run ends with the denoised prediction.
        may_close: whether nothing else that was asked for keeps the last step from leading there.
    """
    own = control.own_steps if isinstance(control, Grid) else None
    if denoise and may_close and method.closing(process, eta, own or 1):
        count = steps_given(process, method, control, steps, nfe, False, calls)
        info = RunInfo(process, method, own or 2, eta)
        closing = method.closing(process, eta, count if own is None else own)
        if closing is not None and ends_clean(control, info):
            return count, closing
    return steps_given(process, method, control, steps, nfe, denoise, calls), None


def ends_clean(control: StepController, info: RunInfo) -> bool:
    """Whether a controller is a grid whose steps go down to `process.t_min`.

    Arguments:
        control: the controller.
        info: of a run of as many steps as the grid asks for, or else of two.
    """
    if not isinstance(control, Grid) or control.rises:
        return False
    if isinstance(control, Budget):  # whose steps may not be known yet
        return True
    try:
        times = control.times(info)
    except SRKError:  # one that takes more steps, or none of this process
        return False
    return bool(times[-1] == info.process.t_min)
