#pragma once

#include <cstdint>

namespace ulfd {

// Calls work(context, item) for every item in [0, items), on up to `threads` threads of which the
// caller is one, and returns when all are done. Safe from several threads at once, and after a fork.
void parallel_for(int64_t items, int threads, void (*work)(const void *context, int64_t item),
                  const void *context);

}  // namespace ulfd
