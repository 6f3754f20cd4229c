"""VPDiscrete: exact at the training indices, sound in between, clear about bad lists."""

from __future__ import annotations

import copy
import math
import pickle

import attrs
import numpy as np
import pytest
import torch
from mpmath import mp, mpf  # type: ignore[import-untyped]

from srk.errors import ArgumentError, ArgumentTypeError, TimeError
from srk.processes import VPDiscrete

pytestmark = pytest.mark.filterwarnings("error")


def test_default_is_the_linear_schedule_of_ddpm() -> None:
    betas = np.linspace(1e-4, 0.02, 1000)
    assert (
        VPDiscrete()
        == VPDiscrete(betas)
        == VPDiscrete(torch.from_numpy(betas))
        == VPDiscrete(list(betas))
    )
    assert (VPDiscrete().t_min, VPDiscrete().t_max) == (0.0, 999.0)


def test_alpha_and_sigma_are_exact_at_the_training_indices() -> None:
    alphas_cumprod = torch.cumprod(
        1 - torch.linspace(1e-4, 0.02, 1000), 0
    )  # float32, as diffusers has it
    process = VPDiscrete(alphas_cumprod=alphas_cumprod)
    exact = alphas_cumprod.double().numpy()
    assert [process.alpha(i) for i in range(1000)] == np.sqrt(exact).tolist()
    assert [process.sigma(float(i)) for i in range(1000)] == np.sqrt(1 - exact).tolist()
    assert process.alpha(np.arange(1000)).tolist() == np.sqrt(exact).tolist()


def test_products_of_betas_are_right_to_rounding() -> None:
    """alphas_cumprod and its complement against 50 digits.

    1000 products may lose 1000 EPS at worst, some 30 by the law of errors.
    """
    process = VPDiscrete()
    with mp.workdps(50):
        product = mpf(1)
        for i, beta in enumerate(np.linspace(1e-4, 0.02, 1000)):
            product *= 1 - mpf(float(beta))
            assert abs(process.alphas_cumprod[i] - product) <= 2e-14 * product
            assert abs(process.variances[i] - (1 - product)) <= 2e-14 * (1 - product)


def test_half_log_snr_is_linear_between_the_indices_and_inverted_exactly_at_them() -> None:
    process = VPDiscrete()
    assert all(process.time(process.lam(i)) == i for i in range(1000))
    assert process.lam(10.25) == pytest.approx(
        0.75 * process.lam(10) + 0.25 * process.lam(11), rel=1e-15
    )
    assert process.time(process.lam(10.25)) == pytest.approx(10.25, abs=1e-13)
    assert process.alpha(10.25) ** 2 + process.sigma(10.25) ** 2 == pytest.approx(1.0, abs=1e-15)


def test_rates_are_those_of_the_interval_to_come() -> None:
    process = VPDiscrete()
    assert process.lam_rate(10.0) == process.lam_rate(10.9) == process.lam(11) - process.lam(10)
    assert process.lam_rate(999.0) == process.lam_rate(998.5)


def test_zero_terminal_snr_is_bounded_and_exact() -> None:
    process = VPDiscrete(alphas_cumprod=[0.9, 0.5, 0.1, 0.0])
    ratio = [process.alpha(t) / process.sigma(t) for t in (2.0, 2.25, 2.5, 2.75, 3.0)]
    assert ratio == pytest.approx([ratio[0] * (1 - w) for w in (0, 0.25, 0.5, 0.75, 1)], rel=1e-14)
    assert process.level(3.0).lam == -math.inf
    assert process.prior_std == 1.0
    assert process.time(-math.inf) == 3.0
    assert process.diffusion(3.0) == math.inf
    assert process.lam_rate(2.75) == pytest.approx(-4.0, rel=1e-14)
    assert VPDiscrete(betas=[0.1, 0.2, 1.0]).level(2.0).alpha == 0.0


def test_is_a_value() -> None:
    process = VPDiscrete([0.1, 0.2, 0.3])
    for twin in (
        VPDiscrete([0.1, 0.2, 0.3]),
        copy.deepcopy(process),
        pickle.loads(pickle.dumps(process)),
    ):
        assert twin == process
        assert hash(twin) == hash(process)
        assert twin.level(1.5) == process.level(1.5)
    assert process != VPDiscrete([0.1, 0.2, 0.31])
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        process.t_max = 3.0  # type: ignore[misc]
    assert attrs.evolve(process, alphas_cumprod=[0.5, 0.4]) == VPDiscrete(alphas_cumprod=[0.5, 0.4])


def test_times_outside_are_refused_by_alpha_too() -> None:
    with pytest.raises(TimeError, match=r"outside the range of VPDiscrete\(N=1000"):
        VPDiscrete().alpha(1000.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"betas": [0.1, 0.2], "alphas_cumprod": [0.9, 0.7]}, ArgumentError, "not both"),
        ({"betas": [0.1, 1.2]}, ArgumentError, r"betas\[1\] = 1.2.*alphas_cumprod"),
        ({"betas": [0.1, 1.0, 0.5]}, ArgumentError, r"betas\[1\] = 1.0"),
        ({"betas": [0.0, 0.5]}, ArgumentError, r"betas\[0\] = 0.0"),
        ({"betas": [0.1, math.nan]}, ArgumentError, r"betas\[1\] = nan"),
        ({"betas": [0.1]}, ArgumentError, "at least 2"),
        ({"betas": [[0.1, 0.2]]}, ArgumentError, r"shape \(1, 2\)"),
        ({"betas": "linear"}, ArgumentTypeError, "list of numbers, not 'linear'"),
        ({"alphas_cumprod": [1.0, 0.5]}, ArgumentError, "drop the entry"),
        (
            {"alphas_cumprod": [0.5, 0.7]},
            ArgumentError,
            r"decrease strictly.*alphas_cumprod\[1\] = 0.7.*reversed",
        ),
        ({"alphas_cumprod": [0.9, 0.0, 0.0]}, ArgumentError, r"alphas_cumprod\[1\] = 0.0"),
        ({"alphas_cumprod": [0.9, -0.1]}, ArgumentError, r"alphas_cumprod\[1\] = -0.1"),
        ({"betas": [0.9] * 400}, ArgumentError, "does not decrease"),
    ],
)
def test_bad_lists_are_refused_with_the_cure(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        VPDiscrete(**arguments)
