// Replays the test vectors (docs/vectors.md): pooling_vectors TARGET FILE...
#include <google/protobuf/util/json_util.h>

#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "pooling_client.h"

using nlohmann::json;
namespace v1 = pooling::v1;

namespace {

template <class Message>
Message Parse(const json& record, const json& repeat = json::object()) {
  Message message;
  const auto status = google::protobuf::util::JsonStringToMessage(record.dump(), &message);
  if (!status.ok()) throw std::runtime_error(status.ToString());
  for (const auto& [field, times] : repeat.items()) {
    const auto* descriptor = message.GetDescriptor()->FindFieldByName(field);
    auto* tensor = static_cast<v1::Tensor*>(
        message.GetReflection()->MutableMessage(&message, descriptor));
    const std::string once = tensor->data();
    for (int done = 1; done < times.template get<int>(); ++done) tensor->mutable_data()->append(once);
  }
  return message;
}

pooling::TensorView ViewOf(const v1::Tensor& tensor) {
  return {tensor.element_type(), {tensor.shape().begin(), tensor.shape().end()},
          tensor.data().data(), tensor.data().size()};
}

std::string Hex(const std::string& data) {
  static const char* digits = "0123456789abcdef";
  std::string hex;
  for (unsigned char byte : data) hex.append({digits[byte >> 4], digits[byte & 15]});
  return hex;
}

json Record(const v1::ElementType type, const std::vector<std::int64_t>& shape,
            const std::string& data) {
  return {{"elementType", v1::ElementType_Name(type)}, {"shape", shape}, {"hex", Hex(data)}};
}
json Record(const pooling::Tensor& tensor) { return Record(tensor.type, tensor.shape, tensor.data); }
json Record(const v1::Tensor& tensor) {
  return Record(tensor.element_type(), {tensor.shape().begin(), tensor.shape().end()},
                tensor.data());
}

// Writes out the data of the tensors of a reply in full.
void WriteOut(json& reply) {
  for (auto& [name, tensor] : reply.items()) {
    if (name == "more") {
      for (auto& layer : tensor) WriteOut(layer);
      continue;
    }
    std::string hex;
    for (int done = 0; done < tensor.value("times", 1); ++done) hex += tensor["hex"];
    tensor.erase("times");
    tensor["hex"] = hex;
  }
}

// Returns {"reply": ...} or {"error": ...} of a vector, with the data written out in full.
json Expected(json vector) {
  if (vector.contains("error")) return {{"error", vector["error"]}};
  WriteOut(vector["reply"]);
  return {{"reply", vector["reply"]}};
}

std::string CodeName(int code) {  // only those that the vectors contain
  if (code == grpc::StatusCode::INVALID_ARGUMENT) return "INVALID_ARGUMENT";
  if (code == grpc::StatusCode::UNIMPLEMENTED) return "UNIMPLEMENTED";
  return std::to_string(code);
}
json Error(int code, const std::string& reason, const std::string& field) {
  return {{"error", {{"code", CodeName(code)}, {"reason", reason}, {"field", field}}}};
}

template <class Reply>
json ReplyOf(const Reply& reply) {
  json record = {{"output", Record(reply.output())}};
  if (reply.has_indices()) record["indices"] = Record(reply.indices());
  return record;
}
json ReplyOf(const v1::BackwardResponse& reply) {
  return {{"inputGradient", Record(reply.input_gradient())}};
}

// Sends a request of several layers, which the client does not offer, through its stub.
json ForwardAll(pooling::Client& client, const v1::ForwardRequest& request) {
  grpc::ClientContext context;
  v1::ForwardResponse response;
  const auto status = pooling::StatusOf(client.stub().Forward(&context, request, &response));
  if (!status.ok()) return Error(status.code, status.reason, status.field);
  json reply = ReplyOf(response);
  for (const auto& layer : response.more()) reply["more"].push_back(ReplyOf(layer));
  return {{"reply", reply}};
}

json Forward(pooling::Client& client, const json& vector) {
  const auto request = Parse<v1::ForwardRequest>(vector["request"], vector.value("repeat", json::object()));
  if (request.more_size() > 0) return ForwardAll(client, request);
  pooling::Tensor output, indices;
  const auto status =
      client.Forward(request.spec(), ViewOf(request.input()), &output,
                     {request.return_indices(), request.index_format()}, &indices);
  if (!status.ok()) return Error(status.code, status.reason, status.field);
  json reply = {{"output", Record(output)}};
  if (request.return_indices()) reply["indices"] = Record(indices);
  return {{"reply", reply}};
}

json Backward(pooling::Client& client, const json& vector) {
  const auto request = Parse<v1::BackwardRequest>(vector["request"]);
  const auto indices = ViewOf(request.indices()), input = ViewOf(request.input());
  pooling::BackwardOptions options;
  options.input_shape.assign(request.input_shape().begin(), request.input_shape().end());
  options.index_format = request.index_format();
  if (request.has_indices()) options.indices = &indices;
  if (request.has_input()) options.input = &input;
  pooling::Tensor gradient;
  const auto status =
      client.Backward(request.spec(), ViewOf(request.output_gradient()), options, &gradient);
  if (!status.ok()) return Error(status.code, status.reason, status.field);
  return {{"reply", {{"inputGradient", Record(gradient)}}}};
}

template <class Item, class Stream, class Reply>
void Replay(Stream stream, Reply reply, const json& vector) {
  for (const auto& item : vector["requests"]) stream->Write(Parse<Item>(item));
  stream->WritesDone();
  for (const auto& expected : vector["replies"]) {
    if (!stream->Read(&reply) || reply.id() != expected["id"]) throw std::runtime_error("no reply");
    const auto& error = reply.error();
    const json actual = reply.has_error() ? Error(error.code(), error.reason(), error.field())
                                          : json{{"reply", ReplyOf(reply.response())}};
    if (actual != Expected(expected)) throw std::runtime_error(actual.dump().substr(0, 500));
  }
  if (stream->Read(&reply) || !stream->Finish().ok()) throw std::runtime_error("the stream failed");
}

void Check(pooling::Client& client, const json& vector) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const std::string method = vector["method"];
  if (method == "ForwardStream") {
    return Replay<v1::ForwardStreamRequest>(client.stub().ForwardStream(&context),
                                            v1::ForwardStreamResponse(), vector);
  }
  if (method == "BackwardStream") {
    return Replay<v1::BackwardStreamRequest>(client.stub().BackwardStream(&context),
                                             v1::BackwardStreamResponse(), vector);
  }
  const json actual = method == "Forward" ? Forward(client, vector) : Backward(client, vector);
  if (actual != Expected(vector)) throw std::runtime_error(actual.dump().substr(0, 500));
}

}  // namespace

int main(int count, char** arguments) {
  pooling::Client client(arguments[1]);
  client.set_timeout(std::chrono::seconds(30));
  int replayed = 0;
  for (int place = 2; place < count; ++place) {
    const json vectors = json::parse(std::ifstream(arguments[place]))["vectors"];
    for (const auto& vector : vectors) {
      try {
        Check(client, vector);
        ++replayed;
      } catch (const std::exception& error) {
        std::cerr << arguments[place] << ": " << vector["name"] << ": " << error.what() << "\n";
        return 1;
      }
    }
  }
  std::cout << replayed << " vectors\n";
}
