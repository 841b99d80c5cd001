// Replays test vectors: reads {"method", "requests"} and prints {"Replies", "Error"}, one JSON per line.
// java Replay HOST:PORT < vectors
import com.google.gson.*;
import com.google.protobuf.*;
import com.google.protobuf.util.JsonFormat;
import google.rpc.StatusOuterClass.*;
import io.grpc.*;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.io.*;
import java.util.*;
import java.util.concurrent.*;
import pooling.v1.*;

public final class Replay {
  /** Collects the replies of a stream. */
  static final class Collector<T> extends CompletableFuture<List<T>> implements StreamObserver<T> {
    private final List<T> replies = new ArrayList<>();
    @Override public void onNext(T reply) { replies.add(reply); }
    @Override public void onError(Throwable error) { completeExceptionally(error); }
    @Override public void onCompleted() { complete(replies); }
  }

  static <T extends Message.Builder> T parse(JsonElement text, T builder) throws Exception {
    JsonFormat.parser().merge(text.toString(), builder);
    return builder;
  }

  static List<? extends MessageOrBuilder> send(Channel channel, String method, JsonArray requests)
      throws Exception {
    var unary = PoolingServiceGrpc.newBlockingStub(channel);
    var stub = PoolingServiceGrpc.newStub(channel);
    switch (method) {
      case "Forward":
        return List.of(unary.forward(parse(requests.get(0), ForwardRequest.newBuilder()).build()));
      case "Backward":
        return List.of(unary.backward(parse(requests.get(0), BackwardRequest.newBuilder()).build()));
      case "ForwardStream":
        var outputs = new Collector<ForwardStreamResponse>();
        var inputs = stub.forwardStream(outputs);
        for (var item : requests) inputs.onNext(parse(item, ForwardStreamRequest.newBuilder()).build());
        inputs.onCompleted();
        return outputs.get(30, TimeUnit.SECONDS);
      default:
        var gradients = new Collector<BackwardStreamResponse>();
        var items = stub.backwardStream(gradients);
        for (var item : requests) items.onNext(parse(item, BackwardStreamRequest.newBuilder()).build());
        items.onCompleted();
        return gradients.get(30, TimeUnit.SECONDS);
    }
  }

  static JsonObject failure(StatusRuntimeException error) throws Exception {
    var result = new JsonObject();
    result.addProperty("Code", error.getStatus().getCode().value());
    for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        result.addProperty("Reason", detail.unpack(ErrorInfo.class).getReason());
      } else if (detail.is(BadRequest.class)) {
        var request = detail.unpack(BadRequest.class);
        result.addProperty("Field", request.getFieldViolations(0).getField());
      }
    }
    return result;
  }

  public static void main(String[] arguments) throws Exception {
    var channel = ManagedChannelBuilder.forTarget(arguments[0]).usePlaintext()
        .maxInboundMessageSize(256 << 20).build();
    var input = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
    for (String line; (line = input.readLine()) != null; ) {
      var vector = JsonParser.parseString(line).getAsJsonObject();
      var result = new JsonObject();
      try {
        var replies = new JsonArray();
        for (var reply : send(channel, vector.get("method").getAsString(), vector.getAsJsonArray("requests")))
          replies.add(JsonParser.parseString(JsonFormat.printer().print(reply)));
        result.add("Replies", replies);
      } catch (StatusRuntimeException error) {
        result.add("Error", failure(error));
      }
      System.out.println(result);
    }
    channel.shutdownNow();
  }
}
