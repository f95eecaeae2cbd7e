def tunable(setting):
    # No behaviour tells it in short; the loader lists what it has read in this environment.
    needs_glibc()
    import re, subprocess
    name, wanted = setting
    with open("/proc/self/maps") as maps:
        loaders = [line.split(None, 5)[5].strip() for line in maps if "/ld-" in line]
    if not loaders:
        raise NoEffect("cannot be told: the loader was not found")
    done = subprocess.run([loaders[0], "--list-tunables"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    found = re.search(rf"^glibc\.malloc\.{name}: (\w+)", done.stdout, re.M)
    if not found:
        raise NoEffect(f"cannot be told: the loader lists no glibc.malloc.{name} (glibc before 2.33 lists none)")
    if int(found[1], 0) != int(wanted, 0):
        raise NoEffect(f"the loader says glibc.malloc.{name} is {found[1]}")
