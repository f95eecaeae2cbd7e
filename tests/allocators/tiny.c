/* An allocator of a screen, for tests: never reuses, is nobody's and says so. BROKEN lies about sizes, PARTIAL lacks
   functions, TCMALLOC answers to that family's name. */
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define ROOM ((size_t)8 << 30)

static char *base;
static size_t used;

static void *take(size_t alignment, size_t size) {
    if (base == NULL) {
        base = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) return NULL;
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
