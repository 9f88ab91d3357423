// What the CUDA runtime says of devices.
#include <stdexcept>

#include "device.h"
#include "machine.h"

namespace bev {
namespace cuda {
namespace {

// Does nothing: whether it can be loaded tells whether the library covers a device.
struct Probe : Flat {
  template <int>
  BEV_DEVICE void run(const Thread&, Shared&, State&) const {}
};

int version(cudaError_t (*ask)(int*)) {
  int found = 0;
  if (ask(&found) == cudaSuccess) return found;
  (void)cudaGetLastError();
  return 0;
}

}  // namespace

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();  // not to be met again by whoever asks next
  throw std::runtime_error(std::string("CUDA could not start a kernel of bev_ops: ") + cudaGetErrorString(error));
}

bool has_context(int device) {
  using GetState = int (*)(int device, unsigned* flags, int* active);
  void* entry = nullptr;
#if CUDART_VERSION >= 12050
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuDevicePrimaryCtxGetState", &entry, 7000, cudaEnableDefault, &found);
#else
  const cudaError_t error = cudaGetDriverEntryPoint("cuDevicePrimaryCtxGetState", &entry, cudaEnableDefault);
#endif
  unsigned flags = 0;
  int active = 0;
  if (error == cudaSuccess && entry && reinterpret_cast<GetState>(entry)(device, &flags, &active) == 0) return active;
  (void)cudaGetLastError();
  return true;
}

std::string problem(int device) {
  cudaFuncAttributes attributes;
  cudaError_t error;
  try {
    const Guard guard(device);
    error = cudaFuncGetAttributes(&attributes, execute<Probe>);
  } catch (const std::runtime_error&) {
    return "";
  }
  if (error != cudaSuccess) (void)cudaGetLastError();
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorInvalidKernelImage:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorJitCompilerNotFound:
    case cudaErrorInsufficientDriver: return cudaGetErrorString(error);
    default: return "";
  }
}

int runtime_version() { return version(cudaRuntimeGetVersion); }
int driver_version() { return version(cudaDriverGetVersion); }

}  // namespace cuda
}  // namespace bev
