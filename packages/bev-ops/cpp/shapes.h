// What a call may be handed: whatever would let a kernel read or write beyond a tensor is refused here, once per
// call. bev_ops/_checks.py tells users about their arguments sooner and at more length.
#pragma once

#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "bev_ops.h"

namespace bev {

constexpr int64_t kMostElements = int64_t(1) << 40, kMostAlong = int64_t(1) << 24;

// Binds the letters of axes to sizes over the tensors of one call.
class Shapes {
 public:
  explicit Shapes(const char* op) : op_(op) {
    for (int64_t& size : size_) size = -1;
  }

  int64_t operator[](char letter) const { return size_[int(letter)]; }
  void bind(char letter, int64_t size) { size_[int(letter)] = size; }

  // A tensor whose axes have the sizes that their letters had before; digits stand for themselves.
  void any(const char* name, const Tensor& tensor, const char* letters) {
    bool fits = tensor.axes == int(std::strlen(letters));
    int64_t elements = 1;
    for (int axis = 0; fits && axis < tensor.axes; ++axis) {
      const char letter = letters[axis];
      int64_t& wanted = size_[int(letter)];
      if (wanted < 0) wanted = letter >= '0' && letter <= '9' ? letter - '0' : tensor.size[axis];
      const bool numbered = std::strchr("DHWhw", letter) != nullptr;
      fits = tensor.size[axis] == wanted && (!numbered || wanted <= kMostAlong);
      elements = fits && wanted < kMostElements ? elements * wanted : kMostElements;
      fits = fits && elements < kMostElements;
    }
    if (!fits) refuse(name, tensor, std::string("have shape [") + letters + "] in the sizes of the other arguments");
  }
  // The same, whose elements also lie side by side, axes in the order of `memory`.
  void dense(const char* name, const Tensor& tensor, const char* letters, const char* memory) {
    any(name, tensor, letters);
    int64_t step = 1;
    for (int n = tensor.axes - 1; n >= 0; --n) {
      const int axis = int(std::strchr(letters, memory[n]) - letters);
      if (tensor.size[axis] != 1 && tensor.stride[axis] != step) {
        refuse(name, tensor, std::string("lie in memory as [") + memory + "]");
      }
      step *= tensor.size[axis];
    }
  }
  void dense(const char* name, const Tensor& tensor, const char* letters) { dense(name, tensor, letters, letters); }

  void expect(bool holds, const char* what, const char* rule = "") const {
    if (!holds) throw std::invalid_argument(std::string("bev_ops.") + op_ + ": " + what + rule);
  }
  void one_type(std::initializer_list<const Tensor*> tensors) const {
    for (const Tensor* tensor : tensors) {
      if (*tensor) expect(tensor->type == (*tensors.begin())->type, "arguments must be of one type");
    }
  }
  void type(const char* name, const Tensor& tensor, Type wanted) const {
    expect(tensor.type == wanted, name, " must be of the type that the kernel reads");
  }

 private:
  [[noreturn]] void refuse(const char* name, const Tensor& tensor, const std::string& rule) const {
    std::string got;
    for (int axis = 0; axis < tensor.axes; ++axis) got += (axis ? ", " : "") + std::to_string(tensor.size[axis]);
    throw std::invalid_argument(std::string("bev_ops.") + op_ + ": " + name + " must " + rule + ", got [" + got + "]");
  }

  const char* op_;
  int64_t size_[128];
};

}  // namespace bev
