"""Have NumPy take the data of new arrays from an allocator of your choice.

    import pyalloc_numpy
    pyalloc_numpy.install()             # as the variable PYALLOC_NUMPY says; without it, nothing happens
    pyalloc_numpy.install("system")     # the process's own malloc, without NumPy's cache of small blocks
    pyalloc_numpy.install("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")
    pyalloc_numpy.uninstall()           # NumPy's own handler again

Put this file and libpyalloc_numpy.so beside the program, or their folder on PYTHONPATH; `pyalloc-bench numpy-handler`
writes both. NumPy 1.22 or later, CPython on Linux (x86-64, glibc).

An array keeps the allocator that it was born with, so installing and uninstalling are safe at any time. NumPy keeps
its handler in a context variable: `install` holds for the calling thread, and for tasks that are started from it. A
new thread begins with NumPy's own handler; give thread pools `initializer=pyalloc_numpy.install`.
"""

import os

VARIABLE = "PYALLOC_NUMPY"
SYSTEM = "system"
LIBRARY = "libpyalloc_numpy.so"
OLDEST = (1, 22)
# The place of PyDataMem_SetHandler in NumPy's table of C functions, the same in every version that has it.
SET_HANDLER = 304

_capsules = {}  # by word: a handler is made once, and arrays may outlive everything that names it


class HandlerError(RuntimeError):
    """A handler cannot be had; the text says why, and what to do."""


def install(word=None):
    """Take the data of this context's new arrays from `word`: "system", or the path of a library with a malloc.

    Without a word the variable PYALLOC_NUMPY says it, and where that is not set nothing happens. Returns the name of
    the handler that is now in force, or None when nothing was done. Raises HandlerError.
    """
    said = f"{VARIABLE}={os.environ[VARIABLE]}" if word is None and VARIABLE in os.environ else f"install({word!r})"
    if word is None:
        word = os.environ.get(VARIABLE)
        if word is None:
            return None
    word = _checked(os.fspath(word), said)
    numpy, multiarray = _numpy(said)
    if word not in _capsules:
        _capsules[word] = _made(word, multiarray, said)
    _set(multiarray, _capsules[word])
    return handler()


def uninstall():
    """Back to NumPy's own handler for new arrays; those that are there keep theirs."""
    _set(_numpy("uninstall()")[1], None)


def handler(array=None):
    """The name of the handler that `array` was born with; without one, of that which new arrays get."""
    multiarray = _numpy("handler()")[1]
    return multiarray.get_handler_name() if array is None else multiarray.get_handler_name(array)


def _checked(word, said):
    if word == SYSTEM:
        return word
    if "/" not in word:
        if ".so" not in word:
            raise HandlerError(f'{said}: there is no {word!r}. Give "{SYSTEM}", or the path of a library.')
        return word  # the loader knows its own folders
    if not os.path.isfile(word):
        raise HandlerError(f"{said}: there is no such file. Correct the path.")
    return os.path.abspath(word)


def _numpy(said):
    """NumPy, and the module of it that has the C functions."""
    try:
        import numpy
    except ImportError as why:
        raise HandlerError(f"{said}: NumPy cannot be imported ({why}). Install it in this environment.") from why
    version = tuple(int(part) for part in numpy.__version__.split(".")[:2])
    if version < OLDEST:
        raise HandlerError(
            f"{said}: NumPy {numpy.__version__} has no handlers; they came with "
            f"{'.'.join(map(str, OLDEST))}. Install a newer one."
        )
    if version < (2, 0):
        from numpy.core import _multiarray_umath as multiarray
    else:
        from numpy._core import _multiarray_umath as multiarray
    return numpy, multiarray


def _made(word, multiarray, said):
    import ctypes

    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), LIBRARY)
    try:
        library = ctypes.CDLL(here)
        make, name = library.pyalloc_numpy_handler, ctypes.c_char.in_dll(library, "pyalloc_numpy_capsule_name")
    except (OSError, AttributeError, ValueError) as why:
        raise HandlerError(
            f"{said}: {here} cannot be used ({why}). Have `pyalloc-bench numpy-handler` write both files again."
        ) from why
    make.restype = ctypes.c_void_p
    make.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    # NumPy advises huge pages in its own handler only; ours does where NumPy would. Setting tells what was set before.
    advises = multiarray._set_madvise_hugepage(True)
    multiarray._set_madvise_hugepage(advises)
    reason = ctypes.create_string_buffer(1000)
    made = make(None if word == SYSTEM else os.fsencode(word), int(advises), reason, len(reason))
    if not made:
        raise HandlerError(f"{said}: {reason.value.decode(errors='replace')}.")
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    # A capsule keeps the address of its name, and may outlive this module: the library's own text.
    return new(("PyCapsule_New", ctypes.pythonapi))(made, ctypes.addressof(name), None)


def _set(multiarray, capsule):
    """Calls PyDataMem_SetHandler, for which None stands for NumPy's own."""
    import ctypes

    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    table = ctypes.cast(get(multiarray._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    argument = ctypes.c_void_p if capsule is None else ctypes.py_object
    ctypes.PYFUNCTYPE(ctypes.py_object, argument)(table[SET_HANDLER])(capsule)
