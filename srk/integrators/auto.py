"""`auto`: the solver that benchmarks/results/quality.md recommends for a process, an eta and a budget."""

from __future__ import annotations

import attrs

from srk.integrators.base import Integrator, Step
from srk.integrators.gauge import check_variance
from srk.integrators.multistep import DPMpp2MSDE
from srk.integrators.plan import StepPlan
from srk.integrators.raw import EulerMaruyama
from srk.integrators.srk import DATA_VARIANCE, SRK2M
from srk.processes.base import ForwardProcess
from srk.processes.phase import statistic

#: From this number of steps on, matched weights are more accurate (benchmarks/results/quality.md).
MATCHED_FROM = 8


@attrs.frozen(kw_only=True)
class Auto(Integrator):
    """`auto`: picks the solver by process, eta and number of steps; one network call per step.

    - linear process, eta = 1: `srk2m`; from 8 steps on with `weights="matched"`.
    - linear process, eta < 1: `srk2m`; eta > 1: `dpmpp-2m-sde`.
    - phase-space process: the same, through its statistic; other processes: `euler-maruyama`.

    Orders are those of `srk2m`. `srk.solve` says in `Solution.solver` what was picked. Steps of a run whose number is not known (an adaptive
    controller) are taken to be few.

    Arguments:
        data_variance: v of `srk2m`, the variance of the Gaussian reference in the units of the data squared.
    """

    name = "auto"
    strong_order = 1.0
    weak_order = 2.0
    linear_only = False
    infinite_noise = True
    reference = "srk (docs: House methods)"
    advice = "one call; picks by eta and budget, and says in the solution what it picked"

    data_variance: float = attrs.field(default=DATA_VARIANCE, converter=check_variance)

    def choose(self, process: ForwardProcess, eta: float, steps: int | None) -> Integrator:
        """The solver for a run of `steps` steps (None: not known)."""
        if statistic(process) is None:
            return EulerMaruyama()
        if eta > 1.0:
            return DPMpp2MSDE()
        matched = eta == 1.0 and steps is not None and steps >= MATCHED_FROM and self.data_variance > 0.0
        return SRK2M(data_variance=self.data_variance, weights="matched" if matched else "beta")

    def label(self, process: ForwardProcess, eta: float, steps: int | None) -> str:
        """What a `Solution` says of the choice, e.g. "auto: srk2m (matched)"."""
        chosen = self.choose(process, eta, steps)
        matched = isinstance(chosen, SRK2M) and chosen.weights == "matched"
        return f"{self.name}: {chosen.name}" + (" (matched)" if matched else "")

    def plan(self, step: Step) -> StepPlan:
        return self.choose(step.process, step.eta, step.steps).plan_step(step)

    def check(self, process: ForwardProcess, eta: float) -> None:
        super().check(process, eta)
        self.choose(process, eta, None).check(process, eta)
