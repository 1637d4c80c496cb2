"""``zkbroker-reassign-partitions``: move partitions between brokers; flags and output are those of
kafka-reassign-partitions.sh, and ``--verify`` tells how far each new replica has come."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zkbroker.cli import _common as common
from zkbroker.cli._broker_client import Brokers
from zkbroker.cli._reassignment_cluster import ReassignmentCluster
from zkbroker.cli._reassignment_plan import (
    Replicas,
    as_json,
    as_rows,
    moves,
    parse_brokers,
    parse_reassignment,
    parse_topics,
    propose,
    throttled_replicas,
)
from zkbroker.model.topics import TopicPartition

PROG = "zkbroker-reassign-partitions"
EXAMPLES = """\
  propose how the partitions of a topic could lie on brokers 1, 2 and 4:
    echo '{"topics": [{"topic": "orders"}], "version": 1}' > topics.json
    zkbroker-reassign-partitions --bootstrap-server localhost:9092 --generate \\
        --topics-to-move-json-file topics.json --broker-list 1,2,4
  move them, with no more than 10 MB/s between brokers; then look how far it is (at its end this ends the throttle):
    zkbroker-reassign-partitions --bootstrap-server localhost:9092 --execute \\
        --reassignment-json-file moves.json --throttle 10000000
    zkbroker-reassign-partitions --bootstrap-server localhost:9092 --verify --reassignment-json-file moves.json
  what is under way; take it back:
    zkbroker-reassign-partitions --bootstrap-server localhost:9092 --list
    zkbroker-reassign-partitions --bootstrap-server localhost:9092 --cancel --reassignment-json-file moves.json
"""
ACTIONS = ("generate", "execute", "verify", "cancel", "list")
EXISTING = (
    "Cannot execute because there is an existing partition assignment.  Use --additional to override this and create a "
    "new partition assignment in addition to the existing one. The --additional flag can also be used to change the "
    "throttle by resubmitting the current reassignment."
)
VERIFY_PERIODICALLY = (
    "Warning: You must run --verify periodically, until the reassignment completes, to ensure the throttle is removed."
)
_ALLOWED = {
    "generate": ("topics_to_move_json_file", "broker_list", "disable_rack_aware"),
    "execute": ("reassignment_json_file", "throttle", "additional", "replica_alter_log_dirs_throttle", "timeout"),
    "verify": ("reassignment_json_file", "preserve_throttles"),
    "cancel": ("reassignment_json_file", "preserve_throttles", "timeout"),
    "list": (),
}
_REQUIRED = {
    "generate": ("topics_to_move_json_file", "broker_list"),
    "execute": ("reassignment_json_file",),
    "verify": ("reassignment_json_file",),
    "cancel": ("reassignment_json_file",),
    "list": (),
}


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, "Move partitions between brokers.", EXAMPLES)
    common.add_bootstrap(parser)
    action = parser.add_mutually_exclusive_group(required=True)
    for name, text in (
        ("generate", "propose an assignment; nothing is done"),
        ("execute", "begin to move partitions as the file says"),
        ("verify", "is it done? and where not, how far is it? When all is done throttles are removed"),
        ("cancel", "take the moves of the file back"),
        ("list", "show all moves under way"),
    ):
        action.add_argument(f"--{name}", dest="action", action="store_const", const=name, help=text)
    parser.add_argument("--reassignment-json-file", metavar="FILE", help="which partitions to which brokers")
    parser.add_argument("--topics-to-move-json-file", metavar="FILE", help="with --generate: which topics")
    parser.add_argument("--broker-list", metavar="ID,ID", help="with --generate: onto which brokers")
    parser.add_argument("--disable-rack-aware", action="store_true", help="with --generate: racks do not count")
    parser.add_argument("--throttle", type=int, default=-1, metavar="BYTES", help="bytes per second between brokers")
    parser.add_argument(
        "--replica-alter-log-dirs-throttle", type=int, default=-1, metavar="BYTES", help="has no effect here"
    )
    parser.add_argument("--timeout", type=int, default=10_000, metavar="MS", help="has no effect here")
    parser.add_argument("--additional", action="store_true", help="with --execute: though others are under way")
    parser.add_argument("--preserve-throttles", action="store_true", help="leave throttles as they are")
    parser.add_argument("--command-config", metavar="FILE", help="property file for the admin client")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def _run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    with Brokers(arguments.bootstrap_server, arguments.command_config) as brokers:
        command = _Command(ReassignmentCluster(brokers), arguments)
        actions = {
            "generate": command.generate,
            "execute": command.execute,
            "verify": command.verify,
            "cancel": command.cancel,
            "list": command.list_moves,
        }
        actions[arguments.action]()
        if arguments.json:
            print(as_json(command.told))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    action = arguments.action
    for name in _REQUIRED[action]:
        if getattr(arguments, name) is None:
            raise common.UsageError(f"missing required argument --{name.replace('_', '-')}")
    plain = make_parser()
    for name in sorted({name for names in _ALLOWED.values() for name in names}):
        if name not in _ALLOWED[action] and getattr(arguments, name) != plain.get_default(name):
            raise common.UsageError(f'Option "--{name.replace("_", "-")}" can\'t be used with action "--{action}"')


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise common.CommandError(f"cannot read {path}: {error.strerror}") from None


def _plural(items: Any) -> str:
    return "" if len(items) == 1 else "s"


def _ids(ids: Any) -> str:
    return ",".join(map(str, ids))


class _Command:
    """One run of the tool. ``told`` is what ``--json`` prints."""

    def __init__(self, cluster: ReassignmentCluster, arguments: argparse.Namespace) -> None:
        self._cluster = cluster
        self._arguments = arguments
        self.told: dict[str, Any] = {"version": 1}

    def _say(self, line: str) -> None:
        if not self._arguments.json:
            print(line, flush=True)

    def _wanted(self) -> dict[TopicPartition, tuple[int, ...]]:
        return parse_reassignment(_read(self._arguments.reassignment_json_file))

    # -- the actions

    def generate(self) -> None:
        topics = parse_topics(_read(self._arguments.topics_to_move_json_file))
        wanted = parse_brokers(self._arguments.broker_list)
        racks = self._cluster.racks()
        unknown = [broker for broker in wanted if broker not in racks]
        if unknown:
            raise common.CommandError(f"Unknown broker id {unknown[0]}")
        chosen = {broker: None if self._arguments.disable_rack_aware else racks[broker] for broker in sorted(wanted)}
        if 0 < sum(rack is None for rack in chosen.values()) < len(chosen):
            raise common.CommandError(
                "Not all brokers have rack information. Add --disable-rack-aware in command line to make replica "
                "assignment without rack information."
            )
        current = self._cluster.assignment(topics)
        proposed = propose(current, chosen, random.randrange)
        self.told |= {"current": as_rows(current), "proposed": as_rows(proposed)}
        self._say(f"Current partition replica assignment\n{as_json(as_rows(current))}\n")
        self._say(f"Proposed partition reassignment configuration\n{as_json(as_rows(proposed))}")

    def execute(self) -> None:
        arguments, cluster, wanted = self._arguments, self._cluster, self._wanted()
        ongoing = cluster.ongoing(None)
        if ongoing and not arguments.additional:
            raise common.CommandError(EXISTING)
        brokers = cluster.racks()
        unknown = [broker for replicas in wanted.values() for broker in replicas if broker not in brokers]
        if unknown:
            raise common.CommandError(f"Unknown broker id {unknown[0]}")
        current = self._current(wanted)
        self._say(
            f"Current partition replica assignment\n\n{as_json(as_rows(current))}\n\n"
            "Save this to use as the --reassignment-json-file option during rollback"
        )
        if arguments.throttle >= 0:
            self._say(VERIFY_PERIODICALLY)
            self._throttle(moves(current, wanted, ongoing), arguments.throttle)
            self._say(f"The inter-broker throttle limit was set to {arguments.throttle} B/s")
        refused = cluster.reassign(wanted)
        if refused:
            raise common.CommandError("Error reassigning partition(s):\n" + _refusals(refused))
        self.told |= {"previous": as_rows(current), "started": as_rows(wanted)}
        self._say(
            f"Successfully started partition reassignment{_plural(wanted)} for {','.join(map(str, sorted(wanted)))}"
        )

    def verify(self) -> None:
        wanted = self._wanted()
        ongoing = self._cluster.ongoing(list(wanted))
        current = self._cluster.assignment(sorted({partition.topic for partition in wanted}), must_exist=False)
        rows = []
        self._say("Status of partition reassignment:")
        for partition, target in sorted(wanted.items()):
            row: dict[str, Any] = {"topic": partition.topic, "partition": partition.partition, "target": list(target)}
            move = ongoing.get(partition)
            if move is not None and set(move.replicas) - set(move.removing) == set(target):
                row["state"] = "in progress"
                self._say(f"Reassignment of partition {partition} is still in progress.")
                row["progress"] = self._cluster.progress(partition, move, target)
                for line in row["progress"]:
                    self._say(f"  {_progress(line)}")
            elif partition not in ongoing and tuple(current.get(partition, ())) == target:
                row["state"] = "completed"
                self._say(f"Reassignment of partition {partition} is completed.")
            else:
                found = current.get(partition, ())
                row |= {"state": "inactive", "replicas": list(found)}
                self._say(
                    f"There is no active reassignment of partition {partition}, but replica set is {_ids(found)} "
                    f"rather than {_ids(target)}."
                )
            rows.append(row)
        self.told["partitions"] = rows
        self._say("")
        if not ongoing and not self._arguments.preserve_throttles:
            self._clear_throttles(wanted)

    def cancel(self) -> None:
        wanted = self._wanted()
        active = sorted(self._cluster.ongoing(list(wanted)))
        self.told["cancelled"] = [partition._asdict() for partition in active]
        if active:
            refused = self._cluster.reassign(dict.fromkeys(active))
            if refused:
                raise common.CommandError(
                    f"Error cancelling partition reassignment{_plural(refused)} for:\n" + _refusals(refused)
                )
            self._say(
                f"Successfully cancelled partition reassignment{_plural(active)} for: {','.join(map(str, active))}"
            )
        else:
            self._say("None of the specified partition reassignments are active.")
        self._say("None of the specified partition moves are active.")
        if not self._arguments.preserve_throttles:
            self._clear_throttles(wanted)

    def list_moves(self) -> None:
        ongoing = self._cluster.ongoing(None)
        self.told["partitions"] = [
            {
                "topic": partition.topic,
                "partition": partition.partition,
                "replicas": list(move.replicas),
                "adding": list(move.adding),
                "removing": list(move.removing),
            }
            for partition, move in sorted(ongoing.items())
        ]
        if not ongoing:
            self._say("No partition reassignments found.")
            return
        self._say("Current partition reassignments:")
        for partition, move in sorted(ongoing.items()):
            adding = f" adding: {_ids(move.adding)}." if move.adding else ""
            removing = f" removing: {_ids(move.removing)}." if move.removing else ""
            self._say(f"{partition}: replicas: {_ids(move.replicas)}.{adding}{removing}")

    # -- what they share

    def _current(self, wanted: Replicas) -> dict[TopicPartition, tuple[int, ...]]:
        found = self._cluster.assignment(sorted({partition.topic for partition in wanted}), must_exist=False)
        missing = [partition for partition in sorted(wanted) if partition not in found]
        if missing:
            raise common.CommandError(f"Unable to find partition: {', '.join(map(str, missing))}")
        return {partition: found[partition] for partition in sorted(wanted)}

    def _throttle(self, by_topic: Mapping[str, Any], rate: int) -> None:
        for topic, by_partition in by_topic.items():
            leaders, followers = throttled_replicas(by_partition)
            self._cluster.throttle_topic(topic, leaders, followers)
        brokers = {
            broker
            for by_partition in by_topic.values()
            for move in by_partition.values()
            for broker in (*move.sources, *move.destinations)
        }
        for broker in sorted(brokers):
            self._cluster.throttle_broker(broker, rate)

    def _clear_throttles(self, wanted: Replicas) -> None:
        """Of all brokers and of the file's topics: nobody knows any more which ones had a part in the moves."""
        brokers = sorted({*self._cluster.racks(), *(broker for replicas in wanted.values() for broker in replicas)})
        self._say(f"Clearing broker-level throttles on broker{_plural(brokers)} {_ids(brokers)}")
        for broker in brokers:
            self._cluster.throttle_broker(broker, None)
        topics = sorted({partition.topic for partition in wanted})
        self._say(f"Clearing topic-level throttles on topic{_plural(topics)} {','.join(topics)}")
        for topic in topics:
            self._cluster.throttle_topic(topic, None, None)


def _refusals(refused: Mapping[TopicPartition, str]) -> str:
    return "\n".join(f"{partition}: {text}" for partition, text in sorted(refused.items()))


def _progress(row: Mapping[str, Any]) -> str:
    of = f" of {row['totalBytes']:,} bytes" if row["totalBytes"] is not None else " bytes"
    state = "in sync" if row["inSync"] else "copying"
    if row["bytes"] is None:
        return f"broker {row['broker']}: {state}"
    # A copy knows no more of the leader's end than what its last fetch said: none behind while the bytes say otherwise.
    behind = "" if row["inSync"] or not row["offsetLag"] else f", {row['offsetLag']:,} offsets behind"
    return f"broker {row['broker']}: {state}, {row['bytes']:,}{of}{behind}"


if __name__ == "__main__":
    sys.exit(main())
