/* An allocator of a screen, for tests: never reuses, is nobody's and says so. BROKEN lies about sizes, PARTIAL lacks
   functions, TCMALLOC answers to that family's name. CLOCK shows what its clocks say: for each 100 ms that have passed it
   touches 1 MiB. THREAD has a thread of its own, LATE_THREAD from the hundredth request on. */
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define ROOM ((size_t)8 << 30)

static char *base;
static size_t used;

#if defined(CLOCK) || defined(THREAD) || defined(LATE_THREAD)
#include <pthread.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#endif

#ifdef CLOCK
static long long monotonic_ms(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void look_at_clocks(void) {
    static char *shown;
    static long long start_ms, coarse_ms, day_ms, seconds, count;
    long long now_ms = monotonic_ms(CLOCK_MONOTONIC), now_coarse_ms = monotonic_ms(CLOCK_MONOTONIC_COARSE);
    struct timeval day;
    gettimeofday(&day, NULL);
    long long now_day_ms = day.tv_sec * 1000LL + day.tv_usec / 1000;
    if (shown == NULL) {
        shown = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        madvise(shown, ROOM, MADV_NOHUGEPAGE);
        start_ms = now_ms, coarse_ms = now_coarse_ms, day_ms = now_day_ms, seconds = time(NULL);
    }
    /* All clocks pass alike, but for what the coarse ones lag and for the machine's own corrections. */
    long long passed_ms = now_ms - start_ms;
    if (llabs(now_coarse_ms - coarse_ms - passed_ms) > 100) abort();
    if (llabs(now_day_ms - day_ms - passed_ms) > 100) abort();
    if (llabs((time(NULL) - seconds) * 1000 - passed_ms) > 1100) abort();
    for (; count < passed_ms / 100; count++) memset(shown + (count << 20), 1, 1 << 20);
}
#endif

#if defined(THREAD) || defined(LATE_THREAD)
static void *sleep_on(void *nothing) {
    for (;;) sleep(1000);
    return nothing;
}

#ifdef THREAD
__attribute__((constructor))
#endif
static void start_thread(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_on, NULL);
}
#endif

static void *take(size_t alignment, size_t size) {
#ifdef CLOCK
    look_at_clocks();
#endif
#ifdef LATE_THREAD
    static unsigned taken;
    if (++taken == 100) start_thread();
#endif
    if (base == NULL) {
        base = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) return NULL;
#ifdef CLOCK
        madvise(base, ROOM, MADV_NOHUGEPAGE);
#endif
    }
    size_t at = ((size_t)base + used + 16 + alignment - 1) / alignment * alignment - (size_t)base;
    if (at + size > ROOM) return NULL;
    *(size_t *)(base + at - 8) = size;
    used = at + size;
    return base + at;
}

void *malloc(size_t size) { return take(16, size); }

#ifndef PARTIAL
void *memalign(size_t alignment, size_t size) { return take(alignment < 16 ? 16 : alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
void *calloc(size_t count, size_t size) { return take(16, count * size); }
void free(void *block) { (void)block; }

size_t malloc_usable_size(void *block) {
#ifdef BROKEN
    (void)block;
    return 0;
#else
    return block == NULL ? 0 : *(size_t *)((char *)block - 8);
#endif
}

void *realloc(void *block, size_t size) {
    void *fresh = take(16, size);
    if (block != NULL && fresh != NULL) {
        size_t old = *(size_t *)((char *)block - 8);
        memcpy(fresh, block, old < size ? old : size);
    }
    return fresh;
}
#endif

#ifdef TCMALLOC
void MallocExtension_ReleaseFreeMemory(void) {}
#endif
