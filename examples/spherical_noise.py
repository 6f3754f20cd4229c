"""A noise source of your own: noise that is white on the sphere, as weather models draw it.

Run: python examples/spherical_noise.py
"""

import copy
import math

import torch
from scipy.special import sph_legendre_p_all

import srk


@srk.register_noise
class SphericalNoise(srk.noise.NoiseSource):
    """`spherical`: isotropic noise on a grid (..., latitudes, longitudes) with both poles.

    The coefficient of each real spherical harmonic up to a degree is an independent normal. The
    variance is 1 at every point, however narrow the cells near the poles are. A sample has the same
    noise in any batch.

    Arguments:
        seed: any integer.
        degree: the largest degree; it must be below half of the longitudes.
    """

    name = "spherical"

    def __init__(self, seed=None, degree=10):
        self.keyed, self.degree = srk.noise.KeyedNoise(seed), degree

    @property
    def seed(self):
        return self.keyed.seed

    def fresh(self):
        made = copy.copy(self)
        made.keyed = self.keyed.fresh()
        return made

    def part(self, first, count):
        made = copy.copy(self)
        made.keyed = self.keyed.part(first, count)
        return made

    def start(self, shape, dtype, device):
        n = self.degree + 1
        *lead, rows, columns = shape
        colatitude = torch.linspace(0.0, math.pi, rows, dtype=torch.float64)
        # [degree, order, latitude]; the factor makes the variance 1 and the sum over orders real
        table = torch.from_numpy(sph_legendre_p_all(n - 1, n - 1, colatitude.numpy())[0, :, :n])
        table[:, 1:] *= math.sqrt(2.0)
        table *= math.sqrt(4.0 * math.pi) / n
        self.table = table.to(device=device, dtype=dtype)
        self.columns = columns
        self.normals = torch.empty((*lead, 2, n, n), dtype=dtype, device=device)
        self.keyed.start(self.normals.shape, dtype, device)

    def prepare(self, plans):
        self.keyed.prepare(plans)

    def prior(self, out):
        self.keyed.prior(self.normals)
        self.synthesize(out)

    def draw(self, slot, clock, out):
        self.keyed.draw(slot, clock, self.normals)
        self.synthesize(out)

    def synthesize(self, out):
        """The field of the coefficients: a sum over degrees, then a Fourier sum over orders."""
        cosines, sines = torch.einsum("...klm,lmj->k...jm", self.normals, self.table)
        cosines[..., 0] *= 2.0  # irfft counts the orders above 0 twice
        spectrum = torch.complex(cosines, -sines) * (0.5 * self.columns)
        out.copy_(torch.fft.irfft(spectrum, n=self.columns))


def main(samples=64):
    process = srk.EDM(sigma_max=80.0)
    target = srk.targets.Gaussian(0.0, 1.0, event_shape=(2, 25, 48))  # in place of the forecast
    sol = srk.solve(
        process,
        target.score(process),
        "gencast",
        shape=samples,
        steps=20,
        noise=SphericalNoise(seed=0, degree=12),
    )
    variance = sol.x.square().mean((0, 1, 3))
    print("variance of the samples from pole to pole:")
    print(" ".join(f"{value:.2f}" for value in variance.tolist()))
    return sol


if __name__ == "__main__":
    main()
