// All CUDA kernels as plain C++; see ../cuda/machine.h.
#include "../cuda/lift_splat.cu"
#include "../cuda/voxel_pooling.cu"
#include "../cuda/plane_sweep.cu"
#include "../cuda/plane_sweep_backward.cu"
