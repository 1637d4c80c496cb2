"""The levels of loggers as DescribeConfigs and IncrementalAlterConfigs see them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from zkbroker.broker.loggers import alter_loggers, describe_loggers
from zkbroker.model.config.changes import ConfigChange
from zkbroker.model.errors import BrokerError, ErrorCode

SET, DELETE, APPEND = 0, 1, 2
PARENT, CHILD = "zkbroker.loggers_test", "zkbroker.loggers_test.child"


@pytest.fixture(autouse=True)
def levels_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(PARENT), logging.getLogger(CHILD), logging.root]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def levels() -> dict[str, str | None]:
    return {entry.name: entry.value for entry in describe_loggers()}


def test_a_level_holds_for_what_is_below_until_it_is_taken_away() -> None:
    alter_loggers([ConfigChange(PARENT, SET, "ERROR")], False)
    assert (levels()[PARENT], levels()[CHILD]) == ("ERROR", "ERROR")
    alter_loggers([ConfigChange(CHILD, SET, "TRACE")], False)
    assert (levels()[PARENT], levels()[CHILD]) == ("ERROR", "TRACE")
    assert logging.getLogger(CHILD).isEnabledFor(logging.DEBUG)
    alter_loggers([ConfigChange(CHILD, DELETE, None), ConfigChange(PARENT, SET, "FATAL")], False)
    assert (levels()[PARENT], levels()[CHILD]) == ("FATAL", "FATAL")
    assert not logging.getLogger(CHILD).isEnabledFor(logging.ERROR)


def test_root_is_a_logger() -> None:
    alter_loggers([ConfigChange("root", SET, "WARN")], False)
    assert levels()["root"] == "WARN"
    assert logging.root.level == logging.WARNING


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            (PARENT, SET, "LOUD"),
            "INVALID_CONFIG",
            f"Cannot set the log level of {PARENT} to LOUD as it is not a supported log level. Valid log levels are "
            "DEBUG, ERROR, FATAL, INFO, TRACE, WARN",
        ),
        (("no.such", SET, "INFO"), "INVALID_CONFIG", "Logger no.such does not exist!"),
        ((PARENT, APPEND, "INFO"), "INVALID_REQUEST", "APPEND operation is not allowed for the BROKER_LOGGER resource"),
        (("root", DELETE, None), "INVALID_REQUEST", "Removing the log level of the root logger is not allowed"),
        ((PARENT, 9, "INFO"), "INVALID_REQUEST", "Unknown operations type 9"),
    ],
)
def test_what_is_refused_changes_nothing(change: tuple[str, int, str | None], error: str, message: str) -> None:
    before = levels()
    with pytest.raises(BrokerError) as refused:
        alter_loggers([ConfigChange(CHILD, SET, "DEBUG"), ConfigChange(*change)], False)
    assert (refused.value.error, str(refused.value)) == (ErrorCode[error], message)
    assert levels() == before


def test_a_check_alone_changes_nothing() -> None:
    before = levels()
    alter_loggers([ConfigChange(PARENT, SET, "DEBUG")], True)
    assert levels() == before
