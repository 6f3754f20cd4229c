"""`srk sample`: a set of samples of a network, or of a target whose score is exact."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srk.cli.command import GridName, ProcessName, SolverName
from srk.cli.network import network_of, option
from srk.errors import ArgumentError, ArgumentTypeError, ScoreError, SRKError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from srk.processes.base import ForwardProcess
    from srk.scores import Prediction

IMAGES = {"digits": (8, 8), "fashion": (28, 28)}
"""Targets whose samples are flattened images."""

NETWORK, WORKERS, OUTPUT = "The network", "The workers", "The picture"
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
    process_args: Annotated[
        str | None, typer.Option(help='Its parameters, JSON: {"beta_max": 15}.')
    ] = None,
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
    prediction: Annotated[
        str | None,
        typer.Option(
            help="What the network returns: noise, data, v, flow, score, edm.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="Time that it wants: t, sigma, log-snr, half-log-snr, flow, index, index-rounded.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    time_scale: Annotated[
        float | None, typer.Option(help="Factor of that time.", rich_help_panel=NETWORK)
    ] = None,
    num_timesteps: Annotated[
        int | None,
        typer.Option(help="Training steps, for the index units.", min=1, rich_help_panel=NETWORK),
    ] = None,
    input_scale: Annotated[
        str | None,
        typer.Option(help="Scale of its input: x, u, vp, flow.", rich_help_panel=NETWORK),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            help="all, or first-half if it learns the variance too.", rich_help_panel=NETWORK
        ),
    ] = None,
    network_dtype: Annotated[
        str | None,
        typer.Option(help="Of the network: bfloat16, float16, ...", rich_help_panel=NETWORK),
    ] = None,
    autocast: Annotated[
        str | None, typer.Option(help="dtype of torch.autocast around it.", rich_help_panel=NETWORK)
    ] = None,
    model_class: Annotated[
        str | None,
        typer.Option(
            help="package.module:Class that a file of weights is for.", rich_help_panel=NETWORK
        ),
    ] = None,
    model_args: Annotated[
        str | None,
        typer.Option(help='Its keyword arguments, JSON: {"width": 64}.', rich_help_panel=NETWORK),
    ] = None,
    model_key: Annotated[
        str | None,
        typer.Option(
            help="Entry of the file that holds the weights, e.g. ema.", rich_help_panel=NETWORK
        ),
    ] = None,
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle",
            help="Run the code in a pickled file. Only if you trust it.",
            rich_help_panel=NETWORK,
        ),
    ] = False,
    network_name: Annotated[
        str | None,
        typer.Option(
            help="Your name for it, where what it holds changes as it is called.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    conditions: Annotated[
        Path | None,
        typer.Option(
            help="File .npz of arrays with a row for each sample, passed to it by their names.",
            rich_help_panel=NETWORK,
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
    chosen = make_process(process, **_json("--process-args", process_args))
    given = {
        "prediction": prediction,
        "time": time,
        "time_scale": time_scale,
        "num_timesteps": num_timesteps,
        "input_scale": input_scale,
        "channels": channels,
        "network_dtype": _dtype("--network-dtype", network_dtype),
    }
    options = {name: value for name, value in given.items() if value is not None}
    place = process_device(device)
    event = _shape(shape)
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
        arguments = None if model_args is None else _json("--model-args", model_args)
        score = network_of(
            model, options, event, place, model_class, arguments, model_key, trust_pickle
        )
    one = event or score.bind(chosen).event_shape
    data = tuple(chosen.data_of(torch.empty(1, *one)).shape[1:]) if one else one
    seen = IMAGES.get(target or "", data)
    if picture:
        check_images(seen or ())
        pillow("--picture")
    first = int(os.environ.get("RANK", "0")) == 0
    try:
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
            profile=None if profile is None else Profile.load(profile),
            eta=eta,
            noise=noise,
            seed=seed,
            device=place,
            dtype=_dtype("--dtype", dtype) or torch.float32,
            autocast=_dtype("--autocast", autocast),
            compile="step" if compile else False,
            conditions=_arrays(conditions),
            engine=_engine(engine, workers, gpus),
            network_name=network_name,
            verify=verify,
            progress=first,
        )
    except SRKError:
        raise
    except Exception as error:  # the network is the user's code, called as the options say
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise ScoreError(
            f"the network raised {type(error).__name__}: {error} ({at.filename}:{at.lineno}); do "
            "--shape, --time, --model-args and --network-dtype suit it?"
        ) from error
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


def _json(option: str, text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ArgumentError(
            f"{option} is not JSON ({error}); e.g. {option} '{{\"width\": 64}}'"
        ) from None
    if not isinstance(found, dict):
        raise ArgumentTypeError(
            f"{option} is a JSON object, name -> value, not {text}; e.g. {option} "
            "'{\"width\": 64}'"
        )
    return found


def _dtype(option: str, text: str | None) -> torch.dtype | None:
    import torch

    if text is None:
        return None
    found = getattr(torch, text, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ArgumentError(
            f"{option} {text} is not a floating-point dtype; e.g. float32, float64, bfloat16"
        )
    return found


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        shape = tuple(int(word) for word in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ArgumentError(
            f"--shape {text} is not positive whole numbers with commas; e.g. --shape 3,32,32"
        )
    return shape
