"""How a broker learns that something has failed, and tells: peers that died (``detection``), leaders and followers that
live for ZooKeeper only, its own disks that hang (``complaining``)."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from zkbroker.broker.complaining import Complaining, SilenceWatch, StallWatch
from zkbroker.broker.controller_loop import ControllerLoop
from zkbroker.broker.detection import FailureDetection
from zkbroker.broker.metadata import ClusterMetadata, Doubt
from zkbroker.broker.replicas import Replicas
from zkbroker.broker.settings import detection_settings, unreachable_seconds
from zkbroker.log.dirs import LogDirs
from zkbroker.model.clock import Clock
from zkbroker.model.complaints import Word
from zkbroker.model.config import BrokerConfig
from zkbroker.replication.fetcher import Fetchers
from zkbroker.replication.ports import Identity


class FailureWatch:
    """Both, made together. With ``broker.failure.detection=session`` what peers do is left to their sessions; this
    broker's own disks are watched all the same."""

    def __init__(
        self,
        *,
        config: BrokerConfig,
        broker_id: int,
        reactor: Any,
        clock: Clock,
        random: random.Random,
        session_timeout_s: float,
        identity: Callable[[], Identity],
        controller: ControllerLoop,
        metadata: ClusterMetadata,
        logs: LogDirs,
        replicas: Replicas,
        fetchers: Fetchers,
        complain: Callable[[Word], Deferred[None]],
        log: Callable[[str], None],
    ) -> None:
        self.detection = FailureDetection(
            broker_id=broker_id,
            reactor=reactor,
            clock=clock,
            random=random,
            identity=identity,
            settings=detection_settings(config, session_timeout_s),
            office=controller,
            share_isr=metadata.share_isr,
            doubt=partial(metadata.doubt, Doubt.BROKE_OFF),
            log=log,
        )
        metadata.hold = self.detection.hold
        is_fast = config.get_str("broker.failure.detection") == "fast"
        self._stalls = StallWatch(logs, stall_s=config.get_int("log.dir.stall.ms") / 1000)
        self._silence = SilenceWatch(
            replicas.followers_heard,
            broker_epoch=metadata.live_broker_epoch,
            silent_s=unreachable_seconds(session_timeout_s),
            fetch_wait_s=config.get_int("replica.fetch.wait.max.ms") / 1000,
        )
        self._complaining = Complaining(
            reactor=reactor,
            clock=clock,
            session_timeout_s=session_timeout_s,
            unreachable=fetchers.unreachable if is_fast else lambda now: (),
            stalled=self._stalls.look,
            silent=self._silence.look if is_fast else lambda now: (),
            say=complain,
            log=log,
        )

    def start(self) -> None:
        """This broker is registered for the first time: what it suffers from can be told."""
        self._complaining.start()

    def stop(self) -> None:
        self.detection.stop()
        self._complaining.stop()

    def problems(self) -> list[str]:
        """For STATUS: what this broker suffers from now."""
        return self._complaining.problems()
