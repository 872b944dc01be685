# A family of processes in every state that a process can be in, and one that
# has every kind of timer and of waiting signal.
import ctypes, mmap, struct

libc = ctypes.CDLL(None, use_errno=True)
shared = mmap.mmap(-1, 4096)  # seen by all of the family
names = ["timer", "timerfd", "real", "virtual", "alarm", "monotonic", "boottime", "expired"]

def put(name, value):
    struct.pack_into("q", shared, 8 * names.index(name), value)

def get(name):
    return struct.unpack_from("q", shared, 8 * names.index(name))[0]

def fork(child):
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(0)
    return pid

def wait_forever():
    while True:
        signal.pause()

class Timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]

class Itimerspec(ctypes.Structure):
    _fields_ = [("interval", Timespec), ("value", Timespec)]

class Sigevent(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("signo", ctypes.c_int), ("notify", ctypes.c_int), ("pad", ctypes.c_int * 12)]

def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "libc")
    return result

def every(ms):
    t = Timespec(0, ms * 1000000)
    return Itimerspec(t, t)

ready, told = os.pipe()

def tell():
    os.write(told, b".")

def leader():
    """A session with two process groups, one of which has lost its leader."""
    os.setsid()
    def same(): tell(); wait_forever()
    def group():
        os.setpgid(0, 0)
        fork(same)
        tell()
        wait_forever()
    def lost():
        os.setpgid(0, 0)
        fork(same)
    fork(same)
    fork(group)
    os.waitpid(fork(lost), 0)
    tell()
    wait_forever()

def daemon():
    """A child whose parent and session leader are gone."""
    os.setsid()
    def orphan(): tell(); wait_forever()
    fork(orphan)

def waiting():
    """Signals that are blocked and have arrived, of the thread, of the process, and queued."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN + 1, signal.SIGTERM])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    got = []
    signal.signal(signal.SIGUSR2, lambda s, f: got.append(s))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
    for value in (41, 42, 43):
        check(libc.sigqueue(os.getpid(), signal.SIGRTMIN + 1, ctypes.c_void_p(value)))
    tell()
    signal.sigwait([signal.SIGTERM])  # the test's word to go on

    class Info(ctypes.Structure):
        _fields_ = [("signo", ctypes.c_int), ("errno", ctypes.c_int), ("code", ctypes.c_int), ("pad", ctypes.c_int),
                    ("pid", ctypes.c_int), ("uid", ctypes.c_int), ("value", ctypes.c_int), ("rest", ctypes.c_int * 25)]
    mask = (ctypes.c_ulong * 16)(1 << (signal.SIGRTMIN + 1 - 1))
    values = []
    for _ in range(3):
        info = Info()
        check(libc.sigwaitinfo(ctypes.byref(mask), ctypes.byref(info)))
        values.append(info.value)
    one = signal.sigwaitinfo([signal.SIGUSR1])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    ok = values == [41, 42, 43] and one.si_pid == os.getpid() and one.si_code == 0 and got == [signal.SIGUSR2]
    os._exit(3 if ok else 4)

def timers():
    """Ticks are counted in the shared page; what is left of the long ones is read by the parent's word."""
    signal.signal(signal.SIGRTMIN + 2, lambda s, f: put("timer", get("timer") + 1))
    signal.signal(signal.SIGALRM, lambda s, f: put("real", get("real") + 1))
    timer = ctypes.c_void_p()
    event = Sigevent(0, signal.SIGRTMIN + 2, 0)
    check(libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)))
    check(libc.timer_settime(timer, 0, ctypes.byref(every(20)), None))
    signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
    signal.setitimer(signal.ITIMER_VIRTUAL, 500, 0)
    long = ctypes.c_void_p()  # one that will not expire, on another clock
    check(libc.timer_create(time.CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(long)))
    check(libc.timer_settime(long, 0, ctypes.byref(Itimerspec(Timespec(0, 0), Timespec(5000, 0))), None))
    fd = check(libc.timerfd_create(time.CLOCK_MONOTONIC, 0))
    check(libc.timerfd_settime(fd, 0, ctypes.byref(every(10)), None))
    tell()
    while True:
        put("timerfd", get("timerfd") + struct.unpack("Q", os.read(fd, 8))[0])
        put("virtual", int(signal.getitimer(signal.ITIMER_VIRTUAL)[0]))
        left = Itimerspec()
        check(libc.timer_gettime(long, ctypes.byref(left)))
        put("boottime", left.value.sec)

def alarmed():
    signal.alarm(3000)
    tell()
    while True:
        signal.sigtimedwait([signal.SIGUSR1], 0.01)
        put("alarm", int(signal.getitimer(signal.ITIMER_REAL)[0]))
        put("monotonic", int(time.clock_gettime(time.CLOCK_MONOTONIC)))

def stopped():
    tell()
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(9)

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def threaded():
    for i in range(3):
        threading.Thread(target=time.sleep, args=(10000,), daemon=True).start()
    tell()
    wait_forever()

dead = [fork(lambda: os._exit(7)), fork(killed)]
children = {f.__name__: fork(f) for f in (leader, daemon, waiting, timers, alarmed, stopped, threaded)}
os.waitpid(children["daemon"], 0)
for _ in range(5 + 6):  # of leader's family five, and six others
    os.read(ready, 1)

def tree():
    """Every process as /proc shows it, without what may change."""
    out = []
    for pid in sorted(int(d) for d in os.listdir("/proc") if d.isdigit()):
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/status") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        state = "S" if fields[0] in "RSD" else fields[0]
        one = {"pid": pid, "state": state, "ppid": int(fields[1]), "group": int(fields[2]), "session": int(fields[3])}
        one["threads"] = len(os.listdir(f"/proc/{pid}/task"))
        if state != "Z":  # what a zombie had blocked is nobody's business any more
            for key in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd", "Uid", "Groups", "NoNewPrivs", "CapEff", "CapBnd"):
                one[key] = status[key]
            if pid in (children["timers"], children["alarmed"]):
                del one["SigPnd"], one["ShdPnd"], one["SigBlk"]  # they come and go
        out.append(one)
    return out

def settled():
    """The family once the stopped have stopped and the dead are dead."""
    while True:
        t = tree()
        states = {p["pid"]: p["state"] for p in t}
        if states[children["stopped"]] == "T" and all(states.get(d) == "Z" for d in dead):
            return t
        time.sleep(0.005)

def finish():
    """Ends what can end, and tells how."""
    out = {"exited": os.waitstatus_to_exitcode(os.waitpid(dead[0], 0)[1]),
           "killed": os.waitstatus_to_exitcode(os.waitpid(dead[1], 0)[1])}
    os.kill(children["waiting"], signal.SIGTERM)
    out["waiting"] = os.waitstatus_to_exitcode(os.waitpid(children["waiting"], 0)[1])
    os.kill(children["stopped"], signal.SIGCONT)
    out["stopped"] = os.waitstatus_to_exitcode(os.waitpid(children["stopped"], 0)[1])
    return out

answer({"tree": settled, "counts": lambda: {n: get(n) for n in names}, "finish": finish})
