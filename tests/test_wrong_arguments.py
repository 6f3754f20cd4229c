"""Arguments in the wrong order or of the wrong type: an error of ours that names what was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import srk as package
from srk.errors import ArgumentError, ArgumentTypeError, ScoreError, SRKError
from srk.scores import hooks as named_hooks
from srk.steps import Adaptive, Budget, Karras

# Called with what their types forbid, so that they have none here.
srk: Any = package
analysis: Any = package.analysis
hooks: Any = named_hooks

VP: Any = srk.VP()
MIXTURE: Any = srk.targets.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [0.1, 0.2])
SCORE: Any = MIXTURE.score(VP)
ZEROS: Any = torch.zeros(3, 2)

CALLS: list[tuple[Callable[[], Any], str]] = [
    # in the wrong order
    (lambda: analysis.gaussian_distribution(VP, "ddpm"), "solver must be .* not VP"),
    (lambda: analysis.strong_order("ddpm", MIXTURE, VP), "process must be .* not GaussianMixture"),
    (lambda: srk.targets.ExactScore(VP, MIXTURE), "target must be .* not VP"),
    (lambda: srk.solve(SCORE, VP, shape=3), "process must be .* not ExactScore"),
    (lambda: srk.scores.to_noise(VP.level(0.5), ZEROS, ZEROS), "level must be .* not tensor"),
    (lambda: srk.noise.part_seed("left", 0), "name must be .* not 0"),
    # of the wrong type
    (lambda: analysis.gaussian_kl("ddpm", "vp", steps=5), "process must be .* not 'vp'"),
    (lambda: analysis.gaussian_distribution("ddpm", VP, "one"), "mean and covariance .* 'one'"),
    (lambda: analysis.weak_order("ddpm", VP, "mixture"), "target must be .* not 'mixture'"),
    (lambda: analysis.strong_order("ddpm", VP, MIXTURE, steps=8), "steps must be a list .* not 8"),
    (lambda: analysis.energy_distance(ZEROS, MIXTURE), "y must be a floating-point tensor"),
    (lambda: analysis.mmd(ZEROS, ZEROS, limit="all"), "limit must be .* not 'all'"),
    (lambda: analysis.frechet(ZEROS, ZEROS, features=3), "features is a function .* not 3"),
    (lambda: analysis.chi_square_excess("abc"), "counts must be numbers, not 'abc'"),
    (lambda: analysis.strong_orders("ddpm", VP, MIXTURE), r"e.g. \['ddpm'\]"),
    (lambda: analysis.frechet_distance(ZEROS, ZEROS), "one must be Moments, as"),
    (lambda: analysis.moments("abc"), "samples must be a tensor, .* not 'a'"),
    (lambda: analysis.gaussian_kl("ddpm", VP, nfe="ten"), "nfe must be .* not 'ten'"),
    (lambda: srk.sample_to("set", VP, SCORE, shape=4, conditions=ZEROS), "conditions must be a"),
    (lambda: analysis.GridPath(ZEROS), "points must be a dict"),
    (lambda: srk.targets.Gaussian("wide"), "the mean must be numbers .* not 'wide'"),
    (lambda: srk.targets.Gaussian(0.0, event_shape=3), r"not 3; e.g. event_shape=\(3,\)"),
    (lambda: srk.targets.Empirical([["a"]]), "the data must be numbers"),
    (lambda: srk.integrators.SRK2M(data_variance="small"), "data_variance .* 'small'"),
    (lambda: srk.integrators.SRK2M(local="small"), "local .* 'small'"),
    (lambda: srk.integrators.SRK2M(weights="equal"), "'beta', 'matched' or 'q1', not 'equal'"),
    (lambda: srk.integrators.DDPM(frame="v"), r"e.g. DDPM\(frame='data'\)"),
    (lambda: srk.integrators.LMS(order=2.5), "LMS needs order to be an int, not 2.5"),
    (lambda: srk.integrators.LMS(order=9), "<= 8, not 9"),
    (lambda: srk.integrators.EDMHeun(s_churn="some"), "s_churn .* 'some'"),
    (lambda: Adaptive(rtol=ZEROS), "Adaptive needs rtol to be a number"),
    (lambda: Karras(rho="7"), "Karras needs rho .* '7'"),
    (lambda: Budget(profile="p.json"), "Budget needs profile .* 'p.json'"),
    (lambda: hooks.Project(3, 4, ZEROS), "Project needs forward to be a function"),
    (lambda: srk.ClassifierGuided(SCORE, 3), "ClassifierGuided needs log_prob .* not 3"),
    (lambda: srk.scores.limited(2.0, "low", "high"), "low = 'low'"),
    (lambda: srk.cite(["srk2m"]), "srk2m"),
    (lambda: srk.find(None), "name must be a str .* not None"),
    (lambda: srk.posterior.gaussian_kernel("wide"), "positive.* not 'wide'"),
    (lambda: srk.posterior.effective_size([0.0]), "log_weights must be a tensor"),
]


@pytest.mark.parametrize(("call", "told"), CALLS, ids=range(len(CALLS)))
def test_a_wrong_argument_is_named_with_its_value(call: Callable[[], Any], told: str) -> None:
    with pytest.raises(SRKError, match=told):
        call()


def test_measurements_that_do_not_fit_say_which_shapes_there_are() -> None:
    """Also where broadcasting would go the other way, and make a batch of the measurements."""
    for measured in (torch.zeros(5), torch.zeros(4, 1, 1)):
        project = hooks.Project(lambda x: x[:, :1], lambda y: y.expand(-1, 2), measured)
        with pytest.raises(ArgumentError, match=r"measured of shape .* forward returns \(3, 1\)"):
            project(ZEROS, VP.level(0.5))


@pytest.mark.parametrize("answer", [np.array([True, False]), torch.tensor([True, False])])
def test_a_callback_that_returns_an_array_is_told_what_to_return(answer: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"the callback returned .*return True to end"):
        srk.solve(VP, SCORE, "ddpm", shape=2, steps=2, callback=lambda info: answer)


@pytest.mark.parametrize(
    "given",
    [
        {"score": srk.Data(lambda z, t: z[:1])},
        {"score": srk.Data(lambda z, t: z), "hooks": [lambda denoised, level: denoised[:1]]},
    ],
)
def test_shapes_of_complex_states_are_told_as_the_user_knows_them(given: dict[str, Any]) -> None:
    """And not as those of the pairs of real numbers that they run as."""
    z = torch.zeros(2, 3, dtype=torch.complex64)
    with pytest.raises(ScoreError, match=r"returned shape \(1, 3\) .* shape \(2, 3\)"):
        srk.solve(VP, given.pop("score"), x_init=z, steps=2, **given)
