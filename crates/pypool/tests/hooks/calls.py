# Plays a fixed sequence of calls on an interpreter's own allocators and prints what then lies in memory, a line each:
# domain, size, what happened, bytes. The interpreter runs with debug hooks. Names and arguments are bound beforehand,
# so that the interpreter asks for little of its own between a call and the look at what it left.
import ctypes
import sys

API = ctypes.pythonapi
SIZES = [0, 1, 7, 16, 100, 128, 129, 200, 300, 488, 489, 1000]
FAMILIES = {"r": "PyMem_Raw", "m": "PyMem_", "o": "PyObject_"}
buffer = ctypes.create_string_buffer(4096)
move = ctypes.memmove


def function(name, result, *arguments):
    found = getattr(API, name)
    found.restype, found.argtypes = result, arguments
    return found


def show(label, at, count):
    move(buffer, at, count)
    print(label, buffer.raw[:count].hex())


for letter, family in FAMILIES.items():
    pointer, size_t = ctypes.c_void_p, ctypes.c_size_t
    malloc = function(family + "Malloc", pointer, size_t)
    calloc = function(family + "Calloc", pointer, size_t, size_t)
    realloc = function(family + "Realloc", pointer, pointer, size_t)
    free = function(family + "Free", None, pointer)
    for size in SIZES:
        for_pool = letter != "r" and size + 24 <= 512
        label = f"{letter} {size}"
        neighbour = malloc(size)  # the pool stays while this lives
        block = malloc(size)
        show(label + " new", block - 16, size + 24)
        zeroed = calloc(size, 1)
        show(label + " zeroed", zeroed - 16, size + 24)
        free(zeroed)
        pattern = bytes(at % 250 for at in range(size))
        for other in (size // 3, size + 70, size * 2 + 10):
            move(block, pattern, size)
            old, moved = block, realloc(block, other)
            move(buffer, old, size)  # before anything else is asked for
            left = buffer.raw[:size].hex()
            show(f"{label} to {other}", moved - 16, other + 24)
            # Whether the C library moves a block is its own affair.
            if for_pool and moved != old and size >= 200:
                print(f"{label} left by {other}", left)
            free(moved)
            block = malloc(size)
        start, count = block - 16, size + 24
        free(block)
        move(buffer, start, count)
        # What the allocator below writes into a free block is not the hooks': a link, and in the C library two. A chunk
        # of over 1032 bytes it may also cut up.
        links = 8 if for_pool else 16
        if 200 <= size < 1000:
            print(f"{label} freed", buffer.raw[links:count].hex())
        free(neighbour)
sys.stdout.flush()
