"""Who is controller: watches ``/controller``, stands for it, holds the office for one term at a time, gives it up.

How brokers and clients reach the controller that it may be is in ``office_port`` and ``office_requests``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.python.failure import Failure

from zkbroker.broker.controller_admin import TopicAdmin
from zkbroker.broker.controller_settings import ControllerSettings
from zkbroker.broker.controller_takeover import LOST, Outcome, Won, delete_office, read_epoch, stand, take_over
from zkbroker.broker.controller_term import Term, TermContext
from zkbroker.broker.controller_zookeeper import Look
from zkbroker.broker.office_port import OfficePort
from zkbroker.broker.office_watch import OfficeWatch
from zkbroker.controller.back_off import BackOff
from zkbroker.controller.explaining import leaderless_lines
from zkbroker.controller.office import Deposed
from zkbroker.controller.suspicion import Condemned
from zkbroker.model.clock import Clock
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.suspicion import Suspect
from zkbroker.zookeeper.client import (
    ConnectionLossError,
    NoNodeError,
    SessionExpiredError,
    SessionState,
    ZooKeeperClient,
)
from zkbroker.zookeeper.znodes import controller as controller_znode
from zkbroker.zookeeper.znodes.codec import ZnodeError


class ControllerLoop(OfficePort):
    """The controller's side of one broker."""

    def __init__(
        self,
        *,
        broker_id: int,
        zk: ZooKeeperClient,
        clock: Clock,
        reactor: Any,
        random: Any,
        settings: ControllerSettings,
        broker_epoch: Callable[[], int],
        topic_overrides_error: Callable[[Mapping[str, str]], str | None],
        controller_changed: Callable[[int, int], None],
        log: Callable[[str], None],
        verdicts: Callable[[], Sequence[Condemned]] = tuple,
    ) -> None:
        """``controller_changed`` is told the id (-1: nobody) and epoch of whoever holds the office; ``verdicts`` names
        the brokers that are condemned when it is taken."""
        self._broker_id = broker_id
        self._zk = zk
        self._clock = clock
        self._reactor = reactor
        self._settings = settings
        self._broker_epoch = broker_epoch
        self._overrides_error = topic_overrides_error
        self._controller_changed = controller_changed
        self._log = log
        self._context = TermContext(
            broker_id, zk, clock, reactor, random, settings, log, lambda error: self._term_failed(error), verdicts
        )
        self._is_registered = False
        self._is_started = False
        self._is_stopped = False
        self._term: Term | None = None
        self._admin: TopicAdmin | None = None
        self._epoch_attempted = -1
        """The controller epoch of the last multi by which this broker stood; its outcome may be unknown."""
        self._is_standing_instead = False
        self._back_off = BackOff()
        self._stand_timer: Any = None
        self._session_timer: Any = None
        self._known: tuple[int, int] = (-1, -1)
        self._watch = OfficeWatch(
            broker_id=broker_id,
            reactor=reactor,
            clock=clock,
            session_timeout_s=settings.session_timeout_s,
            others=self._others,
            step_down=self._step_down,
        )
        self._office = Look(self._look_at_office, zk=zk, reactor=reactor, failed=self._look_failed)

    def __repr__(self) -> str:
        return f"ControllerLoop({self._broker_id}, {self._term or f'controller is {self._known[0]}'})"

    # Life

    def start(self) -> None:
        """Watch ``/controller``; stand for it once ``registered`` was called."""
        self._is_started = True
        self._zk.listen(self._session_changed)
        if self._zk.is_connected:
            self._office.again()

    def settings_changed(self, settings: ControllerSettings) -> None:
        """The broker's settings changed; they hold for the term under way, too."""
        self._settings = settings
        self._context = self._context._replace(settings=settings)
        if self._term is not None:
            self._term.settings_changed(settings)

    def topic_config_changed(self, topic: str, overrides: Mapping[str, str]) -> None:
        """A topic's settings were read again, perhaps because a person wrote them and announced nothing."""
        if self._term is not None:
            self._term.topic_config_changed(topic, overrides)

    def registered(self) -> None:
        """This broker's registration stands under the present session: it may be controller."""
        self._is_registered = True
        if self._is_started:
            self._office.again()

    def registration_lost(self) -> None:
        """Not registered any more: it does not stand. An office it holds is bound to the session, not to this."""
        self._is_registered = False

    def stop(self) -> Deferred[None]:
        """Give up the office and delete ``/controller``, so that another broker stands at once. Never fails."""
        if self._is_stopped:
            return succeed(None)
        self._is_stopped = True
        self._cancel(self._stand_timer)
        self._cancel(self._session_timer)
        # Also what is being taken at this moment, or was perhaps: the answer is behind what is asked from now on.
        held = self._term is not None or self._epoch_attempted >= 0
        self._close_term("the controller is shutting down")
        self._office.close()
        if not held or not self._zk.is_connected:
            return succeed(None)
        done = delete_office(self._zk, self._zk.session_id)
        done.addErrback(lambda failure: self._log(f"could not delete /controller: {failure.getErrorMessage()}"))
        return done

    @property
    def is_controller(self) -> bool:
        return self._term is not None

    @property
    def controller_epoch(self) -> int:
        """Of this broker's term; -1 when it is not in office."""
        return -1 if self._term is None else self._term.controller.controller_epoch

    def problems(self) -> list[str]:
        """What troubles the controller, for STATUS; nothing where this broker is not in office."""
        if self._term is None:
            return []
        controller = self._term.controller
        waiting = leaderless_lines(controller.image, controller.settling.writes)
        return [*self._term.reader.complaints(), *controller.settling.complaints.lines(), *waiting]

    # The office

    def _session_changed(self, state: SessionState) -> None:
        if self._is_stopped:
            return
        if state is SessionState.SUSPENDED:
            if self._term is not None:
                self._term.writer.pause()
        elif state is SessionState.EXPIRED:
            # before anything of the new session is used: queued events of the old one must not be decided any more
            self._is_registered = False
            self._resign("the ZooKeeper session expired")
            self._tell(-1, self._known[1])
        else:
            if self._term is not None:
                self._term.writer.resume()
                self._term.looks.again()
            self._office.again()

    @inlineCallbacks
    def _look_at_office(self) -> Generator[Deferred[Any], Any, None]:
        """Read ``/controller`` with a watch and do what it asks for: follow, take office, tidy up, or stand."""
        term = self._term
        try:
            data, stat = yield self._zk.get(controller_znode.PATH, self._office.again)
        except NoNodeError:
            exists = (yield self._zk.exists(controller_znode.PATH, self._office.again)) is not None
            if exists or self._term is not term:
                self._office.again()
                return
            if self._term is not None:
                self._resign("/controller is gone")
            self._tell(-1, self._known[1])
            yield self._stand()
            return
        try:
            holder = controller_znode.decode(data).broker_id
        except ZnodeError as error:
            self._log(str(error))
            holder = -1
        epoch, epoch_stat = yield read_epoch(self._zk)
        if self._term is not term:
            # Taken over, or given up, while this was read: it may be from before.
            self._office.again()
            return
        mine = stat.ephemeral_owner == self._zk.session_id
        if holder == self._broker_id and mine and not self._is_stopped:
            if self._term is not None:
                return
            if epoch == self._epoch_attempted:
                self._take_office(epoch, epoch_stat.version)
                return
        if self._term is not None:
            self._resign(f"broker {holder} holds /controller")
        if holder != self._broker_id:
            self._watch.another_holds()
            self._tell(holder, epoch)
            return
        # My own, but not of this term or session: nobody serves behind it (KAFKA-13407).
        if mine or self._is_registered:
            self._log("deleting my own stale /controller")
            yield delete_office(self._zk, stat.ephemeral_owner)
            self._office.again()

    @inlineCallbacks
    def _stand(self) -> Generator[Deferred[Any], Any, None]:
        if not self._is_registered or self._is_stopped or not self._zk.is_connected:
            return
        wait_s = max(self._back_off.stand_at - self._clock.monotonic(), self._watch.aside_s())
        if wait_s > 0:
            self._cancel(self._stand_timer)
            self._stand_timer = self._reactor.callLater(wait_s, self._office.again)
            return

        def attempt(epoch: int) -> bool:
            if not self._is_registered or self._is_stopped:
                return False
            self._epoch_attempted = epoch
            return True

        outcome = yield stand(self._zk, self._office_data(), attempt)
        self._stood(outcome)

    def _office_data(self) -> bytes:
        return controller_znode.encode(self._broker_id, timestamp_ms=self._clock.wall_ms())

    def _stood(self, outcome: Outcome) -> None:
        if isinstance(outcome, Won):
            self._take_office(outcome.epoch, outcome.epoch_version)
        elif outcome is LOST:
            self._epoch_attempted = -1
            self._office.again()  # another was faster: read who

    # A dead controller, or any dead broker (fast failover, rules 3 and 7)

    def condemned(self, verdict: Condemned) -> None:
        """Its peers agree that a broker is dead: the controller fences it."""
        if self._term is not None:
            self._term.broker_condemned(verdict)

    def peer_answered(self, broker_id: int, others: Collection[int]) -> None:
        """A peer answered this broker's PING; ``others`` are all that are registered."""
        self._watch.peer_answered(broker_id, others)

    def stand_instead(self, suspect: Suspect, reason: str) -> None:
        """The controller is dead by the word of a majority: take its office before its session ends."""
        if self._is_standing_instead or not self._may_stand() or self._clock.monotonic() < self._back_off.stand_at:
            return
        self._is_standing_instead = True

        def attempt(epoch: int) -> bool:
            if not self._may_stand():
                return False
            self._log(f"standing instead of controller {suspect.broker_id}: {reason}")
            self._epoch_attempted = epoch
            return True

        def ended(outcome: Outcome) -> None:
            self._is_standing_instead = False
            self._stood(outcome)

        def failed(failure: Failure) -> None:
            self._is_standing_instead = False
            if failure.check(ConnectionLossError) is None:
                self._look_failed(failure.value or RuntimeError(str(failure)))

        take_over(self._zk, suspect, self._office_data(), attempt).addCallback(ended).addErrback(failed)

    def _may_stand(self) -> bool:
        return self._term is None and self._is_registered and not self._is_stopped and self._zk.is_connected

    def _take_office(self, epoch: int, epoch_version: int) -> None:
        if self._is_stopped or self._term is not None:
            return
        self._epoch_attempted = -1
        self._log(f"broker {self._broker_id} (epoch {self._broker_epoch()}) is controller now, epoch {epoch}")
        term = Term(self._context, epoch, epoch_version, self._back_off.quarantined())
        self._term = term
        self._back_off.term_began(self._clock.monotonic())
        self._admin = TopicAdmin(term, self._overrides_error)
        self._watch_session()
        self._watch.term_began()
        self._tell(self._broker_id, epoch)
        if self._term is term:
            term.start().addErrback(term.failed)
            self._office.again()  # the watch that stood is used up by my own creation

    def _term_failed(self, error: BaseException) -> None:
        """What the term raised: resign; unless somebody else is in office already, another broker is to have a go."""
        if self._term is None:
            return
        if isinstance(error, (Deposed, SessionExpiredError)):
            self._resign(str(error))
            self._office.again()
            return
        back_off_s = self._back_off.term_failed(error, self._clock.monotonic())
        self._log(f"failed in office, state {self._term}")
        self._resign(f"{type(error).__name__}: {error}; standing again in {back_off_s:.0f} s at the earliest")
        self._office.again()

    def _others(self) -> list[int] | None:
        """The brokers that the controller must hear of; None when it could not give up its office."""
        if self._term is None or not self._zk.is_connected:
            return None
        if not self._settings.steps_down_unheard:
            return []
        brokers = self._term.controller.image.brokers.values()
        return [broker.broker_id for broker in brokers if broker.broker_id != self._broker_id and not broker.is_kafka]

    def _step_down(self, reason: str) -> None:
        self._resign(reason)
        self._tell(-1, self._known[1])
        self._office.again()

    def _resign(self, reason: str) -> None:
        if self._term is not None:
            self._log(f"resigned as controller: {reason}")
            self._close_term(reason)

    def _close_term(self, reason: str) -> None:
        term, self._term, self._admin = self._term, None, None
        self._cancel(self._session_timer)
        self._watch.term_ended()
        if term is not None:
            term.close(reason)

    def _look_failed(self, error: BaseException) -> None:
        """Reading or standing failed for another reason than the connection: again after a second."""
        if isinstance(error, SessionExpiredError) or self._is_stopped:
            return
        self._log(f"cannot look at /controller: {type(error).__name__}: {error}")
        self._reactor.callLater(1.0, self._office.again)

    def _watch_session(self) -> None:
        """The controller's own timer: ZooKeeper may have given the office to another by now, so stop deciding."""
        self._cancel(self._session_timer)
        if self._term is None:
            return
        left_s = self._zk.last_reply_at + self._settings.session_timeout_s - self._clock.monotonic()
        if left_s <= 0:
            self._resign(f"no reply from ZooKeeper for {self._settings.session_timeout_s:g} s")
            self._tell(-1, self._known[1])
            # Session and connection may both have lived on: then no news comes, and /controller would stay mine.
            self._office.again()
            return
        self._session_timer = self._reactor.callLater(left_s, self._watch_session)

    def _tell(self, controller_id: int, epoch: int) -> None:
        if self._known != (controller_id, epoch):
            self._known = controller_id, epoch
            self._controller_changed(controller_id, epoch)

    def _cancel(self, call: Any) -> None:
        if call is not None and call.active():
            call.cancel()

    # What requests go through

    def _serving(self) -> Term:
        """The term, if it may decide now. Raises BrokerError NOT_CONTROLLER."""
        self._watch_session_if_late()
        if self._term is None:
            raise BrokerError(ErrorCode.NOT_CONTROLLER, "this broker is not the controller")
        return self._term

    def _watch_session_if_late(self) -> None:
        # a process that was stopped for long runs its queued requests before its timers
        if self._term is not None and self.zookeeper_age_s() > self._settings.session_timeout_s:
            self._watch_session()

    def _admin_or_none(self) -> TopicAdmin | None:
        self._watch_session_if_late()
        return self._admin
