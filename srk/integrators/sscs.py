"""The symmetric splitting sampler for critically damped Langevin diffusion."""

from __future__ import annotations

import attrs
import numpy as np

from srk.errors import IncompatibleError
from srk.integrators.base import Integrator
from srk.plans.form import LinearForm
from srk.plans.phase import factor, of_data
from srk.plans.plan import StepPlan
from srk.plans.step import Draft, Step
from srk.processes.base import ForwardProcess
from srk.processes.cld import CLD


@attrs.frozen(kw_only=True)
class SSCS(Integrator):
    """`sscs`: the symmetric splitting sampler, for `srk.CLD` only.

    It splits critically damped Langevin diffusion.

    One network call per step. Half a step of the part of the reverse SDE that leaves the
    equilibrium N(0, diag(1, M)) alone, exactly; a step of the rest, dv = 2 Gamma beta (s_v + v/M)
    dt, by Euler at the middle of the step; another exact half. The reverse SDE only (eta = 1).
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
                "sscs splits critically damped Langevin diffusion, srk.CLD, not "
                f"{process!r}; use solver='srk2m' or 'ddpm'"
            )

    def plan(self, step: Step) -> StepPlan:
        process, start, stop = step.process, step.start, step.stop
        middle = process.level(0.5 * (start.t + stop.t))
        g = process.diffusion(middle.t)
        kernel, square = process.kernel(middle.t), (start.t - stop.t) * g @ g.T
        precision = np.linalg.inv(kernel.covariance)
        draft = step.draft("phase")
        z = self._half(draft, process, draft.state, middle.t, start.t)
        node = draft.evaluate(z, middle)
        kick = np.linalg.inv(process.equilibrium) - precision
        z = node.x * (np.eye(2) + square @ kick) + node.value * of_data(
            square @ precision @ kernel.mean
        )
        return draft.finish(self._half(draft, process, z, stop.t, middle.t))

    def _half(
        self, draft: Draft, process: CLD, z: LinearForm, low: float, high: float
    ) -> LinearForm:
        """The reverse of the equilibrium process over [low, high].

        The forward transition with the velocity's sign turned.
        """
        turn = np.diag([1.0, -1.0])
        psi, q = process.transition(low, high)
        return z * (turn @ psi @ turn) + draft.normal(-high, -low) * (turn @ factor(q))
