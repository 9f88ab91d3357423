// All kernels as plain C++; see machine.h.
#include "lift.cu"
#include "pool.cu"
#include "sweep.cu"
#include "sweep_gradients.cu"
