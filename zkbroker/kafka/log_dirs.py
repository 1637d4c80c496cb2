"""DescribeLogDirs (KIP-113, KIP-827): where replicas lie, how large they are, how full the disks are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.config_ports import LogDirDescription
from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services, when_done
from zkbroker.kafka.versions import DESCRIBE_LOG_DIRS
from zkbroker.model.errors import ErrorCode


def decode(request: Request) -> SimpleNamespace:
    return decode_request(DESCRIBE_LOG_DIRS, request.version, request.reader())


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
    wanted: dict[str, list[int]] | None = None
    if message.topics is not None:
        wanted = {}
        for topic in message.topics:
            wanted.setdefault(topic.topic, []).extend(topic.partitions)

    def answer(folders: Sequence[LogDirDescription]) -> None:
        _answer(request, ErrorCode.NONE, [_encoded(folder) for folder in folders])

    when_done(request, message, services.admin.settings.describe_log_dirs(wanted), answer, refuse)


def _encoded(folder: LogDirDescription) -> dict[str, Any]:
    topics = [
        {
            "name": topic,
            "partitions": [
                {
                    "partition_index": log.partition,
                    "partition_size": log.size,
                    "offset_lag": log.offset_lag,
                    # Replicas do not move between the folders of a broker (AlterReplicaLogDirs).
                    "is_future_key": False,
                }
                for log in logs
            ],
        }
        for topic, logs in groupby(sorted(folder.logs), key=lambda log: log.topic)
    ]
    return {
        "error_code": folder.error,
        "log_dir": folder.folder,
        "topics": topics,
        "total_bytes": folder.total_bytes,
        "usable_bytes": folder.usable_bytes,
    }


def _answer(request: Request, error: ErrorCode, results: Sequence[dict[str, Any]]) -> None:
    fields = {"error_code": error, "results": results}
    request.answer(encode_response(DESCRIBE_LOG_DIRS, request.version, fields))


def refuse(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    _answer(request, error, ())


API = Api(decode, serve, refuse)
