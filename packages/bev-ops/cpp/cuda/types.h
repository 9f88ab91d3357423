// The types of a call.
#pragma once

#include "machine.h"

namespace bev {
namespace cuda {

// Whether rows of channels can be read in aligned fours.
template <class V>
bool in_fours(int64_t channels, const Tensor& rows) {
  return channels % 4 == 0 && reinterpret_cast<uintptr_t>(rows.data) % alignof(Packed<V>) == 0;
}

template <class Body>
void for_value(Type values, Body&& body) {
  for_type<float, double, Half, Bfloat>(values, body);
}

template <class Body>
void for_place(Type places, Body&& body) {
  for_type<float, double>(places, body);
}

// Half-precision values come with places in single precision only, which bounds the size of the library.
template <class Body>
void for_types(Type values, Type places, Body&& body) {
  for_value(values, [&](auto v) {
    if constexpr (sizeof(typename decltype(v)::type) == 2) {
      for_type<float>(places, [&](auto p) { body(v, p); });
    } else {
      for_place(places, [&](auto p) { body(v, p); });
    }
  });
}

}  // namespace cuda
}  // namespace bev
