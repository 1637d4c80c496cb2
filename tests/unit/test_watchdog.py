"""The watchdog ends a hung reactor, and never a process that was itself stopped."""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from zkbroker.broker.watchdog import LOOKS_PER_SESSION, Watchdog, is_in_file
from zkbroker.log import disk

PERIOD_S = 0.6


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reasons: list[str] = []

    def watchdog(self) -> Watchdog:
        return Watchdog(
            session_timeout_s=PERIOD_S * LOOKS_PER_SESSION, monotonic=lambda: self.now, gave_up=self.reasons.append
        )


def test_gives_up_after_ten_looks_without_a_tick() -> None:
    hand = Hand()
    watchdog = hand.watchdog()
    for _ in range(LOOKS_PER_SESSION - 1):
        hand.now += PERIOD_S
        assert watchdog.look()
    hand.now += PERIOD_S
    assert not watchdog.look()
    assert hand.reasons == ["the reactor has not turned for 6.0 s"]


def test_a_tick_between_looks_resets_the_count() -> None:
    hand = Hand()
    watchdog = hand.watchdog()
    for round_number in range(LOOKS_PER_SESSION * 3):
        hand.now += PERIOD_S
        if round_number % (LOOKS_PER_SESSION - 1) == 0:
            watchdog.tick()
        assert watchdog.look()
    assert hand.reasons == []


def test_a_stop_of_the_whole_process_resets_the_count() -> None:
    hand = Hand()
    watchdog = hand.watchdog()
    for _ in range(LOOKS_PER_SESSION - 1):
        hand.now += PERIOD_S
        assert watchdog.look()
    hand.now += 30.0
    assert watchdog.look()
    for _ in range(LOOKS_PER_SESSION - 1):
        hand.now += PERIOD_S
        assert watchdog.look()
    assert hand.reasons == []


def test_a_reactor_that_waits_for_the_disk_is_given_up_sooner() -> None:
    hand = Hand()
    waits = True
    watchdog = Watchdog(
        session_timeout_s=18.0,
        stall_s=5.0,
        monotonic=lambda: hand.now,
        gave_up=hand.reasons.append,
        in_disk_call=lambda thread: waits,
    )
    for _ in range(10):
        hand.now += 0.5
        assert watchdog.look()
    waits = False
    hand.now += 0.5
    assert watchdog.look()
    waits = True
    for _ in range(10):
        hand.now += 0.5
        assert watchdog.look(), "of ten looks the first may have come as the wait began"
    hand.now += 0.5
    assert not watchdog.look()
    assert hand.reasons == ["the reactor has waited for the disk for 5.0 s"]


def test_one_that_hangs_elsewhere_has_the_session_timeout() -> None:
    hand = Hand()
    watchdog = Watchdog(session_timeout_s=18.0, stall_s=5.0, monotonic=lambda: hand.now, gave_up=hand.reasons.append)
    for _ in range(35):
        hand.now += 0.5
        assert watchdog.look()
    hand.now += 0.5
    assert not watchdog.look()
    assert hand.reasons == ["the reactor has not turned for 18.0 s"]


def test_it_is_seen_from_outside_that_a_thread_waits_for_the_disk(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)

    def wait_for_the_disk() -> None:
        # a FIFO opens when somebody opens its other end: as long as a call to the disk that hangs
        with contextlib.suppress(OSError):
            disk.Disk().read_file(path)

    thread = threading.Thread(target=wait_for_the_disk)
    thread.start()
    waits = is_in_file(inspect.getfile(disk))
    until = time.monotonic() + 10.0
    while not waits(thread.ident or 0) and time.monotonic() < until:
        time.sleep(0.01)
    was_seen = waits(thread.ident or 0)
    os.close(os.open(path, os.O_WRONLY))
    thread.join(10.0)
    assert was_seen
    assert not waits(thread.ident or 0)
    assert not waits(threading.get_ident())


HOLDER = """
import socket, sys, time
from zkbroker.broker.watchdog import shut_sockets
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
accepted, _ = listener.accept()
sys.stdin.readline()
print(shut_sockets(), flush=True)
sys.stdin.readline()
"""


def test_sockets_that_are_shut_down_end_connections_and_refuse_new_ones() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert holder.stdin is not None and holder.stdout is not None
        port = int(holder.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), 10.0) as connection:
            holder.stdin.write("now\n")
            assert holder.stdout.readline() == "2\n"
            # The process lives and has closed nothing.
            assert connection.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 10.0).close()
    finally:
        holder.kill()
        holder.wait()
        for pipe in (holder.stdin, holder.stdout):
            if pipe is not None:
                pipe.close()
