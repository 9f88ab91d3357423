// What the CUDA runtime says of devices.
#pragma once

#include <string>

namespace bev {
namespace cuda {

// Why the kernels can never run on a device; empty where they can. What may pass (no memory, a graph that is being
// captured) is no reason: the call that meets it says so.
std::string problem(int device);
// Versions of the CUDA runtime in the library and the one that the driver supports, as 1000 * major + 10 * minor;
// the latter is 0 without a driver.
int runtime_version();
int driver_version();

}  // namespace cuda
}  // namespace bev
