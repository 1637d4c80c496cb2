"""Every mutant fits the product's source, is really applied, and is gone afterwards."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tests.simulation.bugs import BUGS, SWITCHES
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import Edit, Mutant, StaleEdit, applied, located
from tests.simulation.profiles import PROFILES

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", sorted(SWITCHES))
def test_each_mutant_fits_the_product_and_goes_again(name: str) -> None:
    mutant = SWITCHES[name]
    before = {edit.where: located(edit.where)[2] for edit in mutant.edits}
    with applied(mutant):
        for where, original in before.items():
            assert located(where)[2] is not original, f"{where} is not patched"
    for where, original in before.items():
        assert located(where)[2] is original, f"{where} stays patched"
    assert mutant.profile in PROFILES


def test_there_are_mutants_enough_and_no_rule_is_named_twice() -> None:
    assert len(MUTANTS) >= 18
    assert len({mutant.rule for mutant in MUTANTS.values()}) == len(MUTANTS)


@pytest.mark.parametrize("name", sorted(BUGS))
def test_the_test_that_holds_a_bug_is_there(name: str) -> None:
    """That it fails with the bug back ``--check-bugs`` tries."""
    path, _, test = BUGS[name].test.partition("::")
    function, _, scenario = test.partition("[")
    assert f"\ndef {function}(" in (TESTS / path).read_text()
    assert not scenario or list(TESTS.glob(f"scenarios/*/{scenario.rstrip(']')}.txt"))
    assert name not in MUTANTS


def test_an_edit_changes_what_the_function_does() -> None:
    from zkbroker.controller import cluster_image

    image = cluster_image.ClusterImage()
    assert image.unclean("t", default=False) is False
    with applied(MUTANTS["unclean-elections"]):
        assert image.unclean("t", default=False) is True
    assert image.unclean("t", default=False) is False


def test_whoever_imported_a_function_by_name_gets_the_mutant_too() -> None:
    from zkbroker.controller import elections

    mutant = Mutant("x", "x", (Edit("controller.elections:check_state", "", "return"),))
    original = elections.check_state
    with applied(mutant):
        from zkbroker.controller import isr_changes

        assert isr_changes.check_state is elections.check_state is not original
        assert "return" in inspect.getsource(elections.check_state)
    assert isr_changes.check_state is elections.check_state is original


@pytest.mark.parametrize(
    "edit",
    [
        Edit("controller.elections:nobody", "", "pass"),
        Edit("controller.nowhere:elected", "", "pass"),
        Edit("controller.elections:elected", "text that is not there", ""),
        Edit("controller.elections:elected", "state", ""),
    ],
)
def test_an_edit_that_does_not_fit_says_so(edit: Edit) -> None:
    with pytest.raises(StaleEdit, match="controller"), applied(Mutant("x", "x", (edit,))):
        raise AssertionError("applied all the same")
