// Large windows that are far apart or few, channels first: a team of threads per output, adjacent
// along the innermost axis.
#include "ties.cu"
#include "whole.cu"

// MAX and MIN. Every thread reads its taps in order, and the first of equals wins within the team.
template <typename E, typename I, typename Order, bool IGNORES, int TEAM>
__global__ void select_by_teams(const E *x, E *y, I *indices, int *doubt, Windows<i32> windows) {
  i32 output = blockIdx.x * (THREADS / TEAM) + threadIdx.x / TEAM, member = threadIdx.x % TEAM;
  bool has_work = output < windows.count;
  Place<i32> place = place_of<3, 1>(windows, has_work ? output : 0);
  Footprint<i32> print = footprint_of<3, 1, true>(windows, place);
  i32 k1 = windows.axes[1].kernel, k2 = windows.axes[2].kernel;
  Wide<E> best = 0;
  i64 first = -1;
  for (i32 t0 = print.taps[0].first; t0 < print.taps[0].stop; ++t0) {
    for (i32 t1 = print.taps[1].first; t1 < print.taps[1].stop; ++t1) {
      const E *row = x + print.origin + t0 * print.step[0] + t1 * print.step[1];
      for (i32 t2 = print.taps[2].first + member; t2 < print.taps[2].stop; t2 += TEAM) {
        Wide<E> value = widen(row[t2 * print.step[2]]);
        bool is_new = first < 0 ? !IGNORES || value == value
                                : is_taken<Order, IGNORES>(value, best, true);
        best = is_new ? value : best;
        first = is_new ? (t0 * k1 + t1) * k2 + t2 : first;
      }
    }
  }
  first_of_team<Order, TEAM>(best, first);
  if (member || !has_work) return;
  bool is_empty = false;
#pragma unroll
  for (int a = 0; a < 3; ++a) is_empty |= print.taps[a].first >= print.taps[a].stop;
  if (first >= 0) {
    i32 row = (i32)first / k2, t2 = (i32)first - row * k2, t0 = row / k1, t1 = row - t0 * k1;
    y[output] = x[print.origin + t0 * print.step[0] + t1 * print.step[1] + t2 * print.step[2]];
  } else {
    y[output] = is_empty ? infinity_of<E>(Order::is_better(1, 0)) : nan_of<E>();
  }
  if (!IGNORES && doubt && best != best) *doubt = 1;
  if constexpr (!IsNone<I>::value) indices[output] = (I)first;  // -1 (the largest value) is none
}

// AVERAGE and SUM in float64. A thread sums a column of taps, and columns are added in order.
template <typename E, int TEAM>
__global__ void sum_by_teams(const E *x, E *y, Scale scale, Windows<i32> windows) {
  __shared__ double columns[THREADS];
  i32 output = blockIdx.x * (THREADS / TEAM) + threadIdx.x / TEAM, member = threadIdx.x % TEAM;
  bool has_work = output < windows.count;
  Place<i32> place = place_of<3, 1>(windows, has_work ? output : 0);
  Footprint<i32> print = footprint_of<3, 1, true>(windows, place);
  double total = 0;
  for (i32 t = 0; t < windows.axes[2].kernel; t += TEAM) {  // all teams reach each barrier
    i32 t2 = print.taps[2].first + t + member;
    double column = 0;
    if (t2 < print.taps[2].stop)
      add_taps<1, 0, 1>(x + print.origin + t2 * print.step[2], print, &column);
    columns[threadIdx.x] = column;
    __syncthreads();
    if (!member)
      for (int m = 0; m < TEAM; ++m) total += columns[threadIdx.x + m];
    __syncthreads();
  }
  if (member || !has_work) return;
  if (windows.rule >= VALID_TAPS) {
    double divisor = 1;
#pragma unroll
    for (int a = 0; a < 3; ++a)
      divisor *= divisor_of<true>(windows.axes[a], place.at[a], windows.rule);
    scale = scale_of<E>(divisor);
  }
  round_to(quotient<E>(total, scale, windows.rule), y[output]);
}

// As `share_windows`. The tied taps are counted as integers, in any order.
template <typename E, bool IGNORES, int TEAM>
__global__ void share_by_teams(const E *x, const E *extremes, const E *dy, double *shares,
                               Windows<i32> windows) {
  __shared__ i32 counts[THREADS];
  i32 output = blockIdx.x * (THREADS / TEAM) + threadIdx.x / TEAM, member = threadIdx.x % TEAM;
  bool has_work = output < windows.count;
  Place<i32> place = place_of<3, 1>(windows, has_work ? output : 0);
  Footprint<i32> print = footprint_of<3, 1, true>(windows, place);
  Wide<E> extreme = widen(extremes[has_work ? output : 0]);
  i32 count = 0;
  for (i32 t0 = print.taps[0].first; t0 < print.taps[0].stop; ++t0) {
    for (i32 t1 = print.taps[1].first; t1 < print.taps[1].stop; ++t1) {
      const E *row = x + print.origin + t0 * print.step[0] + t1 * print.step[1];
      for (i32 t2 = print.taps[2].first + member; t2 < print.taps[2].stop; t2 += TEAM)
        count += is_tied<IGNORES>((Wide<E>)widen(row[t2 * print.step[2]]), extreme);
    }
  }
  counts[threadIdx.x] = count;
  for (int half = TEAM / 2; half; half /= 2) {
    __syncthreads();
    if (member < half) counts[threadIdx.x] = count += counts[threadIdx.x + half];
  }
  if (!member && has_work) shares[output] = (double)widen(dy[output]) / (double)count;
}
