#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

__global__ void probe(const __grid_constant__ int value, float* out) { *out = __half2float(__float2half_rn(value)); }

int try_it(float* out) {
  probe<<<1, 1>>>(1, out);
  return cudaGetLastError();
}
