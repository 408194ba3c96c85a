import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.zip.CRC32;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.BytesDeserializer;
import org.apache.kafka.common.serialization.BytesSerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * A peer: Kafka Streams doing the light job of light_job.py, on one thread, with the row that is described there.
 *
 * <p>java LightJob BROKERS APPLICATION_ID STATE_DIR GUARANTEE PROFILES SOURCE...
 *
 * <p>The row is in a RocksDB store with changelog, behind Kafka Streams' record cache: it is written once a commit
 * however often it changed. Profiles of changed users go out once a second. Buffers, batches and fetches are larger
 * than the defaults, as its tuning guide advises for throughput.
 */
public final class LightJob {
  static final int DIM = 64;
  static final int TAGS = 16;
  static final int TAG = 4 * DIM;
  static final int WEIGHT = TAG + 4 * TAGS;
  static final int TS = WEIGHT + 4 * TAGS;
  static final int EVENTS = TS + 8;
  static final int ROW = EVENTS + 8;
  static final float RATE = 0.05f;
  static final float REGULARISATION = 0.01f;
  static final double HALF_LIFE_MS = 30 * 86_400_000d;
  static final Duration COMMIT = Duration.ofSeconds(1);
  static final Duration PROFILE = Duration.ofSeconds(1);
  static final AtomicBoolean BEGUN = new AtomicBoolean();

  public static void main(String[] args) throws InterruptedException {
    KafkaStreams streams = new KafkaStreams(topology(args[4], List.of(args).subList(5, args.length)), config(args));
    CountDownLatch ended = new CountDownLatch(1);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          ended.countDown();
          return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse
              .SHUTDOWN_CLIENT;
        });
    streams.start();
    ended.await();
    Runtime.getRuntime().halt(1);
  }

  static Properties config(String[] args) {
    Properties config = new Properties();
    config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
    config.put(StreamsConfig.APPLICATION_ID_CONFIG, args[1]);
    config.put(StreamsConfig.STATE_DIR_CONFIG, args[2]);
    config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, args[3]);
    config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, COMMIT.toMillis());
    config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 512L << 20);
    config.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 5000);
    config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5000);
    config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.FETCH_MIN_BYTES_CONFIG), 1 << 16);
    config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG), 100);
    config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    config.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 100);
    config.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 1 << 18);
    config.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 128L << 20);
    return config;
  }

  static Topology topology(String profiles, List<String> sources) {
    return new Topology()
        .addSource("events", new BytesDeserializer(), new ByteArrayDeserializer(), sources.toArray(new String[0]))
        .addProcessor("job", Job::new, "events")
        .addStateStore(
            Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("users"), Serdes.Bytes(), Serdes.ByteArray())
                .withCachingEnabled()
                .withLoggingEnabled(Map.of()),
            "job")
        .addSink("profiles", profiles, new BytesSerializer(), new ByteArraySerializer(), "job");
  }

  /** What the job needs of an item: a fixed vector of length 1 and a tag, one of a hundred. */
  record Item(float[] vector, int tag) {
    static Item of(String id) {
      Random random = new Random(crc(id));
      float[] vector = new float[DIM];
      double square = 0;
      for (int i = 0; i < DIM; i++) {
        vector[i] = (float) random.nextGaussian();
        square += vector[i] * vector[i];
      }
      for (int i = 0; i < DIM; i++) {
        vector[i] /= (float) Math.sqrt(square);
      }
      String number = id.substring(id.lastIndexOf('-') + 1);
      return new Item(vector, (int) crc(number.substring(Math.max(number.length() - 2, 0))));
    }

    static long crc(String text) {
      CRC32 crc = new CRC32();
      crc.update(text.getBytes(StandardCharsets.UTF_8));
      return crc.getValue();
    }
  }

  static final class Job implements Processor<Bytes, byte[], Bytes, byte[]> {
    private final JsonFactory json = new JsonFactory();
    private final Map<String, Item> items = new HashMap<>();
    private final Set<Bytes> changed = new HashSet<>();
    private KeyValueStore<Bytes, byte[]> store;
    private ProcessorContext<Bytes, byte[]> context;

    @Override
    public void init(ProcessorContext<Bytes, byte[]> context) {
      this.context = context;
      store = context.getStateStore("users");
      context.schedule(PROFILE, PunctuationType.WALL_CLOCK_TIME, this::publish);
    }

    @Override
    public void process(Record<Bytes, byte[]> event) {
      if (BEGUN.compareAndSet(false, true)) {
        System.out.println("first event");
      }
      byte[] old = store.get(event.key());
      byte[] row = old == null ? new byte[ROW] : old.clone();
      learn(ByteBuffer.wrap(row).order(ByteOrder.LITTLE_ENDIAN), event.value());
      store.put(event.key(), row);
      changed.add(event.key());
    }

    private void learn(ByteBuffer row, byte[] value) {
      String itemId = null;
      long ts = 0;
      try (JsonParser parser = json.createParser(value)) {
        parser.nextToken();
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
          String name = parser.currentName();
          parser.nextToken();
          if (name.equals("item_id")) {
            itemId = parser.getText();
          } else if (name.equals("ts")) {
            ts = parser.getLongValue();
          }
        }
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
      Item item = items.computeIfAbsent(itemId, Item::of);
      step(row, item.vector);
      touch(row, item.tag, ts);
    }

    private static void step(ByteBuffer row, float[] item) {
      float error = 1;
      for (int i = 0; i < DIM; i++) {
        error -= row.getFloat(4 * i) * item[i];
      }
      for (int i = 0; i < DIM; i++) {
        float user = row.getFloat(4 * i);
        row.putFloat(4 * i, user + RATE * (error * item[i] - REGULARISATION * user));
      }
    }

    private static void touch(ByteBuffer row, int tag, long ts) {
      long newest = row.getLong(TS);
      float fade = (float) Math.pow(2, -Math.max(ts - newest, 0) / HALF_LIFE_MS);
      int place = -1;
      int weakest = 0;
      for (int i = 0; i < TAGS; i++) {
        row.putFloat(WEIGHT + 4 * i, row.getFloat(WEIGHT + 4 * i) * fade);
        if (row.getInt(TAG + 4 * i) == tag) {
          place = i;
        }
        if (row.getFloat(WEIGHT + 4 * i) < row.getFloat(WEIGHT + 4 * weakest)) {
          weakest = i;
        }
      }
      float before = place < 0 ? 0 : row.getFloat(WEIGHT + 4 * place);
      place = place < 0 ? weakest : place;
      row.putInt(TAG + 4 * place, tag).putFloat(WEIGHT + 4 * place, before + 1);
      row.putLong(TS, Math.max(ts, newest)).putLong(EVENTS, row.getLong(EVENTS) + 1);
    }

    private void publish(long now) {
      for (Bytes key : changed) {
        context.forward(new Record<>(key, profile(key, store.get(key)), now));
      }
      changed.clear();
    }

    private static byte[] profile(Bytes key, byte[] raw) {
      ByteBuffer row = ByteBuffer.wrap(raw).order(ByteOrder.LITTLE_ENDIAN);
      StringBuilder out = new StringBuilder(1024).append("{\"user_id\":\"");
      out.append(new String(key.get(), StandardCharsets.UTF_8)).append("\",\"events\":").append(row.getLong(EVENTS));
      out.append(",\"tags\":{");
      String comma = "";
      for (int i = 0; i < TAGS; i++) {
        if (row.getInt(TAG + 4 * i) != 0) {
          out.append(comma).append('"').append(Integer.toUnsignedString(row.getInt(TAG + 4 * i))).append("\":");
          out.append(row.getFloat(WEIGHT + 4 * i));
          comma = ",";
        }
      }
      byte[] vector = Base64.getEncoder().encode(ByteBuffer.wrap(raw, 0, TAG).slice()).array();
      out.append("},\"vector\":\"").append(new String(vector, StandardCharsets.ISO_8859_1)).append("\"}");
      return out.toString().getBytes(StandardCharsets.UTF_8);
    }
  }
}
