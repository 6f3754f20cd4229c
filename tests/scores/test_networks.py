"""Networks of the field's conventions.

Stand-ins with their interface, exact for Gaussian data, in the code bases' own formulas.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, TimeError
from srk.processes import EDM, VE, VP, Flow, SubVP, VPDiscrete
from srk.scores import networks

MEAN, VARIANCE = 0.4, 0.3
EVENT = (3, 2, 2)


def noise_at(x, alpha, sigma):
    """E[eps | x] for data N(MEAN, VARIANCE)."""
    return sigma * (x - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)


def data_at(x, alpha, sigma):
    return MEAN + alpha * VARIANCE * (x - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)


def state(level, seed=0, batch=4):
    z = torch.randn(
        batch, *EVENT, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return level.alpha * MEAN + math.hypot(level.alpha * math.sqrt(VARIANCE), level.sigma) * z


def assert_exact(prediction, process, fractions=(0.1, 0.5, 0.9), rtol=1e-9):
    prediction = prediction.bind(process)
    for fraction in fractions:
        level = process.level(process.t_min + fraction * (process.t_max - process.t_min))
        x = state(level)
        error = (
            (prediction.denoise(x, level, process) - data_at(x, level.alpha, level.sigma))
            .abs()
            .max()
        )
        assert error < rtol * (1 + level.r)


# -- improved-diffusion and guided-diffusion
# ------------------------------------------------------------------------------


def cosine_betas(n):
    """The schedule of iDDPM."""
    bar = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    return [min(1 - bar((i + 1) / n) / bar(i / n), 0.999) for i in range(n)]


class OpenAIModel(nn.Module):
    """The interface of their UNetModel.

    `forward(x, timesteps, y=None)`, exact for Gaussian data at the real-valued training index.
    """

    def __init__(self, betas, *, learn_sigma, predict_xstart=False, scale=1.0, table=False):
        super().__init__()
        self.lams = np.array(
            [0.5 * math.log(p / (1 - p)) for p in np.cumprod(1 - np.asarray(betas))]
        )
        self.learn_sigma, self.predict_xstart, self.scale, self.table = (
            learn_sigma,
            predict_xstart,
            scale,
            table,
        )
        self.seen = []

    def forward(self, x, timesteps, y=None):
        assert timesteps.shape == (len(x),)
        assert (timesteps.dtype == torch.long) == self.table
        self.seen.append((float(timesteps[0]), y))
        lam = float(
            np.interp(float(timesteps[0]) / self.scale, np.arange(len(self.lams)), self.lams)
        )
        alpha, sigma = (
            (1 / math.sqrt(1 + math.exp(-2 * lam))),
            (1 / math.sqrt(1 + math.exp(2 * lam))),
        )
        out = (data_at if self.predict_xstart else noise_at)(x, alpha, sigma)
        return torch.cat([out, torch.full_like(out, 7.0)], 1) if self.learn_sigma else out


@pytest.mark.parametrize("learn_sigma", [False, True])
@pytest.mark.parametrize("predict", ["noise", "data"])
@pytest.mark.parametrize(
    "process", [None, VP(t_min=0.01), EDM(0.05, 50.0), Flow(t_max=0.99)], ids=str
)
def test_guided_diffusion_networks_serve_every_process(learn_sigma, predict, process):
    home = VPDiscrete()
    model = OpenAIModel(
        np.linspace(1e-4, 0.02, 1000), learn_sigma=learn_sigma, predict_xstart=predict == "data"
    )
    score = networks.guided_diffusion(model, learn_sigma=learn_sigma, predict=predict)
    assert_exact(score, home if process is None else process)


def test_the_network_gets_the_training_index_and_its_keywords():
    """Index i where the state is at index i; labels as y; times 1000/N with rescale_timesteps.

    Integers for a table.
    """
    betas, labels = cosine_betas(400), torch.arange(4)
    process = VPDiscrete(betas=betas)
    level = process.level(250)
    plain = OpenAIModel(betas, learn_sigma=True)
    networks.guided_diffusion(plain, process, learn_sigma=True, model_kwargs={"y": labels}).denoise(
        state(level), level, process
    )
    assert plain.seen[0][0] == pytest.approx(250.0, abs=1e-9)
    assert plain.seen[0][1] is labels
    scaled = OpenAIModel(betas, learn_sigma=False, scale=2.5)
    assert_exact(networks.guided_diffusion(scaled, process, rescale_timesteps=True), process)
    table = OpenAIModel(betas, learn_sigma=False, table=True)
    networks.guided_diffusion(table, process, rounded=True).denoise(
        state(level), process.level(250.4), process
    )
    assert table.seen[0][0] == 250


def their_chain(model, betas, steps, x, draws, scale=1.0):
    """p_sample_loop with respacing and the small fixed variance, in published formulas.

    They are those of Ho et al. and of Nichol and Dhariwal.
    """
    bars = np.cumprod(1 - np.asarray(betas))[sorted(steps)]
    for i in range(len(steps))[::-1]:
        bar, before = bars[i], bars[i - 1] if i else 1.0
        beta = 1 - bar / before
        eps = model(x, torch.full((len(x),), float(sorted(steps)[i])) * scale)[:, : x.shape[1]]
        x0 = (x - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        x = (
            beta * math.sqrt(before) / (1 - bar) * x0
            + (1 - before) * math.sqrt(1 - beta) / (1 - bar) * x
        )
        if i:
            x = x + math.sqrt(beta * (1 - before) / (1 - bar)) * next(draws)
    return x


@pytest.mark.parametrize("sections", ["25", "3,4,10", "ddim20", 7])
def test_ancestral_sampling_with_respacing_is_theirs(sections):
    """`ddpm` on respaced_timesteps, and on the respaced betas with their map, is their sampler."""
    betas = cosine_betas(1000)
    model, x = (
        OpenAIModel(betas, learn_sigma=True),
        torch.randn(2, *EVENT, dtype=torch.float64, generator=torch.Generator().manual_seed(3)),
    )
    draw = lambda: torch.randn(x.shape, dtype=torch.float64, generator=generator)  # noqa: E731
    steps = networks.respaced_timesteps(1000, sections)
    generator = torch.Generator().manual_seed(4)
    theirs = their_chain(model, betas, steps, x, iter(draw, None))

    noise = lambda slot, clock, out: draw()  # noqa: E731
    generator = torch.Generator().manual_seed(4)
    process = VPDiscrete(betas=betas)
    score = networks.guided_diffusion(model, process, learn_sigma=True)
    sol = srk.solve(process, score, "ddpm", x_init=x, grid=steps, noise=noise)
    assert torch.allclose(sol.x, theirs, atol=1e-9)
    assert sol.nfe == len(steps)

    generator = torch.Generator().manual_seed(4)
    bars = np.cumprod(1 - np.asarray(betas))[sorted(steps)]
    respaced = VPDiscrete(betas=1 - bars / np.append(1.0, bars[:-1]))
    mapped = networks.guided_diffusion(
        model, respaced, learn_sigma=True, timestep_map=sorted(steps), num_timesteps=1000
    )
    sol = srk.solve(respaced, mapped, "ddpm", x_init=x, grid=range(len(steps))[::-1], noise=noise)
    assert torch.allclose(sol.x, theirs, atol=1e-9)


@pytest.mark.parametrize(
    ("n", "sections", "expected"),
    [
        (10, "10", list(range(10))),
        (10, 1, [0]),
        (10, "3,2", [0, 2, 4, 5, 9]),
        (11, [2, 2], [0, 5, 6, 10]),
        (1000, "ddim4", [0, 250, 500, 750]),
    ],
)
def test_respaced_timesteps(n, sections, expected):
    """Worked out by hand.

    Equal strides in each section, its ends included, the longer sections first.
    """
    assert networks.respaced_timesteps(n, sections) == expected[::-1]


# -- score_sde
# ------------------------------------------------------------------------------------------


def their_score(model, process, x, t):
    """`get_score_fn` of score_sde for a trained (eval) model, in its own words.

    Labels from t, the score from the output.
    """
    batch = torch.full((len(x),), t, dtype=torch.float64)
    if isinstance(process, VE):
        return model(x, torch.full_like(batch, process.sigma(t)))
    mean = math.exp(-0.25 * t**2 * (20.0 - 0.1) - 0.5 * t * 0.1)
    std = math.sqrt(1 - mean**2) if isinstance(process, VP) else 1 - mean**2
    return -model(x, batch * 999) / std


class NCSNpp(nn.Module):
    """Their interface `model(x, labels)`: exact for Gaussian data."""

    def __init__(self, process):
        super().__init__()
        self.process, self.labels = process, []

    def forward(self, x, labels):
        self.labels.append(labels)
        if isinstance(self.process, VE):
            sigma = float(labels[0])
            return -noise_at(x, 1.0, sigma) / sigma
        t = float(labels[0]) / 999
        return noise_at(x, float(self.process.alpha(t)), float(self.process.sigma(t)))


@pytest.mark.parametrize(
    "home", [VP(t_min=1e-5), SubVP(t_min=1e-5), VE(0.01, 50.0)], ids=lambda p: p.name
)
def test_score_sde_is_their_score_and_serves_every_process(home):
    model = NCSNpp(home)
    score = networks.score_sde(model, home)
    for t in (0.02, 0.3, 0.9):
        level = home.level(t)
        x = state(level)
        ours = score.bind(home).score(x, level, home)
        assert torch.allclose(ours, their_score(model, home, x, t), rtol=1e-9, atol=1e-9)
        assert float(model.labels[-1][0]) == pytest.approx(float(model.labels[-2][0]), rel=1e-9)
    for process in (home, VP(t_min=0.01), EDM(0.05, 40.0), SubVP(t_min=0.05), Flow(0.05, 0.97)):
        assert_exact(score, process)


def test_score_sde_networks_of_finite_lists():
    """DDPM: labels are the training index. SMLD.

    Labels run backwards, as integers into the list of sigmas from large to small.
    """
    process = VPDiscrete()

    def ddpm(x, labels):
        level = process.level(float(labels[0]))
        return noise_at(x, level.alpha, level.sigma)

    assert_exact(networks.score_sde(ddpm, process), process)

    ve, n = VE(0.01, 50.0), 1000
    sigmas = np.exp(np.linspace(math.log(50.0), math.log(0.01), n))

    def smld(x, labels):
        assert labels.dtype == torch.long
        sigma = sigmas[int(labels[0])]
        return -noise_at(x, 1.0, sigma) / sigma

    assert_exact(
        networks.score_sde(smld, ve, num_scales=n),
        ve,
        fractions=[i / (n - 1) for i in (100, 500, 900)],
        rtol=1e-9,
    )


# -- EDM and k-diffusion
# ------------------------------------------------------------------------------------------


class EDMPrecond(nn.Module):
    """The interface of EDM's networks.

    Float32 inside, sigma of any shape, one-hot labels that shift the mean of the data.
    """

    img_channels, img_resolution, label_dim = 3, 2, 4

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, sigma, class_labels=None, force_fp32=False):
        assert x.dtype == sigma.dtype == torch.float32
        self.seen.append((tuple(sigma.shape), class_labels, force_fp32))
        sigma = sigma.reshape(-1, 1, 1, 1)
        shift = 0.0 if class_labels is None else class_labels.argmax(1).reshape(-1, 1, 1, 1)
        return data_at(x - shift, 1.0, sigma) + shift


def test_edm_networks():
    net, labels = EDMPrecond(), torch.eye(4)
    score = networks.edm(net)
    assert score.event_shape == EVENT
    for process in (EDM(), VP(t_min=0.01), Flow(0.05, 0.97)):
        assert_exact(score, process, rtol=1e-5)  # float32 inside
    level = EDM().level(1.5)
    x = state(level)
    conditional = networks.edm(
        net, labels, expand_sigma=True, model_kwargs={"force_fp32": True}
    ).bind(EDM())
    shift = torch.arange(4).reshape(-1, 1, 1, 1)
    assert torch.allclose(
        conditional.denoise(x + shift, level, EDM()), data_at(x, 1.0, 1.5) + shift, atol=1e-5
    )
    shape, seen_labels, forced = net.seen[-1]
    assert shape == (4, 1, 1, 1) and seen_labels is labels and forced
    assert net.seen[0][0] == (4,)


def test_edm_sampler_is_theirs():
    """Heun on the Karras grid in float64, the network in float32: the paper's algorithm 1."""
    net, n = EDMPrecond(), 18
    t = [
        (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(n)
    ] + [0.0]
    start = 80.0 * torch.randn(
        4, *EVENT, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    call = lambda x, sigma: net(x.float(), torch.full((4,), sigma)).double()  # noqa: E731
    x = start
    for a, b in itertools.pairwise(t):
        d = (x - call(x, a)) / a
        euler = x + (b - a) * d
        x = euler if b == 0 else x + (b - a) * (d + (euler - call(euler, b)) / b) / 2
    sol = srk.solve(EDM(sigma_min=0.0), networks.edm(net), "heun", x_init=start, grid=t)
    assert torch.allclose(sol.x, x, atol=1e-5)
    assert sol.nfe == 2 * n - 1


def test_k_diffusion_models():
    def model(x, sigma, shift):
        assert sigma.shape == (len(x),)
        return data_at(x - shift, 1.0, sigma.reshape(-1, 1, 1, 1)) + shift

    assert_exact(networks.k_diffusion(model, {"shift": 0.0}), VP(t_min=0.01))
    level = EDM().level(2.0)
    x = state(level)
    assert torch.allclose(
        networks.k_diffusion(model, {"shift": 1.0}).denoise(x + 1.0, level, EDM()),
        data_at(x, 1.0, 2.0) + 1.0,
    )


# -- mistakes
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda m: networks.guided_diffusion(m, predict="v"), ArgumentError, "predict_xstart"),
        (lambda m: networks.guided_diffusion(m, VP()), ArgumentTypeError, "VPDiscrete"),
        (
            lambda m: networks.guided_diffusion(m, timestep_map=[0, 5]),
            ArgumentError,
            "one index for each step",
        ),
        (lambda m: networks.score_sde(m, Flow()), IncompatibleError, "VPDiscrete"),
        (lambda m: networks.score_sde(m, VP(), num_scales=1000), ArgumentError, "VPDiscrete"),
        (lambda m: networks.respaced_timesteps(10, "11"), ArgumentError, "cannot give 11"),
        (lambda m: networks.respaced_timesteps(10, "ddim7"), ArgumentError, "'7'"),
        (lambda m: networks.respaced_timesteps(10, "many"), ArgumentError, "positive integer"),
    ],
)
def test_mistakes_are_refused_with_a_cure(make, error, match):
    with pytest.raises(error, match=match):
        make(lambda x, t: x)


def test_levels_outside_the_training_are_refused():
    score = networks.score_sde(lambda x, t: x, VP())
    with pytest.raises(TimeError, match="outside"):
        srk.solve(EDM(0.002, 5000.0), score, shape=(1, 2), steps=4)
