"""Profiles in hosts: they place steps, tell `auto` the variance, survive files, and warn."""

from __future__ import annotations

import json
import warnings
from typing import Any

import attrs
import pytest
import torch

import srk
from srk.ecosystem import comfyui, k_diffusion
from srk.ecosystem.profiles import profile_of
from srk.errors import ArgumentError, ArgumentTypeError

TARGET = srk.targets.GaussianMixture([0.8, 0.2], [[-0.2], [0.9]], [0.02, 0.3])


@pytest.fixture(scope="module")
def profile() -> srk.Profile:
    process = srk.EDM(0.002, 160.0)
    return srk.calibrate(process, TARGET.score(process), shape=(512, 1), seed=0)


def test_values_of_a_profile(profile: srk.Profile, tmp_path: Any) -> None:
    file = profile.save(tmp_path / "profile.json")
    values = json.loads(json.dumps(profile.to_dict()))
    for given in (profile, values, file, str(file)):
        assert profile_of(given) == profile
    assert profile_of(None) is None and profile_of("") is None
    for given, message in (
        (str(tmp_path / "none.json"), "cannot be read"),
        ({"lam": [0.0]}, "holds no profile"),
        ({**values, "q": [1.0]}, "damaged"),
    ):
        with pytest.raises(ArgumentError, match=message):
            profile_of(given)
    with pytest.raises(ArgumentTypeError, match="its path or its dict"):
        profile_of(3)


def test_scheduler(profile: srk.Profile, tmp_path: Any) -> None:
    """The steps and the solver are those of `srk.solve` with the profile; files keep it."""
    diffusers = pytest.importorskip("diffusers")
    from srk.ecosystem.diffusers import SRKScheduler

    config = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True).config
    made = SRKScheduler.from_config(config, profile=profile)
    assert made.config.grid == "budget" and not made.config.use_karras_sigmas
    made.set_timesteps(12)
    process = made._convention.process
    sampler = srk.Sampler(process, TARGET.score(process), profile=profile, nfe=12)
    theirs = [plan.start.t for plan in sampler.plans()] + [sampler.plans()[-1].stop.t]
    assert made._route is not None and made._route.grid == pytest.approx(theirs)
    assert made.integrator.inner.choose(process, 0.0, 11) == sampler.method
    assert sampler.label == "auto: gauge-adams (calibrated)"
    assert made.integrator.inner.data_variance == pytest.approx(4.0 * profile.variance)
    made.save_pretrained(tmp_path)
    again = SRKScheduler.from_pretrained(tmp_path)
    again.set_timesteps(12)
    assert torch.equal(again.timesteps, made.timesteps)
    third = SRKScheduler.from_config(again.config)
    third.set_timesteps(12)
    assert torch.equal(third.timesteps, made.timesteps)
    assert json.dumps(dict(third.config)["profile"])
    x = torch.randn(2, 1, generator=torch.Generator().manual_seed(0))
    for t in made.timesteps:
        x = made.step(0.5 * x, t, x).prev_sample
    assert bool(x.isfinite().all())
    # another schedule of steps wins, and so does the ODE for other solvers than `auto`
    kept = SRKScheduler.from_config(config, profile=profile, use_karras_sigmas=True)
    assert kept.config.grid is None and kept.config.use_karras_sigmas
    ode = {"profile": profile, "eta": 0.0}
    assert SRKScheduler.from_config(config, **ode).config.grid == "budget"
    assert SRKScheduler.from_config(config, **ode, solver="unipc-3").config.grid is None
    without = SRKScheduler.from_config(made.config, profile=None)
    assert without.config.grid is None and without.config.profile is None
    missing = SRKScheduler.from_config(config, grid="budget")
    with pytest.raises(ArgumentError, match="places the steps by a profile"):
        missing.set_timesteps(4)
    for other, options in ((diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), {}),
                           (diffusers.EDMEulerScheduler(), {})):  # fmt: skip
        run = SRKScheduler.from_config(other.config, profile=profile, **options)
        run.set_timesteps(6)
        assert len(run.timesteps) == 6


def test_scheduler_says_which_solver() -> None:
    """`auto` is the default here as everywhere."""
    diffusers = pytest.importorskip("diffusers")
    from srk.ecosystem.diffusers import SRKScheduler

    made = SRKScheduler.from_config(diffusers.DDIMScheduler().config)
    assert made.config.solver == "auto"


def test_guidance_scales(profile: srk.Profile) -> None:
    """A profile of one guidance scale warns where a host says another."""
    guided = attrs.evolve(profile, guidance=(7.5,))
    sample = k_diffusion.sampler("auto", profile=guided)
    sigmas, x = torch.tensor([10.0, 1.0, 0.1, 0.0]), torch.full((2, 1), 10.0)

    def model(x: torch.Tensor, sigma: torch.Tensor, **options: Any) -> torch.Tensor:
        return TARGET.score(srk.EDM(0.01, 20.0)).denoise(
            x, srk.EDM(0.01, 20.0).level(float(sigma[0])), srk.EDM(0.01, 20.0)
        )

    with pytest.warns(UserWarning, match=r"measured at guidance scale 7\.5 and is used at 3"):
        sample(model, x, sigmas, extra_args={"cond_scale": 3.0}, disable=True)

    class Guider:
        cfg = 4.0

        def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **options: Any) -> torch.Tensor:
            return model(x, sigma)

    with pytest.warns(UserWarning, match="is used at 4"):
        sample(Guider(), x, sigmas, disable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(model, x, sigmas, extra_args={"cond_scale": 7.5}, disable=True)
        sample(model, x, sigmas, disable=True)
    diffusers = pytest.importorskip("diffusers")
    from srk.ecosystem.diffusers import SRKScheduler

    config = diffusers.DDIMScheduler().config
    with pytest.warns(UserWarning, match=r"measured at guidance scale 7\.5 and is used at 5"):
        SRKScheduler.from_config(config, profile=guided, guidance_scale=5.0)


def test_sigmas_of_a_profile(profile: srk.Profile, tmp_path: Any) -> None:
    """The levels are those of the grid "budget" for `auto` with the profile, at its eta; the
    ComfyUI node has them from a file, at the eta of its sampler.
    """
    edm = srk.EDM(0.0292, 14.6146)
    sigmas, noisy = (k_diffusion.sigmas_of(profile, 10, eta=eta) for eta in (None, 1.0))
    for made, criterion in ((sigmas, "bend"), (noisy, "network")):
        grid = srk.steps.Budget(profile, criterion)
        expected = grid.times(srk.steps.RunInfo(edm, None, 9))
        assert made.tolist() == pytest.approx([*expected, 0.0], rel=1e-6)
    assert k_diffusion.sigmas_of(profile, 1).tolist() == pytest.approx([14.6146, 0.0])
    flow = k_diffusion.sigmas_of(profile, 8, frame="flow", sigma_min=0.01, sigma_max=1.0)
    assert flow[0] == 1.0 and flow[-2] == pytest.approx(0.01) and len(flow) == 9

    class Sampling:
        sigma_min, sigma_max = torch.tensor(0.0292), torch.tensor(14.6146)

    class Patcher:
        def get_model_object(self, name: str) -> Any:
            return Sampling()

    file = str(profile.save(tmp_path / "profile.json"))
    for options, wanted in (({}, noisy), ({"eta": 1.0}, noisy), ({"eta": 0.0}, sigmas)):
        (made,) = comfyui.SRKSigmas().get_sigmas(
            Patcher(),
            "budget",
            10,
            profile=file,
            **options,  # type: ignore[arg-type]
        )
        assert torch.allclose(made, wanted, rtol=1e-5)
    with pytest.raises(ArgumentError, match="needs a profile"):
        comfyui.SRKSigmas().get_sigmas(Patcher(), "budget", 10)
