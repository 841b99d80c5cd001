"""CuPy backend for NVIDIA GPUs.

`planning` turns plans into kernel launches (pure Python), `device` accesses the GPU (CuPy), and
`transfers` moves host arrays to the GPU and back. The kernels are in `cuda`.
"""
