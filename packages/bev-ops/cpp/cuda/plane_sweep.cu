// The plane sweep on CUDA.
#include "plane_sweep.h"

namespace bev {

template <>
void homography_warp<Processor::cuda>(const PlaneSweepCall& in, const Tensor& out, const Queue& queue) {
  cuda::for_types(in.source.type, in.projection.type, [&](auto v, auto p) {
    BEV_TYPE(V, v);
    BEV_TYPE(P, p);
    const auto sweep = cuda::sweep_of<V, P>(in);
    const cuda::Warp<V, P> kernel{sweep, out.at<V>(), cuda::in_fours<V>(sweep.channels, out)};
    cuda::launch(kernel, kernel.blocks(), queue);
  });
}

template <>
void plane_sweep_correlation<Processor::cuda>(const PlaneSweepCall& in, const Tensor& out, const Queue& queue) {
  cuda::for_types(in.source.type, in.projection.type, [&](auto v, auto p) {
    BEV_TYPE(V, v);
    BEV_TYPE(P, p);
    const auto sweep = cuda::sweep_of<V, P>(in);
    const cuda::Correlate<V, P> kernel{sweep, out.at<V>(), sweep.whole && sweep.group_size() % 4 == 0};
    cuda::launch(kernel, kernel.blocks(), queue);
  });
}

}  // namespace bev
