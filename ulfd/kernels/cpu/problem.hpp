// What the kernel is asked to compute: the C ABI that every binding fills in, and the loop over
// memory that follows from it.
#pragma once

#include <cstdint>

namespace ulfd {

enum Dtype : int32_t { FLOAT32 = 0, FLOAT64 = 1, FLOAT16 = 2, BFLOAT16 = 3 };

// How σ lies along the features' memory, which is three runs of axes, outermost first.
enum Form : int32_t {
  FULL = 0,     // [middle]: one σ an element (outer = inner = 1)
  ROWS = 1,     // [outer summed][middle kept][inner summed]: σ is constant along each row
  COLUMNS = 2,  // [outer kept][middle summed][inner kept]: σ is one row, used again and again
};

// The arrays are dense and lie in the same order; a pointer that is null is absent: no σ (plain
// squared error, form ROWS), no upstream (1), no output wanted. Outputs have their input's dtype,
// loss and upstream that of the arithmetic: float64 if any input is, float32 otherwise.
struct Problem {
  const void *student, *teacher, *log_variance, *upstream;
  void *loss, *by_student, *by_teacher, *by_log_variance;
  int64_t outer, middle, inner;
  double scale, prior_weight, beta, low, high;  // scale is λ / denominator; σ's clamp
  int32_t student_dtype, teacher_dtype, log_variance_dtype;
  int32_t form, threads;
  int32_t instructions;  // an index into instruction_sets, or -1 for the best of this processor
};

constexpr int64_t TILE = 1024;       // elements worked on at a time: five float buffers fit in L1
constexpr int64_t ITEM = 16 * TILE;  // elements that one thread takes at a time
constexpr int64_t SHARE = 4 * ITEM;  // elements that are worth waking one more thread
constexpr int64_t MOST_ROWS = 1024;  // rows in an item at most
constexpr int64_t STACKED = 32;      // tiles that a COLUMNS item adds up

// The division into items does not depend on the number of threads, nor do the partial sums:
// that is what makes the results the same for any number of them.
struct Plan {
  Problem problem;
  bool streams;  // the outputs exceed the caches: write around them
  bool direct;   // the outputs are aligned and in the dtype of the arithmetic: no staging
  bool packed;   // all arrays have one two-byte dtype and lie well: the pass works on them in place
  int64_t size;
  int64_t items;    // of the pass over the features
  int64_t finishes; // of the pass over σ that follows where σ was reduced
  // ROWS: an item is `group` rows, or one of `parts` parts of a row.
  int64_t group, parts;
  // COLUMNS: an item is `stack` rows of a block of columns; narrow rows are taken `repeat` at once.
  int64_t repeat, stack, row_blocks, column_blocks;
  // Partial sums of exp(−σ)·d² as [sigma_outer][first][sigma_inner][second]; summed over the
  // second and fourth axis they belong to one σ, which stands for `reduced` elements.
  int64_t sigma_outer, first, sigma_inner, second, reduced;
  void *partials;
  double *losses;  // one for each item of the last pass
};

// One translation unit for each instruction set provides these two.
struct Kernels {
  const char *name;
  void (*pass)(const Plan &, int64_t item);
  void (*finish)(const Plan &, int64_t item);
};

// The arithmetic is in double if any input is.
inline bool has_double(const Problem &p) {
  return p.student_dtype == FLOAT64 || p.teacher_dtype == FLOAT64 ||
         (p.log_variance && p.log_variance_dtype == FLOAT64);
}

}  // namespace ulfd

#define ULFD_EXPORT extern "C" __attribute__((visibility("default")))

// Computes what `problem` has pointers for. Returns 0, or 1 if memory ran out, or 2 if this
// processor or this build lacks the instruction set that was asked for.
ULFD_EXPORT int ulfd_fused(const ulfd::Problem *problem);
// The name of an instruction set, -1 being the best of this processor, or null if it has no such.
ULFD_EXPORT const char *ulfd_instructions(int32_t index);
