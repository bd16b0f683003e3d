// The cosine term on a CPU, and the sums and products of whole tensors that join the chunks' weight gradients.
#include <sys/mman.h>

#include "cpu.h"
#include "loss.h"

template <class T>
FN typename T::Scalar sum_of(typename T::Lane lanes) {
  constexpr int SIZE = Access<T>::SIZE;
  typename T::Scalar each[SIZE];
  memcpy(each, &lanes, sizeof(each));
  for (int half = SIZE / 2; half; half /= 2)
    for (int i = 0; i < half; i++) each[i] += each[i + half];
  return each[0];
}

template <class T>
void cosine_row(const Cosines &a, int64_t row) {
  using A = Access<T>;
  using Scalar = typename A::Scalar;
  const auto *student = static_cast<const typename A::Memory *>(a.student) + row * a.width;
  const auto *teacher = static_cast<const typename A::Memory *>(a.teacher) + row * a.width;
  typename A::Lane dot = {}, student_squares = {}, teacher_squares = {};
  for (int64_t h = 0; h < a.width; h += A::SIZE) {
    bool whole = h + A::SIZE <= a.width;
    auto s = whole ? A::load(student + h) : A::load(student + h, a.width - h, 0);
    auto t = whole ? A::load(teacher + h) : A::load(teacher + h, a.width - h, 0);
    dot += s * t, student_squares += s * s, teacher_squares += t * t;
  }
  cosine_of(sum_of<T>(dot), sum_of<T>(student_squares), sum_of<T>(teacher_squares),
            static_cast<Scalar *>(a.values) + row, static_cast<Scalar *>(a.factors) + 2 * row);
}

template <class T>
void cosine_gradient_row(const Cosines &a, int64_t row) {
  using A = Access<T>;
  using Scalar = typename A::Scalar;
  const auto *student = static_cast<const typename A::Memory *>(a.student) + row * a.width;
  const auto *teacher = static_cast<const typename A::Memory *>(a.teacher) + row * a.width;
  auto *gradient = static_cast<typename A::Memory *>(a.gradient) + row * a.width;
  Scalar scale = *static_cast<const Scalar *>(a.scale);
  const auto *factors = static_cast<const Scalar *>(a.factors) + 2 * row;
  Scalar of_teacher = factors[0] * scale, of_student = factors[1] * scale;
  for (int64_t h = 0; h < a.width; h += A::SIZE) {
    if (h + A::SIZE <= a.width) {
      A::store(gradient + h, A::load(student + h) * of_student - A::load(teacher + h) * of_teacher);
    } else {
      auto s = A::load(student + h, a.width - h, 0), t = A::load(teacher + h, a.width - h, 0);
      A::store(gradient + h, s * of_student - t * of_teacher, a.width - h);
    }
  }
}

// values and factors of every row; as all here, 0, or 1 for a type that there is not.
extern "C" int cosines(const Cosines *a, int type) {
  return with_type(type, [&](auto t) {
    in_parallel(a->threads, a->rows, [&](int, int64_t first, int64_t last) {
      for (int64_t row = first; row < last; row++) cosine_row<decltype(t)>(*a, row);
    });
  });
}

// gradient of every row from its factors.
extern "C" int cosine_gradients(const Cosines *a, int type) {
  return with_type(type, [&](auto t) {
    in_parallel(a->threads, a->rows, [&](int, int64_t first, int64_t last) {
      for (int64_t row = first; row < last; row++) cosine_gradient_row<decltype(t)>(*a, row);
    });
  });
}

// out[i] = product(in[i], out[i]), a lane at a time.
template <class Out, class In, class Product>
FN void each(void *out, const void *in, int64_t count, int threads, Product product) {
  constexpr int SIZE = Access<In>::SIZE;
  auto *to = static_cast<typename Out::Memory *>(out);
  const auto *from = static_cast<const typename In::Memory *>(in);
  in_parallel(threads, count / SIZE, [&](int, int64_t first, int64_t last) {
    for (int64_t i = first * SIZE; i < last * SIZE; i += SIZE)
      Access<Out>::store(to + i, product(Access<In>::load(from + i), Access<Out>::load(to + i)));
  });
  int64_t done = count / SIZE * SIZE, left = count - done;
  if (left == 0) return;
  auto last = product(Access<In>::load(from + done, left, 0), Access<Out>::load(to + done, left, 0));
  Access<Out>::store(to + done, last, left);
}

// sum (float32) += part (bfloat16).
extern "C" void add_bfloat16(void *sum, const void *part, long long count, int threads) {
  each<Float32, BFloat16>(sum, part, count, threads, [](auto in, auto out) { return in + out; });
}

// out (of a type, not double) = in (float32 or bfloat16) * factor; as above, 0, or 1 for types that there are not.
extern "C" int scaled(void *out, const void *in, int out_type, int in_type, double factor, long long count, int threads) {
  if (in_type > 1) return 1;
  return with_type(out_type, [&](auto t) {
    using Out = decltype(t);
    auto product = [&](auto in, auto) { return in * float(factor); };
    if constexpr (std::is_same_v<typename Out::Scalar, float>)
      in_type == 0 ? each<Out, Float32>(out, in, count, threads, product)
                   : each<Out, BFloat16>(out, in, count, threads, product);
  });
}

// Ask for pages of 2 MiB for memory that has not been touched yet: a step touches a hundred MiB anew, and in pages of
// 4 KiB that takes as long as the loss itself. A wish: where it is not granted nothing changes.
extern "C" void use_huge_pages(void *memory, long long bytes) {
#ifdef MADV_HUGEPAGE
  const uintptr_t page = 4096, first = (reinterpret_cast<uintptr_t>(memory) + page - 1) & ~(page - 1);
  const uintptr_t last = (reinterpret_cast<uintptr_t>(memory) + bytes) & ~(page - 1);
  if (last > first) madvise(reinterpret_cast<void *>(first), last - first, MADV_HUGEPAGE);
#endif
}
