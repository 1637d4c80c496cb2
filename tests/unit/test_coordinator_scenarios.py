"""Runs tests/scenarios/coordinator/*.txt: commands to the coordinator of group ``g``, with what it does below each.
``pytest --rewrite`` writes the outcomes anew; read the difference before you commit it.

A command is a line; its outcome follows ``----`` and ends at an empty line. ``a``, ``b`` … are clients::

    new members_max=2                      a coordinator with these settings
    join a range=meta static=i known fresh skip session=10000 rebalance=60000      (``fresh``: without its member id)
    sync a a=left b=right | beat a | leave a | leave static=i            (the first two with ``static=i`` as well)
    commit a t-0=5 u-1=7 | commit - t-0=5 (nobody's) | fetch | delete | delete t-0 | forget t | expire
    written | written NOT_ENOUGH_REPLICAS  the outcome of the oldest write
    wait 5                                 seconds
    elect                                  another coordinator, with all that is in the log
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.coordinator_scene import NONE, Scene
from zkbroker.coordinator.effects import Answer, Write
from zkbroker.coordinator.records import GroupRecord, OffsetKey, read_group_value, read_key, read_offset_value
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitAnswer,
    DeleteOffsetsAnswer,
    FetchOffsetsAnswer,
    GroupError,
    JoinAnswer,
    LeaveAnswer,
    LeaveGroup,
    LeavingMember,
    SyncAnswer,
)

SCENARIOS = Path(__file__).parent.parent / "scenarios" / "coordinator"


class Play:
    def __init__(self) -> None:
        self.scene = Scene()

    def run(self, line: str) -> str:
        verb, *words = line.split()
        plain = [word for word in words if "=" not in word]
        named = dict(word.split("=") for word in words if "=" in word)
        getattr(self, f"do_{verb}")(plain, named)
        shown = [self.shown(effect) for effect in self.scene.effects]
        groups = self.scene.shard._context.groups
        return "\n".join([*shown, repr(groups["g"]) if "g" in groups else "no group"])

    def do_new(self, _: list[str], named: dict[str, str]) -> None:
        self.scene = Scene(**{name: int(value) for name, value in named.items()})

    def do_join(self, plain: list[str], named: dict[str, str]) -> None:
        client, *flags = plain
        protocols = {name: value.encode() for name, value in named.items() if name in ("range", "sticky")}
        self.scene.join(
            client,
            protocols=protocols or {"range": b""},
            member_id="" if "fresh" in flags else None,
            instance=named.get("static"),
            known="known" in flags,
            skip="skip" in flags,
            session_ms=int(named.get("session", 10_000)),
            rebalance_ms=int(named.get("rebalance", 60_000)),
        )

    def do_sync(self, plain: list[str], named: dict[str, str]) -> None:
        instance = named.pop("static", None)
        self.scene.sync(plain[0], assign={name: value.encode() for name, value in named.items()}, instance=instance)

    def do_beat(self, plain: list[str], named: dict[str, str]) -> None:
        self.scene.beat(plain[0], instance=named.get("static"))

    def do_leave(self, plain: list[str], named: dict[str, str]) -> None:
        if plain:
            self.scene.leave(*plain)
        else:
            self.scene.ask("admin", LeaveGroup("g", (LeavingMember("", named["static"]),)))

    def do_commit(self, plain: list[str], named: dict[str, str]) -> None:
        offsets = {place(name): int(value) for name, value in named.items()}
        self.scene.commit(plain[0], offsets, generation=-1 if plain[0] == "-" else None)

    def do_fetch(self, _: list[str], __: dict[str, str]) -> None:
        self.scene.fetch()

    def do_delete(self, plain: list[str], _: dict[str, str]) -> None:
        if plain:
            self.scene.delete_offsets(*map(place, plain))
        else:
            self.scene.delete()

    def do_forget(self, plain: list[str], _: dict[str, str]) -> None:
        self.scene.took(
            self.scene.shard.forget_topics(dict.fromkeys(plain, self.scene.shard.point), "g", self.scene.now)
        )

    def do_expire(self, _: list[str], __: dict[str, str]) -> None:
        self.scene.took(self.scene.shard.expire_offsets("g", self.scene.now))

    def do_written(self, plain: list[str], _: dict[str, str]) -> None:
        self.scene.written(ErrorCode[plain[0]] if plain else NONE)

    def do_wait(self, plain: list[str], _: dict[str, str]) -> None:
        self.scene.wait(float(plain[0]))

    def do_elect(self, _: list[str], __: dict[str, str]) -> None:
        self.scene.load()

    def shown(self, effect: Any) -> str:
        if isinstance(effect, Write):
            return f"write #{effect.write_id}: " + "; ".join(map(record, effect.records))
        if isinstance(effect, Answer):
            client, request = self.scene.asked[effect.ticket]
            return f"answer {client or 'admin'}'s {type(request).__name__}: {answer(effect.answer)}"
        return f"log: {effect.line}"


def place(text: str) -> tuple[str, int]:
    topic, _, partition = text.rpartition("-")
    return topic, int(partition)


def record(written: GroupRecord) -> str:
    key = read_key(written.key)
    if isinstance(key, OffsetKey):
        name = f"{key.topic}-{key.partition}"
        return f"{name} gone" if written.value is None else f"{name} at {read_offset_value(written.value).offset}"
    if written.value is None:
        return "group gone"
    stored = read_group_value(written.value)
    members = " ".join(f"{row.member_id}={row.assignment.decode()}" for row in stored.members)
    return f"group generation={stored.generation} [{members}]"


def answer(given: Any) -> str:
    match given:
        case ErrorCode():
            return given.name
        case JoinAnswer(error=ErrorCode.NONE):
            members = " ".join(f"{row.member_id}={row.metadata.decode()}" for row in given.members)
            skip = " skip assignment" if given.skip_assignment else ""
            leads = f" members=[{members}]" if given.members else ""
            return (
                f"{given.member_id} generation={given.generation} {given.protocol_name} leader={given.leader_id}"
                f"{leads}{skip}"
            )
        case JoinAnswer():
            return f"{given.error.name} {given.member_id}".rstrip()
        case SyncAnswer(error=ErrorCode.NONE):
            return f"assignment '{given.assignment.decode()}'"
        case LeaveAnswer(error=ErrorCode.NONE):
            return " ".join(row.error.name for row in given.members)
        case CommitAnswer() | DeleteOffsetsAnswer(error=ErrorCode.NONE):
            return " ".join(f"{row.topic}-{row.partition}:{row.error.name}" for row in given.rows)
        case FetchOffsetsAnswer(error=ErrorCode.NONE):
            return " ".join(f"{row.topic}-{row.partition}={row.offset}" for row in given.rows) or "nothing"
        case SyncAnswer() | LeaveAnswer() | GroupError() | DeleteOffsetsAnswer() | FetchOffsetsAnswer():
            return given.error.name
    return repr(given)


def played(text: str) -> str:
    """The scenario with the outcomes as they are now."""
    play = Play()
    blocks = []
    for block in text.strip().split("\n\n"):
        lines = block.split("----")[0].rstrip("\n").split("\n")
        command = lines[-1]
        if command.startswith("#"):
            blocks.append(block.rstrip())
        else:
            blocks.append("\n".join([*lines, "----", play.run(command)]))
    return "\n\n".join(blocks) + "\n"


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.txt")), ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    now = played(text)
    if request.config.getoption("--rewrite"):
        path.write_text(now)
    else:
        assert text == now
