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

// Values are of one type, sums as for LiftCall; features [B,P,C] dense.
struct PoolCall {
  std::array<int64_t, 3> sizes;  // B, P, C
  Grid grid;
  Type values;
  Queue queue;

  // coords [B,P,3] of type `places` with strides in elements -> key [B*P], int64: each point's cell over all maps,
  // B*Y*X outside.
  void keys(Type places, uintptr_t coords, const std::array<int64_t, 3>& stride, uintptr_t key) const;
  // bev [B,Y,X,C], sums, zeros before; in no fixed order.
  void splat(uintptr_t key, uintptr_t features, uintptr_t bev) const;
  // bev [B,Y,X,C], sums over `point`, sorted by key, from start[cell] to start[cell + 1].
  void gather(uintptr_t point, uintptr_t start, uintptr_t features, uintptr_t bev) const;
  // grad [B,Y,X,C] -> grad_features [B,P,C], values.
  void gradient(uintptr_t key, uintptr_t grad, uintptr_t grad_features) const;
};

// source [B,h,w,C], reference [B,H,W,C] and projection [B,3,4] dense, depth [B,D,H,W] with strides in elements and
// of the type of projection. Values are of one type, sums as for LiftCall.
struct SweepCall {
  std::array<int64_t, 8> sizes;  // B, C, h, w, D, H, W, G; no groups for a warp, which needs no reference
  std::array<double, 2> hidden;  // where points behind the camera are seen, (u, v)
  Type values, places;
  uintptr_t reference, source, projection, depth;
  std::array<int64_t, 4> stride;
  Queue queue;

  // out [B,D,H,W,C], values.
  void warp(uintptr_t out) const;
  // out [B,G,D,H,W], values.
  void correlate(uintptr_t out) const;
  // grad [B,G,D,H,W], or [B,D,H,W,C] of a warp -> grad_reference [B,H,W,C], values, and grad_source [B,h,w,C],
  // sums, zeros before, in no fixed order. Either may be null.
  void view_gradients(uintptr_t grad, uintptr_t grad_reference, uintptr_t grad_source) const;
  // grad -> grad_depth [B,D,H,W], sums.
  void depth_gradient(uintptr_t grad, uintptr_t grad_depth) const;
  // key [B*D*H*W], int64: each position's upper left corner among the B*(h+1)*(w+1) there are, or their number.
  void keys(uintptr_t key) const;
  // grad_source [B,h,w,C], sums over `point`, sorted by key, from start[key] to start[key + 1].
  void source_gradient(uintptr_t grad, uintptr_t point, uintptr_t start, uintptr_t grad_source) const;
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
