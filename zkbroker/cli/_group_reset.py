"""``zkbroker-consumer-groups --reset-offsets``: where a group without members shall go on, by Kafka's rules."""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from zkbroker.cli._common import CommandError, UsageError
from zkbroker.cli._group_admin import DEAD, EMPTY, GroupAdmin, Partition

SCENARIOS = (
    "to_offset",
    "shift_by",
    "to_datetime",
    "by_duration",
    "to_earliest",
    "to_latest",
    "to_current",
    "from_file",
)

Offsets = dict[Partition, int]

_DATETIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{3}))?(Z|[+-]\d\d(?::?\d\d)?)?")
_DURATION = re.compile(
    r"(?P<sign>[-+]?)P(?:(?P<days>[-+]?\d+)D)?"
    r"(?:T(?=[-+\d])(?:(?P<hours>[-+]?\d+)H)?(?:(?P<minutes>[-+]?\d+)M)?(?:(?P<seconds>[-+]?\d+(?:[.,]\d{0,9})?)S)?)?",
    re.IGNORECASE,
)


def parse_datetime(text: str) -> int:
    """Milliseconds since 1970 of ``YYYY-MM-DDTHH:mm:SS.sss`` with a zone or in UTC. Raises CommandError."""
    match = _DATETIME.fullmatch(text)
    if match is not None:
        moment, milliseconds, zone = match.groups()
        zone = "+00:00" if zone in (None, "Z") else zone[:3] + ":" + (zone[3:].lstrip(":") or "00")
        try:
            seconds = datetime.fromisoformat(moment + zone).timestamp()
        except ValueError:
            pass
        else:
            return int(seconds) * 1000 + int(milliseconds or 0)
    raise CommandError(f'Error: Unparseable date: "{text}" (wanted: YYYY-MM-DDTHH:mm:SS.sss)')


def parse_duration(text: str) -> timedelta:
    """ISO 8601 as Java's Duration reads it: ``P1DT2H``, ``PT30M``, ``-PT6.5S``. Raises CommandError."""
    match = _DURATION.fullmatch(text)
    if match is None or all(match[unit] is None for unit in ("days", "hours", "minutes", "seconds")):
        raise CommandError(f"Error: {text!r} is not a duration as in P1DT2H or PT30M")
    seconds = float((match["seconds"] or "0").replace(",", "."))
    try:
        duration = timedelta(
            int(match["days"] or 0), seconds, 0, 0, int(match["minutes"] or 0), int(match["hours"] or 0)
        )
    except OverflowError:
        raise CommandError(f"Error: {text!r} is too long a duration") from None
    return -duration if match["sign"] == "-" else duration


def parse_topic(text: str) -> tuple[str, list[int] | None]:
    """``orders`` or ``orders:0,2``. Raises CommandError."""
    name, colon, numbers = text.partition(":")
    if not colon:
        return name, None
    if ":" in numbers or not numbers:
        raise CommandError(f"Invalid topic arg '{text}', expected topic name and partitions")
    try:
        return name, [int(number) for number in numbers.split(",")]
    except ValueError:
        raise CommandError(f"Invalid partition specified in topic arg '{text}'") from None


def partitions_of(groups: GroupAdmin, topics: Iterable[str]) -> list[Partition]:
    """Those that the --topic flags name; a topic without partitions means all of its."""
    found: dict[Partition, None] = {}
    for text in topics:
        name, numbers = parse_topic(text)
        found.update(dict.fromkeys(groups.partitions_of(name) if numbers is None else [(name, n) for n in numbers]))
    return list(found)


def read_plan(text: str, group_ids: list[str]) -> dict[str, Offsets]:
    """A file that --export wrote: topic,partition,offset for one group, with the group before it for several."""
    plan: dict[str, Offsets] = {}
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        if not row:
            continue
        if len(row) == 3 and len(group_ids) == 1:
            row = [group_ids[0], *row]
        try:
            group_id, topic, partition, offset = row
            plan.setdefault(group_id, {})[topic, int(partition)] = int(offset)
        except ValueError:
            wanted = "topic,partition,offset" if len(group_ids) == 1 else "group,topic,partition,offset"
            raise CommandError(f"Error: line {number} of the file is not {wanted}: {','.join(row)}") from None
    return plan


class Reset:
    """One run of --reset-offsets."""

    def __init__(self, groups: GroupAdmin, arguments: argparse.Namespace, now_ms: Callable[[], int]) -> None:
        self._groups = groups
        self._arguments = arguments
        self._now_ms = now_ms
        self._plan: dict[str, Offsets] | None = None
        self.refused: list[str] = []
        """Groups that have members."""

    def run(self, group_ids: list[str]) -> dict[str, Offsets]:
        """What is (or with --dry-run would be) committed, by group."""
        arguments = self._arguments
        if arguments.from_file is not None:
            try:
                self._plan = read_plan(Path(arguments.from_file).read_text(), arguments.group or [])
            except OSError as error:
                raise CommandError(f"Error: Unable to read file {arguments.from_file}: {error.strerror}") from None
        result: dict[str, Offsets] = {}
        for group in self._groups.describe(group_ids):
            if group.state not in (EMPTY, DEAD):
                self.refused.append(group.group_id)
                self._say(
                    f"\nError: Assignments can only be reset if the group '{group.group_id}' is inactive, "
                    f"but the current state is {group.state}."
                )
                result[group.group_id] = {}
                continue
            offsets = self._offsets(group.group_id)
            if arguments.execute:
                self._groups.set_offsets(group.group_id, offsets)
            result[group.group_id] = offsets
        return result

    def _say(self, text: str) -> None:
        """Among the output as in Kafka, but never among what a machine reads."""
        for_people = not (self._arguments.export or self._arguments.json)
        print(text, file=sys.stdout if for_people else sys.stderr)

    def _scope(self, group_id: str) -> list[Partition]:
        if self._arguments.all_topics:
            return sorted(self._groups.committed(group_id))
        return partitions_of(self._groups, self._arguments.topic)

    def _offsets(self, group_id: str) -> Offsets:
        arguments = self._arguments
        groups = self._groups
        if self._plan is not None:
            if group_id not in self._plan:
                self._say(f"\nError: No reset plan for group {group_id} found")
            return self._in_range(self._plan.get(group_id, {}))
        scope = self._scope(group_id)
        if arguments.to_offset is not None:
            return self._in_range(dict.fromkeys(scope, arguments.to_offset))
        if arguments.to_earliest:
            return groups.starts(scope)
        if arguments.to_latest:
            return groups.ends(scope)
        if arguments.to_datetime is not None:
            return self._at_time(scope, parse_datetime(arguments.to_datetime))
        if arguments.by_duration is not None:
            ago_ms = parse_duration(arguments.by_duration) // timedelta(milliseconds=1)
            return self._at_time(scope, self._now_ms() - ago_ms)
        committed = groups.committed(group_id)
        if arguments.to_current:
            ends = groups.ends(partition for partition in scope if partition not in committed)
            return {partition: committed.get(partition, ends.get(partition, 0)) for partition in scope}
        for topic, number in scope:
            if (topic, number) not in committed:
                text = f"Cannot shift offset for partition {topic}-{number} since there is no current committed offset"
                raise CommandError(text)
        return self._in_range({partition: committed[partition] + arguments.shift_by for partition in scope})

    def _at_time(self, scope: list[Partition], timestamp_ms: int) -> Offsets:
        found = self._groups.at_time(scope, max(0, timestamp_ms))
        without = [partition for partition in scope if found[partition] < 0]
        for topic, number in without:
            self._say(f"\nWarn: Partition {number} from topic {topic} is empty. Falling back to latest known offset.")
        return {**found, **self._groups.ends(without)}

    def _in_range(self, wanted: Mapping[Partition, int]) -> Offsets:
        """Moved to the nearest offset that the partition has."""
        starts = self._groups.starts(wanted)
        ends = self._groups.ends(wanted)
        chosen = {}
        for partition, offset in wanted.items():
            chosen[partition] = max(min(offset, ends[partition]), starts[partition])
            if chosen[partition] != offset:
                place = "higher than latest" if offset > ends[partition] else "lower than earliest"
                print(
                    f"WARN New offset ({offset}) is {place} offset for topic partition {partition[0]}-{partition[1]}. "
                    f"Value will be set to {chosen[partition]}",
                    file=sys.stderr,
                )
        return chosen


def reset_table(offsets: Mapping[str, Offsets]) -> list[str]:
    """Kafka 3.9 forgot the ends of these lines; here is one for each partition, as in its other versions."""
    rows = [("GROUP", "TOPIC", "PARTITION", "NEW-OFFSET")]
    for group_id, of_group in offsets.items():
        rows.extend((group_id, topic, str(number), str(offset)) for (topic, number), offset in sorted(of_group.items()))
    return [" ".join(map(str.ljust, row, (30, 30, 10, 15))) for row in rows]


def reset_csv(offsets: Mapping[str, Offsets], with_group: bool) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for group_id, of_group in offsets.items():
        for (topic, number), offset in sorted(of_group.items()):
            writer.writerow([*([group_id] if with_group else []), topic, number, offset])
    return out.getvalue()


def check_scenario(arguments: argparse.Namespace) -> None:
    """Exactly one way to choose offsets, and the partitions to choose them for. Raises UsageError."""
    values = {name: getattr(arguments, name) for name in SCENARIOS}
    given = [name for name, value in values.items() if value is not None and value is not False]
    flags = ["--" + name.replace("_", "-") for name in given]
    if len(flags) > 1:
        raise UsageError(f"{flags[0]} can't be used with {flags[1]}")
    if not flags:
        raise UsageError("--reset-offsets wants one of --" + ", --".join(SCENARIOS).replace("_", "-"))
    if not (arguments.all_topics or arguments.topic or arguments.from_file is not None):
        raise UsageError("one of the reset scopes should be defined: --all-topics, --topic")
