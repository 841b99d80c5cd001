// Norms of large windows and of whole planes, channels first: a team of threads per window or
// plane.
#include "norms.cu"
#include "teams.cu"

// Gives all threads of a team its largest magnitude and the first place of that.
template <int TEAM, typename W> __device__ void share_largest(W &largest, i64 &place) {
  __shared__ W given[THREADS];
  __shared__ i64 places[THREADS];
  first_of_team<Larger, TEAM>(largest, place);
  given[threadIdx.x] = largest;
  places[threadIdx.x] = place;
  __syncthreads();
  largest = given[threadIdx.x / TEAM * TEAM];
  place = places[threadIdx.x / TEAM * TEAM];
}

// Adds in the order of `norm_windows`: a thread sums a column of taps, and columns are added in
// order.
template <typename E, typename Y, Norm NORM, int TEAM>
__global__ void norm_by_teams(const E *x, Y *y, double p, Windows<i32> windows) {
  __shared__ double columns[THREADS];
  i32 output = blockIdx.x * (THREADS / TEAM) + threadIdx.x / TEAM, member = threadIdx.x % TEAM;
  bool has_work = output < windows.count;
  Place<i32> place = place_of<3, 1>(windows, has_work ? output : 0);
  Footprint<i32> print = footprint_of<3, 1, true>(windows, place);
  Terms<E, NORM> terms{p};
  i64 first = -1;
  if constexpr (COMPARES<E, NORM>) {
    Wide<E> largest;
    i32 number;
    find_largest<1>(x, windows, print, &largest, &number, member, TEAM);
    first = number;
    share_largest<TEAM>(largest, first);
    terms.set(largest);
  }
  double total = 0;
  if constexpr (!SELECTS<NORM>) {
    for (i32 t = 0; t < windows.axes[2].kernel; t += TEAM) {  // all teams reach each barrier
      i32 t2 = print.taps[2].first + t + member;
      double column = 0;
      if (t2 < print.taps[2].stop)
        add_terms<1, 0, 1>(x + print.origin + t2 * print.step[2], print, &terms, &column);
      columns[threadIdx.x] = column;
      __syncthreads();
      if (!member)
        for (int m = 0; m < TEAM; ++m) total += columns[threadIdx.x + m];
      __syncthreads();
    }
  }
  if (member || !has_work) return;
  round_to(NORM == FIRST_LARGEST ? (double)first : terms.norm(total), y[output]);
}

// Planes of `size` elements: TEAM threads read a plane together, V elements at a time. Sums in the
// order of `sum_planes`.
template <typename E, typename Y, Norm NORM, int TEAM, int V>
__global__ void norm_planes(const E *x, Y *y, double p, i64 planes, i64 size) {
  constexpr int RUN = LANES / V;        // threads per run
  constexpr int RUNS = TEAM / RUN;      // runs that a team sums at once
  __shared__ double sums[THREADS * V];  // indexed by team, run and lane
  int own = threadIdx.x, member = own % TEAM;
  i64 plane = (i64)blockIdx.x * (THREADS / TEAM) + own / TEAM;
  bool has_work = plane < planes;
  const E *elements = x + plane * size;
  Terms<E, NORM> terms{p};
  i64 place = -1;
  if constexpr (COMPARES<E, NORM>) {
    Wide<E> largest = 0;
    for (i64 at = has_work ? member * V : size; at < size; at += TEAM * V) {
      Pack<E, V> taken = *(const Pack<E, V> *)(elements + at);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        Wide<E> value = fabs(widen(taken.at[v]));
        bool is_new = is_taken<Larger, false>(value, largest, place >= 0);
        largest = is_new ? value : largest;
        place = is_new ? at + v : place;
      }
    }
    share_largest<TEAM>(largest, place);
    terms.set(largest);
  }
  double *team = sums + own / TEAM * RUNS * LANES;
  double total = 0;
  if constexpr (!SELECTS<NORM>) {
    for (i64 first = 0; first < size; first += RUNS * BLOCK) {
      i64 begin = first + member / RUN * BLOCK, stop = begin + BLOCK < size ? begin + BLOCK : size;
      double parts[V] = {};
      for (i64 at = has_work ? begin + member % RUN * V : stop; at < stop; at += LANES) {
        Pack<E, V> taken = *(const Pack<E, V> *)(elements + at);
#pragma unroll
        for (int v = 0; v < V; ++v) parts[v] += terms.of(taken.at[v]);
      }
#pragma unroll
      for (int v = 0; v < V; ++v) team[member * V + v] = parts[v];
      __syncthreads();
      if (member < LANES)
        for (int run = 0; run < RUNS; ++run) total += team[run * LANES + member];
      __syncthreads();
    }
    if (member < LANES) team[member] = total;
    for (int half = LANES / 2; half; half /= 2) {
      __syncthreads();
      if (member < half) team[member] = total += team[member + half];
    }
  }
  if (member || !has_work) return;
  round_to(NORM == FIRST_LARGEST ? (double)place : terms.norm(total), y[plane]);
}
