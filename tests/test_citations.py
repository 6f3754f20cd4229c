"""Citations: every registered name has one, and it is the right one."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

import srk
from srk import cli
from srk.citations import works

NAMES = sorted({*srk.solvers(), *srk.tableaus.TABLEAUS, *srk.processes.PROCESSES, "srk"})


def keys(text: str) -> list[str]:
    return re.findall(r"^@\w+\{(.+),$", text, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_cited_by_works_that_we_know(name: str) -> None:
    entries = srk.cite(name).split("\n\n")
    assert entries
    assert set(entries) <= set(works()), "a reference without an entry in srk/references.bib"


def test_every_arxiv_number_of_a_reference_has_an_entry() -> None:
    for name in [*srk.solvers(), *srk.tableaus.TABLEAUS]:
        reference = (
            srk.solvers()[name] if name in srk.solvers() else srk.tableaus.TABLEAUS[name]
        ).reference
        numbers = set(re.findall(r"\b\d{4}\.\d{5}\b", reference))
        assert numbers <= set(re.findall(r"eprint = \{(.+)\}", srk.cite(name))), name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("srk2m", ["srk"]),
        ("ddpm", ["ho2020denoising", "song2021denoising"]),
        ("dpmpp-2m-sde", ["crowson2022kdiffusion", "lu2022dpmsolverpp"]),
        ("euler-ancestral", ["crowson2022kdiffusion"]),
        ("sra1", ["roessler2010runge"]),
        ("edm", ["karras2022elucidating"]),
        ("flow", ["liu2023flow", "lipman2023flow"]),
    ],
)
def test_known_answers(name: str, expected: list[str]) -> None:
    assert keys(srk.cite(name)) == expected


def test_the_bibliography_is_bibtex_without_repetition() -> None:
    found = keys("\n\n".join(works()))
    assert len(found) == len(set(found)) == len(works())
    for entry in works():
        assert entry.count("{") == entry.count("}")
        fields = re.findall(r"^  (\w+) = \{.*\},?$", entry, re.MULTILINE)
        assert {"title", "author"} <= set(fields) and len(fields) == len(entry.splitlines()) - 2, (
            entry
        )


@pytest.mark.usefixtures("registries_restored")
def test_a_method_of_your_own() -> None:
    tableau = srk.StochasticTableau.from_wh(
        "mine",
        alpha=[1],
        A=[[0]],
        c=[0],
        w=[0],
        k=[0],
        strong_order=1,
        weak_order=1,
        reference="Doe 2030: A method",
    )
    srk.register_tableau(tableau)
    assert srk.cite("mine") == "@misc{mine,\n  title = {mine},\n  note = {Doe 2030: A method}\n}"


def test_unknown_names_get_near_ones() -> None:
    with pytest.raises(srk.errors.UnknownNameError, match="srk2m"):
        srk.cite("srk2n")


def test_command_line_prints_each_work_once() -> None:
    result = CliRunner().invoke(cli.app, ["cite", "dpmpp-2m-sde", "dpmpp-sde", "vp"])
    assert result.exit_code == 0, result.output
    assert keys(result.output) == ["crowson2022kdiffusion", "lu2022dpmsolverpp", "song2021score"]
