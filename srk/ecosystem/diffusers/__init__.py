"""diffusers: `SRKScheduler` for its pipelines, `from_diffusers` and `from_pipeline` for `srk.solve`
with its networks.
"""

from srk.ecosystem.diffusers.bridge import from_diffusers, from_pipeline
from srk.ecosystem.diffusers.scheduler import SRKScheduler, SRKSchedulerOutput

__all__ = ["SRKScheduler", "SRKSchedulerOutput", "from_diffusers", "from_pipeline"]
