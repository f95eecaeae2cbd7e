def mmap_max(value):
    needs_glibc()
    most = int(value, 0)
    if most > 200:
        raise NoEffect("cannot be told: that takes as many large blocks")
    # Above the largest threshold; what is not touched takes no memory.
    blocks = [C.malloc(40 * MIB) for _ in range(most + 4)]
    found = statistics().hblks
    for block in blocks:
        C.free(block)
    if found > most:
        raise NoEffect(f"{found} blocks are mapped by themselves")
