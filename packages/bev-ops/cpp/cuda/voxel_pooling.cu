// Calls of voxel pooling.
#include "voxel_pooling.h"

#include "types.h"

namespace bev {
namespace cuda {
namespace {

Pool pool_of(const PoolCall& call) { return {call.sizes[0], call.sizes[1], call.sizes[2], call.grid}; }

template <class C>
void find_keys(const PoolCall& call, Tag<C>, uintptr_t coords, const std::array<int64_t, 3>& stride,
               uintptr_t key) {
  const Pool pool = pool_of(call);
  const PoolKeys<C> kernel{
      {pool.batch * pool.points}, pool, at<const C>(coords), {stride[0], stride[1], stride[2]}, at<int64_t>(key)};
  launch(kernel, kernel.blocks(), call.queue);
}

}  // namespace

void PoolCall::keys(Type places, uintptr_t coords, const std::array<int64_t, 3>& stride, uintptr_t key) const {
  if (places == Type::i64) return find_keys(*this, Tag<int64_t>{}, coords, stride, key);
  for_place(places, [&](auto p) { find_keys(*this, p, coords, stride, key); });
}

void PoolCall::splat(uintptr_t key, uintptr_t features, uintptr_t bev) const {
  for_value(values, [&](auto v) {
    using V = typename decltype(v)::type;
    using S = Sum<V>;
    const Pool pool = pool_of(*this);
    const int64_t spans = divide_up(pool.batch * pool.points, PoolSplat<V>::kPoints);
    const PoolSplat<V> kernel{{spans * pool.quads()}, pool, at<const int64_t>(key), at<const V>(features), at<S>(bev),
                              in_fours<V>(pool.channels, features), in_fours<S>(pool.channels, bev)};
    launch(kernel, kernel.blocks(), queue);
  });
}

void PoolCall::gather(uintptr_t point, uintptr_t start, uintptr_t features, uintptr_t bev) const {
  for_value(values, [&](auto v) {
    using V = typename decltype(v)::type;
    using S = Sum<V>;
    const Pool pool = pool_of(*this);
    const PoolGather<V> kernel{{pool.cells() * pool.quads()}, pool, at<const int64_t>(point),
                               at<const int64_t>(start), at<const V>(features), at<S>(bev),
                               in_fours<V>(pool.channels, features), in_fours<S>(pool.channels, bev)};
    launch(kernel, kernel.blocks(), queue);
  });
}

void PoolCall::gradient(uintptr_t key, uintptr_t grad, uintptr_t grad_features) const {
  for_value(values, [&](auto v) {
    using V = typename decltype(v)::type;
    const Pool pool = pool_of(*this);
    const bool whole = in_fours<V>(pool.channels, grad) && in_fours<V>(pool.channels, grad_features);
    const PoolGradient<V> kernel{{pool.batch * pool.points * pool.quads()}, pool, at<const int64_t>(key),
                                 at<const V>(grad), at<V>(grad_features), whole};
    launch(kernel, kernel.blocks(), queue);
  });
}

}  // namespace cuda
}  // namespace bev
