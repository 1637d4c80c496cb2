"""What happened in a world, line by line: cheap while it runs, readable afterwards."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Any

from tests.simulation.events import EventQueue


class Trace:
    """Lines of time, node, kind and text. ``lines_max`` keeps only the newest; the digest covers all."""

    def __init__(self, queue: EventQueue, lines_max: int | None = None) -> None:
        self._queue = queue
        self._entries: deque[tuple[float, int, str, Any]] = deque(maxlen=lines_max)

    def add(self, kind: str, text: str, node: int = 0) -> None:
        """One line; ``node`` 0 is the world itself."""
        self._entries.append((self._queue.now, node, kind, text))

    def entry(self, node: int, kind: str, text: Any) -> None:
        """The same, for the world's own steps: ``text`` may be bytes, of which a beginning will be shown."""
        self._entries.append((self._queue.now, node, kind, text))

    def __len__(self) -> int:
        return len(self._entries)

    def lines(self, last: int | None = None) -> list[str]:
        """All lines that are kept, or the ``last`` ones."""
        entries = list(self._entries)
        return [_line(*entry) for entry in (entries if last is None else entries[-last:])]

    def digest(self) -> str:
        """A hash of the lines, to compare two runs."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()


def _line(time: float, node: int, kind: str, text: Any) -> str:
    if isinstance(text, bytes):
        line = text.split(b"\n", 1)[0][:160].decode("utf-8", "backslashreplace")
        text = line if line.isprintable() else "".join(one if one.isprintable() else "." for one in line)
    who = f"broker {node}" if node else "world"
    return f"{time:12.6f} {who:<9} {kind:<10} {text}"
