// Kernels of lift-splat. Tiles are 4 image columns by 16 rows of one camera: a column's points at one depth fall
// into few cells, so they are added up before anything is written.
#pragma once

#include "machine.h"

namespace bev {
namespace cuda {

constexpr int kTileRows = 16, kTileColumns = 4, kTileBins = 16;
constexpr int kTilePixels = kTileRows * kTileColumns, kTilePoints = kTilePixels * kTileBins;

// depth [B,N,D,H,W] with any strides, context [B,N,H,W,C] dense, projection [B,N,3,4] and bins [D] dense.
template <class V, class P>
struct Lift {
  int64_t batch, cameras, bins, height, width, channels;
  Grid grid;
  const V* depth;
  int64_t stride[5];
  const V* context;
  const P* projection;
  const P* bin;
  bool whole;  // channels come in aligned fours

  BEV_BOTH int64_t quads() const { return divide_up(channels, 4); }
  BEV_BOTH int64_t tiles() const {
    return batch * cameras * divide_up(height, kTileRows) * divide_up(width, kTileColumns);
  }
  BEV_DEVICE const V* depth_at(int64_t camera, int64_t d, int64_t i, int64_t j) const {
    return depth + camera / cameras * stride[0] + camera % cameras * stride[1] + d * stride[2] + i * stride[3] +
           j * stride[4];
  }
  BEV_DEVICE int64_t pixel(int64_t camera, int64_t i, int64_t j) const {
    return (camera * height + i) * width + j;
  }
  // Number of the first cell of a camera's map.
  BEV_DEVICE int64_t first_cell(int64_t camera) const { return camera / cameras * grid.y * grid.x; }
};

// One pixel's way through the grid.
template <class P>
struct Way {
  P ray[3], shift[3];

  template <class V>
  BEV_DEVICE Way(const Lift<V, P>& lift, int64_t camera, int64_t i, int64_t j) {
    const P* matrix = lift.projection + camera * 12;
    BEV_UNROLL
    for (int axis = 0; axis < 3; ++axis) {
      ray[axis] = ray_of(matrix + axis * 4, P(j), P(i));
      shift[axis] = matrix[axis * 4 + 3];
    }
  }
  BEV_DEVICE int32_t cell(P depth, const Grid& grid) const {
    return cell_of(point_of(ray[0], depth, shift[0]), point_of(ray[1], depth, shift[1]),
                   point_of(ray[2], depth, shift[2]), grid);
  }
};

// Where a tile lies. Tiles are numbered along columns, rows, cameras.
struct Tile {
  int64_t camera, row, column;

  template <class V, class P>
  BEV_DEVICE Tile(const Lift<V, P>& lift, int64_t index) {
    const int64_t across = divide_up(lift.width, kTileColumns), down = divide_up(lift.height, kTileRows);
    column = index % across * kTileColumns;
    row = index / across % down * kTileRows;
    camera = index / across / down;
  }
};

// bev [B,Y,X,C] += the points of one tile and 16 depth bins.
template <class V, class P>
struct LiftSplat {
  using S = Sum<V>;
  static constexpr int kThreads = 256;
  static constexpr int kPhases = 3;
  // Points lie by column, bin, row. The first row of each cell at each bin leads: `rows` has a bit for every row
  // there, `next` is the leader of the same cell at the next bin, or -1.
  struct Shared {
    S weight[kTilePoints];
    int32_t cell[kTilePoints];
    uint16_t rows[kTilePoints];
    int16_t next[kTilePoints];
    int16_t head[kTilePoints];
    int32_t heads;
  };
  struct State {};

  Lift<V, P> lift;
  S* bev;
  bool whole_sums;

  int64_t blocks() const { return lift.tiles() * divide_up(lift.bins, kTileBins); }
  BEV_DEVICE int64_t rounds(int64_t) const { return 1; }

  template <int Phase>
  BEV_DEVICE void run(const Thread& thread, Shared& shared, State&) const {
    const int64_t pieces = divide_up(lift.bins, kTileBins);
    const Tile tile(lift, thread.block / pieces);
    if constexpr (Phase == 0) locate(thread, tile, thread.block % pieces * kTileBins, shared);
    if constexpr (Phase == 1) {
      for (int point = thread.index; point < kTilePoints; point += kThreads) merge(point, shared);
    }
    if constexpr (Phase == 2) {
      const int items = shared.heads * int(lift.quads());
      for (int item = thread.index; item < items; item += kThreads) add(item, tile, shared);
    }
  }

  BEV_DEVICE void locate(const Thread& thread, const Tile& tile, int64_t first_bin, Shared& shared) const {
    if (thread.index == 0) shared.heads = 0;
    // Neighbouring threads read neighbouring columns.
    const int column = thread.index % kTileColumns, row = thread.index / kTileColumns % kTileRows;
    const int64_t j = tile.column + column, i = tile.row + row;
    const bool exists = j < lift.width && i < lift.height;
    const Way<P> way(lift, tile.camera, i, j);
    BEV_UNROLL
    for (int d = thread.index / kTilePixels; d < kTileBins; d += kThreads / kTilePixels) {
      const int point = (column * kTileBins + d) * kTileRows + row;
      int32_t cell = -1;
      if (exists && first_bin + d < lift.bins) cell = way.cell(lift.bin[first_bin + d], lift.grid);
      shared.cell[point] = cell;
      shared.weight[point] = cell < 0 ? S(0) : S(widen(*lift.depth_at(tile.camera, first_bin + d, i, j)));
    }
  }

  // Rows of one bin of one column that lie in a cell, as bits.
  BEV_DEVICE static unsigned rows_in(const int32_t* cells, int32_t cell) {
    unsigned rows = 0;
    BEV_UNROLL
    for (int r = 0; r < kTileRows; ++r) rows |= unsigned(cells[r] == cell) << r;
    return rows;
  }
  BEV_DEVICE static int first_row(unsigned rows) {
#ifdef __CUDA_ARCH__
    return __ffs(int(rows)) - 1;
#else
    return __builtin_ctz(rows);
#endif
  }

  BEV_DEVICE void merge(int point, Shared& shared) const {
    const int32_t cell = shared.cell[point];
    if (cell < 0) return;
    const int first = point / kTileRows * kTileRows, d = point / kTileRows % kTileBins;
    const unsigned rows = rows_in(shared.cell + first, cell);
    if (first + first_row(rows) != point) return;
    shared.rows[point] = uint16_t(rows);
    const unsigned after = d + 1 < kTileBins ? rows_in(shared.cell + first + kTileRows, cell) : 0;
    shared.next[point] = int16_t(after ? first + kTileRows + first_row(after) : -1);
    const unsigned before = d > 0 ? rows_in(shared.cell + first - kTileRows, cell) : 0;
    if (!before) shared.head[count_up(&shared.heads)] = int16_t(point);
  }

  // Four channels of one run of a cell along the depth.
  BEV_DEVICE void add(int item, const Tile& tile, const Shared& shared) const {
    const int quads = int(lift.quads()), head = shared.head[item / quads];
    const int64_t c = int64_t(item % quads) * 4;
    const int64_t column = tile.column + head / (kTileBins * kTileRows);
    const V* context = lift.context + lift.pixel(tile.camera, tile.row, column) * lift.channels + c;
    const int64_t row = lift.width * lift.channels;
    Quad<S> sum = zero4<S>();
    for (int leader = head; leader >= 0; leader = shared.next[leader]) {
      const unsigned rows = shared.rows[leader];
      const S* weight = shared.weight + leader / kTileRows * kTileRows;
      BEV_UNROLL
      for (int r = 0; r < kTileRows; ++r) {
        if (rows >> r & 1) add_scaled(sum, weight[r], load4(context + r * row, lift.channels - c, lift.whole));
      }
    }
    const int64_t cell = lift.first_cell(tile.camera) + shared.cell[head];
    atomic_add4(bev + cell * lift.channels + c, sum, lift.channels - c, whole_sums);
  }
};

// grad_depth [B,N,D,H,W] = <grad of the point's cell, context>; grad [B,Y,X,C].
template <class V, class P>
struct LiftDepthGradient {
  using S = Sum<V>;
  static constexpr int kThreads = 256;
  static constexpr int kPhases = 2;
  static constexpr int kChannels = 32, kPitch = kChannels + 4, kBins = kTileBins / 4;
  struct Shared {
    S context[kTilePixels * kPitch];
  };
  // Four neighbouring bins of one pixel.
  struct State {
    int32_t cell[kBins];
    S sum[kBins];
  };

  Lift<V, P> lift;
  const V* grad;
  bool whole_grad;
  V* grad_depth;

  int64_t blocks() const { return lift.tiles() * divide_up(lift.bins, kTileBins); }
  BEV_DEVICE int64_t rounds(int64_t) const { return divide_up(lift.channels, kChannels); }

  template <int Phase>
  BEV_DEVICE void run(const Thread& thread, Shared& shared, State& state) const {
    const int64_t pieces = divide_up(lift.bins, kTileBins);
    const Tile tile(lift, thread.block / pieces);
    const int pixel = thread.index % kTilePixels;
    const int64_t j = tile.column + pixel % kTileColumns, i = tile.row + pixel / kTileColumns;
    const bool exists = j < lift.width && i < lift.height;
    const int64_t first_bin = thread.block % pieces * kTileBins + thread.index / kTilePixels * kBins;
    const int64_t c = thread.round * kChannels;
    if constexpr (Phase == 0) {
      if (thread.round == 0) {
        const Way<P> way(lift, tile.camera, i, j);
        BEV_UNROLL
        for (int k = 0; k < kBins; ++k) {
          state.sum[k] = 0;
          state.cell[k] = -1;
          if (exists && first_bin + k < lift.bins) state.cell[k] = way.cell(lift.bin[first_bin + k], lift.grid);
        }
      }
      load_context(thread, tile, c, shared);
    }
    if constexpr (Phase == 1) {
      add(tile, c, shared.context + pixel * kPitch, state);
      if (exists && c + kChannels >= lift.channels) {
        BEV_UNROLL
        for (int k = 0; k < kBins; ++k) {
          const int64_t d = first_bin + k;
          if (d < lift.bins) {
            narrow(state.sum[k], grad_depth[((tile.camera * lift.bins + d) * lift.height + i) * lift.width + j]);
          }
        }
      }
    }
  }

  BEV_DEVICE void load_context(const Thread& thread, const Tile& tile, int64_t first, Shared& shared) const {
    constexpr int kQuads = kChannels / 4;
    for (int n = thread.index; n < kTilePixels * kQuads; n += kThreads) {
      const int pixel = n / kQuads, c = n % kQuads * 4;
      const int64_t j = tile.column + pixel % kTileColumns, i = tile.row + pixel / kTileColumns;
      const int64_t left = lift.channels - first - c;
      Quad<S> quad = zero4<S>();
      if (j < lift.width && i < lift.height && left > 0) {
        quad = load4(lift.context + lift.pixel(tile.camera, i, j) * lift.channels + first + c, left, lift.whole);
      }
      BEV_UNROLL
      for (int m = 0; m < 4; ++m) shared.context[pixel * kPitch + c + m] = quad.v[m];
    }
  }

  BEV_DEVICE void add(const Tile& tile, int64_t first, const S* context, State& state) const {
    const V* map = grad + lift.first_cell(tile.camera) * lift.channels + first;
    for (int c = 0; c < kChannels; c += 4) {
      const int64_t left = lift.channels - first - c;
      if (left <= 0) break;
      const Quad<S> here = {{context[c], context[c + 1], context[c + 2], context[c + 3]}};
      Quad<S> cell_grad = zero4<S>();
      int32_t loaded = -1;
      BEV_UNROLL
      for (int k = 0; k < kBins; ++k) {
        if (state.cell[k] < 0) continue;
        if (state.cell[k] != loaded) {
          loaded = state.cell[k];
          cell_grad = load4(map + loaded * lift.channels + c, left, whole_grad);
        }
        state.sum[k] += dot(cell_grad, here);
      }
    }
  }
};

// grad_context [B,N,C,H,W] = sum over the pixel's points of depth * grad of the cell; grad [B,Y,X,C].
template <class V, class P>
struct LiftContextGradient {
  using S = Sum<V>;
  static constexpr int kThreads = 256;
  static constexpr int kPhases = 2;
  static constexpr int kChannels = 4 * kThreads / kTilePixels;
  // Points lie by bin, pixel.
  struct Shared {
    S weight[kTilePoints];
    int32_t cell[kTilePoints];
  };
  struct State {
    Quad<S> sum;
  };

  Lift<V, P> lift;
  const V* grad;
  bool whole_grad;
  V* grad_context;

  int64_t blocks() const { return lift.tiles() * divide_up(lift.channels, kChannels); }
  BEV_DEVICE int64_t rounds(int64_t) const { return divide_up(lift.bins, kTileBins); }

  template <int Phase>
  BEV_DEVICE void run(const Thread& thread, Shared& shared, State& state) const {
    const int64_t pieces = divide_up(lift.channels, kChannels);
    const Tile tile(lift, thread.block / pieces);
    const int64_t first_bin = thread.round * kTileBins;
    if constexpr (Phase == 0) {
      if (thread.round == 0) state.sum = zero4<S>();
      locate(thread, tile, first_bin, shared);
    }
    if constexpr (Phase == 1) {
      constexpr int kQuads = kChannels / 4;
      const int64_t c = thread.block % pieces * kChannels + thread.index % kQuads * 4;
      const int pixel = thread.index / kQuads;
      const int64_t j = tile.column + pixel % kTileColumns, i = tile.row + pixel / kTileColumns;
      if (j >= lift.width || i >= lift.height || c >= lift.channels) return;
      add(grad + lift.first_cell(tile.camera) * lift.channels + c, lift.channels - c, pixel, shared, state);
      if (first_bin + kTileBins < lift.bins) return;
      const int64_t plane = lift.height * lift.width;
      V* out = grad_context + (tile.camera * lift.channels + c) * plane + i * lift.width + j;
      BEV_UNROLL
      for (int n = 0; n < 4; ++n) {
        if (c + n < lift.channels) narrow(state.sum.v[n], out[n * plane]);
      }
    }
  }

  BEV_DEVICE void locate(const Thread& thread, const Tile& tile, int64_t first_bin, Shared& shared) const {
    const int pixel = thread.index % kTilePixels;
    const int64_t j = tile.column + pixel % kTileColumns, i = tile.row + pixel / kTileColumns;
    const bool exists = j < lift.width && i < lift.height;
    const Way<P> way(lift, tile.camera, i, j);
    BEV_UNROLL
    for (int d = thread.index / kTilePixels; d < kTileBins; d += kThreads / kTilePixels) {
      int32_t cell = -1;
      if (exists && first_bin + d < lift.bins) cell = way.cell(lift.bin[first_bin + d], lift.grid);
      shared.cell[d * kTilePixels + pixel] = cell;
      shared.weight[d * kTilePixels + pixel] =
          cell < 0 ? S(0) : S(widen(*lift.depth_at(tile.camera, first_bin + d, i, j)));
    }
  }

  // Neighbouring bins in one cell read its gradient once.
  BEV_DEVICE void add(const V* map, int64_t left, int pixel, const Shared& shared, State& state) const {
    int32_t cell = -1;
    S weight = 0;
    for (int d = 0; d <= kTileBins; ++d) {
      const int32_t here = d < kTileBins ? shared.cell[d * kTilePixels + pixel] : -1;
      if (here != cell) {
        if (cell >= 0) add_scaled(state.sum, weight, load4(map + cell * lift.channels, left, whole_grad));
        cell = here;
        weight = 0;
      }
      if (here >= 0) weight += shared.weight[d * kTilePixels + pixel];
    }
  }
};

// key [B,N,D,H,W]: the point's cell counted over all maps, or their number outside the grid.
template <class P>
struct LiftKeys : Flat {
  Lift<float, P> lift;
  int64_t* key;

  template <int>
  BEV_DEVICE void run(const Thread& thread, Shared&, State&) const {
    const int64_t point = item(thread);
    if (point < 0) return;
    const int64_t j = point % lift.width, row = point / lift.width, i = row % lift.height;
    const int64_t plane = row / lift.height, camera = plane / lift.bins;
    const int32_t cell = Way<P>(lift, camera, i, j).cell(lift.bin[plane % lift.bins], lift.grid);
    key[point] = cell < 0 ? lift.batch * lift.grid.y * lift.grid.x : lift.first_cell(camera) + cell;
  }
};

// bev [B,Y,X,C] = sums in the order of the points: `point` sorted by key, `start` [cells + 1] into it.
template <class V>
struct LiftGather : Flat {
  using S = Sum<V>;
  Lift<V, float> lift;
  const int64_t* point;
  const int64_t* start;
  S* bev;
  bool whole_sums;

  template <int>
  BEV_DEVICE void run(const Thread& thread, Shared&, State&) const {
    const int64_t n = item(thread);
    if (n < 0) return;
    const int64_t quads = lift.quads(), cell = n / quads, c = n % quads * 4;
    Quad<S> sum = zero4<S>();
    for (int64_t k = start[cell]; k < start[cell + 1]; ++k) {
      const int64_t j = point[k] % lift.width, row = point[k] / lift.width, i = row % lift.height;
      const int64_t plane = row / lift.height, camera = plane / lift.bins;
      const V* context = lift.context + lift.pixel(camera, i, j) * lift.channels + c;
      add_scaled(sum, S(widen(*lift.depth_at(camera, plane % lift.bins, i, j))),
                 load4(context, lift.channels - c, lift.whole));
    }
    store4(bev + cell * lift.channels + c, sum, lift.channels - c, whole_sums);
  }
};

}  // namespace cuda
}  // namespace bev
