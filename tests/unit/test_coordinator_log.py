"""Tenures, and the appends of coordinators: answered when committed, refused or failed when a tenure is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.replica_cluster import PARTITION, batch, clusters
from zkbroker.broker.replica import Tenure
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topic_config import TopicConfig


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Any]:
    with clusters(tmp_path) as make:
        yield make


def tenure_of(network: Any, broker_id: int) -> Tenure:
    tenure: Tenure | None = network.replicas[broker_id].coordinator_log.tenure(PARTITION)
    assert tenure is not None
    return tenure


def append(network: Any, tenure: Tenure, broker_id: int = 1, timeout_s: float = 5.0) -> list[ErrorCode]:
    answers: list[ErrorCode] = []
    network.replicas[broker_id].coordinator_log.append(tenure, batch(b"a", b"b"), timeout_s, answers.append)
    return answers


def test_an_append_is_answered_when_the_isr_has_it(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    answers = append(network, tenure_of(network, 1))
    assert answers == []
    network.run()
    assert answers == [ErrorCode.NONE]
    assert [network.mark(1), network.end(2)] == [2, 2]


def test_an_append_of_a_leader_alone_is_answered_at_once(networks: Any) -> None:
    network = networks(1)
    network.elect(1, 0)
    assert append(network, tenure_of(network, 1)) == [ErrorCode.NONE]


def test_a_tenure_lasts_over_leader_epochs_and_what_waits_is_answered_in_the_next(networks: Any) -> None:
    network = networks(1, 2)
    told: list[Any] = []
    network.replicas[1].leadership_changed = told.append
    network.elect(1, 0)
    tenure = tenure_of(network, 1)
    network.run()
    network.cut.add(2)
    answers = append(network, tenure)
    network.elect(1, 1, isr=(1,))
    network.run()
    assert answers == [ErrorCode.NONE]
    assert tenure_of(network, 1) is tenure
    assert tenure.holds
    assert told == [PARTITION]


def test_a_lost_leadership_ends_the_tenure_for_good(networks: Any) -> None:
    network = networks(1, 2)
    told: list[Any] = []
    network.replicas[1].leadership_changed = told.append
    network.elect(1, 0)
    tenure = tenure_of(network, 1)
    network.cut.add(2)
    waiting = append(network, tenure)
    network.elect(2, 1, to=(1,))
    assert waiting == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    assert network.replicas[1].coordinator_log.tenure(PARTITION) is None
    network.elect(1, 2)
    assert not tenure.holds
    assert not network.replicas[1].coordinator_log.may_answer(tenure)
    assert append(network, tenure) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    assert tenure_of(network, 1) is not tenure
    assert told == [PARTITION] * 3


def test_a_failed_folder_ends_the_tenure(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    tenure = tenure_of(network, 1)
    network.cut.add(2)
    waiting = append(network, tenure)
    network.replicas[1].dir_failed("folder", "broken", [PARTITION])
    assert waiting == [ErrorCode.KAFKA_STORAGE_ERROR]
    assert not tenure.holds


def test_under_min_isr_nothing_is_appended(networks: Any) -> None:
    network = networks(1, 2)
    network.config = TopicConfig(min_insync_replicas=2)
    network.elect(1, 0, isr=(1,))
    assert append(network, tenure_of(network, 1)) == [ErrorCode.NOT_ENOUGH_REPLICAS]
    assert network.end(1) == 0


def test_without_contact_nothing_is_appended_or_answered(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.run()
    network.cut.add(2)
    tenure = tenure_of(network, 1)
    network.contact_age = 100.0
    network.run(network.settings.contact_seconds_max + 1)
    assert append(network, tenure) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    assert not network.replicas[1].coordinator_log.may_answer(tenure)
    assert network.end(1) == 0


def test_a_wait_without_followers_ends_with_its_time(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.cut.add(2)
    answers = append(network, tenure_of(network, 1), timeout_s=0.5)
    network.run(0.7)
    assert answers == [ErrorCode.REQUEST_TIMED_OUT]
