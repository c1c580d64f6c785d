#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The soak's servers, its clients outside, and its verdict.

usage: soak.py serve HOST tcp|udp PORT     answers "TEXT PORT-OF-THE-CLIENT"
       soak.py watch DIR HOST SEED         probes and sessions until TERM
       soak.py report DIR                  prints ok and not ok lines

Four mappings are watched, each told by lines in DIR/NAME.map as natmap prints
them: tb and ub (TCP and UDP, bind mode), tf and uf (forward mode).  watch
writes one line for each of these, times in ms:

  DIR/probes    TIME NAME ok|lost ...   TIME is when the probe was sent
  DIR/sessions  TIME NAME up|cut|back ...
  DIR/told      TIME NAME ADDRESS PORT
  DIR/samples   TIME NAME PID DESCRIPTORS RSS-KB DIRTY-KB

soak.sh writes DIR/events (TIME start KIND ..., then ready, forced, end),
DIR/rows (KIND TCP-MS UDP-MS TELLS SESSION ...), DIR/NAME.pid.
"""
import errno
import os
import random
import selectors
import signal
import socket
import sys
import time

NAMES = ('tb', 'ub', 'tf', 'uf')
TCP_WAIT = 2.0          # s: a probe that takes longer is lost
UDP_WAIT = 1.0
FIRST_PORT, LAST_PORT = 10000, 60000
SESSION_PORT = 9003     # of the UDP session; never changes
# Without a route nothing can be sent, for up to 19 s, and TCP's doubled waits
# then last as long again: who gives up before that tells nothing of natmap.
SESSION_LIMIT = 60.0    # s without an answer: the session is cut
MOVED_LIMIT = 5.0       # the same, when it has not been answered since another
                        # address was announced: its flow is likely lost
UDP_LIMIT = 60.0        # the same of a UDP session
UDP_PATIENCE = 3.0      # s without an answer, or a new address, then a pause
UDP_PAUSE = 6.5         # in which the NATs forget the flow as it was
SLACK = 1500            # ms: two probes are up to 500 ms apart, plus noise
OUTAGE = 45000          # ms: a session is back after a reason to end it
WARM = 45000            # ms: before descriptors and memory are compared


def ms():
    return int(time.time() * 1000)


# ---- servers -----------------------------------------------------------

def serve(host, kind, port):
    tcp = kind == 'tcp'
    s = socket.socket(socket.AF_INET,
                      socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, int(port)))
    print('ready', flush=True)
    if not tcp:
        while True:
            data, peer = s.recvfrom(2000)
            try:
                s.sendto(data + b' %d' % peer[1], peer)
            except OSError:
                pass
    s.listen(64)
    s.setblocking(False)
    sel = selectors.DefaultSelector()
    sel.register(s, selectors.EVENT_READ)
    while True:
        for key, _ in sel.select():
            if key.fileobj is s:
                c, peer = s.accept()
                c.setblocking(False)
                sel.register(c, selectors.EVENT_READ, peer)
                continue
            c = key.fileobj
            try:
                data = c.recv(2000)
                if data:
                    c.send(data + b' %d' % key.data[1])
                    continue
            except OSError:
                pass
            sel.unregister(c)
            c.close()


# ---- clients -----------------------------------------------------------

class Watch:
    def __init__(self, folder, host, seed):
        self.dir, self.host = folder, host
        self.random = random.Random(seed)
        self.sel = selectors.DefaultSelector()
        self.logs = {n: open('%s/%s' % (folder, n), 'a', buffering=1)
                     for n in ('probes', 'sessions', 'told', 'samples')}
        self.to = dict.fromkeys(NAMES)
        self.sizes = dict.fromkeys(NAMES, 0)
        self.port = FIRST_PORT + self.random.randrange(10000)
        self.waiting = set()        # probes that are under way
        self.next = {n: time.time() + self.random.uniform(0.1, 0.5)
                     for n in NAMES}
        self.sessions = [TcpSession(self, 'tb'), TcpSession(self, 'tf'),
                         UdpSession(self, 'uf')]
        self.sample_at = self.look_at = 0

    def log(self, which, *words):
        print(*words, file=self.logs[which])

    def source_port(self):
        """a new one for each flow, or conntrack would answer for natmap"""
        self.port += 1
        if self.port > LAST_PORT:
            self.port = FIRST_PORT
        return self.port

    def look(self):
        """reads what was announced last"""
        for n in NAMES:
            path = '%s/%s.map' % (self.dir, n)
            try:
                size = os.stat(path).st_size
            except OSError:
                continue
            if size == self.sizes[n]:
                continue
            with open(path) as f:
                lines = f.read().splitlines(True)
            if lines and lines[-1].endswith('\n'):
                self.sizes[n] = size
                host, port = lines[-1].split(' ')[:2]
                self.to[n] = (host, int(port))
                self.log('told', ms(), n, host, port)
                for s in self.sessions:
                    s.told(n)

    def sample(self):
        for n in NAMES:
            try:
                with open('%s/%s.pid' % (self.dir, n)) as f:
                    pid = f.read().strip()
                fds = len(os.listdir('/proc/%s/fd' % pid))
                kb = {}
                with open('/proc/%s/smaps_rollup' % pid) as f:
                    for line in f:
                        w = line.split()
                        kb[w[0]] = w[1]
                self.log('samples', ms(), n, pid, fds, kb['Rss:'],
                         kb['Private_Dirty:'])
            except (OSError, KeyError, ValueError):
                pass

    def run(self):
        while True:
            now = time.time()
            if now >= self.look_at:
                self.look_at = now + 0.1
                self.look()
            if now >= self.sample_at:
                self.sample_at = now + 5
                self.sample()
            for n in NAMES:
                if now >= self.next[n]:
                    self.next[n] = now + self.random.uniform(0.1, 0.5)
                    Probe(self, n, now)
            for p in list(self.waiting):
                if now >= p.until:
                    p.done('lost timeout')
            for s in self.sessions:
                s.tick(now)
            for key, _ in self.sel.select(self.pause(now)):
                key.data()

    def pause(self, now):
        until = min([self.look_at] + list(self.next.values()) +
                    [s.at for s in self.sessions])
        return max(0.005, until - now)


class Probe:
    """one question from a new source port"""
    def __init__(self, w, name, now):
        self.w, self.name, self.begin = w, name, int(now * 1000)
        self.tcp = name[0] == 't'
        self.until = now + (TCP_WAIT if self.tcp else UDP_WAIT)
        self.token = b'%s-%d' % (name.encode(), self.begin)
        self.s = None
        if not w.to[name]:
            self.done('lost not announced')
            return
        self.sent = False
        self.s = socket.socket(socket.AF_INET, socket.SOCK_STREAM
                               if self.tcp else socket.SOCK_DGRAM)
        self.s.setblocking(False)
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        w.waiting.add(self)
        try:
            self.s.bind((w.host, w.source_port()))
            e = self.s.connect_ex(w.to[name])
            if e not in (0, errno.EINPROGRESS):
                raise OSError(e, os.strerror(e))
            if self.tcp:
                w.sel.register(self.s, selectors.EVENT_WRITE, self.ready)
            else:
                self.s.send(self.token)
                w.sel.register(self.s, selectors.EVENT_READ, self.ready)
        except OSError as e:
            self.done('lost ' + str(e))

    def ready(self):
        try:
            if self.tcp and not self.sent:
                e = self.s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if e:
                    raise OSError(e, os.strerror(e))
                self.s.send(self.token)
                self.sent = True
                self.w.sel.modify(self.s, selectors.EVENT_READ, self.ready)
                return
            data = self.s.recv(2000)
            self.done('ok' if data.startswith(self.token + b' ')
                      else 'lost closed')
        except BlockingIOError:
            pass
        except OSError as e:
            self.done('lost ' + str(e))

    def done(self, how):
        self.w.log('probes', self.begin, self.name, how)
        self.w.waiting.discard(self)
        if self.s:
            try:
                self.w.sel.unregister(self.s)
            except KeyError:
                pass
            self.s.close()


class TcpSession:
    """asks now and then on one connection, opens another when it is cut"""
    def __init__(self, w, name):
        self.w, self.name = w, name
        self.s = self.to = None
        self.at = 0             # when to act
        self.asked = None       # since when an answer is waited for
        self.up = False         # an answer came on this connection
        self.count = 0

    def limit(self):
        if not self.up:
            return TCP_WAIT
        return SESSION_LIMIT if self.to == self.w.to[self.name] \
            else MOVED_LIMIT

    def told(self, name):
        """did it survive the move?  Before the next fault"""
        if name == self.name:
            self.at = 0

    def tick(self, now):
        if self.asked is not None and now >= self.asked + self.limit():
            self.cut('no answer')
        if now < self.at:
            return
        self.at = now + 1
        if not self.s:
            self.open(now)
        elif self.asked is None:
            self.ask(now)

    def open(self, now):
        self.to = self.w.to[self.name]
        if not self.to:
            return
        self.s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.s.setblocking(False)
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.s.bind((self.w.host, self.w.source_port()))
        self.w.sel.register(self.s, selectors.EVENT_WRITE, self.connected)
        self.asked = now
        e = self.s.connect_ex(self.to)
        if e not in (0, errno.EINPROGRESS):
            self.cut(os.strerror(e))

    def connected(self):
        e = self.s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if e:
            self.cut(os.strerror(e))
            return
        self.w.sel.modify(self.s, selectors.EVENT_READ, self.ready)
        self.ask(time.time())

    def ask(self, now):
        self.count += 1
        self.asked = now
        try:
            self.s.send(b'session-%d' % self.count)
        except OSError as e:
            self.cut(str(e))

    def ready(self):
        try:
            data = self.s.recv(2000)
        except BlockingIOError:
            return
        except OSError as e:
            self.cut(str(e))
            return
        if not data:
            self.cut('closed')
            return
        if not self.up:
            self.up = True
            self.w.log('sessions', ms(), self.name, 'up', *self.to)
        if data.startswith(b'session-%d ' % self.count):
            self.asked = None
            self.to = self.w.to[self.name]      # a move that it survived
            self.at = time.time() + self.w.random.choice((0.5, 1, 2, 5, 9))

    def cut(self, why):
        if self.up:
            self.w.log('sessions', ms(), self.name, 'cut', why)
        self.w.sel.unregister(self.s)
        self.s.close()
        self.s = self.asked = None
        self.up = False
        self.at = time.time() + 0.5


class UdpSession:
    """one source port for ever, as WireGuard; its session at the relay is
    known by the port that the target sees"""
    def __init__(self, w, name):
        self.w, self.name = w, name
        self.at = 0
        self.to = None
        self.count = 0
        self.seen = None
        self.answered = time.time()
        self.trying = None      # since when questions go out unanswered
        self.s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.s.bind((w.host, SESSION_PORT))
        self.s.setblocking(False)
        w.sel.register(self.s, selectors.EVENT_READ, self.ready)

    def tick(self, now):
        if now < self.at:
            return
        self.at = now + 1
        if self.seen and now >= self.answered + UDP_LIMIT:
            self.w.log('sessions', ms(), self.name, 'cut', 'no answer')
            self.seen = None
        moved = self.to != self.w.to[self.name]
        if moved or self.trying and now >= self.trying + UDP_PATIENCE:
            self.to = self.w.to[self.name]
            self.trying = None
            self.at = now + UDP_PAUSE
            return
        if not self.to:
            return
        if not self.trying:
            self.trying = now
        self.count += 1
        try:
            self.s.sendto(b'session-%d' % self.count, self.to)
        except OSError:
            pass

    def told(self, name):
        pass

    def ready(self):
        try:
            data = self.s.recv(2000)
        except OSError:
            return
        port = data.split(b' ')[-1].decode()
        self.answered = time.time()
        self.trying = None
        if port == self.seen:
            return
        if self.seen:
            self.w.log('sessions', ms(), self.name, 'cut',
                       'another session was made')
        self.w.log('sessions', ms(), self.name, 'up', port)
        self.seen = port


def watch(folder, host, seed):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    w = Watch(folder, host, int(seed))
    print('ready', flush=True)
    w.run()


# ---- verdict -----------------------------------------------------------

def rows_of(path):
    with open(path) as f:
        return [line.split() for line in f]


class Event:
    def __init__(self, start, kind, detail):
        self.start, self.kind, self.detail = start, kind, detail
        self.ready = start
        self.end = None
        self.forced = False     # natmap was started again, to go on
        self.gaps = {}          # name: longest, ms from ready
        self.raw = {}           # the same from its first lost probe on
        self.told = dict.fromkeys(NAMES, 0)
        self.lost = dict.fromkeys(NAMES, 0)
        self.sent = dict.fromkeys(NAMES, 0)


def events_of(folder):
    events = []
    for w in rows_of(folder + '/events'):
        if w[1] == 'start':
            events.append(Event(int(w[0]), w[2], ' '.join(w[3:])))
        elif w[1] == 'ready':
            events[-1].ready = int(w[0])
        elif w[1] == 'forced':
            events[-1].forced = True
        elif w[1] == 'end':
            events[-1].end = int(w[0])
    return events


def event_at(events, t):
    found = None
    for e in events:
        if e.start <= t:
            found = e
    return found


def clock(t, base):
    return '+%.1f s' % ((t - base) / 1000)


def fill(events, folder):
    """gives each event its probes, and the gaps that began in it"""
    last_end = events[-1].end or ms()
    probes = {n: [] for n in NAMES}
    for w in rows_of(folder + '/probes'):
        t, name, good = int(w[0]), w[1], w[2] == 'ok'
        e = event_at(events, t)
        if not e or t > last_end:
            continue
        e.sent[name] += 1
        e.lost[name] += not good
        probes[name].append((t, good))
    for w in rows_of(folder + '/told'):
        e = event_at(events, int(w[0]))
        if e:
            e.told[w[1]] += 1
    for name, seen in probes.items():
        last, first_lost = events[0].start, None
        for t, good in sorted(seen) + [(last_end, True)]:
            if not good:
                first_lost = first_lost or t
                continue
            e = event_at(events, first_lost or t)
            gap = max(0, t - max(last, e.ready))
            e.gaps[name] = max(e.gaps.get(name, 0), gap)
            e.raw[name] = max(e.raw.get(name, 0), t - last)
            last, first_lost = t, None


class Verdict:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def tell(self, good, name, text):
        print('%s soak.%s: %s' % ('ok' if good else 'not ok', name, text))
        self.passed += good
        self.failed += not good


def judge_row(v, kind, row, events, base):
    """one row of the table: all its events, all four mappings"""
    bad = []
    worst = {'t': [0, 0], 'u': [0, 0]}
    lost = sent = 0
    for e in events:
        for n in NAMES:
            allowed = row[n[0]]
            if kind.startswith('restart') and n not in e.detail.split():
                allowed = 0     # it was not touched
            gap = e.gaps.get(n, 0)
            worst[n[0]][0] = max(worst[n[0]][0], gap)
            worst[n[0]][1] = max(worst[n[0]][1], e.raw.get(n, 0))
            lost += e.lost[n]
            sent += e.sent[n]
            if gap > allowed + SLACK:
                bad.append('gap of %.1f s at %s %s (%s)' % (
                    gap / 1000, n, clock(e.start, base), e.detail))
            elif allowed == 0 and e.lost[n]:
                bad.append('%d probes lost at %s %s (%s)' % (
                    e.lost[n], n, clock(e.start, base), e.detail))
            may = {'yes': True, 'no': False}.get(
                row['tells'], n in e.detail.split())
            if e.told[n] and not may and not e.forced:
                bad.append('told for nothing by %s at %s (%s)' % (
                    n, clock(e.start, base), e.detail))
    v.tell(not bad, kind, '%d times, %.1f %% of %d probes answered; longest '
           'gap TCP %.1f s of %.1f (%.1f with the fault), UDP %.1f s of %.1f '
           '(%.1f)' % (
               len(events), 100 * (sent - lost) / max(1, sent), sent,
               worst['t'][0] / 1000, (row['t'] + SLACK) / 1000,
               worst['t'][1] / 1000, worst['u'][0] / 1000,
               (row['u'] + SLACK) / 1000, worst['u'][1] / 1000))
    for b in bad:
        print('# ' + b)


def may_end(e, name, rows):
    """had this event a reason to end that session?"""
    for who in rows[e.kind]['ends']:
        if who == name or who == 'self' and name in e.detail.split():
            return True
    return e.forced


def judge_sessions(v, events, rows, folder, base):
    for name in ('tb', 'tf', 'uf'):
        up = down = None
        bad = []
        ups = cuts = longest = 0
        for w in rows_of(folder + '/sessions'):
            t = int(w[0])
            if w[1] != name:
                continue
            if w[2] == 'up':
                ups += 1
                if down:
                    longest = max(longest, t - down)
                    if t - down > OUTAGE:
                        bad.append('%s away for %.1f s' % (
                            clock(down, base), (t - down) / 1000))
                up, down = t, None
                continue
            cuts += 1
            down = t
            if not any(may_end(e, name, rows) for e in events
                       if e.start < t and (e.forced or e.ready > (up or 0))):
                e = event_at(events, t)
                bad.append('%s cut without a reason during %s: %s' % (
                    clock(t, base), e.kind if e else 'nothing',
                    ' '.join(w[3:])))
        if down and events[-1].end and events[-1].end - down > OUTAGE:
            bad.append('%s cut and never back' % clock(down, base))
        v.tell(bool(ups) and not bad, 'session_' + name,
               '%d opened, %d ended, back within %.1f s' % (
                   ups, cuts, longest / 1000))
        for b in bad:
            print('# ' + b)


def middle(values):
    return sorted(values)[len(values) // 2]


def judge_growth(v, folder):
    """the first and the last third of each process's life: the most
    descriptors (a relay has two for each recent probe), the median of memory"""
    lives = {}
    for w in rows_of(folder + '/samples'):
        if len(w) == 6:
            lives.setdefault((w[1], w[2]), []).append(
                [int(w[0])] + [int(x) for x in w[3:]])
    for col, what, unit, of, room in (
            (1, 'descriptors', '', max, {'b': 4, 'f': 40}),
            (2, 'rss', ' kB', middle, {'b': 64, 'f': 64}),
            (3, 'dirty', ' kB', middle, {'b': 64, 'f': 64})):
        bad, most, seen = [], 0, []
        for (name, pid), life in lives.items():
            life = [x for x in life if x[0] >= life[0][0] + WARM]
            third = len(life) // 3
            if third < 8:
                continue
            first = of([x[col] for x in life[:third]])
            last = of([x[col] for x in life[-third:]])
            most = max(most, max(x[col] for x in life))
            seen.append('%s %d to %d' % (name, first, last))
            if last > first + room[name[1]]:
                bad.append('%s (pid %s) grew from %d to %d%s' % (
                    name, pid, first, last, unit))
        if not seen:
            print('skip soak.%s: no process lived long enough' % what)
            v.skipped += 1
            continue
        v.tell(not bad, what, 'at most %d%s; %s' % (
            most, unit, ', '.join(seen)))
        for b in bad:
            print('# ' + b)


def report(folder):
    events = events_of(folder)
    with open(folder + '/begin') as f:
        base = int(f.read())
    fill(events, folder)
    rows = {w[0]: {'t': int(w[1]), 'u': int(w[2]), 'tells': w[3],
                   'ends': w[4:]}
            for w in rows_of(folder + '/rows')}
    v = Verdict()
    for kind in rows:
        mine = [e for e in events if e.kind == kind]
        if mine:
            judge_row(v, kind, rows[kind], mine, base)
        else:
            print('skip soak.%s: its turn did not come' % kind)
            v.skipped += 1
    judge_sessions(v, events, rows, folder, base)
    judge_growth(v, folder)
    with open(folder + '/trouble') as f:
        trouble = f.read().splitlines()
    v.tell(not trouble, 'alive', 'no natmap ended by itself, none had to be '
           'started again')
    for line in trouble:
        print('# ' + line)
    sent = sum(sum(e.sent.values()) for e in events)
    lost = sum(sum(e.lost.values()) for e in events)
    print('# %d events, %d probes, %.2f %% answered' % (
        len(events), sent, 100 * (sent - lost) / max(1, sent)))
    print('%d passed, %d failed, %d skipped' % (
        v.passed, v.failed, v.skipped))
    return v.failed != 0 or v.passed == 0


if __name__ == '__main__':
    verbs = {'serve': serve, 'watch': watch, 'report': report}
    if len(sys.argv) < 3 or sys.argv[1] not in verbs:
        sys.exit(__doc__)
    try:
        sys.exit(verbs[sys.argv[1]](*sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(1)
