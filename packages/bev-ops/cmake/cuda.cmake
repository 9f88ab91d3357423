# The CUDA kernels: compiled into _native where there is a compiler for CUDA, and on request as plain C++ into
# _emulated, which runs them on the processor for tests.
set(BEV_OPS_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO where nvcc is found, ON or OFF")
set_property(CACHE BEV_OPS_CUDA PROPERTY STRINGS AUTO ON OFF)
set(BEV_OPS_CUDA_ARCHITECTURES "" CACHE STRING
  "CUDA architectures as in CMAKE_CUDA_ARCHITECTURES; empty: all from sm_75 that the compiler knows")
option(BEV_OPS_EMULATE_CUDA "Build the CUDA kernels for the processor too, for tests" OFF)

if(NOT BEV_OPS_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "bev-ops: BEV_OPS_CUDA must be AUTO, ON or OFF, got ${BEV_OPS_CUDA}")
endif()

# Older ones do not know the vector atomics of sm_90.
set(least_nvcc 12.1)

set(cuda_compiler "")
set(why_no_cuda "no nvcc was found on PATH, in CUDACXX or in CUDA_HOME/bin")
set(no_cuda STATUS)
if(NOT BEV_OPS_CUDA STREQUAL "OFF")
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(BEV_OPS_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
    if(BEV_OPS_NVCC)
      set(CMAKE_CUDA_COMPILER ${BEV_OPS_NVCC})
    endif()
  endif()
  if(CMAKE_CUDA_COMPILER OR DEFINED ENV{CUDACXX})
    # A project of its own, that may fail: it compiles and links what the kernels need of the toolkit.
    set(probe ${CMAKE_CURRENT_BINARY_DIR}/cuda_probe)
    set(compiler_for_probe "")
    if(CMAKE_CUDA_COMPILER)
      set(compiler_for_probe -DCMAKE_CUDA_COMPILER=${CMAKE_CUDA_COMPILER})
    endif()
    file(REMOVE_RECURSE ${probe})
    execute_process(
      COMMAND ${CMAKE_COMMAND} -G ${CMAKE_GENERATOR} -DCMAKE_MAKE_PROGRAM=${CMAKE_MAKE_PROGRAM} ${compiler_for_probe}
        -DCMAKE_CUDA_HOST_COMPILER=${CMAKE_CUDA_HOST_COMPILER} -DLEAST=${least_nvcc}
        -S ${CMAKE_CURRENT_SOURCE_DIR}/cmake/cuda_probe -B ${probe}
      RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
    if(NOT failed)
      execute_process(COMMAND ${CMAKE_COMMAND} --build ${probe}
        RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
    endif()
    if(failed)
      file(WRITE ${probe}/said.txt "${said}")
      set(no_cuda WARNING)
      set(why_no_cuda "nvcc must be ${least_nvcc} or newer and its toolkit complete (compiler, cudart_static, \
cuda_fp16.h); what was tried did not compile, see ${probe}/said.txt")
    else()
      include(CheckLanguage)
      # The compilers are tried on one architecture; those of the library are set below.
      set(CMAKE_CUDA_ARCHITECTURES 80)
      check_language(CUDA)
      set(cuda_compiler ${CMAKE_CUDA_COMPILER})
    endif()
  endif()
endif()

if(cuda_compiler)
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  find_package(CUDAToolkit REQUIRED)
  set(architectures ${BEV_OPS_CUDA_ARCHITECTURES})
  if(NOT architectures)
    # One per generation: sm_86 to sm_89 run what is compiled for sm_80, and so on. That of sm_90 is kept as PTX
    # too, which the driver compiles for whatever has none, sm_110 as well as what comes later.
    set(architectures 75-real 80-real 90)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
      list(APPEND architectures 100-real 120-real)
    endif()
  endif()
  add_library(bev_cuda OBJECT cpp/cuda/device.cu cpp/cuda/lift_splat.cu cpp/cuda/voxel_pooling.cu
    cpp/cuda/plane_sweep.cu
    cpp/cuda/plane_sweep_backward.cu)
  set_target_properties(bev_cuda PROPERTIES
    CUDA_ARCHITECTURES "${architectures}" CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
  target_sources(_native PRIVATE $<TARGET_OBJECTS:bev_cuda>)
  # Under 12.8 and 12.9 what is compressed so needs a newer driver than the rest.
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13.0)
    target_compile_options(bev_cuda PRIVATE --compress-mode=size)
  endif()
  string(REPLACE ";" " " listed "${architectures}")
  target_compile_definitions(_native PRIVATE BEV_CUDA "BEV_CUDA_ARCHITECTURES=\"${listed}\"")
  target_link_libraries(_native PRIVATE CUDA::cudart_static)
  set_target_properties(_native PROPERTIES LINKER_LANGUAGE CXX)
  message(STATUS "bev-ops: CUDA kernels for ${listed}, by nvcc ${CMAKE_CUDA_COMPILER_VERSION}")
elseif(BEV_OPS_CUDA STREQUAL "ON")
  message(FATAL_ERROR "bev-ops: BEV_OPS_CUDA=ON, and ${why_no_cuda}; without CUDA kernels, build with "
    "BEV_OPS_CUDA=OFF")
elseif(BEV_OPS_CUDA STREQUAL "AUTO")
  message(${no_cuda} "bev-ops: only the kernels for the processor are built: ${why_no_cuda}")
endif()

if(BEV_OPS_EMULATE_CUDA)
  pybind11_add_module(_emulated NO_EXTRAS cpp/module.cpp cpp/emulate/emulated.cpp)
  target_compile_definitions(_emulated PRIVATE BEV_EMULATE)
  target_compile_options(_emulated PRIVATE -O1 -Wall -Wextra -ffp-contract=off)
  install(TARGETS _emulated LIBRARY DESTINATION bev_ops)
endif()
