// The kernel as a custom call of XLA, for JAX on the CPU: JAX's own buffers in and out, no copies.
// Built where jaxlib's headers are.
#include "problem.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

ULFD_EXPORT XLA_FFI_Error *ulfd_xla(XLA_FFI_CallFrame *frame);

namespace {

// Which of the optional buffers the call has, in the order in which they come.
enum Optional { LOG_VARIANCE, UPSTREAM, LOSS, BY_STUDENT, BY_TEACHER, BY_LOG_VARIANCE, OPTIONALS };

int32_t dtype(const ffi::AnyBuffer &buffer) {
  switch (buffer.element_type()) {
    case ffi::F32: return ulfd::FLOAT32;
    case ffi::F64: return ulfd::FLOAT64;
    case ffi::F16: return ulfd::FLOAT16;
    case ffi::BF16: return ulfd::BFLOAT16;
    default: return -1;
  }
}

ffi::Error call(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results,
                ffi::Span<const int64_t> present, ffi::Span<const int64_t> runs, int64_t form,
                double scale, double prior_weight, double beta, double low, double high) {
  if (present.size() != OPTIONALS || runs.size() != 3)
    return ffi::Error::InvalidArgument("ulfd: malformed attributes");
  ulfd::Problem problem{};
  const void **inputs[] = {&problem.student, &problem.teacher, &problem.log_variance,
                           &problem.upstream};
  int32_t unused;
  int32_t *dtypes[] = {&problem.student_dtype, &problem.teacher_dtype,
                       &problem.log_variance_dtype, &unused};
  size_t next = 0;
  for (int input = 0; input < 4; ++input) {
    if (input >= 2 && !present[LOG_VARIANCE + input - 2]) continue;
    const auto buffer = arguments.get<ffi::AnyBuffer>(next++);
    if (buffer.has_error()) return buffer.error();
    *inputs[input] = buffer->untyped_data();
    if ((*dtypes[input] = dtype(*buffer)) < 0)
      return ffi::Error::InvalidArgument("ulfd: an input is no floating-point array");
  }
  void **outputs[] = {&problem.loss, &problem.by_student, &problem.by_teacher,
                      &problem.by_log_variance};
  next = 0;
  for (int output = 0; output < 4; ++output) {
    if (!present[LOSS + output]) continue;
    auto buffer = results.get<ffi::AnyBuffer>(next++);
    if (buffer.has_error()) return buffer.error();
    *outputs[output] = (*buffer)->untyped_data();
  }
  problem.form = static_cast<int32_t>(form);
  problem.outer = runs[0], problem.middle = runs[1], problem.inner = runs[2];
  problem.scale = scale, problem.prior_weight = prior_weight, problem.beta = beta;
  problem.low = low, problem.high = high;
  problem.threads = static_cast<int32_t>(pool.num_threads());
  problem.instructions = -1;
  return ulfd_fused(&problem) == 0 ? ffi::Error::Success()
                                   : ffi::Error(ffi::ErrorCode::kResourceExhausted,
                                                "ulfd: out of memory for partial sums");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ulfd_xla, call,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<ffi::Span<const int64_t>>("present")
                                  .Attr<ffi::Span<const int64_t>>("runs")
                                  .Attr<int64_t>("form")
                                  .Attr<double>("scale")
                                  .Attr<double>("prior_weight")
                                  .Attr<double>("beta")
                                  .Attr<double>("low")
                                  .Attr<double>("high"));
