// Dropout on a CPU: whether a number stays is a function of (seed, its place), so the mask is never stored, is the same
// for any number of threads and any vector length, and is made anew for the gradient.
#include "cpu.h"

// 32 random bits for a place: a keyed bijection of 32-bit words, multiplications and shifts by the constants of triple32
// (C. Wellons, hash-prospector), with a key before each. Of two keys the bits share no pattern that the tests can find.
template <class I>
FN I random_bits(I place, uint32_t first, uint32_t second) {
  I x = place ^ first;
  x = (x ^ (x >> 17)) * 0xed5ad4bbu;
  x = (x ^ second ^ (x >> 11)) * 0xac4c1b51u;
  x = (x ^ first ^ (x >> 15)) * 0x31848babu;
  return x ^ (x >> 14);
}

template <class T>
struct Places {  // of the numbers of a lane, and what stays of them
  using Lane = typename Access<T>::Lane;
  FN Lane kept(Lane x, int64_t first, const uint32_t *keys, uint32_t least, float scale) {
    uint32_t high = keys[1] + uint32_t(uint64_t(first) >> 32) * 0x9e3779b9u;
    if constexpr (Access<T>::SIZE == 1) {
      return random_bits(uint32_t(first), keys[0], high) >= least ? x * scale : Lane(0);
    } else {
      Words places;
      for (int i = 0; i < LANES; i++) places[i] = uint32_t(first) + i;
      Words bits = random_bits(places, keys[0], high);
      return bits >= least ? x * scale : Lane();
    }
  }
};

struct Dropout {
  void *out;
  const void *in;
  long long count;
  unsigned keys[2], least;  // a number stays where its bits are `least` or more
  float scale;              // and is multiplied by this
  int threads;
};

template <class T>
void run(const Dropout &a) {
  using A = Access<T>;
  auto *to = static_cast<typename A::Memory *>(a.out);
  const auto *from = static_cast<const typename A::Memory *>(a.in);
  auto kept = [&](auto lane, int64_t i) { return Places<T>::kept(lane, i, a.keys, a.least, a.scale); };
  in_parallel(a.threads, a.count / A::SIZE, [&](int, int64_t first, int64_t last) {
    for (int64_t i = first * A::SIZE; i < last * A::SIZE; i += A::SIZE) A::store(to + i, kept(A::load(from + i), i));
  });
  int64_t done = a.count / A::SIZE * A::SIZE, left = a.count - done;
  if (left) A::store(to + done, kept(A::load(from + done, left, 0), done), left);
}

// 0, or 1 for a type that there is not.
extern "C" int dropout(const Dropout *a, int type) {
  return with_type(type, [&](auto t) { run<decltype(t)>(*a); });
}
