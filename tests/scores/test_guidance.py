"""Guidance on Gaussian data, where the guided law is known in closed form.

What it costs, counted in the network.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, ScoreError
from srk.integrators import EDMHeun
from srk.processes import EDM, VP, Flow, ForwardProcess, SubVP, VPDiscrete
from srk.scores import ClassifierGuided, Data, EDMDenoiser, Guided, NoisePrediction, Score, limited
from srk.targets import Gaussian

PROCESSES = [VP(), EDM(), Flow(t_max=0.999), SubVP(), VPDiscrete()]
V = 0.3


def states(process, t, shape=(20, 3), seed=0):
    level = process.level(t)
    return (
        level.sigma
        * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        + 0.4 * level.alpha
    )


def levels(process):
    return [
        process.level(process.t_min + f * (process.t_max - process.t_min))
        for f in (0.05, 0.4, 0.99)
    ]


def gaussian(mean, variance=V):
    return Gaussian(mean, variance, event_shape=(3,))


def conditioned(process, **means):
    """Adapters of ONE network, exact for data N(mean, V), for several means; and its calls.

    The calls are the batch sizes that the network was called with.
    """
    calls = []

    def network(x, t, mean):
        calls.append(len(x))
        level = process.level(float(t[0]))
        return level.sigma * (x - level.alpha * mean) / (level.alpha**2 * V + level.sigma**2)

    return {
        name: NoisePrediction(network, model_kwargs={"mean": mean}) for name, mean in means.items()
    }, calls


# -- the guided law
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_between_gaussians_of_one_variance_moves_the_mean(process, scale):
    """s_ref + w (s_c - s_ref) is the score of N(m_ref + w (m_c - m_ref), V).

    Denoiser and score in closed form.
    """
    guided = Guided(gaussian(1.0).score(process), gaussian(-0.5).score(process), scale).bind(
        process
    )
    exact = gaussian(-0.5 + scale * 1.5)
    for level in levels(process):
        x = states(process, level.t)
        assert torch.allclose(
            guided.denoise(x, level, process), exact.denoise(x, level), atol=1e-12
        )
        assert torch.allclose(
            guided.score(x, level, process), exact.score_at(x, level), atol=1e-10 / level.sigma**2
        )


def test_the_samples_have_the_guided_law():
    """The probability-flow ODE carries x_T to m + sqrt(V/(alpha^2 V + sigma^2)) (x_T - alpha m).

    Compared sample by sample.
    """
    process = EDM(sigma_min=0.0, sigma_max=20.0)
    guided = Guided(gaussian(1.0).score(process), gaussian(-0.5).score(process), 2.0)
    x = states(process, 20.0)
    sol = srk.solve(
        process, guided, "dpmpp-3m-sde-corrected", eta=0.0, x_init=x, steps=400, dtype=torch.float64
    )
    exact = 2.5 + math.sqrt(V / (V + 400.0)) * (x - 2.5)
    assert (sol.x - exact).abs().max() < 1e-3
    assert guided.event_shape == (3,)


def test_several_and_negative_conditions():
    """Composition: the score is s_ref + sum of w_i (s_i - s_ref), negative weights included.

    Written out by hand.
    """
    process = VP()
    a, b, base = gaussian(1.0, 0.2), gaussian(-2.0, 0.4), gaussian(0.0, 1.0)
    guided = Guided([a.score(process), b.score(process)], base.score(process), [2.0, -0.7]).bind(
        process
    )
    for level in levels(process):
        x = states(process, level.t)
        by_hand = (
            base.denoise(x, level)
            + 2.0 * (a.denoise(x, level) - base.denoise(x, level))
            - 0.7 * (b.denoise(x, level) - base.denoise(x, level))
        )
        assert torch.allclose(guided.denoise(x, level, process), by_hand, atol=1e-12)
    assert guided.calls() == 3


def test_autoguidance_removes_the_error_that_a_weak_network_has_more_of():
    """A good network errs by e in the mean, its weak version by 3 e.

    W = 1.5 cancels the error exactly.
    """
    process = VP()
    good, weak = gaussian(0.7 + 0.1).score(process), gaussian(0.7 + 0.3).score(process)
    guided = Guided(good, weak, 1.5).bind(process)
    level = process.level(0.5)
    x = states(process, 0.5)
    assert torch.allclose(
        guided.denoise(x, level, process), gaussian(0.7).denoise(x, level), atol=1e-13
    )


def test_scale_as_a_function_of_the_level():
    process = VP()
    guided = Guided(
        gaussian(1.0).score(process), gaussian(0.0).score(process), lambda level: 1.0 + level.t
    ).bind(process)
    level, x = process.level(0.25), states(process, 0.25)
    assert torch.allclose(
        guided.denoise(x, level, process), gaussian(1.25).denoise(x, level), atol=1e-13
    )


class Nonlinear(ForwardProcess):
    """VP, with nothing known but drift and diffusion."""

    name, t_min, t_max = "nonlinear", 0.01, 1.0
    inner = VP()

    def drift(self, t, x):
        return self.inner.drift(t, x)

    def diffusion(self, t):
        return self.inner.diffusion(t)

    def sample_prior(self, shape, **options):
        return torch.randn(tuple(shape), **options)


def test_nonlinear_processes_are_guided_in_the_score():
    process = Nonlinear()
    a, b = (gaussian(m).score(process.inner) for m in (1.0, -0.5))
    options = {"shape": (5, 3), "steps": 8, "seed": 0, "dtype": torch.float64}
    sol = srk.solve(
        process,
        Guided(lambda x, t: a(x, t), lambda x, t: b(x, t), 3.0),
        "euler-maruyama",
        **options,
    )
    by_hand = srk.solve(
        process, lambda x, t: b(x, t) + 3.0 * (a(x, t) - b(x, t)), "euler-maruyama", **options
    )
    assert torch.allclose(sol.x, by_hand.x, atol=1e-10)
    assert (sol.nfe, by_hand.nfe) == (16, 8)
    timed = Guided(lambda x, t: a(x, t), lambda x, t: b(x, t), limited(3.0, 0.2, 0.6, unit="t"))
    sol = srk.solve(process, timed, "euler-maruyama", **options)
    assert sol.nfe == 8 + sum(0.2 <= t <= 0.6 for t in sol.times[:-1]) == 11
    with pytest.raises(IncompatibleError, match="unit='t'"):
        srk.solve(
            process,
            Guided(lambda x, t: a(x, t), lambda x, t: b(x, t), limited(3.0, 0.2, 0.6)),
            "euler-maruyama",
            **options,
        )
    with pytest.raises(IncompatibleError, match="leave it out"):
        srk.solve(process, Guided(a, b, 3.0, rescale=0.5), "euler-maruyama", **options)


# -- cost
# ------------------------------------------------------------------------------------------


def test_nfe_counts_what_the_network_ran():
    process = VP()
    made, calls = conditioned(process, a=1.0, b=0.0)
    guided = Guided(made["a"], made["b"], 3.0)
    sol = srk.solve(process, guided, "srk2", shape=(4, 3), steps=6, seed=0)
    assert sol.nfe == len(calls) == 2 * (2 * 6 + 1)
    calls.clear()
    assert srk.solve(process, guided, "srk2m", shape=(4, 3), nfe=20, seed=0).nfe == len(calls) == 20
    calls.clear()
    assert (
        srk.solve(
            process, Guided(made["a"], made["b"], 1.0), "srk2m", shape=(4, 3), nfe=20, seed=0
        ).nfe
        == len(calls)
        == 20
    )
    assert (
        Guided(made["a"], made["b"], 1.0).calls() == Guided(made["a"], made["b"], 0.0).calls() == 1
    )


@pytest.mark.parametrize(
    ("interval", "unit"),
    [
        ((0.3, 5.0), "sigma"),
        ((-math.log(5.0), -math.log(0.3)), "half-log-snr"),
        ((0.3 / 1.3, 5.0 / 6.0), "flow"),
    ],
)
def test_interval_guidance_costs_one_call_outside(interval, unit):
    process = EDM()
    made, calls = conditioned(process, a=1.0, b=0.0)
    guided = Guided(made["a"], made["b"], limited(3.0, *interval, unit=unit))
    sol = srk.solve(process, guided, "ddpm", shape=(4, 3), steps=25, seed=0)
    inside = sum(0.3 <= t <= 5.0 for t in sol.times[:-1])
    assert 3 < inside < 20
    assert sol.nfe == len(calls) == 26 + inside
    bound = guided.bind(process)
    for t, mean in ((10.0, 1.0), (1.0, 3.0), (0.1, 1.0)):
        x = states(process, t)
        assert torch.allclose(
            bound.denoise(x, process.level(t), process),
            gaussian(mean).denoise(x, process.level(t)),
            atol=1e-12,
        )
        assert bound.calls(t) == (2 if t == 1.0 else 1)
    assert guided.calls() == 2


def test_calls_are_counted_above_t_max_where_churn_evaluates():
    process = EDM(0.01, 20.0)
    made = {
        name: EDMDenoiser(lambda u, s, m=m: m + V / (V + s[:, None] ** 2) * (u - m))
        for name, m in (("a", 1.0), ("b", 0.0))
    }
    for high, first in ((21.0, 1), (1e3, 2)):  # the first evaluation is at 1.1 sigma_max or more
        costs = []
        guided = Guided(made["a"], made["b"], limited(3.0, 5.0, high))
        solver = EDMHeun(s_churn=5.0)
        srk.solve(
            process,
            guided,
            solver,
            shape=(4, 3),
            steps=10,
            seed=0,
            callback=lambda info, costs=costs: costs.append(info.nfe),
        )
        assert costs[0] == first + 2  # and the second at the end of the step, inside


# -- one call for all conditions
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [NoisePrediction, Score, Data])
def test_batched_equals_separate_calls(adapter):
    """Per-sample tensors, one row for all samples, and what is the same for all.

    The network sees one batch and gives the same.
    """
    process, seen = VP(), []

    def network(x, t, mean, strength):
        seen.append(tuple(x.shape))
        assert strength == 1.5
        return torch.tanh(strength * x - mean) * t[:, None]

    a = adapter(
        network,
        model_kwargs={
            "mean": torch.randn(4, 3, generator=torch.Generator().manual_seed(1)),
            "strength": 1.5,
        },
    )
    b = adapter(network, model_kwargs={"mean": torch.zeros(1, 3), "strength": 1.5})
    options = {"shape": (4, 3), "steps": 5, "seed": 0}
    one = srk.solve(process, Guided(a, b, 3.0, batched=True), "srk2", **options)
    assert set(seen) == {(8, 3)} and len(seen) == 11
    seen.clear()
    two = srk.solve(process, Guided(a, b, 3.0), "srk2", **options)
    assert set(seen) == {(4, 3)} and len(seen) == 22
    assert torch.allclose(one.x, two.x, rtol=1e-5, atol=1e-5)
    assert one.nfe == two.nfe == 22


def test_batches_that_do_not_fit_are_refused():
    process = VP()
    network, other = (lambda x, t, y=None: x), (lambda x, t, y=None: x)
    with pytest.raises(ArgumentError, match="one network"):
        Guided(NoisePrediction(network), NoisePrediction(other), 2.0, batched=True)
    with pytest.raises(ArgumentError, match="one network"):
        Guided(NoisePrediction(network), Score(network), 2.0, batched=True)
    with pytest.raises(ArgumentError, match="one network"):
        Guided(
            NoisePrediction(network, channels="first-half"),
            NoisePrediction(network),
            2.0,
            batched=True,
        )
    for y, other_y in ((torch.zeros(3), torch.zeros(4)), (torch.zeros(4), None), ("a", "b")):
        guided = Guided(
            NoisePrediction(network, model_kwargs={"y": y}),
            NoisePrediction(network, model_kwargs={"y": other_y}),
            2.0,
            batched=True,
        )
        with pytest.raises(ScoreError, match="batched=False"):
            srk.solve(process, guided, shape=(4, 3), steps=2)


def test_part_of_a_batch_keeps_its_conditions():
    network = lambda x, t, y: x * y[:, None]  # noqa: E731
    y = torch.arange(1.0, 7.0)
    guided = Guided(
        Data(network, model_kwargs={"y": y}), Data(network, model_kwargs={"y": -y}), 2.0
    ).bind(VP())
    x, level = torch.ones(2, 3), VP().level(0.5)
    part = guided.select(slice(2, 4), 6)
    assert torch.equal(part.denoise(x, level, VP()), 3.0 * y[2:4, None] * x)
    assert part.calls(0.5) == 2


# -- rescale
# ------------------------------------------------------------------------------------------


def test_rescale_is_the_formula():
    """phi std(D_c)/std(D_g) D_g + (1 - phi) D_g over each sample, written out.

    Likewise for noise and velocity, by their definitions.
    """
    process, shape = VP(), (5, 2, 4, 4)
    condition, reference = (lambda x, t: torch.tanh(x)), (lambda x, t: 0.3 * x)
    level = process.level(0.6)
    x = states(process, 0.6, shape)
    d_c, d_r = torch.tanh(x), 0.3 * x
    d_g = d_r + 4.0 * (d_c - d_r)
    alpha, sigma = level.alpha, level.sigma
    quantity = {
        "denoised": lambda d: d,
        "noise": lambda d: (x - alpha * d) / sigma,
        "velocity": lambda d: (alpha * x - d) / sigma,
    }  # alpha^2 + sigma^2 = 1
    back = {
        "denoised": lambda q: q,
        "noise": lambda q: (x - sigma * q) / alpha,
        "velocity": lambda q: alpha * x - sigma * q,
    }
    for name in quantity:
        q_c, q_g = quantity[name](d_c), quantity[name](d_g)
        ratio = torch.stack([c.std() / g.std() for c, g in zip(q_c, q_g, strict=True)])[
            :, None, None, None
        ]
        expected = back[name](0.7 * q_g * ratio + 0.3 * q_g)
        guided = Guided(Data(condition), Data(reference), 4.0, rescale=0.7, rescale_in=name).bind(
            process
        )
        out = guided.denoise(x, level, process)
        assert torch.allclose(out, expected, atol=1e-12)
        assert torch.allclose(
            guided.score(x, level, process), (alpha * out - x) / sigma**2, atol=1e-12
        )


def test_rescale_leaves_the_condition_alone_as_it_is():
    process = VP()
    level, x = process.level(0.5), states(process, 0.5)
    a, b = gaussian(1.0).score(process), gaussian(0.0).score(process)
    assert torch.equal(
        Guided(a, b, 1.0, rescale=1.0).bind(process).denoise(x, level, process),
        a.denoise(x, level, process),
    )
    one = x[:, :1]  # one number has no spread
    a, b = (Gaussian(m, V).score(process) for m in (1.0, 0.0))
    rescaled, plain = Guided(a, b, 3.0, rescale=1.0).bind(process), Guided(a, b, 3.0).bind(process)
    assert torch.allclose(rescaled.denoise(one, level, process), plain.denoise(one, level, process))


@pytest.mark.parity
def test_rescale_of_the_noise_is_that_of_diffusers():
    peer = pytest.importorskip(
        "diffusers.guiders.guider_utils", reason="diffusers is not installed"
    )
    process = VP()
    level, x = process.level(0.6), states(process, 0.6, (5, 2, 4, 4))
    condition, reference = torch.tanh(x), 0.3 * x
    theirs = peer.rescale_noise_cfg(
        reference + 4.0 * (condition - reference), condition, guidance_rescale=0.7
    )
    guided = Guided(
        NoisePrediction(lambda x, t: torch.tanh(x)),
        NoisePrediction(lambda x, t: 0.3 * x),
        4.0,
        rescale=0.7,
        rescale_in="noise",
    ).bind(process)
    ours = (x - level.alpha * guided.denoise(x, level, process)) / level.sigma
    assert torch.allclose(ours, theirs, atol=1e-12)


# -- classifier guidance
# ------------------------------------------------------------------------------------------

PRIOR_VARIANCE, NOISE_VARIANCE, Y = 1.0, 0.25, torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)


def log_prob_of(process):
    """log p(y | x_t) for data N(0, 1) and y = x0 + noise of variance 0.25, in closed form."""

    def log_prob(x, t):
        level = process.level(float(t[0]))
        total = level.alpha**2 * PRIOR_VARIANCE + level.sigma**2
        mean, variance = (
            level.alpha * PRIOR_VARIANCE / total * x,
            PRIOR_VARIANCE * level.sigma**2 / total,
        )
        return -((Y.to(x) - mean) ** 2 / (2 * (variance + NOISE_VARIANCE))).sum(1)

    return log_prob


POSTERIOR_MEAN, POSTERIOR_VARIANCE = Y * PRIOR_VARIANCE / (PRIOR_VARIANCE + NOISE_VARIANCE), 0.2


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
def test_an_exact_classifier_gives_the_exact_posterior(process):
    guided = ClassifierGuided(
        gaussian(0.0, PRIOR_VARIANCE).score(process), log_prob_of(process)
    ).bind(process)
    exact = Gaussian(POSTERIOR_MEAN, POSTERIOR_VARIANCE)
    for level in levels(process):
        x = states(process, level.t)
        with torch.no_grad():
            out, score = guided.denoise(x, level, process), guided.score(x, level, process)
        assert not out.requires_grad and not score.requires_grad
        assert torch.allclose(out, exact.denoise(x, level), atol=1e-12)
        assert torch.allclose(score, exact.score_at(x, level), rtol=1e-9, atol=1e-9)


def test_samples_of_the_posterior_have_its_mean_and_variance():
    """20000 samples by srk2m, which is exact enough here at 60 calls: within 4 standard errors.

    NFE counts the network alone.
    """
    process, n = VP(), 20_000
    guided = ClassifierGuided(gaussian(0.0, PRIOR_VARIANCE).score(process), log_prob_of(process))
    sol = srk.solve(process, guided, "srk2m", shape=n, nfe=60, seed=0)
    assert sol.nfe == 60
    assert ((sol.x.mean(0) - POSTERIOR_MEAN).abs() < 4 * math.sqrt(POSTERIOR_VARIANCE / n)).all()
    assert ((sol.x.var(0) / POSTERIOR_VARIANCE - 1).abs() < 4 * math.sqrt(2 / n)).all()


def test_the_classifier_gets_its_own_time_and_scale():
    """A classifier of sigma and u = x/alpha, as EDM trains it, gives the same gradient in VP."""
    process, edm = VP(), EDM(sigma_max=1e4)
    here = ClassifierGuided(gaussian(0.0).score(process), log_prob_of(process)).bind(process)
    there = ClassifierGuided(
        gaussian(0.0).score(process), log_prob_of(edm), time="sigma", input_scale="u"
    ).bind(process)
    for level in levels(process):
        x = states(process, level.t)
        assert torch.allclose(
            here.gradient(x, level, process),
            there.gradient(x, level, process),
            rtol=1e-9,
            atol=1e-12,
        )
    seen = []
    indexed = ClassifierGuided(
        gaussian(0.0).score(process),
        lambda x, t: (seen.append(t), x.sum(1))[1],
        time="index-rounded",
        num_timesteps=1000,
    )
    indexed.bind(process).denoise(x, process.level(0.5), process)
    assert seen[0].dtype == torch.long and seen[0][0] == round(999 * 0.5)


def test_classifier_guidance_can_be_differentiated():
    """Where gradients are recorded the guided score has its own.

    D/dx of the posterior score is -1/variance at sigma -> 0.
    """
    process = EDM()
    guided = ClassifierGuided(
        gaussian(0.0, PRIOR_VARIANCE).score(process), log_prob_of(process)
    ).bind(process)
    x = states(process, 1.0).requires_grad_()
    (slope,) = torch.autograd.grad(guided.score(x, process.level(1.0), process).sum(), x)
    assert torch.allclose(slope, torch.full_like(x, -1.0 / (POSTERIOR_VARIANCE + 1.0)))
    with torch.inference_mode():
        still = guided.score(x.detach().clone(), process.level(1.0), process)
    assert torch.allclose(still, guided.score(x.detach(), process.level(1.0), process))


def test_classifier_mistakes_are_named():
    process = VP()
    score = gaussian(0.0).score(process)
    for log_prob in (lambda x, t: x, lambda x, t: x.detach().sum(1), lambda x, t: 1.0):
        with pytest.raises(ScoreError, match="one log-probability for each sample"):
            srk.solve(process, ClassifierGuided(score, log_prob), shape=4, steps=2)
    flow = Flow()
    with pytest.raises(IncompatibleError, match=r"t_max=0\.999"):
        srk.solve(
            flow,
            ClassifierGuided(gaussian(0.0).score(flow), log_prob_of(flow)),
            "ddpm",
            shape=4,
            steps=2,
        )
    with pytest.raises(IncompatibleError, match="index"):
        srk.solve(
            process, ClassifierGuided(score, log_prob_of(process), time="index"), shape=4, steps=2
        )


def test_a_scale_that_is_no_number_is_named():
    a, b = gaussian(1.0).score(VP()), gaussian(0.0).score(VP())
    with pytest.raises(ArgumentError, match="finite number at every level"):
        srk.solve(VP(), Guided(a, b, lambda level: math.inf), shape=2, steps=2)


# -- mistakes
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda p: Guided([p, p], p, 2.0), ArgumentError, "2 conditions and 1 scales"),
        (lambda p: Guided(p, p, 2.0, rescale=1.5), ArgumentError, "between 0"),
        (lambda p: Guided([p, p], p, [1.0, 1.0], rescale=0.5), ArgumentError, "leave it out"),
        (lambda p: Guided(p, p, 2.0, rescale_in="x"), ArgumentError, "rescale_in"),
        (lambda p: Guided(p, p, "7"), ArgumentTypeError, "scale=2.0"),
        (lambda p: Guided(p, p, math.nan), ArgumentTypeError, "finite"),
        (lambda p: Guided(p, 3.0, 2.0), ArgumentTypeError, "score"),
        (lambda p: limited(2.0, 5.0, 0.3), ArgumentError, "low <= high"),
        (lambda p: limited(2.0, 0.3, 5.0, unit="index"), ArgumentError, "unit"),
    ],
)
def test_mistakes_are_refused_with_a_cure(make, error, match):
    with pytest.raises(error, match=match):
        make(gaussian(0.0).score(VP()))


def test_a_classifier_does_not_guide_phase_space_states():
    guided = ClassifierGuided(lambda x, t: -x, lambda x, t: -x.square().sum(1))
    with pytest.raises(IncompatibleError, match=r"srk\.Reduced"):
        guided.bind(srk.process("cld"))


class Rows:
    """A network whose condition must have one row for each sample, or one for all."""

    def __call__(self, x: torch.Tensor, t: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, mean], 1)[:, : x.shape[1]] * 0.1 + 0.0 * mean


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_a_condition_of_one_row_is_spread_over_the_batch_at_any_weight(weight: float) -> None:
    network, process = Rows(), VP()
    whole = torch.tensor([[1.0, 2.0]]).expand(4, 2).clone()
    one = {"mean": torch.tensor([[1.0, 2.0]])}
    empty = {"mean": torch.zeros(1, 2)}
    x, level = torch.ones(4, 2), process.level(0.5)
    spread = Guided(
        NoisePrediction(network, model_kwargs=one),
        NoisePrediction(network, model_kwargs=empty),
        weight,
        batched=True,
    )
    full = Guided(
        NoisePrediction(network, model_kwargs={"mean": whole}),
        NoisePrediction(network, model_kwargs={"mean": torch.zeros(4, 2)}),
        weight,
        batched=True,
    )
    assert torch.equal(spread.denoise(x, level, process), full.denoise(x, level, process))


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_a_condition_of_a_wrong_batch_is_named(weight: float) -> None:
    network = Rows()
    wrong = NoisePrediction(network, model_kwargs={"mean": torch.zeros(3, 2)})
    guided = Guided(wrong, wrong, weight, batched=True)
    with pytest.raises(ScoreError, match=r"model_kwargs\['mean'\] cannot be put in one batch"):
        guided.denoise(torch.ones(4, 2), VP().level(0.5), VP())


def test_arrays_in_model_kwargs_are_compared_without_an_error() -> None:
    def network(x: torch.Tensor, t: torch.Tensor, y: object) -> torch.Tensor:
        return 0.1 * x

    first, second = (
        NoisePrediction(network, model_kwargs={"y": np.array([1.0, 2.0])}) for _ in range(2)
    )
    with pytest.raises(ScoreError, match="cannot be put in one batch"):
        Guided(first, second, 2.0, batched=True).denoise(torch.ones(4, 2), VP().level(0.5), VP())
    Guided(first, first, 2.0, batched=True).denoise(torch.ones(4, 2), VP().level(0.5), VP())
