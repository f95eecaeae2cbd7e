def top_pad(value):
    needs_glibc()
    size = int(value, 0)
    if size > 1024 * MIB:
        raise NoEffect("cannot be told: that takes too much memory")
    moved, _ = grow(1)
    if not size - STEP <= moved <= size + 2 * STEP + (16 << 10):
        raise NoEffect(f"the heap grows by {moved} bytes at a time")
