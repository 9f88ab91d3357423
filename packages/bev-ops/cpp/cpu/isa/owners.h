// Who sums into which cell of a map: one thread per cell, so that no two write to the same.
#pragma once

#include "simd.h"

namespace bev {
namespace BEV_ISA {

// Cells are dealt to owners in bands: points along a ray stay with one owner for a while.
constexpr int kBandBits = 9;

BEV_INLINE bool owns(int32_t cell, int64_t owner, int64_t owners) {
  return owners == 1 || (uint32_t(cell) >> kBandBits) % uint32_t(owners) == uint32_t(owner);
}

}  // namespace BEV_ISA
}  // namespace bev
