// Types of elements, and the one way from their names to C++.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace bev {

enum class Type { f32, f64, f16, bf16, i64, i32, i16 };

// Numbers of 16 bits, which are stored but not computed with.
struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

template <class T>
struct Tag {
  using type = T;
};

inline bool is(Type type, Tag<float>) { return type == Type::f32; }
inline bool is(Type type, Tag<double>) { return type == Type::f64; }
inline bool is(Type type, Tag<Half>) { return type == Type::f16; }
inline bool is(Type type, Tag<Bfloat>) { return type == Type::bf16; }
inline bool is(Type type, Tag<int64_t>) { return type == Type::i64; }

// Calls body(Tag<T>) for the one of several types that goes by a name.
template <class... Types, class Body>
void for_type(Type type, Body&& body) {
  const bool found = ((is(type, Tag<Types>{}) && (body(Tag<Types>{}), true)) || ...);
  if (!found) throw std::invalid_argument("a tensor must be of a type that the kernels read");
}

// The types that bodies were called with.
#define BEV_TYPE(T, tag) using T = typename decltype(tag)::type

}  // namespace bev
