"""What brokers ask of the controller, and its answers, as words and rows. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from zkbroker.model.channel import (
    AlterPartitionRequest,
    AlterPartitionResponse,
    Applied,
    IsrAnswer,
    IsrProposal,
    NewTopic,
    TopicResult,
)
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.limits import MESSAGE_TEXT_LENGTH_MAX
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.codec import (
    Message,
    body_rows,
    encode_ok,
    encode_request,
    error_code,
    integer,
    quote,
    quote_argument,
    row_partition,
    text,
)
from zkbroker.replication.deltas import decode_state, state_words


def encode_applied(correlation: int, applied: Applied) -> bytes:
    """APPLIED: a broker's receipt for one delta."""
    rows = "".join(
        f"{_named(partition)} reason={quote(reason[:MESSAGE_TEXT_LENGTH_MAX])}\n"
        for partition, reason in applied.failures
    )
    values: dict[str, str | int | None] = {"controller_epoch": applied.controller_epoch, "number": applied.number}
    return encode_request("APPLIED", correlation, values, rows.encode())


def decode_applied(message: Message) -> Applied:
    failures = [(TopicPartition(*row_partition(row)), row.values.get("reason", "")) for row in body_rows(message.body)]
    return Applied(message.integer("controller_epoch"), message.integer("number"), tuple(failures))


def encode_deleted(correlation: int, partition: TopicPartition, topic_id: str) -> bytes:
    """DELETED: the data of one replica is gone."""
    values: dict[str, str | int | None] = {
        "topic": partition.topic,
        "partition": partition.partition,
        "topic_id": topic_id,
    }
    return encode_request("DELETED", correlation, values)


def decode_deleted(message: Message) -> tuple[TopicPartition, str]:
    return TopicPartition(message.text("topic"), message.integer("partition")), message.text("topic_id")


def encode_offline(correlation: int, log_dir: str, partitions: Sequence[TopicPartition]) -> bytes:
    """OFFLINE: a log folder failed, with the replicas on it."""
    return encode_request("OFFLINE", correlation, {"dir": log_dir}, _partition_rows(partitions))


def decode_offline(message: Message) -> tuple[str, tuple[TopicPartition, ...]]:
    return message.text("dir"), decode_partition_rows(message)


def encode_remaining(correlation: int, partitions: Sequence[TopicPartition]) -> bytes:
    """The answer to SHUTDOWN: the leaderships that could not be moved."""
    return encode_ok(correlation, {"remaining": len(partitions)}, _partition_rows(partitions))


def decode_partition_rows(message: Message) -> tuple[TopicPartition, ...]:
    return tuple([TopicPartition(*row_partition(row)) for row in body_rows(message.body)])


def _partition_rows(partitions: Sequence[TopicPartition]) -> bytes:
    return "".join([f"{_named(partition)}\n" for partition in partitions]).encode()


def _named(partition: TopicPartition | IsrProposal | IsrAnswer) -> str:
    return f"{quote_argument(partition.topic)} {partition.partition}"


def encode_alter_partition(correlation: int, request: AlterPartitionRequest) -> bytes:
    """ALTER_PARTITION: ISR changes that leaders of this broker propose."""
    rows = []
    for proposal in request.proposals:
        isr = ",".join([f"{broker}:{epoch}" for broker, epoch in proposal.isr])
        rows.append(
            f"{_named(proposal)} topic_id={quote(proposal.topic_id)} proposal={proposal.proposal_id}"
            f" leader_epoch={proposal.leader_epoch} partition_epoch={proposal.partition_epoch} isr={isr}"
            f"{' recovering=1' if proposal.recovering else ''}\n"
        )
    values = {"broker": request.broker_id, "epoch": request.broker_epoch}
    return encode_request("ALTER_PARTITION", correlation, values, "".join(rows).encode())


def decode_alter_partition(message: Message) -> AlterPartitionRequest:
    proposals = []
    for row in body_rows(message.body):
        topic, partition = row_partition(row)
        values = row.values
        proposals.append(
            IsrProposal(
                topic,
                partition,
                text(values, "topic_id"),
                integer(values, "proposal"),
                integer(values, "leader_epoch"),
                integer(values, "partition_epoch"),
                _decode_members(values.get("isr", "")),
                values.get("recovering") == "1",
            )
        )
    return AlterPartitionRequest(message.integer("broker"), message.integer("epoch"), tuple(proposals))


def _decode_members(value: str) -> tuple[tuple[int, int], ...]:
    members = []
    for pair in value.split(",") if value else ():
        broker, _colon, epoch = pair.partition(":")
        try:
            members.append((int(broker), int(epoch)))
        except ValueError:
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"isr={pair[:40]} is not broker:epoch") from None
    return tuple(members)


def encode_alter_partition_answer(correlation: int, response: AlterPartitionResponse) -> bytes:
    rows = []
    for answer in response.answers:
        state = "" if answer.state is None else state_words(answer.state)
        state_id = (
            ""
            if answer.state is None or answer.state.topic_id == answer.topic_id
            else (f" state_topic_id={quote(answer.state.topic_id)}")
        )
        rows.append(
            f"{_named(answer)} topic_id={quote(answer.topic_id)} proposal={answer.proposal_id}"
            f" error={answer.error.name}{state}{state_id}\n"
        )
    return encode_ok(correlation, {"error": response.error.name}, "".join(rows).encode())


def decode_alter_partition_answer(message: Message) -> AlterPartitionResponse:
    answers = []
    for row in body_rows(message.body):
        topic, partition = row_partition(row)
        values = row.values
        topic_id = text(values, "topic_id")
        state = decode_state(values, values.get("state_topic_id", topic_id)) if "replicas" in values else None
        answers.append(IsrAnswer(topic, partition, topic_id, integer(values, "proposal"), error_code(values), state))
    return AlterPartitionResponse(error_code(message.values), tuple(answers))


def encode_create_topic(correlation: int, topic: NewTopic) -> bytes:
    """CREATE_TOPIC: automatic creation on behalf of a client."""
    rows = [f"REPLICAS {partition} {','.join(map(str, replicas))}\n" for partition, replicas in topic.assignment]
    rows.extend(f"CONFIG {quote_argument(key)} {quote_argument(value)}\n" for key, value in topic.configs)
    values: dict[str, str | int | None] = {
        "name": topic.name,
        "partitions": topic.partitions,
        "replication_factor": topic.replication_factor,
    }
    return encode_request("CREATE_TOPIC", correlation, values, "".join(rows).encode())


def decode_create_topic(message: Message) -> NewTopic:
    assignment = []
    configs = []
    for row in body_rows(message.body):
        if len(row.arguments) != 3:
            raise BrokerError(ErrorCode.INVALID_REQUEST, "a row of CREATE_TOPIC has three words")
        kind, key, value = row.arguments
        if kind == "CONFIG":
            configs.append((key, value))
        elif kind == "REPLICAS":
            try:
                assignment.append((int(key), tuple([int(broker) for broker in value.split(",")])))
            except ValueError:
                raise BrokerError(ErrorCode.INVALID_REQUEST, "REPLICAS are numbers") from None
    return NewTopic(
        message.text("name"),
        message.integer("partitions", -1),
        message.integer("replication_factor", -1),
        tuple(assignment),
        tuple(configs),
    )


def encode_topic_result(correlation: int, result: TopicResult) -> bytes:
    return encode_ok(
        correlation,
        {
            "name": result.name,
            "error": result.error.name,
            "topic_id": result.topic_id or None,
            "partitions": result.partitions,
            "replication_factor": result.replication_factor,
            "message": None if result.message is None else result.message[:MESSAGE_TEXT_LENGTH_MAX],
        },
    )


def decode_topic_result(message: Message) -> TopicResult:
    return TopicResult(
        message.text("name"),
        error_code(message.values),
        message.values.get("message"),
        message.values.get("topic_id", ""),
        message.integer("partitions", -1),
        message.integer("replication_factor", -1),
    )
