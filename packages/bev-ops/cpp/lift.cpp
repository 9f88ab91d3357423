// Lift-splat. The unit of work is a tile: 16 image columns of one camera, 16 rows high. The points of a column
// fall into few cells, so they are merged by cell first (in depth and across rows), and each group of points is
// one short product with the column's features.
#include <atomic>
#include <cstring>
#include <vector>

#include "ops.h"
#include "parallel.h"

namespace bev {
namespace {

constexpr int64_t kColumns = 16;
// Points in flight between merging and summing: few waits for each other, and scratch memory in bounds.
constexpr int64_t kPointsInFlight = int64_t(1) << 20;

struct Tile {
  int64_t camera, row, column, rows, columns, batch, n;
};

struct Tiles {
  int64_t across, down, count;
  const LiftShape& shape;

  explicit Tiles(const LiftShape& s)
      : across((s.width + kColumns - 1) / kColumns),
        down((s.height + kRows - 1) / kRows),
        count(s.batch * s.cameras * across * down),
        shape(s) {}

  Tile operator[](int64_t index) const {
    Tile tile;
    tile.column = index % across * kColumns;
    tile.row = index / across % down * kRows;
    tile.camera = index / across / down;
    tile.rows = tile.row + kRows < shape.height ? kRows : shape.height - tile.row;
    tile.columns = tile.column + kColumns < shape.width ? kColumns : shape.width - tile.column;
    tile.batch = tile.camera / shape.cameras;
    tile.n = tile.camera % shape.cameras;
    return tile;
  }
};

// The tile's (rows, columns) of one plane of a [B,N,plane,H,W] tensor.
template <class T>
Block<T> plane_of(const Strided<T>& tensor, const Tile& tile, int64_t plane) {
  const int64_t* s = tensor.stride;
  T* data = tensor.data + tile.batch * s[0] + tile.n * s[1] + plane * s[2] + tile.row * s[3] +
            tile.column * s[4];
  return {data, s[3], s[4], tile.rows, tile.columns};
}

template <class T>
Strided<T> dense(T* data, const LiftShape& shape, int64_t planes) {
  const int64_t cells = shape.height * shape.width;
  return {data, {shape.cameras * planes * cells, planes * cells, cells, shape.width, 1}};
}

// What one thread needs to merge the columns of a tile.
template <class T>
struct Bench {
  Scratch<T> depth;
  Scratch<int32_t> cells;
  Scratch<int32_t> slots;

  Bench(const LiftShape& shape, int threads)
      : depth(threads * depth_size(shape)),
        cells(threads * shape.bins * kRows),
        slots(threads * shape.grid.y * shape.grid.x) {
    for (int64_t k = 0; k < threads * shape.grid.y * shape.grid.x; ++k) slots.get()[k] = 0;
  }
  static int64_t depth_size(const LiftShape& shape) { return kColumns * shape.bins * kRows; }
};

template <class Values, class Places>
struct Merger {
  const LiftShape& shape;
  const Strided<const Values>& depth;
  const Places* projection;
  const Places* bins;
  Bench<Values> bench;

  Merger(const LiftShape& s, const Strided<const Values>& d, const Places* p, const Places* b, int threads)
      : shape(s), depth(d), projection(p), bins(b), bench(s, threads) {}

  Values* packed_depth(int thread) const { return bench.depth.get() + thread * bench.depth_size(shape); }

  void load(const Tile& tile, int thread) const {
    for (int64_t d = 0; d < shape.bins; ++d) {
      Of<Values>::values().pack(plane_of(depth, tile, d), packed_depth(thread) + d * kRows,
                                shape.bins * kRows, kRows);
    }
  }

  int64_t merge(const Tile& tile, int64_t column, int thread, const Groups<Values>& groups, Event* events,
                int64_t* event_count) const {
    int32_t* cells = bench.cells.get() + thread * shape.bins * kRows;
    Of<Places>::positions().column_cells(projection + tile.camera * 12, tile.column + column, tile.row,
                                         tile.rows, bins, shape.bins, shape.grid, cells);
    return Of<Values>::values().merge(cells, packed_depth(thread) + column * shape.bins * kRows, shape.bins,
                                      bench.slots.get() + thread * shape.grid.y * shape.grid.x, groups, events,
                                      event_count);
  }
};

// Groups of one column, at their most.
template <class T>
struct GroupRoom {
  int64_t capacity;
  Scratch<int32_t> cell;
  Scratch<uint16_t> rows;
  Scratch<T> weight;

  GroupRoom(int threads, int64_t per_column)
      : capacity(per_column),
        cell(threads * per_column),
        rows(threads * per_column),
        weight(threads * per_column * kRows) {}
  Groups<T> operator[](int thread) const {
    const int64_t first = thread * capacity;
    return {cell.get() + first, rows.get() + first, weight.get() + first * kRows};
  }
};

// Groups that one thread merged, column after column.
template <class T>
class GroupList {
 public:
  ~GroupList() {
    std::free(groups_.cell);
    std::free(groups_.rows);
    std::free(groups_.weight);
  }
  void clear() { size_ = 0; }
  int64_t size() const { return size_; }
  // False where there is no memory for them.
  bool append(const Groups<T>& groups, int64_t count) {
    if (count == 0) return true;
    if (size_ + count > capacity_ && !grow(2 * (size_ + count))) return false;
    std::memcpy(groups_.cell + size_, groups.cell, count * sizeof(int32_t));
    std::memcpy(groups_.rows + size_, groups.rows, count * sizeof(uint16_t));
    std::memcpy(groups_.weight + size_ * kRows, groups.weight, count * kRows * sizeof(T));
    size_ += count;
    return true;
  }
  Groups<T> from(int64_t first) const {
    return {groups_.cell + first, groups_.rows + first, groups_.weight + first * kRows};
  }

 private:
  template <class E>
  static bool resize(E*& data, int64_t count) {
    void* larger = std::realloc(data, count * sizeof(E));
    if (larger) data = static_cast<E*>(larger);
    return larger != nullptr;
  }
  bool grow(int64_t count) {
    if (count < 1024) count = 1024;
    if (!resize(groups_.cell, count) || !resize(groups_.rows, count) || !resize(groups_.weight, count * kRows)) {
      return false;
    }
    capacity_ = count;
    return true;
  }

  Groups<T> groups_{};
  int64_t size_ = 0, capacity_ = 0;
};

// Where a column's groups are.
struct ColumnGroups {
  int thread;
  int64_t first, count;
};

}  // namespace

template <class Values, class Places>
void lift_splat(const LiftShape& shape, Strided<const Values> depth, Strided<const Values> context,
                const Places* projection, const Places* bins, Values* bev, int threads) {
  const Tiles tiles(shape);
  const auto& kernels = Of<Values>::values();
  const int64_t pitch = padded(shape.channels), capacity = shape.bins * kRows;
  int64_t in_flight = kPointsInFlight / (kColumns * capacity);
  if (in_flight < 2 * threads) in_flight = 2 * threads;
  if (in_flight > tiles.count) in_flight = tiles.count;

  const Merger<Values, Places> merger(shape, depth, projection, bins, threads);
  const GroupRoom<Values> room(threads, capacity);
  std::vector<GroupList<Values>> lists(threads);
  Scratch<ColumnGroups> columns(in_flight * kColumns);
  Scratch<Values> features(in_flight * kColumns * kRows * pitch);
  std::atomic<bool> exhausted{false};

  for (int64_t first = 0; first < tiles.count; first += in_flight) {
    const int64_t now = first + in_flight < tiles.count ? in_flight : tiles.count - first;
    for (auto& list : lists) list.clear();
    parallel(now, threads, [&](int64_t t, int thread) {
      const Tile tile = tiles[first + t];
      Values* packed = features.get() + t * kColumns * kRows * pitch;
      for (int64_t r = 0; r < tile.rows; ++r) {
        Tile row = tile;
        row.row += r;
        const Block<const Values> plane = plane_of(context, row, 0);
        kernels.pack({plane.data, context.stride[2], plane.column, shape.channels, tile.columns},
                     packed + r * pitch, kRows * pitch, pitch);
      }
      merger.load(tile, thread);
      for (int64_t c = 0; c < tile.columns; ++c) {
        const int64_t count = merger.merge(tile, c, thread, room[thread], nullptr, nullptr);
        columns.get()[t * kColumns + c] = {thread, lists[thread].size(), count};
        if (!lists[thread].append(room[thread], count)) exhausted = true;
      }
    });
    if (exhausted) throw std::bad_alloc();
    parallel(threads, threads, [&](int64_t owner, int) {
      for (int64_t t = 0; t < now; ++t) {
        const Tile tile = tiles[first + t];
        Values* map = bev + tile.batch * shape.grid.y * shape.grid.x * shape.channels;
        for (int64_t c = 0; c < tile.columns; ++c) {
          const ColumnGroups column = columns.get()[t * kColumns + c];
          kernels.splat(lists[column.thread].from(column.first), column.count,
                        features.get() + (t * kColumns + c) * kRows * pitch, shape.channels, map, shape.grid.x,
                        owner, threads);
        }
      }
    });
  }
}

template <class Values, class Places>
void lift_splat_backward(const LiftShape& shape, const Values* grad, Strided<const Values> depth,
                         Strided<const Values> context, const Places* projection, const Places* bins,
                         Values* grad_depth, Values* grad_context, int threads) {
  const Tiles tiles(shape);
  const auto& kernels = Of<Values>::values();
  const int64_t capacity = shape.bins * kRows;
  const int64_t tile_features = kColumns * shape.channels * kRows;

  const Merger<Values, Places> merger(shape, depth, projection, bins, threads);
  const GroupRoom<Values> groups(threads, capacity);
  Scratch<Event> events(threads * capacity);
  Scratch<Values> group_grads(threads * capacity * kRows);
  Scratch<Values> features(threads * tile_features);
  Scratch<Values> feature_grads(threads * tile_features);
  const Strided<Values> to_depth = dense(grad_depth, shape, shape.bins);
  const Strided<Values> to_context = dense(grad_context, shape, shape.channels);

  parallel(tiles.count, threads, [&](int64_t t, int thread) {
    const Tile tile = tiles[t];
    Values* packed = features.get() + thread * tile_features;
    Values* packed_grads = feature_grads.get() + thread * tile_features;
    Values* group_grad = group_grads.get() + thread * capacity * kRows;
    Event* list = events.get() + thread * capacity;
    const Values* map = grad + tile.batch * shape.grid.y * shape.grid.x * shape.channels;
    for (int64_t c = 0; c < shape.channels; ++c) {
      kernels.pack(plane_of(context, tile, c), packed + c * kRows, shape.channels * kRows, kRows);
    }
    merger.load(tile, thread);
    for (int64_t c = 0; c < tile.columns; ++c) {
      int64_t listed = 0;
      const int64_t count = merger.merge(tile, c, thread, groups[thread], list, &listed);
      kernels.splat_backward(groups[thread], count, uint16_t((1u << tile.rows) - 1), map,
                             packed + c * shape.channels * kRows, shape.channels,
                             packed_grads + c * shape.channels * kRows, group_grad);
      // Merged depths are no longer needed: their place takes the gradients.
      Values* column = merger.packed_depth(thread) + c * shape.bins * kRows;
      kernels.hand_back(list, listed, group_grad, column, shape.bins);
    }
    for (int64_t d = 0; grad_depth && d < shape.bins; ++d) {
      kernels.unpack(merger.packed_depth(thread) + d * kRows, shape.bins * kRows, plane_of(to_depth, tile, d));
    }
    for (int64_t c = 0; grad_context && c < shape.channels; ++c) {
      kernels.unpack(packed_grads + c * kRows, shape.channels * kRows, plane_of(to_context, tile, c));
    }
  });
}

#define BEV_INSTANTIATE(V, P)                                                                                  \
  template void lift_splat<V, P>(const LiftShape&, Strided<const V>, Strided<const V>, const P*, const P*, V*, \
                                 int);                                                                         \
  template void lift_splat_backward<V, P>(const LiftShape&, const V*, Strided<const V>, Strided<const V>,      \
                                          const P*, const P*, V*, V*, int);
BEV_INSTANTIATE(float, float)
BEV_INSTANTIATE(float, double)
BEV_INSTANTIATE(double, float)
BEV_INSTANTIATE(double, double)
#undef BEV_INSTANTIATE

}  // namespace bev
