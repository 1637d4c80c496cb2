"""Process-wide settings made once at start: file descriptors, buffer sizes, garbage collection, thread switching."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys

from twisted.internet import abstract, tcp

READ_SIZE_BYTES = 256 * 1024
"""One read from a socket; Twisted's 64 KiB makes a 1 MiB produce request sixteen turns of the reactor."""

SEND_LIMIT_BYTES = 1024 * 1024
"""One write to a socket; Twisted's 128 KiB joins and copies a large Fetch answer once per 128 KiB."""

SWITCH_INTERVAL_S = 0.0005
"""A pool thread that holds the interpreter delays the reactor by at most this."""

GC_THRESHOLDS = (50_000, 20, 100)
"""Requests leave no cycles, so the collector finds nothing in the young generation: look rarely."""

MALLOC_KEPT_BYTES = 8 * 1024 * 1024
"""Free memory at the end of the heap that glibc keeps. It begins with 128 KiB, so that each record batch received would
be given back to the kernel and faulted in again, page by page (measured: 110,000 page faults per GB followed)."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def raise_limits() -> None:
    """Raise RLIMIT_NOFILE to its hard limit: each connection and each active segment holds descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            # Some systems name a hard limit that they do not grant; the soft one stays.
            pass


def tune_reactor() -> None:
    """Larger reads and writes than Twisted's defaults; must run before the first connection."""
    tcp.Connection.bufferSize = READ_SIZE_BYTES
    abstract.FileDescriptor.SEND_LIMIT = SEND_LIMIT_BYTES
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def keep_freed_memory() -> None:
    """Keep a little of what is freed for the next batch. Without glibc nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, MALLOC_KEPT_BYTES // 2)
    mallopt(_M_TRIM_THRESHOLD, MALLOC_KEPT_BYTES)


def settle_memory() -> None:
    """After start: what exists now stays, so take it out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
