// What a kernel runs on: a GPU, or a processor that stands in for one.
//
// A kernel is a struct of its arguments. Its work is cut into phases; between two phases all threads of a block
// wait for each other, and the phases are repeated as many rounds as the kernel asks for:
//
//   struct Kernel {
//     static constexpr int kThreads, kPhases;
//     struct Shared { ... };                 // one per block, uninitialised
//     struct State { ... };                  // one per thread, lives through all phases
//     int64_t rounds(int64_t block) const;
//     template <int Phase> void run(const Thread&, Shared&, State&) const;
//   };
//
// With BEV_EMULATE the same source is compiled as plain C++ and runs thread by thread, so that sanitizers see what
// the kernels read and write.
#pragma once

#include <cstdint>
#include <cstring>

#include "../bev_ops.h"

#ifdef BEV_EMULATE
#include <cstdlib>
#include <new>
#include <vector>
#define BEV_DEVICE inline
#define BEV_BOTH inline
#define BEV_UNROLL
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define BEV_DEVICE __device__ __forceinline__
#define BEV_BOTH __host__ __device__ __forceinline__
#define BEV_UNROLL _Pragma("unroll")
#endif

namespace bev {
namespace cuda {

// What sums of a type run in.
template <class V>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<double> {
  using type = double;
};
template <class V>
using Sum = typename SumOf<V>::type;

struct Thread {
  int64_t block;
  int index;
  int64_t round;
};

BEV_DEVICE float widen(float value) { return value; }
BEV_DEVICE double widen(double value) { return value; }

#ifdef BEV_EMULATE

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline uint32_t to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float widen(Bfloat value) { return from_bits(uint32_t(value.bits) << 16); }
inline float widen(Half value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000) << 16, rest = value.bits & 0x7fff;
  if (rest >= 0x7c00) return from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  // As a float of the least exponents, then scaled: subnormal numbers come out right too.
  return from_bits(sign | to_bits(from_bits(rest << 13) * from_bits(0x77800000)));
}

inline void narrow(float value, float& to) { to = value; }
inline void narrow(double value, double& to) { to = value; }
inline void narrow(float value, Bfloat& to) {
  const uint32_t bits = to_bits(value);
  to.bits = value == value ? uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : uint16_t(bits >> 16 | 0x40);
}
inline void narrow(float value, Half& to) {
  const uint32_t sign = to_bits(value) >> 16 & 0x8000, size = to_bits(value) & 0x7fffffff;
  if (!(value == value)) {
    to.bits = uint16_t(sign | 0x7e00);
  } else if (size >= 0x477ff000) {  // rounds to more than 65504
    to.bits = uint16_t(sign | 0x7c00);
  } else if (size < 0x38800000) {  // subnormal: the sum with 1/2 has its last bit where a half has it
    to.bits = uint16_t(sign | (to_bits(from_bits(size) + 0.5f) - to_bits(0.5f)));
  } else {
    to.bits = uint16_t(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13);
  }
}

template <class T>
void atomic_add(T* to, T value) {
  *to += value;
}
inline int count_up(int32_t* counter) { return (*counter)++; }

#else

BEV_DEVICE float widen(Half value) { return __half2float(__ushort_as_half(value.bits)); }
BEV_DEVICE float widen(Bfloat value) { return __bfloat162float(__ushort_as_bfloat16(value.bits)); }
BEV_DEVICE void narrow(float value, float& to) { to = value; }
BEV_DEVICE void narrow(double value, double& to) { to = value; }
BEV_DEVICE void narrow(float value, Half& to) { to.bits = __half_as_ushort(__float2half_rn(value)); }
BEV_DEVICE void narrow(float value, Bfloat& to) { to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value)); }

template <class T>
BEV_DEVICE void atomic_add(T* to, T value) {
  atomicAdd(to, value);
}
BEV_DEVICE int count_up(int32_t* counter) { return atomicAdd(counter, 1); }

#endif

// Four neighbouring channels.
template <class S>
struct Quad {
  S v[4];
};

template <class V>
struct alignas(4 * sizeof(V) > 16 ? 16 : 4 * sizeof(V)) Packed {
  V v[4];
};

// `whole`: all four are there, and aligned; else the first `count`, zeros behind them.
template <class V>
BEV_DEVICE Quad<Sum<V>> load4(const V* from, int64_t count, bool whole) {
  Quad<Sum<V>> quad;
  if (whole) {
    const Packed<V> packed = *reinterpret_cast<const Packed<V>*>(from);
    BEV_UNROLL
    for (int n = 0; n < 4; ++n) quad.v[n] = widen(packed.v[n]);
  } else {
    BEV_UNROLL
    for (int n = 0; n < 4; ++n) quad.v[n] = n < count ? widen(from[n]) : Sum<V>(0);
  }
  return quad;
}

template <class V>
BEV_DEVICE void store4(V* to, const Quad<Sum<V>>& quad, int64_t count, bool whole) {
  if (whole) {
    Packed<V> packed;
    BEV_UNROLL
    for (int n = 0; n < 4; ++n) narrow(quad.v[n], packed.v[n]);
    *reinterpret_cast<Packed<V>*>(to) = packed;
  } else {
    BEV_UNROLL
    for (int n = 0; n < 4; ++n) {
      if (n < count) narrow(quad.v[n], to[n]);
    }
  }
}

template <class S>
BEV_DEVICE void atomic_add4(S* to, const Quad<S>& quad, int64_t count, bool whole) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (sizeof(S) == 4) {
    if (whole) {
      atomicAdd(reinterpret_cast<float4*>(to), make_float4(quad.v[0], quad.v[1], quad.v[2], quad.v[3]));
      return;
    }
  }
#endif
  (void)whole;
  BEV_UNROLL
  for (int n = 0; n < 4; ++n) {
    if (n < count) atomic_add(to + n, quad.v[n]);
  }
}

template <class S>
BEV_DEVICE Quad<S> zero4() {
  return {{S(0), S(0), S(0), S(0)}};
}

template <class S>
BEV_DEVICE void add_scaled(Quad<S>& sum, S factor, const Quad<S>& quad) {
  BEV_UNROLL
  for (int n = 0; n < 4; ++n) sum.v[n] += factor * quad.v[n];
}

template <class S>
BEV_DEVICE S dot(const Quad<S>& a, const Quad<S>& b) {
  return (a.v[0] * b.v[0] + a.v[1] * b.v[1]) + (a.v[2] * b.v[2] + a.v[3] * b.v[3]);
}

BEV_BOTH int64_t divide_up(int64_t amount, int64_t by) { return (amount + by - 1) / by; }

#ifdef BEV_EMULATE

template <int Phase, class Kernel>
void emulate_phases(const Kernel& kernel, Thread thread, typename Kernel::Shared& shared,
                    std::vector<typename Kernel::State>& states) {
  if constexpr (Phase < Kernel::kPhases) {
    for (int n = 0; n < Kernel::kThreads; ++n) {
      // Odd blocks run backwards: a missing barrier shows as a wrong result.
      thread.index = thread.block % 2 ? Kernel::kThreads - 1 - n : n;
      kernel.template run<Phase>(thread, shared, states[thread.index]);
    }
    emulate_phases<Phase + 1>(kernel, thread, shared, states);
  }
}

template <class Kernel>
void launch(const Kernel& kernel, int64_t blocks, const Queue&) {
  using Shared = typename Kernel::Shared;
  for (int64_t block = 0; block < blocks; ++block) {
    // Shared memory of its own size for every block, full of NaN: sanitizers and results show wrong reads.
    const size_t bytes = (sizeof(Shared) + 63) / 64 * 64;
    void* memory = std::aligned_alloc(64, bytes);
    if (!memory) throw std::bad_alloc();
    std::memset(memory, 0xff, bytes);
    std::vector<typename Kernel::State> states(Kernel::kThreads);
    const int64_t rounds = kernel.rounds(block);
    for (int64_t round = 0; round < rounds; ++round) {
      emulate_phases<0>(kernel, Thread{block, 0, round}, *static_cast<Shared*>(memory), states);
    }
    std::free(memory);
  }
}

#else

// Throws std::runtime_error with what CUDA says; defined in device.cu.
void check(cudaError_t error);

// Whether anyone has set up a device yet; defined in device.cu.
bool has_context(int device);

// Makes a device current, and the one before it again. Where nothing is set up on that one it stays as it is: from
// CUDA 12 on, making a device current sets it up, which takes hundreds of MB of it.
class Guard {
 public:
  explicit Guard(int device) : device_(device) {
    check(cudaGetDevice(&before_));
    if (before_ != device_) check(cudaSetDevice(device_));
  }
  ~Guard() {
    if (before_ != device_ && has_context(before_)) cudaSetDevice(before_);
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  int device_, before_ = 0;
};

template <int Phase, class Kernel>
BEV_DEVICE void run_phases(const Kernel& kernel, const Thread& thread, typename Kernel::Shared& shared,
                           typename Kernel::State& state) {
  if constexpr (Phase < Kernel::kPhases) {
    kernel.template run<Phase>(thread, shared, state);
    if constexpr (Kernel::kPhases > 1) __syncthreads();
    run_phases<Phase + 1>(kernel, thread, shared, state);
  }
}

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, 2) execute(const __grid_constant__ Kernel kernel) {
  __shared__ typename Kernel::Shared shared;
  typename Kernel::State state;
  const int64_t block = blockIdx.x, rounds = kernel.rounds(block);
  for (int64_t round = 0; round < rounds; ++round) {
    run_phases<0>(kernel, Thread{block, int(threadIdx.x), round}, shared, state);
  }
}

template <class Kernel>
void launch(const Kernel& kernel, int64_t blocks, const Queue& queue) {
  if (blocks == 0) return;
  if (blocks > INT32_MAX) check(cudaErrorInvalidConfiguration);
  const Guard guard(queue.device);
  execute<Kernel><<<unsigned(blocks), Kernel::kThreads, 0, reinterpret_cast<cudaStream_t>(queue.stream)>>>(kernel);
  check(cudaGetLastError());
}

#endif

// Base of kernels whose threads share nothing: one phase, one thread per item.
struct Flat {
  static constexpr int kThreads = 256;
  static constexpr int kPhases = 1;
  struct Shared {};
  struct State {};
  int64_t items;

  BEV_DEVICE int64_t rounds(int64_t) const { return 1; }
  int64_t blocks() const { return divide_up(items, kThreads); }
  // The thread's item, or -1 behind the last.
  BEV_DEVICE int64_t item(const Thread& thread) const {
    const int64_t n = thread.block * kThreads + thread.index;
    return n < items ? n : -1;
  }
};

}  // namespace cuda
}  // namespace bev
