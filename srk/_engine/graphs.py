"""The whole sampling loop as one CUDA graph: captured once for a shape, replayed for every call."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from srk._engine.run import Run
from srk.noise.generator import GeneratorNoise

WARM_UP = 3  # runs before the capture, on a stream of their own, as torch.cuda.graph asks


class CapturedLoop:
    """A run captured for states of one shape, dtype and device.

    The network must be safe to capture: no waiting for the device, no shapes that depend on values. Its weights may change in place between calls; a new tensor in place
    of a captured one goes unseen.

    Arguments:
        make: (state, noise source) -> a fresh `Run` that may overwrite the state.
        drive: takes a run to its end.
        x: a state of the shape, dtype and device to capture for.
    """

    def __init__(
        self, make: Callable[[Tensor, GeneratorNoise], Run], drive: Callable[[Run], None], x: Tensor
    ) -> None:
        self.generator = torch.Generator(x.device)
        self.start = torch.empty_like(x)
        self.run: Run
        source = GeneratorNoise(0)
        source.use(self.generator)

        def body() -> None:
            self.run = make(self.start.clone(), source)
            drive(self.run)

        self.start.copy_(x)
        stream = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.no_grad(), torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                body()
        torch.cuda.current_stream(x.device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(self.generator)
        with torch.no_grad(), torch.cuda.graph(self.graph):
            body()

    def __call__(self, x: Tensor, source: GeneratorNoise, drawn: bool) -> Run:
        """The run from the state `x` with the seed of `source`; `drawn` if `x` was drawn from it, so that the path goes on from there."""
        self.generator.manual_seed(source.used_seed)
        if drawn:
            self.start.normal_(
                generator=self.generator
            )  # the numbers that the initial state has used
        self.start.copy_(x)
        self.graph.replay()
        run = copy.copy(self.run)
        run.source, run.score_seconds = source, 0.0
        run.x, run.last = (
            self.run.x.clone(),
            None if self.run.last is None else self.run.last.clone(),
        )
        return run
