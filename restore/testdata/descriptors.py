# A process that holds one of every kind of descriptor and of memory, with
# something in it that a restore could lose.
import array, ctypes, fcntl, mmap, select, struct, tempfile

libc = ctypes.CDLL(None, use_errno=True)

def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "libc")
    return result

directory = "/srv/crucible-test"
os.makedirs(directory)
held = {}  # what must stay open

# Files: a position, append mode, one that is shared with a child, deleted ones.
position = open(directory + "/position", "w+")
position.write("0123456789")
position.flush()
position.seek(4)
append = open(directory + "/append", "a")
append.write("first\n")
append.flush()
deleted = open(directory + "/deleted", "w+")
deleted.write("still here")
deleted.flush()
os.unlink(directory + "/deleted")
large = open(directory + "/large", "w+b")  # more than CRIU keeps by default
large.write(b"L" * (3 << 20))
large.flush()
os.unlink(directory + "/large")
linked = open(directory + "/linked", "w+")  # deleted, but alive by another name
linked.write("two names")
linked.flush()
os.link(directory + "/linked", directory + "/other")
os.unlink(directory + "/linked")
nameless = tempfile.TemporaryFile(dir="/tmp")
nameless.write(b"nameless")
nameless.flush()
library = open("/etc/passwd")  # of the host, read half
library.readline()

# Locks
flocked = open(directory + "/flock", "w")
fcntl.flock(flocked, fcntl.LOCK_EX)
posix = open(directory + "/posix", "w+")
posix.write("x" * 100)
posix.flush()
fcntl.lockf(posix, fcntl.LOCK_EX, 10, 20)

# Pipes and sockets with something in them
pipe = os.pipe()
fcntl.fcntl(pipe[1], 1031, 1 << 17)  # F_SETPIPE_SZ
os.write(pipe[1], b"p" * 100000)
os.mkfifo(directory + "/fifo")
fifo = os.open(directory + "/fifo", os.O_RDWR)
os.write(fifo, b"fifo")
stream = socket.socketpair()
stream[0].sendall(b"stream")
packets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
packets[0].send(b"one")
packets[0].send(b"two")
passing = socket.socketpair()
with open(directory + "/passed", "w+") as f:
    f.write("passed")
    f.flush()
    f.seek(0)
    passing[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [f.fileno()]))])
listener = socket.create_server(("127.0.0.1", 7000))
tcp = socket.create_connection(("127.0.0.1", 7000))
accepted, _ = listener.accept()
tcp.sendall(b"t" * 50000)
accepted.sendall(b"answer")
tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 7001))
six = socket.create_server(("::1", 7002), family=socket.AF_INET6)

# Events
eventfd = os.eventfd(5)
poll = select.epoll()
poll.register(pipe[0], select.EPOLLIN)
poll.register(udp, select.EPOLLIN | select.EPOLLET)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
mask = (ctypes.c_ulong * 16)(1 << (signal.SIGUSR1 - 1))
signalfd = check(libc.signalfd(-1, ctypes.byref(mask), 0))
os.kill(os.getpid(), signal.SIGUSR1)
inotify = check(libc.inotify_init())
check(libc.inotify_add_watch(inotify, directory.encode(), 0x100))  # IN_CREATE

class Itimerspec(ctypes.Structure):
    _fields_ = [(n, ctypes.c_long) for n in ("interval", "interval_ns", "value", "value_ns")]
timerfd = check(libc.timerfd_create(time.CLOCK_MONOTONIC, 0))  # expires, and nobody reads that before
check(libc.timerfd_settime(timerfd, 0, ctypes.byref(Itimerspec(0, 1000000, 0, 1000000)), None))

# Memory
memfd = os.memfd_create("memory")
os.write(memfd, b"memfd")
with open(directory + "/map", "w+b") as f:
    f.write(b"file" * 1024)
    f.flush()
    private = mmap.mmap(f.fileno(), 4096, flags=mmap.MAP_PRIVATE)
    common = mmap.mmap(f.fileno(), 4096)
private[:7] = b"private"
anonymous = mmap.mmap(-1, 8 << 20)
anonymous[5 << 20:(5 << 20) + 5] = b"pages"
IPC_CREAT = 0o1000
shm = check(libc.shmget(0x4711, 8192, IPC_CREAT | 0o600))
libc.shmat.restype = ctypes.c_void_p
attached = libc.shmat(shm, None, 0)
ctypes.memmove(attached, b"system five", 11)
sem = check(libc.semget(0x4711, 1, IPC_CREAT | 0o600))
check(libc.semctl(sem, 0, 16, 3))  # SETVAL
queue = check(libc.msgget(0x4711, IPC_CREAT | 0o600))
class Message(ctypes.Structure):
    _fields_ = [("type", ctypes.c_long), ("text", ctypes.c_char * 16)]
check(libc.msgsnd(queue, ctypes.byref(Message(7, b"queued")), 16, 0))
with open("/dev/shm/posix", "w+b") as f:
    f.write(b"\0" * 4096)
    f.flush()
    posix_shm = mmap.mmap(f.fileno(), 4096)
posix_shm[:9] = b"posix shm"

# Of the process itself
os.umask(0o027)
os.chdir(directory)
os.nice(3)
libc.prctl(15, b"descriptors")  # PR_SET_NAME
libc.prctl(4, 0)  # PR_SET_DUMPABLE
libc.prctl(4, 1)
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))

def child_position():
    """Moves the shared position from another process."""
    pid = os.fork()
    if pid == 0:
        os.lseek(position.fileno(), 2, os.SEEK_CUR)
        os._exit(0)
    os.waitpid(pid, 0)
    return os.lseek(position.fileno(), 0, os.SEEK_CUR)

def locked(path, how):
    """Whether another process finds the lock."""
    pid = os.fork()
    if pid == 0:
        with open(path, "r+") as f:
            try:
                how(f)
                os._exit(0)
            except OSError:
                os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1

def peek():
    """What can be read without changing it: the same before and after."""
    out = {
        "position": os.lseek(position.fileno(), 0, os.SEEK_CUR),
        "flags": [fcntl.fcntl(f, fcntl.F_GETFL) for f in (append, pipe[0], stream[0], tcp, eventfd, udp)],
        "cloexec": [fcntl.fcntl(f, fcntl.F_GETFD) for f in (append, pipe[0], memfd)],
        "deleted": os.pread(deleted.fileno(), 100, 0).decode(),
        "links": [os.fstat(f.fileno()).st_nlink for f in (deleted, large, linked, nameless)],
        "large": os.pread(large.fileno(), 4 << 20, 0).count(b"L"),
        "linked": os.pread(linked.fileno(), 100, 0).decode(),
        "same": os.path.samestat(os.fstat(linked.fileno()), os.stat(directory + "/other")),
        "nameless": os.pread(nameless.fileno(), 100, 0).decode(),
        "flock": locked(directory + "/flock", lambda f: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)),
        "posix": locked(directory + "/posix", lambda f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 25)),
        "free": locked(directory + "/posix", lambda f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 35)),
        "pipe size": fcntl.fcntl(pipe[0], 1032),
        "fdinfo": open(f"/proc/self/fdinfo/{eventfd}").read().count("eventfd-count:                5"),
        "watches": open(f"/proc/self/fdinfo/{inotify}").read().count("inotify wd:"),
        "polled": sorted(open(f"/proc/self/fdinfo/{poll.fileno()}").read().count(x) for x in ("tfd:",)),
        "memfd": os.pread(memfd, 100, 0).decode(),
        "private": private[:12].decode(), "common": common[:12].decode(),
        "anonymous": anonymous[5 << 20:(5 << 20) + 5].decode(),
        "shm": ctypes.string_at(attached, 11).decode(), "shm key": libc.shmget(0x4711, 0, 0) == shm,
        "sem": libc.semctl(sem, 0, 12), "posix shm": posix_shm[:9].decode(),
        "nodelay": tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
        "names": [tcp.getsockname(), tcp.getpeername(), udp.getsockname(), six.getsockname()],
        "cwd": os.getcwd(), "nice": os.nice(0), "comm": open("/proc/self/comm").read(),
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "oom": open("/proc/self/oom_score_adj").read(),
        "host": socket.gethostname(), "environ": dict(os.environ), "argv": sys.argv,
        "cpus": len(os.sched_getaffinity(0)), "groups": os.getgroups(), "passwd": os.lseek(library.fileno(), 0, os.SEEK_CUR),
    }
    old = os.umask(0)
    os.umask(old)
    out["umask"] = old
    return out

def drain():
    """What was under way, taken out: only once, after the restore."""
    def read(fd, n):
        data = b""
        while len(data) < n:
            data += os.read(fd, n - len(data))
        return data
    append.write("second\n")
    append.flush()
    _, anc, _, _ = passing[1].recvmsg(1, socket.CMSG_SPACE(4))
    passed = array.array("i", anc[0][2])[0]
    message = Message()
    check(libc.msgrcv(queue, ctypes.byref(message), 16, 7, 0))
    out = {
        "shared position": child_position(), "append": open(directory + "/append").read(),
        "polled": len(poll.poll(0)), "pipe": read(pipe[0], 100000).count(b"p"), "fifo": os.read(fifo, 10).decode(),
        "stream": stream[1].recv(10).decode(), "packets": [packets[1].recv(10).decode() for _ in range(2)],
        "passed": os.read(passed, 10).decode(), "tcp": read(accepted.fileno(), 50000).count(b"t"),
        "answer": tcp.recv(10).decode(), "eventfd": os.eventfd_read(eventfd),
        "signalfd": struct.unpack_from("I", os.read(signalfd, 128))[0], "message": message.text.decode(),
    }
    # Once for the old expiry, and again.
    out["timerfd"] = [struct.unpack("Q", os.read(timerfd, 8))[0] > 0 for _ in range(3)]
    udp.sendto(b"datagram", ("127.0.0.1", 7001))
    out["udp polled"] = len(poll.poll(1))
    out["udp"] = udp.recv(100).decode()
    out["udp after"] = len(poll.poll(0))
    open(directory + "/new", "w").close()
    out["inotify"] = os.read(inotify, 100)[16:].rstrip(b"\0").decode()
    again = socket.create_connection(("127.0.0.1", 7000), 5)
    listener.accept()[0].sendall(b"again")
    out["listener"] = again.recv(10).decode()
    common[:6] = b"common"
    out["written"] = open(directory + "/map").read(6)
    return out

answer({"peek": peek, "drain": drain})
