"""The process in which a log is compacted: ``python -m zkbroker.log.cleaner_child``, started by the broker.

It reads the job, one line of JSON, from its standard input; each further line there lets it make the next segment. It
writes a line of JSON for each, one at the end, or one that says why it cannot go on. When its input ends the broker is
gone or wants no more of it: it exits at once, so that nothing is written into a folder that has another owner.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable

from zkbroker.log.cleaner import CleanerJob, clean
from zkbroker.log.disk import Disk
from zkbroker.model.errors import BrokerError

NICE = 10
OTHER_BYTES_MAX = 1536 * 1024 * 1024
"""Memory besides the map: the interpreter, and one batch unpacked and packed again."""
READ_BYTES = 65536
_PAUSE_S_MAX = 1.0


class Throttle:
    """``log.cleaner.io.max.bytes.per.second``: waits until what was read and written is within it."""

    def __init__(
        self,
        bytes_per_second: float,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bytes_per_second = max(bytes_per_second, 1.0)
        self._monotonic = monotonic
        self._sleep = sleep
        self._free_at = monotonic()

    def pay(self, count: int) -> None:
        now = self._monotonic()
        # What was not used up before is not saved up.
        self._free_at = max(self._free_at, now) + count / self._bytes_per_second
        while (left := self._free_at - self._monotonic()) > 0:
            self._sleep(min(left, _PAUSE_S_MAX))


def bound_memory(bytes_max: int) -> None:
    """No job may take the machine's memory, whatever lies in the log."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (bytes_max, hard))


def _say(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Returns the exit status: 0 when the job is done, 1 with the reason on standard output."""
    # Straight from the descriptor: a thread that waits in a stream's lock would have the interpreter abort at its end.
    source = sys.stdin.fileno()
    received = bytearray()
    while b"\n" not in received:
        data = os.read(source, READ_BYTES)
        if not data:
            return 2
        received += data
    line, _, rest = bytes(received).partition(b"\n")
    job = CleanerJob.from_json(line)
    wanted: queue.SimpleQueue[None] = queue.SimpleQueue()

    def listen() -> None:
        data = rest
        while True:
            for _ in range(data.count(b"\n")):
                wanted.put(None)
            data = os.read(source, READ_BYTES)
            if not data:
                os._exit(2)

    threading.Thread(target=listen, daemon=True).start()
    os.nice(NICE)
    bound_memory(job.map_bytes + OTHER_BYTES_MAX)
    work = clean(job, Disk(), Throttle(job.io_bytes_per_second).pay)
    try:
        while True:
            wanted.get()
            try:
                cleaned = next(work)
            except StopIteration as done:
                _say({"done": done.value})
                return 0
            _say({"cleaned": cleaned})
    except BrokerError as error:
        _say({"damaged": str(error), "error": int(error.error)})
    except OSError as error:
        _say({"errno": error.errno, "failed": f"{error.strerror}: {error.filename}"})
    except MemoryError:
        _say({"damaged": "a batch needs more memory than compaction may have", "error": -1})
    return 1


if __name__ == "__main__":
    sys.exit(main())
