// The source cells around positions, and what is read there.
#pragma once

#include "simd.h"

namespace bev {
namespace BEV_ISA {

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

// Pixels ahead of the one in hand whose features are asked for.
constexpr int64_t kAhead = 2;

// Asks for the reference (if any) of a pixel soon to come, for the cells of the source that it will be the first
// to read, and for those of the source's gradient (if any).
template <class T>
BEV_INLINE void prefetch(const T* reference, const Map<T>& source, const TapRow<T>& row, int64_t j,
                         int64_t stride, int64_t hypotheses, int64_t first, int64_t end, const T* grad_source) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t c = first; reference && c < end; c += kLine) __builtin_prefetch(reference + c);
  const T* last = nullptr;
  for (int64_t k = 0; k < hypotheses; ++k, j += stride) {
    const int64_t x = row.x[j], y = row.y[j];
    if (uint64_t(x) >= uint64_t(source.width - 1) || uint64_t(y) >= uint64_t(source.height - 1)) continue;
    const T* cell = source.data + y * source.row + (x + 1) * source.pitch;
    if (cell == last) continue;
    last = cell;
    for (int64_t c = first; c < end; c += kLine) {
      __builtin_prefetch(cell + c);
      __builtin_prefetch(cell + source.row + c);
    }
    if (!grad_source) continue;
    const T* grad = grad_source + (cell - source.data);
    for (int64_t c = first; c < end; c += kLine) {
      __builtin_prefetch(grad + c, 1);
      __builtin_prefetch(grad + source.row + c, 1);
    }
  }
}

}  // namespace BEV_ISA
}  // namespace bev
