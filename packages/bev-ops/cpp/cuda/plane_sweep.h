// Kernels of the plane sweep. Views are dense rows of channels; blocks take 32 neighbouring cells of the reference
// view, and 8 threads work on one cell, each on every eighth four of its channels.
#pragma once

#include "types.h"

namespace bev {
namespace cuda {

constexpr int kLanes = 8, kCells = 32;
// Hypotheses at a time, so that one thread finds one position.
constexpr int kPlanes = 8;
constexpr int kLaneChannels = 4 * kLanes;

// source [B,h,w,C] and reference [B,H,W,C] dense, projection [B,3,4] dense, depth [B,D,H,W] with any strides.
template <class V, class P>
struct Sweep {
  int64_t batch, channels, source_height, source_width, hypotheses, height, width;
  int64_t groups;  // 0: a warp without correlation
  double hidden_u, hidden_v;
  const V* reference;
  const V* source;
  const P* projection;
  const P* depth;
  int64_t stride[4];
  bool whole;  // both views come in aligned fours

  BEV_BOTH int64_t quads() const { return divide_up(channels, 4); }
  BEV_BOTH int64_t cells() const { return height * width; }
  BEV_BOTH int64_t pieces() const { return divide_up(cells(), kCells); }
  BEV_BOTH int64_t group_size() const { return groups ? channels / groups : channels; }

  BEV_DEVICE Seen<P> seen(int64_t b, int64_t k, int64_t cell) const {
    const int64_t i = cell / width, j = cell % width;
    const P at = depth[b * stride[0] + k * stride[1] + i * stride[2] + j * stride[3]];
    return seen_at(projection + b * 12, P(j), P(i), at, hidden_u, hidden_v);
  }
  BEV_DEVICE Tap<Sum<V>> tap(int64_t b, int64_t k, int64_t cell) const {
    const Seen<P> at = seen(b, k, cell);
    return tap_at(Sum<V>(at.u), Sum<V>(at.v), source_width, source_height);
  }
};

template <class V, class P>
Sweep<V, P> sweep_of(const PlaneSweepCall& in) {
  const int64_t *s = in.source.size, *d = in.depth.size, *stride = in.depth.stride;
  const bool whole = in_fours<V>(s[1], in.source) && (!in.reference || in_fours<V>(s[1], in.reference));
  return {s[0],
          s[1],
          s[2],
          s[3],
          d[1],
          d[2],
          d[3],
          in.groups,
          in.hidden_u,
          in.hidden_v,
          in.reference.at<const V>(),
          in.source.at<const V>(),
          in.projection.at<const P>(),
          in.depth.at<const P>(),
          {stride[0], stride[1], stride[2], stride[3]},
          whole};
}

// The four source cells around a tap; those outside the view read zeros.
template <class V>
struct Corners {
  using S = Sum<V>;
  bool left, right, top, bottom;
  int64_t first, row, step;  // of the upper left cell, to the next row, to the next column; in elements
  S weight[4];

  template <class P>
  BEV_DEVICE Corners(const Sweep<V, P>& sweep, int64_t b, const Tap<S>& tap) {
    left = tap.x >= 0;
    right = tap.x + 1 < sweep.source_width;
    top = tap.y >= 0;
    bottom = tap.y + 1 < sweep.source_height;
    step = sweep.channels;
    row = sweep.source_width * step;
    first = (b * sweep.source_height + tap.y) * row + tap.x * step;
    weight[0] = (S(1) - tap.fx) * (S(1) - tap.fy);
    weight[1] = tap.fx * (S(1) - tap.fy);
    weight[2] = (S(1) - tap.fx) * tap.fy;
    weight[3] = tap.fx * tap.fy;
  }
  BEV_DEVICE bool exists(int n) const { return (n % 2 ? right : left) && (n / 2 ? bottom : top); }
  BEV_DEVICE int64_t offset(int n) const { return first + n / 2 * row + n % 2 * step; }
  BEV_DEVICE Quad<S> load(const V* source, int n, int64_t c, int64_t left_over, bool whole) const {
    return exists(n) ? load4(source + (offset(n) + c), left_over, whole) : zero4<S>();
  }
  BEV_DEVICE Quad<S> blend(const V* source, int64_t c, int64_t left_over, bool whole) const {
    Quad<S> sum = zero4<S>();
    BEV_UNROLL
    for (int n = 0; n < 4; ++n) add_scaled(sum, weight[n], load(source, n, c, left_over, whole));
    return sum;
  }
};

// out [B,D,H,W,C] = source as seen from the reference.
template <class V, class P>
struct Warp {
  static constexpr int kThreads = 256;
  static constexpr int kPhases = 2;
  static constexpr int kPositions = 64;
  using S = Sum<V>;
  struct Shared {
    Tap<S> tap[kPositions];
  };
  struct State {};

  Sweep<V, P> sweep;
  V* out;
  bool whole_out;

  BEV_BOTH int64_t positions() const { return sweep.batch * sweep.hypotheses * sweep.cells(); }
  int64_t blocks() const { return divide_up(positions(), kPositions); }
  BEV_DEVICE int64_t rounds(int64_t) const { return 1; }

  template <int Phase>
  BEV_DEVICE void run(const Thread& thread, Shared& shared, State&) const {
    const int64_t first = thread.block * kPositions;
    if constexpr (Phase == 0) {
      const int64_t n = first + thread.index;
      if (thread.index >= kPositions || n >= positions()) return;
      const int64_t plane = n / sweep.cells();
      shared.tap[thread.index] = sweep.tap(plane / sweep.hypotheses, plane % sweep.hypotheses, n % sweep.cells());
    }
    if constexpr (Phase == 1) {
      const int64_t quads = sweep.quads(), items = kPositions * quads;
      for (int64_t item = thread.index; item < items; item += kThreads) {
        const int64_t n = first + item / quads, c = item % quads * 4, left = sweep.channels - c;
        if (n >= positions()) return;
        const Tap<S> tap = shared.tap[item / quads];
        Quad<S> quad = zero4<S>();
        if (tap.x != kNowhere) {
          const Corners<V> corners(sweep, n / sweep.cells() / sweep.hypotheses, tap);
          quad = corners.blend(sweep.source, c, left, sweep.whole);
        }
        store4(out + n * sweep.channels + c, quad, left, whole_out);
      }
    }
  }
};

// out [B,G,D,H,W] = mean over each group's channels of reference * warped.
template <class V, class P>
struct Correlate {
  using S = Sum<V>;
  static constexpr int kThreads = kLanes * kCells;
  static constexpr int kPhases = 3;
  static_assert(kPlanes * kCells == kThreads, "one thread finds one position");
  struct Shared {
    Tap<S> tap[kPlanes * kCells];
    S part[kPlanes * kCells * (kLanes + 1)];
  };
  struct State {};

  Sweep<V, P> sweep;
  V* out;
  bool whole_groups;  // groups too come in aligned fours

  int64_t blocks() const { return sweep.batch * sweep.pieces(); }
  // Groups change fastest: all hypotheses at hand read one group's channels while they are in the cache.
  BEV_DEVICE int64_t rounds(int64_t) const { return divide_up(sweep.hypotheses, kPlanes) * sweep.groups; }

  template <int Phase>
  BEV_DEVICE void run(const Thread& thread, Shared& shared, State&) const {
    const int64_t b = thread.block / sweep.pieces(), first = thread.block % sweep.pieces() * kCells;
    const int64_t group = thread.round % sweep.groups, plane = thread.round / sweep.groups * kPlanes;
    const int64_t left = sweep.hypotheses - plane;
    const int planes = left < kPlanes ? int(left) : kPlanes;
    if constexpr (Phase == 1) {
      const int64_t cell = first + thread.index / kLanes;
      if (cell < sweep.cells()) add(b, cell, group, planes, thread.index, shared);
      return;
    }
    const int64_t cell = first + thread.index % kCells;
    const int k = thread.index / kCells;
    if (cell >= sweep.cells() || k >= planes) return;
    if constexpr (Phase == 0) {
      if (group == 0) shared.tap[thread.index] = sweep.tap(b, plane + k, cell);
    }
    if constexpr (Phase == 2) {
      S sum = 0;
      BEV_UNROLL
      for (int lane = 0; lane < kLanes; ++lane) sum += shared.part[thread.index * (kLanes + 1) + lane];
      const int64_t at = ((b * sweep.groups + group) * sweep.hypotheses + plane + k) * sweep.cells() + cell;
      narrow(sum / S(sweep.group_size()), out[at]);
    }
  }

  BEV_DEVICE void add(int64_t b, int64_t cell, int64_t group, int planes, int index, Shared& shared) const {
    const int lane = index % kLanes, here = index / kLanes;
    const int64_t size = sweep.group_size(), start = group * size;
    S sum[kPlanes];
    BEV_UNROLL
    for (int k = 0; k < kPlanes; ++k) sum[k] = 0;
    for (int64_t c = lane * 4; c < size; c += kLaneChannels) {
      const Quad<S> view =
          load4(sweep.reference + (b * sweep.cells() + cell) * sweep.channels + start + c, size - c, whole_groups);
      BEV_UNROLL
      for (int k = 0; k < kPlanes; ++k) {
        if (k >= planes) continue;
        const Tap<S> tap = shared.tap[k * kCells + here];
        if (tap.x == kNowhere) {
          sum[k] += dot(view, zero4<S>());  // NaN where the reference is not finite
          continue;
        }
        const Corners<V> corners(sweep, b, tap);
        sum[k] += dot(view, corners.blend(sweep.source, start + c, size - c, whole_groups));
      }
    }
    BEV_UNROLL
    for (int k = 0; k < kPlanes; ++k) {
      if (k < planes) shared.part[(k * kCells + here) * (kLanes + 1) + lane] = sum[k];
    }
  }
};

}  // namespace cuda
}  // namespace bev
