"""How a solution, a registry and a profile show themselves: plots, animations, notebooks."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srk._checks import positive
from srk._pictures import image_sheet, is_image, pillow
from srk._plotting import PALETTE, house_style
from srk.errors import ArgumentError, MissingExtraError

MOVING = {".webp": "WEBP", ".gif": "GIF", ".png": "PNG"}
"""Endings of files that can hold an animation."""

DOTS = 4000
"""Points of a scatter plot, lines of trajectories at most DOTS / 40."""


def shows_images(event: Sequence[int]) -> bool:
    """Whether samples of this shape are drawn as images, and not as points."""
    return is_image(tuple(event)) and min(event[-2:]) >= 4


def plot_solution(solution: Any) -> Any:
    """A figure of the samples: images, a histogram of numbers, or a scatter plot of vectors."""
    x = _shown(solution.x)
    event = tuple(x.shape[1:])
    with house_style("Solution.plot") as plt:
        figure, axis = plt.subplots(figsize=(5, 4))
        if shows_images(event):
            sheet = image_sheet(x, low=float(x.min()), high=float(x.max()))
            axis.imshow(sheet, cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.grid(visible=False)
        elif math.prod(event) == 1:
            _draw_numbers(axis, solution, x.reshape(len(x)))
        else:
            axis.scatter(*_points(x, event).T, s=4, alpha=0.6, linewidths=0)
            axis.set(xlabel="coordinate 0", ylabel="coordinate 1", aspect="equal")
        axis.set_title(f"{solution.solver}, {solution.nfe} network calls")
    plt.close(figure)  # a notebook shows the figure that is returned, once
    return figure


def _draw_numbers(axis: Any, solution: Any, x: Tensor) -> None:
    """Trajectories of numbers over the time, where they were saved, else their histogram."""
    if solution.trajectory is None:
        axis.hist(x.numpy(), bins=min(60, max(8, len(x) // 20)), density=True)
        axis.set(xlabel="x", ylabel="density")
        return
    times, states = _states(solution)
    some = states.reshape(len(states), -1)[:, : DOTS // 40]
    axis.plot(times, some.numpy(), color=PALETTE[0], alpha=0.35, linewidth=0.8)
    axis.set(xlabel="time of the process", ylabel="x")
    axis.invert_xaxis()


def _states(solution: Any) -> tuple[list[float], Tensor]:
    """Times and states of a run, the last of which are the samples that it returned."""
    saved = solution.trajectory
    if saved is None:
        raise ArgumentError(
            "the states of the run were not kept; ask for them with srk.solve(..., save=['x'])"
        )
    times, states = list(saved.times), torch.stack([_shown(x) for x in saved.values])
    x = _shown(solution.x)
    if not torch.equal(states[-1], x):  # the prediction of the data, at the end of the last step
        times, states = [*times, times[-1]], torch.cat([states, x[None]])
    return times, states


def _shown(x: Tensor) -> Tensor:
    """Samples as real numbers: of complex images the modulus, of others both parts."""
    x = x.detach().cpu()
    if x.is_complex():
        images = shows_images(tuple(x.shape[1:]))
        x = x.abs() if images else torch.view_as_real(x.resolve_conj()).flatten(1)
    return x.float()


def _points(x: Tensor, event: tuple[int, ...]) -> Tensor:
    """The first two coordinates of at most DOTS samples; of points (k, 2) or (k, 3), all points."""
    flat = x.reshape(-1, event[-1]) if len(event) == 2 else x.reshape(len(x), -1)
    return flat[:DOTS, :2]


def animate_solution(solution: Any, path: Path, seconds: float) -> Path:
    """Write the states of a run as a moving picture that ends at the samples."""
    if path.suffix.lower() not in MOVING:
        raise ArgumentError(
            f"an animation is a file {', '.join(MOVING)}, not {path.name!r}; e.g. 'samples.webp'"
        )
    seconds = positive(seconds, "seconds")
    if not path.parent.is_dir():
        raise ArgumentError(
            f"there is no folder {str(path.parent)!r} for {path.name!r}; make it first, e.g. "
            "Path(...).mkdir(parents=True)"
        )
    times, states = _states(solution)
    if shows_images(tuple(states.shape[2:])):
        low, high = float(states[-1].min()), float(states[-1].max())
        image = pillow("Solution.animate")
        frames = [image.fromarray(image_sheet(x, low=low, high=high)) for x in states]
    else:
        frames = list(_frames_of_points(times, states))
    each = max(20, round(1000 * seconds / len(frames)))
    durations = [each] * (len(frames) - 1) + [each + 1000]  # a second to look at the samples
    frames[0].save(
        path,
        format=MOVING[path.suffix.lower()],
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
    )
    return path


def _frames_of_points(times: Sequence[float], states: Tensor) -> Iterable[Any]:
    """A frame a state: a histogram of numbers, or a scatter plot of the first two coordinates."""
    image, event = pillow("Solution.animate"), tuple(states.shape[2:])
    with house_style("Solution.animate") as plt:
        for t, x in zip(times, states, strict=True):
            figure, axis = plt.subplots(figsize=(4, 4))
            if math.prod(event) == 1:
                limit = float(states.abs().max())
                axis.hist(x.reshape(-1).numpy(), bins=60, range=(-limit, limit), density=True)
            else:
                points = _points(x, event)
                ends = [_points(state, event).abs().max() for state in (states[0], states[-1])]
                limit = 1.05 * float(max(ends))
                axis.scatter(*points.T, s=3, alpha=0.6, linewidths=0)
                axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
            axis.set_title(f"t = {t:.3g}")
            file = io.BytesIO()
            figure.savefig(file, format="png", dpi=90)
            plt.close(figure)
            yield image.open(file).convert("RGB")


# -- notebooks ------------------------------------------------------------------------------------


def table_html(header: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> str:
    """A table for a notebook."""
    head = "".join(f"<th style='text-align:left'>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>"
        + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    caption = f"<b>{html.escape(title)}</b>" if title else ""
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"{caption}<table>{top}<tbody>{body}</tbody></table>"


def solution_html(solution: Any) -> str:
    """What a solution says of itself, with a small picture of the samples."""
    lines = repr(solution).splitlines()
    rows = [tuple(line.split(None, 1)) for line in lines[1:]]
    return table_html((), rows, lines[0]) + _inline(lambda: plot_solution(solution))


def profile_html(lam: Sequence[float], q: Sequence[float], title: str) -> str:
    """A profile: its density along the half log-SNR."""

    def draw() -> Any:
        with house_style("a plot of the profile") as plt:
            figure, axis = plt.subplots(figsize=(4.5, 2.4))
            axis.stairs(q, lam)
            axis.set(xlabel="half log-SNR", ylabel="q", yscale="log")
        plt.close(figure)
        return figure

    return f"<b>{html.escape(title)}</b><br>" + _inline(draw)


def _inline(draw: Any) -> str:
    """The figure as an image inside the page; nothing where matplotlib is missing."""
    try:
        figure = draw()
    except MissingExtraError:
        return ""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return f"<img src='data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'>"


__all__ = [
    "animate_solution",
    "plot_solution",
    "profile_html",
    "solution_html",
    "table_html",
]
