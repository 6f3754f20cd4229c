"""Tableaus.

What is shipped is sound, what is unsound is refused by the name of the condition, and the two forms
are the same thing.
"""

from __future__ import annotations

import copy
import importlib
import math
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from srk.errors import ArgumentError, ArgumentTypeError, DuplicateNameError, TableauError
from srk.tableaus import (
    AWR3,
    EULER,
    HEUN,
    MIDPOINT,
    SEA,
    SHARK,
    SOSRA,
    SOSRA2,
    SPARK,
    SRA1,
    SRA2,
    SRA3,
    TABLEAUS,
    StochasticTableau,
    check_tableau,
    register_tableau,
    require_order,
)

SHIPPED = (SRA1, SRA2, SRA3, SOSRA, SOSRA2, SHARK, SEA, SPARK, AWR3, HEUN, MIDPOINT, EULER)


def changed(
    t: StochasticTableau, field: str, place: tuple[int, ...], factor: float | Fraction
) -> StochasticTableau:
    """`t` with one coefficient multiplied by `factor`."""
    rows: Any = [list(x) if isinstance(x, tuple) else x for x in getattr(t, field)]
    target = rows
    for index in place[:-1]:
        target = target[index]
    assert target[place[-1]] != 0
    target[place[-1]] *= factor
    return attrs.evolve(t, name="mutant", **{field: rows})


# --- what is shipped
# ----------------------------------------------------------------------------


@pytest.mark.parametrize("tableau", SHIPPED, ids=lambda t: t.name)
def test_shipped_tableau_supports_what_it_declares_for_time_dependent_g(
    tableau: StochasticTableau,
) -> None:
    report = require_order(tableau)
    assert (report.strong_order, report.weak_order) == (tableau.strong_order, tableau.weak_order)
    assert (report.strong_order_varying, report.weak_order_varying) == (
        tableau.strong_order,
        tableau.weak_order,
    )
    assert report.ok
    assert report.row_sums
    assert check_tableau(tableau).noise == "additive, time-dependent g"


def test_names_and_costs() -> None:
    """The names that solvers are called by, and what a step costs."""
    calls = {name: TABLEAUS[name].drift_evaluations for name in TABLEAUS}
    assert calls == {
        "sra1": 2,
        "sra2": 2,
        "sra3": 3,
        "sosra": 3,
        "sosra2": 3,
        "shark": 2,
        "sea": 1,
        "spark": 3,
        "awr3": 4,
        "stochastic-heun": 2,
        "stochastic-midpoint": 2,
        "euler": 1,
    }
    assert {name for name, t in TABLEAUS.items() if not t.uses_levy_area} == {
        "stochastic-heun",
        "stochastic-midpoint",
        "euler",
    }
    assert all(t.reference and t.advice for t in TABLEAUS.values())
    assert "sosra2" in repr(TABLEAUS)


def test_rational_tableaus_hold_exactly() -> None:
    """No tolerance is involved where all coefficients are fractions."""
    exact = {t.name for t in SHIPPED if t.exact}
    assert exact == {
        "sra1",
        "sra2",
        "sra3",
        "shark",
        "sea",
        "stochastic-heun",
        "stochastic-midpoint",
        "euler",
    }
    for t in SHIPPED:
        if t.exact:
            report = check_tableau(t)
            assert all(isinstance(residual, Fraction) for residual in report.residuals.values())


def test_sea_is_of_strong_order_one_only() -> None:
    failed = check_tableau(SEA).failed(strong_order=1.5)
    assert failed == {
        "alpha.c = 1/2": Fraction(-1, 2),
        "alpha.(A e) = 1/2": Fraction(-1, 2),
        "alpha.(w^2 + k^2/12) = 1/2": Fraction(-1, 6),
    }
    with pytest.raises(TableauError, match=r"alpha\.c = 1/2: value 0, residual -1/2"):
        register_tableau(attrs.evolve(SEA, name="sea-overstated", strong_order=1.5))


def test_noise_levels() -> None:
    """SRA1, SRA2, SPaRK and awr3 have every stage on its own noise level.

    SOSRA's third stage has 3.64 times its noise.
    """
    for t in (SRA1, SRA2, SPARK, AWR3, HEUN):
        assert check_tableau(t).noise_levels == pytest.approx([1.0] * t.stages, abs=1e-14)
    assert check_tableau(SOSRA).noise_levels[2] == pytest.approx(3.64, abs=0.005)
    assert check_tableau(SHARK).noise_levels[0] == math.inf  # noise at the very start of the step


def test_sra3_is_of_order_three_without_noise() -> None:
    assert {t.name for t in SHIPPED if check_tableau(t).drift_order == 3} == {"sra3", "awr3"}


def test_weak_order_three_to_rounding() -> None:
    assert all(abs(float(residual)) < 1e-15 for residual in check_tableau(AWR3).residuals.values())
    assert min(AWR3.arrays.alpha) > 0


@pytest.mark.parametrize("tableau", [t for t in SHIPPED if t.alpha_hat], ids=lambda t: t.name)
def test_embedded_method_is_consistent_and_different(tableau: StochasticTableau) -> None:
    assert tableau.alpha_hat is not None
    assert float(sum(tableau.alpha_hat)) == pytest.approx(1.0, abs=1e-15)
    for weights in (tableau.bw_error, tableau.bk_error):
        assert weights is None or float(sum(weights)) == pytest.approx(0.0, abs=1e-14)
    assert tableau.alpha_hat != tableau.alpha


def test_awr3_embeds_a_method_of_weak_order_two() -> None:
    assert check_tableau(attrs.evolve(AWR3, alpha=AWR3.alpha_hat)).weak_order == 2
    assert check_tableau(attrs.evolve(AWR3, alpha=AWR3.alpha_hat)).strong_order == 1.5


# --- what is refused
# ----------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["sra1", "sra2", "sra3"])
def test_torchsde_tableaus(module: str) -> None:
    """torchsde 0.2.6 ships SRA1 right, and SRA2 and SRA3 with the sign of beta2 flipped.

    Beta2.c1 = +1.
    """
    pytest.importorskip("torchsde")
    try:
        theirs = importlib.import_module(f"torchsde._core.methods.tableaus.{module}")
    except ImportError:
        pytest.skip("this torchsde has no such tableau")
    tableau = StochasticTableau.from_sra(
        f"torchsde-{module}",
        theirs.alpha,
        theirs.A0,
        theirs.B0,
        theirs.C0,
        theirs.C1,
        theirs.beta1,
        theirs.beta2,
        strong_order=1.5,
        weak_order=2,
    )
    if module == "sra1":
        assert require_order(tableau).strong_order_varying == 1.5
        return
    with pytest.raises(TableauError, match=r"beta2\.c1 = -1\): value 1, residual 2"):
        register_tableau(tableau)
    assert f"torchsde-{module}" not in TABLEAUS
    report = check_tableau(tableau)
    assert (report.strong_order, report.strong_order_varying) == (1.5, 1.0)
    assert report.noise == "additive, constant g"


PERCENT = Fraction(101, 100)
MUTATIONS = [
    (SRA1, "alpha", (0,), "alpha.e = 1"),
    (SRA1, "A", (1, 0), "alpha.(A e) = 1/2"),
    (SRA1, "c", (1,), "alpha.c = 1/2"),
    (SRA1, "k", (1, 0), "alpha.k = 1"),
    (SRA2, "bk", (1,), "bk.e = 0 (beta2.e = 0)"),
    (SRA2, "c1", (0,), "bk.c1 = -1 (beta2.c1 = -1)"),
    (SRA3, "w", (2, 1), "alpha.w = 1/2"),
    (SOSRA, "bw", (1,), "bw.e = 1 (beta1.e = 1)"),
    (SOSRA2, "A", (2, 1), "alpha.(A e) = 1/2"),
    (SPARK, "k", (1, 0), "alpha.(w^2 + k^2/12) = 1/2"),
    (SHARK, "c1", (1,), "bw.c1 = 1/2 (beta1.c1 + beta2.c1/2 = 1/2)"),
    (HEUN, "w", (1, 0), "alpha.w = 1/2"),
    (AWR3, "A", (3, 2), "alpha.(A c) = 1/6"),
    (AWR3, "bw", (1,), "bw.c1^2 = 1/3"),
    (EULER, "bw", (0,), "bw.e = 1 (beta1.e = 1)"),
]


@pytest.mark.parametrize(
    ("tableau", "field", "place", "condition"), MUTATIONS, ids=lambda x: getattr(x, "name", str(x))
)
def test_a_coefficient_off_by_one_percent_is_refused_by_name(
    tableau: StochasticTableau, field: str, place: tuple[int, ...], condition: str
) -> None:
    mutant = changed(tableau, field, place, PERCENT)
    with pytest.raises(TableauError) as error:
        register_tableau(mutant)
    assert f"  {condition}: value " in str(error.value)
    assert "They support strong order" in str(error.value)
    assert "mutant" not in TABLEAUS


def test_a_float_error_of_1e_minus_10_is_refused_and_of_one_ulp_is_not() -> None:
    with pytest.raises(TableauError, match=r"alpha\.e = 1"):
        require_order(changed(SOSRA, "alpha", (0,), 1 + 1e-10))
    require_order(changed(SOSRA, "alpha", (0,), 1 + 2.3e-16))


def test_an_order_nobody_can_check_is_refused() -> None:
    with pytest.raises(
        TableauError, match=r"claims strong order 2.*declare strong_order=1\.5 or less"
    ):
        register_tableau(attrs.evolve(SRA1, name="x", strong_order=2))
    with pytest.raises(TableauError, match="claims weak order 4"):
        register_tableau(attrs.evolve(SRA1, name="x", weak_order=4))


def test_an_order_between_two_levels_needs_the_higher_one() -> None:
    assert "alpha.c = 1/2" in check_tableau(EULER).failed(strong_order=1.25)


def test_a_tableau_that_reads_g_once_claims_nothing_for_time_dependent_g() -> None:
    t = StochasticTableau(
        "constant",
        SRA1.alpha,
        SRA1.A,
        SRA1.c,
        [[0], ["3/4"]],
        [[0], ["3/2"]],
        [0],
        [1],
        [0],
        strong_order="3/2",
        weak_order=2,
    )
    assert require_order(t).strong_order == 1.5
    assert check_tableau(t).noise == "additive, constant g"
    assert not t.reads_varying_g
    assert t.exact


def test_inconsistent_error_weights_are_refused() -> None:
    with pytest.raises(TableauError, match="alpha_hat sums to 2, it must sum to 1"):
        register_tableau(attrs.evolve(SRA1, name="x", alpha_hat=(1, 1)))
    with pytest.raises(TableauError, match="bk_error sums to 1, it must sum to 0"):
        register_tableau(attrs.evolve(SRA1, name="x", bw_error=(0, 0), bk_error=(1, 0)))
    with pytest.raises(TableauError, match="together"):
        attrs.evolve(SRA1, bw_error=None)


# --- the registry
# ----------------------------------------------------------------------------


def test_registering_a_name_twice_is_refused() -> None:
    with pytest.raises(DuplicateNameError, match=r"'sra1' is registered already.*'my-sra1'"):
        register_tableau(SRA1)
    with pytest.raises(DuplicateNameError):
        register_tableau(SRA1, "sosra")


def test_a_tableau_is_registered_under_another_name() -> None:
    try:
        again = register_tableau(SRA1, "sra1-again")
        assert again == attrs.evolve(SRA1, name="sra1-again") and TABLEAUS["sra1-again"] is again
    finally:
        TABLEAUS.unregister("sra1-again")


@pytest.mark.parametrize("what", [register_tableau, check_tableau])
def test_only_tableaus_are_checked(what: Callable[[Any], Any]) -> None:
    with pytest.raises(ArgumentTypeError, match="not a StochasticTableau: dict"):
        what({"name": "x"})


# --- the two forms
# ----------------------------------------------------------------------------


@pytest.mark.parametrize("tableau", [t for t in SHIPPED if t.is_sra], ids=lambda t: t.name)
def test_sra_form_round_trips_exactly(tableau: StochasticTableau) -> None:
    """(W, H) -> SRA -> (W, H), with every coefficient equal and of the same type."""
    t = tableau
    back = StochasticTableau.from_sra(
        t.name,
        t.alpha,
        t.A,
        t.B,
        t.c,
        t.c1,
        t.beta1,
        t.beta2,
        strong_order=t.strong_order,
        weak_order=t.weak_order,
        alpha_hat=t.alpha_hat,
        bw_error=t.bw_error,
        bk_error=t.bk_error,
        reference=t.reference,
        advice=t.advice,
    )
    assert back == t
    assert repr(attrs.astuple(back)) == repr(attrs.astuple(t))
    assert hash(back) == hash(t)


def test_sra_coefficients_come_back_as_they_were_given() -> None:
    """SRA -> (W, H) -> SRA, for the float table too."""
    assert SRA2.beta1 == (0, 1)
    assert SRA2.beta2 == (Fraction(3, 2), Fraction(-3, 2))
    assert SOSRA.beta1 == (-16.792534242221663, 17.514995785380226, 0.27753845684143835)
    assert SOSRA.B[2][:2] == (1.442371048468624, 1.8632741501139225)
    assert SOSRA2.beta1 == (0, 0.92438032145683, 0.07561967854316998)


@pytest.mark.parametrize("tableau", [SHARK, SPARK, HEUN], ids=lambda t: t.name)
def test_no_sra_form_where_there_is_none(tableau: StochasticTableau) -> None:
    for name in ("B", "beta1", "beta2"):
        with pytest.raises(TableauError, match="has no SRA form"):
            getattr(tableau, name)


def test_published_sra1_step_is_reproduced() -> None:
    """torchsde's formula.

    H1 = y + 3/4 h f + 3/2 g(t+h) U/h;  y' = y + h[f/3 + 2/3 f1] + g(t+h)(W - U/h) + g(t) U/h, U/h =
    W/2 + H.
    """
    assert SRA1.c1 == (1, 0)
    assert SRA1.w[1] == (Fraction(3, 4), 0)
    assert SRA1.k[1] == (Fraction(3, 2), 0)
    assert SRA1.bw == (Fraction(1, 2), Fraction(1, 2))
    assert SRA1.bk == (-1, 1)


def test_wh_form_integrates_a_linear_g_exactly() -> None:
    """int g dB for g = a + b s is g(0)(W/2 + H) + g(h)(W/2 - H), because int s dB = h (W/2 - H)."""
    assert SHARK.c1 == (0, 1)
    assert SHARK.bw == (Fraction(1, 2), Fraction(1, 2))
    assert SHARK.bk == (1, -1)
    assert HEUN.bk == (0, 0)


def test_strictly_lower_half_is_enough_and_arrays_are_read_only() -> None:
    full = attrs.evolve(SRA3, A=[[0, 0, 0], [1, 0, 0], ["1/4", "1/4", 0]])
    assert full == SRA3
    assert SRA3.arrays.A.dtype == np.float64
    assert attrs.evolve(
        SRA3, A=SRA3.arrays.A, c=np.array([0, 1, 0.5], dtype=np.float32)
    ).arrays.c.tolist() == [0, 1, 0.5]
    with pytest.raises(ValueError, match="read-only"):
        SRA3.arrays.A[1, 0] = 2.0
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        SRA3.name = "x"  # type: ignore[misc]


def test_tableaus_are_values() -> None:
    assert pickle.loads(pickle.dumps(SOSRA)) == SOSRA
    assert copy.deepcopy(SRA1) == SRA1
    assert len({SRA1, copy.copy(SRA1), SRA2}) == 2


def test_a_stage_nobody_uses_costs_nothing() -> None:
    t = StochasticTableau.from_wh("idle", (1, 0), ((), (1,)), (0, 1), (0, 0), (0, 0))
    assert (t.stages, t.drift_evaluations, t.used_stages) == (2, 1, (0,))
    assert MIDPOINT.used_stages == (0, 1)


# --- malformed
# ----------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "name": "t",
    "alpha": ["1/2", "1/2"],
    "A": [[], [1]],
    "c": [0, 1],
    "w": [0, 1],
    "k": [0, 0],
}


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"alpha": ["1/2"]}, TableauError, "c has 2 entries, it needs 1"),
        ({"alpha": []}, TableauError, "has 0 stages"),
        ({"c": [0]}, TableauError, "c has 1 entries, it needs 2"),
        ({"A": [[0, 0], [1]]}, TableauError, r"A has 2 rows of lengths \[2, 1\], it needs 2 rows"),
        ({"A": [[0, 1], [0, 0]]}, TableauError, r"is implicit: A\[0\]\[1\] = 1"),
        ({"A": [["1/2", 0], [1, 0]]}, TableauError, r"is implicit: A\[0\]\[0\] = 1/2"),
        ({"w": [0, 1, 2]}, TableauError, "w has 3 rows"),
        ({"k": [0, math.nan]}, TableauError, r"k\[1\] is nan"),
        ({"k": [0, math.inf]}, TableauError, "must be finite"),
        ({"k": [0, "1e999"]}, TableauError, "must be finite"),
        (
            {"alpha": ["one half", "1/2"]},
            TableauError,
            r"alpha\[0\] is 'one half', which is not a fraction: write '3/4'",
        ),
        ({"alpha": ["1/0", "1/2"]}, TableauError, r"alpha\[0\] is '1/0'"),
        ({"alpha": ["__import__('os').getcwd()", "1/2"]}, TableauError, "which is not a fraction"),
        ({"alpha": [True, "1/2"]}, ArgumentTypeError, r"alpha\[0\] is True of type bool"),
        ({"alpha": "1/2"}, ArgumentTypeError, "alpha is '1/2': give a list or tuple"),
        ({"A": [1, 2]}, ArgumentTypeError, r"A\[0\] is .*: give a list or tuple"),
        ({"w": [0, None]}, ArgumentTypeError, r"w\[1\] is None of type NoneType"),
        ({"name": ""}, ArgumentError, "a tableau needs a name"),
        ({"name": 3}, ArgumentTypeError, "name must be a string"),
        ({"strong_order": -1}, TableauError, "an order is not negative"),
        ({"strong_order": "high"}, TableauError, "strong_order is 'high'"),
        ({"alpha_hat": [1]}, TableauError, "alpha_hat has 1 entries"),
        ({"beta1": [1]}, TableauError, "unknown: beta1"),
        ({"B": [[0, 0], [1, 0]]}, TableauError, r"missing: beta1, beta2, c1; unknown: k, w"),
        ({"c1": [0]}, TableauError, "missing: bk, bw"),
    ],
)
def test_malformed_data_is_refused_with_its_place(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        StochasticTableau.from_dict(GOOD | fields)


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_missing_fields_are_named(missing: str) -> None:
    with pytest.raises(TableauError, match=f"missing: {missing}. It needs"):
        StochasticTableau.from_dict({key: value for key, value in GOOD.items() if key != missing})


def test_only_mappings_are_read() -> None:
    with pytest.raises(ArgumentTypeError, match="from a mapping"):
        StochasticTableau.from_dict([("name", "x")])  # type: ignore[arg-type]


def test_betas_of_different_lengths() -> None:
    with pytest.raises(TableauError, match="beta1 has 1 entries and beta2 2"):
        StochasticTableau.from_sra("x", (1,), ((),), ((),), (0,), (0,), (1,), (0, 0))


@pytest.mark.parametrize("tableau", SHIPPED, ids=lambda t: t.name)
def test_plain_data_round_trips(tableau: StochasticTableau) -> None:
    assert StochasticTableau.from_dict(tableau.to_dict()) == tableau


SRA1_TOML = """
name = "sra1-from-file"
alpha = ["1/3", "2/3"]
A = [[], ["3/4"]]
B = [[], ["3/2"]]
c = [0, "3/4"]
c1 = [1, 0]
beta1 = [1, 0]
beta2 = [-1, 1]
strong_order = 1.5
weak_order = 2
"""


def test_toml_file_gives_the_exact_tableau(tmp_path: Path) -> None:
    path = tmp_path / "sra1.toml"
    path.write_text(SRA1_TOML)
    t = StochasticTableau.from_toml(path)
    assert t.exact
    assert (t.alpha, t.A, t.w, t.k, t.bw, t.bk) == (
        SRA1.alpha,
        SRA1.A,
        SRA1.w,
        SRA1.k,
        SRA1.bw,
        SRA1.bk,
    )
    assert require_order(t).strong_order == 1.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SRA1_TOML.replace('"1/3"', "1/3"), "not a TOML file"),
        (SRA1_TOML.replace('"1/3"', '"1:3"'), r"sra1\.toml.*alpha\[0\] is '1:3'"),
        (SRA1_TOML.replace("beta2", "beta_2"), "missing: beta2; unknown: beta_2"),
        (SRA1_TOML.replace("[1, 0]", "[1, nan]"), "every coefficient must be finite"),
        (SRA1_TOML.replace("beta1 = [1, 0]", "beta1 = [1]"), "beta1 has 1 entries"),
        ("", "missing: A, alpha, c, k, name, w"),
        ("name = ", "not a TOML file"),
    ],
)
def test_malformed_toml_is_refused_with_the_file_named(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "sra1.toml"
    path.write_text(text)
    with pytest.raises(TableauError, match=message) as error:
        StochasticTableau.from_toml(path)
    assert "sra1.toml" in str(error.value)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"nothing\.toml' cannot be read"):
        StochasticTableau.from_toml(tmp_path / "nothing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArgumentError, match="cannot be read"):
        StochasticTableau.from_toml(tmp_path / "binary.toml")


# --- the report
# ----------------------------------------------------------------------------


def test_report_is_a_table_a_person_can_read() -> None:
    report = check_tableau(SRA1)
    rows = report.rows()
    assert ["alpha.(w^2 + k^2/12) = 1/2", "1/2", "0", "strong 1.5, weak 2", "holds"] in rows
    assert ["bk.c1 = -1 (beta2.c1 = -1)", "-1", "0", "strong 1.5 for g(t)", "holds"] in rows
    assert all(len(row) == 5 for row in rows)
    text = repr(report)
    assert "TableauReport of 'sra1': ok" in text
    assert "constant g         strong 1.5, weak 2" in text
    with pytest.raises(TypeError):
        report.residuals["alpha.e = 1"] = 1  # type: ignore[index]
