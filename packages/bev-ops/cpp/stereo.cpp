// Plane sweep. Views are walked in rows of channels; what does not come so is packed first.
#include "ops.h"
#include "parallel.h"

namespace bev {
namespace {

// Channels that one unit of the backward pass owns.
constexpr int64_t kOwned = 64;

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

void sweep_row(const PositionKernels<float>& k, const float* matrix, int64_t i, int64_t width,
               const float* depth, int64_t stride, const SweepShape& shape, Positions<float> out) {
  k.sweep_row_f32(matrix, i, width, depth, stride, shape.hidden_u, shape.hidden_v, out);
}
void sweep_row(const PositionKernels<double>& k, const double* matrix, int64_t i, int64_t width,
               const double* depth, int64_t stride, const SweepShape& shape, Positions<float> out) {
  k.sweep_row_f32(matrix, i, width, depth, stride, shape.hidden_u, shape.hidden_v, out);
}
void sweep_row(const PositionKernels<float>& k, const float* matrix, int64_t i, int64_t width,
               const float* depth, int64_t stride, const SweepShape& shape, Positions<double> out) {
  k.sweep_row_f64(matrix, i, width, depth, stride, shape.hidden_u, shape.hidden_v, out);
}
void sweep_row(const PositionKernels<double>& k, const double* matrix, int64_t i, int64_t width,
               const double* depth, int64_t stride, const SweepShape& shape, Positions<double> out) {
  k.sweep_row_f64(matrix, i, width, depth, stride, shape.hidden_u, shape.hidden_v, out);
}

// Positions of the cells of row i of view b at hypothesis k.
template <class Values, class Places>
void positions_of(const SweepShape& shape, const Places* projection, const Strided<const Places>& depth,
                  int64_t b, int64_t k, int64_t i, Positions<Values> out) {
  const int64_t* s = depth.stride;
  sweep_row(Of<Places>::positions(), projection + b * 12, i, shape.width,
            depth.data + b * s[0] + k * s[1] + i * s[2], s[3], shape, out);
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

// What the sums of a row are multiplied with, in rows of padded channels: the gradient itself, or for a
// correlation that of each channel's group.
template <class T>
void coefficients(const SweepShape& shape, const Strided<const T>& grad, int64_t b, int64_t k, int64_t i,
                  T* out) {
  const int64_t* s = grad.stride;
  const T* row = grad.data + b * s[0] + k * s[2] + i * s[3];
  const int64_t pitch = padded(shape.channels);
  if (shape.groups) {
    Of<T>::values().spread_groups(row, s[1], s[4], shape.width, shape.channels, shape.groups,
                                  T(shape.groups) / T(shape.channels), out, pitch);
  } else {
    Of<T>::values().pack({row, s[1], s[4], shape.channels, shape.width}, out, pitch, pitch);
  }
}

}  // namespace

template <class Values, class Places>
void warp(const SweepShape& shape, Strided<const Values> source, const Places* projection,
          Strided<const Places> depth, Values* out, int threads) {
  const Rows<Values> rows(source, shape.batch, shape.channels, shape.source_height, shape.source_width, threads);
  const Zeros<Values> zeros(padded(shape.channels));
  Scratch<Values> positions(threads * 2 * shape.width);
  parallel(shape.batch * shape.hypotheses * shape.height, threads, [&](int64_t unit, int thread) {
    const int64_t i = unit % shape.height, k = unit / shape.height % shape.hypotheses;
    const int64_t b = unit / shape.height / shape.hypotheses;
    Values* u = positions.get() + thread * 2 * shape.width;
    positions_of(shape, projection, depth, b, k, i, Positions<Values>{u, u + shape.width, nullptr, nullptr});
    Of<Values>::values().warp_row(shape.width, rows[b], shape.channels, u, u + shape.width,
                                  out + unit * shape.width * shape.channels, zeros.get());
  });
}

template <class Values, class Places>
void correlate(const SweepShape& shape, Strided<const Values> reference, Strided<const Values> source,
               const Places* projection, Strided<const Places> depth, Values* out, int threads) {
  const Rows<Values> from(source, shape.batch, shape.channels, shape.source_height, shape.source_width, threads);
  const Rows<Values> with(reference, shape.batch, shape.channels, shape.height, shape.width, threads);
  const Zeros<Values> zeros(padded(shape.channels));
  const int64_t cells = shape.height * shape.width, row = shape.hypotheses * shape.width;
  const int64_t sums =
      shape.hypotheses * (padded(shape.channels) + kRows + shape.groups) + 2 * kRows;
  Scratch<Values> positions(threads * 2 * row), scratch(threads * sums);
  parallel(shape.batch * shape.height, threads, [&](int64_t unit, int thread) {
    const int64_t b = unit / shape.height, i = unit % shape.height;
    Values* u = positions.get() + thread * 2 * row;
    for (int64_t k = 0; k < shape.hypotheses; ++k) {
      Values* here = u + k * shape.width;
      positions_of(shape, projection, depth, b, k, i, Positions<Values>{here, here + row, nullptr, nullptr});
    }
    const Map<Values> view = with[b];
    Of<Values>::values().correlate_row(
        view.data + i * view.row, view.pitch, shape.width, from[b], shape.channels, shape.groups, u, u + row,
        shape.hypotheses, out + b * shape.groups * shape.hypotheses * cells + i * shape.width,
        shape.hypotheses * cells, cells, zeros.get(), scratch.get() + thread * sums);
  });
}

template <class Values, class Places>
void sweep_backward(const SweepShape& shape, Strided<const Values> grad, Strided<const Values> reference,
                    Strided<const Values> source, const Places* projection, Strided<const Places> depth,
                    Values* grad_reference, Values* grad_source, Values* grad_depth, int threads) {
  const auto& kernels = Of<Values>::values();
  const bool correlation = shape.groups > 0;
  const int64_t pitch = padded(shape.channels), width = shape.width;
  const Rows<Values> from(source, shape.batch, shape.channels, shape.source_height, shape.source_width, threads);
  const Rows<Values> with(reference, correlation ? shape.batch : 0, shape.channels, shape.height, width, threads);
  const Zeros<Values> zeros(pitch);
  Scratch<Values> sinks(threads * pitch), positions(threads * 4 * width), factors(threads * width * pitch);
  const auto reference_row = [&](int64_t b, int64_t i) -> const Values* {
    return correlation ? with[b].data + i * with[b].row : nullptr;
  };

  const int64_t owners = (pitch + kOwned - 1) / kOwned;
  if (grad_reference || grad_source) {
    parallel(shape.batch * owners, threads, [&](int64_t unit, int thread) {
      const int64_t b = unit / owners, first = unit % owners * kOwned;
      const int64_t last = first + kOwned < pitch ? first + kOwned : pitch;
      Values* u = positions.get() + thread * 4 * width;
      Values* factor = factors.get() + thread * width * pitch;
      for (int64_t i = 0; i < shape.height; ++i) {
        for (int64_t k = 0; k < shape.hypotheses; ++k) {
          positions_of(shape, projection, depth, b, k, i, Positions<Values>{u, u + width, nullptr, nullptr});
          coefficients(shape, grad, b, k, i, factor);
          kernels.sweep_backward_row(
              width, factor, reference_row(b, i), pitch, from[b], first, last, u, u + width,
              grad_reference ? grad_reference + (b * shape.height + i) * width * pitch : nullptr,
              grad_source ? grad_source + b * from[b].height * from[b].row : nullptr, zeros.get(),
              sinks.get() + thread * pitch);
        }
      }
    });
  }
  if (!grad_depth) return;
  parallel(shape.batch * shape.hypotheses * shape.height, threads, [&](int64_t unit, int thread) {
    const int64_t i = unit % shape.height, k = unit / shape.height % shape.hypotheses;
    const int64_t b = unit / shape.height / shape.hypotheses;
    Values* u = positions.get() + thread * 4 * width;
    Values* factor = factors.get() + thread * width * pitch;
    const Positions<Values> here{u, u + width, u + 2 * width, u + 3 * width};
    positions_of(shape, projection, depth, b, k, i, here);
    coefficients(shape, grad, b, k, i, factor);
    kernels.sweep_backward_depth(width, factor, reference_row(b, i), pitch, from[b], pitch, here,
                                 grad_depth + unit * width, 1, zeros.get());
  });
}

#define BEV_INSTANTIATE(V, P)                                                                                 \
  template void warp<V, P>(const SweepShape&, Strided<const V>, const P*, Strided<const P>, V*, int);         \
  template void correlate<V, P>(const SweepShape&, Strided<const V>, Strided<const V>, const P*,              \
                                Strided<const P>, V*, int);                                                   \
  template void sweep_backward<V, P>(const SweepShape&, Strided<const V>, Strided<const V>, Strided<const V>, \
                                     const P*, Strided<const P>, V*, V*, V*, int);
BEV_INSTANTIATE(float, float)
BEV_INSTANTIATE(float, double)
BEV_INSTANTIATE(double, float)
BEV_INSTANTIATE(double, double)
#undef BEV_INSTANTIATE

}  // namespace bev
