"""Serving Fetch: whole requests, and those of sessions that name only what changes (KIP-227)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from zkbroker.kafka.fetch import TOPIC_IDS_FROM, Chunk, FetchMessage, FetchTopic, decode_body, encode_body
from zkbroker.kafka.fetch_sessions import FINAL_EPOCH, INITIAL_EPOCH, NO_SESSION, Session
from zkbroker.kafka.messages import topic_id_from_bytes, topic_id_to_bytes
from zkbroker.kafka.ports import Cancellable, ConsumedRow, ConsumeOptions, ConsumeRow, RepeatedConsume
from zkbroker.kafka.request import Api, Request, Services, guarded
from zkbroker.kafka.versions import BY_KEY, FETCH
from zkbroker.kafka.wire import encode_string
from zkbroker.model.errors import ErrorCode

_FLEXIBLE_FROM = BY_KEY[FETCH].flexible_from
_LOWEST = BY_KEY[FETCH].lowest
_ZSTD_FROM = 10

REPEATED_BYTES_MIN = 1024
"""A request of less, some thirty partitions, is not worth being remembered."""
REPEATED_ROWS_MAX = 10_000
"""What one connection may have remembered: some 600 bytes for each."""


def decode(request: Request) -> FetchMessage:
    """A client without a session repeats its request while nothing comes; word for word it is read once."""
    repeated: Repeated | None = request.connection.repeated
    if repeated is not None and repeated.is_again(request):
        request.reader()
        return repeated.message
    size = request.size - request.body_offset
    body = request.frame[request.body_offset :] if request.frame is not None and size >= REPEATED_BYTES_MIN else b""
    return decode_body(request.reader(), request.version)._replace(body=body)


def serve(services: Services, request: Request, message: FetchMessage) -> None:
    if request.version < _LOWEST:
        refuse(request, message, ErrorCode.UNSUPPORTED_VERSION, None)
        return
    if message.replica_id >= 0:  # a Kafka follower: our own followers speak the line protocol
        refuse(request, message, ErrorCode.INVALID_REQUEST, None)
        return
    epoch = message.session_epoch
    if epoch not in (INITIAL_EPOCH, FINAL_EPOCH):
        _go_on(services, request, message)
        return
    if message.session_id != NO_SESSION:
        services.fetch_sessions.end(message.session_id)
    if epoch == INITIAL_EPOCH:
        _begin(services, request, message)
    else:
        _serve_whole(services, request, message)


def refuse(request: Request, message: FetchMessage, error: ErrorCode, text: str | None) -> None:
    rows = [ConsumedRow(row.topic, row.partition, error) for row in message.rows]
    _answer(request, message.topics, rows, None, ErrorCode.NONE if rows else error)


# Without a session


class Repeated:
    """The last request of a connection, and its answer as it was encoded."""

    __slots__ = ("chunks", "data", "message", "rows", "size", "version")

    def __init__(self, version: int, message: FetchMessage, data: RepeatedConsume) -> None:
        self.version = version
        self.message = message
        self.data = data
        self.rows: Sequence[ConsumedRow] = ()
        self.chunks: list[Chunk] = []
        self.size = 0

    def is_again(self, request: Request) -> bool:
        """Is this the same request?"""
        frame = request.frame
        return (
            frame is not None
            and request.version == self.version
            and request.size - request.body_offset == len(self.message.body)
            and frame.endswith(self.message.body)
        )

    def takes(self, version: int, message: FetchMessage, rows: Sequence[ConsumeRow]) -> bool:
        """Does this one ask for the same partitions?"""
        if not self.data.renew(rows):
            return False
        self.version, self.message, self.rows = version, message, ()
        return True

    def forget_answer(self) -> None:
        """It held records, which are not kept in memory."""
        self.rows, self.chunks, self.size = (), [], 0

    def close(self) -> None:
        self.data.close()


def _serve_whole(services: Services, request: Request, message: FetchMessage) -> None:
    rows, refused = message.rows, None
    if request.version >= TOPIC_IDS_FROM:
        rows = _named(services, message)
        if any(not row.topic for row in rows):
            refused = [None if row.topic else _unknown(row) for row in rows]
            rows = [row for row in rows if row.topic]

    def done(answers: Sequence[ConsumedRow]) -> None:
        if refused is not None:
            remaining = iter(answers)
            answers = [row if row is not None else next(remaining) for row in refused]
        _answer(request, message.topics, answers, services)

    if not rows:
        done([])
        return
    if message.body and refused is None and len(rows) <= REPEATED_ROWS_MAX:
        _serve_repeated(services, request, message, rows)
        return
    request.connection.repeat(None)
    cancellable = services.data.consume(_options(services, request, message), rows, guarded(request, message, done))
    if not request.is_done:
        request.cancellable = cancellable


def _serve_repeated(services: Services, request: Request, message: FetchMessage, rows: Sequence[ConsumeRow]) -> None:
    connection = request.connection
    repeated: Repeated | None = connection.repeated
    if repeated is None or not (repeated.message is message or repeated.takes(request.version, message, rows)):
        repeated = Repeated(request.version, message, services.data.open_repeated(rows))
    connection.repeat(repeated)

    def done(answers: list[ConsumedRow]) -> None:
        if repeated.rows is not answers:
            repeated.rows = answers
            repeated.chunks, repeated.size = encode_body(request.version, message.topics, answers, services)
        chunks, size = repeated.chunks, repeated.size
        if any(row.records for row in answers):
            repeated.forget_answer()
        request.answer_chunks(chunks, size)

    cancellable = repeated.data.fetch(_options(services, request, message), guarded(request, message, done))
    if not request.is_done:
        request.cancellable = cancellable


# With one


class _SessionFetch:
    """What is cancelled when the client of a request in a session goes away; the session stays."""

    __slots__ = ("_request", "_session", "fetch")

    def __init__(self, request: Request, session: Session) -> None:
        self._request = request
        self._session = session
        self.fetch: Cancellable | None = None
        session.waiting = self.replaced

    def cancel(self) -> None:
        self.over()
        if self.fetch is not None:
            self.fetch.cancel()
        if self._session.id == NO_SESSION:
            # It was to begin with the answer.
            self._session.data.close()

    def over(self) -> None:
        if self._session.waiting == self.replaced:
            self._session.waiting = None

    def replaced(self) -> None:
        """Another request of the session came, perhaps over another connection: this one is not answered any more as it
        would have been."""
        session_id = self._session.id
        _answer(self._request, (), (), None, ErrorCode.INVALID_FETCH_SESSION_EPOCH, session_id)


def _begin(services: Services, request: Request, message: FetchMessage) -> None:
    """A whole request that offers a session: it begins with the answer, if there is room."""
    request.connection.repeat(None)
    session = Session(services.data.open_session(), request.version >= TOPIC_IDS_FROM)
    _update(services, message, session)

    def done(rows: list[ConsumedRow]) -> None:
        is_begun = services.fetch_sessions.begin(session)
        if not is_begun:
            session.data.close()
        _answer_news(services, request, session, rows)

    _fetch(services, request, message, session, done)


def _go_on(services: Services, request: Request, message: FetchMessage) -> None:
    """A request within a session."""
    sessions = services.fetch_sessions
    session = sessions.find(message.session_id, message.session_epoch, request.version >= TOPIC_IDS_FROM)
    if isinstance(session, ErrorCode):
        _answer(request, (), (), None, session)
        return
    _update(services, message, session)
    if session.size == 0:
        sessions.end(session.id)
        _serve_whole(services, request, message)
        return
    if not sessions.go_on(session):
        sessions.end(session.id)
        _answer(request, (), (), None, ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        return
    replaced = session.waiting
    _fetch(services, request, message, session, lambda rows: _answer_news(services, request, session, rows))
    if replaced is not None:
        # Last, since its connection may begin its next request at once.
        replaced()


def _fetch(
    services: Services,
    request: Request,
    message: FetchMessage,
    session: Session,
    answer: Callable[[list[ConsumedRow]], None],
) -> None:
    waiting = _SessionFetch(request, session)

    def done(rows: list[ConsumedRow]) -> None:
        waiting.over()
        answer(rows)

    waiting.fetch = session.data.fetch(_options(services, request, message), guarded(request, message, done))
    if not request.is_done:
        request.cancellable = waiting


def _update(services: Services, message: FetchMessage, session: Session) -> None:
    """Take what the request adds, changes and forgets. Rows whose topic id is unknown are kept apart, and tried again
    with each request."""
    if not session.uses_ids:
        forgotten = [ConsumeRow(topic.name, number, 0, 0) for topic, numbers in message.forgotten for number in numbers]
        session.data.update(message.rows, forgotten)
        return
    unresolved = session.unresolved
    for row in _named(services, message):
        unresolved[row.topic_id, row.partition] = row
    names = {topic_id: services.metadata.topic_name(topic_id) for topic_id, _ in unresolved}
    rows = [row._replace(topic=names[row.topic_id] or "") for row in unresolved.values() if names[row.topic_id]]
    for row in rows:
        del unresolved[row.topic_id, row.partition]
    # A topic that was deleted is held there no more.
    forgotten = list(unresolved.values())
    for topic, numbers in message.forgotten:
        topic_id = topic_id_from_bytes(topic.encoded) or ""
        for number in numbers:
            if unresolved.pop((topic_id, number), None) is None:
                forgotten.append(ConsumeRow("", number, 0, 0, topic_id=topic_id))
    session.data.update(rows, forgotten)


def _answer_news(services: Services, request: Request, session: Session, rows: list[ConsumedRow]) -> None:
    rows += [_unknown(row) for row in session.unresolved.values()]
    topics, ordered = _by_topic(rows, session.uses_ids, request.version >= _FLEXIBLE_FROM)
    _answer(request, topics, ordered, services, ErrorCode.NONE, session.id)


def _by_topic(
    rows: Iterable[ConsumedRow], uses_ids: bool, flexible: bool
) -> tuple[list[FetchTopic], list[ConsumedRow]]:
    """The rows of each topic together, as a response lists them."""
    grouped: dict[str, list[ConsumedRow]] = {}
    for row in rows:
        grouped.setdefault(row.topic_id if uses_ids else row.topic, []).append(row)
    topics = []
    ordered: list[ConsumedRow] = []
    for name, of_topic in grouped.items():
        encoded = topic_id_to_bytes(name) if uses_ids else encode_string(name, flexible)
        topics.append(FetchTopic(encoded, name, len(of_topic)))
        ordered += of_topic
    return topics, ordered


# What both need


def _options(services: Services, request: Request, message: FetchMessage) -> ConsumeOptions:
    return ConsumeOptions(
        message.max_wait_ms,
        message.min_bytes,
        min(message.max_bytes, services.answer_bytes_max()),
        message.isolation_level == 1,
        request.version >= _ZSTD_FROM,
    )


def _named(services: Services, message: FetchMessage) -> list[ConsumeRow]:
    """The rows with their topics' ids and names; the name stays empty where the id is unknown."""
    rows: list[ConsumeRow] = []
    position = 0
    for topic in message.topics:
        topic_id = topic_id_from_bytes(topic.encoded) or ""
        name = (services.metadata.topic_name(topic_id) if topic_id else None) or ""
        of_topic = message.rows[position : position + topic.size]
        rows.extend(row._replace(topic=name, topic_id=topic_id) for row in of_topic)
        position += topic.size
    return rows


def _unknown(row: ConsumeRow) -> ConsumedRow:
    return ConsumedRow("", row.partition, ErrorCode.UNKNOWN_TOPIC_ID, topic_id=row.topic_id)


def _answer(
    request: Request,
    topics: Sequence[FetchTopic],
    rows: Sequence[ConsumedRow],
    services: Services | None,
    error: ErrorCode = ErrorCode.NONE,
    session_id: int = NO_SESSION,
) -> None:
    chunks, size = encode_body(request.version, topics, rows, services, error, session_id)
    request.answer_chunks(chunks, size)


API = Api(decode, serve, refuse)
