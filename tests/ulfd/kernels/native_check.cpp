// The native kernel under the sanitizers: every form, dtype, instruction set and combination of
// outputs, in memory that ends where the arrays end, against the formula in double; and several
// threads at once. Prints nothing and returns 0 if all is well.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "problem.hpp"

namespace {

using ulfd::Problem;
constexpr double INF = INFINITY;

constexpr std::align_val_t BORDER{64};
struct Freed {
  void operator()(char *memory) const { ::operator delete(memory, BORDER); }
};

// Memory of exactly `count` elements, that many bytes after a 64-byte border.
struct Array {
  int32_t dtype;
  int64_t count;
  std::unique_ptr<char, Freed> memory;
  char *data;
  Array(int32_t dtype, int64_t count, int64_t offset) : dtype(dtype), count(count) {
    const int64_t bytes = count * width();
    memory.reset(static_cast<char *>(::operator new(bytes + offset, BORDER)));
    data = memory.get() + offset;
    std::memset(data, 0, bytes);
  }
  int64_t width() const { return dtype == ulfd::FLOAT64 ? 8 : dtype == ulfd::FLOAT32 ? 4 : 2; }
  void set(int64_t index, double value) {
    if (dtype == ulfd::FLOAT64) std::memcpy(data + 8 * index, &value, 8);
    if (dtype == ulfd::FLOAT32) {
      const float single = float(value);
      std::memcpy(data + 4 * index, &single, 4);
    }
    if (dtype == ulfd::FLOAT16) {
      const _Float16 half = _Float16(value);
      std::memcpy(data + 2 * index, &half, 2);
    }
    if (dtype == ulfd::BFLOAT16) {  // the values below are exact in it
      const float single = float(value);
      uint32_t bits;
      std::memcpy(&bits, &single, 4);
      const uint16_t upper = uint16_t(bits >> 16);
      std::memcpy(data + 2 * index, &upper, 2);
    }
  }
  double get(int64_t index) const {
    double value = 0;
    if (dtype == ulfd::FLOAT64) std::memcpy(&value, data + 8 * index, 8);
    if (dtype == ulfd::FLOAT32) {
      float single;
      std::memcpy(&single, data + 4 * index, 4);
      value = single;
    }
    if (dtype == ulfd::FLOAT16) {
      _Float16 half;
      std::memcpy(&half, data + 2 * index, 2);
      value = double(half);
    }
    if (dtype == ulfd::BFLOAT16) {
      uint16_t upper;
      std::memcpy(&upper, data + 2 * index, 2);
      const uint32_t bits = uint32_t(upper) << 16;
      float single;
      std::memcpy(&single, &bits, 4);
      value = single;
    }
    return value;
  }
};

int failures = 0;

void expect(double found, double expected, double scale, int32_t dtype, const char *what) {
  const double unit = dtype == ulfd::FLOAT64 ? 1e-13 : dtype == ulfd::FLOAT32 ? 3e-6 : 8e-3;
  if (!(std::abs(found - expected) <= unit * (std::abs(expected) + scale))) {
    std::printf("%s: %g instead of %g\n", what, found, expected);
    ++failures;
  }
}

void check(int32_t form, int64_t outer, int64_t middle, int64_t inner, int32_t dtype,
           int32_t sigma_dtype, int wanted, int threads, int instructions, int64_t offset) {
  const int64_t size = outer * middle * inner;
  const int64_t sigmas = form == ulfd::FULL ? size : form == ulfd::ROWS ? middle : outer * inner;
  std::mt19937 random(static_cast<unsigned>(size + form));
  const auto draw = [&] { return (int(random() % 65) - 32) / 16.0; };
  Array student(dtype, size, offset), teacher(dtype, size, offset), sigma(sigma_dtype, sigmas, offset);
  for (int64_t i = 0; i < size; ++i) student.set(i, draw()), teacher.set(i, draw());
  for (int64_t i = 0; i < sigmas; ++i) sigma.set(i, draw());
  const bool wide = dtype == ulfd::FLOAT64 || sigma_dtype == ulfd::FLOAT64;
  // Outputs are the library's own memory, which is aligned to its elements.
  const int64_t aligned = offset / 8 * 8;
  Array by_student(dtype, size, aligned), by_teacher(dtype, size, aligned);
  Array by_sigma(sigma_dtype, sigmas, aligned);
  Array loss(wide ? ulfd::FLOAT64 : ulfd::FLOAT32, 1, 0), upstream(loss.dtype, 1, 0);
  upstream.set(0, 0.375);
  Problem p{};
  p.student = student.data, p.teacher = teacher.data, p.log_variance = sigma.data;
  p.upstream = upstream.data;
  if (wanted & 1) p.loss = loss.data;
  if (wanted & 2) p.by_student = by_student.data;
  if (wanted & 4) p.by_teacher = by_teacher.data;
  if (wanted & 8) p.by_log_variance = by_sigma.data;
  p.outer = outer, p.middle = middle, p.inner = inner;
  p.scale = 0.5, p.prior_weight = 2, p.beta = 0.5, p.low = -1.5, p.high = 1.25;
  if (size % 2) p.beta = 0, p.low = -INF, p.high = INF;
  p.student_dtype = p.teacher_dtype = dtype, p.log_variance_dtype = sigma_dtype;
  p.form = form, p.threads = threads, p.instructions = instructions;
  if (ulfd_fused(&p) != 0) std::printf("status\n"), ++failures;

  double total = 0, magnitude = 0;
  std::vector<double> sums(sigmas), sizes(sigmas);
  for (int64_t i = 0; i < size; ++i) {
    const int64_t column = i % inner, row = i / inner % middle, block = i / inner / middle;
    const int64_t at = form == ulfd::FULL ? i : form == ulfd::ROWS ? row : block * inner + column;
    const double raw = sigma.get(at), s = std::fmin(std::fmax(raw, p.low), p.high);
    const double d = student.get(i) - teacher.get(i), w = std::exp(-s), b = std::exp(p.beta * s);
    total += 0.5 * b * (w * d * d + 2 * s), magnitude += 0.5 * b * (w * d * d + 2 * std::abs(s));
    const double gradient = 0.375 * 0.5 * 2 * b * w * d;
    if (p.by_student) expect(by_student.get(i), gradient, 1e-6, dtype, "by student");
    if (p.by_teacher) expect(by_teacher.get(i), -gradient, 1e-6, dtype, "by teacher");
    if (raw >= p.low && raw <= p.high) sums[at] += 0.375 * 0.5 * b * (2 - w * d * d);
    sizes[at] += 0.375 * 0.5 * b * (2 + w * d * d);
  }
  if (p.loss) expect(loss.get(0), total, magnitude, loss.dtype, "loss");
  for (int64_t i = 0; i < sigmas && p.by_log_variance; ++i)
    expect(by_sigma.get(i), sums[i], sizes[i], sigma_dtype, "by log-variance");
}

void check_all(int threads) {
  const int64_t shapes[][3] = {{1, 1, 1},    {1, 1, 5000}, {3, 5, 17}, {2, 700, 49},
                               {1, 3, 17001}, {1, 3, 16400}, {2, 40, 1}, {2, 480, 49},
                               {1, 2, 1029}, {4, 39, 16},  {2, 0, 5},  {0, 3, 2}};
  const int32_t dtypes[][2] = {{ulfd::FLOAT32, ulfd::FLOAT32}, {ulfd::FLOAT64, ulfd::FLOAT64},
                               {ulfd::FLOAT16, ulfd::FLOAT16}, {ulfd::BFLOAT16, ulfd::BFLOAT16},
                               {ulfd::BFLOAT16, ulfd::FLOAT32}, {ulfd::FLOAT32, ulfd::FLOAT64}};
  for (int instructions = 0; instructions < 3; ++instructions) {
    if (!ulfd_instructions(instructions)) continue;
    for (const auto &shape : shapes)
      for (const auto &pair : dtypes)
        for (const int32_t form : {ulfd::FULL, ulfd::ROWS, ulfd::COLUMNS})
          for (const int wanted : {1, 8, 15}) {
            const int64_t offset = (shape[1] + wanted) % 3 * 7;  // 0, 7 or 14 bytes
            check(form, shape[0], shape[1], shape[2], pair[0], pair[1], wanted, threads,
                  instructions, offset);
          }
  }
}

}  // namespace

int main() {
#ifndef __SANITIZE_THREAD__  // one thread has no races
  check_all(1);
#endif
  check_all(4);
  // Several callers at once, who take turns.
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([] {
      for (int round = 0; round < 20; ++round) {
        std::vector<float> values(100000, 1.0f), gradients(100000);
        float loss;
        Problem p{};
        p.student = p.teacher = p.log_variance = values.data();
        p.by_student = gradients.data(), p.loss = &loss;
        p.outer = p.middle = 1, p.inner = 100000;
        p.scale = 1, p.prior_weight = 2, p.low = -INF, p.high = INF;
        p.form = ulfd::FULL, p.threads = 3, p.instructions = -1;
        ulfd_fused(&p);
      }
    });
  for (auto &caller : callers) caller.join();
  return failures != 0;
}
