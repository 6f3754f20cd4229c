"""Sets of samples of a product: an array for each part, drawn and resumed together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import srk
from srk.errors import ArgumentError, IncompatibleError, SRKError

PRODUCT = srk.Product(a=srk.Shifted(srk.VP(), mean=torch.linspace(0.0, 1.0, 30).reshape(10, 3)))
PRODUCT = srk.Product(**PRODUCT.parts, b=srk.EDM())
SHAPE = {"a": (10, 3), "b": (10, 2)}


def network(x: dict[str, Tensor], t: dict[str, Tensor], y: Tensor | None = None) -> Any:
    made = {name: (0.7 * x[name] / (1.0 + t[name][:, None])).sin() for name in x}
    return made if y is None else {name: said + y[:, None] for name, said in made.items()}


JOINT = srk.scores.Joint(network, a="data", b="noise")
OPTIONS: dict[str, Any] = {"shape": SHAPE, "nfe": 7, "seed": 3, "batch": 4}


def whole(score: Any = JOINT, solver: Any = "srk2m", **options: Any) -> dict[str, Tensor]:
    return srk.solve(PRODUCT, score, solver, shape=SHAPE, nfe=7, seed=3, noise="keyed", **options).x


def test_a_set_holds_what_one_run_draws(tmp_path: Path) -> None:
    samples = srk.sample_to(tmp_path / "set", PRODUCT, JOINT, "srk2m", **OPTIONS)
    assert samples.shape == SHAPE
    assert (samples.drawn, samples.nfe) == (10, 7)
    wanted = whole()
    for name, x in samples.load().items():
        assert torch.allclose(x, wanted[name], atol=1e-6)
        assert samples.array[name].shape == SHAPE[name]
    again = srk.SampleSet.open(tmp_path / "set")
    assert again.shape == SHAPE
    assert again.status() == again.status(verify=True) == (10, 10)
    assert [len(chunk["b"]) for chunk in again.chunks()] == [4, 4, 2]
    assert again.load(5)["a"].shape == (5, 3)
    assert set(again.settings["parts"]) == {"a", "b"}
    assert srk.sample_to(tmp_path / "set", PRODUCT, JOINT, "srk2m", **OPTIONS).drawn == 0


def test_a_chunk_is_drawn_again_if_one_part_of_it_is_missing(tmp_path: Path) -> None:
    place = tmp_path / "set"
    first = srk.sample_to(place, PRODUCT, JOINT, "srk2m", **OPTIONS).load()
    (place / "samples" / "b" / "c" / "1" / "0").unlink()
    opened = srk.SampleSet.open(place)
    assert opened.status() == (6, 10)
    with pytest.raises(SRKError, match="chunk 1"):
        opened.load()
    after = srk.sample_to(place, PRODUCT, JOINT, "srk2m", **OPTIONS)
    assert after.drawn == 4
    assert all(torch.equal(after.load()[name], x) for name, x in first.items())


def test_options_by_part_conditions_and_guidance(tmp_path: Path) -> None:
    labels = np.linspace(-1.0, 1.0, 10).astype(np.float32)
    options = {**OPTIONS, "eta": {"a": 1.0, "b": 0.0}, "grid": {"a": "log-snr", "b": "karras"}}
    joint = JOINT.given(y=torch.from_numpy(labels))
    guided = srk.scores.JointGuided(JOINT, JOINT.given(y=None), {"a": 2.0, "b": 1.0})
    both = srk.scores.JointGuided(joint, JOINT.given(y=None), {"a": 2.0, "b": 1.0})
    for number, (score, given) in enumerate(((JOINT, joint), (guided, both))):
        place = tmp_path / str(number)
        samples = srk.sample_to(
            place, PRODUCT, score, {"a": "ddpm", "b": "euler"}, conditions={"y": labels}, **options
        )
        wanted = whole(given, {"a": "ddpm", "b": "euler"}, eta=options["eta"], grid=options["grid"])
        for name, x in samples.load().items():
            assert torch.allclose(x, wanted[name], atol=1e-6)


def test_other_settings_and_what_cannot_be_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "set"
    samples = srk.sample_to(place, PRODUCT, JOINT, "srk2m", **OPTIONS)
    other = srk.Product(**{**PRODUCT.parts, "b": srk.EDM(0.01)})
    for product, solver, options in (
        (other, "srk2m", {}),
        (PRODUCT, {"a": "srk2m", "b": "ddpm"}, {}),
        (PRODUCT, "srk2m", {"eta": {"a": 1.0, "b": 0.5}}),
    ):
        with pytest.raises(ArgumentError, match="other settings"):
            srk.sample_to(place, product, JOINT, solver, **OPTIONS, **options)
    with pytest.raises(IncompatibleError, match="export is for samples of one array"):
        samples.export(tmp_path / "samples.npy")
    with pytest.raises(IncompatibleError, match="convert is for samples of one array"):
        samples.convert(tmp_path / "other")
    uneven = {**OPTIONS, "shape": {"a": (10, 3), "b": (9, 2)}}
    with pytest.raises(ArgumentError, match="one batch axis"):
        srk.sample_to(tmp_path / "new", PRODUCT, JOINT, **uneven)
    with pytest.raises(IncompatibleError, match="one network of all parts"):
        srk.sample_to(
            tmp_path / "new",
            srk.Product(a=srk.VP()),
            srk.scores.Independent(a=srk.Data(lambda x, t: 0 * x)),
            shape={"a": (4, 2)},
            nfe=5,
            conditions={"y": np.zeros(4)},
        )
