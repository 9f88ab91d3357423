// Where points fall. Compiled without fused multiply-add: the cells are, bit for bit, those of the plain-torch
// definitions in bev_ops/reference.py.
#include "simd.h"

namespace bev {
namespace BEV_ISA {
namespace {

// A point nearer to the source camera's plane than this has no position in its image, metres.
constexpr double kMinDepth = 1e-3;

// The least coordinate that rounds to 0: trunc also keeps what lies above -1.
template <class P>
P lowest(bool trunc) {
  return trunc ? P(-1) + (sizeof(P) == 4 ? P(5.9604644775390625e-8) : P(1.1102230246251565e-16)) : P(0);
}

template <>
int64_t lowest<int64_t>(bool) {
  return 0;
}

template <class P>
void column_cells(const P* matrix, int64_t j, int64_t first_row, int64_t rows, const P* bins, int64_t count,
                  const Grid& grid, int32_t* cells) {
  const P low = lowest<P>(grid.trunc);
  const P x_end = P(grid.x), y_end = P(grid.y), z_end = P(grid.z);
  const int32_t x_size = int32_t(grid.x);
  P ray[3][kRows], shift[3] = {matrix[3], matrix[7], matrix[11]};
  int32_t exists[kRows];
  for (int r = 0; r < kRows; ++r) {
    const P i = P(first_row + r);
    for (int axis = 0; axis < 3; ++axis) {
      ray[axis][r] = (matrix[axis * 4] * P(j) + matrix[axis * 4 + 1] * i) + matrix[axis * 4 + 2];
    }
    exists[r] = r < rows;
  }
  for (int64_t d = 0; d < count; ++d) {
    const P depth = bins[d];
    for (int r = 0; r < kRows; ++r) {
      const P x = ray[0][r] * depth + shift[0];
      const P y = ray[1][r] * depth + shift[1];
      const P z = ray[2][r] * depth + shift[2];
      const bool inside = (x >= low) & (x < x_end) & (y >= low) & (y < y_end) & (z >= low) & (z < z_end) &
                          (exists[r] != 0);
      const int32_t cell = int32_t(inside ? y : P(0)) * x_size + int32_t(inside ? x : P(0));
      cells[d * kRows + r] = inside ? cell : -1;
    }
  }
}

template <class P, class T>
void sweep_row(const P* matrix, int64_t i, int64_t first, int64_t width, const P* depth, int64_t stride,
               double hidden_u, double hidden_v, Positions<T> out) {
  const P row = P(i);
  for (int64_t j = 0; j < width; ++j) {
    const P distance = depth[j * stride];
    P ray[3], point[3];
    for (int axis = 0; axis < 3; ++axis) {
      ray[axis] = (matrix[axis * 4] * P(first + j) + matrix[axis * 4 + 1] * row) + matrix[axis * 4 + 2];
      point[axis] = ray[axis] * distance + matrix[axis * 4 + 3];
    }
    const bool visible = point[2] >= P(kMinDepth);
    const P z = visible ? point[2] : P(1);
    const P u = point[0] / z, v = point[1] / z;
    out.u[j] = T(visible ? u : P(hidden_u));
    out.v[j] = T(visible ? v : P(hidden_v));
    if (out.du) {
      out.du[j] = T(visible ? (ray[0] - u * ray[2]) / z : P(0));
      out.dv[j] = T(visible ? (ray[1] - v * ray[2]) / z : P(0));
    }
  }
}

template <class C>
void point_cells(const C* coords, int64_t point, int64_t axis, int64_t points, const Grid& grid,
                 int32_t* cells) {
  const C low = lowest<C>(grid.trunc);
  const C x_end = C(grid.x), y_end = C(grid.y), z_end = C(grid.z);
  for (int64_t p = 0; p < points; ++p) {
    const C x = coords[p * point], y = coords[p * point + axis], z = coords[p * point + 2 * axis];
    const bool inside =
        (x >= low) & (x < x_end) & (y >= low) & (y < y_end) & (z >= low) & (z < z_end);
    cells[p] = inside ? int32_t(y) * int32_t(grid.x) + int32_t(x) : -1;
  }
}

}  // namespace

void fill_positions(Table& table) {
  table.positions_f32 = {column_cells<float>, sweep_row<float, float>, sweep_row<float, double>};
  table.positions_f64 = {column_cells<double>, sweep_row<double, float>, sweep_row<double, double>};
  table.coords_f32 = {point_cells<float>};
  table.coords_f64 = {point_cells<double>};
  table.coords_i64 = {point_cells<int64_t>};
}

}  // namespace BEV_ISA
}  // namespace bev
