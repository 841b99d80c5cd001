// A CUDA driver, runtime and NVRTC on memory of the host, for the real CuPy: no card, no timings.
//
// What is put on a stream waits there until somebody waits for the stream, so a synchronisation
// that is missing shows as wrong numbers. What CUDA leaves undefined ends the process with a word.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace {

using Guard = std::lock_guard<std::recursive_mutex>;
using Start = int (*)(const char *file, const char *name, unsigned blocks, void **arguments);
struct Stream {
  std::deque<std::function<void()>> work;
};
struct Program {
  std::string file, name;
};
using Ranges = std::map<uintptr_t, size_t>;  // first byte: number of bytes

constexpr size_t GUARD = 512, TOTAL = size_t(80) << 30;
constexpr int FILL = 0xA5, OUT_OF_MEMORY = 2, INVALID = 1;
std::recursive_mutex lock;
Start start_kernel;
Stream null_stream;
std::set<Stream *> streams;
Ranges device, pinned, registered;
size_t used, limit = TOTAL;
int fault;  // what every call answers: the card is lost
long pinned_copies;

[[noreturn]] void stop(const char *why) {
  fprintf(stderr, "stand-in for CUDA: %s\n", why);
  abort();
}

Stream *stream_of(void *handle) {
  if (uintptr_t(handle) <= 2) return &null_stream;  // also the legacy and the per-thread one
  auto *stream = static_cast<Stream *>(handle);
  if (!streams.count(stream)) stop("no such stream");
  return stream;
}

void finish(Stream *stream) {
  while (!stream->work.empty()) {
    auto next = std::move(stream->work.front());
    stream->work.pop_front();
    next();
  }
}

void finish_all() {
  finish(&null_stream);
  for (auto *stream : streams) finish(stream);
}

bool is_within(const Ranges &ranges, const void *data, size_t bytes) {
  auto begin = uintptr_t(data);
  auto next = ranges.upper_bound(begin);
  if (next == ranges.begin()) return false;
  --next;
  return begin + bytes <= next->first + next->second;
}

bool touches(const Ranges &ranges, const void *data, size_t bytes) {
  auto begin = uintptr_t(data);
  auto next = ranges.lower_bound(begin + bytes);
  return next != ranges.begin() && (--next, next->first + next->second > begin);
}

void on_card(const void *data, size_t bytes, const char *why) {
  if (!is_within(device, data, bytes)) stop(why);
}

}  // namespace

#define CALL          \
  Guard guard(lock);  \
  if (fault) return fault

extern "C" {
void stand_in_is_missing() { stop("CuPy calls a function of CUDA's runtime that is not here"); }
void stand_in_start(Start start) { start_kernel = start; }
void stand_in_limit(size_t bytes) { limit = bytes ? bytes : TOTAL; }
void stand_in_fault(int error) { fault = error; }
size_t stand_in_used() { return used; }
long stand_in_pinned_copies() { return pinned_copies; }

// The runtime; `place.py` writes jumps to these over CuPy's own.
int at_cudaGetDeviceCount(int *count) { return *count = 1, 0; }
int at_cudaGetDevice(int *number) { return *number = 0, 0; }
int at_cudaSetDevice(int number) { return number ? 101 : 0; }
int at_cudaDriverGetVersion(int *version) { return *version = 13000, 0; }
int at_cudaRuntimeGetVersion(int *version) { return *version = 13000, 0; }
int at_cudaDeviceGetAttribute(int *value, int attribute, int) {
  return *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 1, 0;  // compute capability 9.0
}
int at_cudaGetDeviceProperties(void *properties, int) {
  memset(properties, 0, 512);
  strcpy(static_cast<char *>(properties), "stand-in, no card");
  return 0;
}
int at_cudaGetDeviceProperties_v2(void *p, int n) { return at_cudaGetDeviceProperties(p, n); }
int at_cudaDeviceGetPCIBusId(char *text, int size, int) {
  return snprintf(text, size, "0000:00:00.0"), 0;
}
int at_cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  CALL;
  return *free_bytes = TOTAL - used, *total = TOTAL, 0;
}
int at_cudaMalloc(void **data, size_t bytes) {
  CALL;
  if (used + bytes > limit || posix_memalign(data, GUARD, bytes + GUARD)) return OUT_OF_MEMORY;
  memset(*data, FILL, bytes + GUARD);
  device[uintptr_t(*data)] = bytes;
  used += bytes;
  return 0;
}
int at_cudaFree(void *data) {
  CALL;
  if (!data) return 0;
  finish_all();
  auto found = device.find(uintptr_t(data));
  if (found == device.end()) stop("frees what is no allocation");
  auto *beyond = static_cast<unsigned char *>(data) + found->second;
  for (size_t i = 0; i < GUARD; ++i)
    if (beyond[i] != FILL) stop("something wrote beyond an allocation");
  used -= found->second;
  device.erase(found);
  free(data);
  return 0;
}
int at_cudaHostAlloc(void **data, size_t bytes, unsigned) {
  CALL;
  if (posix_memalign(data, 4096, bytes)) return OUT_OF_MEMORY;
  pinned[uintptr_t(*data)] = bytes;
  return 0;
}
int at_cudaFreeHost(void *data) {
  CALL;
  finish_all();
  if (!pinned.erase(uintptr_t(data))) stop("frees what is not pinned");
  free(data);
  return 0;
}
int at_cudaHostRegister(void *data, size_t bytes, unsigned) {
  CALL;
  if (touches(pinned, data, bytes)) return 712;
  pinned[uintptr_t(data)] = registered[uintptr_t(data)] = bytes;
  return 0;
}
int at_cudaHostUnregister(void *data) {
  CALL;
  finish_all();
  if (!registered.erase(uintptr_t(data))) return 713;
  pinned.erase(uintptr_t(data));
  return 0;
}
// Pageable memory is read before the call returns, and is written before it does; pinned later.
int at_cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *handle) {
  CALL;
  auto *stream = stream_of(handle);
  if (!bytes) return 0;
  if (kind != 1) on_card(from, bytes, "copies from beyond an allocation");
  if (kind != 2) on_card(to, bytes, "copies to beyond an allocation");
  if (kind < 1 || kind > 3) stop("a kind of copy that is not known");
  const void *host = kind == 1 ? from : to;
  bool is_pinned = kind != 3 && is_within(pinned, host, bytes);
  if (kind != 3 && !is_pinned && touches(pinned, host, bytes)) return INVALID;
  pinned_copies += is_pinned;
  if (kind == 1 && !is_pinned) {
    auto *bytes_of = static_cast<const char *>(from);
    auto copy = std::make_shared<std::vector<char>>(bytes_of, bytes_of + bytes);
    stream->work.push_back([=] { memcpy(to, copy->data(), bytes); });
    return 0;
  }
  stream->work.push_back([=] { memmove(to, from, bytes); });
  if (kind == 2 && !is_pinned) finish(stream);
  return 0;
}
int at_cudaMemsetAsync(void *data, int value, size_t bytes, void *handle) {
  CALL;
  on_card(data, bytes, "fills beyond an allocation");
  stream_of(handle)->work.push_back([=] { memset(data, value, bytes); });
  return 0;
}
int at_cudaStreamCreate(void **handle) {
  CALL;
  auto *stream = new Stream;
  streams.insert(stream);
  return *handle = stream, 0;
}
int at_cudaStreamCreateWithFlags(void **h, unsigned) { return at_cudaStreamCreate(h); }
int at_cudaStreamCreateWithPriority(void **h, unsigned, int) { return at_cudaStreamCreate(h); }
int at_cudaStreamDestroy(void *handle) {
  CALL;
  auto *stream = stream_of(handle);
  finish(stream);
  streams.erase(stream);
  delete stream;
  return 0;
}
int at_cudaStreamSynchronize(void *handle) {
  CALL;
  return finish(stream_of(handle)), 0;
}
int at_cudaStreamIsCapturing(void *, int *is) { return *is = 0, 0; }
int at_cudaDeviceSynchronize() {
  CALL;
  return finish_all(), 0;
}
// Events do less than CUDA's: to record one waits for the stream.
int at_cudaEventCreate(void **event) { return *event = malloc(1), 0; }
int at_cudaEventCreateWithFlags(void **event, unsigned) { return at_cudaEventCreate(event); }
int at_cudaEventDestroy(void *event) { return free(event), 0; }
int at_cudaEventRecord(void *, void *handle) { return at_cudaStreamSynchronize(handle); }
int at_cudaEventSynchronize(void *) { return 0; }
int at_cudaStreamWaitEvent(void *, void *, unsigned) { return 0; }
struct Attributes {
  int type, device;
  const void *on_device, *on_host;
};
int at_cudaPointerGetAttributes(Attributes *found, const void *data) {
  CALL;
  int type = is_within(device, data, 1) ? 2 : is_within(pinned, data, 1) ? 1 : 0;
  return *found = {type, 0, data, data}, 0;
}
int at_cudaGetLastError() { return 0; }
const char *at_cudaGetErrorName(int) { return "cudaErrorOfStandIn"; }
const char *at_cudaGetErrorString(int) { return "as the test wants it"; }

// The driver.
int cuGetErrorName(int, const char **text) { return *text = "CUDA_ERROR_OF_STAND_IN", 0; }
int cuGetErrorString(int, const char **text) { return *text = "as the test wants it", 0; }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuInit(unsigned) { return 0; }
int cuCtxGetCurrent(void **context) { return *context = reinterpret_cast<void *>(1), 0; }
int cuModuleLoadData(void **module, const void *image) {
  CALL;
  auto *text = static_cast<const char *>(image);
  if (strncmp(text, "CUBIN:", 6)) return 200;
  return *module = new std::string(text + 6), 0;
}
int cuModuleUnload(void *module) { return delete static_cast<std::string *>(module), 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
  CALL;
  return *function = new Program{*static_cast<std::string *>(module), name}, 0;
}
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads,
                   unsigned threads_y, unsigned threads_z, unsigned shared, void *handle,
                   void **arguments, void **extra) {
  {
    CALL;
    if (!x || y != 1 || z != 1 || threads != 256 || threads_y != 1 || threads_z != 1 || shared ||
        extra)
      stop("a launch of a form that is not ours");
    finish(stream_of(handle));
  }
  auto *kernel = static_cast<Program *>(function);
  return start_kernel(kernel->file.c_str(), kernel->name.c_str(), x, arguments);
}

// NVRTC: a cubin is the name of the file that it comes from.
const char *nvrtcGetErrorString(int) { return "NVRTC's stand-in"; }
int nvrtcVersion(int *major, int *minor) { return *major = 99, *minor = 9, 0; }
int nvrtcCreateProgram(void **program, const char *, const char *file, int, const char **,
                       const char **) {
  return *program = new Program{file, ""}, 0;
}
int nvrtcDestroyProgram(void **program) { return delete static_cast<Program *>(*program), 0; }
int nvrtcAddNameExpression(void *program, const char *name) {
  return static_cast<Program *>(program)->name = name, 0;
}
int nvrtcCompileProgram(void *, int, const char **) { return 0; }
int nvrtcGetCUBINSize(void *program, size_t *bytes) {
  return *bytes = static_cast<Program *>(program)->file.size() + 7, 0;
}
int nvrtcGetCUBIN(void *program, char *cubin) {
  return strcpy(cubin, ("CUBIN:" + static_cast<Program *>(program)->file).c_str()), 0;
}
int nvrtcGetProgramLogSize(void *, size_t *bytes) { return *bytes = 1, 0; }
int nvrtcGetProgramLog(void *, char *log) { return *log = 0, 0; }
int nvrtcGetLoweredName(void *program, const char *name, const char **lowered) {
  return *lowered = static_cast<Program *>(program)->name.c_str(), strcmp(*lowered, name) ? 9 : 0;
}
int nvrtcGetNumSupportedArchs(int *count) { return *count = 1, 0; }
int nvrtcGetSupportedArchs(int *archs) { return *archs = 90, 0; }
}
