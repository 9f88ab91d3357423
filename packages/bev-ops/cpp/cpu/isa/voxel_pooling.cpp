// Sums of the features of points by cell.
#include "owners.h"

namespace bev {
namespace BEV_ISA {
namespace {

template <class T>
void pool(const int32_t* cells, int64_t points, const T* features, int64_t stride, int64_t channels, T* bev,
          int64_t owner, int64_t owners) {
  constexpr int L = Simd<T>::lanes;
  constexpr int64_t kPiece = 1024, kLine = 64 / int64_t(sizeof(T)), kPointsAhead = 24, kCellsAhead = 8;
  int32_t mine[kPiece];
  for (int64_t start = 0; start < points; start += kPiece) {
    const int64_t end = start + kPiece < points ? start + kPiece : points;
    int64_t count = 0;
    for (int64_t p = start; p < end; ++p) {
      mine[count] = int32_t(p - start);
      count += (cells[p] >= 0) & owns(cells[p], owner, owners);
    }
    for (int64_t n = 0; n < count; ++n) {
      const int64_t p = start + mine[n];
      T* out = bev + int64_t(cells[p]) * channels;
      const T* in = features + p * stride;
      // Points lie with gaps between them, and cells are met in no order: ask for those to come.
      if (n + kPointsAhead < count) {
        const T* point = features + (start + mine[n + kPointsAhead]) * stride;
        const T* cell = bev + int64_t(cells[start + mine[n + kCellsAhead]]) * channels;
        for (int64_t c = 0; c < channels; c += kLine) {
          __builtin_prefetch(point + c);
          __builtin_prefetch(cell + c, 1);
        }
      }
      int64_t c = 0;
      for (; c + L <= channels; c += L) store(out + c, load(out + c) + load(in + c));
      for (; c < channels; ++c) out[c] += in[c];
    }
  }
}

}  // namespace

void fill_voxel_pooling(Table& table) {
  table.values_f32.pool = pool<float>;
  table.values_f64.pool = pool<double>;
}

}  // namespace BEV_ISA
}  // namespace bev
