def mode(path):
    return oct(os.stat(path).st_mode & 0o7777)


def capable(path):
    try:
        os.getxattr(path, "security.capability")
        return True
    except OSError:
        return False


os.makedirs("/cleared")
for name, bits, after in (
    ("suid", 0o4755, "0o755"),
    ("sgid", 0o2755, "0o755"),
    ("both", 0o6755, "0o755"),
    ("lock", 0o2644, "0o2644"),  # Without execution for the group setgid meant a mandatory lock.
    ("sticky", 0o1755, "0o1755"),
):
    for suffix, uid, gid in (("", 1000, 1000), ("-none", -1, -1), ("-root", 0, 0), ("-group", -1, 9)):
        path = f"/cleared/{name}{suffix}"
        write(path, "", bits)
        is_(mode(path), oct(bits))
        os.chown(path, uid, gid)
        is_(mode(path), after)
os.mkdir("/cleared/directory")
os.chmod("/cleared/directory", 0o6755)
os.chown("/cleared/directory", 1000, 1000)
is_(mode("/cleared/directory"), "0o6755")
write("/cleared/cap", "", 0o755)
os.setxattr("/cleared/cap", "security.capability", CAPABILITY)
is_(capable("/cleared/cap"), True)
os.chown("/cleared/cap", 1000, 1000)
is_(capable("/cleared/cap"), False)
# It can have both, in this order.
os.setxattr("/cleared/cap", "security.capability", CAPABILITY)
os.chmod("/cleared/cap", 0o4755)
# Of the base.
os.chown("/base/suid2", 5, 5)
is_(mode("/base/suid2"), "0o755")
os.chown("/base/cap", 5, 5)
is_(capable("/base/cap"), False)
