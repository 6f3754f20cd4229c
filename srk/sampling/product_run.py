"""One run of a product whose samplers are made: its parts are put together and taken to the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._engine.product import PartRun, check_lockstep, run_product
from srk._engine.product_adaptive import AdaptivePart, AdaptiveProduct, CommonClock
from srk._engine.run import Controlled
from srk._modes import ordinary_tensors
from srk.noise import NoiseSource
from srk.processes.product import Product
from srk.sampling.compatible import check_grad
from srk.sampling.product_arguments import check_batch
from srk.sampling.sampler import Sampler
from srk.sampling.start import start
from srk.scores.centred import placed, told_of_parts
from srk.scores.joint import BoundPrediction
from srk.solution import ProductSolution
from srk.steps import StepController


@attrs.frozen
class Wanted:
    """Which samples are to be drawn, and what is to be told of them; mappings are by part.

    Arguments:
        states: where each part starts; None where that is drawn.
        shapes, sources: the shape and the noise of each part.
        places: device and dtype of each part; None for the default.
        grad, saves, callback, progress, seed, on_failure: as in `srk.solve`.
    """

    states: Mapping[str, Tensor | None]
    shapes: Mapping[str, Any]
    sources: Mapping[str, NoiseSource]
    places: Mapping[str, tuple[Any, Any]]
    grad: bool
    saves: frozenset[str]
    callback: Any
    progress: bool
    seed: int | None
    on_failure: str

    @property
    def all_drawn(self) -> bool:
        """Whether every part starts from its prior."""
        return all(state is None for state in self.states.values())

    def part(self, first: int, count: int, whole: Mapping[str, tuple[int, ...]]) -> Wanted:
        """The same for `count` samples from `first` on; `whole`: the shapes of all samples."""
        states, shapes = {}, {}
        for name, x in self.states.items():
            states[name] = None if x is None else x[first : first + count]
            shapes[name] = (count, *whole[name][1:]) if x is None else None
        sources = {name: source.part(first, count) for name, source in self.sources.items()}
        return attrs.evolve(self, states=states, shapes=shapes, sources=sources)


def drawn(
    product: Product,
    bound: BoundPrediction,
    samplers: dict[str, Sampler],
    control: StepController | None,
    autocast: torch.dtype | None,
    wanted: Wanted,
) -> tuple[ProductSolution, bool]:
    """What solvers see of a run, and whether it failed.

    Arguments:
        product: the parts.
        bound: what is known of all parts.
        samplers: the sampler of each part for this run alone, which sees its mean on the device.
        control: who decides about the steps; None for grids.
        autocast: dtype for `torch.autocast` around the network.
        wanted: which samples.
    """
    grad, saves, callback = wanted.grad, wanted.saves, wanted.callback
    parts: dict[str, PartRun] = {}
    moving: dict[str, AdaptivePart] = {}
    for name, sampler in [*samplers.items()]:
        state = wanted.states[name]
        settings = sampler.settings
        check_grad(grad, settings.compile, state)
        device, dtype = wanted.places[name]
        shape, noise = wanted.shapes[name], wanted.sources[name]
        with ordinary_tensors():
            x, source = start(settings, shape, state, noise, None, device, dtype, grad)
        prediction = placed(settings.prediction, x)
        if prediction is not settings.prediction:
            samplers[name] = sampler = sampler._with(prediction=prediction)
            settings = sampler.settings
        problem = settings.problem(x, source)
        route, etas = sampler._route(problem, given=state is not None, grad=grad, saves=saves)
        job = settings.job(etas, saves=saves, grad=grad)
        if isinstance(route, Controlled):
            moving[name] = AdaptivePart(job, x, source)
        else:
            source.prepare(route)
            parts[name] = PartRun(job, route, x, source, written=callback is not None)
    runs: Mapping[str, PartRun | AdaptivePart] = parts or moving
    check_batch({name: part.run.recorder.x for name, part in runs.items()})
    predictions = {name: sampler.settings.prediction for name, sampler in samplers.items()}
    callback = told_of_parts(predictions, callback)
    if control is None:
        check_lockstep(parts)
        return run_product(
            parts,
            bound,
            seed=wanted.seed,
            grad=grad,
            autocast=autocast,
            callback=callback,
            progress=wanted.progress,
        )
    clock = CommonClock(product.centred)
    steps = next((one.steps for one in samplers.values() if one.steps is not None), None)
    run = AdaptiveProduct(moving, bound, clock, steps, autocast, callback)
    bar = next(iter(moving.values())).run.recorder.bar("+") if wanted.progress else None
    return run.finish(lambda: run.go(control), wanted.seed, grad, bar)
