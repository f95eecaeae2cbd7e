failed = False
for name, value, check, setting in CHECKS:
    try:
        is_set(name, value)
        check(setting)
        print(f"{name}={value} took effect")
    except NoEffect as why:
        failed = True
        print(f"{name}={value} did NOT take effect: {why}.", file=sys.stderr)
sys.exit(1 if failed else 0)
