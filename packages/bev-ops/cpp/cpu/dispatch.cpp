// Which instruction set runs.
#include <cstring>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "dispatch.h"
#include "parallel.h"

namespace bev {
namespace {

bool in_child = false;

struct ForkWatch {
  ForkWatch() {
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, [] { in_child = true; });
#endif
  }
} const fork_watch;

#define BEV_TABLE(isa)                        \
  const Table& isa##_table() {                \
    static const Table filled = [] {          \
      Table table{};                          \
      table.name = #isa;                      \
      isa::fill_positions(table);             \
      isa::fill_lift_splat(table);            \
      isa::fill_voxel_pooling(table);         \
      isa::fill_plane_sweep(table);           \
      return table;                           \
    }();                                      \
    return filled;                            \
  }
BEV_TABLE(baseline)
#ifdef BEV_X86
BEV_TABLE(avx2)
BEV_TABLE(avx512)
#endif
#undef BEV_TABLE

bool has_avx2() {
#ifdef BEV_X86
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool has_avx512() {
#ifdef BEV_X86
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

const Table* find(const char* name) {
#ifdef BEV_X86
  if (has_avx512() && !std::strcmp(name, "avx512")) return &avx512_table();
  if (has_avx2() && !std::strcmp(name, "avx2")) return &avx2_table();
#endif
  return std::strcmp(name, "baseline") ? nullptr : &baseline_table();
}

const Table*& chosen() {
  static const Table* table = find(has_avx512() ? "avx512" : has_avx2() ? "avx2" : "baseline");
  return table;
}

}  // namespace

bool forked() { return in_child; }

const Table& table() { return *chosen(); }

const char* available() {
  return has_avx512() ? "avx512 avx2 baseline" : has_avx2() ? "avx2 baseline" : "baseline";
}

bool select(const char* name) {
  const Table* wanted = find(name);
  if (wanted) chosen() = wanted;
  return wanted != nullptr;
}

}  // namespace bev
