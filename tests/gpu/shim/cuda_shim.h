// The part of CUDA that the kernels use, for a host compiler.
//
// In a kernel with barriers, every thread has its own stack. The threads of a block take turns, each
// up to its next barrier, first to last or last to first; a kernel that lacks a barrier then gives a
// wrong result. Other kernels are plain loops. Shared memory is static, because blocks run one after
// the other.
#pragma once
#include <cmath>
#include <csetjmp>
#include <cstring>
#include <ucontext.h>
#include <utility>

#define __global__
#define __device__
#define __shared__ static

using std::fabs;
using std::fma;
using std::ldexp;
using std::pow;
using std::sqrt;

struct Dim { unsigned x; };
static Dim threadIdx, blockIdx, blockDim;

inline unsigned __umulhi(unsigned a, unsigned b) {
  return (unsigned)((unsigned long long)a * b >> 32);
}
template <typename To, typename From> To cast_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}
inline float __uint_as_float(unsigned bits) { return cast_bits<float>(bits); }
inline unsigned __float_as_uint(float value) { return cast_bits<unsigned>(value); }
inline double __longlong_as_double(long long bits) { return cast_bits<double>(bits); }
inline long long __double_as_longlong(double value) { return cast_bits<long long>(value); }

namespace shim {
constexpr unsigned MOST = 256;
constexpr unsigned STACK = 32 << 10;
static ucontext_t fibers[MOST];
static jmp_buf host, waits[MOST];  // unlike contexts, jumps need no system calls
static char stacks[MOST][STACK];
static bool has_begun[MOST], is_done[MOST];
static unsigned turn;
static void (*call)(void **);
static void **values;

template <auto KERNEL, typename... A, std::size_t... I>
void invoke(void (*)(A...), void **arguments, std::index_sequence<I...>) {
  KERNEL(*(A *)arguments[I]...);
}
template <auto KERNEL, typename... A> void unpack(void (*kernel)(A...), void **arguments) {
  invoke<KERNEL>(kernel, arguments, std::index_sequence_for<A...>{});
}
template <auto KERNEL> void run_thread(void **arguments) { unpack<KERNEL>(KERNEL, arguments); }

inline void fiber() {
  call(values);
  is_done[turn] = true;
  _longjmp(host, 1);
}

// Runs the thread whose turn it is to its next barrier, or to its end.
inline void resume() {
  threadIdx.x = turn;
  if (_setjmp(host)) return;
  if (has_begun[turn]) _longjmp(waits[turn], 1);
  has_begun[turn] = true;
  setcontext(&fibers[turn]);
}

// Runs a kernel. Returns whether all threads of each block reached the same barriers.
template <auto KERNEL>
bool launch(unsigned blocks, unsigned threads, bool has_barriers, void **arguments) {
  blockDim.x = threads;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    if (!has_barriers) {
      for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) run_thread<KERNEL>(arguments);
      continue;
    }
    call = run_thread<KERNEL>, values = arguments;
    for (unsigned t = 0; t < threads; ++t) {
      has_begun[t] = is_done[t] = false;
      getcontext(&fibers[t]);
      fibers[t].uc_stack.ss_sp = stacks[t];
      fibers[t].uc_stack.ss_size = STACK;
      fibers[t].uc_link = nullptr;
      makecontext(&fibers[t], fiber, 0);
    }
    for (unsigned ended = 0, phase = 0; ended < threads; ++phase) {
      for (unsigned t = 0; t < threads; ++t) {
        turn = (blockIdx.x + phase) % 2 ? threads - 1 - t : t;
        resume();
        ended += is_done[turn];
      }
      if (ended % threads) return false;
    }
  }
  return true;
}
}  // namespace shim

inline void __syncthreads() {
  unsigned own = shim::turn;
  if (!_setjmp(shim::waits[own])) _longjmp(shim::host, 1);
  threadIdx.x = own;
}
