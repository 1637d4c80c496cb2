import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.config.ConfigResource;

/** What an administrator asks through Java's Admin. Each operation is one method call of tests/interop/adapters.py. */
class InteropAdmin {
    static ObjectNode serve(JsonNode request, ObjectNode answer) throws Exception {
        try (Admin admin = Admin.create(InteropClients.properties(request))) {
            return serve(admin, request, answer);
        }
    }

    private static ObjectNode serve(Admin admin, JsonNode request, ObjectNode answer) throws Exception {
        String name = request.path("name").asText();
        TopicPartition partition = new TopicPartition(name, request.path("partition").asInt());
        switch (request.get("op").asText()) {
            case "create_topic": {
                Map<String, String> configs = new HashMap<>();
                request.get("configs").fields().forEachRemaining(e -> configs.put(e.getKey(), e.getValue().asText()));
                short replicas = (short) request.get("replicas").asInt();
                NewTopic topic = new NewTopic(name, request.get("partitions").asInt(), replicas).configs(configs);
                admin.createTopics(List.of(topic)).all().get();
                return answer;
            }
            case "add_partitions":
                admin.createPartitions(Map.of(name, NewPartitions.increaseTo(request.get("total").asInt())))
                    .all().get();
                return answer;
            case "delete_topic":
                admin.deleteTopics(List.of(name)).all().get();
                return answer;
            case "topics":
                return strings(answer, admin.listTopics().names().get());
            case "describe_topic": {
                TopicDescription found = admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
                answer.put("topic_id", found.topicId().toString());
                ArrayNode rows = answer.putArray("partitions");
                for (TopicPartitionInfo one : found.partitions()) {
                    ArrayNode replicas = rows.addObject().put("leader", one.leader().id()).putArray("replicas");
                    for (Node node : one.replicas()) replicas.add(node.id());
                }
                return answer;
            }
            case "topic_config": {
                ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, name);
                ObjectNode values = answer.putObject("values");
                for (ConfigEntry one : admin.describeConfigs(List.of(resource)).all().get().get(resource).entries()) {
                    values.put(one.name(), one.value());
                }
                return answer;
            }
            case "set_topic_config": {
                ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, name);
                List<AlterConfigOp> changes = new ArrayList<>();
                request.get("configs").fields().forEachRemaining(e -> changes.add(new AlterConfigOp(
                    new ConfigEntry(e.getKey(), e.getValue().asText()), AlterConfigOp.OpType.SET)));
                admin.incrementalAlterConfigs(Map.of(resource, changes)).all().get();
                return answer;
            }
            case "groups": {
                ArrayNode rows = answer.putArray("values");
                admin.listConsumerGroups().all().get().forEach(one -> rows.add(one.groupId()));
                return answer;
            }
            case "describe_group": {
                ConsumerGroupDescription found =
                    admin.describeConsumerGroups(List.of(name)).all().get().get(name);
                answer.put("state", found.state().toString());
                answer.put("members", found.members().size());
                return answer;
            }
            case "group_offsets": {
                ObjectNode values = answer.putObject("values");
                admin.listConsumerGroupOffsets(name).partitionsToOffsetAndMetadata().get()
                    .forEach((one, offset) -> values.put(Integer.toString(one.partition()), offset.offset()));
                return answer;
            }
            case "delete_group":
                admin.deleteConsumerGroups(List.of(name)).all().get();
                return answer;
            case "delete_records":
                admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(request.get("before").asLong())))
                    .all().get();
                return answer;
            case "max_timestamp_offset": {
                ListOffsetsResultInfo found =
                    admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).all().get().get(partition);
                answer.put("offset", found.offset());
                return answer;
            }
            case "cluster": {
                DescribeClusterResult found = admin.describeCluster();
                answer.put("controller", found.controller().get().id());
                ArrayNode nodes = answer.putArray("nodes");
                for (Node node : found.nodes().get()) nodes.add(node.id());
                return answer;
            }
            case "reassign": {
                List<Integer> replicas = new ArrayList<>();
                request.get("replicas").forEach(one -> replicas.add(one.asInt()));
                admin.alterPartitionReassignments(
                    Map.of(partition, Optional.of(new NewPartitionReassignment(replicas)))).all().get();
                return answer;
            }
            case "reassignments_count":
                answer.put("count", admin.listPartitionReassignments(Set.of(partition)).reassignments().get().size());
                return answer;
            case "elect_preferred":
                admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).all().get();
                return answer;
            case "log_dirs": {
                ObjectNode sizes = answer.putObject("sizes");
                List<Integer> brokers = new ArrayList<>();
                request.get("brokers").forEach(one -> brokers.add(one.asInt()));
                admin.describeLogDirs(brokers).allDescriptions().get().forEach((broker, folders) ->
                    folders.values().forEach(folder -> folder.replicaInfos().forEach((one, info) -> {
                        if (one.equals(partition)) sizes.put(Integer.toString(broker), info.size());
                    })));
                return answer;
            }
            case "producers":
                answer.put("count", admin.describeProducers(List.of(partition)).all().get().get(partition)
                    .activeProducers().size());
                return answer;
            default:
                throw new IllegalArgumentException(request.get("op").asText());
        }
    }

    private static ObjectNode strings(ObjectNode answer, Iterable<String> found) {
        ArrayNode rows = answer.putArray("values");
        found.forEach(rows::add);
        return answer;
    }
}
