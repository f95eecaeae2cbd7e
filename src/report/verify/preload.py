def preload(value):
    names = [os.path.basename(path) for path in value.replace(":", " ").split()]
    with open("/proc/self/maps") as maps:
        mapped = {os.path.basename(line.split(None, 5)[5].strip()) for line in maps if "/" in line}
    for path in os.environ.get("LD_PRELOAD", "").replace(":", " ").split():
        try:
            ctypes.CDLL(path, mode=os.RTLD_NOLOAD)
        except OSError:
            raise NoEffect(f"the loader passed over {path}: no such library, or not for this machine")
    if library_of_malloc() not in names:
        raise NoEffect(f"malloc comes from {library_of_malloc()}")
    # A library may be a link to a file whose name says more of its version.
    if not any(name.startswith(library_of_malloc()) for name in mapped):
        raise NoEffect("the library is not mapped")
