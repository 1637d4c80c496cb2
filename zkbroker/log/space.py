"""How large the disks are and how much of them is left."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.log.disk import Disk
from zkbroker.log.lanes import Lanes

ANSWER_S_MAX = 1.0
"""How long a disk may take to say it; one that hangs is answered for with UNKNOWN."""

UNKNOWN = (-1, -1)

Space = tuple[int, int]
"""(bytes in all, bytes that may still be written) of a folder's file system."""


class DiskSpaces:
    """Asks each disk in a thread of its folder, once at a time however many want to know."""

    def __init__(self, disk: Disk, lanes: Lanes, reactor: Any) -> None:
        self._disk = disk
        self._lanes = lanes
        self._reactor = reactor
        self._waiting: dict[str, dict[Deferred[Space], Any]] = {}
        """Folder whose disk is being asked → who waits, with the timer that ends it."""

    def __repr__(self) -> str:
        return f"DiskSpaces(asking {sorted(self._waiting)})"

    def ask(self, folder: str) -> Deferred[Space]:
        """Never fails."""
        answer: Deferred[Space] = Deferred()
        is_first = folder not in self._waiting
        timer = self._reactor.callLater(ANSWER_S_MAX, self._given_up, folder, answer)
        self._waiting.setdefault(folder, {})[answer] = timer
        if is_first:
            self._lanes.run(folder, self._disk.space, folder).addCallbacks(
                self._said, self._failed, callbackArgs=(folder,), errbackArgs=(folder,)
            )
        return answer

    def _said(self, space: Space, folder: str) -> None:
        for answer, timer in self._waiting.pop(folder).items():
            timer.cancel()
            answer.callback(space)

    def _failed(self, failure: Failure, folder: str) -> None:
        failure.trap(OSError)
        self._said(UNKNOWN, folder)

    def _given_up(self, folder: str, answer: Deferred[Space]) -> None:
        # The folder stays among those being asked: its disk is not asked again while it hangs.
        del self._waiting[folder][answer]
        answer.callback(UNKNOWN)
