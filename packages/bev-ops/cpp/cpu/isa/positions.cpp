// Where points fall. Compiled without fused multiply-add: the cells are, bit for bit, those of the plain-torch
// definitions in bev_ops/reference.py.
#include "simd.h"

namespace bev {
namespace BEV_ISA {
namespace {

template <class P>
void column_cells(const P* matrix, int64_t j, int64_t first_row, int64_t rows, const P* bins, int64_t count,
                  const Grid& grid, int32_t* cells) {
  P ray[3][kRows];
  int32_t exists[kRows];
  for (int r = 0; r < kRows; ++r) {
    for (int axis = 0; axis < 3; ++axis) ray[axis][r] = ray_of(matrix + axis * 4, P(j), P(first_row + r));
    exists[r] = r < rows;
  }
  for (int64_t d = 0; d < count; ++d) {
    const P depth = bins[d];
    for (int r = 0; r < kRows; ++r) {
      const int32_t cell = cell_of(point_of(ray[0][r], depth, matrix[3]), point_of(ray[1][r], depth, matrix[7]),
                                   point_of(ray[2][r], depth, matrix[11]), grid);
      cells[d * kRows + r] = exists[r] ? cell : -1;
    }
  }
}

template <class P, class T>
void sweep_row(const P* matrix, int64_t i, int64_t first, int64_t width, const P* depth, int64_t stride,
               double hidden_u, double hidden_v, Positions<T> out) {
  for (int64_t j = 0; j < width; ++j) {
    const Seen<P> seen = seen_at(matrix, P(first + j), P(i), depth[j * stride], hidden_u, hidden_v);
    out.u[j] = T(seen.u);
    out.v[j] = T(seen.v);
    if (out.du) {
      out.du[j] = T(seen.du);
      out.dv[j] = T(seen.dv);
    }
  }
}

template <class C>
void point_cells(const C* coords, int64_t point, int64_t axis, int64_t points, const Grid& grid,
                 int32_t* cells) {
  for (int64_t p = 0; p < points; ++p) {
    cells[p] = cell_of(coords[p * point], coords[p * point + axis], coords[p * point + 2 * axis], grid);
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
