"""Profiles as the hosts give them: a file, plain values, or the profile itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from srk._checks import shown
from srk.errors import ArgumentError, ArgumentTypeError
from srk.steps import Profile


def profile_of(given: Any) -> Profile | None:
    """The profile in a file, in the values of `Profile.to_dict`, or itself; None and "" are none.

    Raises:
        ArgumentError: there is no such file, or it is none of a profile.
        ArgumentTypeError: it is something else.
    """
    if given is None or given == "":
        return None
    if isinstance(given, Profile):
        return given
    if isinstance(given, Mapping):
        return Profile.from_dict(dict(given))
    if isinstance(given, str | os.PathLike):
        try:
            return Profile.load(given)
        except OSError as error:
            raise ArgumentError(
                f"profile={os.fspath(given)!r} cannot be read ({error.strerror}); give the path of "
                "a file that srk.calibrate(process, score).save(path) or srk calibrate wrote"
            ) from None
    raise ArgumentTypeError(
        f"profile is a srk.Profile, its path or its dict, not {shown(given)}; measure one: "
        "srk.calibrate(process, score)"
    )
