"""Samplers of products: several parts, one network call for all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from operator import is_
from typing import Any, Literal, NamedTuple

import attrs
import torch
from torch import Tensor

from srk._checks import choice, flag, integer, shown
from srk._engine.product import PartReplay, replay
from srk._engine.together import ProductStepInfo
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, SolveError
from srk.processes.product import Product, check_names, for_each
from srk.sampling.arguments import (
    autocast_given,
    batch_shape,
    callback_given,
    device_given,
    dtype_given,
    one_time,
    saves_given,
)
from srk.sampling.product_arguments import (
    check_batch,
    common_control,
    compiles_given,
    part_hooks_given,
    profiles_given,
    shapes_given,
    sources_given,
    states_given,
)
from srk.sampling.product_run import Wanted, drawn
from srk.sampling.sampler import Sampler
from srk.scores.centred import bound_to, hidden_each, placed, seen
from srk.scores.conventions import watching
from srk.scores.hooks import selected, with_hooks
from srk.scores.joint import BoundPrediction, Joint, ProductPrediction
from srk.solution import ProductSolution, Saved, join_products
from srk.steps import Profile

NOT_YET = {
    "controller": "it is the old name of grid, which products never had; use grid=...",
    "parallel": "many steps at once are many states of one part in one call of the network, which "
    "a network of several parts cannot tell from its batch; leave parallel out",
}
"""Arguments of `srk.Sampler` that a product does not take, and what to do instead."""


class _Bound(NamedTuple):
    """What one run has to itself: predictions and samplers, and what they were made of."""

    sources: tuple[Any, ...]
    prediction: BoundPrediction
    samplers: dict[str, Sampler]


class ProductSampler:
    """A run of a product made ready: checked, planned, and called as often as one likes.

    What `srk.Sampler` is for one state; `srk.Sampler(product, ...)` makes one, too. Its arguments
    are those of `srk.solve` that say how samples are made, one value for all parts or a dict with a
    value for each; those of the call say which.

    Arguments:
        product: the parts and their processes.
        score: `srk.scores.Joint`, `srk.scores.JointGuided` or `srk.scores.Independent`.
        solver, steps, grid, eta, denoise_final, compile: for all parts, or by part. compile="step"
            makes kernels of each part's arithmetic; between them stands the one network call.
        profile: a dict with what `srk.calibrate` measured of a part, for the parts that have it.
        nfe: number of network calls to spend instead of steps.
        autocast: dtype for `torch.autocast` around the network.
        calls: "free" or "schedule", as in `srk.solve`.
        hooks: a dict with the hooks of each part that has some.
        others: arguments that a product does not take; an error for each that is given.

    Examples:
        >>> import srk
        >>> product = srk.Product(a=srk.VP(), b=srk.EDM())
        >>> network = lambda x, t: {name: 0 * part for name, part in x.items()}
        >>> score = srk.scores.Joint(network, a="data", b="data")
        >>> sampler = srk.ProductSampler(product, score, "srk2m", nfe=20)
        >>> [sampler(shape={"a": (4, 3), "b": (4, 2)}, seed=seed).nfe for seed in range(2)]
        [20, 20]
    """

    def __init__(
        self,
        product: Product,
        score: ProductPrediction,
        solver: Any = "auto",
        *,
        steps: Any = None,
        nfe: int | None = None,
        grid: Any = None,
        eta: Any = None,
        denoise_final: Any = None,
        autocast: torch.dtype | None = None,
        compile: Any = False,
        calls: Any = "free",
        profile: Mapping[str, Profile] | None = None,
        check_network: bool = True,
        hooks: Mapping[str, Iterable[Any]] | None = None,
        **others: Any,
    ) -> None:
        if not isinstance(score, ProductPrediction):
            raise ArgumentTypeError(
                "the score of a product says what is known of each part: "
                "srk.scores.Joint(network, a='data', b='noise') for one network of all parts, or "
                f"srk.scores.Independent(a=..., b=...) for one of each, not {shown(score)}"
            )
        for name, value in others.items():
            if value:
                why = NOT_YET.get(name, "leave it out")
                raise IncompatibleError(f"{name}={shown(value)} is not for a product yet: {why}")
        self.check_network = flag(check_network, "check_network")
        self._looked = False  # whether a run has looked at the outputs of the networks
        self._spare: list[_Bound] = []
        names = product.names
        self.product, self.score = product, score
        self._options: dict[str, Any] = {
            "solver": for_each(solver, names, "solver"),
            "steps": for_each(steps, names, "steps"),
            "grid": for_each(grid, names, "grid"),
            "eta": for_each(eta, names, "eta"),
            "denoise_final": for_each(denoise_final, names, "denoise_final"),
            "compile": compiles_given(compile, names),
            "profile": profiles_given(profile, names),
            "hooks": part_hooks_given(hooks, names),
        }
        for name, own in self._options["grid"].items():
            one_time(own, f"the part {name!r} of a product")
        self._whole: dict[str, Any] = {
            "nfe": nfe,
            "autocast": autocast_given(autocast),
            "calls": choice(calls, ("free", "schedule"), "calls"),
        }
        self.samplers = self._made(score)
        self.control = common_control(self.samplers, grid, product)

    def _made(self, score: ProductPrediction) -> dict[str, Sampler]:
        """A sampler for each part, checked as a run of its own."""
        bound, nfe = score.bind(self.product), self._whole["nfe"]
        if isinstance(nfe, Mapping):
            raise ArgumentTypeError(
                "nfe counts calls of the network of all parts, so that it is one number; e.g. "
                "nfe=20"
            )
        dear = max(part.calls() for part in bound.parts.values())
        evaluations = None if nfe is None else integer(nfe, "nfe", least=1) // dear
        if evaluations == 0:
            raise ArgumentError(
                f"nfe={nfe} buys no evaluation, for the dearest part makes {dear} network calls "
                f"in each; use nfe={2 * dear} or more"
            )
        made: dict[str, Sampler] = {}
        for name, process in self.product.parts.items():
            options = {key: values[name] for key, values in self._options.items()}
            prediction = bound.parts[name]
            if evaluations is not None:
                # a part whose own evaluation is cheaper takes as many evaluations as the dearest
                options["nfe"] = evaluations * prediction.calls()
            options["autocast"] = self._whole["autocast"]
            options["calls"] = self._whole["calls"]
            made[name] = Sampler(process, prediction, **options)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_spare": []}  # a copy may get another score

    def _bound(self) -> _Bound:
        """The predictions and samplers of a run that has ended, if all they come from is still the
        same object; or fresh ones.
        """
        sources = self.product, self.score, *vars(self.score).values()
        while self._spare:
            try:
                spare = self._spare.pop()
            except IndexError:  # another thread was faster
                break
            if len(spare.sources) == len(sources) and all(map(is_, spare.sources, sources)):
                return spare
        return _Bound(sources, *self._fresh())

    def _fresh(self) -> tuple[BoundPrediction, dict[str, Sampler]]:
        """The predictions and samplers of one run, so that many may go on at a time."""
        bound, made = self.score.bind(self.product), {}
        for name, sampler in self.samplers.items():
            prediction = with_hooks(bound.parts[name], self._options["hooks"][name])
            made[name] = sampler._with(prediction=bound_to(prediction, sampler.settings.given))
        return bound, made

    def __call__(
        self,
        shape: Any = None,
        *,
        x_init: Mapping[str, Tensor] | None = None,
        noise: Any = None,
        seed: int | None = None,
        device: Any = None,
        dtype: Any = None,
        save: str | Iterable[str] | None = None,
        callback: Callable[[ProductStepInfo], bool | None] | None = None,
        progress: bool = False,
        on_failure: Literal["raise", "return"] = "raise",
        grad: Any = False,
        microbatch: int | None = None,
    ) -> ProductSolution:
        """Draw samples; arguments, result and errors are those of `srk.solve`."""
        names = self.product.names
        on_failure = choice(on_failure, ("raise", "return"), "on_failure")
        progress, callback = flag(progress, "progress"), callback_given(callback)
        saves = saves_given(save)
        if choice(grad, (False, True, "checkpoint"), "grad") == "checkpoint":
            raise IncompatibleError(
                "grad='checkpoint' is not for a product yet: it repeats the steps of one state; "
                "use grad=True"
            )
        default = "generator" if microbatch is None else "keyed"
        sources, seed = sources_given(noise, seed, names, default)
        states, shapes = states_given(x_init, names), shapes_given(shape, names)
        devices = for_each(device, names, "device")
        dtypes = for_each(dtype, names, "dtype")
        places = {name: (device_given(devices[name]), dtype_given(dtypes[name])) for name in names}
        wanted = Wanted(
            states, shapes, sources, places, grad, saves, callback, progress, seed, on_failure
        )
        if microbatch is None:
            return self._run(wanted)
        pieces = []
        for piece, first, count, size in self._pieces(microbatch, states, shapes):
            pieces.append(piece._run(wanted.part(first, count, size)))
        return join_products(pieces)

    def _pieces(
        self,
        size: int,
        states: Mapping[str, Tensor | None],
        shapes: Mapping[str, Any],
    ) -> list[tuple[ProductSampler, int, int, dict[str, tuple[int, ...]]]]:
        """Samplers for pieces of at most `size` samples: each with its first, its count, and the
        shapes of the whole.
        """
        size = integer(size, "microbatch", least=1)
        whole = {
            name: batch_shape(shapes[name], self.samplers[name].prediction.event_shape)
            if state is None
            else tuple(state.shape)
            for name, state in states.items()
        }
        check_batch({name: torch.empty(shape[:1]) for name, shape in whole.items()})
        batch = next(iter(whole.values()))[0]
        made = []
        for first in range(0, batch, size):
            count = min(size, batch - first)
            piece = copy.copy(self)
            rows = slice(first, first + count)
            hooks = {
                name: selected(own, rows, batch) for name, own in self._options["hooks"].items()
            }
            piece._options = {**self._options, "hooks": hooks}
            piece.score = self.score.select(rows, batch)
            piece.product = self.product.select(rows, batch)
            piece.samplers = piece._made(piece.score)
            made.append((piece, first, count, whole))
        return made

    def _run(self, wanted: Wanted) -> ProductSolution:
        """One run of all samples."""
        one = self._bound()
        bound, samplers = one.prediction, one.samplers
        look = self.check_network and not self._looked and wanted.all_drawn
        with watching(self.product.parts) if look else nullcontext():
            solution, failed = drawn(
                self.product, bound, samplers, self.control, self._whole["autocast"], wanted
            )
        self._looked = self._looked or look
        if any(part.centred is not part for part in self.product.parts.values()):
            with torch.set_grad_enabled(wanted.grad):
                told = {
                    name: seen(samplers[name].settings.prediction, part)
                    for name, part in solution.parts.items()
                }
            solution = attrs.evolve(solution, parts=told)
        elif type(self.score) is Joint and not failed:
            # Not with a mean, whose place is that of one run, and not what users have written.
            self._spare.append(one)
        if failed and wanted.on_failure == "raise":
            raise SolveError(
                f"{solution.status}; the states of the parts are in .solution.x (or use "
                "on_failure='return')",
                solution,
            )
        return solution

    def log_prob(self, trajectory: ProductSolution | Mapping[str, Saved]) -> dict[str, Saved]:
        """Log-densities of the steps of a saved run under this sampler's network, by part,
        differentiable in the network's parameters.

        Given all states before it, the parts of a step are independent: their log-densities add up.
        Draw with `save="x"`, change the network, ask again.

        Arguments:
            trajectory: a solution, or the states of each part at the times of its grid.

        Returns:
            For each part own times at the end of each step that draws noise, and log-densities in
            nats, shape (steps, batch).

        Raises:
            IncompatibleError: a solver's step is not Gaussian given the states.
            ArgumentError: the trajectory was not saved, or has other times.
        """
        solution = isinstance(trajectory, ProductSolution)
        saved: Any = (
            trajectory.trajectory if isinstance(trajectory, ProductSolution) else trajectory
        )
        if saved is None:
            raise ArgumentError("the solution holds no trajectory; draw it with save='x'")
        if not solution:
            check_names(saved, self.product.names, "a trajectory of a product")
        bound, samplers = self._fresh()
        runs: dict[str, PartReplay] = {}
        saves = frozenset({"log_prob"})
        for name, sampler in samplers.items():
            states: Saved = saved[name]
            prediction = placed(sampler.settings.prediction, states.values[0])
            sampler = sampler._with(prediction=prediction)
            states = hidden_each(prediction, states)
            kind = states.values.dtype
            info = sampler.settings.info(dtype=kind)
            route, etas = sampler._route(info, given=True, grad=True, saves=saves)
            assert isinstance(route, Sequence)
            job = sampler.settings.job(etas, saves=saves, grad=True)
            job = attrs.evolve(job, denoise=False, hooks=())
            runs[name] = PartReplay(name, job, route, states)
        return replay(runs, bound, self._whole["autocast"])

    def __repr__(self) -> str:
        own = ", ".join(f"{name}={sampler.label!r}" for name, sampler in self.samplers.items())
        return f"ProductSampler({self.product!r}, {self.score!r}, {own})"


def solve_product(
    product: Product, score: Any, solver: Any = "auto", **given: Any
) -> ProductSolution:
    """Draw samples of a product; the arguments are those of `srk.solve`, each for all parts."""
    of_call = (
        "shape",
        "x_init",
        "noise",
        "seed",
        "device",
        "dtype",
        "save",
        "callback",
        "progress",
        "on_failure",
        "grad",
        "microbatch",
    )
    call = {name: given.pop(name) for name in of_call if name in given}
    return ProductSampler(product, score, solver, **given)(**call)


Sampler.of_product = ProductSampler
