"""What draws a chunk of a set whose samples are those of a product: an array for each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np
import torch

from srk.errors import ArgumentError, IncompatibleError
from srk.noise import noise_source, part_seed
from srk.processes.product import Product, for_each
from srk.sampling import ProductSampler
from srk.sampling.arguments import batch_shape
from srk.scores.joint import Joint, ProductPrediction
from srk.scores.joint_guided import JointGuided
from srk.steps import Grid
from srk.storage.jobs import DTYPES, Job, _grid_at, settings_of, times_of
from srk.storage.part_chunks import array_of, open_parts


@attrs.frozen
class ProductJob(Job):
    """A `Job` of a product: its process is an `srk.Product`, its shape a dict by part."""

    process: Any
    prediction: Any
    shape: Any

    @property
    def count(self) -> int:
        return int(next(iter(self.shape.values()))[0])

    def sampler(self, process: Any, prediction: Any, solving: Mapping[str, Any]) -> Any:
        return ProductSampler(process, prediction, self.solver, **solving)

    def arrays(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        kind = np.dtype(DTYPES[self.dtype])
        return {array_of(name): (shape, kind) for name, shape in self.shape.items()}

    def chunks(self, store: Any) -> Any:
        return open_parts(store, self.where, self.process.names, write=True)

    def grid_at(self, times: Any, solving: Mapping[str, Any]) -> Any:
        given = for_each(solving.get("grid"), self.process.names, "grid")
        return {name: _grid_at(own, given[name]) for name, own in times.items()}

    def drawing(self, rows: slice) -> dict[str, Any]:
        size, shapes, sources = rows.stop - rows.start, {}, {}
        for name, shape in self.shape.items():
            shapes[name] = (size, *shape[1:])
            source = noise_source(self.noise, part_seed(self.seed, name))
            sources[name] = source.part(rows.start, size)
        return {"shape": shapes, "noise": sources}

    def drawn(self, x: Any) -> Any:
        return {name: part.detach().cpu().numpy() for name, part in x.items()}

    def conditioned(
        self, prediction: Any, tables: Mapping[str, Any], rows: slice, place: torch.device
    ) -> Any:
        if not tables:
            return prediction
        if isinstance(prediction, JointGuided):
            condition = self.conditioned(prediction.condition, tables, rows, place)
            return JointGuided(
                condition, prediction.reference, prediction.scale, rescale=prediction.rescale
            )
        if not isinstance(prediction, Joint):
            raise IncompatibleError(
                "conditions={...} are for one network of all parts, srk.scores.Joint(network, "
                f"...), not {prediction!r}; give the conditions of each part as its model_kwargs"
            )
        cut = {
            name: torch.as_tensor(np.asarray(table[rows])).to(place)
            for name, table in tables.items()
        }
        return prediction.given(**cut)

    def told(self, sampler: Any, said: Callable[[object], str]) -> dict[str, Any]:
        profiles = self.solving["profile"] or {}
        own = {
            name: settings_of(one, profiles.get(name), said)
            for name, one in sampler.samplers.items()
        }
        shapes = {name: list(shape) for name, shape in self.shape.items()}
        return {"parts": own, "shape": shapes}

    def _times(
        self, sampler: Any, prediction: Any, tables: Mapping[str, Any], place: torch.device
    ) -> Any:
        made = {}
        for name, one in sampler.samplers.items():
            if not isinstance(one.control, Grid):
                return None
            autocast = one.settings.autocast
            problem = one.settings.info(device=place, dtype=self.dtype, autocast=autocast)
            made[name] = times_of(one, problem)
        return made


def shapes_of(product: Product, prediction: ProductPrediction, shape: Any) -> dict[str, Any]:
    """The shape of each part of a set, from what the user gave."""
    bound = prediction.bind(product)
    given = for_each(shape, product.names, "shape")
    made = {}
    for name in product.names:
        if not name.isidentifier():
            raise ArgumentError(
                f"the arrays of a set are named after the parts, which are therefore names such as "
                f"'a' or 'left_arm', not {name!r}"
            )
        made[name] = batch_shape(given[name], bound.parts[name].event_shape)
    counts = {name: shape[0] for name, shape in made.items()}
    if len({*counts.values()}) > 1:
        told = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise ArgumentError(
            f"the parts of a product have one batch axis, but there are {told}; give every part "
            "the same number of samples"
        )
    return made
