"""Sets of samples: drawn by index on any machines, kept on any store, resumed after a stop."""

from srk.storage.draw import sample_to
from srk.storage.engines import Local, Ray, Slurm, Torchrun
from srk.storage.group import process_device
from srk.storage.sets import SampleSet

__all__ = ["Local", "Ray", "SampleSet", "Slurm", "Torchrun", "process_device", "sample_to"]
