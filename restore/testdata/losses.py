# What is lost without a word.
import ctypes, os, select, signal

udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 7001))
udp.sendto(b"x" * 100, udp.getsockname())
udp.sendto(b"y" * 10, udp.getsockname())
libc = ctypes.CDLL(None)
r, w = os.pipe()
if os.fork() == 0:
    libc.sleep(100000)  # nanosleep
    os._exit(0)
if os.fork() == 0:
    libc.poll(None, 0, 100000000)
    os._exit(0)
os.sched_setaffinity(0, {0})

answer({"ready": lambda: True})
