"""Keeps the controller channel pointed at whoever holds ``/controller``, at the address in ``/brokers/ids/N``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.python.failure import Failure

from zkbroker.model.cluster import REPLICATION_LISTENER
from zkbroker.zookeeper.client import Stat, ZooKeeperClient, ZooKeeperError
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import brokers as znode

LOOK_AGAIN_S = 0.5
"""Pause before a controller's address that was not found is looked for again: it may be registering."""


class Channel(Protocol):
    def controller_changed(self, controller_id: int, host: str, port: int) -> None: ...

    def controller_lost(self) -> None: ...


class ControllerLink:
    """The address comes from ZooKeeper and not from metadata, which needs the channel first."""

    def __init__(
        self, *, broker_id: int, zk: ZooKeeperClient, reactor: Any, channel: Channel, log: Callable[[str], None]
    ) -> None:
        self._broker_id = broker_id
        self._zk = zk
        self._reactor = reactor
        self._channel = channel
        self._log = log
        self._looks = 0
        """Raised with each change: the answer to an earlier look is stale."""
        self.controller_id = -1
        self._retry: Any = None
        self._complaint = ""
        """What was logged last about this controller's address: a look that fails twice a second is told once."""

    def __repr__(self) -> str:
        return f"ControllerLink(controller={self.controller_id})"

    def controller_changed(self, controller_id: int) -> None:
        """-1: nobody holds the office."""
        self.controller_id = controller_id
        self._looks += 1
        self._complaint = ""
        self._cancel_retry()
        if controller_id < 0:
            self._channel.controller_lost()
        elif controller_id == self._broker_id:
            self._channel.controller_changed(controller_id, "", 0)
        else:
            self._look(self._looks)

    def stop(self) -> None:
        self._looks += 1
        self._cancel_retry()

    def _look(self, look: int) -> None:
        if look != self._looks:
            return
        self._retry = None
        path = znode.broker_path(self.controller_id)
        self._zk.get(path).addCallbacks(
            self._found, self._unread, callbackArgs=(look, path), errbackArgs=(look,)
        ).addErrback(self._failed)

    def _found(self, got: tuple[bytes, Stat], look: int, path: str) -> None:
        if look != self._looks:
            return
        data, stat = got
        try:
            endpoint = znode.decode(path, data, stat.czxid).endpoint(REPLICATION_LISTENER)
        except ZnodeError as error:
            self._look_later(str(error), look)
            return
        if endpoint is None:
            self._look_later(f"{path}: it has no REPLICATION listener", look)
        else:
            self._channel.controller_changed(self.controller_id, endpoint.host, endpoint.port)

    def _unread(self, failure: Failure, look: int) -> None:
        failure.trap(ZooKeeperError)
        if look == self._looks:
            self._look_later(failure.getErrorMessage(), look)

    def _look_later(self, why: str, look: int) -> None:
        if why != self._complaint:
            self._complaint = why
            self._log(f"address of controller {self.controller_id} not found yet: {why}")
        self._retry = self._reactor.callLater(LOOK_AGAIN_S, self._look, look)

    def _failed(self, failure: Failure) -> None:
        self._log(f"the way to controller {self.controller_id} could not be taken: {failure.getTraceback()}")

    def _cancel_retry(self) -> None:
        retry, self._retry = self._retry, None
        if retry is not None and retry.active():
            retry.cancel()
