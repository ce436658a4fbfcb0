#!/usr/bin/python3
"""Servers and clients of the acceptance: each connection is greeted with the server's name, then echoed.

talk.py serve NAME ADDRESS:PORT...       a server, TCP and UDP
talk.py ask ADDRESS:PORT COUNT           so many connections, one after another; who greeted how often, what failed
talk.py datagrams ADDRESS:PORT COUNT     the same with UDP, from a new port each
talk.py hold ADDRESS:PORT FILE           one connection that talks all the time until FILE exists; broken or unbroken
talk.py storm ADDRESS:PORT FILE          about 40 new connections a second until FILE exists; says when the first was
                                         served, and at the end what became of all
talk.py idle ADDRESS:PORT COUNT N FILE   so many connections that do nothing; says how many there are, holds them
                                         until FILE exists, then says how many of every Nth talk

Plain sockets and epoll: the machine is emulated, and 20,000 connections are to be opened in minutes.
"""

import collections
import os
import select
import socket
import sys
import threading
import time


def address(text):
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


def connect(to, timeout=20.0):
    return socket.create_connection(address(to), timeout)


def line_of(connection):
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("end")
        line += byte
    return line.decode().strip()


def reason(error):
    return "timeout" if isinstance(error, (TimeoutError, socket.timeout)) else type(error).__name__


def show(counts):
    print(" ".join(f"{name}={count}" for name, count in sorted(counts.items())), flush=True)


def serve(name, *listen):
    greeting = name.encode() + b"\n"
    poll = select.epoll()
    sockets = {}

    def watch(each):
        each.setblocking(False)
        sockets[each.fileno()] = each
        poll.register(each, select.EPOLLIN)

    def serve_listener(listener):
        for _ in range(64):
            connection, _ = listener.accept()
            connection.send(greeting)
            watch(connection)

    def serve_datagram(each):
        _, sender = each.recvfrom(2000)
        each.sendto(greeting, sender)

    def serve_connection(connection):
        try:
            data = connection.recv(4096)
            if data:
                connection.send(data)
                return
        except ConnectionError:
            pass
        del sockets[connection.fileno()]
        connection.close()

    serving = {}
    for each in listen:
        stream = socket.create_server(address(each), backlog=4096)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(address(each))
        serving[stream.fileno()], serving[datagrams.fileno()] = serve_listener, serve_datagram
        watch(stream)
        watch(datagrams)
    while True:
        for number, _ in poll.poll():
            try:
                serving.get(number, serve_connection)(sockets[number])
            except OSError:
                # nothing there any more, or a health check that has gone already
                pass


def ask(to, count):
    counts = collections.Counter()
    for _ in range(int(count)):
        try:
            with connect(to) as connection:
                counts[line_of(connection)] += 1
        except OSError as error:
            counts[reason(error)] += 1
    show(counts)


def datagrams(to, count):
    counts = collections.Counter()
    for _ in range(int(count)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            try:
                client.connect(address(to))
                client.send(b"hello\n")
                counts[client.recv(100).decode().strip()] += 1
            except OSError as error:
                counts[reason(error)] += 1
    show(counts)


def hold(to, until):
    turns = 0
    try:
        with connect(to) as connection:
            # a restart may take a while under emulation: what counts is that the connection lives
            connection.settimeout(60)
            name = line_of(connection)
            print(f"connected {name}", flush=True)
            while not os.path.exists(until):
                connection.sendall(b"still there\n")
                if line_of(connection) != "still there":
                    raise ConnectionError("another answer")
                turns += 1
                time.sleep(0.05)
    except OSError as error:
        print(f"broken after {turns}: {reason(error)} {error}", flush=True)
        sys.exit(1)
    print(f"unbroken after {turns}", flush=True)


def storm(to, until):
    counts = collections.Counter()

    def one_after_another():
        while not os.path.exists(until):
            began, own = time.strftime("%T"), "nowhere, for it did not connect"
            try:
                with connect(to, 20.0) as connection:
                    own = connection.getsockname()
                    line_of(connection)
                    counts["ok"] += 1
                    if counts["ok"] == 1:
                        print("connected", flush=True)
            except OSError as error:
                counts[reason(error)] += 1
                print(f"begun at {began} from {own}: {reason(error)}", flush=True)
            # what else runs in the machine has to come to its end as well
            time.sleep(0.1)

    threads = [threading.Thread(target=one_after_another) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    show(counts)


# How many connections of `idle` are on their way at a time.
AT_A_TIME = 200


def open_many(to, count):
    """Connections that have been greeted; what fails is not among them."""
    poll = select.epoll()
    waiting = {}
    opened = []
    started = 0
    while started < count or waiting:
        while started < count and len(waiting) < AT_A_TIME:
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(to)
            poll.register(connection, select.EPOLLIN)
            waiting[connection.fileno()] = connection
            started += 1
        ready = poll.poll(60)
        if not ready:
            break
        for number, _ in ready:
            connection = waiting.pop(number)
            poll.unregister(connection)
            try:
                if connection.recv(100).endswith(b"\n"):
                    opened.append(connection)
            except OSError:
                connection.close()
    return opened


def talks(connection):
    connection.settimeout(60)
    try:
        connection.sendall(b"still there\n")
        return connection.recv(100) == b"still there\n"
    except OSError:
        return False


def idle(to, count, every, until):
    opened = open_many(address(to), int(count))
    print(f"open {len(opened)}", flush=True)
    while not os.path.exists(until):
        time.sleep(0.2)
    tried = opened[:: int(every)]
    alive = sum(talks(connection) for connection in tried)
    print(f"alive {alive} of {len(tried)}", flush=True)


VERBS = {"serve": serve, "ask": ask, "datagrams": datagrams, "hold": hold, "storm": storm, "idle": idle}


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in VERBS:
        print(__doc__, file=sys.stderr)
        sys.exit(64)
    VERBS[sys.argv[1]](*sys.argv[2:])


main()
