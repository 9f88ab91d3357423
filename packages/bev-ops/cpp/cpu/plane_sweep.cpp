// Plane sweep. Views are walked in rows of channels; what does not come so is packed first. The reference view is
// walked in strips from top to bottom: the source cells that neighbouring hypotheses and rows share stay in the
// cache, which whole rows would leave.
#include "../bev_ops.h"
#include "dispatch.h"
#include "parallel.h"

namespace bev {
namespace {

struct SweepShape {
  int64_t batch, channels, source_height, source_width, hypotheses, height, width;
  int64_t groups;  // 0: a warp without correlation
  double hidden_u, hidden_v;
};

// A view in rows of padded channels: the tensor itself where it is laid out so, else a copy.
template <class T>
class Rows {
 public:
  Rows(const Strided<const T>& view, int64_t batch, int64_t channels, int64_t height, int64_t width, int threads)
      : pitch_(padded(channels)),
        height_(height),
        width_(width),
        copy_(direct(view, channels, width) ? 0 : batch * height * width * pitch_) {
    const int64_t* s = view.stride;
    if (direct(view, channels, width)) {
      data_ = view.data, batch_ = s[0];
      return;
    }
    data_ = copy_.get(), batch_ = height * width * pitch_;
    parallel(batch * height, threads, [&](int64_t unit, int) {
      Of<T>::values().pack({view.data + unit / height * s[0] + unit % height * s[2], s[1], s[3], channels, width},
                           copy_.get() + unit * width * pitch_, pitch_, pitch_);
    });
  }

  Map<T> operator[](int64_t b) const { return {data_ + b * batch_, width_ * pitch_, pitch_, height_, width_}; }

 private:
  static bool direct(const Strided<const T>& view, int64_t channels, int64_t width) {
    const int64_t* s = view.stride;
    return channels % kRows == 0 && s[1] == 1 && s[3] == channels && s[2] == width * channels;
  }

  int64_t pitch_, height_, width_, batch_;
  Scratch<T> copy_;
  const T* data_;
};

void sweep_row(const PositionKernels<float>& k, const float* matrix, int64_t i, int64_t first, int64_t width,
               const float* depth, int64_t stride, const SweepShape& shape, Positions<float> out) {
  k.sweep_row_f32(matrix, i, first, width, depth, stride, shape.hidden_u, shape.hidden_v, out);
}
void sweep_row(const PositionKernels<double>& k, const double* matrix, int64_t i, int64_t first, int64_t width,
               const double* depth, int64_t stride, const SweepShape& shape, Positions<float> out) {
  k.sweep_row_f32(matrix, i, first, width, depth, stride, shape.hidden_u, shape.hidden_v, out);
}
void sweep_row(const PositionKernels<float>& k, const float* matrix, int64_t i, int64_t first, int64_t width,
               const float* depth, int64_t stride, const SweepShape& shape, Positions<double> out) {
  k.sweep_row_f64(matrix, i, first, width, depth, stride, shape.hidden_u, shape.hidden_v, out);
}
void sweep_row(const PositionKernels<double>& k, const double* matrix, int64_t i, int64_t first, int64_t width,
               const double* depth, int64_t stride, const SweepShape& shape, Positions<double> out) {
  k.sweep_row_f64(matrix, i, first, width, depth, stride, shape.hidden_u, shape.hidden_v, out);
}

// Positions and taps of the rows that each thread has in hand.
template <class T>
class RowSpace {
 public:
  RowSpace(int64_t size, int threads) : size_(size), values_(threads * 6 * size), cells_(threads * 2 * size) {}

  Positions<T> positions(int thread) const {
    T* first = values_.get() + thread * 6 * size_;
    return {first, first + size_, first + 2 * size_, first + 3 * size_};
  }
  TapRow<T> taps(int thread) const {
    T* values = values_.get() + (thread * 6 + 4) * size_;
    int32_t* cells = cells_.get() + thread * 2 * size_;
    return {cells, cells + size_, values, values + size_};
  }

 private:
  int64_t size_;
  Scratch<T> values_;
  Scratch<int32_t> cells_;
};

// A stretch of one row of view b.
struct Stretch {
  int64_t b, i, first, width;
};

// Positions and taps of a stretch at hypothesis k, to start at `offset` of their rows.
template <class Values, class Places>
TapRow<Values> find_row(const SweepShape& shape, const Places* projection, const Strided<const Places>& depth,
                        const Map<Values>& source, const Stretch& at_row, int64_t k, bool slopes,
                        const RowSpace<Values>& space, int thread, int64_t offset = 0) {
  const int64_t* s = depth.stride;
  Positions<Values> at = space.positions(thread);
  if (!slopes) at.du = at.dv = nullptr;
  sweep_row(Of<Places>::positions(), projection + at_row.b * 12, at_row.i, at_row.first, at_row.width,
            depth.data + at_row.b * s[0] + k * s[1] + at_row.i * s[2] + at_row.first * s[3], s[3], shape, at);
  TapRow<Values> taps = space.taps(thread);
  taps = {taps.x + offset, taps.y + offset, taps.fx + offset, taps.fy + offset};
  Of<Values>::values().find_taps(source, at.u, at.v, at_row.width, taps);
  return taps;
}

// Columns of the reference view that are walked together: wide enough that memory comes in long runs, narrow
// enough for the cache.
constexpr int64_t kStrip = 96;

// Narrower strips where there are too few for the threads.
int64_t strip_for(int64_t batch, int64_t width, int threads) {
  int64_t strip = kStrip;
  while (strip > kRows && batch * ((width + strip - 1) / strip) < 2 * threads) strip = strip / 2 / kRows * kRows;
  return strip;
}

// Calls body(row, first column, end) for the pieces of all rows, strip by strip.
template <class Body>
void for_strips(int64_t width, int64_t height, Body&& body) {
  for (int64_t first = 0; first < width; first += kStrip) {
    const int64_t end = first + kStrip < width ? first + kStrip : width;
    for (int64_t i = 0; i < height; ++i) body(i, first, end);
  }
}

template <class T>
class Zeros {
 public:
  explicit Zeros(int64_t count) : data_(count) {
    for (int64_t k = 0; k < count; ++k) data_.get()[k] = 0;
  }
  const T* get() const { return data_.get(); }

 private:
  Scratch<T> data_;
};

// What the sums of pixels `start` on are multiplied with, in rows of padded channels: the gradient itself, or
// for a correlation that of each channel's group.
template <class T>
void coefficients(const SweepShape& shape, const Strided<const T>& grad, int64_t b, int64_t k, int64_t i,
                  int64_t start, int64_t pixels, T* out) {
  const int64_t* s = grad.stride;
  const T* row = grad.data + b * s[0] + k * s[2] + i * s[3] + start * s[4];
  const int64_t pitch = padded(shape.channels);
  if (shape.groups) {
    Of<T>::values().spread_groups(row, s[1], s[4], pixels, shape.channels, shape.groups,
                                  T(shape.groups) / T(shape.channels), out, pitch);
  } else {
    Of<T>::values().pack({row, s[1], s[4], shape.channels, pixels}, out, pitch, pitch);
  }
}

template <class Values, class Places>
void warp(const SweepShape& shape, Strided<const Values> source, const Places* projection,
          Strided<const Places> depth, Values* out, int threads) {
  const Rows<Values> rows(source, shape.batch, shape.channels, shape.source_height, shape.source_width, threads);
  const Zeros<Values> zeros(padded(shape.channels));
  const RowSpace<Values> space(shape.width, threads);
  parallel(shape.batch * shape.hypotheses * shape.height, threads, [&](int64_t unit, int thread) {
    const int64_t i = unit % shape.height, k = unit / shape.height % shape.hypotheses;
    const int64_t b = unit / shape.height / shape.hypotheses;
    const auto taps = find_row(shape, projection, depth, rows[b], {b, i, 0, shape.width}, k, false, space, thread);
    Of<Values>::values().warp_row(shape.width, rows[b], shape.channels, taps,
                                  out + unit * shape.width * shape.channels, zeros.get());
  });
}

template <class Values, class Places>
void correlate(const SweepShape& shape, Strided<const Values> reference, Strided<const Values> source,
               const Places* projection, Strided<const Places> depth, Values* out, int threads) {
  const Rows<Values> from(source, shape.batch, shape.channels, shape.source_height, shape.source_width, threads);
  const Rows<Values> with(reference, shape.batch, shape.channels, shape.height, shape.width, threads);
  const Zeros<Values> zeros(padded(shape.channels));
  const int64_t cells = shape.height * shape.width;
  const int64_t sums = correlation_scratch(shape.channels);
  const int64_t strip = strip_for(shape.batch, shape.width, threads);
  const RowSpace<Values> space(shape.hypotheses * strip, threads);
  Scratch<Values> scratch(threads * sums);
  const int64_t strips = (shape.width + strip - 1) / strip;
  parallel(shape.batch * strips, threads, [&](int64_t unit, int thread) {
    const int64_t b = unit / strips, first = unit % strips * strip;
    const int64_t pixels = shape.width - first < strip ? shape.width - first : strip;
    const Map<Values> view = with[b];
    for (int64_t i = 0; i < shape.height; ++i) {
      for (int64_t k = 0; k < shape.hypotheses; ++k) {
        find_row(shape, projection, depth, from[b], {b, i, first, pixels}, k, false, space, thread, k * pixels);
      }
      Of<Values>::values().correlate_row(
          view.data + i * view.row + first * view.pitch, view.pitch, pixels, from[b], shape.channels,
          shape.groups, space.taps(thread), shape.hypotheses,
          out + b * shape.groups * shape.hypotheses * cells + i * shape.width + first, shape.hypotheses * cells,
          cells, zeros.get(), scratch.get() + thread * sums);
    }
  });
}

template <class Values, class Places>
void backward(const SweepShape& shape, Strided<const Values> grad, Strided<const Values> reference,
              Strided<const Values> source, const Places* projection, Strided<const Places> depth,
              Values* grad_reference, Values* grad_source, Values* grad_depth, int threads) {
  const auto& kernels = Of<Values>::values();
  const bool correlation = shape.groups > 0;
  const int64_t pitch = padded(shape.channels), width = shape.width;
  const Rows<Values> from(source, shape.batch, shape.channels, shape.source_height, shape.source_width, threads);
  const Rows<Values> with(reference, correlation ? shape.batch : 0, shape.channels, shape.height, width, threads);
  const Zeros<Values> zeros(pitch);
  const RowSpace<Values> space(shape.hypotheses * kRows > width ? shape.hypotheses * kRows : width, threads);
  const int64_t tile_factors = shape.hypotheses * kRows * pitch;
  const int64_t factor_size = tile_factors > width * pitch ? tile_factors : width * pitch;
  Scratch<Values> sinks(threads * pitch), factors(threads * factor_size);
  for (int64_t n = 0; n < threads * pitch; ++n) sinks.get()[n] = 0;
  const auto reference_row = [&](int64_t b, int64_t i) -> const Values* {
    return correlation ? with[b].data + i * with[b].row : nullptr;
  };

  // A unit owns some channels of one view: as many units as keep the threads busy. However channels are dealt,
  // each element's sum runs in the same order.
  const int64_t most = pitch / kRows, asked = (2 * threads + shape.batch - 1) / shape.batch;
  const int64_t owned = threads == 1 ? pitch : (most + asked - 1) / asked * kRows;
  const int64_t owners = (pitch + owned - 1) / owned;
  if (grad_reference || grad_source) {
    parallel(shape.batch * owners, threads, [&](int64_t unit, int thread) {
      const int64_t b = unit / owners, first = unit % owners * owned;
      const int64_t last = first + owned < pitch ? first + owned : pitch;
      Values* factor = factors.get() + thread * factor_size;
      for_strips(width, shape.height, [&](int64_t i, int64_t begin, int64_t end) {
        for (int64_t start = begin; start < end; start += kRows) {
          const int64_t pixels = end - start < kRows ? end - start : kRows;
          for (int64_t k = 0; k < shape.hypotheses; ++k) {
            find_row(shape, projection, depth, from[b], {b, i, start, pixels}, k, false, space, thread, k * kRows);
            coefficients(shape, grad, b, k, i, start, pixels, factor + k * kRows * pitch);
          }
          const int64_t pixel = ((b * shape.height + i) * width + start) * pitch;
          kernels.sweep_backward_tile(
              pixels, shape.hypotheses, factor, correlation ? reference_row(b, i) + start * pitch : nullptr, pitch,
              from[b], first, last, space.taps(thread), grad_reference ? grad_reference + pixel : nullptr,
              grad_source ? grad_source + b * from[b].height * from[b].row : nullptr, zeros.get(),
              sinks.get() + thread * pitch);
        }
      });
    });
  }
  if (!grad_depth) return;
  parallel(shape.batch * shape.hypotheses * shape.height, threads, [&](int64_t unit, int thread) {
    const int64_t i = unit % shape.height, k = unit / shape.height % shape.hypotheses;
    const int64_t b = unit / shape.height / shape.hypotheses;
    Values* factor = factors.get() + thread * factor_size;
    const auto taps = find_row(shape, projection, depth, from[b], {b, i, 0, width}, k, true, space, thread);
    const Positions<Values> at = space.positions(thread);
    coefficients(shape, grad, b, k, i, 0, width, factor);
    kernels.sweep_backward_depth(width, factor, reference_row(b, i), pitch, from[b], pitch, taps, at.du, at.dv,
                                 grad_depth + unit * width, zeros.get());
  });
}

SweepShape shape_of(const PlaneSweepCall& in) {
  const int64_t *s = in.source.size, *d = in.depth.size;
  return {s[0], s[1], s[2], s[3], d[1], d[2], d[3], in.groups, in.hidden_u, in.hidden_v};
}

// Calls body(Tag<Values>, Tag<Places>) for the types of a call.
template <class Body>
void for_types(const PlaneSweepCall& in, Body&& body) {
  for_type<float, double>(in.source.type, [&](auto v) {
    for_type<float, double>(in.projection.type, [&](auto p) { body(v, p); });
  });
}

}  // namespace

template <>
void homography_warp<Processor::cpu>(const PlaneSweepCall& in, const Tensor& out, const Queue& queue) {
  for_types(in, [&](auto v, auto p) {
    BEV_TYPE(Values, v);
    BEV_TYPE(Places, p);
    warp(shape_of(in), in.source.strided<Values>(), in.projection.at<const Places>(), in.depth.strided<Places>(),
         out.at<Values>(), queue.threads);
  });
}

template <>
void plane_sweep_correlation<Processor::cpu>(const PlaneSweepCall& in, const Tensor& out, const Queue& queue) {
  for_types(in, [&](auto v, auto p) {
    BEV_TYPE(Values, v);
    BEV_TYPE(Places, p);
    correlate(shape_of(in), in.reference.strided<Values>(), in.source.strided<Values>(),
              in.projection.at<const Places>(), in.depth.strided<Places>(), out.at<Values>(), queue.threads);
  });
}

template <>
void plane_sweep_backward<Processor::cpu>(const PlaneSweepCall& in, const Tensor& grad, const Tensor& grad_reference,
                                          const Tensor& grad_source, const Tensor& grad_depth, const Queue& queue) {
  for_types(in, [&](auto v, auto p) {
    BEV_TYPE(Values, v);
    BEV_TYPE(Places, p);
    backward(shape_of(in), grad.strided<Values>(), in.reference.strided<Values>(), in.source.strided<Values>(),
             in.projection.at<const Places>(), in.depth.strided<Places>(), grad_reference.at<Values>(),
             grad_source.at<Values>(), grad_depth.at<Values>(), queue.threads);
  });
}

template <>
int64_t channel_padding<Processor::cpu>() {
  return kRows;
}

}  // namespace bev
