"""A log folder at the start of its broker: claimed, and every log in it loaded."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from zkbroker.log import recovery
from zkbroker.log.checkpoints import (
    CLEAN_SHUTDOWN_FILE,
    LOCK_FILE,
    META_PROPERTIES_FILE,
    MalformedFile,
    decode_clean_shutdown,
    decode_meta_properties,
    encode_meta_properties,
)
from zkbroker.log.context import LogContext
from zkbroker.log.folders import DELETE_SUFFIX, STRAY_SUFFIX, parse_folder
from zkbroker.log.log import Log
from zkbroker.log.losses import Losses
from zkbroker.log.offset_checkpoints import OffsetCheckpoints
from zkbroker.model.errors import BrokerError, StartError
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition

logger = logging.getLogger(__name__)


class FolderLoader:
    """Fills ``logs``, the high watermarks of ``checkpoints``, and ``clean_broker_epochs`` of folders that were left by
    a clean shutdown. ``set_aside(log)`` renames a log whose topic nobody can name and tells its new path;
    ``remove_soon(path)`` unlinks what was deleted before the last stop."""

    def __init__(
        self,
        *,
        context: LogContext,
        broker_id: int,
        topic_config: Callable[[str], TopicConfig],
        checkpoints: OffsetCheckpoints,
        losses: Losses,
        logs: dict[TopicPartition, Log],
        clean_broker_epochs: dict[str, int],
        set_aside: Callable[[Log], str],
        remove_soon: Callable[[str], None],
    ) -> None:
        self._context = context
        self._disk = context.disk
        self._broker_id = broker_id
        self._topic_config = topic_config
        self._checkpoints = checkpoints
        self._losses = losses
        self._logs = logs
        self._clean_broker_epochs = clean_broker_epochs
        self._set_aside = set_aside
        self._remove_soon = remove_soon
        self._locks: dict[str, Callable[[], None]] = {}

    def claim(self, folder: str, cluster_id: str) -> None:
        """Make the folder if it is missing, lock it, check whose it is. Raises StartError."""
        disk = self._disk
        try:
            if not disk.exists(folder):
                disk.make_dirs(folder)
                disk.sync_dir(os.path.dirname(folder))
            release = disk.lock(os.path.join(folder, LOCK_FILE))
            if release is None:
                raise StartError(f"log.dirs: {folder} is locked by another process")
            self._locks[folder] = release
            path = os.path.join(folder, META_PROPERTIES_FILE)
            if disk.exists(path):
                self._check_owner(folder, decode_meta_properties(disk.read_file(path)), cluster_id)
            else:
                disk.replace_file(path, encode_meta_properties(self._broker_id, cluster_id))
            self._losses.read(folder)
            self._context.cached_reads[folder] = disk.can_read_cached(folder)
        except OSError as error:
            raise StartError(f"log.dirs: cannot use {folder}: {error.strerror or error}") from None

    def _check_owner(self, folder: str, properties: Mapping[str, str], cluster_id: str) -> None:
        if properties.get("version") not in ("0", None):
            raise StartError(
                f"log.dirs: {folder} has meta.properties of version {properties['version']}: it belongs to KRaft"
            )
        found = properties.get("cluster.id")
        if found is not None and found != cluster_id:
            raise StartError(f"log.dirs: {folder} belongs to cluster {found}, this is cluster {cluster_id}")
        owner = properties.get("broker.id")
        if owner is not None and owner != str(self._broker_id):
            raise StartError(f"log.dirs: {folder} belongs to broker {owner}, broker.id is {self._broker_id}")

    def load(self, folder: str) -> None:
        """How it was left, and every log in it, recovered where it was left uncleanly. Raises StartError."""
        disk = self._disk
        try:
            clean_path = os.path.join(folder, CLEAN_SHUTDOWN_FILE)
            is_clean = disk.exists(clean_path)
            if is_clean:
                self._clean_broker_epochs[folder] = decode_clean_shutdown(disk.read_file(clean_path))
            offsets = self._checkpoints.read(folder)
            recovery_points, log_starts, high_watermarks = offsets
            self._losses.begin(folder, is_clean, offsets)
            entries = disk.list_dir(folder)
            for entry in entries:
                if not entry.is_dir and entry.name.endswith(".tmp"):
                    disk.unlink(os.path.join(folder, entry.name))
        except OSError as error:
            raise StartError(f"log.dirs: cannot read {folder}: {error.strerror or error}") from None
        for entry in entries:
            if not entry.is_dir:
                continue
            path = os.path.join(folder, entry.name)
            if entry.name.endswith(DELETE_SUFFIX):
                self._remove_soon(path)
                continue
            if entry.name.endswith(STRAY_SUFFIX):
                logger.warning("%s is a stray: its topic was unknown. Remove it by hand when it is not needed", path)
                continue
            partition = parse_folder(entry.name)
            if partition is None:
                continue
            if partition in self._logs:
                raise StartError(f"log.dirs: {partition} is in {self._logs[partition].log_dir} and in {folder}")
            log = self._load(folder, path, partition, is_clean, recovery_points, log_starts)
            if not (log.topic_id or log.durability.is_identity_durable or log.size == 0):
                self._set_unknown_aside(log)
                continue
            self._losses.log_loaded(log)
            high_watermark = high_watermarks.get(partition, log.log_start_offset)
            self._checkpoints.high_watermarks[partition] = min(
                max(high_watermark, log.log_start_offset), log.log_end_offset
            )
        self._checkpoints.loaded(folder)

    def _load(
        self,
        log_dir: str,
        path: str,
        partition: TopicPartition,
        is_clean: bool,
        recovery_points: Mapping[TopicPartition, int],
        log_starts: Mapping[TopicPartition, int],
    ) -> Log:
        log = Log(self._context, partition, "", log_dir, path, self._topic_config(partition.topic))
        try:
            loaded = recovery.load(
                log,
                is_clean=is_clean,
                recovery_point=recovery_points.get(partition, 0),
                log_start=log_starts.get(partition, 0),
            )
        except MalformedFile as error:
            raise StartError(f"log.dirs: partition.metadata in {path} is not readable: {error}") from None
        except OSError as error:
            raise StartError(f"log.dirs: cannot load {path}: {error.strerror or error}") from None
        for remark in loaded.remarks:
            logger.warning("%s: %s", partition, remark)
        log.durability.is_identity_durable = is_clean or partition in recovery_points
        log.durability.uncovered_end = log.log_end_offset
        self._logs[partition] = log
        return log

    def _set_unknown_aside(self, log: Log) -> None:
        """A loss of power soon after a log was made took its topic id, not its records. They may be those of a deleted
        topic of that name, whose removal was lost too: the present topic must not inherit them."""
        try:
            path = self._set_aside(log)
        except BrokerError as error:
            raise StartError(f"log.dirs: {error}") from None
        logger.warning("%s lost its topic id in a crash before it was on disk: its data is set aside in %s until you "
                       "remove it", log.partition, path)  # fmt: skip

    def release(self) -> None:
        """Let the folders go: another process may claim them."""
        locks, self._locks = self._locks, {}
        for release in locks.values():
            release()
