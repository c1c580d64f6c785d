#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Peers for the end-to-end tests: services, probes, and servers that lie.

usage: net.py WHAT ARGS ...; each function below that has a docstring starting
with its arguments is one WHAT.  A server prints "ready" when it listens.
"""
import hashlib
import os
import selectors
import socket
import struct
import sys
import threading
import time

COOKIE = 0x2112A442


def family(host):
    return socket.AF_INET6 if ':' in host else socket.AF_INET


def say(*words):
    print(*words, flush=True)


def bound(kind, host, port, *flags):
    """a bound socket, a listening one for tcp"""
    tcp = kind == 'tcp'
    s = socket.socket(family(host),
                      socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    share = 'LAB_SHARE' in os.environ
    if tcp or share:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if 'reuseport' in flags or tcp and share:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if s.family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((host, int(port)))
    if tcp:
        s.listen(1024)
    return s


def serve(listener, handler):
    """one thread for each connection; an error ends only that one"""
    def run(c, peer):
        try:
            with c:
                handler(c, peer)
        except OSError:
            pass
    say('ready')
    while True:
        c, peer = listener.accept()
        threading.Thread(target=run, args=(c, peer), daemon=True).start()


# ---- services ----------------------------------------------------------

def echo(kind, host, port, *flags):
    """tcp|udp HOST PORT [reuseport] [uid=N] [deaf=TEXT]: sends back what it
    gets, but for datagrams of that text"""
    given = dict(f.split('=', 1) for f in flags if '=' in f)
    if 'uid' in given:
        os.setuid(int(given['uid']))
    s = bound(kind, host, port, *flags)
    if kind == 'udp':
        deaf = given['deaf'].encode() if 'deaf' in given else None
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        say('ready')
        while True:
            data, peer = s.recvfrom(65535)
            if data == deaf:
                continue
            try:
                s.sendto(data, peer)
            except OSError:
                pass
    s.setblocking(False)
    sel = selectors.DefaultSelector()
    sel.register(s, selectors.EVENT_READ)
    say('ready')
    while True:
        for key, _ in sel.select():
            c = key.fileobj
            if c is s:
                echo_accept(sel, s)
            else:
                echo_step(sel, c)


def echo_accept(sel, s):
    try:
        while True:
            c, _ = s.accept()
            sel.register(c, selectors.EVENT_READ)
    except OSError:
        pass


def echo_step(sel, c):
    """small messages only: what the peer does not take at once is an error"""
    try:
        c.setblocking(False)
        data = c.recv(65536)
        if data:
            c.settimeout(10)
            c.sendall(data)
            return
    except OSError:
        pass
    sel.unregister(c)
    c.close()


def whoami(kind, host, port):
    """tcp|udp HOST PORT: answers with the client's address"""
    s = bound(kind, host, port)
    if kind == 'tcp':
        serve(s, lambda c, peer: (c.recv(100), c.sendall(
            ('%s %d\n' % peer[:2]).encode())))
    say('ready')
    while True:
        _, peer = s.recvfrom(65535)
        s.sendto(('%s %d\n' % peer[:2]).encode(), peer)


def sink(host, port, *flags):
    """HOST PORT [slow]: reads all, then sends the digest and closes"""
    def one(c, _):
        h = hashlib.sha256()
        n = 0
        while True:
            data = c.recv(1 << 18)
            if not data:
                break
            h.update(data)
            n += len(data)
            if 'slow' in flags and n % (1 << 23) < (1 << 18):
                time.sleep(0.05)
        c.sendall(h.hexdigest().encode())
    serve(bound('tcp', host, port), one)


def both(host, port, mib):
    """HOST PORT MIB: sends MIB and reads to the end, both at once; then the
    digest of what was read"""
    serve(bound('tcp', host, port), lambda c, _: duplex(c, int(mib), b's'))


def rst(host, port):
    """HOST PORT: answers one message with 'bye' and a reset"""
    def one(c, _):
        c.recv(100)
        c.sendall(b'bye')
        time.sleep(0.2)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                     struct.pack('ii', 1, 0))
    serve(bound('tcp', host, port), one)


def banner(host, port):
    """HOST PORT: sends 'hello', half-closes, then reads to the end and says
    how many bytes came"""
    def one(c, _):
        c.sendall(b'hello')
        c.shutdown(socket.SHUT_WR)
        n = 0
        while True:
            data = c.recv(65536)
            if not data:
                break
            n += len(data)
        say('got', n)
    serve(bound('tcp', host, port), one)


# ---- clients -----------------------------------------------------------

def probe_once(kind, host, port, wait, token):
    """True answered, None not within that time, False refused"""
    s = socket.socket(family(host), socket.SOCK_STREAM
                      if kind == 'tcp' else socket.SOCK_DGRAM)
    with s:
        s.settimeout(wait)
        try:
            s.connect((host, port))
            s.sendall(token)
            return s.recv(1000) == token
        except socket.timeout:
            return None
        except OSError:
            return False


def probe(kind, host, port, count='1', interval='0.1', wait='1', tries='1'):
    """tcp|udp HOST PORT [COUNT INTERVAL WAIT TRIES]: an echo each time from a
    new source port, and from so many when there is no answer, over UDP also
    when it is refused; fails when one is not answered"""
    ok, gap, again = 0, 0.0, 0
    start = last = time.monotonic()
    for i in range(int(count)):
        time.sleep(max(0, start + i * float(interval) - time.monotonic()))
        token = b'probe %d %d\n' % (os.getpid(), i)
        for k in range(int(tries)):
            again += k > 0
            answered = probe_once(kind, host, int(port), float(wait), token)
            if answered or answered is False and kind == 'tcp':
                break
        if answered:
            ok += 1
            last = time.monotonic()
        gap = max(gap, time.monotonic() - last)
    say('answered %d of %s, longest gap %.1f s, tried again %d' %
        (ok, count, gap, again))
    return ok != int(count)


def ask(kind, host, port, text='x'):
    """tcp|udp HOST PORT [TEXT]: prints what is answered"""
    s = socket.socket(family(host), socket.SOCK_STREAM
                      if kind == 'tcp' else socket.SOCK_DGRAM)
    s.settimeout(3)
    s.connect((host, int(port)))
    s.sendall(text.encode())
    say(s.recv(65536).decode(errors='replace').strip())


def hold(host, port, seconds, interval='0'):
    """HOST PORT SECONDS [INTERVAL]: one session that lives so long, silent,
    or with an echo at each interval; prints 'up', then 'alive' or 'cut T'"""
    s = socket.create_connection((host, int(port)), timeout=5)
    begin = time.monotonic()

    def turn():
        s.settimeout(5)
        s.sendall(b'hold\n')
        if s.recv(100) != b'hold\n':
            raise OSError('closed')

    try:
        turn()
        say('up')
        while time.monotonic() - begin < float(seconds):
            s.settimeout(float(interval) or
                         float(seconds) - (time.monotonic() - begin))
            try:
                s.recv(100)
                raise OSError('closed')
            except socket.timeout:
                pass
            if float(interval):
                turn()
        turn()
    except OSError as e:
        say('cut %.2f %s' % (time.monotonic() - begin, e))
        return 1
    say('alive')
    return 0


def holdudp(host, port, seconds, interval):
    """HOST PORT SECONDS INTERVAL: one UDP session from one source port;
    prints how many of its datagrams were answered"""
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    s.connect((host, int(port)))
    s.settimeout(1)
    end = time.monotonic() + float(seconds)
    sent = got = 0
    while time.monotonic() < end:
        sent += 1
        try:
            s.send(b'%d' % sent)
            got += s.recv(100) == b'%d' % sent
        except OSError:
            pass
        time.sleep(float(interval))
    say('answered %d of %d' % (got, sent))
    return got != sent


def block(i, tag):
    """64 KiB that differ for each i"""
    return hashlib.sha256(tag + b'%d' % i).digest() * 2048


def duplex(c, mib, tag):
    """sends MIB, reads to the end at the same time; then swaps digests:
    each side's last 64 bytes are the digest of what it had read"""
    sent = hashlib.sha256()

    def send():
        for i in range(mib * 16):
            data = block(i, tag)
            sent.update(data)
            c.sendall(data)
    t = threading.Thread(target=send)
    t.start()
    got, h = 0, hashlib.sha256()
    while got < mib << 20:
        data = c.recv(min(1 << 18, (mib << 20) - got))
        if not data:
            break
        h.update(data)
        got += len(data)
    t.join()
    c.sendall(h.hexdigest().encode())
    c.shutdown(socket.SHUT_WR)
    tail = b''
    while True:
        data = c.recv(100)
        if not data:
            break
        tail += data
    return tail.decode() == sent.hexdigest() and got == mib << 20


def bulk(host, port, mib):
    """HOST PORT MIB: sends so much to a sink, compares digests"""
    s = socket.create_connection((host, int(port)), timeout=60)
    h = hashlib.sha256()
    for i in range(int(mib) * 16):
        data = block(i, b'b')
        h.update(data)
        s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    got = b''
    while True:
        data = s.recv(1000)
        if not data:
            break
        got += data
    say('same' if got.decode() == h.hexdigest() else 'differs')
    return got.decode() != h.hexdigest()


def bulkboth(host, port, mib):
    """HOST PORT MIB: so much both ways at once with a `both` server"""
    s = socket.create_connection((host, int(port)), timeout=60)
    good = duplex(s, int(mib), b'c')
    say('same' if good else 'differs')
    return not good


def halfclose(host, port, size):
    """HOST PORT SIZE: reads a banner to its end, then sends SIZE bytes"""
    s = socket.create_connection((host, int(port)), timeout=10)
    got = b''
    while True:
        data = s.recv(100)
        if not data:
            break
        got += data
    s.sendall(b'x' * int(size))
    s.close()
    say(got.decode())


def until_reset(host, port):
    """HOST PORT: sends a byte, prints what came and how the session ended"""
    s = socket.create_connection((host, int(port)), timeout=10)
    got = b''
    try:
        s.sendall(b'x')
        while True:
            data = s.recv(100)
            if not data:
                say(got.decode(), 'eof')
                return 0
            got += data
    except ConnectionResetError:
        say(got.decode(), 'reset')
    return 0


def many(kind, host, port, count, rounds='2', keep='0'):
    """tcp|udp HOST PORT COUNT [ROUNDS KEEP]: COUNT sessions at once, each
    echoes ROUNDS times; fails when one does not within 20 s"""
    tcp = kind == 'tcp'
    socks = []
    dead = time.monotonic() + 120
    lost = 0
    for i in range(int(count)):
        s = socket.socket(family(host), socket.SOCK_STREAM if tcp
                          else socket.SOCK_DGRAM)
        s.settimeout(20)
        s.connect((host, int(port)))
        socks.append(s)
    for r in range(int(rounds)):
        for step in range(0, len(socks), 64):
            batch = socks[step:step + 64]
            for s in batch:
                s.sendall(b'round %d' % r)
            for s in batch:
                s.settimeout(max(0.1, min(20, dead - time.monotonic())))
                try:
                    lost += s.recv(100) != b'round %d' % r
                except OSError:
                    lost += 1
    say('%s sessions, %d lost' % (count, lost))
    time.sleep(float(keep))
    return lost > 0


def flock_of(host, port, count, seconds):
    """HOST PORT COUNT SECONDS: COUNT clients connect and wait; prints how
    many were served while they all stayed"""
    sel = selectors.DefaultSelector()
    served = set()
    for i in range(int(count)):
        s = socket.socket(family(host), socket.SOCK_STREAM)
        s.setblocking(False)
        s.connect_ex((host, int(port)))
        sel.register(s, selectors.EVENT_WRITE)
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        for key, ev in sel.select(0.2):
            s = key.fileobj
            try:
                if ev & selectors.EVENT_WRITE:
                    s.send(b'x')
                    sel.modify(s, selectors.EVENT_READ)
                elif s.recv(10) == b'x':
                    served.add(s)
                else:
                    sel.unregister(s)
            except OSError:
                sel.unregister(s)
    say('served', len(served))


def sizes(host, port, *want):
    """HOST PORT SIZE...: datagrams of these sizes come back whole"""
    bad = 0
    for n in map(int, want):
        s = socket.socket(family(host), socket.SOCK_DGRAM)
        s.settimeout(3)
        data = os.urandom(n)
        s.connect((host, int(port)))
        try:
            s.send(data)
            got = s.recv(70000)
        except OSError as e:
            got = str(e)
        if got != data:
            say(n, 'came back as', len(got), 'bytes' if isinstance(
                got, bytes) else got)
            bad = 1
    return bad


def binding(kind, host, port, local):
    """tcp|udp HOST PORT LOCALPORT: asks a STUN server from that port, prints
    the public address: natmap's main act in ten lines, to test the lab"""
    s = socket.socket(family(host), socket.SOCK_STREAM
                      if kind == 'tcp' else socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(3)
    s.bind(('::' if ':' in host else '0.0.0.0', int(local)))
    s.connect((host, int(port)))
    s.sendall(message(0x0001, b'natmap-tests'))
    got = s.recv(2000)
    i = 20
    while i + 4 <= len(got):
        kind, n = struct.unpack('>HH', got[i:i + 4])
        if kind == 0x0020:
            key = struct.pack('>I', COOKIE) + b'natmap-tests'
            ip = bytes(a ^ b for a, b in zip(got[i + 8:i + 4 + n], key))
            say(socket.inet_ntop(s.family, ip),
                struct.unpack('>H', got[i + 6:i + 8])[0] ^ 0x2112)
        i += 4 + n + -n % 4


# ---- servers that lie --------------------------------------------------

def attr(kind, value, length=None):
    pad = b'\0' * (-len(value) % 4)
    return struct.pack('>HH', kind, len(value) if length is None
                       else length) + value + pad


def address(kind, host, port, key=b'\0' * 16):
    """a (XOR-)MAPPED-ADDRESS attribute"""
    ip = socket.inet_pton(family(host), host)
    ip = bytes(a ^ b for a, b in zip(ip, key))
    port ^= struct.unpack('>H', key[:2])[0]
    return attr(kind, struct.pack('>BBH', 0, len(ip) // 8 + 1, port) + ip)


def message(kind, tid, *attrs, cookie=COOKIE, length=None):
    body = b''.join(attrs)
    return struct.pack('>HHI', kind, len(body) if length is None
                       else length, cookie) + tid + body


def stun_answer(mode, request, peer, me):
    """what the server of that mode answers; a list of parts, with pauses"""
    tid = request[8:20]
    key = struct.pack('>I', COOKIE) + tid
    host, port = peer[:2]
    if mode.startswith('as='):          # the public address is a lie
        host, port = mode[3:].rsplit(':', 1)
        port = int(port)
    if mode.startswith('plus='):        # the port depends on the server
        port += int(mode[5:])
    other = b''
    if mode.split('=')[0] in ('same', 'silent', '420'):     # RFC 5780
        mode, other = mode.split('=')
        a, p = other.rsplit(':', 1)
        other = address(0x802c, a, int(p))
        if len(request) > 20:           # answer from elsewhere!
            if mode == 'silent':
                return []
            if mode == '420':
                return [message(0x0111, tid, attr(0x0009, b'\0\0\x04\x14'))]
    xor = address(0x0020, host, port, key)
    lie = address(0x0020, host, 6666, key)
    plain = address(0x0001, host, port)
    good = message(0x0101, tid, xor, other)
    return {
        'badid': [message(0x0101, b'x' * 12, lie)],
        'badcookie': [message(0x0101, tid, lie, cookie=0x12345678)],
        'badtype': [message(0x0111, tid, lie)],
        'request': [message(0x0001, tid, lie)],
        'error': [message(0x0111, tid, attr(0x0009, b'\0\0\x04\x14bad'))],
        'port0': [message(0x0101, tid, address(0x0020, host, 0, key))],
        'cut': [message(0x0101, tid, attr(0x0020, b'\0\1\x10'))],
        'long': [message(0x0101, tid, lie, length=0xfffc)],
        'lielen': [message(0x0101, tid, attr(0x0020, b'\0\1\x10\x10',
                                             0x7ff0))],
        'wrongfamily': [message(0x0101, tid, attr(
            0x0020, b'\0\x07\x10\x10\1\2\3\4'))],
        'empty': [message(0x0101, tid)],
        'garbage': [os.urandom(300)],
        'html': [b'HTTP/1.1 400 Bad Request\r\n\r\n'],
        'mapped': [message(0x0101, tid, plain)],
        'order': [message(0x0101, tid, address(0x0001, host, 6666),
                          attr(0x8022, b'pad'), attr(0x8099, b''), xor)],
        'bytes': [good[i:i + 1] for i in range(len(good))],
        'dribble': [bytes([b]) for b in message(
            0x0101, tid, attr(0x8099, b'\0' * 800), lie)],
        'late': [None] * 40 + [good],
        'flood': [message(0x0101, b'x' * 12, lie)] * 20000,
        'mute': [],
        'close': [],
    }.get(mode, [good])


def stun(mode, host, port, kinds='tcp,udp'):
    """MODE HOST PORT [tcp|udp]: a STUN server; see stun_answer; prints a
    line for each request"""
    def pause():
        time.sleep(0.05 if mode in ('bytes', 'dribble', 'late') else 0)

    def one(c, peer):
        if mode == 'close':
            return
        while True:
            request = c.recv(2000)
            if not request:
                return
            say('tcp', *peer[:2])
            for part in stun_answer(mode, request, peer, host):
                c.sendall(part or b'')
                pause()

    def datagrams(s):
        while True:
            request, peer = s.recvfrom(2000)
            if len(request) < 20 or request[0] == 0 and request[1] == 0x11:
                say('udp', *peer[:2], 'indication')
                continue
            say('udp', *peer[:2])
            for part in stun_answer(mode, request, peer, host):
                if part and mode not in ('dribble', 'bytes'):
                    s.sendto(part, peer)
                pause()

    if 'udp' in kinds:
        u = bound('udp', host, port)
        threading.Thread(target=datagrams, args=(u,), daemon=True).start()
    if 'tcp' in kinds:
        serve(bound('tcp', host, port), one)
    say('ready')
    while True:
        time.sleep(3600)


def http(mode, host, port, number='3'):
    """MODE HOST PORT [N]: a keep-alive server that misbehaves; prints a line
    for each connection"""
    head = b'HTTP/1.1 200 OK\r\nServer: test\r\n'

    def answer(c, left):
        if mode == 'endless':
            while True:
                c.sendall(b'X-Filler: ' + b'x' * 4000 + b'\r\n')
        if mode == 'flood':
            c.sendall(head + b'\r\n')
            while True:
                c.sendall(b'x' * 65536)
        if mode == 'dribble':
            for ch in head * 1000:
                c.sendall(bytes([ch]))
                time.sleep(0.2)
        if mode == 'longline':
            c.sendall(head + b'X: ' + b'y' * 9000 + b'\r\n\r\n')
            return
        if mode == 'body':
            c.sendall(head + b'Content-Length: 5\r\n\r\nhello')
            return
        if mode == 'continue':
            c.sendall(b'HTTP/1.1 100 Continue\r\n\r\n')
            time.sleep(0.2)
        if mode == 'garbage':
            c.sendall(b'220 mail.test ready\r\n\0\xff\r\n\r\n')
            return
        if mode == 'max' and left >= 0:
            c.sendall(head + b'Keep-Alive: timeout=60, max=%d\r\n' % left)
            c.sendall(b'Connection: close\r\n' if not left else b'')
            c.sendall(b'\r\n')
            return
        c.sendall(head + b'\r\n')

    def talk(c, peer):
        left = int(number)
        data = b''
        while left > 0 or mode not in ('max', 'closes'):
            while b'\r\n\r\n' not in data:
                more = c.recv(2000)
                if not more:
                    return
                data += more
            request, data = data.split(b'\r\n\r\n', 1)
            say('head', peer[1], request.split(b'\r\n')[0].decode())
            left -= 1
            if mode != 'mute':
                answer(c, left)
            if b'connection: close' in request.lower():
                return

    def one(c, peer):
        say('open', *peer[:2])
        try:
            if mode != 'close':
                talk(c, peer)
        finally:
            say('closed', *peer[:2])

    serve(bound('tcp', host, port), one)


def prober(mode, host, port):
    """MODE HOST PORT: an HTTP service that connects back to the caller, at
    the port that the path ends with; back, json: honest; prints the requests"""
    def reach(peer, to):
        s = socket.socket(family(host), socket.SOCK_STREAM)
        s.settimeout(2)
        s.bind((host, 0))
        try:
            s.connect((peer[0], int(to)))
            return True
        except OSError:
            return False
        finally:
            s.close()

    def one(c, peer):
        request = c.recv(4000).decode()
        path = request.split()[1]
        say(request.split('\r\n')[0])
        status, body = '200 OK', mode
        if mode == 'mute':
            time.sleep(60)
        if mode == 'close':
            return
        if mode in ('back', 'json'):
            body = reach(peer, path.rsplit('/', 1)[1])
            body = ('{"ip": "x", "reachable": %s}' % str(body).lower()
                    if mode == 'json' else str(int(body)))
        if mode in ('500', '302'):
            status, body = mode + ' x\r\nLocation: http://x/', '1'
        c.sendall(('HTTP/1.1 %s\r\nX: y\r\n\r\n%s\n' % (status, body))
                  .encode())
    serve(bound('tcp', host, port), one)


def dns(host, *zone):
    """HOST NAME=ADDR[,ADDR]...: answers A and AAAA, else NXDOMAIN"""
    names = dict(z.lower().split('=', 1) for z in zone)
    s = bound('udp', host, 53)
    say('ready')
    while True:
        q, peer = s.recvfrom(2000)
        labels, i = [], 12
        while q[i]:
            labels.append(q[i + 1:i + 1 + q[i]].decode().lower())
            i += q[i] + 1
        i += 1
        want = struct.unpack('>H', q[i:i + 2])[0]
        known = names.get('.'.join(labels))
        out = b''
        count = 0
        for ip in (known or '').split(','):
            if not ip or (want == 28) != (':' in ip) or want not in (1, 28):
                continue
            raw = socket.inet_pton(family(ip), ip)
            out += struct.pack('>HHHIH', 0xc00c, want, 1, 1, len(raw)) + raw
            count += 1
        flags = 0x8180 if known is not None else 0x8183
        s.sendto(q[:2] + struct.pack('>HHHHH', flags, 1, count, 0, 0) +
                 q[12:i + 4] + out, peer)


def syslog(path):
    """PATH: prints what is logged there"""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(path)
    say('ready')
    while True:
        say(s.recv(4096).decode(errors='replace').rstrip('\0\n'))


def deaf_syslog(path):
    """PATH: a log daemon that hangs: its queue is full and nobody reads"""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(path)
    c = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    c.setblocking(False)
    try:
        while True:
            c.sendto(b'x', path)
    except BlockingIOError:
        pass
    say('ready')
    time.sleep(3600)


def main():
    what = globals().get(sys.argv[1]) if len(sys.argv) > 1 else None
    if not callable(what):
        sys.exit(__doc__)
    try:
        sys.exit(what(*sys.argv[2:]) or 0)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)


if __name__ == '__main__':
    main()
