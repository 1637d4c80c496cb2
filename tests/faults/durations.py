"""How long what was promised took, and whether that may be judged: only on a machine that had time for the brokers, and
only where nothing that is meant to slow them down was at work."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from tests.faults.arena import Arena
from tests.faults.checker import worst_gap
from tests.faults.history import Acknowledged, Event, Promise, Recorder

HELD_DOWN = re.compile(r"(\S+ \S+),\d+ broker (\d+) was suspected falsely: it is not fenced early for (\d+) s")
REMEMBERED_S = 60.0
"""What the canary noted is kept for so long: no promise takes longer."""


class Stopwatch:
    """Of one fault after the other. Times are the recorder's."""

    def __init__(self, arena: Arena, recorder: Recorder, say: Callable[[str], None]) -> None:
        self._arena = arena
        self._recorder = recorder
        self._say = say
        self._fault = ""
        self._struck_at = 0.0
        self._excuse = ""

    def began(self, fault: str, victim: int | None = None) -> None:
        """A fault strikes now, at ``victim``. Rule 6 of fast failover: who was suspected falsely a while ago is left to
        its session, so nothing quick is promised."""
        self._arena.canary.forget(time.monotonic() - REMEMBERED_S)
        self._fault = fault
        self._struck_at = self._recorder.now()
        held_s = 0.0 if victim is None else held_down_s(victim, self._lines(), time.time())
        self._excuse = f"held down for another {held_s:.0f} s" if held_s > 0 else ""

    def _lines(self) -> Iterable[str]:
        for broker in self._arena.cluster.brokers.values():
            if broker.log_path.exists():
                yield from broker.log_path.read_text(errors="replace").splitlines()

    def came_about(self, what: str, limit_s: float, since: float | None = None, *, is_inferred: bool = False) -> None:
        """It did just now. ``since`` the fault struck if not told; ``is_inferred``: somebody had to be suspected."""
        since = self._struck_at if since is None else since
        self._add(what, self._recorder.now() - since, limit_s, since, self._excuse if is_inferred else "")

    def went_on(self, limit_s: float, writers: Iterable[str]) -> None:
        """Every partition acknowledges to these writers again: the longest time in which one did not."""
        now = self._recorder.now()
        gap = longest_silence(self._recorder.events, set(writers), self._struck_at, now)
        self._add("longest time without an acknowledgement", gap, limit_s, self._struck_at, self._excuse)

    def _add(self, what: str, took_s: float, limit_s: float, since: float, excuse: str) -> None:
        now = time.monotonic()
        delay = self._arena.canary.delay(now - (self._recorder.now() - since), now)
        if not delay.is_quiet and not excuse:
            excuse = f"the machine was busy: scheduling delay p99 {delay.p99_ms:.0f} ms, at most {delay.max_ms:.0f} ms"
        promise = Promise(self._recorder.now(), self._fault, what, round(took_s, 3), limit_s, excuse)
        self._recorder.add(promise)
        self._say(f"{promise.at:8.2f} s {promise}")


def held_down_s(broker: int, lines: Iterable[str], now: float) -> float:
    """For how long that broker is still not fenced early, as the brokers' logs say; ``now`` is wall time."""
    until = now
    for line in lines:
        found = HELD_DOWN.match(line)
        if found is not None and int(found[2]) == broker:
            until = max(until, time.mktime(time.strptime(found[1], "%Y-%m-%d %H:%M:%S")) + int(found[3]))
    return until - now


def longest_silence(events: list[Event], writers: set[str], begin: float, end: float) -> float:
    """In which a partition acknowledged nothing to those writers, between the two moments; values begin with their
    writer's name."""
    times: dict[str, list[float]] = defaultdict(list)
    for event in events.copy():
        if isinstance(event, Acknowledged) and event.value.rpartition("-")[0] in writers:
            times[event.partition].append(event.at)
    return max((worst_gap([*sorted(one), end], begin, end) for one in times.values()), default=end - begin)
