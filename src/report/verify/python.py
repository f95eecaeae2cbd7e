def python_allocator(value):
    # The number of blocks in pymalloc's pools: none where every object comes from malloc.
    blocks = sys.getallocatedblocks()
    if (blocks == 0) != (value == "malloc"):
        raise NoEffect(f"{blocks} blocks are in CPython's own pools")
