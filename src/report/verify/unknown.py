def unknown(_):
    raise NoEffect("no command can tell: the library tells no option back")
