"""Runs that are parallel in time give the samples of the sequential run."""

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, SolveError

PROCESS = srk.VP()
TARGET = srk.targets.GaussianMixture(
    [0.3, 0.3, 0.4], [[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]], [0.05, 0.1, 0.02]
)
SCORE = TARGET.score(PROCESS)
RUNS = [
    (solver, eta)
    for solver in ("ddpm", "srk2m", "auto", "sa-solver", "heun", "sra1", "srk2m-local")
    for eta in (0.0, 1.0)
    if (solver, eta) not in {("heun", 1.0)}
]


def both(score=SCORE, solver="srk2m", picard=None, process=PROCESS, **options):
    options = {
        "shape": (3, 2),
        "steps": 12,
        "noise": "keyed",
        "seed": 0,
        "dtype": torch.float64,
        **options,
    }
    one = srk.solve(process, score, solver, **options)
    picard = srk.Picard(tolerance=0.0) if picard is None else picard
    return one, srk.solve(process, score, solver, parallel=picard, **options)


@pytest.mark.parametrize(("solver", "eta"), RUNS)
def test_without_tolerance_it_is_the_sequential_run(solver: str, eta: float) -> None:
    try:
        one, many = both(solver=solver, eta=eta)
    except IncompatibleError as error:  # a solver of one eta only
        pytest.skip(str(error))
    torch.testing.assert_close(many.x, one.x, rtol=1e-11, atol=1e-11)
    assert many.rounds is not None
    assert many.rounds <= one.nfe
    assert (many.steps, many.times, many.solver) == (one.steps, one.times, one.solver)


@pytest.mark.parametrize(("solver", "eta"), RUNS)
def test_the_distance_is_a_small_multiple_of_the_tolerance(solver: str, eta: float) -> None:
    for tolerance in (1e-3, 1e-5):
        try:
            picard = srk.Picard(tolerance=tolerance)
            one, many = both(solver=solver, eta=eta, steps=50, picard=picard)
        except IncompatibleError as error:
            pytest.skip(str(error))
        assert (many.x - one.x).abs().max() < 10 * tolerance
        assert many.rounds < 0.7 * one.nfe
        assert many.rounds < many.nfe


def test_samples_converge_one_by_one() -> None:
    picard = srk.Picard(window=8, tolerance=1e-3)
    _, many = both(steps=30, shape=(5, 2), picard=picard)
    assert many.mean_nfe < many.nfe
    for k in range(5):
        noise = srk.noise.KeyedNoise(0, first_index=k)
        _, alone = both(steps=30, shape=(1, 2), noise=noise, seed=None, picard=picard)
        torch.testing.assert_close(alone.x[0], many.x[k], rtol=1e-9, atol=1e-9)
        assert alone.nfe <= many.nfe
    _, cut = both(steps=30, shape=(5, 2), picard=picard, microbatch=2)
    torch.testing.assert_close(cut.x, many.x, rtol=1e-9, atol=1e-9)
    assert cut.nfe == many.nfe
    assert cut.rounds <= many.rounds


@pytest.mark.parametrize("noise", ["generator", "keyed", "brownian"])
def test_every_noise_gives_the_draws_of_the_sequential_run(noise: str) -> None:
    one, many = both(noise=noise, solver="ddpm", picard=srk.Picard(window=5, tolerance=0.0))
    torch.testing.assert_close(many.x, one.x, rtol=1e-11, atol=1e-11)


class Net:
    """The score of N(c, 0.3^2), c by sample, that counts its calls."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        assert t.shape == (len(x),)
        assert len(c) == len(x)
        self.sizes.append(len(x))
        alpha = torch.stack([torch.tensor(PROCESS.alpha(s.item()), dtype=x.dtype) for s in t])
        alpha = alpha[:, None]
        mean, variance = alpha * c[:, None], alpha**2 * 0.09 + 1 - alpha**2
        return (mean - x) / variance * torch.tanh(2 + x.sin())


def guided(net: Net, kind: str) -> srk.scores.Prediction:
    c = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    condition, free = (srk.Score(net, model_kwargs={"c": k}) for k in (c, 0 * c))
    limited = srk.scores.limited(2.0, 0.3, 5.0)
    made = {
        "network": lambda: condition,
        "guided": lambda: srk.Guided(condition, free, 2.0),
        "batched": lambda: srk.Guided(condition, free, 2.0, batched=True, rescale=0.5),
        "limited": lambda: srk.Guided(condition, free, limited),
        "limited, batched": lambda: srk.Guided(condition, free, limited, batched=True),
        "apg": lambda: srk.scores.APG(condition, free, 2.0),
        "hooked": lambda: srk.Hooked(condition, srk.scores.hooks.Clip(-1.5, 1.5)),
    }
    return made[kind]()


@pytest.mark.parametrize(
    "kind", ["network", "guided", "batched", "limited", "limited, batched", "apg", "hooked"]
)
@pytest.mark.parametrize("solver", ["ddpm", "sra1"])
def test_guidance_sees_the_conditions_of_its_samples(kind: str, solver: str) -> None:
    net = Net()
    options = {"check_network": False, "steps": 8, "solver": solver}
    one, many = both(guided(net, kind), **options)
    torch.testing.assert_close(many.x, one.x, rtol=1e-10, atol=1e-10)
    net.sizes = []
    _, fast = both(guided(net, kind), picard=srk.Picard(tolerance=1e-2), **options)
    if kind == "network":  # after the sequential run, one batch a round
        assert len(net.sizes) == one.nfe + fast.rounds
        assert max(net.sizes) > 3
        net.sizes = []
        both(guided(net, kind), picard=srk.Picard(tolerance=1e-2, rows=4), **options)
        assert max(net.sizes) <= 4


def test_a_posterior_prediction_is_a_prediction() -> None:
    gaussian = srk.targets.Gaussian([0.0, 1.0], 0.5).score(PROCESS)
    operator = srk.posterior.mask(torch.tensor([True, False]))
    measured = srk.posterior.Measurement(operator, torch.zeros(1).double(), noise_std=0.1)
    one, many = both(srk.posterior.MMPS(gaussian, measured), steps=6)
    torch.testing.assert_close(many.x, one.x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", [srk.CLD(), srk.Flow(), srk.EDM()])
def test_other_processes(process: srk.ForwardProcess) -> None:
    if isinstance(process, srk.CLD):
        options = {"shape": (2, 2, 2), "solver": "auto"}
    else:
        options = {"shape": (2, 2)}
    score = srk.targets.Gaussian([0.0, 1.0], 0.5).score(process)
    one, many = both(score, process=process, steps=8, **options)
    torch.testing.assert_close(many.x, one.x, rtol=1e-9, atol=1e-9)


def test_saves_and_callbacks_come_in_the_order_of_the_steps() -> None:
    seen: list[int] = []
    options = {"solver": "ddpm", "save": ("x", "denoised", "log_prob")}
    one, many = both(callback=lambda info: seen.append(info.index), **options)
    assert seen == [*range(12), *range(12)]
    for name in ("trajectory", "denoised", "log_prob"):
        a, b = getattr(one, name), getattr(many, name)
        assert a.times == b.times
        torch.testing.assert_close(b.values, a.values, rtol=1e-8, atol=1e-8)
    one, many = both(callback=lambda info: info.index == 4)
    assert (many.status, many.steps) == ("stopped", 5)
    torch.testing.assert_close(many.x, one.x, rtol=1e-11, atol=1e-11)


def test_what_has_no_meaning_is_refused() -> None:
    def run(picard: object = None, **options: object) -> None:
        parallel = srk.Picard() if picard is None else picard
        srk.solve(PROCESS, SCORE, shape=(1, 2), parallel=parallel, **options)

    with pytest.raises(IncompatibleError, match="needs a fixed grid"):
        run(grid="adaptive", solver="srk2")
    with pytest.raises(IncompatibleError, match=r"parallel=.* is not for a product"):
        srk.solve(
            srk.Product(a=PROCESS, b=PROCESS),
            srk.scores.Independent(a=SCORE, b=SCORE),
            shape=2,
            parallel=srk.Picard(),
        )
    with pytest.raises(IncompatibleError, match=r"parallel=.* is not for a run with grid=srk\.Lev"):
        run(grid=srk.steps.Levels(torch.linspace(1.0, 0.001, 5)[:, None].expand(5, 2)))
    with pytest.raises(IncompatibleError, match="compile='step'"):
        run(compile="step")
    with pytest.raises(IncompatibleError, match="grad=True"):
        run(grad=True)
    with pytest.raises(ArgumentTypeError, match=r"parallel=srk\.Picard"):
        run(picard=32)
    with pytest.raises(IncompatibleError, match="callback wrote to the state"):
        run(callback=lambda info: info.x.zero_() is None)
    with pytest.raises(SolveError, match="the score returned NaN"):
        srk.solve(
            PROCESS,
            lambda x, t: torch.where(t[:, None] < 0.5, torch.nan, -x),
            shape=(1, 2),
            parallel=srk.Picard(),
            check_network=False,
        )
    with pytest.raises(ArgumentError, match="tolerance"):
        srk.Picard(tolerance=-1.0)
    with pytest.raises(ArgumentError, match="window"):
        srk.Picard(window=0)
