// Backward of the plane sweep on CUDA.
#include "plane_sweep_backward.h"

namespace bev {

template <>
void plane_sweep_backward<Processor::cuda>(const PlaneSweepCall& in, const Tensor& grad, const Tensor& grad_reference,
                                           const Tensor& grad_source, const Tensor& grad_depth, const Queue& queue) {
  cuda::for_types(in.source.type, in.projection.type, [&](auto v, auto p) {
    BEV_TYPE(V, v);
    BEV_TYPE(P, p);
    using S = cuda::Sum<V>;
    const auto sweep = cuda::sweep_of<V, P>(in);
    const bool whole_grad = cuda::in_fours<V>(sweep.channels, grad);
    if (grad_reference || grad_source) {
      const cuda::SweepViewGradients<V, P> kernel{sweep,
                                                  grad.at<const V>(),
                                                  whole_grad,
                                                  grad_reference.at<V>(),
                                                  grad_source.at<S>(),
                                                  cuda::in_fours<V>(sweep.channels, grad_reference),
                                                  cuda::in_fours<S>(sweep.channels, grad_source)};
      cuda::launch(kernel, kernel.blocks(), queue);
    }
    if (grad_depth) {
      const cuda::SweepDepthGradient<V, P> kernel{sweep, grad.at<const V>(), whole_grad, grad_depth.at<S>()};
      cuda::launch(kernel, kernel.blocks(), queue);
    }
  });
}

template <>
int64_t channel_padding<Processor::cuda>() {
  return 1;
}

void plane_sweep_keys(const PlaneSweepCall& in, const Tensor& keys, const Queue& queue) {
  // Positions are rounded as the sums are, whatever the values.
  cuda::for_types(in.source.type == Type::f64 ? Type::f64 : Type::f32, in.projection.type, [&](auto v, auto p) {
    BEV_TYPE(V, v);
    BEV_TYPE(P, p);
    const auto sweep = cuda::sweep_of<V, P>(in);
    const cuda::SweepKeys<V, P> kernel{{sweep.batch * sweep.hypotheses * sweep.cells()}, sweep, keys.at<int64_t>()};
    cuda::launch(kernel, kernel.blocks(), queue);
  });
}

void plane_sweep_backward_ordered(const PlaneSweepCall& in, const Order& order, const Tensor& grad,
                                  const Tensor& grad_source, const Queue& queue) {
  cuda::for_types(in.source.type, in.projection.type, [&](auto v, auto p) {
    BEV_TYPE(V, v);
    BEV_TYPE(P, p);
    using S = cuda::Sum<V>;
    const auto sweep = cuda::sweep_of<V, P>(in);
    const int64_t cells = sweep.batch * sweep.source_height * sweep.source_width;
    const cuda::SweepSourceGather<V, P> kernel{{cells * sweep.quads()},
                                               sweep,
                                               grad.at<const V>(),
                                               cuda::in_fours<V>(sweep.channels, grad),
                                               order.point.at<const int64_t>(),
                                               order.start.at<const int64_t>(),
                                               grad_source.at<S>(),
                                               cuda::in_fours<S>(sweep.channels, grad_source)};
    cuda::launch(kernel, kernel.blocks(), queue);
  });
}

}  // namespace bev
