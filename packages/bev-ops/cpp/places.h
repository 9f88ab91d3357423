// Where points fall: the one place where indices are computed, for the processor and for CUDA. Products and sums
// are never contracted, so that cells are, bit for bit, those of the plain-torch definitions in
// bev_ops/reference.py: a C++ file that includes this must be compiled with -ffp-contract=off where it calls
// anything but tap_at.
#pragma once

#include <cstdint>

// Internal linkage, so that no linker can merge code of different instruction sets.
#ifdef __CUDACC__
#define BEV_PLACE static __host__ __device__ __forceinline__
#else
#define BEV_PLACE static inline __attribute__((always_inline))
#endif

namespace bev {

struct Grid {
  int64_t z, y, x;
  bool trunc;  // round toward zero instead of down
};

// A point nearer to the source camera's plane than this has no position in its image, metres.
constexpr double kMinDepth = 1e-3;

// No point of the source view.
constexpr int32_t kNowhere = INT32_MIN;

#ifdef __CUDA_ARCH__
BEV_PLACE float product(float a, float b) { return __fmul_rn(a, b); }
BEV_PLACE double product(double a, double b) { return __dmul_rn(a, b); }
BEV_PLACE float plus(float a, float b) { return __fadd_rn(a, b); }
BEV_PLACE double plus(double a, double b) { return __dadd_rn(a, b); }
#else
template <class P>
BEV_PLACE P product(P a, P b) {
  return a * b;
}
template <class P>
BEV_PLACE P plus(P a, P b) {
  return a + b;
}
#endif

// The least coordinate that rounds to 0: trunc also keeps what lies above -1.
template <class P>
BEV_PLACE P lowest(bool trunc) {
  const bool whole = P(1) / P(2) == P(0);
  if (whole || !trunc) return P(0);
  return P(-1) + (sizeof(P) == 4 ? P(5.9604644775390625e-8) : P(1.1102230246251565e-16));
}

// One row of a 3x4 matrix times (j, i, 1).
template <class P>
BEV_PLACE P ray_of(const P* row, P j, P i) {
  return plus(plus(product(row[0], j), product(row[1], i)), row[2]);
}

// The point of a ray at a depth.
template <class P>
BEV_PLACE P point_of(P ray, P depth, P shift) {
  return plus(product(ray, depth), shift);
}

// y * X + x of a point in cells, or -1 outside the grid.
template <class P>
BEV_PLACE int32_t cell_of(P x, P y, P z, const Grid& grid) {
  const P low = lowest<P>(grid.trunc);
  const bool inside = (x >= low) & (x < P(grid.x)) & (y >= low) & (y < P(grid.y)) & (z >= low) & (z < P(grid.z));
  const int32_t cell = int32_t(inside ? y : P(0)) * int32_t(grid.x) + int32_t(inside ? x : P(0));
  return inside ? cell : -1;
}

// Where a cell of the reference view is seen in the source view, and how that moves with depth.
template <class P>
struct Seen {
  P u, v, du, dv;
};

template <class P>
BEV_PLACE Seen<P> seen_at(const P* matrix, P j, P i, P depth, double hidden_u, double hidden_v) {
  const P ray_x = ray_of(matrix, j, i), ray_y = ray_of(matrix + 4, j, i), ray_z = ray_of(matrix + 8, j, i);
  const P distance = point_of(ray_z, depth, matrix[11]);
  const bool visible = distance >= P(kMinDepth);
  const P z = visible ? distance : P(1);
  const P u = point_of(ray_x, depth, matrix[3]) / z, v = point_of(ray_y, depth, matrix[7]) / z;
  Seen<P> seen;
  seen.u = visible ? u : P(hidden_u);
  seen.v = visible ? v : P(hidden_v);
  seen.du = visible ? plus(ray_x, -product(u, ray_z)) / z : P(0);
  seen.dv = visible ? plus(ray_y, -product(v, ray_z)) / z : P(0);
  return seen;
}

// The source cell to the upper left of a position, and the fractions beyond it; x is kNowhere where the position
// touches no cell.
template <class T>
struct Tap {
  int32_t x, y;
  T fx, fy;
};

template <class T>
BEV_PLACE Tap<T> tap_at(T u, T v, int64_t width, int64_t height) {
  const bool seen = (u > T(-1)) & (u < T(width)) & (v > T(-1)) & (v < T(height));
  const T column = seen ? u : T(0), row = seen ? v : T(0);
  // Both are above -1, so that adding one makes truncation a floor. Just below a whole number that sum may
  // round up; the position then counts as that number.
  const int32_t x = int32_t(column + T(1)) - 1, y = int32_t(row + T(1)) - 1;
  const T fx = column - T(x), fy = row - T(y);
  const bool touches = seen & (x < int32_t(width)) & (y < int32_t(height));
  return {touches ? x : kNowhere, y, fx > T(0) ? fx : T(0), fy > T(0) ? fy : T(0)};
}

}  // namespace bev
