// Voxel pooling of a volume that exists already, and the change of layout that the gradients need.
#include "../bev_ops.h"
#include "dispatch.h"
#include "parallel.h"

namespace bev {
namespace {

struct PoolShape {
  int64_t batch, points, channels;
  Grid grid;
};

constexpr int64_t kPiece = 4096;

template <class Coords>
void cells_of(const PoolShape& shape, const Strided<const Coords>& coords, int64_t b, int64_t first,
              int64_t count, int32_t* cells) {
  Of<Coords>::coords().point_cells(coords.data + b * coords.stride[0] + first * coords.stride[1],
                                   coords.stride[1], coords.stride[2], count, shape.grid, cells);
}

template <class Values, class Coords>
void pool(const PoolShape& shape, Strided<const Coords> coords, Strided<const Values> features,
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
void hand_back(const PoolShape& shape, Strided<const Coords> coords, const Values* grad,
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
void transpose(const Tensor& in, const Tensor& out, int threads) {
  const Strided<const Values> maps = in.strided<Values>();
  const int64_t* s = maps.stride;
  const int64_t channels = in.size[1], height = in.size[2], width = in.size[3];
  parallel(in.size[0] * height, threads, [&](int64_t unit, int) {
    const Values* row = maps.data + unit / height * s[0] + unit % height * s[2];
    Of<Values>::values().pack({row, s[1], s[3], channels, width}, out.at<Values>() + unit * width * channels,
                              channels, channels);
  });
}

}  // namespace

template <>
void voxel_pooling<Processor::cpu>(const VoxelPoolingCall& in, const Tensor& features, const Tensor& bev,
                                   const Queue& queue) {
  const PoolShape shape{features.size[0], features.size[1], features.size[2], in.grid};
  for_type<float, double>(features.type, [&](auto v) {
    for_type<float, double, int64_t>(in.coords.type, [&](auto c) {
      BEV_TYPE(Values, v);
      BEV_TYPE(Coords, c);
      pool(shape, in.coords.strided<Coords>(), features.strided<Values>(), bev.at<Values>(), queue.threads);
    });
  });
}

template <>
void voxel_pooling_backward<Processor::cpu>(const VoxelPoolingCall& in, const Tensor& grad, const Tensor& grad_features,
                                            const Queue& queue) {
  const PoolShape shape{grad_features.size[0], grad_features.size[1], grad_features.size[2], in.grid};
  for_type<float, double>(grad.type, [&](auto v) {
    for_type<float, double, int64_t>(in.coords.type, [&](auto c) {
      BEV_TYPE(Values, v);
      BEV_TYPE(Coords, c);
      hand_back(shape, in.coords.strided<Coords>(), grad.at<const Values>(), grad_features.at<Values>(),
                queue.threads);
    });
  });
}

void to_channels_last(const Tensor& in, const Tensor& out, const Queue& queue) {
  for_type<float, double>(in.type, [&](auto v) {
    BEV_TYPE(Values, v);
    transpose<Values>(in, out, queue.threads);
  });
}

}  // namespace bev
