# A process that has one of everything that a record of it can say.
import ctypes, fcntl, mmap, os, resource, select, signal, socket, struct, threading, time

libc = ctypes.CDLL(None, use_errno=True)
os.nice(5)
os.umask(0o027)
os.makedirs("/var/tmp/here", exist_ok=True)
os.chdir("/var/tmp/here")
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH, signal.SIGURG])
os.kill(os.getpid(), signal.SIGWINCH)
signal.setitimer(signal.ITIMER_REAL, 5000, 60)
signal.signal(signal.SIGALRM, lambda *_: None)

kept = []
tcp = socket.socket(); tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); tcp.bind(("127.0.0.1", 8080)); tcp.listen(7)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); udp.bind(("::1", 5353))
pair = socket.socketpair()
named = socket.socket(socket.AF_UNIX); named.bind("\0record"); named.listen(3)
pipe = os.pipe()
counter = libc.eventfd(7, 0)
timer = libc.timerfd_create(1, 0)
libc.timerfd_settime(timer, 0, struct.pack("qqqq", 9, 0, 4000, 0), None)
poll = select.epoll(); poll.register(tcp.fileno(), select.EPOLLIN)
watch = libc.inotify_init1(0); libc.inotify_add_watch(watch, b"/var/tmp/here", 0x100)
memory = os.memfd_create("record"); os.ftruncate(memory, 8192)
shared = mmap.mmap(memory, 8192)
file = open("/var/tmp/here/file", "w+b"); file.write(b"x" * 100); file.flush()
mapped = mmap.mmap(file.fileno(), 100)
other = open("/var/tmp/here/locked", "w+b"); fcntl.lockf(other, fcntl.LOCK_EX, 10, 5)
fcntl.flock(file, fcntl.LOCK_SH)
os.set_inheritable(file.fileno(), True)

def sleeper():
    libc.prctl(15, b"second", 0, 0, 0)
    time.sleep(100000)

if os.fork() == 0:
    os._exit(3)
os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
threading.Thread(target=sleeper, daemon=True).start()
fds = {"tcp": tcp.fileno(), "udp": udp.fileno(), "pair": pair[0].fileno(), "named": named.fileno(), "pipe": pipe[0], "eventfd": counter,
       "timerfd": timer, "epoll": poll.fileno(), "inotify": watch, "memfd": memory, "file": file.fileno(), "locked": other.fileno()}
print("fds", *["%s=%d" % i for i in fds.items()], flush=True)
while True:
    time.sleep(100000)
