"""The id and password of the ZooKeeper session, kept so that the next process can close a session left by a crash.

Without it a broker that was killed and restarted at once would wait for its own dead session to expire.
"""

from __future__ import annotations

import json
import os

FILE_NAME = "zookeeper-session.json"


def write_session(folder: str, session_id: int, password: bytes) -> None:
    """Keep the session beside ``meta.properties``, readable by the broker's user only: it is a credential.

    Raises OSError."""
    path = os.path.join(folder, FILE_NAME)
    temporary = f"{path}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        # A file that was there keeps its mode.
        os.fchmod(descriptor, 0o600)
        json.dump({"version": 1, "session_id": session_id, "password": password.hex()}, file)
    os.replace(temporary, path)


def read_session(folder: str) -> tuple[int, bytes] | None:
    """The session of the previous process, or None when there is none that can be read."""
    try:
        with open(os.path.join(folder, FILE_NAME), encoding="ascii") as file:
            content = json.load(file)
        session_id, password = content["session_id"], bytes.fromhex(content["password"])
        return (session_id, password) if isinstance(session_id, int) and session_id else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        # A torn or missing file only means waiting for the old session to expire.
        return None


def forget_session(folder: str) -> None:
    """The session was closed: there is nothing left to reopen."""
    try:
        os.unlink(os.path.join(folder, FILE_NAME))
    except FileNotFoundError:
        pass
