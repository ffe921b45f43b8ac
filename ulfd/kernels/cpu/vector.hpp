// Vectors by the compiler's own extension (GCC, Clang; x86, NEON), the exponential function, and
// memory: conversion of dtypes and stores around the caches.
//
// Everything lives in a namespace named after the instruction set, because the linker would merge
// equal names from translation units that were compiled for different ones.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "problem.hpp"

namespace ulfd::ULFD_INSTRUCTIONS {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX2__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif

template <class T>
struct Of {
  typedef T Vector __attribute__((vector_size(BYTES)));
  static constexpr int LANES = BYTES / sizeof(T);
};
// Two-byte floats, which are computed with as float.
struct Bfloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};
template <>
struct Of<Bfloat16> : Of<float> {};
template <>
struct Of<Float16> : Of<float> {};
typedef uint32_t Bits __attribute__((vector_size(BYTES)));
template <class T>
using Vector = typename Of<T>::Vector;
template <class T>
constexpr int LANES = Of<T>::LANES;

template <class T>
inline Vector<T> load(const T *from) {
  Vector<T> vector;
  std::memcpy(&vector, from, BYTES);
  return vector;
}

template <class T>
inline void store(T *to, Vector<T> vector) {
  std::memcpy(to, &vector, BYTES);
}

// The vector with 0 in its lanes before `begin` and from `end` on, whatever they hold.
template <class T>
inline Vector<T> lanes(Vector<T> vector, int64_t begin, int64_t end) {
  Vector<T> index;
  for (int lane = 0; lane < LANES<T>; ++lane) index[lane] = T(lane);
  return (index >= T(begin)) & (index < T(end)) ? vector : Vector<T>{};
}

template <int COUNT>
struct Doubles {
  typedef double Vector __attribute__((vector_size(COUNT * sizeof(double))));
};
template <int COUNT>
inline double folded(typename Doubles<COUNT>::Vector numbers) {
  if constexpr (COUNT == 1) {
    return numbers[0];
  } else {
    typename Doubles<COUNT / 2>::Vector halves[2];
    std::memcpy(halves, &numbers, sizeof numbers);
    return folded<COUNT / 2>(halves[0] + halves[1]);
  }
}

// The sum of the lanes in float64, always in the same order: one half onto the other, again and again.
template <class T>
inline double sum(Vector<T> vector) {
  constexpr int COUNT = LANES<T>;
  return folded<COUNT>(__builtin_convertvector(vector, typename Doubles<COUNT>::Vector));
}

// a·b + c with one rounding where the instruction set has it. The compiler may fuse nothing by
// itself (-ffp-contract=off): the loss shall have the same bits whatever else is computed with it.
inline Vector<double> fma(Vector<double> a, Vector<double> b, Vector<double> c) { return a * b + c; }
inline Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

template <class T>
inline Vector<T> all(T value) {
  return Vector<T>{} + value;
}

// x limited to [low, high]; NaN stays NaN, which is why `x` comes second in the instructions.
inline Vector<float> limited(Vector<float> x, float low, float high) {
#if defined(__AVX512F__)
  return _mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), x));
#elif defined(__AVX2__)
  return _mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), x));
#else
  x = x < low ? all(low) : x;
  return x > high ? all(high) : x;
#endif
}

// x · 2^n for an integer n in [-150, 128], which is x + ROUND before the rounding is taken off.
constexpr float ROUND = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
inline Vector<float> scaled(Vector<float> x, Vector<float> n_and_round) {
#if defined(__AVX512F__)
  return _mm512_scalef_ps(x, n_and_round - ROUND);
#else
  // Two factors, for 2^128 and 2^-150 are no floats; n + 300 > 0, so halving is a plain shift.
  Bits bits;
  std::memcpy(&bits, &n_and_round, BYTES);
  bits = bits - 0x4b400000 + 300;
  const Bits half = bits >> 1;
  const Bits first = (half - 150 + 127) << 23, second = (bits - half - 150 + 127) << 23;
  Vector<float> low, high;
  std::memcpy(&low, &first, BYTES);
  std::memcpy(&high, &second, BYTES);
  return x * low * high;
#endif
}

// exp(c·x) to 1 ulp (2 where the result is subnormal), c being a power of two or minus one: 2^n ·
// exp(r) with |r| ≤ ln 2 / 2, exp(r) = 1 + r + r²·q(r). The coefficients of q are the minimax fit of
// degree 4, relative error 3.1e-9. Everything is in units of 1/c, which rounds nothing otherwise, and
// the factors are settled while compiling: c costs no operation.
__attribute__((always_inline)) inline Vector<float> exp(Vector<float> x, float c = 1) {
  constexpr float LN2_HIGH = 0x1.63p-1f, LN2_LOW = -0x1.bd0106p-13f;  // n·LN2_HIGH is exact
  x = limited(x, (c > 0 ? -104 : 89) / c, (c > 0 ? 89 : -104) / c);
  const Vector<float> shifted = fma(x, all(0x1.715476p0f * c), all(ROUND));
  const Vector<float> n = shifted - ROUND;
  const Vector<float> r = fma(n, all(-LN2_LOW / c), fma(n, all(-LN2_HIGH / c), x));
  const float c2 = c * c;
  Vector<float> q = fma(all(0x1.6a23d0p-10f * c2 * c2 * c2), r, all(0x1.123a20p-7f * c2 * c2 * c));
  q = fma(q, r, all(0x1.5558f2p-5f * c2 * c2));
  q = fma(q, r, all(0x1.555492p-3f * c2 * c));
  q = fma(q, r, all(0x1.fffffcp-2f * c2));
  q = fma(q, r, all(c));
  return scaled(fma(q, r, all(1.0f)), shifted);
}

inline Vector<double> exp(Vector<double> x, double c = 1) {
  for (int lane = 0; lane < LANES<double>; ++lane) x[lane] = __builtin_exp(c * x[lane]);
  return x;
}

// ------------------------------------------------------------------------------------- dtypes

inline float widened(uint16_t bfloat16) {
  const uint32_t bits = uint32_t(bfloat16) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint16_t narrowed(float value) {  // to bfloat16, to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return uint16_t((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
}

inline void from_half(const uint16_t *from, float *to, int64_t count) {
  int64_t index = 0;
#if defined(__F16C__) && defined(__AVX__)
  for (; index + 8 <= count; index += 8)
    _mm256_storeu_ps(to + index, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + index))));
#endif
  for (; index < count; ++index) {
    _Float16 value;
    std::memcpy(&value, from + index, sizeof value);
    to[index] = float(value);
  }
}

inline void to_half(const float *from, uint16_t *to, int64_t count) {
  int64_t index = 0;
#if defined(__F16C__) && defined(__AVX__)
  for (; index + 8 <= count; index += 8)
    _mm_storeu_si128((__m128i *)(to + index),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + index), _MM_FROUND_TO_NEAREST_INT));
#endif
  for (; index < count; ++index) {
    const _Float16 value = _Float16(from[index]);
    std::memcpy(to + index, &value, sizeof value);
  }
}

template <class T>
constexpr Dtype DTYPE = sizeof(T) == 8 ? FLOAT64 : FLOAT32;

inline int64_t item_size(int32_t dtype) {
  return dtype == FLOAT64 ? 8 : dtype == FLOAT32 ? 4 : 2;
}

// `count` elements of an array as T. Bytes are copied first: memory may be misaligned.
template <class T>
inline void convert(const void *array, int32_t dtype, int64_t offset, int64_t count, T *to) {
  const char *from = static_cast<const char *>(array) + offset * item_size(dtype);
  if (dtype == DTYPE<T>) {
    std::memcpy(to, from, count * sizeof(T));
  } else if (dtype == FLOAT32) {
    for (int64_t index = 0; index < count; ++index) {
      float value;
      std::memcpy(&value, from + 4 * index, sizeof value);
      to[index] = T(value);
    }
  } else {
    alignas(64) uint16_t halves[TILE];
    alignas(64) float floats[TILE];
    for (int64_t start = 0; start < count; start += TILE) {
      const int64_t part = count - start < TILE ? count - start : TILE;
      std::memcpy(halves, from + 2 * start, 2 * part);
      float *out = sizeof(T) == sizeof(float) ? reinterpret_cast<float *>(to + start) : floats;
      if (dtype == FLOAT16)
        from_half(halves, out, part);
      else
        for (int64_t index = 0; index < part; ++index) out[index] = widened(halves[index]);
      if (sizeof(T) != sizeof(float))
        for (int64_t index = 0; index < part; ++index) to[start + index] = T(floats[index]);
    }
  }
}

// Elements [offset, offset + count) of an array of `size`, to be read one vector beyond the end:
// where they lie if that is allowed, otherwise converted into `buffer`.
template <class T>
inline const T *read(const void *array, int32_t dtype, int64_t offset, int64_t count, int64_t size,
                     T *buffer) {
  if (dtype == DTYPE<T> && offset + count + LANES<T> <= size &&
      reinterpret_cast<uintptr_t>(array) % sizeof(T) == 0)
    return static_cast<const T *>(array) + offset;
  convert(array, dtype, offset, count, buffer);
  for (int64_t index = count; index < count + LANES<T>; ++index) buffer[index] = T(0);
  return buffer;
}

// Stores a vector; around the caches if STREAMS, for which `to` must be aligned.
template <bool STREAMS, class T>
inline void put(T *to, Vector<T> vector) {
#if defined(__AVX512F__)
  if (STREAMS) return _mm512_stream_si512((__m512i *)to, (__m512i)vector);
#elif defined(__AVX2__)
  if (STREAMS) return _mm256_stream_si256((__m256i *)to, (__m256i)vector);
#elif defined(__x86_64__)
  if (STREAMS) return _mm_stream_si128((__m128i *)to, (__m128i)vector);
#endif
  store(to, vector);
}

// Two-byte floats, loaded and stored a vector of float at a time.
typedef uint16_t Halves __attribute__((vector_size(BYTES / 2)));
#if defined(__F16C__) && defined(__AVX2__)
constexpr bool CONVERTS_FLOAT16 = true;
#else
constexpr bool CONVERTS_FLOAT16 = false;  // by hand, in `convert` and `write`
#endif

template <class T>
inline Vector<T> fetch(const T *from) {
  return load(from);
}

inline Vector<float> fetch(const Bfloat16 *from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  const Bits bits = __builtin_convertvector(halves, Bits) << 16;
  Vector<float> vector;
  std::memcpy(&vector, &bits, BYTES);
  return vector;
}

inline Vector<float> fetch(const Float16 *from) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif defined(__F16C__) && defined(__AVX2__)
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#else
  return Vector<float>{} + float(from->bits);  // never called
#endif
}

template <bool STREAMS>
inline void put_halves(void *to, Halves halves) {
#if defined(__AVX512F__)
  if (STREAMS) return _mm256_stream_si256((__m256i *)to, (__m256i)halves);
#elif defined(__AVX2__)
  if (STREAMS) return _mm_stream_si128((__m128i *)to, (__m128i)halves);
#endif
  std::memcpy(to, &halves, sizeof halves);
}

// To bfloat16 in the upper halves, to nearest, ties to even. `narrowed` asks whether it is NaN; here
// every NaN comes from bfloat16 or from an invalid operation, its lower half is 0, and rounding leaves
// it what it is.
inline Bits rounded(Vector<float> vector) {
  const Bits bits = (Bits)vector;
  return bits + 0x7fff + ((bits >> 16) & 1);
}

template <bool STREAMS>
inline void put(Bfloat16 *to, Vector<float> vector) {
  put_halves<STREAMS>(to, __builtin_convertvector(rounded(vector) >> 16, Halves));
}

template <bool STREAMS>
inline void put(Float16 *to, Vector<float> vector) {
#if defined(__AVX512F__)
  put_halves<STREAMS>(to, (Halves)_mm512_cvtps_ph(vector, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__) && defined(__AVX2__)
  put_halves<STREAMS>(to, (Halves)_mm256_cvtps_ph(vector, _MM_FROUND_TO_NEAREST_INT));
#else
  (void)to, (void)vector;  // never called
#endif
}

// A vector's worth of memory: one vector, or two of two-byte floats.
template <class S>
constexpr int PARTS = sizeof(S) == 2 ? 2 : 1;
template <class S>
struct Pack {
  Vector<S> part[PARTS<S>];
};

template <class S>
inline Pack<S> fetch_pack(const S *from) {
  Pack<S> pack;
  for (int part = 0; part < PARTS<S>; ++part) pack.part[part] = fetch(from + part * LANES<S>);
  return pack;
}

template <bool STREAMS, class S>
inline void put_pack(S *to, const Pack<S> &pack) {
  for (int part = 0; part < PARTS<S>; ++part) put<STREAMS>(to + part * LANES<S>, pack.part[part]);
}

// The pack's elements in the order of memory, which sums are taken in.
template <class S>
inline Pack<S> in_order(const Pack<S> &pack) {
  return pack;
}

#if defined(__AVX512F__)
// bfloat16 as its even elements and its odd ones, whose upper halves they are where they lie. To move
// elements across lanes takes longer than all of the exponential function.
inline Pack<Bfloat16> fetch_pack(const Bfloat16 *from) {
  const Bits bits = load(reinterpret_cast<const uint32_t *>(from));
  return {{(Vector<float>)(bits << 16), (Vector<float>)(bits & 0xffff0000)}};
}

template <bool STREAMS>
inline void put_pack(Bfloat16 *to, const Pack<Bfloat16> &pack) {
  const Bits even = rounded(pack.part[0]) >> 16, odd = rounded(pack.part[1]) & 0xffff0000;
  put<STREAMS>(reinterpret_cast<uint32_t *>(to), even | odd);
}

inline Pack<Bfloat16> in_order(const Pack<Bfloat16> &pack) {
  Bits first, second;
  for (int lane = 0; lane < LANES<float>; ++lane) {
    first[lane] = lane / 2 + lane % 2 * LANES<float>;
    second[lane] = first[lane] + LANES<float> / 2;
  }
  const auto chosen = [&](Bits lanes) {
    return (Vector<float>)_mm512_permutex2var_ps(pack.part[0], (__m512i)lanes, pack.part[1]);
  };
  return {{chosen(first), chosen(second)}};
}
#endif

// Copies to memory of any alignment.
inline void copy_out(const void *source, void *target, int64_t bytes, bool streams) {
  const char *from = static_cast<const char *>(source);
  char *to = static_cast<char *>(target);
  if (streams) {
    const int64_t misaligned = -reinterpret_cast<uintptr_t>(to) & (BYTES - 1);
    const int64_t head = misaligned < bytes ? misaligned : bytes;
    std::memcpy(to, from, head);
    from += head, to += head, bytes -= head;
    for (; bytes >= BYTES; from += BYTES, to += BYTES, bytes -= BYTES)
      put<true>(reinterpret_cast<int8_t *>(to), load(reinterpret_cast<const int8_t *>(from)));
  }
  std::memcpy(to, from, bytes);
}

// `count` ≤ TILE elements to an array of any dtype and alignment.
template <class T>
inline void write(const T *from, void *array, int32_t dtype, int64_t offset, int64_t count,
                  bool streams) {
  const int64_t width = item_size(dtype);
  char *to = static_cast<char *>(array) + offset * width;
  if (dtype == DTYPE<T>) return copy_out(from, to, count * width, streams);
  alignas(64) float floats[TILE];
  const float *single = floats;
  if (sizeof(T) == sizeof(float))
    single = reinterpret_cast<const float *>(from);
  else
    for (int64_t index = 0; index < count; ++index) floats[index] = float(from[index]);
  if (dtype == FLOAT32) return copy_out(single, to, count * width, streams);
  alignas(64) uint16_t halves[TILE];
  if (dtype == FLOAT16)
    to_half(single, halves, count);
  else
    for (int64_t index = 0; index < count; ++index) halves[index] = narrowed(single[index]);
  copy_out(halves, to, count * width, streams);
}

// Streaming stores are ordered with nothing; this makes them visible before the threads meet.
inline void fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace ulfd::ULFD_INSTRUCTIONS
