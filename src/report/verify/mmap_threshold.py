def mmap_threshold(value):
    needs_glibc()
    size = int(value, 0)
    def mapped(size):
        # Free chunks of the heap serve first, so as many blocks as fit into them are taken, and two more.
        before = statistics().hblks
        blocks = [C.malloc(size) for _ in range(statistics().fordblks // max(size, 1) + 2)]
        found = statistics().hblks - before
        for block in blocks:
            C.free(block)
        return found
    # Left alone, glibc raises its threshold to the size of a mapped block that is freed.
    C.free(C.malloc(min(max(4 * MIB, 2 * size), 32 * MIB)))
    if not mapped(size):
        raise NoEffect(f"a block of {size} bytes comes from the heap once a larger one was freed")
    if mapped(size - max(size // 4, 32)):
        raise NoEffect(f"a block of {size - max(size // 4, 32)} bytes is mapped by itself")
