// Client of a pooling.v1 server: pooled tensors and the gradients of their inputs.
//
//   pooling::Client client("127.0.0.1:50051");
//   pooling::v1::PoolSpec spec = ...;
//   pooling::Tensor output;
//   pooling::Status status = client.Forward(spec, pooling::View<float>(data, {1, 1, 4, 4}), &output);
//
// No function throws, except Tensor::values() and std::bad_alloc.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pooling/v1/pooling.grpc.pb.h"

namespace pooling {

// The bits of an IEEE 754 binary16, and the upper 16 bits of a binary32.
struct Float16 { std::uint16_t bits; };
struct Bfloat16 { std::uint16_t bits; };

template <class T> constexpr v1::ElementType kElementType = v1::ELEMENT_TYPE_UNSPECIFIED;
template <> inline constexpr v1::ElementType kElementType<Float16> = v1::ELEMENT_TYPE_FLOAT16;
template <> inline constexpr v1::ElementType kElementType<Bfloat16> = v1::ELEMENT_TYPE_BFLOAT16;
template <> inline constexpr v1::ElementType kElementType<float> = v1::ELEMENT_TYPE_FLOAT32;
template <> inline constexpr v1::ElementType kElementType<double> = v1::ELEMENT_TYPE_FLOAT64;
template <> inline constexpr v1::ElementType kElementType<std::int8_t> = v1::ELEMENT_TYPE_INT8;
template <> inline constexpr v1::ElementType kElementType<std::uint8_t> = v1::ELEMENT_TYPE_UINT8;
template <> inline constexpr v1::ElementType kElementType<std::int16_t> = v1::ELEMENT_TYPE_INT16;
template <> inline constexpr v1::ElementType kElementType<std::uint16_t> = v1::ELEMENT_TYPE_UINT16;
template <> inline constexpr v1::ElementType kElementType<std::int32_t> = v1::ELEMENT_TYPE_INT32;
template <> inline constexpr v1::ElementType kElementType<std::uint32_t> = v1::ELEMENT_TYPE_UINT32;
template <> inline constexpr v1::ElementType kElementType<std::int64_t> = v1::ELEMENT_TYPE_INT64;

// Outcome of a call.
struct Status {
  grpc::StatusCode code = grpc::StatusCode::OK;
  std::string message;
  std::string reason;  // such as INVALID_SPEC; empty if another program than the server failed
  std::string field;   // path of the invalid field in the request; may be empty
  bool ok() const { return code == grpc::StatusCode::OK; }
};

// Elements of one type, owned by somebody else. C++17 has no std::span.
template <class T>
class Span {
 public:
  Span(const T* data, std::size_t size) : data_(data), size_(size) {}
  Span(const std::vector<T>& values) : Span(values.data(), values.size()) {}
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  const T* data_;
  std::size_t size_;
};

// A tensor to send: elements in row-major order, owned by the caller until the call returns.
// The server rejects a size that differs from the product of the shape.
struct TensorView {
  v1::ElementType type;
  std::vector<std::int64_t> shape;
  const void* data;
  std::size_t bytes;
};

template <class T>
TensorView View(Span<T> values, std::vector<std::int64_t> shape) {
  static_assert(kElementType<T> != v1::ELEMENT_TYPE_UNSPECIFIED, "not an element type of pooling.v1");
  return {kElementType<T>, std::move(shape), values.data(), values.size() * sizeof(T)};
}

// A tensor of a reply, in row-major order.
struct Tensor {
  v1::ElementType type = v1::ELEMENT_TYPE_UNSPECIFIED;
  std::vector<std::int64_t> shape;
  std::string data;  // the elements, little-endian

  // Returns the elements. Throws std::invalid_argument if T is not their type.
  template <class T>
  std::vector<T> values() const {
    if (kElementType<T> != type) {
      throw std::invalid_argument("the elements are " + v1::ElementType_Name(type));
    }
    std::vector<T> values(data.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), data.data(), values.size() * sizeof(T));
    return values;
  }
  // The same tensor as an argument of a call. It refers to this tensor.
  TensorView view() const { return {type, shape, data.data(), data.size()}; }
};

// The pooled tensor and, if requested, the indices that a backward call of max or min needs.
struct ForwardOptions {
  bool return_indices = false;
  v1::IndexFormat index_format = v1::INDEX_FORMAT_UNSPECIFIED;
};

// What a backward call needs besides the gradient of the output; the contract says which mode
// needs which. At most one of `indices` and `input` may be set.
struct BackwardOptions {
  std::vector<std::int64_t> input_shape;
  v1::IndexFormat index_format = v1::INDEX_FORMAT_UNSPECIFIED;
  const TensorView* indices = nullptr;
  const TensorView* input = nullptr;
};

// Connection to one server. Thread-safe. Messages have no size limit on this side.
class Client {
 public:
  // `target` is HOST:PORT or unix:/PATH.
  explicit Client(const std::string& target, std::shared_ptr<grpc::ChannelCredentials> credentials =
                                                 grpc::InsecureChannelCredentials());

  // Time limit of each later call; none by default. Set it before calls start.
  void set_timeout(std::chrono::milliseconds timeout) { timeout_ = timeout; }

  // Pools `input`. Sets `indices` only if options.return_indices; it may be null otherwise.
  Status Forward(const v1::PoolSpec& spec, const TensorView& input, Tensor* output,
                 const ForwardOptions& options = {}, Tensor* indices = nullptr);

  // Computes the gradient of the input of a pooling layer.
  Status Backward(const v1::PoolSpec& spec, const TensorView& output_gradient,
                  const BackwardOptions& options, Tensor* input_gradient);

  // The generated stub, for streams and for GetServerInfo and GetPlan.
  v1::PoolingService::Stub& stub() { return *stub_; }

 private:
  void Prepare(grpc::ClientContext* context) const;

  std::unique_ptr<v1::PoolingService::Stub> stub_;
  std::chrono::milliseconds timeout_{0};
};

// Returns the status of a call of `stub()` with the details that the server sent.
Status StatusOf(const grpc::Status& status);

}  // namespace pooling
