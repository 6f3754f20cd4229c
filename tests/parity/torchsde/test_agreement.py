"""torchsde's solvers and ours on the same SDEs, driven by the same Brownian path.

They agree at every step to rounding.
"""

from __future__ import annotations

import sys

import pytest

from srk.analysis import torchsde_agreement
from srk.analysis.validation import BOUND, METHODS, PROCESSES
from srk.errors import ArgumentError, MissingExtraError
from srk.tableaus import SRA2, SRA3, TableauReport, check_tableau, require_order

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("process", list(PROCESSES))
def test_every_method_agrees_at_every_step(process: str, global_rng_untouched: None) -> None:
    """Raw frame and localization clock, 1-D, 2-D and 16-D mixtures, grids uniform in time and in
    log-SNR: at most 1e-10 relative.
    """
    pytest.importorskip("torchsde")
    agreement = torchsde_agreement([process], steps=5, paths=4)
    assert len(agreement.rows) == 2 * 3 * 2 * len(METHODS)
    assert agreement.worst.difference <= BOUND, agreement
    assert agreement.success
    # Agreement to the last bit everywhere would mean that one code was compared with itself
    assert agreement.worst.difference > 0.0


@pytest.mark.parametrize("name", ["sra2", "sra3"])
def test_torchsdes_flipped_signs_are_refused(name: str) -> None:
    """torchsde 0.2.6 ships SRA2 and SRA3 with the sign of beta2 flipped (beta2.c1 = +1).

    Our checker names the condition.
    """
    pytest.importorskip("torchsde")
    import attrs
    from torchsde._core.methods.tableaus import sra2, sra3

    from srk.errors import TableauError
    from srk.tableaus import StochasticTableau

    theirs, ours = {"sra2": (sra2, SRA2), "sra3": (sra3, SRA3)}[name]
    stages = theirs.STAGES
    made = StochasticTableau.from_sra(
        name,
        alpha=theirs.alpha,
        A=[row[:stages] for row in theirs.A0],
        B=[row[:stages] for row in theirs.B0],
        c=theirs.C0,
        c1=theirs.C1,
        beta1=theirs.beta1,
        beta2=theirs.beta2,
        strong_order=1.5,
        weak_order=2,
    )
    report: TableauReport = check_tableau(made)
    assert "bk.c1 = -1 (beta2.c1 = -1)" in report.violated
    with pytest.raises(TableauError, match=r"beta2\.c1 = -1"):
        require_order(made)
    assert check_tableau(attrs.evolve(ours)).ok


def test_without_torchsde_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchsde", None)
    with pytest.raises(MissingExtraError, match=r"srk\[validation\]"):
        torchsde_agreement(["vp"])


def test_an_unknown_process_is_named() -> None:
    pytest.importorskip("torchsde")
    with pytest.raises(ArgumentError, match="sub-vp"):
        torchsde_agreement(["vpp"])
