// Windows as integers: the taps of an output, and the outputs whose windows cover a position.
//
// N is the type of all positions: 32 bits if they number the whole tensor.
// Tensors are (planes, D1..Dn, channels) with n from 1 to 3; the axes are the last n of three.
#pragma once
#include "elements.cuh"

// Divides by a number that the host knows; with 32 bits, by a multiplication.
template <typename N> struct Divisor {
  N value, multiplier, shift;
  __device__ N divide(N n) const {
    if constexpr (sizeof(N) == 4)
      return (N)((__umulhi((u32)n, (u32)multiplier) + (u32)n) >> shift);
    else
      return n / value;
  }
};

template <typename N> struct Axis {
  N size, outputs, kernel;
  N stride;    // 0: adaptive, from floor(o * size / outputs) to ceil((o + 1) * size / outputs)
  N dilation, padding;
  N end;       // size plus the padding after it
  Divisor<N> own;  // number of threads along the axis
  Divisor<N> by_stride, by_dilation;
};

enum DivisorRule { MULTIPLY, DIVIDE, VALID_TAPS, PADDED_TAPS };

// Factor of sums: `value + rest`, with the same sign. Or `value` is a divisor.
struct Scale { double value, rest; };

template <typename N> struct Windows {
  Axis<N> axes[3];
  N channels;
  Divisor<N> vectors;  // packs of channels at one position
  N count;             // threads that have work
  N taps, rule;
  N rows;              // rows per thread along the second-innermost axis
};

template <typename N> struct Taps { N start, first, stop; };

// The position of tap 0 of an output, and the range of its taps that lie on elements.
template <bool SHARED, typename N> __device__ Taps<N> taps_of(const Axis<N> &axis, N output) {
  if (SHARED && axis.stride == 0) {
    N start = output * axis.size / axis.outputs;
    return {start, 0, ((output + 1) * axis.size + axis.outputs - 1) / axis.outputs - start};
  }
  N start = output * axis.stride - axis.padding, first = start < 0 ? -start : 0;
  N room = axis.size - start;  // positions from tap 0 to the end
  if (axis.dilation != 1) {
    first = axis.by_dilation.divide(first + axis.dilation - 1);
    room = room > 0 ? axis.by_dilation.divide(room - 1) + 1 : 0;
  }
  N stop = room < axis.kernel ? room : axis.kernel;
  return {start, first, stop > first ? stop : first};
}

// The divisor of an average along one axis.
template <bool SHARED, typename N>
__device__ N divisor_of(const Axis<N> &axis, N output, N rule) {
  N count;
  if (rule == VALID_TAPS || (SHARED && axis.stride == 0)) {
    Taps<N> taps = taps_of<SHARED>(axis, output);
    count = taps.stop - taps.first;
  } else {
    N room = axis.end - (output * axis.stride - axis.padding);
    count = room > 0 ? axis.by_dilation.divide(room - 1) + 1 : 0;
    count = count < axis.kernel ? count : axis.kernel;
  }
  return count > 1 ? count : 1;
}

// Whether sums of elements E are multiplied. Those of 16 and 32 bits are, which is bit-identical to
// a division (`division.py` has the proof), unless the caller's divisor has no such factor.
template <typename E> __device__ bool is_multiplied(int rule) {
  return sizeof(E) > 4 ? rule == MULTIPLY : rule != DIVIDE;
}

template <typename E> __device__ double product(double sum, Scale scale) {
  if constexpr (sizeof(E) > 4) return sum * scale.value;
  return fma(sum, scale.value, sum * scale.rest);  // for an infinite sum, both have the same sign
}

template <typename E> __device__ double quotient(double sum, Scale scale, int rule) {
  return is_multiplied<E>(rule) ? product<E>(sum, scale) : sum / scale.value;
}

// The scale of a divisor that the host does not know: a count of taps.
template <typename E> __device__ Scale scale_of(double divisor) {
  if constexpr (sizeof(E) > 4) return {divisor, 0};
  double value = __longlong_as_double(__double_as_longlong(1 / divisor) - 1);
  return {value, fma(-value, divisor, 1.0) * value};
}

// The outputs that may cover a position or one of `more` positions after it, and the distance of
// the position from tap 0 of output 0.
template <typename N> struct Reach { N low, count, distance; };

template <bool SHARED, typename N>
__device__ Reach<N> reach_of(const Axis<N> &axis, N position, N more = 0) {
  if (SHARED && axis.stride == 0) {
    N low = position * axis.outputs / axis.size;
    N high = ((position + more + 1) * axis.outputs + axis.size - 1) / axis.size;
    return {low, high - low, position};
  }
  N distance = position + axis.padding, extent = (axis.kernel - 1) * axis.dilation;
  N low = distance > extent ? axis.by_stride.divide(distance - extent + axis.stride - 1) : 0;
  N high = axis.by_stride.divide(distance + more) + 1;
  high = high < axis.outputs ? high : axis.outputs;
  return {low, high > low ? high - low : 0, distance};
}

// The number of the tap of an output that lies on the position, or -1.
template <bool SHARED, typename N>
__device__ N tap_at(const Axis<N> &axis, const Reach<N> &reach, N output) {
  if (SHARED && axis.stride == 0) return reach.distance - output * axis.size / axis.outputs;
  N distance = reach.distance - output * axis.stride;
  if (axis.dilation == 1) return distance;
  N tap = axis.by_dilation.divide(distance);
  return tap * axis.dilation == distance ? tap : -1;
}

// The `number`-th output in tap order: the last output has the first tap. Outputs of an adaptive
// axis are taken in their own order.
template <bool SHARED, typename N>
__device__ N in_tap_order(const Axis<N> &axis, const Reach<N> &reach, N number) {
  if (SHARED && axis.stride == 0) return reach.low + number;
  return reach.low + reach.count - 1 - number;
}

// The place of a thread's element: in the output (forward), or in the input (backward).
template <typename N> struct Place { N plane, at[3], channel; };

// V: adjacent channels per thread; 1 for channels first.
template <int RANK, int V, typename N>
__device__ Place<N> place_of(const Windows<N> &windows, N thread) {
  Place<N> place{};
  N rest = windows.vectors.divide(thread);
  place.channel = (thread - rest * windows.vectors.value) * V;
#pragma unroll
  for (int a = 2; a >= 3 - RANK; --a) {
    N quotient = windows.axes[a].own.divide(rest);
    place.at[a] = rest - quotient * windows.axes[a].own.value;
    rest = quotient;
  }
  place.plane = rest;
  return place;
}
