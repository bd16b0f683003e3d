// The arithmetic of the triple loss, the same for a CPU's vector lanes and a GPU's threads.
//
// Who includes this defines FN (how a function is declared), `exp2_of(F)` and `larger(F, F)` for each F it computes
// with (float, double, or a vector of floats whose lanes are independent), and for the scalar ones `log_of(F)` and
// `root_of(F)`.
//
// For one row of V logits s of the student and t of the teacher, at temperature T:
//   KL   = T^2 sum_v p_v log(p_v / q_v),  p = softmax(t / T), q = softmax(s / T)
//   CE   = log sum_v exp(s_v) - s_label
//   MSE  = sum_v (s_v - t_v)^2
// A lane walks over its logits K at a time and keeps sums relative to the largest logit it has met (the online softmax
// of Milakov and Gimelshein 2018, arXiv 1805.02867); lanes are merged; a second walk writes the gradient.
#pragma once

struct Rows {
  void *student;                 // R x V logits; overwritten with the gradient
  const void *teacher;           // R x V logits; null: no KL and no MSE
  const long long *labels;       // R, IGNORED where a row has none
  const long long *next_labels;  // R or null
  void *values;                  // R x VALUES, float (double for double logits)
  void *columns;                 // CPU: threads x 2 x V of scratch for the bias's gradient, or null; as `values`
  void *bias_gradient;           // CPU: V, added to; as `values`
  long long rows, vocabulary;
  double temperature;
  double kl_weight, label_weight, next_weight, square_weight;  // of the gradient's parts
  int with_gradient, threads;
};

struct Cosines {
  const void *student, *teacher;  // N x H
  void *values;                   // N: 1 - cos
  void *factors;                  // N x 2: the gradient is factors[1] * s - factors[0] * t
  void *gradient;                 // N x H
  const void *scale;              // one number on the device: what the gradient is multiplied by
  long long rows, width;
  int threads;
};

enum { KL, LABEL, NEXT, TEACHER_LABEL, SQUARES, VALUES };
constexpr long long IGNORED = -100;
constexpr double LOG2_E = 1.4426950408889634;
// Stands for "no logit": below every logit, and finite, so that a difference of two is 0 and never NaN.
constexpr double LOWEST = -1e37;

// What a lane has summed over the logits it has met. "soft" is at temperature T, "hard" at 1.
template <class F>
struct Sums {
  F student_max, teacher_max, student_soft, student_hard, teacher_soft, teacher_hard;
  F gap;      // sum exp((t - teacher_max) / T) (t - s)
  F squares;  // sum (s - t)^2
};

template <class F>
FN Sums<F> no_sums() {
  F zero = F(), lowest = zero + float(LOWEST);
  return {lowest, lowest, zero, zero, zero, zero, zero, zero};
}

// What a row needs; the same for all its lanes, of which S is the scalar.
template <class S>
struct Need {
  bool soft, hard, squares;
  S temperature, to_soft, to_hard;  // exp(x / T) = exp2(x to_soft), exp(x) = exp2(x to_hard)
};

template <class S>
FN Need<S> need_of(const Rows &a, bool hard) {
  bool soft = a.teacher != nullptr;
  return {soft, hard, soft && a.square_weight != 0, S(a.temperature), S(LOG2_E / a.temperature), S(LOG2_E)};
}

// exp(x) for x <= 0, given soft = exp(x / T): at T = 1 and 2 without another exponential.
template <class F, class S>
FN F hard_of(F x, F soft, const Need<S> &need) {
  if (need.temperature == 2) return soft * soft;
  if (need.temperature == 1) return soft;
  return exp2_of(x * need.to_hard);
}

template <class F, int K>
FN F rise(F top, const F (&x)[K]) {
  for (int k = 0; k < K; k++) top = larger(top, x[k]);
  return top;
}

// Take K more logits of each lane into its sums. Student and teacher pass through the same operations in the same
// order, so that equal logits have equal sums and a divergence of exactly 0.
template <class F, int K, class S>
FN void meet(Sums<F> &row, const F (&s)[K], const F (&t)[K], const Need<S> &need) {
  F top = rise(row.student_max, s);
  F fall = row.student_max - top;
  if (need.soft) {
    F lower = exp2_of(fall * need.to_soft);
    row.student_soft = row.student_soft * lower;
    if (need.hard) row.student_hard = row.student_hard * hard_of(fall, lower, need);
    for (int k = 0; k < K; k++) {
      F x = s[k] - top, e = exp2_of(x * need.to_soft);
      row.student_soft = row.student_soft + e;
      if (need.hard) row.student_hard = row.student_hard + hard_of(x, e, need);
    }
  } else if (need.hard) {
    row.student_hard = row.student_hard * exp2_of(fall * need.to_hard);
    for (int k = 0; k < K; k++) row.student_hard = row.student_hard + exp2_of((s[k] - top) * need.to_hard);
  }
  row.student_max = top;
  if (!need.soft) return;
  top = rise(row.teacher_max, t);
  fall = row.teacher_max - top;
  F lower = exp2_of(fall * need.to_soft);
  row.teacher_soft = row.teacher_soft * lower;
  row.gap = row.gap * lower;
  if (need.hard) row.teacher_hard = row.teacher_hard * hard_of(fall, lower, need);
  for (int k = 0; k < K; k++) {
    F x = t[k] - top, e = exp2_of(x * need.to_soft), apart = t[k] - s[k];
    row.teacher_soft = row.teacher_soft + e;
    row.gap = row.gap + e * apart;
    if (need.squares) row.squares = row.squares + apart * apart;
    if (need.hard) row.teacher_hard = row.teacher_hard + hard_of(x, e, need);
  }
  row.teacher_max = top;
}

// The sums over what two lanes have met.
template <class F, class S>
FN Sums<F> merged(const Sums<F> &a, const Sums<F> &b, const Need<S> &need) {
  Sums<F> both;
  both.student_max = larger(a.student_max, b.student_max);
  both.teacher_max = larger(a.teacher_max, b.teacher_max);
  F sa = a.student_max - both.student_max, sb = b.student_max - both.student_max;
  F ta = a.teacher_max - both.teacher_max, tb = b.teacher_max - both.teacher_max;
  F ea = exp2_of(sa * need.to_soft), eb = exp2_of(sb * need.to_soft);
  both.student_soft = a.student_soft * ea + b.student_soft * eb;
  both.student_hard = a.student_hard * exp2_of(sa * need.to_hard) + b.student_hard * exp2_of(sb * need.to_hard);
  ea = exp2_of(ta * need.to_soft), eb = exp2_of(tb * need.to_soft);
  both.teacher_soft = a.teacher_soft * ea + b.teacher_soft * eb;
  both.gap = a.gap * ea + b.gap * eb;
  both.teacher_hard = a.teacher_hard * exp2_of(ta * need.to_hard) + b.teacher_hard * exp2_of(tb * need.to_hard);
  both.squares = a.squares + b.squares;
  return both;
}

// What the gradient of a row is made of, once its sums are known.
template <class F>
struct Slope {
  F student_max, teacher_max;
  F ratio;  // of the teacher's sum to the student's: of equal logits 1, and then q - p is exactly 0, fused or not
  F soft, hard, square;
};

template <class F>
FN Slope<F> slope_of(const Rows &a, const Sums<F> &row, F hard_weight) {
  F soft = F(a.kl_weight * a.temperature);  // d (T^2 KL) / d s_v = T (q_v - p_v)
  return {row.student_max, row.teacher_max, row.teacher_soft / row.student_soft, soft / row.teacher_soft,
          hard_weight == 0 ? F(0) : hard_weight / row.student_hard, F(2 * a.square_weight)};
}

// d loss / d s_v, but for the label's own share.
template <class F, class S>
FN F gradient(F s, F t, const Slope<S> &at, const Need<S> &need) {
  F x = s - at.student_max, result = x * 0;
  if (need.soft) {
    F e = exp2_of(x * need.to_soft);
    result = (e * at.ratio - exp2_of((t - at.teacher_max) * need.to_soft)) * at.soft;
    if (need.hard) result = result + hard_of(x, e, need) * at.hard;
    if (need.squares) result = result + (s - t) * at.square;
  } else if (need.hard) {
    result = exp2_of(x * need.to_hard) * at.hard;
  }
  return result;
}

// The numbers a row adds to the loss. A label that is no id of the vocabulary gives NaN, never another row's number.
template <class F>
struct Labelled {
  bool is, valid;
  long long column;
  F student, teacher;  // the label's logits
};

template <class F>
FN F cross_entropy(F log_hard, F top, F at_label, bool valid) {
  return valid ? log_hard + (top - at_label) : log_of(F(-1));
}

template <class F>
FN void values_of(F *values, const Rows &a, const Sums<F> &row, const Labelled<F> &label, const Labelled<F> &next) {
  for (int i = 0; i < VALUES; i++) values[i] = 0;
  if (a.teacher != nullptr) {
    F t = F(a.temperature);
    F apart = (row.gap / row.teacher_soft - (row.teacher_max - row.student_max)) / t;
    values[KL] = t * t * (apart + (log_of(row.student_soft) - log_of(row.teacher_soft)));
    values[SQUARES] = row.squares;
  }
  if (!label.is && !next.is) return;
  F log_hard = log_of(row.student_hard);
  if (label.is) {
    values[LABEL] = cross_entropy(log_hard, row.student_max, label.student, label.valid);
    if (a.teacher != nullptr)
      values[TEACHER_LABEL] = cross_entropy(log_of(row.teacher_hard), row.teacher_max, label.teacher, label.valid);
  }
  if (next.is) values[NEXT] = cross_entropy(log_hard, row.student_max, next.student, next.valid);
}

// 1 - cos(s, t) of two vectors by their sums, and the two factors of its gradient. Norms are at least 1e-8.
template <class F>
FN void cosine_of(F dot, F student_squares, F teacher_squares, F *value, F *factors) {
  F least = F(1e-16);
  F ss = larger(student_squares, least), tt = larger(teacher_squares, least);
  F per_norms = 1 / (root_of(ss) * root_of(tt)), cosine = dot * per_norms;
  *value = 1 - cosine;
  factors[0] = per_norms;
  factors[1] = cosine / ss;
}
