"""The writes that change who holds ``/controller``: taking the vacant office, or a dead controller's before its session
ends (architecture.md, fast failover, rule 7), and giving up one's own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks

from zkbroker.broker.controller_zookeeper import gather
from zkbroker.model.suspicion import Suspect
from zkbroker.zookeeper.client import (
    BadVersionError,
    Check,
    Create,
    Delete,
    MultiError,
    NodeExistsError,
    NoNodeError,
    SetData,
    Stat,
    ZooKeeperClient,
)
from zkbroker.zookeeper.znodes import brokers as broker_znode
from zkbroker.zookeeper.znodes import controller as controller_znode
from zkbroker.zookeeper.znodes.codec import ZnodeError


class Won(NamedTuple):
    epoch: int
    epoch_version: int
    """znode version of ``/controller_epoch``, which fences the term's writes."""


class _NotWon(NamedTuple):
    why: str


LOST = _NotWon("another was faster")
NOT_TRIED = _NotWon("it may not stand, or the suspect does not hold the office in the incarnation that is suspected")

Outcome = Won | _NotWon


@inlineCallbacks
def read_epoch(zk: ZooKeeperClient) -> Generator[Deferred[Any], Any, tuple[int, Stat]]:
    """The controller epoch and its stat; the znode is created where it is missing."""
    while True:
        try:
            data, stat = yield zk.get(controller_znode.EPOCH_PATH)
        except NoNodeError:
            initial = controller_znode.encode_epoch(controller_znode.EPOCH_INITIAL)
            try:
                yield zk.create(controller_znode.EPOCH_PATH, initial)
            except NodeExistsError:
                pass
            continue
        return controller_znode.decode_epoch(data), stat


@inlineCallbacks
def stand(zk: ZooKeeperClient, office: bytes, attempt: Callable[[int], bool]) -> Generator[Deferred[Any], Any, Outcome]:
    """Take a vacant office: ``/controller`` and the next epoch in one multi. ``attempt`` as for ``take_over``."""
    epoch, stat = yield read_epoch(zk)
    if not attempt(epoch + 1):
        return NOT_TRIED
    try:
        results = yield zk.multi(
            [
                Create(controller_znode.PATH, office, ephemeral=True),
                SetData(controller_znode.EPOCH_PATH, controller_znode.encode_epoch(epoch + 1), stat.version),
            ]
        )
    except MultiError as error:
        if not isinstance(error.error, (NodeExistsError, BadVersionError)):
            raise
        return LOST
    return Won(epoch + 1, results[1].version)


@inlineCallbacks
def take_over(
    zk: ZooKeeperClient,
    suspect: Suspect,
    office: bytes,
    attempt: Callable[[int], bool],
) -> Generator[Deferred[Any], Any, Outcome]:
    """One multi, fenced by the version of ``/controller_epoch``, which every winner raises: ``/controller`` itself is
    at version 0 whoever made it. ``attempt(epoch)`` is told the epoch before it is tried, since the outcome may stay
    unknown (ConnectionLossError), and may say no."""
    try:
        # The epoch first: whoever wins between these reads has raised it.
        found = yield gather(
            [
                read_epoch(zk),
                zk.get(controller_znode.PATH),
                zk.exists(broker_znode.broker_path(suspect.broker_id)),
            ]
        )
        (epoch, epoch_stat), (data, stat), registered = found
        holder = controller_znode.decode(data).broker_id
    except (NoNodeError, ZnodeError):
        return NOT_TRIED  # whoever watches the office has seen it, or will
    if holder != suspect.broker_id:
        return NOT_TRIED
    # Gone is as good: fenced, or its session is over, and the office is about to go with it.
    if registered is not None and (
        registered.czxid != suspect.broker_epoch or registered.ephemeral_owner != stat.ephemeral_owner
    ):
        return NOT_TRIED
    if not attempt(epoch + 1):
        return NOT_TRIED
    try:
        results = yield zk.multi(
            [
                SetData(controller_znode.EPOCH_PATH, controller_znode.encode_epoch(epoch + 1), epoch_stat.version),
                Delete(controller_znode.PATH, stat.version),
                Create(controller_znode.PATH, office, ephemeral=True),
            ]
        )
    except MultiError as error:
        if not isinstance(error.error, (NodeExistsError, NoNodeError, BadVersionError)):
            raise
        return LOST
    return Won(epoch + 1, results[0].version)


@inlineCallbacks
def delete_office(zk: ZooKeeperClient, owner: int) -> Generator[Deferred[Any], Any, None]:
    """Delete ``/controller`` if that session owns it, never one that another broker made meanwhile: each winner raises
    ``/controller_epoch``, so its version, read before, is the fence."""
    _, epoch_stat = yield read_epoch(zk)
    try:
        _, stat = yield zk.get(controller_znode.PATH)
        if stat.ephemeral_owner == owner:
            yield zk.multi([Check(controller_znode.EPOCH_PATH, epoch_stat.version), Delete(controller_znode.PATH)])
    except (NoNodeError, MultiError):
        pass
