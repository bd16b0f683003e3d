// Runs csrc/loss.cu on a CPU, so that its very source is tested where there is no GPU: a block at a time, each CUDA
// thread a fiber, which gives way to the others wherever the source waits for them.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <ucontext.h>
#include <vector>

#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __global__
#define __shared__ static
#define __launch_bounds__(threads)

struct uint4 {
  unsigned x, y, z, w;
};
struct Index {
  unsigned x;
};
static Index threadIdx, blockIdx, blockDim;
static std::vector<uint4> shared_memory;
#define DYNAMIC_SHARED(name) uint4 *name = shared_memory.data()

struct Barrier {
  unsigned arrived = 0, passed = 0;
};
static Barrier block_barrier, warp_barriers[32];
static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static std::vector<char> finished;
static uint64_t exchanged[1024];
static unsigned long long waits;

static void give_way() { swapcontext(&fibers[threadIdx.x], &scheduler); }

static void wait(Barrier &barrier, unsigned threads) {
  waits++;
  unsigned passed = barrier.passed;
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    barrier.passed++;
  }
  while (barrier.passed == passed) give_way();
}

static void __syncthreads() { wait(block_barrier, blockDim.x); }

template <class T>
static T __shfl_down_sync(unsigned, T value, unsigned step) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "one register");
  unsigned thread = threadIdx.x, warp = thread / 32;
  memcpy(&exchanged[thread], &value, sizeof(T));
  wait(warp_barriers[warp], 32);
  T result = value;
  if (thread % 32 + step < 32) memcpy(&result, &exchanged[thread + step], sizeof(T));
  wait(warp_barriers[warp], 32);
  return result;
}

static float exp2_of(float x) { return exp2f(x); }
static unsigned float_bits(float value) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  return bits;
}
static float bits_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
static float half_to_float(unsigned short bits) {
  _Float16 half;
  memcpy(&half, &bits, 2);
  return float(half);
}
static unsigned short float_to_half(float value) {
  _Float16 half = _Float16(value);
  unsigned short bits;
  memcpy(&bits, &half, 2);
  return bits;
}

#include "loss.cu"

static void (*body)(const void *);
static const void *parameter;
static void run_fiber() {
  unsigned thread = threadIdx.x;
  body(parameter);
  finished[thread] = 1;
  threadIdx.x = thread;
  swapcontext(&fibers[thread], &scheduler);
}

template <class A, void (*kernel)(A)>
static void call(const void *arguments) {
  kernel(*static_cast<const A *>(arguments));
}

static void run_block(unsigned threads) {
  constexpr size_t STACK = 64 * 1024;
  static std::vector<char> stacks;
  stacks.resize(threads * STACK);
  fibers.assign(threads, ucontext_t());
  finished.assign(threads, 0);
  block_barrier = Barrier();
  for (auto &barrier : warp_barriers) barrier = Barrier();
  for (unsigned i = 0; i < threads; i++) {
    getcontext(&fibers[i]);
    fibers[i].uc_stack.ss_sp = stacks.data() + i * STACK;
    fibers[i].uc_stack.ss_size = STACK;
    makecontext(&fibers[i], run_fiber, 0);
  }
  bool backwards = blockIdx.x % 2;  // now these threads are ahead, now those: what does not wait is found out
  for (unsigned left = threads; left > 0; backwards = !backwards) {
    for (unsigned turn = 0; turn < threads; turn++) {
      unsigned i = backwards ? threads - 1 - turn : turn;
      if (finished[i]) continue;
      threadIdx.x = i;
      swapcontext(&scheduler, &fibers[i]);
      left -= finished[i];
    }
  }
}

#define KERNEL(name, A) \
  if (kernel == #name) body = call<A, name>;
#define KERNELS_OF(type)                  \
  KERNEL(loss_rows_##type, Rows)          \
  KERNEL(loss_rows_kept_##type, Rows)     \
  KERNEL(cosines_##type, Cosines)         \
  KERNEL(cosine_gradients_##type, Cosines)

// How often threads have waited for each other, or -1 for a kernel that there is not.
extern "C" long long launch(const char *name, unsigned blocks, unsigned threads, unsigned shared, const void *arguments) {
  std::string kernel(name);
  body = nullptr;
  KERNELS_OF(float32)
  KERNELS_OF(bfloat16)
  KERNELS_OF(float16)
  KERNELS_OF(float64)
  if (body == nullptr) return -1;
  parameter = arguments;
  blockDim.x = threads;
  waits = 0;
  shared_memory.assign((shared + sizeof(uint4) - 1) / sizeof(uint4), uint4{0x7fc07fc0, 0x7fc07fc0, 0x7fc07fc0, 0x7fc07fc0});
  for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) run_block(threads);
  return waits;
}
