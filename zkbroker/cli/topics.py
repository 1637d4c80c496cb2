"""``zkbroker-topics``: create, list, describe, alter and delete topics; Kafka's kafka-topics.sh in flags and output."""

from __future__ import annotations

import argparse
import re
import sys
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from zkbroker.cli import _common as common
from zkbroker.cli._broker_client import Brokers
from zkbroker.cli._common import kafka_admin as admin
from zkbroker.cli._reassignment_cluster import ReassignmentCluster
from zkbroker.model.reassignments import OngoingMove
from zkbroker.model.topics import TopicPartition

PROG = "zkbroker-topics"
INTERNAL_TOPICS = ("__consumer_offsets", "__transaction_state")
FILTERS = (
    "topics_with_overrides",
    "under_replicated_partitions",
    "unavailable_partitions",
    "under_min_isr_partitions",
    "at_min_isr_partitions",
)
EXAMPLES = """\
  a topic of three partitions, each on three brokers; a write counts once two of them have it:
    zkbroker-topics --bootstrap-server localhost:9092 --create --topic orders \\
        --partitions 3 --replication-factor 3 --config min.insync.replicas=2
  who leads what, who is in sync:
    zkbroker-topics --bootstrap-server localhost:9092 --describe --topic orders
  is anything wrong anywhere? (no output is good)
    zkbroker-topics --bootstrap-server localhost:9092 --describe --under-replicated-partitions
    zkbroker-topics --bootstrap-server localhost:9092 --describe --unavailable-partitions
  choose the brokers yourself: partition 0 on 1 and 2, partition 1 on 2 and 3; the first of each leads by preference:
    zkbroker-topics --bootstrap-server localhost:9092 --create --topic placed --replica-assignment 1:2,2:3
  more partitions (never fewer; keys may map to other partitions from then on):
    zkbroker-topics --bootstrap-server localhost:9092 --alter --topic orders --partitions 6
"""


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, "Create, list, describe, alter or delete topics.", EXAMPLES)
    common.add_bootstrap(parser)
    parser.add_argument("--command-config", metavar="FILE", help="property file for the admin client")
    action = parser.add_mutually_exclusive_group(required=True)
    for name, text in (
        ("create", "create a topic"),
        ("list", "list all topics"),
        ("describe", "show partitions, leaders, replicas and in-sync replicas"),
        ("alter", "raise the number of partitions"),
        ("delete", "delete topics and their records"),
    ):
        action.add_argument(f"--{name}", dest="action", action="store_const", const=name, help=text)
    parser.add_argument("--topic", help="a topic name; except with --create a regular expression")
    parser.add_argument("--partitions", type=common.positive, metavar="N", help="number of partitions")
    parser.add_argument("--replication-factor", type=common.positive, metavar="N", help="replicas of each partition")
    parser.add_argument("--replica-assignment", metavar="B:B,B:B", help="brokers of each partition, chosen by hand")
    parser.add_argument(
        "--config", action="append", default=[], metavar="NAME=VALUE", help="a setting of the new topic"
    )
    parser.add_argument("--if-not-exists", action="store_true", help="with --create: an existing topic is no error")
    parser.add_argument("--if-exists", action="store_true", help="except --create: a missing topic is no error")
    parser.add_argument("--exclude-internal", action="store_true", help="leave out topics such as __consumer_offsets")
    parser.add_argument(
        "--topics-with-overrides", action="store_true", help="only topics with other settings than Kafka's defaults"
    )
    parser.add_argument(
        "--under-replicated-partitions", action="store_true", help="only where a replica is not in sync"
    )
    parser.add_argument("--unavailable-partitions", action="store_true", help="only where there is no live leader")
    parser.add_argument("--under-min-isr-partitions", action="store_true", help="only where acks=all is refused")
    parser.add_argument(
        "--at-min-isr-partitions", action="store_true", help="only where one more loss refuses acks=all"
    )
    parser.add_argument("--timeout-ms", type=common.positive, default=30_000, help="how long to wait for the brokers")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def _run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    client = admin.AdminClient(
        common.client_config(arguments.bootstrap_server, common.read_properties(arguments.command_config), defaults={})
    )
    command = _Command(client, arguments)
    try:
        command.run(arguments.action)
    except KafkaException as error:
        raise common.CommandError(f"Error while executing topic command : {common.kafka_error_text(error)}") from None
    return 0


def _check(arguments: argparse.Namespace) -> None:
    action = arguments.action
    if action in ("create", "alter", "delete") and not arguments.topic:
        raise common.UsageError("missing required argument --topic")
    if action == "alter" and arguments.config:
        raise common.UsageError("--config does not go with --alter: zkbroker-configs alters the settings of topics")
    if action == "alter" and not arguments.partitions:
        raise common.UsageError("missing required argument --partitions")
    if action != "create" and (arguments.config or arguments.replication_factor or arguments.if_not_exists):
        raise common.UsageError("--config, --replication-factor and --if-not-exists go with --create only")
    if arguments.replica_assignment and action not in ("create", "alter"):
        raise common.UsageError("--replica-assignment goes with --create and --alter only")
    if action == "create" and arguments.replica_assignment and (arguments.partitions or arguments.replication_factor):
        raise common.UsageError("--replica-assignment stands instead of --partitions and --replication-factor")
    if action == "create" and arguments.if_exists:
        raise common.UsageError("--if-exists does not go with --create")
    given = [name for name in FILTERS if getattr(arguments, name)]
    if given and action != "describe":
        raise common.UsageError(f"--{given[0].replace('_', '-')} goes with --describe only")
    if len(given) > 1:
        raise common.UsageError("only one filter of --describe at a time")


def parse_assignment(text: str) -> list[list[int]]:
    """``1:2,2:3`` → [[1, 2], [2, 3]]. Raises UsageError for anything but equally long lists of distinct broker ids."""
    try:
        partitions = [[int(broker) for broker in part.split(":")] for part in text.split(",")]
    except ValueError:
        raise common.UsageError(f"--replica-assignment wants broker ids as in 1:2,2:3, not {text!r}") from None
    for index, replicas in enumerate(partitions):
        if len(set(replicas)) != len(replicas):
            raise common.CommandError(
                f"Error while executing topic command : Partition replica lists may not contain duplicate entries: "
                f"{','.join(map(str, replicas))}"
            )
        if len(replicas) != len(partitions[0]):
            raise common.CommandError(
                f"Error while executing topic command : Partition {index} has different replication factor: {replicas}"
            )
    return partitions


class _Command:
    """One run of the tool: the admin client and the user's flags."""

    def __init__(self, client: Any, arguments: argparse.Namespace) -> None:
        self._admin = client
        self._arguments = arguments
        self._timeout_s = arguments.timeout_ms / 1000
        self._moving: dict[TopicPartition, OngoingMove] = {}

    def _result(self, futures: dict[Any, Future[Any]]) -> Any:
        return next(iter(futures.values())).result(self._timeout_s + 5)

    def run(self, action: str) -> None:
        actions = {
            "create": self.create,
            "list": self.list_names,
            "describe": self.describe,
            "alter": self.alter,
            "delete": self.delete,
        }
        actions[action]()

    # -- the actions

    def create(self) -> None:
        arguments = self._arguments
        name = arguments.topic
        if "." in name or "_" in name:
            print(
                "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could "
                "collide. To avoid issues it is best to use either, but not both.",
                file=sys.stderr,
            )
        config = common.key_values(arguments.config, "--config")
        if arguments.replica_assignment:
            assignment = parse_assignment(arguments.replica_assignment)
            topic = admin.NewTopic(name, num_partitions=len(assignment), replica_assignment=assignment, config=config)
        else:
            # -1: the broker's num.partitions and default.replication.factor
            topic = admin.NewTopic(name, arguments.partitions or -1, arguments.replication_factor or -1, config=config)
        try:
            self._result(self._admin.create_topics([topic], operation_timeout=self._timeout_s))
        except KafkaException as error:
            if arguments.if_not_exists and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            raise
        print(f"Created topic {name}.")

    def list_names(self) -> None:
        for name in self._matching():
            print(name)

    def delete(self) -> None:
        names = self._matching(must_exist=True)
        for future in self._admin.delete_topics(names, operation_timeout=self._timeout_s).values() if names else ():
            future.result(self._timeout_s + 5)

    def alter(self) -> None:
        names = self._matching(must_exist=True)
        arguments = self._arguments
        metadata = self._admin.list_topics(timeout=self._timeout_s)
        for name in names:
            known = len(metadata.topics[name].partitions)
            request = admin.NewPartitions(name, arguments.partitions)
            if arguments.replica_assignment:
                added = parse_assignment(arguments.replica_assignment)[known:]
                request = admin.NewPartitions(name, arguments.partitions, replica_assignment=added)
            self._result(self._admin.create_partitions([request], operation_timeout=self._timeout_s))

    def describe(self) -> None:
        arguments = self._arguments
        names = self._matching(must_exist=True)
        if not names:
            return
        futures = self._admin.describe_topics(TopicCollection(names), request_timeout=self._timeout_s)
        topics = [future.result(self._timeout_s + 5) for future in futures.values()]
        configs = self._configs(names)
        self._moving = _ongoing_moves(arguments)
        live = {node.id for node in self._admin.describe_cluster().result(self._timeout_s).nodes}
        for topic in sorted(topics, key=lambda topic: str(topic.name)):
            overrides, min_isr = configs[topic.name]
            if arguments.topics_with_overrides and not overrides:
                continue
            wants = partial(self._wants, topic.name, live=live, min_isr=min_isr)
            shown = [partition for partition in topic.partitions if wants(partition)]
            filtering = (
                arguments.under_replicated_partitions
                or arguments.unavailable_partitions
                or arguments.under_min_isr_partitions
                or arguments.at_min_isr_partitions
            )
            if not filtering:
                replicas_count = self._replicas_count(topic.name, topic.partitions[0]) if topic.partitions else 0
                print(
                    f"Topic: {topic.name}\tTopicId: {_topic_id(topic)}\tPartitionCount: {len(topic.partitions)}\t"
                    f"ReplicationFactor: {replicas_count}\tConfigs: {','.join(overrides)}"
                )
            if not arguments.topics_with_overrides:
                for partition in shown:
                    print(
                        _partition_line(
                            topic.name, partition, self._moving.get(TopicPartition(topic.name, partition.id))
                        )
                    )

    # -- what they share

    def _matching(self, must_exist: bool = False) -> list[str]:
        """Names of the topics that --topic matches, sorted. Kafka's error where one must exist and none does."""
        known = sorted(self._admin.list_topics(timeout=self._timeout_s).topics)
        if self._arguments.exclude_internal:
            known = [name for name in known if name not in INTERNAL_TOPICS]
        wanted = self._arguments.topic
        if wanted is None:
            return known
        # Kafka's tool takes a comma list as alternatives.
        try:
            pattern = re.compile(wanted.strip().replace(",", "|"))
        except re.error as error:
            raise common.UsageError(f"--topic {wanted!r} is not a regular expression: {error}") from None
        names = [name for name in known if pattern.fullmatch(name)]
        if not names and must_exist and not self._arguments.if_exists:
            raise common.CommandError(
                f"Error while executing topic command : Topic '{wanted}' does not exist as expected"
            )
        return names

    def _configs(self, names: list[str]) -> dict[str, tuple[list[str], int]]:
        """Per topic: the settings that somebody made for it or for all, as name=value; its min.insync.replicas."""
        resources = [admin.ConfigResource(admin.ConfigResource.Type.TOPIC, name) for name in names]
        found = {}
        for resource, future in self._admin.describe_configs(resources, request_timeout=self._timeout_s).items():
            entries = future.result(self._timeout_s + 5)
            made = [
                f"{entry.name}={entry.value}"
                for entry in entries.values()
                if entry.source != admin.ConfigSource.DEFAULT_CONFIG.value
            ]
            min_isr = entries.get("min.insync.replicas")
            found[resource.name] = (made, int(min_isr.value) if min_isr is not None and min_isr.value else 1)
        return found

    def _replicas_count(self, topic: str, partition: Any) -> int:
        """Without those that a reassignment adds: they are not expected to be in sync yet."""
        move = self._moving.get(TopicPartition(topic, partition.id))
        return len(partition.replicas) - (0 if move is None else len(move.adding))

    def _wants(self, topic: str, partition: Any, live: set[int], min_isr: int) -> bool:
        arguments = self._arguments
        in_sync = len(partition.isr)
        if arguments.under_replicated_partitions:
            return in_sync < self._replicas_count(topic, partition)
        if arguments.unavailable_partitions:
            return partition.leader is None or partition.leader.id not in live
        if arguments.under_min_isr_partitions:
            return in_sync < min_isr
        if arguments.at_min_isr_partitions:
            return in_sync == min_isr
        return True


def _topic_id(topic: Any) -> str:
    """The id as Kafka writes it: URL-safe base64 without padding."""
    return str(topic.topic_id).replace("+", "-").replace("/", "_").rstrip("=")


def _ongoing_moves(arguments: argparse.Namespace) -> dict[TopicPartition, OngoingMove]:
    """The reassignments under way; none where the brokers do not tell, as Kafka's tool has it."""
    try:
        with Brokers(arguments.bootstrap_server, arguments.command_config) as brokers:
            return ReassignmentCluster(brokers).ongoing(None)
    except (common.CommandError, OSError):
        return {}


def _partition_line(topic: str, partition: Any, move: OngoingMove | None) -> str:
    leader = "none" if partition.leader is None or partition.leader.id < 0 else str(partition.leader.id)
    replicas = ",".join(str(node.id) for node in partition.replicas)
    isr = ",".join(str(node.id) for node in partition.isr)
    if move is not None:
        adding, removing = (",".join(map(str, ids)) for ids in (move.adding, move.removing))
        isr += f"\tAdding Replicas: {adding}\tRemoving Replicas: {removing}"
    return (
        f"\tTopic: {topic}\tPartition: {partition.id}\tLeader: {leader}\tReplicas: {replicas}\tIsr: {isr}"
        "\tElr: N/A\tLastKnownElr: N/A"
    )


if __name__ == "__main__":
    sys.exit(main())
