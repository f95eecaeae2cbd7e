def jemalloc(value):
    if not hasattr(C, "mallctl"):
        raise NoEffect(f"malloc comes from {library_of_malloc()}, which is no jemalloc that reads it")
    for name, wanted in (pair.split(":", 1) for pair in value.split(",")):
        for size in (1, 4, 8):
            cell, length = (ctypes.c_char * 8)(), ctypes.c_size_t(size)
            if C.mallctl(f"opt.{name}".encode(), cell, ctypes.byref(length), None, ctypes.c_size_t(0)) == 0:
                break
        else:
            raise NoEffect(f"this jemalloc has no option {name}")
        number = int.from_bytes(cell.raw[:size], sys.byteorder, signed=size == 8)
        if size == 1:
            found = "true" if number else "false"
        elif wanted.lstrip("-").isdigit():
            found = str(number)
        else:
            found = os.fsdecode(ctypes.c_char_p(number).value or b"") if size == 8 else str(number)
        if found != wanted:
            raise NoEffect(f"jemalloc says {name} is {found}")
