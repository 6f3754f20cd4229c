"""Integrators of phase-space processes: exponential steps that mix the components."""

from __future__ import annotations

import attrs
import numpy as np

from srk.errors import IncompatibleError
from srk.integrators.base import Integrator
from srk.integrators.exponential import DDPM
from srk.integrators.multistep import DPMpp2MSDE
from srk.plans.form import LinearForm
from srk.plans.history import usable_for_denoiser
from srk.plans.phase import conditional_flow, factor
from srk.plans.plan import StepPlan
from srk.plans.step import Draft, Step
from srk.processes.base import ForwardProcess
from srk.processes.cld import CLD
from srk.processes.phase import Array, PhaseProcess


@attrs.frozen(kw_only=True)
class GDDIM(Integrator):
    """`gddim`: exponential integrator in all components at once, the network's prediction frozen or extrapolated.

    One network call per step. On a phase-space process such as `srk.CLD`, the linear part of the reverse family is solved exactly with k x k coefficients
    (see `srk.plans.phase`); at eta = 0 it is gDDIM with the coefficient K = R of the paper, at eta = 1 and order 1 the exact posterior given the predicted
    data, what `ddpm` is for a scalar process. On a scalar linear process it is `ddpm` (order 1) and `dpmpp-2m-sde` in the variant "heun" (order 2).

    Arguments:
        order: 1 freezes the denoiser over the step; 2 extrapolates it linearly in the half log-SNR through the last two steps.
    """

    name = "gddim"
    strong_order = 1.0
    weak_order = 2.0
    infinite_noise = True
    phase = True
    reference = "Zhang, Tao, Chen 2022 (arXiv 2206.05564)"
    advice = "one call, order 2; DDIM for cld, with k x k coefficients"

    order: int = attrs.field(default=2, validator=attrs.validators.in_((1, 2)))

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "weak_order", float(self.order))

    def plan(self, step: Step) -> StepPlan:
        if not isinstance(step.process, PhaseProcess):
            return _SCALAR[self.order].plan_step(step)
        process, start, stop = step.process, step.start, step.stop
        phi, noise, slope = conditional_flow(process, start, stop, step.eta)
        a0, a1 = process.kernel(start.t).mean, process.kernel(stop.t).mean
        board = step.draft("phase")
        node = board.evaluate(board.state, start)
        new = node.x * phi + node.value * _data(a1 - phi @ a0)
        if (
            self.order > 1
            and len(usable_for_denoiser(step, [start.lam, *step.memory], name=self.name)) > 1
        ):
            new = new + (node.value - board.memory(0)) * _data(slope / (start.lam - step.memory[0]))
        if step.eta > 0.0:
            new = new + board.normal(-start.t, -stop.t) * factor(noise)
        return board.finish(new, keep=[(node.value, start.lam)] if self.order > 1 else ())


@attrs.frozen(kw_only=True)
class SSCS(Integrator):
    """`sscs`: symmetric splitting sampler for critically damped Langevin diffusion (`srk.CLD` only).

    One network call per step. Half a step of the part of the reverse SDE that leaves the equilibrium N(0, diag(1, M)) alone, exactly; a step of
    the rest, dv = 2 Gamma beta (s_v + v/M) dt, by Euler at the middle of the step; another exact half. The reverse SDE only (eta = 1).
    """

    name = "sscs"
    eta_range = (1.0, 1.0)
    phase = True
    reference = "Dockhorn, Vahdat, Kreis 2022 (arXiv 2112.07068), section 4.3"
    advice = "one call, order 1; the sampler of the cld paper; srk2m and gddim are more accurate"

    def check(self, process: ForwardProcess, eta: float) -> None:
        super().check(process, eta)
        if not isinstance(process, CLD):
            raise IncompatibleError(
                f"sscs splits critically damped Langevin diffusion, srk.CLD, not {process!r}; use solver='srk2m' or 'ddpm'"
            )

    def plan(self, step: Step) -> StepPlan:
        process, start, stop = step.process, step.start, step.stop
        middle = process.level(0.5 * (start.t + stop.t))
        g = process.diffusion(middle.t)
        kernel, square = process.kernel(middle.t), (start.t - stop.t) * g @ g.T
        precision = np.linalg.inv(kernel.covariance)
        board = step.draft("phase")
        z = self._half(board, process, board.state, middle.t, start.t)
        node = board.evaluate(z, middle)
        kick = np.linalg.inv(process.equilibrium) - precision
        z = node.x * (np.eye(2) + square @ kick) + node.value * _data(
            square @ precision @ kernel.mean
        )
        return board.finish(self._half(board, process, z, stop.t, middle.t))

    def _half(
        self, board: Draft, process: CLD, z: LinearForm, low: float, high: float
    ) -> LinearForm:
        """The reverse of the equilibrium process over [low, high]: the forward transition with the velocity's sign turned."""
        turn = np.diag([1.0, -1.0])
        psi, q = process.transition(low, high)
        return z * (turn @ psi @ turn) + board.normal(-high, -low) * (turn @ factor(q))


_SCALAR: dict[int, Integrator] = {1: DDPM(), 2: DPMpp2MSDE(variant="heun")}


def _data(column: Array) -> Array:
    """The k x k array that puts the data component, times `column`, into every component."""
    out = np.zeros((len(column), len(column)))
    out[:, 0] = column
    return out
