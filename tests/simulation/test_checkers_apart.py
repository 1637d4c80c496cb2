"""Checkers decide by themselves what is right: they share no code with what they check."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.simulation import checkers

NAMES_USED = {"zkbroker.broker.registration.RegistrationState", "zkbroker.model.suspicion.Finding"}
"""Of the product: values that its objects hold, to be told apart."""


def test_checkers_use_no_code_of_the_product() -> None:
    used = set()
    files = sorted(Path(checkers.__file__).parent.glob("*.py"))
    assert len(files) > 8
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                used |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level
                used |= {f"{node.module}.{name.name}" for name in node.names}
    assert {name for name in used if name.startswith("zkbroker")} == NAMES_USED
    # Nor by way of other tests: what these import of them lies beside them, or names what is wrong.
    others = {name.rpartition(".")[0] for name in used if name.startswith("tests.")}
    assert {name for name in others if not name.startswith("tests.simulation.checkers")} <= {
        "tests.simulation.violation"
    }, others
