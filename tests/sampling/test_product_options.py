"""Every option of a sampler on a product: it does what it does to the parts, or says why not."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import srk
from srk.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConventionWarning,
    IncompatibleError,
    SRKError,
)
from srk.noise import KeyedNoise, part_seed

SHAPE = {"a": (5, 3), "b": (5, 2)}
PRODUCT = srk.Product(a=srk.VP(), b=srk.EDM())


def said(name: str, x: Tensor, t: Tensor) -> Tensor:
    t = t.to(x.dtype)[:, None]
    return (0.7 * x / (1.0 + t)).sin() + (0.3 if name == "a" else -0.1)


def both(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: said(name, x[name], t[name]) for name in x}


JOINT = srk.scores.Joint(both, a="data", b="data")
PROFILES = {
    name: srk.calibrate(
        PRODUCT.parts[name], srk.Data(lambda x, t, n=name: said(n, x, t)), shape=SHAPE[name], seed=0
    )
    for name in SHAPE
}
X = {name: torch.linspace(-1.0, 1.0, 5 * SHAPE[name][1]).reshape(SHAPE[name]) for name in SHAPE}
CLIP = srk.scores.hooks.Clip(-0.5, 0.5)

# option -> values for the whole, and those of the same meaning for each part
MADE: dict[str, list[tuple[Any, dict[str, Any]]]] = {
    "solver": [
        ("dpmpp-2m", dict.fromkeys(SHAPE, "dpmpp-2m")),
        ({"a": "ddpm", "b": "srk2m"}, {"a": "ddpm", "b": "srk2m"}),
    ],
    "steps": [(6, dict.fromkeys(SHAPE, 6)), ({"a": 6, "b": 6}, {"a": 6, "b": 6})],
    "nfe": [(9, dict.fromkeys(SHAPE, 9))],
    "grid": [
        ("uniform", dict.fromkeys(SHAPE, "uniform")),
        ({"a": "log-snr", "b": "karras"}, {"a": "log-snr", "b": "karras"}),
    ],
    "profile": [(PROFILES, PROFILES), ({"a": PROFILES["a"]}, {"a": PROFILES["a"], "b": None})],
    "eta": [
        (0.0, dict.fromkeys(SHAPE, 0.0)),
        ({"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 0.0}),
        (lambda level: float(level.lam < 0.0), dict.fromkeys(SHAPE, lambda v: float(v.lam < 0.0))),
    ],
    "denoise_final": [
        (False, dict.fromkeys(SHAPE, False)),
        ("mean", dict.fromkeys(SHAPE, "mean")),
    ],
    "autocast": [(torch.bfloat16, dict.fromkeys(SHAPE, torch.bfloat16))],
    "compile": [
        ("step", dict.fromkeys(SHAPE, "step")),
        ({"a": "step", "b": False}, {"a": "step", "b": False}),
    ],
    "calls": [("schedule", dict.fromkeys(SHAPE, "schedule"))],
    "hooks": [({"b": [CLIP]}, {"a": (), "b": [CLIP]})],
    "check_network": [(False, dict.fromkeys(SHAPE, False))],
}
CALLED: dict[str, list[tuple[Any, dict[str, Any]]]] = {
    "shape": [(SHAPE, SHAPE)],
    "x_init": [(X, X)],
    "noise": [
        ("keyed", dict.fromkeys(SHAPE, "keyed")),
        ({"a": KeyedNoise(1), "b": KeyedNoise(2)}, {"a": KeyedNoise(1), "b": KeyedNoise(2)}),
    ],
    "seed": [(3, {name: part_seed(3, name) for name in SHAPE})],
    "device": [("cpu", dict.fromkeys(SHAPE, "cpu"))],
    "dtype": [
        (torch.float64, dict.fromkeys(SHAPE, torch.float64)),
        ({"a": torch.float64, "b": None}, {"a": torch.float64, "b": None}),
    ],
    "save": [(("x", "denoised"), dict.fromkeys(SHAPE, ("x", "denoised")))],
    "callback": [
        (lambda info: info.index == 3, dict.fromkeys(SHAPE, lambda info: info.index == 3))
    ],
    "progress": [(True, dict.fromkeys(SHAPE, True))],
    "on_failure": [("return", dict.fromkeys(SHAPE, "return"))],
    "grad": [(True, dict.fromkeys(SHAPE, True))],
    "microbatch": [(2, dict.fromkeys(SHAPE, 2))],
}
REFUSED: dict[str, list[tuple[Any, str]]] = {
    "controller": [("log-snr", "use grid=")],
    "parallel": [(srk.Picard(), "leave parallel out")],
    "compile": [("loop", "use compile='step'"), (True, "compile")],
    "profile": [(PROFILES["a"], "takes a dict"), ({"c": PROFILES["a"]}, "profiles of")],
    "grid": [
        ("budget", "profile={'a'"),
        ({"a": "adaptive", "b": "log-snr"}, "grid='adaptive'"),
        (srk.steps.Adaptive(norm="sample"), "norm='batch'"),
        (srk.Levels([[1.0, 1.0], [0.0, 0.0]]), "the part 'a'"),
    ],
    "grad": [("checkpoint", "use grad=True")],
    "hooks": [([CLIP], "hooks is a dict")],
    "nfe": [({"a": 9, "b": 9}, "one number")],
    "noise": [(KeyedNoise(1), "one source is not enough")],
}


def test_every_option_is_here() -> None:
    """An option that `Sampler` gets has to be tried on products, or refused."""
    made = set(inspect.signature(srk.Sampler.__init__).parameters)
    made -= {"self", "process", "score"}
    called = set(inspect.signature(srk.Sampler.__call__).parameters) - {"self"}
    assert made - set(REFUSED) <= set(MADE) <= made
    assert called - set(REFUSED) <= set(CALLED) <= called
    assert set(REFUSED) <= made | called
    own = set(inspect.signature(srk.ProductSampler.__call__).parameters)
    assert called <= own  # no option of a call is missing


CASES = [
    (where, option, number)
    for where, table in (("made", MADE), ("called", CALLED))
    for option, values in table.items()
    for number in range(len(values))
]


@pytest.mark.parametrize(("where", "option", "number"), CASES)
def test_an_option_does_what_it_does_to_the_parts(where: str, option: str, number: int) -> None:
    whole, by_part = {"made": MADE, "called": CALLED}[where][option][number]
    solver = "ddpm" if option in ("calls", "denoise_final", "eta") else "srk2m"
    made: dict[str, Any] = {"solver": solver, "nfe": 7}
    called: dict[str, Any] = {"shape": SHAPE, "seed": 3}
    if option == "steps":
        del made["nfe"]
    if option == "x_init":
        del called["shape"]
    if isinstance(whole, dict) and option == "noise":
        del called["seed"]
    if option == "microbatch":
        called["noise"] = "keyed"
    if option == "grid" and whole == "uniform":  # EDM has no noise at equal steps of its own time
        made["solver"] = "ddpm"
    mine = {"made": made, "called": called}
    mine[where][option] = whole
    sol = srk.ProductSampler(PRODUCT, JOINT, **made)(**called)
    for name, process in PRODUCT.parts.items():
        own_made, own_called = {**made}, {**called}
        if "shape" in called:
            own_called["shape"] = SHAPE[name]
        if "seed" in called:
            own_called["seed"] = part_seed(called["seed"], name)
        {"made": own_made, "called": own_called}[where][option] = by_part[name]
        adapter = srk.Data(lambda x, t, n=name: said(n, x, t))
        own = srk.Sampler(process, adapter, **own_made)(**own_called)
        assert torch.equal(sol.x[name], own.x)
        part = sol.parts[name]
        assert (part.status, part.times, part.eta) == (own.status, own.times, own.eta)
        assert part.solver == own.solver
        for kept, alone in ((part.trajectory, own.trajectory), (part.denoised, own.denoised)):
            assert (kept is None) == (alone is None)
            assert kept is None or torch.equal(kept.values, alone.values)
    assert sol.nfe == max(part.nfe for part in sol.parts.values())


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [(option, *case) for option, cases in REFUSED.items() for case in cases],
)
def test_what_a_product_does_not_take_is_refused_with_a_cure(
    option: str, value: Any, message: str
) -> None:
    options: dict[str, Any] = {"nfe": 7, "shape": SHAPE, "seed": None, option: value}
    with pytest.raises(SRKError) as caught:
        srk.solve(PRODUCT, JOINT, "srk2m", **options)
    assert message in str(caught.value)
    assert isinstance(caught.value, (ArgumentError, ArgumentTypeError, IncompatibleError))


def test_functions_of_one_state_refuse_a_product_by_name() -> None:
    target = srk.targets.Gaussian(0.5, 0.04)
    one = target.score(srk.VP())
    for call in (
        lambda: srk.invert(PRODUCT, one, torch.zeros(2, 1), steps=4),
        lambda: srk.calibrate(PRODUCT, one, shape=4),
        lambda: srk.log_likelihood(PRODUCT, one, torch.zeros(2, 1)),
    ):
        with pytest.raises(ArgumentTypeError, match=r"srk\.ProductSampler"):
            call()


@pytest.mark.parametrize("score", ["joint", "independent"])
def test_a_part_with_the_wrong_adapter_is_noticed(score: str) -> None:
    """What the network says of each part is looked at as in a run of that part."""
    shape = {"a": (64, 16), "b": (64, 16)}

    def noise(x: Tensor, level: Any) -> Tensor:
        return x * (level.sigma / (0.25 * level.alpha**2 + level.sigma**2))

    def network(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: noise(x[n], process.level(float(t[n][0]))) for n, process in parts.items()}

    def one(name: str, kind: Any) -> Any:
        return kind(lambda x, t: noise(x, parts[name].level(float(t[0]))))

    parts = {"a": srk.VP(), "b": srk.Flow(t_max=0.999)}
    product = srk.Product(**parts)
    if score == "joint":
        wrong: Any = srk.scores.Joint(network, a="noise", b="score")
        right: Any = srk.scores.Joint(network, a="noise", b="noise")
    else:
        parts["b"] = srk.VP()  # parts of one kind of process
        product = srk.Product(**parts)
        wrong = srk.scores.Independent(a=one("a", srk.NoisePrediction), b=one("b", srk.Score))
        right = srk.scores.Independent(
            a=one("a", srk.NoisePrediction), b=one("b", srk.NoisePrediction)
        )
    with pytest.warns(ConventionWarning, match="noise"):
        srk.solve(product, wrong, "ddpm", shape=shape, steps=6, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        srk.solve(product, right, "ddpm", shape=shape, steps=6, seed=0)
        srk.solve(product, wrong, "ddpm", shape=shape, steps=6, seed=0, check_network=False)


def test_compiled_parts_hear_of_callbacks_and_refuse_gradients() -> None:
    """Where a callback writes to the state, the next step begins from what it wrote."""
    options: dict[str, Any] = {"nfe": 7, "compile": "step"}

    def halves(info: Any) -> None:
        for x in info.x.values() if isinstance(info.x, dict) else (info.x,):
            x.mul_(0.5)

    sol = srk.solve(PRODUCT, JOINT, "srk2m", shape=SHAPE, seed=3, callback=halves, **options)
    for name, process in PRODUCT.parts.items():
        adapter = srk.Data(lambda x, t, n=name: said(n, x, t))
        given = {"shape": SHAPE[name], "seed": part_seed(3, name), "callback": halves}
        assert torch.equal(sol.x[name], srk.solve(process, adapter, "srk2m", **given, **options).x)
    with pytest.raises(IncompatibleError, match="compile=False"):
        srk.solve(PRODUCT, JOINT, "srk2m", shape=SHAPE, grad=True, **options)
