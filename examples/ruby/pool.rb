# Pools a tensor and computes its gradient: ruby -I GENERATED pool.rb HOST:PORT
require 'grpc'
require 'google/protobuf/well_known_types' # adds Any#unpack
require 'google/rpc/error_details_pb'
require 'google/rpc/status_pb'
require 'pooling/v1/pooling_services_pb'

include Pooling::V1

# The default limit of a reply is 4 MiB; -1 removes it.
LIMITS = { 'grpc.max_receive_message_length' => -1, 'grpc.max_send_message_length' => -1 }.freeze
client = PoolingService::Stub.new(ARGV[0], :this_channel_is_insecure, channel_args: LIMITS, timeout: 10)

window = Window.new(kernel: 2)
spec = PoolSpec.new(mode: :MODE_MAX, sliding_windows: SlidingWindows.new(axes: [window, window]))
shape = [1, 1, 4, 4]
# pack and unpack with 'e' are little-endian float32, as the contract has them.
x = Tensor.new(element_type: :ELEMENT_TYPE_FLOAT32, shape: shape, data: (0..15).to_a.pack('e*'))

begin
  pooled = client.forward(ForwardRequest.new(spec: spec, input: x, return_indices: true))
  reply = client.backward(BackwardRequest.new(spec: spec, input_shape: shape,
                                              indices: pooled.indices,
                                              output_gradient: pooled.output))
rescue GRPC::BadStatus => e
  # The details name the reason and the field.
  e.to_rpc_status.details.each do |detail|
    info = detail.unpack(Google::Rpc::ErrorInfo)
    bad = detail.unpack(Google::Rpc::BadRequest)
    warn "reason: #{info.reason}" if info
    warn "field: #{bad.field_violations[0].field}" if bad
  end
  abort e.message
end

p pooled.output.data.unpack('e*')         # [5.0, 7.0, 13.0, 15.0]
p reply.input_gradient.data.unpack('e*')  # zero, except at 5, 7, 13 and 15
