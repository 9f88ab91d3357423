// Splatting: packing of image columns, merging of their points by cell, and the sums themselves.
#include "owners.h"
#include "transpose.h"

namespace bev {
namespace BEV_ISA {
namespace {

template <class T>
void pack(Block<const T> block, T* out, int64_t pitch, int64_t pad) {
  int64_t rows = 0, columns = 0;
  if (block.column == 1) {
    rows = block.rows, columns = block.columns;
    transpose_squares(block.data, block.row, out, pitch, pad, rows, columns);
  } else if (block.row == 1) {
    rows = block.rows, columns = block.columns;
    for (int64_t c = 0; c < columns; ++c) {
      __builtin_memcpy(out + c * pitch, block.data + c * block.column, rows * sizeof(T));
    }
  }
  if (columns < block.columns) {
    transpose_rest(block.data + columns * block.column, block.row, block.column, rows,
                   block.columns - columns, out + columns * pitch, int64_t(1), pitch);
  }
  transpose_rest(block.data + rows * block.row, block.row, block.column, block.rows - rows, block.columns,
                 out + rows, int64_t(1), pitch);
  for (int64_t c = 0; c < block.columns; ++c) {
    for (int64_t r = block.rows; r < pad; ++r) out[c * pitch + r] = 0;
  }
}

template <class T>
void unpack(const T* in, int64_t pitch, Block<T> block) {
  int64_t rows = 0, columns = 0;
  if (block.column == 1) {
    // The squares of the transposition of `in`, whose rows are the block's columns.
    int64_t in_rows = block.columns, in_columns = block.rows;
    transpose_squares(in, pitch, block.data, block.row, 0, in_rows, in_columns);
    rows = in_columns, columns = in_rows;
  }
  if (columns < block.columns) {
    transpose_rest(in + columns * pitch, int64_t(1), pitch, rows, block.columns - columns,
                   block.data + columns * block.column, block.row, block.column);
  }
  transpose_rest(in + rows, int64_t(1), pitch, block.rows - rows, block.columns,
                 block.data + rows * block.row, block.row, block.column);
}

// Which of a bin's points lie in a cell, and which in none.
BEV_INLINE unsigned equal_rows(const int32_t* cells, int32_t cell) {
#if defined(__AVX512F__)
  return _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(cells), _mm512_set1_epi32(cell));
#elif defined(__AVX2__)
  const __m256i wanted = _mm256_set1_epi32(cell);
  const __m256i low = _mm256_cmpeq_epi32(_mm256_loadu_si256((const __m256i*)cells), wanted);
  const __m256i high = _mm256_cmpeq_epi32(_mm256_loadu_si256((const __m256i*)(cells + 8)), wanted);
  return unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(low))) |
         unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(high))) << 8;
#else
  unsigned mask = 0;
  for (int r = 0; r < kRows; ++r) mask |= unsigned(cells[r] == cell) << r;
  return mask;
#endif
}

template <class T>
BEV_INLINE void add_rows(T* weight, const T* depth, unsigned rows) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const __m512 sum = _mm512_loadu_ps(weight);
    _mm512_storeu_ps(weight, _mm512_mask_add_ps(sum, __mmask16(rows), sum, _mm512_loadu_ps(depth)));
    return;
  }
#endif
  for (int r = 0; r < kRows; ++r) weight[r] += (rows >> r & 1) ? depth[r] : T(0);
}

template <class T>
BEV_INLINE void set_rows(T* weight, const T* depth, unsigned rows) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    _mm512_storeu_ps(weight, _mm512_maskz_loadu_ps(__mmask16(rows), depth));
    return;
  }
#endif
  for (int r = 0; r < kRows; ++r) weight[r] = (rows >> r & 1) ? depth[r] : T(0);
}

template <class T>
int64_t merge(const int32_t* cells, const T* depth, int64_t bins, int32_t* slots, GroupRoom<T> out,
              Event* events, int64_t* event_count) {
  int64_t count = 0, listed = 0;
  for (int64_t d = 0; d < bins; ++d) {
    const int32_t* here = cells + d * kRows;
    unsigned left = ~equal_rows(here, -1) & 0xffffu;
    while (left) {
      const int32_t cell = here[__builtin_ctz(left)];
      const unsigned rows = equal_rows(here, cell);
      left &= ~rows;
      // A slot counts only if the group it names is of this cell, so slots need no clearing.
      int32_t group = slots[cell];
      if (uint32_t(group) < uint32_t(count) && out.cell[group] == cell) {
        add_rows(out.weight + int64_t(group) * kRows, depth + d * kRows, rows);
        out.rows[group] |= uint16_t(rows);
      } else {
        group = int32_t(count++);
        slots[cell] = group;
        out.cell[group] = cell;
        out.rows[group] = uint16_t(rows);
        set_rows(out.weight + int64_t(group) * kRows, depth + d * kRows, rows);
      }
      if (events) events[listed++] = {int32_t(d), group, rows};
    }
  }
  if (events) *event_count = listed;
  return count;
}

template <class T>
void weigh(const Event* events, int64_t event_count, const T* depth, T* weight) {
  // Groups are numbered in the order of their first events, which need no sum to add to.
  int32_t known = 0;
  for (int64_t e = 0; e < event_count; ++e) {
    const T* from = depth + int64_t(events[e].bin) * kRows;
    T* to = weight + int64_t(events[e].group) * kRows;
    if (events[e].group < known) {
      add_rows(to, from, events[e].rows);
    } else {
      set_rows(to, from, events[e].rows);
      known = events[e].group + 1;
    }
  }
}

// Groups summed beside each other, and vectors of channels, as many as registers hold: every addition waits for
// the one before it in the same sum, so that a group alone would leave the processor idle.
constexpr int kBeside = 4;
constexpr int kVectors = BEV_VECTOR_BYTES == 64 ? 6 : 3;

template <class T>
struct Panel {
  const T* context;  // rows of channels, `pitch` apart
  int64_t pitch, channels;
};

// bev[cell] += sum over `rows` of weight * context, for N groups and K vectors of channels, the last of which
// may be cut; = where the cell is not begun. All rows of `rows` count for every group: weights elsewhere are zero.
template <class T, int K, int N>
BEV_INLINE void splat_groups(const Groups<T>& groups, const int32_t* which, const bool* begun, unsigned rows,
                             const Panel<T>& panel, T* bev, int64_t bev_pitch) {
  constexpr int L = Simd<T>::lanes;
  const T* weight[N];
  for (int n = 0; n < N; ++n) weight[n] = groups.weight + int64_t(which[n]) * kRows;
  Vec<T> sum[N][K];
  // One by one, or GCC clears them in memory.
  for (int n = 0; n < N; ++n) {
    for (int k = 0; k < K; ++k) sum[n][k] = Vec<T>{};
  }
  for (; rows; rows &= rows - 1) {
    const int r = __builtin_ctz(rows);
    for (int k = 0; k < K; ++k) {
      const Vec<T> value = load(panel.context + r * panel.pitch + k * L);
      for (int n = 0; n < N; ++n) sum[n][k] += weight[n][r] * value;
    }
  }
  for (int n = 0; n < N; ++n) {
    T* out = bev + int64_t(groups.cell[which[n]]) * bev_pitch;
    T* last = out + (K - 1) * L;
    const int64_t left = panel.channels - (K - 1) * L;
    if (begun[n]) {
      for (int k = 0; k < K - 1; ++k) sum[n][k] += load(out + k * L);
      sum[n][K - 1] += left == L ? load(last) : load_part(last, left);
    }
    for (int k = 0; k < K - 1; ++k) store(out + k * L, sum[n][k]);
    if (left == L) {
      store(last, sum[n][K - 1]);
    } else {
      store_part(last, sum[n][K - 1], left);
    }
  }
}

template <class T, int K>
void splat_panel(const Groups<T>& groups, const int32_t* which, const bool* begun, int64_t count, bool finite,
                 const Panel<T>& panel, T* bev, int64_t bev_pitch) {
  int64_t n = 0;
  // A zero weight would turn an infinity of a row that has no points in the cell into NaN.
  for (; finite && n + kBeside <= count; n += kBeside) {
    unsigned rows = 0;
    for (int64_t next = n + kBeside; next < n + 2 * kBeside && next < count; ++next) {
      const T* cell = bev + int64_t(groups.cell[which[next]]) * bev_pitch;
      for (int k = 0; k <= K; ++k) __builtin_prefetch(cell + k * Simd<T>::lanes, 1);
    }
    for (int beside = 0; beside < kBeside; ++beside) rows |= groups.rows[which[n + beside]];
    splat_groups<T, K, kBeside>(groups, which + n, begun + n, rows, panel, bev, bev_pitch);
  }
  for (; n < count; ++n) {
    splat_groups<T, K, 1>(groups, which + n, begun + n, groups.rows[which[n]], panel, bev, bev_pitch);
  }
}

template <class T>
using SplatPanel = void (*)(const Groups<T>&, const int32_t*, const bool*, int64_t, bool, const Panel<T>&, T*,
                            int64_t);

template <class T>
SplatPanel<T> splat_panel_of(int64_t vectors) {
#if BEV_VECTOR_BYTES == 64
  static constexpr SplatPanel<T> table[] = {splat_panel<T, 1>, splat_panel<T, 2>, splat_panel<T, 3>,
                                            splat_panel<T, 4>, splat_panel<T, 5>, splat_panel<T, 6>};
#else
  static constexpr SplatPanel<T> table[] = {splat_panel<T, 1>, splat_panel<T, 2>, splat_panel<T, 3>};
#endif
  return table[vectors - 1];
}

// Whether all elements are finite.
template <class T>
bool finite(const T* values, int64_t vectors) {
  constexpr int L = Simd<T>::lanes;
  // Four sums beside each other: an addition waits for the one before it.
  Vec<T> a = {}, b = {}, c = {}, d = {};
  int64_t k = 0;
  for (; k + 4 <= vectors; k += 4, values += 4 * L) {
    a += T(0) * load(values), b += T(0) * load(values + L);
    c += T(0) * load(values + 2 * L), d += T(0) * load(values + 3 * L);
  }
  for (; k < vectors; ++k, values += L) a += T(0) * load(values);
  return total<T>(a + b + c + d) == T(0);
}

template <class T>
void splat(const Groups<T>& groups, int64_t count, const T* context, int64_t channels, T* bev, bool* begun,
           int64_t owner, int64_t owners) {
  constexpr int L = Simd<T>::lanes;
  constexpr int64_t kPiece = 256;
  const int64_t pitch = padded(channels);
  const bool calm = finite(context, kRows * pitch / L);
  int32_t mine[kPiece];
  bool onto[kPiece];
  for (int64_t start = 0; start < count; start += kPiece) {
    const int64_t end = start + kPiece < count ? start + kPiece : count;
    int64_t owned = 0;
    for (int64_t g = start; g < end; ++g) {
      if (!owns(groups.cell[g], owner, owners)) continue;
      mine[owned] = int32_t(g);
      onto[owned++] = begun[groups.cell[g]];
      begun[groups.cell[g]] = true;
    }
    for (int64_t c = 0; c < channels; c += kVectors * L) {
      const int64_t width = channels - c < kVectors * L ? channels - c : kVectors * L;
      splat_panel_of<T>((width + L - 1) / L)(groups, mine, onto, owned, calm, {context + c, pitch, width}, bev + c,
                                             channels);
    }
  }
}

// A column's rows as vectors, and how many sums are kept in registers beside each other.
template <class T>
struct Column {
  static constexpr int lanes = Simd<T>::lanes;
  static constexpr int vectors = kRows / lanes;
  static constexpr int block = vectors >= 8 ? 1 : 8 / vectors;
};

// result[n][row] (+)= sum over k of scalar(n, k) * vector(k)[row], for `N` results beside each other.
template <class T, int N, class Scalar>
BEV_INLINE void column_product(int64_t terms, const T* vectors, Scalar scalar, T* result) {
  using Of = Column<T>;
  Vec<T> sum[N][Of::vectors];
  for (int n = 0; n < N; ++n) {
    for (int v = 0; v < Of::vectors; ++v) sum[n][v] = Vec<T>{};
  }
  for (int64_t k = 0; k < terms; ++k) {
    Vec<T> rows[Of::vectors];
    for (int v = 0; v < Of::vectors; ++v) rows[v] = load(vectors + k * kRows + v * Of::lanes);
    for (int n = 0; n < N; ++n) {
      const T factor = scalar(n, k);
      for (int v = 0; v < Of::vectors; ++v) sum[n][v] += factor * rows[v];
    }
  }
  for (int n = 0; n < N; ++n) {
    for (int v = 0; v < Of::vectors; ++v) store(result + n * kRows + v * Of::lanes, sum[n][v]);
  }
}

template <class T, int N>
void context_gradient(const Groups<T>& groups, int64_t count, const T* grad, int64_t channels, int64_t c,
                      T* out) {
  column_product<T, N>(
      count, groups.weight,
      [&](int n, int64_t g) { return grad[int64_t(groups.cell[g]) * channels + c + n]; }, out + c * kRows);
}

template <class T, int N>
void weight_gradient(const Groups<T>& groups, int64_t g, const T* grad, const T* context, int64_t channels,
                     T* out) {
  const T* cell[N];
  for (int n = 0; n < N; ++n) cell[n] = grad + int64_t(groups.cell[g + n]) * channels;
  column_product<T, N>(
      channels, context, [&](int n, int64_t c) { return cell[n][c]; }, out + g * kRows);
}

template <class T>
void splat_backward(const Groups<T>& groups, int64_t count, uint16_t full, const T* grad, const T* context,
                    int64_t channels, T* grad_context, T* grad_weight) {
  constexpr int N = Column<T>::block;
  int64_t g = 0;
  for (; g + N <= count; g += N) {
    for (int64_t next = g + N; next < g + 2 * N && next < count; ++next) {
      const T* cell = grad + int64_t(groups.cell[next]) * channels;
      for (int64_t c = 0; c < channels; c += 64 / int64_t(sizeof(T))) __builtin_prefetch(cell + c);
    }
    weight_gradient<T, N>(groups, g, grad, context, channels, grad_weight);
  }
  for (; g < count; ++g) weight_gradient<T, 1>(groups, g, grad, context, channels, grad_weight);

  int64_t c = 0;
  for (; c + N <= channels; c += N) context_gradient<T, N>(groups, count, grad, channels, c, grad_context);
  for (; c < channels; ++c) context_gradient<T, 1>(groups, count, grad, channels, c, grad_context);

  if (finite(grad_context, channels * Column<T>::vectors)) return;
  // A row must not see the infinities of cells it has no points in, which zero weights would turn into NaN.
  for (c = 0; c < channels; ++c) {
    for (int r = 0; r < kRows; ++r) {
      T sum = 0;
      for (g = 0; g < count; ++g) {
        if (groups.rows[g] & full & (1u << r)) {
          sum += groups.weight[g * kRows + r] * grad[int64_t(groups.cell[g]) * channels + c];
        }
      }
      grad_context[c * kRows + r] = sum;
    }
  }
}

template <class T>
void hand_back(const Event* events, int64_t count, const T* group_grads, T* out, int64_t bins) {
  __builtin_memset(out, 0, bins * kRows * sizeof(T));
  for (int64_t e = 0; e < count; ++e) {
    const T* from = group_grads + int64_t(events[e].group) * kRows;
    T* to = out + int64_t(events[e].bin) * kRows;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
      _mm512_mask_storeu_ps(to, __mmask16(events[e].rows), _mm512_loadu_ps(from));
      continue;
    }
#endif
    for (int r = 0; r < kRows; ++r) to[r] = (events[e].rows >> r & 1) ? from[r] : to[r];
  }
}

template <class T>
void fill(ValueKernels<T>& values) {
  values.pack = pack<T>;
  values.unpack = unpack<T>;
  values.merge = merge<T>;
  values.weigh = weigh<T>;
  values.splat = splat<T>;
  values.splat_backward = splat_backward<T>;
  values.hand_back = hand_back<T>;
}

}  // namespace

void fill_lift_splat(Table& table) {
  fill(table.values_f32);
  fill(table.values_f64);
}

}  // namespace BEV_ISA
}  // namespace bev
