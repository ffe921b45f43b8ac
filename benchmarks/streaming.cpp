// The memory's limit: reads three arrays and writes two, with nothing to compute, around the caches.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "threads.hpp"

#if defined(__AVX512F__)
using Line = __m512i;
static Line load(const char *from) { return _mm512_loadu_si512(from); }
static Line combined(Line a, Line b) { return _mm512_xor_si512(a, b); }
static void put(char *to, Line line) { _mm512_stream_si512((Line *)to, line); }
#else
using Line = __m128i;
static Line load(const char *from) { return _mm_loadu_si128((const Line *)from); }
static Line combined(Line a, Line b) { return _mm_xor_si128(a, b); }
static void put(char *to, Line line) { _mm_stream_si128((Line *)to, line); }
#endif

static void part(char *const *arrays, long begin, long end) {
  for (long at = begin; at < end; at += sizeof(Line)) {
    const Line first = combined(load(arrays[0] + at), load(arrays[1] + at));
    const Line line = combined(first, load(arrays[2] + at));
    put(arrays[3] + at, line);
    put(arrays[4] + at, line);
  }
  _mm_sfence();
}

struct Pass {
  char *const *arrays;
  long bytes;
};

// `bytes` of each array, which begin on whole lines; shared out as the kernel shares its work.
extern "C" void stream(char *const *arrays, long bytes, int threads) {
  constexpr long ITEM = 1 << 16;
  const Pass pass{arrays, bytes / 64 * 64};
  ulfd::parallel_for(
      (pass.bytes + ITEM - 1) / ITEM, threads,
      [](const void *context, int64_t item) {
        const Pass &pass = *static_cast<const Pass *>(context);
        part(pass.arrays, item * ITEM, std::min(pass.bytes, (item + 1) * ITEM));
      },
      &pass);
}
