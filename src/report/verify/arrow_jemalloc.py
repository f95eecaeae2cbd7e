def arrow_jemalloc(value):
    # Arrow's copy of jemalloc shows no function; asked to, it prints its options when a process ends.
    import re, subprocess
    env = dict(os.environ, JE_ARROW_MALLOC_CONF=value + ",stats_print:true")
    code = "import pyarrow as pa; pa.allocate_buffer(1 << 20, memory_pool=pa.jemalloc_memory_pool())"
    done = subprocess.run([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)
    for name, wanted in (pair.split(":", 1) for pair in value.split(",")):
        found = re.search(rf"^\s*opt\.{name}: \"?([^\s\"]+)", done.stderr, re.M)
        if not found or found[1] != wanted:
            raise NoEffect(f"Arrow's jemalloc says {name} is {found[1] if found else 'unknown'}")
