// Plane sweep: bilinear warps of rows of channels, and their correlation with a reference view.
#include "correlation.h"

namespace bev {
namespace BEV_ISA {
namespace {

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
    if (n + kAhead < pixels) {
      prefetch(reference ? reference + (n + kAhead) * pitch : nullptr, source, taps_row, n + kAhead, kRows,
               hypotheses, first, last, grad_source);
    }
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

void fill_plane_sweep(Table& table) {
  fill(table.values_f32);
  fill(table.values_f64);
}

}  // namespace BEV_ISA
}  // namespace bev
