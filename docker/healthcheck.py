"""Healthy: the broker answers PING on its replication listener, which it does once it has joined the cluster.

The address is HEALTHCHECK_ADDRESS (host:port), else 127.0.0.1:19092. Exit status 0 or 1.
"""

from __future__ import annotations

import os
import socket
import sys


def main() -> int:
    host, _, port = os.environ.get("HEALTHCHECK_ADDRESS", "127.0.0.1:19092").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=3) as connection:
            connection.sendall(b"PING\n")
            answer = connection.makefile("rb").readline(1024)
    except OSError as error:
        print(f"no answer from {host}:{port}: {error}")
        return 1
    print(answer.decode(errors="replace").strip())
    return 0 if answer and not answer.startswith(b"ERR") else 1


if __name__ == "__main__":
    sys.exit(main())
