"""Log-densities of saved runs, under the network that a sampler has now."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from srk._engine.density import check_gaussian, input_log_prob, transition_log_prob
from srk._engine.finite import Watch
from srk._engine.network import Network
from srk.errors import ArgumentError
from srk.sampling.compatible import check_density
from srk.sampling.planner import Planner
from srk.sampling.settings import Settings
from srk.scores.centred import hidden_each, placed
from srk.solution import Saved, Solution


def saved_states(trajectory: Saved | Solution) -> tuple[Saved, Saved | None]:
    """The states of a saved run, and what its network saw, if that was saved."""
    whole = isinstance(trajectory, Solution)
    saved = trajectory.trajectory if isinstance(trajectory, Solution) else trajectory
    inputs = trajectory.inputs if isinstance(trajectory, Solution) else None
    if saved is None:
        with_inputs = " or save=('x', 'inputs')" if whole else ""
        raise ArgumentError(f"the solution holds no trajectory; draw it with save='x'{with_inputs}")
    return saved, inputs


def log_prob(
    settings: Settings,
    planner: Planner,
    saved: Saved,
    inputs: Saved | None,
    samples: slice | Sequence[int] | Tensor | None = None,
) -> Saved:
    """The log-densities of states, or where they are given of the network's inputs.

    Arguments:
        settings, planner: of the sampler.
        saved: the states, which are real.
        inputs: what the network saw.
        samples: which samples of the batch.
    """
    if samples is not None:
        rows = torch.arange(saved.values.shape[1], device=saved.values.device)[samples]
        prediction = settings.prediction.select(rows, saved.values.shape[1])
        settings = attrs.evolve(settings, prediction=prediction)
        saved = Saved(saved.times, saved.values[:, rows])
        if inputs is not None:
            inputs = Saved(inputs.times, inputs.values[:, rows])
    plans, _ = planner.planned(settings, settings.info(dtype=saved.values.dtype))
    check_density(settings.process, settings.hooks)
    if inputs is None:
        check_gaussian(plans, settings.label)
    watch = Watch(saved.values[0])
    prediction = placed(settings.prediction, saved.values[0])
    network = Network(
        prediction, settings.process, settings.one_eta, watch, autocast=settings.autocast
    )
    saved = hidden_each(prediction, saved)
    if inputs is not None:
        return input_log_prob(network, plans, saved, hidden_each(prediction, inputs))
    return transition_log_prob(network, plans, saved)
