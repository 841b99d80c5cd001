#include "pooling_client.h"

#include "status.pb.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "The elements of a message are little-endian; this client copies them unchanged."
#endif

namespace pooling {
namespace {

void Copy(const TensorView& view, v1::Tensor* tensor) {
  tensor->set_element_type(view.type);
  tensor->mutable_shape()->Assign(view.shape.begin(), view.shape.end());
  tensor->set_data(view.data, view.bytes);
}

void Move(v1::Tensor* tensor, Tensor* result) {
  result->type = tensor->element_type();
  result->shape.assign(tensor->shape().begin(), tensor->shape().end());
  result->data = std::move(*tensor->mutable_data());
}

}  // namespace

Status StatusOf(const grpc::Status& status) {
  Status result{status.error_code(), status.error_message(), "", ""};
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return result;
  for (const auto& detail : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest request;
    if (detail.UnpackTo(&info)) {
      result.reason = info.reason();
    } else if (detail.UnpackTo(&request) && request.field_violations_size() > 0) {
      result.field = request.field_violations(0).field();
    }
  }
  return result;
}

Client::Client(const std::string& target, std::shared_ptr<grpc::ChannelCredentials> credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // the default is 4 MiB
  arguments.SetMaxSendMessageSize(-1);
  stub_ = v1::PoolingService::NewStub(grpc::CreateCustomChannel(target, credentials, arguments));
}

void Client::Prepare(grpc::ClientContext* context) const {
  if (timeout_.count() > 0) {
    context->set_deadline(std::chrono::system_clock::now() + timeout_);
  }
}

Status Client::Forward(const v1::PoolSpec& spec, const TensorView& input, Tensor* output,
                       const ForwardOptions& options, Tensor* indices) {
  v1::ForwardRequest request;
  *request.mutable_spec() = spec;
  request.set_return_indices(options.return_indices);
  request.set_index_format(options.index_format);
  Copy(input, request.mutable_input());
  grpc::ClientContext context;
  Prepare(&context);
  v1::ForwardResponse reply;
  const grpc::Status status = stub_->Forward(&context, request, &reply);
  if (!status.ok()) return StatusOf(status);
  Move(reply.mutable_output(), output);
  if (options.return_indices && indices != nullptr) Move(reply.mutable_indices(), indices);
  return {};
}

Status Client::Backward(const v1::PoolSpec& spec, const TensorView& output_gradient,
                        const BackwardOptions& options, Tensor* input_gradient) {
  if (options.indices != nullptr && options.input != nullptr) {
    return {grpc::StatusCode::INVALID_ARGUMENT,
            "indices and input are both set; a backward call takes one of them",
            "INVALID_TENSOR", "indices"};
  }
  v1::BackwardRequest request;
  *request.mutable_spec() = spec;
  request.mutable_input_shape()->Assign(options.input_shape.begin(), options.input_shape.end());
  request.set_index_format(options.index_format);
  if (options.indices != nullptr) Copy(*options.indices, request.mutable_indices());
  if (options.input != nullptr) Copy(*options.input, request.mutable_input());
  Copy(output_gradient, request.mutable_output_gradient());
  grpc::ClientContext context;
  Prepare(&context);
  v1::BackwardResponse reply;
  const grpc::Status status = stub_->Backward(&context, request, &reply);
  if (!status.ok()) return StatusOf(status);
  Move(reply.mutable_input_gradient(), input_gradient);
  return {};
}

}  // namespace pooling
