import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The producer, the consumer and members of groups, as tests/interop/adapters_java.py asks for them. */
class InteropClients {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Map<String, Member> MEMBERS = new ConcurrentHashMap<>();

    static ObjectNode serve(JsonNode request, ObjectNode answer) throws Exception {
        switch (request.get("op").asText()) {
            case "produce": return produce(request, answer);
            case "read": return read(request, answer);
            case "join":
                MEMBERS.put(request.get("member").asText(), new Member(request));
                return answer;
            case "member": return MEMBERS.get(request.get("member").asText()).show(answer);
            case "leave":
                Member member = MEMBERS.remove(request.get("member").asText());
                member.leave();
                return member.show(answer);
            default: return InteropAdmin.serve(request, answer);
        }
    }

    static Properties properties(JsonNode request) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", request.get("bootstrap").asText());
        request.path("config").fields().forEachRemaining(e -> properties.put(e.getKey(), e.getValue().asText()));
        return properties;
    }

    private static byte[] bytes(JsonNode node) throws Exception {
        return node.isNull() ? null : node.binaryValue();
    }

    private static ObjectNode produce(JsonNode request, ObjectNode answer) throws Exception {
        ByteArraySerializer plain = new ByteArraySerializer();
        ArrayNode offsets = answer.putArray("offsets");
        try (Producer<byte[], byte[]> producer = new KafkaProducer<>(properties(request), plain, plain)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode one : request.get("records")) {
                JsonNode time = one.get("timestamp");
                ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(
                    request.get("topic").asText(), request.get("partition").asInt(),
                    time.isNull() ? null : time.asLong(), bytes(one.get("key")), bytes(one.get("value")));
                for (JsonNode header : one.get("headers")) {
                    record.headers().add(header.get(0).asText(), bytes(header.get(1)));
                }
                sent.add(producer.send(record));
            }
            producer.flush();
            for (Future<RecordMetadata> future : sent) offsets.add(future.get().offset());
        }
        return answer;
    }

    private static Consumer<byte[], byte[]> consumer(JsonNode request) {
        ByteArrayDeserializer plain = new ByteArrayDeserializer();
        return new KafkaConsumer<>(properties(request), plain, plain);
    }

    private static ObjectNode read(JsonNode request, ObjectNode answer) throws Exception {
        TopicPartition partition =
            new TopicPartition(request.get("topic").asText(), request.get("partition").asInt());
        try (Consumer<byte[], byte[]> consumer = consumer(request)) {
            consumer.assign(List.of(partition));
            String start = request.get("start").asText();
            if (start.equals("beginning")) {
                consumer.seekToBeginning(List.of(partition));
            } else if (start.equals("time")) {
                OffsetAndTimestamp found =
                    consumer.offsetsForTimes(Map.of(partition, request.get("time").asLong())).get(partition);
                consumer.seek(partition, found.offset());
            } else {
                consumer.seek(partition, request.get("start").asLong());
            }
            ArrayNode records = answer.putArray("records");
            long deadline = System.nanoTime() + 60_000_000_000L;
            while (records.size() < request.get("count").asInt() && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> one : consumer.poll(Duration.ofMillis(200))) add(records, one);
            }
            answer.put("begin", consumer.beginningOffsets(List.of(partition)).get(partition));
            answer.put("end", consumer.endOffsets(List.of(partition)).get(partition));
        }
        return answer;
    }

    private static void add(ArrayNode records, ConsumerRecord<byte[], byte[]> one) {
        ObjectNode row = records.addObject();
        row.put("partition", one.partition());
        row.put("offset", one.offset());
        row.put("timestamp", one.timestamp());
        row.put("key", one.key());
        row.put("value", one.value());
        ArrayNode headers = row.putArray("headers");
        for (Header header : one.headers()) {
            ArrayNode pair = headers.addArray();
            pair.add(header.key());
            pair.add(header.value());
        }
    }

    /** One consumer of a group, polled by a thread of its own. */
    private static final class Member implements Runnable, ConsumerRebalanceListener {
        private final Consumer<byte[], byte[]> consumer;
        private final ArrayNode records = JSON.createArrayNode();
        private final Thread thread = new Thread(this);
        private volatile boolean isLeaving;
        private Collection<TopicPartition> assigned = List.of();
        private int revokedCount;
        private String failure;

        Member(JsonNode request) {
            consumer = consumer(request);
            consumer.subscribe(List.of(request.get("topic").asText()), this);
            thread.setDaemon(true);
            thread.start();
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}

        @Override
        public synchronized void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            revokedCount += partitions.size();
        }

        @Override
        public void run() {
            try {
                while (!isLeaving) {
                    for (ConsumerRecord<byte[], byte[]> one : consumer.poll(Duration.ofMillis(100))) {
                        synchronized (this) {
                            add(records, one);
                        }
                    }
                    synchronized (this) {
                        assigned = List.copyOf(consumer.assignment());
                    }
                }
                consumer.commitSync();
            } catch (Exception error) {
                synchronized (this) {
                    failure = error.toString();
                }
            } finally {
                consumer.close();
            }
        }

        void leave() throws InterruptedException {
            isLeaving = true;
            thread.join();
        }

        synchronized ObjectNode show(ObjectNode answer) {
            ArrayNode partitions = answer.putArray("assigned");
            assigned.forEach(one -> partitions.add(one.partition()));
            answer.set("records", records.deepCopy());
            answer.put("revoked", revokedCount);
            if (failure != null) answer.put("failure", failure);
            return answer;
        }
    }
}
