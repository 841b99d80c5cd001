// Gradients of shared ties as in `ties.cu`, for the windows of `rows.cu`: adjacent elements
// together.
#include "rows.cu"
#include "ties.cu"

// Reads those elements that lie within a row, and zeros beyond; `at` is the first, a multiple of V.
template <int V, typename T, typename N>
__device__ Pack<T, V> read_row(const T *row, N at, N length) {
  if (length % V == 0) return *(const Pack<T, V> *)(row + at);
  Pack<T, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v) packed.at[v] = at + v < length ? row[at + v] : T{};
  return packed;
}

// Divides the gradient of each window by the number of its tied taps.
template <typename E, bool IGNORES, int K, int STRIDE, int PAD, int V>
__global__ void share_rows(const E *x, const E *extremes, const E *dy, double *shares,
                           Windows<i32> windows) {
  using Row = Read<K, STRIDE, PAD, V>;
  i32 thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<i32> place = place_of<3, 1>(windows, thread);
  Taps<i32> t0s = taps_of<false>(windows.axes[0], place.at[0]);
  Taps<i32> t1s = taps_of<false>(windows.axes[1], place.at[1]);
  const Axis<i32> &inner = windows.axes[2];
  i32 output = place.at[2] * V, start = output * STRIDE - PAD;
  i32 before = ((place.plane * windows.axes[0].outputs + place.at[0]) * windows.axes[1].outputs +
                place.at[1]) * inner.outputs;
  Pack<E, V> extreme = read_row<V>(extremes + before, output, inner.outputs);
  i32 counts[V] = {};
  for (i32 t0 = t0s.first; t0 < t0s.stop; ++t0) {
    i32 plane = place.plane * windows.axes[0].size + t0s.start + t0 * windows.axes[0].dilation;
    for (i32 t1 = t1s.first; t1 < t1s.stop; ++t1) {
      i32 row = plane * windows.axes[1].size + t1s.start + t1 * windows.axes[1].dilation;
      E elements[Row::PACKS * V];
      read_packs<Row::PACKS, V>(x + row * inner.size, place.at[2] * STRIDE - Row::BEFORE,
                                inner.size / V, E{}, elements);
#pragma unroll
      for (int v = 0; v < V; ++v) {
#pragma unroll
        for (int t = 0; t < K; ++t) {
          i32 at = start + v * STRIDE + t;
          Wide<E> value = widen(elements[Row::TAP + v * STRIDE + t]);
          counts[v] += at >= 0 && at < inner.size &&
                       is_tied<IGNORES>(value, (Wide<E>)widen(extreme.at[v]));
        }
      }
    }
  }
  Pack<E, V> sent = read_row<V>(dy + before, output, inner.outputs);
  Pack<double, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v)
    packed.at[v] = (double)widen(sent.at[v]) / (double)counts[v];  // by 0 if no tap receives it
  write_row(shares + before, output, inner.outputs, packed);
}

// The gradient in float64, in tap order, axis by axis, the last axis first.
template <typename E, typename S, bool IGNORES, int K, int STRIDE, int PAD, int V>
__global__ void tie_row_gradients(const E *x, const E *extremes, const S *shares, E *dx,
                                  Windows<i32> windows) {
  using Row = Reached<K, STRIDE, PAD, V>;
  constexpr int COLUMNS = Row::PACKS * Row::C;
  i32 thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<i32> place = place_of<3, 1>(windows, thread);
  Reach<i32> r0 = reach_of<false>(windows.axes[0], place.at[0]);
  Reach<i32> r1 = reach_of<false>(windows.axes[1], place.at[1]);
  const Axis<i32> &inner = windows.axes[2];
  i32 first = place.at[2] - Row::BEFORE, packs = inner.outputs / Row::C;
  Pack<E, V> packed = ((const Pack<E, V> *)x)[thread];
  double totals[V] = {};
  for (i32 n0 = 0; n0 < r0.count; ++n0) {
    i32 o0 = in_tap_order<false>(windows.axes[0], r0, n0);
    if (tap_at<false>(windows.axes[0], r0, o0) < 0) continue;
    double parts[V] = {};
    for (i32 n1 = 0; n1 < r1.count; ++n1) {
      i32 o1 = in_tap_order<false>(windows.axes[1], r1, n1);
      if (tap_at<false>(windows.axes[1], r1, o1) < 0) continue;
      i32 row = (place.plane * windows.axes[0].outputs + o0) * windows.axes[1].outputs + o1;
      E extreme[COLUMNS];
      S sent[COLUMNS];  // zero beyond the ends, even if tied
      read_packs<Row::PACKS, Row::C>(extremes + row * inner.outputs, first, packs, E{}, extreme);
      read_packs<Row::PACKS, Row::C>(shares + row * inner.outputs, first, packs, S{}, sent);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        Wide<E> value = widen(packed.at[v]);
        double part = 0;
#pragma unroll
        for (int o = COLUMNS - 1; o >= 0; --o) {
          int tap = v + PAD - (o - Row::OWN) * STRIDE;
          if (tap >= 0 && tap < K && is_tied<IGNORES>(value, (Wide<E>)widen(extreme[o])))
            part += (double)widen(sent[o]);
        }
        parts[v] += part;
      }
    }
#pragma unroll
    for (int v = 0; v < V; ++v) totals[v] += parts[v];
  }
#pragma unroll
  for (int v = 0; v < V; ++v) round_to(totals[v], packed.at[v]);
  ((Pack<E, V> *)dx)[thread] = packed;
}
