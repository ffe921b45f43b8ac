// The entry points: plans the pass over memory, picks the instruction set, runs, adds up the loss.
#include <algorithm>
#include <cfenv>
#include <cstdint>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "problem.hpp"
#include "threads.hpp"

namespace ulfd {

#define ULFD_DECLARE(name) \
  namespace name {         \
  extern const Kernels kernels; \
  }
#if defined(__x86_64__)
ULFD_DECLARE(avx512)
ULFD_DECLARE(avx2)
#endif
ULFD_DECLARE(baseline)

namespace {

const Kernels *const instruction_sets[] = {
#if defined(__x86_64__)
    &avx512::kernels, &avx2::kernels,
#endif
    &baseline::kernels};
constexpr int SETS = sizeof instruction_sets / sizeof *instruction_sets;

bool supported(int index) {
#if defined(__x86_64__)
  if (index == 0)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (index == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return index >= 0 && index < SETS;
}

int best() {
  int index = 0;
  while (!supported(index)) ++index;
  return index;
}

// Outputs of this many bytes or more go around the caches: about half the last level that a few
// cores share. A constant, because systems misreport the size (glibc by a factor of ten, on AMD).
constexpr int64_t STREAMED = int64_t(16) << 20;

int64_t quotient(int64_t a, int64_t b) { return (a + b - 1) / b; }  // rounded up

// Whether the pass can work in place on features of a two-byte dtype: they, σ and the outputs have
// the same dtype, the inputs are aligned to elements and the outputs, which are all there or none, to
// lines of memory.
bool is_packed(const Problem &p) {
  const auto aligned = [](const void *array, uintptr_t to) {
    return reinterpret_cast<uintptr_t>(array) % to == 0;
  };
  const bool full = p.form == FULL;
  const bool wanted = p.by_student && (p.by_log_variance || !full);
  const bool unwanted = !p.by_student && !p.by_log_variance && !p.by_teacher;
  return (p.student_dtype == FLOAT16 || p.student_dtype == BFLOAT16) &&
         p.teacher_dtype == p.student_dtype &&
         (!p.log_variance || p.log_variance_dtype == p.student_dtype) && aligned(p.student, 2) &&
         aligned(p.teacher, 2) && aligned(p.by_student, 64) && aligned(p.by_teacher, 64) &&
         (!full || (aligned(p.log_variance, 2) && aligned(p.by_log_variance, 64))) &&
         (wanted || unwanted);
}

// Whether a reduced form can be walked over in place, with the vectors of any instruction set: tiles
// of whole vectors, or rows that hold one at least.
bool is_even(const Plan &plan) {
  constexpr int64_t MOST_LANES = 16;
  const Problem &p = plan.problem;
  if (p.inner % MOST_LANES == 0) return true;
  return p.form == ROWS ? plan.parts == 1 && p.inner > MOST_LANES
                        : plan.repeat % MOST_LANES == 0 && p.middle % plan.repeat == 0;
}

Plan plan_of(const Problem &p) {
  Plan plan{};
  plan.problem = p;
  plan.size = p.outer * p.middle * p.inner;
  const int64_t width = has_double(p) ? 8 : 4;
  const int outputs = (p.by_student != nullptr) + (p.by_teacher != nullptr) +
                      (p.by_log_variance != nullptr && p.form == FULL);
  plan.streams = outputs * plan.size * width >= STREAMED;
  const int32_t computed = has_double(p) ? FLOAT64 : FLOAT32;
  const auto fits = [&](const void *output, int32_t dtype) {
    return !output || (dtype == computed && reinterpret_cast<uintptr_t>(output) % 64 == 0);
  };
  plan.direct = fits(p.by_student, p.student_dtype) && fits(p.by_teacher, p.teacher_dtype) &&
                (p.form != FULL || fits(p.by_log_variance, p.log_variance_dtype));
  plan.packed = is_packed(p);
  plan.parts = plan.repeat = plan.sigma_outer = plan.first = plan.second = 1;
  if (p.form == FULL) {
    plan.items = quotient(plan.size, ITEM);
    return plan;
  }
  plan.sigma_inner = p.middle;
  if (p.form == ROWS) {
    plan.parts = std::max<int64_t>(quotient(p.inner, ITEM), 1);
    plan.group = std::clamp<int64_t>(ITEM / std::max<int64_t>(p.inner, 1), 1, MOST_ROWS);
    if (plan.group > 16) plan.group -= plan.group % 16;  // items begin on a whole line of memory
    plan.items = plan.parts > 1 ? p.outer * p.middle * plan.parts
                                : quotient(p.outer * p.middle, plan.group);
    plan.first = p.outer;
    plan.second = plan.parts;
    plan.reduced = p.outer * p.inner;
  } else {
    plan.repeat = std::max<int64_t>(1, TILE / std::max<int64_t>(p.inner, 1));
    if (plan.repeat > 16) plan.repeat -= plan.repeat % 16;
    plan.repeat = std::clamp<int64_t>(p.middle, 1, plan.repeat);
    plan.stack = STACKED * plan.repeat;
    plan.row_blocks = quotient(p.middle, plan.stack);
    plan.column_blocks = quotient(p.inner, TILE);
    plan.items = p.outer * plan.row_blocks * plan.column_blocks;
    plan.sigma_outer = p.outer;
    plan.first = plan.row_blocks;
    plan.sigma_inner = p.inner;
    plan.reduced = p.middle;
  }
  plan.packed = plan.packed && is_even(plan);
  if (plan.size == 0) plan.items = plan.first = 0;  // sums of nothing
  plan.finishes = quotient(plan.sigma_outer * plan.sigma_inner, TILE);
  return plan;
}

// Asks for huge pages under a large output: it is fresh memory, and its first touch costs a fault for
// every 4 KiB otherwise, which takes several times as long as all the rest.
void expect_writes(void *output, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t PAGE = uintptr_t(2) << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(output) + PAGE - 1) / PAGE * PAGE;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(output) + bytes) / PAGE * PAGE;
  if (output && begin < end) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)output, (void)bytes;
#endif
}

int64_t bytes_of(int32_t dtype, int64_t size) {
  return size * (dtype == FLOAT64 ? 8 : dtype == FLOAT32 ? 4 : 2);
}

// The default arithmetic while the kernel works, in which subnormal numbers are numbers, whatever
// the caller has chosen or code built with -ffast-math has left behind. The pool's threads are started
// in it and inherit it.
class DefaultArithmetic {
 public:
  DefaultArithmetic() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultArithmetic() { std::fesetenv(&before_); }
  DefaultArithmetic(const DefaultArithmetic &) = delete;

 private:
  std::fenv_t before_;
};

struct Work {
  Plan plan;
  const Kernels *kernels;
};

}  // namespace
}  // namespace ulfd

int ulfd_fused(const ulfd::Problem *problem) {
  using namespace ulfd;
  const DefaultArithmetic arithmetic;
  const int index = problem->instructions < 0 ? best() : problem->instructions;
  if (!supported(index)) return 2;
  Work work{plan_of(*problem), instruction_sets[index]};
  Plan &plan = work.plan;
  const bool wide = has_double(*problem);
  const int threads =
      static_cast<int>(std::min<int64_t>(problem->threads, plan.size / SHARE + 1));
  const int64_t sums = plan.sigma_outer * plan.first * plan.sigma_inner * plan.second;
  const int64_t addends = plan.finishes ? plan.finishes : plan.items;
  const std::unique_ptr<double[]> losses(new (std::nothrow) double[addends]);
  const std::unique_ptr<double[]> partials(new (std::nothrow) double[wide ? sums : sums / 2 + 1]);
  if (!losses || !partials) return 1;
  plan.losses = losses.get();
  plan.partials = partials.get();
  if (plan.streams) {
    expect_writes(problem->by_student, bytes_of(problem->student_dtype, plan.size));
    expect_writes(problem->by_teacher, bytes_of(problem->teacher_dtype, plan.size));
    if (problem->form == FULL)
      expect_writes(problem->by_log_variance, bytes_of(problem->log_variance_dtype, plan.size));
  }
  parallel_for(
      plan.items, threads,
      [](const void *context, int64_t item) {
        const Work &work = *static_cast<const Work *>(context);
        work.kernels->pass(work.plan, item);
      },
      &work);
  if (plan.finishes && (problem->loss || problem->by_log_variance))
    parallel_for(
        plan.finishes, threads,
        [](const void *context, int64_t item) {
          const Work &work = *static_cast<const Work *>(context);
          work.kernels->finish(work.plan, item);
        },
        &work);
  if (problem->loss) {
    double loss = 0;
    for (int64_t addend = 0; addend < addends; ++addend) loss += losses[addend];
    loss *= problem->scale;
    if (wide)
      *static_cast<double *>(problem->loss) = loss;
    else
      *static_cast<float *>(problem->loss) = static_cast<float>(loss);
  }
  return 0;
}

const char *ulfd_instructions(int32_t index) {
  if (index < 0) index = ulfd::best();
  return ulfd::supported(index) ? ulfd::instruction_sets[index]->name : nullptr;
}
