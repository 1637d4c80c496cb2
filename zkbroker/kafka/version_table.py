"""The reference of Kafka's protocol as it is spoken here, made from ``versions.py``.

``python -m zkbroker.kafka.version_table > conf/PROTOCOL.md`` writes it anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NamedTuple

from zkbroker.kafka import versions as v

_INTRODUCTION = """\
# Kafka's protocol, as it is spoken here

<!-- Generated from zkbroker/kafka/ by `python -m zkbroker.kafka.version_table > conf/PROTOCOL.md` -->

What a broker advertises (ApiVersions) and what a Kafka 3.9.1 broker with ZooKeeper does. Clients pick the highest
version that both know. *Flexible from*: from there on a request has compact lengths and tagged fields (KIP-482);
tagged fields that are not known are passed over. *Answered from*: below it a version is advertised because older
clients look for it before they use something else, and a request is answered UNSUPPORTED_VERSION.

A request for an API or a version that is not advertised closes the connection, as in Kafka; only ApiVersions in a
version that is too new is answered, in the form of version 0 with error 35 and its own range.
Throttle times are always 0.
"""

_NOT_SERVED = """\
## Not served

APIs of a Kafka 3.9.1 broker that are not advertised here. Clients and tools fall back or say so in one line.

| Key | API | Why |
|---:|---|---|
"""


class KafkaApi(NamedTuple):
    """An API of Kafka 3.9.1 in ZooKeeper mode, with the versions that its broker advertises."""

    key: int
    name: str
    minimum: int
    maximum: int


_BETWEEN_BROKERS = "between Kafka's brokers; zkbroker's speak the line protocol"
_SASL = "SASL listeners are refused"
_TRANSACTIONS = "there are no transactions yet"
_SECURITY = "clients do not authenticate yet"
_KIP_848 = "the group protocol of KIP-848; clients use the classic one"

WHY_NOT = {
    **dict.fromkeys((4, 5, 6, 7, 56, 57, 58, 67), _BETWEEN_BROKERS),
    **dict.fromkeys((17, 36), _SASL),
    **dict.fromkeys((24, 25, 26, 27, 28, 65, 66), _TRANSACTIONS),
    **dict.fromkeys((29, 30, 31, 38, 39, 40, 41, 50, 51), _SECURITY),
    34: "moving replicas between log folders is not offered",
    49: "there are no quotas yet",
    **dict.fromkeys((68, 69), _KIP_848),
}
"""Why an API is not served, as long as it is not."""

NOTES = {
    v.PRODUCE: "zstd from 7; errors of single records (KIP-467) from 8; the new leader in an error (KIP-951) from 10",
    v.FETCH: "fetch sessions (KIP-227) from 7; divergence by epoch from 12; topic ids from 13; only leaders serve",
    v.LIST_OFFSETS: "largest timestamp from 7, earliest local from 8, latest tiered (always none) from 9",
    v.METADATA: "topic ids from 10; asked for by id from 12; authorized operations from 8 (all of them)",
    v.DELETE_RECORDS: "waits for the followers' log start; POLICY_VIOLATION without `delete` in `cleanup.policy`",
    v.API_VERSIONS: "also before the broker is ready; no features",
    v.INIT_PRODUCER_ID: "idempotent producers; transactional ids are refused",
    v.DESCRIBE_CLIENT_QUOTAS: "the quotas that stand in ZooKeeper; nothing enforces them yet",
    v.DESCRIBE_CLUSTER: "endpoint type 1 only: there are no KRaft controllers",
}
"""What is worth knowing of an API that is served."""

KAFKA: tuple[KafkaApi, ...] = tuple(
    KafkaApi(*row)
    for row in (
        (0, "Produce", 0, 11),
        (1, "Fetch", 0, 17),
        (2, "ListOffsets", 0, 9),
        (3, "Metadata", 0, 12),
        (4, "LeaderAndIsr", 0, 7),
        (5, "StopReplica", 0, 4),
        (6, "UpdateMetadata", 0, 8),
        (7, "ControlledShutdown", 0, 3),
        (8, "OffsetCommit", 0, 9),
        (9, "OffsetFetch", 0, 9),
        (10, "FindCoordinator", 0, 6),
        (11, "JoinGroup", 0, 9),
        (12, "Heartbeat", 0, 4),
        (13, "LeaveGroup", 0, 5),
        (14, "SyncGroup", 0, 5),
        (15, "DescribeGroups", 0, 5),
        (16, "ListGroups", 0, 5),
        (17, "SaslHandshake", 0, 1),
        (18, "ApiVersions", 0, 4),
        (19, "CreateTopics", 0, 7),
        (20, "DeleteTopics", 0, 6),
        (21, "DeleteRecords", 0, 2),
        (22, "InitProducerId", 0, 5),
        (23, "OffsetForLeaderEpoch", 0, 4),
        (24, "AddPartitionsToTxn", 0, 5),
        (25, "AddOffsetsToTxn", 0, 4),
        (26, "EndTxn", 0, 4),
        (27, "WriteTxnMarkers", 0, 1),
        (28, "TxnOffsetCommit", 0, 4),
        (29, "DescribeAcls", 0, 3),
        (30, "CreateAcls", 0, 3),
        (31, "DeleteAcls", 0, 3),
        (32, "DescribeConfigs", 0, 4),
        (33, "AlterConfigs", 0, 2),
        (34, "AlterReplicaLogDirs", 0, 2),
        (35, "DescribeLogDirs", 0, 4),
        (36, "SaslAuthenticate", 0, 2),
        (37, "CreatePartitions", 0, 3),
        (38, "CreateDelegationToken", 0, 3),
        (39, "RenewDelegationToken", 0, 2),
        (40, "ExpireDelegationToken", 0, 2),
        (41, "DescribeDelegationToken", 0, 3),
        (42, "DeleteGroups", 0, 2),
        (43, "ElectLeaders", 0, 2),
        (44, "IncrementalAlterConfigs", 0, 1),
        (45, "AlterPartitionReassignments", 0, 0),
        (46, "ListPartitionReassignments", 0, 0),
        (47, "OffsetDelete", 0, 0),
        (48, "DescribeClientQuotas", 0, 1),
        (49, "AlterClientQuotas", 0, 1),
        (50, "DescribeUserScramCredentials", 0, 0),
        (51, "AlterUserScramCredentials", 0, 0),
        (56, "AlterPartition", 0, 3),
        (57, "UpdateFeatures", 0, 1),
        (58, "Envelope", 0, 0),
        (60, "DescribeCluster", 0, 1),
        (61, "DescribeProducers", 0, 0),
        (65, "DescribeTransactions", 0, 0),
        (66, "ListTransactions", 0, 1),
        (67, "AllocateProducerIds", 0, 0),
        (68, "ConsumerGroupHeartbeat", 0, 0),
        (69, "ConsumerGroupDescribe", 0, 0),
    )
)
"""As such a broker answers ApiVersions."""


def render_table() -> str:
    """The whole document."""
    kafka = {api.key: api for api in KAFKA}
    return "\n".join(
        [
            _INTRODUCTION,
            "| Key | API | Versions | Answered from | Flexible from | Kafka 3.9.1 | Notes |",
            "|---:|---|---|---:|---:|---|---|",
            *(_row(api, kafka.get(api.key)) for api in sorted(v.RANGES)),
            "",
            _NOT_SERVED + "\n".join(_missing(KAFKA)),
            "",
        ]
    )


def _row(api: v.ApiRange, kafka: KafkaApi | None) -> str:
    name = "".join(word.capitalize() for word in api.name.split("_"))
    flexible = "–" if api.flexible_from > api.maximum else str(api.flexible_from)
    theirs = "–" if kafka is None else f"{kafka.minimum}–{kafka.maximum}"
    answered_from = max(api.minimum, api.lowest)
    return (
        f"| {api.key} | {name} | {api.minimum}–{api.maximum} | {answered_from} | {flexible} | {theirs} "
        f"| {NOTES.get(api.key, '')} |"
    )


def _missing(apis: Iterable[KafkaApi]) -> list[str]:
    return [f"| {api.key} | {api.name} | {WHY_NOT.get(api.key, '')} |" for api in apis if api.key not in v.BY_KEY]


if __name__ == "__main__":
    sys.stdout.write(render_table())
