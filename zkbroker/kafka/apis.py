"""The dispatch table: which file serves which API key."""

from __future__ import annotations

from zkbroker.kafka import (
    active_producers,
    alter_configs,
    api_versions,
    client_quotas,
    cluster,
    configs,
    coordinators,
    delete_records,
    fetch_serving,
    group_admin,
    group_members,
    group_offsets,
    log_dirs,
    metadata,
    offsets,
    produce,
    producer_ids,
    scram_users,
)
from zkbroker.kafka import reassignments as reassignments_apis
from zkbroker.kafka import topics as topics_apis
from zkbroker.kafka.messages import preload
from zkbroker.kafka.request import Api
from zkbroker.kafka.versions import (
    ALTER_CONFIGS,
    ALTER_PARTITION_REASSIGNMENTS,
    API_VERSIONS,
    CREATE_PARTITIONS,
    CREATE_TOPICS,
    DELETE_GROUPS,
    DELETE_RECORDS,
    DELETE_TOPICS,
    DESCRIBE_CLIENT_QUOTAS,
    DESCRIBE_CLUSTER,
    DESCRIBE_CONFIGS,
    DESCRIBE_GROUPS,
    DESCRIBE_LOG_DIRS,
    DESCRIBE_PRODUCERS,
    DESCRIBE_USER_SCRAM_CREDENTIALS,
    ELECT_LEADERS,
    FETCH,
    FIND_COORDINATOR,
    HEARTBEAT,
    INCREMENTAL_ALTER_CONFIGS,
    INIT_PRODUCER_ID,
    JOIN_GROUP,
    LEAVE_GROUP,
    LIST_GROUPS,
    LIST_OFFSETS,
    LIST_PARTITION_REASSIGNMENTS,
    METADATA,
    OFFSET_COMMIT,
    OFFSET_DELETE,
    OFFSET_FETCH,
    OFFSET_FOR_LEADER_EPOCH,
    PRODUCE,
    SYNC_GROUP,
)

APIS: dict[int, Api] = {
    PRODUCE: produce.API,
    FETCH: fetch_serving.API,
    LIST_OFFSETS: offsets.LIST_OFFSETS_API,
    METADATA: metadata.API,
    OFFSET_COMMIT: group_offsets.OFFSET_COMMIT_API,
    OFFSET_FETCH: group_offsets.OFFSET_FETCH_API,
    FIND_COORDINATOR: coordinators.API,
    JOIN_GROUP: group_members.JOIN_GROUP_API,
    HEARTBEAT: group_members.HEARTBEAT_API,
    LEAVE_GROUP: group_members.LEAVE_GROUP_API,
    SYNC_GROUP: group_members.SYNC_GROUP_API,
    DESCRIBE_GROUPS: group_admin.DESCRIBE_GROUPS_API,
    LIST_GROUPS: group_admin.LIST_GROUPS_API,
    API_VERSIONS: api_versions.API,
    CREATE_TOPICS: topics_apis.CREATE_TOPICS_API,
    DELETE_TOPICS: topics_apis.DELETE_TOPICS_API,
    DELETE_RECORDS: delete_records.API,
    INIT_PRODUCER_ID: producer_ids.API,
    OFFSET_FOR_LEADER_EPOCH: offsets.OFFSET_FOR_LEADER_EPOCH_API,
    DESCRIBE_CONFIGS: configs.API,
    ALTER_CONFIGS: alter_configs.ALTER_CONFIGS_API,
    DESCRIBE_LOG_DIRS: log_dirs.API,
    CREATE_PARTITIONS: topics_apis.CREATE_PARTITIONS_API,
    DELETE_GROUPS: group_admin.DELETE_GROUPS_API,
    ELECT_LEADERS: reassignments_apis.ELECT_LEADERS_API,
    ALTER_PARTITION_REASSIGNMENTS: reassignments_apis.ALTER_PARTITION_REASSIGNMENTS_API,
    LIST_PARTITION_REASSIGNMENTS: reassignments_apis.LIST_PARTITION_REASSIGNMENTS_API,
    INCREMENTAL_ALTER_CONFIGS: alter_configs.INCREMENTAL_ALTER_CONFIGS_API,
    OFFSET_DELETE: group_offsets.OFFSET_DELETE_API,
    DESCRIBE_CLIENT_QUOTAS: client_quotas.API,
    DESCRIBE_USER_SCRAM_CREDENTIALS: scram_users.API,
    DESCRIBE_CLUSTER: cluster.API,
    DESCRIBE_PRODUCERS: active_producers.API,
}

_HOT_VERSIONS: dict[int, tuple[int, ...]] = {
    LIST_OFFSETS: (7, 8, 9),
    INIT_PRODUCER_ID: (4, 5),
    FIND_COORDINATOR: (1, 2, 6),
    JOIN_GROUP: (5, 7, 9),
    SYNC_GROUP: (3, 5),
    HEARTBEAT: (1, 3, 4),
    LEAVE_GROUP: (1, 5),
    OFFSET_COMMIT: (3, 8, 9),
    OFFSET_FETCH: (3, 7, 8, 9),
}
"""What today's clients use. When a broker becomes the coordinator of another's groups, their members all come at once:
then is no time to import schemas, which takes the reactor 5 ms for each version."""


def preload_hot() -> None:
    """Import the schemas that clients ask for first after Metadata. It takes 0.3 s of CPU, much of it kio's own import:
    call it after serving began, best in a pool thread (it touches nothing but imports and this module's tables)."""
    for key, versions in _HOT_VERSIONS.items():
        for version in versions:
            preload(key, range(version, version + 1))
