"""Accuracy of `srk.log_likelihood` against network calls, on mixtures whose density is known: the
tables of docs/likelihood.md.

python benchmarks/likelihood.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp

import srk

PROCESSES = {"vp": srk.VP(), "edm": srk.EDM(), "flow": srk.Flow()}
TARGETS = {
    "1-D": srk.targets.GaussianMixture([0.3, 0.5, 0.2], [-1.0, 0.3, 1.2], [0.1, 0.05, 0.2]),
    "16-D": srk.targets.GaussianMixture(
        [0.3, 0.5, 0.2],
        0.6 * torch.randn(3, 16, generator=torch.Generator().manual_seed(0)),
        [0.2, 0.1, 0.3],
    ),
}
SAMPLES = 64


def own_time(
    process: srk.LinearProcess, target: srk.targets.Target, x: torch.Tensor, tolerance: float
) -> tuple[int, torch.Tensor]:
    """The same ODE in x and the process's own time by scipy's RK45, with the divergence as one more
    coordinate of each sample.
    """
    n, d = x.shape

    def rate(t: float, y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        state = torch.from_numpy(y.reshape(n, d + 1)[:, :d].copy()).requires_grad_()
        f, g2 = process.log_alpha_rate(t), process.diffusion(t) ** 2
        velocity = f * state - 0.5 * g2 * target.score(process)(state, t)
        trace = sum(
            torch.autograd.grad(velocity[:, i].sum(), state, retain_graph=True)[0][:, i]
            for i in range(d)
        )
        return torch.cat([velocity.detach(), torch.as_tensor(trace)[:, None]], 1).flatten().numpy()

    start = torch.cat([x, torch.zeros(n, 1, dtype=x.dtype)], 1).flatten().numpy()
    run = solve_ivp(rate, (process.t_min, process.t_max), start, rtol=tolerance, atol=tolerance)
    end = torch.from_numpy(run.y[:, -1].reshape(n, d + 1))
    return run.nfev, target.log_density(end[:, :d], process, process.t_max) + end[:, d]


def main() -> None:
    torch.set_num_threads(1)
    print("process  target  tolerance  calls  error (root mean square, nats)  largest")
    for name, process in PROCESSES.items():
        for label, target in TARGETS.items():
            x = target.sample(SAMPLES, process, process.t_min, seed=1, dtype=torch.float64)
            exact = target.log_density(x, process, process.t_min)

            def report(
                what: str, calls: int, log_prob: torch.Tensor, exact: torch.Tensor = exact
            ) -> None:
                error = (log_prob - exact).abs()
                print(
                    f"{what:40s} {calls:5d}  {float(error.square().mean().sqrt()):.1e}  "
                    f"{float(error.max()):.1e}",
                    flush=True,
                )

            def prior(
                y: torch.Tensor,
                process: srk.LinearProcess = process,
                target: srk.targets.Target = target,
            ) -> torch.Tensor:
                return target.log_density(y, process, process.t_max)

            for tolerance in (1e-3, 1e-4, 1e-5, 1e-6):
                result = srk.log_likelihood(
                    process, target.score(process), x, rtol=tolerance, atol=tolerance, prior=prior
                )
                report(f"{name} {label} rk45 {tolerance:g}", result.nfe, result.log_prob)
            for method, steps in (("rk23", 8), ("rk23", 16), ("rk45", 8), ("rk45", 16)):
                result = srk.log_likelihood(
                    process, target.score(process), x, steps=steps, method=method, prior=prior
                )
                report(f"{name} {label} {method} {steps} steps", result.nfe, result.log_prob)
            if name == "vp":
                report(
                    f"{name} {label} scipy in own time 1e-05", *own_time(process, target, x, 1e-5)
                )
            result = srk.log_likelihood(
                process, target.score(process), x, prior=prior, data_variance=0.25
            )
            report(f"{name} {label} rk45 1e-05, data_variance 0.25", result.nfe, result.log_prob)
            result = srk.log_likelihood(process, target.score(process), x)
            report(f"{name} {label} rk45 1e-05, normal prior", result.nfe, result.log_prob)


if __name__ == "__main__":
    main()
