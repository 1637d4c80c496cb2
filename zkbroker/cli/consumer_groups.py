"""``zkbroker-consumer-groups``: list, describe, delete groups and reset their offsets, with the flags and the output of
kafka-consumer-groups.sh. Where Kafka's tool says an error and ends with status 0, this one ends with 1."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException

from zkbroker.cli import _common as common
from zkbroker.cli._group_admin import STATES, TYPES, GroupAdmin, Listing, Partition
from zkbroker.cli._group_describe import Describe
from zkbroker.cli._group_reset import Reset, check_scenario, parse_topic, reset_csv, reset_table

PROG = "zkbroker-consumer-groups"
ACTIONS = ("list", "describe", "delete", "reset-offsets", "delete-offsets")
EXAMPLES = """\
  which groups are there, and are they at work?
    zkbroker-consumer-groups --bootstrap-server localhost:9092 --list --state
  how far behind is a group? (LAG; what nobody consumes has no CONSUMER-ID)
    zkbroker-consumer-groups --bootstrap-server localhost:9092 --describe --group billing
  who is in it, and who has which partitions?
    zkbroker-consumer-groups --bootstrap-server localhost:9092 --describe --group billing --members --verbose
  read a topic again from its beginning; first see what would be done, then stop the group's members and do it:
    zkbroker-consumer-groups --bootstrap-server localhost:9092 --group billing --topic orders \\
        --reset-offsets --to-earliest --dry-run
    zkbroker-consumer-groups --bootstrap-server localhost:9092 --group billing --topic orders \\
        --reset-offsets --to-earliest --execute
  go back a hundred records in partitions 0 and 2; go on with what was written in the last hour:
    … --group billing --topic orders:0,2 --reset-offsets --shift-by -100 --execute
    … --group billing --all-topics --reset-offsets --by-duration PT1H --execute
  forget a group, or what it committed for one topic:
    zkbroker-consumer-groups --bootstrap-server localhost:9092 --delete --group billing
    zkbroker-consumer-groups --bootstrap-server localhost:9092 --delete-offsets --group billing --topic orders
"""
_JAVA_ERRORS = {
    "GROUP_ID_NOT_FOUND": ("GroupIdNotFoundException", "The group id does not exist."),
    "GROUP_SUBSCRIBED_TO_TOPIC": (
        "GroupSubscribedToTopicException",
        "Deleting offsets of a topic is forbidden while the consumer group is actively subscribed to it.",
    ),
    "INVALID_GROUP_ID": ("InvalidGroupIdException", "The configured groupId is invalid."),
    "NON_EMPTY_GROUP": ("GroupNotEmptyException", "The group is not empty."),
    "UNKNOWN_TOPIC_OR_PARTITION": (
        "UnknownTopicOrPartitionException",
        "This server does not host this topic-partition.",
    ),
}
"""Scripts look for these names in what Kafka's tool prints."""


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, "List, describe, delete consumer groups or reset their offsets.", EXAMPLES)
    common.add_bootstrap(parser)
    add = parser.add_argument
    add("--command-config", metavar="FILE", help="property file for the admin client")
    add("--timeout", type=common.positive, default=5000, metavar="MS", help="how long to wait for the brokers")
    add("--json", action="store_true", help="print one JSON document instead of tables")
    action = parser.add_mutually_exclusive_group(required=True)
    for name, text in zip(
        ACTIONS,
        (
            "list all groups",
            "show offsets and lag, or with --members or --state those",
            "delete groups that have no members, with their offsets",
            "choose where groups without members go on",
            "forget what a group committed for topics that it does not consume",
        ),
        strict=True,
    ):
        action.add_argument(f"--{name}", dest="action", action="store_const", const=name, help=text)
    add("--group", action="append", metavar="GROUP", help="the group to act on; may be repeated")
    add("--all-groups", action="store_true", help="act on all groups")
    add("--topic", action="append", default=[], metavar="TOPIC[:P,P]", help="a topic or some of its partitions")
    add("--all-topics", action="store_true", help="with --reset-offsets: all topics that the group has offsets of")
    add("--offsets", action="store_true", help="with --describe: partitions and lag, which is the default")
    add("--members", action="store_true", help="with --describe: the group's members")
    add("--verbose", action="store_true", help="with --describe --members: their partitions, too")
    add("--state", nargs="?", const="", metavar="STATE,…", help="the state; with --list only groups in one of these")
    add("--type", nargs="?", const="", metavar="TYPE,…", help="with --list: the type; only groups of one of these")
    add("--dry-run", action="store_true", help="with --reset-offsets: only show what would be done")
    add("--execute", action="store_true", help="with --reset-offsets: do it")
    add("--export", action="store_true", help="with --reset-offsets: print it as CSV for --from-file")
    add("--to-offset", type=int, metavar="OFFSET", help="reset to this offset")
    add("--shift-by", type=int, metavar="N", help="reset to the committed offset and N more, or fewer if negative")
    add("--to-datetime", metavar="TIME", help="reset to the first record since YYYY-MM-DDTHH:mm:SS.sss")
    add("--by-duration", metavar="PnDTnHnMnS", help="reset to the first record of this last span of time")
    add("--to-earliest", action="store_true", help="reset to the first record")
    add("--to-latest", action="store_true", help="reset to the end")
    add("--to-current", action="store_true", help="reset to what is committed; where nothing is, to the end")
    add("--from-file", metavar="FILE", help="reset to what --export wrote")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def _run(arguments: argparse.Namespace) -> int:
    check(arguments)
    properties = common.read_properties(arguments.command_config)
    command = _Command(GroupAdmin(arguments.bootstrap_server, properties, arguments.timeout / 1000), arguments)
    actions: dict[str, Callable[[], int]] = {
        "list": command.list_groups,
        "describe": command.describe,
        "delete": command.delete,
        "reset-offsets": command.reset,
        "delete-offsets": command.delete_offsets,
    }
    try:
        return actions[arguments.action]()
    except KafkaException as error:
        text = f"Error: Executing consumer group command failed due to {common.kafka_error_text(error)}"
        raise common.CommandError(text) from None


def check(arguments: argparse.Namespace) -> None:
    """Kafka's rules of what goes with what. Raises UsageError."""
    action = arguments.action
    has_groups = bool(arguments.group or arguments.all_groups)
    if arguments.group and arguments.all_groups:
        raise common.UsageError("--group can't be used with --all-groups")
    if action in ("describe", "delete", "reset-offsets") and not has_groups:
        raise common.UsageError(f"--{action} takes one of these options: --all-groups, --group")
    if action == "list" and arguments.group:
        raise common.UsageError("--group can't be used with --list")
    if action in ("list", "describe") and arguments.topic:
        raise common.UsageError(f"--topic can't be used with --{action}")
    if action == "delete" and arguments.topic:
        raise common.UsageError("to delete what a group committed for a topic is --delete-offsets")
    if action == "delete-offsets" and not (arguments.group and arguments.topic):
        raise common.UsageError("--delete-offsets takes the following options: --group, --topic")
    if action == "delete-offsets" and len(arguments.group) > 1:
        raise common.UsageError("--delete-offsets takes one group at a time")
    if action == "describe":
        if sum((arguments.members, arguments.offsets, arguments.state is not None)) > 1:
            raise common.UsageError("--describe takes at most one of these options: --members, --offsets, --state")
        if arguments.state:
            raise common.UsageError("--describe does not take a value for --state")
    elif arguments.members or arguments.offsets or arguments.verbose:
        raise common.UsageError("--members, --offsets and --verbose go with --describe only")
    if arguments.state is not None and action not in ("list", "describe"):
        raise common.UsageError("--state goes with --list and --describe only")
    if arguments.type is not None and action != "list":
        raise common.UsageError("--type goes with --list only")
    if action == "reset-offsets":
        if arguments.dry_run and arguments.execute:
            raise common.UsageError("--reset-offsets only accepts one of --execute and --dry-run")
        check_scenario(arguments)


def chosen(text: str, words: tuple[str, ...], one: str, many: str) -> list[str]:
    """The words of a list like ``stable,empty``, in any case. Raises UsageError for others."""
    known = {word.lower(): word for word in words}
    asked = [part.strip().lower() for part in text.split(",")] if text else []
    if any(part not in known for part in asked):
        raise common.UsageError(f"Invalid {one} list '{text}'. Valid {many} are: {', '.join(words)}")
    return [known[part] for part in asked]


def listing_table(listings: list[Listing], with_type: bool, with_state: bool) -> list[str]:
    width = max(15, *(len(one.group_id) for one in listings), 0) + 10
    rows = [Listing("GROUP", "TYPE", "STATE"), *listings]
    return [
        f"{row.group_id:<{width}}"
        + (f" {row.group_type:<20}" if with_type else "")
        + (f" {row.state:<20}" if with_state else "")
        for row in rows
    ]


class _Command:
    """One run of the tool. Each action returns the exit status."""

    def __init__(self, groups: GroupAdmin, arguments: argparse.Namespace) -> None:
        self._groups = groups
        self._arguments = arguments

    def _group_ids(self) -> list[str]:
        if self._arguments.all_groups:
            return [one.group_id for one in self._groups.list_groups()]
        return list(dict.fromkeys(self._arguments.group))

    def list_groups(self) -> int:
        arguments = self._arguments
        states = chosen(arguments.state or "", STATES, "state", "states")
        types = chosen(arguments.type or "", TYPES, "types", "types")
        listings = self._groups.list_groups(states, types)
        if arguments.json:
            print(json.dumps([{"group": one.group_id, "type": one.group_type, "state": one.state} for one in listings]))
        elif arguments.state is None and arguments.type is None:
            for one in listings:
                print(one.group_id)
        else:
            print("\n".join(listing_table(listings, arguments.type is not None, arguments.state is not None)))
        return 0

    def describe(self) -> int:
        arguments = self._arguments
        what = "members" if arguments.members else "offsets" if arguments.state is None else "state"
        return Describe(self._groups, arguments.json).run(self._group_ids(), what, arguments.verbose)

    def reset(self) -> int:
        arguments = self._arguments
        if not arguments.dry_run and not arguments.execute:
            print("WARN: No action will be performed as the --execute option is missing.", file=sys.stderr)
        reset = Reset(self._groups, arguments, lambda: time.time_ns() // 1_000_000)
        offsets = reset.run(self._group_ids())
        if arguments.json:
            rows = [
                {"group": group_id, "topic": topic, "partition": number, "new_offset": offset}
                for group_id, of_group in offsets.items()
                for (topic, number), offset in sorted(of_group.items())
            ]
            print(json.dumps(rows))
        elif arguments.export:
            print(reset_csv(offsets, with_group=len(arguments.group or ()) != 1))
        elif offsets:
            print("\n" + "\n".join(reset_table(offsets)))
        return 1 if reset.refused else 0

    def delete(self) -> int:
        results = self._groups.delete_groups(self._group_ids())
        deleted = [group_id for group_id, error in results.items() if error is None]
        refused = {group_id: error for group_id, error in results.items() if error is not None}
        if self._arguments.json:
            print(json.dumps([{"group": group_id, "error": error} for group_id, error in results.items()]))
        elif not refused:
            print(f"Deletion of requested consumer groups ('{', '.join(deleted)}') was successful.")
        else:
            print("\nError: Deletion of some consumer groups failed:")
            for group_id, error in refused.items():
                print(
                    f"* Group '{group_id}' could not be deleted due to: "
                    f"java.util.concurrent.ExecutionException: {_java_error(error)}"
                )
            if deleted:
                names = "'".join(deleted)
                print(f"\nThese consumer groups were deleted successfully: '{names}', '")
        return 1 if refused else 0

    def delete_offsets(self) -> int:
        (group_id,) = self._arguments.group
        topics = self._arguments.topic
        partitions, unknown = self._partitions_to_delete(topics)
        error, answered = self._groups.delete_offsets(group_id, partitions)
        rows = {partition: error or answered.get(partition) for partition in partitions}
        rows.update({(topic, -1): "UNKNOWN_TOPIC_OR_PARTITION" for topic in unknown})
        failed = error or next((refusal for refusal in answered.values() if refusal is not None), None)
        if self._arguments.json:
            print(json.dumps([{"topic": row[0], "partition": row[1], "error": rows[row]} for row in sorted(rows)]))
        else:
            _print_deleted(group_id, topics, failed, rows)
        return 1 if any(rows.values()) else 0

    def _partitions_to_delete(self, topics: list[str]) -> tuple[list[Partition], list[str]]:
        """And the topics of which nobody knows the partitions."""
        partitions: list[Partition] = []
        unknown = []
        for text in topics:
            name, numbers = parse_topic(text)
            try:
                of_topic = self._groups.partitions_of(name) if numbers is None else [(name, n) for n in numbers]
            except KafkaException as error:
                if error.args[0].name() not in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"):
                    raise
                unknown.append(name)
            else:
                partitions.extend(of_topic)
        return list(dict.fromkeys(partitions)), unknown


def _java_error(name: str | None) -> str:
    if name not in _JAVA_ERRORS:
        return str(name)
    exception, text = _JAVA_ERRORS[name]
    return f"org.apache.kafka.common.errors.{exception}: {text}"


def _print_deleted(group_id: str, topics: list[str], failed: str | None, rows: dict[Partition, str | None]) -> None:
    reasons: dict[Any, str] = {
        None: f"Request succeed for deleting offsets with topic {', '.join(topics)} group {group_id}",
        "INVALID_GROUP_ID": f"\nError: '{group_id}' is not valid.",
        "GROUP_ID_NOT_FOUND": f"\nError: '{group_id}' does not exist.",
        "NON_EMPTY_GROUP": f"\nError: Deleting offsets of a consumer group '{group_id}' is forbidden if the group is "
        "not empty.",
        "GROUP_SUBSCRIBED_TO_TOPIC": "\nError: Encounter some partition level error, see the follow-up details:",
        "UNKNOWN_TOPIC_OR_PARTITION": "\nError: Encounter some partition level error, see the follow-up details:",
    }
    print(reasons.get(failed, f"\nError: Encounter some unknown error: {failed}"))
    print(f"\n{'TOPIC':<30} {'PARTITION':<15} {'STATUS':<15}")
    for (topic, number), error in sorted(rows.items(), key=lambda row: f"{row[0][0]}{row[0][1]}"):
        status = "Successful" if error is None else f"Error: :{_java_error(error)}"
        print(f"{topic:<30} {str(number) if number >= 0 else 'Not Provided':<15} {status:<15}")


if __name__ == "__main__":
    sys.exit(main())
