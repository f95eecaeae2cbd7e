import difflib, os, sys

class NoEffect(Exception):
    pass

def is_set(name, value):
    # A default may look like the effect, so the variable itself has to be here as well.
    found = os.environ.get(name)
    if name in ("LD_PRELOAD", "PYALLOC_NUMPY") and found is not None:
        of = lambda text: [os.path.basename(path) for path in text.replace(":", " ").split()]
        found = value if set(of(value)) <= set(of(found)) else found
    if found is None:
        near = difflib.get_close_matches(name, os.environ, 1, 0.8)
        raise NoEffect("it is not set here" + (f" ({near[0]} is; perhaps that is misspelt)" if near else ""))
    if found != value:
        raise NoEffect(f"it is {found!r} here")
