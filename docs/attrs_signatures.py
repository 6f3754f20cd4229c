"""Signatures of attrs classes for the API reference.

Their fields, inherited ones first, with annotations and defaults (an extension of Griffe).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import griffe


class AttrsSignatures(griffe.Extension):
    """Gives each class that attrs decorates, and that has no `__init__` of its own, one that takes
    its fields.
    """

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for cls in classes(pkg):
            if decorated(cls) and "__init__" not in cls.members:
                fields: dict[str, griffe.Parameter] = {}
                for base in reversed([cls, *cls.mro()]):
                    if decorated(base):
                        fields |= own_fields(base)
                parameters = [
                    griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword),
                    *sorted(
                        fields.values(),
                        key=lambda field: field.kind == griffe.ParameterKind.keyword_only,
                    ),
                ]
                cls.set_member(
                    "__init__",
                    griffe.Function("__init__", parameters=griffe.Parameters(*parameters)),
                )


def classes(scope: griffe.Object) -> Iterator[griffe.Class]:
    """All classes that are defined in a module or class."""
    for member in scope.members.values():
        if isinstance(member, griffe.Class):
            yield member
        if isinstance(member, griffe.Module | griffe.Class):
            yield from classes(member)


def decorated(cls: Any) -> bool:
    return any(str(decorator.value).startswith("attrs.") for decorator in cls.decorators)


def own_fields(cls: Any) -> dict[str, griffe.Parameter]:
    """The fields in the body of a class, with the parameters that attrs makes of them."""
    named = any("kw_only=True" in str(decorator.value) for decorator in cls.decorators)
    fields = {}
    for name, field in cls.members.items():
        if (
            not isinstance(field, griffe.Attribute)
            or field.annotation is None
            or "instance-attribute" not in field.labels
        ):
            continue
        default = field.value
        kind = griffe.ParameterKind.positional_or_keyword
        if named:  # this holds for the fields of this class, not for those of its subclasses
            kind = griffe.ParameterKind.keyword_only
        if isinstance(
            default, griffe.ExprCall
        ):  # attrs.field(default=..., validator=...), or a helper of that kind: parameter(0.1)
            options = {
                option.name: option.value
                for option in default.arguments
                if isinstance(option, griffe.ExprKeyword)
            }
            if str(options.get("init")) == "False":
                continue
            if str(options.get("kw_only")) == "True":
                kind = griffe.ParameterKind.keyword_only
            name = str(options.get("alias", name.lstrip("_"))).strip("\"'")
            if name.startswith("_"):  # an argument for the package itself
                continue
            given = [
                argument
                for argument in default.arguments
                if not isinstance(argument, griffe.ExprKeyword)
            ]
            default = options.get(
                "default", given[0] if given else "..." if "factory" in options else None
            )
        name = name.lstrip("_")  # what attrs makes of a private name
        fields[name] = griffe.Parameter(
            name, annotation=field.annotation, default=default, kind=kind
        )
    return fields
