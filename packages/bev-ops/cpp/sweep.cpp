// Plane sweep: bilinear warps of rows of channels, and their correlation with a reference view.
#include "simd.h"

namespace bev {
namespace BEV_ISA {
namespace {

// The four source cells around a position and their weights; what lies outside the view reads `zeros`.
template <class T>
struct Taps {
  const T* at[4];
  T weight[4];
  T fx, fy;
  bool any;
};

template <class T>
BEV_INLINE Taps<T> taps_of(const Map<T>& map, T u, T v, const T* zeros) {
  Taps<T> taps;
  taps.any = u > T(-1) && u < T(map.width) && v > T(-1) && v < T(map.height);
  if (!taps.any) return taps;
  // Both are above -1, so that adding one makes truncation a floor.
  const int64_t x = int64_t(u + T(1)) - 1, y = int64_t(v + T(1)) - 1;
  // Just below a whole number the sum above may round up; the position then counts as that number.
  const T fx = u - T(x) < T(0) ? T(0) : u - T(x), fy = v - T(y) < T(0) ? T(0) : v - T(y);
  const bool left = x >= 0, right = x + 1 < map.width, top = y >= 0, bottom = y + 1 < map.height;
  const int64_t corner = y * map.row + x * map.pitch;
  taps.at[0] = left && top && x < map.width && y < map.height ? map.data + corner : zeros;
  taps.at[1] = right && top && y < map.height ? map.data + (corner + map.pitch) : zeros;
  taps.at[2] = left && bottom && x < map.width ? map.data + (corner + map.row) : zeros;
  taps.at[3] = right && bottom ? map.data + (corner + map.row + map.pitch) : zeros;
  taps.weight[0] = (T(1) - fx) * (T(1) - fy);
  taps.weight[1] = fx * (T(1) - fy);
  taps.weight[2] = (T(1) - fx) * fy;
  taps.weight[3] = fx * fy;
  taps.fx = fx, taps.fy = fy;
  return taps;
}

template <class T>
BEV_INLINE Vec<T> blend(const Taps<T>& taps, int64_t c) {
  return (taps.weight[0] * load(taps.at[0] + c) + taps.weight[1] * load(taps.at[1] + c)) +
         (taps.weight[2] * load(taps.at[2] + c) + taps.weight[3] * load(taps.at[3] + c));
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

// Sums over each group of one hypothesis' products, written to out[g]; any group size.
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
  int64_t vectors;  // per hypothesis
  int64_t merged;   // vectors of a group that add up lane by lane first
  int64_t lanes;    // then this many neighbouring lanes make one sum
  int64_t results;  // sums per hypothesis, of which the first are the groups

  BEV_INLINE bool fits(int64_t channels, int64_t groups, GroupLayout& layout) {
    constexpr int64_t L = Simd<T>::lanes;
    const int64_t size = channels / groups;
    if (size % L == 0) {
      layout = {groups, size / L, L, groups};
      return true;
    }
    if (!power_of_two(size) || size > L) return false;
    const int64_t vectors = (channels + L - 1) / L;
    layout = {vectors, 1, size, vectors * L / size};
    return true;
  }
};

template <class T>
void correlate_pixel(const T* reference, const Map<T>& source, int64_t channels, int64_t groups, const T* u,
                     const T* v, int64_t stride, int64_t hypotheses, const T* zeros, T* scratch, T* sums,
                     int64_t sums_pitch) {
  constexpr int L = Simd<T>::lanes;
  GroupLayout<T> layout;
  if (!GroupLayout<T>::fits(channels, groups, layout)) {
    for (int64_t k = 0; k < hypotheses; ++k) {
      const Taps<T> taps = taps_of(source, u[k * stride], v[k * stride], zeros);
      if (taps.any) {
        plain_group_sums(taps, reference, channels, groups, scratch, sums + k * sums_pitch);
      } else {
        for (int64_t g = 0; g < groups; ++g) sums[k * sums_pitch + g] = 0;
      }
    }
    return;
  }
  int64_t count = hypotheses * layout.vectors;
  for (int64_t k = 0; k < hypotheses; ++k) {
    const Taps<T> taps = taps_of(source, u[k * stride], v[k * stride], zeros);
    T* out = scratch + k * layout.vectors * L;
    int64_t c = 0;
    for (int64_t n = 0; n < layout.vectors; ++n) {
      Vec<T> sum = {};
      if (taps.any) {
        for (int64_t m = 0; m < layout.merged; ++m, c += L) sum += blend(taps, c) * load(reference + c);
      }
      store(out + n * L, sum);
    }
  }
  for (int64_t lanes = layout.lanes; lanes > 1; lanes /= 2) {
    if (count % 2) store(scratch + count++ * L, Vec<T>{});
    for (int64_t n = 0; n < count; n += 2) {
      store(scratch + n / 2 * L, pair_sums<T>(load(scratch + n * L), load(scratch + (n + 1) * L)));
    }
    count /= 2;
  }
  for (int64_t k = 0; k < hypotheses; ++k) {
    for (int64_t g = 0; g < groups; ++g) sums[k * sums_pitch + g] = scratch[k * layout.results + g];
  }
}

template <class T>
void correlate_row(const T* reference, int64_t pitch, int64_t width, const Map<T>& source, int64_t channels,
                   int64_t groups, const T* u, const T* v, int64_t hypotheses, T* out, int64_t stride_g,
                   int64_t stride_k, const T* zeros, T* scratch) {
  const T scale = T(groups) / T(channels);
  T* sums = scratch + hypotheses * (padded(channels) + kRows) + kRows;
  for (int64_t j = 0; j < width; ++j) {
    correlate_pixel(reference + j * pitch, source, channels, groups, u + j, v + j, width, hypotheses, zeros,
                    scratch, sums, groups);
    for (int64_t k = 0; k < hypotheses; ++k) {
      for (int64_t g = 0; g < groups; ++g) {
        out[g * stride_g + k * stride_k + j] = sums[k * groups + g] * scale;
      }
    }
  }
}

template <class T>
void warp_row(int64_t width, const Map<T>& source, int64_t channels, const T* u, const T* v, T* out,
              const T* zeros) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t j = 0; j < width; ++j, out += channels) {
    const Taps<T> taps = taps_of(source, u[j], v[j], zeros);
    int64_t c = 0;
    if (taps.any) {
      for (; c + L <= channels; c += L) store(out + c, blend(taps, c));
      if (c < channels) {
        const Vec<T> last = blend(taps, c);
        for (int lane = 0; c < channels; ++c, ++lane) out[c] = last[lane];
      }
    } else {
      for (; c < channels; ++c) out[c] = 0;
    }
  }
}

template <class T>
void sweep_backward_row(int64_t width, const T* coefficient, const T* reference, int64_t pitch,
                        const Map<T>& source, int64_t first, int64_t last, const T* u, const T* v,
                        T* grad_reference, T* grad_source, const T* zeros, T* sink) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t j = 0; j < width; ++j) {
    const Taps<T> taps = taps_of(source, u[j], v[j], zeros);
    if (!taps.any) continue;
    const T* factor = coefficient + j * pitch;
    if (grad_reference) {
      T* out = grad_reference + j * pitch;
      for (int64_t c = first; c < last; c += L) {
        store(out + c, load(out + c) + load(factor + c) * blend(taps, c));
      }
    }
    if (!grad_source) continue;
    T* to[4];
    for (int n = 0; n < 4; ++n) {
      to[n] = taps.at[n] == zeros ? sink : grad_source + (taps.at[n] - source.data);
    }
    for (int64_t c = first; c < last; c += L) {
      Vec<T> t = load(factor + c);
      if (reference) t = t * load(reference + j * pitch + c);
      for (int n = 0; n < 4; ++n) store(to[n] + c, load(to[n] + c) + taps.weight[n] * t);
    }
  }
}

template <class T>
void sweep_backward_depth(int64_t width, const T* coefficient, const T* reference, int64_t pitch,
                          const Map<T>& source, int64_t channels, Positions<T> positions, T* out,
                          int64_t stride, const T* zeros) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t j = 0; j < width; ++j) {
    const Taps<T> taps = taps_of(source, positions.u[j], positions.v[j], zeros);
    Vec<T> along_u = {}, along_v = {};
    if (taps.any) {
      for (int64_t c = 0; c < channels; c += L) {
        Vec<T> t = load(coefficient + j * pitch + c);
        if (reference) t = t * load(reference + j * pitch + c);
        const Vec<T> a = load(taps.at[0] + c), b = load(taps.at[1] + c);
        const Vec<T> d = load(taps.at[2] + c), e = load(taps.at[3] + c);
        along_u += t * ((T(1) - taps.fy) * (b - a) + taps.fy * (e - d));
        along_v += t * ((T(1) - taps.fx) * (d - a) + taps.fx * (e - b));
      }
      out[j * stride] = total<T>(along_u) * positions.du[j] + total<T>(along_v) * positions.dv[j];
    } else {
      out[j * stride] = 0;
    }
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
  values.correlate_row = correlate_row<T>;
  values.warp_row = warp_row<T>;
  values.sweep_backward_row = sweep_backward_row<T>;
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
