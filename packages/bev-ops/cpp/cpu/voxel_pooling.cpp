// Voxel pooling of a volume that exists already, and the change of layout that the gradients need.
#include "../bev_ops.h"
#include "parallel.h"

namespace bev {
namespace {

constexpr int64_t kPiece = 4096;

template <class Coords>
void cells_of(const PoolShape& shape, const Strided<const Coords>& coords, int64_t b, int64_t first,
              int64_t count, int32_t* cells) {
  Of<Coords>::coords().point_cells(coords.data + b * coords.stride[0] + first * coords.stride[1],
                                   coords.stride[1], coords.stride[2], count, shape.grid, cells);
}

}  // namespace

template <class Values, class Coords>
void voxel_pooling(const PoolShape& shape, Strided<const Coords> coords, Strided<const Values> features,
                   Values* bev, int threads) {
  // As many pieces at a time as keep the threads busy between two waits.
  const int64_t batch_points = kPiece * 16 * threads;
  Scratch<int32_t> cells(batch_points < shape.points ? batch_points : shape.points);
  const int64_t cells_per_map = shape.grid.y * shape.grid.x;
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (int64_t first = 0; first < shape.points; first += batch_points) {
      const int64_t left = shape.points - first, now = left < batch_points ? left : batch_points;
      parallel((now + kPiece - 1) / kPiece, threads, [&](int64_t piece, int) {
        const int64_t start = piece * kPiece, count = now - start < kPiece ? now - start : kPiece;
        cells_of(shape, coords, b, first + start, count, cells.get() + start);
      });
      parallel(threads, threads, [&](int64_t owner, int) {
        Of<Values>::values().pool(cells.get(), now,
                                  features.data + b * features.stride[0] + first * features.stride[1],
                                  features.stride[1], shape.channels,
                                  bev + b * cells_per_map * shape.channels, owner, threads);
      });
    }
  }
}

template <class Values, class Coords>
void voxel_pooling_backward(const PoolShape& shape, Strided<const Coords> coords, const Values* grad,
                            Values* grad_features, int threads) {
  const int64_t pieces = (shape.points + kPiece - 1) / kPiece;
  Scratch<int32_t> cells(kPiece * threads);
  parallel(shape.batch * pieces, threads, [&](int64_t unit, int thread) {
    const int64_t b = unit / pieces, first = unit % pieces * kPiece;
    const int64_t count = shape.points - first < kPiece ? shape.points - first : kPiece;
    int32_t* here = cells.get() + thread * kPiece;
    cells_of(shape, coords, b, first, count, here);
    const Values* map = grad + b * shape.grid.y * shape.grid.x * shape.channels;
    Values* out = grad_features + (b * shape.points + first) * shape.channels;
    for (int64_t p = 0; p < count; ++p, out += shape.channels) {
      if (here[p] < 0) {
        for (int64_t c = 0; c < shape.channels; ++c) out[c] = 0;
      } else {
        __builtin_memcpy(out, map + here[p] * shape.channels, shape.channels * sizeof(Values));
      }
    }
  });
}

template <class Values>
void to_channels_last(Strided<const Values> in, int64_t batch, int64_t channels, int64_t height, int64_t width,
                      Values* out, int threads) {
  const int64_t* s = in.stride;
  parallel(batch * height, threads, [&](int64_t unit, int) {
    const Values* row = in.data + unit / height * s[0] + unit % height * s[2];
    Of<Values>::values().pack({row, s[1], s[3], channels, width}, out + unit * width * channels, channels,
                              channels);
  });
}

#define BEV_INSTANTIATE(V, C)                                                                              \
  template void voxel_pooling<V, C>(const PoolShape&, Strided<const C>, Strided<const V>, V*, int);        \
  template void voxel_pooling_backward<V, C>(const PoolShape&, Strided<const C>, const V*, V*, int);
BEV_INSTANTIATE(float, float)
BEV_INSTANTIATE(float, double)
BEV_INSTANTIATE(float, int64_t)
BEV_INSTANTIATE(double, float)
BEV_INSTANTIATE(double, double)
BEV_INSTANTIATE(double, int64_t)
#undef BEV_INSTANTIATE
template void to_channels_last<float>(Strided<const float>, int64_t, int64_t, int64_t, int64_t, float*, int);
template void to_channels_last<double>(Strided<const double>, int64_t, int64_t, int64_t, int64_t, double*, int);

}  // namespace bev
