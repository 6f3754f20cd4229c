"""`srk sample`: a set of samples of a network, or of a target whose score is exact."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srk.cli.command import GridName, ProcessArgs, ProcessName, SolverName
from srk.cli.network import (
    PANEL,
    Autocast,
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
    dtype_of,
    errors_of_network,
    json_object,
    need_shape,
    network_of,
    option,
    shape_of,
)
from srk.errors import ArgumentError, SRKError

if TYPE_CHECKING:
    from rich.console import Console

    from srk.processes.base import ForwardProcess
    from srk.scores import Prediction

IMAGES = {"digits": (8, 8), "fashion": (28, 28)}
"""Targets whose samples are flattened images."""

WORKERS, OUTPUT = "The workers", "The picture"
"""Headings of the help."""


def sample(
    out: Annotated[
        str | None,
        typer.Option(
            help="The set: a folder, or a URL such as s3://bucket/set; new or unfinished."
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--samples", help="How many.", min=1)] = 64,
    model: Annotated[
        str | None,
        typer.Option(help="The network: package.module:attribute, or a file of weights."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Instead of a network: digits, fashion or mixture, whose score is exact."
        ),
    ] = None,
    process: ProcessName = "vp",
    process_args: ProcessArgs = None,
    solver: SolverName = "auto",
    nfe: Annotated[int | None, typer.Option(help="Network calls for each sample.", min=1)] = None,
    steps: Annotated[int | None, typer.Option(help="Steps instead; default 50.", min=1)] = None,
    grid: GridName = None,
    profile: Annotated[
        Path | None, typer.Option(help="A profile of `srk calibrate`: it places the steps.")
    ] = None,
    eta: Annotated[
        float | None, typer.Option(help="1: the reverse SDE, 0: the ODE; default the solver's.")
    ] = None,
    shape: Annotated[str | None, typer.Option(help="Shape of one sample, e.g. 3,32,32.")] = None,
    batch: Annotated[int, typer.Option(help="Samples drawn together.", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the set.")] = 0,
    noise: Annotated[str, typer.Option(help="keyed or brownian.")] = "keyed",
    device: Annotated[
        str, typer.Option(help="cpu, cuda (under torchrun: a GPU each), ...")
    ] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="Of the samples: float16, float32, float64.")
    ] = "float32",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the arithmetic between two network calls.")
    ] = False,
    prediction: Predicts = None,
    time: TimeUnit = None,
    time_scale: TimeScale = None,
    num_timesteps: TrainingSteps = None,
    input_scale: InputScale = None,
    channels: Channels = None,
    network_dtype: NetworkDtype = None,
    autocast: Autocast = None,
    model_class: ModelClass = None,
    model_args: ModelArgs = None,
    model_key: ModelKey = None,
    trust_pickle: TrustPickle = False,
    network_name: Annotated[
        str | None,
        typer.Option(
            help="Your name for it, where what it holds changes as it is called.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    conditions: Annotated[
        Path | None,
        typer.Option(
            help="File .npz of arrays with a row for each sample, passed to it by their names.",
            rich_help_panel=PANEL,
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Who draws: local, torchrun, ray, slurm.", rich_help_panel=WORKERS),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Workers of ray, or jobs of slurm.", min=1, rich_help_panel=WORKERS),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            help="GPUs of each worker; half a one is 0.5.", min=0, rich_help_panel=WORKERS
        ),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="Draw nothing; say how much of the set at this place is there.",
            rich_help_panel=WORKERS,
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(help="Read what is there and look for damage.", rich_help_panel=WORKERS),
    ] = True,
    picture: Annotated[
        bool | None,
        typer.Option(
            help="Write a picture beside the set; default: if samples are images.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    low: Annotated[float, typer.Option(help="Value shown black.", rich_help_panel=OUTPUT)] = -1.0,
    high: Annotated[float, typer.Option(help="Value shown white.", rich_help_panel=OUTPUT)] = 1.0,
) -> None:
    """Draw a set of samples; a stopped run continues, and many workers share the work.

    The set is a Zarr array with its settings. Of images, a picture is written beside it.
    """
    import torch
    from rich.console import Console

    from srk._pictures import LARGEST, check_images, image_grid, is_image, pillow
    from srk.processes import process as make_process
    from srk.steps import Profile
    from srk.storage import SampleSet, process_device, sample_to

    console = Console(soft_wrap=True)
    if status is not None:
        found = SampleSet.open(status)
        there, whole = found.status(verify=verify)
        _say(console, f"{there} of {whole} samples of shape {found.shape[1:]} in {status}")
        return
    if out is None:
        raise ArgumentError("say where the samples go: --out samples")
    if not low < high:
        raise ArgumentError(f"--low {low:g} must be below --high {high:g}; e.g. --low -1 --high 1")
    chosen = make_process(process, **json_object("--process-args", process_args))
    options = adapter_options(
        prediction, time, time_scale, num_timesteps, input_scale, channels, network_dtype
    )
    place = process_device(device)
    event = shape_of(shape)
    if target is not None:
        network = {
            "model": model,
            "shape": event,
            "model_class": model_class,
            "model_args": model_args,
            "model_key": model_key,
        }
        score = _exact(
            target,
            chosen,
            [name for name, value in {**network, **options}.items() if value is not None],
        )
    else:
        arguments = None if model_args is None else json_object("--model-args", model_args)
        score = network_of(
            model, options, event, place, model_class, arguments, model_key, trust_pickle
        )
    placed = None if profile is None else Profile.load(profile)
    one = need_shape(event or score.bind(chosen).event_shape)
    data = tuple(chosen.data_of(torch.empty(1, *one)).shape[1:]) if one else one
    seen = IMAGES.get(target or "", data)
    if picture:
        check_images(seen or ())
        pillow("--picture")
    first = int(os.environ.get("RANK", "0")) == 0
    with errors_of_network():
        samples = sample_to(
            out,
            chosen,
            score,
            solver,
            shape=(n, *event) if event else n,
            batch=batch,
            steps=steps,
            nfe=nfe,
            grid=grid,
            profile=placed,
            eta=eta,
            noise=noise,
            seed=seed,
            device=place,
            dtype=dtype_of("--dtype", dtype) or torch.float32,
            autocast=dtype_of("--autocast", autocast),
            compile="step" if compile else False,
            conditions=_arrays(conditions),
            engine=_engine(engine, workers, gpus),
            network_name=network_name,
            verify=verify,
            progress=first,
        )
    if not first:
        return
    state = f"{samples.drawn} drawn now" if samples.drawn else "complete already"
    _say(console, f"{samples.shape[0]} samples of shape {samples.shape[1:]} in {out} ({state})")
    if picture is False or (picture is None and not is_image(seen or ())):
        return
    try:
        x = samples.load(LARGEST)
        file = Path((out.rstrip("/").split("/")[-1] if "://" in out else out.rstrip("/")) + ".png")
        if file.exists():
            _say(console, f"no picture: {file} is there already")
            return
        images = chosen.data_of(x).reshape(-1, *(seen or ()))
        image_grid(images, file, low=low, high=high)
        _say(console, f"picture of the first {len(x)} in {file}")
    except SRKError as error:
        if picture:
            raise
        _say(console, f"no picture: {error}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _engine(name: str | None, workers: int | None, gpus: float | None) -> Any:
    """The engine of that name with its workers."""
    from srk.storage import Ray, Slurm

    if name == "ray":
        return Ray(workers=workers or 2, gpus=gpus or 0.0)
    if name == "slurm":
        # A job of SLURM has whole GPUs.
        return Slurm(jobs=workers or 2, parameters={"gpus_per_node": int(gpus)} if gpus else {})
    if workers is not None or gpus is not None:
        raise ArgumentError("--workers and --gpus are for --engine ray or --engine slurm")
    return name


def _arrays(file: Path | None) -> dict[str, Any] | None:
    """The arrays of an .npz file."""
    import numpy as np

    if file is None:
        return None
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # NumPy's readers raise much besides ValueError
        raise ArgumentError(
            f"--conditions {str(file)!r} is not a readable .npz file ({type(error).__name__}: "
            f"{error}); write one with numpy.savez(file, label=labels)"
        ) from error


def _exact(target: str, process: ForwardProcess, unwanted: list[str]) -> Prediction:
    """The exact score of a named target."""
    from srk.targets.problems import named_problem

    if unwanted:
        raise ArgumentError(
            f"--target {target} has an exact score and a shape of its own; leave out "
            f"{', '.join(map(option, unwanted))}"
        )
    # It refuses a process that is neither linear nor of phase space.
    score: Prediction = named_problem("vp", target)[1].score(process)  # type: ignore[call-overload]
    return score
