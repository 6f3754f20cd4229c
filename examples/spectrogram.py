"""Speech enhancement in miniature: complex spectrograms sampled given a noisy recording.

A small network is trained on synthetic tones in noise, then srk draws clean spectrograms.

Run: python examples/spectrogram.py  (about 15 seconds)
"""

import argparse
import math

import torch
from torch import nn

import srk

LENGTH, FFT, HOP = 1024, 64, 16
PROCESS = srk.VP()
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
    """(z, t, y) -> the clean spectrogram behind z = alpha z0 + sigma eps, given the noisy y."""

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
        return y + torch.view_as_complex(out.contiguous())


def training(network, steps, generator):
    """Denoising: z0 from z0 in complex noise of variance 1, times sigma, given the recording."""
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(steps):
        signals = clean_signals(8, generator)
        clean = spectrogram(signals)
        noisy = spectrogram(signals + torch.randn(signals.shape, generator=generator))
        t = 1e-3 + 0.999 * torch.rand(len(clean), generator=generator)
        levels = [PROCESS.level(float(time)) for time in t]
        alpha, sigma = (
            torch.tensor([getattr(level, name) for level in levels])[:, None, None]
            for name in ("alpha", "sigma")
        )
        noise = torch.randn(clean.shape, dtype=clean.dtype, generator=generator)
        error = network(alpha * clean + sigma * noise, t, noisy) - clean
        loss = error.abs().square().mean()
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
    options = parser.parse_args(arguments)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the network's first weights
        network = Network()
    training(network, options.training_steps, generator)
    truth = clean_signals(16, generator)
    recording = truth + torch.randn(truth.shape, generator=generator)
    noisy = spectrogram(recording)
    sol = srk.solve(
        PROCESS,
        srk.Data(network, model_kwargs={"y": noisy}),
        "srk2m",
        shape=noisy.shape,
        dtype=noisy.dtype,  # complex64: the noise is complex, of variance 1
        nfe=options.nfe,
        seed=0,
    )
    before, after = decibels(recording, truth).mean(), decibels(waveform(sol.x), truth).mean()
    print(f"{tuple(sol.x.shape)} {sol.x.dtype}, {sol.nfe} network calls")
    print(f"signal to distortion: {before:.1f} dB before, {after:.1f} dB after")
    return float(before), float(after)


if __name__ == "__main__":
    main()
