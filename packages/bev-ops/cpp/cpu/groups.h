// Tiles of lift-splat, and the two ways to their groups: points merged by cell anew, or a plan of a rig that does
// not move.
#pragma once

#include <cstring>

#include "../bev_ops.h"
#include "dispatch.h"
#include "parallel.h"

namespace bev {

struct LiftShape {
  int64_t batch, cameras, bins, height, width, channels;
  Grid grid;
};

// A plan's numbers; see bev_ops.h. An event is three of them, laid out as `Event`.
struct PlanView {
  const int64_t* starts;
  const int32_t* cell;
  const uint16_t* rows;
  const int32_t* events;
};

// Image columns of a tile: few enough that their depths stay in the cache, many enough to read whole lines.
constexpr int64_t kColumns = 48;

struct Tile {
  int64_t index, camera, row, column, rows, columns, batch, n;
};

struct Tiles {
  int64_t across, down, count;
  const LiftShape& shape;

  explicit Tiles(const LiftShape& s)
      : across((s.width + kColumns - 1) / kColumns),
        down((s.height + kRows - 1) / kRows),
        count(s.batch * s.cameras * across * down),
        shape(s) {}

  // Columns of image are numbered by tile, whole tiles.
  int64_t column_slots() const { return count * kColumns; }
  Tile operator[](int64_t index) const {
    Tile tile;
    tile.index = index;
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

// Asks for a block that is to be read soon.
template <class T>
void prefetch(const Block<const T>& block) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t r = 0; block.column == 1 && r < block.rows; ++r) {
    for (int64_t c = 0; c < block.columns; c += kLine) __builtin_prefetch(block.data + r * block.row + c);
  }
}

// The groups of one column and where their points come from.
template <class T>
struct ColumnView {
  Groups<T> groups;
  int64_t count;
  const Event* events;
  int64_t event_count;
};

// Depths of the tile that each thread has in hand, as [column][bin][row].
template <class T>
class PackedDepth {
 public:
  PackedDepth(const LiftShape& shape, const Strided<const T>& depth, int threads)
      : shape_(shape), depth_(depth), column_(shape.bins * kRows), data_(threads * kColumns * column_) {}

  void load(const Tile& tile, int thread) const {
    for (int64_t d = 0; d < shape_.bins; ++d) {
      if (d + 1 < shape_.bins) prefetch(plane_of(depth_, tile, d + 1));
      Of<T>::values().pack(plane_of(depth_, tile, d), at(thread, 0) + d * kRows, column_, kRows);
    }
  }
  T* at(int thread, int64_t column) const { return data_.get() + (thread * kColumns + column) * column_; }

 private:
  const LiftShape& shape_;
  const Strided<const T> depth_;
  int64_t column_;
  Scratch<T> data_;
};

// Merges the points of each column by cell.
template <class Values, class Places>
class Merger {
 public:
  Merger(const LiftShape& shape, const Places* projection, const Places* bins, int threads)
      : shape_(shape),
        projection_(projection),
        bins_(bins),
        map_(shape.grid.y * shape.grid.x),
        cells_(threads * most_groups()),
        slots_(threads * map_),
        events_(threads * most_groups()) {
    std::memset(slots_.get(), 0, threads * map_ * sizeof(int32_t));
  }

  int64_t most_groups() const { return shape_.bins * kRows; }
  int64_t most_groups(const Tile&, int64_t) const { return most_groups(); }
  // `depth` is the column's, [bin][row]; `room` has space for most_groups().
  ColumnView<Values> column(const Tile& tile, int64_t column, const Values* depth, int thread,
                            const GroupRoom<Values>& room, bool with_events) const {
    int32_t* cells = cells_.get() + thread * most_groups();
    Event* events = with_events ? events_.get() + thread * most_groups() : nullptr;
    Of<Places>::positions().column_cells(projection_ + tile.camera * 12, tile.column + column, tile.row,
                                         tile.rows, bins_, shape_.bins, shape_.grid, cells);
    int64_t listed = 0;
    const int64_t count = Of<Values>::values().merge(cells, depth, shape_.bins, slots_.get() + thread * map_,
                                                     room, events, &listed);
    return {room, count, events, listed};
  }
  // The groups that `column` left in `room`, which may have moved since.
  Groups<Values> groups(const Tile&, int64_t, const GroupRoom<Values>& room) const { return room; }

 private:
  const LiftShape& shape_;
  const Places* projection_;
  const Places* bins_;
  int64_t map_;
  Scratch<int32_t> cells_, slots_;
  Scratch<Event> events_;
};

// Reads groups from a plan; only their weights are computed.
template <class Values>
class PlanReader {
 public:
  PlanReader(const LiftShape& shape, const PlanView& plan) : shape_(shape), plan_(plan) {}

  int64_t most_groups() const { return shape_.bins * kRows; }
  int64_t most_groups(const Tile& tile, int64_t column) const { return at(tile, column)[2] - at(tile, column)[0]; }
  ColumnView<Values> column(const Tile& tile, int64_t column, const Values* depth, int,
                            const GroupRoom<Values>& room, bool) const {
    const int64_t listed = at(tile, column)[3] - at(tile, column)[1];
    const Event* events = reinterpret_cast<const Event*>(plan_.events) + at(tile, column)[1];
    Of<Values>::values().weigh(events, listed, depth, room.weight);
    return {groups(tile, column, room), most_groups(tile, column), events, listed};
  }
  Groups<Values> groups(const Tile& tile, int64_t column, const GroupRoom<Values>& room) const {
    return {plan_.cell + at(tile, column)[0], plan_.rows + at(tile, column)[0], room.weight};
  }

 private:
  const int64_t* at(const Tile& tile, int64_t column) const {
    return plan_.starts + 2 * (tile.index * kColumns + column);
  }

  const LiftShape& shape_;
  const PlanView& plan_;
};

// Groups that one thread collected, column after column.
template <class T>
class GroupList {
 public:
  GroupList() = default;
  GroupList(const GroupList&) = delete;
  GroupList& operator=(const GroupList&) = delete;
  ~GroupList() {
    std::free(groups_.cell);
    std::free(groups_.rows);
    std::free(groups_.weight);
  }
  void clear() { size_ = 0; }
  int64_t size() const { return size_; }
  void keep(int64_t count) { size_ += count; }
  // Makes room for `count` more; false where there is no memory for them.
  bool reserve(int64_t count) {
    if (size_ + count <= capacity_) return true;
    const int64_t wanted = 2 * (size_ + count);
    if (!resize(groups_.cell, wanted) || !resize(groups_.rows, wanted) || !resize(groups_.weight, wanted * kRows)) {
      return false;
    }
    capacity_ = wanted;
    return true;
  }
  GroupRoom<T> from(int64_t first) const {
    return {groups_.cell + first, groups_.rows + first, groups_.weight + first * kRows};
  }

 private:
  template <class E>
  static bool resize(E*& data, int64_t count) {
    void* larger = std::realloc(data, count * sizeof(E));
    if (larger) data = static_cast<E*>(larger);
    return larger != nullptr;
  }

  GroupRoom<T> groups_{};
  int64_t size_ = 0, capacity_ = 0;
};

}  // namespace bev
