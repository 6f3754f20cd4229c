"""The noise sources by name, and how to add one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from srk._checks import shown
from srk.errors import ArgumentError, ArgumentTypeError
from srk.noise.base import NoiseSource
from srk.noise.brownian import BrownianNoise
from srk.noise.generator import GeneratorNoise
from srk.noise.keyed import KeyedNoise
from srk.noise.user import CallableNoise, ZeroNoise
from srk.registry import Registry

S = TypeVar("S", bound=NoiseSource)


def _what(_name: str, source: type[NoiseSource]) -> str:
    return (inspect.getdoc(source) or "").partition("\n")[0].split(": ", 1)[-1]


NOISES: Registry[type[NoiseSource]] = Registry(
    "noise source", {"what": _what}, listed_by="srk.noise()"
)


@overload
def register_noise(cls: type[S], name: str | None = None) -> type[S]: ...
@overload
def register_noise(cls: None = None, name: str | None = None) -> Callable[[type[S]], type[S]]: ...
def register_noise(
    cls: type[S] | None = None, name: str | None = None
) -> type[S] | Callable[[type[S]], type[S]]:
    """Make a noise source available by name, as `solve(noise="name", seed=...)`; a decorator too.

    Arguments:
        cls: a subclass of `NoiseSource` that can be made from a seed alone, `cls(seed)`; the seed
            is None where the user gives none.
        name: the name; default `cls.name`.

    Returns:
        `cls`, unchanged; without `cls`, a decorator.

    Raises:
        ArgumentTypeError: `cls` is not a subclass of `NoiseSource`, methods are missing, or it does
            not take a seed.
        DuplicateNameError: the name is taken.

    Examples:
        >>> import srk, torch
        >>> @srk.register_noise
        ... class Antithetic(srk.noise.GeneratorNoise):
        ...     '''`antithetic`: half of the batch gets the negated noise of the other.'''
        ...
        ...     name = "antithetic"
        ...
        ...     def prior(self, out):
        ...         half = len(out) // 2
        ...         super().prior(out[:half])
        ...         torch.neg(out[:half], out=out[half:])
        ...
        ...     def draw(self, slot, clock, out):
        ...         self.prior(out)
        >>> process = srk.VP()
        >>> score = srk.targets.Gaussian(0.0, 1.0).score(process)
        >>> x = srk.solve(process, score, shape=(4, 1), steps=5, noise="antithetic", seed=0).x
        >>> bool((x[:2] + x[2:]).abs().max() < 1e-6)
        True
        >>> srk.noise().unregister("antithetic")
    """
    if cls is None:
        return lambda decorated: register_noise(decorated, name)
    given: Any = cls  # the annotation is a promise that callers may break
    if not (isinstance(given, type) and issubclass(given, NoiseSource)):
        raise ArgumentTypeError(
            f"a noise source is registered as a subclass of srk.noise.NoiseSource, not {shown(cls)}"
        )
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ArgumentTypeError(
            f"{cls.__name__} cannot be registered: it does not define {missing}"
        )
    try:
        inspect.signature(cls).bind(None)
    except TypeError:
        raise ArgumentTypeError(
            f"{cls.__name__} cannot be registered: solve(noise='name', seed=0) makes it from the "
            f"seed alone, as {cls.__name__}(0), which its arguments do not allow"
        ) from None
    name = cls.name if name is None else name
    if name == "":
        raise ArgumentError(
            f'{cls.__name__} has no name; set `name = "..."` in the class, or write '
            f'register_noise({cls.__name__}, "...")'
        )
    return NOISES.register(name, cls)  # type: ignore[return-value]


def noise_source(
    noise: str | NoiseSource | Callable[..., Any] | None, seed: int | None
) -> NoiseSource:
    """A source for one run, from what a user gives.

    Arguments:
        noise: a registered name, which is made with `seed`; a `NoiseSource`, which has its own seed
            and is only read; a function (slot, clock, out) that draws; None for "generator".
        seed: any integer, or None.

    Raises:
        UnknownNameError: no source has this name.
        ArgumentError: a seed where the source has its own.
        ArgumentTypeError: `noise` is none of these, or the seed is not an integer.
    """
    if noise is None:
        noise = "generator"
    if isinstance(noise, NoiseSource):
        if seed is not None:
            raise ArgumentError(
                "give the seed to the noise source or to solve(), not to both: "
                "noise='generator', seed=0"
            )
        return noise.fresh()
    if isinstance(noise, str):
        make: Any = NOISES[noise]
        made: NoiseSource = make(seed)
        return made
    if callable(noise) and not isinstance(noise, type):
        if seed is not None:
            raise ArgumentError(
                "a noise function has no seed that solve() could set; seed it yourself and leave "
                "seed out"
            )
        return CallableNoise(noise)
    raise ArgumentTypeError(
        "noise must be the name of a noise source, an srk.noise.NoiseSource or a function of "
        f"(slot, clock, out), not {shown(noise)}; for example noise='keyed', seed=0"
    )


for _source in (GeneratorNoise, KeyedNoise, BrownianNoise, ZeroNoise):
    register_noise(_source)
