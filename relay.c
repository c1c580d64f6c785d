/* SPDX-License-Identifier: MIT */
/*
 * Sessions between the mapped port and the target, TCP and UDP.
 *
 * A session has two legs: leg 0 to the client, leg 1 to the target.  UDP
 * sessions have no leg 0: all clients share the mapped port.  An idle session
 * has descriptors and no buffer.
 *
 *   S_WAITING  TCP: leg 1 connects, leg 0 is not read; UDP: no answer yet
 *   S_GUEST    TCP: no room yet: leg 0 is open, and not read
 *   S_OPEN     both directions flow; the EOF of a leg is sent on to the other
 *   S_ENDING   one leg is broken; the other still gets what came before, then
 *              a reset.  A few sessions in turn are looked at, again and again
 *
 * Each state has a list of sessions, sorted by last activity.  A session that
 * rested for ACTIVE ms is armed: a signal tells which descriptor is ready
 * (F_SETSIG), and poll need not know it.  A session that moves twice in a row
 * is disarmed and polled.  Without F_SETSIG the relay polls all sessions every
 * few milliseconds while one is active, and waits for all when none is.
 */
#include "natmap.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#endif
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
#undef SO_MEMINFO
#undef SPLICE_F_MOVE
#undef UDP_SEGMENT
#endif
/* <linux/sockios.h> is not in every toolchain. */
#if defined SO_MEMINFO && !defined SIOCOUTQNSD
#define SIOCOUTQNSD	0x894b
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 0
#endif
#ifndef TCP_CONGESTION
#define TCP_CONGESTION -1	/* no option: refused */
#endif
#ifndef MSG_WAITFORONE
#define mmsghdr plain_mmsghdr
struct mmsghdr {
	struct msghdr msg_hdr;
	unsigned msg_len;
};
#endif

/* times in ms */
#define PORT_REST       5000    /* at least, of the port of a UDP session */
#define ACTIVE		50	/* polled for so long after a move */
#define CHECK_ALL       1000    /* all are polled so often, with signals */
#define CHECK_PLAIN	5	/* and without, 1 more for 64 sessions */
#define CONNECT         10000   /* for each address of the target */
#define ENDING          10000   /* for the last bytes before a reset */
#define LOOK_LEAST	20	/* between looks at some that end */
#define LOOK_MOST       1000    /* doubled up to this while none has ended */
#define ACCEPT_PAUSE    1000    /* of the listener without room */
#define ROOM_AGE	60000	/* younger sessions make no room */
#define ROOM_IDLE	1000	/* but for a client of another source */
#define ROOM_UDP	200	/* in UDP: the target may be at an answer */
#define GUEST_AGE	10000	/* a guest goes for another not before */

/* sessions */
#define ACTIVE_MOST	128	/* polled at most, with signals */
#define POLL_MOST	64	/* descriptors in one poll of all */
#define ROOM_SHARE      8       /* a source keeps so many when room is made */
#define ROOM_BATCH	64	/* ended at a time to make room */
#define GUESTS          128     /* accepted before there is room; fewer where
				   descriptors are few, at least the eighth */
#define RESERVED	32	/* descriptors that are not for sessions */
#define SESSIONS        4096    /* at most, unless the user wants more */
#define SESSION_RAM     8192    /* bytes: reckoned with for each */
#define ACCEPTS		64	/* accepted at a time */

/* bytes and datagrams */
#define CHUNK		32768	/* copied at a time */
#define PIPE_SIZE	262144	/* spliced at a time */
#define UNSENT          PIPE_SIZE	/* of a leg, in the kernel, waiting */
#define BULK_LEAST	8192	/* what is shorter ends a bulk flow */
#define CARRY_MOST      (4 * PIPE_SIZE) /* of a session, then others */
#define PENDING_MOST	(4 << 20)	/* waiting in memory, of all */
#define SCARCE		2048	/* copied at a time then */
#define BATCH		32	/* datagrams at a time */
#define DGRAM           65608   /* for one; odd lines spare the cache */
#define SEGMENTED	65000	/* in one segmented send */
#define BUCKETS		1024	/* of the UDP table */
#define PORTS           32768   /* of UDP sessions: the upper half, in turn */
#define V6_SOURCE	8	/* bytes: a /64 can be all of one host */
#define NOBODY		UINT64_MAX	/* is no client's source */

enum session_state { S_WAITING, S_GUEST, S_OPEN, S_ENDING, STATES };

/* Do the legs of a session send signals?  NEVER: F_SETSIG was not yet called */
enum armed { ARMED_NEVER, ARMED_OFF, ARMED_ON };

enum why {			/* why a session ended */
	WHY_CLOSED, WHY_ERROR, WHY_REFUSED, WHY_IDLE, WHY_LIMIT, WHY_STOP, WHYS
};

static const char why_text[WHYS][10] = {
	"closed", "broken", "refused", "idle", "made room", "stopped"
};

/* a leg is its bit in a mask; arrays begin with the client's */
enum { CLIENT = 1, TARGET = 2, BOTH = 3 };
#define OTHER(leg)	(BOTH ^ (leg))

struct pending {		/* bytes that the other leg did not take yet */
	unsigned off, n;	/* sent of data, left of data */
	unsigned char data[];
};

struct pair {			/* of a session, or a datagram's to us */
	union addr client;
	union addr peer;	/* TCP: the target; UDP: our own address that
				   the client sends to; of a session with the
				   port of leg 1, as in r->port */
};

struct session {
	struct idle idle;	/* first: a list entry is its session */
	int fd[2];		/* -1 when closed */
	uint8_t state;
	uint8_t armed;
	uint8_t eof;		/* mask: legs with nothing more to read */
	uint8_t bulk;		/* mask: legs that send in bulk */
	uint8_t broken;         /* mask: legs that were reset or timed out */
	uint8_t tried;		/* TCP: addresses of the target */
	uint8_t hung;           /* mask: POLLHUP while nothing was wanted */
	uint8_t err;		/* errno that broke the session */
	union {
		struct pending *pending[2];	/* TCP: of each direction */
		struct session *next;	/* UDP: of the same bucket */
	} u;
	uint64_t bytes[2];	/* taken from each leg */
	int64_t born;		/* ms, monotonic */
	struct pair pair;
};

struct batch {			/* of datagrams; lies in r->buf */
	struct mmsghdr msg[BATCH];      /* read; once looked at, to send */
	struct iovec iov[BATCH];
	struct dgram {
		struct pair pair;
		union {
			size_t align;	/* as that of struct cmsghdr */
			unsigned char buf[CMSG_SPACE(sizeof(uint16_t)) +
			    CMSG_SPACE(sizeof(struct in6_pktinfo))];
		} control;		/* ancillary data */
		unsigned char data[DGRAM];
	} dgram[BATCH];
};

struct relay {			/* what is used often comes first */
	int64_t now;		/* ms: of the last step */
	struct session **by_fd;	/* whose leg this descriptor is */
	const struct config *cfg;
	struct batch *buf;	/* that all share; TCP uses a chunk of it */
	int64_t check_at;	/* ms: the next poll of all; NEVER: none is
				   active, and all were polled since */
	int64_t look_at;	/* ms: when to look at those that end */
	int slot, sigslot;	/* of fd and sigfd */
	int first, polled;	/* slots of sessions: the first, how many */
	int pause;		/* ms: between looks at those that end */
	int pipe[2];            /* for bulk, while a session is active; -1 */
	int nfds;
	int fd;			/* the listener, or the UDP port */
	int udp;
	int sigfd;		/* signals of armed sessions; -1: none */
	int n, max;		/* sessions now, and at most beside guests */
	int guests;		/* of n */
	unsigned port;          /* UDP: of the newest session, modulo PORTS */
	unsigned no_room;	/* failures to make a session */
	uint32_t seed;		/* of the hashes */
	unsigned segment;       /* UDP: longest datagram of a segmented send */
	unsigned self;          /* mask: which of target are the mapped port */
	struct addrs target;	/* n 0: not known yet, the listener waits */
	int guests_max;		/* guests at most */
	int failing;		/* errno logged of the target, or 0 */
	size_t pending;		/* bytes in all struct pending */
	int look;               /* fd from which to look at those that end */
	int64_t room_at;	/* ms: the listener is not polled before */
	int64_t active;		/* ms: when a session was */
	int64_t armed_to;	/* ms: armed are all not active since then */
	int64_t seat_at;	/* ms: when to make room for guests */
	struct idle list[STATES];	/* last of a head is NEVER */
	int64_t limit[STATES];  /* ms: a stay without a move; 0: for ever */
	uint64_t bytes[2];	/* totals */
	unsigned ever, ended[WHYS];
	struct relay_calls calls;
	union addr local;	/* what fd is bound to */
	struct session *hash[BUCKETS];	/* UDP: by client */
	uint8_t rest[PORTS];	/* UDP: rest_mark() at the end; 0: none */
};

/* v within the two; the least counts where it is more than most. */
static long
clamp(long v, long most, long least)
{
	if (v > most)
		v = most;
	return v < least ? least : v;
}

/* signals of idle sessions */

/* Asks the kernel for a signal whenever a leg of s becomes ready, or for no
 * more signals; -1 with errno. */
static int
arm(struct session *s, enum armed on)
{
#ifdef F_SETSIG
	for (int i = 2; i-- > 0;) {
		int fd = s->fd[i];
		if (fd < 0)
			continue;
		if ((s->armed == ARMED_NEVER &&
		    (fcntl(fd, F_SETOWN, getpid()),
		    fcntl(fd, F_SETSIG, SIGRTMIN) < 0)) ||
		    fcntl(fd, F_SETFL, on == ARMED_ON ?
		    O_NONBLOCK | O_ASYNC : O_NONBLOCK) < 0)
			return -1;
	}
#endif
	s->armed = (uint8_t)on;
	return 0;
}

static void
disarm(struct session *s)
{
	if (s->armed == ARMED_ON)
		arm(s, ARMED_OFF);
}

/* Must s be polled, beside n others?  The kernel sends no signal for what came
 * before s was armed, and one signal may stand for more than one step takes:
 * an armed session is polled once more after it was armed or active. */
static int
must_poll(struct relay *r, struct session *s, int n, struct wake *w)
{
	int active = s->idle.last > r->now - ACTIVE;

	if (r->sigfd < 0)
		return active || r->check_at == NEVER;
	if (s->armed == ARMED_ON)
		return s->idle.last == r->now;
	if ((!active || n >= ACTIVE_MOST) && arm(s, ARMED_ON) < 0) {
		close(r->sigfd);
		r->sigfd = -1;
		wake_at(w, r->now);
	}
	return 1;
}

/* life of a session */

/* Is there a session in a state that did not move there for age ms? */
static int
has_old(const struct relay *r, size_t state, int64_t age)
{
	return r->now - r->list[state].next->last >= age;
}

/* The session that came first to a state that is not empty. */
static struct session *
oldest(const struct relay *r, size_t state)
{
	return (struct session *)r->list[state].next;
}

/* Something ends or moved: looks soon at what else is ending. */
static void
look_soon(struct relay *r)
{
	if (!has_old(r, S_ENDING, 0))
		return;
	r->pause = LOOK_LEAST;
	if (r->look_at > r->now + LOOK_LEAST)
		r->look_at = r->now + LOOK_LEAST;
}

/* Something moved: s is active, and the last in its list to become idle. */
static void
touch(struct relay *r, struct session *s)
{
	if (s->state == S_ENDING) {
		look_soon(r);
		return;
	}
	r->active = r->now;
	idle_touch(&r->list[s->state], &s->idle, r->now);
}

/* Makes fd a leg of s; closes fd and returns -1 without memory. */
static int
leg_open(struct relay *r, struct session *s, size_t leg, int fd)
{
	if (fd >= r->nfds) {
		struct session **p = realloc(r->by_fd,
		    2 * (size_t)fd * sizeof *p);
		if (!p) {
			fd_close(fd);
			return -1;
		}
		r->by_fd = p;
		while (r->nfds < 2 * fd)
			p[r->nfds++] = NULL;
	}
	r->by_fd[fd] = s;
	s->fd[leg - 1] = fd;
	return 0;
}

static void
leg_close(struct relay *r, struct session *s, size_t leg)
{
	int fd = s->fd[leg - 1];

	if (fd < 0)
		return;
	r->by_fd[fd] = NULL;
	s->fd[leg - 1] = -1;
	close(fd);
}

/* A call failed, with errno: 1 when the leg is broken by that. */
static int
leg_failed(struct session *s, size_t leg)
{
	if (fd_again())
		return 0;
	s->broken |= (uint8_t)leg;
	if (!s->err)
		s->err = (uint8_t)errno;
	return 1;
}

static void
pending_free(struct relay *r, struct session *s, size_t leg)
{
	struct pending *p = s->u.pending[leg - 1];

	if (p)
		r->pending -= p->off + p->n;
	s->u.pending[leg - 1] = NULL;
	free(p);
}

/* A hash of a's host and of port, below BUCKETS; of a's source for port 0. */
static size_t
hash_of(const struct relay *r, const union addr *a, int port)
{
	const unsigned char *p = (const void *)&a->in.sin_addr;
	uint32_t h = (r->seed ^ (uint32_t)port) * 0x9e3779b1;
	int n = 4;

	if (a->sa.sa_family == AF_INET6) {
		p = a->in6.sin6_addr.s6_addr;
		n = port ? 16 : V6_SOURCE;
	}
	while (n-- > 0)
		h = (h ^ *p++) * 0x9e3779b1;
	return h / (UINT32_MAX / BUCKETS + 1);
}

static NOINLINE struct session **
bucket(struct relay *r, const union addr *client)
{
	return &r->hash[hash_of(r, client, client->in.sin_port)];
}

/* A number for now that is odd, and grows by two with each PORT_REST. */
static uint8_t
rest_mark(const struct relay *r)
{
	return (uint8_t)((uint32_t)r->now / PORT_REST * 2 + 1);
}

/* Writes to a what fd is connected to; -1 where it is not, or not any more. */
static NOINLINE int
fd_peer(int fd, union addr *a)
{
	socklen_t len = sizeof *a;

	return getpeername(fd, &a->sa, &len);
}

/* Ends s, by a reset where it was broken or refused. */
static void
session_end(struct relay *r, struct session *s, enum why why)
{
	const char *error = s->err ? strerror(s->err) : NULL;

	if (r->udp) {		/* late answers may come to its port */
		struct session **p = bucket(r, &s->pair.client);
		while (*p != s)
			p = &(*p)->u.next;
		*p = s->u.next;
		r->rest[s->pair.peer.in.sin_port % PORTS] = rest_mark(r);
		fd_peer(s->fd[1], &s->pair.peer);	/* for the log */
	}
	note("%pa to %pa: %s%s%s after %d s, %pd bytes in, %pd out",
	    &s->pair.client, &s->pair.peer, why_text[why],
	    error ? ": " : NULL, error,
	    (int)((r->now - s->born) / 1000), &s->bytes[0], &s->bytes[1]);
	for (size_t leg = CLIENT; leg <= TARGET; leg++) {
		if (!r->udp)
			pending_free(r, s, leg);
		if (why == WHY_ERROR || why == WHY_REFUSED)
			fd_abortive(s->fd[leg - 1], 1);
		leg_close(r, s, leg);
	}
	idle_drop(&s->idle);
	if (s->state == S_GUEST)
		r->guests--;
	free(s);
	r->n--;
	r->ended[why]++;
	r->room_at = 0;
	look_soon(r);
}

static struct session *
session_new(void)
{
	struct session *s = calloc(1, sizeof *s);

	if (s)
		s->fd[0] = s->fd[1] = -1;
	return s;
}

/* Counts s, which is new, and tells the program of it. */
static void
session_begin(struct relay *r, struct session *s)
{
	s->born = r->now;
	r->n++;
	r->ever++;
	touch(r, s);
	r->calls.used(r->calls.arg, &s->pair.client);
}

/* Says the first failure, and every one that doubles their number; e is the
 * errno of it, 0 where the limit is the reason. */
static void
complain(struct relay *r, int e)
{
	r->no_room++;
	if ((r->no_room & (r->no_room - 1)) == 0)
		warn("relay: %s: %s (%d sessions, %u times)",
		    r->udp ? "datagram dropped" : "clients must wait",
		    e ? strerror(e) : "session limit", r->n, r->no_room);
}

/* sockets */

/* A vanished peer is found in two and a half minutes.  Connections inherit
 * the settings of their listener. */
static void
tune(const struct relay *r, int fd)
{
	int k = r->cfg->keepalive < 30 ? r->cfg->keepalive : 30;

	fd_probes(fd, k, k, 120 / k);
#ifdef TCP_NOTSENT_LOWAT
	fd_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT);
#endif
}

/* The error that waits on fd, 0 for none. */
static NOINLINE uint8_t
fd_error(int fd)
{
	int e = 0;
	socklen_t n = sizeof e;

	getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n);
	return (uint8_t)e;
}

/* TCP: bytes on their way */

static NOINLINE void
pipe_close(struct relay *r)
{
	if (r->pipe[0] < 0)
		return;
	close(r->pipe[0]);
	close(r->pipe[1]);
	r->pipe[0] = -1;
}

#ifdef SPLICE_F_MOVE
/* Opens the pipe that all share, 256 KiB where that is allowed; 0 when there
 * is none.  Between two calls of pass() the pipe is empty. */
static int
pipe_open(struct relay *r)
{
	if (r->pipe[0] < 0 && pipe2(r->pipe, O_NONBLOCK | O_CLOEXEC) == 0)
		fcntl(r->pipe[0], F_SETPIPE_SZ, PIPE_SIZE);
	return r->pipe[0] >= 0;
}

/* Moves up to n bytes between a socket and a pipe. */
static ssize_t
fd_splice(int from, int to, size_t n)
{
	return splice(from, NULL, to, NULL, n,
	    SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
}
#else
#define pipe_open(r)		0
#define fd_splice(from, to, n)	(-1)
#endif

/* Gives the other leg what waits of this one; 1 when nothing is left. */
static int
flush(struct relay *r, struct session *s, size_t leg)
{
	struct pending *p = s->u.pending[leg - 1];

	if (!p)
		return 1;
	ssize_t n = send(s->fd[OTHER(leg) - 1], p->data + p->off, p->n, 0);
	if (n < 0) {
		leg_failed(s, OTHER(leg));
		return 0;
	}
	touch(r, s);
	p->off += (unsigned)n;
	p->n -= (unsigned)n;
	if (p->n)
		return 0;
	pending_free(r, s, leg);
	return 1;
}

/* Gives the other leg n bytes of this one that are in the pipe, or in the
 * buffer, and keeps what it does not take; -1 with errno when they are lost. */
static int
pass(struct relay *r, struct session *s, size_t leg, size_t n, int piped)
{
	int to = s->fd[OTHER(leg) - 1];
	ssize_t sent = piped ? fd_splice(r->pipe[0], to, n) :
	    send(to, r->buf, n, 0);

	if (sent < 0) {         /* broken or not, the pipe must be empty */
		leg_failed(s, OTHER(leg));
		sent = 0;
	}
	n -= (size_t)sent;
	if (n == 0)
		return 0;
	struct pending *p = malloc(sizeof *p + n);
	if (!p || (piped && read(r->pipe[0], p->data, n) != (ssize_t)n)) {
		free(p);
		pipe_close(r);          /* what is in it is nobody's */
		return -1;
	}
	if (!piped)
		memcpy(p->data, (char *)r->buf + sent, n);
	p->off = 0;
	p->n = (unsigned)n;
	s->u.pending[leg - 1] = p;
	r->pending += p->n;
	return 0;
}

/* Moves what a leg has at once to the other; returns how many bytes.  Of a bulk
 * flow no more than fits the other, the rest would have to wait in memory.  Nor
 * shall much wait unsent in the kernel: of a stalled session then little is
 * read, and this leg's buffer stays small. */
static ssize_t
take(struct relay *r, struct session *s, size_t leg)
{
	int fd = s->fd[leg - 1];
	size_t most = r->pending >= PENDING_MOST ? SCARCE :
	    s->bulk & leg ? PIPE_SIZE : CHUNK;
#ifdef SO_MEMINFO
	uint32_t m[6] = { 0 };	/* SK_MEMINFO_SNDBUF 3, WMEM_QUEUED 5 */
	socklen_t len = sizeof m;
	int to = s->fd[OTHER(leg) - 1], unsent = 0;

	if (most != CHUNK &&
	    getsockopt(to, SOL_SOCKET, SO_MEMINFO, m, &len) == 0 &&
	    len == sizeof m &&		/* qemu-user knows it not */
	    (!m[5] || ioctl(to, SIOCOUTQNSD, &unsent) == 0))
		most = (size_t)clamp((int)(m[3] - m[5]), UNSENT - unsent,
		    SCARCE);
#endif
	int piped = s->bulk & leg && most >= CHUNK && pipe_open(r);
	ssize_t n = piped ? fd_splice(fd, r->pipe[1], most) : -1;

	if (n < 0 && (!piped || errno == EINVAL || errno == ENOSYS)) {
		piped = 0;
		if (most > CHUNK)
			most = CHUNK;
		n = recv(fd, r->buf, most, 0);
	}
	if (n <= 0)
		return n;
	s->bulk |= (uint8_t)leg;
	if ((size_t)n < most && (!piped || n < BULK_LEAST))
		s->bulk ^= (uint8_t)leg;
	return pass(r, s, leg, (size_t)n, piped) < 0 ? -1 : n;
}

/* Moves bytes of a leg until one blocks or others have their turn. */
static void
carry(struct relay *r, struct session *s, size_t leg)
{
	size_t total = 0;
	ssize_t n;

	if (!flush(r, s, leg) || s->eof & leg)
		return;
	do {
		if (s->broken & OTHER(leg))
			return;
		n = take(r, s, leg);
		if (n <= 0) {
			if (n == 0 || leg_failed(s, leg))
				s->eof |= (uint8_t)leg;
			return;
		}
		touch(r, s);
		total += (size_t)n;
		s->bytes[leg - 1] += (uint64_t)n;
		r->bytes[leg - 1] += (uint64_t)n;
	} while (n >= BULK_LEAST && total < CARRY_MOST &&
	    !s->u.pending[leg - 1]);
}

/* A leg is broken: brings the other what came before, and resets it when all is
 * acknowledged.  With a small buffer poll tells that nearly all has gone. */
static void
wind_up(struct relay *r, struct session *s)
{
	size_t dead = TARGET - (s->broken & CLIENT);
	int fd = s->fd[OTHER(dead) - 1];
	union addr a;

	pending_free(r, s, OTHER(dead));
	carry(r, s, dead);
	if (s->eof & dead && !s->u.pending[dead - 1]) {
		int unsent = fd_peer(fd, &a) + 1;       /* 0: reset, closed */
		if (unsent)
			ioctl(fd, TIOCOUTQ, &unsent);
		if (!unsent)
			s->broken = BOTH;
		else
			fd_option(fd, SOL_SOCKET, SO_SNDBUF, 1);
	}
	if (s->broken == BOTH) {
		session_end(r, s, WHY_ERROR);
	} else if (s->state != S_ENDING) {
		disarm(s);
		s->state = S_ENDING;
		idle_touch(&r->list[S_ENDING], &s->idle, r->now);
		look_soon(r);
	}
}

/* Does what follows from the state of both directions; may end s. */
static void
session_review(struct relay *r, struct session *s)
{
	struct pending **p = s->u.pending;
	size_t eof = s->eof;

	if (s->broken)
		wind_up(r, s);
	else if (eof == BOTH) {
		if (!p[0] && !p[1])
			session_end(r, s, WHY_CLOSED);
		else if (!p[0] || !p[1])
			leg_close(r, s, p[0] ? CLIENT : TARGET); /* is done */
	} else if (eof && !p[eof - 1])
		shutdown(s->fd[OTHER(eof) - 1], SHUT_WR);
}

/* connecting */

/* Binds fd, of a UDP session, to the next port that does not rest. */
static int
port_take(struct relay *r, int fd, int family)
{
	union addr a = { .in6.sin6_family = (sa_family_t)family };
	unsigned mark = rest_mark(r);

	errno = EAGAIN;
	for (int n = 0; n < PORTS; n++) {
		unsigned k = ++r->port % PORTS;
		if (!((mark - r->rest[k]) & 0xfd))
			continue;
		addr_set_port(&a, (int)(PORTS + k));
		if (bind(fd, &a.sa, addr_len(&a)) == 0)
			return 0;
	}
	return -1;
}

/* Opens leg 1 and connects it to s->pair.peer; returns errno, 0 for none. */
static int
dial(struct relay *r, struct session *s)
{
	const union addr *to = &s->pair.peer;
	int fd = socket(to->sa.sa_family, r->cfg->type, 0);

	if (fd < 0 || leg_open(r, s, TARGET, fd) < 0)
		return errno;
	fd_setup(fd);
	disarm(s);
	s->armed = ARMED_NEVER;
	if (!r->udp)
		tune(r, fd);
	if ((!r->udp || port_take(r, fd, to->sa.sa_family) == 0) &&
	    fd_connect(fd, to) == 0)
		return 0;
	return errno;
}

/* Leaves the target's address, and tries the next ones; the errno when there is
 * no descriptor, -1 with s->err when none is left. */
static int
dial_any(struct relay *r, struct session *s)
{
	do {
		leg_close(r, s, TARGET);
		if (s->tried >= r->target.n)
			return -1;
		s->pair.peer = r->target.a[s->tried];
		s->err = EADDRINUSE;
		if (!(r->self >> s->tried & 1))
			s->err = (uint8_t)dial(r, s);
		if (s->err == EMFILE || s->err == ENFILE)
			break;
		s->tried++;
	} while (s->err);
	return s->err;
}

/* Says that the target fails, with errno e, or is well again, with 0. */
static void
target_is(struct relay *r, int e)
{
	if (!e == !r->failing)
		return;
	r->failing = e;
	warn("target %pa: %s", r->target.a, e ? strerror(e) : "answers again");
}

/* TCP: the same, and ends s when no address is left.  A client that is here
 * waits for a descriptor. */
static int
dial_next(struct relay *r, struct session *s)
{
	int e = dial_any(r, s);

	if (e < 0) {
		if (s->err != EADDRINUSE)	/* itself: was said */
			target_is(r, s->err);
		session_end(r, s, WHY_REFUSED);
		return -1;
	}
	if (e)
		complain(r, e);
	touch(r, s);
	return 0;
}

/* The PROXY protocol's header, version 2 (haproxy's proxy-protocol.txt 2.2):
 *
 *   12 bytes signature, 0x21 version 2 and PROXY, 0x11 TCP over IPv4 or 0x21
 *   over IPv6, be16 length of the rest, client's address, address that it
 *   connected to, be16 client's port, be16 port that it connected to */
static void
send_header(struct session *s)
{
	unsigned char h[52], *ports = h + 24;
	const union addr *c = &s->pair.client;
	union addr a = { .in6 = { 0 } };

	memcpy(h, "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", 16);
	fd_name(s->fd[0], &a);
	if (c->sa.sa_family == AF_INET6) {
		h[13] = 0x21;
		h[15] = 36;
		memcpy(h + 16, &c->in6.sin6_addr, 16);
		memcpy(h + 32, &a.in6.sin6_addr, 16);
		ports = h + 48;
	} else {
		memcpy(h + 16, &c->in.sin_addr, 4);
		memcpy(h + 20, &a.in.sin_addr, 4);
	}
	memcpy(ports, &c->in.sin_port, 2);
	memcpy(ports + 2, &a.in.sin_port, 2);
	if (send(s->fd[1], h, (size_t)(ports + 4 - h), 0) < 0) {
		s->broken = TARGET;
		s->err = (uint8_t)errno;
	}
}

/* Has leg 1 connected?  Then begins with what the client has sent. */
static void
step_waiting(struct relay *r, struct session *s)
{
	s->err = fd_error(s->fd[1]);
	if (s->err) {
		dial_next(r, s);
	} else if (fd_peer(s->fd[1], &s->pair.peer) == 0) {
		s->state = S_OPEN;
		touch(r, s);
		target_is(r, 0);
		if (r->cfg->proxy_protocol)
			send_header(s);
		carry(r, s, CLIENT);
		session_review(r, s);
	}
}

/* making room */

/* All of a client's address that its host cannot choose. */
static NOINLINE uint64_t
source(const struct session *s)
{
	const union addr *a = &s->pair.client;
	uint64_t v6;

	if (a->sa.sa_family != AF_INET6)
		return a->in.sin_addr.s_addr;
	memcpy(&v6, &a->in6.sin6_addr, V6_SOURCE);
	return v6;
}

/* Ends what has_old() finds; 1 when that is a session. */
static int
evict(struct relay *r, size_t state, int64_t age)
{
	if (!has_old(r, state, age))
		return 0;
	session_end(r, oldest(r, state), WHY_LIMIT);
	return 1;
}

/* Ends at most that many sessions, idle for longest, of the source that has
 * the most and an old one, but not of own.  The source keeps its share; returns
 * how many it has more.  Counts by hash: a collision can hide a source for one
 * call only, the seed changes with each. */
static int
evict_crowd(struct relay *r, uint64_t own, int most)
{
	struct idle *e, *next, *head = &r->list[S_OPEN];
	uint64_t crowd = NOBODY;
	int count[BUCKETS] = { 0 }, batch = most == ROOM_BATCH;
	int share = batch ? ROOM_SHARE : r->max >> 2, n = share;
	int64_t old = r->now - (batch ? ROOM_AGE : ROOM_IDLE);

	r->seed++;
	for (e = head->next; e != head; e = e->next)
		count[hash_of(r, &((struct session *)e)->pair.client, 0)]++;
	for (e = head->next; e->last < old; e = e->next) {
		struct session *s = (struct session *)e;
		int *c = &count[hash_of(r, &s->pair.client, 0)];
		if (*c > n && source(s) != own) {
			n = *c;
			crowd = source(s);
		}
	}
	for (n = -share, e = head->next; e != head; e = e->next)
		if (source((struct session *)e) == crowd)
			n++;
	if (most > n)
		most = n;
	for (e = head->next; e->last < old && most > 0; e = next) {
		next = e->next;
		struct session *s = (struct session *)e;
		if (source(s) == crowd) {
			session_end(r, s, WHY_LIMIT);
			most--;
		}
	}
	return n;
}

/* 1 when there is room for the session s, whose client waits for it.  First
 * goes one that is ending, or is old and never carried a byte from its client,
 * if any. */
static int
make_room(struct relay *r, const struct session *s)
{
	struct idle *head = &r->list[S_OPEN];

	if (r->n - r->guests < r->max || evict(r, S_ENDING, 0))
		return 1;
	for (struct idle *e = head->next; e != head; e = e->next)
		if (!((struct session *)e)->bytes[0] &&
		    r->now - ((struct session *)e)->born > ROOM_AGE) {
			session_end(r, (struct session *)e, WHY_LIMIT);
			return 1;
		}
	return evict_crowd(r, NOBODY, ROOM_BATCH) > 0 ||
	    evict_crowd(r, source(s), 1) > 0;
}

/* accepting */

/* Dials for a guest, as far as it goes at once, where there is room. */
static int
seat(struct relay *r, struct session *s)
{
	if (!make_room(r, s))
		return -1;
	r->guests--;
	s->state = S_WAITING;
	s->born = r->now;
	if (dial_next(r, s) == 0)
		step_waiting(r, s);
	return 0;
}

/* Starts the session of a client; -1 with errno. */
static int
accept_one(struct relay *r)
{
	struct session *s = session_new();
	socklen_t len = sizeof s->pair.client;
	int fd;

	if (!s || (fd = accept(r->fd, &s->pair.client.sa, &len)) < 0 ||
	    leg_open(r, s, CLIENT, fd) < 0) {
		free(s);
		return -1;
	}
	fd_setup(fd);
	s->state = S_GUEST;
	r->guests++;
	session_begin(r, s);
	if (seat(r, s) < 0)
		complain(r, 0);
	return 0;
}

/* 1 when there may be more.  Behind guests for whom there is no room may wait a
 * client of another source, for whom there is: then a guest goes. */
static int
accept_next(struct relay *r)
{
	int full = r->n - r->guests >= r->max && r->guests >= r->guests_max &&
	    (evict_crowd(r, NOBODY, 0) <= 0 || !evict(r, S_GUEST, GUEST_AGE));

	if (!full && (accept_one(r) == 0 || errno == ECONNABORTED))
		return 1;
	if (full || !fd_again()) {
		complain(r, full ? 0 : errno);
		r->room_at = r->now + ACCEPT_PAUSE;
	}
	return 0;
}

void
relay_accept(struct relay *r)
{
	while (r->n < r->max && accept_one(r) == 0)
		;
}

/* UDP */

/* Sends n datagrams, or reads up to a batch for n 0, or one of them where the
 * system cannot do more at once; -1 with errno. */
static int
exchange(int fd, struct mmsghdr *m, int n)
{
#ifdef MSG_WAITFORONE
	int k = n ? sendmmsg(fd, m, (unsigned)n, 0) :
	    recvmmsg(fd, m, BATCH, 0, NULL);
	if (k >= 0 || errno != ENOSYS)
		return k;
#endif
	ssize_t len = n ? sendmsg(fd, &m->msg_hdr, 0) :
	    recvmsg(fd, &m->msg_hdr, 0);
	m->msg_len = (unsigned)len;
	return len < 0 ? -1 : 1;
}

/* Reads datagrams into the batch; returns how many, -1 with errno. */
static int
read_batch(struct relay *r, int fd)
{
	struct batch *b = r->buf;
	struct mmsghdr *m = b->msg;
	struct iovec *iov = b->iov;
	struct dgram *d = b->dgram;

	for (; d < b->dgram + BATCH; d++, m++, iov++) {
		iov->iov_base = d->data;
		iov->iov_len = sizeof d->data;
		struct msghdr *h = &m->msg_hdr;
		h->msg_name = &d->pair;
		h->msg_namelen = sizeof d->pair.client;
		h->msg_iov = iov;
		h->msg_iovlen = 1;
		h->msg_control = d->control.buf;
		h->msg_controllen = sizeof d->control.buf;
	}
	int n = exchange(fd, b->msg, 0);
	for (int k = 0; k < n; k++)
		b->iov[k].iov_len = b->msg[k].msg_len;
	return n;
}

/* Appends ancillary data of n bytes to h, whose control buffer has room for it;
 * returns where to write them. */
static void *
attach(struct msghdr *h, int level, int type, size_t n)
{
	unsigned char *at = h->msg_control;
	struct cmsghdr *c = (void *)(at + h->msg_controllen);

	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = (socklen_t)CMSG_LEN(n);
	h->msg_controllen += (socklen_t)CMSG_SPACE(n);
	return CMSG_DATA(c);
}

/* Sends h to the client of s, from that address of ours to which the client
 * sends: it expects answers from there. */
static void
address(struct msghdr *h, struct session *s)
{
	const union addr *a = &s->pair.peer;

	h->msg_name = &s->pair.client;
	h->msg_namelen = addr_len(&s->pair.client);
	if (addr_any(a))
		return;
	if (a->sa.sa_family == AF_INET6) {
		struct in6_pktinfo *v6 =
		    attach(h, IPPROTO_IPV6, IPV6_PKTINFO, sizeof *v6);
		v6->ipi6_addr = a->in6.sin6_addr;
		v6->ipi6_ifindex = a->in6.sin6_scope_id;
	}
#ifdef IP_PKTINFO
	else {
		struct in_pktinfo *v4 =
		    attach(h, IPPROTO_IP, IP_PKTINFO, sizeof *v4);
		memset(v4, 0, sizeof *v4);
		v4->ipi_spec_dst = a->in.sin_addr;
	}
#endif
}

/* From whom h came, and to which of our addresses; the bound one where the
 * system does not tell. */
static NOINLINE struct pair *
pair_of(const struct relay *r, struct msghdr *h)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(h);   /* port_options() wants one */
	struct pair *pair = h->msg_name;
	union addr *a = &pair->peer;

	*a = r->local;
	if (!c)
		return pair;
	if (a->sa.sa_family == AF_INET6) {
		const struct in6_pktinfo *v6 = (const void *)CMSG_DATA(c);
		a->in6.sin6_addr = v6->ipi6_addr;
		if (IN6_IS_ADDR_LINKLOCAL(&v6->ipi6_addr))
			a->in6.sin6_scope_id = v6->ipi6_ifindex;
	}
#ifdef IP_PKTINFO
	else
		memcpy(&a->in.sin_addr, CMSG_DATA(c) +
		    offsetof(struct in_pktinfo, ipi_spec_dst), 4);
#endif
	return pair;
}

/* Where the datagrams from iov to end that fit one segmented send end: all of
 * one size, the last may be shorter. */
static struct iovec *
run_end(size_t segment, struct iovec *iov, const struct iovec *end)
{
	size_t size = iov->iov_len, total = size;

	if (size == 0 || size > segment)
		return iov + 1;
	while (++iov < end && iov[-1].iov_len == size &&
	    iov->iov_len && iov->iov_len <= size) {
		total += iov->iov_len;
		if (total > SEGMENTED)
			break;
	}
	return iov;
}

/* Writes what sends the datagrams from iov to end to m; how many sends.  s is
 * NULL on a connected socket. */
static int
compose(struct mmsghdr *m, struct iovec *iov, const struct iovec *end,
    size_t segment, struct session *s)
{
	int n = 0;

	for (struct iovec *next; iov < end; n++, iov = next) {
		next = run_end(segment, iov, end);
		struct msghdr *h = &m[n].msg_hdr;
		h->msg_namelen = 0;
		h->msg_iov = iov;
		h->msg_iovlen = (uint16_t)(next - iov);
		h->msg_controllen = 0;
		if (s)
			address(h, s);
		if (h->msg_iovlen > 1) {
			uint16_t *size =
			    attach(h, IPPROTO_UDP, UDP_SEGMENT, sizeof *size);
			*size = (uint16_t)iov->iov_len;
		}
	}
	return n;
}

/* Sends datagrams first to last - 1, of a leg of s, to the other, for NULL
 * nowhere.  What is not taken now is lost. */
static void
forward(struct relay *r, struct session *s, size_t leg, struct iovec *iov,
    const struct iovec *end)
{
	struct mmsghdr *m = r->buf->msg;
	size_t segment = r->segment;

	if (!s)
		return;
	for (const struct iovec *one = iov; one < end; one++) {
		s->bytes[leg - 1] += one->iov_len;
		r->bytes[leg - 1] += one->iov_len;
	}
	touch(r, s);
	int fd = leg == CLIENT ? s->fd[1] : r->fd;
	if (leg == CLIENT)
		s = NULL;		/* it is connected */
	while (iov < end) {
		int n = exchange(fd, m, compose(m, iov, end, segment, s));
		for (int k = 0; k < n; k++)
			iov += m[k].msg_hdr.msg_iovlen;
		if (n > 0)
			continue;
		if (fd_again())
			return;
		if (errno == EIO || errno == EOPNOTSUPP)
			r->segment = 0;
		if (m->msg_hdr.msg_iovlen > 1)
			segment = 0;    /* or longer than the path's MTU */
		else
			iov++;
	}
}

/* Does s serve this client, who sends to that address of ours? */
static int
serves(const struct session *s, const struct pair *a)
{
	return addr_same(&s->pair.client, &a->client) &&
	    addr_same_host(&s->pair.peer, &a->peer);
}

/* The session of a client, an old or a new one; NULL if there can be none.
 * What is sent to a client with an address and port of the target comes back
 * for ever.  Room is made by one without an answer, or else by any, the one
 * that was idle for longest: the target may still work on what came just now */
static struct session *
client(struct relay *r, const struct pair *a)
{
	struct session **b = bucket(r, &a->client), *s = *b;

	for (int k = 0; k < r->target.n; k++)
		if (addr_same(&r->target.a[k], &a->client))
			return NULL;
	while (s && !serves(s, a))
		s = s->u.next;
	if (s || !r->target.n)
		return s;
	if (r->n >= r->max && !evict(r, S_WAITING, ROOM_UDP) &&
	    !evict(r, S_OPEN, ROOM_UDP)) {
		complain(r, 0);
		return NULL;
	}
	s = session_new();
	if (!s || dial_any(r, s) != 0) {
		int e = s ? s->err : ENOMEM;
		if (e != EADDRINUSE)
			complain(r, e);
		free(s);
		return NULL;
	}
	s->pair = *a;
	s->pair.peer.in.sin_port = (in_port_t)r->port;
	s->u.next = *b;
	*b = s;
	session_begin(r, s);
	return s;
}

/* Reads a batch from the mapped port; 1 when there may be more. */
static int
receive(struct relay *r)
{
	struct iovec *first = r->buf->iov, *iov = first;
	struct session *s = NULL;
	int k, n = read_batch(r, r->fd);

	for (k = 0; k < n; k++, iov++) {
		struct pair *a = pair_of(r, &r->buf->msg[k].msg_hdr);
		int claimed = r->calls.claim(r->calls.arg, &a->client, &a->peer,
		    iov->iov_base, iov->iov_len);
		if (!claimed && s && serves(s, a))
			continue;
		forward(r, s, CLIENT, first, iov);
		first = iov;
		s = claimed ? NULL : client(r, a);
	}
	forward(r, s, CLIENT, first, iov);
	return k == BATCH;
}

/* Sends the target's answers to the client. */
static void
answer(struct relay *r, struct session *s)
{
	int n, tries = 0;

	/* a refusal only tells of a datagram that is lost */
	while ((n = read_batch(r, s->fd[1])) < 0 && !fd_again() && tries++ < 4)
		target_is(r, errno);
	if (n < 0)
		return;
	target_is(r, 0);
	s->state = S_OPEN;
	struct iovec *iov = r->buf->iov;
	forward(r, s, TARGET, iov, iov + n);
}

/* stepping */

/* What poll shall wait for on fd; -1 when it needs no slot, or is no leg. */
static int
events(const struct relay *r, int fd)
{
	if ((unsigned)fd >= (unsigned)r->nfds || !r->by_fd[fd])
		return -1;
	const struct session *s = r->by_fd[fd];
	size_t leg = s->fd[1] == fd ? TARGET : CLIENT;
	if (r->udp)
		return POLLIN;
	if (s->state == S_ENDING)
		return s->broken & leg ? -1 : POLLOUT;
	if (s->state < S_OPEN)
		return leg == TARGET ? POLLOUT : 0;
	int ev = s->eof & leg || s->u.pending[leg - 1] ? 0 : POLLIN;
	if (s->u.pending[OTHER(leg) - 1])
		ev |= POLLOUT;
	return ev || !(s->hung & leg) ? ev : -1;
}

/* Steps the session of which the leg p->fd is ready. */
static void
session_step(struct relay *r, const struct pollfd *p)
{
	struct session *s = r->by_fd[p->fd];
	size_t leg = s->fd[1] == p->fd ? TARGET : CLIENT;

	if (r->udp) {
		answer(r, s);
	} else if (s->state < S_OPEN) {
		if (leg == TARGET)
			step_waiting(r, s);
		else
			session_end(r, s, WHY_ERROR);   /* client went away */
	} else {
		if (!p->events) {
			s->hung |= (uint8_t)leg;
			s->err = fd_error(p->fd);
			if (s->err)
				s->broken |= (uint8_t)leg;
		}
		if (p->revents & ~POLLOUT)
			carry(r, s, leg);
		if (p->revents & ~POLLIN)
			carry(r, s, OTHER(leg));
		session_review(r, s);
	}
}

/* Steps the sessions whose descriptors are ready.  A session that ends takes
 * its descriptors out of by_fd, so that no step follows its end. */
static NOINLINE void
step_ready(struct relay *r, const struct pollfd *p, int n)
{
	for (; n > 0; n--, p++)
		if (p->revents && r->by_fd[p->fd]) {
			disarm(r->by_fd[p->fd]);
			session_step(r, p);
		}
}

/* Polls, without waiting, up to POLL_MOST legs of sessions, of that state at
 * least, from fd on, and steps those ready.  Returns where to go on, or 0. */
static int
check_some(struct relay *r, int fd, int least)
{
	struct pollfd p[POLL_MOST];
	int n;

	for (n = 0; n < POLL_MOST && fd < r->nfds; fd++) {
		int ev = events(r, fd);
		if (ev < 0 || r->by_fd[fd]->state < least)
			continue;
		p[n].fd = fd;
		p[n++].events = (short)ev;
	}
	if (poll(p, (nfds_t)n, 0) > 0)
		step_ready(r, p, n);
	return fd < r->nfds ? fd : 0;
}

static void
check_all(struct relay *r)
{
	int fd = 0;

	r->check_at = NEVER;
	do
		fd = check_some(r, fd, 0);
	while (fd);
}

/* Steps each session that a signal names, or all when the kernel had no room to
 * queue one (SIGIO).  A signal tells what came.  It may be stale: where nothing
 * is wanted of the leg but an error came, which is rare, poll says the truth */
static void
read_signals(struct relay *r)
{
#ifdef F_SETSIG
	struct signalfd_siginfo si[32], *q;
	ssize_t got;

	do {
		got = read(r->sigfd, si, sizeof si);
		for (q = si; (char *)q < (char *)si + got; q++) {
			if (q->ssi_signo == SIGIO) {
				check_all(r);
				continue;
			}
			int ev = events(r, q->ssi_fd);
			int came = (int)q->ssi_band & (ev | POLLERR | POLLHUP);
			struct pollfd p = { q->ssi_fd, (short)ev, (short)came };
			if (ev >= 0 && came && (ev || poll(&p, 1, 0) > 0))
				session_step(r, &p);
		}
	} while (got == sizeof si);
#else
	(void)r;
#endif
}

static void
step_times(struct relay *r)
{
	if (r->now >= r->look_at) {
		r->pause = r->pause < LOOK_MOST / 2 ? r->pause * 2 : LOOK_MOST;
		r->look = check_some(r, r->look, S_ENDING);
		r->look_at = has_old(r, S_ENDING, 0) ?
		    r->now + r->pause : NEVER;
	}
	for (size_t k = 0; k < STATES; k++)
		while (r->limit[k] && has_old(r, k, r->limit[k])) {
			struct session *s = oldest(r, k);
			if (k == S_WAITING && !r->udp) {
				s->err = ETIMEDOUT;
				dial_next(r, s);
			} else
				session_end(r, s,
				    k < S_ENDING ? WHY_IDLE : WHY_ERROR);
		}
}

void
relay_step(struct relay *r, struct wake *w, int64_t now)
{
	struct idle *next, *head = &r->list[S_GUEST];

	r->now = now;
	step_ready(r, w->fds + r->first, r->polled);
	if (woke(w, r->sigslot))
		read_signals(r);
	if (now >= r->check_at)
		check_all(r);
	step_times(r);
	/* guests take the room that others left, or that can be made now */
	int due = now >= r->seat_at;
	if (due)
		r->seat_at = now + ACCEPT_PAUSE;
	for (struct idle *e = head->next; e != head; e = next) {
		next = e->next;
		if (due || r->n - r->guests < r->max)
			seat(r, (struct session *)e);
	}
	if (!woke(w, r->slot))
		return;
	int most = r->udp ? 4 : ACCEPTS;
	while (most-- > 0 && (r->udp ? receive(r) : accept_next(r)))
		;
}

/* wanting */

static void
want_sessions(struct relay *r, struct wake *w)
{
	r->first = w->n;
	for (size_t k = 0; k < STATES; k++) {
		struct idle *e, *head = &r->list[k];
		int n = 0;
		if (r->limit[k])
			wake_at(w, head->next->last + r->limit[k]);
		if (k == S_ENDING)
			break;
		for (e = head->prev; e != head; e = e->prev) {
			struct session *s = (struct session *)e;
			if (!must_poll(r, s, n, w)) {
				if (e->last < r->armed_to)
					break;
				continue;
			}
			n++;
			for (int i = 0; i < 2; i++) {
				int ev = events(r, s->fd[i]);
				if (ev >= 0 && wake_on(w, s->fd[i], ev) < 0)
					wake_at(w, r->now + ACCEPT_PAUSE);
			}
		}
	}
	r->armed_to = r->now - ACTIVE + 1;
	r->polled = w->n - r->first;
}

/* No session is active: gives back what serves sessions in motion. */
static void
relax(struct relay *r)
{
	madvise(r->buf, sizeof *r->buf, MADV_DONTNEED);
	pipe_close(r);
	if (r->n)
		return;
	free(r->by_fd);
	r->by_fd = NULL;
	r->nfds = 0;
}

void
relay_want(struct relay *r, struct wake *w)
{
	if (r->check_at == NEVER) {
		if (r->now - r->active >= ACTIVE)
			relax(r);
		else
			r->check_at = r->now + (r->sigfd >= 0 ? CHECK_ALL :
			    CHECK_PLAIN + (r->n >> 6));
	}
	r->slot = -1;
	if (r->now < r->room_at)
		wake_at(w, r->room_at);
	else if (r->udp || r->target.n)
		r->slot = wake_on(w, r->fd, POLLIN);
	r->sigslot = wake_on(w, r->sigfd, POLLIN);
	want_sessions(r, w);
	wake_at(w, r->look_at);
	if (r->guests)
		wake_at(w, r->seat_at);
	wake_at(w, r->check_at);
}

/* start and stop */

/* Sets how many sessions and guests the machine's limits and the user allow. */
static void
set_limits(struct relay *r)
{
	int files = (int)(files_now() / 2U) - RESERVED / 2;
	int most = r->cfg->max_sessions;

	if (most > files)
		warn("-n %d: the limit of open files allows %d", most, files);
	if (!most) {
		most = SESSIONS;
#ifdef __linux__
		struct sysinfo ram;
		if (sysinfo(&ram) == 0)
			most = (int)clamp((long)((uint64_t)ram.totalram *
			    ram.mem_unit / (8 * SESSION_RAM)), SESSIONS, 0);
#endif
	}
	r->max = (int)clamp(most, files, 1);
	r->guests_max = (int)clamp(2 * (files - r->max), GUESTS, GUESTS / 8);
}

/* Options of the mapped port.  UDP: tell to which address a datagram came. */
static void
port_options(struct relay *r)
{
	const char *name = r->cfg->congestion;

	if (!r->udp) {
		tune(r, r->fd);
		if (name && setsockopt(r->fd, IPPROTO_TCP, TCP_CONGESTION,
		    name, (socklen_t)strlen(name)) < 0)
			warn("congestion control %s: not used:", name);
		return;
	}
	if (r->local.sa.sa_family == AF_INET6)
		fd_option(r->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
#ifdef IP_PKTINFO
	else
		fd_option(r->fd, IPPROTO_IP, IP_PKTINFO, 1);
#endif
	/* A kernel that does not know segments would send one datagram. */
	if (UDP_SEGMENT && fd_option(r->fd, IPPROTO_UDP, UDP_SEGMENT, 0) == 0)
		r->segment = SEGMENTED;
}

struct relay *
relay_start(const struct config *cfg, const struct relay_calls *calls, int fd,
    int64_t now)
{
	struct relay *r = calloc(1, sizeof *r);

	if (!r || fd_name(fd, &r->local) < 0 ||
	    (r->buf = mmap(NULL, sizeof *r->buf, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED) {
		fd_close(fd);
		free(r);
		return NULL;
	}
	r->cfg = cfg;
	r->calls = *calls;
	r->fd = fd;
	r->now = now;
	r->udp = cfg->type == SOCK_DGRAM;
	set_limits(r);
	r->slot = r->sigslot = r->sigfd = r->pipe[0] = -1;
	r->limit[S_OPEN] = cfg->idle_timeout * (int64_t)1000;
	r->limit[S_WAITING] = r->udp ? r->limit[S_OPEN] : CONNECT;
	r->limit[S_ENDING] = ENDING;
	r->check_at = r->look_at = NEVER;
	random_bytes(&r->seed, sizeof r->seed);
	r->port = r->seed;
	for (struct idle *e = r->list + STATES; e > r->list;) {
		idle_init(--e);
		e->last = NEVER;
	}
#ifdef F_SETSIG
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, SIGIO);
	sigprocmask(SIG_BLOCK, &set, NULL);
	r->sigfd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
#endif
	port_options(r);
	return r;
}

int
relay_fd(const struct relay *r)
{
	return r->fd;
}

/* Connections to own addresses come back to the mapped port, too: their source
 * is the same address, or loopback. */
void
relay_target(struct relay *r, const struct addrs *to)
{
	unsigned self = 0;

	for (int k = 0; k < to->n; k++) {
		const union addr *a = &to->a[k];
		union addr from;
		if (a->in.sin_port != r->local.in.sin_port ||
		    a->sa.sa_family != r->local.sa.sa_family ||
		    (!addr_any(&r->local) && !addr_same_host(&r->local, a)))
			continue;
		int fd = socket(a->sa.sa_family, SOCK_DGRAM, 0);
		fd_connect(fd, a);
		if (fd_name(fd, &from) == 0 && (addr_same_host(&from, a) ||
		    addr_kind(&from) == A_LOOPBACK))
			self |= 1U << k;
		close(fd);
	}
	if (self && !r->self)
		warn("relay: target is the mapped port itself, refused");
	r->self = self;
	r->target = *to;
}

void
relay_report(const struct relay *r)
{
	warn("relay: %d sessions now, %u ever, %pd bytes in, %pd out; "
	    "closed %u, broken %u, refused %u, idle %u, made room %u; "
	    "no room %u times", r->n, r->ever, &r->bytes[0], &r->bytes[1],
	    r->ended[WHY_CLOSED], r->ended[WHY_ERROR], r->ended[WHY_REFUSED],
	    r->ended[WHY_IDLE], r->ended[WHY_LIMIT], r->no_room);
}

void
relay_stop(struct relay *r)
{
	if (!r)
		return;
	for (size_t k = 0; k < STATES; k++)
		while (has_old(r, k, 0))
			session_end(r, oldest(r, k), WHY_STOP);
	relax(r);
	munmap(r->buf, sizeof *r->buf);
	close(r->fd);
	close(r->sigfd);
	free(r);
}
