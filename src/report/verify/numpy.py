def numpy_handler(value):
    try:
        import pyalloc_numpy
    except ImportError as why:
        raise NoEffect(f"this Python finds no pyalloc_numpy ({why}); run it as the program is run")
    try:
        pyalloc_numpy.install()
        import numpy
        name = pyalloc_numpy.handler(numpy.empty(1000))
    except (ImportError, pyalloc_numpy.HandlerError) as why:
        raise NoEffect(str(why).rstrip("."))
    # What the handler was made for; the program itself has to call install() as well.
    if name != "pyalloc:" + os.path.basename(value):
        raise NoEffect(f"arrays take their data by {name}")
