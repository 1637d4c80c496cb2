"""DescribeClientQuotas (KIP-546): the quotas that stand in ZooKeeper. Nothing here enforces them yet."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.config_ports import Quota, QuotaFilter
from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services, when_done
from zkbroker.kafka.versions import DESCRIBE_CLIENT_QUOTAS
from zkbroker.model.errors import BrokerError, ErrorCode

_EXACT = 0
_DEFAULT = 1
_ANY = 2
_TYPES = ("user", "client-id", "ip")


def decode(request: Request) -> SimpleNamespace:
    return decode_request(DESCRIBE_CLIENT_QUOTAS, request.version, request.reader())


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
    try:
        filters = _filters(message.components)
    except BrokerError as error:
        refuse(request, message, error.error, str(error))
        return
    found = services.admin.settings.describe_client_quotas(filters, message.strict)

    def answer(quotas: Sequence[Quota]) -> None:
        entries = [
            {
                "entity": [{"entity_type": kind, "entity_name": name} for kind, name in quota.entity],
                "values": [{"key": key, "value": value} for key, value in quota.values.items()],
            }
            for quota in quotas
        ]
        _answer(request, {"error_code": ErrorCode.NONE, "error_message": None, "entries": entries})

    when_done(request, message, found, answer, refuse)


def _filters(components: Sequence[SimpleNamespace]) -> list[QuotaFilter]:
    """Raises BrokerError with Kafka's errors."""
    filters: list[QuotaFilter] = []
    for component in components:
        kind, match_type = component.entity_type, component.match_type
        if not kind:
            raise BrokerError(ErrorCode.INVALID_REQUEST, "Unexpected empty filter component entity type")
        if kind not in _TYPES:
            raise BrokerError(ErrorCode.UNSUPPORTED_VERSION, f"Custom entity type '{kind}' not supported")
        if any(kind == other.entity_type for other in filters):
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"Duplicate {kind} filter component entity type")
        if match_type not in (_EXACT, _DEFAULT, _ANY):
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"Unexpected match type: {match_type}")
        if match_type == _EXACT and component.match is None:
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"Request specifies no name of the {kind}")
        filters.append(QuotaFilter(kind, match_type == _ANY, component.match if match_type == _EXACT else None))
    kinds = [filter_.entity_type for filter_ in filters]
    if "ip" in kinds and len(kinds) > 1:
        raise BrokerError(
            ErrorCode.INVALID_REQUEST,
            "Invalid entity filter component combination, IP filter component should not be used with user or clientId "
            "filter component.",
        )
    return filters


def _answer(request: Request, fields: dict[str, Any]) -> None:
    request.answer(encode_response(DESCRIBE_CLIENT_QUOTAS, request.version, fields))


def refuse(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    _answer(request, {"error_code": error, "error_message": text or error.name, "entries": None})


API = Api(decode, serve, refuse)
