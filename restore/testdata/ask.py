# What the Python programs of the tests share: they answer questions on a unix
# socket, which the test reaches through /proc/PID/root without entering.
import json, os, signal, socket, sys, threading, time

def answer(functions):
    """Answer one question a connection, until the end of days."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.bind("/run/ask")
    s.listen()
    while True:
        c, _ = s.accept()
        with c:
            name, *args = c.recv(4096).decode().split()
            try:
                value = functions[name](*args)
            except Exception as e:
                value = {"failed": repr(e)}
            c.sendall(json.dumps(value).encode())

