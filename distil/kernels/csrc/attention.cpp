// Attention within packed sequences on a CPU, which pads nothing, and its gradients: a thread takes a sequence and head.
//
// Of a block of queries there are whole rows of scores, so a softmax takes its largest and its sum from them as it is
// defined. The backward pass makes scores and dropout anew; what a softmax's gradient subtracts is summed over the very
// row that it is subtracted from. All but the products' factors is in the statistics' type. No task touches another's
// numbers, so threads change no bit, and without dropout neither does what else is in the batch.
#include "attention.h"

constexpr double LOG2_E = 1.4426950408889634;

// --- one row of scores ----------------------------------------------------------------------------------------------

// Weights of what a query does not see become 0.
template <class T>
FN void hide(const Part<T> &part, const Block &block, typename T::Scalar *row, int64_t query) {
  using A = Access<Exact<T>>;
  const int64_t first = part.first_seen(query) - block.first, end = part.end_seen(query) - block.first;
  auto only = [&](int64_t j) {
    const auto place = places_from<T>(uint32_t(j));
    const auto seen = (place >= uint32_t(first)) & (place < uint32_t(end));
    const auto all = A::load(row + j), none = typename T::Lane() - typename T::Scalar(INFINITY);
    A::store(row + j, seen ? all : none);
  };
  for (int64_t j = 0; j < first; j += A::SIZE) only(j);
  for (int64_t j = end / A::SIZE * A::SIZE; j < block.wide; j += A::SIZE) only(j);
}

// Some rows' weights relative to their largest; and what they are to be multiplied by.
template <class T, bool DROP, int ROWS>
FN void weigh(const Part<T> &part, const Block &block, Room<T> &room, const Chance<T> &chance, int64_t row,
              typename T::Scalar *factors) {
  using F = Factors<T>;
  using A = Access<Exact<T>>;
  using Lane = typename T::Lane;
  using Scalar = typename T::Scalar;
  const Scalar slope = Scalar(part.a.scale * LOG2_E);
  const int64_t wide = block.wide;
  const Scalar *scores = room.scores + row * wide;
  auto *weights = reinterpret_cast<typename F::Number *>(room.weights) + row * wide;
  Lane most[ROWS], sums[ROWS];
  Scalar largest[ROWS];
  for (int r = 0; r < ROWS; r++) most[r] = Lane() - Scalar(INFINITY), sums[r] = Lane();
  for (int64_t j = 0; j < wide; j += A::SIZE)
    for (int r = 0; r < ROWS; r++) most[r] = larger(A::load(scores + r * wide + j) * slope, most[r]);
  for (int r = 0; r < ROWS; r++) largest[r] = largest_of(most[r]);
  for (int64_t j = 0; j < wide; j += A::SIZE)
    for (int r = 0; r < ROWS; r++) {
      Lane weight = exp2_of(A::load(scores + r * wide + j) * slope - largest[r]);
      sums[r] += weight;
      if constexpr (DROP) weight = chance.bits(row + r, block.first + j) >= part.a.least ? weight : Lane();
      auto narrow = F::narrowed(weight);
      memcpy(weights + r * wide + j, &narrow, sizeof(narrow));
    }
  for (int r = 0; r < ROWS; r++) {
    const Scalar total = sum_of(sums[r]);
    part.log(block.query + row + r) = largest[r] + std::log2(total);
    factors[r] = Scalar(DROP ? part.a.kept_scale : 1) / total;
  }
}

// Rows `row` to `row` + ROWS of a block's scores and of what comes back to weights, up to the gradient of the scores.
template <class T, bool DROP, int ROWS>
FN void weigh_back(const Part<T> &part, const Block &block, Room<T> &room, const Chance<T> &chance, int64_t row) {
  using F = Factors<T>;
  using A = Access<Exact<T>>;
  using Lane = typename T::Lane;
  using Scalar = typename T::Scalar;
  constexpr int DEEP = F::DEEP;
  const Scalar slope = Scalar(part.a.scale * LOG2_E), scale = Scalar(part.a.scale);
  const Scalar grown = DROP ? Scalar(part.a.kept_scale) : Scalar(1);
  const int64_t wide = block.wide;
  Scalar *scores = room.scores + row * wide, *slopes = room.slopes + row * wide, log[ROWS], mean[ROWS];
  Lane sums[ROWS];
  for (int r = 0; r < ROWS; r++) {
    log[r] = row + r < block.count ? part.log(block.query + row + r) : Scalar(INFINITY);  // makes a word whole by 0
    sums[r] = Lane();
  }
  decltype(F::narrowed(Lane())) narrow[ROWS];
  for (int64_t j = 0; j < wide; j += A::SIZE) {
    for (int r = 0; r < ROWS; r++) {
      Lane weight = exp2_of(A::load(scores + r * wide + j) * slope - log[r]), back = A::load(slopes + r * wide + j);
      Lane kept = weight;
      if constexpr (DROP) {
        auto stays = chance.bits(row + r, block.first + j) >= part.a.least;
        kept = stays ? weight * grown : Lane();
        back = stays ? back * grown : Lane();
        A::store(slopes + r * wide + j, back);
      }
      sums[r] += weight * back;
      A::store(scores + r * wide + j, weight);
      narrow[r] = F::narrowed(kept);
    }
    for (int r = 0; r < ROWS; r += DEEP) {
      auto words = joined<F>(narrow + r);
      memcpy(room.weights + (row + r) / DEEP * wide + j, &words, sizeof(words));
    }
  }
  for (int r = 0; r < ROWS; r++) mean[r] = sum_of(sums[r]);
  auto *numbers = reinterpret_cast<typename F::Number *>(room.slope_rows) + row * wide;
  for (int64_t j = 0; j < wide; j += A::SIZE) {
    for (int r = 0; r < ROWS; r++) {
      Lane weight = A::load(scores + r * wide + j), back = A::load(slopes + r * wide + j);
      narrow[r] = F::narrowed(weight * (back - mean[r]) * scale);
      memcpy(numbers + r * wide + j, &narrow[r], sizeof(narrow[r]));
    }
    for (int r = 0; DEEP > 1 && r < ROWS; r += DEEP) {
      auto words = joined<F>(narrow + r);
      memcpy(room.slope_pairs + (row + r) / DEEP * wide + j, &words, sizeof(words));
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

// All tokens of a part as right factors, a lane's number of rows at a time, which stay in the first cache.
template <class T>
void lay_tokens(const Room<T> &room, const Part<T> &part, const typename Room<T>::Tokens &place, int which) {
  using F = Factors<T>;
  constexpr int SIZE = Access<T>::SIZE;
  const int64_t all = rounded_up(part.length, SIZE), stride = part.a.strides[which][1];
  for (int64_t i = 0; i < part.length; i += SIZE) {
    auto *joined = place.joined == nullptr ? nullptr : place.joined + i * room.wide / F::DEEP;
    auto *rows = F::DEEP == 1 && joined != nullptr ? joined : room.lane_rows;
    lay_rows<T>(rows, part.in(which) + i * stride, stride, std::min<int64_t>(SIZE, part.length - i), part.a.width, SIZE,
                room.wide);
    if (F::DEEP > 1 && joined != nullptr) lay_joined<F>(joined, rows, SIZE, room.wide);
    if (place.across != nullptr) lay_across<F>(place.across + i, all, rows, room.wide);
  }
}

// Tokens of a block's queries, as left factors, and where rows are summed over as right ones.
template <class T>
void lay_block(const Room<T> &room, const Part<T> &part, const Block &block, const typename Room<T>::Tokens &place,
               int which) {
  using F = Factors<T>;
  const int64_t stride = part.a.strides[which][1], rows = rounded_up(block.count, F::DEEP);
  lay_rows<T>(place.rows, part.in(which) + block.query * stride, stride, block.count, part.a.width, rows, room.wide);
  if (F::DEEP > 1 && place.joined != nullptr) lay_joined<F>(place.joined, place.rows, rows, room.wide);
  part.look_ahead(which, block.query, block.count);
}

template <class T, bool DROP>
void forward(Room<T> &room, const Part<T> &part) {
  using F = Factors<T>;
  constexpr int DEEP = F::DEEP;
  const int64_t all = rounded_up(part.length, Access<T>::SIZE), wide = room.wide, words = wide / DEEP;
  lay_tokens(room, part, room.keys, 1);
  lay_tokens(room, part, room.values, 2);
  in_blocks(part, [&](const Block &block) {
    lay_block(room, part, block, room.queries, 0);
    for (int which = 1; which < 3; which++) part.look_ahead(which, block.query, block.count);
    product<F>({room.scores, block.wide, false}, {room.queries.rows, words, 1}, {room.keys.across + block.first, all},
               block.count, block.wide, words);
    typename T::Scalar factors[QUERIES + ROWS_AT_ONCE];
    for (int64_t i = 0; i < block.count; i++) hide(part, block, room.scores + i * block.wide, block.query + i);
    const Chance<T> chance(part, block);
    in_runs<4>(block.count, [&](int64_t row, int64_t count) {
      with_constant<4>(count, [&](auto rows) {
        weigh<T, DROP, decltype(rows)::value>(part, block, room, chance, row, factors + row);
      });
    });
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
  lay_tokens(room, part, room.keys, 1);
  lay_tokens(room, part, room.values, 2);
  memset(room.key_sums, 0, sizeof(*room.key_sums) * all * wide);
  memset(room.value_sums, 0, sizeof(*room.value_sums) * all * wide);
  in_blocks(part, [&](const Block &block) {
    const int64_t rows = rounded_up(block.count, DEEP), across = block.wide, at = block.first * wide;
    lay_block(room, part, block, room.queries, 0);
    lay_block(room, part, block, room.back, 3);
    for (int which = 1; which < 3; which++) part.look_ahead(which, block.query, block.count);
    product<F>({room.scores, across, false}, {room.queries.rows, words, 1}, {room.keys.across + block.first, all}, rows,
               across, words);
    product<F>({room.slopes, across, false}, {room.back.rows, words, 1}, {room.values.across + block.first, all}, rows,
               across, words);
    for (int64_t i = 0; i < block.count; i++) hide(part, block, room.scores + i * across, block.query + i);
    const Chance<T> chance(part, block);
    for (int64_t row = 0; row < rows; row += DEEP) weigh_back<T, DROP, DEEP>(part, block, room, chance, row);
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
