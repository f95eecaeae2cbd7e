def arrow_pool(value):
    try:
        import pyarrow
    except ImportError as why:
        raise NoEffect(f"this Python has no pyarrow ({why}); run it with the service's own Python")
    pool = pyarrow.default_memory_pool().backend_name
    if pool != value:
        raise NoEffect(f"Arrow allocates from {pool}")
