#!/usr/bin/env bash
# Build bev-ops on a machine with a GPU, test its kernels there and measure them; needs no network.
#
#     benchmarks/on_gpu.sh [python]
#
# needs nvcc and a driver for it, and in the given Python (default: python3): torch for CUDA, scikit-build-core,
# pybind11, cmake, ninja, jaxtyping, numpy, pytest and hypothesis. The package goes into a folder of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${1:-python3}"

target="$(mktemp -d)"
trap 'rm -rf "$target"' EXIT
"$python" -m pip install --no-index --no-build-isolation --no-deps --target "$target" packages/bev-ops \
  -C cmake.define.BEV_OPS_CUDA=ON -C cmake.define.BEV_OPS_CUDA_ARCHITECTURES=native
export PYTHONPATH="$target"

"$python" -m bev_ops
"$python" -m pytest tests/ops
# Once more without the shape checks, which torch.compile cannot trace.
BEV_TYPECHECK=0 "$python" -m pytest tests/ops/test_cuda.py
if command -v compute-sanitizer >/dev/null; then
  compute-sanitizer --error-exitcode 1 "$python" -m pytest tests/ops/test_cuda.py -k "lift_splat or plane_sweep"
else
  echo "compute-sanitizer is not on PATH: memory accesses of the kernels were not checked"
fi
"$python" benchmarks/gpu.py
