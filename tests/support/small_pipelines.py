"""Pipelines of diffusers, small and with random weights, as the tests and the matrix page run them.

Each is built from configs, without a download and without text encoders: the call is given the
embeddings. `PIPELINES` has a function for each that makes one; it needs `diffusers`, and all but
the unconditional one also need `transformers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Small(NamedTuple):
    """A pipeline, what to call it with, and how many samples of its result are asked for.

    Arguments:
        pipe: the pipeline, with the scheduler that its kind of model is published with.
        call: arguments of the call, without the generator and the number of steps.
        result: from what the call returns to the tensor that is compared.
    """

    pipe: Any
    call: dict[str, Any]
    result: Callable[[Any], Tensor]

    def run(self, steps: int, seed: int = 0, **more: Any) -> Tensor:
        """The result with `steps` steps and a generator of that seed."""
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1000)  # what a pipeline takes from the global generator
            returned = self.pipe(
                **{**self.call, **more}, num_inference_steps=steps, generator=generator
            )
        found = self.result(returned)
        return torch.as_tensor(found).float().detach()


STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
            for parameter in part.parameters():
                parameter.requires_grad_(False)
    return pipe


def _images(returned: Any) -> Any:
    return returned.images


def _frames(returned: Any) -> Any:
    return returned.frames


def _vae(channels: int = 4, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    options = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": channels}
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return AutoencoderKL(**{**options, **blocks, "sample_size": 8, **more})


def _unet(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    options: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "cross_attention_dim": 8,
        "attention_head_dim": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**{**options, **more})


def _pndm() -> Any:
    from diffusers import PNDMScheduler

    return PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **STABLE_DIFFUSION)


WORDS = {"prompt_embeds": normal(1, 3, 8, seed=1), "negative_prompt_embeds": normal(1, 3, 8)}
SIZE = {"height": 16, "width": 16}
LATENT = {"output_type": "latent"}


def ddpm() -> Small:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    return Small(_quiet(DDPMPipeline(unet, DDPMScheduler())), {"output_type": "np"}, _images)


def _stable(kind: str, unet: Any = None, **parts: Any) -> Any:
    import diffusers

    return _quiet(
        getattr(diffusers, kind)(
            vae=_vae(),
            text_encoder=None,
            tokenizer=None,
            unet=unet or _unet(),
            scheduler=_pndm(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **parts,
        )
    )


def stable_diffusion() -> Small:
    call = {**WORDS, **SIZE, **LATENT, "guidance_scale": 3.0}
    return Small(_stable("StableDiffusionPipeline"), call, _images)


def stable_diffusion_img2img() -> Small:
    picture = normal(1, 4, 8, 8, seed=5)  # four channels are taken for latents
    call = {**WORDS, **LATENT, "guidance_scale": 3.0, "image": picture, "strength": 0.5}
    return Small(_stable("StableDiffusionImg2ImgPipeline"), call, _images)


def stable_diffusion_inpaint() -> Small:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1.0
    picture = normal(1, 3, 16, 16, seed=5).clamp(-1, 1)
    call = {**WORDS, **SIZE, **LATENT, "guidance_scale": 3.0, "image": picture, "mask_image": mask}
    return Small(_stable("StableDiffusionInpaintPipeline"), call, _images)


def controlnet() -> Small:
    from diffusers import ControlNetModel

    unet = _unet()
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
    pipe = _stable("StableDiffusionControlNetPipeline", unet, controlnet=net)
    call = {**WORDS, **LATENT, "guidance_scale": 3.0, "image": normal(1, 3, 16, 16, seed=5)}
    return Small(pipe, {**call, **SIZE}, _images)


def _xl(kind: str) -> Any:
    import diffusers

    unet = _unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=5 * 4 + 8 if "Img2Img" in kind else 6 * 4 + 8,
        use_linear_projection=True,
    )
    scheduler = diffusers.EulerDiscreteScheduler(timestep_spacing="leading", **STABLE_DIFFUSION)
    parts = dict.fromkeys(["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
    options = {"requires_aesthetics_score": True} if "Img2Img" in kind else {}
    return _quiet(
        getattr(diffusers, kind)(
            vae=_vae(),
            unet=unet,
            scheduler=scheduler,
            add_watermarker=False,
            **parts,
            **options,
        )
    )


POOLED = {
    "pooled_prompt_embeds": normal(1, 8, seed=2),
    "negative_pooled_prompt_embeds": normal(1, 8, seed=3),
}


def stable_diffusion_xl() -> Small:
    call = {**WORDS, **POOLED, **SIZE, **LATENT, "guidance_scale": 3.0}
    return Small(_xl("StableDiffusionXLPipeline"), call, _images)


def stable_diffusion_xl_refiner() -> Small:
    call = {**WORDS, **POOLED, **LATENT, "guidance_scale": 3.0, "image": normal(1, 4, 8, 8, seed=5)}
    return Small(_xl("StableDiffusionXLImg2ImgPipeline"), {**call, "strength": 0.5}, _images)


def latent_upscaler() -> Small:
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        act_fn="gelu",
        attention_head_dim=4,
        norm_num_groups=None,
        block_out_channels=(32, 32, 64, 64),
        time_cond_proj_dim=128 + 8,
        conv_in_kernel=1,
        conv_out_kernel=1,
        cross_attention_dim=8,
        down_block_types=("KDownBlock2D", *["KCrossAttnDownBlock2D"] * 3),
        up_block_types=(*["KCrossAttnUpBlock2D"] * 3, "KUpBlock2D"),
        mid_block_type=None,
        in_channels=8,
        out_channels=5,
        layers_per_block=1,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        only_cross_attention=False,
    )
    scheduler = diffusers.EulerDiscreteScheduler(prediction_type="sample", **STABLE_DIFFUSION)
    pipe = diffusers.StableDiffusionLatentUpscalePipeline(
        vae=_vae(), text_encoder=None, tokenizer=None, unet=unet, scheduler=scheduler
    )
    call = {**WORDS, **POOLED, **LATENT, "image": normal(1, 4, 8, 8, seed=5)}
    return Small(_quiet(pipe), {**call, "guidance_scale": 3.0}, _images)


def stable_diffusion_3() -> Small:
    import diffusers

    network = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=8,
        pooled_projection_dim=8,
    )
    parts = dict.fromkeys(
        f"{part}{number}" for part in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = diffusers.StableDiffusion3Pipeline(network, scheduler, _vae(), **parts)
    call = {**WORDS, **POOLED, **SIZE, **LATENT, "guidance_scale": 3.0}
    return Small(_quiet(pipe), call, _images)


def flux() -> Small:
    import diffusers

    network = diffusers.FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(2, 2, 4),
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    pipe = diffusers.FluxPipeline(
        scheduler, _vae(1, shift_factor=0.1), None, None, None, None, network
    )
    call = {"prompt_embeds": normal(1, 3, 8), "pooled_prompt_embeds": normal(1, 8)}
    return Small(_quiet(pipe), {**call, **SIZE, **LATENT}, _images)


def flux_img2img() -> Small:
    import diffusers

    made = flux()
    pipe = diffusers.FluxImg2ImgPipeline(
        **{key: made.pipe.components[key] for key in made.pipe.components if "image" not in key}
        | dict.fromkeys(["image_encoder", "feature_extractor"])
    )
    picture = normal(1, 3, 16, 16, seed=5).clamp(-1, 1)
    call = {**made.call, "image": picture, "strength": 0.6}
    return Small(_quiet(pipe), call, _images)


def _wan_scheduler() -> Any:
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )


def wan() -> Small:
    import diffusers

    network = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=8,
        freq_dim=16,
        ffn_dim=16,
        num_layers=1,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    )
    vae = diffusers.AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    pipe = diffusers.WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae,
        scheduler=_wan_scheduler(),
        transformer=network,
    )
    call = {**WORDS, **SIZE, **LATENT, "num_frames": 5, "guidance_scale": 3.0}
    return Small(_quiet(pipe), call, _frames)


def ltx() -> Small:
    import diffusers

    network = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=8,
    )
    four = (8, 8, 8, 8)
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=four,
        decoder_block_out_channels=four,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        patch_size=1,
        patch_size_t=1,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, shift_terminal=0.1
    )
    pipe = diffusers.LTXPipeline(scheduler, vae, None, None, network)
    masks = {
        "prompt_attention_mask": torch.ones(1, 3),
        "negative_prompt_attention_mask": torch.ones(1, 3),
    }
    call = {**WORDS, **masks, **LATENT, "height": 32, "width": 32, "num_frames": 9}
    return Small(_quiet(pipe), {**call, "guidance_scale": 3.0}, _frames)


def cogvideox() -> Small:
    import diffusers

    network = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=8,
        num_layers=1,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=3,
    )
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    scheduler = diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=3.0,
        clip_sample=False,
    )
    pipe = diffusers.CogVideoXPipeline(None, None, vae, network, scheduler)
    call = {**WORDS, **SIZE, **LATENT, "num_frames": 9, "guidance_scale": 3.0}
    return Small(_quiet(pipe), {**call, "max_sequence_length": 3}, _frames)


def stable_video() -> Small:
    import diffusers
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    unet = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 32),
        layers_per_block=1,
        sample_size=8,
        in_channels=8,
        out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=32,
        num_attention_heads=4,
        projection_class_embeddings_input_dim=24,
        addition_time_embed_dim=8,
    )
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
    )
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            projection_dim=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            intermediate_size=16,
            patch_size=4,
        )
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        timestep_spacing="leading",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        **STABLE_DIFFUSION,
    )
    processor = CLIPImageProcessor(crop_size=16, size=16)
    pipe = diffusers.StableVideoDiffusionPipeline(vae, encoder, unet, scheduler, processor)
    picture = normal(1, 3, 16, 16, seed=5).clamp(0, 1)
    call = {"image": picture, "num_frames": 2, "decode_chunk_size": 1, **SIZE, **LATENT}
    return Small(_quiet(pipe), call, _frames)


def dit() -> Small:
    import diffusers

    network = diffusers.DiTTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=4,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=1000,
        norm_elementwise_affine=False,
    )
    scheduler = diffusers.DDIMScheduler()
    pipe = diffusers.DiTPipeline(network, _vae(), scheduler)
    return Small(_quiet(pipe), {"class_labels": [1], "output_type": "np"}, _images)


def kandinsky() -> Small:
    import diffusers

    unet = _unet(
        out_channels=8,
        addition_embed_type="image",
        encoder_hid_dim=8,
        encoder_hid_dim_type="image_proj",
        resnet_time_scale_shift="scale_shift",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )
    movq = diffusers.VQModel(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        num_vq_embeddings=8,
        vq_embed_dim=4,
    )
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, clip_sample=False, variance_type="learned_range"
    )
    pipe = diffusers.KandinskyV22Pipeline(unet, scheduler, movq)
    call = {
        "image_embeds": normal(1, 8, seed=1),
        "negative_image_embeds": normal(1, 8, seed=2),
        "height": 64,
        "width": 64,
        **LATENT,
    }
    return Small(_quiet(pipe), {**call, "guidance_scale": 3.0}, _images)


def pixart() -> Small:
    import diffusers

    network = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=8,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
    )
    scheduler = diffusers.DPMSolverMultistepScheduler()
    pipe = diffusers.PixArtAlphaPipeline(None, None, _vae(), network, scheduler)
    masks = {
        "prompt_attention_mask": torch.ones(1, 3),
        "negative_prompt_attention_mask": torch.ones(1, 3),
    }
    call = {**WORDS, **masks, **SIZE, **LATENT, "use_resolution_binning": False}
    return Small(_quiet(pipe), {**call, "negative_prompt": None}, _images)


def deepfloyd() -> Small:
    import diffusers

    unet = _unet(
        in_channels=3,
        out_channels=6,
        block_out_channels=(32, 32),
        norm_num_groups=32,
        cross_attention_dim=32,
        encoder_hid_dim=32,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        variance_type="learned_range",
    )
    pipe = diffusers.IFPipeline(
        tokenizer=None,
        text_encoder=None,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    words = {
        "prompt_embeds": normal(1, 3, 32, seed=1),
        "negative_prompt_embeds": normal(1, 3, 32),
    }
    call = {**words, **SIZE, "output_type": "pt", "guidance_scale": 3.0}
    return Small(_quiet(pipe), call, _images)


def stable_audio() -> Small:
    import diffusers
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel

    network = diffusers.StableAudioDiTModel(
        sample_size=4,
        in_channels=3,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        num_key_value_attention_heads=2,
        out_channels=3,
        cross_attention_dim=4,
        time_proj_dim=8,
        global_states_input_dim=8,
        cross_attention_input_dim=4,
    )
    vae = diffusers.AutoencoderOobleck(
        encoder_hidden_size=6,
        downsampling_ratios=[1, 2],
        decoder_channels=3,
        decoder_input_channels=3,
        audio_channels=2,
        channel_multiples=[2, 4],
        sampling_rate=4,
    )
    projection = StableAudioProjectionModel(
        text_encoder_dim=4, conditioning_dim=4, min_value=0, max_value=32
    )
    scheduler = diffusers.CosineDPMSolverMultistepScheduler()
    pipe = diffusers.StableAudioPipeline(vae, None, projection, None, network, scheduler)
    call = {
        "prompt_embeds": normal(1, 3, 4, seed=1),
        "negative_prompt_embeds": normal(1, 3, 4, seed=2),
        "attention_mask": torch.ones(1, 3, dtype=torch.long),
        "negative_attention_mask": torch.ones(1, 3, dtype=torch.long),
        "audio_end_in_s": 1.0,
        **LATENT,
    }
    return Small(_quiet(pipe), call, lambda returned: returned.audios)


#: The pipelines by name, in the order of the matrix page.
PIPELINES: dict[str, Callable[[], Small]] = {
    "DDPM": ddpm,
    "Stable Diffusion": stable_diffusion,
    "Stable Diffusion img2img": stable_diffusion_img2img,
    "Stable Diffusion inpaint": stable_diffusion_inpaint,
    "ControlNet": controlnet,
    "SDXL": stable_diffusion_xl,
    "SDXL refiner": stable_diffusion_xl_refiner,
    "Latent upscaler": latent_upscaler,
    "Stable Diffusion 3": stable_diffusion_3,
    "Flux": flux,
    "Flux img2img": flux_img2img,
    "Wan": wan,
    "LTX-Video": ltx,
    "CogVideoX": cogvideox,
    "Stable Video Diffusion": stable_video,
    "DiT": dit,
    "Kandinsky 2.2": kandinsky,
    "PixArt": pixart,
    "DeepFloyd IF": deepfloyd,
    "Stable Audio": stable_audio,
}
