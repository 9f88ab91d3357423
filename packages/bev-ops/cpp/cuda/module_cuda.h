#pragma once

#include <pybind11/pybind11.h>

namespace bev {
namespace cuda {

// Adds the CUDA calls to a module.
void bind(pybind11::module_& m);

}  // namespace cuda
}  // namespace bev
