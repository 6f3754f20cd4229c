"""Checks of what users pass to `solve` and `Sampler`, before anything is computed.

Each function takes an argument as a user wrote it, and returns it in the one form that the rest of
the package works with, or raises an error of ours that says what was given and what would be right.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from srk._checks import integer, is_integer, outside, shown
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.eta import as_eta
from srk.integrators import Integrator
from srk.processes.base import ForwardProcess
from srk.processes.product import Product
from srk.sampling.planning import plan_grid
from srk.scores.hooks import Hook, check_hooks
from srk.steps import Grid, Levels, RunInfo, StepController, as_grid

DEFAULT_STEPS = 50
SAVES = {"x", "denoised", "log_prob", "inputs"}
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The dtypes of a state."""


def process_given(process: Any) -> ForwardProcess:
    """The process, if it is one."""
    if isinstance(process, ForwardProcess):
        return process
    hint = ""
    if isinstance(process, type) and issubclass(process, ForwardProcess):
        hint = f"; this is its class, make one of it: {process.__name__}()"
    if isinstance(process, Product):
        hint = (
            "; the parts of a product are reversed together by srk.solve(product, score, ...) or "
            "srk.ProductSampler, and not by this function"
        )
    raise ArgumentTypeError(
        "process must be an srk.ForwardProcess such as srk.VP() or srk.process('vp'), not "
        f"{shown(process)}{hint}"
    )


def eta_given(eta: Any, method: Integrator, process: ForwardProcess) -> Any:
    """The stochasticity, that of the solver where none is given; the solver must allow it.

    A float, a tuple with one a step, a function of the level or an `srk.eta.EtaRule`. The values of
    the last two are checked when the steps are planned.
    """
    value = method.default_eta if eta is None else as_eta(eta)
    if isinstance(value, float):
        method.check(process, value)
        return value
    for each in value if isinstance(value, tuple) else (method.default_eta,):
        method.check(process, each)
    if process.statistic is None:
        raise IncompatibleError(
            f"eta by level needs a process with a denoiser, but {process!r} is reversed in its own "
            "time with one eta for the whole run; give a number"
        )
    return value


def autocast_given(autocast: Any) -> torch.dtype | None:
    """The dtype for `torch.autocast`, or None."""
    if autocast is None or (isinstance(autocast, torch.dtype) and autocast.is_floating_point):
        return autocast
    raise ArgumentTypeError(
        f"autocast is a floating-point torch.dtype, not {shown(autocast)}; "
        "e.g. autocast=torch.bfloat16"
    )


def dtype_given(dtype: Any) -> torch.dtype | None:
    """The dtype of the samples, or None."""
    if dtype is None:
        return None
    if not isinstance(dtype, torch.dtype):
        raise ArgumentTypeError(
            f"dtype is a torch.dtype, not {shown(dtype)}; e.g. dtype=torch.float64"
        )
    if dtype not in DTYPES:
        raise ArgumentError(
            f"samples are of dtype {', '.join(map(str, DTYPES))}, not {dtype}; a network may use "
            "another (network_dtype of its adapter)"
            + ("; complex states are for srk.solve of one state" if dtype.is_complex else "")
        )
    return dtype


def device_given(device: Any) -> torch.device | None:
    """The device of the samples, which must be there, or None."""
    if device is None or (isinstance(device, torch.device) and device.type == "cpu"):
        return device
    try:
        if isinstance(device, bool):
            raise TypeError("a bool is no device")
        place = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ArgumentError(
            f"device must be the name of a device or a torch.device, not {shown(device)}; "
            "e.g. device='cpu' or device='cuda:0'"
        ) from error
    if place.type == "meta":
        raise ArgumentError("device='meta' holds no numbers, so there is nothing to sample there")
    if place.type != "cpu":
        try:
            torch.empty(0, device=place)
        except Exception as error:  # each kind of device has its own
            raise IncompatibleError(
                f"there is no device {str(place)!r} here ({str(error).splitlines()[0]}); use "
                "device='cpu', or install a PyTorch that knows the device"
            ) from error
    return place


def callback_given(callback: Any) -> Callable[..., Any] | None:
    """The callback, or None."""
    if callback is None or callable(callback):
        return callback  # type: ignore[no-any-return]
    raise ArgumentTypeError(
        "callback is a function that takes a StepInfo and returns True to stop, not "
        f"{shown(callback)}"
    )


def hooks_given(hooks: Any) -> tuple[Hook, ...]:
    """The hooks of a run, if they are hooks."""
    if callable(hooks) or not isinstance(hooks, Iterable):
        raise ArgumentTypeError(
            f"hooks is a list of hooks, not {shown(hooks)}; e.g. hooks=[srk.scores.Clip(-1.0, 1.0)]"
        )
    return check_hooks(tuple(hooks))


def saves_given(save: Any) -> frozenset[str]:
    """What the solution shall hold besides the samples."""
    if save is None or save is False:
        return frozenset()
    known = "save must be 'x', 'denoised', 'log_prob', 'inputs' or several of them"
    if isinstance(save, str):
        names = [save]
    elif isinstance(save, Iterable) and not isinstance(save, Tensor | bytes):
        names = list(save)
    else:
        raise ArgumentTypeError(f"{known}, not {shown(save)}; e.g. save='x'")
    unknown = [name for name in names if not (isinstance(name, str) and name in SAVES)]
    if unknown:
        raise ArgumentError(f"{known}, not {shown(unknown)}")
    return frozenset(names)


def state_given(
    x_init: Any, shape: Sequence[int] | int | None, event: tuple[int, ...] | None
) -> Tensor:
    """The state that a run starts from, if it is one."""
    if not isinstance(x_init, Tensor) or not x_init.dtype.is_floating_point or x_init.ndim == 0:
        got = (
            f"{x_init.dtype} of shape {tuple(x_init.shape)}"
            if isinstance(x_init, Tensor)
            else shown(x_init)
        )
        raise ArgumentTypeError(
            f"x_init must be a floating-point tensor of shape (batch, *event), not {got}"
        )
    if x_init.layout is not torch.strided or x_init.device.type == "meta":
        raise ArgumentError(
            "x_init must be a dense tensor with numbers in it, not one of layout "
            f"{x_init.layout} on {x_init.device}; use x_init.to_dense()"
        )
    dtype_given(x_init.dtype)
    if x_init.numel() == 0:
        raise ArgumentError(
            f"x_init of shape {tuple(x_init.shape)} holds no numbers; give at least one sample"
        )
    if shape is not None and _shape(shape, event) != tuple(x_init.shape):
        raise ArgumentError(
            f"shape={shown(shape)} contradicts x_init, whose shape is {tuple(x_init.shape)}; "
            "leave shape out"
        )
    # on another device this would wait for it; there the watch of the run finds it
    if x_init.device.type == "cpu" and not bool(torch.isfinite(x_init).all()):
        bad = int((~torch.isfinite(x_init)).reshape(len(x_init), -1).any(1).sum())
        raise ArgumentError(
            f"x_init holds NaN or inf in {bad} of {len(x_init)} samples; the run would carry them "
            "along, whatever the network says"
        )
    return x_init


def batch_shape(
    shape: Sequence[int] | int | None, event: tuple[int, ...] | None
) -> tuple[int, ...]:
    """(batch, *event), from what the user gave and the event shape that the score knows."""
    if shape is None and event is None:
        raise ArgumentError(
            "neither shape nor x_init is given, and the score does not know its event shape; "
            "for example solve(..., shape=(16, 3, 32, 32))"
        )
    return _shape(1 if shape is None else shape, event)


def _shape(shape: Any, event: tuple[int, ...] | None) -> tuple[int, ...]:
    if type(shape) is not tuple and is_integer(shape):
        if event is None:
            raise ArgumentError(
                f"shape={int(shape)} is only a batch size, and the score does not know its event "
                f"shape; for example shape=({int(shape)}, 3, 32, 32)"
            )
        shape = (int(shape), *event)
    given = shape.tolist() if hasattr(shape, "tolist") else shape
    wanted = "shape must be (batch, *event) with positive sizes"
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise ArgumentTypeError(f"{wanted}, not {shown(shape)}; e.g. shape=(16, 3, 32, 32)")
    if not all(map(is_integer, given)):
        raise ArgumentTypeError(f"{wanted}, all of them ints, not {shown(shape)}")
    sizes = tuple(map(int, given))
    if not sizes or min(sizes) < 1:
        raise ArgumentError(f"{wanted}, not {shown(shape)}")
    if math.prod(sizes) >= 2**60:
        raise ArgumentError(f"a state of shape {shown(sizes)} fits into no memory")
    return sizes


def one_time(grid: object, what: str) -> None:
    """Raise `IncompatibleError` for a grid of `srk.Levels`, for `what` has one time for a state."""
    if isinstance(grid, Levels):
        raise IncompatibleError(
            f"srk.Levels gives times to the elements of one tensor, as srk.solve(process, network, "
            f"solver, grid=levels) or srk.Sampler takes it, but {what} has one time for all "
            "elements of a state: use grid='log-snr' or a list of times"
        )


def controller_given(grid: Any, controller: Any, linear: bool) -> StepController:
    """The grid or step controller, from the two arguments that may name it."""
    if grid is not None and controller is not None:
        raise ArgumentError(
            f"grid={shown(grid)} and controller={shown(controller)} both say where the steps go; "
            "give one of them"
        )
    if controller is not None:
        warnings.warn(
            f"controller={shown(controller)} is now grid={shown(controller)}; the old name goes "
            "with the next release",
            DeprecationWarning,
            stacklevel=outside(),
        )
    chosen = grid if controller is None else controller
    one_time(chosen, "this run")
    made: StepController = as_grid(
        ("log-snr" if linear else "uniform") if chosen is None else chosen
    )
    return made


def steps_given(
    process: ForwardProcess,
    method: Integrator,
    control: StepController,
    steps: Any,
    nfe: Any,
    denoise: bool,
    calls: int = 1,
) -> int | None:
    """The number of steps, from the number of steps or of network calls.

    Arguments:
        process, method, control: what is reversed, by which solver, with which grid.
        steps, nfe: what the user gave; at most one of them.
        denoise: whether a final denoising, one more call, ends the run.
        calls: network calls of one evaluation of the prediction.

    Returns:
        The number of steps; None where the controller decides it.
    """
    if steps is not None and nfe is not None:
        raise ArgumentError(
            f"steps={shown(steps)} and nfe={shown(nfe)} are alternatives: the second is the number "
            f"of network calls, and {method.name} spends {method.evaluations_per_step} a step; "
            "give one"
        )
    if steps is not None:
        steps = integer(steps, "steps", least=1)
    if nfe is None:
        free = not isinstance(control, Grid) or control.own_steps is not None
        return steps if steps is not None or free else DEFAULT_STEPS
    nfe = integer(nfe, "nfe", least=1)
    if isinstance(control, Grid) and control.rises:
        return _bought_with_detours(process, method, control, nfe // calls, denoise)
    count = _bought(process, method, nfe // calls, denoise)
    if count < 1:
        most = nfe // calls + 64
        enough = (n for n in range(1, most) if _bought(process, method, n, denoise) > 0)
        least = calls * next(enough, most)
        needed = method.evaluations(1)
        raise ArgumentError(
            f"nfe={nfe} buys no step of {method.name}, which needs {needed} "
            f"call{'s' if needed > 1 else ''} for the first"
            + (" and one for the final denoising" if denoise else "")
            + (
                f"; an evaluation is {calls} calls of the network (see Prediction.calls)"
                if calls > 1
                else ""
            )
            + f"; use nfe={least} or more"
        )
    return count


def _bought(process: ForwardProcess, method: Integrator, calls: int, denoise: bool) -> int:
    """The steps that so many evaluations buy; 0 if they do not buy a run."""
    left, extra, end = calls, 0, method.end_evaluations
    if process.statistic is not None:
        start, stop = process.level(process.t_max), process.level(process.t_min)
        if stop.sigma == 0.0:  # the last step is the denoiser
            left, extra = left - end, extra + 1
        elif denoise:
            left -= end
        if start.alpha == 0.0 and not method.infinite_noise:
            # the first step is exponential Euler
            left, extra = left - end, extra + 1
    count = method.steps(left) + extra
    return 0 if left < 0 or count < 1 + (extra > 1) else count


def _bought_with_detours(
    process: ForwardProcess, method: Integrator, grid: Grid, calls: int, denoise: bool
) -> int | None:
    """The most steps of a grid that rises which so many evaluations pay for, detours included."""

    def cost(steps: int | None) -> int:
        times = grid.times(RunInfo(process, method, steps, method.default_eta))
        plans = plan_grid(process, method, times, method.default_eta)
        final = method.end_evaluations if denoise and plans[-1].stop.sigma > 0.0 else 0
        return sum(plan.evaluations for plan in plans) + final

    if grid.own_steps is not None:
        raise ArgumentError(
            f"{shown(grid)} knows its steps, which cost {cost(None)} evaluations here; leave nfe "
            "out"
        )
    good, bad = 0, calls + 1
    least: Exception | None = None
    while bad - good > 1:
        steps = (good + bad) // 2
        try:
            fits = cost(steps) <= calls
        except ArgumentError as error:  # e.g. too few steps for the intervals of Restart
            fits, least = True, error
        good, bad = (steps, bad) if fits else (good, steps)
    if good == 0 or cost(good) > calls:
        raise ArgumentError(
            f"{calls} evaluations do not pay for {shown(grid)} with {method.name}; give more, or "
            "fewer repetitions"
        ) from least
    return good
