// Tensors of torch as arguments of bound functions, read through Python: the library is built without torch.
#pragma once

#include <pybind11/pybind11.h>

#include "bev_ops.h"

namespace bev {

// Names that are looked up in every call, and torch's types of elements.
class Torch {
 public:
  static const Torch& get() {
    // Never freed: at the end of the process Python goes first.
    static const Torch* torch = new Torch;
    return *torch;
  }
  // False where the kernels know no such type.
  bool type_of(PyObject* dtype, Type& type) const {
    for (size_t n = 0; n < std::size(kTypes); ++n) {
      if (dtype == dtypes_[n].ptr()) return type = kTypes[n], true;
    }
    return false;
  }

  const pybind11::str data_ptr{"data_ptr"}, shape{"shape"}, stride{"stride"}, dtype{"dtype"};

 private:
  static constexpr Type kTypes[] = {Type::f32, Type::f64, Type::f16, Type::bf16, Type::i64, Type::i32, Type::i16};
  pybind11::object dtypes_[std::size(kTypes)];

  Torch() {
    const char* const names[] = {"float32", "float64", "float16", "bfloat16", "int64", "int32", "int16"};
    const auto module = pybind11::module_::import("torch");
    for (size_t n = 0; n < std::size(kTypes); ++n) dtypes_[n] = module.attr(names[n]);
  }
};

}  // namespace bev

namespace pybind11 {
namespace detail {

template <>
struct type_caster<bev::Tensor> {
  PYBIND11_TYPE_CASTER(bev::Tensor, const_name("torch.Tensor | None"));

  bool load(handle source, bool) {
    value = {};
    if (source.is_none()) return true;
    const bev::Torch& torch = bev::Torch::get();
    const auto dtype = attribute(source, torch.dtype), shape = attribute(source, torch.shape);
    const auto stride = called(source, torch.stride), address = called(source, torch.data_ptr);
    if (!dtype || !shape || !stride || !address || !torch.type_of(dtype.ptr(), value.type)) return cleared();
    const Py_ssize_t axes = PyTuple_Check(shape.ptr()) ? PyTuple_GET_SIZE(shape.ptr()) : -1;
    if (axes < 1 || axes > bev::Tensor::kMostAxes || PyTuple_GET_SIZE(stride.ptr()) != axes) return cleared();
    value.axes = int(axes);
    for (Py_ssize_t axis = 0; axis < axes; ++axis) {
      value.size[axis] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), axis));
      value.stride[axis] = PyLong_AsLongLong(PyTuple_GET_ITEM(stride.ptr(), axis));
    }
    value.data = PyLong_AsVoidPtr(address.ptr());
    return !PyErr_Occurred() || cleared();
  }

 private:
  static bool cleared() {
    PyErr_Clear();
    return false;
  }
  static object attribute(handle source, const str& name) {
    return reinterpret_steal<object>(PyObject_GetAttr(source.ptr(), name.ptr()));
  }
  static object called(handle source, const str& name) {
    return reinterpret_steal<object>(PyObject_CallMethodObjArgs(source.ptr(), name.ptr(), nullptr));
  }
};

}  // namespace detail
}  // namespace pybind11
