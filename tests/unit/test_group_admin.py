"""A coordinator that still loads is asked again, as Java's client does: the first command of all meets one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException

from zkbroker.cli import _group_admin as group_admin
from zkbroker.cli._common import CommandError, kafka_admin
from zkbroker.cli._group_admin import GroupAdmin

LOADS = KafkaError.COORDINATOR_LOAD_IN_PROGRESS


class Client:
    """Answers each kind of request after as many errors as there are."""

    def __init__(self, _config: object) -> None:
        self.errors = [LOADS, KafkaError.NOT_COORDINATOR]
        self.asked: Counter[str] = Counter()

    def _answer(self, name: str, group_id: str, result: Any) -> dict[str, Future[Any]]:
        future: Future[Any] = Future()
        self.asked[name] += 1
        if self.asked[name] <= len(self.errors):
            future.set_exception(KafkaException(KafkaError(self.errors[self.asked[name] - 1])))
        else:
            future.set_result(result)
        return {group_id: future}

    def describe_consumer_groups(self, names: list[str], **_: Any) -> dict[str, Future[Any]]:
        found = SimpleNamespace(
            group_id=names[0], state=ConsumerGroupState.DEAD, partition_assignor="", coordinator=None, members=[]
        )
        return self._answer("describe", names[0], found)

    def list_consumer_group_offsets(self, asked: list[Any], **_: Any) -> dict[str, Future[Any]]:
        return self._answer("committed", asked[0].group_id, SimpleNamespace(topic_partitions=[]))

    def alter_consumer_group_offsets(self, asked: list[Any], **_: Any) -> dict[str, Future[Any]]:
        return self._answer("set_offsets", asked[0].group_id, SimpleNamespace(topic_partitions=[]))

    def delete_consumer_groups(self, names: list[str], **_: Any) -> dict[str, Future[Any]]:
        return self._answer("delete", names[0], None)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[GroupAdmin, Client]:
    monkeypatch.setattr(kafka_admin, "AdminClient", Client)
    monkeypatch.setattr(group_admin, "_ASK_AGAIN_S", 0.0)
    groups = GroupAdmin("127.0.0.1:1", {}, 5)
    client: Any = groups._admin
    return groups, client


CALLS: list[Callable[[GroupAdmin], Any]] = [
    lambda groups: groups.describe(["g"])[0].state == group_admin.DEAD,
    lambda groups: groups.committed("g") == {},
    lambda groups: groups.set_offsets("g", {("t", 0): 1}) is None,  # type: ignore[func-returns-value]
    lambda groups: groups.delete_groups(["g"]) == {"g": None},
]


@pytest.mark.parametrize("call", CALLS)
def test_it_is_asked_until_it_answers(made: tuple[GroupAdmin, Client], call: Callable[[GroupAdmin], Any]) -> None:
    groups, client = made
    assert call(groups)
    assert list(client.asked.values()) == [3]


def test_other_errors_are_told_at_once(made: tuple[GroupAdmin, Client]) -> None:
    groups, client = made
    client.errors = [KafkaError.NON_EMPTY_GROUP, KafkaError.NON_EMPTY_GROUP]
    assert groups.delete_groups(["g"]) == {"g": "NON_EMPTY_GROUP"}
    with pytest.raises(KafkaException):
        groups.describe(["g"])
    assert client.asked == {"delete": 1, "describe": 1}


def test_not_for_ever(made: tuple[GroupAdmin, Client]) -> None:
    groups, client = made
    groups._timeout_s = 0
    client.errors = [LOADS] * 10
    with pytest.raises(KafkaException):
        groups.describe(["g"])
    assert client.asked["describe"] <= 2


def test_the_group_without_a_name_is_refused(made: tuple[GroupAdmin, Client]) -> None:
    with pytest.raises(CommandError, match="without a name"):
        made[0].set_offsets("", {("t", 0): 1})
