// Windows as integers: which taps an output has, and which outputs reach a position.
//
// N is the type of all positions: 32 bits wherever the whole tensor can be counted in them.
// Tensors are (planes, D1..Dn, channels), n from 1 to 3; the axes are the last n of three.
#pragma once
#include "elements.cuh"

// Divides by a number that the host knows: by a multiplication where 32 bits do.
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
  N stride;    // 0: windows share out the axis, as floor(o * size / outputs) to the next ceiling
  N dilation, padding;
  N end;       // the size and the padding after it
  Divisor<N> own;  // of the tensor that the threads are laid over: outputs forward, size backward
  Divisor<N> by_stride, by_dilation;
};

enum DivisorRule { MULTIPLY, DIVIDE, VALID_TAPS, PADDED_TAPS };

// What sums are multiplied by: `value + rest`, of one sign. Or `value` is what they are divided by.
struct Scale { double value, rest; };

template <typename N> struct Windows {
  Axis<N> axes[3];
  N channels;
  Divisor<N> vectors;  // of channels at one position
  N count;             // of threads that have work
  N taps, rule;
  N rows;              // along the last axis but one, of a thread
};

template <typename N> struct Taps { N start, first, stop; };

// The position of tap 0 of an output, and the range of its taps that are on elements.
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

// What an average divides by, along one axis.
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

// Whether sums of elements E are multiplied. Those of 16 and of 32 bits are, which gives the bits of a
// division (`division.py` says why), unless the caller's divisor has no such factor.
template <typename E> __device__ bool is_multiplied(int rule) {
  return sizeof(E) > 4 ? rule == MULTIPLY : rule != DIVIDE;
}

template <typename E> __device__ double product(double sum, Scale scale) {
  if constexpr (sizeof(E) > 4) return sum * scale.value;
  return fma(sum, scale.value, sum * scale.rest);  // of an infinity, both have one sign
}

template <typename E> __device__ double quotient(double sum, Scale scale, int rule) {
  return is_multiplied<E>(rule) ? product<E>(sum, scale) : sum / scale.value;
}

// That of a divisor which the host does not know: a count of taps.
template <typename E> __device__ Scale scale_of(double divisor) {
  if constexpr (sizeof(E) > 4) return {divisor, 0};
  double value = __longlong_as_double(__double_as_longlong(1 / divisor) - 1);
  return {value, fma(-value, divisor, 1.0) * value};
}

// The outputs that may reach a position, or one of `more` after it; and the distance of the position
// from tap 0 of the first output.
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

// The number of the tap that an output has on the position, or -1.
template <bool SHARED, typename N>
__device__ N tap_at(const Axis<N> &axis, const Reach<N> &reach, N output) {
  if (SHARED && axis.stride == 0) return reach.distance - output * axis.size / axis.outputs;
  N distance = reach.distance - output * axis.stride;
  if (axis.dilation == 1) return distance;
  N tap = axis.by_dilation.divide(distance);
  return tap * axis.dilation == distance ? tap : -1;
}

// The output that comes `number`-th in tap order: the last has the first tap. Windows that share out
// an axis are of several kinds, and are taken in their order.
template <bool SHARED, typename N>
__device__ N in_tap_order(const Axis<N> &axis, const Reach<N> &reach, N number) {
  if (SHARED && axis.stride == 0) return reach.low + number;
  return reach.low + reach.count - 1 - number;
}

// Where a thread's element is in the tensor that the threads are laid over.
template <typename N> struct Place { N plane, at[3], channel; };

// V: the channels that a thread takes, side by side; one, where they are first.
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
