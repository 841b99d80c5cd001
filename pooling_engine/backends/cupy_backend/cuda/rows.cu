// Windows of K taps with a stride of STRIDE and a padding of PAD along the innermost axis, channels
// first. A thread computes V adjacent elements of a row. It reads the packs of elements that these
// share once, and the compiler knows every position within them. Windows along the other axes are
// arbitrary.
#include "forward.cu"
#include "indices.cuh"

// Reads adjacent packs of `row` from number `first` on, with `filler` beyond its ends.
template <int PACKS, int V, typename T, typename N>
__device__ void read_packs(const T *row, N first, N length, T filler, T *elements) {
  const Pack<T, V> *packs = (const Pack<T, V> *)row + first;
#pragma unroll
  for (int p = 0; p < PACKS; ++p) {
    Pack<T, V> taken;
#pragma unroll
    for (int v = 0; v < V; ++v) taken.at[v] = filler;
    if (first + p >= 0 && first + p < length) taken = packs[p];
#pragma unroll
    for (int v = 0; v < V; ++v) elements[p * V + v] = taken.at[v];
  }
}

// Writes those elements that lie within a row; `at` is the position of the first, a multiple of V.
template <int V, typename T, typename N>
__device__ void write_row(T *row, N at, N length, Pack<T, V> packed) {
  if (length % V == 0) {
    *(Pack<T, V> *)(row + at) = packed;
    return;
  }
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (at + v < length) row[at + v] = packed.at[v];
}

// The packs that V outputs read: those before the thread's own, all, and the place of tap 0 in
// them.
template <int K, int STRIDE, int PAD, int V> struct Read {
  static constexpr int BEFORE = (PAD + V - 1) / V;
  static constexpr int PACKS = BEFORE + ((V - 1) * STRIDE - PAD + K - 1) / V + 1;
  static constexpr int TAP = BEFORE * V - PAD;
};

// Finds the best elements of V windows, in tap order. Returns whether there is a NaN, which only
// the EXACT variant handles.
template <bool EXACT, typename Order, bool IGNORES, int K, int STRIDE, int PAD, int V, typename E>
__device__ bool take_rows(const E *x, const Windows<i32> &windows, const Place<i32> &place,
                          const Taps<i32> &t0s, const Taps<i32> &t1s, Wide<E> *best, E *chosen,
                          i32 *numbers) {
  using Row = Read<K, STRIDE, PAD, V>;
  const Axis<i32> &inner = windows.axes[2];
  bool is_empty = t0s.first == t0s.stop || t1s.first == t1s.stop, has_nan = false;
#pragma unroll
  for (int v = 0; v < V; ++v) {  // starts with the first tap, unless NaN is ignored
    best[v] = infinity_of<Wide<E>>(Order::is_better(1, 0));
    chosen[v] = infinity_of<E>(Order::is_better(1, 0));
    i32 start = (place.at[2] * V + v) * STRIDE - PAD;
    i32 first = (t0s.first * windows.axes[1].kernel + t1s.first) * K + (start < 0 ? -start : 0);
    numbers[v] = IGNORES || is_empty ? -1 : first;
  }
  E filler = IGNORES ? nan_of<E>() : infinity_of<E>(Order::is_better(1, 0));  // never wins
  for (i32 t0 = t0s.first; t0 < t0s.stop; ++t0) {
    i32 plane = place.plane * windows.axes[0].size + t0s.start + t0 * windows.axes[0].dilation;
    for (i32 t1 = t1s.first; t1 < t1s.stop; ++t1) {
      i32 row = plane * windows.axes[1].size + t1s.start + t1 * windows.axes[1].dilation;
      i32 number = (t0 * windows.axes[1].kernel + t1) * K;
      E elements[Row::PACKS * V];
      read_packs<Row::PACKS, V>(x + row * inner.size, place.at[2] * STRIDE - Row::BEFORE,
                                inner.size / V, filler, elements);
      Wide<E> values[(V - 1) * STRIDE + K];
#pragma unroll
      for (int c = 0; c < (V - 1) * STRIDE + K; ++c) {
        values[c] = widen(elements[Row::TAP + c]);
        has_nan |= values[c] != values[c];
      }
#pragma unroll
      for (int v = 0; v < V; ++v) {
#pragma unroll
        for (int t = 0; t < K; ++t) {
          Wide<E> value = values[v * STRIDE + t];
          bool is_new = EXACT ? is_taken<Order, IGNORES>(value, best[v], !IGNORES || numbers[v] >= 0)
                              : Order::is_better(value, best[v]);
          best[v] = is_new ? value : best[v];
          chosen[v] = is_new ? elements[Row::TAP + v * STRIDE + t] : chosen[v];
          numbers[v] = is_new ? number + t : numbers[v];
        }
      }
    }
  }
  return has_nan;
}

// MAX and MIN of V adjacent outputs. A thread that meets a NaN starts again with the exact variant;
// with HAS_NAN it starts with that.
template <bool HAS_NAN, bool IGNORES, typename Order, int K, int STRIDE, int PAD, int V, typename E,
          typename I>
__device__ void select_row(const E *x, E *y, I *indices, int *doubt, const Windows<i32> &windows,
                           const Place<i32> &place) {
  Taps<i32> t0s = taps_of<false>(windows.axes[0], place.at[0]);
  Taps<i32> t1s = taps_of<false>(windows.axes[1], place.at[1]);
  const Axis<i32> &inner = windows.axes[2];
  bool is_empty = t0s.first == t0s.stop || t1s.first == t1s.stop;
  i32 output = place.at[2] * V;
  Wide<E> best[V];
  Pack<E, V> chosen;
  i32 numbers[V];
  if (HAS_NAN || IGNORES ||
      take_rows<false, Order, false, K, STRIDE, PAD, V>(x, windows, place, t0s, t1s, best, chosen.at,
                                                        numbers))
    take_rows<true, Order, IGNORES, K, STRIDE, PAD, V>(x, windows, place, t0s, t1s, best, chosen.at,
                                                       numbers);
  Pack<I, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if constexpr (sizeof(E) == sizeof(Wide<E>)) chosen.at[v] = best[v];  // the same bits
    if (IGNORES && numbers[v] < 0 && !is_empty) chosen.at[v] = nan_of<E>();
    if (!IGNORES && doubt && output + v < inner.outputs && best[v] != best[v]) *doubt = 1;
    if constexpr (!IsNone<I>::value) packed.at[v] = (I)numbers[v];  // -1 (the largest value) is none
  }
  i32 row = (place.plane * windows.axes[0].outputs + place.at[0]) * windows.axes[1].outputs +
            place.at[1];
  write_row(y + row * inner.outputs, output, inner.outputs, chosen);
  if constexpr (!IsNone<I>::value)
    write_row(indices + row * inner.outputs, output, inner.outputs, packed);
}

template <typename E, typename I, typename Order, bool IGNORES, int K, int STRIDE, int PAD, int V>
__global__ void select_rows(const E *x, E *y, I *indices, int *doubt, Windows<i32> windows) {
  i32 thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<i32> place = place_of<3, 1>(windows, thread);
  select_row<false, IGNORES, Order, K, STRIDE, PAD, V>(x, y, indices, doubt, windows, place);
}

// AVERAGE and SUM in float64. Each column of taps is summed once for all windows that contain it.
template <typename E, int K, int STRIDE, int PAD, int V>
__global__ void sum_rows(const E *x, E *y, Scale scale, Windows<i32> windows) {
  using Row = Read<K, STRIDE, PAD, V>;
  constexpr int COLUMNS = (V - 1) * STRIDE + K;
  i32 thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<i32> place = place_of<3, 1>(windows, thread);
  Taps<i32> t0s = taps_of<false>(windows.axes[0], place.at[0]);
  Taps<i32> t1s = taps_of<false>(windows.axes[1], place.at[1]);
  const Axis<i32> &inner = windows.axes[2];
  double columns[COLUMNS] = {};
  for (i32 t1 = t1s.first; t1 < t1s.stop; ++t1) {
    double parts[COLUMNS] = {};
    for (i32 t0 = t0s.first; t0 < t0s.stop; ++t0) {
      i32 plane = place.plane * windows.axes[0].size + t0s.start + t0 * windows.axes[0].dilation;
      i32 row = plane * windows.axes[1].size + t1s.start + t1 * windows.axes[1].dilation;
      E elements[Row::PACKS * V];
      read_packs<Row::PACKS, V>(x + row * inner.size, place.at[2] * STRIDE - Row::BEFORE,
                                inner.size / V, E{}, elements);
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) parts[c] += (double)widen(elements[Row::TAP + c]);
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) columns[c] += parts[c];
  }
  double outer = 1;
  if (windows.rule >= VALID_TAPS)
    outer = (double)divisor_of<false>(windows.axes[0], place.at[0], windows.rule) *
            divisor_of<false>(windows.axes[1], place.at[1], windows.rule);
  i32 output = place.at[2] * V;
  Pack<E, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    double total = 0;
#pragma unroll
    for (int t = 0; t < K; ++t) total += columns[v * STRIDE + t];
    if (windows.rule >= VALID_TAPS)
      scale = scale_of<E>(outer * divisor_of<false>(inner, output + v, windows.rule));
    round_to(quotient<E>(total, scale, windows.rule), packed.at[v]);
  }
  i32 row = (place.plane * windows.axes[0].outputs + place.at[0]) * windows.axes[1].outputs +
            place.at[1];
  write_row(y + row * inner.outputs, output, inner.outputs, packed);
}

// The outputs whose windows cover V elements, in packs of V / STRIDE, and the place of output 0 of
// the thread's own pack in them.
template <int K, int STRIDE, int PAD, int V> struct Reached {
  static constexpr int C = V / STRIDE;
  static constexpr int BEFORE = ((K - 1 - PAD) / STRIDE + C - 1) / C;
  static constexpr int PACKS = BEFORE + (V - 1 + PAD) / STRIDE / C + 1;
  static constexpr int OWN = BEFORE * C;
  // The most rows of a thread, limited by its registers; `choosing.py` has the same rule.
  static constexpr int ROWS = 2 * STRIDE, ROWS_OF_SUMS = STRIDE > 1 || K + V < 10 ? ROWS : 1;
  static constexpr int LATER = (PAD + STRIDE - 1) / STRIDE;  // first output with tap 0 in the pack
};

// The number of rows of a thread; `row` is the first.
inline __device__ i32 rows_from(const Windows<i32> &windows, i32 row) {
  i32 room = windows.axes[1].size - row;
  return room < windows.rows ? room : windows.rows;
}

// The number of the tap on the r-th row of a thread, or -1; `distance` is that of the first row
// from tap 0. With dilation, a thread has only one row.
inline __device__ i32 tap_on(const Axis<i32> &axis, i32 distance, i32 r, i32 rows) {
  i32 tap = distance + r;
  if (r == 0 && axis.dilation != 1) {
    tap = axis.by_dilation.divide(distance);
    return tap * axis.dilation == distance ? tap : -1;
  }
  return (r < rows) & ((u32)tap < (u32)axis.kernel) ? tap : -1;
}

template <typename E, int ROWS, int V>
__device__ void write_gradients(E *dx, const Windows<i32> &windows, const Place<i32> &place,
                                i32 own, i32 rows, const double (&totals)[ROWS][V]) {
  i32 packs = windows.axes[2].size / V, plane = place.plane * windows.axes[0].size + place.at[0];
  Pack<E, V> *to = (Pack<E, V> *)dx + (plane * windows.axes[1].size + own) * packs + place.at[2];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    if (r >= rows) return;
    Pack<E, V> packed;
#pragma unroll
    for (int v = 0; v < V; ++v) round_to(totals[r][v], packed.at[v]);
    to[r * packs] = packed;
  }
}

// Gradient of MAX and MIN, in output order. Sets the flag if an index is invalid.
template <typename E, typename I, int K, int STRIDE, int PAD, int V>
__global__ void select_row_gradients(const E *dy, const I *indices, E *dx, int *doubt,
                                     Windows<i32> windows) {
  using Row = Reached<K, STRIDE, PAD, V>;
  i32 thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<i32> place = place_of<3, 1>(windows, thread);
  const Axis<i32> &across = windows.axes[1], &inner = windows.axes[2];
  i32 own = place.at[1] * windows.rows, rows = rows_from(windows, own);
  Reach<i32> r0 = reach_of<false>(windows.axes[0], place.at[0]);
  Reach<i32> r1 = reach_of<false>(across, own, rows - 1);
  i32 first = place.at[2] - Row::BEFORE, packs = inner.outputs / Row::C;
  double totals[Row::ROWS][V] = {};
  bool is_wrong = false;
  for (i32 o0 = r0.low; o0 < r0.low + r0.count; ++o0) {
    i32 t0 = tap_at<false>(windows.axes[0], r0, o0);
    if (t0 < 0) continue;
    for (i32 o1 = r1.low; o1 < r1.low + r1.count; ++o1) {
      i32 row = (place.plane * windows.axes[0].outputs + o0) * across.outputs + o1;
      E sent[Row::PACKS * Row::C];
      I named[Row::PACKS * Row::C];
      read_packs<Row::PACKS, Row::C>(dy + row * inner.outputs, first, packs, E{}, sent);
      read_packs<Row::PACKS, Row::C>(indices + row * inner.outputs, first, packs, (I)-1, named);
#pragma unroll
      for (int r = 0; r < Row::ROWS; ++r) {
        i32 t1 = tap_on(across, r1.distance - o1 * across.stride, r, rows);
        if (t1 < 0) continue;
        i32 number = (t0 * across.kernel + t1) * K;
#pragma unroll
        for (int v = 0; v < V; ++v) {
#pragma unroll
          for (int o = 0; o < Row::PACKS * Row::C; ++o) {
            int tap = v + PAD - (o - Row::OWN) * STRIDE;
            if (tap >= 0 && tap < K && (i32)named[o] == number + tap)
              totals[r][v] += (double)widen(sent[o]);
          }
        }
      }
      Taps<i32> t1s = taps_of<false>(across, o1);
      i32 top = t1s.start + t1s.first * across.dilation;  // first row of the window
      if (top < own || top >= own + rows || !is_first(windows.axes[0], place.at[0], t0)) continue;
      if (is_cut(windows.axes[0], place.at[0], t0) || is_cut(across, top, t1s.first)) {
        Taps<i32> taps[3] = {taps_of<false>(windows.axes[0], o0), t1s};
        i32 stop = (place.at[2] + 1) * Row::C + Row::LATER;
        stop = stop < inner.outputs ? stop : inner.outputs;
        for (i32 o2 = place.at[2] ? place.at[2] * Row::C + Row::LATER : 0; o2 < stop; ++o2) {
          taps[2] = taps_of<false>(inner, o2);
          Pack<I, 1> index = {indices[row * inner.outputs + o2]};
          is_wrong |= are_forged<3>(windows, taps, index);
        }
        continue;
      }
#pragma unroll
      for (int v = 0; v < V; ++v) {
#pragma unroll
        for (int o = 0; o < Row::PACKS * Row::C; ++o) {
          int tap = v + PAD - (o - Row::OWN) * STRIDE;
          if (tap && (v || tap < 0 || tap > PAD || place.at[2])) continue;  // not the first element
          i32 index = named[o], along = index % K;
          bool is_within = index < windows.taps && along >= tap;
          if (v + K > V) is_within &= along - tap < inner.size - place.at[2] * V - v;
          is_wrong |= named[o] != (I)-1 && !is_within;
        }
      }
    }
  }
  write_gradients(dx, windows, place, own, rows, totals);
  if (is_wrong) *doubt = 1;
}

// Gradient of AVERAGE and SUM in float64, in tap order. Each column of outputs is summed once for
// all elements that it covers.
template <typename E, int K, int STRIDE, int PAD, int V>
__global__ void sum_row_gradients(const E *dy, E *dx, Scale scale, Windows<i32> windows) {
  using Row = Reached<K, STRIDE, PAD, V>;
  constexpr int COLUMNS = Row::PACKS * Row::C, ROWS = Row::ROWS_OF_SUMS;
  i32 thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<i32> place = place_of<3, 1>(windows, thread);
  const Axis<i32> &across = windows.axes[1], &inner = windows.axes[2];
  i32 own = place.at[1] * windows.rows, rows = rows_from(windows, own);
  Reach<i32> r0 = reach_of<false>(windows.axes[0], place.at[0]);
  Reach<i32> r1 = reach_of<false>(across, own, rows - 1);
  i32 first = place.at[2] - Row::BEFORE;
  double columns[ROWS][COLUMNS] = {};
  i32 along[COLUMNS];  // divisors along the row: K, except at its ends
  bool is_even = true;
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) {
    i32 output = first * Row::C + c;
    bool is_counted = windows.rule >= VALID_TAPS && output >= 0 && output < inner.outputs;
    along[c] = is_counted ? divisor_of<false>(inner, output, windows.rule) : K;
    is_even &= along[c] == K;
  }
  for (i32 n1 = 0; n1 < r1.count; ++n1) {
    i32 o1 = in_tap_order<false>(across, r1, n1);
    double parts[COLUMNS] = {};
    for (i32 n0 = 0; n0 < r0.count; ++n0) {
      i32 o0 = in_tap_order<false>(windows.axes[0], r0, n0);
      if (tap_at<false>(windows.axes[0], r0, o0) < 0) continue;
      double outer = 1;
      if (windows.rule >= VALID_TAPS) {
        outer = (double)divisor_of<false>(windows.axes[0], o0, windows.rule) *
                divisor_of<false>(across, o1, windows.rule);
        scale = scale_of<E>(outer * K);
      }
      i32 row = (place.plane * windows.axes[0].outputs + o0) * across.outputs + o1;
      E sent[COLUMNS];
      read_packs<Row::PACKS, Row::C>(dy + row * inner.outputs, first, inner.outputs / Row::C, E{},
                                     sent);
      if (is_even && is_multiplied<E>(windows.rule)) {
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) parts[c] += product<E>((double)widen(sent[c]), scale);
        continue;
      }
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        Scale each = along[c] == K ? scale : scale_of<E>(outer * along[c]);
        parts[c] += quotient<E>((double)widen(sent[c]), each, windows.rule);
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      if (tap_on(across, r1.distance - o1 * across.stride, r, rows) < 0) continue;
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) columns[r][c] += parts[c];
    }
  }
  double totals[ROWS][V] = {};
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
#pragma unroll
      for (int o = COLUMNS - 1; o >= 0; --o) {
        int tap = v + PAD - (o - Row::OWN) * STRIDE;
        if (tap >= 0 && tap < K) totals[r][v] += columns[r][o];
      }
    }
  }
  write_gradients(dx, windows, place, own, rows, totals);
}
