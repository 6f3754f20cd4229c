"""APG, CFG-Zero*, CFG++ and autoguidance equal their papers' formulas, written out here."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentError, IncompatibleError
from srk.scores import APG, CFGZero, Guided, autoguidance, cfg_plus_plus, limited

torch.manual_seed(0)
FLOW = srk.Flow()
X = torch.randn(4, 3, 2, dtype=torch.float64)
C = torch.randn(4, 5, dtype=torch.float64)
W = torch.randn(5, 3, dtype=torch.float64)
LEVEL = FLOW.level(0.7)


def net(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
    """A network that says the data, moved by its condition."""
    return torch.tanh(x) + (c @ W)[:, :, None]


def pair(condition: Tensor = C) -> tuple[srk.Data, srk.Data]:
    return (
        srk.Data(net, model_kwargs={"c": condition}),
        srk.Data(net, model_kwargs={"c": torch.zeros(1, 5, dtype=torch.float64)}),
    )


def outputs() -> tuple[Tensor, Tensor]:
    return net(X, X, C), net(X, X, 0 * C)


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("threshold", [None, 1.5, 100.0])
def test_apg_algorithm_1(eta: float, threshold: float | None) -> None:
    dc, du = outputs()
    w = 3.5
    delta = dc - du
    if threshold is not None:
        norm = delta.pow(2).sum((1, 2), keepdim=True).sqrt()
        delta = delta * torch.minimum(torch.ones_like(norm), threshold / norm)
    unit = dc / dc.pow(2).sum((1, 2), keepdim=True).sqrt()
    parallel = (delta * unit).sum((1, 2), keepdim=True) * unit
    orthogonal = delta - parallel
    wanted = dc + (w - 1) * (orthogonal + eta * parallel)
    method = APG(*pair(), w, eta=eta, norm_threshold=threshold)
    close(method.denoise(X, LEVEL, FLOW), wanted)


def test_apg_with_all_of_the_parallel_part_is_guidance() -> None:
    close(
        APG(*pair(), 2.5, eta=1.0).denoise(X, LEVEL, FLOW),
        Guided(*pair(), 2.5).denoise(X, LEVEL, FLOW),
    )


def test_cfg_zero_algorithm_1() -> None:
    """The optimized scale, one Euler step of the flow, and the step that is zeroed."""
    dc, du = outputs()
    w, t, s = 2.0, 0.7, 0.6
    vc, vu = (X - dc) / t, (X - du) / t  # the velocity of x = (1 - t) x0 + t eps is (x - D)/t
    star = (vc * vu).sum((1, 2), keepdim=True) / vu.pow(2).sum((1, 2), keepdim=True)
    wanted = X + (s - t) * (star * vu + w * (vc - star * vu))
    method = CFGZero(*pair(), w)
    options: dict[str, Any] = {
        "x_init": X,
        "grid": [0.7, 0.6],
        "eta": 0.0,
        "denoise_final": False,
    }
    close(srk.solve(FLOW, method, "ddim", **options).x, wanted)
    still = CFGZero(*pair(), w, zero_above=0.65)
    close(srk.solve(FLOW, still, "ddim", **options).x, X)


@pytest.mark.parametrize("process", [srk.VP(), srk.EDM(), srk.Flow(t_max=0.99)])
def test_cfg_plus_plus_algorithm_2(process: Any) -> None:
    """x' = alpha' D_lambda + sigma' eps_u, for each step of a grid and the last denoising."""
    lam, times = 0.6, [process.t_max * f for f in (0.9, 0.5, 0.3)]
    x = X
    for a, b in itertools.pairwise(times):
        start, stop = process.level(a), process.level(b)
        dc, du = net(x, x, C), net(x, x, 0 * C)
        eps = (x - start.alpha * du) / start.sigma
        x = stop.alpha * (du + lam * (dc - du)) + stop.sigma * eps
    dc, du = net(x, x, C), net(x, x, 0 * C)
    wanted = du + lam * (dc - du)
    guided = Guided(*pair(), cfg_plus_plus(lam, process, times))
    close(srk.solve(process, guided, "ddim", x_init=X, grid=times, eta=0.0).x, wanted)


def test_cfg_plus_plus_is_a_constant_scale_on_the_log_snr_grid() -> None:
    process = srk.EDM()
    times = [process.time(-3.0 + 0.5 * k) for k in range(8)]
    scale = cfg_plus_plus(0.6, process, times)
    values = [scale(process.level(t)) for t in times[:-1]]
    assert values == pytest.approx([0.6 / (1 - torch.exp(torch.tensor(-0.5)).item())] * 7, rel=1e-6)


def test_autoguidance_is_guidance_by_the_weak_network() -> None:
    strong, weak = (srk.Data(lambda x, t, k=k: k * x) for k in (0.8, 0.5))
    got = autoguidance(strong, weak, 1.5).denoise(X, LEVEL, FLOW)
    close(got, 0.5 * X + 1.5 * (0.8 * X - 0.5 * X))
    outside = limited(1.5, 0.1, 1.0)
    close(autoguidance(strong, weak, outside).denoise(X, FLOW.level(0.7), FLOW), 0.8 * X)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("method", [APG, CFGZero])
def test_conditions_of_one_row_or_of_the_batch(method: Any, rows: int, batched: bool) -> None:
    """One call or two, whole or in microbatches: the same samples."""
    condition = C[:rows]
    options: dict[str, Any] = {"x_init": X, "steps": 3, "eta": 0.0}
    plain = srk.solve(FLOW, method(*pair(condition), 2.0), "ddim", **options)
    other = method(*pair(condition), 2.0, batched=batched)
    close(srk.solve(FLOW, other, "ddim", **options).x, plain.x)
    close(srk.solve(FLOW, other, "ddim", microbatch=2, **options).x, plain.x)
    assert plain.nfe == 8


def test_what_they_refuse() -> None:
    with pytest.raises(ArgumentError, match="norm_threshold"):
        APG(*pair(), 2.0, norm_threshold=0.0)
    with pytest.raises(ArgumentError, match="zero_above"):
        CFGZero(*pair(), 2.0, zero_above=0.0)
    with pytest.raises(ArgumentError, match=r"\[0, 1\]"):
        cfg_plus_plus(2.0, FLOW, [0.9, 0.1])
    with pytest.raises(ArgumentError, match="decrease"):
        cfg_plus_plus(0.5, FLOW, [0.1, 0.9])
    with pytest.raises(IncompatibleError, match="denoiser"):
        APG(*pair(), 2.0).bind(srk.CLD())
