// Element types: storage, computation and rounding.
//
// 16-bit floats are bit patterns that integer arithmetic widens and narrows, so that a host
// compiler can build the same code. No header of CUDA is included, because the sources are compiled
// at run time.
#pragma once

using i8 = signed char;
using i16 = short;
using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i32 = int;
using i64 = long long;

struct Half { u16 bits; };   // float16
struct Brain { u16 bits; };  // bfloat16
struct None {};              // index type of a call without indices

template <typename E> struct Computed { using type = E; };
template <> struct Computed<Half> { using type = float; };
template <> struct Computed<Brain> { using type = float; };
template <typename E> using Wide = typename Computed<E>::type;

template <typename T> struct IsNone { static constexpr bool value = false; };
template <> struct IsNone<None> { static constexpr bool value = true; };

// V adjacent elements, read and written at once up to 16 bytes.
template <typename T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack { T at[V]; };

template <typename E> __device__ E widen(E value) { return value; }
__device__ inline float widen(Brain value) { return __uint_as_float((u32)value.bits << 16); }

__device__ inline float widen(Half value) {
#ifdef __CUDA_ARCH__
  float wide;  // one instruction; the code below is the same for a host
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
#endif
  u32 magnitude = (u32)(value.bits & 0x7fff) << 13, sign = (u32)(value.bits & 0x8000) << 16;
  float scaled = __uint_as_float(magnitude) * __uint_as_float(0x77800000);  // 2^112, exactly
  u32 bits = magnitude < 0x0f800000 ? __float_as_uint(scaled) : magnitude | 0x7f800000;
  return __uint_as_float(bits | sign);
}

// Rounds to odd: towards zero, with a last bit of 1 if the value is inexact. Rounding the result
// again to 16 bits then equals rounding once.
__device__ inline float to_odd(double value) {
  float nearest = (float)value;
  double back = nearest;
  u32 is_inexact = back != value && value == value;
  u32 is_beyond = fabs(back) > fabs(value);
  return __uint_as_float((__float_as_uint(nearest) - (is_inexact & is_beyond)) | is_inexact);
}

__device__ inline u16 narrow_half(float value) {  // no NaN
  u32 bits = __float_as_uint(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000)  // a float16 below 2^-14 is a multiple of 2^-24, as is 0.5
    return sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000);
  return sign | (magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13;
}

__device__ inline u16 narrow_brain(float value) {  // no NaN
  u32 bits = __float_as_uint(value);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// The inverse of `widen`.
template <typename E> __device__ E narrowed(Wide<E> value) { return value; }
template <> __device__ inline Half narrowed<Half>(float value) {
#ifdef __CUDA_ARCH__
  u16 bits;  // one instruction, as in `widen`
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return {bits};
#else
  return {narrow_half(value)};
#endif
}
template <> __device__ inline Brain narrowed<Brain>(float value) {
  return {(u16)(__float_as_uint(value) >> 16)};
}

// Computed values are canonical: NaN is positive and quiet, zero is positive.
template <typename E> __device__ E nan_of() { return {}; }  // integers have no NaN
template <> __device__ inline double nan_of<double>() {
  return __longlong_as_double(0x7ff8000000000000ll);
}
template <> __device__ inline float nan_of<float>() { return __uint_as_float(0x7fc00000); }
template <> __device__ inline Half nan_of<Half>() { return {0x7e00}; }
template <> __device__ inline Brain nan_of<Brain>() { return {0x7fc0}; }

template <typename E> __device__ E infinity_of(bool is_negative) {  // the extremes, for integers
  constexpr E least = (E)-1 > 0 ? 0 : (E)(1ull << (8 * sizeof(E) - 1));
  return is_negative ? least : (E)~least;
}
template <> __device__ inline double infinity_of<double>(bool is_negative) {
  double infinity = __longlong_as_double(0x7ff0000000000000ll);
  return is_negative ? -infinity : infinity;
}
template <> __device__ inline float infinity_of<float>(bool is_negative) {
  return __uint_as_float(is_negative ? 0xff800000 : 0x7f800000);
}
template <> __device__ inline Half infinity_of<Half>(bool is_negative) {
  return {(u16)(is_negative ? 0xfc00 : 0x7c00)};
}
template <> __device__ inline Brain infinity_of<Brain>(bool is_negative) {
  return {(u16)(is_negative ? 0xff80 : 0x7f80)};
}

// Rounds a sum once to the type of the tensor, with canonical zeros and NaNs.
__device__ inline void round_to(double value, double &result) {
  value += 0.0;
  result = value == value ? value : nan_of<double>();
}
__device__ inline void round_to(double value, float &result) {
  float rounded = (float)value + 0.0f;
  result = rounded == rounded ? rounded : nan_of<float>();
}
__device__ inline void round_to(double value, Half &result) {
#ifdef __CUDA_ARCH__
  u16 bits;  // one instruction, as in `widen`
  asm("cvt.rn.f16.f64 %0, %1;" : "=h"(bits) : "d"(value));
#else
  u16 bits = narrow_half(to_odd(value));
#endif
  result = value != value ? nan_of<Half>() : Half{(u16)(bits == 0x8000 ? 0 : bits)};
}
__device__ inline void round_to(double value, Brain &result) {
  u16 bits = narrow_brain(to_odd(value));
  result = value != value ? nan_of<Brain>() : Brain{(u16)(bits == 0x8000 ? 0 : bits)};
}
