// Pools a tensor and computes its gradient: java Pool HOST:PORT
import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import google.rpc.StatusOuterClass.BadRequest; // Debian's com.google.rpc has no ErrorInfo
import google.rpc.StatusOuterClass.ErrorInfo;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import pooling.v1.*;

public final class Pool {
  /** Returns the elements as the contract has them: row-major, little-endian. */
  static ByteString data(float... values) {
    ByteBuffer buffer = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
    buffer.asFloatBuffer().put(values);
    return ByteString.copyFrom(buffer);
  }

  static float[] floats(Tensor tensor) {
    float[] values = new float[tensor.getData().size() / 4];
    ByteBuffer data = tensor.getData().asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
    data.asFloatBuffer().get(values);
    return values;
  }

  /** Prints the reason and the field that the server named. */
  static void explain(StatusRuntimeException error) throws InvalidProtocolBufferException {
    for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        System.err.println("reason: " + detail.unpack(ErrorInfo.class).getReason());
      } else if (detail.is(BadRequest.class)) {
        BadRequest request = detail.unpack(BadRequest.class);
        System.err.println("field: " + request.getFieldViolations(0).getField());
      }
    }
  }

  public static void main(String[] arguments) throws Exception {
    // The default limit of a reply is 4 MiB.
    ManagedChannel channel = ManagedChannelBuilder.forTarget(arguments[0]).usePlaintext()
        .maxInboundMessageSize(256 << 20).build();
    var client = PoolingServiceGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);

    Window window = Window.newBuilder().setKernel(2).build();
    PoolSpec spec = PoolSpec.newBuilder().setMode(Mode.MODE_MAX)
        .setSlidingWindows(SlidingWindows.newBuilder().addAxes(window).addAxes(window)).build();
    List<Long> shape = List.of(1L, 1L, 4L, 4L);
    Tensor x = Tensor.newBuilder().setElementType(ElementType.ELEMENT_TYPE_FLOAT32).addAllShape(shape)
        .setData(data(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)).build();
    try {
      ForwardResponse pooled = client.forward(
          ForwardRequest.newBuilder().setSpec(spec).setInput(x).setReturnIndices(true).build());
      BackwardResponse gradient = client.backward(
          BackwardRequest.newBuilder().setSpec(spec).addAllInputShape(shape)
              .setIndices(pooled.getIndices()).setOutputGradient(pooled.getOutput()).build());
      System.out.println(Arrays.toString(floats(pooled.getOutput()))); // [5.0, 7.0, 13.0, 15.0]
      System.out.println(Arrays.toString(floats(gradient.getInputGradient())));
    } catch (StatusRuntimeException error) {
      explain(error);
      throw error;
    } finally {
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }
}
