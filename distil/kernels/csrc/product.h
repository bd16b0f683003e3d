// Products of small matrices that lie in scratch, and how their factors are laid out there.
//
// A factor consists of words of DEEP numbers, neighbours along the dimension that is summed: two bfloat16 where the
// processor multiplies such pairs, else one float (or double), to which 16 bits are widened. Matrices are padded with
// zeros to whole words and lanes, so nothing here has a tail.
#pragma once
#include "cpu.h"

template <class T>
struct Singles {
  using Lane = typename T::Lane;
  using Scalar = typename T::Scalar;
  using Word = Scalar;
  using Number = Scalar;
  using Row = Lane;  // as many words as a lane has numbers
  static constexpr int DEEP = 1;
  FN Lane added(Lane sum, Word left, Row right) { return sum + left * right; }
  FN Lane narrowed(Lane x) { return x; }
  FN Lane loaded(const typename T::Memory *from) { return Access<T>::load(from); }
  FN Lane loaded(const typename T::Memory *from, int64_t count) { return Access<T>::load(from, count, 0); }
};

#ifdef __AVX512BF16__
struct Pairs {
  using Lane = Floats;
  using Scalar = float;
  using Word = uint32_t;
  using Number = uint16_t;
  using Row = Words;
  static constexpr int DEEP = 2;
  FN Floats added(Floats sum, Word left, Row right) {
    return Floats(_mm512_dpbf16_ps(__m512(sum), bits_of<__m512bh>(Row() + left), bits_of<__m512bh>(right)));
  }
  FN Halves narrowed(Floats x) { return BFloat16::narrowed(x); }
  FN Halves loaded(const uint16_t *from, int64_t count = LANES) {
    Halves numbers = Halves();
    memcpy(&numbers, from, sizeof(uint16_t) * count);
    return numbers;
  }
};
template <class T>
using Factors = std::conditional_t<std::is_same_v<T, BFloat16>, Pairs, Singles<T>>;
#else
template <class T>
using Factors = Singles<T>;
#endif

constexpr int64_t rounded_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// All numbers of a lane, halves of it at a time.
template <class Work>
FN float over_lane(Floats lane, Work work) {
  float each[LANES];
  memcpy(each, &lane, sizeof(each));
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) each[i] = work(each[i], each[i + half]);
  return each[0];
}
#ifdef __AVX512F__
FN float sum_of(Floats lane) { return _mm512_reduce_add_ps(__m512(lane)); }
FN float largest_of(Floats lane) { return _mm512_reduce_max_ps(__m512(lane)); }
#else
FN float sum_of(Floats lane) { return over_lane(lane, [](float a, float b) { return a + b; }); }
FN float largest_of(Floats lane) { return over_lane(lane, larger<float>); }
#endif
FN double sum_of(double lane) { return lane; }
FN double largest_of(double lane) { return lane; }

// --- the product ----------------------------------------------------------------------------------------------------

template <class F>
struct Left {  // word k of row m is at[m * row + k * deep], so that a matrix serves as its transpose, too
  const typename F::Word *at;
  int64_t row, deep;
};
template <class F>
struct Right {  // word k of column n is at[k * wide + n]
  const typename F::Word *at;
  int64_t wide;
};
template <class F>
struct Result {
  typename F::Scalar *at;
  int64_t wide;
  bool more;  // the product is added to what is there
};

// Sums that are kept in registers: 24 of AVX-512's 32, 12 of the others' 16.
constexpr int ROWS_AT_ONCE = 6, LANES_AT_ONCE = LANES == 16 ? 4 : 2;

// Sums are kept by a row's own loops over constants, which the compiler unrolls, so that each has a register.
template <class F, int ROWS, int ACROSS>
__attribute__((noinline)) void strip(Result<F> to, Left<F> left, Right<F> right, int64_t deep) {
  using Lane = typename F::Lane;
  constexpr int SIZE = sizeof(Lane) / sizeof(typename F::Scalar);
  Lane sums[ROWS][ACROSS];
#pragma GCC unroll 8
  for (int m = 0; m < ROWS; m++)
#pragma GCC unroll 8
    for (int n = 0; n < ACROSS; n++) {
      Lane before = Lane();
      if (to.more) memcpy(&before, to.at + m * to.wide + n * SIZE, sizeof(before));
      sums[m][n] = before;
    }
  for (int64_t k = 0; k < deep; k++) {
    typename F::Row across[ACROSS];
#pragma GCC unroll 8
    for (int n = 0; n < ACROSS; n++) {
      typename F::Row row;
      memcpy(&row, right.at + k * right.wide + n * SIZE, sizeof(row));
      across[n] = row;
    }
#pragma GCC unroll 8
    for (int m = 0; m < ROWS; m++)
#pragma GCC unroll 8
      for (int n = 0; n < ACROSS; n++)
        sums[m][n] = F::added(sums[m][n], left.at[m * left.row + k * left.deep], across[n]);
  }
#pragma GCC unroll 8
  for (int m = 0; m < ROWS; m++)
#pragma GCC unroll 8
    for (int n = 0; n < ACROSS; n++) {
      Lane sum = sums[m][n];
      memcpy(to.at + m * to.wide + n * SIZE, &sum, sizeof(sum));
    }
}

// work(count as a constant), for a count of 1 to MOST
template <int MOST, class Work>
FN void with_constant(int64_t count, Work work) {
  if constexpr (MOST > 1)
    if (count < MOST) return with_constant<MOST - 1>(count, work);
  work(std::integral_constant<int, MOST>());
}

// work(first, count) on runs of at most MOST things, as even as can be
template <int MOST, class Work>
FN void in_runs(int64_t count, Work work) {
  for (int64_t first = 0; first < count;) {
    int64_t left = count - first, runs = (left + MOST - 1) / MOST, run = (left + runs - 1) / runs;
    work(first, run);
    first += run;
  }
}

// Rows times columns, of which there are whole lanes.
template <class F>
void product(Result<F> to, Left<F> left, Right<F> right, int64_t rows, int64_t columns,
                                       int64_t deep) {
  constexpr int SIZE = sizeof(typename F::Lane) / sizeof(typename F::Scalar);
  in_runs<LANES_AT_ONCE>(columns / SIZE, [&](int64_t lane, int64_t lanes) {
    with_constant<LANES_AT_ONCE>(lanes, [&](auto across) {
      Right<F> panel = {right.at + lane * SIZE, right.wide};
      in_runs<ROWS_AT_ONCE>(rows, [&](int64_t row, int64_t count) {
        Result<F> place = {to.at + row * to.wide + lane * SIZE, to.wide, to.more};
        Left<F> some = {left.at + row * left.row, left.row, left.deep};
        with_constant<ROWS_AT_ONCE>(count, [&](auto down) {
          strip<F, decltype(down)::value, decltype(across)::value>(place, some, panel, deep);
        });
      });
    });
  });
}

// --- layouts --------------------------------------------------------------------------------------------------------

// `count` rows of `width` numbers, `stride` apart in memory, as `rows` rows of `wide` numbers: the left factor's words.
template <class T>
void lay_rows(typename Factors<T>::Word *to, const typename T::Memory *from, int64_t stride, int64_t count,
              int64_t width, int64_t rows, int64_t wide) {
  using F = Factors<T>;
  constexpr int SIZE = Access<T>::SIZE;
  auto *numbers = reinterpret_cast<typename F::Number *>(to);
  for (int64_t i = 0; i < count; i++, numbers += wide) {
    int64_t j = 0;
    for (; j + SIZE <= width; j += SIZE) {
      auto lane = F::loaded(from + i * stride + j);
      memcpy(numbers + j, &lane, sizeof(lane));
    }
    if (j == width) continue;
    auto lane = F::loaded(from + i * stride + j, width - j);
    memcpy(numbers + j, &lane, sizeof(lane));
  }
  memset(numbers, 0, sizeof(*numbers) * (rows - count) * wide);
}

// A lane of numbers of each of DEEP rows as one of words.
template <class F, class Numbers>
FN typename F::Row joined(const Numbers *of_rows) {
  if constexpr (F::DEEP == 1) {
    return of_rows[0];
  } else {
    return __builtin_convertvector(of_rows[0], Words) | __builtin_convertvector(of_rows[1], Words) << 16;
  }
}

// The same rows with DEEP neighbours as words: the right factor where rows are summed over.
template <class F>
void lay_joined(typename F::Word *to, const typename F::Word *from, int64_t rows, int64_t wide) {
  constexpr int SIZE = sizeof(typename F::Lane) / sizeof(typename F::Scalar);
  const auto *numbers = reinterpret_cast<const typename F::Number *>(from);
  for (int64_t i = 0; i < rows; i += F::DEEP, to += wide)
    for (int64_t j = 0; j < wide; j += SIZE) {
      decltype(F::narrowed(typename F::Lane())) of_rows[F::DEEP];
      for (int r = 0; r < F::DEEP; r++) memcpy(&of_rows[r], numbers + (i + r) * wide + j, sizeof(of_rows[r]));
      auto words = joined<F>(of_rows);
      memcpy(to + j, &words, sizeof(words));
    }
}

// As many rows as a lane has numbers, as columns: the right factor where what stands in a row is summed over.
template <class F>
void lay_across(typename F::Word *to, int64_t to_wide, const typename F::Word *from, int64_t wide) {
  constexpr int SIZE = sizeof(typename F::Lane) / sizeof(typename F::Scalar);
  int64_t words = wide / F::DEEP;
  for (int64_t k = 0; k < words; k++)
    for (int r = 0; r < SIZE; r++) to[k * to_wide + r] = from[r * words + k];
}
