// From type codes and addresses to types and pointers.
#pragma once

#include <stdexcept>

#include "calls.h"
#include "machine.h"
#include "plane_sweep.h"

namespace bev {
namespace cuda {

template <class T>
struct Tag {
  using type = T;
};

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Whether rows of channels at an address can be read in aligned fours.
template <class V>
bool in_fours(int64_t channels, uintptr_t address) {
  return channels % 4 == 0 && address % alignof(Packed<V>) == 0;
}

template <class Body>
void for_value(Type values, Body&& body) {
  switch (values) {
    case Type::f32: return body(Tag<float>{});
    case Type::f64: return body(Tag<double>{});
    case Type::f16: return body(Tag<Half>{});
    case Type::bf16: return body(Tag<Bfloat>{});
    default: throw std::invalid_argument("values must be floating-point");
  }
}

template <class Body>
void for_place(Type places, Body&& body) {
  if (places == Type::f64) return body(Tag<double>{});
  body(Tag<float>{});
}

// The types that a body of for_types was called with.
#define BEV_TYPES(v, p)                 \
  using V = typename decltype(v)::type; \
  using P = typename decltype(p)::type

// Half-precision values come with places in single precision only, which bounds the size of the library.
template <class Body>
void for_types(Type values, Type places, Body&& body) {
  for_value(values, [&](auto v) {
    if constexpr (sizeof(typename decltype(v)::type) == 2) {
      if (places != Type::f32) throw std::invalid_argument("places of half-precision values must be float32");
      body(v, Tag<float>{});
    } else {
      for_place(places, [&](auto p) { body(v, p); });
    }
  });
}

template <class V, class P>
Sweep<V, P> sweep_of(const SweepCall& call) {
  const auto& s = call.sizes;
  return {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], call.hidden[0], call.hidden[1],
          at<const V>(call.reference), at<const V>(call.source), at<const P>(call.projection),
          at<const P>(call.depth), {call.stride[0], call.stride[1], call.stride[2], call.stride[3]},
          in_fours<V>(s[1], call.reference) && in_fours<V>(s[1], call.source)};
}

}  // namespace cuda
}  // namespace bev
