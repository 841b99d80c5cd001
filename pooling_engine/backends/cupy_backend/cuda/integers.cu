// AVERAGE and SUM of integers. Totals are exact in any order and are rounded once.
#include "whole.cu"

// 128 bits, in which no sum over a tensor overflows.
struct Long {
  u64 low;
  i64 high;
  Long() = default;
  __device__ Long(i64 value) : low(value), high(value < 0 ? -1 : 0) {}
  __device__ Long &operator+=(Long other) {
    low += other.low;
    high += other.high + (low < other.low);
    return *this;
  }
};

// No memory holds enough 8-bit or 16-bit elements to overflow 64 bits.
template <typename E> struct Added { using type = i64; };
template <> struct Added<i32> { using type = Long; };
template <> struct Added<i64> { using type = Long; };
template <typename E> using Total = typename Added<E>::type;

__device__ inline bool fits(i64) { return true; }
__device__ inline bool fits(Long total) { return total.high == ((i64)total.low < 0 ? -1 : 0); }
__device__ inline i64 low_of(i64 total) { return total; }
__device__ inline i64 low_of(Long total) { return (i64)total.low; }

// Rounds a quotient to the nearest float64, ties to even. The total may have more bits than a
// float64, so a long division computes two more bits than the result has. The last of them also
// records whether there is a remainder.
__device__ inline double nearest_quotient(i64 total, double divisor) {
  if (total == 0) return 0;
  u64 bits = __double_as_longlong(divisor), mantissa = bits & 0xfffffffffffff;
  int exponent = bits >> 52 & 0x7ff;
  if (exponent) mantissa |= 1ull << 52, --exponent;
  u64 dividend = total < 0 ? 0 - (u64)total : total;
  u64 quotient = dividend / mantissa, rest = dividend % mantissa;
  int scale = 1074 - exponent;  // unit of the quotient: 2^scale, at least 2^-1076
  for (; quotient < 1ull << 54 && scale > -1076; --scale) {
    u64 is_one = 2 * rest >= mantissa;
    quotient = 2 * quotient + is_one;
    rest = 2 * rest - (is_one ? mantissa : 0);
  }
  u64 tail = (quotient & 3) | (rest != 0), nearest = quotient >> 2;
  nearest += tail + (nearest & 1) > 2;
  double result = ldexp((double)nearest, scale + 2);
  return (total < 0) != (divisor < 0) ? -result : result;
}

// Writes a sum that fits in 64 bits; otherwise sets the flag. Averages of 64 bits are multiplied
// only by powers of two, for which the time of rounding does not matter.
template <typename E, typename R>
__device__ void write_total(Total<E> total, Scale scale, int rule, R &result, int *doubt) {
  i64 sum = low_of(total);
  if (doubt && !fits(total)) *doubt = 1;
  if constexpr (R(0.5) == 0) result = sum;
  else if (sizeof(E) == 8 && !is_multiplied<E>(rule)) result = nearest_quotient(sum, scale.value);
  else round_to(quotient<E>((double)sum, scale, rule), result);
}

template <typename E, int RANK, bool SHARED, typename N>
__device__ Scale scale_at(const Windows<N> &windows, const Place<N> &place, Scale scale) {
  if (windows.rule < VALID_TAPS) return scale;
  double divisor = 1;
#pragma unroll
  for (int a = 3 - RANK; a < 3; ++a)
    divisor *= divisor_of<SHARED>(windows.axes[a], place.at[a], windows.rule);
  return scale_of<E>(divisor);
}

// Sums the values of a team; its first thread receives the sum.
template <int TEAM, typename T> __device__ void add_up_team(T &total) {
  __shared__ T totals[THREADS];
  int own = threadIdx.x, member = own % TEAM;
  totals[own] = total;
  for (int half = TEAM / 2; half; half /= 2) {
    __syncthreads();
    if (member < half) totals[own] = total += totals[own + half];
  }
}

// Windows of any kind: a thread per output, or per V channels of one position.
template <typename E, typename R, int RANK, bool SHARED, typename N, int V>
__global__ void sum_integers(const E *x, R *y, int *doubt, Scale scale, Windows<N> windows) {
  N thread = (N)blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<N> place = place_of<RANK, V>(windows, thread);
  Footprint<N> print = footprint_of<RANK, V, SHARED>(windows, place);
  Total<E> totals[V] = {};
  for (N t0 = print.taps[0].first; t0 < print.taps[0].stop; ++t0) {
    for (N t1 = print.taps[1].first; t1 < print.taps[1].stop; ++t1) {
      const E *row = x + print.origin + t0 * print.step[0] + t1 * print.step[1];
      for (N t2 = print.taps[2].first; t2 < print.taps[2].stop; ++t2) {
        Pack<E, V> taken = *(const Pack<E, V> *)(row + t2 * print.step[2]);
#pragma unroll
        for (int v = 0; v < V; ++v) totals[v] += taken.at[v];
      }
    }
  }
  scale = scale_at<E, RANK, SHARED>(windows, place, scale);
  Pack<R, V> packed;
#pragma unroll
  for (int v = 0; v < V; ++v)
    write_total<E>(totals[v], scale, windows.rule, packed.at[v], doubt);
  ((Pack<R, V> *)y)[thread] = packed;
}

// Large windows, channels first: a team of threads per output, as in `teams.cu`.
template <typename E, typename R, int TEAM>
__global__ void sum_integers_by_teams(const E *x, R *y, int *doubt, Scale scale,
                                      Windows<i32> windows) {
  i32 output = blockIdx.x * (THREADS / TEAM) + threadIdx.x / TEAM, member = threadIdx.x % TEAM;
  bool has_work = output < windows.count;
  Place<i32> place = place_of<3, 1>(windows, has_work ? output : 0);
  Footprint<i32> print = footprint_of<3, 1, true>(windows, place);
  Total<E> total = 0;
  for (i32 t0 = print.taps[0].first; t0 < print.taps[0].stop; ++t0) {
    for (i32 t1 = print.taps[1].first; t1 < print.taps[1].stop; ++t1) {
      const E *row = x + print.origin + t0 * print.step[0] + t1 * print.step[1];
      for (i32 t2 = print.taps[2].first + member; t2 < print.taps[2].stop; t2 += TEAM)
        total += row[t2 * print.step[2]];
    }
  }
  add_up_team<TEAM>(total);
  if (member || !has_work) return;
  scale = scale_at<E, 3, true>(windows, place, scale);
  write_total<E>(total, scale, windows.rule, y[output], doubt);
}

// Whole planes of `size` elements: TEAM threads read a plane together, V elements at a time.
template <typename E, typename R, int TEAM, int V>
__global__ void sum_integer_planes(const E *x, R *y, int *doubt, Scale scale, int rule,
                                   i64 planes, i64 size) {
  int own = threadIdx.x, member = own % TEAM;
  i64 plane = (i64)blockIdx.x * (THREADS / TEAM) + own / TEAM;
  Total<E> total = 0;
  for (i64 at = plane < planes ? member * V : size; at < size; at += TEAM * V) {
    Pack<E, V> taken = *(const Pack<E, V> *)(x + plane * size + at);
#pragma unroll
    for (int v = 0; v < V; ++v) total += taken.at[v];
  }
  add_up_team<TEAM>(total);
  if (!member && plane < planes) write_total<E>(total, scale, rule, y[plane], doubt);
}
