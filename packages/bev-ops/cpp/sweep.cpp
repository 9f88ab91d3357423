// Plane sweep: bilinear warps of rows of channels, and their correlation with a reference view.
#include "transpose.h"

namespace bev {
namespace BEV_ISA {
namespace {

// The source cells around one position and their weights; what lies outside the view reads `zeros`.
template <class T>
struct Taps {
  const T *a, *b, *c, *d;
  T wa, wb, wc, wd;
};

template <class T>
BEV_INLINE Taps<T> taps_of(const Map<T>& map, const TapRow<T>& row, int64_t j, const T* zeros, T scale = 1) {
  const int64_t x = row.x[j], y = row.y[j];
  const int64_t corner = y * map.row + x * map.pitch;
  Taps<T> taps;
  if (uint64_t(x) < uint64_t(map.width - 1) && uint64_t(y) < uint64_t(map.height - 1)) {
    taps.a = map.data + corner;
    taps.b = taps.a + map.pitch;
    taps.c = taps.a + map.row;
    taps.d = taps.c + map.pitch;
  } else {
    const bool left = x >= 0 && x < map.width, right = x + 1 < map.width;
    const bool top = y >= 0 && y < map.height, bottom = y + 1 < map.height;
    taps.a = left && top ? map.data + corner : zeros;
    taps.b = right && top ? map.data + (corner + map.pitch) : zeros;
    taps.c = left && bottom ? map.data + (corner + map.row) : zeros;
    taps.d = right && bottom ? map.data + (corner + map.row + map.pitch) : zeros;
  }
  const T fx = row.fx[j], upper = (T(1) - row.fy[j]) * scale, lower = row.fy[j] * scale;
  taps.wa = (T(1) - fx) * upper;
  taps.wb = fx * upper;
  taps.wc = (T(1) - fx) * lower;
  taps.wd = fx * lower;
  return taps;
}

template <class T>
BEV_INLINE Vec<T> blend(const Taps<T>& taps, int64_t c) {
  return (taps.wa * load(taps.a + c) + taps.wb * load(taps.b + c)) +
         (taps.wc * load(taps.c + c) + taps.wd * load(taps.d + c));
}

template <class T>
void find_taps(const Map<T>& map, const T* u, const T* v, int64_t width, TapRow<T> out) {
  for (int64_t j = 0; j < width; ++j) {
    const Tap<T> tap = tap_at(u[j], v[j], map.width, map.height);
    out.fx[j] = tap.fx;
    out.fy[j] = tap.fy;
    out.x[j] = tap.x;
    out.y[j] = tap.y;
  }
}

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

BEV_INLINE bool power_of_two(int64_t n) { return (n & (n - 1)) == 0; }

// Sums over each group of one hypothesis' products; any group size.
template <class T>
BEV_INLINE void plain_group_sums(const Taps<T>& taps, const T* reference, int64_t channels, int64_t groups,
                                 T* products, T* out) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t c = 0; c < channels; c += L) store(products + c, blend(taps, c) * load(reference + c));
  const int64_t size = channels / groups;
  for (int64_t g = 0; g < groups; ++g) {
    T sum = 0;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) sum += products[c];
    out[g] = sum;
  }
}

// How products of one hypothesis lie in vectors before their lanes are summed.
template <class T>
struct GroupLayout {
  bool fits;        // else sums are taken one by one
  int64_t vectors;  // per hypothesis
  int64_t merged;   // vectors of a group that add up lane by lane first
  int64_t lanes;    // then this many neighbouring lanes make one sum
  int64_t results;  // sums per hypothesis, of which the first are the groups

  GroupLayout(int64_t channels, int64_t groups) {
    constexpr int64_t L = Simd<T>::lanes;
    const int64_t size = channels / groups, all = (channels + L - 1) / L;
    if (size % L == 0) {
      fits = true, vectors = groups, merged = size / L, lanes = L, results = groups;
    } else if (power_of_two(size) && size < L) {
      fits = true, vectors = all, merged = 1, lanes = size, results = all * L / size;
    } else {
      fits = false, vectors = all, merged = 1, lanes = 1, results = groups;
    }
  }
};

// Correlations of one pixel: scratch[k * layout.results + g].
template <class T>
void correlate_pixel(const T* reference, const Map<T>& source, int64_t channels, int64_t groups,
                     const GroupLayout<T>& layout, TapRow<T> taps_row, int64_t j, int64_t stride,
                     int64_t hypotheses, const T* zeros, T* scratch) {
  constexpr int L = Simd<T>::lanes;
  const T scale = T(groups) / T(channels);
  for (int64_t k = 0; k < hypotheses; ++k, j += stride) {
    const bool seen = taps_row.x[j] != kNowhere;
    if (!layout.fits) {
      T* out = scratch + k * groups;
      for (int64_t g = 0; g < groups; ++g) out[g] = 0;
      if (seen) {
        const Taps<T> taps = taps_of(source, taps_row, j, zeros, scale);
        plain_group_sums(taps, reference, channels, groups, scratch + hypotheses * groups, out);
      }
      continue;
    }
    T* out = scratch + k * layout.vectors * L;
    if (!seen) {
      for (int64_t n = 0; n < layout.vectors; ++n) store(out + n * L, Vec<T>{});
      continue;
    }
    const Taps<T> taps = taps_of(source, taps_row, j, zeros, scale);
    if (layout.merged == 1) {
      for (int64_t c = 0; c < layout.vectors * L; c += L) store(out + c, blend(taps, c) * load(reference + c));
      continue;
    }
    for (int64_t n = 0, c = 0; n < layout.vectors; ++n) {
      Vec<T> sum = {};
      for (int64_t m = 0; m < layout.merged; ++m, c += L) sum += blend(taps, c) * load(reference + c);
      store(out + n * L, sum);
    }
  }
  if (!layout.fits) return;
  int64_t count = hypotheses * layout.vectors;
  for (int64_t lanes = layout.lanes; lanes > 1; lanes /= 2) {
    if (count % 2) store(scratch + count++ * L, Vec<T>{});
    count /= 2;
    for (int64_t n = 0; n < count; ++n) {
      store(scratch + n * L, pair_sums<T>(load(scratch + 2 * n * L), load(scratch + (2 * n + 1) * L)));
    }
  }
}

// Asks for the cells that the pixel after the next will be the first to read.
template <class T>
BEV_INLINE void prefetch_taps(const Map<T>& source, const TapRow<T>& row, int64_t j, int64_t channels) {
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t x = row.x[j], y = row.y[j];
  if (uint64_t(x) >= uint64_t(source.width - 1) || uint64_t(y) >= uint64_t(source.height - 1)) return;
  const T* cell = source.data + y * source.row + (x + 1) * source.pitch;
  for (int64_t c = 0; c < channels; c += kLine) {
    __builtin_prefetch(cell + c);
    __builtin_prefetch(cell + source.row + c);
  }
}

template <class T>
void correlate_row(const T* reference, int64_t pitch, int64_t width, const Map<T>& source, int64_t channels,
                   int64_t groups, TapRow<T> taps, int64_t hypotheses, T* out, int64_t stride_g,
                   int64_t stride_k, const T* zeros, T* scratch) {
  const GroupLayout<T> layout(channels, groups);
  const int64_t room = correlation_scratch(channels, groups, hypotheses) / kRows;
  for (int64_t start = 0; start < width; start += kRows) {
    const int64_t pixels = width - start < kRows ? width - start : kRows;
    for (int64_t n = 0; n < pixels; ++n) {
      const int64_t j = start + n;
      for (int64_t k = 0; j + 2 < width && k < hypotheses; ++k) {
        prefetch_taps(source, taps, k * width + j + 2, channels);
      }
      correlate_pixel(reference + j * pitch, source, channels, groups, layout, taps, j, width, hypotheses,
                      zeros, scratch + n * room);
    }
    for (int64_t k = 0; k < hypotheses; ++k) {
      const T* sums = scratch + k * layout.results;
      T* to = out + k * stride_k + start;
      int64_t rows = pixels, columns = groups;
      transpose_squares(sums, room, to, stride_g, 0, rows, columns);
      transpose_rest(sums + columns, room, int64_t(1), rows, groups - columns, to + columns * stride_g,
                     int64_t(1), stride_g);
      transpose_rest(sums + rows * room, room, int64_t(1), pixels - rows, groups, to + rows, int64_t(1),
                     stride_g);
    }
  }
}

template <class T>
void warp_row(int64_t width, const Map<T>& source, int64_t channels, TapRow<T> taps_row, T* out,
              const T* zeros) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t j = 0; j < width; ++j, out += channels) {
    int64_t c = 0;
    if (taps_row.x[j] == kNowhere) {
      for (; c < channels; ++c) out[c] = 0;
      continue;
    }
    const Taps<T> taps = taps_of(source, taps_row, j, zeros);
    for (; c + L <= channels; c += L) store(out + c, blend(taps, c));
    if (c < channels) {
      const Vec<T> last = blend(taps, c);
      for (int lane = 0; c < channels; ++c, ++lane) out[c] = last[lane];
    }
  }
}

template <class T>
BEV_INLINE void add_to(T* to, Vec<T> value) {
  store(to, load(to) + value);
}

// grad_reference of one pixel: (+)= sum over up to kTogether hypotheses of coefficient * warped.
constexpr int64_t kTogether = 8;

template <class T>
BEV_INLINE void reference_gradient(const Taps<T>* taps, const T* const* factor, int64_t count, int64_t first,
                                   int64_t last, bool add, T* out) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t c = first; c < last; c += L) {
    Vec<T> sum = {};
    if (add) sum = load(out + c);
    for (int64_t k = 0; k < count; ++k) sum += load(factor[k] + c) * blend(taps[k], c);
    store(out + c, sum);
  }
}

template <class T>
BEV_INLINE void source_gradient(const Taps<T>& taps, const T* factor, const T* reference, const Map<T>& source,
                                int64_t first, int64_t last, T* grad_source, const T* zeros, T* sink) {
  constexpr int L = Simd<T>::lanes;
  const auto target = [&](const T* tap) { return tap == zeros ? sink : grad_source + (tap - source.data); };
  T *const a = target(taps.a), *const b = target(taps.b);
  T *const d = target(taps.c), *const e = target(taps.d);
  for (int64_t c = first; c < last; c += L) {
    Vec<T> t = load(factor + c);
    if (reference) t = t * load(reference + c);
    add_to(a + c, taps.wa * t);
    add_to(b + c, taps.wb * t);
    add_to(d + c, taps.wc * t);
    add_to(e + c, taps.wd * t);
  }
}

template <class T>
void sweep_backward_tile(int64_t pixels, int64_t hypotheses, const T* coefficient, const T* reference,
                         int64_t pitch, const Map<T>& source, int64_t first, int64_t last, TapRow<T> taps_row,
                         T* grad_reference, T* grad_source, const T* zeros, T* sink) {
  for (int64_t n = 0; n < pixels; ++n) {
    for (int64_t start = 0; start < hypotheses; start += kTogether) {
      const int64_t end = start + kTogether < hypotheses ? start + kTogether : hypotheses;
      Taps<T> taps[kTogether];
      const T* factor[kTogether];
      int64_t seen = 0;
      for (int64_t k = start; k < end; ++k) {
        if (taps_row.x[k * kRows + n] == kNowhere) continue;
        taps[seen] = taps_of(source, taps_row, k * kRows + n, zeros);
        factor[seen++] = coefficient + (k * kRows + n) * pitch;
      }
      if (grad_reference) {
        reference_gradient(taps, factor, seen, first, last, start > 0, grad_reference + n * pitch);
      }
      for (int64_t k = 0; grad_source && k < seen; ++k) {
        source_gradient(taps[k], factor[k], reference ? reference + n * pitch : nullptr, source, first, last,
                        grad_source, zeros, sink);
      }
    }
  }
}

template <class T>
void sweep_backward_depth(int64_t width, const T* coefficient, const T* reference, int64_t pitch,
                          const Map<T>& source, int64_t channels, TapRow<T> taps_row, const T* du, const T* dv,
                          T* out, const T* zeros) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t j = 0; j < width; ++j) {
    out[j] = 0;
    if (taps_row.x[j] == kNowhere) continue;
    const Taps<T> taps = taps_of(source, taps_row, j, zeros);
    const T fx = taps_row.fx[j], fy = taps_row.fy[j];
    Vec<T> along_u = {}, along_v = {};
    for (int64_t c = 0; c < channels; c += L) {
      Vec<T> t = load(coefficient + j * pitch + c);
      if (reference) t = t * load(reference + j * pitch + c);
      const Vec<T> left = load(taps.c + c) - load(taps.a + c), right = load(taps.d + c) - load(taps.b + c);
      const Vec<T> upper = load(taps.b + c) - load(taps.a + c), lower = load(taps.d + c) - load(taps.c + c);
      along_u += t * ((T(1) - fy) * upper + fy * lower);
      along_v += t * ((T(1) - fx) * left + fx * right);
    }
    out[j] = total<T>(along_u) * du[j] + total<T>(along_v) * dv[j];
  }
}

template <class T>
void spread_groups(const T* grad, int64_t stride_g, int64_t stride_w, int64_t width, int64_t channels,
                   int64_t groups, T scale, T* out, int64_t pitch) {
  const int64_t size = channels / groups;
  for (int64_t j = 0; j < width; ++j) {
    T* to = out + j * pitch;
    for (int64_t g = 0; g < groups; ++g) {
      const T value = grad[g * stride_g + j * stride_w] * scale;
      for (int64_t c = g * size; c < (g + 1) * size; ++c) to[c] = value;
    }
    for (int64_t c = channels; c < padded(channels); ++c) to[c] = 0;
  }
}

template <class T>
void fill(ValueKernels<T>& values) {
  values.find_taps = find_taps<T>;
  values.correlate_row = correlate_row<T>;
  values.warp_row = warp_row<T>;
  values.sweep_backward_tile = sweep_backward_tile<T>;
  values.sweep_backward_depth = sweep_backward_depth<T>;
  values.spread_groups = spread_groups<T>;
}

}  // namespace

void fill_sweep(Table& table) {
  fill(table.values_f32);
  fill(table.values_f64);
}

}  // namespace BEV_ISA
}  // namespace bev
