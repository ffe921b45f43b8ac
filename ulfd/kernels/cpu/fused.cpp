// The fused kernel: the loss of ulfd/losses.py and the gradients of ulfd/gradients.py in one pass
// over memory. Compiled once for each instruction set; api.cpp picks one when it is called.
//
// With e = exp(−σ/2), r = (ẑ − z)·e, b = exp(β·σ), g = scale·upstream, an element has
//   loss  b·(r² + k·σ)      ∂/∂ẑ = −∂/∂z = 2·g·b·e·r      ∂/∂σ = g·b·(k − r²).
// Where R elements share one σ, both the loss and ∂/∂σ follow from P = Σ r² alone: `pass` leaves
// partial sums of P, and `finish` adds them up, b·(P + R·k·σ) and g·b·(R·k − P).
#include <cmath>
#include <type_traits>

#include "vector.hpp"

namespace ulfd::ULFD_INSTRUCTIONS {
namespace {

constexpr int64_t PAD = 64;  // room for the lanes of the last vector

template <class T>
struct Constants {
  T prior, beta, low, high, factor;
  bool plain;  // neither β nor a clamp
  explicit Constants(const Problem &p)
      : prior(T(p.prior_weight)), beta(T(p.beta)), low(T(p.low)), high(T(p.high)) {
    if (!p.log_variance) beta = 0, low = -INFINITY, high = INFINITY;  // no σ, nothing to limit
    plain = beta == 0 && low == -INFINITY && high == INFINITY;
    T upstream = 1;
    if (p.upstream) std::memcpy(&upstream, p.upstream, sizeof upstream);
    factor = upstream * T(p.scale);
  }
};

template <class T>
inline Vector<T> clamped(Vector<T> sigma, const Constants<T> &c) {  // NaN stays NaN
  sigma = sigma < c.low ? all(c.low) : sigma;
  return sigma > c.high ? all(c.high) : sigma;
}

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Where gradients are written, as elements of type S; teacher is null if it is not wanted.
template <class S>
struct Targets {
  S *student, *teacher, *sigma;
};

// Where a tile's gradients are written: the outputs themselves if they are `direct`, otherwise
// buffers that `close` converts and copies. The tile functions write whole vectors, with stores
// around the caches if `streams`.
template <class T>
struct Outputs : Targets<T> {
  using Targets<T>::student, Targets<T>::teacher, Targets<T>::sigma;
  bool direct, streams;
  alignas(64) T buffers[3][TILE + PAD];

  void open(const Plan &plan, int64_t at, int64_t count, bool whole_vectors) {
    const Problem &p = plan.problem;
    direct = plan.direct && whole_vectors && at % (64 / sizeof(T)) == 0 && count % LANES<T> == 0;
    streams = direct && plan.streams;
    student = place(p.by_student, at, buffers[0]);
    teacher = p.by_teacher ? place(p.by_teacher, at, buffers[1]) : nullptr;
    sigma = place(p.by_log_variance, at, buffers[2]);
  }
  T *place(void *array, int64_t at, T *buffer) const {
    return direct && array ? static_cast<T *>(array) + at : buffer;
  }
  void close(const Plan &plan, int64_t at, int64_t count, bool with_sigma) const {
    const Problem &p = plan.problem;
    if (direct) return;
    if (p.by_student) write(student, p.by_student, p.student_dtype, at, count, plan.streams);
    if (p.by_teacher) write(teacher, p.by_teacher, p.teacher_dtype, at, count, plan.streams);
    if (p.by_log_variance && with_sigma)
      write(sigma, p.by_log_variance, p.log_variance_dtype, at, count, plan.streams);
  }
};

// The features of a tile and where their gradients go, as elements of type S: T, staged where they do
// not lie well, or a two-byte type, in place.
template <class T, class S>
struct Tile : Targets<S> {
  using Targets<S>::student, Targets<S>::teacher, Targets<S>::sigma;
  const S *from_student, *from_teacher;
  bool streams;

  void open(const Plan &plan, int64_t at, int64_t, bool whole_vectors) {
    const Problem &p = plan.problem;
    const auto in = [&](const void *array) { return static_cast<const S *>(array) + at; };
    const auto out = [&](void *array) { return array ? static_cast<S *>(array) + at : nullptr; };
    from_student = in(p.student), from_teacher = in(p.teacher);
    student = out(p.by_student), teacher = out(p.by_teacher), sigma = nullptr;
    streams = plan.streams && whole_vectors;
  }
  void close(const Plan &, int64_t, int64_t) const {}
};

template <class T>
struct Tile<T, T> : Outputs<T> {
  const T *from_student, *from_teacher;
  alignas(64) T staged[2][TILE + PAD];

  void open(const Plan &plan, int64_t at, int64_t count, bool whole_vectors) {
    const Problem &p = plan.problem;
    from_student = read(p.student, p.student_dtype, at, count, plan.size, staged[0]);
    from_teacher = read(p.teacher, p.teacher_dtype, at, count, plan.size, staged[1]);
    Outputs<T>::open(plan, at, count, whole_vectors);
  }
  void close(const Plan &plan, int64_t at, int64_t count) const {
    Outputs<T>::close(plan, at, count, false);
  }
};

template <bool STREAMS, class S, class V>
inline void put_features(const Targets<S> &out, int64_t i, V gradient) {
  put<STREAMS>(out.student + i, gradient);
  if (out.teacher) put<STREAMS>(out.teacher + i, -gradient);
}

// What one σ means for its elements: e, and the slope 2·g·b·e of ∂/∂ẑ. Writes whole vectors.
template <class T>
void prepare(const T *sigma, int64_t count, const Constants<T> &c, T *inverse, T *slope) {
  for (int64_t i = 0; i < count; i += LANES<T>) {
    const Vector<T> s = clamped(load(sigma + i), c);
    const Vector<T> e = exp(s, T(-0.5));
    Vector<T> factor = all(c.factor);
    if (c.beta != 0) factor *= exp(c.beta * s);
    store(inverse + i, e);
    store(slope + i, 2 * factor * e);
  }
}

// ------------------------------------------------------------------- one σ an element: no sums

// PLAIN is the usual case, in which the compiler can leave out half the work. S is the elements'
// type in memory.
template <class T, bool GRADIENTS, bool PLAIN, bool STREAMS, class S>
double full_tile(const S *student, const S *teacher, const S *sigma, int64_t count,
                 const Constants<T> &given, const Targets<S> &out) {
  const Constants<T> c = given;
  const auto work = [&](int64_t i) __attribute__((always_inline)) {
    const Pack<S> students = fetch_pack(student + i), teachers = fetch_pack(teacher + i);
    const Pack<S> sigmas = fetch_pack(sigma + i);
    Pack<S> losses, by_student, by_teacher, by_sigma;
    for (int part = 0; part < PARTS<S>; ++part) {
      const Vector<T> raw = sigmas.part[part], s = PLAIN ? raw : clamped(raw, c);
      const Vector<T> d = students.part[part] - teachers.part[part];
      const Vector<T> e = exp(s, T(-0.5)), r = d * e, q = r * r;
      const Vector<T> boost = PLAIN || c.beta == 0 ? all(T(1)) : exp(c.beta * s);
      losses.part[part] = boost * fma(all(c.prior), s, q);
      if (!GRADIENTS) continue;
      const Vector<T> factor = c.factor * boost, slope = factor * (c.prior - q);
      by_student.part[part] = 2 * factor * e * r;
      by_teacher.part[part] = -by_student.part[part];
      by_sigma.part[part] = PLAIN ? slope : (raw < c.low) | (raw > c.high) ? Vector<T>{} : slope;
    }
    if (GRADIENTS) {
      put_pack<STREAMS>(out.student + i, by_student);
      if (out.teacher) put_pack<STREAMS>(out.teacher + i, by_teacher);
      put_pack<STREAMS>(out.sigma + i, by_sigma);
    }
    return in_order(losses);
  };
  constexpr int64_t STEP = PARTS<S> * LANES<T>;
  Vector<T> total{};
  int64_t i = 0;
  for (; i + STEP <= count; i += STEP)
    for (const Vector<T> &loss : work(i).part) total += loss;
  if (i < count) total += lanes<T>(work(i).part[0], 0, count - i);  // packs of two come whole
  return sum<T>(total);
}

// The plain case of arrays of S alone, whole packs of them: no staging, no buffers.
template <bool GRADIENTS, class S>
double packed_tile(const Plan &plan, const Constants<float> &c, int64_t at, int64_t count) {
  const Problem &p = plan.problem;
  const auto in = [&](const void *array) { return static_cast<const S *>(array) + at; };
  const auto out = [&](void *array) { return array ? static_cast<S *>(array) + at : nullptr; };
  const Targets<S> targets{out(p.by_student), out(p.by_teacher), out(p.by_log_variance)};
  const auto tile = plan.streams ? full_tile<float, GRADIENTS, true, true, S>
                                 : full_tile<float, GRADIENTS, true, false, S>;
  return tile(in(p.student), in(p.teacher), in(p.log_variance), count, c, targets);
}

template <bool GRADIENTS>
double packed_tile(const Plan &plan, const Constants<float> &c, int64_t at, int64_t count) {
  return plan.problem.student_dtype == BFLOAT16
             ? packed_tile<GRADIENTS, Bfloat16>(plan, c, at, count)
             : packed_tile<GRADIENTS, Float16>(plan, c, at, count);
}

template <class T, bool GRADIENTS>
void full_item(const Plan &plan, int64_t item) {
  const Problem &p = plan.problem;
  const Constants<T> c(p);
  alignas(64) T buffer[3][TILE + PAD];
  Outputs<T> out;
  const auto tile = [&](auto... arguments) {
    const Targets<T> &targets = out;
    if (!c.plain) return full_tile<T, GRADIENTS, false, false>(arguments..., c, targets);
    return out.streams ? full_tile<T, GRADIENTS, true, true>(arguments..., c, targets)
                       : full_tile<T, GRADIENTS, true, false>(arguments..., c, targets);
  };
  const bool packed =
      c.plain && plan.packed && (CONVERTS_FLOAT16 || p.student_dtype == BFLOAT16);
  double total = 0;
  const int64_t end = smaller((item + 1) * ITEM, plan.size);
  for (int64_t at = item * ITEM; at < end; at += TILE) {
    const int64_t count = smaller(TILE, end - at);
    if constexpr (sizeof(T) == sizeof(float))
      if (packed && count % (2 * LANES<T>) == 0) {
        total += packed_tile<GRADIENTS>(plan, c, at, count);
        continue;
      }
    out.open(plan, at, count, true);
    total += tile(read(p.student, p.student_dtype, at, count, plan.size, buffer[0]),
                  read(p.teacher, p.teacher_dtype, at, count, plan.size, buffer[1]),
                  read(p.log_variance, p.log_variance_dtype, at, count, plan.size, buffer[2]),
                  count);
    out.close(plan, at, count, true);
  }
  plan.losses[item] = total;
}

// ------------------------------------------------------------------ σ is constant along each row

// The sum of r² over elements [begin, end) of a tile, and their gradients.
template <class T, bool GRADIENTS, bool STREAMS, class S>
double row_piece(const Tile<T, S> &tile, int64_t begin, int64_t end, T inverse, T slope) {
  const auto vector = [&](int64_t i) __attribute__((always_inline)) {
    const Vector<T> d = fetch(tile.from_student + i) - fetch(tile.from_teacher + i);
    const Vector<T> r = d * inverse;
    if (GRADIENTS) put_features<STREAMS, S>(tile, i, slope * r);
    return r * r;
  };
  Vector<T> total{};
  int64_t i = begin;
  for (; i + LANES<T> <= end; i += LANES<T>) total += vector(i);
  if (i < end) {
    // In place, what follows is not ours: the last whole vector of the row once more.
    const int64_t from = std::is_same_v<S, T> ? i : end - LANES<T>;
    total += lanes<T>(vector(from), i - from, end - from);
  }
  return sum<T>(total);
}

template <class T, bool GRADIENTS, class S>
void rows_item(const Plan &plan, int64_t item) {
  const Problem &p = plan.problem;
  const Constants<T> c(p);
  alignas(64) T sigma[MOST_ROWS + PAD] = {}, inverse[MOST_ROWS + PAD], slope[MOST_ROWS + PAD];
  Tile<T, S> tile;
  const int64_t rows = p.outer * p.middle, part = item % plan.parts;
  const int64_t first_row = item / plan.parts * plan.group;
  const int64_t count_rows = smaller(plan.group, rows - first_row);
  for (int64_t row = 0, run; p.log_variance && row < count_rows; row += run) {
    const int64_t from = (first_row + row) % p.middle;
    run = smaller(count_rows - row, p.middle - from);
    convert(p.log_variance, p.log_variance_dtype, from, run, sigma + row);
  }
  prepare(sigma, count_rows, c, inverse, slope);

  const int64_t begin = first_row * p.inner + part * ITEM;
  const int64_t end = plan.parts > 1 ? smaller(begin + ITEM, (first_row + 1) * p.inner)
                                     : (first_row + count_rows) * p.inner;
  T *partials = static_cast<T *>(plan.partials) + first_row * plan.parts + part;
  int64_t row = 0, row_end = plan.parts > 1 ? end : begin + p.inner;
  constexpr int64_t STEP = std::is_same_v<S, T> ? TILE : ITEM;  // in place, no row is cut
  double total = 0;
  for (int64_t at = begin; at < end; at += STEP) {
    const int64_t count = smaller(STEP, end - at);
    // A piece's last vector reaches into the next piece, which then overwrites it.
    tile.open(plan, at, count, p.inner % LANES<T> == 0);
    for (int64_t i = 0; i < count;) {
      const int64_t piece = smaller(count, row_end - at);
      const auto sum_of =
          tile.streams ? row_piece<T, GRADIENTS, true, S> : row_piece<T, GRADIENTS, false, S>;
      total += sum_of(tile, i, piece, inverse[row], slope[row]);
      i = piece;
      if (at + i == row_end) {
        partials[row++] = T(total);
        total = 0, row_end += p.inner;
      }
    }
    tile.close(plan, at, count);
  }
}

// ------------------------------------------------------- σ is one row, used for row after row

template <class T, bool GRADIENTS, bool STREAMS, class S>
void columns_tile(const Tile<T, S> &tile, int64_t count, const T *inverse, const T *slope,
                  T *sums) {
  for (int64_t i = 0; i < count; i += LANES<T>) {
    const Vector<T> d = fetch(tile.from_student + i) - fetch(tile.from_teacher + i);
    const Vector<T> r = d * load(inverse + i);
    if (GRADIENTS) put_features<STREAMS, S>(tile, i, load(slope + i) * r);
    store(sums + i, fma(r, r, load(sums + i)));
  }
}

template <class T, bool GRADIENTS, class S>
void columns_item(const Plan &plan, int64_t item) {
  const Problem &p = plan.problem;
  const Constants<T> c(p);
  alignas(64) T sigma[TILE + PAD] = {}, inverse[TILE + PAD], slope[TILE + PAD];
  alignas(64) T sums[TILE + PAD] = {}, scratch[TILE + PAD];
  Tile<T, S> tile;
  const int64_t column_block = item % plan.column_blocks;
  const int64_t row_block = item / plan.column_blocks % plan.row_blocks;
  const int64_t outer = item / plan.column_blocks / plan.row_blocks;
  const int64_t first_column = column_block * TILE;
  const int64_t columns = smaller(TILE, p.inner - first_column), stacked = plan.repeat * columns;
  for (int64_t copy = 0; copy < plan.repeat; ++copy)
    convert(p.log_variance, p.log_variance_dtype, outer * p.inner + first_column, columns,
            sigma + copy * columns);
  prepare(sigma, stacked, c, inverse, slope);

  const int64_t first_row = row_block * plan.stack;
  const int64_t end_row = smaller(first_row + plan.stack, p.middle);
  for (int64_t row = first_row; row < end_row; row += plan.repeat) {
    const int64_t count = smaller(plan.repeat, end_row - row) * columns;
    const int64_t at = (outer * p.middle + row) * p.inner + first_column;
    const bool short_of_rows = count < stacked;
    T *into = short_of_rows ? scratch : sums;  // the lanes beyond `count` must not reach the sums
    if (short_of_rows) std::memcpy(scratch, sums, sizeof sums);
    tile.open(plan, at, count, true);
    const auto work =
        tile.streams ? columns_tile<T, GRADIENTS, true, S> : columns_tile<T, GRADIENTS, false, S>;
    work(tile, count, inverse, slope, into);
    tile.close(plan, at, count);
    if (short_of_rows) std::memcpy(sums, scratch, count * sizeof(T));
  }
  T *partials = static_cast<T *>(plan.partials) +
                (outer * plan.row_blocks + row_block) * p.inner + first_column;
  for (int64_t column = 0; column < columns; ++column) {
    double total = 0;
    for (int64_t copy = 0; copy < plan.repeat; ++copy) total += sums[copy * columns + column];
    partials[column] = T(total);
  }
}

// ----------------------------------------------------------------------- what the sums amount to

template <class T>
void finish_item(const Plan &plan, int64_t item) {
  const Problem &p = plan.problem;
  const Constants<T> c(p);
  const int64_t begin = item * TILE;
  const int64_t count = smaller(TILE, plan.sigma_outer * plan.sigma_inner - begin);
  double sums[TILE] = {}, loss = 0;
  const T *partials[TILE];
  alignas(64) T given[TILE + PAD] = {}, sigma[TILE + PAD], boost[TILE + PAD], by_sigma[TILE];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t outer = (begin + i) / plan.sigma_inner, inner = (begin + i) % plan.sigma_inner;
    partials[i] = static_cast<const T *>(plan.partials) +
                  (outer * plan.first * plan.sigma_inner + inner) * plan.second;
  }
  for (int64_t first = 0; first < plan.first; ++first)
    for (int64_t i = 0; i < count; ++i)
      for (int64_t second = 0; second < plan.second; ++second)
        sums[i] += partials[i][first * plan.sigma_inner * plan.second + second];
  if (p.log_variance) convert(p.log_variance, p.log_variance_dtype, begin, count, given);
  for (int64_t i = 0; i < count; i += LANES<T>) {
    const Vector<T> s = clamped(load(given + i), c);
    store(sigma + i, s);
    store(boost + i, c.beta != 0 ? exp(c.beta * s) : all(T(1)));
  }
  const double prior = p.log_variance ? p.prior_weight * double(plan.reduced) : 0;
  for (int64_t i = 0; i < count; ++i) {
    loss += boost[i] * (sums[i] + prior * sigma[i]);
    const bool acts = given[i] < c.low || given[i] > c.high;
    by_sigma[i] = acts ? T(0) : T(c.factor * boost[i] * (prior - sums[i]));
  }
  if (p.by_log_variance)
    write(by_sigma, p.by_log_variance, p.log_variance_dtype, begin, count, false);
  plan.losses[item] = loss;
}

// -------------------------------------------------------------------------------- the entrances

template <class T, bool GRADIENTS, class S>
void reduced_as(const Plan &plan, int64_t item) {
  plan.problem.form == ROWS ? rows_item<T, GRADIENTS, S>(plan, item)
                            : columns_item<T, GRADIENTS, S>(plan, item);
}

template <class T, bool GRADIENTS>
void pass_as(const Plan &plan, int64_t item) {
  if (plan.problem.form == FULL) return full_item<T, GRADIENTS>(plan, item);
  if constexpr (sizeof(T) == sizeof(float)) {
    if (plan.packed && plan.problem.student_dtype == BFLOAT16)
      return reduced_as<T, GRADIENTS, Bfloat16>(plan, item);
    if (plan.packed && CONVERTS_FLOAT16) return reduced_as<T, GRADIENTS, Float16>(plan, item);
  }
  reduced_as<T, GRADIENTS, T>(plan, item);
}

void pass(const Plan &plan, int64_t item) {
  const Problem &p = plan.problem;
  const bool gradients = p.by_student || p.by_teacher || p.by_log_variance;
  if (has_double(p))
    gradients ? pass_as<double, true>(plan, item) : pass_as<double, false>(plan, item);
  else
    gradients ? pass_as<float, true>(plan, item) : pass_as<float, false>(plan, item);
  if (plan.streams) fence();
}

void finish(const Plan &plan, int64_t item) {
  has_double(plan.problem) ? finish_item<double>(plan, item) : finish_item<float>(plan, item);
}

}  // namespace

#define ULFD_TEXT(name) ULFD_QUOTE(name)
#define ULFD_QUOTE(name) #name
extern const Kernels kernels{ULFD_TEXT(ULFD_INSTRUCTIONS), pass, finish};

}  // namespace ulfd::ULFD_INSTRUCTIONS
