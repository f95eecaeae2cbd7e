def perturb(value):
    needs_glibc()
    block = C.malloc(3000)
    found = ctypes.string_at(block + 1000, 1)[0] ^ 0xFF
    C.free(block)
    if found != int(value, 0) & 0xFF:
        raise NoEffect("a fresh block is not filled with its byte")
