"""compile="loop": the whole run as one CUDA graph, captured once for a shape and replayed."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from srk._engine.run import Job, Route, Run, finish
from srk.noise.generator import GeneratorNoise
from srk.solution import Solution

WARM_UP = 3  # runs before the capture, on a stream of their own, as torch.cuda.graph asks


class CapturedLoop:
    """A run captured for states of one shape, dtype and device.

    The network must be safe to capture: no waiting for the device, no shapes that depend on values.
    Its weights may change in place between calls; a new tensor in place of a captured one goes
    unseen.

    Arguments:
        job, route: what to do, and where the run goes.
        x: a state of the shape, dtype and device to capture for.
    """

    def __init__(self, job: Job, route: Route, x: Tensor) -> None:
        self.generator = torch.Generator(x.device)
        self.start = torch.empty_like(x)
        self.run: Run
        source = GeneratorNoise(0)
        source.use(self.generator)

        def body() -> None:
            self.run = Run(job, route, self.start.clone())
            self.run.go(source)

        self.start.copy_(x)
        with capturing(x.device), torch.no_grad():
            stream = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    body()
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            self.graph.register_generator_state(self.generator)
            with torch.cuda.graph(self.graph):
                body()

    def __call__(self, x: Tensor, source: GeneratorNoise, drawn: bool) -> tuple[Solution, bool]:
        """The solution from the state `x` with the seed of `source`, and whether the run failed.

        Arguments:
            x: the state at the start.
            source: where it was drawn from.
            drawn: True if it was drawn, so that the path goes on from there.
        """
        began = time.perf_counter()
        with torch.no_grad(), torch.cuda.device(x.device):
            self.generator.manual_seed(source.used_seed)
            if drawn:
                self.start.normal_(generator=self.generator)  # what the state at the start has used
            self.start.copy_(x)
            self.graph.replay()
            run = copy.copy(self.run)
            run.recorder, run.watch = copy.copy(self.run.recorder), self.run.watch.copy()
            run.recorder.x = self.run.recorder.x.clone()
            solution, failed = finish(run, lambda: None, source.seed, began)
        return solution, failed


@contextmanager
def capturing(device: torch.device) -> Iterator[None]:
    """Where a graph may be captured: on its own device, without the cache of autocast.

    The streams are as before afterwards, also where a capture has failed.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream()
        # Inside a user's autocast the weights cast at the first call would be captured as they are,
        # so that later changes of the weights would not be seen.
        autocast = torch.autocast(
            "cuda",
            dtype=torch.get_autocast_dtype("cuda"),
            enabled=torch.is_autocast_enabled("cuda"),
            cache_enabled=False,
        )
        try:
            with autocast:
                yield
        finally:
            torch.cuda.set_stream(stream)
