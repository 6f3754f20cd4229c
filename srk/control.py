"""The old name of `srk.steps`, for one release."""

import sys
import warnings

from srk import steps
from srk.steps import *  # noqa: F403  # the old name offers all that the new one does
from srk.steps import __all__ as __all__
from srk.steps import adaptive, base, budget, grids

warnings.warn(
    "srk.control is now srk.steps; the old name goes with the next release",
    DeprecationWarning,
    stacklevel=2,
)
for _module in (adaptive, base, budget, grids):
    sys.modules[_module.__name__.replace(steps.__name__, __name__)] = _module
