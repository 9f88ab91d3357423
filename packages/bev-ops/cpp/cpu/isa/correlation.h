// Correlation of the rows of a reference view with warps of a source view.
#pragma once

#include "taps.h"

namespace bev {
namespace BEV_ISA {

// Sums of neighbouring lanes of two vectors in a row.
template <class T>
BEV_INLINE Vec<T> pair_sums(Vec<T> a, Vec<T> b) {
  constexpr int L = Simd<T>::lanes;
#if defined(__clang__)
  if constexpr (L == 2) {
    return __builtin_shufflevector(a, b, 0, 2) + __builtin_shufflevector(a, b, 1, 3);
  } else if constexpr (L == 4) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
  } else if constexpr (L == 8) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
  } else {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  }
#else
  using Lane = decltype(Vec<T>{} < Vec<T>{});
  Lane even;
  for (int lane = 0; lane < L; ++lane) even[lane] = 2 * lane;
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
#endif
}

// Vectors whose groups of N neighbouring lanes are to be summed, N of them in a row: the sums in the order of the
// vectors, those of one vector side by side.
template <int N, class T>
BEV_INLINE Vec<T> folded(const T* from) {
  if constexpr (N == 1) {
    return load(from);
  } else {
    return pair_sums<T>(folded<N / 2>(from), folded<N / 2>(from + N / 2 * Simd<T>::lanes));
  }
}

template <class T>
BEV_INLINE Vec<T> fold(const T* from, int64_t lanes) {
  if (lanes == 16) return folded<16>(from);
  if (lanes == 8) return folded<8>(from);
  if (lanes == 4) return folded<4>(from);
  if (lanes == 2) return folded<2>(from);
  return load(from);
}

BEV_INLINE bool power_of_two(int64_t n) { return (n & (n - 1)) == 0; }

// How the products of one position lie in vectors before their lanes are summed.
template <class T>
struct GroupLayout {
  bool fits;        // else sums are taken one by one
  int64_t vectors;  // per position
  int64_t merged;   // vectors of a group that add up lane by lane first
  int64_t lanes;    // then this many neighbouring lanes make one sum

  GroupLayout(int64_t channels, int64_t groups) {
    constexpr int64_t L = Simd<T>::lanes;
    const int64_t size = channels / groups;
    if (size % L == 0) {
      fits = true, vectors = groups, merged = size / L, lanes = L;
    } else {
      fits = power_of_two(size) && size < L, vectors = (channels + L - 1) / L, merged = 1, lanes = size;
    }
  }
};

// Sums over each group of one position's products, of any group size: out[g * stride].
template <class T>
static void plain_group_sums(const Taps<T>& taps, const T* reference, int64_t channels, int64_t groups, T* products,
                             T* out, int64_t stride) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t c = 0; c < channels; c += L) store(products + c, blend(taps, c) * load(reference + c));
  const int64_t size = channels / groups;
  for (int64_t g = 0; g < groups; ++g) {
    T sum = 0;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) sum += products[c];
    out[g * stride] = sum;
  }
}

// Products of one pixel with K hypotheses, which share the loads of the reference: vector n of each goes to
// out[k] + n * step.
template <int K, class T>
BEV_INLINE void multiply(const T* reference, const Taps<T>* taps, const GroupLayout<T>& layout, T* const* out,
                         int64_t step) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t n = 0, c = 0; n < layout.vectors; ++n) {
    Vec<T> sums[K] = {};
    for (int64_t m = 0; m < layout.merged; ++m, c += L) {
      const Vec<T> with = load(reference + c);
      for (int k = 0; k < K; ++k) sums[k] += blend(taps[k], c) * with;
    }
    for (int k = 0; k < K; ++k) store(out[k] + n * step, sums[k]);
  }
}

// Products with a position that sees nothing: zeros, and NaN where the reference is not finite.
template <class T>
BEV_INLINE void multiply_by_nothing(const T* reference, const GroupLayout<T>& layout, T* out, int64_t step) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t n = 0, c = 0; n < layout.vectors; ++n) {
    Vec<T> sum = {};
    for (int64_t m = 0; m < layout.merged; ++m, c += L) sum += T(0) * load(reference + c);
    store(out + n * step, sum);
  }
}

// Products of the next kRows of the `left` pixels of a row with up to kAbreast hypotheses: vector n of hypothesis
// k and pixel p lies at products + ((k * layout.vectors + n) * kRows + p) * L, so that pixels fold into rows.
template <class T>
static void multiply_tile(const T* reference, int64_t pitch, int64_t left, const Map<T>& source, T scale,
                          const GroupLayout<T>& layout, const TapRow<T>& row, int64_t j, int64_t stride,
                          int64_t hypotheses, const T* zeros, T* products) {
  constexpr int64_t L = Simd<T>::lanes, step = kRows * L;
  for (int64_t p = 0; p < kRows; ++p, products += L) {
    if (p + kAhead < left) {
      // The first hypotheses have brought the reference along.
      const T* const next = j < stride ? reference + (p + kAhead) * pitch : nullptr;
      prefetch(next, source, row, j + p + kAhead, stride, hypotheses, 0, pitch, static_cast<const T*>(nullptr));
    }
    Taps<T> taps[kAbreast];
    T* out[kAbreast];
    int seen = 0;
    for (int64_t k = 0; k < hypotheses; ++k) {
      T* to = products + k * layout.vectors * step;
      const int64_t at = k * stride + j + p;
      if (p < left && row.x[at] != kNowhere) {
        taps[seen] = taps_of(source, row, at, zeros, scale);
        out[seen++] = to;
      } else if (p < left) {
        multiply_by_nothing(reference + p * pitch, layout, to, step);
      } else {
        for (int64_t n = 0; n < layout.vectors; ++n) store(to + n * step, Vec<T>{});
      }
    }
    const T* with = reference + p * pitch;
    static_assert(kAbreast == 3, "each number of hypotheses abreast has its kernel");
    if (seen == 3) multiply<3>(with, taps, layout, out, step);
    if (seen == 2) multiply<2>(with, taps, layout, out, step);
    if (seen == 1) multiply<1>(with, taps, layout, out, step);
  }
}

// Sums of one vector of products over its groups: out[g * stride_g + p] for `groups` groups from the first of it.
template <class T>
BEV_INLINE void write_sums(const T* products, int64_t lanes, int64_t pixels, int64_t groups, T* out,
                           int64_t stride_g) {
  constexpr int64_t L = Simd<T>::lanes;
  const int64_t held = L / lanes;
  for (int64_t p = 0; p < pixels; p += lanes) {
    const Vec<T> sums = fold(products + p * L, lanes);
    if (held == 1 && p + L <= pixels) {
      store(out + p, sums);
      continue;
    }
    T all[L];
    store(all, sums);
    for (int64_t n = 0; n < lanes && p + n < pixels; ++n) {
      for (int64_t g = 0; g < held && g < groups; ++g) out[g * stride_g + p + n] = all[n * held + g];
    }
  }
}

// The same for the positions of one row and one hypothesis: out[g * stride + j].
template <class T>
static void plain_row(const T* reference, int64_t pitch, int64_t width, const Map<T>& source, T scale,
                      int64_t channels, int64_t groups, const TapRow<T>& row, int64_t at, const T* zeros,
                      T* products, T* out, int64_t stride) {
  const Taps<T> nothing{zeros, zeros, zeros, zeros, 0, 0, 0, 0};
  for (int64_t j = 0; j < width; ++j) {
    const bool seen = row.x[at + j] != kNowhere;
    plain_group_sums(seen ? taps_of(source, row, at + j, zeros, scale) : nothing, reference + j * pitch, channels,
                     groups, products, out + j, stride);
  }
}

template <class T>
static void correlate_row(const T* reference, int64_t pitch, int64_t width, const Map<T>& source, int64_t channels,
                          int64_t groups, TapRow<T> taps, int64_t hypotheses, T* out, int64_t stride_g,
                          int64_t stride_k, const T* zeros, T* scratch) {
  constexpr int64_t L = Simd<T>::lanes;
  const GroupLayout<T> layout(channels, groups);
  const T scale = T(groups) / T(channels);
  if (!layout.fits) {
    for (int64_t k = 0; k < hypotheses; ++k) {
      plain_row(reference, pitch, width, source, scale, channels, groups, taps, k * width, zeros, scratch,
                out + k * stride_k, stride_g);
    }
    return;
  }
  const int64_t held = L / layout.lanes;
  for (int64_t start = 0; start < width; start += kRows) {
    const int64_t left = width - start, pixels = left < kRows ? left : kRows;
    for (int64_t first = 0; first < hypotheses; first += kAbreast) {
      const int64_t count = hypotheses - first < kAbreast ? hypotheses - first : kAbreast;
      multiply_tile(reference + start * pitch, pitch, left, source, scale, layout, taps, first * width + start,
                    width, count, zeros, scratch);
      for (int64_t n = 0; n < count * layout.vectors; ++n) {
        const int64_t k = first + n / layout.vectors, g = n % layout.vectors * held;
        write_sums(scratch + n * kRows * L, layout.lanes, pixels, groups - g,
                   out + g * stride_g + k * stride_k + start, stride_g);
      }
    }
  }
}

}  // namespace BEV_ISA
}  // namespace bev
