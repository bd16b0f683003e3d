// The triple loss on a GPU, compute capability 7.0 and up: a block takes a row, each of its threads every n-th word.
// Nothing is summed by atomics: equal inputs give equal bits.
#include "gpu.h"
#include "loss.h"

// --- the logits -----------------------------------------------------------------------------------------------------

template <class S>
FN Sums<S> merged_over_warp(Sums<S> own, const Need<S> &need) {
  for (unsigned step = WARP / 2; step; step /= 2) {
    Sums<S> other = {__shfl_down_sync(ALL, own.student_max, step),  __shfl_down_sync(ALL, own.teacher_max, step),
                     __shfl_down_sync(ALL, own.student_soft, step), __shfl_down_sync(ALL, own.student_hard, step),
                     __shfl_down_sync(ALL, own.teacher_soft, step), __shfl_down_sync(ALL, own.teacher_hard, step),
                     __shfl_down_sync(ALL, own.gap, step),          __shfl_down_sync(ALL, own.squares, step)};
    own = merged(own, other, need);
  }
  return own;
}

// The sums of all threads, to all threads.
template <class S>
FN Sums<S> merged_over_block(Sums<S> own, const Need<S> &need) {
  __shared__ Sums<S> of_warp[WARP];
  unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  own = merged_over_warp(own, need);
  if (lane == 0) of_warp[warp] = own;
  __syncthreads();
  if (warp == 0) {
    own = merged_over_warp(lane < blockDim.x / WARP ? of_warp[lane] : no_sums<S>(), need);
    if (lane == 0) of_warp[0] = own;
  }
  __syncthreads();
  return of_warp[0];
}

template <class T>
FN Labelled<typename T::Scalar> labelled(const long long *labels, const Rows &a, const typename T::Memory *student,
                                         const typename T::Memory *teacher) {
  Labelled<typename T::Scalar> label = {};
  if (labels == nullptr || labels[blockIdx.x] == IGNORED) return label;
  label.is = true;
  label.column = labels[blockIdx.x];
  label.valid = label.column >= 0 && label.column < a.vocabulary;
  if (!label.valid) return label;
  label.student = T::widened(student[label.column]);
  if (teacher != nullptr) label.teacher = T::widened(teacher[label.column]);
  return label;
}

// KEPT: the row is held in shared memory between its two walks (2 x words x 16 bytes), so that it is read once.
template <class T, bool KEPT>
FN void loss_row(const Rows &a) {
  using S = typename T::Scalar;
  using L = Line<T>;
  constexpr int K = L::K;
  DYNAMIC_SHARED(kept);
  const long long row = blockIdx.x, start = row * a.vocabulary;
  const L line(a.student, row, a.vocabulary);
  auto *student = static_cast<typename T::Memory *>(a.student) + start;
  const auto *teacher = static_cast<const typename T::Memory *>(a.teacher);
  if (teacher != nullptr) teacher += start;
  auto label = labelled<T>(a.labels, a, student, teacher), next = labelled<T>(a.next_labels, a, student, teacher);
  const auto need = need_of<S>(a, label.is || next.is);

  Sums<S> sums = no_sums<S>();
  S s[K], t[K] = {};
  for (long long w = threadIdx.x; w < line.words; w += blockDim.x) {
    typename L::Word word = line.read(student, w);
    line.unpack(word, w, s, S(LOWEST));
    if (KEPT) kept[w] = word.all;
    if (need.soft) {
      word = line.read(teacher, w);
      line.unpack(word, w, t, S(LOWEST));
      if (KEPT) kept[line.words + w] = word.all;
    }
    meet(sums, s, t, need);
  }
  sums = merged_over_block(sums, need);
  if (threadIdx.x == 0) values_of(static_cast<S *>(a.values) + row * VALUES, a, sums, label, next);
  if (!a.with_gradient) return;

  S label_weight = label.is ? S(a.label_weight) : S(0), next_weight = next.is ? S(a.next_weight) : S(0);
  const auto slope = slope_of(a, sums, label_weight + next_weight);
  for (long long w = threadIdx.x; w < line.words; w += blockDim.x) {
    typename L::Word word;
    if (KEPT) word.all = kept[w]; else word = line.read(student, w);
    line.unpack(word, w, s, S(LOWEST));
    if (need.soft) {
      if (KEPT) word.all = kept[line.words + w]; else word = line.read(teacher, w);
      line.unpack(word, w, t, S(LOWEST));
    }
    for (int k = 0; k < K; k++) word.each[k] = T::narrowed(gradient(s[k], t[k], slope, need));
    line.write(student, w, word);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  bool same = label.valid && next.valid && label.column == next.column;
  if (label.valid)
    student[label.column] = T::narrowed(gradient(label.student, label.teacher, slope, need) - label_weight -
                                        (same ? next_weight : S(0)));
  if (next.valid && !same)
    student[next.column] = T::narrowed(gradient(next.student, next.teacher, slope, need) - next_weight);
}

// --- the cosine: a warp takes a row ---------------------------------------------------------------------------------

template <class S>
FN S sum_over_warp(S own) {
  for (unsigned step = WARP / 2; step; step /= 2) own += __shfl_down_sync(ALL, own, step);
  return own;
}

template <class T>
FN void cosine_row(const Cosines &a) {
  using S = typename T::Scalar;
  using L = Line<T>;
  const long long row = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, start = row * a.width;
  if (row >= a.rows) return;
  const L line(a.student, row, a.width);
  S dot = 0, student_squares = 0, teacher_squares = 0, s[L::K], t[L::K];
  for (long long w = threadIdx.x % WARP; w < line.words; w += WARP) {
    line.unpack(line.read(static_cast<const typename T::Memory *>(a.student) + start, w), w, s, S(0));
    line.unpack(line.read(static_cast<const typename T::Memory *>(a.teacher) + start, w), w, t, S(0));
    for (int k = 0; k < L::K; k++) {
      dot += s[k] * t[k];
      student_squares += s[k] * s[k];
      teacher_squares += t[k] * t[k];
    }
  }
  dot = sum_over_warp(dot);
  student_squares = sum_over_warp(student_squares);
  teacher_squares = sum_over_warp(teacher_squares);
  if (threadIdx.x % WARP == 0)
    cosine_of(dot, student_squares, teacher_squares, static_cast<S *>(a.values) + row,
              static_cast<S *>(a.factors) + 2 * row);
}

template <class T>
FN void cosine_gradient_row(const Cosines &a) {
  using S = typename T::Scalar;
  using L = Line<T>;
  const long long row = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, start = row * a.width;
  if (row >= a.rows) return;
  const L line(a.student, row, a.width);
  const S scale = *static_cast<const S *>(a.scale);
  const S of_teacher = static_cast<const S *>(a.factors)[2 * row] * scale;
  const S of_student = static_cast<const S *>(a.factors)[2 * row + 1] * scale;
  S s[L::K], t[L::K];
  for (long long w = threadIdx.x % WARP; w < line.words; w += WARP) {
    typename L::Word word = line.read(static_cast<const typename T::Memory *>(a.student) + start, w);
    line.unpack(word, w, s, S(0));
    line.unpack(line.read(static_cast<const typename T::Memory *>(a.teacher) + start, w), w, t, S(0));
    for (int k = 0; k < L::K; k++) word.each[k] = T::narrowed(s[k] * of_student - t[k] * of_teacher);
    line.write(static_cast<typename T::Memory *>(a.gradient) + start, w, word);
  }
}

#define KERNELS(name, T) \
  extern "C" __global__ void __launch_bounds__(512) loss_rows_##name(Rows a) { loss_row<T, false>(a); }               \
  extern "C" __global__ void __launch_bounds__(1024) loss_rows_kept_##name(Rows a) { loss_row<T, true>(a); }          \
  extern "C" __global__ void __launch_bounds__(128) cosines_##name(Cosines a) { cosine_row<T>(a); }                   \
  extern "C" __global__ void __launch_bounds__(128) cosine_gradients_##name(Cosines a) { cosine_gradient_row<T>(a); }

KERNELS(float32, Float32)
KERNELS(bfloat16, BFloat16)
KERNELS(float16, Float16)
KERNELS(float64, Float64)
