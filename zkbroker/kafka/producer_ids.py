"""InitProducerId: the identity of an idempotent producer."""

from __future__ import annotations

from types import SimpleNamespace

from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services, when_done
from zkbroker.kafka.versions import INIT_PRODUCER_ID
from zkbroker.model.errors import ErrorCode

_NONE = -1


def decode(request: Request) -> SimpleNamespace:
    return decode_request(INIT_PRODUCER_ID, request.version, request.reader())


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
    producer_id: int = getattr(message, "producer_id", _NONE)
    epoch: int = getattr(message, "producer_epoch", _NONE)
    if (producer_id == _NONE) != (epoch == _NONE) or message.transactional_id == "":
        refuse(request, message, ErrorCode.INVALID_REQUEST, None)
        return

    def answer(identity: tuple[int, int]) -> None:
        fields = {"error_code": ErrorCode.NONE, "producer_id": identity[0], "producer_epoch": identity[1]}
        request.answer(encode_response(INIT_PRODUCER_ID, request.version, fields))

    deferred = services.producer_ids.init_producer_id(message.transactional_id, producer_id, epoch)
    when_done(request, message, deferred, answer, refuse)


def refuse(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    fields = {"error_code": error, "producer_id": _NONE, "producer_epoch": _NONE}
    request.answer(encode_response(INIT_PRODUCER_ID, request.version, fields))


API = Api(decode, serve, refuse)
