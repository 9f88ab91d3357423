// The instruction set in use, and its kernels by type.
#pragma once

#include "kernels.h"

namespace bev {

// The kernels of the instruction set in use.
const Table& table();
// Names of the sets this processor can run, best first, separated by spaces.
const char* available();
// Chooses a set by name; false when this processor cannot run it.
bool select(const char* name);

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
