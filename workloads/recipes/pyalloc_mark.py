"""Tell an allocation recorder, or an external memory sampler, which phase of its life a program is in.

Copy this file beside a program and call `mark("steady")` once its imports and set-up are done and `mark("drained")`
once its work is dropped. Start-up needs no mark, and the recorder finds the start of interpreter exit by itself.

* Under `pyalloc-bench record` the mark goes to the preloaded recorder's `pyalloc_mark` through ctypes.
* With `PYALLOC_MARK_PIPE=<write fd>,<read fd>` the name and a newline are written to the first descriptor and one
  byte is awaited on the second: whoever holds the other ends can read the process's memory at exactly this point.
  Interpreter exit is then announced too, as `finalising`.
* Otherwise nothing happens.

ctypes is imported by the first mark and only in the first two cases. That costs some thousand allocations, which fall
into start-up; the pipe imports it as well, so that the program that is sampled allocates what the recorded one did.
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
    pipe = os.environ.get("PYALLOC_MARK_PIPE")
    if not pipe and "LD_PRELOAD" not in os.environ:
        return _nothing
    import ctypes

    entry = getattr(ctypes.CDLL(None), "pyalloc_mark", None)
    if pipe:
        write_fd, read_fd = (int(number) for number in pipe.split(","))
        return _piped(write_fd, read_fd)
    if entry is None:
        return _nothing
    entry.argtypes = [ctypes.c_char_p]
    entry.restype = None
    return lambda name: entry(name.encode())


def _piped(write_fd, read_fd):
    import atexit

    def send(name):
        os.write(write_fd, name.encode() + b"\n")
        os.read(read_fd, 1)

    atexit.register(send, "finalising")
    return send


def _nothing(_name):
    pass
