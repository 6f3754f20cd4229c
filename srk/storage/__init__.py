"""Sets of samples on disk: drawn in shards by global index, by one process or many, and resumed where a run was stopped."""

from srk.storage.draw import SampleSet, sample_to
from srk.storage.group import process_device

__all__ = ["SampleSet", "process_device", "sample_to"]
