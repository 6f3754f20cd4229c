"""Schedules, frames and noise as ComfyUI, Forge and A1111 make them."""

from __future__ import annotations

import collections
import inspect
import math
import sys
import types

import pytest
import torch
from hosts import A1111Model, ComfyModel, ForgeModel, Sampling, denoiser, first_state
from torch import Tensor

import srk
from srk.ecosystem import k_diffusion, webui
from srk.errors import IncompatibleError, TimeError

SPREAD = math.sqrt(1.0 + 0.09)
ODES = [name for name, method in srk.solvers().items() if method.eta_range[1] == 0.0]


def edm(x: Tensor, sigma: Tensor) -> Tensor:
    return denoiser(x, float(sigma[0]), False)


def zero(x: Tensor):
    return lambda sigma, sigma_next: torch.zeros_like(x)


# -- schedules ------------------------------------------------------------------------------------


def test_a_first_sigma_above_one_by_rounding() -> None:
    """shift t/(1 + (shift - 1) t) at t = 1 in float32, for many shifts."""
    above = 0
    for shift in [4.53, *(round(1.0 + 0.07 * k, 2) for k in range(150))]:
        t = torch.tensor([1.0, 0.7, 0.4, 0.1])
        sigmas = torch.cat([shift * t / (1 + (shift - 1) * t), torch.zeros(1)])
        above += bool(sigmas[0] > 1)
        seen: list[float] = []

        def model(x: Tensor, sigma: Tensor, seen: list[float] = seen) -> Tensor:
            seen.append(float(sigma[0]))
            return denoiser(x, min(float(sigma[0]), 1.0), True)

        sample = k_diffusion.sampler("srk2m", frame="flow")
        out = sample(model, torch.randn(2, 1), sigmas)
        assert torch.isfinite(out).all()
        assert seen == sigmas[:-1].tolist()  # the model gets the host's own number
    assert above > 3
    with pytest.raises(TimeError, match="from 1 to 0"):
        sample(model, torch.randn(2, 1), torch.tensor([1.01, 0.5, 0.0]))


@pytest.mark.parametrize("solver", ["srk2", "srk2m", "auto", "dpmpp-2m", "dpmpp-2m-sde", "deis-3"])
@pytest.mark.parametrize(
    "repeated",
    [
        [10.0, 10.0, 3.0, 1.0, 0.3, 0.0],
        [10.0, 3.0, 3.0, 3.0, 1.0, 0.3, 0.3, 0.0],
        [10.0, 3.0, 1.0, 0.3, 0.0, 0.0],
        [10.0, 3.0, 3.0 * (1 - 1e-7), 1.0, 0.3, 0.0],
    ],
)
def test_sigmas_that_repeat_count_once(solver: str, repeated: list[float]) -> None:
    """As Laplace schedules and lists with two zeros at the end have them."""
    x = 10.0 * torch.randn(4, 1, dtype=torch.float64)
    sample, steps = k_diffusion.sampler(solver), []
    plain = torch.tensor([10.0, 3.0, 1.0, 0.3, 0.0], dtype=torch.float64)
    expected = sample(edm, x, plain, noise_sampler=zero(x))
    sigmas = torch.tensor(repeated, dtype=torch.float64)
    out = sample(edm, x, sigmas, noise_sampler=zero(x), callback=lambda i: steps.append(i["i"]))
    assert torch.allclose(out, expected, rtol=1e-5)
    assert steps == sorted(set(steps)) and steps[-1] < len(sigmas) - 1


def exact_inversion(x: Tensor, low: float, high: float, v: float) -> Tensor:
    """The probability-flow ODE of data N(0, v) in the frame x0 + sigma eps."""
    return x * math.sqrt((v + high**2) / (v + low**2))


@pytest.mark.parametrize("solver", [*ODES, "srk2m", "srk2", "auto", "ddim", "dpmpp-2m-sde"])
def test_rising_sigmas_reverse_the_ode(solver: str) -> None:
    """FlipSigmas: from data to noise. More steps come closer to the exact solution."""
    v, low, high = 0.25, 0.02, 14.6
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        return v * x / (v + sigma[:, None] ** 2)

    sample = k_diffusion.sampler(solver)
    options = {} if srk.solvers()[solver].eta_range[1] == 0.0 else {"eta": 0.0}
    errors = []
    for n in (20, 80):
        sigmas = torch.logspace(math.log10(low), math.log10(high), n + 1, dtype=torch.float64)
        out = sample(model, x, sigmas, **options)
        exact = exact_inversion(x, float(sigmas[0]), float(sigmas[-1]), v)
        errors.append(float((out - exact).abs().max() / exact.abs().max()))
    assert errors[1] < 0.07
    assert errors[1] < 0.5 * errors[0]


def test_rising_sigmas_of_a_flow_reach_one() -> None:
    sigmas = torch.cat([torch.linspace(0.02, 1.0, 40)])
    x = torch.linspace(-1, 1, 6)[:, None]
    sample = k_diffusion.sampler("dpmpp-2m", frame="flow")
    noise = sample(lambda x, sigma: denoiser(x, min(float(sigma[0]), 0.9999), True), x, sigmas)
    assert torch.isfinite(noise).all()
    with pytest.raises(TimeError, match="eta=0"):
        k_diffusion.sampler("srk2m", frame="flow")(edm, x, sigmas)


# -- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [ComfyModel, ForgeModel, A1111Model])
@pytest.mark.parametrize("kind", ["eps", "zero-snr", "flow"])
@pytest.mark.parametrize("name", ["sample_srk2m", "sample_auto"])
def test_one_function_is_right_for_all_models(host, kind: str, name: str) -> None:
    """The same entry of the list serves SD, SDXL, SD3 and Flux: the spread is that of the data."""
    model = host(kind)
    sigmas = model.sampling.karras(40)
    extra = {} if host is ComfyModel else {"cond": None, "uncond": None}
    torch.manual_seed(0)
    out = getattr(k_diffusion, name)(
        model, first_state(model.sampling, sigmas), sigmas, extra_args=extra
    )
    assert abs(float(out.std()) / SPREAD - 1) < 0.035
    assert k_diffusion.frame_of(model) == ("flow" if kind == "flow" else "edm")


def test_a_frame_that_is_neither_is_refused() -> None:
    class Odd:
        def noise_scaling(self, sigma, noise, latent):
            return noise * sigma + latent * 0.7

    with pytest.raises(IncompatibleError, match=r"0\.7"):
        k_diffusion.frame_of(Odd())
    assert k_diffusion.frame_of(edm) == "edm"
    loop = type("Loop", (), {})()
    loop.inner_model = loop
    assert k_diffusion.frame_of(loop) == "edm"


# -- noise and stochasticity ----------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["dpmpp-2m", "heun", "unipc-3"])
def test_a_solver_of_the_ode_lets_a_noise_sampler_pass(solver: str) -> None:
    """Forge passes one to every sampler that is listed with its Brownian noise."""
    x, sigmas = torch.randn(2, 1), Sampling("eps").simple(5)

    def never(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        raise AssertionError

    out = k_diffusion.sampler(solver)(edm, x, sigmas, noise_sampler=never)
    assert torch.equal(out, k_diffusion.sampler(solver)(edm, x, sigmas))


@pytest.mark.parametrize("solver", ["wcw", "accelerated-ddpm"])
def test_a_solver_of_one_eta_keeps_it(solver: str) -> None:
    x, sigmas = torch.randn(2, 1), Sampling("eps").simple(5)
    sample = k_diffusion.sampler(solver)
    with pytest.warns(UserWarning, match="takes eta = 1"):
        out = sample(edm, x, sigmas, eta=0.4, noise_sampler=zero(x))
    assert torch.equal(out, sample(edm, x, sigmas, noise_sampler=zero(x)))


@pytest.mark.parametrize("solver", ["ddpm", "dpmpp-2m-sde", "euler-ancestral", "auto"])
def test_eta_above_one(solver: str) -> None:
    x, sigmas = 14.6 * torch.randn(4096, 1), Sampling("eps").karras(60)
    if srk.solvers()[solver].eta_range[1] < 1.2:
        pytest.skip("this solver is defined up to eta = 1")
    torch.manual_seed(1)
    out = k_diffusion.sampler(solver)(edm, x, sigmas, eta=1.2)
    assert abs(float(out.std()) / SPREAD - 1) < 0.1


def test_seeds_of_the_samples_make_a_batch_independent_of_its_size() -> None:
    """Forge gives a list of seeds, one for each picture."""
    sigmas = Sampling("eps").simple(6)
    x = 14.6 * torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    sample = k_diffusion.sampler("srk2m", noise="brownian")

    def model(x: Tensor, sigma: Tensor, seed: object) -> Tensor:
        return edm(x, sigma)

    whole = sample(model, x, sigmas, extra_args={"seed": [7, 8, 9]})
    alone = sample(model, x[1:2], sigmas, extra_args={"seed": [8]})
    assert torch.allclose(whole[1:2], alone, atol=1e-6)


def test_the_webui_gets_the_solvers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A1111's list of samplers: a named tuple for each, made into a sampler from the model."""
    made = collections.namedtuple("SamplerData", ["name", "constructor", "aliases", "options"])
    modules = {
        name: types.ModuleType(f"modules.{name}")
        for name in ("sd_samplers", "sd_samplers_common", "sd_samplers_kdiffusion")
    }
    euler = made("Euler", None, ["k_euler"], {})
    shown: list[list[str]] = []
    samplers = modules["sd_samplers"]
    samplers.all_samplers, samplers.all_samplers_map = [euler], {"Euler": euler}
    samplers.set_samplers = lambda: shown.append([s.name for s in samplers.all_samplers])
    modules["sd_samplers_common"].SamplerData = made
    modules["sd_samplers_kdiffusion"].KDiffusionSampler = lambda function, model: (function, model)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
    monkeypatch.setitem(sys.modules, "modules", types.ModuleType("modules"))
    webui.register()
    webui.register()
    assert shown[-1] == ["Euler", *webui.LISTED]
    entry = samplers.all_samplers_map["SRK2M"]
    function, model = entry.constructor("the model")
    assert model == "the model" and function.__name__ == "sample_srk2m"
    assert "eta" in inspect.signature(function).parameters
    sigmas = Sampling("flow").simple(5)
    host = ForgeModel("flow")
    x = first_state(host.sampling, sigmas)
    extra = {"cond": None, "uncond": None}
    out = function(host, x, sigmas=sigmas, extra_args=extra, disable=True, callback=None, eta=1.0,
                   noise_sampler=lambda a, b: torch.randn_like(x))  # fmt: skip
    assert torch.isfinite(out).all()
