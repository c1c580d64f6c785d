#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs a program as on a kernel that lacks some calls.

usage: deny.py CALL[,CALL]... PROGRAM ARGS ...; a call fails with ENOSYS, a
socket option with ENOPROTOOPT.  pipe2 without flags is glibc's pipe.
"""
import ctypes
import errno
import os
import struct
import sys

# the numbers of x86-64, and of all newer architectures
CALLS = {
    'accept4': (288, 242), 'getrandom': (318, 278), 'sendmmsg': (307, 269),
    'recvmmsg': (299, 243), 'pidfd_open': (434, 434),
    'pidfd_getfd': (438, 438), 'pidfd_send_signal': (424, 424),
    'close_range': (436, 436), 'signalfd4': (289, 74), 'splice': (275, 76),
    'pipe2': (293, 59), 'setsockopt': (54, 208),
}
OPTIONS = {'SO_REUSEPORT': (1, 15), 'UDP_SEGMENT': (17, 103)}
MACHINES = {'x86_64': 0, 'aarch64': 1, 'riscv64': 1}

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06      # of BPF
DENY, ALLOW = 0x50000, 0x7fff0000           # of seccomp


def rules(name):
    which = MACHINES[os.uname().machine]
    if name == 'pipe2':
        return [(LOAD, 0, 0, 0), (EQUAL, 0, 3, CALLS[name][which]),
                (LOAD, 0, 0, 24), (EQUAL, 1, 0, 0),
                (RETURN, 0, 0, DENY | errno.ENOSYS)]
    if name in CALLS:
        return [(LOAD, 0, 0, 0), (EQUAL, 0, 1, CALLS[name][which]),
                (RETURN, 0, 0, DENY | errno.ENOSYS)]
    level, option = OPTIONS[name]
    return [(LOAD, 0, 0, 0), (EQUAL, 0, 5, CALLS['setsockopt'][which]),
            (LOAD, 0, 0, 24), (EQUAL, 0, 3, level),
            (LOAD, 0, 0, 32), (EQUAL, 0, 1, option),
            (RETURN, 0, 0, DENY | errno.ENOPROTOOPT)]


class Program(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]


def main():
    code = [r for name in sys.argv[1].split(',') for r in rules(name)]
    code.append((RETURN, 0, 0, ALLOW))
    text = ctypes.create_string_buffer(
        b''.join(struct.pack('HBBI', *r) for r in code))
    program = Program(len(code), ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(22, 2, ctypes.byref(program), 0, 0) != 0:  # PR_SET_SECCOMP
        sys.exit('seccomp: ' + os.strerror(ctypes.get_errno()))
    os.execvp(sys.argv[2], sys.argv[2:])


main()
