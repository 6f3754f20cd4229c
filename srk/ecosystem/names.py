"""What other libraries call the solvers: diffusers' classes, A1111's labels, ComfyUI's and
score_sde's names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from srk._checks import need
from srk.errors import IncompatibleError, UnknownNameError
from srk.integrators import SOLVERS, DPMpp2MSDE, Integrator, PredictorCorrector, ReverseDiffusion
from srk.steps import Grid, RePaint, Restart

ODE = {"eta": 0.0}
HEUN_2M = DPMpp2MSDE(variant="heun")
PC_VE = PredictorCorrector.score_sde("ve")
PC_DIFFUSERS = PredictorCorrector(ReverseDiffusion(), snr=0.15, norms="batch")
SGMSE = PredictorCorrector.sgmse()
#: What a user writes for the solvers and grids here that have no name.
SPELLED: list[tuple[Any, str]] = [
    (HEUN_2M, 'DPMpp2MSDE(variant="heun")'),
    (PC_VE, 'PredictorCorrector.score_sde("ve")'),
    (PC_DIFFUSERS, 'PredictorCorrector(ReverseDiffusion(), snr=0.15, norms="batch")'),
    (SGMSE, "PredictorCorrector.sgmse()"),
    (Restart([(10, 1, 0.1, 2.0)]), "Restart([(10, 1, 0.1, 2.0)])"),
    (RePaint(), "RePaint()"),
]


@attrs.frozen
class Found(Mapping[str, Any]):
    """A solver of srk by another library's name; unpacks into the keywords of `srk.solve`.

    Arguments:
        name: the name that was looked up.
        host: whose name it is.
        solver: the solver, by name or as an integrator with options.
        grid: the grid that goes with the name, by name or as a grid with options; None where the
            host chooses it apart from the solver. "uniform" is meant for a process whose time is
            that of the training (`srk.VPDiscrete`, `srk.Flow`).
        options: further keywords of `srk.solve`.
        note: what to know about it.
    """

    name: str
    host: str
    solver: str | Integrator
    grid: str | Grid | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    note: str = ""

    def _keywords(self) -> dict[str, Any]:
        grid = {} if self.grid is None else {"grid": self.grid}
        return {"solver": self.solver, **grid, **self.options}

    def __getitem__(self, key: str) -> Any:
        return self._keywords()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keywords())

    def __len__(self) -> int:
        return len(self._keywords())


Entry = tuple[str | Integrator, str | Grid | None, Mapping[str, Any]]
# name: (solver, grid, options). diffusers places its timesteps evenly unless told otherwise.
_DIFFUSERS: dict[str, Entry] = {
    "DDPMScheduler": ("ddpm", "uniform", {}),
    "DDPMParallelScheduler": ("ddpm", "uniform", {}),
    "DDIMScheduler": ("ddim", "uniform", ODE),
    "DDIMParallelScheduler": ("ddim", "uniform", ODE),
    "CogVideoXDDIMScheduler": ("ddim", "uniform", ODE),
    "EulerDiscreteScheduler": ("ddim", "uniform", ODE),
    "EulerAncestralDiscreteScheduler": ("euler-ancestral", "uniform", {}),
    "HeunDiscreteScheduler": ("heun", "uniform", {}),
    "LMSDiscreteScheduler": ("lms", "uniform", {}),
    "KDPM2DiscreteScheduler": ("dpm2", "uniform", {}),
    "KDPM2AncestralDiscreteScheduler": ("dpm2-ancestral", "uniform", {}),
    "DPMSolverMultistepScheduler": ("dpmpp-2m", "uniform", {}),
    "CogVideoXDPMScheduler": ("dpmpp-2m-sde", "uniform", {}),
    "DPMSolverSinglestepScheduler": ("dpmpp-2s-ancestral", "uniform", ODE),
    "DPMSolverSDEScheduler": ("dpmpp-sde", "uniform", {}),
    "DEISMultistepScheduler": ("deis-2", "uniform", {}),
    "UniPCMultistepScheduler": ("unipc-2", "uniform", {}),
    "SASolverScheduler": ("sa-solver", "uniform", {}),
    "EDMEulerScheduler": ("ddim", "karras", ODE),
    "EDMDPMSolverMultistepScheduler": ("dpmpp-2m", "karras", {}),
    "CosineDPMSolverMultistepScheduler": ("dpmpp-2m-sde", "log-snr", {}),
    "LCMScheduler": ("lcm", "uniform", {}),
    "FlowMatchLCMScheduler": ("lcm", "uniform", {}),
    "TCDScheduler": ("tcd", "uniform", {"eta": 0.3}),
    "FlowMatchEulerDiscreteScheduler": ("ddim", "uniform", ODE),
    "FlowMatchHeunDiscreteScheduler": ("heun", "uniform", {}),
    "RePaintScheduler": ("ddim", RePaint(), ODE),
    "ScoreSdeVeScheduler": (PC_DIFFUSERS, "uniform", {}),
}
# The grid is that of the label's "Automatic" schedule
_A1111: dict[str, Entry] = {
    "Euler": ("ddim", "uniform", ODE),
    "Euler a": ("euler-ancestral", "uniform", {}),
    "LMS": ("lms", "uniform", {}),
    "Heun": ("heun", "uniform", {}),
    "DPM2": ("dpm2", "karras", {}),
    "DPM2 a": ("dpm2-ancestral", "karras", {}),
    "DPM++ 2S a": ("dpmpp-2s-ancestral", "karras", {}),
    "DPM++ 2M": ("dpmpp-2m", "karras", {}),
    "DPM++ SDE": ("dpmpp-sde", "karras", {}),
    "DPM++ 2M SDE": ("dpmpp-2m-sde", "log-snr", {}),
    "DPM++ 2M SDE Heun": (HEUN_2M, "log-snr", {}),
    "DPM++ 3M SDE": ("dpmpp-3m-sde", "log-snr", {}),
    "DDIM": ("ddim", "uniform", ODE),
    "DEIS": ("deis-3", "uniform", {}),
    "UniPC": ("unipc-3", "uniform", {}),
    "DDPM": ("ddpm", "uniform", {}),
    "LCM": ("lcm", "uniform", {}),
    "Restart": ("heun", Restart([(10, 1, 0.1, 2.0)]), {}),
}
_COMFYUI: dict[str, Entry] = {
    "euler": ("ddim", None, ODE),
    "euler_ancestral": ("euler-ancestral", None, {}),
    "heun": ("heun", None, {}),
    "dpm_2": ("dpm2", None, {}),
    "dpm_2_ancestral": ("dpm2-ancestral", None, {}),
    "lms": ("lms", None, {}),
    "dpmpp_2s_ancestral": ("dpmpp-2s-ancestral", None, {}),
    "dpmpp_sde": ("dpmpp-sde", None, {}),
    "dpmpp_2m": ("dpmpp-2m", None, {}),
    "dpmpp_2m_sde": ("dpmpp-2m-sde", None, {}),
    "dpmpp_2m_sde_heun": (HEUN_2M, None, {}),
    "dpmpp_3m_sde": ("dpmpp-3m-sde", None, {}),
    "ddpm": ("ddpm", None, {}),
    "ddim": ("ddim", None, ODE),
    "deis": ("deis-3", None, {}),
    "er_sde": ("er-sde-3", None, {}),
    "seeds_2": ("seeds-2", None, {}),
    "seeds_3": ("seeds-3", None, {}),
    "sa_solver": ("sa-solver", None, {}),
    "uni_pc": ("unipc-3", None, {}),
    "lcm": ("lcm", None, {}),
}
# score_sde's predictors and samplers; "ancestral_sampling" is ours for its VE alone
_SCORE_SDE: dict[str, Entry] = {
    "predictor-corrector": (PC_VE, "uniform", {}),
    "pc": (PC_VE, "uniform", {}),
    "reverse_diffusion": ("reverse-diffusion", "uniform", {}),
    "euler_maruyama": ("euler-maruyama", "uniform", {}),
    "ancestral_sampling": ("ddpm", "uniform", {}),
    "SGMSE": (SGMSE, "uniform", {}),
}
_TABLES = {
    "diffusers": _DIFFUSERS,
    "A1111, Forge": _A1111,
    "ComfyUI, k-diffusion": _COMFYUI,
    "score_sde, SGMSE": _SCORE_SDE,
}
#: What to know about a name besides.
NOTES = {
    "Restart": "the webui takes (10, 1, 0.1, 2) from 20 steps on, 9 of which are the restart's; "
    "from 36 steps on (steps // 4 + 1, 2, 0.1, 2)",
    "RePaintScheduler": "the known part comes by a hook: hooks=[srk.scores.RePaint(known, mask)]",
}
_ENTRIES = [
    (entry, host, values) for host, table in _TABLES.items() for entry, values in table.items()
]

#: Schedules that hosts write behind a label, and our grid; None: srk has none of the kind.
SCHEDULES: dict[str, str | None] = {
    "Karras": "karras",
    "Exponential": "log-snr",
    "Polyexponential": "log-snr",
    "Uniform": "uniform",
    "SGM Uniform": "uniform",
    "Normal": "uniform",
    "Simple": "uniform",
    "DDIM Uniform": "uniform",
    "Beta": "beta",
    "KL Optimal": "kl-optimal",
    "Align Your Steps": None,
    "Linear Quadratic": None,
    "Turbo": None,
}
#: Samplers of hosts that srk has not, and which of ours to take instead.
MISSING = {
    "PNDMScheduler": "'deis-3'",
    "IPNDMScheduler": "'deis-3'",
    "DPM fast": "'dpm-solver-3'",
    "DPM adaptive": "'dpm-solver-3'",
    "HeunPP2": "'heun'",
    "IPNDM": "'deis-3'",
    "IPNDM_V": "'deis-3'",
    "PLMS": "'deis-3'",
    "res_multistep": "'dpmpp-2m'",
    "gradient_estimation": "'dpmpp-2m'",
    "exp_heun_2_x0": "'dpm-solver-2'",
    "exp_heun_2_x0_sde": "'seeds-2'",
    "sa_solver_pece": "'sa-solver'",
    "uni_pc_bh2": "'unipc-3'",
    "euler_cfg_pp": "'ddim', with plain guidance",
    "dpmpp_2m_cfg_pp": "'dpmpp-2m', with plain guidance",
}


def find(name: str) -> Found:
    """The solver of srk that another library calls `name`, with its grid and options.

    Arguments:
        name: a class of diffusers ("DPMSolverMultistepScheduler"), a label of A1111 or Forge, with
            or without a schedule ("DPM++ 2M Karras"), a name of ComfyUI ("dpmpp_2m") or a function
            of k-diffusion ("sample_dpmpp_2m"), a sampler of score_sde ("predictor-corrector",
            "reverse_diffusion") or "SGMSE", or a solver of srk. Upper case, spaces and underscores
            do not count.

    Returns:
        What was found; `srk.solve(process, score, **srk.find(name))` runs it. The solver of a class
        of diffusers is that of its default options (`srk.from_diffusers` reads a whole config).

    Raises:
        UnknownNameError: no library has it; the message names the closest.
        IncompatibleError: a library has it, but srk has not; the message names what to take.

    Examples:
        >>> import srk
        >>> found = srk.find("DPM++ 2M Karras")
        >>> found.solver, found.grid, dict(found.options)
        ('dpmpp-2m', 'karras', {})
        >>> dict(srk.find("EulerDiscreteScheduler"))
        {'solver': 'ddim', 'grid': 'uniform', 'eta': 0.0}
        >>> process, target = srk.VP(), srk.targets.Gaussian(0.5, 0.04)
        >>> score = target.score(process)
        >>> srk.solve(process, score, shape=(4, 1), steps=20, **srk.find("Euler a")).solver
        'euler-ancestral'
    """
    need(name, str, "name", "a str such as 'DPM++ 2M Karras'")
    wanted = _plain(name)
    found = _named(name, wanted)
    if found is not None:
        return found
    for schedule, grid in sorted(SCHEDULES.items(), key=lambda entry: -len(entry[0])):
        ending = "-" + _plain(schedule)
        if not wanted.endswith(ending):
            continue
        found = _named(name, wanted.removesuffix(ending))
        if found is not None:
            note = "" if grid else f"srk has no grid like {schedule}; give times, or another grid"
            return attrs.evolve(found, grid=grid, note=note)
    known = [entry for table in _TABLES.values() for entry in table] + list(SOLVERS)
    raise UnknownNameError("solver of a library", name, known, "docs/names.md")


def _plain(name: object) -> str:
    text = str(name).strip().lower().replace("+", "p").replace("_", "-").replace(" ", "-")
    return text.removeprefix("sample-").removesuffix("-gpu")


def _named(name: str, wanted: str) -> Found | None:
    """A name without a schedule behind it."""
    spelled = name.strip().removeprefix("sample_").removesuffix("_gpu")
    # "dpmpp_2m" and "DPM++ 2M" are the same but for the spelling, which tells the library
    for entry, host, values in _ENTRIES:
        if entry == spelled:
            return Found(name, host, *values, note=NOTES.get(entry, ""))
    for entry, host, values in _ENTRIES:
        if _plain(entry) in (wanted, wanted + "scheduler"):
            return Found(name, host, *values, note=NOTES.get(entry, ""))
    for entry, instead in MISSING.items():
        if _plain(entry) == wanted:
            raise IncompatibleError(
                f"srk has no solver like {entry}; take {instead}"
                if not instead.startswith("none")
                else f"srk has no solver like {entry}, and {instead.removeprefix('none: ')}"
            )
    return Found(name, "srk", wanted) if wanted in SOLVERS else None


def _spelled(value: Any) -> str:
    """What a user writes for a solver or a grid."""
    if isinstance(value, str):
        return value
    return next(text for known, text in SPELLED if known == value)


def table() -> str:
    """The names as tables in Markdown, one for each library."""
    lines = []
    for host, names in _TABLES.items():
        lines += [f"## {host}", "", "| name | solver | grid | options |", "|---|---|---|---|"]
        for entry, (solver, grid, options) in names.items():
            ours = f"`{_spelled(solver)}`"
            chosen = f"`{_spelled(grid)}`" if grid else "the host's"
            given = ", ".join(f"`{key}={value:g}`" for key, value in options.items())
            lines.append(f"| {entry} | {ours} | {chosen} | {given} |")
        lines.append("")
    lines += ["## Schedules behind a label", "", "| schedule | grid |", "|---|---|"]
    lines += [f"| {name} | {f'`{grid}`' if grid else '-'} |" for name, grid in SCHEDULES.items()]
    lines += ["", "## What srk has not", "", "| name | instead |", "|---|---|"]
    lines += [f"| {name} | {instead} |" for name, instead in MISSING.items()]
    return "\n".join(lines) + "\n"


__all__ = ["MISSING", "SCHEDULES", "Found", "find", "table"]
