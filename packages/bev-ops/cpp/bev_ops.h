// The ops, as both processors offer them: inputs by name, then results, then where the call runs. Results that are
// no tensors are not wanted. module.cpp has checked sizes and layouts; letters are those of docs/conventions.md.
#pragma once

#include <cstdint>

#include "places.h"
#include "types.h"

namespace bev {

enum class Processor { cpu, cuda };

// How many threads a call may use, or the stream of the device that it goes into.
struct Queue {
  int threads, device;
  uintptr_t stream;
};

template <class T>
struct Strided {
  T* data;
  int64_t stride[5];
};

// A tensor of torch; strides are in elements. Without axes it is none.
struct Tensor {
  static constexpr int kMostAxes = 5;

  void* data = nullptr;
  Type type = Type::f32;
  int axes = 0;
  int64_t size[kMostAxes] = {};
  int64_t stride[kMostAxes] = {};

  explicit operator bool() const { return axes > 0; }
  template <class T>
  T* at() const {
    return static_cast<T*>(data);
  }
  template <class T>
  Strided<const T> strided() const {
    return {at<const T>(), {stride[0], stride[1], stride[2], stride[3], stride[4]}};
  }
};

// What lift-splat reads. CUDA takes the channels of context side by side.
struct LiftSplatCall {
  Tensor depth;       // [B,N,D,H,W]
  Tensor context;     // [B,N,C,H,W]
  Tensor projection;  // [B,N,3,4], dense
  Tensor bins;        // [D], dense
  Grid grid;
};

// bev [B,C,Y,X], channels side by side.
template <Processor>
void lift_splat(const LiftSplatCall& in, const Tensor& bev, const Queue& queue);
// grad [B,C,Y,X], channels side by side; grad_depth [B,N,D,H,W] and grad_context [B,N,C,H,W], dense.
template <Processor>
void lift_splat_backward(const LiftSplatCall& in, const Tensor& grad, const Tensor& grad_depth,
                         const Tensor& grad_context, const Queue& queue);

// What voxel pooling knows of its points.
struct VoxelPoolingCall {
  Tensor coords;  // [B,P,3]
  Tensor keys;    // [B,P], int64: for CUDA to write each point's cell over all maps to, B*Y*X outside
  Grid grid;
};

// features [B,P,C] with channels side by side, all dense for CUDA; bev [B,C,Y,X], channels side by side.
template <Processor>
void voxel_pooling(const VoxelPoolingCall& in, const Tensor& features, const Tensor& bev, const Queue& queue);
// grad [B,C,Y,X], channels side by side; grad_features [B,P,C], dense.
template <Processor>
void voxel_pooling_backward(const VoxelPoolingCall& in, const Tensor& grad, const Tensor& grad_features,
                            const Queue& queue);

// What plane sweeps read. CUDA takes the channels of the views side by side.
struct PlaneSweepCall {
  Tensor reference;  // [B,C,H,W]; none for a warp
  Tensor source;     // [B,C,h,w]
  Tensor projection;  // [B,3,4], dense
  Tensor depth;       // [B,D,H,W]
  int64_t groups;     // 0 for a warp
  double hidden_u, hidden_v;  // where points behind the camera are seen
};

// out [B,C,D,H,W], channels side by side.
template <Processor>
void homography_warp(const PlaneSweepCall& in, const Tensor& out, const Queue& queue);
// out [B,G,D,H,W], dense.
template <Processor>
void plane_sweep_correlation(const PlaneSweepCall& in, const Tensor& out, const Queue& queue);
// grad [B,G,D,H,W] or [B,C,D,H,W]; grad_reference [B,C,H,W] and grad_source [B,C,h,w] with channels side by side,
// padded to a multiple of padded_channels(), the latter zeros before; grad_depth [B,D,H,W].
template <Processor>
void plane_sweep_backward(const PlaneSweepCall& in, const Tensor& grad, const Tensor& grad_reference,
                          const Tensor& grad_source, const Tensor& grad_depth, const Queue& queue);
// What channels of the gradients of views are padded to a multiple of.
template <Processor>
int64_t channel_padding();

// Only the processor's: the geometry of lift-splat for a rig that does not move, as the groups of every column of
// image. Column k has the groups from starts[k, 0] to starts[k + 1, 0] and the events from starts[k, 1] to
// starts[k + 1, 1].
struct LiftPlan {
  Tensor starts;  // [columns + 1, 2], int64
  Tensor cell;    // [groups], int32: y * X + x
  Tensor rows;    // [groups], int16: a bit for every row of the column that has points there
  Tensor events;  // [events, 3], int32: the points of one bin in one group, as (bin, group, rows)
};

int64_t lift_plan_columns(int64_t batch, int64_t cameras, int64_t height, int64_t width);
// Counts into starts where the plan has no cells, else fills the other three. The context has no role.
void lift_plan(const LiftSplatCall& in, const LiftPlan& plan);
// As lift_splat and its backward; the projection, the bins and the grid's rounding have no role.
void lift_splat_planned(const LiftSplatCall& in, const LiftPlan& plan, const Tensor& bev, const Queue& queue);
void lift_splat_planned_backward(const LiftSplatCall& in, const LiftPlan& plan, const Tensor& grad,
                                 const Tensor& grad_depth, const Tensor& grad_context, const Queue& queue);
// in [B,C,H,W] -> out [B,C,H,W], channels side by side.
void to_channels_last(const Tensor& in, const Tensor& out, const Queue& queue);

// Only CUDA's: sums in a fixed order. The keys [B,N,D,H,W], [B,P] and [B,D,H,W] (int64) of points number the cells
// that they fall into over all maps, and for source cells the corners from -1 on; their count is that of no cell.
// `point` [points] is sorted by key, `start` [keys + 1] says where each key begins.
struct Order {
  Tensor point, start;
};

void lift_splat_keys(const LiftSplatCall& in, const Tensor& keys, const Queue& queue);
void lift_splat_ordered(const LiftSplatCall& in, const Order& order, const Tensor& bev, const Queue& queue);
void voxel_pooling_keys(const VoxelPoolingCall& in, const Queue& queue);
void voxel_pooling_ordered(const VoxelPoolingCall& in, const Order& order, const Tensor& features, const Tensor& bev,
                           const Queue& queue);
void plane_sweep_keys(const PlaneSweepCall& in, const Tensor& keys, const Queue& queue);
void plane_sweep_backward_ordered(const PlaneSweepCall& in, const Order& order, const Tensor& grad,
                                  const Tensor& grad_source, const Queue& queue);

}  // namespace bev
