// The memory's limit: reads arrays and writes two, with nothing to compute, around the caches.
#include <immintrin.h>

#include <cstdint>
#include <thread>
#include <vector>

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

template <int INPUTS>
static void part(char *const *arrays, long begin, long end) {
  for (long at = begin; at < end; at += sizeof(Line)) {
    Line line = load(arrays[0] + at);
    for (int input = 1; input < INPUTS; ++input) line = combined(line, load(arrays[input] + at));
    put(arrays[INPUTS] + at, line);
    put(arrays[INPUTS + 1] + at, line);
  }
  _mm_sfence();
}

// `bytes` of each array, which begin on whole lines.
extern "C" void stream(char *const *arrays, int count, long bytes, int threads) {
  const auto work = count == 5 ? part<3> : part<2>;
  const long share = bytes / threads / 64 * 64;
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread)
    others.emplace_back(work, arrays, thread * share,
                        thread == threads - 1 ? bytes / 64 * 64 : (thread + 1) * share);
  work(arrays, 0, threads == 1 ? bytes / 64 * 64 : share);
  for (auto &other : others) other.join();
}
