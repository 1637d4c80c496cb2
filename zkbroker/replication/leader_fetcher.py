"""One connection to one leader, two fetch sessions on it, and their FETCH loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkbroker.model.errors import ErrorCode
from zkbroker.model.limits import FETCH_PARTITIONS_SENT, FETCHES_IN_FLIGHT_MAX
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.codec import Message, decode_error
from zkbroker.replication.connection import log
from zkbroker.replication.follow_session import (
    CATCH_UP_SESSION,
    IN_SYNC_SESSION,
    Followed,
    FollowSession,
    FollowState,
)
from zkbroker.replication.link import BrokerLink
from zkbroker.replication.messages import Fetch, decode_fetched, encode_fetch
from zkbroker.replication.ports import FetchedRow, FetchRow

if TYPE_CHECKING:
    from zkbroker.replication.fetcher import Fetchers

EPOCH_ERRORS = frozenset(
    (
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    )
)
"""Leader and follower heard of a change at different moments: a short pause is enough."""

RESTART_PAUSE_S = 1.0
"""A session that must restart again so soon takes the connection with it, whose back-off then paces the attempts."""


class LeaderFetcher:
    """What is fetched from one leader. Fills ``LinkOwner``."""

    def __init__(self, fetchers: Fetchers, leader: int, host: str, port: int) -> None:
        settings = fetchers.settings
        self._fetchers = fetchers
        self._settings = settings
        self.leader = leader
        self.link = BrokerLink(fetchers.shell, fetchers.link_settings, self, leader, host, port)
        self.sessions = (
            FollowSession(IN_SYNC_SESSION, settings.response_max_bytes),
            FollowSession(CATCH_UP_SESSION, min(settings.response_max_bytes, settings.catch_up_max_bytes)),
        )
        self.dirty: dict[Followed, None] = {}
        """Partitions whose row is to be looked at, and sent if it must be or if it changed."""
        self.is_receiving = False
        """An answer is being given to the replica: what changes meanwhile is sent at its end."""
        self._heard_at = fetchers.shell.clock.monotonic()
        """When the leader last said anything, or was first asked."""

    def __repr__(self) -> str:
        return f"LeaderFetcher({self.link!r}, {self.sessions[0]!r}, {self.sessions[1]!r})"

    def remove(self, followed: Followed) -> None:
        self.dirty.pop(followed, None)
        if followed.session is not None:
            followed.session.remove(followed)

    def link_up(self) -> None:
        self._heard_at = self._fetchers.shell.clock.monotonic()
        self.flush()

    def link_lost(self, reason: str) -> None:
        for session in self.sessions:
            self._restart(session)

    def _restart(self, session: FollowSession) -> None:
        for followed in session.restart():
            self._fetchers.waiting.pop(followed, None)
            self.dirty[followed] = None

    def expect_now(self) -> None:
        """Its silence until now means nothing: that was another incarnation's."""
        self._heard_at = self._fetchers.shell.clock.monotonic()

    def silent_s(self, now: float) -> float:
        """For how long the leader has owed an answer, beyond the time that it may hold a FETCH; or was not there."""
        if not self.link.is_up:
            return now - self._heard_at
        if not any(session.unanswered for session in self.sessions):
            return 0.0
        return now - self._heard_at - self._settings.wait_max_ms / 1000

    def check_silence(self, now: float) -> None:
        """Call the leader anew when it has not answered for long; else have the alarm ring when it may be so."""
        if not self.link.is_up or not any(session.unanswered for session in self.sessions):
            return
        silent_at = self._heard_at + self._settings.wait_max_ms / 1000 + self._settings.answer_timeout_s
        if silent_at <= now:
            self.link.reconnect(f"no answer for {now - self._heard_at:.1f} s")
        else:
            self._fetchers.alarm.at_latest(silent_at)

    def message_received(self, message: Message) -> None:
        now = self._heard_at = self._fetchers.shell.clock.monotonic()
        if message.verb not in ("OK", "ERR"):
            return
        for session in self.sessions:
            seq = session.unanswered.pop(message.correlation, None)
            if seq is not None:
                break
        else:
            # An answer to a FETCH of a session that was restarted meanwhile.
            return
        if message.verb == "OK":
            self._answered(session, seq, message, now)
        else:
            self._refused(session, message, now)
        self.flush()

    def _refused(self, session: FollowSession, message: Message, now: float) -> None:
        error = decode_error(message)
        log.info(
            "broker {broker} refuses a FETCH: {error}: {reason}",
            broker=self.leader,
            error=error.error.name,
            reason=str(error),
        )
        if now - session.restarted_at < RESTART_PAUSE_S:
            raise error
        session.restarted_at = now
        self._restart(session)

    def _answered(self, session: FollowSession, seq: int, message: Message, now: float) -> None:
        def topic_id_of(partition: TopicPartition) -> str:
            followed = session.members.get(partition)
            return followed.row.topic_id if followed is not None and followed.row is not None else ""

        answers = decode_fetched(message, topic_id_of)
        self.is_receiving = True
        try:
            for answer in answers:
                followed = session.members.get(TopicPartition(answer.topic, answer.partition))
                if followed is None:
                    continue
                if followed in self.dirty or not followed.is_answered_by(session, seq):
                    # Stale. The leader may have spent the row on it: so it must be sent, changed or not.
                    if followed in self.dirty:
                        followed.state = FollowState.TO_ASK
                    continue
                self._apply(followed, answer, now)
        finally:
            self.is_receiving = False

    def _apply(self, followed: Followed, answer: FetchedRow, now: float) -> None:
        request = followed.row
        if request is None:
            return
        fetchers = self._fetchers
        if answer.error is not ErrorCode.NONE:
            followed.state = FollowState.BACKING_OFF
            pause_s = self._settings.epoch_backoff_s if answer.error in EPOCH_ERRORS else self._settings.backoff_s
        elif answer.records or answer.diverging_epoch >= 0 or answer.diverging_end >= 0:
            followed.state = FollowState.APPLYING
            pause_s = self._settings.backoff_s
        else:
            # Only a high watermark or log start: the row stands.
            fetchers.follower.fetched(request, answer)
            return
        fetchers.follower.fetched(request, answer)
        if followed.state is FollowState.BACKING_OFF or (
            followed.state is FollowState.APPLYING and followed not in self.dirty
        ):
            followed.retry_at = now + pause_s
            fetchers.waiting[followed] = None
            fetchers.alarm.at_latest(followed.retry_at)

    def flush(self) -> None:
        """Send each session's next FETCH, if there is something to ask or no FETCH is under way."""
        if not self.link.is_up or self.is_receiving:
            return
        if self.link.is_outdated():
            self.link.reconnect("this broker registered anew")
            return
        rows: dict[int, list[tuple[FetchRow, bool]]] = {session.number: [] for session in self.sessions}
        if self.dirty:
            self._gather(rows)
        for session in self.sessions:
            changed = rows[session.number]
            if changed or (not session.unanswered and (session.members or session.to_forget)):
                self._send(session, changed)

    def _gather(self, rows: dict[int, list[tuple[FetchRow, bool]]]) -> None:
        """Move what can be sent now from ``dirty`` to the rows of its session."""
        fetchers, follower = self._fetchers, self._fetchers.follower
        for followed in list(self.dirty):
            row = follower.fetch_row(followed.partition)
            if row is None:
                # Not followed any more, or offline: position_changed or follow comes when it is again.
                self.remove(followed)
                self._fetchers.waiting.pop(followed, None)
                continue
            session = self.sessions[0 if follower.in_sync(followed.partition) else 1]
            if followed.session is session and row == followed.row and followed.state is not FollowState.TO_ASK:
                del self.dirty[followed]
                continue
            delay_s = fetchers.catch_up_delay_s(followed.partition) if session.number == CATCH_UP_SESSION else 0.0
            if delay_s > 0:
                del self.dirty[followed]
                followed.state = FollowState.BACKING_OFF
                followed.retry_at = fetchers.shell.clock.monotonic() + delay_s
                fetchers.waiting[followed] = None
                fetchers.alarm.at_latest(followed.retry_at)
                continue
            changed = rows[session.number]
            if len(session.unanswered) >= FETCHES_IN_FLIGHT_MAX or len(changed) >= FETCH_PARTITIONS_SENT:
                continue
            del self.dirty[followed]
            self._fetchers.waiting.pop(followed, None)
            if followed.session is not session and followed.session is not None:
                followed.session.remove(followed)
            is_new = followed.partition not in session.members
            known_id = None if is_new or followed.row is None else followed.row.topic_id
            session.members[followed.partition] = followed
            session.to_forget.pop(followed.partition, None)
            followed.session = session
            followed.row = row
            followed.seq = session.next_seq
            followed.state = FollowState.ASKED
            changed.append((row, known_id != row.topic_id))

    def _send(self, session: FollowSession, rows: list[tuple[FetchRow, bool]]) -> None:
        settings = self._settings
        correlation = self.link.next_correlation()
        fetch = Fetch(
            session.number,
            session.next_seq,
            settings.wait_max_ms,
            settings.min_bytes,
            session.max_bytes,
            settings.fetch_max_bytes,
        )
        if not any(other.unanswered for other in self.sessions):
            # It owes an answer only from now on.
            self._heard_at = self._fetchers.shell.clock.monotonic()
        session.unanswered[correlation] = session.next_seq
        session.next_seq += 1
        forgotten, session.to_forget = session.to_forget, {}
        self.link.send(encode_fetch(correlation, fetch, rows, forgotten))
        self._fetchers.alarm.at_latest(self._heard_at + settings.wait_max_ms / 1000 + settings.answer_timeout_s)
