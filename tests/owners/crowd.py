os.makedirs("/crowd")
THREADS, FILES = 8, 50


def work(name):
    os.mkdir(f"/crowd/{name}")
    for number in range(FILES):
        path = f"/crowd/{name}/{number}"
        write(path, "")
        os.symlink("x", path + "-link")
        os.chown(path, number, name)
        os.lchown(path + "-link", name, number)
        os.rename(path, path + "-renamed")


pids = []
for process in range(4):
    pid = os.fork()
    if pid == 0:
        threads = [threading.Thread(target=work, args=(100 * process + n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(0)
    pids.append(pid)
for pid in pids:
    is_(os.waitpid(pid, 0)[1], 0)

# Processes that end, or are interrupted, in the middle of a call.
import signal
write("/crowd/one")
for _ in range(30):
    pid = os.fork()
    if pid == 0:
        while True:
            os.chown("/crowd/one", 5, 5)
    os.kill(pid, signal.SIGKILL) if _ % 2 else os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
signal.signal(signal.SIGALRM, lambda *_: None)
# Without this a call may end with EINTR, which chown(2) does not know: the kernel waits for an answer.
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for _ in range(2000):
    os.chown("/crowd/one", 6, 6)
signal.setitimer(signal.ITIMER_REAL, 0)
os.chown("/crowd/one", 7, 7)
