// Calls of lift-splat.
#include "lift_splat.h"

#include "types.h"

namespace bev {
namespace cuda {
namespace {

template <class V, class P>
Lift<V, P> lift_of(const LiftCall& call) {
  const auto& s = call.sizes;
  Lift<V, P> lift{s[0], s[1], s[2], s[3], s[4], s[5], call.grid, at<const V>(call.depth), {},
                  at<const V>(call.context), at<const P>(call.projection), at<const P>(call.bins),
                  in_fours<V>(s[5], call.context)};
  for (int axis = 0; axis < 5; ++axis) lift.stride[axis] = call.stride[axis];
  return lift;
}

}  // namespace

void LiftCall::splat(uintptr_t bev) const {
  for_types(values, places, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    using S = Sum<V>;
    const LiftSplat<V, P> kernel{lift_of<V, P>(*this), at<S>(bev), in_fours<S>(sizes[5], bev)};
    launch(kernel, kernel.blocks(), queue);
  });
}

void LiftCall::depth_gradient(uintptr_t grad, uintptr_t grad_depth) const {
  for_types(values, places, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    const LiftDepthGradient<V, P> kernel{lift_of<V, P>(*this), at<const V>(grad), in_fours<V>(sizes[5], grad),
                                         at<V>(grad_depth)};
    launch(kernel, kernel.blocks(), queue);
  });
}

void LiftCall::context_gradient(uintptr_t grad, uintptr_t grad_context) const {
  for_types(values, places, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    const LiftContextGradient<V, P> kernel{lift_of<V, P>(*this), at<const V>(grad), in_fours<V>(sizes[5], grad),
                                           at<V>(grad_context)};
    launch(kernel, kernel.blocks(), queue);
  });
}

void LiftCall::keys(uintptr_t key) const {
  for_place(places, [&](auto p) {
    using P = typename decltype(p)::type;
    const int64_t points = sizes[0] * sizes[1] * sizes[2] * sizes[3] * sizes[4];
    const LiftKeys<P> kernel{{points}, lift_of<float, P>(*this), at<int64_t>(key)};
    launch(kernel, kernel.blocks(), queue);
  });
}

void LiftCall::gather(uintptr_t point, uintptr_t start, uintptr_t bev) const {
  for_value(values, [&](auto v) {
    using V = typename decltype(v)::type;
    using S = Sum<V>;
    const auto lift = lift_of<V, float>(*this);
    const LiftGather<V> kernel{{sizes[0] * grid.y * grid.x * lift.quads()}, lift, at<const int64_t>(point),
                               at<const int64_t>(start), at<S>(bev), in_fours<S>(sizes[5], bev)};
    launch(kernel, kernel.blocks(), queue);
  });
}

}  // namespace cuda
}  // namespace bev
