// Lift-splat. The unit of work is a tile: neighbouring image columns of one camera, 16 rows high. The points of a
// column fall into few cells, so they are merged by cell first (in depth and across rows), and each group of points
// is one short product with the column's features.
#include <atomic>
#include <vector>

#include "groups.h"

namespace bev {
namespace {

// Points in flight between merging and summing: few waits for each other, and scratch memory in bounds.
constexpr int64_t kPointsInFlight = int64_t(1) << 20;

// Where a column's groups are.
struct ColumnGroups {
  int thread;
  int64_t first, count;
};

// Features of a tile's columns as rows of padded channels, 16 rows a column.
template <class T>
void pack_features(const Strided<const T>& context, const Tile& tile, int64_t channels, T* packed) {
  const int64_t pitch = padded(channels);
  // A few channels at a time, all rows of them: memory is read in as many streams, each straight on.
  for (int64_t first = 0; first < channels; first += kRows) {
    const int64_t count = channels - first < kRows ? channels - first : kRows;
    for (int64_t r = 0; r < tile.rows; ++r) {
      Tile row = tile;
      row.row += r;
      const Block<const T> plane = plane_of(context, row, first);
      Of<T>::values().pack({plane.data, context.stride[2], plane.column, count, tile.columns},
                           packed + r * pitch + first, kRows * pitch, kRows);
    }
  }
  for (int64_t c = 0; tile.rows < kRows && c < tile.columns; ++c) {
    std::memset(packed + (c * kRows + tile.rows) * pitch, 0, (kRows - tile.rows) * pitch * sizeof(T));
  }
}

template <class Values, class Source>
class Forward {
 public:
  Forward(const LiftShape& shape, Strided<const Values> depth, Strided<const Values> context, const Source& source,
          Values* bev, int threads)
      : shape_(shape),
        context_(context),
        source_(source),
        bev_(bev),
        threads_(threads),
        tiles_(shape),
        pitch_(padded(shape.channels)),
        cells_(shape.grid.y * shape.grid.x),
        in_flight_(tiles_in_flight()),
        depth_(shape, depth, threads),
        lists_(threads),
        columns_(in_flight_ * kColumns),
        features_(in_flight_ * kColumns * kRows * pitch_),
        begun_(shape.batch * cells_) {
    std::memset(begun_.get(), 0, shape.batch * cells_ * sizeof(bool));
  }

  void run() {
    if (threads_ == 1) {
      one_by_one();
    } else {
      for (int64_t first = 0; first < tiles_.count; first += in_flight_) {
        all_together(first, first + in_flight_ < tiles_.count ? in_flight_ : tiles_.count - first);
      }
    }
    clear_rest();
  }

 private:
  int64_t tiles_in_flight() const {
    if (threads_ == 1) return 1;
    int64_t tiles = kPointsInFlight / (kColumns * source_.most_groups());
    if (tiles < 2 * threads_) tiles = 2 * threads_;
    return tiles < tiles_.count ? tiles : tiles_.count;
  }

  // One thread waits for none: it sums what it has just merged, while that is in the cache.
  void one_by_one() {
    for (int64_t t = 0; t < tiles_.count; ++t) {
      const Tile tile = tiles_[t];
      load(tile, 0, 0);
      for (int64_t c = 0; c < tile.columns; ++c) {
        lists_[0].clear();
        if (!merge(tile, 0, c, 0)) throw std::bad_alloc();
        sum(tile, 0, c, 0);
      }
    }
  }

  // First each thread merges some tiles, then each sums, of all tiles, what falls into the cells it owns.
  void all_together(int64_t first, int64_t count) {
    std::atomic<bool> exhausted{false};
    for (auto& list : lists_) list.clear();
    parallel(count, threads_, [&](int64_t t, int thread) {
      const Tile tile = tiles_[first + t];
      load(tile, t, thread);
      for (int64_t c = 0; c < tile.columns; ++c) {
        if (!merge(tile, t, c, thread)) exhausted = true;
      }
    });
    if (exhausted) throw std::bad_alloc();
    parallel(threads_, threads_, [&](int64_t owner, int) {
      for (int64_t t = 0; t < count; ++t) {
        const Tile tile = tiles_[first + t];
        for (int64_t c = 0; c < tile.columns; ++c) sum(tile, t, c, owner);
      }
    });
  }

  void load(const Tile& tile, int64_t slot, int thread) {
    pack_features(context_, tile, shape_.channels, features_.get() + slot * kColumns * kRows * pitch_);
    depth_.load(tile, thread);
  }

  // False where there is no memory for the groups.
  bool merge(const Tile& tile, int64_t slot, int64_t c, int thread) {
    GroupList<Values>& list = lists_[thread];
    ColumnGroups& column = columns_.get()[slot * kColumns + c];
    column = {thread, list.size(), 0};
    if (!list.reserve(source_.most_groups(tile, c))) return false;
    column.count =
        source_.column(tile, c, depth_.at(thread, c), thread, list.from(list.size()), false).count;
    list.keep(column.count);
    return true;
  }

  void sum(const Tile& tile, int64_t slot, int64_t c, int64_t owner) {
    const ColumnGroups& column = columns_.get()[slot * kColumns + c];
    Of<Values>::values().splat(source_.groups(tile, c, lists_[column.thread].from(column.first)), column.count,
                               features_.get() + (slot * kColumns + c) * kRows * pitch_, shape_.channels,
                               bev_ + tile.batch * cells_ * shape_.channels, begun_.get() + tile.batch * cells_,
                               owner, threads_);
  }

  void clear_rest() {
    parallel(shape_.batch * shape_.grid.y, threads_, [&](int64_t row, int) {
      const bool* begun = begun_.get() + row * shape_.grid.x;
      Values* out = bev_ + row * shape_.grid.x * shape_.channels;
      const bool* end = begun + shape_.grid.x;
      for (const bool* at = begun; at < end;) {
        const void* found = std::memchr(at, false, end - at);
        if (!found) break;
        const bool* first = static_cast<const bool*>(found);
        found = std::memchr(first, true, end - first);
        at = found ? static_cast<const bool*>(found) : end;
        std::memset(out + (first - begun) * shape_.channels, 0, (at - first) * shape_.channels * sizeof(Values));
      }
    });
  }

  const LiftShape& shape_;
  const Strided<const Values> context_;
  const Source& source_;
  Values* bev_;
  const int threads_;
  const Tiles tiles_;
  const int64_t pitch_, cells_, in_flight_;
  const PackedDepth<Values> depth_;
  std::vector<GroupList<Values>> lists_;
  Scratch<ColumnGroups> columns_;
  Scratch<Values> features_;
  Scratch<bool> begun_;  // cells of the map that hold sums
};

template <class Values, class Source>
void backward(const LiftShape& shape, const Values* grad, Strided<const Values> depth,
              Strided<const Values> context, const Source& source, Values* grad_depth, Values* grad_context,
              int threads) {
  const Tiles tiles(shape);
  const auto& kernels = Of<Values>::values();
  const int64_t capacity = source.most_groups(), column_features = shape.channels * kRows;

  const PackedDepth<Values> packed_depth(shape, depth, threads);
  std::vector<GroupList<Values>> rooms(threads);
  for (auto& room : rooms) {
    if (!room.reserve(capacity)) throw std::bad_alloc();
  }
  Scratch<Values> group_grads(threads * capacity * kRows);
  Scratch<Values> features(threads * kColumns * column_features);
  Scratch<Values> feature_grads(threads * kColumns * column_features);
  const Strided<Values> to_depth = dense(grad_depth, shape, shape.bins);
  const Strided<Values> to_context = dense(grad_context, shape, shape.channels);

  parallel(tiles.count, threads, [&](int64_t t, int thread) {
    const Tile tile = tiles[t];
    Values* packed = features.get() + thread * kColumns * column_features;
    Values* packed_grads = feature_grads.get() + thread * kColumns * column_features;
    Values* group_grad = group_grads.get() + thread * capacity * kRows;
    const Values* map = grad + tile.batch * shape.grid.y * shape.grid.x * shape.channels;
    for (int64_t c = 0; c < shape.channels; ++c) {
      kernels.pack(plane_of(context, tile, c), packed + c * kRows, column_features, kRows);
    }
    packed_depth.load(tile, thread);
    for (int64_t c = 0; c < tile.columns; ++c) {
      Values* column = packed_depth.at(thread, c);
      const ColumnView<Values> view = source.column(tile, c, column, thread, rooms[thread].from(0), true);
      kernels.splat_backward(view.groups, view.count, uint16_t((1u << tile.rows) - 1), map,
                             packed + c * column_features, shape.channels, packed_grads + c * column_features,
                             group_grad);
      // The column's depths are no longer needed: their place takes the gradients.
      kernels.hand_back(view.events, view.event_count, group_grad, column, shape.bins);
    }
    for (int64_t d = 0; grad_depth && d < shape.bins; ++d) {
      kernels.unpack(packed_depth.at(thread, 0) + d * kRows, shape.bins * kRows, plane_of(to_depth, tile, d));
    }
    for (int64_t c = 0; grad_context && c < shape.channels; ++c) {
      kernels.unpack(packed_grads + c * kRows, column_features, plane_of(to_context, tile, c));
    }
  });
}

LiftShape shape_of(const LiftSplatCall& in) {
  const int64_t* d = in.depth.size;
  return {d[0], d[1], d[2], d[3], d[4], in.context ? in.context.size[2] : 1, in.grid};
}

PlanView view_of(const LiftPlan& plan) {
  return {plan.starts.at<const int64_t>(), plan.cell.at<const int32_t>(), plan.rows.at<const uint16_t>(),
          plan.events.at<const int32_t>()};
}

// Refuses a plan whose numbers point beyond its own tensors, the depths or the map: it may come from anywhere.
void expect_sound(const LiftShape& shape, const LiftPlan& plan, int threads) {
  const PlanView view = view_of(plan);
  const int64_t groups = plan.cell.size[0], events = plan.events.size[0];
  const int64_t cells = shape.grid.y * shape.grid.x, most = shape.bins * kRows;
  std::atomic<bool> sound{true};
  parallel(Tiles(shape).count, threads, [&](int64_t tile, int) {
    bool fits = true;
    for (int64_t c = 0; fits && c < kColumns; ++c) {
      const int64_t* at = view.starts + 2 * (tile * kColumns + c);
      const int64_t count = at[2] - at[0];
      fits = 0 <= at[0] && at[0] <= at[2] && at[2] <= groups && count <= most && 0 <= at[1] && at[1] <= at[3] &&
             at[3] <= events;
      for (int64_t g = at[0]; fits && g < at[2]; ++g) fits = uint64_t(view.cell[g]) < uint64_t(cells);
      for (int64_t e = at[1]; fits && e < at[3]; ++e) {
        const int32_t* event = view.events + 3 * e;
        fits = uint64_t(event[0]) < uint64_t(shape.bins) && uint64_t(event[1]) < uint64_t(count);
      }
    }
    if (!fits) sound = false;
  });
  if (!sound) throw std::invalid_argument("bev_ops: a plan must be one that LiftSplatPlan made for these sizes");
}

template <class Values, class Source>
void splat(const LiftShape& shape, const LiftSplatCall& in, const Source& source, const Tensor& bev, int threads) {
  Forward<Values, Source>(shape, in.depth.strided<Values>(), in.context.strided<Values>(), source, bev.at<Values>(),
                          threads)
      .run();
}

template <class Values, class Source>
void splat_backward(const LiftShape& shape, const LiftSplatCall& in, const Source& source, const Tensor& grad,
                    const Tensor& grad_depth, const Tensor& grad_context, int threads) {
  backward(shape, grad.at<const Values>(), in.depth.strided<Values>(), in.context.strided<Values>(), source,
           grad_depth.at<Values>(), grad_context.at<Values>(), threads);
}

template <class Places>
void plan_columns(const LiftShape& shape, const LiftSplatCall& in, const LiftPlan& plan) {
  const Tiles tiles(shape);
  const Merger<float, Places> merger(shape, in.projection.at<const Places>(), in.bins.at<const Places>(), 1);
  GroupList<float> room;
  Scratch<float> depth(merger.most_groups());
  for (int64_t k = 0; k < merger.most_groups(); ++k) depth.get()[k] = 0;
  if (!room.reserve(merger.most_groups())) throw std::bad_alloc();
  int64_t* starts = plan.starts.at<int64_t>();
  if (!plan.cell) starts[0] = starts[1] = 0;
  for (int64_t t = 0; t < tiles.count; ++t) {
    const Tile tile = tiles[t];
    for (int64_t c = 0; c < kColumns; ++c) {
      int64_t* at = starts + 2 * (t * kColumns + c);
      ColumnView<float> view{};
      if (c < tile.columns) view = merger.column(tile, c, depth.get(), 0, room.from(0), true);
      if (!plan.cell) {
        at[2] = at[0] + view.count, at[3] = at[1] + view.event_count;
      } else if (view.count) {
        std::memcpy(plan.cell.at<int32_t>() + at[0], view.groups.cell, view.count * sizeof(int32_t));
        std::memcpy(plan.rows.at<uint16_t>() + at[0], view.groups.rows, view.count * sizeof(uint16_t));
        std::memcpy(plan.events.at<int32_t>() + 3 * at[1], view.events, view.event_count * sizeof(Event));
      }
    }
  }
}

}  // namespace

template <>
void lift_splat<Processor::cpu>(const LiftSplatCall& in, const Tensor& bev, const Queue& queue) {
  const LiftShape shape = shape_of(in);
  for_type<float, double>(in.depth.type, [&](auto v) {
    for_type<float, double>(in.projection.type, [&](auto p) {
      BEV_TYPE(Values, v);
      BEV_TYPE(Places, p);
      const Merger<Values, Places> merger(shape, in.projection.at<const Places>(), in.bins.at<const Places>(),
                                          queue.threads);
      splat<Values>(shape, in, merger, bev, queue.threads);
    });
  });
}

template <>
void lift_splat_backward<Processor::cpu>(const LiftSplatCall& in, const Tensor& grad, const Tensor& grad_depth,
                                         const Tensor& grad_context, const Queue& queue) {
  const LiftShape shape = shape_of(in);
  for_type<float, double>(in.depth.type, [&](auto v) {
    for_type<float, double>(in.projection.type, [&](auto p) {
      BEV_TYPE(Values, v);
      BEV_TYPE(Places, p);
      const Merger<Values, Places> merger(shape, in.projection.at<const Places>(), in.bins.at<const Places>(),
                                          queue.threads);
      splat_backward<Values>(shape, in, merger, grad, grad_depth, grad_context, queue.threads);
    });
  });
}

int64_t lift_plan_columns(int64_t batch, int64_t cameras, int64_t height, int64_t width) {
  return Tiles(LiftShape{batch, cameras, 1, height, width, 1, {}}).column_slots();
}

void lift_plan(const LiftSplatCall& in, const LiftPlan& plan) {
  for_type<float, double>(in.projection.type, [&](auto p) {
    BEV_TYPE(Places, p);
    plan_columns<Places>(shape_of(in), in, plan);
  });
}

void lift_splat_planned(const LiftSplatCall& in, const LiftPlan& plan, const Tensor& bev, const Queue& queue) {
  const LiftShape shape = shape_of(in);
  const PlanView view = view_of(plan);
  expect_sound(shape, plan, queue.threads);
  for_type<float, double>(in.depth.type, [&](auto v) {
    BEV_TYPE(Values, v);
    splat<Values>(shape, in, PlanReader<Values>(shape, view), bev, queue.threads);
  });
}

void lift_splat_planned_backward(const LiftSplatCall& in, const LiftPlan& plan, const Tensor& grad,
                                 const Tensor& grad_depth, const Tensor& grad_context, const Queue& queue) {
  const LiftShape shape = shape_of(in);
  const PlanView view = view_of(plan);
  expect_sound(shape, plan, queue.threads);
  for_type<float, double>(in.depth.type, [&](auto v) {
    BEV_TYPE(Values, v);
    splat_backward<Values>(shape, in, PlanReader<Values>(shape, view), grad, grad_depth, grad_context,
                           queue.threads);
  });
}

}  // namespace bev
