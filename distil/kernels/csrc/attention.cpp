// Attention within packed sequences on a CPU, which pads nothing, and its gradients: a thread takes a sequence and head.
//
// Of a block of queries there are whole rows of scores, so a softmax takes its largest and its sum from them as it is
// defined. The backward pass makes scores and dropout anew; what a softmax's gradient subtracts is summed over the very
// row that it is subtracted from. All but the products' factors is in the statistics' type. No task touches another's
// numbers, so neither threads nor what else is in the batch change a bit.
#include "attention.h"

constexpr double LOG2_E = 1.4426950408889634;

// --- one row of scores ----------------------------------------------------------------------------------------------

// Weights of what a query does not see become 0.
template <class T>
FN void hide(const Part<T> &part, const Block &block, typename T::Scalar *row, int64_t query) {
  int64_t first = part.first_seen(query) - block.first, end = part.end_seen(query) - block.first;
  for (int64_t j = 0; j < first; j++) row[j] = -INFINITY;
  for (int64_t j = end; j < block.wide; j++) row[j] = -INFINITY;
}

// Writes a row's weights relative to its largest; returns what they are to be multiplied by.
template <class T, bool DROP>
FN typename T::Scalar weigh(const Part<T> &part, const Block &block, typename T::Scalar *row,
                            typename Factors<T>::Number *weights, int64_t query) {
  using F = Factors<T>;
  using A = Access<Exact<T>>;
  using Lane = typename T::Lane;
  using Scalar = typename T::Scalar;
  hide(part, block, row, query);
  const Scalar slope = Scalar(part.a.scale * LOG2_E);
  const auto chance = Chance<T>::of(part, query);
  Lane most = Lane() - Scalar(INFINITY), sum = Lane();
  for (int64_t j = 0; j < block.wide; j += A::SIZE) most = larger(A::load(row + j) * slope, most);
  const Scalar largest = over_lane(most, [](auto a, auto b) { return larger(a, b); });
  for (int64_t j = 0; j < block.wide; j += A::SIZE) {
    Lane weight = exp2_of(A::load(row + j) * slope - largest);
    sum += weight;
    if constexpr (DROP) weight = chance.stay(block.first + j) ? weight : Lane();
    auto narrow = F::narrowed(weight);
    memcpy(weights + j, &narrow, sizeof(narrow));
  }
  const Scalar total = over_lane(sum, [](auto a, auto b) { return a + b; });
  part.log(query) = largest + std::log2(total);
  return Scalar(DROP ? part.a.kept_scale : 1) / total;
}

// Rows `row` to `row` + DEEP of a block's scores and of what comes back to weights, up to the gradient of the scores.
template <class T, bool DROP>
FN void weigh_back(const Part<T> &part, const Block &block, Room<T> &room, int64_t row) {
  using F = Factors<T>;
  using A = Access<Exact<T>>;
  using Lane = typename T::Lane;
  using Scalar = typename T::Scalar;
  constexpr int DEEP = F::DEEP;
  const Scalar slope = Scalar(part.a.scale * LOG2_E), scale = Scalar(part.a.scale);
  const Scalar grown = DROP ? Scalar(part.a.kept_scale) : Scalar(1);
  Scalar *scores = room.scores + row * block.wide, *slopes = room.slopes + row * block.wide, log[DEEP];
  Lane sums[DEEP];
  Chance<T> chance[DEEP];
  for (int r = 0; r < DEEP; r++) {
    int64_t query = block.query + row + r;
    bool real = row + r < block.count;  // else a row of zeros that makes a word whole
    if (real) hide(part, block, scores + r * block.wide, query);
    log[r] = real ? part.log(query) : Scalar(INFINITY);
    sums[r] = Lane();
    chance[r] = Chance<T>::of(part, query);
  }
  decltype(F::narrowed(Lane())) narrow[DEEP];
  for (int64_t j = 0; j < block.wide; j += A::SIZE) {
    for (int r = 0; r < DEEP; r++) {
      Scalar *at = scores + r * block.wide + j, *back_at = slopes + r * block.wide + j;
      Lane weight = exp2_of(A::load(at) * slope - log[r]), back = A::load(back_at);
      Lane kept = weight;
      if constexpr (DROP) {
        auto stays = chance[r].stay(block.first + j);
        kept = stays ? weight * grown : Lane();
        back = stays ? back * grown : Lane();
        A::store(back_at, back);
      }
      sums[r] += weight * back;
      A::store(at, weight);
      narrow[r] = F::narrowed(kept);
    }
    auto words = joined<F>(narrow);
    memcpy(room.weights + row / DEEP * block.wide + j, &words, sizeof(words));
  }
  Scalar mean[DEEP];
  for (int r = 0; r < DEEP; r++) mean[r] = over_lane(sums[r], [](auto a, auto b) { return a + b; });
  auto *numbers = reinterpret_cast<typename F::Number *>(room.slope_rows) + row * block.wide;
  for (int64_t j = 0; j < block.wide; j += A::SIZE) {
    for (int r = 0; r < DEEP; r++) {
      Lane weight = A::load(scores + r * block.wide + j), back = A::load(slopes + r * block.wide + j);
      narrow[r] = F::narrowed(weight * (back - mean[r]) * scale);
      memcpy(numbers + r * block.wide + j, &narrow[r], sizeof(narrow[r]));
    }
    if constexpr (DEEP > 1) {
      auto words = joined<F>(narrow);
      memcpy(room.slope_pairs + row / DEEP * block.wide + j, &words, sizeof(words));
    }
  }
}

// --- a sequence and head --------------------------------------------------------------------------------------------

// Rows of sums, times a factor for each, to tokens in memory.
template <class T, class Factor>
FN void write_rows(const Part<T> &part, int which, int64_t token, const typename T::Scalar *sums, int64_t rows, int64_t wide,
              Factor factor) {
  using A = Access<T>;
  for (int64_t i = 0; i < rows; i++, sums += wide) {
    auto *to = part.out(which, token + i);
    int64_t j = 0;
    for (; j + A::SIZE <= part.a.width; j += A::SIZE)
      A::store(to + j, Access<Exact<T>>::load(sums + j) * factor(i));
    if (j < part.a.width) A::store(to + j, Access<Exact<T>>::load(sums + j) * factor(i), part.a.width - j);
  }
}

template <class T>
FN void lay(const Part<T> &part, const typename Room<T>::Tokens &place, int which, int64_t first, int64_t count,
            int64_t rows, int64_t wide, bool joined, bool across) {
  using F = Factors<T>;
  lay_rows<T>(place.rows, part.in(which) + first * part.a.strides[which][1], part.a.strides[which][1], count,
              part.a.width, rows, wide);
  if (joined && F::DEEP > 1) lay_joined<F>(place.joined, place.rows, rows, wide);
  if (across) lay_across<F>(place.across, place.rows, rows, wide);
}

template <class T, bool DROP>
void forward(Room<T> &room, const Part<T> &part) {
  using F = Factors<T>;
  constexpr int DEEP = F::DEEP;
  const int64_t all = rounded_up(part.length, Access<T>::SIZE), wide = room.wide, words = wide / DEEP;
  lay(part, room.keys, 1, 0, part.length, all, wide, false, true);
  lay(part, room.values, 2, 0, part.length, all, wide, true, false);
  in_blocks(part, [&](const Block &block) {
    lay(part, room.queries, 0, block.query, block.count, block.count, wide, false, false);
    product<F>({room.scores, block.wide, false}, {room.queries.rows, words, 1}, {room.keys.across + block.first, all},
               block.count, block.wide, words);
    typename T::Scalar factors[QUERIES + ROWS_AT_ONCE];
    auto *weights = reinterpret_cast<typename F::Number *>(room.weights);
    for (int64_t i = 0; i < block.count; i++)
      factors[i] = weigh<T, DROP>(part, block, room.scores + i * block.wide, weights + i * block.wide, block.query + i);
    product<F>({room.sums, wide, false}, {room.weights, block.wide / DEEP, 1},
               {room.values.joined + block.first / DEEP * wide, wide}, block.count, wide, (block.keys + DEEP - 1) / DEEP);
    write_rows(part, 0, block.query, room.sums, block.count, wide, [&](int64_t i) { return factors[i]; });
  });
}

template <class T, bool DROP>
void backward(Room<T> &room, const Part<T> &part) {
  using F = Factors<T>;
  constexpr int DEEP = F::DEEP;
  const int64_t all = rounded_up(part.length, Access<T>::SIZE), wide = room.wide, words = wide / DEEP;
  auto as_it_is = [](int64_t) { return typename T::Scalar(1); };
  lay(part, room.keys, 1, 0, part.length, all, wide, true, true);
  lay(part, room.values, 2, 0, part.length, all, wide, false, true);
  memset(room.key_sums, 0, sizeof(*room.key_sums) * all * wide);
  memset(room.value_sums, 0, sizeof(*room.value_sums) * all * wide);
  in_blocks(part, [&](const Block &block) {
    const int64_t rows = rounded_up(block.count, DEEP), across = block.wide, at = block.first * wide;
    lay(part, room.queries, 0, block.query, block.count, rows, wide, true, false);
    lay(part, room.back, 3, block.query, block.count, rows, wide, true, false);
    product<F>({room.scores, across, false}, {room.queries.rows, words, 1}, {room.keys.across + block.first, all}, rows,
               across, words);
    product<F>({room.slopes, across, false}, {room.back.rows, words, 1}, {room.values.across + block.first, all}, rows,
               across, words);
    for (int64_t row = 0; row < rows; row += DEEP) weigh_back<T, DROP>(part, block, room, row);
    product<F>({room.sums, wide, false}, {room.slope_rows, across / DEEP, 1}, {room.keys.joined + at / DEEP, wide},
               block.count, wide, (block.keys + DEEP - 1) / DEEP);
    write_rows(part, 0, block.query, room.sums, block.count, wide, as_it_is);
    product<F>({room.key_sums + at, wide, true}, {room.slope_pairs, 1, across}, {room.queries.joined, wide}, block.keys,
               wide, rows / DEEP);
    product<F>({room.value_sums + at, wide, true}, {room.weights, 1, across}, {room.back.joined, wide}, block.keys,
               wide, rows / DEEP);
  });
  write_rows(part, 1, 0, room.key_sums, part.length, wide, as_it_is);
  write_rows(part, 2, 0, room.value_sums, part.length, wide, as_it_is);
}

// --- all of them; 0, or 1 for a type that there is not --------------------------------------------------------------

extern "C" int attention(const Attention *a, int type) {
  return with_type(type, [&](auto t) {
    using T = decltype(t);
    on_all<T>(*a, false, a->least ? forward<T, true> : forward<T, false>);
  });
}

extern "C" int attention_gradients(const Attention *a, int type) {
  return with_type(type, [&](auto t) {
    using T = decltype(t);
    on_all<T>(*a, true, a->least ? backward<T, true> : backward<T, false>);
  });
}
