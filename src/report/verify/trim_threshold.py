def trim_threshold(value):
    needs_glibc()
    size, pad = int(value, 0), int(os.environ.get("MALLOC_TOP_PAD_", "131072"), 0)
    # Left alone, glibc raises this threshold to twice the size of a mapped block that is freed, at most 64 MiB.
    most = 32 * MIB
    mapped = min(max(4 * MIB, size, 8 * pad), most)
    grow(1)
    if size <= most:
        C.free(C.malloc(mapped))
        peak, left = grow(size + mapped // 2)
        if left > size + mapped // 4:
            raise NoEffect(f"of {peak} freed bytes at the end of the heap {left} stay")
    elif 2 * most < size <= 1024 * MIB:
        peak, left = grow((size + 2 * most) // 2)
        if left < peak:
            raise NoEffect(f"of {peak} freed bytes at the end of the heap only {left} stay")
    else:
        raise NoEffect("cannot be told: near 64 MiB the default does the same, and more takes too much memory")
