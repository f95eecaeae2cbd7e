def needs_glibc():
    if not library_of_malloc().startswith("libc.so") and not library_of_malloc().startswith("libc-2"):
        raise NoEffect(f"malloc comes from {library_of_malloc()}; only glibc's own reads it")

def statistics():
    # glibc's own account: arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost.
    new = hasattr(C, "mallinfo2")
    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t if new else ctypes.c_int) for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]
    call = C.mallinfo2 if new else C.mallinfo
    call.restype = Info
    return call()

def end_of_heap():
    C.sbrk.restype, C.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    return C.sbrk(0)

MIB = 1 << 20
STEP = min(24 << 10, int(os.environ.get("MALLOC_MMAP_THRESHOLD_", "131072"), 0) // 2)

def grow(by):
    # Takes blocks below every threshold until the heap's end has moved so far, and gives them back; returns how far it
    # moved and how much of that stayed. One function, and an array: a Python object between the blocks would hold them.
    most = (by + statistics().fordblks) // STEP * 2 + 1000
    blocks, count, start = (ctypes.c_void_p * most)(), 0, end_of_heap()
    while count < most and end_of_heap() - start < by:
        blocks[count] = C.malloc(STEP)
        count += 1
    peak = end_of_heap() - start
    while count:
        count -= 1
        C.free(blocks[count])
    if peak < by:
        raise NoEffect("cannot be told: the heap does not grow by brk here")
    return peak, end_of_heap() - start
