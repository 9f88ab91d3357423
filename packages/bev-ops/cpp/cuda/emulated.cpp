// All kernels as plain C++; see machine.h.
#include "lift.cu"
