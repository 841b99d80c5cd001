// Check of indices: an index is valid if it names a tap of its window that lies on an element, or
// none. The thread of the window's first element checks it.
#pragma once
#include "windows.cuh"

// Whether a tap is the first of its window that lies on an element.
template <typename N> __device__ bool is_first(const Axis<N> &axis, N position, N tap) {
  return tap == 0 || position < axis.dilation;
}

// Whether some taps of a window lie in the padding, given its first tap on an element.
template <typename N> __device__ bool is_cut(const Axis<N> &axis, N position, N tap) {
  return tap > 0 || position + (axis.kernel - 1) * axis.dilation >= axis.size;
}

// Whether one of V indices is invalid; `taps` are the taps of their window that lie on elements.
template <int RANK, int V, typename I, typename N>
__device__ bool are_forged(const Windows<N> &windows, const Taps<N> *taps, Pack<I, V> indices) {
  bool is_wrong = false, has_all = true;
#pragma unroll
  for (int a = 3 - RANK; a < 3; ++a)
    has_all &= taps[a].first == 0 && taps[a].stop == windows.axes[a].kernel;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    I named = indices.at[v];
    if (named == (I)-1) continue;
    is_wrong |= (u64)named >= (u64)windows.taps;
    if (has_all) continue;
    N rest = (N)named;
#pragma unroll
    for (int a = 2; a >= 3 - RANK; --a) {
      N kernel = windows.axes[a].kernel, quotient = rest / kernel, tap = rest - quotient * kernel;
      is_wrong |= tap < taps[a].first || tap >= taps[a].stop;
      rest = quotient;
    }
  }
  return is_wrong;
}
