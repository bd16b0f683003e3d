// A CPU: lanes (vectors of floats), numbers of each type in memory as such lanes, and threads.
//
// Vectors are the compiler's own (GCC's and Clang's vector extension), so that the same source becomes AVX-512, AVX2,
// NEON or plain SSE by -march. Logits are float, bfloat16, float16 (as bits) or double (lanes of one).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define FN static inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

template <class To, class From>
FN To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From), "a cast of bits");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

// 2^f for f in [-1/2, 1/2]: the minimax polynomial of degree 6, relative error 2e-9.
template <class F>
FN F exp2_of_fraction(F f) {
  F p = f * 1.53533516e-4f + 1.33988873e-3f;
  p = p * f + 9.61843748e-3f;
  p = p * f + 5.55033244e-2f;
  p = p * f + 2.40226479e-1f;
  p = p * f + 6.93147203e-1f;
  return p * f + 1.0f;
}

// 2^x for x <= 0 as 2^k 2^f; below 2^-127 it is 0, and a NaN stays one. Adding 1.5 * 2^23 leaves k in the low bits.
template <class F, class I>
FN F exp2_by_polynomial(F x) {
  F least = F() - 127.0f;
  x = x < least ? least : x;
  F shifted = x + 12582912.0f, f = x - (shifted - 12582912.0f);
  return exp2_of_fraction(f) * bits_of<F>((bits_of<I>(shifted) + 127) << 23);
}

#ifdef __AVX512F__
FN Floats exp2_of(Floats x) {  // the same in two thirds of the instructions
  Floats k = Floats(_mm512_roundscale_ps(__m512(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  __mmask16 counts = _mm512_cmp_ps_mask(__m512(k), _mm512_set1_ps(-127.0f), _CMP_NLE_UQ);  // of a NaN too
  return Floats(_mm512_maskz_scalef_ps(counts, __m512(exp2_of_fraction(x - k)), __m512(k)));
}
#else
FN Floats exp2_of(Floats x) { return exp2_by_polynomial<Floats, Words>(x); }
#endif
FN float exp2_of(float x) { return exp2_by_polynomial<float, uint32_t>(x); }
FN double exp2_of(double x) { return std::exp2(x); }
template <class F>
FN F larger(F a, F b) {
  return a > b ? a : b;
}
template <class F>
FN F log_of(F x) {
  return std::log(x);
}
template <class F>
FN F root_of(F x) {
  return std::sqrt(x);
}

// --- logits in memory: `Lane` computes, `load` and `store` read and write as many logits as a Lane has lanes ---------

struct Float32 {
  using Lane = Floats;
  using Scalar = float;
  using Memory = float;
  FN Floats widened(Floats x) { return x; }
  FN Floats narrowed(Floats x) { return x; }
};

struct Float64 {
  using Lane = double;
  using Scalar = double;
  using Memory = double;
  FN double widened(double x) { return x; }
  FN double narrowed(double x) { return x; }
};

struct BFloat16 {
  using Lane = Floats;
  using Scalar = float;
  using Memory = uint16_t;
  FN Floats widened(Halves x) { return bits_of<Floats>(__builtin_convertvector(x, Words) << 16); }
#ifdef __AVX512BF16__
  FN Halves narrowed(Floats x) { return Halves(_mm512_cvtneps_pbh(__m512(x))); }
#else
  FN Halves narrowed(Floats x) {  // to nearest, ties to even
    Words bits = bits_of<Words>(x), nan = Words() + 0x7fc00000u;
    Words rounded = bits + 0x7fff + ((bits >> 16) & 1);
    return __builtin_convertvector((x == x ? rounded : nan) >> 16, Halves);
  }
#endif
};

struct Float16 {
  using Lane = Floats;
  using Scalar = float;
  using Memory = uint16_t;
  FN Floats widened(Halves x) {  // the exponent is moved from a bias of 15 to one of 127 by a product, exact
    Words bits = __builtin_convertvector(x, Words), magnitude = (bits & 0x7fff) << 13;
    Floats value = bits_of<Floats>(magnitude) * 5.192296858534828e33f;  // 2^112
    Words infinite = bits_of<Words>(value) | 0x7f800000u;
    Words finite = bits_of<Words>(value);
    return bits_of<Floats>((magnitude >= 0x0f800000u ? infinite : finite) | (bits & 0x8000) << 16);
  }
  FN Halves narrowed(Floats x) {  // to nearest, ties to even; from 65520 on infinite
    Words bits = bits_of<Words>(x), sign = bits & 0x80000000u, magnitude = bits ^ sign;
    // Normal: round away 13 bits. Subnormal (below 2^-14): adding 1/2 leaves the units of 2^-24 in the low bits.
    Words normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - (112u << 23)) >> 13;
    Words subnormal = bits_of<Words>(bits_of<Floats>(magnitude) + 0.5f) - 0x3f000000u;
    Words result = magnitude < 0x38800000u ? subnormal : normal;
    result = magnitude >= 0x477ff000u ? Words() + 0x7c00u : result;
    result = magnitude > 0x7f800000u ? Words() + 0x7e00u : result;
    return __builtin_convertvector(result | sign >> 16, Halves);
  }
};

template <class T>
struct Access {
  using Lane = typename T::Lane;
  using Scalar = typename T::Scalar;
  using Memory = typename T::Memory;
  static constexpr int SIZE = sizeof(Lane) / sizeof(Scalar);
  using Packed = std::conditional_t<SIZE == 1, Memory,
                                    std::conditional_t<sizeof(Memory) == 2, Halves, Floats>>;

  FN Lane load(const Memory *from) {
    Packed packed;
    memcpy(&packed, from, sizeof(packed));
    return T::widened(packed);
  }
  FN void store(Memory *to, Lane value) {
    Packed packed = T::narrowed(value);
    memcpy(to, &packed, sizeof(packed));
  }
  FN Lane load(const Memory *from, int64_t count, double rest) {  // the first `count` lanes; `rest` in the others
    Scalar few[SIZE];
    for (int i = 0; i < SIZE; i++) few[i] = i < count ? one(from + i) : Scalar(rest);
    Lane lane;
    memcpy(&lane, few, sizeof(lane));
    return lane;
  }
  FN void store(Memory *to, Lane value, int64_t count) {
    Packed packed = T::narrowed(value);
    memcpy(to, &packed, sizeof(Memory) * count);
  }
  FN Scalar one(const Memory *from) {
    if constexpr (SIZE == 1) {
      return *from;
    } else {
      Packed packed = Packed();
      memcpy(&packed, from, sizeof(Memory));
      Lane lane = T::widened(packed);
      return lane[0];
    }
  }
  FN void store_one(Memory *to, Scalar value) { store(to, Lane() + value, 1); }
};

// --- threads: work(thread, first, last) on even runs of `count` things, the same ones however many really run -------

template <class Work>
FN void in_parallel(int threads, int64_t count, Work work) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; thread++)
    work(thread, count * thread / threads, count * (thread + 1) / threads);
}

// Calls work(T()) with the type that a number stands for; the numbers are those of distil/kernels/native.py.
template <class Work>
FN int with_type(int type, Work work) {
  switch (type) {
    case 0: work(Float32()); return 0;
    case 1: work(BFloat16()); return 0;
    case 2: work(Float16()); return 0;
    case 3: work(Float64()); return 0;
  }
  return 1;
}
