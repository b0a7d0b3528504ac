# Upon what earlier steps recorded.
os.chown("/new/file", -1, 99)
os.chown("/new/a", 98, -1)
os.lchown("/new/link", -1, 97)
os.lchown("/new/dangling", 96, -1)
os.chown("/new/pipe", -1, 95)
with open("/new/fd", "a") as file:
    file.write("more")
os.rename("/new/fd2", "/new/fd3")
os.lchown("/base/link-right", -1, 94)
os.chown("/base/d", -1, 93)
os.chown("/base/j", -1, 92)
os.unlink("/new/proc")
os.symlink("x", "/new/proc")
