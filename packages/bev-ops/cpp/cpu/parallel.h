// Threads and scratch memory of the drivers. Work is dealt in units that own what they write, so that results
// do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#ifdef _OPENMP
#include <omp.h>
#endif

namespace bev {

// Whether this process was forked after the library was loaded: OpenMP's threads did not come along, and a
// region that wants them would hang.
bool forked();

// Calls body(unit, thread) for every unit; thread is below `threads`.
template <class Body>
void parallel(int64_t units, int threads, Body&& body) {
  if (threads > units) threads = int(units);
#ifdef _OPENMP
  if (threads > 1 && !forked()) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t unit = 0; unit < units; ++unit) body(unit, omp_get_thread_num());
    return;
  }
#endif
  for (int64_t unit = 0; unit < units; ++unit) body(unit, 0);
}

// Asks for large pages under memory that is about to be written for the first time: where the system gives them,
// a large buffer costs tens of faults instead of tens of thousands.
inline void want_large_pages(void* data, size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t kPage = uintptr_t(2) << 20;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + bytes) / kPage * kPage;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

// Uninitialised memory on cache lines.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    const size_t bytes = (size_t(count > 0 ? count : 1) * sizeof(T) + 63) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (!data_) throw std::bad_alloc();
    if (bytes >= (size_t(8) << 20)) want_large_pages(data_, bytes);
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

}  // namespace bev
