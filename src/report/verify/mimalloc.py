def mimalloc(setting):
    # The numbers of options change with every version; a copy names its options when it starts verbosely.
    import re, subprocess
    name, wanted, package = setting
    code = f"import {package}" if package else ""
    env = dict(os.environ, MIMALLOC_VERBOSE="1")
    done = subprocess.run([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)
    found = re.search(rf"option '{name}': (-?\w+)( KiB)?", done.stderr)
    if not found:
        raise NoEffect(f"no mimalloc that starts here names an option {name}")
    same = {"true": "1", "yes": "1", "on": "1", "false": "0", "no": "0", "off": "0"}
    unit = re.fullmatch(r"(\d+)([KMG]?)(I?B)?", wanted.upper()) if found[2] else None
    if unit:
        # Without a unit such an option is in bytes.
        size = int(unit[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[unit[2]]
        wanted = str((size + 1023) // 1024)
    if found[1] != same.get(wanted.lower(), wanted):
        raise NoEffect(f"mimalloc says {name} is {found[1]}{found[2] or ''}")
