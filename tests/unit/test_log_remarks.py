"""What a start says of a log after a kill: nothing where nothing is missing, as of most partitions of a cluster."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.unit.cleaner_tools import Place, compacted, put

REMARK = "dropped leader epochs"


def test_an_epoch_without_records_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(tmp_path, compacted())
    put(place.log, (b"k", b"v"))
    epochs = Path(place.log.folder) / "leader-epoch-checkpoint"
    place.dirs.abandon()
    epochs.write_text("0\n2\n0 0\n3 1\n")
    with caplog.at_level(logging.INFO):
        assert place.again(is_clean=False).epochs.entries == ((0, 0),)
    assert REMARK not in caplog.text
    place.dirs.abandon()
    epochs.write_text("0\n2\n0 0\n4 5\n")
    with caplog.at_level(logging.INFO):
        assert place.again(is_clean=False).epochs.entries == ((0, 0),)
    assert REMARK in caplog.text
    place.dirs.abandon()
