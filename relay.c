/* SPDX-License-Identifier: MIT */
/*
 * Sessions between the mapped port and the target, TCP and UDP.
 *
 * A session has two legs, 0 the client's and 1 the target's; direction i goes
 * from leg i to the other.  UDP sessions have no leg 0: their clients share
 * the mapped port.  A session at rest holds its descriptors and nothing else.
 *
 *   L_WAITING  TCP: leg 1 connects, leg 0 is not read; UDP: no answer yet
 *   L_OPEN     both directions flow, each until EOF was PASSED on
 *   L_ENDING   a leg is BROKEN; what it sent before still goes to the other,
 *              which is reset after it.  No slot: tried again every TICK
 *
 * The lists are sorted by last activity.  Their tails, the hot sessions, are
 * in the poll that waits; of the cold ones a signal names the descriptor that
 * is ready (F_SETSIG).  Where there is no such signal all are looked at every
 * few milliseconds while any is hot, and all are in the poll when none is.
 */
#include "natmap.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef NATMAP_PORTABLE		/* for tests: as if the system had none */
#undef F_SETSIG
#undef IP_PKTINFO
#undef MSG_WAITFORONE
#undef SOCK_NONBLOCK
#undef SPLICE_F_MOVE
#undef TIOCOUTQ
#undef UDP_SEGMENT
#endif
#ifdef F_SETSIG
#include <sys/signalfd.h>
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 0
#endif
#ifndef MSG_WAITFORONE
#define mmsghdr plain_mmsghdr
struct mmsghdr {
	struct msghdr msg_hdr;
	unsigned msg_len;
};
#endif

#define HOT		50	/* ms: active since then, polled */
#define HOT_MOST	128	/* sessions: so many, where signals serve */
#define LOOKS		64	/* descriptors looked at in one poll */
#define LOOK            1000    /* ms: between looks at all, with signals */
#define LOOK_PLAIN	5	/* ms: without, and 1 more per 64 sessions */
#define CONNECT         10000   /* ms: for each address of the target */
#ifdef TIOCOUTQ
#define ENDING          10000   /* ms: for the bytes before a reset */
#else
#define ENDING          1000    /* the same, where none can be told of */
#endif
#define TICK		20	/* ms: between looks at what is ending */
#define PIPE_LATE	1000	/* ms: then a full pipe is copied out */
#define PAUSE           500     /* ms: rest of a listener without room */
#define ROOM_AGE	60000	/* ms: younger sessions make no room */
#define ROOM_SHARE	8	/* sessions that a source may keep */
#define ROOM_BATCH	64	/* sessions ended at a time to make room */
#define RESERVED	32	/* descriptors that are not for sessions */
#define MOST            4096    /* sessions, unless the user wants more */
#define SESSION_RAM     8192    /* bytes: reckoned with for each session */
#define ACCEPTS		64	/* connections accepted at a time */
#define CHUNK		32768	/* bytes copied at a time */
#define PIPE_SIZE	262144	/* bytes */
#define BULK_LEAST	8192	/* bytes: smaller moves need no pipe */
#define TURN            (4 * PIPE_SIZE) /* bytes before others' turn */
#define HELD_MOST	(4 << 20)	/* bytes held in memory by all */
#define SCARCE		2048	/* bytes copied at a time then */
#define BATCH		32	/* datagrams at a time */
#define DGRAM           65600   /* bytes for one; odd lines spare the cache */
#define SEGMENTED	65000	/* bytes in one segmented send */
#define BUCKETS		1024	/* of the UDP table */

enum {				/* session flags; shifted by the leg */
	GOT_EOF = 1,		/* nothing more will be read from it */
	PASSED = 4,		/* its EOF was sent on to the other */
	BULK = 16,		/* it sends in bulk */
	BROKEN = 64,		/* reset or timed out */
	HUNG = 256,		/* POLLHUP while nothing was wanted of it */
	ARMED = 1024,		/* both legs: cold, signals will tell */
	WAITING = 2048,		/* in L_WAITING */
	DYING = 4096		/* in L_ENDING */
};

struct session {
	struct idle idle;	/* first: a list entry is its session */
	union addr client;
	union addr peer;	/* TCP: the target; UDP: our own address that
				   the client sends to */
	uint64_t bytes[2];	/* taken from each leg */
	union {
		struct hold *hold[2];   /* TCP: not yet taken by the other */
		struct session *next;	/* UDP: of the same bucket */
	} u;
	int fd[2];		/* -1 when closed */
	uint32_t born;		/* s, monotonic */
	uint16_t flags;
	uint8_t to;		/* TCP: next address of the target */
	uint8_t err;		/* errno that broke it */
};

union control {			/* ancillary data of a datagram */
	struct cmsghdr align;
	unsigned char buf[CMSG_SPACE(sizeof(struct in6_pktinfo)) +
	    CMSG_SPACE(sizeof(uint16_t))];
};

struct batch {			/* of datagrams; lies in r->buf */
	struct mmsghdr in[BATCH], out[BATCH];
	struct iovec iov[BATCH];
	union addr from[BATCH], to[BATCH];
	union control in_control[BATCH], out_control[BATCH];
	size_t segment;		/* longest in a segmented send */
	unsigned char data[BATCH][DGRAM];
};

static const char *const why_text[WHYS] = {
	"closed", "broken", "refused", "idle", "made room", "stopped"
};

static void end(struct relay *, struct session *, enum relay_why);

static int
has(const struct session *s, int flag)
{
	return (s->flags & flag) != 0;
}

static void
set(struct session *s, int flag)
{
	s->flags = (uint16_t)(s->flags | flag);
}

static void
unset(struct session *s, int flag)
{
	s->flags = (uint16_t)(s->flags & ~flag);
}

static int64_t
min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* The buffer that all share: a chunk in TCP, a batch in UDP.  It is given
 * back when nothing is hot, so that it dirties no memory at rest. */
static unsigned char *
buffer(struct relay *r)
{
	void *p;

	if (r->buf)
		return r->buf;
	p = mmap(NULL, r->udp ? sizeof(struct batch) : CHUNK,
	    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p != MAP_FAILED)
		r->buf = p;
	return r->buf;
}

static void
buffer_drop(struct relay *r)
{
	if (r->buf)
		munmap(r->buf, r->udp ? sizeof(struct batch) : CHUNK);
	r->buf = NULL;
}

/* cold sessions */

/* The descriptor that tells of signals; -1 where there are none. */
static int
signals_fd(void)
{
#ifdef F_SETSIG
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, SIGIO);
	if (sigprocmask(SIG_BLOCK, &set, NULL) == -1)
		return -1;
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
#else
	return -1;
#endif
}

/* Asks for a signal when fd becomes ready, or for none; -1 with errno. */
static NOINLINE int
fd_arm(int fd, int on)
{
#ifdef F_SETSIG
	if (on && (fcntl(fd, F_SETSIG, SIGRTMIN) == -1 ||
	    fcntl(fd, F_SETOWN, getpid()) == -1))
		return -1;
	return fcntl(fd, F_SETFL, on ? O_NONBLOCK | O_ASYNC : O_NONBLOCK);
#else
	(void)fd;
	(void)on;
	return -1;
#endif
}

static void
disarm(struct session *s)
{
	int i;

	if (has(s, ARMED))
		for (i = 0; i < 2; i++)
			if (s->fd[i] != -1)
				fd_arm(s->fd[i], 0);
	unset(s, ARMED);
}

/* 1 when s need not be polled.  What came before it was armed gives no
 * signal, so one that was armed just now is polled once more. */
static int
cold(struct relay *r, struct session *s, struct wake *w)
{
	int i;

	if (r->sigfd == -1)
		return r->look_at != NEVER;
	if (has(s, ARMED))
		return 1;
	set(s, ARMED);
	for (i = 0; i < 2 && r->sigfd != -1; i++)
		if (s->fd[i] != -1 && fd_arm(s->fd[i], 1) == -1) {
			close(r->sigfd);
			r->sigfd = -1;
			wake_at(w, r->now);
		}
	return 0;
}

/* life of a session */

/* Something moved: the session is hot, and the last to become idle. */
static void
touch(struct relay *r, struct session *s)
{
	if (has(s, DYING))
		return;
	disarm(s);
	r->touched = r->now;
	idle_touch(&r->list[has(s, WAITING) ? L_WAITING : L_OPEN], &s->idle,
	    r->now);
}

/* Notes whose leg fd is; -1 without memory for it. */
static int
own(struct relay *r, int fd, struct session *s)
{
	struct session **p;
	int n = fd + 256;

	if (fd >= r->nfds) {
		p = realloc(r->by_fd, (size_t)n * sizeof *p);
		if (!p)
			return -1;
		memset(p + r->nfds, 0, (size_t)(n - r->nfds) * sizeof *p);
		r->by_fd = p;
		r->nfds = n;
	}
	r->by_fd[fd] = s;
	return 0;
}

static void
leg_close(struct relay *r, struct session *s, int i)
{
	if (s->fd[i] == -1)
		return;
	if (s->fd[i] < r->nfds)
		r->by_fd[s->fd[i]] = NULL;
	close(s->fd[i]);
	s->fd[i] = -1;
}

static void
pipe_close(struct hold *h)
{
	close(h->fd[0]);
	close(h->fd[1]);
	h->fd[0] = -1;
}

/* Frees what direction i of s holds; a pipe goes back to the pool. */
static void
release(struct relay *r, struct session *s, int i)
{
	struct hold *h = s->u.hold[i];

	s->u.hold[i] = NULL;
	if (!h)
		return;
	if (h->fd[0] == -1) {
		r->held -= h->off + h->n;
		free(h);
		return;
	}
	if (h->n)
		pipe_close(h);
	h->s = NULL;
}

/* A hash of a's host and of port, below BUCKETS. */
static uint32_t
hash_of(const struct relay *r, const union addr *a, int port)
{
	const unsigned char *p = (const void *)&a->in.sin_addr;
	uint32_t h = r->seed ^ (uint32_t)port;
	int n = 4;

	if (a->sa.sa_family == AF_INET6) {
		p = a->in6.sin6_addr.s6_addr;
		n = 16;
	}
	while (n-- > 0)
		h = (h ^ *p++) * 0x9e3779b1;
	h = (h ^ h >> 15) * 0x85ebca6b;
	return h >> 16 & (BUCKETS - 1);
}

static struct session **
bucket(const struct relay *r, const union addr *client)
{
	return &r->hash[hash_of(r, client, addr_port(client))];
}

static void
unhash(struct relay *r, struct session *s)
{
	struct session **p = bucket(r, &s->client);

	while (*p != s)
		p = &(*p)->u.next;
	*p = s->u.next;
}

static void
say_end(struct relay *r, struct session *s, enum relay_why why)
{
	union addr to = s->peer;
	socklen_t len = sizeof to;
	char a[ADDR_TEXT], b[ADDR_TEXT];

	if (r->udp && getpeername(s->fd[1], &to.sa, &len) == -1)
		return;
	r->calls.say(SAY_NOTE, "%s to %s: %s%s%s after %ld s, "
	    "%lld bytes in, %lld out", addr_text(&s->client, a),
	    addr_text(&to, b), why_text[why], s->err ? ": " : "",
	    s->err ? strerror(s->err) : "",
	    (long)((uint32_t)(r->now / 1000) - s->born),
	    (long long)s->bytes[0], (long long)s->bytes[1]);
}

/* Ends s, by a reset where it was broken or refused. */
static void
end(struct relay *r, struct session *s, enum relay_why why)
{
	int i;

	say_end(r, s, why);
	for (i = 0; i < 2; i++) {
		if (!r->udp)
			release(r, s, i);
		if (why == WHY_ERROR || why == WHY_REFUSED)
			fd_abortive(s->fd[i], 1);
		leg_close(r, s, i);
	}
	if (r->udp)
		unhash(r, s);
	idle_drop(&s->idle);
	free(s);
	r->n--;
	r->ended[why]++;
	r->room_at = 0;
}

/* Says the first failure, and every one that doubles their number. */
static void
complain(struct relay *r, const char *what, const char *why)
{
	r->no_room++;
	if (r->no_room & (r->no_room - 1))
		return;
	r->calls.say(SAY_WARN, "relay: %s: %s (%d sessions now, "
	    "%u times so far)", what, why, r->n, r->no_room);
}

/* sockets */

/* A new socket, non-blocking and closed in children; -1 with errno. */
static int
fd_socket(int family, int type)
{
#ifdef SOCK_NONBLOCK
	return socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
#else
	int fd = socket(family, type, 0);

	if (fd != -1)
		fd_setup(fd);
	return fd;
#endif
}

static int
fd_accept(int listener, union addr *from)
{
	socklen_t len = sizeof *from;
#ifdef SOCK_NONBLOCK
	return accept4(listener, &from->sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
	int fd = accept(listener, &from->sa, &len);

	if (fd != -1)
		fd_setup(fd);
	return fd;
#endif
}

/* A vanished peer is found in two and a half minutes.  What a listener has,
 * its connections inherit. */
static void
tune(const struct relay *r, int fd)
{
	int k = r->cfg->keepalive < 30 ? r->cfg->keepalive : 30;

	fd_probes(fd, k, k, 120 / k);
}

static void
set_congestion(const struct relay *r)
{
	const char *name = r->cfg->congestion;

	if (!name)
		return;
#ifdef TCP_CONGESTION
	if (setsockopt(r->fd, IPPROTO_TCP, TCP_CONGESTION, name,
	    (socklen_t)strlen(name)) == 0)
		return;
#else
	errno = ENOPROTOOPT;
#endif
	r->calls.say(SAY_WARN, "congestion control %s: not used:", name);
}

/* Asks the mapped port to tell to which of our addresses a datagram came. */
static void
tell_addresses(const struct relay *r)
{
	if (r->local.sa.sa_family == AF_INET6)
		fd_option(r->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
#ifdef IP_PKTINFO
	else
		fd_option(r->fd, IPPROTO_IP, IP_PKTINFO, 1);
#endif
}

/* The error that is pending on fd, 0 when there is none. */
static NOINLINE uint8_t
fd_error(int fd)
{
	int e = 0;
	socklen_t n = sizeof e;

	getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n);
	return (uint8_t)e;
}

/* Bytes that the peer has not acknowledged; unknown is some. */
static int
unsent(int fd)
{
	int n = 1;

#ifdef TIOCOUTQ
	ioctl(fd, TIOCOUTQ, &n);
#else
	(void)fd;
#endif
	return n;
}

/* Would a connection to to come back to the mapped port?  It does when to is
 * one of our own addresses: then it is its own source, or that is loopback. */
static int
is_self(struct relay *r, const union addr *to)
{
	union addr from;
	socklen_t len = sizeof from;
	int fd, self;

	if (addr_port(to) != addr_port(&r->local) ||
	    to->sa.sa_family != r->local.sa.sa_family ||
	    (!addr_any(&r->local) && !addr_same_host(&r->local, to)))
		return 0;
	fd = fd_socket(to->sa.sa_family, SOCK_DGRAM);
	if (fd == -1)
		return 0;
	self = connect(fd, &to->sa, addr_len(to)) == 0 &&
	    getsockname(fd, &from.sa, &len) == 0 &&
	    (addr_same_host(&from, to) || (from.sa.sa_family == AF_INET &&
	    from.in.sin_addr.s_addr == htonl(INADDR_LOOPBACK)));
	close(fd);
	if (!self)
		return 0;
	if (!r->said_self++)
		r->calls.say(SAY_WARN, "relay: the target is the mapped port "
		    "itself, refused");
	errno = EADDRINUSE;
	return 1;
}

/* what is held */

/* A pipe of 256 KiB where that is allowed; -1 with errno. */
static int
pipe_open(int fd[2])
{
#ifdef SPLICE_F_MOVE
	if (pipe2(fd, O_NONBLOCK | O_CLOEXEC) == -1)
		return -1;
	fcntl(fd[0], F_SETPIPE_SZ, PIPE_SIZE);
	return 0;
#else
	(void)fd;
	errno = ENOSYS;
	return -1;
#endif
}

/* Moves up to n bytes between a socket and a pipe. */
static ssize_t
fd_splice(int from, int to, size_t n)
{
#ifdef SPLICE_F_MOVE
	return splice(from, NULL, to, NULL, n,
	    SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
#else
	(void)from;
	(void)to;
	(void)n;
	errno = EINVAL;
	return -1;
#endif
}

/* A free pipe of the pool, rather one that is open; NULL when none is. */
static struct hold *
pipe_free(struct relay *r)
{
	struct hold *h, *shut = NULL;

	for (h = r->pipe; h < r->pipe + MAX_PIPES; h++)
		if (!h->s && h->fd[0] != -1)
			return h;
		else if (!h->s)
			shut = h;
	return shut && pipe_open(shut->fd) == 0 ? shut : NULL;
}

static void
pipes_init(struct relay *r)
{
	struct hold *h;

	for (h = r->pipe; h < r->pipe + MAX_PIPES; h++)
		h->fd[0] = -1;
}

static void
pipes_close(struct relay *r)
{
	struct hold *h;

	for (h = r->pipe; h < r->pipe + MAX_PIPES; h++)
		if (h->fd[0] != -1)
			pipe_close(h);
}

/* Leg i does not work any more. */
static NOINLINE void
fail(struct session *s, int i, int e)
{
	set(s, BROKEN << i);
	if (!s->err)
		s->err = (uint8_t)e;
}

/* Room for n bytes of direction i; NULL without memory. */
static NOINLINE struct hold *
hold_new(struct relay *r, struct session *s, int i, size_t n)
{
	struct hold *h = malloc(sizeof *h + n);

	if (!h)
		return NULL;
	h->s = s;
	h->dir = i;
	h->fd[0] = -1;
	h->off = 0;
	h->n = n;
	r->held += n;
	return h;
}

static unsigned char *
hold_data(struct hold *h)
{
	return (unsigned char *)(h + 1) + h->off;
}

/* A receiver that is slow shall not keep a pipe of the pool. */
static void
copy_out(struct relay *r, struct hold *p)
{
	struct hold *h = NULL;
	ssize_t n;
	size_t got = 0;

	if (r->held + p->n <= HELD_MOST)
		h = hold_new(r, p->s, p->dir, p->n);
	p->since = r->now;
	if (!h)
		return;
	while (got < h->n) {
		n = read(p->fd[0], hold_data(h) + got, h->n - got);
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	if (got < h->n)
		fail(p->s, p->dir, EIO);
	p->n -= got;
	release(r, p->s, p->dir);
	h->s->u.hold[h->dir] = h;
}

/* Gives leg !i what direction i holds; 1 when nothing is left. */
static int
flush(struct relay *r, struct session *s, int i)
{
	struct hold *h;
	ssize_t n;

	while ((h = s->u.hold[i])) {
		if (h->fd[0] == -1)
			n = send(s->fd[!i], hold_data(h), h->n, 0);
		else
			n = fd_splice(h->fd[0], s->fd[!i], h->n);
		if (n <= 0) {
			if (n == -1 && !fd_again())
				fail(s, !i, errno);
			return 0;
		}
		h->off += (size_t)n;
		h->n -= (size_t)n;
		touch(r, s);
		if (h->n == 0)
			release(r, s, i);
	}
	return 1;
}

/* Takes a chunk from leg i, gives the other what it takes, holds the rest. */
static ssize_t
take_chunk(struct relay *r, struct session *s, int i)
{
	size_t most = r->held < HELD_MOST ? CHUNK : SCARCE;
	unsigned char *buf = buffer(r);
	struct hold *h;
	ssize_t n, sent;

	if (!buf)
		return -1;
	n = recv(s->fd[i], buf, most, 0);
	if (n <= 0)
		return n;
	if (n == (ssize_t)most)
		set(s, BULK << i);
	sent = send(s->fd[!i], buf, (size_t)n, 0);
	if (sent == -1 && !fd_again()) {
		fail(s, !i, errno);
		return n;
	}
	if (sent < 0)
		sent = 0;
	if (sent < n) {
		h = hold_new(r, s, i, (size_t)(n - sent));
		if (!h)
			return -1;
		memcpy(hold_data(h), buf + sent, h->n);
		s->u.hold[i] = h;
	}
	return n;
}

/* Takes what leg i has: into a pipe when it sends in bulk. */
static ssize_t
take(struct relay *r, struct session *s, int i)
{
	struct hold *h = has(s, BULK << i) ? pipe_free(r) : NULL;
	ssize_t n;

	if (!h)
		return take_chunk(r, s, i);
	n = fd_splice(s->fd[i], h->fd[1], PIPE_SIZE);
	if (n == -1 && (errno == EINVAL || errno == ENOSYS))
		return take_chunk(r, s, i);
	if (n > 0) {
		if (n < BULK_LEAST)
			unset(s, BULK << i);
		h->s = s;
		h->dir = i;
		h->off = 0;
		h->n = (size_t)n;
		h->since = r->now;
		s->u.hold[i] = h;
	}
	return n;
}

/* Moves bytes of direction i until a leg blocks or others have their turn. */
static void
carry(struct relay *r, struct session *s, int i)
{
	ssize_t n = CHUNK;
	size_t total = 0;

	while (flush(r, s, i) && n >= BULK_LEAST && total < TURN &&
	    !has(s, GOT_EOF << i) && !has(s, BROKEN << !i)) {
		n = take(r, s, i);
		if (n == -1 && fd_again())
			return;
		if (n == -1)
			fail(s, i, errno);
		if (n <= 0) {
			set(s, GOT_EOF << i);
			return;
		}
		touch(r, s);
		total += (size_t)n;
		s->bytes[i] += (uint64_t)n;
		r->bytes[i] += (uint64_t)n;
	}
}

/* A leg is broken: brings the other what came before, then resets it. */
static void
wind_up(struct relay *r, struct session *s)
{
	int j = has(s, BROKEN << 1);	/* the broken leg */

	release(r, s, !j);
	carry(r, s, j);
	if (has(s, BROKEN << !j) || s->fd[!j] == -1 ||
	    (has(s, GOT_EOF << j) && !s->u.hold[j] && !unsent(s->fd[!j]))) {
		end(r, s, WHY_ERROR);
	} else if (!has(s, DYING)) {
		disarm(s);
		set(s, DYING);
		idle_touch(&r->list[L_ENDING], &s->idle, r->now);
	}
}

/* What follows from the state of both directions; may end s. */
static void
settle(struct relay *r, struct session *s)
{
	int i;

	if (has(s, BROKEN | BROKEN << 1)) {
		wind_up(r, s);
		return;
	}
	if (has(s, GOT_EOF) && has(s, GOT_EOF << 1) && !s->u.hold[0] &&
	    !s->u.hold[1]) {
		end(r, s, WHY_CLOSED);
		return;
	}
	for (i = 0; i < 2; i++)
		if (has(s, GOT_EOF << i) && !has(s, PASSED << i) &&
		    !s->u.hold[i]) {
			shutdown(s->fd[!i], SHUT_WR);
			set(s, PASSED << i);
		}
	for (i = 0; i < 2; i++)
		if (has(s, GOT_EOF << i) && has(s, PASSED << !i))
			leg_close(r, s, i);
}

/* connecting */

/* 1 connected, 0 not yet, -1 failed. */
static int
connected(struct session *s)
{
	union addr a;
	socklen_t len = sizeof a;

	s->err = fd_error(s->fd[1]);
	if (s->err)
		return -1;
	return getpeername(s->fd[1], &a.sa, &len) == 0;
}

/* Opens leg 1, unless it is open, and connects it to s->peer; -1 with errno. */
static int
dial(struct relay *r, struct session *s)
{
	const union addr *to = &s->peer;

	if (s->fd[1] == -1)
		s->fd[1] = fd_socket(to->sa.sa_family, r->cfg->type);
	if (s->fd[1] == -1 || own(r, s->fd[1], s) == -1 || is_self(r, to))
		return -1;
	if (!r->udp)
		tune(r, s->fd[1]);
	if (connect(s->fd[1], &to->sa, addr_len(to)) == 0 ||
	    errno == EINPROGRESS || errno == EINTR)
		return 0;
	return -1;
}

/* Tries the target's next addresses; -1 with errno when none is left. */
static int
dial_any(struct relay *r, struct session *s)
{
	while (s->to < r->target.n) {
		s->peer = r->target.a[s->to++];
		if (dial(r, s) == 0) {
			s->err = 0;
			return 0;
		}
		s->err = (uint8_t)errno;
		leg_close(r, s, 1);
	}
	errno = s->err;
	return -1;
}

/* The same for a session in its list, which is ended when none is left. */
static int
dial_next(struct relay *r, struct session *s)
{
	if (dial_any(r, s) == 0) {
		touch(r, s);
		return 0;
	}
	end(r, s, WHY_REFUSED);
	return -1;
}

/* Has leg 1 connected? */
static void
step_waiting(struct relay *r, struct session *s)
{
	int c = connected(s);

	if (c == -1) {
		leg_close(r, s, 1);
		dial_next(r, s);
	}
	if (c != 1)
		return;
	unset(s, WAITING);
	touch(r, s);
	carry(r, s, 0);
	settle(r, s);
}

/* making room */

/* Sessions of the source of s. */
static int
share(const struct relay *r, const struct session *s)
{
	const struct idle *e, *head = &r->list[L_OPEN];
	int n = 0;

	for (e = head->next; e != head; e = e->next)
		n += addr_same_host(&((const struct session *)e)->client,
		    &s->client);
	return n;
}

/* The session idle for long whose source holds the most; NULL when none
 * holds too many.  The counts by hash tell which sources are worth counting
 * exactly; one that hides behind another does so only until the next call. */
static struct session *
crowd(struct relay *r, int *most)
{
	struct idle *e, *head = &r->list[L_OPEN];
	struct session *s, *best = NULL;
	int count[BUCKETS] = { 0 };
	uint32_t k;
	int n;

	r->seed++;
	for (e = head->next; e != head; e = e->next)
		count[hash_of(r, &((struct session *)e)->client, 0)]++;
	*most = ROOM_SHARE;
	for (e = head->next; e != head && r->now - e->last > ROOM_AGE;
	    e = e->next) {
		s = (struct session *)e;
		k = hash_of(r, &s->client, 0);
		if (count[k] <= *most)
			continue;
		count[k] = 0;
		n = share(r, s);
		if (n > *most) {
			*most = n;
			best = s;
		}
	}
	return best;
}

/* Ends at most that many sessions: of source those that are idle for long; or,
 * when it is NULL, old ones that never carried a byte from the client. */
static int
evict(struct relay *r, const union addr *source, int most)
{
	struct idle *e, *next, *head = &r->list[L_OPEN];
	struct session *s;
	uint32_t t = (uint32_t)(r->now / 1000);
	int n = 0;

	for (e = head->next; e != head && n < most; e = next) {
		next = e->next;
		s = (struct session *)e;
		if (source ? r->now - e->last > ROOM_AGE &&
		    addr_same_host(&s->client, source) :
		    !s->bytes[0] && t - s->born > ROOM_AGE / 1000) {
			end(r, s, WHY_LIMIT);
			n++;
		}
	}
	return n;
}

/* 1 when there is room for another session. */
static int
make_room(struct relay *r)
{
	struct session *s;
	union addr source;
	int most;

	if (r->n < r->max || evict(r, NULL, ROOM_BATCH))
		return 1;
	s = crowd(r, &most);
	if (!s)
		return 0;
	source = s->client;
	most -= ROOM_SHARE;
	return evict(r, &source, most < ROOM_BATCH ? most : ROOM_BATCH);
}

/* accepting */

/* The listener rests until a session ends, or for a while. */
static void
rest(struct relay *r, const char *why)
{
	complain(r, "clients must wait", why);
	r->room_at = r->now + PAUSE;
}

/* A session with a socket for the target is made before its client is
 * accepted: who is accepted is served. */
static int
prepare(struct relay *r)
{
	struct session *s = r->spare;

	if (s)
		return 0;
	s = calloc(1, sizeof *s);
	if (!s)
		return -1;
	s->fd[0] = -1;
	s->fd[1] = fd_socket(r->target.a[0].sa.sa_family, SOCK_STREAM);
	if (s->fd[1] == -1) {
		free(s);
		return -1;
	}
	r->spare = s;
	return 0;
}

static void
spare_drop(struct relay *r)
{
	if (r->spare)
		close(r->spare->fd[1]);
	free(r->spare);
	r->spare = NULL;
}

/* Counts a session that has its descriptors. */
static NOINLINE void
enrol(struct relay *r, struct session *s)
{
	s->born = (uint32_t)(r->now / 1000);
	set(s, WAITING);
	r->n++;
	r->ever++;
}

static NOINLINE void
tell_used(const struct relay *r)
{
	if (r->calls.used)
		r->calls.used(r->calls.arg, r->now);
}

/* Starts the session of a client and takes it as far as it goes at once. */
static NOINLINE void
welcome(struct relay *r, int fd, const union addr *client)
{
	struct session *s = r->spare;

	r->spare = NULL;
	s->client = *client;
	s->fd[0] = fd;
	enrol(r, s);
	if (dial_next(r, s) == 0)
		step_waiting(r, s);
	tell_used(r);
}

static void
accept_some(struct relay *r)
{
	union addr client;
	int fd, k;

	if (!make_room(r)) {
		rest(r, "session limit");
		return;
	}
	for (k = 0; k < ACCEPTS && r->n < r->max; k++) {
		if (prepare(r) == -1)
			break;
		fd = fd_accept(r->fd, &client);
		if (fd == -1 && errno == ECONNABORTED)
			continue;
		if (fd == -1 && fd_again())
			return;
		if (fd == -1)
			break;
		if (own(r, fd, r->spare) == -1) {
			close(fd);
			break;
		}
		welcome(r, fd, &client);
	}
	if (k < ACCEPTS && r->n < r->max)
		rest(r, strerror(errno));
}

/* UDP */

static int
recv_many(int fd, struct mmsghdr *m, int n)
{
	ssize_t len;
	int k;

#ifdef MSG_WAITFORONE
	k = recvmmsg(fd, m, (unsigned)n, MSG_DONTWAIT, NULL);
	if (k != -1 || errno != ENOSYS)
		return k;
#endif
	for (k = 0; k < n; k++) {
		len = recvmsg(fd, &m[k].msg_hdr, 0);
		if (len == -1)
			break;
		m[k].msg_len = (unsigned)len;
	}
	return k ? k : -1;
}

static int
send_many(int fd, struct mmsghdr *m, int n)
{
	int k;

#ifdef MSG_WAITFORONE
	k = sendmmsg(fd, m, (unsigned)n, MSG_DONTWAIT);
	if (k != -1 || errno != ENOSYS)
		return k;
#endif
	for (k = 0; k < n; k++)
		if (sendmsg(fd, &m[k].msg_hdr, 0) == -1)
			break;
	return k ? k : -1;
}

/* Reads datagrams into the batch; returns how many, -1 with errno. */
static int
read_batch(struct batch *b, int fd)
{
	struct msghdr *h;
	int k, n;

	for (k = 0; k < BATCH; k++) {
		b->iov[k].iov_base = b->data[k];
		b->iov[k].iov_len = DGRAM;
		h = &b->in[k].msg_hdr;
		h->msg_name = &b->from[k];
		h->msg_namelen = sizeof b->from[k];
		h->msg_iov = &b->iov[k];
		h->msg_iovlen = 1;
		h->msg_control = b->in_control[k].buf;
		h->msg_controllen = sizeof b->in_control[k].buf;
	}
	n = recv_many(fd, b->in, BATCH);
	for (k = 0; k < n; k++)
		b->iov[k].iov_len = b->in[k].msg_len;
	return n;
}

/* Appends ancillary data to h, whose control buffer has room for it. */
static void
attach(struct msghdr *h, int level, int type, const void *p, size_t n)
{
	unsigned char *at = h->msg_control;
	struct cmsghdr *c = (void *)(at + h->msg_controllen);

	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = (socklen_t)CMSG_LEN(n);
	memcpy(CMSG_DATA(c), p, n);
	h->msg_controllen += (socklen_t)CMSG_SPACE(n);
}

/* Lets h leave from our address a, as its client expects. */
static NOINLINE void
leave_from(struct msghdr *h, const union addr *a)
{
	struct in6_pktinfo v6;

	if (addr_any(a))
		return;
	if (a->sa.sa_family == AF_INET6) {
		v6.ipi6_addr = a->in6.sin6_addr;
		v6.ipi6_ifindex = a->in6.sin6_scope_id;
		attach(h, IPPROTO_IPV6, IPV6_PKTINFO, &v6, sizeof v6);
	}
#ifdef IP_PKTINFO
	if (a->sa.sa_family == AF_INET) {
		struct in_pktinfo v4 = { 0 };

		v4.ipi_spec_dst = a->in.sin_addr;
		attach(h, IPPROTO_IP, IP_PKTINFO, &v4, sizeof v4);
	}
#endif
}

/* Our own address, to which h came; the bound one where that is not told. */
static void
came_to(const struct relay *r, struct msghdr *h, union addr *a)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(h);
	struct in6_pktinfo v6;

	*a = r->local;
	if (!c)
		return;
	if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
		memcpy(&v6, CMSG_DATA(c), sizeof v6);
		a->in6.sin6_addr = v6.ipi6_addr;
		if (IN6_IS_ADDR_LINKLOCAL(&v6.ipi6_addr))
			a->in6.sin6_scope_id = v6.ipi6_ifindex;
	}
#ifdef IP_PKTINFO
	if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
		struct in_pktinfo v4;

		memcpy(&v4, CMSG_DATA(c), sizeof v4);
		a->in.sin_addr = v4.ipi_spec_dst;
	}
#endif
}

/* How many datagrams from iov on, n at most, make one segmented send: equal
 * ones, the last may be shorter. */
static NOINLINE int
run_length(size_t segment, const struct iovec *iov, int n)
{
	size_t size = iov->iov_len, total = size;
	int k;

	if (size == 0 || size > segment)
		return 1;
	for (k = 1; k < n && iov[k - 1].iov_len == size &&
	    iov[k].iov_len && iov[k].iov_len <= size; k++) {
		total += iov[k].iov_len;
		if (total > SEGMENTED)
			break;
	}
	return k;
}

/* Writes what sends datagrams first to last - 1 to b->out; how many sends. */
static int
compose(struct batch *b, int first, int last, const union addr *to,
    const union addr *from)
{
	struct msghdr *h;
	uint16_t size;
	int k, n = 0;

	for (; first < last; first += k) {
		h = &b->out[n].msg_hdr;
		memset(h, 0, sizeof *h);
		h->msg_name = (void *)(uintptr_t)to;
		h->msg_namelen = to ? addr_len(to) : 0;
		h->msg_iov = &b->iov[first];
		k = run_length(b->segment, h->msg_iov, last - first);
		h->msg_iovlen = (uint16_t)k;
		h->msg_control = b->out_control[n++].buf;
		if (from)
			leave_from(h, from);
		if (k > 1) {
			size = (uint16_t)h->msg_iov->iov_len;
			attach(h, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size);
		}
	}
	return n;
}

/* Sends datagrams first to last - 1 of the batch to one peer: to and from
 * are NULL on a connected socket.  What is not taken now is lost. */
static void
send_batch(struct relay *r, int fd, struct batch *b, int first, int last,
    const union addr *to, const union addr *from)
{
	struct msghdr *h = &b->out[0].msg_hdr;
	int k, n;

	b->segment = r->segment;
	while (first < last) {
		n = compose(b, first, last, to, from);
		n = send_many(fd, b->out, n);
		for (k = 0; k < n; k++)
			first += (int)b->out[k].msg_hdr.msg_iovlen;
		if (n > 0)
			continue;
		if (fd_again())
			return;
		if (errno == EIO || errno == EOPNOTSUPP)
			r->segment = 0;
		if (h->msg_iovlen > 1)  /* or longer than the path's MTU */
			b->segment = 0;
		else
			first++;
	}
}

/* Counts and touches for datagrams first to last - 1 from leg i. */
static NOINLINE void
count_batch(struct relay *r, struct session *s, struct batch *b, int i,
    int first, int last)
{
	for (; first < last; first++) {
		s->bytes[i] += b->iov[first].iov_len;
		r->bytes[i] += b->iov[first].iov_len;
	}
	touch(r, s);
}

/* Does s serve this client, who sends to our address to? */
static int
serves(const struct session *s, const union addr *from, const union addr *to)
{
	return addr_same(&s->client, from) && addr_same_host(&s->peer, to);
}

/* A session for a client that comes for the first time; NULL if none can be
 * had.  The table has room: who got no answer yet, or was idle for longest,
 * goes. */
static struct session *
client_new(struct relay *r, const union addr *from, const union addr *to)
{
	struct idle *e = idle_oldest(&r->list[L_WAITING]);
	struct session *s;

	if (r->n >= r->max)
		end(r, (struct session *)(e ? e :
		    idle_oldest(&r->list[L_OPEN])), WHY_LIMIT);
	s = calloc(1, sizeof *s);
	if (s)
		s->fd[0] = s->fd[1] = -1;
	if (!s || dial_any(r, s) == -1) {
		if (errno != EADDRINUSE)
			complain(r, "datagram dropped", strerror(errno));
		free(s);
		return NULL;
	}
	s->client = *from;
	s->peer = *to;
	s->u.next = *bucket(r, from);
	*bucket(r, from) = s;
	enrol(r, s);
	tell_used(r);
	return s;
}

/* The session of a client, an old or a new one; NULL: none can be had. */
static struct session *
client(struct relay *r, const union addr *from, const union addr *to)
{
	struct session *s = *bucket(r, from);

	while (s && !serves(s, from, to))
		s = s->u.next;
	return s || !r->target.n ? s : client_new(r, from, to);
}

static int
claimed(struct relay *r, struct batch *b, int k)
{
	return r->calls.claim && r->calls.claim(r->calls.arg, &b->from[k],
	    &b->to[k], b->data[k], b->iov[k].iov_len, r->now) == 1;
}

/* Sends datagrams first to last - 1 of client s, if any, to the target. */
static void
pass_on(struct relay *r, struct session *s, struct batch *b, int first,
    int last)
{
	if (!s)
		return;
	count_batch(r, s, b, 0, first, last);
	send_batch(r, s->fd[1], b, first, last, NULL, NULL);
}

/* Reads a batch from the mapped port; 1 when there may be more. */
static int
receive(struct relay *r)
{
	struct batch *b = (void *)buffer(r);
	struct session *s = NULL;
	int k, n, taken, first = 0;

	if (!b)
		return 0;
	n = read_batch(b, r->fd);
	for (k = 0; k < n; k++) {
		came_to(r, &b->in[k].msg_hdr, &b->to[k]);
		taken = claimed(r, b, k);
		if (!taken && s && serves(s, &b->from[k], &b->to[k]))
			continue;
		pass_on(r, s, b, first, k);
		first = k;
		s = taken ? NULL : client(r, &b->from[k], &b->to[k]);
	}
	pass_on(r, s, b, first, k);
	return n == BATCH;
}

/* Sends what the target answers to the client. */
static void
answer(struct relay *r, struct session *s)
{
	struct batch *b = (void *)buffer(r);
	int n, tries = 0;

	if (!b)
		return;
	do	/* a refusal only tells of a datagram that is lost */
		n = read_batch(b, s->fd[1]);
	while (n == -1 && !fd_again() && ++tries < 4);
	if (n <= 0)
		return;
	unset(s, WAITING);
	count_batch(r, s, b, 1, 0, n);
	send_batch(r, r->fd, b, 0, n, &s->client, &s->peer);
}

/* stepping */

/* A leg of which nothing is wanted reported an error or a hang-up. */
static void
hung(struct session *s, int i)
{
	int e = fd_error(s->fd[i]);

	if (e)
		fail(s, i, e);
	else
		set(s, HUNG << i);
}

static void
step_open(struct relay *r, struct session *s, int i, const struct pollfd *p)
{
	if (!p->events)
		hung(s, i);
	if (p->revents & ~POLLOUT)
		carry(r, s, i);
	if (p->revents & ~POLLIN)
		carry(r, s, !i);
	settle(r, s);
}

/* Steps the sessions whose descriptors are ready.  A session that ends takes
 * its descriptors out of by_fd, so that none is stepped after its end. */
static void
ready(struct relay *r, const struct pollfd *p, int n)
{
	const struct pollfd *last = p + n;
	struct session *s;
	int i;

	for (; p < last; p++) {
		s = p->revents && p->fd < r->nfds ? r->by_fd[p->fd] : NULL;
		if (!s || has(s, DYING))
			continue;
		i = s->fd[1] == p->fd;
		if (r->udp)
			answer(r, s);
		else if (!has(s, WAITING))
			step_open(r, s, i, p);
		else if (i == 1)
			step_waiting(r, s);
		else
			end(r, s, WHY_ERROR);	/* the client went away */
	}
}

/* What poll shall wait for on leg i; -1 when it needs no slot. */
static int
events(const struct relay *r, const struct session *s, int i)
{
	int ev = 0;

	if (s->fd[i] == -1 || has(s, DYING))
		return -1;
	if (r->udp)
		return POLLIN;
	if (has(s, WAITING))
		return i ? POLLOUT : 0;
	if (!has(s, GOT_EOF << i) && !s->u.hold[i])
		ev |= POLLIN;
	if (s->u.hold[!i])
		ev |= POLLOUT;
	return ev || !has(s, HUNG << i) ? ev : -1;
}

/* Looks, without waiting, at the sessions of fd[n], and steps them. */
static void
look(struct relay *r, const int *fd, int n)
{
	struct pollfd p[LOOKS];
	struct session *s;
	int ev, k, used = 0;

	for (k = 0; k < n; k++) {
		s = fd[k] < r->nfds ? r->by_fd[fd[k]] : NULL;
		ev = s ? events(r, s, s->fd[1] == fd[k]) : -1;
		if (ev == -1 || (used && p[used - 1].fd == fd[k]))
			continue;
		p[used].fd = fd[k];
		p[used++].events = (short)ev;
	}
	if (poll(p, (nfds_t)used, 0) > 0)
		ready(r, p, used);
}

static void
look_all(struct relay *r)
{
	int fd[LOOKS], k, n;

	r->look_at = NEVER;
	for (k = 0; k < r->nfds; k += LOOKS) {
		for (n = 0; n < LOOKS; n++)
			fd[n] = k + n;
		look(r, fd, LOOKS);
	}
}

/* Reads the signals of cold sessions: a look at each that one names, or at
 * all when the kernel had no room to queue one (SIGIO). */
static void
signalled(struct relay *r)
{
#ifdef F_SETSIG
	struct signalfd_siginfo si[32];
	int fd[32];
	ssize_t got;
	int k, n, all = 0;

	do {
		got = read(r->sigfd, si, sizeof si);
		for (k = n = 0; k < (int)(got / (ssize_t)sizeof *si); k++)
			if (si[k].ssi_signo == SIGIO)
				all = 1;
			else
				fd[n++] = si[k].ssi_fd;
		look(r, fd, n);
	} while (got == sizeof si);
	if (all)
		look_all(r);
#else
	(void)r;
#endif
}

/* The time is up for s, the head of its list. */
static void
expire(struct relay *r, struct session *s, int list)
{
	if (list == L_WAITING && !r->udp) {
		s->err = ETIMEDOUT;
		leg_close(r, s, 1);
		dial_next(r, s);
	} else
		end(r, s, list == L_ENDING ? WHY_ERROR : WHY_IDLE);
}

static void
expire_all(struct relay *r)
{
	struct idle *e;
	int k;

	for (k = 0; k < LISTS; k++)
		while ((e = idle_oldest(&r->list[k])) &&
		    r->now - e->last >= r->limit[k])
			expire(r, (struct session *)e, k);
}

static void
step_ending(struct relay *r)
{
	struct idle *e, *next;

	for (e = r->list[L_ENDING].next; e != &r->list[L_ENDING]; e = next) {
		next = e->next;
		settle(r, (struct session *)e);
	}
}

static void
step_pipes(struct relay *r)
{
	struct hold *h;

	for (h = r->pipe; h < r->pipe + MAX_PIPES; h++)
		if (h->s && r->now - h->since >= PIPE_LATE)
			copy_out(r, h);
}

void
relay_step(struct relay *r, struct wake *w, int64_t now)
{
	int k;

	if (!r->cfg)
		return;
	r->now = now;
	if (r->polled)
		ready(r, w->fds + r->first, r->polled);
	if (woke(w, r->sigslot))
		signalled(r);
	if (now >= r->look_at)
		look_all(r);
	step_pipes(r);
	step_ending(r);
	expire_all(r);
	if (!woke(w, r->slot))
		return;
	if (!r->udp)
		accept_some(r);
	for (k = 0; r->udp && k < 4 && receive(r); k++)
		;
}

/* wanting */

static void
want_legs(struct relay *r, struct session *s, struct wake *w)
{
	int i, ev;

	for (i = 0; i < 2; i++) {
		ev = events(r, s, i);
		if (ev != -1 && wake_on(w, s->fd[i], ev) == -1)
			wake_at(w, r->now + PAUSE);	/* no memory */
	}
}

static void
want_sessions(struct relay *r, struct wake *w)
{
	struct idle *e, *head;
	int k, n;

	r->first = w->n;
	for (k = 0; k < L_ENDING; k++) {
		head = &r->list[k];
		for (e = head->prev, n = 0; e != head; e = e->prev, n++) {
			if ((r->now - e->last >= HOT || (n >= HOT_MOST &&
			    r->sigfd != -1)) && cold(r, (struct session *)e, w))
				break;
			want_legs(r, (struct session *)e, w);
		}
	}
	r->polled = w->n - r->first;
}

static void
want_times(struct relay *r, struct wake *w)
{
	struct idle *e;
	int k;

	for (k = 0; k < LISTS; k++) {
		e = idle_oldest(&r->list[k]);
		if (e && r->limit[k] != NEVER)
			wake_at(w, e->last + r->limit[k]);
	}
	if (idle_oldest(&r->list[L_ENDING]))
		wake_at(w, r->now + TICK);
	for (k = 0; k < MAX_PIPES; k++)
		if (r->pipe[k].s)
			wake_at(w, r->pipe[k].since + PIPE_LATE);
	wake_at(w, r->look_at);
}

/* Nothing is hot: gives back what serves sessions in motion. */
static void
relax(struct relay *r)
{
	buffer_drop(r);
	spare_drop(r);
	if (r->n)
		return;
	free(r->by_fd);
	r->by_fd = NULL;
	r->nfds = 0;
}

void
relay_want(struct relay *r, struct wake *w)
{
	if (!r->cfg)
		return;
	if (r->look_at == NEVER && r->now - r->touched < HOT)
		r->look_at = r->now + (r->sigfd != -1 ? LOOK :
		    LOOK_PLAIN + r->n / 64);
	if (r->look_at == NEVER)
		relax(r);
	r->slot = -1;
	if (r->udp || (r->target.n && r->now >= r->room_at))
		r->slot = wake_on(w, r->fd, POLLIN);
	else if (r->target.n)
		wake_at(w, r->room_at);
	r->sigslot = wake_on(w, r->sigfd, POLLIN);
	want_sessions(r, w);
	want_times(r, w);
}

/* start and stop */

/* Sessions that the machine's limits allow. */
static int
most_sessions(const struct config *cfg)
{
	int64_t most = min64(MOST, (files_now() - RESERVED) / 2);

	if (cfg->max_sessions)
		return cfg->max_sessions;
#ifdef _SC_PHYS_PAGES
	most = min64(most, (int64_t)sysconf(_SC_PHYS_PAGES) *
	    sysconf(_SC_PAGESIZE) / 8 / SESSION_RAM);
#endif
	return most < 1 ? 1 : (int)most;
}

int
relay_start(struct relay *r, const struct config *cfg,
    const struct relay_calls *calls, int fd, int64_t now)
{
	socklen_t len = sizeof r->local;
	int k;

	memset(r, 0, sizeof *r);
	r->calls = *calls;
	r->fd = fd;
	r->now = now;
	r->udp = cfg->type == SOCK_DGRAM;
	r->max = most_sessions(cfg);
	r->slot = r->sigslot = -1;
	r->limit[L_OPEN] = cfg->idle_timeout ?
	    cfg->idle_timeout * (int64_t)1000 : NEVER;
	r->limit[L_WAITING] = r->udp ? r->limit[L_OPEN] : CONNECT;
	r->limit[L_ENDING] = ENDING;
	r->touched = now - HOT;
	r->look_at = NEVER;
	random_bytes(&r->seed, sizeof r->seed);
	pipes_init(r);
	for (k = 0; k < LISTS; k++)
		idle_init(&r->list[k]);
	if (getsockname(fd, &r->local.sa, &len) == -1 || (r->udp &&
	    !(r->hash = calloc(BUCKETS, sizeof *r->hash)))) {
		fd_close(fd);
		return -1;
	}
	r->cfg = cfg;
	r->sigfd = signals_fd();
	if (r->udp) {
		tell_addresses(r);
		/* A kernel that does not know it would send one datagram. */
		if (UDP_SEGMENT &&
		    fd_option(fd, IPPROTO_UDP, UDP_SEGMENT, 0) == 0)
			r->segment = SEGMENTED;
	} else {
		tune(r, fd);
		set_congestion(r);
	}
	return 0;
}

void
relay_target(struct relay *r, const struct addrs *to)
{
	spare_drop(r);
	r->target = *to;
}

void
relay_report(const struct relay *r)
{
	if (!r->cfg)
		return;
	r->calls.say(SAY_WARN, "relay: %d sessions now, %lld ever, %lld bytes "
	    "in, %lld out; closed %lld, broken %lld, refused %lld, idle %lld, "
	    "made room %lld; no room %u times", r->n, (long long)r->ever,
	    (long long)r->bytes[0], (long long)r->bytes[1],
	    (long long)r->ended[WHY_CLOSED], (long long)r->ended[WHY_ERROR],
	    (long long)r->ended[WHY_REFUSED], (long long)r->ended[WHY_IDLE],
	    (long long)r->ended[WHY_LIMIT], r->no_room);
}

void
relay_stop(struct relay *r)
{
	struct idle *e;
	int k;

	if (!r->cfg)
		return;
	for (k = 0; k < LISTS; k++)
		while ((e = idle_oldest(&r->list[k])))
			end(r, (struct session *)e, WHY_STOP);
	relax(r);
	pipes_close(r);
	free(r->hash);
	close(r->fd);
	if (r->sigfd != -1)
		close(r->sigfd);
	r->fd = -1;
	r->cfg = NULL;
}
