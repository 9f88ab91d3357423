// Voxel pooling on CUDA.
#include "voxel_pooling.h"

#include "types.h"

namespace bev {
namespace {

cuda::Pool pool_of(const VoxelPoolingCall& in, int64_t channels) {
  return {in.coords.size[0], in.coords.size[1], channels, in.grid};
}

}  // namespace

void voxel_pooling_keys(const VoxelPoolingCall& in, const Queue& queue) {
  for_type<float, double, int64_t>(in.coords.type, [&](auto c) {
    BEV_TYPE(C, c);
    const int64_t* stride = in.coords.stride;
    const cuda::PoolKeys<C> kernel{{in.coords.size[0] * in.coords.size[1]},
                                   pool_of(in, 0),
                                   in.coords.at<const C>(),
                                   {stride[0], stride[1], stride[2]},
                                   in.keys.at<int64_t>()};
    cuda::launch(kernel, kernel.blocks(), queue);
  });
}

template <>
void voxel_pooling<Processor::cuda>(const VoxelPoolingCall& in, const Tensor& features, const Tensor& bev,
                                    const Queue& queue) {
  voxel_pooling_keys(in, queue);
  cuda::for_value(features.type, [&](auto v) {
    BEV_TYPE(V, v);
    using S = cuda::Sum<V>;
    const cuda::Pool pool = pool_of(in, features.size[2]);
    const int64_t spans = cuda::divide_up(pool.batch * pool.points, cuda::PoolSplat<V>::kPoints);
    const cuda::PoolSplat<V> kernel{{spans * pool.quads()},
                                    pool,
                                    in.keys.at<const int64_t>(),
                                    features.at<const V>(),
                                    bev.at<S>(),
                                    cuda::in_fours<V>(pool.channels, features),
                                    cuda::in_fours<S>(pool.channels, bev)};
    cuda::launch(kernel, kernel.blocks(), queue);
  });
}

void voxel_pooling_ordered(const VoxelPoolingCall& in, const Order& order, const Tensor& features, const Tensor& bev,
                           const Queue& queue) {
  cuda::for_value(features.type, [&](auto v) {
    BEV_TYPE(V, v);
    using S = cuda::Sum<V>;
    const cuda::Pool pool = pool_of(in, features.size[2]);
    const cuda::PoolGather<V> kernel{{pool.cells() * pool.quads()},
                                     pool,
                                     order.point.at<const int64_t>(),
                                     order.start.at<const int64_t>(),
                                     features.at<const V>(),
                                     bev.at<S>(),
                                     cuda::in_fours<V>(pool.channels, features),
                                     cuda::in_fours<S>(pool.channels, bev)};
    cuda::launch(kernel, kernel.blocks(), queue);
  });
}

template <>
void voxel_pooling_backward<Processor::cuda>(const VoxelPoolingCall& in, const Tensor& grad,
                                             const Tensor& grad_features, const Queue& queue) {
  voxel_pooling_keys(in, queue);
  cuda::for_value(grad.type, [&](auto v) {
    BEV_TYPE(V, v);
    const cuda::Pool pool = pool_of(in, grad_features.size[2]);
    const bool whole = cuda::in_fours<V>(pool.channels, grad) && cuda::in_fours<V>(pool.channels, grad_features);
    const cuda::PoolGradient<V> kernel{{pool.batch * pool.points * pool.quads()},
                                       pool,
                                       in.keys.at<const int64_t>(),
                                       grad.at<const V>(),
                                       grad_features.at<V>(),
                                       whole};
    cuda::launch(kernel, kernel.blocks(), queue);
  });
}

}  // namespace bev
