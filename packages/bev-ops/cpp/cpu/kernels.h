// The functions that exist once per instruction set, and the tables through which they are called.
//
// Kernels work on one tile, row or group of points at a time, know nothing of threads and allocate nothing.
#pragma once

#include <cstdint>

#include "../places.h"

namespace bev {

// Image rows that are treated as one column; also what channel counts of packed features are padded to.
constexpr int kRows = 16;

inline int64_t padded(int64_t channels) { return (channels + kRows - 1) / kRows * kRows; }

// Points of one image column merged by cell: cell g receives, from row r, weight[g * kRows + r].
template <class T>
struct Groups {
  const int32_t* cell;
  const uint16_t* rows;  // bit r: row r has points in the cell
  const T* weight;
};

// Where the groups of a column are written.
template <class T>
struct GroupRoom {
  int32_t* cell;
  uint16_t* rows;
  T* weight;

  operator Groups<T>() const { return {cell, rows, weight}; }
};

// Points of one depth bin that went into one group; backward hands the group's result back to them.
struct Event {
  int32_t bin, group;
  uint32_t rows;
};
static_assert(sizeof(Event) == 3 * sizeof(int32_t), "plans hold events as three numbers");

// A map in rows of channels: element (i, j, c) lies at data[i * row + j * pitch + c]; channels are readable
// up to a multiple of kRows.
template <class T>
struct Map {
  const T* data;
  int64_t row, pitch, height, width;
};

// Strided planes whose last axes are (rows, columns).
template <class T>
struct Block {
  T* data;
  int64_t row, column;
  int64_t rows, columns;
};

// The source cell to the upper left of each position of a row, and the fractions beyond it.
template <class T>
struct TapRow {
  int32_t *x, *y;
  T *fx, *fy;
};

// Hypotheses that correlate_row works on at a time.
constexpr int kAbreast = 3;

// Elements that correlate_row needs for the products of kRows pixels.
inline int64_t correlation_scratch(int64_t channels) { return kAbreast * kRows * padded(channels); }

// Where cells of one row of the reference view are seen in the source view; slopes by depth are optional.
template <class T>
struct Positions {
  T *u, *v, *du, *dv;
};

template <class P>
struct PositionKernels {
  // Cells of a column's points: cells[d * kRows + r] is y * X + x, or -1 outside the grid.
  void (*column_cells)(const P* matrix, int64_t j, int64_t first_row, int64_t rows, const P* bins,
                       int64_t count, const Grid& grid, int32_t* cells);
  // Positions of `width` cells of row i from column `first` on; `depth` is the first cell's.
  void (*sweep_row_f32)(const P* matrix, int64_t i, int64_t first, int64_t width, const P* depth, int64_t stride,
                        double hidden_u, double hidden_v, Positions<float> out);
  void (*sweep_row_f64)(const P* matrix, int64_t i, int64_t first, int64_t width, const P* depth, int64_t stride,
                        double hidden_u, double hidden_v, Positions<double> out);
};

template <class T>
struct ValueKernels {
  // out[c * pitch + r] = block(r, c), zero for r from rows up to `pad`.
  void (*pack)(Block<const T> block, T* out, int64_t pitch, int64_t pad);
  // block(r, c) = in[c * pitch + r].
  void (*unpack)(const T* in, int64_t pitch, Block<T> block);
  // Merges points by cell; `slots` has one entry per cell of the grid, any content. Returns the number of
  // groups; with `events`, lists where the points went and sets their number.
  int64_t (*merge)(const int32_t* cells, const T* depth, int64_t bins, int32_t* slots, GroupRoom<T> out,
                   Event* events, int64_t* event_count);
  // The weights of groups whose points are known: sums of depth over each group's events.
  void (*weigh)(const Event* events, int64_t event_count, const T* depth, T* weight);
  // bev[cell] += sum over rows of weight * context, for those groups of one column whose cells `owner` of
  // `owners` owns. Cells that are not `begun` hold nothing yet; those written to are noted as begun.
  void (*splat)(const Groups<T>& groups, int64_t count, const T* context, int64_t channels, T* bev, bool* begun,
                int64_t owner, int64_t owners);
  // Backward of `splat`, all of one column transposed to [channel or group][row]; `full` has a bit per row.
  void (*splat_backward)(const Groups<T>& groups, int64_t count, uint16_t full, const T* grad,
                         const T* context, int64_t channels, T* grad_context, T* grad_weight);
  // Gives every point of a column the gradient of its group: out[bin * kRows + r], zero for points in none.
  void (*hand_back)(const Event* events, int64_t count, const T* group_grads, T* out, int64_t bins);
  // bev[cell] += features[point] for the cells that `owner` owns.
  void (*pool)(const int32_t* cells, int64_t points, const T* features, int64_t stride, int64_t channels,
               T* bev, int64_t owner, int64_t owners);
  // Source cells around the positions of one row.
  void (*find_taps)(const Map<T>& map, const T* u, const T* v, int64_t width, TapRow<T> out);
  // Correlation of one row of the reference view with its warps, whose taps follow each other by hypothesis:
  // out[g * stride_g + k * stride_k + j].
  void (*correlate_row)(const T* reference, int64_t pitch, int64_t width, const Map<T>& source,
                        int64_t channels, int64_t groups, TapRow<T> taps, int64_t hypotheses, T* out,
                        int64_t stride_g, int64_t stride_k, const T* zeros, T* scratch);
  // Warps of one row: out[j * channels + c].
  void (*warp_row)(int64_t width, const Map<T>& source, int64_t channels, TapRow<T> taps, T* out,
                   const T* zeros);
  // With t = coefficient * reference (or coefficient where there is no reference), for channels `first` to
  // `last` of up to kRows neighbouring pixels: grad_reference = sum of coefficient * warped; grad_source += t at
  // the taps. Coefficients and taps lie in kRows rows or entries per hypothesis.
  void (*sweep_backward_tile)(int64_t pixels, int64_t hypotheses, const T* coefficient, const T* reference,
                              int64_t pitch, const Map<T>& source, int64_t first, int64_t last, TapRow<T> taps,
                              T* grad_reference, T* grad_source, const T* zeros, T* sink);
  // d sum(t * warped) / d depth for the cells of one row; du and dv are the slopes of the positions.
  void (*sweep_backward_depth)(int64_t width, const T* coefficient, const T* reference, int64_t pitch,
                               const Map<T>& source, int64_t channels, TapRow<T> taps, const T* du,
                               const T* dv, T* out, const T* zeros);
  // out[j * pitch + c] = grad[g(c)] * scale of one row.
  void (*spread_groups)(const T* grad, int64_t stride_g, int64_t stride_w, int64_t width, int64_t channels,
                        int64_t groups, T scale, T* out, int64_t pitch);
};

template <class C>
struct CoordKernels {
  // cells[p] is y * X + x of coords[p * point + {0, 1, 2} * axis], or -1 outside the grid.
  void (*point_cells)(const C* coords, int64_t point, int64_t axis, int64_t points, const Grid& grid,
                      int32_t* cells);
};

struct Table {
  const char* name;
  PositionKernels<float> positions_f32;
  PositionKernels<double> positions_f64;
  ValueKernels<float> values_f32;
  ValueKernels<double> values_f64;
  CoordKernels<float> coords_f32;
  CoordKernels<double> coords_f64;
  CoordKernels<int64_t> coords_i64;
};

// Each instruction set fills its part of the table from its own object files.
#define BEV_DECLARE_ISA(isa)        \
  namespace isa {                   \
  void fill_positions(Table&);      \
  void fill_lift_splat(Table&);     \
  void fill_voxel_pooling(Table&);  \
  void fill_plane_sweep(Table&);    \
  }
BEV_DECLARE_ISA(baseline)
BEV_DECLARE_ISA(avx2)
BEV_DECLARE_ISA(avx512)
#undef BEV_DECLARE_ISA

}  // namespace bev
