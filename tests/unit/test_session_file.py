"""The ZooKeeper session that a process leaves to its successor."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from zkbroker.broker.session_file import FILE_NAME, forget_session, read_session, write_session
from zkbroker.log.disk import Disk


@pytest.mark.parametrize("session_id", [1, 2**62 + 5, -(2**63), -1])
def test_it_is_read_back_whatever_the_sign_of_the_id(tmp_path: Path, session_id: int) -> None:
    write_session(Disk(), str(tmp_path), session_id, bytes(range(16)))
    assert read_session(Disk(), str(tmp_path)) == (session_id, bytes(range(16)))


def test_only_the_brokers_user_can_read_it(tmp_path: Path) -> None:
    loose = tmp_path / f"{FILE_NAME}.tmp"
    loose.write_text("left by a crash")
    loose.chmod(0o644)
    write_session(Disk(), str(tmp_path), 7, b"secret")
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"null",
        b'{"session_id": 7}',
        b'{"session_id": "7", "password": "00"}',
        b'{"session_id": 0, "password": "00"}',
        b'{"session_id": 7, "password": "xy"}',
        b'{"session_id": 7, "password": 5}',
        b"[" * 100_000,
    ],
)
def test_what_does_not_decode_is_no_session(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert read_session(Disk(), str(tmp_path)) is None


def test_no_file_is_no_session_and_can_be_forgotten(tmp_path: Path) -> None:
    assert read_session(Disk(), str(tmp_path)) is None
    forget_session(Disk(), str(tmp_path))
    write_session(Disk(), str(tmp_path), 7, b"x")
    forget_session(Disk(), str(tmp_path))
    assert read_session(Disk(), str(tmp_path)) is None


def test_a_folder_that_is_gone_is_an_oserror_to_the_writer(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_session(Disk(), str(tmp_path / "gone"), 7, b"x")
