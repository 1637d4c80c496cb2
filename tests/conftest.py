"""Options that all tests share."""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    # A shell without job control starts what runs in the background with Ctrl-C ignored, and processes hand that on:
    # the commands that tests interrupt would be right not to hear it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the output of text scenarios anew, to be reviewed")


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--rewrite"))
