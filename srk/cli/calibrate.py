"""`srk calibrate`: measure a profile of a network once, and write it to a small file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from srk.cli.command import ProcessArgs, ProcessName
from srk.cli.network import (
    Channels,
    InputScale,
    ModelArgs,
    ModelClass,
    ModelKey,
    NetworkDtype,
    Predicts,
    TimeScale,
    TimeUnit,
    TrainingSteps,
    TrustPickle,
    adapter_options,
    errors_of_network,
    json_object,
    need_shape,
    network_of,
    option,
    shape_of,
)
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
    process_args: ProcessArgs = None,
    shape: Annotated[
        str | None, typer.Option(help="Of one sample, with commas: 3,32,32; for networks.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Samples of the pilot.", min=1)] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the pilot's noise.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    prediction: Predicts = None,
    time: TimeUnit = None,
    time_scale: TimeScale = None,
    num_timesteps: TrainingSteps = None,
    input_scale: InputScale = None,
    channels: Channels = None,
    network_dtype: NetworkDtype = None,
    model_class: ModelClass = None,
    model_args: ModelArgs = None,
    model_key: ModelKey = None,
    trust_pickle: TrustPickle = False,
) -> None:
    """Measure where the denoiser of a network moves, in at most 100 network calls, and write it."""
    import torch

    from srk.processes import process as named_process
    from srk.sampling import calibrate as measure
    from srk.targets.problems import named_problem

    if (model is None) == (target is None):
        raise ArgumentError("give --model or --target, one of them; for example --target digits")
    if out.exists() and not force:
        raise ArgumentError(f"{out} would be overwritten; choose another file, or say --force")
    event = shape_of(shape)
    options = adapter_options(
        prediction, time, time_scale, num_timesteps, input_scale, channels, network_dtype
    )
    settings = json_object("--process-args", process_args)
    if target is not None:
        network = {"model_class": model_class, "model_args": model_args, "model_key": model_key}
        unwanted = [name for name, value in {**network, **options}.items() if value is not None]
        if unwanted:
            raise ArgumentError(
                f"--target {target} has an exact score; leave out "
                f"{', '.join(map(option, unwanted))}"
            )
        chosen, exact = named_problem(process, target, **settings)
        score: Any = exact.score(chosen)
    else:
        chosen = named_process(process, **settings)  # type: ignore[assignment]
        arguments = None if model_args is None else json_object("--model-args", model_args)
        place = torch.device(device)
        score = network_of(
            model, options, event, place, model_class, arguments, model_key, trust_pickle
        )
        need_shape(event or score.bind(chosen).event_shape)
    whole = samples if event is None or target is not None else (samples, *event)
    with errors_of_network():
        profile = measure(chosen, score, shape=whole, seed=seed, device=device)
    out.parent.mkdir(parents=True, exist_ok=True)
    profile.save(out)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(
        f"{chosen!r}\n{profile.calls // samples} network calls, each of {samples} samples\n"
        f"variance of the data per coordinate: {profile.variance:.4g}\n"
        f"wrote {out}; see srk grid --profile {out}"
    )
