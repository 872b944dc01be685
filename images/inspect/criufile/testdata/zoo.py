# One of each kind of thing that CRIU has a file for, as far as a container
# without extra rights can have it.
import ctypes, fcntl, mmap, os, pty, resource, select, signal, socket, struct, tempfile, threading, time

libc = ctypes.CDLL(None, use_errno=True)
keep = []

def ok(n):
    if n < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return n

os.chdir("/tmp")
r, w = os.pipe()                                         # a pipe with data in it
os.write(w, b"in the pipe")
os.mkfifo("fifo")
keep.append(os.open("fifo", os.O_RDWR))
os.write(keep[-1], b"in the fifo")
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
a.send(b"queued")
c, d = socket.socketpair()
socket.send_fds(c, [b"with a descriptor"], [r])
listener = socket.socket(socket.AF_UNIX)
listener.bind("/tmp/listener")
listener.listen()
abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
abstract.bind("\0abstract=\xff")
server = socket.socket()
server.bind(("127.0.0.1", 8080))
server.listen()
client = socket.create_connection(("127.0.0.1", 8080))
served, _ = server.accept()
served.sendall(b"queued in TCP")
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(("::1", 5353))
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
netlink.bind((0, 0))
packet = None
try:
    packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
except PermissionError:
    pass
ghost = os.open("ghost", os.O_CREAT | os.O_RDWR)         # a deleted file
os.write(ghost, b"boo" * 100)
os.unlink("ghost")
odd = os.open(b"not \xff utf-8", os.O_CREAT | os.O_RDWR) # a name that is no text
fcntl.lockf(odd, fcntl.LOCK_EX)
event = ok(libc.eventfd(7, 0))
epoll = select.epoll()
epoll.register(event, select.EPOLLIN)
timer = ok(libc.timerfd_create(1, 0))
ok(libc.timerfd_settime(timer, 0, struct.pack("4q", 60, 0, 3600, 0), None))
epoll.register(timer, select.EPOLLIN)
mask = ctypes.create_string_buffer(128)
libc.sigemptyset(mask)
libc.sigaddset(mask, signal.SIGUSR2)
signalfd = ok(libc.signalfd(-1, mask, 0))
inotify = ok(libc.inotify_init1(0))
ok(libc.inotify_add_watch(inotify, b"/tmp", 0xfff))
memfd = os.memfd_create("memory", os.MFD_ALLOW_SEALING)
os.write(memfd, b"in memory" * 1000)
master, slave = pty.openpty()
os.write(slave, b"on the terminal")
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 3600, 60)
ok(libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)                     # pending
shm = ok(libc.shmget(0x1234, 5001, 0o1600))
sem = ok(libc.semget(0x1234, 3, 0o1600))
ok(libc.semctl(sem, 1, 16, 42))
queue = ok(libc.msgget(0x1234, 0o1600))
for text in b"first", b"a second one":
    message = struct.pack("l", 5) + text
    ok(libc.msgsnd(queue, message, len(text), 0))
shared = mmap.mmap(-1, 8192)
shared[:6] = b"shared"
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
threading.Thread(target=time.sleep, args=(1000,), daemon=True, name="thread").start()
ns = os.open("/proc/self/ns/uts", os.O_RDONLY)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os._exit(3)
    signal.pause()                                       # its child is a zombie
print("ready", flush=True)
while True:
    time.sleep(1000)
