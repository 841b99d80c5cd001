// Gradients: a thread per input element, or per V channels of one position, gathers from the
// outputs whose windows cover it. No two threads add to the same value, so the order is fixed.
#include "indices.cuh"

// MAX and MIN: sums the gradients of the outputs whose index names the element, in output order.
// Sets the flag `doubt` if an index is invalid.
template <typename E, typename I, int RANK, bool SHARED, typename N, int V>
__global__ void select_gradients(const E *dy, const I *indices, E *dx, int *doubt,
                                 Windows<N> windows) {
  N thread = (N)blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<N> place = place_of<RANK, V>(windows, thread);
  Reach<N> reaches[3];
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    if (a < 3 - RANK) reaches[a] = {0, 1, 0};
    else reaches[a] = reach_of<SHARED>(windows.axes[a], place.at[a]);
  }
  double totals[V] = {};
  for (N n0 = 0; n0 < reaches[0].count; ++n0) {
    N o0 = reaches[0].low + n0;
    N t0 = RANK < 3 ? 0 : tap_at<SHARED>(windows.axes[0], reaches[0], o0);
    if (t0 < 0) continue;
    bool is_first_plane = RANK < 3 || is_first(windows.axes[0], place.at[0], t0);
    for (N n1 = 0; n1 < reaches[1].count; ++n1) {
      N o1 = reaches[1].low + n1;
      N t1 = RANK < 2 ? 0 : tap_at<SHARED>(windows.axes[1], reaches[1], o1);
      if (t1 < 0) continue;
      bool is_first_row =
          is_first_plane && (RANK < 2 || is_first(windows.axes[1], place.at[1], t1));
      N row = RANK < 3 ? place.plane : place.plane * windows.axes[0].outputs + o0;
      if (RANK > 1) row = row * windows.axes[1].outputs + o1;
      for (N n2 = 0; n2 < reaches[2].count; ++n2) {
        N o2 = reaches[2].low + n2;
        N t2 = tap_at<SHARED>(windows.axes[2], reaches[2], o2);
        if (t2 < 0) continue;
        N wanted = (t0 * windows.axes[1].kernel + t1) * windows.axes[2].kernel + t2;
        N output = (row * windows.axes[2].outputs + o2) * windows.channels + place.channel;
        Pack<I, V> named = *(const Pack<I, V> *)(indices + output);
        if (is_first_row && is_first(windows.axes[2], place.at[2], t2)) {
          N outputs[3] = {o0, o1, o2};
          Taps<N> taps[3];
#pragma unroll
          for (int a = 3 - RANK; a < 3; ++a)
            taps[a] = taps_of<SHARED>(windows.axes[a], outputs[a]);
          if (are_forged<RANK>(windows, taps, named)) *doubt = 1;
        }
        if constexpr (V == 1) {
          if ((N)named.at[0] == wanted) totals[0] += (double)widen(dy[output]);
        } else {
          Pack<E, V> sent = *(const Pack<E, V> *)(dy + output);
#pragma unroll
          for (int v = 0; v < V; ++v)
            if ((N)named.at[v] == wanted) totals[v] += (double)widen(sent.at[v]);
        }
      }
    }
  }
  Pack<E, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v) round_to(totals[v], packed.at[v]);
  ((Pack<E, V> *)dx)[thread] = packed;
}

// Sums the gradients of the outputs, each over its divisor, along axes A, A - 1, .. FIRST.
template <int A, int FIRST, int V, bool SHARED, typename E, typename N>
__device__ void add_outputs(const E *dy, const Windows<N> &windows, const Reach<N> *reaches,
                            N origin, N step, double divisor, Scale scale, double *total) {
#pragma unroll
  for (int v = 0; v < V; ++v) total[v] = 0;
  const Axis<N> &axis = windows.axes[A];
  for (N number = 0; number < reaches[A].count; ++number) {
    N output = in_tap_order<SHARED>(axis, reaches[A], number);
    if (tap_at<SHARED>(axis, reaches[A], output) < 0) continue;
    N at = origin + output * step;
    double own = divisor;
    if (windows.rule >= VALID_TAPS) own *= divisor_of<SHARED>(axis, output, windows.rule);
    if constexpr (A == FIRST) {
      if (windows.rule >= VALID_TAPS) scale = scale_of<E>(own);
      Pack<E, V> sent = *(const Pack<E, V> *)(dy + at);
#pragma unroll
      for (int v = 0; v < V; ++v)
        total[v] += quotient<E>((double)widen(sent.at[v]), scale, windows.rule);
    } else {
      double part[V];
      add_outputs<A - 1, FIRST, V, SHARED>(dy, windows, reaches, at, step * axis.outputs, own,
                                           scale, part);
#pragma unroll
      for (int v = 0; v < V; ++v) total[v] += part[v];
    }
  }
}

// AVERAGE and SUM in float64, in tap order, axis by axis.
template <typename E, int RANK, bool SHARED, typename N, int V>
__global__ void sum_gradients(const E *dy, E *dx, Scale scale, Windows<N> windows) {
  N thread = (N)blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<N> place = place_of<RANK, V>(windows, thread);
  Reach<N> reaches[3] = {};
  N origin = place.plane;
#pragma unroll
  for (int a = 3 - RANK; a < 3; ++a) {
    reaches[a] = reach_of<SHARED>(windows.axes[a], place.at[a]);
    origin *= windows.axes[a].outputs;
  }
  origin = origin * windows.channels + place.channel;
  double totals[V];
  add_outputs<2, 3 - RANK, V, SHARED>(dy, windows, reaches, origin, windows.channels, 1.0, scale,
                                      totals);
  Pack<E, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v) round_to(totals[v], packed.at[v]);
  ((Pack<E, V> *)dx)[thread] = packed;
}
