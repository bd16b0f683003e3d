// Dropout on a CPU: whether a number stays is a function of (seed, its place), so the mask is never stored, is the same
// for any number of threads and any vector length, and is made anew for the gradient.
#include "random.h"

struct Dropout {
  void *out;
  const void *in;
  long long count;
  unsigned keys[2], least;  // a number stays where its bits are `least` or more
  float scale;              // and is multiplied by this
  int threads;
};

template <class T>
FN typename T::Lane kept(typename T::Lane x, int64_t first, const Dropout &a) {
  uint32_t high = a.keys[1] + uint32_t(uint64_t(first) >> 32) * 0x9e3779b9u;
  auto bits = random_bits(places_from<T>(uint32_t(first)), a.keys[0], high);
  return bits >= a.least ? x * a.scale : typename T::Lane();
}

template <class T>
void run(const Dropout &a) {
  using A = Access<T>;
  auto *to = static_cast<typename A::Memory *>(a.out);
  const auto *from = static_cast<const typename A::Memory *>(a.in);
  in_parallel(a.threads, a.count / A::SIZE, [&](int, int64_t first, int64_t last) {
    for (int64_t i = first * A::SIZE; i < last * A::SIZE; i += A::SIZE)
      A::store(to + i, kept<T>(A::load(from + i), i, a));
  });
  int64_t done = a.count / A::SIZE * A::SIZE, left = a.count - done;
  if (left) A::store(to + done, kept<T>(A::load(from + done, left, 0), done, a), left);
}

// 0, or 1 for a type that there is not.
extern "C" int dropout(const Dropout *a, int type) {
  return with_type(type, [&](auto t) { run<decltype(t)>(*a); });
}
