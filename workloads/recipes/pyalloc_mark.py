"""Tell an allocation recorder, or an external memory sampler, which phase of its life a program is in.

Copy this file beside a program and call `mark("steady")` once its imports and set-up are done and `mark("drained")`
once its work is dropped. Start-up needs no mark, and the start of interpreter exit is noticed without one.

* Under `pyalloc-bench record` the mark goes to the preloaded recorder's `pyalloc_mark` through ctypes.
* Under `pyalloc-bench live` a preloaded library that records nothing has that function too: it returns once the
  process's memory was read from outside.
* Otherwise nothing happens.

ctypes is imported by the first mark and only where something is preloaded. That costs some thousand allocations, which
fall into start-up, in a recording and in the real program alike.
"""

import os

_sender = None


def mark(name):
    """Begin the phase `name` (or make a note of the program's own); returns once it is on record."""
    global _sender
    if _sender is None:
        _sender = _choose()
    _sender(name)


def _choose():
    if "LD_PRELOAD" not in os.environ:
        return _nothing
    import ctypes

    entry = getattr(ctypes.CDLL(None), "pyalloc_mark", None)
    if entry is None:
        return _nothing
    entry.argtypes = [ctypes.c_char_p]
    entry.restype = None
    return lambda name: entry(name.encode())


def _nothing(_name):
    pass
