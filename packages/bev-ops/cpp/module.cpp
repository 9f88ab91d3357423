// Python's door to the ops: addresses, sizes and strides of tensors that bev_ops/_torch_ops.py has checked.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <vector>

#include "bev_ops.h"
#include "cpu/parallel.h"
#ifdef BEV_CUDA
#include "cuda/module_cuda.h"
#endif

namespace py = pybind11;

namespace {

using Strides = std::vector<int64_t>;

// A tensor as Python hands it over: address, strides in elements, whether its elements are doubles.
struct Argument {
  uintptr_t address;
  Strides strides;
  std::string dtype;

  template <class T>
  bev::Strided<const T> as() const {
    bev::Strided<const T> tensor{reinterpret_cast<const T*>(address), {}};
    for (size_t axis = 0; axis < strides.size() && axis < 5; ++axis) tensor.stride[axis] = strides[axis];
    return tensor;
  }
  template <class T>
  const T* data() const {
    return reinterpret_cast<const T*>(address);
  }
  template <class T>
  T* out() const {
    return reinterpret_cast<T*>(address);
  }
};

template <class T>
struct Type {
  using type = T;
};

// Calls body(Type<Values>, Type<Places>) for the dtypes of two arguments.
template <class Body>
void for_types(const Argument& values, const Argument& places, Body&& body) {
  const auto inner = [&](auto v) {
    if (places.dtype == "float64") {
      body(v, Type<double>{});
    } else {
      body(v, Type<float>{});
    }
  };
  if (values.dtype == "float64") {
    inner(Type<double>{});
  } else {
    inner(Type<float>{});
  }
}

// The same for coordinates, which may be integers.
template <class Body>
void for_coords(const Argument& values, const Argument& coords, Body&& body) {
  if (coords.dtype == "int64") {
    if (values.dtype == "float64") {
      body(Type<double>{}, Type<int64_t>{});
    } else {
      body(Type<float>{}, Type<int64_t>{});
    }
  } else {
    for_types(values, coords, body);
  }
}

#define BEV_TYPES(v, p)               \
  using V = typename decltype(v)::type; \
  using P = typename decltype(p)::type

bev::Grid grid_of(const std::array<int64_t, 3>& sizes, bool trunc) {
  return {sizes[0], sizes[1], sizes[2], trunc};
}

void lift_splat(const std::array<int64_t, 6>& s, const std::array<int64_t, 3>& grid, bool trunc,
                const Argument& depth, const Argument& context, const Argument& projection,
                const Argument& bins, const Argument& bev_map, int threads) {
  const bev::LiftShape shape{s[0], s[1], s[2], s[3], s[4], s[5], grid_of(grid, trunc)};
  for_types(depth, projection, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    bev::lift_splat<V, P>(shape, depth.as<V>(), context.as<V>(), projection.data<P>(), bins.data<P>(),
                          bev_map.out<V>(), threads);
  });
}

void lift_splat_backward(const std::array<int64_t, 6>& s, const std::array<int64_t, 3>& grid, bool trunc,
                         const Argument& grad, const Argument& depth, const Argument& context,
                         const Argument& projection, const Argument& bins, const Argument& grad_depth,
                         const Argument& grad_context, int threads) {
  const bev::LiftShape shape{s[0], s[1], s[2], s[3], s[4], s[5], grid_of(grid, trunc)};
  for_types(depth, projection, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    bev::lift_splat_backward<V, P>(shape, grad.data<V>(), depth.as<V>(), context.as<V>(),
                                   projection.data<P>(), bins.data<P>(), grad_depth.out<V>(),
                                   grad_context.out<V>(), threads);
  });
}

// A plan as four tensors.
bev::LiftPlan plan_of(const std::vector<Argument>& plan) {
  return {plan[0].data<int64_t>(), plan[1].data<int32_t>(), plan[2].data<uint16_t>(), plan[3].data<int32_t>()};
}

int64_t lift_plan_columns(const std::array<int64_t, 6>& s) {
  return bev::lift_plan_columns({s[0], s[1], s[2], s[3], s[4], s[5], {}});
}

void lift_plan(const std::array<int64_t, 6>& s, const std::array<int64_t, 3>& grid, bool trunc,
               const Argument& projection, const Argument& bins, const std::vector<Argument>& plan, int) {
  const bev::LiftShape shape{s[0], s[1], s[2], s[3], s[4], s[5], grid_of(grid, trunc)};
  const auto fill = [&](auto p) {
    using P = typename decltype(p)::type;
    bev::lift_plan<P>(shape, projection.data<P>(), bins.data<P>(), plan[0].out<int64_t>(),
                      plan[1].out<int32_t>(), plan[2].out<uint16_t>(), plan[3].out<int32_t>());
  };
  projection.dtype == "float64" ? fill(Type<double>{}) : fill(Type<float>{});
}

void lift_splat_planned(const std::array<int64_t, 6>& s, const std::array<int64_t, 3>& grid,
                        const Argument& depth, const Argument& context, const std::vector<Argument>& plan,
                        const Argument& bev_map, int threads) {
  const bev::LiftShape shape{s[0], s[1], s[2], s[3], s[4], s[5], grid_of(grid, false)};
  for_types(depth, depth, [&](auto v, auto) {
    using V = typename decltype(v)::type;
    bev::lift_splat_planned<V>(shape, depth.as<V>(), context.as<V>(), plan_of(plan), bev_map.out<V>(), threads);
  });
}

void lift_splat_planned_backward(const std::array<int64_t, 6>& s, const std::array<int64_t, 3>& grid,
                                 const Argument& grad, const Argument& depth, const Argument& context,
                                 const std::vector<Argument>& plan, const Argument& grad_depth,
                                 const Argument& grad_context, int threads) {
  const bev::LiftShape shape{s[0], s[1], s[2], s[3], s[4], s[5], grid_of(grid, false)};
  for_types(depth, depth, [&](auto v, auto) {
    using V = typename decltype(v)::type;
    bev::lift_splat_planned_backward<V>(shape, grad.data<V>(), depth.as<V>(), context.as<V>(), plan_of(plan),
                                        grad_depth.out<V>(), grad_context.out<V>(), threads);
  });
}

void voxel_pooling(const std::array<int64_t, 3>& s, const std::array<int64_t, 3>& grid, bool trunc,
                   const Argument& coords, const Argument& features, const Argument& bev_map, int threads) {
  const bev::PoolShape shape{s[0], s[1], s[2], grid_of(grid, trunc)};
  for_coords(features, coords, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    bev::voxel_pooling<V, P>(shape, coords.as<P>(), features.as<V>(), bev_map.out<V>(), threads);
  });
}

void voxel_pooling_backward(const std::array<int64_t, 3>& s, const std::array<int64_t, 3>& grid, bool trunc,
                            const Argument& coords, const Argument& grad, const Argument& grad_features,
                            int threads) {
  const bev::PoolShape shape{s[0], s[1], s[2], grid_of(grid, trunc)};
  for_coords(grad, coords, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    bev::voxel_pooling_backward<V, P>(shape, coords.as<P>(), grad.data<V>(), grad_features.out<V>(), threads);
  });
}

bev::SweepShape sweep_shape(const std::array<int64_t, 8>& s, const std::array<double, 2>& hidden) {
  return {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], hidden[0], hidden[1]};
}

void warp(const std::array<int64_t, 8>& sizes, const std::array<double, 2>& hidden, const Argument& source,
          const Argument& projection, const Argument& depth, const Argument& out, int threads) {
  for_types(source, projection, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    bev::warp<V, P>(sweep_shape(sizes, hidden), source.as<V>(), projection.data<P>(), depth.as<P>(),
                    out.out<V>(), threads);
  });
}

void correlate(const std::array<int64_t, 8>& sizes, const std::array<double, 2>& hidden,
               const Argument& reference, const Argument& source, const Argument& projection,
               const Argument& depth, const Argument& out, int threads) {
  for_types(source, projection, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    bev::correlate<V, P>(sweep_shape(sizes, hidden), reference.as<V>(), source.as<V>(),
                         projection.data<P>(), depth.as<P>(), out.out<V>(), threads);
  });
}

void sweep_backward(const std::array<int64_t, 8>& sizes, const std::array<double, 2>& hidden,
                    const Argument& grad, const Argument& reference, const Argument& source,
                    const Argument& projection, const Argument& depth, const Argument& grad_reference,
                    const Argument& grad_source, const Argument& grad_depth, int threads) {
  for_types(source, projection, [&](auto v, auto p) {
    BEV_TYPES(v, p);
    bev::sweep_backward<V, P>(sweep_shape(sizes, hidden), grad.as<V>(), reference.as<V>(), source.as<V>(),
                              projection.data<P>(), depth.as<P>(), grad_reference.out<V>(),
                              grad_source.out<V>(), grad_depth.out<V>(), threads);
  });
}

void to_channels_last(const std::array<int64_t, 4>& s, const Argument& in, const Argument& out, int threads) {
  if (in.dtype == "float64") {
    bev::to_channels_last<double>(in.as<double>(), s[0], s[1], s[2], s[3], out.out<double>(), threads);
  } else {
    bev::to_channels_last<float>(in.as<float>(), s[0], s[1], s[2], s[3], out.out<float>(), threads);
  }
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Kernels over raw addresses; bev_ops/_torch_ops.py checks what it passes here.";
  py::class_<Argument>(m, "Argument")
      .def(py::init<uintptr_t, Strides, std::string>(), py::arg("address"), py::arg("strides"), py::arg("dtype"));
  const auto free = py::call_guard<py::gil_scoped_release>();
  m.def("lift_splat", &lift_splat, free);
  m.def("lift_splat_backward", &lift_splat_backward, free);
  m.def("lift_plan_columns", &lift_plan_columns);
  m.def("lift_plan", &lift_plan, free);
  m.def("lift_splat_planned", &lift_splat_planned, free);
  m.def("lift_splat_planned_backward", &lift_splat_planned_backward, free);
  m.def("voxel_pooling", &voxel_pooling, free);
  m.def("voxel_pooling_backward", &voxel_pooling_backward, free);
  m.def("warp", &warp, free);
  m.def("correlate", &correlate, free);
  m.def("sweep_backward", &sweep_backward, free);
  m.def("to_channels_last", &to_channels_last, free);
  m.def("want_large_pages", [](uintptr_t address, size_t bytes) {
    bev::want_large_pages(reinterpret_cast<void*>(address), bytes);
  });
  m.def("instruction_set", [] { return bev::table().name; }, "The instruction set in use.");
  m.def("instruction_sets", [] { return bev::available(); }, "What this processor can run, best first.");
  m.def("select", [](const std::string& name) { return bev::select(name.c_str()); },
        "Choose an instruction set; False when this processor cannot run it.");
#ifdef _OPENMP
  m.attr("threads") = "OpenMP";
#else
  m.attr("threads") = "none";
#endif
  m.attr("compiler") = BEV_COMPILER;
#ifdef BEV_CUDA
  bev::cuda::bind(m);
#endif
}
