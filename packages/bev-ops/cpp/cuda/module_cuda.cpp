// Python's door to the CUDA calls, and to their emulation.
#include "module_cuda.h"

#include <pybind11/stl.h>

#include "calls.h"

namespace py = pybind11;

namespace bev {
namespace cuda {
namespace {

using Sizes3 = std::array<int64_t, 3>;

Grid grid_of(const Sizes3& sizes, bool trunc) { return {sizes[0], sizes[1], sizes[2], trunc}; }

}  // namespace

void bind(py::module_& m) {
  const auto free = py::call_guard<py::gil_scoped_release>();
  py::class_<LiftCall>(m, "LiftCall", py::module_local())
      .def(py::init([](const std::array<int64_t, 6>& sizes, const Sizes3& grid, bool trunc, int values, int places,
                       uintptr_t depth, const std::array<int64_t, 5>& stride, uintptr_t context,
                       uintptr_t projection, uintptr_t bins, int device, uintptr_t stream) {
        return LiftCall{sizes, grid_of(grid, trunc), Type(values), Type(places), depth, stride,
                        context, projection, bins, {device, stream}};
      }))
      .def("splat", &LiftCall::splat, free)
      .def("depth_gradient", &LiftCall::depth_gradient, free)
      .def("context_gradient", &LiftCall::context_gradient, free)
      .def("keys", &LiftCall::keys, free)
      .def("gather", &LiftCall::gather, free);
  py::class_<PoolCall>(m, "PoolCall", py::module_local())
      .def(py::init([](const Sizes3& sizes, const Sizes3& grid, bool trunc, int values, int device,
                       uintptr_t stream) {
        return PoolCall{sizes, grid_of(grid, trunc), Type(values), {device, stream}};
      }))
      .def("keys",
           [](const PoolCall& call, int places, uintptr_t coords, const Sizes3& stride, uintptr_t key) {
             call.keys(Type(places), coords, stride, key);
           }, free)
      .def("splat", &PoolCall::splat, free)
      .def("gather", &PoolCall::gather, free)
      .def("gradient", &PoolCall::gradient, free);
  py::class_<SweepCall>(m, "SweepCall", py::module_local())
      .def(py::init([](const std::array<int64_t, 8>& sizes, const std::array<double, 2>& hidden, int values,
                       int places, uintptr_t reference, uintptr_t source, uintptr_t projection, uintptr_t depth,
                       const std::array<int64_t, 4>& stride, int device, uintptr_t stream) {
        return SweepCall{sizes, hidden, Type(values), Type(places), reference, source, projection, depth,
                         stride, {device, stream}};
      }))
      .def("warp", &SweepCall::warp, free)
      .def("correlate", &SweepCall::correlate, free)
      .def("view_gradients", &SweepCall::view_gradients, free)
      .def("depth_gradient", &SweepCall::depth_gradient, free)
      .def("keys", &SweepCall::keys, free)
      .def("source_gradient", &SweepCall::source_gradient, free);
#ifndef BEV_EMULATE
  m.def("cuda_problem", &problem, "Why the kernels cannot run on a device; empty where they can.");
  m.def("cuda_runtime_version", &runtime_version);
  m.def("cuda_driver_version", &driver_version);
  m.attr("cuda_architectures") = BEV_CUDA_ARCHITECTURES;
#endif
}

}  // namespace cuda
}  // namespace bev

#ifdef BEV_EMULATE
PYBIND11_MODULE(_emulated, m) {
  m.doc() = "The CUDA kernels, run thread by thread on the processor over its own memory.";
  bev::cuda::bind(m);
}
#endif
