"""A compaction that finds no room gives back at once what it took: the broker's own appends need it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.unit.cleaner_tools import SETTINGS, Place, compacted, dirt, put
from tests.unit.log_tools import NOW_MS
from zkbroker.log.cleaner import CLEANED_SUFFIX, clean
from zkbroker.log.cleaner_choice import job_for
from zkbroker.log.disk import Disk, Handle


class FullDisk(Disk):
    def write(self, handle: Handle, position: int, data: bytes | memoryview) -> None:
        super().write(handle, position, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "full", "x")


def test_no_file_is_left_behind(tmp_path: Path) -> None:
    place = Place(tmp_path, compacted())
    put(place.log, (b"k", b"1"))
    put(place.log, (b"k", b"2"))
    place.log.roll()
    place.log.flush_later()
    work = clean(job_for(dirt(place.dirs, place.log), SETTINGS, NOW_MS), FullDisk())
    with pytest.raises(OSError, match="full"):
        next(work)
    assert not list(Path(place.log.folder).glob(f"*{CLEANED_SUFFIX}"))
    place.dirs.abandon()
