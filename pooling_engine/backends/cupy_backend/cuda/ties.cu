// Gradients of shared ties: all taps that equal the extreme of their window receive its gradient,
// whole or in equal shares. The kernels of the forward pass compute the extremes.
#include "forward.cu"

// NaNs are tied with one another if NaN can be selected; otherwise with nothing.
template <bool IGNORES, typename W> __device__ bool is_tied(W value, W extreme) {
  return value == extreme || (!IGNORES && value != value && extreme != extreme);
}

// Divides the gradient of each window by the number of its tied taps: a thread per output.
template <typename E, bool IGNORES, int RANK, bool SHARED, typename N, int V>
__global__ void share_windows(const E *x, const E *extremes, const E *dy, double *shares,
                              Windows<N> windows) {
  N thread = (N)blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<N> place = place_of<RANK, V>(windows, thread);
  Footprint<N> print = footprint_of<RANK, V, SHARED>(windows, place);
  Pack<E, V> extreme = ((const Pack<E, V> *)extremes)[thread];
  N counts[V] = {};
  for (N t0 = print.taps[0].first; t0 < print.taps[0].stop; ++t0) {
    for (N t1 = print.taps[1].first; t1 < print.taps[1].stop; ++t1) {
      const E *row = x + print.origin + t0 * print.step[0] + t1 * print.step[1];
      for (N t2 = print.taps[2].first; t2 < print.taps[2].stop; ++t2) {
        Pack<E, V> taken = *(const Pack<E, V> *)(row + t2 * print.step[2]);
#pragma unroll
        for (int v = 0; v < V; ++v)
          counts[v] += is_tied<IGNORES>(widen(taken.at[v]), widen(extreme.at[v]));
      }
    }
  }
  Pack<E, V> sent = ((const Pack<E, V> *)dy)[thread];
  Pack<double, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v)
    packed.at[v] = (double)widen(sent.at[v]) / (double)counts[v];  // by 0 if no tap receives it
  ((Pack<double, V> *)shares)[thread] = packed;
}

// The `number`-th output in tap order, also for adaptive axes. There, only the first output may
// cover the position with another tap than its first, and then comes last.
template <bool SHARED, typename N>
__device__ N by_tap(const Axis<N> &axis, const Reach<N> &reach, N number) {
  if (SHARED && axis.stride == 0 && tap_at<SHARED>(axis, reach, reach.low) > 0)
    return reach.low + (number + 1 < reach.count ? number + 1 : 0);
  return in_tap_order<SHARED>(axis, reach, number);
}

// Sums the gradients of the outputs that are tied with these values, along axes A, A + 1, ..; `row`
// is the position in the output along the axes before A.
template <int A, int V, bool IGNORES, bool SHARED, typename E, typename S, typename N>
__device__ void add_tied(const E *extremes, const S *shares, const Windows<N> &windows,
                         const Reach<N> *reaches, N row, N channel, const Wide<E> *values,
                         double *total) {
#pragma unroll
  for (int v = 0; v < V; ++v) total[v] = 0;
  const Axis<N> &axis = windows.axes[A];
  for (N number = 0; number < reaches[A].count; ++number) {
    N output = by_tap<SHARED>(axis, reaches[A], number);
    if (tap_at<SHARED>(axis, reaches[A], output) < 0) continue;
    N at = row * axis.outputs + output;
    if constexpr (A == 2) {
      at = at * windows.channels + channel;
      Pack<E, V> extreme = *(const Pack<E, V> *)(extremes + at);
      Pack<S, V> sent = *(const Pack<S, V> *)(shares + at);
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (is_tied<IGNORES>(values[v], (Wide<E>)widen(extreme.at[v])))
          total[v] += (double)widen(sent.at[v]);
    } else {
      double part[V];
      add_tied<A + 1, V, IGNORES, SHARED>(extremes, shares, windows, reaches, at, channel, values,
                                          part);
#pragma unroll
      for (int v = 0; v < V; ++v) total[v] += part[v];
    }
  }
}

// The gradient in float64, in tap order, axis by axis, the last axis first: a thread per input
// element. `shares` is the gradient of the output, or the result of `share_windows`.
template <typename E, typename S, bool IGNORES, int RANK, bool SHARED, typename N, int V>
__global__ void tie_gradients(const E *x, const E *extremes, const S *shares, E *dx,
                              Windows<N> windows) {
  N thread = (N)blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<N> place = place_of<RANK, V>(windows, thread);
  Reach<N> reaches[3] = {};
#pragma unroll
  for (int a = 3 - RANK; a < 3; ++a) reaches[a] = reach_of<SHARED>(windows.axes[a], place.at[a]);
  Pack<E, V> packed = ((const Pack<E, V> *)x)[thread];
  Wide<E> values[V];
#pragma unroll
  for (int v = 0; v < V; ++v) values[v] = widen(packed.at[v]);
  double totals[V];
  add_tied<3 - RANK, V, IGNORES, SHARED>(extremes, shares, windows, reaches, place.plane,
                                         place.channel, values, totals);
#pragma unroll
  for (int v = 0; v < V; ++v) round_to(totals[v], packed.at[v]);
  ((Pack<E, V> *)dx)[thread] = packed;
}
