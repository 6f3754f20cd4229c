"""What came out of a run, and what it cost."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from srk._modes import ordinary_tensors


@attrs.frozen(slots=True, eq=False)
class Saved:
    """States along a run: own times (n,), and tensors of shape (n, batch, *event)."""

    times: tuple[float, ...]
    values: Tensor


@attrs.frozen(slots=False, repr=False, eq=False)  # made in half the time that slots take
class Solution:
    """Samples and their cost.

    Arguments:
        x: the samples, shape (batch, *event); after a failure, the last finite state.
        status: "done", "stopped" (by the callback), "stopped: ..." (by the controller, with its
            reason), or "failed: ..." with step, time and number of bad samples.
        nfe: network calls, the final denoising included.
        mean_nfe: the calls that a sample took part in, on average; less than `nfe` where an
            adaptive run retried a step for some samples only.
        steps: accepted steps (the final denoising is not a step).
        rejected: rejected steps.
        times: own times visited, from the start to the end of the last accepted step.
        solver: name of the solver.
        eta: stochasticity of the run; 1 is the reverse SDE, 0 the probability-flow ODE. One number
            a step where it changed from step to step.
        seed: the seed that repeats the run, if the noise has one.
        seconds: wall-clock time of the run.
        score_seconds: the part of it spent in the network. On a GPU, where the loop never waits for
            the device, this is the time to issue the work (0 with compile="loop").
        trajectory: the states, if `save` asked for "x".
        denoised: the denoised predictions at the first evaluation of each step, if `save` asked for
            "denoised".
        log_prob: log-densities in nats, (steps, batch), of the states after each step that draws
            noise given what came before, at the own times of their ends, if `save` asked for
            "log_prob".
        inputs: what the network was asked at, (calls, batch, *event), if `save` asked for "inputs":
            with `trajectory` what `Sampler.log_prob` needs for any solver.
        log_weights: logarithms of the weights of the samples, (batch,), whose exponentials add up
            to 1; from `srk.posterior.steer`.
        log_normalizer: estimate of log E exp(reward) over the model's samples; from `steer`.
        ess: effective sample size after each step, before resampling; from `steer`.
        rounds: with `parallel=srk.Picard()`, the batches of evaluations that the network answered
            one after the other, while `nfe` counts all calls for a sample (of the sample that took
            most); None where every call was made after the other.
    """

    x: Tensor
    status: str
    nfe: int
    mean_nfe: float
    steps: int
    rejected: int
    times: tuple[float, ...]
    solver: str
    eta: float | tuple[float, ...]
    seed: int | None
    seconds: float
    score_seconds: float
    trajectory: Saved | None = None
    denoised: Saved | None = None
    log_prob: Saved | None = None
    inputs: Saved | None = None
    log_weights: Tensor | None = None
    log_normalizer: float | None = None
    ess: Tensor | None = None
    rounds: int | None = None

    @property
    def success(self) -> bool:
        """Whether the run reached its end."""
        return self.status == "done"

    @property
    def solver_seconds(self) -> float:
        """Wall-clock time spent outside the network."""
        return self.seconds - self.score_seconds

    def plot(self) -> Any:
        """A `matplotlib.figure.Figure` of the samples.

        Images are drawn in rows (the first 64), vectors as a scatter plot of their first two
        coordinates, numbers as a histogram, or along the time if the run kept its states.

        Raises:
            MissingExtraError: matplotlib is not installed.

        Examples:
            >>> import srk
            >>> process, target = srk.VP(), srk.targets.Gaussian([0.0, 1.0], [1.0, 0.1])
            >>> sol = srk.solve(process, target.score(process), shape=100, nfe=10, seed=0)
            >>> sol.plot().savefig("samples.png")
        """
        from srk._views import plot_solution

        return plot_solution(self)

    def animate(self, path: str | os.PathLike[str], *, seconds: float = 4.0) -> Path:
        """Write a moving picture of the run, from the noise to the samples in `x`.

        Arguments:
            path: a file `.webp`, `.gif` or `.png`; it is replaced if it is there.
            seconds: how long it takes; the samples stay for a second more.

        Returns:
            The path of the file.

        Raises:
            ArgumentError: the run did not keep its states (`save=["x"]`), or the file has another
                ending.
            MissingExtraError: matplotlib or Pillow is not installed.

        Examples:
            >>> import srk
            >>> process, target = srk.VP(), srk.targets.Gaussian([0.0, 1.0], [1.0, 0.1])
            >>> score = target.score(process)
            >>> sol = srk.solve(process, score, shape=100, nfe=10, seed=0, save=["x"])
            >>> sol.animate("samples.webp").name
            'samples.webp'
        """
        from srk._views import animate_solution

        return animate_solution(self, Path(path), seconds)

    def _repr_html_(self) -> str:
        from srk._views import solution_html

        return solution_html(self)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.x.shape))
        lines = [
            f"Solution: {self.status}, {self.solver} (eta = {_shown(self.eta)}), {self.nfe} NFE in "
            f"{self.steps} steps"
            + (f" ({self.rejected} rejected)" if self.rejected else "")
            + ("" if self.rounds is None else f", {self.rounds} rounds"),
            f"  x       {shape} {str(self.x.dtype).removeprefix('torch.')} on {self.x.device}",
            f"  t       {self.times[0]:.6g} -> {self.times[-1]:.6g}",
            f"  time    {self.seconds:.3g} s: {self.score_seconds:.3g} s network, "
            f"{self.solver_seconds:.3g} s solver",
        ]
        if self.seed is not None:
            lines.append(f"  seed    {self.seed}")
        for name in ("trajectory", "denoised", "log_prob", "inputs"):
            saved = getattr(self, name)
            if saved is not None:
                lines.append(f"  {name:<11}{len(saved.times)} states")
        return "\n".join(lines)


@attrs.frozen(slots=True, repr=False, eq=False)
class ProductSolution:
    """Samples of the parts of a product, and their cost.

    Most attributes are dicts with the names of the parts; `parts` has the `Solution` of each.

    Arguments:
        parts: the solution of each part. Its NFE are the calls that the part took part in, its
            seconds are those of the whole run.
        status: "done", or "failed: ..." with part, step, time and number of bad samples.
        nfe: calls of the network of all parts, the final denoising included.
        seed: the seed that repeats the run, where a noise source was given by its name.
        seconds: wall-clock time of the run.
        score_seconds: the part of it spent in the network.
    """

    parts: Mapping[str, Solution]
    status: str
    nfe: int
    seed: int | None
    seconds: float
    score_seconds: float

    @property
    def x(self) -> dict[str, Tensor]:
        """The samples of each part, (batch, *event); after a failure, the last finite states."""
        return {name: part.x for name, part in self.parts.items()}

    @property
    def steps(self) -> dict[str, int]:
        """The accepted steps of each part (the final denoising is not a step)."""
        return {name: part.steps for name, part in self.parts.items()}

    @property
    def times(self) -> dict[str, tuple[float, ...]]:
        """The own times that each part visited, from its start to the end of its last step."""
        return {name: part.times for name, part in self.parts.items()}

    @property
    def solver(self) -> dict[str, str]:
        """The name of the solver of each part."""
        return {name: part.solver for name, part in self.parts.items()}

    @property
    def eta(self) -> dict[str, float | tuple[float, ...]]:
        """The stochasticity of each part."""
        return {name: part.eta for name, part in self.parts.items()}

    @property
    def trajectory(self) -> dict[str, Saved] | None:
        """The states of each part along the run, if `save` asked for "x"."""
        return self._saved("trajectory")

    @property
    def denoised(self) -> dict[str, Saved] | None:
        """The denoised predictions of each part, if `save` asked for "denoised"."""
        return self._saved("denoised")

    @property
    def log_prob(self) -> dict[str, Saved] | None:
        """The log-densities of the steps of each part, if `save` asked for "log_prob"."""
        return self._saved("log_prob")

    @property
    def inputs(self) -> dict[str, Saved] | None:
        """What the network saw of each part, if `save` asked for "inputs"."""
        return self._saved("inputs")

    @property
    def rejected(self) -> int:
        """The rejected steps, which are those of all parts."""
        return max(part.rejected for part in self.parts.values())

    @property
    def success(self) -> bool:
        """Whether the run reached its end."""
        return self.status == "done"

    @property
    def solver_seconds(self) -> float:
        """Wall-clock time spent outside the network."""
        return self.seconds - self.score_seconds

    def _saved(self, what: str) -> dict[str, Saved] | None:
        kept = {name: getattr(part, what) for name, part in self.parts.items()}
        return None if None in kept.values() else kept

    def __repr__(self) -> str:
        lines = [f"ProductSolution: {self.status}, {self.nfe} NFE, {len(self.parts)} parts"]
        for name, part in self.parts.items():
            shape = "x".join(map(str, part.x.shape))
            dtype = str(part.x.dtype).removeprefix("torch.")
            lines.append(
                f"  {name:<7} {shape} {dtype} on {part.x.device}, {part.solver} "
                f"(eta = {_shown(part.eta)}), t {part.times[0]:.6g} -> {part.times[-1]:.6g}"
            )
        lines.append(
            f"  time    {self.seconds:.3g} s: {self.score_seconds:.3g} s network, "
            f"{self.solver_seconds:.3g} s solver"
        )
        if self.seed is not None:
            lines.append(f"  seed    {self.seed}")
        return "\n".join(lines)


def _shown(eta: float | tuple[float, ...]) -> str:
    if isinstance(eta, tuple):
        return f"{min(eta):g} to {max(eta):g}"
    return f"{eta:g}"


def join(parts: Sequence[Solution]) -> Solution:
    """The solutions of the pieces of a batch as one.

    Samples in order, seconds added up, the largest NFE, the first status that is not "done".
    """
    first = parts[0]

    def stacked(name: str) -> Saved | None:
        pieces: list[Saved] = [
            piece for part in parts if (piece := getattr(part, name)) is not None
        ]
        # pieces of adaptive runs have times of their own and cannot be stacked
        if len(pieces) < len(parts) or any(piece.times != pieces[0].times for piece in pieces):
            return None
        return Saved(pieces[0].times, torch.cat([piece.values for piece in pieces], 1))

    with ordinary_tensors():
        return attrs.evolve(
            first,
            x=torch.cat([part.x for part in parts]),
            status=next((part.status for part in parts if part.status != "done"), "done"),
            nfe=max(part.nfe for part in parts),
            mean_nfe=sum(part.mean_nfe * len(part.x) for part in parts)
            / sum(len(part.x) for part in parts),
            steps=max(part.steps for part in parts),
            rejected=max(part.rejected for part in parts),
            seconds=sum(part.seconds for part in parts),
            score_seconds=sum(part.score_seconds for part in parts),
            trajectory=stacked("trajectory"),
            denoised=stacked("denoised"),
            log_prob=stacked("log_prob"),
            inputs=stacked("inputs"),
            rounds=None if first.rounds is None else max(part.rounds or 0 for part in parts),
        )


def join_products(pieces: Sequence[ProductSolution]) -> ProductSolution:
    """The solutions of the pieces of a batch as one; see `join`."""
    names = pieces[0].parts
    return ProductSolution(
        parts={name: join([piece.parts[name] for piece in pieces]) for name in names},
        status=next((piece.status for piece in pieces if piece.status != "done"), "done"),
        nfe=max(piece.nfe for piece in pieces),
        seed=pieces[0].seed,
        seconds=sum(piece.seconds for piece in pieces),
        score_seconds=sum(piece.score_seconds for piece in pieces),
    )
