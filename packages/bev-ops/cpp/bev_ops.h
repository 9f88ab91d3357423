// The ops over raw pointers. Strides are in elements, in the order of the axes in the comments; outputs are dense
// unless they say otherwise. `Values` is what sums run in, `Places` what positions are computed in.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"

namespace bev {

// The kernels of the instruction set in use.
const Table& table();
// Names of the sets this processor can run, best first, separated by spaces.
const char* available();
// Chooses a set by name; false when this processor cannot run it.
bool select(const char* name);

template <class T>
struct Strided {
  T* data;
  int64_t stride[5];
};

struct LiftShape {
  int64_t batch, cameras, bins, height, width, channels;
  Grid grid;
};

// depth [B,N,D,H,W], context [B,N,C,H,W], projection [B*N,12] and bins [D] dense; to bev [B,Y,X,C].
template <class Values, class Places>
void lift_splat(const LiftShape& shape, Strided<const Values> depth, Strided<const Values> context,
                const Places* projection, const Places* bins, Values* bev, int threads);

// grad [B,Y,X,C] dense; either gradient may be null: grad_depth [B,N,D,H,W], grad_context [B,N,C,H,W].
template <class Values, class Places>
void lift_splat_backward(const LiftShape& shape, const Values* grad, Strided<const Values> depth,
                         Strided<const Values> context, const Places* projection, const Places* bins,
                         Values* grad_depth, Values* grad_context, int threads);

// The geometry of lift-splat for a rig that does not move: the groups of every column. Column k has the groups
// from starts[2 k] to starts[2 k + 2] and the events from starts[2 k + 1] to starts[2 k + 3]; an event is three
// numbers laid out as `Event`.
struct LiftPlan {
  const int64_t* starts;
  const int32_t* cell;
  const uint16_t* rows;
  const int32_t* events;
};

// Columns of a plan; it does not depend on the number of channels.
int64_t lift_plan_columns(const LiftShape& shape);

// Without `cell`, counts into `starts` (2 * (columns + 1) numbers); with it, fills the other three.
template <class Places>
void lift_plan(const LiftShape& shape, const Places* projection, const Places* bins, int64_t* starts,
               int32_t* cell, uint16_t* rows, int32_t* events);

// The same as `lift_splat` and `lift_splat_backward`, from a plan.
template <class Values>
void lift_splat_planned(const LiftShape& shape, Strided<const Values> depth, Strided<const Values> context,
                        const LiftPlan& plan, Values* bev, int threads);
template <class Values>
void lift_splat_planned_backward(const LiftShape& shape, const Values* grad, Strided<const Values> depth,
                                 Strided<const Values> context, const LiftPlan& plan, Values* grad_depth,
                                 Values* grad_context, int threads);

struct PoolShape {
  int64_t batch, points, channels;
  Grid grid;
};

// coords [B,P,3]; features [B,P,C] with channels side by side; bev [B,Y,X,C] zeros.
template <class Values, class Coords>
void voxel_pooling(const PoolShape& shape, Strided<const Coords> coords, Strided<const Values> features,
                   Values* bev, int threads);

// grad [B,Y,X,C] dense; grad_features [B,P,C].
template <class Values, class Coords>
void voxel_pooling_backward(const PoolShape& shape, Strided<const Coords> coords, const Values* grad,
                            Values* grad_features, int threads);

struct SweepShape {
  int64_t batch, channels, source_height, source_width, hypotheses, height, width;
  int64_t groups;  // 0: a warp without correlation
  double hidden_u, hidden_v;
};

// source [B,C,h,w], projection [B,12] dense, depth [B,D,H,W]; out [B,D,H,W,C].
template <class Values, class Places>
void warp(const SweepShape& shape, Strided<const Values> source, const Places* projection,
          Strided<const Places> depth, Values* out, int threads);

// reference [B,C,H,W], the rest as in `warp`; out [B,G,D,H,W].
template <class Values, class Places>
void correlate(const SweepShape& shape, Strided<const Values> reference, Strided<const Values> source,
               const Places* projection, Strided<const Places> depth, Values* out, int threads);

// Backward of both: grad is [B,C,D,H,W] or [B,G,D,H,W]. Any gradient may be null; grad_source
// [B,h,w,padded C] arrives as zeros, grad_reference [B,H,W,padded C] and grad_depth [B,D,H,W] as anything.
template <class Values, class Places>
void sweep_backward(const SweepShape& shape, Strided<const Values> grad, Strided<const Values> reference,
                    Strided<const Values> source, const Places* projection, Strided<const Places> depth,
                    Values* grad_reference, Values* grad_source, Values* grad_depth, int threads);

// in [B,C,H,W] -> out [B,H,W,C].
template <class Values>
void to_channels_last(Strided<const Values> in, int64_t batch, int64_t channels, int64_t height, int64_t width,
                      Values* out, int threads);

// The members of a table for one type.
template <class T>
struct Of;
template <>
struct Of<float> {
  static const ValueKernels<float>& values() { return table().values_f32; }
  static const PositionKernels<float>& positions() { return table().positions_f32; }
  static const CoordKernels<float>& coords() { return table().coords_f32; }
};
template <>
struct Of<double> {
  static const ValueKernels<double>& values() { return table().values_f64; }
  static const PositionKernels<double>& positions() { return table().positions_f64; }
  static const CoordKernels<double>& coords() { return table().coords_f64; }
};
template <>
struct Of<int64_t> {
  static const CoordKernels<int64_t>& coords() { return table().coords_i64; }
};

}  // namespace bev
