// Kernels of voxel pooling. Cells are found first: their numbers are few bytes beside the features.
#pragma once

#include "machine.h"

namespace bev {
namespace cuda {

struct Pool {
  int64_t batch, points, channels;
  Grid grid;

  BEV_BOTH int64_t quads() const { return divide_up(channels, 4); }
  BEV_BOTH int64_t cells() const { return batch * grid.y * grid.x; }
};

// key [B*P]: the point's cell counted over all maps, or their number outside the grid; coords [B,P,3].
template <class C>
struct PoolKeys : Flat {
  Pool pool;
  const C* coords;
  int64_t stride[3];
  int64_t* key;

  template <int>
  BEV_DEVICE void run(const Thread& thread, Shared&, State&) const {
    const int64_t n = item(thread);
    if (n < 0) return;
    const int64_t b = n / pool.points;
    const C* at = coords + b * stride[0] + n % pool.points * stride[1];
    const int32_t cell = cell_of(at[0], at[stride[2]], at[2 * stride[2]], pool.grid);
    key[n] = cell < 0 ? pool.cells() : b * pool.grid.y * pool.grid.x + cell;
  }
};

// bev [B,Y,X,C] += features [B*P,C]. A thread takes four channels of neighbouring points, which often share a cell.
template <class V>
struct PoolSplat : Flat {
  using S = Sum<V>;
  static constexpr int kPoints = 8;
  Pool pool;
  const int64_t* key;
  const V* features;
  S* bev;
  bool whole, whole_sums;

  template <int>
  BEV_DEVICE void run(const Thread& thread, Shared&, State&) const {
    const int64_t n = item(thread);
    if (n < 0) return;
    const int64_t quads = pool.quads(), c = n % quads * 4, first = n / quads * kPoints;
    const int64_t all = pool.batch * pool.points, outside = pool.cells();
    Quad<S> sum = zero4<S>();
    int64_t cell = outside;
    for (int64_t point = first; point < first + kPoints && point < all; ++point) {
      if (key[point] != cell) {
        if (cell != outside) atomic_add4(bev + cell * pool.channels + c, sum, pool.channels - c, whole_sums);
        cell = key[point];
        sum = zero4<S>();
      }
      if (cell == outside) continue;
      add_scaled(sum, S(1), load4(features + point * pool.channels + c, pool.channels - c, whole));
    }
    if (cell != outside) atomic_add4(bev + cell * pool.channels + c, sum, pool.channels - c, whole_sums);
  }
};

// bev [B,Y,X,C] = sums in the order of the points: `point` sorted by key, `start` [cells + 1] into it.
template <class V>
struct PoolGather : Flat {
  using S = Sum<V>;
  Pool pool;
  const int64_t* point;
  const int64_t* start;
  const V* features;
  S* bev;
  bool whole, whole_sums;

  template <int>
  BEV_DEVICE void run(const Thread& thread, Shared&, State&) const {
    const int64_t n = item(thread);
    if (n < 0) return;
    const int64_t quads = pool.quads(), cell = n / quads, c = n % quads * 4;
    Quad<S> sum = zero4<S>();
    for (int64_t k = start[cell]; k < start[cell + 1]; ++k) {
      add_scaled(sum, S(1), load4(features + point[k] * pool.channels + c, pool.channels - c, whole));
    }
    store4(bev + cell * pool.channels + c, sum, pool.channels - c, whole_sums);
  }
};

// grad_features [B*P,C] = grad [B,Y,X,C] of the point's cell.
template <class V>
struct PoolGradient : Flat {
  Pool pool;
  const int64_t* key;
  const V* grad;
  V* grad_features;
  bool whole;

  template <int>
  BEV_DEVICE void run(const Thread& thread, Shared&, State&) const {
    const int64_t n = item(thread);
    if (n < 0) return;
    const int64_t quads = pool.quads(), point = n / quads, c = n % quads * 4, left = pool.channels - c;
    Quad<Sum<V>> quad = zero4<Sum<V>>();
    if (key[point] != pool.cells()) quad = load4(grad + key[point] * pool.channels + c, left, whole);
    store4(grad_features + point * pool.channels + c, quad, left, whole);
  }
};

}  // namespace cuda
}  // namespace bev
