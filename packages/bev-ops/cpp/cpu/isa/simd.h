// Vectors of the instruction set a file is compiled for. Everything lives in the namespace of that set, and no
// standard templates are used, so that no linker can merge code of different sets.
#pragma once

#include <cstdint>

#include "../kernels.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define BEV_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define BEV_VECTOR_BYTES 32
#else
#define BEV_VECTOR_BYTES 16
#endif

#define BEV_INLINE static inline __attribute__((always_inline))

namespace bev {
namespace BEV_ISA {

template <class T>
struct Simd {
  typedef T Vec __attribute__((vector_size(BEV_VECTOR_BYTES)));
  static constexpr int lanes = BEV_VECTOR_BYTES / sizeof(T);
};

template <class T>
using Vec = typename Simd<T>::Vec;

template <class T>
BEV_INLINE Vec<T> load(const T* from) {
  Vec<T> value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

template <class T>
BEV_INLINE void store(T* to, Vec<T> value) {
  __builtin_memcpy(to, &value, sizeof(value));
}

// The first `count` lanes of memory that may end after them; the others are zero.
template <class T>
BEV_INLINE Vec<T> load_part(const T* from, int64_t count) {
  Vec<T> value = {};
  for (int64_t lane = 0; lane < count; ++lane) value[lane] = from[lane];
  return value;
}

template <class T>
BEV_INLINE void store_part(T* to, Vec<T> value, int64_t count) {
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = value[lane];
}

template <class T>
BEV_INLINE T total(Vec<T> value) {
  T sum = 0;
  for (int lane = 0; lane < Simd<T>::lanes; ++lane) sum += value[lane];
  return sum;
}

}  // namespace BEV_ISA
}  // namespace bev
