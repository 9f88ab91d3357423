// Transposition of small blocks in registers.
#pragma once

#include "simd.h"

namespace bev {
namespace BEV_ISA {

using Vec4 = float __attribute__((vector_size(16)));

#if defined(__clang__)
#define BEV_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int Index4 __attribute__((vector_size(16)));
#define BEV_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (Index4{i, j, k, l}))
#endif

BEV_INLINE Vec4 load4(const float* from) {
  Vec4 value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

BEV_INLINE void store4(float* to, Vec4 value) { __builtin_memcpy(to, &value, sizeof(value)); }

// to[c * to_pitch + r] = from[r * from_pitch + c] for 4 x 4 elements.
BEV_INLINE void transpose4(const float* from, int64_t from_pitch, float* to, int64_t to_pitch) {
  const Vec4 a = load4(from), b = load4(from + from_pitch);
  const Vec4 c = load4(from + 2 * from_pitch), d = load4(from + 3 * from_pitch);
  const Vec4 ab_low = BEV_SHUFFLE(a, b, 0, 4, 1, 5), ab_high = BEV_SHUFFLE(a, b, 2, 6, 3, 7);
  const Vec4 cd_low = BEV_SHUFFLE(c, d, 0, 4, 1, 5), cd_high = BEV_SHUFFLE(c, d, 2, 6, 3, 7);
  store4(to, BEV_SHUFFLE(ab_low, cd_low, 0, 1, 4, 5));
  store4(to + to_pitch, BEV_SHUFFLE(ab_low, cd_low, 2, 3, 6, 7));
  store4(to + 2 * to_pitch, BEV_SHUFFLE(ab_high, cd_high, 0, 1, 4, 5));
  store4(to + 3 * to_pitch, BEV_SHUFFLE(ab_high, cd_high, 2, 3, 6, 7));
}

#if defined(__AVX512F__)
// The same for up to 16 x 16 elements: rows are interleaved in pairs, then pairs of pairs, then quarters. Of the
// results, lanes `kept` are stored; those of rows that are not there are zero.
template <bool Whole>
static void transpose16(const float* from, int64_t from_pitch, int64_t rows, int64_t columns, float* to,
                        int64_t to_pitch, __mmask16 kept) {
  const __mmask16 read = __mmask16((1u << columns) - 1);
  __m512 in[16], out[16];
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) {
    in[r] = Whole      ? _mm512_loadu_ps(from + r * from_pitch)
            : r < rows ? _mm512_maskz_loadu_ps(read, from + r * from_pitch)
                       : _mm512_setzero_ps();
  }
#pragma GCC unroll 8
  for (int r = 0; r < 16; r += 2) {
    out[r] = _mm512_unpacklo_ps(in[r], in[r + 1]);
    out[r + 1] = _mm512_unpackhi_ps(in[r], in[r + 1]);
  }
  for (int r = 0; r < 16; r += 4) {
    for (int half = 0; half < 2; ++half) {
      const __m512d a = _mm512_castps_pd(out[r + half]), b = _mm512_castps_pd(out[r + half + 2]);
      in[r + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      in[r + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
  // in[4 q + k] holds columns k, k + 4, k + 8, k + 12 of rows 4 q to 4 q + 3.
  for (int k = 0; k < 4; ++k) {
    const __m512 low01 = _mm512_shuffle_f32x4(in[k], in[4 + k], 0x44);
    const __m512 high01 = _mm512_shuffle_f32x4(in[k], in[4 + k], 0xee);
    const __m512 low23 = _mm512_shuffle_f32x4(in[8 + k], in[12 + k], 0x44);
    const __m512 high23 = _mm512_shuffle_f32x4(in[8 + k], in[12 + k], 0xee);
    const __m512 results[4] = {
        _mm512_shuffle_f32x4(low01, low23, 0x88), _mm512_shuffle_f32x4(low01, low23, 0xdd),
        _mm512_shuffle_f32x4(high01, high23, 0x88), _mm512_shuffle_f32x4(high01, high23, 0xdd)};
    for (int quarter = 0; quarter < 4; ++quarter) {
      const int c = 4 * quarter + k;
      if (Whole) {
        _mm512_storeu_ps(to + c * to_pitch, results[quarter]);
      } else if (c < columns) {
        _mm512_mask_storeu_ps(to + c * to_pitch, kept, results[quarter]);
      }
    }
  }
}
#endif

template <class T>
BEV_INLINE void transpose_rest(const T* from, int64_t from_row, int64_t from_column, int64_t rows,
                               int64_t columns, T* to, int64_t to_row, int64_t to_column) {
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) to[r * to_row + c * to_column] = from[r * from_row + c * from_column];
  }
}

// A transposition in squares; says how many rows and columns it did. Up to lane `pad` the results may be filled
// with zeros. Doubles have no fast path.
template <class T>
BEV_INLINE void transpose_squares(const T*, int64_t, T*, int64_t, int64_t, int64_t& rows, int64_t& columns) {
  rows = columns = 0;
}

BEV_INLINE void transpose_squares(const float* from, int64_t from_pitch, float* to, int64_t to_pitch, int64_t pad,
                                  int64_t& rows, int64_t& columns) {
#if defined(__AVX512F__)
  for (int64_t c = 0; c < columns; c += 16) {
    for (int64_t r = 0; r < rows; r += 16) {
      const int64_t high = rows - r < 16 ? rows - r : 16, wide = columns - c < 16 ? columns - c : 16;
      const int64_t kept = pad - r < high ? high : (pad - r < 16 ? pad - r : 16);
      (high == 16 && wide == 16 ? transpose16<true> : transpose16<false>)(
          from + r * from_pitch + c, from_pitch, high, wide, to + c * to_pitch + r, to_pitch,
          __mmask16((1u << kept) - 1));
    }
  }
#else
  (void)pad;
  rows = rows / 4 * 4;
  columns = columns / 4 * 4;
  // Sixteen columns at a time: a cache line of each row is read once.
  for (int64_t c0 = 0; c0 < columns; c0 += 16) {
    const int64_t c_end = c0 + 16 < columns ? c0 + 16 : columns;
    for (int64_t r = 0; r < rows; r += 4) {
      for (int64_t c = c0; c < c_end; c += 4) {
        transpose4(from + r * from_pitch + c, from_pitch, to + c * to_pitch + r, to_pitch);
      }
    }
  }
#endif
}

}  // namespace BEV_ISA
}  // namespace bev
