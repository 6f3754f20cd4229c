"""What LinearProcess gives to a subclass that has only alpha and sigma, and what it refuses."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from srk.errors import ArgumentError, ArgumentTypeError, TimeError
from srk.processes import (
    EDM,
    OU,
    PROCESSES,
    VE,
    VP,
    Flow,
    ForwardProcess,
    LinearProcess,
    SubVP,
    VariancePreserving,
    VPCosine,
    VPDiscrete,
)

pytestmark = pytest.mark.filterwarnings("error")

LINEAR = [name for name, cls in PROCESSES.items() if issubclass(cls, LinearProcess)]


class Bare(LinearProcess):
    """Only the alpha and sigma of another process, which take a float inside the range."""

    def __init__(self, process: LinearProcess) -> None:
        self.process, self.t_min, self.t_max = process, process.t_min, process.t_max

    def alpha(self, t: Any) -> float:
        return float(self.process.alpha(self._checked(t)))

    def sigma(self, t: Any) -> float:
        return float(self.process.sigma(self._checked(t)))

    def _checked(self, t: Any) -> float:
        assert isinstance(t, float)
        assert self.t_min <= t <= self.t_max, t
        return t


class ByNumpy(LinearProcess):
    t_min, t_max = 1e-3, 1.0

    def alpha(self, t: Any) -> Any:
        return np.exp(-(t**2) * 5)

    def sigma(self, t: Any) -> Any:
        return np.sqrt(1 - np.exp(-(t**2) * 10))


class ByMath(ByNumpy):
    def alpha(self, t: Any) -> float:
        return math.exp(-(t**2) * 5)

    def sigma(self, t: Any) -> float:
        return math.sqrt(1 - math.exp(-(t**2) * 10))


SMOOTH = [
    VP(),
    VP(t_min=0.0),
    SubVP(t_min=0.0),
    VPCosine(),
    VPCosine(t_min=0.0),
    VE(),
    EDM(),
    OU(),
    OU(t_min=0.0),
    Flow(),
    Flow(t_min=0.0),
]
FRACTIONS = (
    0.0,
    1e-12,
    1e-6,
    3e-4,
    1e-3,
    2e-3,
    0.03,
    0.1,
    0.3,
    0.5,
    0.8,
    0.97,
    0.999,
    1 - 1e-6,
    1 - 1e-9,
    1.0,
)


@pytest.mark.parametrize("process", SMOOTH, ids=repr)
def test_numerical_rates_agree_with_closed_forms_up_to_the_ends(process: LinearProcess) -> None:
    """1e-10 relative, without a look outside [t_min, t_max].

    Infinite at alpha = 0 and sigma = 0 like the closed forms.
    """
    bare = Bare(process)
    for u in FRACTIONS:
        t = min(process.t_min + u * (process.t_max - process.t_min), process.t_max)
        for name in ("log_alpha_rate", "lam_rate", "diffusion"):
            # sqrt of rounding: where g = 0 exactly, at t = 0 of EDM and Flow
            assert getattr(bare, name)(t) == pytest.approx(
                getattr(process, name)(t), rel=1e-10, abs=1e-8 if t == 0.0 else 0
            ), (name, t)


@pytest.mark.parametrize("process", SMOOTH, ids=repr)
def test_numerical_inverse_agrees_with_closed_form(process: LinearProcess) -> None:
    bare = Bare(process)
    for u in FRACTIONS:
        t = min(process.t_min + u * (process.t_max - process.t_min), process.t_max)
        assert bare.time(process.lam(t)) == pytest.approx(t, abs=1e-12 * process.t_max)
        assert bare.time(bare.lam(t)) == pytest.approx(t, abs=1e-12 * process.t_max)
    assert bare.time(bare.lam(bare.t_max)) == bare.t_max
    assert bare.time(bare.lam(bare.t_min)) == bare.t_min


@pytest.mark.parametrize("process", [ByNumpy(), ByMath()], ids=["numpy", "math"])
def test_alpha_and_sigma_suffice_whatever_wrote_them(process: LinearProcess) -> None:
    process.validate()
    assert process.lam(np.array([[0.1], [0.5]])).shape == (2, 1)
    assert process.lam_rate(0.5) == pytest.approx(-10 * 0.5 / (1 - math.exp(-2.5)), rel=1e-10)
    assert process.diffusion(0.5) == pytest.approx(math.sqrt(10.0), rel=1e-10)
    assert process.drift(0.5, torch.ones(2, 3)) == pytest.approx(torch.full((2, 3), -5.0))
    assert process.level_at(0.0).alpha == pytest.approx(math.sqrt(0.5), rel=1e-12)


def test_variance_preserving_needs_alpha_only() -> None:
    class Power(VariancePreserving):
        t_min, t_max = 0.0, 2.0

        def alpha(self, t: Any) -> Any:
            return (1.0 - t / 2.0) ** 1.5

    process = Power()
    process.validate()
    assert process.level(2.0) == process.level_at(-math.inf)
    assert process.level(2.0).sigma == 1.0
    assert process.level(0.0).lam == math.inf
    assert process.log_alpha_rate(1.0) == pytest.approx(-1.5, rel=1e-11)
    assert process.diffusion(1.0) == pytest.approx(math.sqrt(3.0), rel=1e-11)
    assert process.diffusion(0.0) == pytest.approx(math.sqrt(1.5), rel=1e-10)
    assert process.lam_rate(1.0) == pytest.approx(-1.5 / process.sigma(1.0) ** 2, rel=1e-11)
    assert process.sigma(np.array([0.0, 2.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", LINEAR)
def test_prior_has_the_noise_of_t_max(name: str) -> None:
    process = PROCESSES[name]()
    assert isinstance(process, LinearProcess)
    assert process.prior_std == process.level(process.t_max).sigma
    n = 100_000
    x = process.sample_prior(
        (n, 1), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    assert x.shape == (n, 1)
    assert x.dtype == torch.float64
    assert float(x.std()) == pytest.approx(
        process.prior_std, rel=5 / math.sqrt(2 * n)
    )  # 5 standard errors


@pytest.mark.parametrize("name", LINEAR)
def test_perturb_has_the_moments_of_the_level(name: str) -> None:
    process = PROCESSES[name]()
    assert isinstance(process, LinearProcess)
    n = 100_000
    for u in (0.1, 0.6):
        t = process.t_min + u * (process.t_max - process.t_min)
        x0 = torch.full((n, 1), 3.0, dtype=torch.float64)
        x = process.perturb(x0, t, generator=torch.Generator().manual_seed(2))
        level = process.level(t)
        assert float(x.mean()) == pytest.approx(
            3.0 * level.alpha, abs=5 * level.sigma / math.sqrt(n)
        )
        assert float(x.std()) == pytest.approx(level.sigma, rel=5 / math.sqrt(2 * n))
        assert x0.eq(3.0).all()


@pytest.mark.parametrize("name", LINEAR)
def test_times_an_ulp_outside_are_clamped_and_others_refused(name: str) -> None:
    process = PROCESSES[name]()
    assert process.check_time(math.nextafter(process.t_max, math.inf)) == process.t_max
    assert process.check_time(math.nextafter(process.t_min, -math.inf)) == process.t_min
    for t in (process.t_max * 1.001, process.t_min - 1e-3 * process.t_max, math.nan, math.inf):
        with pytest.raises(TimeError, match=r"outside the range of .*t_min or t_max"):
            process.check_time(t)


def test_half_log_snrs_outside_are_refused() -> None:
    for lam in (100.0, -100.0, math.inf, -math.inf, math.nan):
        with pytest.raises(TimeError, match="half log-SNR"):
            VP().time(lam)
    rounded = float(np.float64(VP().lam(1.0)) * (1 + 1e-12))
    assert VP().level_at(rounded) == VP().level(1.0)


def test_drift_and_diffusion_are_infinite_at_pure_noise() -> None:
    x = torch.tensor([[1.0, -1.0]])
    assert Flow().drift(1.0, x).tolist() == [[-math.inf, math.inf]]
    assert Bare(Flow()).drift(1.0, x).tolist() == [[-math.inf, math.inf]]
    assert Bare(Flow()).diffusion(1.0) == Flow().diffusion(1.0) == math.inf


@pytest.mark.parametrize("name", LINEAR)
def test_processes_are_values(name: str) -> None:
    process = PROCESSES[name]()
    for twin in (PROCESSES[name](), copy.deepcopy(process), pickle.loads(pickle.dumps(process))):
        assert twin == process
        assert hash(twin) == hash(process)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        process.t_max = 2.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VP(beta_min=3.0, beta_max=1.0), "beta_min <= beta_max"),
        (lambda: VP(beta_min=-1.0), "beta_min <= beta_max"),
        (lambda: VP(t_min=1.0), "t_min < t_max"),
        (lambda: SubVP(beta_max=math.inf), "beta_max must be a finite number, not inf"),
        (lambda: OU(horizon="long"), "horizon must be a finite number, not 'long'"),
        (lambda: OU(horizon=0.0), "t_min < t_max"),
        (lambda: VPCosine(t_max=1.5), "t_max <= 1"),
        (lambda: VPCosine(s=-0.1), "s >= 0"),
        (lambda: Flow(t_max=1.5), "t_max <= 1"),
        (lambda: VE(sigma_min=0.0), "0 < sigma_min < sigma_max"),
        (lambda: EDM(sigma_min=100.0), "0 <= sigma_min < sigma_max"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        build()


def _make(**members: Any) -> LinearProcess:
    members = {
        "t_min": 0.1,
        "t_max": 0.9,
        "alpha": lambda self, t: 1 - t,
        "sigma": lambda self, t: t,
    } | members
    process: LinearProcess = type("Mine", (LinearProcess,), members)()
    return process


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        (
            {"alpha": lambda self, t: t, "sigma": lambda self, t: 1 - t},
            ArgumentError,
            "decrease strictly.*are alpha and sigma exchanged",
        ),
        (
            {"alpha": lambda self, t: 1.0, "sigma": lambda self, t: 1.0},
            ArgumentError,
            "decrease strictly",
        ),
        ({"sigma": lambda self, t: abs(t - 0.5)}, ArgumentError, "decrease strictly"),
        (
            {"alpha": lambda self, t: math.nan},
            ArgumentError,
            r"alpha\(0.1\) .* is nan; it must be finite",
        ),
        ({"alpha": lambda self, t: 0.5 - t}, ArgumentError, "not negative"),
        ({"sigma": lambda self, t: math.inf}, ArgumentError, "is inf; it must be finite"),
        ({"sigma": lambda self, t: 0.0, "alpha": lambda self, t: 0.0}, ArgumentError, "both 0"),
        (
            {"alpha": lambda self, t: torch.exp(t)},
            ArgumentTypeError,
            r"must return a number for a float, but it raised TypeError",
        ),
        ({"alpha": lambda self, t: None}, ArgumentTypeError, "must return a number"),
        (
            {"lam": lambda self, t: 2 * math.log((1 - t) / t)},
            ArgumentError,
            "must be the HALF log-SNR",
        ),
        ({"time": lambda self, lam: 0.5}, ArgumentError, "must be the inverse"),
        ({"t_min": 1.0}, ArgumentError, "finite t_min < t_max"),
        ({"t_max": math.inf}, ArgumentError, "finite t_min < t_max"),
        ({"t_max": None}, ArgumentTypeError, "must have a number t_max"),
    ],
)
def test_validate_explains_what_is_wrong(
    members: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _make(**members).validate()


def test_validate_serves_processes_without_closed_form() -> None:
    class Nonlinear(ForwardProcess):
        t_max = 1.0

        def drift(self, t: float, x: torch.Tensor) -> torch.Tensor:
            return -(x**3)

        def diffusion(self, t: float) -> float:
            return 1.0

        def sample_prior(self, shape: Any, **_: Any) -> torch.Tensor:
            return torch.zeros(shape)

    with pytest.raises(ArgumentTypeError, match="must have a number t_min"):
        Nonlinear().validate()
    Nonlinear.t_min = 0.0
    Nonlinear().validate()


def test_every_scale_of_a_discrete_process_serves_the_base_defaults() -> None:
    """The kinks of a table do not derail root finding or differentiation inside an interval."""
    process = VPDiscrete()
    bare = Bare(process)
    bare.validate()
    assert bare.time(process.lam(123.4)) == pytest.approx(123.4, abs=1e-10)
    assert bare.lam_rate(123.4) == pytest.approx(process.lam_rate(123.4), rel=1e-9)
