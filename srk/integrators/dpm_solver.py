r"""DPM-Solver, single step, for the probability-flow ODE.

The noise prediction eps = (u - D)/r is interpolated over the step.

In u = x/alpha, r = sigma/alpha and the half log-SNR, du = -r eps dlam; with h the step, e_k(h) =
psi_k(-h) (see `phi`).
"""

from __future__ import annotations

import math

import attrs

from srk._fields import gt, le
from srk.errors import ArgumentError
from srk.integrators.base import Integrator
from srk.integrators.registry import register_solver
from srk.plans.form import LinearForm
from srk.plans.phi import psi
from srk.plans.plan import StepPlan
from srk.plans.step import Draft, Step
from srk.processes.base import Level


def _noise_at(draft: Draft, u: LinearForm, level: Level) -> LinearForm:
    """eps at the state u (in the scale of the data); one network call."""
    node = draft.evaluate(u * level.alpha, level)
    return (node.x / level.alpha - node.value) / level.r


@register_solver
@attrs.frozen(kw_only=True)
class DPMSolver2(Integrator):
    r"""`dpm-solver-2`: DPM-Solver-2, single step, for the probability-flow ODE (eta = 0).

    Two network calls per step, order 2. With s at the fraction c of the step in the half log-SNR:

    $$
    u_s = u - r_s (e^{ch} - 1)\, \varepsilon, \qquad
    u' = u - r' (e^h - 1) \Big(\varepsilon + \frac{\varepsilon_s - \varepsilon}{2c}\Big)
    $$

    With c = 1/2 it is `dpm2`. Elsewhere: k-diffusion `DPMSolver.dpm_solver_2_step` with r1 = c;
    diffusers `DPMSolverSinglestepScheduler(algorithm_type="dpmsolver", solver_order=2)`.

    Arguments:
        node: c, in (0, 1].
    """

    name = "dpm-solver-2"
    evaluations_per_step = 2
    weak_order = 2.0
    eta_range = (0.0, 0.0)
    reference = "Lu et al. 2022 (arXiv 2206.00927), algorithm 1"
    advice = "ODE, two calls, order 2, noise form; for unguided models"

    node: float = attrs.field(default=0.5, validator=[gt(0.0), le(1.0)])

    def plan(self, step: Step) -> StepPlan:
        start, stop, h, c = step.start, step.stop, step.h, self.node
        level = stop if c == 1.0 else step.process.level_at(start.lam + c * h)
        draft = step.draft()
        u = draft.state / start.alpha
        eps = _noise_at(draft, u, start)
        eps_s = _noise_at(draft, u - eps * (level.r * math.expm1(c * h)), level)
        return draft.finish(
            (u - (eps + (eps_s - eps) * (0.5 / c)) * (stop.r * math.expm1(h))) * stop.alpha
        )


@register_solver
@attrs.frozen(kw_only=True)
class DPMSolver3(Integrator):
    r"""`dpm-solver-3`: DPM-Solver-3, single step, for the probability-flow ODE (eta = 0).

    Three network calls per step, order 3. With stages at the fractions c1, c2 of the step in the
    half log-SNR and E(x) = (e^x - 1)/x - 1:

    $$
    \begin{aligned}
    u_1 &= u - r_1 (e^{c_1 h} - 1)\, \varepsilon \\
    u_2 &= u - r_2 (e^{c_2 h} - 1)\, \varepsilon
        - r_2 \tfrac{c_2}{c_1} E(c_2 h) (\varepsilon_1 - \varepsilon) \\
    u' &= u - r' (e^h - 1)\, \varepsilon - \tfrac{r'}{c_2} E(h) (\varepsilon_2 - \varepsilon)
    \end{aligned}
    $$

    Elsewhere: k-diffusion `DPMSolver.dpm_solver_3_step` with r1, r2 = c1, c2; `sample_dpm_fast`
    takes these steps and ends with lower
    orders.

    Arguments:
        nodes: (c1, c2), 0 < c1 < c2 <= 1. Order 3 asks for c2 = 2/3.
    """

    name = "dpm-solver-3"
    evaluations_per_step = 3
    weak_order = 3.0
    eta_range = (0.0, 0.0)
    reference = "Lu et al. 2022 (arXiv 2206.00927), algorithm 2"
    advice = "ODE, three calls, order 3, noise form; for unguided models"

    nodes: tuple[float, float] = attrs.field(default=(1.0 / 3.0, 2.0 / 3.0))

    @nodes.validator
    def _check_nodes(
        self, attribute: attrs.Attribute[tuple[float, float]], value: tuple[float, float]
    ) -> None:
        if len(value) != 2 or not 0.0 < value[0] < value[1] <= 1.0:
            raise ArgumentError(
                "the nodes of dpm-solver-3 are two fractions of the step, 0 < c1 < c2 <= 1, "
                f"not {value!r}; the usual ones are (1/3, 2/3)"
            )

    def plan(self, step: Step) -> StepPlan:
        start, stop, h = step.start, step.stop, step.h
        c1, c2 = self.nodes
        level1 = step.process.level_at(start.lam + c1 * h)
        level2 = stop if c2 == 1.0 else step.process.level_at(start.lam + c2 * h)
        draft = step.draft()
        u = draft.state / start.alpha
        eps = _noise_at(draft, u, start)
        eps1 = _noise_at(draft, u - eps * (level1.r * math.expm1(c1 * h)), level1)
        u2 = (
            u
            - eps * (level2.r * math.expm1(c2 * h))
            + (eps1 - eps) * (level2.r * (c2 / c1) * psi(1, -c2 * h))
        )
        eps2 = _noise_at(draft, u2, level2)
        new = u - eps * (stop.r * math.expm1(h)) + (eps2 - eps) * (stop.r / c2 * psi(1, -h))
        return draft.finish(new * stop.alpha)
