// Lift-splat on CUDA.
#include "lift_splat.h"

#include "types.h"

namespace bev {
namespace {

template <class V, class P>
cuda::Lift<V, P> lift_of(const LiftSplatCall& in) {
  const int64_t *d = in.depth.size, channels = in.context.size[2];
  cuda::Lift<V, P> lift{d[0], d[1], d[2], d[3], d[4], channels, in.grid, in.depth.at<const V>(), {},
                        in.context.at<const V>(), in.projection.at<const P>(), in.bins.at<const P>(),
                        cuda::in_fours<V>(channels, in.context)};
  for (int axis = 0; axis < 5; ++axis) lift.stride[axis] = in.depth.stride[axis];
  return lift;
}

}  // namespace

template <>
void lift_splat<Processor::cuda>(const LiftSplatCall& in, const Tensor& bev, const Queue& queue) {
  cuda::for_types(in.depth.type, in.projection.type, [&](auto v, auto p) {
    BEV_TYPE(V, v);
    BEV_TYPE(P, p);
    using S = cuda::Sum<V>;
    const cuda::Lift<V, P> lift = lift_of<V, P>(in);
    const cuda::LiftSplat<V, P> kernel{lift, bev.at<S>(), cuda::in_fours<S>(lift.channels, bev)};
    cuda::launch(kernel, kernel.blocks(), queue);
  });
}

template <>
void lift_splat_backward<Processor::cuda>(const LiftSplatCall& in, const Tensor& grad, const Tensor& grad_depth,
                                          const Tensor& grad_context, const Queue& queue) {
  cuda::for_types(in.depth.type, in.projection.type, [&](auto v, auto p) {
    BEV_TYPE(V, v);
    BEV_TYPE(P, p);
    const cuda::Lift<V, P> lift = lift_of<V, P>(in);
    const bool whole = cuda::in_fours<V>(lift.channels, grad);
    if (grad_depth) {
      const cuda::LiftDepthGradient<V, P> kernel{lift, grad.at<const V>(), whole, grad_depth.at<V>()};
      cuda::launch(kernel, kernel.blocks(), queue);
    }
    if (grad_context) {
      const cuda::LiftContextGradient<V, P> kernel{lift, grad.at<const V>(), whole, grad_context.at<V>()};
      cuda::launch(kernel, kernel.blocks(), queue);
    }
  });
}

void lift_splat_keys(const LiftSplatCall& in, const Tensor& keys, const Queue& queue) {
  cuda::for_place(in.projection.type, [&](auto p) {
    BEV_TYPE(P, p);
    const int64_t* d = in.depth.size;
    const cuda::LiftKeys<P> kernel{{d[0] * d[1] * d[2] * d[3] * d[4]}, lift_of<float, P>(in), keys.at<int64_t>()};
    cuda::launch(kernel, kernel.blocks(), queue);
  });
}

void lift_splat_ordered(const LiftSplatCall& in, const Order& order, const Tensor& bev, const Queue& queue) {
  cuda::for_value(in.depth.type, [&](auto v) {
    BEV_TYPE(V, v);
    using S = cuda::Sum<V>;
    const auto lift = lift_of<V, float>(in);
    const cuda::LiftGather<V> kernel{{lift.batch * in.grid.y * in.grid.x * lift.quads()},
                                     lift,
                                     order.point.at<const int64_t>(),
                                     order.start.at<const int64_t>(),
                                     bev.at<S>(),
                                     cuda::in_fours<S>(lift.channels, bev)};
    cuda::launch(kernel, kernel.blocks(), queue);
  });
}

}  // namespace bev
