// MAX and MIN of square windows with stride 1: a thread computes V adjacent outputs in each of ROWS
// adjacent rows. The result of a window is the first of the best results of its rows, so each row
// is reduced once for all windows that contain it.
#include "rows.cu"

// The first of the best of some taps, and its number: K per row, 1 per column.
template <typename W> struct Winner { W value; i32 at; };

template <typename Order, typename W>
__device__ Winner<W> first_best(Winner<W> earlier, Winner<W> later) {
  return Order::is_better(later.value, earlier.value) ? later : earlier;
}

// The winners of N adjacent windows of K elements, out of N + K - 1 elements. These are cut into
// runs of K; a window is the end of one run and the beginning of the next.
template <typename Order, int K, int N, typename W>
__device__ void take_windows(const Winner<W> *all, Winner<W> *winners) {
  Winner<W> ends[N + K - 1], begins[N + K - 1];
#pragma unroll
  for (int c = N + K - 2; c >= 0; --c)
    ends[c] = c % K == K - 1 || c == N + K - 2 ? all[c] : first_best<Order>(all[c], ends[c + 1]);
#pragma unroll
  for (int c = 0; c < N + K - 1; ++c)
    begins[c] = c % K == 0 ? all[c] : first_best<Order>(begins[c - 1], all[c]);
#pragma unroll
  for (int n = 0; n < N; ++n)
    winners[n] = n % K == 0 ? ends[n] : first_best<Order>(ends[n], begins[n + K - 1]);
}

// The winners of the V windows of a thread in its row `number`, which may be in the padding.
// Returns whether the row has a NaN.
template <typename Order, int K, int PAD, int V, typename E>
__device__ bool take_row(const E *plane, const Windows<i32> &windows, const Place<i32> &place, i32 row,
                         int number, Winner<Wide<E>> *winners) {
  using Row = Read<K, 1, PAD, V>;
  const Axis<i32> &inner = windows.axes[2];
  bool is_within = row >= 0 && row < windows.axes[1].size, has_nan = false;
  E elements[Row::PACKS * V];
  read_packs<Row::PACKS, V>(plane + row * inner.size, place.at[2] - Row::BEFORE,
                            is_within ? inner.size / V : 0, infinity_of<E>(Order::is_better(1, 0)),
                            elements);
  Winner<Wide<E>> all[V + K - 1];
#pragma unroll
  for (int c = 0; c < V + K - 1; ++c) {
    all[c] = {widen(elements[Row::TAP + c]), number * K + c};
    has_nan |= all[c].value != all[c].value;
  }
  take_windows<Order, K, V>(all, winners);
  return has_nan;
}

// As `select_rows`, for windows of K by K taps.
template <typename E, typename I, typename Order, bool IGNORES, int K, int STRIDE, int PAD, int V,
          int ROWS>
__global__ void select_square_rows(const E *x, E *y, I *indices, int *doubt, Windows<i32> windows) {
  static_assert(STRIDE == 1 && ROWS <= K, "all windows of a thread have a row in common");
  using W = Wide<E>;
  i32 thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<i32> place = place_of<3, 1>(windows, thread);
  place.at[1] *= ROWS;
  const Axis<i32> &outer = windows.axes[0], &middle = windows.axes[1], &inner = windows.axes[2];
  const E *plane =
      x + (place.plane * outer.size + place.at[0] * outer.stride) * middle.size * inner.size;
  i32 start = place.at[1] - middle.padding;
  Winner<W> winners[ROWS][V], row[V], later[V];
  bool has_nan = false;
#pragma unroll
  for (int r = 0; r < K; ++r) {  // all windows share rows ROWS - 1 to K - 1
    has_nan |= take_row<Order, K, PAD, V>(plane, windows, place, start + r, r, row);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (r < ROWS) winners[r][v] = row[v];
      else winners[ROWS - 1][v] = first_best<Order>(winners[ROWS - 1][v], row[v]);
    }
  }
#pragma unroll
  for (int j = ROWS - 2; j >= 0; --j)
#pragma unroll
    for (int v = 0; v < V; ++v) winners[j][v] = first_best<Order>(winners[j][v], winners[j + 1][v]);
#pragma unroll
  for (int j = 1; j < ROWS; ++j) {
    has_nan |= take_row<Order, K, PAD, V>(plane, windows, place, start + K - 1 + j, K - 1 + j, row);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      later[v] = j == 1 ? row[v] : first_best<Order>(later[v], row[v]);
      winners[j][v] = first_best<Order>(winners[j][v], later[v]);
    }
  }
  i32 stop = middle.outputs - place.at[1];
  if (has_nan) {  // row by row
    for (int j = 0; j < ROWS && j < stop; ++j, ++place.at[1])
      select_row<true, IGNORES, Order, K, 1, PAD, V>(x, y, indices, doubt, windows, place);
    return;
  }
  i32 first = (place.plane * outer.outputs + place.at[0]) * middle.outputs + place.at[1];
#pragma unroll
  for (int j = 0; j < ROWS; ++j) {
    if (j >= stop) break;
    Pack<E, V> chosen;
    Pack<I, V> packed;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      chosen.at[v] = narrowed<E>(winners[j][v].value);
      if constexpr (!IsNone<I>::value) {
        i32 above = start + j, before = place.at[2] * V + v - PAD;  // taps in the padding never win
        i32 least = (above < 0 ? -above * K : 0) + (before < 0 ? -before : 0);
        bool is_infinite = winners[j][v].value == infinity_of<W>(Order::is_better(1, 0));
        packed.at[v] = (I)(is_infinite ? least : winners[j][v].at - j * K - v);
      }
    }
    i32 at = (first + j) * inner.outputs;
    write_row(y + at, place.at[2] * V, inner.outputs, chosen);
    if constexpr (!IsNone<I>::value)
      write_row(indices + at, place.at[2] * V, inner.outputs, packed);
  }
}
