"""The stochasticity of a config: as plain values that JSON keeps, and as what the planner takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from srk import eta as rules
from srk.errors import ArgumentError

#: The rules of `srk.eta` that have a name, by the class of what they make.
NAMES: Mapping[type, str] = {
    type(rules.flow_grpo()): "flow_grpo",
    type(rules.dance()): "dance",
    type(rules.cps()): "cps",
    type(rules.window(0, 0)): "window",
}


def plain_eta(eta: Any) -> Any:
    """An eta as a number, a list, or {"rule": name, ...}; other functions and rules as they are."""
    if eta is None:
        return None
    if isinstance(eta, Mapping):
        eta_of(eta)  # refuse what is no rule now
        return dict(eta)
    given = rules.as_eta(eta)
    if isinstance(given, tuple):
        return list(given)
    name = NAMES.get(type(given))
    if name is None:
        return given
    values = {field.name: getattr(given, field.name) for field in attrs.fields(type(given))}
    if "eta" in values:
        values["eta"] = plain_eta(values["eta"])
    return {"rule": name, **values}


def eta_of(plain: Any) -> Any:
    """What `plain_eta` was made of, in the form of `srk.eta.as_eta`."""
    if not isinstance(plain, Mapping):
        return rules.as_eta(plain)
    values = dict(plain)
    name = values.pop("rule", None)
    if name not in NAMES.values():
        raise ArgumentError(
            f"eta={dict(plain)!r} is no rule; it is like {{'rule': 'flow_grpo', 'a': 0.7}}, with "
            f"one of the rules {', '.join(map(repr, NAMES.values()))} of srk.eta"
        )
    if "eta" in values:
        values["eta"] = eta_of(values["eta"])
    try:
        return getattr(rules, name)(**values)
    except TypeError as error:
        raise ArgumentError(f"eta={dict(plain)!r}: srk.eta.{name} has other options") from error


def check_plain(config: Mapping[str, Any]) -> None:
    """Raise if the eta of a config is a function, which no file can keep."""
    eta = config.get("eta")
    try:
        json.dumps(eta)
    except TypeError as error:
        raise ArgumentError(
            f"eta={eta!r} is a function, which the config file of a scheduler cannot hold; save it "
            "with a number, a list or a named rule such as srk.eta.flow_grpo(0.7)"
        ) from error
