// The triple loss on a CPU: a thread takes a row, the lanes of a vector walk along it.
#include <algorithm>

#include "cpu.h"
#include "loss.h"

// --- one row --------------------------------------------------------------------------------------------------------

constexpr int AT_ONCE = 4;  // vectors between two looks at the largest logit
// Vectors that are summed by themselves: a sum of ten thousand numbers, one by one, would lose three digits.
constexpr int64_t SUMMED_BY_THEMSELVES = 64 * AT_ONCE;

template <class T>
FN Sums<typename T::Scalar> sums_of(const typename T::Memory *student, const typename T::Memory *teacher, int64_t count,
                                    const Need<typename T::Scalar> &need) {
  using A = Access<T>;
  using Lane = typename A::Lane;
  using Scalar = typename A::Scalar;
  constexpr int SIZE = A::SIZE;
  Sums<Lane> lanes = no_sums<Lane>();
  Lane s[AT_ONCE], t[AT_ONCE];
  for (int k = 0; k < AT_ONCE; k++) t[k] = Lane();
  int64_t v = 0;
  while (v + AT_ONCE * SIZE <= count) {
    Sums<Lane> part = no_sums<Lane>();
    int64_t stop = std::min(count, v + SUMMED_BY_THEMSELVES * SIZE);
    for (; v + AT_ONCE * SIZE <= stop; v += AT_ONCE * SIZE) {
      for (int k = 0; k < AT_ONCE; k++) s[k] = A::load(student + v + k * SIZE);
      if (need.soft)
        for (int k = 0; k < AT_ONCE; k++) t[k] = A::load(teacher + v + k * SIZE);
      meet(part, s, t, need);
    }
    lanes = merged(lanes, part, need);
  }
  for (; v < count; v += SIZE) {
    Lane last_s[1] = {A::load(student + v, count - v, LOWEST)};
    Lane last_t[1] = {need.soft ? A::load(teacher + v, count - v, LOWEST) : Lane()};
    meet(lanes, last_s, last_t, need);
  }
  Sums<Scalar> each[SIZE];
  for (int i = 0; i < SIZE; i++) {
    const auto *lane = reinterpret_cast<const Scalar *>(&lanes) + i;
    auto *sum = reinterpret_cast<Scalar *>(&each[i]);
    for (size_t field = 0; field < sizeof(Sums<Scalar>) / sizeof(Scalar); field++) sum[field] = lane[field * SIZE];
  }
  for (int half = SIZE / 2; half; half /= 2)
    for (int i = 0; i < half; i++) each[i] = merged(each[i], each[i + half], need);
  return each[0];
}

template <class T>
FN void write_gradient(typename T::Memory *student, const typename T::Memory *teacher, typename T::Scalar *columns,
                       int64_t count, const Slope<typename T::Scalar> &slope,
                       const Need<typename T::Scalar> &need) {
  using A = Access<T>;
  using Lane = typename A::Lane;
  constexpr int SIZE = A::SIZE;
  for (int64_t v = 0; v < count; v += SIZE) {
    bool whole = v + SIZE <= count;
    Lane s = whole ? A::load(student + v) : A::load(student + v, count - v, LOWEST), t = Lane();
    if (need.soft) t = whole ? A::load(teacher + v) : A::load(teacher + v, count - v, LOWEST);
    Lane g = gradient(s, t, slope, need);
    if (whole) {
      A::store(student + v, g);
    } else {
      A::store(student + v, g, count - v);
    }
    if (columns == nullptr) continue;
    using Sum = Access<std::conditional_t<SIZE == 1, Float64, Float32>>;
    if (whole) {
      Sum::store(columns + v, Sum::load(columns + v) + g);
    } else {
      Sum::store(columns + v, Sum::load(columns + v, count - v, 0) + g, count - v);
    }
  }
}

template <class T>
FN Labelled<typename T::Scalar> labelled(const long long *labels, int64_t row, const Rows &a,
                                         const typename T::Memory *student, const typename T::Memory *teacher) {
  Labelled<typename T::Scalar> label = {};
  if (labels == nullptr || labels[row] == IGNORED) return label;
  label.is = true;
  label.column = labels[row];
  label.valid = label.column >= 0 && label.column < a.vocabulary;
  if (!label.valid) return label;
  label.student = Access<T>::one(student + label.column);
  if (teacher != nullptr) label.teacher = Access<T>::one(teacher + label.column);
  return label;
}

template <class T>
FN void walk(const Rows &a, int64_t row, typename T::Scalar *columns, Need<typename T::Scalar> need) {
  using Scalar = typename T::Scalar;
  auto *student = static_cast<typename T::Memory *>(a.student) + row * a.vocabulary;
  const auto *teacher = static_cast<const typename T::Memory *>(a.teacher);
  if (teacher != nullptr) teacher += row * a.vocabulary;
  auto label = labelled<T>(a.labels, row, a, student, teacher);
  auto next = labelled<T>(a.next_labels, row, a, student, teacher);
  auto sums = sums_of<T>(student, teacher, a.vocabulary, need);
  values_of(static_cast<Scalar *>(a.values) + row * VALUES, a, sums, label, next);
  if (!a.with_gradient) return;
  Scalar label_weight = label.is ? Scalar(a.label_weight) : 0, next_weight = next.is ? Scalar(a.next_weight) : 0;
  auto slope = slope_of(a, sums, label_weight + next_weight);
  write_gradient<T>(student, teacher, columns, a.vocabulary, slope, need);
  auto settle = [&](const auto &one, Scalar weight, const auto &other, Scalar other_weight) {
    if (!one.valid) return;
    Scalar all = weight + (other.valid && other.column == one.column ? other_weight : 0);
    Access<T>::store_one(student + one.column, gradient(one.student, one.teacher, slope, need) - all);
    if (columns != nullptr) columns[one.column] -= weight;
  };
  settle(label, label_weight, next, next_weight);
  settle(next, next_weight, label, label_weight);
}

// The kinds of rows that occur are compiled each for itself: there `need` is constant but for the temperature.
template <class T>
void row_loss(const Rows &a, int64_t row, typename T::Scalar *columns) {
  bool hard = a.labels[row] != IGNORED || (a.next_labels != nullptr && a.next_labels[row] != IGNORED);
  auto need = need_of<typename T::Scalar>(a, hard);
  auto with = [&](bool soft, bool hard, bool squares) {
    auto constant = need;
    constant.soft = soft, constant.hard = hard, constant.squares = squares;
    return constant;
  };
  if (need.squares) {
    walk<T>(a, row, columns, need);
  } else if (need.soft && hard) {
    walk<T>(a, row, columns, with(true, true, false));
  } else if (need.soft) {
    walk<T>(a, row, columns, with(true, false, false));
  } else if (hard) {
    walk<T>(a, row, columns, with(false, true, false));
  } else {
    memset(static_cast<typename T::Scalar *>(a.values) + row * VALUES, 0, VALUES * sizeof(typename T::Scalar));
    auto *student = static_cast<typename T::Memory *>(a.student) + row * a.vocabulary;
    if (a.with_gradient) memset(student, 0, a.vocabulary * sizeof(*student));
  }
}

// --- all rows -------------------------------------------------------------------------------------------------------

// Rows whose gradients are added up by themselves: a sum over a thousand rows, one by one, would lose three digits.
constexpr int64_t ADDED_BY_THEMSELVES = 32;

template <class T>
void all_rows(const Rows &a) {
  using Scalar = typename T::Scalar;
  auto *columns = static_cast<Scalar *>(a.columns), *bias_gradient = static_cast<Scalar *>(a.bias_gradient);
  const int64_t count = a.vocabulary;
  in_parallel(a.threads, a.rows, [&](int thread, int64_t first, int64_t last) {
    Scalar *sum = columns == nullptr ? nullptr : columns + 2 * thread * count;
    Scalar *part = columns == nullptr ? nullptr : sum + count;
    if (columns != nullptr) memset(sum, 0, 2 * count * sizeof(Scalar));
    for (int64_t row = first; row < last; row++) {
      row_loss<T>(a, row, part);
      if (columns == nullptr || ((row + 1 - first) % ADDED_BY_THEMSELVES != 0 && row + 1 != last)) continue;
      for (int64_t v = 0; v < count; v++) sum[v] += part[v];
      memset(part, 0, count * sizeof(Scalar));
    }
  });
  if (columns == nullptr) return;
  in_parallel(a.threads, count, [&](int, int64_t first, int64_t last) {
    for (int thread = 0; thread < a.threads; thread++)
      for (int64_t v = first; v < last; v++) bias_gradient[v] += columns[2 * thread * count + v];
  });
}

// 0, or 1 for a type that there is not.
extern "C" int loss_rows(const Rows *a, int type) {
  return with_type(type, [&](auto t) { all_rows<decltype(t)>(*a); });
}

