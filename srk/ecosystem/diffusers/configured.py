"""What the config of a scheduler says: its solver, its network, and what pipelines read off."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from srk.ecosystem.diffusers.conventions import Convention, convention
from srk.ecosystem.diffusers.etas import eta_of
from srk.ecosystem.diffusers.interface import ConfigMixin, SchedulerMixin
from srk.ecosystem.diffusers.route import LastOrders, StateFirst
from srk.ecosystem.diffusers.running import Entry
from srk.ecosystem.diffusers.solvers import options_of, solver_of
from srk.ecosystem.profiles import profile_of
from srk.errors import (
    ArgumentError,
)
from srk.integrators import SRK2M, Auto, Integrator, OnSchedule, integrator
from srk.scores.adapters import NetworkPrediction
from srk.steps import Profile


class Configured(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # diffusers is untyped here
    """A scheduler as its config describes it; what depends on the config is made when needed."""

    _made: tuple[dict[str, Any], Convention] | None
    _last: LastOrders | None
    _told: tuple[tuple[float, float], ...]
    _request: dict[str, Any] | None
    _entries: list[Entry]

    @property
    def integrator(self) -> StateFirst:
        """The solver, in the form in which `srk.solve` makes the same samples with it.

        See `StateFirst`. How the order falls at the end of a run is known after `set_timesteps`.
        """
        return StateFirst(self._method(), self._last)

    def _method(self) -> Integrator:
        name = self.config.solver
        if name == "host":
            name = solver_of(self.config)[0]
        method: Any = integrator(name)
        options = self.config.solver_options
        if options is None:
            options = options_of(self.config, name, self._told)
        try:
            made: Integrator = attrs.evolve(method, **options) if options else method
            profile = self._profile
            if profile is not None:
                made = made.calibrated(profile)
            return OnSchedule(made) if self._on_schedule(made) else made
        except TypeError as error:
            known = (
                ", ".join(field.name for field in attrs.fields(type(method)) if field.init)
                or "none"
            )
            raise ArgumentError(
                f"solver_options={options!r} are not options of {name!r}; it has: {known}"
            ) from error

    @property
    def _profile(self) -> Profile | None:
        return profile_of(self.config.get("profile"))

    def _on_schedule(self, method: Integrator) -> bool:
        """Whether the solver needs a form of its own to call the network at the host's levels."""
        calls, own = self.config.calls, isinstance(method, (SRK2M, Auto))
        if calls is None:
            one = self.config.eta is None or isinstance(self.config.eta, (int, float))
            return own and one and self.config.host is not None and self.config.grid is None
        return calls == "schedule" and (own or method.evaluations_per_step > 1)

    @property
    def _eta(self) -> Any:
        """The stochasticity that the config asks for, in a form of `srk.eta.as_eta`."""
        if self.config.eta is not None:
            return eta_of(self.config.eta)
        eta = solver_of(self.config)[1] if self.config.solver == "host" else None
        return self._method().default_eta if eta is None else eta

    @property
    def _convention(self) -> Convention:
        config = dict(self.config)
        if self._made is None or self._made[0] != config:
            self._made = (
                config,
                convention({key: value for key, value in config.items() if key != "_class_name"}),
            )
        return self._made[1]

    @property
    def _prediction(self) -> NetworkPrediction:
        return self._convention.prediction(_in_the_pipeline)

    @property
    def alphas_cumprod(self) -> Tensor:
        """alphas_cumprod of the training steps; of networks of the family "vp" only."""
        made = self._convention
        if made.family != "vp":
            raise AttributeError(f"alphas_cumprod is defined for process='vp', not {made.family!r}")
        process: Any = made.process
        return torch.tensor(process.alphas_cumprod, dtype=torch.float32)

    @property
    def alphas(self) -> Tensor:
        """1 - betas of the training steps; of networks of the family "vp" only."""
        products = self.alphas_cumprod
        return products / torch.cat([products.new_ones(1), products[:-1]])

    @property
    def betas(self) -> Tensor:
        """The betas of the training steps; of networks of the family "vp" only."""
        return 1.0 - self.alphas

    @property
    def final_alpha_cumprod(self) -> Tensor:
        """alphas_cumprod at the end of a run: 1, or that of training step 0."""
        end = self.config.final_sigmas_type == "sigma_min"
        return self.alphas_cumprod[0] if end else torch.tensor(1.0)

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first state."""
        if self.config.frame != "sigma":
            return self._convention.prior_std
        process = self._convention.process
        r = self._entries[0].level.r if self._entries else process.level(process.t_max).r
        scaled = self.config.timestep_spacing in ("linspace", "trailing")
        return float(r if scaled else (r * r + 1.0) ** 0.5)  # as EulerDiscreteScheduler has it

    @property
    def order(self) -> int:
        """Entries of `timesteps` for each step, which pipelines skip for each one left out.

        After `set_timesteps` with a list it is 1: pipelines then take the number of entries for the
        number of steps.
        """
        asked = self._request or {}
        if asked.get("timesteps") is not None or asked.get("sigmas") is not None:
            return 1
        return self._method().evaluations_per_step

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)


def _in_the_pipeline(x: Tensor, t: Tensor) -> Tensor:
    raise AssertionError("the pipeline calls the network")
