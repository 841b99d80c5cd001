// One window per plane, channels first: a team of threads per plane.
#include "forward.cu"

[[maybe_unused]] constexpr int THREADS = 256;  // per block
constexpr int LANES = 16;     // partial sums per run; `rules.py` has the same numbers
constexpr int BLOCK = 64 * LANES;

// Gives the first thread of a team its best value and the first place of that; the place is -1 if
// no element was selected.
template <typename Order, int TEAM, typename W>
__device__ void first_of_team(W &best, i64 &place) {
  __shared__ W bests[THREADS];
  __shared__ i64 places[THREADS];
  int own = threadIdx.x, member = own % TEAM;
  bests[own] = best;
  places[own] = place;
  for (int half = TEAM / 2; half; half /= 2) {
    __syncthreads();
    if (member >= half) continue;
    W other = bests[own + half];
    i64 there = places[own + half];
    bool is_same = other == best || (other != other && best != best);
    bool is_new =
        place < 0 || (is_same ? there < place : is_taken<Order, false>(other, best, true));
    if (there >= 0 && is_new) {
      bests[own] = best = other;
      places[own] = place = there;
    }
  }
}

// MAX and MIN of planes of `size` elements: TEAM threads read a plane together, V elements at a
// time.
template <typename E, typename I, typename Order, bool IGNORES, int TEAM, int V>
__global__ void select_planes(const E *x, E *y, I *indices, int *doubt, i64 planes, i64 size) {
  int own = threadIdx.x, member = own % TEAM;
  i64 plane = (i64)blockIdx.x * (THREADS / TEAM) + own / TEAM;
  const E *elements = x + plane * size;
  Wide<E> best = 0;
  i64 place = -1;
  for (i64 at = plane < planes ? member * V : size; at < size; at += TEAM * V) {
    Pack<E, V> taken = *(const Pack<E, V> *)(elements + at);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      Wide<E> value = widen(taken.at[v]);
      bool is_new = place < 0 ? !IGNORES || value == value
                              : is_taken<Order, IGNORES>(value, best, true);
      best = is_new ? value : best;
      place = is_new ? at + v : place;
    }
  }
  first_of_team<Order, TEAM>(best, place);
  if (member || plane >= planes) return;
  y[plane] = place < 0 ? nan_of<E>() : elements[place];
  if (!IGNORES && doubt && best != best) *doubt = 1;
  if constexpr (!IsNone<I>::value) indices[plane] = (I)place;
}

// AVERAGE and SUM of planes of `size` elements. A run of BLOCK elements is summed in LANES lanes,
// element i in lane i % LANES, with V lanes per thread. Lanes are summed over the runs; then the
// upper half of the lanes is added to the lower half, repeatedly.
template <typename E, int TEAM, int V>
__global__ void sum_planes(const E *x, E *y, Scale scale, int rule, i64 planes, i64 size) {
  constexpr int RUN = LANES / V;        // threads per run
  constexpr int RUNS = TEAM / RUN;      // runs that a team sums at once
  __shared__ double sums[THREADS * V];  // indexed by team, run and lane
  int own = threadIdx.x, member = own % TEAM;
  i64 plane = (i64)blockIdx.x * (THREADS / TEAM) + own / TEAM;
  const E *elements = x + plane * size;
  double *team = sums + own / TEAM * RUNS * LANES;
  double total = 0;
  for (i64 first = 0; first < size; first += RUNS * BLOCK) {
    i64 begin = first + member / RUN * BLOCK, stop = begin + BLOCK < size ? begin + BLOCK : size;
    double parts[V] = {};
    for (i64 at = plane < planes ? begin + member % RUN * V : stop; at < stop; at += LANES) {
      Pack<E, V> taken = *(const Pack<E, V> *)(elements + at);
#pragma unroll
      for (int v = 0; v < V; ++v) parts[v] += (double)widen(taken.at[v]);
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
  if (!member && plane < planes) round_to(quotient<E>(total, scale, rule), y[plane]);
}
