"""What the parts of a product are given: noise, states, shapes, each checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from srk._checks import shown
from srk._engine.product_adaptive import check_ends
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.noise import NoiseSource, noise_source, part_seed
from srk.noise.seeds import check_seed
from srk.processes.product import Product, check_names, for_each
from srk.sampling.arguments import hooks_given
from srk.sampling.sampler import Sampler
from srk.steps import Budget, Grid, Profile, StepController


def sources_given(
    noise: Any, seed: int | None, names: Sequence[str], default: str = "generator"
) -> tuple[dict[str, NoiseSource], int | None]:
    """The noise of each part, and the seed of the run where one is used.

    A source by its name gets the seed of the part, `part_seed`; a source that is given has its own.
    """
    if not isinstance(noise, str | Mapping | None):
        raise ArgumentTypeError(
            "the parts of a product draw independent noise, so that one source is not enough: "
            "give the name of a source, or a dict with a source for each part, not "
            f"{shown(noise)}; e.g. noise={{{names[0]!r}: srk.noise.KeyedNoise(1), ...}}"
        )
    wanted: dict[str, Any] = for_each(default if noise is None else noise, names, "noise")
    named = [name for name in names if isinstance(wanted[name], str)]
    if seed is not None and not named:
        raise ArgumentError(
            "all parts have noise sources of their own, which have their own seeds; leave seed out"
        )
    root = check_seed(seed) if named else None
    made: dict[str, NoiseSource] = {}
    used: dict[tuple[type, int], str] = {}
    for name in names:
        own = part_seed(root, name) if root is not None and name in named else None
        made[name] = source = noise_source(wanted[name], own)
        if source.seed is None:
            continue
        other = used.setdefault((type(source), source.seed), name)
        if other != name:
            raise ArgumentError(
                f"the noise of the parts {other!r} and {name!r} has the same seed {source.seed}, "
                "so that both would draw the same numbers; give each part a seed of its own, e.g. "
                f"srk.noise.part_seed({source.seed}, {name!r})"
            )
    return made, root


def states_given(x_init: Any, names: Sequence[str]) -> dict[str, Tensor | None]:
    """The state that each part starts from; None where it is drawn."""
    if x_init is None:
        return dict.fromkeys(names)
    if not isinstance(x_init, Mapping):
        raise ArgumentTypeError(
            f"x_init of a product is a dict with a tensor for each part, not {shown(x_init)}"
        )
    check_names(x_init, names, "x_init")
    return {name: x_init[name] for name in names}


def shapes_given(shape: Any, names: Sequence[str]) -> dict[str, Any]:
    """The shape of each part, as a run of its own takes it."""
    if isinstance(shape, Sequence) and not isinstance(shape, str):
        example = ", ".join(f"{name!r}: (16, 3)" for name in names)
        raise ArgumentTypeError(
            "the shape of a product is a dict with the shape of each part, not "
            f"{shown(shape)}; e.g. shape={{{example}}}"
        )
    return for_each(shape, names, "shape")


def check_batch(states: Mapping[str, Tensor]) -> None:
    """Raise `ArgumentError` unless all parts have as many samples."""
    sizes = {name: len(x) for name, x in states.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{size} of {name!r}" for name, size in sizes.items())
        raise ArgumentError(
            f"the parts of a product have one batch axis, but there are {told}; give every part "
            "the same number of samples"
        )


def part_hooks_given(hooks: Any, names: Sequence[str]) -> dict[str, Any]:
    """The hooks of each part."""
    if not hooks:
        return dict.fromkeys(names, ())
    if not isinstance(hooks, Mapping):
        raise ArgumentTypeError(
            "a hook acts on one part of a product, so that hooks is a dict, e.g. "
            f"hooks={{{names[0]!r}: [srk.scores.Clip()]}}, not {shown(hooks)}"
        )
    unknown = [name for name in hooks if name not in names]
    if unknown:
        raise ArgumentError(f"hooks of {unknown}, but the parts are {', '.join(map(repr, names))}")
    return {name: hooks_given(hooks.get(name, ())) for name in names}


def compiles_given(compile: Any, names: Sequence[str]) -> dict[str, Any]:
    """Which parts have their arithmetic compiled."""
    made = for_each(compile, names, "compile")
    if "loop" in made.values():
        raise IncompatibleError(
            "compile='loop' captures the run of one state as a CUDA graph, and a product has "
            "several; use compile='step', which compiles the arithmetic of each part"
        )
    return made


def profiles_given(profile: Any, names: Sequence[str]) -> dict[str, Profile | None]:
    """The profile of each part that has one."""
    if profile is None:
        return dict.fromkeys(names)
    if not isinstance(profile, Mapping):
        raise ArgumentTypeError(
            "a profile is measured of the network of one part, so that a product takes a dict, "
            f"e.g. profile={{{names[0]!r}: profile}}, not {shown(profile)}"
        )
    unknown = [name for name in profile if name not in names]
    if unknown:
        raise ArgumentError(
            f"profiles of {unknown}, but the parts are {', '.join(map(repr, names))}"
        )
    return {name: profile.get(name) for name in names}


def common_control(
    samplers: Mapping[str, Sampler], grid: Any, product: Product
) -> StepController | None:
    """The controller of an adaptive run of a product; None where all parts have grids.

    Arguments:
        samplers: the sampler of each part.
        grid: what the user gave.
        product: the parts.
    """
    for name, sampler in samplers.items():
        if isinstance(sampler.control, Budget) and sampler.control.profile is None:
            raise IncompatibleError(
                f"{sampler.control!r} finds its steps from calls of the network of one state, "
                f"which the part {name!r} of a product has not; give what was measured of it, "
                f"profile={{{name!r}: srk.calibrate(process, score)}}, or use grid='log-snr'"
            )
    free = [name for name, one in samplers.items() if not isinstance(one.control, Grid)]
    if not free:
        return None
    control = samplers[free[0]].control
    if isinstance(grid, Mapping):
        raise IncompatibleError(
            f"{control!r} decides about the steps of all parts together, so that it is given "
            f"for all of them and not for the part {free[0]!r}; e.g. grid='adaptive'"
        )
    if getattr(control, "norm", "") == "sample":
        raise IncompatibleError(
            "norm='sample' lets some samples take a step again by themselves, which a product "
            "does not do yet; use srk.steps.Adaptive(norm='batch') or norm='worst'"
        )
    check_ends(product.centred)
    return control
