def python_allocator(value):
    # Blocks are counted in pymalloc's pools and in mimalloc: none where every object comes from malloc.
    blocks = sys.getallocatedblocks()
    if (blocks == 0) != value.startswith("malloc"):
        raise NoEffect(f"{blocks} blocks are in CPython's own pools")
    if value == "default":
        return
    try:
        import ctypes
    except ImportError:
        if value in ("malloc", "pymalloc"):
            return
        raise NoEffect("nobody can look: this Python has no ctypes")
    # The debug hooks put the letter of the domain and seven forbidden bytes before each block.
    thing = bytes(100)
    before = ctypes.string_at(id(thing) - 8, 8)
    if (before == b"o" + 7 * b"\xfd") != value.endswith("debug"):
        raise NoEffect("before an object lie " + before.hex(" "))
    if "pymalloc" in value or "mimalloc" in value:
        name = ctypes.pythonapi._PyMem_GetCurrentAllocatorName
        name.restype = ctypes.c_char_p
        if name() != value.encode():
            raise NoEffect(f"the interpreter says that its allocator is {name()}")
