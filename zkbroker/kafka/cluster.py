"""DescribeCluster (KIP-700): the brokers that clients of this listener reach, and which one is the controller."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services
from zkbroker.kafka.versions import DESCRIBE_CLUSTER
from zkbroker.model.errors import ErrorCode

_BROKERS = 1
_CONTROLLERS = 2
OPERATIONS_OF_CLUSTER = 8096
"""All that can be done with a cluster (KIP-430), as bits: without an authorizer everybody may."""


def decode(request: Request) -> SimpleNamespace:
    return decode_request(DESCRIBE_CLUSTER, request.version, request.reader())


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
    endpoint_type = getattr(message, "endpoint_type", _BROKERS)
    if endpoint_type == _CONTROLLERS:  # KIP-919 asks KRaft controllers
        refuse(request, message, ErrorCode.MISMATCHED_ENDPOINT_TYPE, "this is a broker, not a KRaft controller")
        return
    if endpoint_type != _BROKERS:
        refuse(request, message, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE, f"unknown endpoint type {endpoint_type}")
        return
    metadata = services.metadata
    brokers = [
        {"broker_id": view.broker_id, "host": view.host, "port": view.port, "rack": view.rack}
        for view in metadata.brokers(services.listener)
    ]
    controller = metadata.controller_id
    _answer(
        request,
        {
            "error_code": ErrorCode.NONE,
            "cluster_id": metadata.cluster_id,
            "controller_id": controller if metadata.has_listener(controller, services.listener) else -1,
            "brokers": brokers,
            **(
                {"cluster_authorized_operations": OPERATIONS_OF_CLUSTER}
                if message.include_cluster_authorized_operations
                else {}
            ),
        },
    )


def _answer(request: Request, fields: dict[str, Any]) -> None:
    request.answer(encode_response(DESCRIBE_CLUSTER, request.version, fields))


def refuse(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    fields = {"error_code": error, "error_message": text or error.name, "cluster_id": "", "brokers": []}
    _answer(request, fields)


API = Api(decode, serve, refuse)
