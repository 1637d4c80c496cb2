"""The id and password of the ZooKeeper session, kept so that the next process can close a session left by a crash.

Without it a broker that was killed and restarted at once would wait for its own dead session to expire.
"""

from __future__ import annotations

import json
import os

from zkbroker.log.disk import Disk

FILE_NAME = "zookeeper-session.json"


def write_session(disk: Disk, folder: str, session_id: int, password: bytes) -> None:
    """Keep the session beside ``meta.properties``, readable by the broker's user only: it is a credential.

    Raises OSError."""
    path = os.path.join(folder, FILE_NAME)
    temporary = f"{path}.tmp"
    content = json.dumps({"version": 1, "session_id": session_id, "password": password.hex()})
    # A file that was there would keep its mode.
    disk.unlink(temporary)
    disk.write_file(temporary, content.encode("ascii"), mode=0o600)
    disk.rename(temporary, path)


def read_session(disk: Disk, folder: str) -> tuple[int, bytes] | None:
    """The session of the previous process, or None when there is none that can be read."""
    try:
        content = json.loads(disk.read_file(os.path.join(folder, FILE_NAME)).decode("ascii"))
        session_id, password = content["session_id"], bytes.fromhex(content["password"])
        return (session_id, password) if isinstance(session_id, int) and session_id else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        # A torn or missing file only means waiting for the old session to expire.
        return None


def forget_session(disk: Disk, folder: str) -> None:
    """The session was closed: there is nothing left to reopen. Raises OSError."""
    disk.unlink(os.path.join(folder, FILE_NAME))
