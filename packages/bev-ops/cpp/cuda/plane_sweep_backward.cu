// Calls of the plane sweep's backward pass.
#include "plane_sweep_backward.h"

#include "types.h"

namespace bev {
namespace cuda {

void SweepCall::view_gradients(uintptr_t grad, uintptr_t grad_reference, uintptr_t grad_source) const {
  for_types(values, places, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    using S = Sum<V>;
    const SweepViewGradients<V, P> kernel{sweep_of<V, P>(*this),
                                          at<const V>(grad),
                                          in_fours<V>(sizes[1], grad),
                                          at<V>(grad_reference),
                                          at<S>(grad_source),
                                          in_fours<V>(sizes[1], grad_reference),
                                          in_fours<S>(sizes[1], grad_source)};
    launch(kernel, kernel.blocks(), queue);
  });
}

void SweepCall::depth_gradient(uintptr_t grad, uintptr_t grad_depth) const {
  for_types(values, places, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    const SweepDepthGradient<V, P> kernel{sweep_of<V, P>(*this), at<const V>(grad), in_fours<V>(sizes[1], grad),
                                          at<Sum<V>>(grad_depth)};
    launch(kernel, kernel.blocks(), queue);
  });
}

void SweepCall::keys(uintptr_t key) const {
  // Positions are rounded as the sums are, whatever the values.
  for_types(values == Type::f64 ? Type::f64 : Type::f32, places, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    const auto sweep = sweep_of<V, P>(*this);
    const SweepKeys<V, P> kernel{{sweep.batch * sweep.hypotheses * sweep.cells()}, sweep, at<int64_t>(key)};
    launch(kernel, kernel.blocks(), queue);
  });
}

void SweepCall::source_gradient(uintptr_t grad, uintptr_t point, uintptr_t start, uintptr_t grad_source) const {
  for_types(values, places, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    using S = Sum<V>;
    const auto sweep = sweep_of<V, P>(*this);
    const int64_t cells = sweep.batch * sweep.source_height * sweep.source_width;
    const SweepSourceGather<V, P> kernel{{cells * sweep.quads()},
                                         sweep,
                                         at<const V>(grad),
                                         in_fours<V>(sizes[1], grad),
                                         at<const int64_t>(point),
                                         at<const int64_t>(start),
                                         at<S>(grad_source),
                                         in_fours<S>(sizes[1], grad_source)};
    launch(kernel, kernel.blocks(), queue);
  });
}

}  // namespace cuda
}  // namespace bev
