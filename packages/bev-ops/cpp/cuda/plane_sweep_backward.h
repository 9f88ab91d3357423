// Backward of the plane sweep. `grad` is dense: [B,G,D,H,W] of a correlation, [B,D,H,W,C] of a warp.
#pragma once

#include "plane_sweep.h"

namespace bev {
namespace cuda {

// What warped channels c to c + 3 of a cell are multiplied with: the gradient itself, or that of their groups.
template <class V, class P>
BEV_DEVICE Quad<Sum<V>> factors(const Sweep<V, P>& sweep, const V* grad, bool whole_grad, int64_t b, int64_t k,
                                int64_t cell, int64_t c) {
  using S = Sum<V>;
  const int64_t left = sweep.channels - c;
  if (!sweep.groups) {
    return load4(grad + ((b * sweep.hypotheses + k) * sweep.cells() + cell) * sweep.channels + c, left, whole_grad);
  }
  const int64_t size = sweep.group_size();
  const V* plane = grad + (b * sweep.groups * sweep.hypotheses + k) * sweep.cells() + cell;
  const int64_t stride = sweep.hypotheses * sweep.cells();
  Quad<S> quad = zero4<S>();
  if (size % 4 == 0) {
    const S factor = S(widen(plane[c / size * stride])) / S(size);
    quad = {{factor, factor, factor, factor}};
  } else {
    BEV_UNROLL
    for (int n = 0; n < 4; ++n) {
      if (n < left) quad.v[n] = S(widen(plane[(c + n) / size * stride])) / S(size);
    }
  }
  return quad;
}

template <class S>
BEV_DEVICE Quad<S> times(const Quad<S>& a, const Quad<S>& b) {
  return {{a.v[0] * b.v[0], a.v[1] * b.v[1], a.v[2] * b.v[2], a.v[3] * b.v[3]}};
}

// grad_reference [B,H,W,C] = sum over hypotheses of factor * warped; grad_source [B,h,w,C] += weight * factor *
// reference at the taps. Either may be null.
template <class V, class P>
struct SweepViewGradients {
  using S = Sum<V>;
  static constexpr int kThreads = kLanes * kCells;
  static constexpr int kPhases = 2;
  struct Shared {
    Tap<S> tap[kPlanes * kCells];
  };
  struct State {
    Quad<S> sum;
  };

  Sweep<V, P> sweep;
  const V* grad;
  bool whole_grad;
  V* grad_reference;
  S* grad_source;
  bool whole_reference, whole_source;

  BEV_BOTH int64_t parts() const { return divide_up(sweep.channels, kLaneChannels); }
  int64_t blocks() const { return sweep.batch * sweep.pieces() * parts(); }
  BEV_DEVICE int64_t rounds(int64_t) const { return divide_up(sweep.hypotheses, kPlanes); }

  template <int Phase>
  BEV_DEVICE void run(const Thread& thread, Shared& shared, State& state) const {
    const int64_t piece = thread.block / parts(), b = piece / sweep.pieces();
    const int64_t first = piece % sweep.pieces() * kCells, plane = thread.round * kPlanes;
    if constexpr (Phase == 0) {
      const int64_t cell = first + thread.index % kCells, k = plane + thread.index / kCells;
      if (thread.round == 0) state.sum = zero4<S>();
      if (cell < sweep.cells() && k < sweep.hypotheses) shared.tap[thread.index] = sweep.tap(b, k, cell);
    }
    if constexpr (Phase == 1) {
      const int64_t cell = first + thread.index / kLanes;
      const int64_t c = thread.block % parts() * kLaneChannels + thread.index % kLanes * 4;
      if (cell >= sweep.cells() || c >= sweep.channels) return;
      const V* view = sweep.groups ? sweep.reference + (b * sweep.cells() + cell) * sweep.channels : nullptr;
      for (int k = 0; k < kPlanes && plane + k < sweep.hypotheses; ++k) {
        const Tap<S> tap = shared.tap[k * kCells + thread.index / kLanes];
        if (tap.x != kNowhere) add(b, plane + k, cell, c, tap, view, state);
      }
      if (!grad_reference || plane + kPlanes < sweep.hypotheses) return;
      V* out = grad_reference + (b * sweep.cells() + cell) * sweep.channels + c;
      store4(out, state.sum, sweep.channels - c, whole_reference);
    }
  }

  BEV_DEVICE void add(int64_t b, int64_t k, int64_t cell, int64_t c, const Tap<S>& tap, const V* view,
                      State& state) const {
    const int64_t left = sweep.channels - c;
    const Corners<V> corners(sweep, b, tap);
    Quad<S> factor = factors(sweep, grad, whole_grad, b, k, cell, c);
    if (grad_reference) {
      const Quad<S> warped = corners.blend(sweep.source, c, left, sweep.whole);
      add_scaled(state.sum, S(1), times(factor, warped));
    }
    if (!grad_source) return;
    if (view) factor = times(factor, load4(view + c, left, sweep.whole));
    BEV_UNROLL
    for (int n = 0; n < 4; ++n) {
      if (!corners.exists(n)) continue;
      Quad<S> share = zero4<S>();
      add_scaled(share, corners.weight[n], factor);
      atomic_add4(grad_source + (corners.offset(n) + c), share, left, whole_source);
    }
  }
};

// grad_depth [B,D,H,W] = d sum(factor * reference * warped) / d depth.
template <class V, class P>
struct SweepDepthGradient {
  using S = Sum<V>;
  static constexpr int kThreads = kLanes * kCells;
  static constexpr int kPhases = 3;
  struct Position {
    Tap<S> tap;
    S du, dv;
  };
  struct Shared {
    Position at[kPlanes * kCells];
    S part[kPlanes * kCells * (kLanes + 1)];
  };
  struct State {};

  Sweep<V, P> sweep;
  const V* grad;
  bool whole_grad;
  S* grad_depth;

  int64_t blocks() const { return sweep.batch * sweep.pieces(); }
  BEV_DEVICE int64_t rounds(int64_t) const { return divide_up(sweep.hypotheses, kPlanes); }

  template <int Phase>
  BEV_DEVICE void run(const Thread& thread, Shared& shared, State&) const {
    const int64_t b = thread.block / sweep.pieces(), first = thread.block % sweep.pieces() * kCells;
    const int64_t plane = thread.round * kPlanes;
    if constexpr (Phase == 1) {
      const int64_t cell = first + thread.index / kLanes;
      if (cell >= sweep.cells()) return;
      for (int k = 0; k < kPlanes && plane + k < sweep.hypotheses; ++k) {
        const int position = k * kCells + thread.index / kLanes;
        shared.part[position * (kLanes + 1) + thread.index % kLanes] =
            add(b, plane + k, cell, thread.index % kLanes, shared.at[position]);
      }
      return;
    }
    const int64_t cell = first + thread.index % kCells, k = plane + thread.index / kCells;
    if (cell >= sweep.cells() || k >= sweep.hypotheses) return;
    if constexpr (Phase == 0) {
      const Seen<P> seen = sweep.seen(b, k, cell);
      const Tap<S> tap = tap_at(S(seen.u), S(seen.v), sweep.source_width, sweep.source_height);
      shared.at[thread.index] = {tap, S(seen.du), S(seen.dv)};
    }
    if constexpr (Phase == 2) {
      S sum = 0;
      BEV_UNROLL
      for (int lane = 0; lane < kLanes; ++lane) sum += shared.part[thread.index * (kLanes + 1) + lane];
      grad_depth[(b * sweep.hypotheses + k) * sweep.cells() + cell] = sum;
    }
  }

  BEV_DEVICE S add(int64_t b, int64_t k, int64_t cell, int lane, const Position& at) const {
    if (at.tap.x == kNowhere) return 0;
    const Corners<V> corners(sweep, b, at.tap);
    const S fx = at.tap.fx, fy = at.tap.fy;
    // How much of each corner comes in when the position moves.
    const S change[4] = {-(S(1) - fy) * at.du - (S(1) - fx) * at.dv, (S(1) - fy) * at.du - fx * at.dv,
                         -fy * at.du + (S(1) - fx) * at.dv, fy * at.du + fx * at.dv};
    S sum = 0;
    for (int64_t c = lane * 4; c < sweep.channels; c += kLaneChannels) {
      const int64_t left = sweep.channels - c;
      Quad<S> factor = factors(sweep, grad, whole_grad, b, k, cell, c);
      if (sweep.groups) {
        const V* view = sweep.reference + (b * sweep.cells() + cell) * sweep.channels + c;
        factor = times(factor, load4(view, left, sweep.whole));
      }
      Quad<S> moved = zero4<S>();
      BEV_UNROLL
      for (int n = 0; n < 4; ++n) add_scaled(moved, change[n], corners.load(sweep.source, n, c, left, sweep.whole));
      sum += dot(factor, moved);
    }
    return sum;
  }
};

// Upper left corners from -1 on, numbered over all views; positions that touch no cell get their number.
template <class V, class P>
BEV_BOTH int64_t corners_of(const Sweep<V, P>& sweep) {
  return (sweep.source_height + 1) * (sweep.source_width + 1);
}

// key [B*D*H*W] of each position.
template <class V, class P>
struct SweepKeys : Flat {
  Sweep<V, P> sweep;
  int64_t* key;

  template <int>
  BEV_DEVICE void run(const Thread& thread, Shared&, State&) const {
    const int64_t n = item(thread);
    if (n < 0) return;
    const int64_t plane = n / sweep.cells(), b = plane / sweep.hypotheses;
    const auto tap = sweep.tap(b, plane % sweep.hypotheses, n % sweep.cells());
    key[n] = tap.x == kNowhere
                 ? sweep.batch * corners_of(sweep)
                 : b * corners_of(sweep) + (tap.y + 1) * (sweep.source_width + 1) + (tap.x + 1);
  }
};

// grad_source [B,h,w,C] as in SweepViewGradients, summed in the order of the positions: `point` sorted by key,
// `start` [keys + 1] into it.
template <class V, class P>
struct SweepSourceGather : Flat {
  using S = Sum<V>;
  Sweep<V, P> sweep;
  const V* grad;
  bool whole_grad;
  const int64_t* point;
  const int64_t* start;
  S* grad_source;
  bool whole_source;

  template <int>
  BEV_DEVICE void run(const Thread& thread, Shared&, State&) const {
    const int64_t n = item(thread);
    if (n < 0) return;
    const int64_t quads = sweep.quads(), cell = n / quads, c = n % quads * 4;
    const int64_t x = cell % sweep.source_width, row = cell / sweep.source_width;
    const int64_t y = row % sweep.source_height, b = row / sweep.source_height;
    Quad<S> sum = zero4<S>();
    // As the lower right cell of positions up to the upper left one.
    for (int corner = 3; corner >= 0; --corner) {
      const int64_t key = b * corners_of(sweep) + (y + 1 - corner / 2) * (sweep.source_width + 1) +
                          (x + 1 - corner % 2);
      for (int64_t k = start[key]; k < start[key + 1]; ++k) add(b, point[k], corner, c, sum);
    }
    store4(grad_source + cell * sweep.channels + c, sum, sweep.channels - c, whole_source);
  }

  BEV_DEVICE void add(int64_t b, int64_t position, int corner, int64_t c, Quad<S>& sum) const {
    const int64_t k = position / sweep.cells() % sweep.hypotheses, cell = position % sweep.cells();
    const Tap<S> tap = sweep.tap(b, k, cell);
    const S weight = (corner % 2 ? tap.fx : S(1) - tap.fx) * (corner / 2 ? tap.fy : S(1) - tap.fy);
    Quad<S> factor = factors(sweep, grad, whole_grad, b, k, cell, c);
    if (sweep.groups) {
      const V* view = sweep.reference + (b * sweep.cells() + cell) * sweep.channels + c;
      factor = times(factor, load4(view, sweep.channels - c, sweep.whole));
    }
    add_scaled(sum, weight, factor);
  }
};

}  // namespace cuda
}  // namespace bev
