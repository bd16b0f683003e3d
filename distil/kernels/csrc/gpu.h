// A GPU: what its threads compute with, numbers of each type in memory, and rows of them as words.
//
// A word is the 16 bytes that a thread reads and writes at once. Rows need not begin at a word's border.
#pragma once

#define FN __device__ __forceinline__

constexpr unsigned WARP = 32, ALL = 0xffffffffu;

#ifdef __CUDACC__
FN float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
FN float half_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
FN unsigned short float_to_half(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
FN unsigned float_bits(float value) { return __float_as_uint(value); }
FN float bits_float(unsigned bits) { return __uint_as_float(bits); }
#define DYNAMIC_SHARED(name) extern __shared__ uint4 name[]
#endif
FN double exp2_of(double x) { return exp2(x); }
FN float log_of(float x) { return logf(x); }
FN double log_of(double x) { return log(x); }
FN float root_of(float x) { return sqrtf(x); }
FN double root_of(double x) { return sqrt(x); }
template <class F>
FN F larger(F a, F b) {
  return a > b ? a : b;
}

struct Float32 {
  using Memory = float;
  using Scalar = float;
  static FN float widened(float x) { return x; }
  static FN float narrowed(float x) { return x; }
};

struct Float64 {
  using Memory = double;
  using Scalar = double;
  static FN double widened(double x) { return x; }
  static FN double narrowed(double x) { return x; }
};

struct BFloat16 {  // by integers: a Volta has no instruction for it
  using Memory = unsigned short;
  using Scalar = float;
  static FN float widened(unsigned short x) { return bits_float(unsigned(x) << 16); }
  static FN unsigned short narrowed(float x) {  // to nearest, ties to even
    unsigned bits = float_bits(x);
    return x == x ? (bits + 0x7fff + ((bits >> 16) & 1)) >> 16 : 0x7fc0;
  }
};

struct Float16 {
  using Memory = unsigned short;
  using Scalar = float;
  static FN float widened(unsigned short x) { return half_to_float(x); }
  static FN unsigned short narrowed(float x) { return float_to_half(x); }
};

// A row in memory as words, of which the first and the last may be shared with its neighbours.
template <class T>
struct Line {
  using Memory = typename T::Memory;
  using Scalar = typename T::Scalar;
  static constexpr int K = 16 / sizeof(Memory);
  union Word {
    uint4 all;
    Memory each[K];
  };
  long long count, skew, words;  // numbers in the row; those of the first word that come before it; words

  FN Line(const void *base, long long row, long long count) : count(count) {
    skew = ((unsigned long long)base / sizeof(Memory) + row * count) % K;
    words = (count + skew + K - 1) / K;
  }
  FN bool whole(long long w) const { return w * K >= skew && (w + 1) * K <= count + skew; }
  FN bool inside(long long w, int k) const { return w * K + k >= skew && w * K + k < count + skew; }

  FN Word read(const Memory *row, long long w) const {
    const Memory *at = row - skew + w * K;
    Word word;
    if (whole(w)) {
      word.all = *reinterpret_cast<const uint4 *>(at);
    } else {
      for (int k = 0; k < K; k++) word.each[k] = inside(w, k) ? at[k] : Memory(0);
    }
    return word;
  }
  FN void write(Memory *row, long long w, const Word &word) const {
    Memory *at = row - skew + w * K;
    if (whole(w)) {
      *reinterpret_cast<uint4 *>(at) = word.all;
    } else {
      for (int k = 0; k < K; k++)
        if (inside(w, k)) at[k] = word.each[k];
    }
  }
  FN void unpack(const Word &word, long long w, Scalar (&numbers)[K], Scalar rest) const {
    bool all = whole(w);
    for (int k = 0; k < K; k++) numbers[k] = all || inside(w, k) ? T::widened(word.each[k]) : rest;
  }
};
