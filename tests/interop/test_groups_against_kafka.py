"""The APIs of consumer groups, in all versions, against a Kafka 3.9.1 broker. See test_against_kafka.py."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.brokers import wait_until
from tests.harness.differential import Comparison, Peer
from tests.harness.group_members import Groups, Member
from tests.harness.kafka_differences import create, new_name, served
from tests.interop.test_against_kafka import peers, run
from zkbroker.kafka import versions as v

__all__ = ["peers", "run"]
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif("ZKBROKER_KAFKA_LIBS" not in os.environ, reason="ZKBROKER_KAFKA_LIBS is not set"),
]
NOWHERE = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def groups(run: Comparison) -> Iterator[Groups]:
    for peer in run.peers:
        wait_until(lambda peer=peer: coordinates(peer), f"{peer} coordinates groups", 60)  # type: ignore[misc]
    found = Groups(run)
    yield found
    found.close()


def coordinates(peer: Peer) -> bool:
    """Every group: __consumer_offsets is made when a coordinator is first asked for."""
    found = peer.ask(v.FIND_COORDINATOR, 1, key="g", key_type=0)
    listed = peer.ask(v.LIST_GROUPS, 1)
    return bool(found["error_code"] == "none" and listed["error_code"] == "none")


def offsets(topic: str, *partitions: int, **fields: Any) -> dict[str, Any]:
    rows = [
        {"partition_index": number, "committed_offset": 10 + number, **COMMITTED, **fields} for number in partitions
    ]
    return {"name": topic, "partitions": rows}


COMMITTED = {"committed_leader_epoch": 0, "committed_metadata": "note"}


def test_coordinators(groups: Groups) -> None:
    for version in served(v.FIND_COORDINATOR):
        one = Member(groups, "somebody", "g", version)
        for key in ("g", ""):
            for key_type in (0, 2, 3, -1):
                if version == 6 and key_type == 2:
                    continue  # of share groups, which come with Kafka 4
                fields = {"key": key, "key_type": key_type, "coordinator_keys": [key, "h"]}
                one.ask(f"a coordinator of {key!r} {key_type}", v.FIND_COORDINATOR, version, **fields)
        one.ask("no coordinator", v.FIND_COORDINATOR, version, key="", key_type=0, coordinator_keys=[])
    groups.run.check()


@pytest.mark.parametrize("version", served(v.JOIN_GROUP))
def test_the_life_of_a_member(groups: Groups, version: int) -> None:
    topic = create(groups.run, 2)
    group_id = new_name()
    one = Member(groups, "one", group_id, version)
    admin = Member(groups, "admin", group_id, version)
    one.heartbeat("before there is a group")
    one.leave("before there is a group")
    one.enter("joins")
    one.heartbeat("before it is assigned anything")
    one.commit("commits before it is assigned anything", [offsets(topic, 0)])
    one.sync("assigns", one)
    one.sync("syncs again", one)
    one.heartbeat("lives")
    for case, fields in (
        ("of another generation", {"generation_id": 7}),
        ("of an earlier generation", {"generation_id": 0}),
        ("under another name", {"member_id": f"tests-{NOWHERE}"}),
        ("under no name", {"member_id": ""}),
        ("in another group", {"group_id": new_name()}),
        ("in no group", {"group_id": ""}),
    ):
        one.heartbeat(f"lives {case}", **fields)
        one.sync(f"syncs {case}", **fields)
    one.sync("with another protocol", protocol_name="sticky")
    one.sync("with another type", protocol_type="connect")
    one.sync("without a protocol", protocol_name=None)
    one.commit("commits", [offsets(topic, 0, 1, 2), offsets("nowhere", 0)])
    one.commit("commits in another generation", [offsets(topic, 0, 9)], generation_id_or_member_epoch=7)
    one.commit("commits under another name", [offsets(topic, 0)], member_id=f"tests-{NOWHERE}")
    admin.commit("commits into a living group", [offsets(topic, 0)])
    look(admin, one, "Stable")
    admin.ask("deletes a living group", v.DELETE_GROUPS, groups_names=[group_id, group_id, "nobody", ""])
    rows = [
        {"name": topic, "partitions": [{"partition_index": 0}]},
        {"name": "t", "partitions": [{"partition_index": 0}]},
    ]
    admin.ask("deletes offsets of a living group", v.OFFSET_DELETE, 0, group_id=group_id, topics=rows)
    one.join("joins again")
    one.heartbeat("lives in the new generation")
    one.sync("assigns again", one)
    one.join("asks for other protocols", protocols=[{"name": "sticky", "metadata": b"y"}])
    one.protocol = "sticky"
    one.sync("assigns by the other protocol", one)
    one.leave("leaves under another name", {"member_id": "nobody", "group_instance_id": None}, member_id="nobody")
    one.leave("leaves nobody's group", group_id=new_name())
    one.leave("leaves no group", group_id="")
    one.leave("leaves")
    one.leave("leaves again")
    one.heartbeat("lives after its end")
    look(admin, one, "Empty")
    admin.ask("deletes offsets", v.OFFSET_DELETE, 0, group_id=group_id, topics=rows)
    admin.ask("deletes the group", v.DELETE_GROUPS, groups_names=[group_id])
    look(admin, one, "Dead")
    groups.run.check()


def look(admin: Member, member: Member, when: str) -> None:
    """What administrators see of a group, in all versions."""
    group_id = member.group_id
    for version in served(v.DESCRIBE_GROUPS):
        fields = {"groups": [group_id, "", "nobody"], "include_authorized_operations": version % 2 == 1}
        admin.ask(f"describes {when}", v.DESCRIBE_GROUPS, version, **fields)

    for states, types in (
        ([], []),
        ([when], []),
        ([when.upper(), "Other"], ["CLASSIC"]),
        (["Other"], []),
        ([], ["consumer"]),
    ):
        version = min(member.version, 5)

        def listed(peer: Peer, states: list[str] = states, types: list[str] = types, version: int = version) -> Any:
            answer = peer.ask(v.LIST_GROUPS, version, states_filter=states, types_filter=types)
            return {**answer, "groups": [row for row in answer["groups"] if row["group_id"] == group_id]}

        groups = admin.groups
        groups.run.both(f"groups listed when {when}, {states} {types} v{version}", listed)


@pytest.mark.parametrize("version", [0, 3, 4, 5, 7, 9])
def test_bad_joins(groups: Groups, version: int) -> None:
    group_id = new_name()
    for case, fields in (
        ("for too short a session", {"session_timeout": 5_999}),
        ("for too long a session", {"session_timeout": 1_800_001}),
        ("for a negative session", {"session_timeout": -1}),
        ("without protocols", {"protocols": []}),
        ("without a type", {"protocol_type": ""}),
        ("no group", {"group_id": ""}),
        ("under an unknown name", {"member_id": f"tests-{NOWHERE}"}),
    ):
        Member(groups, "one", group_id, version).join(f"joins {case}", **fields)
    there = Member(groups, "there", group_id, version)
    there.enter("joins")
    there.sync("assigns", there)
    for case, fields in (
        ("under an unknown name", {"member_id": f"tests-{NOWHERE}"}),
        ("with another type", {"protocol_type": "connect"}),
        ("with other protocols only", {"protocols": [{"name": "odd", "metadata": b""}]}),
        ("without protocols", {"protocols": []}),
    ):
        Member(groups, "one", group_id, version).join(f"joins a living group {case}", **fields)
    there.heartbeat("lives on")
    groups.run.check()


@pytest.mark.parametrize("version", served(v.JOIN_GROUP))
def test_three_members(groups: Groups, version: int) -> None:
    group_id = new_name()
    one, two, three = (Member(groups, name, group_id, version) for name in ("one", "two", "three"))
    one.enter("joins")
    one.sync("assigns", one)
    if version >= 4:
        two.join("joins, for an id")
    two.send_join()
    until(one, "rebalance_in_progress")
    one.heartbeat("is told of the second")
    one.commit("commits while the others wait", [offsets("nowhere", 0)])
    one.join("joins the second")
    two.receive_join("joins")
    two.send_sync()
    time.sleep(0.05)
    one.sync("assigns to two", one, two)
    two.receive_sync("is assigned")
    if version >= 4:
        three.join("joins, for an id")
    three.send_join()
    until(one, "rebalance_in_progress")
    two.send_join()
    one.join("joins the third")
    two.receive_join("joins the third")
    three.receive_join("joins")
    two.send_sync()
    three.send_sync()
    time.sleep(0.05)
    one.sync("assigns to two of three", one, two)
    two.receive_sync("is assigned with three")
    three.receive_sync("is assigned nothing")
    look(Member(groups, "admin", group_id, version), one, "Stable")
    two.leave("leaves")
    until(one, "rebalance_in_progress")
    three.heartbeat("is told that the second left")
    two.heartbeat("lives after it left")
    one.send_join()
    three.join("joins without the second")
    one.receive_join("joins without the second")
    one.sync("assigns without the second", one, three)
    three.sync("is assigned without the second")
    if version >= 3:
        names = [{"member_id": member, "group_instance_id": None} for member in (one, two, three)]
        one.leave("takes all with it", *names)
        three.heartbeat("was taken along")
    groups.run.check()


def until(member: Member, error: str) -> None:
    """Both brokers answer a heartbeat so: another member's request has reached them."""

    def says(peer: Peer) -> bool:
        fields = {"group_id": member.group_id, "generation_id": member.generation, "member_id": member.ids[peer]}
        answer = peer.ask(v.HEARTBEAT, 3, group_instance_id=member.instance_id, **fields)
        return bool(answer["error_code"] == error)

    for peer in member.peers:
        wait_until(lambda peer=peer: says(peer), f"{peer} says {error}", 20)  # type: ignore[misc]


@pytest.mark.parametrize("version", served(v.JOIN_GROUP)[5:])
def test_static_members(groups: Groups, version: int) -> None:
    topic = create(groups.run)
    group_id = new_name()
    one = Member(groups, "one", group_id, version, "a")
    one.join("joins")
    one.sync("assigns", one)
    again = Member(groups, "again", group_id, version, "a")
    again.join("comes back without its name")
    again.generation = one.generation
    again.heartbeat("lives after it came back")
    again.sync("syncs after it came back", again)
    one.heartbeat("lives under its old name")
    one.sync("syncs under its old name", one)
    one.join("joins under its old name")
    one.commit("commits under its old name", [offsets(topic, 0)])
    again.commit("commits", [offsets(topic, 0)])
    again.commit("commits without its instance", [offsets(topic, 0)], group_instance_id=None)
    again.heartbeat("lives as another instance", group_instance_id="b")
    again.heartbeat("lives as no instance", group_instance_id=None)
    look(Member(groups, "admin", group_id, version), one, "Stable")
    names = [
        {"member_id": one, "group_instance_id": "a"},
        {"member_id": "", "group_instance_id": "b"},
        {"member_id": "", "group_instance_id": None},
        {"member_id": "nobody", "group_instance_id": None},
        {"member_id": "", "group_instance_id": "a"},
    ]
    again.leave("is removed by an administrator", *names)
    again.heartbeat("lives after it was removed")
    groups.run.check()


def test_offsets_of_all_versions(groups: Groups) -> None:
    topic, other = create(groups.run, 3), create(groups.run)
    group_id = new_name()
    one = Member(groups, "one", group_id)
    for version in served(v.OFFSET_COMMIT)[1:]:
        one.commit("commits", [offsets(topic, 0, 7, 2), offsets("nowhere", 1), offsets(other, 0)], version)
        one.commit("commits null", [offsets(topic, 1, committed_metadata=None)], version)
        one.commit("commits much metadata", [offsets(topic, 0, 1, committed_metadata="x" * 4097)], version)
        one.commit("commits as much as may be", [offsets(other, 0, committed_metadata="x" * 4096)], version)
        one.commit("commits a negative offset", [offsets(other, 0, committed_offset=-1)], version)
        one.commit("commits as a member that is not", [offsets(other, 0)], version, member_id="m")
        one.commit("commits in a generation that is not", [offsets(topic, 0)], version, generation_id_or_member_epoch=3)
        one.commit("commits for no group", [offsets(topic, 0)], version, group_id="")
        one.commit("commits nothing", [], version)
        one.commit("commits nowhere", [offsets("nowhere", 0)], version)
        one.commit("commits twice", [offsets(topic, 0, 0)], version)
        if version <= 4:
            one.commit("commits for a day", [offsets(other, 0)], version, retention_time=86_400_000)
    for version in served(v.OFFSET_FETCH):
        wish = [{"name": topic, "partition_indexes": [2, 0, 9]}, {"name": "nowhere", "partition_indexes": [0]}]
        for case, name, topics in (
            ("some", group_id, wish),
            ("none", group_id, []),
            ("no partitions", group_id, [{"name": topic, "partition_indexes": []}]),
            ("nobody's", "nobody", wish),
            ("no group's", "", wish),
            *((("all", group_id, None), ("all of nobody", "nobody", None)) if version >= 2 else ()),
        ):
            fetch_offsets(one, case, version, {"group_id": name, "topics": topics})
        if version >= 8:
            groups_asked = [
                {"group_id": name, "topics": asked} for name in (group_id, "nobody", "") for asked in (wish, None)
            ]
            fetch_offsets(one, "several groups", version, *groups_asked)
    rows = [{"name": name, "partitions": [{"partition_index": n} for n in (0, 7)]} for name in (topic, "nowhere")]
    for case, name, topics in (
        ("some", group_id, rows),
        ("again", group_id, rows),
        ("unknown ones", group_id, rows[1:]),
        ("none", group_id, []),
        ("nobody's", "nobody", rows),
        ("no group's", "", rows),
    ):
        one.ask(f"deletes {case}", v.OFFSET_DELETE, 0, group_id=name, topics=topics)
    fetch_offsets(one, "what is left", 9, {"group_id": group_id, "topics": None})
    groups.run.check()


def fetch_offsets(member: Member, case: str, version: int, *groups: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"groups": list(groups)} if version >= 8 else groups[0]
    member.ask(f"fetches {case}", v.OFFSET_FETCH, version, **fields, require_stable=True)
