// Python's door to the ops, the same for both processors. The compiled module has one submodule for each processor
// that it was built for; the emulation of the CUDA kernels has `cuda` alone.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <tuple>

#include "bev_ops.h"
#include "shapes.h"
#include "torch_tensor.h"
#ifndef BEV_EMULATE
#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#endif
#ifdef BEV_CUDA
#include "cuda/device.h"
#endif

namespace py = pybind11;

namespace bev {
namespace {

constexpr auto kCuda = Processor::cuda;

// (threads, device, stream)
using Place = std::tuple<int, int, uintptr_t>;
using Sizes = std::array<int64_t, 3>;
using Argument = const Tensor&;

Queue queue_of(const Place& place) { return {std::get<0>(place), std::get<1>(place), std::get<2>(place)}; }

// Also gives its sizes to the letters Z, Y and X.
Grid grid_of(Shapes& shapes, const Sizes& sizes, bool trunc) {
  bool fits = sizes[1] * sizes[2] < (int64_t(1) << 31);
  for (const int64_t size : sizes) fits = fits && size > 0 && size <= kMostAlong;
  shapes.expect(fits, "the grid must be three positive integers (Z, Y, X), at most 2^24, with Y * X below 2^31");
  shapes.bind('Z', sizes[0]), shapes.bind('Y', sizes[1]), shapes.bind('X', sizes[2]);
  return {sizes[0], sizes[1], sizes[2], trunc};
}

// Channels side by side where the processor wants them so.
template <Processor P>
void expect_features(Shapes& shapes, const char* name, Argument tensor, const char* letters, const char* memory) {
  if (P == kCuda) {
    shapes.dense(name, tensor, letters, memory);
  } else {
    shapes.any(name, tensor, letters);
  }
}

template <Processor P>
LiftSplatCall lift_call(Shapes& shapes, Argument depth, Argument context, Argument projection, Argument bins,
                        const Sizes& grid, bool trunc) {
  shapes.any("depth", depth, "BNDHW");
  expect_features<P>(shapes, "context", context, "BNCHW", "BNHWC");
  shapes.dense("projection", projection, "BN34");
  shapes.dense("depth_bins", bins, "D");
  shapes.one_type({&depth, &context});
  shapes.one_type({&projection, &bins});
  return {depth, context, projection, bins, grid_of(shapes, grid, trunc)};
}

void expect_lift_gradients(Shapes& shapes, Argument grad, Argument depth, Argument grad_depth,
                           Argument grad_context) {
  shapes.dense("grad", grad, "BCYX", "BYXC");
  if (grad_depth) shapes.dense("grad_depth", grad_depth, "BNDHW");
  if (grad_context) shapes.dense("grad_context", grad_context, "BNCHW");
  shapes.one_type({&depth, &grad, &grad_depth, &grad_context});
}

template <Processor P>
PlaneSweepCall sweep_call(Shapes& shapes, Argument reference, Argument source, Argument projection,
                          Argument depth, int64_t groups, const std::array<double, 2>& hidden) {
  expect_features<P>(shapes, "source", source, "BChw", "BhwC");
  shapes.any("depth", depth, "BDHW");
  shapes.dense("projection", projection, "B34");
  if (reference) expect_features<P>(shapes, "reference", reference, "BCHW", "BHWC");
  const bool divides = reference ? groups > 0 && shapes['C'] % groups == 0 : groups == 0;
  shapes.expect(divides, "groups must divide the channels, and be 0 where there is no reference");
  shapes.bind('G', groups);
  shapes.one_type({&source, &reference});
  shapes.one_type({&projection, &depth});
  return {reference, source, projection, depth, groups, hidden[0], hidden[1]};
}

// The ops of one processor; every function takes where it runs last.
template <Processor P>
void bind(py::module_ m) {
  const auto free = py::call_guard<py::gil_scoped_release>();
  m.attr("channel_padding") = channel_padding<P>();
  m.def("lift_splat",
        [](Argument depth, Argument context, Argument projection, Argument bins, const Sizes& grid, bool trunc,
           Argument bev, const Place& place) {
          Shapes shapes("lift_splat");
          const auto call = lift_call<P>(shapes, depth, context, projection, bins, grid, trunc);
          shapes.dense("bev", bev, "BCYX", "BYXC");
          lift_splat<P>(call, bev, queue_of(place));
        }, free);
  m.def("lift_splat_backward",
        [](Argument grad, Argument depth, Argument context, Argument projection, Argument bins,
           const Sizes& grid, bool trunc, Argument grad_depth, Argument grad_context, const Place& place) {
          Shapes shapes("lift_splat_backward");
          const auto call = lift_call<P>(shapes, depth, context, projection, bins, grid, trunc);
          expect_lift_gradients(shapes, grad, depth, grad_depth, grad_context);
          lift_splat_backward<P>(call, grad, grad_depth, grad_context, queue_of(place));
        }, free);
  m.def("voxel_pooling",
        [](Argument coords, Argument keys, Argument features, const Sizes& grid, bool trunc, Argument bev,
           const Place& place) {
          Shapes shapes("voxel_pooling");
          const VoxelPoolingCall call{coords, keys, grid_of(shapes, grid, trunc)};
          shapes.any("coords", coords, "BP3");
          expect_features<P>(shapes, "features", features, "BPC", "BPC");
          shapes.expect(features.size[2] == 1 || features.stride[2] == 1, "channels must lie side by side");
          if (P == kCuda) shapes.dense("keys", keys, "BP");
          shapes.dense("bev", bev, "BCYX", "BYXC");
          voxel_pooling<P>(call, features, bev, queue_of(place));
        }, free);
  m.def("voxel_pooling_backward",
        [](Argument grad, Argument coords, Argument keys, const Sizes& grid, bool trunc, Argument grad_features,
           const Place& place) {
          Shapes shapes("voxel_pooling_backward");
          const VoxelPoolingCall call{coords, keys, grid_of(shapes, grid, trunc)};
          shapes.any("coords", coords, "BP3");
          shapes.dense("grad_features", grad_features, "BPC");
          shapes.dense("grad", grad, "BCYX", "BYXC");
          shapes.one_type({&grad, &grad_features});
          if (P == kCuda) shapes.dense("keys", keys, "BP");
          voxel_pooling_backward<P>(call, grad, grad_features, queue_of(place));
        }, free);
  m.def("homography_warp",
        [](Argument source, Argument projection, Argument depth, const std::array<double, 2>& hidden,
           Argument out, const Place& place) {
          Shapes shapes("homography_warp");
          const auto call = sweep_call<P>(shapes, {}, source, projection, depth, 0, hidden);
          shapes.dense("out", out, "BCDHW", "BDHWC");
          homography_warp<P>(call, out, queue_of(place));
        }, free);
  m.def("plane_sweep_correlation",
        [](Argument reference, Argument source, Argument projection, Argument depth, int64_t groups,
           const std::array<double, 2>& hidden, Argument out, const Place& place) {
          Shapes shapes("plane_sweep_correlation");
          shapes.expect(bool(reference), "there must be a reference");
          const auto call = sweep_call<P>(shapes, reference, source, projection, depth, groups, hidden);
          shapes.dense("out", out, "BGDHW");
          plane_sweep_correlation<P>(call, out, queue_of(place));
        }, free);
  m.def("plane_sweep_backward",
        [](Argument grad, Argument reference, Argument source, Argument projection, Argument depth,
           int64_t groups, const std::array<double, 2>& hidden, Argument grad_reference, Argument grad_source,
           Argument grad_depth, const Place& place) {
          Shapes shapes("plane_sweep_backward");
          const auto call = sweep_call<P>(shapes, reference, source, projection, depth, groups, hidden);
          const int64_t padding = channel_padding<P>();
          shapes.bind('K', (shapes['C'] + padding - 1) / padding * padding);
          expect_features<P>(shapes, "grad", grad, groups ? "BGDHW" : "BCDHW", groups ? "BGDHW" : "BDHWC");
          if (grad_reference) shapes.dense("grad_reference", grad_reference, "BKHW", "BHWK");
          if (grad_source) shapes.dense("grad_source", grad_source, "BKhw", "BhwK");
          if (grad_depth) shapes.dense("grad_depth", grad_depth, "BDHW");
          shapes.one_type({&source, &grad, &grad_reference});
          plane_sweep_backward<P>(call, grad, grad_reference, grad_source, grad_depth, queue_of(place));
        }, free);
}

#ifndef BEV_EMULATE

LiftPlan plan_of(Shapes& shapes, Argument starts, Argument cell, Argument rows, Argument events) {
  shapes.bind('k', lift_plan_columns(shapes['B'], shapes['N'], shapes['H'], shapes['W']) + 1);
  shapes.dense("starts", starts, "k2");
  shapes.type("starts", starts, Type::i64);
  if (cell) {
    shapes.dense("cell", cell, "g"), shapes.dense("rows", rows, "g"), shapes.dense("events", events, "e3");
    shapes.type("cell", cell, Type::i32), shapes.type("rows", rows, Type::i16);
    shapes.type("events", events, Type::i32);
  }
  return {starts, cell, rows, events};
}

LiftSplatCall planned_call(Shapes& shapes, Argument depth, Argument context, const Sizes& grid) {
  shapes.any("depth", depth, "BNDHW");
  shapes.any("context", context, "BNCHW");
  shapes.one_type({&depth, &context});
  return {depth, context, {}, {}, grid_of(shapes, grid, false)};
}

void bind_only_cpu(py::module_ m) {
  const auto free = py::call_guard<py::gil_scoped_release>();
  m.def("lift_plan_columns", &lift_plan_columns);
  m.def("lift_plan",
        [](Argument projection, Argument bins, const std::array<int64_t, 2>& size, const Sizes& grid, bool trunc,
           Argument starts, Argument cell, Argument rows, Argument events) {
          Shapes shapes("lift_plan");
          shapes.dense("projection", projection, "BN34");
          shapes.dense("depth_bins", bins, "D");
          shapes.one_type({&projection, &bins});
          Tensor depth;
          depth.axes = 5;
          const int64_t sizes[] = {shapes['B'], shapes['N'], shapes['D'], size[0], size[1]};
          for (int axis = 0; axis < 5; ++axis) depth.size[axis] = sizes[axis];
          shapes.any("feature_size", depth, "BNDHW");
          const LiftSplatCall call{depth, {}, projection, bins, grid_of(shapes, grid, trunc)};
          lift_plan(call, plan_of(shapes, starts, cell, rows, events));
        }, free);
  m.def("lift_splat_planned",
        [](Argument depth, Argument context, Argument starts, Argument cell, Argument rows, Argument events,
           const Sizes& grid, Argument bev, const Place& place) {
          Shapes shapes("lift_splat_planned");
          const auto call = planned_call(shapes, depth, context, grid);
          shapes.dense("bev", bev, "BCYX", "BYXC");
          lift_splat_planned(call, plan_of(shapes, starts, cell, rows, events), bev, queue_of(place));
        }, free);
  m.def("lift_splat_planned_backward",
        [](Argument grad, Argument depth, Argument context, Argument starts, Argument cell, Argument rows,
           Argument events, const Sizes& grid, Argument grad_depth, Argument grad_context, const Place& place) {
          Shapes shapes("lift_splat_planned_backward");
          const auto call = planned_call(shapes, depth, context, grid);
          expect_lift_gradients(shapes, grad, depth, grad_depth, grad_context);
          lift_splat_planned_backward(call, plan_of(shapes, starts, cell, rows, events), grad, grad_depth,
                                      grad_context, queue_of(place));
        }, free);
  m.def("to_channels_last",
        [](Argument in, Argument out, const Place& place) {
          Shapes shapes("to_channels_last");
          shapes.any("in", in, "BCHW");
          shapes.dense("out", out, "BCHW", "BHWC");
          shapes.one_type({&in, &out});
          to_channels_last(in, out, queue_of(place));
        }, free);
  m.def("want_large_pages", [](uintptr_t address, size_t bytes) {
    want_large_pages(reinterpret_cast<void*>(address), bytes);
  });
  m.def("instruction_set", [] { return table().name; }, "The instruction set in use.");
  m.def("instruction_sets", [] { return available(); }, "What this processor can run, best first.");
  m.def("select", [](const std::string& name) { return select(name.c_str()); },
        "Choose an instruction set; False when this processor cannot run it.");
#ifdef _OPENMP
  m.attr("threads") = "OpenMP";
#else
  m.attr("threads") = "none";
#endif
  m.attr("compiler") = BEV_COMPILER;
}

#endif

#if defined(BEV_EMULATE) || defined(BEV_CUDA)

void expect_order(Shapes& shapes, const Order& order, int64_t points, int64_t keys) {
  shapes.bind('p', points), shapes.bind('k', keys + 1);
  shapes.dense("point", order.point, "p");
  shapes.dense("start", order.start, "k");
  shapes.type("point", order.point, Type::i64);
  shapes.type("start", order.start, Type::i64);
}

void bind_only_cuda(py::module_ m) {
  const auto free = py::call_guard<py::gil_scoped_release>();
  m.def("lift_splat_keys",
        [](Argument depth, Argument context, Argument projection, Argument bins, const Sizes& grid, bool trunc,
           Argument keys, const Place& place) {
          Shapes shapes("lift_splat_keys");
          const auto call = lift_call<kCuda>(shapes, depth, context, projection, bins, grid, trunc);
          shapes.dense("keys", keys, "BNDHW");
          shapes.type("keys", keys, Type::i64);
          lift_splat_keys(call, keys, queue_of(place));
        }, free);
  m.def("lift_splat_ordered",
        [](Argument depth, Argument context, Argument projection, Argument bins, const Sizes& grid, bool trunc,
           Argument point, Argument start, Argument bev, const Place& place) {
          Shapes shapes("lift_splat_ordered");
          const auto call = lift_call<kCuda>(shapes, depth, context, projection, bins, grid, trunc);
          const int64_t points = shapes['B'] * shapes['N'] * shapes['D'] * shapes['H'] * shapes['W'];
          expect_order(shapes, {point, start}, points, shapes['B'] * shapes['Y'] * shapes['X']);
          shapes.dense("bev", bev, "BCYX", "BYXC");
          lift_splat_ordered(call, {point, start}, bev, queue_of(place));
        }, free);
  m.def("voxel_pooling_keys",
        [](Argument coords, Argument keys, const Sizes& grid, bool trunc, const Place& place) {
          Shapes shapes("voxel_pooling_keys");
          const VoxelPoolingCall call{coords, keys, grid_of(shapes, grid, trunc)};
          shapes.any("coords", coords, "BP3");
          shapes.dense("keys", keys, "BP");
          shapes.type("keys", keys, Type::i64);
          voxel_pooling_keys(call, queue_of(place));
        }, free);
  m.def("voxel_pooling_ordered",
        [](Argument coords, Argument features, const Sizes& grid, bool trunc, Argument point, Argument start,
           Argument bev, const Place& place) {
          Shapes shapes("voxel_pooling_ordered");
          const VoxelPoolingCall call{coords, {}, grid_of(shapes, grid, trunc)};
          shapes.any("coords", coords, "BP3");
          shapes.dense("features", features, "BPC");
          shapes.dense("bev", bev, "BCYX", "BYXC");
          const int64_t cells = shapes['B'] * shapes['Y'] * shapes['X'];
          expect_order(shapes, {point, start}, shapes['B'] * shapes['P'], cells);
          voxel_pooling_ordered(call, {point, start}, features, bev, queue_of(place));
        }, free);
  m.def("plane_sweep_keys",
        [](Argument reference, Argument source, Argument projection, Argument depth, int64_t groups,
           const std::array<double, 2>& hidden, Argument keys, const Place& place) {
          Shapes shapes("plane_sweep_keys");
          const auto call = sweep_call<kCuda>(shapes, reference, source, projection, depth, groups, hidden);
          shapes.dense("keys", keys, "BDHW");
          shapes.type("keys", keys, Type::i64);
          plane_sweep_keys(call, keys, queue_of(place));
        }, free);
  m.def("plane_sweep_backward_ordered",
        [](Argument grad, Argument reference, Argument source, Argument projection, Argument depth,
           int64_t groups, const std::array<double, 2>& hidden, Argument point, Argument start,
           Argument grad_source, const Place& place) {
          Shapes shapes("plane_sweep_backward_ordered");
          const auto call = sweep_call<kCuda>(shapes, reference, source, projection, depth, groups, hidden);
          shapes.dense("grad", grad, groups ? "BGDHW" : "BCDHW", groups ? "BGDHW" : "BDHWC");
          shapes.dense("grad_source", grad_source, "BChw", "BhwC");
          const int64_t positions = shapes['B'] * shapes['D'] * shapes['H'] * shapes['W'];
          expect_order(shapes, {point, start}, positions, shapes['B'] * (shapes['h'] + 1) * (shapes['w'] + 1));
          plane_sweep_backward_ordered(call, {point, start}, grad, grad_source, queue_of(place));
        }, free);
#ifdef BEV_CUDA
  m.def("problem", &cuda::problem, "Why the kernels can never run on a device; empty where they can.");
  m.def("runtime_version", &cuda::runtime_version);
  m.def("driver_version", &cuda::driver_version);
  m.attr("architectures") = BEV_CUDA_ARCHITECTURES;
#endif
}

#endif

}  // namespace
}  // namespace bev

#ifdef BEV_EMULATE
PYBIND11_MODULE(_emulated, m, py::mod_gil_not_used()) {
  m.doc() = "The CUDA kernels, run thread by thread on the processor over its own memory.";
  bev::bind<bev::Processor::cuda>(m.def_submodule("cuda"));
  bev::bind_only_cuda(m.attr("cuda"));
}
#else
PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
  m.doc() = "The kernels of each processor, over tensors whose sizes and layouts are checked here.";
  bev::bind<bev::Processor::cpu>(m.def_submodule("cpu"));
  bev::bind_only_cpu(m.attr("cpu"));
#ifdef BEV_CUDA
  bev::bind<bev::Processor::cuda>(m.def_submodule("cuda"));
  bev::bind_only_cuda(m.attr("cuda"));
#endif
}
#endif
