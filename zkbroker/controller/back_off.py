"""What failing in office costs a broker: time, so that another gets its chance; and a topic that it failed at twice."""

from __future__ import annotations

from zkbroker.controller.office import TopicFailed

BACK_OFF_S_MAX = 60.0
"""After a failure in office: 1, 2, 4 … seconds before standing again."""

STABLE_TERM_S = 120.0
"""A term that lasted so long without failing makes the back-off start anew."""

FAILURES_UNTIL_QUARANTINE = 2


class BackOff:
    """The failures of one broker's terms of office, over the life of its process."""

    def __init__(self) -> None:
        self._term_began_at = 0.0
        self._failures_count = 0
        self._topic_failures: dict[str, int] = {}
        self.stand_at = float("-inf")
        """Monotonic seconds before which this broker does not stand."""

    def __repr__(self) -> str:
        return f"BackOff(failures={self._failures_count}, quarantined={self.quarantined()})"

    def quarantined(self) -> list[str]:
        """Topics about which this broker decides nothing any more."""
        return [topic for topic, count in self._topic_failures.items() if count >= FAILURES_UNTIL_QUARANTINE]

    def term_began(self, now: float) -> None:
        self._term_began_at = now

    def term_failed(self, error: BaseException, now: float) -> float:
        """Returns for how many seconds it does not stand."""
        if isinstance(error, TopicFailed):
            self._topic_failures[error.topic] = self._topic_failures.get(error.topic, 0) + 1
        if now - self._term_began_at > STABLE_TERM_S:
            self._failures_count = 0
        seconds = min(BACK_OFF_S_MAX, 2.0**self._failures_count)
        self._failures_count += 1
        self.stand_at = now + seconds
        return seconds
