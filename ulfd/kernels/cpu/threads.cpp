// A small thread pool. OpenMP would do the same in one line, but its common runtime hangs in a
// child process after a fork (which is how data loaders start their workers), and each framework
// brings its own copy, whose idle threads spin against one another.
#include "threads.hpp"

#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace ulfd {
namespace {

int processor() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;  // unknown
#endif
}

// Moves this thread to another processor if it runs on this one, and leaves it free to go anywhere.
// A scheduler that packs threads onto few processors, as a virtual machine's may, wakes a helper
// beside its caller, and both then share one core for longer than the work takes.
void step_aside(int from) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (from < 0 || processor() != from || sched_getaffinity(0, sizeof allowed, &allowed)) return;
  cpu_set_t others = allowed;
  CPU_CLR(from, &others);
  if (sched_setaffinity(0, sizeof others, &others) == 0)
    sched_setaffinity(0, sizeof allowed, &allowed);
#else
  (void)from;
#endif
}

class Pool {
 public:
  std::mutex busy;  // held by the caller whose work the pool does

  void run(int64_t items, int helpers, void (*work)(const void *, int64_t), const void *context) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (threads_ < helpers && start(threads_)) ++threads_;
      work_ = work, context_ = context, items_ = items, next_ = 0;
      wanted_ = helpers < threads_ ? helpers : threads_;
      callers_ = processor();
      open_ = true;
      ++round_;
    }
    wake_.notify_all();
    take();
    std::unique_lock<std::mutex> lock(mutex_);
    open_ = false;  // who has not come by now is not waited for
    done_.wait(lock, [this] { return working_ == 0; });
  }

 private:
  bool start(int index) {
    try {
      std::thread([this, index, round = round_] { serve(index, round); }).detach();
      return true;
    } catch (const std::system_error &) {  // the system's limit: go on with those there are
      return false;
    }
  }

  void serve(int index, uint64_t seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (index >= wanted_) continue;
      const int callers = callers_;
      lock.unlock();
      step_aside(callers);
      lock.lock();
      if (round_ != seen || !open_) continue;
      ++working_;
      lock.unlock();
      take();
      lock.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  void take() {
    for (int64_t item; (item = next_.fetch_add(1)) < items_;) work_(context_, item);
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<int64_t> next_{0};
  void (*work_)(const void *, int64_t) = nullptr;
  const void *context_ = nullptr;
  int64_t items_ = 0;
  int threads_ = 0, wanted_ = 0, working_ = 0, callers_ = -1;
  bool open_ = false;
  uint64_t round_ = 0;
};

// Never destroyed: its threads wait on it until the process ends. A forked child has none of the
// threads, and locks in whatever state they were, so it begins with a new pool.
Pool *pool = new Pool;
const int registered = pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });

}  // namespace

void parallel_for(int64_t items, int threads, void (*work)(const void *, int64_t),
                  const void *context) {
  if (threads > items) threads = static_cast<int>(items);
  if (threads <= 1) {
    for (int64_t item = 0; item < items; ++item) work(context, item);
    return;
  }
  // Callers take turns. Side by side they would only share the cores and the memory; XLA, which runs
  // a loss and its gradients at the same time, then took twice as long.
  const std::lock_guard<std::mutex> lock(pool->busy);
  pool->run(items, threads - 1, work, context);
}

}  // namespace ulfd
