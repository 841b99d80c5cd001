# Replays test vectors: reads {"method", "requests"} and prints {"Replies", "Error"}, one JSON per line.
# ruby -I GENERATED replay.rb HOST:PORT < vectors
require 'grpc'
require 'json'
require 'google/protobuf/well_known_types' # adds Any#unpack
require 'google/rpc/error_details_pb'
require 'google/rpc/status_pb'
require 'pooling/v1/pooling_services_pb'

LIMITS = { 'grpc.max_receive_message_length' => -1, 'grpc.max_send_message_length' => -1 }.freeze
client = Pooling::V1::PoolingService::Stub.new(ARGV[0], :this_channel_is_insecure, channel_args: LIMITS)

def failure_of(error)
  result = { Code: error.code }
  error.to_rpc_status.details.each do |detail|
    info = detail.unpack(Google::Rpc::ErrorInfo)
    bad = detail.unpack(Google::Rpc::BadRequest)
    result[:Reason] = info.reason if info
    result[:Field] = bad.field_violations[0].field if bad
  end
  result
end

$stdin.each_line do |line|
  vector = JSON.parse(line)
  name = vector['method']
  type = Pooling::V1.const_get("#{name}Request")
  requests = vector['requests'].map { |request| type.decode_json(request.to_json) }
  method = name.gsub(/(?<=.)([A-Z])/, '_\1').downcase # ForwardStream is forward_stream
  begin
    replies = name.end_with?('Stream') ? client.send(method, requests).to_a : [client.send(method, requests[0])]
    puts({ Replies: replies.map { |reply| JSON.parse(reply.to_json) } }.to_json)
  rescue GRPC::BadStatus => e
    puts({ Error: failure_of(e) }.to_json)
  end
end
