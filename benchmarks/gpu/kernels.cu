// The kernels of gpu_rows. tools/gpu-check makes PTX of them (nvcc -ptx); the driver compiles that for its GPU.
// The simulated driver has kernels of the same names, but for spin and poke_if.

extern "C" __global__ void nothing() {}

// Occupies its one thread for so long.
extern "C" __global__ void spin(unsigned long long ns) {
  unsigned long long start = 0;
  unsigned long long now = 0;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
  do {
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (now - start < ns);
}

extern "C" __global__ void scale(float* to, const float* from, unsigned long long elements, float factor) {
  const unsigned long long step = static_cast<unsigned long long>(gridDim.x) * blockDim.x;
  for (unsigned long long i = static_cast<unsigned long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < elements; i += step)
    to[i] = from[i] * factor;
}

// Writes out of bounds when it meets the value: what kills the device.
extern "C" __global__ void poke_if(const float* from, unsigned long long elements, float value) {
  for (unsigned long long i = threadIdx.x; i < elements; i += blockDim.x) {
    if (from[i] == value) *reinterpret_cast<volatile int*>(0x10) = 1;
  }
}
