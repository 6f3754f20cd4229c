"""What users pass: taken where the meaning is clear, refused in our own words where it is not."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError, SRKError

VP = srk.VP()


def score(x: Tensor, t: Tensor) -> Tensor:
    return -x


def run(**arguments: Any) -> srk.Solution:
    given = {"process": VP, "score": score, "shape": (2, 3), "steps": 2, "seed": 0, **arguments}
    return srk.solve(given.pop("process"), given.pop("score"), **given)


THREE = [
    3,
    np.int64(3),
    np.uint8(3),
    np.array(3),
    torch.tensor(3),
    torch.tensor(3, dtype=torch.int8),
]


@pytest.mark.parametrize("three", THREE, ids=lambda v: type(v).__name__)
def test_integers_of_all_libraries_are_integers(three: Any) -> None:
    expected = run(steps=3).x
    assert torch.equal(run(steps=three).x, expected)
    assert torch.equal(run(shape=(2, three), steps=3).x, expected)
    assert run(steps=None, nfe=three).nfe == 3
    event = srk.Score(score, event_shape=(three,))
    assert run(score=event, shape=three).x.shape == (3, 3)
    assert run(shape=[three, three]).x.shape == (3, 3)
    micro = run(shape=(7, 2), noise="keyed", microbatch=three).x
    assert torch.equal(micro, run(shape=(7, 2), noise="keyed").x)
    srk.NoisePrediction(score, time="index", num_timesteps=three)


@pytest.mark.parametrize(
    "shape", [torch.Size([2, 3]), [2, 3], np.array([2, 3]), torch.tensor([2, 3]), range(2, 4)]
)
def test_shapes_of_all_kinds_are_shapes(shape: Any) -> None:
    assert torch.equal(run(shape=shape).x, run().x)


BAD: dict[str, list[Any]] = {
    "shape": [
        True, "21", (2.9, 1), (True, 2), 2.0, {2, 3}, {2: 3}, b"ab", (2, "3"), (2, None), [[2, 3]],
        np.array([2.0, 3.0]), torch.ones(2), (), (0, 3), (-1, 3), 0, (2**40, 2**40), object(),
    ],
    "steps": [True, 2.5, "3", 0, -1, np.float64(3), torch.tensor([3]), np.True_, 3j, [3]],
    "seed": [True, 0.5, "1", np.float32(1), [1]],
    "eta": ["x", True, math.nan, -1.0, math.inf, 1j, [0.5], torch.ones(2, 2)],
    "save": [True, 1, "everything", ["x", 3], [None], torch.ones(2), b"x", [["x"]]],
    "device": ["cuda9", "nowhere", 3.5, True, "meta", ["cpu"], "cpu:x", "xpu:99"],
    "dtype": ["float32", torch.int64, torch.complex32, np.float32, torch.bool, 32],
    "noise": [3, True, KeyError, ["keyed"], "keyedd", 1.5, b"keyed"],
    "solver": [3, "nosuch", None, True, srk.VP(), ["ddpm"], "", "x" * 100_000],
    "grid": [
        7, True, "nosuch", [1.0], [0.1, 0.5], [], ["a", "b"], [1.0, math.nan], {}, [None, 0.5],
    ],
    "controller": [7, True, "nosuch", [1.0]],
    "compile": [True, 1, "fast", 0, None, torch.ones(2), []],
    "grad": [1, "yes", 0, None, torch.ones(2)],
    "microbatch": [0, True, 2.5, "2", -1],
    "on_failure": ["ignore", True, None, 1],
    "callback": [3, "print", [print]],
    "progress": ["yes", 1, None],
    "denoise_final": ["yes", 1, torch.ones(2)],
    "check_network": ["yes", 1, None],
    "autocast": ["bfloat16", torch.int8, True],
    "process": ["vp", None, srk.VP, 3],
    "score": [None, 3, "net", srk.Score, srk.targets.Gaussian(0.0, 1.0), torch.nn.Linear],
    "x_init": [
        [1.0], np.zeros((2, 3)), torch.zeros(2, 3, dtype=torch.int64), torch.tensor(1.0),
        torch.zeros(0, 3), torch.zeros(4, 3),
        torch.full((2, 3), math.nan), torch.tensor([[1.0, math.inf, 0.0], [0.0, 0.0, 0.0]]),
        torch.zeros(2, 3).to_sparse(), torch.zeros(2, 3, device="meta"),
        torch.zeros(2, 3, dtype=torch.float8_e5m2),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_what_makes_no_sense_is_refused_in_our_words(name: str, value: Any) -> None:
    with pytest.raises(SRKError) as failure:
        run(**{name: value})
    assert 10 < len(str(failure.value)) < 700


def test_a_device_that_is_not_here_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(IncompatibleError, match="no device 'cuda' here"):
        run(device="cuda")


def test_nan_in_x_init_is_named_as_such() -> None:
    x = torch.zeros(4, 3)
    x[1, 2] = math.nan
    with pytest.raises(ArgumentError, match="x_init holds NaN or inf in 1 of 4 samples"):
        run(shape=None, x_init=x)


def test_messages_of_numbers_name_the_argument_and_the_value() -> None:
    for arguments, message in (
        ({"steps": True}, "steps must be a positive int, not True"),
        ({"steps": None, "nfe": 1, "solver": "srk1"}, r"needs 1 call for the first and one for"),
        ({"shape": "21"}, r"shape must be \(batch, \*event\).* not '21'"),
        ({"shape": (2.9, 1)}, r"all of them ints, not \(2\.9, 1\)"),
        (
            {"save": True},
            "save must be 'x', 'denoised', 'log_prob', 'inputs' or several of them, not True",
        ),
    ):
        with pytest.raises(SRKError, match=message):
            run(**arguments)  # type: ignore[arg-type]


def test_a_wrong_number_is_a_wrong_type_and_a_wrong_value() -> None:
    for kind in (TypeError, ValueError, ArgumentTypeError, ArgumentError):
        with pytest.raises(kind):
            run(steps=True)


def test_a_typo_names_the_nearest_and_not_everything() -> None:
    for name, close in (("DPM++_2M", "dpmpp-2m"), ("srk2mm", "srk2m"), ("Euler_A", "euler")):
        with pytest.raises(srk.errors.UnknownNameError) as failure:
            run(solver=name)
        said = str(failure.value)
        assert close in said
        assert len(said) < 200
        assert f"srk.solvers() lists all {len(srk.solvers())}" in said
    with pytest.raises(srk.errors.UnknownNameError) as failure:
        srk.process("vpp")
    assert "'vp'" in str(failure.value)


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-3, 12),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
    st.sampled_from([np.int64(2), np.float32(0.5), np.True_, Fraction(1, 2), 1j]),
)
ANYTHING = st.one_of(
    NUMBERS,
    st.text(max_size=6),
    st.binary(max_size=4),
    st.none(),
    st.lists(NUMBERS, max_size=4),
    st.tuples(NUMBERS, NUMBERS),
    st.sampled_from(
        [
            torch.ones(2), torch.tensor(2), torch.tensor(0.5), torch.tensor([True]), torch.float16,
            torch.device("cpu"), np.zeros(3), np.array(2), {}, {"x"}, object(), int, print,
            "x", "keyed", "cpu", "ddpm", "srk2m", "karras", "step", ["x", "denoised"],
            [1.0, 0.5, 0.1],
            srk.noise.KeyedNoise(0), srk.targets.Gaussian(0.0, 1.0), torch.zeros(2, 3),
        ]
    ),
)  # fmt: skip
NAMES = sorted({*BAD, "nfe"} - {"compile", "process"})


def small(value: object) -> bool:
    """Whether a run with this number of steps, or of this size, is short."""
    numbers = value if isinstance(value, list | tuple) else [value]
    return not any(isinstance(n, int) and 40 < n < 2**60 for n in numbers)


@hypothesis.settings(max_examples=400)
@hypothesis.given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, min_size=1, max_size=3))
def test_no_other_exception_leaves_srk(arguments: dict[str, Any]) -> None:
    for name in ("steps", "nfe", "shape", "microbatch"):
        hypothesis.assume(small(arguments.get(name)))
    if callable(arguments.get("score")) or callable(arguments.get("callback")):
        return  # a function of the user's may raise what it likes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            solution = run(**arguments)
        except SRKError as failure:
            assert 10 < len(str(failure)) < 900  # noqa: PT017
        else:
            assert bool(torch.isfinite(solution.x.detach().double()).all())


@hypothesis.settings(max_examples=300)
@hypothesis.given(
    st.sampled_from(["VP", "SubVP", "VE", "EDM", "OU", "Flow", "VPCosine", "VPDiscrete", "CLD"]),
    st.lists(ANYTHING, max_size=3),
    st.sampled_from(["level", "time", "level_at", "data_scale"]),
    ANYTHING,
)
def test_processes_refuse_in_our_words(
    name: str, parameters: list[Any], method: str, value: Any
) -> None:
    make: Any = getattr(srk, name)
    try:
        made = make(*parameters[: 2 if name in ("VE", "EDM", "OU", "Flow", "VPDiscrete") else 3])
        made.validate()
        getattr(made, method)(value)
    except SRKError as failure:
        assert len(str(failure)) > 10  # noqa: PT017


ADAPTERS = ["Score", "NoisePrediction", "Data", "Velocity", "FlowVelocity", "EDMDenoiser"]
OPTIONS = [
    "time", "time_scale", "num_timesteps", "input_scale", "event_shape", "model_kwargs",
    "network_dtype", "channels",
]  # fmt: skip


@hypothesis.settings(max_examples=300)
@hypothesis.given(
    st.sampled_from(ADAPTERS),
    st.dictionaries(st.sampled_from(OPTIONS), ANYTHING, max_size=2),
)
def test_adapters_refuse_in_our_words(name: str, options: dict[str, Any]) -> None:
    if any(callable(value) for value in options.values()):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            adapter = getattr(srk, name)(lambda x, t, **_: 0.1 * x, **options)
            run(score=adapter, process=srk.VP(), on_failure="return")
        except SRKError as failure:
            assert len(str(failure)) > 10  # noqa: PT017
