// The kernels over raw addresses of device memory; bev_ops/_cuda_ops.py checks and allocates what it passes here.
// Calls put work into a stream and return.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "../places.h"

namespace bev {
namespace cuda {

// Where a call runs: the device's number and a stream of it.
struct Queue {
  int device;
  uintptr_t stream;
};

// Types of elements, as bev_ops/_cuda_ops.py numbers them.
enum class Type : int { f32, f64, f16, bf16, i64 };

// depth [B,N,D,H,W] with strides in elements, context [B,N,H,W,C], projection [B,N,3,4] and bins [D] dense.
// Values are of one type; sums are doubles for doubles, else floats.
struct LiftCall {
  std::array<int64_t, 6> sizes;  // B, N, D, H, W, C
  Grid grid;
  Type values, places;
  uintptr_t depth;
  std::array<int64_t, 5> stride;
  uintptr_t context, projection, bins;
  Queue queue;

  // bev [B,Y,X,C], sums, zeros before; in no fixed order.
  void splat(uintptr_t bev) const;
  // grad [B,Y,X,C] -> grad_depth [B,N,D,H,W], values.
  void depth_gradient(uintptr_t grad, uintptr_t grad_depth) const;
  // grad [B,Y,X,C] -> grad_context [B,N,C,H,W], values.
  void context_gradient(uintptr_t grad, uintptr_t grad_context) const;
  // key [B*N*D*H*W], int64: each point's cell over all maps, B*Y*X outside.
  void keys(uintptr_t key) const;
  // bev [B,Y,X,C], sums over `point`, sorted by key, from start[cell] to start[cell + 1].
  void gather(uintptr_t point, uintptr_t start, uintptr_t bev) const;
};

#ifndef BEV_EMULATE
// Why the kernels cannot run on a device; empty where they can.
std::string problem(int device);
// Versions of the CUDA runtime in the library and the one that the driver supports, as 1000 * major + 10 * minor;
// the latter is 0 without a driver.
int runtime_version();
int driver_version();
#endif

}  // namespace cuda
}  // namespace bev
