// Norms of windows of any kind, and their gradients, in float64: a thread per output (forward) or
// input element (backward), or per V channels of one position.
#include "forward.cu"

// Sum of magnitudes (p = 1), root of the sum of squares (p = 2), largest magnitude (p = infinity),
// the number of the first tap with the largest magnitude (for its gradient), or any other p.
enum Norm { MAGNITUDES, SQUARES, LARGEST, FIRST_LARGEST, POWERS };

template <Norm NORM> constexpr bool SELECTS = NORM == LARGEST || NORM == FIRST_LARGEST;
// The square of any float32 fits in float64.
template <typename E, Norm NORM>
constexpr bool SCALES = NORM == POWERS || (NORM == SQUARES && sizeof(E) == 8);
template <typename E, Norm NORM> constexpr bool COMPARES = SELECTS<NORM> || SCALES<E, NORM>;

// Uses multiplications if the exponent is a whole number up to 64. The exponent is not negative.
__device__ inline double power(double base, double exponent) {
  int whole = exponent <= 64 ? (int)exponent : 0;
  if (whole != exponent) return pow(base, exponent);
  double result = 1;
  for (; whole; whole >>= 1, base *= base)
    if (whole & 1) result *= base;
  return result;
}

// Terms of the sum of one window, and its norm from that sum. Magnitudes are divided by the
// largest, so that no power overflows. If powers up to 2^p do not overflow either, they are divided
// by a power of two instead, which is exact.
template <typename E, Norm NORM> struct Terms {
  double p, largest, scale = 1, inverse = 1;  // inverse 0: divides by scale

  __device__ void set(double most) {
    largest = most;
    if (!SCALES<E, NORM> || is_norm()) return;
    bool is_power = p <= 64 && largest >= 0x1p-1022;
    i64 exponent = __double_as_longlong(largest) & 0x7ff0000000000000ll;
    scale = is_power ? __longlong_as_double(exponent) : largest;
    inverse = is_power ? 1 / scale : 0;
  }
  // Whether the largest magnitude is the norm, because it is 0, infinite or NaN.
  __device__ bool is_norm() const { return !(largest > 0 && largest < infinity_of<double>(false)); }

  __device__ double of(E element) const {
    double term = fabs((double)widen(element));
    if (NORM == MAGNITUDES) return term;
    if (SCALES<E, NORM>) term = inverse != 0 ? term * inverse : term / scale;
    return NORM == SQUARES ? term * term : power(term, p);
  }
  __device__ double norm(double total) const {
    if (SELECTS<NORM> || (SCALES<E, NORM> && is_norm())) return largest;
    if (NORM == MAGNITUDES) return total;
    return (NORM == SQUARES ? sqrt(total) : pow(total, 1 / p)) * scale;
  }
};

// Finds the largest magnitude, or NaN, and the number of the first tap that has it; 0 and -1 if
// there are no taps. Of every row it reads each `apart`-th tap from `first` on.
template <int V, typename E, typename N>
__device__ void find_largest(const E *x, const Windows<N> &windows, const Footprint<N> &print,
                             Wide<E> *largest, N *numbers, N first = 0, N apart = 1) {
#pragma unroll
  for (int v = 0; v < V; ++v) largest[v] = 0, numbers[v] = -1;
  for (N t0 = print.taps[0].first; t0 < print.taps[0].stop; ++t0) {
    for (N t1 = print.taps[1].first; t1 < print.taps[1].stop; ++t1) {
      N number = (t0 * windows.axes[1].kernel + t1) * windows.axes[2].kernel;
      N row = print.origin + t0 * print.step[0] + t1 * print.step[1];
      for (N t2 = print.taps[2].first + first; t2 < print.taps[2].stop; t2 += apart) {
        Pack<E, V> taken = *(const Pack<E, V> *)(x + row + t2 * print.step[2]);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          Wide<E> value = fabs(widen(taken.at[v]));
          bool is_new = is_taken<Larger, false>(value, largest[v], numbers[v] >= 0);
          largest[v] = is_new ? value : largest[v];
          numbers[v] = is_new ? number + t2 : numbers[v];
        }
      }
    }
  }
}

// Sums along axes A, A - 1, .. FIRST; terms along the first axis are added first.
template <int A, int FIRST, int V, typename E, Norm NORM, typename N>
__device__ void add_terms(const E *x, const Footprint<N> &print, const Terms<E, NORM> *terms,
                          double *total) {
#pragma unroll
  for (int v = 0; v < V; ++v) total[v] = 0;
  for (N t = print.taps[A].first; t < print.taps[A].stop; ++t) {
    const E *taps = x + t * print.step[A];
    if constexpr (A == FIRST) {
      Pack<E, V> taken = *(const Pack<E, V> *)taps;
#pragma unroll
      for (int v = 0; v < V; ++v) total[v] += terms[v].of(taken.at[v]);
    } else {
      double part[V];
      add_terms<A - 1, FIRST, V>(taps, print, terms, part);
#pragma unroll
      for (int v = 0; v < V; ++v) total[v] += part[v];
    }
  }
}

// Y is E, or double if the gradient needs the norms.
template <typename E, typename Y, Norm NORM, int RANK, bool SHARED, typename N, int V>
__global__ void norm_windows(const E *x, Y *y, double p, Windows<N> windows) {
  N thread = (N)blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<N> place = place_of<RANK, V>(windows, thread);
  Footprint<N> print = footprint_of<RANK, V, SHARED>(windows, place);
  Wide<E> largest[V];
  N numbers[V];
  if (COMPARES<E, NORM>) find_largest<V>(x, windows, print, largest, numbers);
  Terms<E, NORM> terms[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    terms[v].p = p;
    if (COMPARES<E, NORM>) terms[v].set(largest[v]);
  }
  double totals[V] = {};
  if (!SELECTS<NORM>) add_terms<2, 3 - RANK, V>(x + print.origin, print, terms, totals);
  Pack<Y, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v)
    round_to(NORM == FIRST_LARGEST ? (double)numbers[v] : terms[v].norm(totals[v]), packed.at[v]);
  ((Pack<Y, V> *)y)[thread] = packed;
}

// Sums the gradients that outputs send to V elements, the last axis first, in tap order.
template <int A, int V, Norm NORM, bool SHARED, typename E, typename N>
__device__ void add_shares(const E *dy, const double *norms, const Windows<N> &windows,
                           const Reach<N> *reaches, const Place<N> &place, const Pack<E, V> &own,
                           double exponent, N row, N number, double *total) {
  constexpr bool IS_FLAT = NORM == FIRST_LARGEST;  // output order, as for MAX
  const Axis<N> &axis = windows.axes[A];
  for (N n = 0; n < reaches[A].count; ++n) {
    N o = IS_FLAT ? reaches[A].low + n : in_tap_order<SHARED>(axis, reaches[A], n);
    N tap = tap_at<SHARED>(axis, reaches[A], o);
    if (tap < 0) continue;
    N output = row * axis.outputs + o, wanted = number * axis.kernel + tap;
    if constexpr (A < 2) {
      double part[V] = {};
      add_shares<A + 1, V, NORM, SHARED>(dy, norms, windows, reaches, place, own, exponent, output,
                                         wanted, IS_FLAT ? total : part);
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (!IS_FLAT) total[v] += part[v];
    } else {
      output = output * windows.channels + place.channel;
      Pack<E, V> sent = *(const Pack<E, V> *)(dy + output);
      Pack<double, V> named = *(const Pack<double, V> *)(norms + output);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        double share = widen(sent.at[v]), norm = named.at[v];
        if (NORM == SQUARES || NORM == POWERS) {
          double magnitude = fabs((double)widen(own.at[v]));
          double ratio = magnitude >= norm ? 1 : magnitude / norm;  // 1 for infinity / infinity
          share *= NORM == SQUARES ? ratio : power(ratio, exponent);
        }
        bool is_sent = NORM == FIRST_LARGEST ? norm == (double)wanted : norm != 0;
        if (is_sent) total[v] += share;
      }
    }
  }
}

// dx = sum over windows of dy * sign(x) * (abs(x) / norm)^(p - 1), or 0 if the norm is 0.
template <typename E, Norm NORM, int RANK, bool SHARED, typename N, int V>
__global__ void norm_gradients(const E *dy, const double *norms, const E *x, E *dx, double p,
                               Windows<N> windows) {
  N thread = (N)blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<N> place = place_of<RANK, V>(windows, thread);
  Reach<N> reaches[3] = {};
#pragma unroll
  for (int a = 3 - RANK; a < 3; ++a) reaches[a] = reach_of<SHARED>(windows.axes[a], place.at[a]);
  Pack<E, V> own = ((const Pack<E, V> *)x)[thread];
  double totals[V] = {};
  add_shares<3 - RANK, V, NORM, SHARED>(dy, norms, windows, reaches, place, own, p - 1, place.plane,
                                        (N)0, totals);
  Pack<E, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    double value = widen(own.at[v]), sign = value > 0 ? 1 : value < 0 ? -1 : value;  // 0, or NaN
    bool is_none = totals[v] == 0 || (NORM == FIRST_LARGEST && value == 0);
    round_to(is_none ? 0 : totals[v] * sign, packed.at[v]);
  }
  ((Pack<E, V> *)dx)[thread] = packed;
}
