"""Runs every small pipeline of diffusers with every solver, and writes docs/diffusers-matrix.md.

    pip install 'srk[diffusers]' transformers
    python benchmarks/diffusers_matrix.py            # the whole page
    python benchmarks/diffusers_matrix.py Flux Wan   # these rows, on the screen

The pipelines are built from configs with random weights (tests/support/small_pipelines.py), so
nothing is downloaded. What the page says of a pipeline was run here.
"""

from __future__ import annotations

import platform
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import diffusers  # noqa: E402
from small_pipelines import PIPELINES, Small  # noqa: E402

import srk  # noqa: E402
from srk.ecosystem.diffusers import SRKScheduler  # noqa: E402
from srk.errors import SRKError  # noqa: E402

STEPS = 4
PAGE = ROOT / "docs" / "diffusers-matrix.md"
#: Since which version a pipeline works; 0.1 had the first three and Flux.
SINCE = {"DDPM": "0.1", "Stable Diffusion": "0.1", "Stable Diffusion img2img": "0.1", "Flux": "0.1"}
#: What else `from_config` must be told.
MORE: dict[str, dict[str, Any]] = {"Latent upscaler": {"frame": "sigma"}}

HEAD = """\
# Pipelines of diffusers

After this page you know which pipelines run with `SRKScheduler`, how well a run repeats,
and with which solvers. `benchmarks/diffusers_matrix.py` ran every one of them, with
small networks of random weights, in {steps} steps, and wrote this page (diffusers
{diffusers}, PyTorch {torch}, {machine}).

- **its own scheduler**: how far the result of `solver="host"`, the solver of ours that
  the pipeline's own scheduler has, is from that scheduler's, relative to the largest
  value. A dash: none of ours is that solver. Where a number is large the note says why.
- **repeats**: whether two calls with generators of the same seed give the same bits, for
  every solver; *step* says whether the pipeline hands its generator to the scheduler. If
  it does not, the states at the start of the run seed the noise.
- **solvers**: how many of the {solvers} registered solvers ran, with finite results.

| pipeline | its scheduler | its own scheduler | repeats | solvers | since |
|---|---|---|---|---:|---|
"""

NOTES = {
    "Stable Diffusion": "PNDM is not among our solvers",
    "Stable Diffusion img2img": "PNDM is not among our solvers",
    "Stable Diffusion inpaint": "PNDM is not among our solvers",
    "ControlNet": "PNDM is not among our solvers",
    "CogVideoX": "where the steps do not divide 1000, DDIM steps to another level than it calls at",
    "DiT": "DDIM keeps the noise where it clips the denoiser (`clip_sample`)",
    "Kandinsky 2.2": "the network's learned variance is not used",
    "DeepFloyd IF": "the network's learned variance is not used",
    "Stable Audio": "its noise is that of a Brownian tree, ours of the generator",
    "Latent upscaler": 'needs `frame="sigma"`, and says so before its first step',
}

TAIL = """
Not replaced, with a message from `from_config` before anything runs: consistency models
(`CMStochasticIterativeScheduler`), inversion (`DDIMInverseScheduler`,
`DPMSolverMultistepInverseScheduler`), RePaint, Stable Cascade
(`DDPMWuerstchenScheduler`), unCLIP, score-SDE VE, IPNDM, SANA-Sprint (`SCMScheduler`),
Helios, flow maps, and flows with `invert_sigmas` (Mochi). Refused at the first step:
pipelines that step back (Cosmos 1) or change `scheduler.sigmas` after `set_timesteps`.
Refused by the pipeline itself, which asks for the class of its scheduler: LEDITS++, LTX
with long prompts, LongCat Audio. EasyAnimate and Bria ask for the class too and then go
another way through their own code; keep their scheduler.
"""


def draws_in_step(pipe: Any) -> str:
    """Whether the pipeline's code passes `generator` to `scheduler.step`."""
    import inspect

    text = inspect.getsource(type(pipe))
    call = text.split("scheduler.step(")[-1].split("return_dict")[0].split("\n\n")[0]
    handed = "generator" in call or "extra_step_kwargs" in call
    return "step" if handed else "start"


def difference(small: Small, own: Any, more: dict[str, Any]) -> str:
    """The relative difference between the pipeline's own scheduler and its counterpart here."""
    small.pipe.scheduler = own
    theirs = small.run(STEPS)
    try:
        small.pipe.scheduler = SRKScheduler.from_config(own, solver="host", **more)
        ours = small.run(STEPS)
    except SRKError:
        return "-"
    return f"{float((ours - theirs).abs().max() / theirs.abs().max()):.0e}"


def row(name: str) -> str:
    """The line of one pipeline."""
    torch.manual_seed(0)
    small = PIPELINES[name]()
    own, more = small.pipe.scheduler, MORE.get(name, {})
    apart = difference(small, own, more)
    ran, repeats, failed = 0, True, []
    for solver in srk.solvers():
        try:
            small.pipe.scheduler = SRKScheduler.from_config(own, solver=solver, **more)
            first, again = small.run(STEPS), small.run(STEPS)
        except SRKError as error:
            failed.append(f"{solver}: {str(error).splitlines()[0][:80]}")
            continue
        ran += bool(torch.isfinite(first).all())
        repeats = repeats and bool(torch.equal(first, again))
    for line in failed:
        print(f"    {name}: {line}", file=sys.stderr)
    note = f" ({NOTES[name]})" if name in NOTES else ""
    said = "bit for bit" if repeats else "no"
    return (
        f"| {name} | {type(own).__name__} | {apart}{note} | {said}, {draws_in_step(small.pipe)} "
        f"| {ran} | {SINCE.get(name, '0.2')} |"
    )


def main() -> None:
    warnings.filterwarnings("ignore")
    diffusers.logging.set_verbosity_error()
    names = sys.argv[1:] or list(PIPELINES)
    lines = []
    for name in names:
        lines.append(row(name))
        print(lines[-1], flush=True)
    if sys.argv[1:]:
        return
    head = HEAD.format(
        steps=STEPS,
        diffusers=diffusers.__version__,
        torch=torch.__version__,
        machine=platform.machine(),
        solvers=len(srk.solvers()),
    )
    PAGE.write_text(head + "\n".join(lines) + "\n" + TAIL, encoding="utf-8")


if __name__ == "__main__":
    main()
