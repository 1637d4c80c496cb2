"""The loggers of this process and their levels, in Kafka's words (KIP-412). Nothing of it outlives the process."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from zkbroker.model.config.changes import ConfigChange, Operation
from zkbroker.model.config.entry import ConfigEntry
from zkbroker.model.config.values import printable
from zkbroker.model.errors import BrokerError, ErrorCode

ROOT = "root"
LOGGER_SOURCE = 6
"""Kafka's ConfigSource of a logger's level."""

LEVELS = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "FATAL": 50}
"""Kafka's levels by Python's numbers."""


def _level_name(number: int) -> str:
    return next((name for name, least in reversed(LEVELS.items()) if number >= least), "TRACE")


def _loggers() -> dict[str, logging.Logger]:
    known = {
        name: logger for name, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)
    }
    return {ROOT: logging.root, **dict(sorted(known.items()))}


def describe_loggers() -> tuple[ConfigEntry, ...]:
    """Every logger with the level that holds for it, its own or an ancestor's."""
    return tuple(
        ConfigEntry(name, _level_name(logger.getEffectiveLevel()), False, False, LOGGER_SOURCE, False)
        for name, logger in _loggers().items()
    )


def alter_loggers(changes: Sequence[ConfigChange], validate_only: bool) -> None:
    """Set levels, or take them away so that the ancestor's hold. Raises BrokerError with Kafka's errors; then nothing
    is changed."""
    loggers = _loggers()
    for change in changes:
        _check(change, loggers)
    if validate_only:
        return
    for change in changes:
        level = LEVELS[change.value or ""] if change.operation == Operation.SET else logging.NOTSET
        loggers[change.name].setLevel(level)


def _check(change: ConfigChange, loggers: dict[str, logging.Logger]) -> None:
    name, operation = change.name, change.operation
    if operation in (Operation.APPEND, Operation.SUBTRACT):
        verb = Operation(operation).name
        text = f"{verb} operation is not allowed for the BROKER_LOGGER resource"
        raise BrokerError(ErrorCode.INVALID_REQUEST, text)
    if operation not in (Operation.SET, Operation.DELETE):
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"Unknown operations type {operation}")
    if name not in loggers:
        raise BrokerError(ErrorCode.INVALID_CONFIG, f"Logger {printable(name, 100)} does not exist!")
    if operation == Operation.DELETE:
        if name == ROOT:
            text = "Removing the log level of the root logger is not allowed"
            raise BrokerError(ErrorCode.INVALID_REQUEST, text)
    elif change.value not in LEVELS:
        text = (
            f"Cannot set the log level of {name} to {printable(change.value or '', 100)} as it is not a supported log "
            f"level. Valid log levels are {', '.join(sorted(LEVELS))}"
        )
        raise BrokerError(ErrorCode.INVALID_CONFIG, text)
