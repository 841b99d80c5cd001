// Forward passes for windows of any kind: a thread per output, or per V channels of one position.
#include "windows.cuh"

struct Larger {
  template <typename W> static __device__ bool is_better(W a, W b) { return a > b; }
};
struct Smaller {
  template <typename W> static __device__ bool is_better(W a, W b) { return a < b; }
};

// Whether a value replaces the best so far. The first of equals stays; NaN wins, or is ignored.
template <typename Order, bool IGNORES, typename W>
__device__ bool is_taken(W value, W best, bool has_best) {
  if (IGNORES) return Order::is_better(value, best) || (!has_best && value == value);
  return !has_best || Order::is_better(value, best) || (value != value && best == best);
}

// The window of one output.
template <typename N> struct Footprint { Taps<N> taps[3]; N step[3], origin; };

template <int RANK, int V, bool SHARED, typename N>
__device__ Footprint<N> footprint_of(const Windows<N> &windows, const Place<N> &place) {
  Footprint<N> print;
  N step = windows.channels;
  print.origin = place.channel;
#pragma unroll
  for (int a = 2; a >= 0; --a) {
    if (a < 3 - RANK) {
      print.taps[a] = {0, 0, 1};
      print.step[a] = 0;
      continue;
    }
    const Axis<N> &axis = windows.axes[a];
    print.taps[a] = taps_of<SHARED>(axis, place.at[a]);
    print.origin += print.taps[a].start * step;
    print.step[a] = axis.dilation * step;
    step *= axis.size;
  }
  print.origin += place.plane * step;
  return print;
}

// MAX and MIN in tap order. Writes the element unchanged and, unless I is None, the number of its
// tap.
template <typename E, typename I, typename Order, bool IGNORES, int RANK, bool SHARED, typename N,
          int V>
__global__ void select_windows(const E *x, E *y, I *indices, int *doubt, Windows<N> windows) {
  N thread = (N)blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<N> place = place_of<RANK, V>(windows, thread);
  Footprint<N> print = footprint_of<RANK, V, SHARED>(windows, place);
  Wide<E> best[V];
  Pack<E, V> chosen;
  N numbers[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    best[v] = infinity_of<Wide<E>>(Order::is_better(1, 0));
    chosen.at[v] = infinity_of<E>(Order::is_better(1, 0));
    numbers[v] = -1;
  }
  bool is_empty = true;
  for (N t0 = print.taps[0].first; t0 < print.taps[0].stop; ++t0) {
    for (N t1 = print.taps[1].first; t1 < print.taps[1].stop; ++t1) {
      N number = (t0 * windows.axes[1].kernel + t1) * windows.axes[2].kernel;
      N row = print.origin + t0 * print.step[0] + t1 * print.step[1];
      for (N t2 = print.taps[2].first; t2 < print.taps[2].stop; ++t2) {
        is_empty = false;
        Pack<E, V> taken = *(const Pack<E, V> *)(x + row + t2 * print.step[2]);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          Wide<E> value = widen(taken.at[v]);
          bool is_new = is_taken<Order, IGNORES>(value, best[v], numbers[v] >= 0);
          best[v] = is_new ? value : best[v];
          chosen.at[v] = is_new ? taken.at[v] : chosen.at[v];
          numbers[v] = is_new ? number + t2 : numbers[v];
        }
      }
    }
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (IGNORES && numbers[v] < 0 && !is_empty) chosen.at[v] = nan_of<E>();
    if (!IGNORES && doubt && best[v] != best[v]) *doubt = 1;
  }
  ((Pack<E, V> *)y)[thread] = chosen;
  if constexpr (!IsNone<I>::value) {
    Pack<I, V> packed;
#pragma unroll
    for (int v = 0; v < V; ++v) packed.at[v] = (I)numbers[v];  // -1 (the largest value) is none
    ((Pack<I, V> *)indices)[thread] = packed;
  }
}

// Sums along axes A, A - 1, .. FIRST; elements along the first axis are added first.
template <int A, int FIRST, int V, typename E, typename N>
__device__ void add_taps(const E *x, const Footprint<N> &print, double *total) {
#pragma unroll
  for (int v = 0; v < V; ++v) total[v] = 0;
  for (N t = print.taps[A].first; t < print.taps[A].stop; ++t) {
    const E *taps = x + t * print.step[A];
    if constexpr (A == FIRST) {
      Pack<E, V> taken = *(const Pack<E, V> *)taps;
#pragma unroll
      for (int v = 0; v < V; ++v) total[v] += (double)widen(taken.at[v]);
    } else {
      double part[V];
      add_taps<A - 1, FIRST, V>(taps, print, part);
#pragma unroll
      for (int v = 0; v < V; ++v) total[v] += part[v];
    }
  }
}

// AVERAGE and SUM in float64.
template <typename E, int RANK, bool SHARED, typename N, int V>
__global__ void sum_windows(const E *x, E *y, Scale scale, Windows<N> windows) {
  N thread = (N)blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<N> place = place_of<RANK, V>(windows, thread);
  Footprint<N> print = footprint_of<RANK, V, SHARED>(windows, place);
  double totals[V];
  add_taps<2, 3 - RANK, V>(x + print.origin, print, totals);
  if (windows.rule >= VALID_TAPS) {
    double divisor = 1;
#pragma unroll
    for (int a = 3 - RANK; a < 3; ++a)
      divisor *= divisor_of<SHARED>(windows.axes[a], place.at[a], windows.rule);
    scale = scale_of<E>(divisor);
  }
  Pack<E, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v)
    round_to(quotient<E>(totals[v], scale, windows.rule), packed.at[v]);
  ((Pack<E, V> *)y)[thread] = packed;
}
