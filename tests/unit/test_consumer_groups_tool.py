"""``zkbroker-consumer-groups`` without a broker: flags, tables as kafka-consumer-groups.sh 3.9 prints them, and what a
reset commits."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kio.index import load_response_schema
from kio.schema.errors import ErrorCode as KioErrorCode
from kio.serial import entity_reader

from tests.fakes.kafka_client import encode, frame, request_schema
from tests.harness.differential import build
from zkbroker.cli import _common as common
from zkbroker.cli import consumer_groups
from zkbroker.cli._broker_client import BrokerConnection
from zkbroker.cli._group_admin import Description, Listing, Member, Partition, ask_to_delete
from zkbroker.cli._group_describe import assignment_text, members_table, offset_lines, offsets_table, state_table
from zkbroker.cli._group_reset import Reset, parse_datetime, parse_duration, read_plan, reset_csv, reset_table

BOOTSTRAP = ["--bootstrap-server", "127.0.0.1:1"]
LONG_ID = "consumer-1-cd0fba12-d719-4cc2-84f0-040b8e1ad4d9"
ONE = Member(LONG_ID, None, "consumer-1", "/10.0.0.1", (("logs", 0), ("orders", 1)))
TWO = Member("two", "static-instance-2", "c", "/10.0.0.2", ())
NOW_MS = 1_700_000_100_000


def group(*members: Member, state: str = "Stable", group_id: str = "g") -> Description:
    return Description(group_id, state, "range", 3, "broker.example", 9092, members)


# Flags


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "required"),
        ("--list --describe", "not allowed"),
        ("--describe", "--describe takes one of these options: --all-groups, --group"),
        ("--describe --group g --all-groups", "can't be used"),
        ("--describe --group g --members --state", "at most one"),
        ("--describe --group g --state Stable", "does not take a value for --state"),
        ("--list --group g", "can't be used"),
        ("--list --members", "--describe only"),
        ("--delete --group g --topic t", "--delete-offsets"),
        ("--delete-offsets --group g", "--topic"),
        ("--delete-offsets --topic t", "--group"),
        ("--delete-offsets --group g --group h --topic t", "one group"),
        ("--reset-offsets --group g --all-topics", "wants one of --to-offset"),
        ("--reset-offsets --group g --to-latest", "--all-topics, --topic"),
        ("--reset-offsets --group g --all-topics --to-latest --to-earliest", "can't be used with"),
        ("--reset-offsets --group g --all-topics --to-latest --shift-by 0", "can't be used with"),
        ("--reset-offsets --group g --all-topics --to-latest --dry-run --execute", "only accepts one of"),
        ("--reset-offsets --all-topics --to-latest", "--all-groups, --group"),
        ("--delete --group g --state", "--state goes with"),
        ("--describe --group g --type", "--type goes with"),
    ],
)
def test_wrong_usage(arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert consumer_groups.main([*BOOTSTRAP, *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    assert complaint in captured.err


@pytest.mark.parametrize("flags", ["--list", "--describe --group g", "--delete --group g", "--describe --all-groups"])
def test_no_broker_answers(flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert consumer_groups.main([*BOOTSTRAP, "--timeout", "100", *flags.split()]) == 1
    captured = capsys.readouterr()
    [line] = (captured.out + captured.err).strip().splitlines()
    assert line.startswith("Error: Executing consumer group command failed due to no broker answered")


def test_help_teaches_by_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert consumer_groups.main(["--help"]) == 0
    assert consumer_groups.PROG in capsys.readouterr().out.partition("examples:")[2]


def test_states_in_any_case() -> None:
    states = consumer_groups.chosen("stable, EMPTY", ("Stable", "Empty"), "state", "states")
    assert states == ["Stable", "Empty"]
    with pytest.raises(common.UsageError, match=r"Invalid state list 'gone'\. Valid states are: Stable, Empty"):
        consumer_groups.chosen("gone", ("Stable", "Empty"), "state", "states")


# Tables


def test_listing() -> None:
    listings = [Listing("a", "Classic", "Stable"), Listing("a-group-with-a-long-name", "Classic", "Empty")]
    assert consumer_groups.listing_table(listings, with_type=True, with_state=True) == [
        "GROUP                              TYPE                 STATE               ",
        "a                                  Classic              Stable              ",
        "a-group-with-a-long-name           Classic              Empty               ",
    ]
    assert consumer_groups.listing_table([], False, True) == ["GROUP                     STATE               "]


def test_offsets_of_a_group() -> None:
    committed = {("orders", 1): 7, ("orders", 0): 2, ("gone", 0): 5}
    lines = offset_lines(group(TWO, ONE), committed, {("orders", 1): 9, ("orders", 0): 2, ("logs", 0): 4})
    consumer = f"{LONG_ID} /10.0.0.1       consumer-1"
    nobody = f"{'-':<{len(LONG_ID)}} -               -"
    assert offsets_table("g", lines) == [
        "GROUP           TOPIC           PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG             "
        f"{'CONSUMER-ID':<{len(LONG_ID)}} HOST            CLIENT-ID",
        f"g               logs            0          -               4               -               {consumer}",
        f"g               orders          1          7               9               2               {consumer}",
        f"g               gone            0          5               -               -               {nobody}",
        f"g               orders          0          2               2               0               {nobody}",
    ]


def test_members_of_a_group() -> None:
    assert members_table(group(ONE), verbose=False) == [
        f"GROUP           {'CONSUMER-ID':<{len(LONG_ID)}} HOST            CLIENT-ID       #PARTITIONS     ",
        f"g               {LONG_ID} /10.0.0.1       consumer-1      2               ",
    ]
    heading, *_, last = members_table(group(ONE, TWO), verbose=True)
    assert " ".join(heading.split()) == "GROUP CONSUMER-ID GROUP-INSTANCE-ID HOST CLIENT-ID #PARTITIONS ASSIGNMENT"
    who = f"{'two':<{len(LONG_ID)}} static-instance-2 /10.0.0.2       c               "
    assert last == f"g               {who}0               -"


def test_an_assignment_in_words() -> None:
    assert assignment_text((("orders", 2), ("logs", 0), ("orders", 1))) == "(0), (1,2)"


def test_state_of_a_group() -> None:
    assert state_table(group(ONE)) == [
        "GROUP                     COORDINATOR (ID)          ASSIGNMENT-STRATEGY  STATE           #MEMBERS",
        "g                         broker.example:9092  (3)  range                Stable          1",
    ]


# Times and plans


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-11-14T22:13:20.000", 1_700_000_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000_000),
        ("2023-11-14T22:13:20.007Z", 1_700_000_000_007),
        ("2023-11-14T23:13:20.000+01:00", 1_700_000_000_000),
        ("2023-11-14T20:43:20.000-0130", 1_700_000_000_000),
        ("2023-11-14T23:13:20.000+01", 1_700_000_000_000),
    ],
)
def test_datetimes(text: str, expected: int) -> None:
    assert parse_datetime(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2023-11-14", "2023-13-14T22:13:20.000", "2023-11-14T22:13:20.5"])
def test_no_datetimes(text: str) -> None:
    with pytest.raises(common.CommandError):
        parse_datetime(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PT1H", timedelta(hours=1)),
        ("P1DT2H3M4.5S", timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        ("p2d", timedelta(days=2)),
        ("-PT6M", timedelta(minutes=-6)),
        ("PT-6S", timedelta(seconds=-6)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "5", "P", "PT", "P1DT", "1D", "P1H", "P99999999999D"])
def test_no_durations(text: str) -> None:
    with pytest.raises(common.CommandError):
        parse_duration(text)


def test_plans() -> None:
    one = {"g": {("orders", 0): 4, ("logs", 1): 5}}
    assert read_plan(reset_csv(one, with_group=False) + "\n", ["g"]) == one
    assert read_plan(reset_csv(one, with_group=True), ["g", "h"]) == one
    assert read_plan(reset_csv(one, with_group=True), []) == one
    for text in ("orders,0\n", "orders,zero,4\n"):
        with pytest.raises(common.CommandError, match="line 1"):
            read_plan(text, ["g"])
    with pytest.raises(common.CommandError, match="group,topic"):
        read_plan("orders,0,4\n", ["g", "h"])


# Resets


class FakeAdmin:
    """Topic orders has offsets 10 to 20 in two partitions, void none in one. Records of orders-0 end at NOW_MS."""

    def __init__(self, *groups: Description) -> None:
        self.groups = {one.group_id: one for one in groups}
        self.offsets: dict[str, dict[Partition, int]] = {"g": {("orders", 0): 12, ("void", 0): 0}}
        self.asked_times: list[int] = []

    def describe(self, group_ids: Iterable[str]) -> list[Description]:
        return [self.groups.get(one, group(state="Dead", group_id=one)) for one in sorted(group_ids)]

    def committed(self, group_id: str) -> dict[Partition, int]:
        return self.offsets.get(group_id, {})

    def starts(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {one: 10 if one[0] == "orders" else 0 for one in partitions}

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {one: 20 if one[0] == "orders" else 0 for one in partitions}

    def at_time(self, partitions: Iterable[Partition], timestamp_ms: int) -> dict[Partition, int]:
        self.asked_times.append(timestamp_ms)
        return {one: 15 if one == ("orders", 0) else -1 for one in partitions}

    def partitions_of(self, topic: str) -> list[Partition]:
        return [(topic, number) for number in range(2 if topic == "orders" else 1)]

    def set_offsets(self, group_id: str, offsets: Mapping[Partition, int]) -> None:
        self.offsets.setdefault(group_id, {}).update(offsets)


def reset(admin: FakeAdmin, flags: str, *group_ids: str) -> tuple[Reset, dict[str, dict[Partition, int]]]:
    names = group_ids or ("g",)
    chosen = [word for name in names for word in ("--group", name)]
    arguments = consumer_groups.make_parser().parse_args([*BOOTSTRAP, "--reset-offsets", *chosen, *flags.split()])
    consumer_groups.check(arguments)
    run = Reset(admin, arguments, lambda: NOW_MS)  # type: ignore[arg-type]
    return run, run.run(list(names))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--to-earliest --topic orders", {("orders", 0): 10, ("orders", 1): 10}),
        ("--to-latest --topic orders:1 --topic void", {("orders", 1): 20, ("void", 0): 0}),
        ("--to-offset 14 --topic orders:0,1", {("orders", 0): 14, ("orders", 1): 14}),
        ("--to-offset 0 --topic void", {("void", 0): 0}),
        ("--to-offset 5 --all-topics", {("orders", 0): 10, ("void", 0): 0}),
        ("--shift-by -1 --all-topics", {("orders", 0): 11, ("void", 0): 0}),
        ("--shift-by 100 --topic orders:0", {("orders", 0): 20}),
        ("--to-current --topic orders", {("orders", 0): 12, ("orders", 1): 20}),
        ("--to-datetime 2023-11-14T22:13:20.000 --topic orders", {("orders", 0): 15, ("orders", 1): 20}),
        ("--by-duration PT100S --topic orders:0", {("orders", 0): 15}),
    ],
)
def test_where_a_reset_leads(flags: str, expected: dict[Partition, int]) -> None:
    admin = FakeAdmin(group(state="Empty"))
    _, offsets = reset(admin, flags)
    assert offsets == {"g": expected}
    assert admin.offsets["g"] == {("orders", 0): 12, ("void", 0): 0}  # only shown
    assert all(asked == 1_700_000_000_000 for asked in admin.asked_times)


def test_a_reset_that_is_executed(capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(group(state="Empty"), group(ONE, group_id="busy"))
    run, offsets = reset(admin, "--to-latest --topic orders --execute", "busy", "g", "new")
    ends = {("orders", 0): 20, ("orders", 1): 20}
    assert offsets == {"busy": {}, "g": ends, "new": ends}
    assert run.refused == ["busy"]
    assert admin.offsets == {"g": {**ends, ("void", 0): 0}, "new": ends}
    assert "if the group 'busy' is inactive, but the current state is Stable." in capsys.readouterr().out
    assert reset_table(offsets)[:2] == [
        "GROUP                          TOPIC                          PARTITION  NEW-OFFSET     ",
        "g                              orders                         0          20             ",
    ]


def test_a_reset_by_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.csv"
    plan.write_text("g,orders,0,13\ng,orders,1,99\n")
    _, offsets = reset(FakeAdmin(group(state="Empty")), f"--from-file {plan} --export", "g", "h")
    assert offsets == {"g": {("orders", 0): 13, ("orders", 1): 20}, "h": {}}
    captured = capsys.readouterr()
    assert captured.out == ""  # what is exported stays readable by machines
    assert (
        "New offset (99) is higher than latest offset for topic partition orders-1. Value will be set to 20"
        in captured.err
    )
    assert "No reset plan for group h found" in captured.err


def test_what_was_never_committed_cannot_be_shifted() -> None:
    with pytest.raises(common.CommandError, match="partition orders-1 since there is no current committed offset"):
        reset(FakeAdmin(group(state="Empty")), "--shift-by 1 --topic orders")


# Deletion


class Deleting(FakeAdmin):
    def delete_groups(self, group_ids: Iterable[str]) -> dict[str, str | None]:
        return {one: "NON_EMPTY_GROUP" if one == "busy" else None for one in group_ids}

    def delete_offsets(self, group_id: str, partitions: Iterable[Partition]) -> tuple[str | None, dict[Partition, Any]]:
        if group_id == "nobody":
            return "GROUP_ID_NOT_FOUND", {}
        return None, {one: "GROUP_SUBSCRIBED_TO_TOPIC" if one[1] else None for one in partitions}


def run_tool(monkeypatch: pytest.MonkeyPatch, flags: str) -> int:
    monkeypatch.setattr(consumer_groups, "GroupAdmin", lambda *_: Deleting())
    return consumer_groups.main([*BOOTSTRAP, *flags.split()])


def test_deletion_of_groups(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tool(monkeypatch, "--delete --group a --group b") == 0
    assert capsys.readouterr().out == "Deletion of requested consumer groups ('a, b') was successful.\n"
    assert run_tool(monkeypatch, "--delete --group a --group busy") == 1
    assert capsys.readouterr().out.splitlines() == [
        "",
        "Error: Deletion of some consumer groups failed:",
        "* Group 'busy' could not be deleted due to: java.util.concurrent.ExecutionException: "
        "org.apache.kafka.common.errors.GroupNotEmptyException: The group is not empty.",
        "",
        "These consumer groups were deleted successfully: 'a', '",
    ]
    assert run_tool(monkeypatch, "--delete --group a --group busy --json") == 1
    assert json.loads(capsys.readouterr().out) == [
        {"group": "a", "error": None},
        {"group": "busy", "error": "NON_EMPTY_GROUP"},
    ]


def test_deletion_of_offsets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tool(monkeypatch, "--delete-offsets --group g --topic void") == 0
    assert capsys.readouterr().out.splitlines() == [
        "Request succeed for deleting offsets with topic void group g",
        "",
        "TOPIC                          PARTITION       STATUS         ",
        "void                           0               Successful     ",
    ]
    assert run_tool(monkeypatch, "--delete-offsets --group g --topic orders") == 1
    refused = "org.apache.kafka.common.errors.GroupSubscribedToTopicException: Deleting offsets"
    out = capsys.readouterr().out
    assert "Error: Encounter some partition level error, see the follow-up details:" in out
    assert f"orders                         1               Error: :{refused}" in out
    assert run_tool(monkeypatch, "--delete-offsets --group nobody --topic orders:0 --json") == 1
    assert json.loads(capsys.readouterr().out) == [{"topic": "orders", "partition": 0, "error": "GROUP_ID_NOT_FOUND"}]


def test_offset_delete_on_the_wire() -> None:
    """The coordinator of this test reads and answers with kio's classes."""
    asked: list[Any] = []
    refused = {"partition_index": 1, "error_code": KioErrorCode.group_subscribed_to_topic}
    fine = {"partition_index": 0, "error_code": KioErrorCode.none}
    answers: dict[tuple[int, int], dict[str, Any]] = {
        (18, 0): {"error_code": KioErrorCode.none, "api_keys": [{"api_key": 47, "min_version": 0, "max_version": 0}]},
        (47, 0): {
            "error_code": KioErrorCode.none,
            "throttle_time": 0,
            "topics": [{"name": "t", "partitions": [refused, fine]}],
        },
    }

    def coordinate(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            for key, version in answers:
                (size,) = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
                data = connection.recv(size, socket.MSG_WAITALL)
                schema = request_schema(key, version)
                header, header_size = entity_reader(schema.__header_schema__)(data, 0)
                asked.append(entity_reader(schema)(data[header_size:], 0)[0])
                answer = build(load_response_schema(key, version), answers[key, version])
                connection.sendall(frame(struct.pack(">i", header.correlation_id) + encode(answer)))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=coordinate, args=(listening,))
        thread.start()
        with closing(BrokerConnection(*listening.getsockname(), 10)) as connection:
            answer = ask_to_delete(connection, "g", [("t", 1), ("u", 4), ("t", 0)])
        thread.join()
    assert answer == (None, {("t", 1): "GROUP_SUBSCRIBED_TO_TOPIC", ("t", 0): None})
    found = asked[1]
    topics = [(topic.name, [row.partition_index for row in topic.partitions]) for topic in found.topics]
    assert (found.group_id, topics) == ("g", [("t", [0, 1]), ("u", [4])])
