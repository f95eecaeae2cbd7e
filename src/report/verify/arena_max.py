def arena_max(value):
    needs_glibc()
    import threading
    most = int(value, 0)
    if most > 200:
        raise NoEffect("cannot be told: that takes as many threads")
    everybody, done = threading.Barrier(most + 5), threading.Event()
    def allocate():
        block = C.malloc(64)
        everybody.wait()
        done.wait()
        C.free(block)
    threads = [threading.Thread(target=allocate) for _ in range(most + 4)]
    for thread in threads:
        thread.start()
    everybody.wait()
    text, size = ctypes.c_char_p(), ctypes.c_size_t()
    C.open_memstream.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(C.open_memstream(ctypes.byref(text), ctypes.byref(size)))
    C.malloc_info(0, stream)
    C.fclose(stream)
    arenas = text.value.count(b"<heap nr=")
    done.set()
    for thread in threads:
        thread.join()
    if arenas > most:
        raise NoEffect(f"glibc has {arenas} arenas when {most + 5} threads allocate")
