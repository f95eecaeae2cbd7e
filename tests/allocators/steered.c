/* A library with the functions by which programs steer mimalloc and jemalloc, which notes how it was called; and one
 * that looks up the next definition of itself, as wrappers of the C library do. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/types.h>

long last[2];
ssize_t decay_ms = 10000;

void mi_collect(bool force) { last[0] = force; }

void mi_option_set(int option, long value) {
    last[0] = option;
    last[1] = value;
}

int mallctl(const char *name, void *old, size_t *old_bytes, void *new, size_t new_bytes) {
    if (strcmp(name, "arena.4096.purge") == 0) return 0;
    if (strcmp(name, "arenas.dirty_decay_ms") != 0) return 2;
    if (old && *old_bytes == sizeof decay_ms) memcpy(old, &decay_ms, sizeof decay_ms);
    if (new && new_bytes == sizeof decay_ms) memcpy(&decay_ms, new, new_bytes);
    return 0;
}

/* No library after this one has the function; in the global order there is one after the recorder: this. */
int is_last(void) { return dlsym(RTLD_NEXT, "is_last") == NULL; }
