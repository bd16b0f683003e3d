// What attention within packed sequences is given, and what a thread works on: a sequence and head, a block of queries.
#pragma once
#include <algorithm>
#include <new>

#include "product.h"
#include "random.h"

struct Attention {
  const void *in[4];         // queries, keys, values; in the backward pass, too: gradient of the output, (N, A, d)
  void *out[3];              // output; or gradients of queries, keys, values; each (N, A, d)
  void *logs;                // (A, N), of each row of weights the logarithm of its sum, to base 2
  const int *ends;           // sequence b begins at token ends[b] and ends before ends[b + 1]
  long long strides[4][2];   // in numbers, from a head and from a token to the next
  long long sequences, heads, tokens, width, window;  // window: tokens a query sees to each side; below 0: all
  double scale;
  float kept_scale;          // a weight stays where its bits are `least` or more, and is multiplied by this
  unsigned keys[2], least;
  int causal, threads;
};

constexpr int64_t QUERIES = 66;  // of a block at most: its scores stay in the second cache

template <class T>
using Exact = std::conditional_t<Access<T>::SIZE == 1, Float64, Float32>;  // what is not a product's factor

template <class T>
struct Part {  // a sequence and head
  const Attention &a;
  int64_t head, start, length;

  const typename T::Memory *in(int which) const {
    const long long *stride = a.strides[which];
    return static_cast<const typename T::Memory *>(a.in[which]) + head * stride[0] + start * stride[1];
  }
  // Asks for numbers of the next head, probably this thread's next part, before they are wanted: rows are far apart, so
  // the processor does not see them coming.
  void look_ahead(int which, int64_t first, int64_t count) const {
    if (head + 1 == a.heads) return;
    const long long *stride = a.strides[which];
    const auto *next = reinterpret_cast<const char *>(in(which) + stride[0] + first * stride[1]);
    for (int64_t i = 0; i < count; i++, next += stride[1] * sizeof(typename T::Memory))
      for (int64_t byte = 0; byte < a.width * int64_t(sizeof(typename T::Memory)); byte += 64)
        __builtin_prefetch(next + byte);
  }
  typename T::Memory *out(int which, int64_t token) const {
    return static_cast<typename T::Memory *>(a.out[which]) + ((start + token) * a.heads + head) * a.width;
  }
  typename T::Scalar &log(int64_t token) const {
    return static_cast<typename T::Scalar *>(a.logs)[head * a.tokens + start + token];
  }
  int64_t first_seen(int64_t query) const { return a.window < 0 ? 0 : std::max<int64_t>(0, query - a.window); }
  int64_t end_seen(int64_t query) const {
    return std::min<int64_t>(length, a.causal ? query + 1 : a.window < 0 ? length : query + a.window + 1);
  }
};

// Queries `query` to `query` + `count` with what any of them sees: keys from `first` on, `keys` of them.
struct Block {
  int64_t query, count, first, keys, wide;  // wide: keys with padding
};

template <class T, class Work>
FN void in_blocks(const Part<T> &part, Work work) {
  if (part.length == 0) return;
  int64_t blocks = (part.length + QUERIES - 1) / QUERIES;
  int64_t size = rounded_up((part.length + blocks - 1) / blocks, ROWS_AT_ONCE);
  for (int64_t query = 0; query < part.length; query += size) {
    int64_t count = std::min(size, part.length - query);
    int64_t first = part.first_seen(query) / Access<T>::SIZE * Access<T>::SIZE;
    int64_t keys = part.end_seen(query + count - 1) - first;
    work(Block{query, count, first, keys, rounded_up(keys, Access<T>::SIZE)});
  }
}

// Whether weights of a block stay. Head and token are hashed to a row's own keys, a key's number is the place.
template <class T>
struct Chance {
  uint32_t first[QUERIES + ROWS_AT_ONCE], second[QUERIES + ROWS_AT_ONCE];

  Chance(const Part<T> &part, const Block &block) {
    const unsigned *keys = part.a.keys;
    uint32_t query = uint32_t(part.start + block.query), head = uint32_t(part.head) * 0x9e3779b9u;
    for (int i = 0; i < QUERIES + ROWS_AT_ONCE; i++) {
      first[i] = random_bits(query + i, keys[0], keys[1] + head);
      second[i] = random_bits(query + i, keys[1], keys[0] - head);
    }
  }
  auto bits(int64_t row, int64_t key) const {
    return random_bits(places_from<T>(uint32_t(key)), first[row], second[row]);
  }
};

// A thread's scratch, for the longest sequence.
template <class T>
class Room {
 public:
  using F = Factors<T>;
  using Word = typename F::Word;
  using Number = typename F::Number;
  using Scalar = typename T::Scalar;

  // Tokens as factors of products; null where there is no such product.
  struct Tokens {
    Word *rows, *joined, *across;
  };
  Tokens queries, keys, values, back;
  Scalar *scores, *slopes, *sums, *key_sums, *value_sums;
  Word *lane_rows, *weights, *slope_rows, *slope_pairs;
  int64_t wide;

  Room(int64_t longest, int64_t width, bool backward) : wide(rounded_up(width, Access<T>::SIZE)) {
    _lay_out(longest, backward);
    _memory = static_cast<char *>(::operator new(_size, std::align_val_t(ALIGN)));
    _size = 0;
    _lay_out(longest, backward);
  }
  ~Room() { ::operator delete(_memory, std::align_val_t(ALIGN)); }
  Room(const Room &) = delete;

 private:
  static constexpr int64_t ALIGN = 64;
  char *_memory = nullptr;
  int64_t _size = 0;

  template <class X>
  void _take(X *&place, int64_t count) {
    place = reinterpret_cast<X *>(_memory + _size);
    _size += rounded_up(count * sizeof(X), ALIGN);
  }
  void _lay_out(int64_t longest, bool backward) {
    const int64_t all = rounded_up(longest, Access<T>::SIZE), some = rounded_up(std::min(QUERIES, longest), ROWS_AT_ONCE);
    const int64_t words = all * wide / F::DEEP, few = some * wide / F::DEEP, square = some * all;
    queries = keys = values = back = {};
    _take(lane_rows, Access<T>::SIZE * wide / F::DEEP);
    _take(queries.rows, few);
    _take(keys.across, words);
    _take(backward ? values.across : values.joined, words);
    _take(scores, square);
    _take(weights, square / F::DEEP);
    _take(sums, some * wide);
    if (!backward) return;
    _take(keys.joined, words);
    _take(back.rows, few);
    _take(slopes, square);
    _take(slope_rows, square / F::DEEP);
    queries.joined = queries.rows, back.joined = back.rows, slope_pairs = slope_rows;
    if (F::DEEP > 1) _take(queries.joined, few), _take(back.joined, few), _take(slope_pairs, square / F::DEEP);
    _take(key_sums, all * wide);
    _take(value_sums, all * wide);
  }
};

// work(room, part) on every sequence and head.
template <class T, class Work>
FN void on_all(const Attention &a, bool backward, Work work) {
  int64_t longest = 0;
  for (int64_t b = 0; b < a.sequences; b++) longest = std::max<int64_t>(longest, a.ends[b + 1] - a.ends[b]);
  // Several parts at a time, heads that lie side by side, but turns enough for all threads.
  const int64_t tasks = a.sequences * a.heads, some = std::clamp<int64_t>(tasks / (8 * a.threads), 1, 4);
#pragma omp parallel num_threads(a.threads)
  {
    Room<T> room(longest, a.width, backward);
#pragma omp for schedule(dynamic, some)
    for (int64_t task = 0; task < tasks; task++) {
      const int *ends = a.ends + task / a.heads;
      work(room, Part<T>{a, task % a.heads, ends[0], ends[1] - ends[0]});
    }
  }
}
