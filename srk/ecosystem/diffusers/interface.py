"""The classes of diffusers that a scheduler is made of; a clear error where it is missing."""

from __future__ import annotations

from srk.errors import MissingExtraError

try:
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.schedulers.scheduling_utils import SchedulerMixin
    from diffusers.utils import BaseOutput
except ImportError as error:
    raise MissingExtraError("srk.ecosystem.diffusers", "diffusers", "diffusers") from error

__all__ = ["BaseOutput", "ConfigMixin", "SchedulerMixin", "register_to_config"]
