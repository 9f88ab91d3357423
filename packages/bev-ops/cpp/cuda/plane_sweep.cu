// Calls of the plane sweep.
#include "plane_sweep.h"

#include "types.h"

namespace bev {
namespace cuda {

void SweepCall::warp(uintptr_t out) const {
  for_types(values, places, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    const Warp<V, P> kernel{sweep_of<V, P>(*this), at<V>(out), in_fours<V>(sizes[1], out)};
    launch(kernel, kernel.blocks(), queue);
  });
}

void SweepCall::correlate(uintptr_t out) const {
  for_types(values, places, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    const Sweep<V, P> sweep = sweep_of<V, P>(*this);
    const Correlate<V, P> kernel{sweep, at<V>(out), sweep.whole && sweep.group_size() % 4 == 0};
    launch(kernel, kernel.blocks(), queue);
  });
}

}  // namespace cuda
}  // namespace bev
