import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.kafka.common.utils.AppInfoParser;
import org.apache.kafka.common.utils.Exit;

/**
 * Kafka's own tools and clients in one virtual machine, because starting one takes longer than most tools run. Reads
 * requests from stdin and answers on stdout, one JSON object a line, each request in threads of its own: what a tool
 * prints there (also from threads that it starts) is gathered in its answer, and its System.exit ends only itself.
 */
public class InteropServer {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final PrintStream ANSWERS = System.out;

    /** What belongs to one run of a tool, and is inherited by the threads that it starts. */
    private static final class Run {
        final ByteArrayOutputStream out = new ByteArrayOutputStream();
        final ByteArrayOutputStream err = new ByteArrayOutputStream();
        final List<Runnable> hooks = new ArrayList<>();
        InputStream in = new ByteArrayInputStream(new byte[0]);
        int status = -1;
    }

    private static final class ToolExit extends Error {
        ToolExit(int status) {
            super("exit " + status, null, false, false);
        }
    }

    private static final InheritableThreadLocal<Run> RUN = new InheritableThreadLocal<>();

    private static PrintStream gathered(boolean isError, PrintStream otherwise) {
        return new PrintStream(new OutputStream() {
            private OutputStream target() {
                Run run = RUN.get();
                return run == null ? otherwise : isError ? run.err : run.out;
            }

            @Override
            public void write(int one) throws IOException {
                target().write(one);
            }

            @Override
            public void write(byte[] bytes, int from, int count) throws IOException {
                target().write(bytes, from, count);
            }
        }, true);
    }

    private static ObjectNode tool(JsonNode request) throws Exception {
        Run run = new Run();
        run.in = new ByteArrayInputStream(request.path("stdin").asText("").getBytes(StandardCharsets.UTF_8));
        String[] arguments = JSON.convertValue(request.get("args"), String[].class);
        RUN.set(run);
        try {
            Class.forName(request.get("class").asText()).getMethod("main", String[].class)
                .invoke(null, (Object) arguments);
            if (run.status < 0) run.status = 0;
        } catch (InvocationTargetException failure) {
            if (!(failure.getCause() instanceof ToolExit)) {
                failure.getCause().printStackTrace(System.err);
                if (run.status < 0) run.status = 1;
            }
        } finally {
            for (Runnable hook : run.hooks) hook.run();
            RUN.remove();
        }
        ObjectNode answer = JSON.createObjectNode();
        answer.put("status", run.status);
        answer.put("out", run.out.toString(StandardCharsets.UTF_8));
        answer.put("err", run.err.toString(StandardCharsets.UTF_8));
        return answer;
    }

    private static void serve(JsonNode request) {
        ObjectNode answer;
        try {
            answer = request.get("op").asText().equals("tool")
                ? tool(request) : InteropClients.serve(request, JSON.createObjectNode());
        } catch (Throwable failure) {
            Throwable cause = failure;
            while (cause.getCause() != null) cause = cause.getCause();
            answer = JSON.createObjectNode();
            answer.put("failure", cause.toString());
        }
        answer.set("id", request.get("id"));
        synchronized (ANSWERS) {
            ANSWERS.println(answer);
            ANSWERS.flush();
        }
    }

    public static void main(String[] arguments) throws Exception {
        System.setOut(gathered(false, System.err));
        System.setErr(gathered(true, System.err));
        System.setIn(new InputStream() {
            @Override
            public int read() throws IOException {
                Run run = RUN.get();
                return run == null ? -1 : run.in.read();
            }

            @Override
            public int read(byte[] bytes, int from, int count) throws IOException {
                Run run = RUN.get();
                return run == null ? -1 : run.in.read(bytes, from, count);
            }

            @Override
            public int available() throws IOException {
                Run run = RUN.get();
                return run == null ? 0 : run.in.available();
            }
        });
        Exit.setExitProcedure((status, message) -> {
            Run run = RUN.get();
            if (run != null && run.status < 0) run.status = status;
            throw new ToolExit(status);
        });
        Exit.setShutdownHookAdder((name, hook) -> {
            Run run = RUN.get();
            if (run != null) run.hooks.add(hook);
        });
        ExecutorService threads = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task);
            thread.setDaemon(true);
            return thread;
        });
        ANSWERS.println(JSON.createObjectNode().put("version", AppInfoParser.getVersion()));
        ANSWERS.flush();
        BufferedReader requests = new BufferedReader(new InputStreamReader(new java.io.FileInputStream(
            java.io.FileDescriptor.in), StandardCharsets.UTF_8));
        for (String line; (line = requests.readLine()) != null; ) {
            JsonNode request = JSON.readTree(line);
            threads.execute(() -> serve(request));
        }
        Runtime.getRuntime().halt(0);
    }
}
