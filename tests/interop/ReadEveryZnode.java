import kafka.zk.KafkaZkClient;
import kafka.zk.KafkaZkClient$;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.utils.Time;
import org.apache.zookeeper.client.ZKClientConfig;
import scala.jdk.javaapi.CollectionConverters;

/** Reads what brokers wrote to ZooKeeper with Kafka's own KafkaZkClient; prints one line for each thing. */
public class ReadEveryZnode {
    public static void main(String[] arguments) throws Exception {
        ZKClientConfig config = new ZKClientConfig();
        try (KafkaZkClient client = KafkaZkClient$.MODULE$.apply(
                arguments[0], false, 10000, 10000, 10, Time.SYSTEM, "test", config, "test", "test", false, true)) {
            System.out.println("cluster " + client.getClusterId().get());
            System.out.println("controller " + client.getControllerId().get());
            System.out.println("controller-epoch " + client.getControllerEpoch().get()._1());
            for (var broker : CollectionConverters.asJava(client.getAllBrokersInCluster())) {
                System.out.println("broker " + broker.id() + " " + broker.endPoints().mkString(","));
            }
            for (var entry : CollectionConverters.asJava(client.getAllBrokerAndEpochsInCluster()).entrySet()) {
                System.out.println("broker-epoch " + entry.getKey().id() + " " + entry.getValue());
            }
            var topics = client.getAllTopicsInCluster(false);
            for (var topic : CollectionConverters.asJava(client.getReplicaAssignmentAndTopicIdForTopics(topics.toSet()))) {
                System.out.println("topic " + topic.topic() + " " + topic.topicId().get());
                for (var entry : CollectionConverters.asJava(topic.assignment()).entrySet()) {
                    TopicPartition partition = entry.getKey();
                    var state = client.getTopicPartitionState(partition).get();
                    System.out.println("state " + partition + " leader=" + state.leaderAndIsr().leader()
                        + " epoch=" + state.leaderAndIsr().leaderEpoch()
                        + " isr=" + state.leaderAndIsr().isr().mkString(",")
                        + " replicas=" + entry.getValue().replicas().mkString(",")
                        + " controller-epoch=" + state.controllerEpoch());
                }
            }
            for (String name : CollectionConverters.asJava(client.getAllEntitiesWithConfig("topics"))) {
                System.out.println("config " + name + " " + client.getEntityConfigs("topics", name));
            }
            var block = client.getDataAndVersion("/latest_producer_id_block")._1();
            if (block.isDefined()) {
                System.out.println("producer-ids "
                    + kafka.zk.ProducerIdBlockZNode.parseProducerIdBlockData(block.get()).firstProducerId());
            }
            var feature = client.getDataAndVersion("/feature")._1();
            if (feature.isDefined()) {
                System.out.println("feature " + kafka.zk.FeatureZNode.decode(feature.get()).status());
            }
        }
    }
}
