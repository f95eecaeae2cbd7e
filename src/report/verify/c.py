import ctypes
C = ctypes.CDLL(None)
C.malloc.restype, C.malloc.argtypes, C.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def library_of(function):
    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_char_p if name.endswith("name") else ctypes.c_void_p)
                    for name in ("fname", "fbase", "sname", "saddr")]
    info = Info()
    C.dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info))
    return os.fsdecode(info.fname or b"?")

def library_of_malloc():
    found = library_of(C.malloc)
    # A program that is not position-independent has an entry of its own for malloc; the first library behind it counts.
    if os.path.realpath(found) == os.path.realpath("/proc/self/exe") or not found.count(".so"):
        for path in [*os.environ.get("LD_PRELOAD", "").replace(":", " ").split(), "libc.so.6"]:
            try:
                own = library_of(ctypes.CDLL(path, mode=os.RTLD_NOLOAD).malloc)
            except (OSError, AttributeError):
                continue
            if os.path.basename(own) == os.path.basename(path):
                found = own
                break
    return os.path.basename(found)
