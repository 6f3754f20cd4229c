"""`srk calibrate`: measure a profile of a network once, and write it to a small file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from srk.cli.command import ProcessName
from srk.errors import ArgumentError


def calibrate(
    out: Annotated[Path, typer.Argument(help="The JSON file to write.", dir_okay=False)],
    model: Annotated[
        str | None,
        typer.Option(help="The network: package.module:attribute, or a file of weights."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Instead of one: digits, fashion or mixture, whose score is exact."),
    ] = None,
    process: ProcessName = "vp",
    prediction: Annotated[
        str | None, typer.Option(help="What the network returns, as in `srk sample`.")
    ] = None,
    model_class: Annotated[
        str | None, typer.Option(help="With weights: the class, as package.module:attribute.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Of one sample, with commas: 3,32,32; for networks.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Samples of the pilot.", min=1)] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the pilot's noise.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Measure where the denoiser of a network moves, in at most 100 network calls, and write it."""
    import torch

    from srk.cli.network import network_of
    from srk.processes import process as named_process
    from srk.sampling import calibrate as measure
    from srk.targets.problems import named_problem

    if (model is None) == (target is None):
        raise ArgumentError("give --model or --target, one of them; for example --target digits")
    if out.exists() and not force:
        raise ArgumentError(f"{out} would be overwritten; choose another file, or say --force")
    try:
        event = None if shape is None else tuple(int(word) for word in shape.split(","))
    except ValueError:
        raise ArgumentError(
            f"--shape is whole numbers with commas, such as 3,32,32, not {shape!r}"
        ) from None
    if target is not None:
        chosen, exact = named_problem(process, target)
        score: Any = exact.score(chosen)
    else:
        chosen = named_process(process)  # type: ignore[assignment]
        options = {} if prediction is None else {"prediction": prediction}
        place = torch.device(device)
        score = network_of(model, options, event, place, model_class, None, None, False)
    whole = samples if event is None or target is not None else (samples, *event)
    profile = measure(chosen, score, shape=whole, seed=seed, device=device)
    out.parent.mkdir(parents=True, exist_ok=True)
    profile.save(out)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(
        f"{chosen!r}\n{profile.calls // samples} network calls, each of {samples} samples\n"
        f"variance of the data per coordinate: {profile.variance:.4g}\n"
        f"wrote {out}; see srk grid --profile {out}"
    )
