"""Which APIs and versions this broker speaks: one table, read by ApiVersions, the dispatch and the tests.

``minimum`` is what is advertised. Produce and Fetch are advertised from 0 because librdkafka before 2.11.1 looks for
exact old versions before it uses a feature (compression wants Produce 0: KAFKA-18659); below ``lowest`` a request is
understood but answered UNSUPPORTED_VERSION for each partition, as Kafka does when it may not convert formats.
"""

from __future__ import annotations

from typing import NamedTuple


class ApiRange(NamedTuple):
    """One API: its key, its name in kio, the versions advertised, the lowest one served, and the first flexible one
    (KIP-482)."""

    key: int
    name: str
    minimum: int
    maximum: int
    flexible_from: int
    lowest: int = 0


PRODUCE = 0
FETCH = 1
LIST_OFFSETS = 2
METADATA = 3
OFFSET_COMMIT = 8
OFFSET_FETCH = 9
FIND_COORDINATOR = 10
JOIN_GROUP = 11
HEARTBEAT = 12
LEAVE_GROUP = 13
SYNC_GROUP = 14
DESCRIBE_GROUPS = 15
LIST_GROUPS = 16
API_VERSIONS = 18
CREATE_TOPICS = 19
DELETE_TOPICS = 20
DELETE_RECORDS = 21
INIT_PRODUCER_ID = 22
OFFSET_FOR_LEADER_EPOCH = 23
DESCRIBE_CONFIGS = 32
ALTER_CONFIGS = 33
DESCRIBE_LOG_DIRS = 35
CREATE_PARTITIONS = 37
ELECT_LEADERS = 43
ALTER_PARTITION_REASSIGNMENTS = 45
LIST_PARTITION_REASSIGNMENTS = 46
DELETE_GROUPS = 42
INCREMENTAL_ALTER_CONFIGS = 44
OFFSET_DELETE = 47
DESCRIBE_CLIENT_QUOTAS = 48
DESCRIBE_USER_SCRAM_CREDENTIALS = 50
DESCRIBE_CLUSTER = 60
DESCRIBE_PRODUCERS = 61

RANGES: tuple[ApiRange, ...] = (
    ApiRange(PRODUCE, "produce", 0, 11, 9, lowest=3),
    ApiRange(FETCH, "fetch", 0, 17, 12, lowest=4),
    ApiRange(LIST_OFFSETS, "list_offsets", 1, 9, 6, lowest=1),
    ApiRange(METADATA, "metadata", 0, 12, 9),
    ApiRange(OFFSET_COMMIT, "offset_commit", 1, 9, 8, lowest=1),
    ApiRange(OFFSET_FETCH, "offset_fetch", 1, 9, 6, lowest=1),
    ApiRange(FIND_COORDINATOR, "find_coordinator", 0, 6, 3),
    ApiRange(JOIN_GROUP, "join_group", 0, 9, 6),
    ApiRange(HEARTBEAT, "heartbeat", 0, 4, 4),
    ApiRange(LEAVE_GROUP, "leave_group", 0, 5, 4),
    ApiRange(SYNC_GROUP, "sync_group", 0, 5, 4),
    ApiRange(DESCRIBE_GROUPS, "describe_groups", 0, 5, 5),
    ApiRange(LIST_GROUPS, "list_groups", 0, 5, 3),
    ApiRange(API_VERSIONS, "api_versions", 0, 4, 3),
    ApiRange(CREATE_TOPICS, "create_topics", 2, 7, 5, lowest=2),
    ApiRange(DELETE_TOPICS, "delete_topics", 1, 6, 4, lowest=1),
    ApiRange(DELETE_RECORDS, "delete_records", 0, 2, 2),
    ApiRange(INIT_PRODUCER_ID, "init_producer_id", 0, 5, 2),
    ApiRange(OFFSET_FOR_LEADER_EPOCH, "offset_for_leader_epoch", 2, 4, 4, lowest=2),
    ApiRange(DESCRIBE_CONFIGS, "describe_configs", 1, 4, 4, lowest=1),
    ApiRange(ALTER_CONFIGS, "alter_configs", 0, 2, 2),
    ApiRange(DESCRIBE_LOG_DIRS, "describe_log_dirs", 1, 4, 2, lowest=1),
    ApiRange(CREATE_PARTITIONS, "create_partitions", 0, 3, 2),
    ApiRange(DELETE_GROUPS, "delete_groups", 0, 2, 2),
    ApiRange(ELECT_LEADERS, "elect_leaders", 0, 2, 2),
    ApiRange(ALTER_PARTITION_REASSIGNMENTS, "alter_partition_reassignments", 0, 0, 0),
    ApiRange(LIST_PARTITION_REASSIGNMENTS, "list_partition_reassignments", 0, 0, 0),
    ApiRange(INCREMENTAL_ALTER_CONFIGS, "incremental_alter_configs", 0, 1, 1),
    ApiRange(OFFSET_DELETE, "offset_delete", 0, 0, 1),
    ApiRange(DESCRIBE_CLIENT_QUOTAS, "describe_client_quotas", 0, 1, 1),
    ApiRange(DESCRIBE_USER_SCRAM_CREDENTIALS, "describe_user_scram_credentials", 0, 0, 0),
    ApiRange(DESCRIBE_CLUSTER, "describe_cluster", 0, 1, 0),
    ApiRange(DESCRIBE_PRODUCERS, "describe_producers", 0, 0, 0),
)

BY_KEY: dict[int, ApiRange] = {api.key: api for api in RANGES}
