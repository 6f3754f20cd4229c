"""Real pipelines and networks of diffusers 0.42, small and random, driven by SRKScheduler, against
`srk.solve` and diffusers' own schedulers.

    pip install diffusers==0.42.1 transformers

Without diffusers this module is skipped; without transformers those of its tests whose
pipelines import it.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import srk

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers==0.42.1"
)

from srk.ecosystem.diffusers import SRKScheduler, from_diffusers, from_pipeline  # noqa: E402
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError  # noqa: E402

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def needs_transformers(test: Any) -> Any:
    """Slow, for the import of transformers alone takes 20 seconds."""
    missing = importlib.util.find_spec("transformers") is None
    return pytest.mark.slow(
        pytest.mark.skipif(
            missing, reason="transformers is not installed: pip install transformers"
        )(test)
    )


@pytest.fixture(autouse=True)
def _small_random_networks() -> Iterator[None]:
    """The weights of the networks come from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws_of(draws: torch.Generator) -> Any:
    return lambda slot, clock, out: out.normal_(generator=draws)


def unet(**options: Any) -> Any:
    small = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        **small,
        **options,
    ).eval()


def conditional_unet() -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def flux() -> Any:
    return diffusers.FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(2, 2, 4),
    ).eval()


STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


# -- DDPMPipeline ---------------------------------------------------------------------------------


def test_ddpm_pipeline_equals_diffusers() -> None:
    """`ddpm` in place of DDPMScheduler: the same pictures from the same generator."""
    model = unet()
    pipe = diffusers.DDPMPipeline(model, diffusers.DDPMScheduler())
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        batch_size=2, generator=generator(0), num_inference_steps=10, output_type="np"
    ).images
    pipe.scheduler = SRKScheduler.from_config(pipe.scheduler.config, solver="ddpm")
    ours = pipe(
        batch_size=2, generator=generator(0), num_inference_steps=10, output_type="np"
    ).images
    assert np.abs(ours - theirs).max() < 5e-6
    assert theirs.std() > 0.1


@pytest.mark.parametrize("solver", ["srk2", "srk2m", "seeds-3"])
def test_ddpm_pipeline_equals_solve(solver: str) -> None:
    """The pictures of the pipeline are those of `srk.solve` with its network, bit for bit."""
    pipe = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler())
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = SRKScheduler.from_config(pipe.scheduler.config, solver=solver)
    pictures = pipe(
        batch_size=2, generator=generator(0), num_inference_steps=5, output_type="np"
    ).images
    process, score = from_pipeline(pipe)
    draws = generator(0)
    x = torch.randn(2, 1, 8, 8, generator=draws)
    sol = srk.solve(
        process,
        score,
        pipe.scheduler.integrator,
        x_init=x,
        grid=[800.0, 600.0, 400.0, 200.0, 0.0],
        noise=draws_of(draws),
    )
    assert sol.nfe == len(pipe.scheduler.timesteps)
    assert np.array_equal(pictures, (sol.x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())


def test_pipeline_is_saved_and_loaded(tmp_path: Path) -> None:
    """The scheduler goes with the pipeline, through its directory."""
    pipe = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler())
    pipe.scheduler = SRKScheduler.from_config(pipe.scheduler.config, solver="srk2")
    pipe.set_progress_bar_config(disable=True)
    before = pipe(generator=generator(0), num_inference_steps=3, output_type="np").images
    pipe.save_pretrained(tmp_path)
    again = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    assert isinstance(again.scheduler, SRKScheduler)
    again.set_progress_bar_config(disable=True)
    after = again(generator=generator(0), num_inference_steps=3, output_type="np").images
    assert (
        np.abs(before - after).max() < 1e-5
    )  # loaded weights lie elsewhere in memory, and convolutions round by that


# -- the loops of text-to-image pipelines ---------------------------------------------------------


def stable_diffusion_loop(
    model: Any,
    scheduler: Any,
    x: Tensor,
    conditions: Tensor,
    negative: Tensor,
    scale: float,
    **options: Any,
) -> Tensor:
    """What StableDiffusionPipeline does between its encoder and its decoder."""
    for t in scheduler.timesteps:
        inputs = scheduler.scale_model_input(torch.cat([x] * 2), t)
        u, c = model(
            inputs, t, encoder_hidden_states=torch.cat([negative, conditions]), return_dict=False
        )[0].chunk(2)
        x = scheduler.step(u + scale * (c - u), t, x, return_dict=False, **options)[0]
    return x


@torch.no_grad()
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_guided_latents(kind: str) -> None:
    """A conditional UNet with classifier-free guidance: `ddim` is DDIMScheduler, and `srk.solve`
    with both calls counted gives the same.
    """
    model = conditional_unet()
    x, c, u = (
        torch.randn(shape, generator=generator(i))
        for i, shape in enumerate([(2, 4, 4, 4), (2, 3, 8), (2, 3, 8)])
    )
    peer = diffusers.DDIMScheduler(
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
        prediction_type=kind,
        **STABLE_DIFFUSION,
    )
    ours = SRKScheduler.from_config(
        peer.config, solver="ddim", eta=0.0, final_sigmas_type="sigma_min"
    )
    for scheduler in (peer, ours):
        scheduler.set_timesteps(8)
    theirs = stable_diffusion_loop(model, peer, x, c, u, 3.0)
    result = stable_diffusion_loop(model, ours, x, c, u, 3.0)
    torch.testing.assert_close(result, theirs, rtol=2e-5, atol=2e-5 * float(theirs.abs().max()))
    process, score = from_diffusers(
        model,
        ours,
        model_kwargs={"encoder_hidden_states": c},
        negative_kwargs={"encoder_hidden_states": u},
        guidance_scale=3.0,
    )
    sol = srk.solve(
        process,
        score,
        "ddim",
        x_init=x,
        eta=0.0,
        grid=[*peer.timesteps.tolist(), 0.0],
        denoise_final=False,
    )
    torch.testing.assert_close(sol.x, result, rtol=2e-5, atol=2e-5 * float(theirs.abs().max()))
    assert sol.nfe == 16


@torch.no_grad()
def test_conditions_of_one_row_serve_the_batch() -> None:
    model = conditional_unet()
    c = torch.randn(1, 3, 8, generator=generator(1))
    one, many = (
        from_diffusers(
            model,
            diffusers.DDPMScheduler(),
            model_kwargs={"encoder_hidden_states": rows},
            event_shape=(4, 4, 4),
        )
        for rows in (c, c.expand(3, 3, 8))
    )
    results = [
        srk.solve(process, score, "srk2", shape=3, steps=2, seed=0).x
        for process, score in (one, many)
    ]
    assert torch.equal(*results)


@torch.no_grad()
def test_flow_transformer() -> None:
    """A Flux transformer in the loop of FluxPipeline: `ddim` is FlowMatchEulerDiscreteScheduler,
    and `srk.solve` gives the bits of `srk2`.
    """
    model = flux()
    conditions = {
        "pooled_projections": torch.randn(2, 8, generator=generator(1)),
        "encoder_hidden_states": torch.randn(2, 3, 8, generator=generator(2)),
        "txt_ids": torch.zeros(3, 3),
        "img_ids": torch.stack(
            [
                torch.zeros(16),
                *torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")[0].new_zeros(
                    2, 16
                ),
            ],
            dim=1,
        ),
    }
    x = torch.randn(2, 16, 4, generator=generator(0))

    def loop(scheduler: Any, **options: Any) -> Tensor:
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 5, 5), mu=0.7)
        scheduler.set_begin_index(0)
        latents = x
        for t in scheduler.timesteps:
            output = model(
                hidden_states=latents, timestep=t.expand(2) / 1000, **conditions, return_dict=False
            )[0]
            latents = scheduler.step(output, t, latents, return_dict=False, **options)[0]
        return latents

    peer = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    euler = SRKScheduler.from_config(peer.config, solver="ddim", eta=0.0)
    theirs = loop(peer)
    torch.testing.assert_close(loop(euler), theirs, rtol=1e-5, atol=1e-5)
    srk2 = SRKScheduler.from_config(peer.config, solver="srk2")
    ours = loop(srk2, generator=generator(3))
    process, score = from_diffusers(model, peer, model_kwargs=conditions)
    times = [euler._route.times[i] for i in range(6)]
    assert times == pytest.approx(peer.sigmas.tolist())
    sol = srk.solve(process, score, "srk2", x_init=x, grid=times, noise=draws_of(generator(3)))
    assert torch.equal(ours, sol.x)
    assert sol.nfe == len(srk2.timesteps)


# -- what is refused ------------------------------------------------------------------------------


def test_clear_errors() -> None:
    model = unet()
    with pytest.raises(ArgumentError, match="give both or neither"):
        from_diffusers(model, diffusers.DDPMScheduler(), guidance_scale=2.0)
    with pytest.raises(ArgumentTypeError, match="scheduler must be"):
        from_diffusers(model, "ddpm")
    with pytest.raises(ArgumentTypeError, match="a model is"):
        from_diffusers("unet", diffusers.DDPMScheduler())
    with pytest.raises(ArgumentTypeError, match=r"use srk\.from_diffusers"):
        from_pipeline(object())
    pipe = diffusers.DDPMPipeline(model, diffusers.DDPMScheduler())
    with pytest.raises(IncompatibleError, match="model_kwargs="):
        from_pipeline(pipe, prompt="a boot")
    with pytest.raises(ArgumentError, match="needs a prompt"):
        from_pipeline(pipe, negative_prompt="a boot")


# -- the pipelines themselves ---------------------------------------------------------------------


def stable_diffusion(kind: str, scheduler: Any) -> Any:
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=4
    ).eval()
    pipe = getattr(diffusers, kind)(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        unet=conditional_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


EMBEDS = {"prompt_embeds": torch.ones(1, 3, 8), "negative_prompt_embeds": torch.zeros(1, 3, 8)}


@pytest.mark.parametrize("solver", ["ddim", "srk2", "srk2m"])
@needs_transformers
def test_stable_diffusion_pipeline(solver: str) -> None:
    """StableDiffusionPipeline: its latents are those of `srk.solve`; with `ddim` also those of
    DDIMScheduler.
    """
    peer = diffusers.DDIMScheduler(steps_offset=1, clip_sample=False, **STABLE_DIFFUSION)
    pipe = stable_diffusion("StableDiffusionPipeline", peer)
    options = {
        **EMBEDS,
        "guidance_scale": 3.0,
        "num_inference_steps": 4,
        "height": 8,
        "width": 8,
        "output_type": "latent",
    }
    theirs = pipe(**options, generator=generator(0)).images
    pipe.scheduler = SRKScheduler.from_config(
        pipe.scheduler.config, solver=solver, eta=0.0 if solver == "ddim" else None
    )
    ours = pipe(**options, generator=generator(0)).images
    process, score = from_pipeline(
        pipe,
        model_kwargs={"encoder_hidden_states": EMBEDS["prompt_embeds"]},
        negative_kwargs={"encoder_hidden_states": EMBEDS["negative_prompt_embeds"]},
        guidance_scale=3.0,
    )
    draws = generator(0)
    x = torch.randn(1, 4, 8, 8, generator=draws)
    sol = srk.solve(
        process,
        score,
        pipe.scheduler.integrator,
        x_init=x,
        eta=pipe.scheduler.config.eta,
        grid=[751.0, 501.0, 251.0, 1.0],
        noise=draws_of(draws),
    )
    assert ours.shape == (1, 4, 8, 8)
    scale = float(ours.abs().max())
    torch.testing.assert_close(
        ours, sol.x, rtol=2e-5, atol=2e-5 * scale
    )  # one batched call there, two here
    if solver == "ddim":
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5 * scale)


@needs_transformers
def test_a_prompt_is_encoded() -> None:
    """`from_pipeline(pipe, prompt=...)` asks the pipeline's encoder, of which this is a
    stand-in.
    """
    pipe = stable_diffusion(
        "StableDiffusionPipeline", diffusers.DDIMScheduler(clip_sample=False, **STABLE_DIFFUSION)
    )
    pipe.encode_prompt = lambda prompt, device, n, guided, negative: (
        EMBEDS["prompt_embeds"],
        EMBEDS["negative_prompt_embeds"] if guided else None,
    )
    given = {"model_kwargs": {"encoder_hidden_states": EMBEDS["prompt_embeds"]}}
    negative = {"negative_kwargs": {"encoder_hidden_states": EMBEDS["negative_prompt_embeds"]}}
    for said, meant in (
        ({"prompt": "a boot"}, {**given, **negative, "guidance_scale": 7.5}),
        ({"prompt": "a boot", "guidance_scale": 1.0}, given),
    ):
        first, second = (
            srk.solve(*from_pipeline(pipe, **options), "srk2", shape=(2, 4, 4, 4), steps=2, seed=0)
            for options in (said, meant)
        )
        assert torch.equal(first.x, second.x) and first.nfe == second.nfe


@needs_transformers
@pytest.mark.parametrize("solver", ["ddim", "srk2", "srk2m", "seeds-3"])
def test_image_to_image_pipeline(solver: str) -> None:
    """StableDiffusionImg2ImgPipeline skips the first steps: half of four steps is `srk.solve` from
    the third, or goes to the end of a step first.
    """
    pipe = stable_diffusion(
        "StableDiffusionImg2ImgPipeline",
        diffusers.DDIMScheduler(steps_offset=1, clip_sample=False, **STABLE_DIFFUSION),
    )
    pipe.scheduler = SRKScheduler.from_config(pipe.scheduler.config, solver=solver)
    picture = torch.randn(1, 4, 4, 4, generator=generator(5))  # four channels: taken for latents
    options = {
        **EMBEDS,
        "guidance_scale": 3.0,
        "num_inference_steps": 4,
        "strength": 0.5,
        "output_type": "latent",
    }
    ours = pipe(image=picture, **options, generator=generator(0)).images
    begin = 2 * pipe.scheduler.order
    assert pipe.scheduler.begin_index == begin
    assert pipe.scheduler.step_index == len(pipe.scheduler.timesteps)
    if solver == "srk2m":  # its calls lie inside the steps
        assert torch.isfinite(ours).all()
        return
    draws = generator(0)
    noisy = pipe.scheduler.add_noise(
        picture,
        torch.randn(1, 4, 4, 4, generator=draws),
        pipe.scheduler.timesteps[begin : begin + 1],
    )
    process, score = from_pipeline(
        pipe,
        model_kwargs={"encoder_hidden_states": EMBEDS["prompt_embeds"]},
        negative_kwargs={"encoder_hidden_states": EMBEDS["negative_prompt_embeds"]},
        guidance_scale=3.0,
    )
    sol = srk.solve(process, score, solver, x_init=noisy, grid=[251.0, 1.0], noise=draws_of(draws))
    torch.testing.assert_close(ours, sol.x, rtol=2e-5, atol=2e-5 * float(ours.abs().max()))


@needs_transformers
@pytest.mark.parametrize("solver", ["ddim", "srk2"])
def test_flux_pipeline(solver: str) -> None:
    """FluxPipeline: with `ddim` the latents of FlowMatchEulerDiscreteScheduler, and those of
    `srk.solve`.
    """
    peer = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=1, sample_size=4
    ).eval()
    pipe = diffusers.FluxPipeline(peer, vae, None, None, None, None, flux())
    pipe.set_progress_bar_config(disable=True)
    embeds = {"prompt_embeds": torch.ones(1, 3, 8), "pooled_prompt_embeds": torch.ones(1, 8)}
    options = {**embeds, "num_inference_steps": 4, "height": 8, "width": 8, "output_type": "latent"}
    theirs = pipe(**options, generator=generator(0)).images
    pipe.scheduler = SRKScheduler.from_config(
        pipe.scheduler.config, solver=solver, eta=0.0 if solver == "ddim" else None
    )
    ours = pipe(
        **options, generator=generator(0)
    ).images  # Flux gives no generator to its scheduler
    assert ours.shape == theirs.shape
    if solver == "ddim":
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    else:
        assert torch.isfinite(ours).all() and not torch.allclose(ours, theirs)


# -- the docs -------------------------------------------------------------------------------------


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of docs/diffusers.md, which tests/test_documentation.py leaves out because they
    need diffusers.
    """
    page = Path(__file__).parents[2] / "docs" / "diffusers.md"
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    blocks = list(
        re.finditer(
            r"^<!-- needs diffusers -->\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
        )
    )
    assert len(blocks) == text.count("```python") - text.count("<!-- not run")
    for block in blocks:
        exec(
            compile("\n" * text.count("\n", 0, block.start(1)) + block[1], str(page), "exec"),
            namespace,
        )


class Inplace(torch.nn.Module):
    """A network that writes to its input in its first layer."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net, self.config, self.dtype = net, net.config, torch.float32

    def forward(self, x, *args, **kwargs):
        return self.net(x.mul_(0.5), *args, **kwargs)


def test_states_changed_in_place_are_refused() -> None:
    """An edit between scale_model_input and step leaves the output without its state."""
    for config in (diffusers.EulerDiscreteScheduler().config, diffusers.EDMEulerScheduler().config):
        made = SRKScheduler.from_config(config, solver="ddpm")
        made.set_timesteps(3)
        x = torch.ones(1, 1, 4, 4) * made.init_noise_sigma
        for t in made.timesteps:
            seen = made.scale_model_input(x, t)
            x = made.step(0.1 * seen, t, x).prev_sample
            x.mul_(1.01)  # between step and scale_model_input everybody may edit
        made.set_timesteps(3)
        x = torch.ones(1, 1, 4, 4) * made.init_noise_sigma
        t = made.timesteps[0]
        seen = made.scale_model_input(x, t)
        said = 0.1 * seen
        x[:, :, :2] = 0.0
        with pytest.raises(IncompatibleError, match="changed in place between"):
            made.step(said, t, x)
        with torch.inference_mode():  # such tensors have no version, and are not watched
            x = torch.ones(1, 1, 4, 4)
            made.step(made.scale_model_input(x, t), t, x)


def test_a_pipeline_whose_network_writes_to_its_input() -> None:
    """DDIM-like pipelines that scale the state itself get an error in place of a wrong picture."""
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4,
        layers_per_block=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    made = SRKScheduler.from_config(diffusers.DDPMScheduler().config, solver="ddpm")
    made.set_timesteps(2)
    network, x = Inplace(unet), torch.randn(1, 1, 8, 8)
    t = made.timesteps[0]
    with torch.no_grad():
        said = network(made.scale_model_input(x, t), t).sample
    with pytest.raises(IncompatibleError, match="writes to its input"):
        made.step(said, t, x)
