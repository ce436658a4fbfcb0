#!/usr/bin/python3
"""Servers and clients of the acceptance: each connection is greeted with the server's name, then echoed line by line.

talk.py serve NAME ADDRESS:PORT...       a server, TCP and UDP
talk.py ask ADDRESS:PORT COUNT           so many connections, one after another; who greeted how often, what failed
talk.py datagrams ADDRESS:PORT COUNT     the same with UDP, from a new port each
talk.py hold ADDRESS:PORT FILE           one connection that talks all the time until FILE exists; broken or unbroken
talk.py storm ADDRESS:PORT FILE          new connections all the time until FILE exists; counts what became of them
talk.py idle ADDRESS:PORT COUNT FILE     so many connections that do nothing; says how many there are, holds them
                                         until FILE exists, then says how many still talk
"""

import asyncio
import collections
import os
import socket
import sys
import time


def address(text):
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


def connect(to, timeout=5.0):
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


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, name):
        self.name = name

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, sender):
        self.transport.sendto(self.name.encode() + b"\n", sender)


async def serve(name, *listen):
    async def greet(reader, writer):
        try:
            writer.write(name.encode() + b"\n")
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    loop = asyncio.get_running_loop()
    for each in listen:
        host, port = address(each)
        await asyncio.start_server(greet, host, port, backlog=4096, reuse_address=True)
        await loop.create_datagram_endpoint(lambda: Datagrams(name), local_addr=(host, port))
    await asyncio.Event().wait()


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
            client.settimeout(3)
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
    while not os.path.exists(until):
        try:
            with connect(to, 20.0) as connection:
                line_of(connection)
                counts["ok"] += 1
        except OSError as error:
            counts[reason(error)] += 1
            # a refusal comes at once: without a pause they would outnumber everything
            time.sleep(0.01)
    show(counts)


async def idle(to, count, until):
    host, port = address(to)
    gate = asyncio.Semaphore(200)

    async def one():
        async with gate:
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 60)
                await asyncio.wait_for(reader.readline(), 60)
                return reader, writer
            except OSError:
                return None

    def alive(opened):
        return [each for each in opened if each]

    async def talks(pair):
        async with gate:
            reader, writer = pair
            try:
                writer.write(b"still there\n")
                return await asyncio.wait_for(reader.readline(), 60) == b"still there\n"
            except OSError:
                return False

    opened = alive(await asyncio.gather(*(one() for _ in range(int(count)))))
    print(f"open {len(opened)}", flush=True)
    while not os.path.exists(until):
        await asyncio.sleep(0.2)
    answers = await asyncio.gather(*(talks(each) for each in opened))
    print(f"alive {sum(answers)}", flush=True)
    os._exit(0)


VERBS = {"serve": serve, "ask": ask, "datagrams": datagrams, "hold": hold, "storm": storm, "idle": idle}


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in VERBS:
        print(__doc__, file=sys.stderr)
        sys.exit(64)
    result = VERBS[sys.argv[1]](*sys.argv[2:])
    if asyncio.iscoroutine(result):
        asyncio.run(result)


main()
