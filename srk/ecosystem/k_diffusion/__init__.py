"""Samplers with the calling convention of k-diffusion, for ComfyUI, A1111, Forge and others.

Such hosts look for functions `sample(model, x, sigmas, ...)`. `sampler` makes one of any solver.
"""

from srk.ecosystem.k_diffusion.frames import Frame as Frame
from srk.ecosystem.k_diffusion.frames import frame_of
from srk.ecosystem.k_diffusion.noise import NoiseName as NoiseName
from srk.ecosystem.k_diffusion.noise import NoiseSampler as NoiseSampler
from srk.ecosystem.k_diffusion.samplers import Calls as Calls
from srk.ecosystem.k_diffusion.samplers import Model as Model
from srk.ecosystem.k_diffusion.samplers import Sampler as Sampler
from srk.ecosystem.k_diffusion.samplers import sampler
from srk.ecosystem.k_diffusion.schedules import sigmas_of

sample_auto = sampler("auto")
sample_ddpm = sampler("ddpm")
sample_etd_sra1 = sampler("etd-sra1")
sample_euler_maruyama = sampler("euler-maruyama")
sample_srk1 = sampler("srk1")
sample_srk2 = sampler("srk2")
sample_srk2m = sampler("srk2m")
sample_srk2m_local = sampler("srk2m-local")
sample_srk2s = sampler("srk2s")
sample_wcw = sampler("wcw")

__all__ = [
    "frame_of",
    "sample_auto",
    "sample_ddpm",
    "sample_etd_sra1",
    "sample_euler_maruyama",
    "sample_srk1",
    "sample_srk2",
    "sample_srk2m",
    "sample_srk2m_local",
    "sample_srk2s",
    "sample_wcw",
    "sampler",
    "sigmas_of",
]
