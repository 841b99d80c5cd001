// Conversion of window indices to positions in the plane or the tensor, and back: a thread per
// output.
#include "windows.cuh"

constexpr i64 NO_POSITION = -1;  // for a window without elements

// The offset of a plane: `step` for every plane before it, channels first.
template <typename N>
__device__ i64 plane_start(const Windows<N> &windows, const Place<N> &place, i64 step) {
  return ((i64)place.plane * windows.channels + place.channel) * step;
}

// Converts taps. `step` is the size of a plane for positions in the tensor, and 0 for those in the
// plane.
template <typename I, int RANK, bool SHARED, typename N, int V>
__global__ void to_positions(const I *indices, i64 *positions, i64 step, Windows<N> windows) {
  N thread = (N)blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  Place<N> place = place_of<RANK, V>(windows, thread);
  I named = indices[thread];
  N rest = (N)named;
  i64 position = 0, row = 1;
#pragma unroll
  for (int a = 2; a >= 3 - RANK; --a) {
    const Axis<N> &axis = windows.axes[a];
    N quotient = rest / axis.kernel, tap = rest - quotient * axis.kernel;
    position += (taps_of<SHARED>(axis, place.at[a]).start + tap * axis.dilation) * row;
    row *= axis.size;
    rest = quotient;
  }
  position += plane_start(windows, place, step);
  positions[thread] = named == (I)-1 ? NO_POSITION : position;
}

// Converts to taps. Sets the flag if no tap of the window lies on an element at a position.
template <typename I, int RANK, bool SHARED, typename N, int V>
__global__ void from_positions(const i64 *positions, I *indices, int *doubt, i64 step,
                               Windows<N> windows) {
  N thread = (N)blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= windows.count) return;
  i64 position = positions[thread];
  if (position == NO_POSITION) {
    indices[thread] = (I)-1;
    return;
  }
  Place<N> place = place_of<RANK, V>(windows, thread);
  i64 plane = 1;
#pragma unroll
  for (int a = 3 - RANK; a < 3; ++a) plane *= windows.axes[a].size;
  u64 offset = (u64)position - (u64)plane_start(windows, place, step);  // may be out of range
  bool is_wrong = offset >= (u64)plane;
  N rest = is_wrong ? 0 : (N)offset, number = 0, weight = 1;
#pragma unroll
  for (int a = 2; a >= 3 - RANK; --a) {
    const Axis<N> &axis = windows.axes[a];
    Taps<N> taps = taps_of<SHARED>(axis, place.at[a]);
    N quotient = rest / axis.size, distance = rest - quotient * axis.size - taps.start;
    N tap = distance / axis.dilation;
    is_wrong |= distance < 0 || tap * axis.dilation != distance || tap < taps.first ||
                tap >= taps.stop;
    number += tap * weight;
    weight *= axis.kernel;
    rest = quotient;
  }
  indices[thread] = (I)number;
  if (is_wrong) *doubt = 1;
}
