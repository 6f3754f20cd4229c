"""Runs of products: what the parts of a run are given, checked and planned part by part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from srk._checks import choice, integer, shown
from srk._engine.product import PartRun, check_lockstep, run_product
from srk._engine.run import Controlled, Job
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, SolveError
from srk.noise import NoiseSource, noise_source, part_seed
from srk.noise.seeds import check_seed
from srk.processes.product import Product, check_names, for_each
from srk.sampling.arguments import autocast_given, saves_given
from srk.sampling.sampler import Sampler
from srk.scores.joint import BoundPrediction, ProductPrediction
from srk.solution import ProductSolution
from srk.steps import Budget, Grid

NOT_YET = {
    "controller": "it is the old name of grid; use grid=...",
    "profile": "a profile is measured on one state; give the grid of each part by name",
    "compile": "compiled steps belong to one state; leave compile out",
    "parallel": "its parts step together, one call after the other; leave it out",
    "microbatch": "the conditions of a joint network cannot be cut; call srk.solve once for each "
    "piece of the batch, with noise of its own",
    "callback": "a StepInfo holds one state; keep the states with save='x'",
    "hooks": "they act on one state; wrap the prediction of a part in srk.Hooked",
    "progress": "the progress bar counts the steps of one state; leave progress out",
}
"""Arguments of `srk.solve` that a product does not take, and what to do instead."""


def solve_product(
    product: Product,
    score: Any,
    solver: Any = "auto",
    *,
    shape: Any = None,
    x_init: Mapping[str, Tensor] | None = None,
    steps: Any = None,
    nfe: Any = None,
    grid: Any = None,
    eta: Any = None,
    noise: Any = None,
    seed: int | None = None,
    device: Any = None,
    dtype: Any = None,
    denoise_final: Any = None,
    autocast: torch.dtype | None = None,
    calls: Any = "free",
    grad: Any = False,
    save: str | Iterable[str] | None = None,
    on_failure: Literal["raise", "return"] = "raise",
    **others: Any,
) -> ProductSolution:
    """Draw samples of a product; the arguments are those of `srk.solve`, each for all parts.

    Arguments:
        product: the parts and their processes.
        score: `srk.scores.Joint` or `srk.scores.Independent`.
        x_init: a state for each part, by name.
        solver, shape, steps, grid, eta, device, dtype, denoise_final: one value for all parts, or
            a dict with a value for each.
        noise: the name of a noise source, or a dict with a name, source or function for each part.
        nfe, seed, autocast, calls, grad, save, on_failure: of the run.
        others: arguments that a product does not take; an error for each that is given.
    """
    names = product.names
    on_failure = choice(on_failure, ("raise", "return"), "on_failure")
    saves = _checked(score, save, grad, others)
    bound: BoundPrediction = score.bind(product)
    samplers = _samplers(
        product,
        bound,
        nfe,
        autocast_given(autocast),
        choice(calls, ("free", "schedule"), "calls"),
        solver=for_each(solver, names, "solver"),
        steps=for_each(steps, names, "steps"),
        grid=for_each(grid, names, "grid"),
        eta=for_each(eta, names, "eta"),
        denoise_final=for_each(denoise_final, names, "denoise_final"),
    )
    sources, seed = _sources(noise, seed, names)
    states, shapes = _states(x_init, names), _shapes(shape, names)
    devices, dtypes = for_each(device, names, "device"), for_each(dtype, names, "dtype")
    parts: dict[str, PartRun] = {}
    for name, sampler in samplers.items():
        sampler._check_grad(grad, states[name])
        x, source = sampler._start(
            shapes[name],
            states[name],
            sources[name],
            None,
            devices[name],
            dtypes[name],
            bool(grad),
        )
        plans, etas = sampler._route(
            sampler._problem(x, source),
            given=states[name] is not None,
            grad=bool(grad),
            saves=saves,
        )
        assert not isinstance(plans, Controlled)  # `_samplers` refuses controllers
        source.prepare(plans)
        job = Job(
            process=sampler.process,
            prediction=sampler.prediction,
            method=sampler.method,
            eta=sampler._eta,
            etas=etas,
            label=sampler.label,
            denoise=sampler.denoise,
            autocast=sampler.autocast,
            grad=bool(grad),
            saves=saves,
        )
        parts[name] = PartRun(job, plans, x, source)
    _check_batch(parts)
    check_lockstep(parts)
    solution, failed = run_product(parts, bound, seed=seed, grad=bool(grad), autocast=autocast)
    if failed and on_failure == "raise":
        raise SolveError(
            f"{solution.status}; the states of the parts are in .solution.x (or use "
            "on_failure='return')",
            solution,
        )
    return solution


def _checked(
    score: Any, save: str | Iterable[str] | None, grad: Any, others: Mapping[str, Any]
) -> frozenset[str]:
    """What to save, of a call whose other arguments a product can take."""
    if not isinstance(score, ProductPrediction):
        raise ArgumentTypeError(
            "the score of a product says what is known of each part: "
            "srk.scores.Joint(network, a='data', b='noise') for one network of all parts, or "
            f"srk.scores.Independent(a=..., b=...) for one of each, not {shown(score)}"
        )
    for name, value in others.items():
        if value:
            raise IncompatibleError(
                f"{name}={shown(value)} is not for a product yet: {NOT_YET[name]}"
            )
    if choice(grad, (False, True, "checkpoint"), "grad") == "checkpoint":
        raise IncompatibleError(
            "grad='checkpoint' is not for a product yet: it repeats the steps of one state; "
            "use grad=True"
        )
    saves = saves_given(save)
    if "log_prob" in saves:
        raise IncompatibleError(
            "save='log_prob' is not for a product yet: it reads the network calls of one state; "
            "use save='x'"
        )
    return saves


def _samplers(
    product: Product,
    bound: BoundPrediction,
    nfe: Any,
    autocast: torch.dtype | None,
    calls: Any,
    **given: Mapping[str, Any],
) -> dict[str, Sampler]:
    """A sampler for each part: its solver, grid and eta, checked as those of a run of its own."""
    if isinstance(nfe, Mapping):
        raise ArgumentTypeError(
            "nfe counts calls of the network of all parts, so that it is one number; e.g. nfe=20"
        )
    dear = max(part.calls() for part in bound.parts.values())
    evaluations = None if nfe is None else integer(nfe, "nfe", least=1) // dear
    if evaluations == 0:
        raise ArgumentError(
            f"nfe={nfe} buys no evaluation, for the dearest part makes {dear} network calls in "
            f"each; use nfe={2 * dear} or more"
        )
    made: dict[str, Sampler] = {}
    for name, process in product.parts.items():
        options = {key: values[name] for key, values in given.items()}
        prediction = bound.parts[name]
        if evaluations is not None:
            # a part whose own evaluation is cheaper takes as many evaluations as the dearest
            options["nfe"] = evaluations * prediction.calls()
        made[name] = sampler = Sampler(
            process, prediction, autocast=autocast, calls=calls, **options
        )
        control = sampler.control
        if not isinstance(control, Grid) or isinstance(control, Budget):
            raise IncompatibleError(
                f"{control!r} finds its steps from the network calls of one state, so that it is "
                f"not for a product yet (part {name!r}); use grid='log-snr' or a list of times"
            )
    return made


def _sources(
    noise: Any, seed: int | None, names: Sequence[str]
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
    wanted: dict[str, Any] = for_each("generator" if noise is None else noise, names, "noise")
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


def _states(x_init: Any, names: Sequence[str]) -> dict[str, Tensor | None]:
    """The state that each part starts from; None where it is drawn."""
    if x_init is None:
        return dict.fromkeys(names)
    if not isinstance(x_init, Mapping):
        raise ArgumentTypeError(
            f"x_init of a product is a dict with a tensor for each part, not {shown(x_init)}"
        )
    check_names(x_init, names, "x_init")
    return {name: x_init[name] for name in names}


def _shapes(shape: Any, names: Sequence[str]) -> dict[str, Any]:
    """The shape of each part, as a run of its own takes it."""
    if isinstance(shape, Sequence) and not isinstance(shape, str):
        example = ", ".join(f"{name!r}: (16, 3)" for name in names)
        raise ArgumentTypeError(
            "the shape of a product is a dict with the shape of each part, not "
            f"{shown(shape)}; e.g. shape={{{example}}}"
        )
    return for_each(shape, names, "shape")


def _check_batch(parts: Mapping[str, PartRun]) -> None:
    """Raise `ArgumentError` unless all parts have as many samples."""
    sizes = {name: len(part.run.recorder.x) for name, part in parts.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{size} of {name!r}" for name, size in sizes.items())
        raise ArgumentError(
            f"the parts of a product have one batch axis, but there are {told}; give every part "
            "the same number of samples"
        )
