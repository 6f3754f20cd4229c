"""How a run ends: whether the last step leads to the denoised prediction, or a call of its own."""

from __future__ import annotations

from typing import Any

from srk.errors import SRKError
from srk.integrators import Integrator
from srk.processes.base import ForwardProcess
from srk.sampling.arguments import steps_given
from srk.steps import Budget, Grid, RunInfo, StepController


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
) -> tuple[int | None, bool]:
    """The number of steps, and whether the last of them leads to the denoised prediction.

    Arguments:
        process, method, control, eta: what is reversed, by which solver, with which grid.
        steps, nfe, calls: as `steps_given` takes them.
        denoise: whether the run ends with the denoised prediction.
        may_close: whether nothing else that was asked for keeps the last step from leading there.
    """
    if (
        denoise
        and may_close
        and method.closes(process, eta, 1)
        and ends_clean(control, RunInfo(process, method, 2, eta))
    ):
        count = steps_given(process, method, control, steps, nfe, False, calls)
        if method.closes(process, eta, count):
            return count, True
    return steps_given(process, method, control, steps, nfe, denoise, calls), False


def ends_clean(control: StepController, info: RunInfo) -> bool:
    """Whether a controller is a grid whose steps go down to `process.t_min`.

    Arguments:
        control: the controller.
        info: a run of two steps, for which a grid is asked where it ends.
    """
    if not isinstance(control, Grid) or control.own_steps is not None or control.rises:
        return False
    if isinstance(control, Budget):  # whose steps may not be known yet
        return True
    try:
        times = control.times(info)
    except SRKError:  # one that takes more steps, or none of this process
        return False
    return bool(times[-1] == info.process.t_min)
