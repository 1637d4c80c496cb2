"""What the failure detection's keys switch on and off, and how short its times may get."""

from __future__ import annotations

import pytest

from tests.unit.test_config_broker import build
from zkbroker.broker.settings import (
    CONTACT_SHARE,
    controller_settings,
    fetcher_settings,
    replica_settings,
    unreachable_seconds,
)


@pytest.mark.parametrize(("mode", "steps_down"), [("fast", True), ("session", False)])
def test_with_session_the_controller_goes_by_its_session_alone(mode: str, steps_down: bool) -> None:
    config = build(**{"broker.failure.detection": mode})
    assert controller_settings(config, 6.0).steps_down_unheard is steps_down


@pytest.mark.parametrize(("timeout_s", "seconds"), [(18.0, 6.0), (6.0, 2.0), (3.0, 1.5), (1.0, 1.5)])
def test_a_peer_is_complained_of_after_a_third_of_the_timeout_and_no_sooner_than_a_machine_may_be_busy(
    timeout_s: float, seconds: float
) -> None:
    assert unreachable_seconds(timeout_s) == seconds
    assert fetcher_settings(build(), timeout_s).unreachable_s == seconds


def test_a_leader_goes_by_no_contact_older_than_what_lets_its_followers_complain() -> None:
    assert [replica_settings(build(), timeout_s).contact_seconds_max for timeout_s in (18.0, 3.0, 1.5)] == [
        6.0,
        1.5,
        1.5 * CONTACT_SHARE,
    ]


def test_a_leader_is_called_anew_after_the_session_timeout_at_the_latest() -> None:
    assert fetcher_settings(build(), 18.0).answer_timeout_s == 18.0
    assert fetcher_settings(build(**{"replica.socket.timeout.ms": "10000"}), 18.0).answer_timeout_s == 10.0
