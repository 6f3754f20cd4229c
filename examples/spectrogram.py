"""Speech enhancement in miniature: complex spectrograms sampled given a noisy recording.

A small network is trained on synthetic tones in noise, under the process of SGMSE, whose noise is
around the noisy spectrogram. Then srk draws clean spectrograms, by SGMSE's sampler and by its own.

Run: python examples/spectrogram.py  (about 15 seconds)
"""

import argparse
import math

import torch
from torch import nn

import srk

LENGTH, FFT, HOP = 1024, 64, 16
WINDOW = torch.hann_window(FFT)


def clean_signals(count, generator):
    """Tones with harmonics and a slow envelope, in short for voiced speech."""
    t = torch.arange(LENGTH) / LENGTH
    pitch, phase, speed = torch.rand(3, count, 1, 1, generator=generator)
    order = torch.arange(1.0, 4.0)[:, None]
    angle = 2 * math.pi * order * ((30 + 40 * pitch) * t + phase)
    envelope = 1 + torch.cos(2 * math.pi * (1 + 2 * speed) * t + 6 * phase)
    return (envelope * torch.sin(angle) / order).sum(1)


def spectrogram(signals):
    """Complex, of shape (batch, frequencies, frames)."""
    return torch.stft(signals, FFT, HOP, window=WINDOW, return_complex=True) / 8.0


def waveform(spectrograms):
    return torch.istft(spectrograms * 8.0, FFT, HOP, window=WINDOW, length=LENGTH)


class Network(nn.Module):
    """(z, t, y) -> the clean spectrogram behind the state z, given the noisy y."""

    def __init__(self, width=24):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(5, width, 5, padding=2),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2, 5, padding=2),
        )

    def forward(self, z, t, y):
        parts = [torch.view_as_real(v).movedim(-1, 1) for v in (z, y)]
        level = t.to(parts[0])[:, None, None, None].expand(-1, 1, *z.shape[1:])
        out = self.layers(torch.cat([*parts, level], 1)).movedim(1, -1)
        return z + t[:, None, None] * torch.view_as_complex(out.contiguous())


def training(network, steps, generator):
    """Denoising under the process: the clean spectrogram from a state between it and the noisy."""
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(steps):
        signals = clean_signals(8, generator)
        clean = spectrogram(signals)
        noisy = spectrogram(signals + torch.randn(signals.shape, generator=generator))
        t = 0.03 + 0.97 * torch.rand(len(clean), generator=generator)
        state = srk.OUVE(mean=noisy).perturb(clean, t, generator=generator)
        loss = (network(state, t, noisy) - clean).abs().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def decibels(estimate, truth):
    """Signal to distortion of each recording."""
    return 10 * (truth.square().sum(1) / (estimate - truth).square().sum(1)).log10()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--training-steps", type=int, default=400)
    parser.add_argument("--nfe", type=int, default=12)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args(arguments)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the network's first weights
        network = Network()
    training(network, options.training_steps, generator)
    truth = clean_signals(16, generator)
    recording = truth + torch.randn(truth.shape, generator=generator)
    noisy = spectrogram(recording)
    process = srk.OUVE(mean=noisy)
    score = srk.Data(network, model_kwargs={"y": noisy})
    # The states are complex, and so is the noise, of variance 1.
    run = {"shape": noisy.shape, "dtype": noisy.dtype, "seed": 0}
    found = {"the recordings": recording}
    ours = srk.solve(process, score, "srk2m", nfe=options.nfe, **run)
    found[f"srk2m, {ours.nfe} calls"] = waveform(ours.x)
    sgmse = srk.integrators.PredictorCorrector.sgmse()
    run |= {"grid": "uniform", "steps": options.steps, "denoise_final": "mean"}
    theirs = srk.solve(process, score, sgmse, **run)
    found[f"SGMSE's sampler, {theirs.nfe} calls"] = waveform(theirs.x)
    print(f"{tuple(ours.x.shape)} {ours.x.dtype}; signal to distortion of")
    for name, signals in found.items():
        print(f"  {name:<28}{decibels(signals, truth).mean():5.1f} dB")
    return [float(decibels(signals, truth).mean()) for signals in found.values()]


if __name__ == "__main__":
    main()
