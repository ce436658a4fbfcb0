#!/usr/bin/python3
"""Tries what the sandbox of convey.service forbids, and prints what it can do.

probe.py NAMESPACES TMP_FILE     NAMESPACES: mnt and uts of the host as /proc shows them, with a comma between
probe.py all                     prints everything that it would try

Run as the service's user without the sandbox it can do all of it; so what it cannot do inside is the sandbox's doing.
"""

import ctypes
import mmap
import os
import socket
import sys
import tempfile

libc = ctypes.CDLL(None, use_errno=True)

# include/uapi/linux/personality.h, sched.h; include/linux/socket.h; ptrace.h
PER_LINUX32, CLONE_NEWUSER, AF_ALG, PTRACE_TRACEME = 8, 0x10000000, 38, 0
SYS_ADJTIMEX = 159


def call(function, *arguments):
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), function.__name__)


def in_child(action):
    """For what would change this process."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise PermissionError


def in_host(kind):
    if os.readlink(f"/proc/self/ns/{kind}") not in sys.argv[1]:
        raise PermissionError


def is_writable(directory):
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise PermissionError


def new_privileges():
    if "NoNewPrivs:\t0" not in open("/proc/self/status").read():
        raise PermissionError


def file_for_others():
    with tempfile.NamedTemporaryFile() as file:
        made = file.name + ".made"
        os.close(os.open(made, os.O_CREAT | os.O_WRONLY, 0o666))
        mode = os.stat(made).st_mode
        os.unlink(made)
        if not mode & 0o044:
            raise PermissionError


def setuid_file():
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0o4755)


def adjtimex():
    # of which all fields are zero: only asks
    call(libc.syscall, SYS_ADJTIMEX, ctypes.create_string_buffer(512))


TRIES = {
    "NoNewPrivileges": new_privileges,
    "ProtectSystem, /usr": lambda: is_writable("/usr"),
    "ProtectSystem, /etc": lambda: is_writable("/etc"),
    "ProtectSystem, /var": lambda: is_writable("/var"),
    "ProtectHome": lambda: os.listdir("/home"),
    "ProtectClock": adjtimex,
    "ProtectControlGroups": lambda: is_writable("/sys/fs/cgroup"),
    "ProtectHostname": lambda: in_host("uts"),
    "ProtectKernelModules": lambda: os.listdir("/usr/lib/modules"),
    "ProtectKernelTunables, /proc/sys": lambda: is_writable("/proc/sys"),
    "ProtectKernelTunables, /sys": lambda: is_writable("/sys"),
    "ProtectProc": lambda: os.stat("/proc/1"),
    "PrivateDevices": lambda: os.stat("/dev/vda"),
    "PrivateTmp": lambda: os.stat(sys.argv[2]),
    "PrivateMounts": lambda: in_host("mnt"),
    "LockPersonality": lambda: in_child(lambda: call(libc.personality, PER_LINUX32)),
    "MemoryDenyWriteExecute": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
    "RestrictAddressFamilies": lambda: socket.socket(AF_ALG, socket.SOCK_SEQPACKET),
    "RestrictNamespaces": lambda: in_child(lambda: call(libc.unshare, CLONE_NEWUSER)),
    "RestrictSUIDSGID": setuid_file,
    "SystemCallFilter, ptrace": lambda: in_child(lambda: call(libc.ptrace, PTRACE_TRACEME, 0, 0, 0)),
    "SystemCallFilter, @resources": lambda: in_child(lambda: os.nice(1)),
    "UMask": file_for_others,
}


def main():
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        sys.exit(64)
    for name, attempt in TRIES.items():
        try:
            if len(sys.argv) == 3:
                attempt()
            print(name, flush=True)
        except OSError:
            pass


main()
