/* SPDX-License-Identifier: MIT */
/*
 * Step tests of the relay on loopback.  The test is client and target, owns
 * the clock, and turns the loop itself; poll never waits for time to pass,
 * only, and not for long, for a byte that is on its way.
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

static long called;		/* system calls of the relay */
#define poll(...)		(called++, poll(__VA_ARGS__))
#define read(...)		(called++, read(__VA_ARGS__))
#define recv(...)		(called++, recv(__VA_ARGS__))
#define send(...)		(called++, send(__VA_ARGS__))
#define fcntl(...)		(called++, fcntl(__VA_ARGS__))
#define ioctl(...)		(called++, ioctl(__VA_ARGS__))
#define getsockopt(...)		(called++, getsockopt(__VA_ARGS__))
#define getpeername(...)	(called++, getpeername(__VA_ARGS__))
#define accept(...)		(called++, accept(__VA_ARGS__))
#define splice(...)		(called++, splice(__VA_ARGS__))
#include "../relay.c"
#undef poll
#undef read
#undef recv
#undef send
#undef fcntl
#undef ioctl
#undef getsockopt
#undef getpeername
#undef accept
#undef splice

#include <sys/resource.h>
#include <sched.h>
#include <stdio.h>

#include "check.h"

#define START   1000000000      /* ms: the clock of every test begins here */
#define NSRC	4
#define FOR_EVER	-1	/* idle_timeout of a test */

struct end {			/* the client or the target of a session */
	int fd;
	size_t sent, got;
	int eof, reset;		/* seen */
	int closed;		/* 1 we sent EOF, 2 we reset */
};

static struct config cfg;
static struct relay *r;
static struct wake w;
static struct addrs target;
static int target_fd;		/* the target's listener or UDP socket */
static int64_t now;
static long turns;		/* in which something was ready */
static FILE *log_file;
static int used;
static unsigned char big[1 << 16];

/* How many lines of the log have this text in them. */
static int
logged(const char *text)
{
	char line[720];
	int n = 0;

	rewind(log_file);
	while (fgets(line, sizeof line, log_file))
		n += strstr(line, text) != NULL;
	return n;
}

static void
use(void *arg, const union addr *a)
{
	(void)arg;
	CHECK(addr_kind(a) == A_LOOPBACK);
	used++;
}

static int
claim_none(void *arg, const union addr *from, const union addr *to,
    const unsigned char *p, size_t n)
{
	(void)arg, (void)from, (void)to, (void)p, (void)n;
	return 0;
}

static union addr
local(const char *host)
{
	union addr a;

	addr_parse(&a, host, AF_UNSPEC);
	return a;
}

/* A socket of the test's, non-blocking; the same from the target's listener. */
static int
end_socket(int family, int type)
{
	return socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static int
end_accept(union addr *from)
{
	socklen_t len = sizeof *from;

	return accept4(target_fd, &from->sa, &len,
	    SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* A bound socket, listening when it is TCP. */
static int
bound(int type, const char *host, union addr *a)
{
	socklen_t len = sizeof *a;
	int fd;

	*a = local(host);
	fd = end_socket(a->sa.sa_family, type);
	if (fd == -1 || bind(fd, &a->sa, addr_len(a)) == -1 ||
	    (type == SOCK_STREAM && listen(fd, 128) == -1)) {
		close(fd);
		return -1;
	}
	getsockname(fd, &a->sa, &len);
	return fd;
}

/* A relay from port 0 of host to a target of ours. */
static void
setup(int type, const char *host)
{
	struct relay_calls calls = { NULL, claim_none, use };
	union addr a;

	now = START;
	turns = used = 0;
	CHECK(ftruncate(fileno(log_file), 0) == 0);
	cfg.type = type;
	cfg.keepalive = 30;
	if (!cfg.idle_timeout)
		cfg.idle_timeout = 300;
	else if (cfg.idle_timeout == FOR_EVER)
		cfg.idle_timeout = 0;
	target.n = 1;
	target_fd = bound(type, strchr(host, ':') ? "::1" : "127.0.0.1",
	    &target.a[0]);
	CHECK(target_fd != -1);
	r = relay_start(&cfg, &calls, bound(type, host, &a), now);
	CHECK(r != NULL);
	relay_target(r, &target);
}

static void
teardown(void)
{
	relay_stop(r);
	relay_stop(NULL);
	close(target_fd);
	free(w.fds);
	memset(&w, 0, sizeof w);
	memset(&cfg, 0, sizeof cfg);
}

static void
want(void)
{
	wake_clear(&w);
	relay_want(r, &w);
}

/* One turn of the loop; wait: ms to wait for what is on its way.  Returns
 * how many descriptors were ready. */
static int
turn(int wait)
{
	int n;

	want();
	n = poll(w.fds, (nfds_t)w.n, wait);
	turns += n > 0;
	relay_step(r, &w, now);
	return n;
}

static void
turn_all(void)
{
	int k;

	for (k = 0; k < 10000 && turn(0) > 0; k++)
		;
	CHECK(k < 10000);
}

/* Turns until nothing came for a moment: what is on its way may still be in
 * the hands of the kernel's softirq. */
static void
calm(void)
{
	int k;

	for (k = 0; k < 10000 && turn(1) > 0; k++)
		;
	CHECK(k < 10000);
}

/* Lets all sessions become cold. */
static void
cool(void)
{
	int k;

	calm();
	now += CHECK_ALL;
	for (k = 0; k < 3; k++)
		turn_all();
}

static unsigned char
pattern(size_t off, int who)
{
	return (unsigned char)(off * 7 + (off >> 8) * 13 + (off >> 16) +
	    (unsigned)who * 101);
}

static int window;		/* bytes that clients take; 0: many */

/* A client from source (NULL: any) to the relay. */
static int
dial_relay(int type, const char *source)
{
	union addr a = r->local;
	union addr src;
	int fd = end_socket(a.sa.sa_family, type);

	if (window)
		fd_option(fd, SOL_SOCKET, SO_RCVBUF, window);
	if (addr_any(&a))
		a.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (source) {
		src = local(source);
		CHECK(bind(fd, &src.sa, addr_len(&src)) == 0);
	}
	if (connect(fd, &a.sa, addr_len(&a)) == -1)
		CHECK(errno == EINPROGRESS);
	return fd;
}

/* Accepts the relay's connection at the target, -1 when none comes. */
static int
target_accept(void)
{
	union addr a;
	int fd = -1, k;

	for (k = 0; k < 200 && fd == -1; k++) {
		turn(k ? 1 : 0);
		fd = end_accept(&a);
	}
	return fd;
}

/* Opens a session; its legs need not know of each other yet. */
static void
open_soon(struct end e[2], const char *source)
{
	memset(e, 0, 2 * sizeof *e);
	e[0].fd = dial_relay(SOCK_STREAM, source);
	e[1].fd = target_accept();
	CHECK(e[1].fd != -1);
}

static void
open_pair(struct end e[2], const char *source)
{
	open_soon(e, source);
	calm();
}

static void
shut_pair(struct end e[2])
{
	int i;

	for (i = 0; i < 2; i++)
		if (e[i].fd != -1)
			close(e[i].fd);
}

/* End who sends up to n bytes, until its connection takes no more. */
static void
put(struct end *e, int who, size_t n)
{
	ssize_t k;
	size_t i, m;

	while (n > 0 && !e->closed) {
		m = n < sizeof big ? n : sizeof big;
		for (i = 0; i < m; i++)
			big[i] = pattern(e->sent + i, who);
		k = send(e->fd, big, m, MSG_NOSIGNAL);
		if (k <= 0)
			return;
		e->sent += (size_t)k;
		n -= (size_t)k;
	}
}

/* End who reads what there is; every byte must be the other's next. */
static void
get(struct end *e, int who)
{
	static unsigned char buf[1 << 16];
	ssize_t i, k;

	if (e->closed == 2 || e->eof || e->reset)
		return;
	while ((k = recv(e->fd, buf, sizeof buf, 0)) > 0)
		for (i = 0; i < k; i++, e->got++)
			if (buf[i] != pattern(e->got, !who)) {
				CHECK(buf[i] == pattern(e->got, !who));
				return;
			}
	if (k == 0)
		e->eof = 1;
	else if (errno == ECONNRESET || errno == EPIPE)
		e->reset = 1;
}

/* Reads at both ends until goal, or nothing moved in many turns. */
static int
drain(struct end e[2], int (*goal)(struct end *))
{
	int k;

	for (k = 0; k < 3000; k++) {
		get(&e[0], 0);
		get(&e[1], 1);
		if (goal(e))
			return 1;
		turn(1);
	}
	return 0;
}

static int
all_got(struct end *e)
{
	return e[0].got == e[1].sent && e[1].got == e[0].sent;
}

static int
is_over(struct end *e)
{
	(void)e;
	return r->n == 0;
}

static void
shut(struct end *e)
{
	if (!e->closed)
		shutdown(e->fd, SHUT_WR);
	e->closed = e->closed ? e->closed : 1;
}

static void
reset(struct end *e)
{
	if (e->closed == 2)
		return;
	fd_abortive(e->fd, 1);
	close(e->fd);
	e->fd = -1;
	e->closed = 2;
}

static struct session *
the_session(void)
{
	int k;

	for (k = 0; k < r->nfds; k++)
		if (r->by_fd[k])
			return r->by_fd[k];
	return NULL;
}

/* Valgrind plays RLIMIT_NOFILE itself, and not quite as the kernel does. */
static int
under_valgrind(void)
{
	const char *p = getenv("LD_PRELOAD");

	return p && strstr(p, "vgpreload");
}

/* what a session costs */

/* How many pages of the buffer are in memory. */
static int
pages(void)
{
	static unsigned char in[sizeof *r->buf / 4096 + 1];
	size_t k;
	int n = 0;

	CHECK(mincore(r->buf, sizeof *r->buf, in) == 0);
	for (k = 0; k < sizeof in; k++)
		n += in[k] & 1;
	return n;
}

static void
a_session_is_small(void)
{
	CHECK(sizeof(struct session) <= 136);
}

static void
two_descriptors_and_no_buffer_at_rest(void)
{
	struct end e[2];
	int before, after;

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	before = dup(0);
	close(before);
	shut_pair(e);
	drain(e, is_over);
	open_pair(e, NULL);
	put(&e[0], 0, 5000);
	CHECK(drain(e, all_got));
	CHECK(r->pending == 0);
	CHECK(pages() > 0);
	cool();
	CHECK(pages() == 0);
	after = dup(0);
	close(after);
	CHECK(after <= before);
	shut_pair(e);
	teardown();
}

/* After many sessions nothing is left of them, nor anything that would keep
 * the heap from being given back. */
static void
nothing_at_rest_without_sessions(void)
{
	struct end e[NSRC][2];
	int k;

	setup(SOCK_STREAM, "127.0.0.1");
	for (k = 0; k < NSRC; k++)
		open_pair(e[k], NULL);
	for (k = 0; k < NSRC; k++)
		shut_pair(e[k]);
	cool();
	CHECK(r->n == 0);
	CHECK(r->pipe[0] == -1 && r->by_fd == NULL && r->nfds == 0);
	open_pair(e[0], NULL);
	put(&e[0][0], 0, 5000);
	CHECK(drain(e[0], all_got));
	shut_pair(e[0]);
	teardown();
}

#ifdef SO_MEMINFO
/* Sessions whose client takes nothing hold little, of much that is sent. */
static void
stalled_sessions_hold_little(void)
{
	static struct end e[20][2];
	size_t held = 0;
	int k, n;

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e[0], NULL);
	k = ioctl(e[0][0].fd, SIOCOUTQNSD, &n);
	shut_pair(e[0]);
	if (k < 0) {
		teardown();	/* qemu-user has no such call */
		return;
	}
	window = 2304;
	for (k = 0; k < 20; k++) {
		if (k == 15)		/* more of others */
			r->pending += held = PENDING_MOST;
		open_pair(e[k], NULL);
		put(&e[k][1], 1, 4 << 20);
		calm();
		put(&e[k][1], 1, 4 << 20);
		calm();
	}
	window = 0;
	CHECK(r->pending - held > 0);
	CHECK(r->pending - held <= 20 * SCARCE);
	for (k = 0; k < 20; k++)
		shut_pair(e[k]);
	r->pending -= held;
	teardown();
}
#endif

static int
option_of(int fd, int level, int name)
{
	int v = -1;
	socklen_t n = sizeof v;

	getsockopt(fd, level, name, &v, &n);
	return v;
}

static void
both_legs_are_tuned(void)
{
	struct end e[2];
	struct session *s;
	int i;

	cfg.congestion = "no such thing";
	setup(SOCK_STREAM, "127.0.0.1");
	CHECK(logged("congestion") == 1);
	r->cfg = &cfg;
	open_pair(e, NULL);
	s = the_session();
	for (i = 0; s && i < 2; i++) {
		CHECK(option_of(s->fd[i], IPPROTO_TCP, TCP_NODELAY));
		CHECK(option_of(s->fd[i], SOL_SOCKET, SO_KEEPALIVE));
		CHECK(option_of(s->fd[i], IPPROTO_TCP, TCP_KEEPIDLE) == 30);
		CHECK(option_of(s->fd[i], IPPROTO_TCP, TCP_KEEPINTVL) == 30);
		CHECK(option_of(s->fd[i], IPPROTO_TCP, TCP_KEEPCNT) == 4);
		CHECK(fcntl(s->fd[i], F_GETFD) == FD_CLOEXEC);
	}
	CHECK(logged("congestion") == 1);
	CHECK(used == 1);
	shut_pair(e);
	teardown();
}

/* every order of what can happen */

enum { OPS = 9 };

static const char *const op_name[OPS] = {
	"client data", "target data", "client bulk", "target bulk",
	"client EOF", "target EOF", "client reset", "target reset", "idle"
};

static void
act(struct end e[2], int op)
{
	switch (op) {
	case 0: case 1:
		put(&e[op & 1], op & 1, 1000);
		break;
	case 2: case 3:
		put(&e[op & 1], op & 1, 16 << 20);
		break;
	case 4: case 5:
		shut(&e[op & 1]);
		break;
	case 6: case 7:
		reset(&e[op & 1]);
		break;
	default:
		now += r->limit[S_OPEN];
	}
	turn_all();
}

/* What must have come of it, when op[] was done and both ends closed. */
static void
judge(struct end e[2], const uint64_t taken[2], int idle)
{
	int i;

	for (i = 0; i < 2 && !idle; i++) {
		if (e[!i].closed == 2)	/* nobody is left to look */
			continue;
		CHECK(e[!i].got == taken[i]);
		if (e[i].closed == 2)
			CHECK(e[!i].reset || e[!i].eof);
		else if (e[!i].closed != 2)
			CHECK(e[!i].got == e[i].sent && e[!i].eof);
	}
}

/* Have the ends that are left got all that the relay took?  Before that, the
 * relay's time for the last bytes must not run out, however slow the kernel
 * is to bring them. */
static int
delivered(const struct end e[2])
{
	int i;

	for (i = 0; i < 2; i++)
		if (e[i].closed != 2 && e[i].got != r->bytes[!i])
			return 0;
	return 1;
}

/* Reads until the connection of end i is over. */
static void
get_rest(struct end e[2], int i)
{
	struct pollfd p = { e[i].fd, POLLIN, 0 };

	get(&e[i], i);
	while (e[i].closed != 2 && !e[i].eof && !e[i].reset &&
	    poll(&p, 1, 10000) > 0)
		get(&e[i], i);
}

static void
one_order(const int *op, int n)
{
	struct end e[2];
	uint64_t taken[2];
	int k, idle = 0, bad = check_bad;

	r->bytes[0] = r->bytes[1] = 0;
	open_pair(e, NULL);
	turns = 0;
	for (k = 0; k < n; k++) {
		idle |= op[k] == OPS - 1;
		act(e, op[k]);
	}
	CHECK(turns < 400);
	for (k = 0; k < 20000 && r->n; k++) {
		get(&e[0], 0);
		get(&e[1], 1);
		if (k == 5) {
			shut(&e[0]);
			shut(&e[1]);
		}
		if (r->list[S_ENDING].next == &r->list[S_ENDING])
			turn(k < 5 ? 0 : 1);
		else if (r->look_at = now, turn(1) == 0 && k > 5 &&
		    delivered(e) && r->look_at != now + LOOK_LEAST)
			now += ENDING;
	}
	get_rest(e, 0);
	get_rest(e, 1);
	memcpy(taken, r->bytes, sizeof taken);
	CHECK(r->n == 0);
	CHECK(r->pending == 0);
	if (e[0].closed == 2 && e[1].closed == 2)
		idle = 1;
	judge(e, taken, idle);
	shut_pair(e);
	if (check_bad != bad)
		for (k = 0; k < n; k++)
			printf("#   %d. %s\n", k + 1, op_name[op[k]]);
}

static void
every_order_of_three_events(void)
{
	int op[3], k;

	cfg.idle_timeout = 5;
	setup(SOCK_STREAM, "127.0.0.1");
	for (k = 0; k < OPS * OPS * OPS && check_bad < 5; k++) {
		op[0] = k % OPS;
		op[1] = k / OPS % OPS;
		op[2] = k / OPS / OPS;
		one_order(op, 3);
	}
	teardown();
}

static int
far_eof(struct end *e)
{
	return e[0].eof || e[1].eof;
}

/* EOF one way arrives while the other way still flows. */
static void
half_close_is_carried_through(void)
{
	struct end e[2];
	int i;

	for (i = 0; i < 2; i++) {
		setup(SOCK_STREAM, "127.0.0.1");
		open_pair(e, NULL);
		put(&e[i], i, 100);
		shut(&e[i]);
		CHECK(drain(e, far_eof));
		CHECK(e[!i].eof && e[!i].got == 100 && r->n == 1);
		put(&e[!i], !i, 200000);
		CHECK(drain(e, all_got));
		CHECK(e[i].got > 0 && !e[i].eof && r->n == 1);
		shut(&e[!i]);
		CHECK(drain(e, is_over));
		CHECK(r->ended[WHY_CLOSED] == 1);
		shut_pair(e);
		teardown();
	}
}

/* A reset that comes after bytes: they arrive, then the reset. */
static void
reset_follows_the_bytes(void)
{
	struct end e[2];
	int i;

	for (i = 0; i < 2; i++) {
		setup(SOCK_STREAM, "127.0.0.1");
		open_pair(e, NULL);
		put(&e[i], i, 100000);
		calm();
		reset(&e[i]);
		calm();
		while (r->n && now < START + 2 * ENDING) {
			get(&e[!i], !i);
			now += LOOK_LEAST;
			turn(0);
		}
		get(&e[!i], !i);
		CHECK(e[!i].got == 100000);
		CHECK(e[!i].reset && !e[!i].eof);
		CHECK(r->n == 0 && r->ended[WHY_ERROR] == 1);
		shut_pair(e);
		teardown();
	}
}

/* The header goes when the target connects, the client's bytes follow. */
static void
proxy_header(const char *host, const char *source, unsigned char family,
    int size)
{
	struct end e[2];
	union addr c, t;
	socklen_t len = sizeof c;
	unsigned char h[64];
	ssize_t n = 16 + 2 * size + 4;

	cfg.proxy_protocol = 1;
	setup(SOCK_STREAM, host);
	open_pair(e, source);
	getsockname(e[0].fd, &c.sa, &len);
	len = sizeof t;
	getpeername(e[0].fd, &t.sa, &len);
	CHECK(recv(e[1].fd, h, sizeof h, 0) == n);
	CHECK(memcmp(h, "\r\n\r\n\0\r\nQUIT\n\x21", 13) == 0);
	CHECK(h[13] == family && h[14] == 0 && h[15] == n - 16);
	CHECK(h[16 + 2 * size] << 8 == (addr_port(&c) & 0xff00));
	CHECK(h[17 + 2 * size] == (addr_port(&c) & 0xff));
	CHECK((h[18 + 2 * size] << 8 | h[19 + 2 * size]) == addr_port(&t));
	CHECK(memcmp(h + 16, size == 4 ? (void *)&c.in.sin_addr :
	    (void *)&c.in6.sin6_addr, (size_t)size) == 0);
	CHECK(memcmp(h + 16 + size, size == 4 ? (void *)&t.in.sin_addr :
	    (void *)&t.in6.sin6_addr, (size_t)size) == 0);
	put(&e[0], 0, 1 << 20);
	put(&e[1], 1, 1 << 20);
	CHECK(drain(e, all_got));
	CHECK(r->bytes[0] == e[0].sent);
	shut_pair(e);
	e[0].fd = dial_relay(SOCK_STREAM, source);	/* closes at once */
	shut(&e[0]);
	e[1].fd = target_accept();
	calm();
	CHECK(recv(e[1].fd, h, sizeof h, 0) == n);
	CHECK(recv(e[1].fd, h, sizeof h, 0) == 0);
	shut_pair(e);
	teardown();
}

static void
proxy_header_of_both_families(void)
{
	proxy_header("0.0.0.0", "127.0.0.5", 0x11, 4);
	proxy_header("::1", "::1", 0x21, 16);
}

/* The other end does not take them: after ten seconds it is reset. */
static void
reset_waits_ten_seconds_at_most(void)
{
	struct end e[2];
	int64_t t;

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	put(&e[0], 0, 32 << 20);
	calm();
	put(&e[0], 0, 32 << 20);
	calm();
	reset(&e[0]);
	t = now;
	calm();
	CHECK(r->n == 1);
	for (turns = 0; now < t + ENDING - 1; now += LOOK_LEAST / 2 + 1)
		turn(0);
	CHECK(r->n == 1);
	CHECK(turns == 0);
	now = t + ENDING;
	turn(0);
	CHECK(r->n == 0);
	shut_pair(e);
	teardown();
}

/* Both legs are dead: nothing is left to wait for, whatever was unsent. */
static void
two_dead_legs_end_at_once(void)
{
	struct end e[2];
	int i;

	for (i = 0; i < 2; i++) {
		setup(SOCK_STREAM, "127.0.0.1");
		open_pair(e, NULL);
		put(&e[!i], !i, 4 << 20);	/* more than the other takes */
		calm();
		put(&e[!i], !i, 4 << 20);
		calm();
		reset(&e[!i]);
		calm();
		CHECK(r->n == 1);
		reset(&e[i]);
		calm();
		now += LOOK_MOST;
		calm();
		CHECK(r->n == 0 && r->ended[WHY_ERROR] == 1);
		open_pair(e, NULL);
		put(&e[0], 0, 1);
		reset(&e[0]);
		reset(&e[1]);
		calm();
		CHECK(r->n == 0 && r->ended[WHY_ERROR] == 2);
		teardown();
	}
}

/* Many sessions whose target is gone and whose client takes nothing. */
static void
stall_and_break(struct end (*e)[2], int n)
{
	int k;

	window = 2304;
	for (k = 0; k < n; k++) {
		open_soon(e[k], NULL);
		put(&e[k][1], 1, 30000);
	}
	window = 0;
	calm();
	for (k = 0; k < n; k++)
		reset(&e[k][1]);
	calm();
}

/* However many sessions end, and nothing moves: two wakings a second. */
static void
what_ends_wakes_seldom(void)
{
	static struct end e[3 * POLL_MOST][2];
	int k, n = 3 * POLL_MOST, wakings;
	int64_t t;

	setup(SOCK_STREAM, "127.0.0.1");
	stall_and_break(e, n);
	CHECK(r->n == n);
	now += 100;
	calm();
	now += LOOK_MOST;
	turn_all();
	for (t = now + 5000, wakings = 0; now < t; wakings++) {
		want();
		now = w.deadline;
		turn(0);
	}
	CHECK(wakings <= 2 * 5);
	CHECK(r->n == n);
	for (k = 0; k < n; k += 2)
		get(&e[k][0], 0);	/* these take what is theirs */
	for (t = now + 3 * LOOK_MOST; now < t && r->n > n / 2; now += 5)
		turn(1);
	CHECK(r->n == n / 2);
	for (k = 0; k < n; k++) {
		get(&e[k][0], 0);
		CHECK(k % 2 || (e[k][0].got == 30000 && e[k][0].reset));
		close(e[k][0].fd);
	}
	teardown();
}

#ifdef F_SETSIG
/* The system calls of so many seconds, with those of the loop. */
static long
calls_in(int secs)
{
	int64_t end = now + secs * 1000;
	long wakings = 0;
	int n;

	called = 0;
	while (now < end && wakings < 1000) {
		n = turn(0);
		wakings++;
		if (n > 0)
			continue;
		want();
		now = w.deadline < end ? w.deadline : end;
	}
	return wakings + called;
}

/* Turns until nothing came for about so many ms. */
static void
settle(int ms)
{
	int k, still = 0;

	for (k = 0; k < 10000 && still < ms; k++)
		still = turn(1) > 0 ? 0 : still + 1;
}

/* Nothing moves for so many seconds: at most five system calls in each.  A busy
 * kernel brings late what was sent before, and probes a client that takes
 * nothing: so one of ten such times must be quiet. */
static void
quiet(int secs, const char *what)
{
	long calls;
	int k = 0;

	cool();
	do {
		settle(k ? 500 : 50);
		calls = calls_in(secs);
	} while (calls > 5 * secs && ++k < 10);
	if (calls > 5 * secs)
		printf("# %s: %ld calls in %d s\n", what, calls, secs);
	CHECK(calls <= 5 * secs);
}

#define CROWD	1000		/* sessions in each state */
#define BEHIND	40		/* clients who cannot even be guests */
static struct end crowd[CROWD + GUESTS + BEHIND][2];

/* Raises the limit of open files, as far as that is allowed. */
static void
allow_files(int n)
{
	struct rlimit rl;

	getrlimit(RLIMIT_NOFILE, &rl);
	if (rl.rlim_cur >= (rlim_t)n)
		return;
	rl.rlim_cur = (rlim_t)n;
	if (rl.rlim_max < (rlim_t)n)
		rl.rlim_max = (rlim_t)n;	/* root may do so */
	if (setrlimit(RLIMIT_NOFILE, &rl) == 0)
		return;
	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
}

/* As many sessions as can be: each takes four descriptors, with its ends. */
static int
crowd_size(void)
{
	int others = RESERVED + 2 * GUESTS + BEHIND, n;

	if (under_valgrind())
		return CROWD / 4;
	allow_files(4 * CROWD + others);
	n = (files_now() - others) / 4;
	return n < CROWD ? n : CROWD;
}

static void
crowd_end(int n)
{
	int k;

	for (k = 0; k < n; k++)
		shut_pair(crowd[k]);
	teardown();
}

/* what: bits: 1 the client has shut its side, 2 the target, 4 the client takes
 * nothing of what the target sends, 8 nor does the kernel take all of it */
static void
quiet_when_open(int what, int n)
{
	char name[32];
	int k;

	cfg.idle_timeout = FOR_EVER;
	setup(SOCK_STREAM, "127.0.0.1");
	window = what & 4 ? 2304 : 0;
	if (what & 8)
		fd_option(r->fd, SOL_SOCKET, SO_SNDBUF, 1);
	for (k = 0; k < n; k++) {
		open_soon(crowd[k], NULL);
		if (what & 4)
			put(&crowd[k][1], 1, 30000);
		if (what & 1)
			shut(&crowd[k][0]);
		if (what & 2)
			shut(&crowd[k][1]);
	}
	window = 0;
	snprintf(name, sizeof name, "open, %d", what);
	quiet(15, name);
	CHECK(r->n == (what == 7 ? 0 : n));	/* 7: the kernel has all */
	CHECK(!(what & 8) || r->pending >= (size_t)n * 1000);
	crowd_end(n);
}

static void
quiet_when_ending(int n)
{
	setup(SOCK_STREAM, "127.0.0.1");
	stall_and_break(crowd, n);
	quiet(4, "ending");
	CHECK(r->n == n);
	crowd_end(n);
}

/* A client that is not served: it has sent a byte, and every second has shut
 * its side. */
static void
one_waits(int k, const char *source)
{
	struct end *e = crowd[k];
	struct pollfd p = { -1, POLLOUT, 0 };

	memset(e, 0, sizeof crowd[k]);
	e[0].fd = p.fd = dial_relay(SOCK_STREAM, source);
	e[1].fd = -1;
	poll(&p, 1, 10000);
	put(&e[0], 0, 1);
	CHECK(e[0].sent == 1);
	if (k % 2)
		shut(&e[0]);
	turn(0);
}

/* Beside the sessions wait guests, and behind these more clients. */
static void
quiet_when_full(int n)
{
	char source[16];
	int k, all;

	cfg.max_sessions = n;
	cfg.idle_timeout = FOR_EVER;
	setup(SOCK_STREAM, "127.0.0.1");
	all = n + r->guests_max + BEHIND;
	for (k = 0; k < all; k++) {
		/* of no source are so many that it must make room */
		snprintf(source, sizeof source, "127.0.0.%d", k % 16 + 1);
		if (k < n) {
			open_soon(crowd[k], source);
			put(&crowd[k][0], 0, 1);
		} else
			one_waits(k, source);
	}
	quiet(15, "full");
	CHECK(r->max == n && r->guests == r->guests_max);
	CHECK(r->n == n + r->guests);
	crowd_end(all);
}

/* The target's queue is full: the sessions wait for it. */
static void
quiet_when_waiting(int n)
{
	union addr mute;
	int k, full, fd[8];

	setup(SOCK_STREAM, "127.0.0.1");
	full = bound(SOCK_STREAM, "127.0.0.1", &mute);
	listen(full, 0);
	for (k = 0; k < 8; k++) {
		fd[k] = end_socket(AF_INET, SOCK_STREAM);
		connect(fd[k], &mute.sa, addr_len(&mute));
	}
	target.a[0] = mute;
	relay_target(r, &target);
	for (k = 0; k < n; k++)
		one_waits(k, NULL);
	quiet(4, "waiting");
	CHECK(r->n == n);
	for (k = 0; k < 8; k++)
		close(fd[k]);
	close(full);
	crowd_end(n);
}

static void
quiet_when_nothing_moves(void)
{
	struct rlimit old;
	int k, n;

	getrlimit(RLIMIT_NOFILE, &old);
	n = crowd_size();
	for (k = 0; k < 16 && n > 0; k++)
		if (k != 3 && (k < 8 || k & 4)) /* 3: nothing on its way */
			quiet_when_open(k, n);
	if (n > 0) {
		quiet_when_ending(n);
		quiet_when_full(n);
		quiet_when_waiting(n);
	}
	setrlimit(RLIMIT_NOFILE, &old);
}
#endif

/* bulk */

static void
bulk_both_ways(void)
{
	struct end e[2];
	size_t all = 24 << 20;
	int k;

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	for (k = 0; k < 100000 && !(all_got(e) && e[0].sent == all &&
	    e[1].sent == all); k++) {
		put(&e[0], 0, all - e[0].sent);
		put(&e[1], 1, all - e[1].sent);
		turn(1);
		if (k % 3)		/* a slow reader */
			continue;
		get(&e[0], 0);
		get(&e[1], 1);
	}
	CHECK(e[0].got == all && e[1].got == all);
	CHECK(r->bytes[0] == all && r->bytes[1] == all);
	CHECK(r->pending == 0);
#ifdef SPLICE_F_MOVE
	CHECK(r->pipe[0] != -1);
#endif
	shut_pair(e);
	teardown();
}

/* What a receiver does not take waits in memory, not in the pipe, and all
 * arrives in order. */
static void
the_pipe_is_empty_between_turns(void)
{
	struct end e[2];
	int k, n;

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	for (k = 0; k < 30; k++) {
		put(&e[0], 0, 1 << 20);
		calm();
	}
	CHECK(the_session()->u.pending[0] != NULL);
	CHECK(r->pending > 0 && r->pending <= PIPE_SIZE);
#ifdef SPLICE_F_MOVE
	CHECK(r->pipe[0] != -1);
	CHECK(ioctl(r->pipe[0], FIONREAD, &n) == 0 && n == 0);
#else
	(void)n;
#endif
	CHECK(drain(e, all_got));
	CHECK(r->pending == 0);
	shut_pair(e);
	teardown();
}

/* Without pipes (no descriptors) bulk is copied. */
static void
bulk_without_descriptors(void)
{
	struct end e[2];
	struct rlimit old, low;
	int fd;

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	fd = dup(0);
	close(fd);
	low.rlim_cur = (rlim_t)fd;
	setrlimit(RLIMIT_NOFILE, &low);
	put(&e[1], 1, 1 << 20);
	CHECK(drain(e, all_got));
	CHECK(r->pipe[0] == -1);
	setrlimit(RLIMIT_NOFILE, &old);
	shut_pair(e);
	teardown();
}

/* The client has shut its side, the target answers with bulk and closes, and
 * the client reads late: that leg hangs up while it is paused.  It must
 * neither spin nor cost a byte. */
static void
a_paused_leg_that_hung_up_is_read_later(void)
{
	struct end e[2];
	int k;

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	shut(&e[0]);
	calm();
	for (k = 0; k < 30; k++) {
		put(&e[1], 1, 1 << 20);
		calm();
	}
	shut(&e[1]);
	calm();
	for (turns = k = 0; k < 50; k++)
		turn(0);
	CHECK(turns <= 1);
	CHECK(r->n == 1);
	CHECK(drain(e, is_over));
	get(&e[0], 0);
	CHECK(e[0].got == e[1].sent && e[0].eof);
	CHECK(r->ended[WHY_CLOSED] == 1);
	shut_pair(e);
	teardown();
}

/* A leg of which nothing is wanted dies: seen at once. */
static void
a_dead_leg_of_a_half_closed_session_is_seen(void)
{
	struct end e[2];
	int i;

	for (i = 0; i < 2; i++) {
		setup(SOCK_STREAM, "127.0.0.1");
		open_pair(e, NULL);
		shut(&e[i]);
		calm();
		CHECK(r->n == 1);
		reset(&e[i]);
		calm();
		now += ENDING;          /* its other leg may have bytes out */
		calm();
		CHECK(r->n == 0);
		shut_pair(e);
		teardown();
	}
}

/* idle */

static void
idle_expires_to_the_millisecond(void)
{
	struct end e[2];
	int k;

	cfg.idle_timeout = 3;
	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	for (k = 0; k < 6; k++) {	/* one way only keeps it open */
		now += 2999;
		put(&e[k / 3], k / 3, 1);
		calm();
		CHECK(r->n == 1);
	}
	turn_all();
	now += 2000;
	turn_all();
	want();
	CHECK(w.deadline == now + 1000);
	now += 999;
	turn_all();
	CHECK(r->n == 1);
	now++;
	turn_all();
	CHECK(r->n == 0 && r->ended[WHY_IDLE] == 1);
	CHECK(logged("idle after") == 1 && logged("") == 1);
	CHECK(drain(e, is_over));
	CHECK(e[0].eof && e[1].eof);
	shut_pair(e);
	teardown();
}

static void
what_is_not_taken_counts_as_idle(void)
{
	struct end e[2];
	int k;

	cfg.idle_timeout = 3;
	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	for (k = 0; k < 40; k++) {
		put(&e[0], 0, 1 << 20);
		calm();
	}
	for (k = 0; k < 29; k++) {
		put(&e[0], 0, 1);
		now += 100;
		turn(0);
	}
	CHECK(r->n == 1);
	now += 100;
	turn_all();
	CHECK(r->n == 0);
	shut_pair(e);
	teardown();
}

static void
idle_limits_never_and_the_longest(void)
{
	struct end e[2];

	cfg.idle_timeout = FOR_EVER;
	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	cool();
	want();
	CHECK(w.deadline == NEVER);
	now += (int64_t)400 * 86400 * 1000;
	turn_all();
	CHECK(r->n == 1);
	shut_pair(e);
	teardown();
	cfg.idle_timeout = 2678400;
	setup(SOCK_STREAM, "127.0.0.1");
	CHECK(r->limit[S_OPEN] == INT64_C(2678400000));
	open_pair(e, NULL);
	put(&e[0], 0, 1);
	CHECK(drain(e, all_got));
	now += r->limit[S_OPEN] - 1;
	turn_all();
	CHECK(r->n == 1);
	now++;
	turn_all();
	CHECK(r->n == 0);
	shut_pair(e);
	teardown();
}

/* hot and cold */

static void
all_idle_wakes_nothing(void)
{
	struct end e[NSRC][2];
	int k;

	cfg.idle_timeout = FOR_EVER;
	setup(SOCK_STREAM, "127.0.0.1");
	for (k = 0; k < NSRC; k++)
		open_pair(e[k], NULL);
	cool();
	for (turns = k = 0; k < 20; k++)
		turn(0);
	want();
	CHECK(turns == 0);
	CHECK(w.deadline == NEVER);
	CHECK(r->polled == (r->sigfd == -1 ? 2 * NSRC : 0));
	for (k = 0; k < NSRC; k++)
		shut_pair(e[k]);
	teardown();
}

static void
a_cold_session_is_served(void)
{
	struct end e[2][2];
	int i;

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e[0], NULL);
	open_pair(e[1], NULL);
	for (i = 0; i < 2; i++) {
		cool();
		turns = 0;
		put(&e[0][i], i, 1);
		CHECK(drain(e[0], all_got));
		CHECK(turns <= 2);
		want();
		CHECK(r->sigfd == -1 || r->polled == 2);
		put(&e[0][i], i, 1);
		CHECK(drain(e[0], all_got));
		CHECK(the_session()->armed != ARMED_ON);
		want();
		CHECK(r->sigfd == -1 || r->polled == 2);
	}
	shut_pair(e[0]);
	shut_pair(e[1]);
	teardown();
}

/* What came before a session was armed gives no signal. */
static void
bytes_before_arming_are_found(void)
{
	struct end e[2];

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	now += ACTIVE;
	put(&e[0], 0, 1);
	r->now = now;
	turns = 0;
	CHECK(drain(e, all_got));
	CHECK(turns <= 2);
	shut_pair(e);
	teardown();
}

/* Signals are lost, another session is hot: found within a second. */
static void
a_lost_signal_strands_nobody(void)
{
	struct end e[2][2];
	char si[4096];
	int64_t t;

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e[0], NULL);
	open_pair(e[1], NULL);
	cool();
	put(&e[1][0], 0, 1);
	CHECK(drain(e[1], all_got));
	put(&e[0][0], 0, 1);
	while (r->sigfd != -1 && read(r->sigfd, si, sizeof si) > 0)
		;
	t = now;
	while (e[0][1].got == 0 && now < t + 2 * CHECK_ALL) {
		want();
		CHECK(w.deadline <= now + CHECK_ALL);
		now = w.deadline > now ? w.deadline : now + 1;
		turn(0);
		put(&e[1][0], 0, 1);
		turn(0);
		get(&e[0][1], 1);
		get(&e[1][1], 1);
	}
	CHECK(e[0][1].got == 1);
	CHECK(now <= t + CHECK_ALL);
	CHECK(r->sigfd != -1 || now <= t + CHECK_PLAIN + 1);
	shut_pair(e[0]);
	shut_pair(e[1]);
	teardown();
}

/* No room in the signal queue: the kernel sends SIGIO, all are looked at. */
static void
an_overflow_strands_nobody(void)
{
	struct end e[NSRC][2];
	struct rlimit old, none;
	int k;

	setup(SOCK_STREAM, "127.0.0.1");
	for (k = 0; k < NSRC; k++)
		open_pair(e[k], NULL);
	cool();
	getrlimit(RLIMIT_SIGPENDING, &old);
	none = old;
	none.rlim_cur = 0;
	setrlimit(RLIMIT_SIGPENDING, &none);
	for (k = 0; k < NSRC; k++)
		put(&e[k][0], 0, 1);
	turns = 0;
	for (k = 0; k < NSRC; k++)
		CHECK(drain(e[k], all_got));
	CHECK(turns <= 2);
	setrlimit(RLIMIT_SIGPENDING, &old);
	for (k = 0; k < NSRC; k++)
		shut_pair(e[k]);
	teardown();
}

/* A cold session with a full receiver: its POLLOUT comes by signal, too. */
static void
a_cold_paused_session_goes_on(void)
{
	struct end e[2];
	int k;

	cfg.idle_timeout = FOR_EVER;
	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	for (k = 0; k < 40; k++) {
		put(&e[0], 0, 1 << 20);
		calm();
	}
	cool();
	want();
	CHECK(r->sigfd == -1 || r->polled == 0);
	CHECK(w.deadline == NEVER);
	CHECK(drain(e, all_got));
	shut_pair(e);
	teardown();
}

/* A cold session whose client vanishes by a reset is ended. */
static void
a_cold_session_that_is_reset_ends(void)
{
	struct end e[2];

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	cool();
	reset(&e[0]);
	calm();
	now += ENDING;			/* where SIOCOUTQ is not known */
	CHECK(drain(e, is_over));
	get(&e[1], 1);
	CHECK(e[1].reset);
	shut_pair(e);
	teardown();
}

/* connecting */

static int
was_reset(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };
	char c;

	return poll(&p, 1, 1000) == 1 && recv(fd, &c, 1, 0) == -1 &&
	    errno == ECONNRESET;
}

/* Before the listener makes room for a flow; not beyond the limit. */
static void
who_is_queued_is_accepted(void)
{
	struct pollfd p[5];
	int k;

	cfg.max_sessions = 4;
	setup(SOCK_STREAM, "127.0.0.1");
	relay_accept(r);
	CHECK(r->n == 0);
	for (k = 0; k < 5; k++) {
		p[k].fd = dial_relay(SOCK_STREAM, NULL);
		p[k].events = POLLOUT;
		CHECK(poll(p + k, 1, 2000) == 1);
	}
	relay_accept(r);
	CHECK(r->n == 4);
	for (k = 0; k < 5; k++)
		close(p[k].fd);
	teardown();
}

static void
a_refused_target_resets_the_client(void)
{
	int fd;

	setup(SOCK_STREAM, "127.0.0.1");
	close(target_fd);
	fd = dial_relay(SOCK_STREAM, NULL);
	calm();
	CHECK(was_reset(fd));
	CHECK(r->n == 0 && r->ended[WHY_REFUSED] == 1);
	close(fd);
	target_fd = -1;
	teardown();
}

static void
all_addresses_are_tried(void)
{
	struct end e[2];
	union addr dead;

	setup(SOCK_STREAM, "127.0.0.1");
	close(bound(SOCK_STREAM, "127.0.0.1", &dead));
	target.a[2] = target.a[0];
	target.a[0] = target.a[1] = dead;
	addr_parse(&target.a[1], "::1", AF_INET6);
	addr_set_port(&target.a[1], addr_port(&dead));
	target.n = 3;
	relay_target(r, &target);
	open_pair(e, NULL);
	put(&e[0], 0, 10);
	CHECK(drain(e, all_got));
	CHECK(r->ever == 1);
	shut_pair(e);
	teardown();
}

/* A target that answers nothing (its backlog is full) has ten seconds. */
static void
a_mute_address_has_ten_seconds(void)
{
	struct end e[2];
	union addr mute;
	int fd[8], k, full;

	setup(SOCK_STREAM, "127.0.0.1");
	full = bound(SOCK_STREAM, "127.0.0.1", &mute);
	listen(full, 0);
	for (k = 0; k < 8; k++) {
		fd[k] = end_socket(AF_INET, SOCK_STREAM);
		connect(fd[k], &mute.sa, addr_len(&mute));
	}
	target.a[1] = target.a[0];
	target.a[0] = mute;
	target.n = 2;
	relay_target(r, &target);
	memset(e, 0, sizeof e);
	e[0].fd = dial_relay(SOCK_STREAM, NULL);
	put(&e[0], 0, 10);
	calm();
	CHECK(r->n == 1);
	now = START + CONNECT - 1;
	turn_all();
	CHECK(the_session()->state == S_WAITING && the_session()->tried == 1);
	now++;
	e[1].fd = target_accept();
	CHECK(e[1].fd != -1);
	CHECK(drain(e, all_got));
	shut_pair(e);
	close(full);
	for (k = 0; k < 8; k++)
		close(fd[k]);
	teardown();
}

static void
the_listener_waits_for_a_target(void)
{
	struct end e[2];
	struct addrs none = { 0, { { { 0 } } } };

	setup(SOCK_STREAM, "127.0.0.1");
	relay_target(r, &none);
	memset(e, 0, sizeof e);
	e[0].fd = dial_relay(SOCK_STREAM, NULL);
	calm();
	CHECK(r->slot == -1 && r->ever == 0);
	relay_target(r, &target);
	e[1].fd = target_accept();
	CHECK(e[1].fd != -1);
	shut_pair(e);
	teardown();
}

static void
the_mapped_port_as_target_is_refused(void)
{
	int fd, k;

	for (k = 0; k < 2; k++) {
		setup(SOCK_STREAM, k ? "0.0.0.0" : "127.0.0.1");
		target.a[0] = r->local;
		if (k)
			target.a[0].in.sin_addr.s_addr =
			    htonl(INADDR_LOOPBACK + 4);
		relay_target(r, &target);
		fd = dial_relay(SOCK_STREAM, NULL);
		calm();
		CHECK(was_reset(fd));
		close(fd);
		fd = dial_relay(SOCK_STREAM, NULL);
		calm();
		CHECK(was_reset(fd));
		close(fd);
		CHECK(r->ever == 2 && logged("itself, refused") == 1);
		teardown();
	}
}

/* The same port of another address of ours is another program's. */
static void
the_same_port_elsewhere_is_no_self(void)
{
	struct addrs to = { 3, { { { 0 } } } };

	setup(SOCK_STREAM, "127.0.0.1");
	to.a[0] = to.a[1] = to.a[2] = r->local;
	to.a[0].in.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
	addr_set_port(&to.a[1], addr_port(&r->local) ^ 1);
	relay_target(r, &to);
	CHECK(r->self == 1 << 2);
	teardown();
}

/* full */

static void
fill(struct end (*e)[2], int from, int n, const char *source, size_t bytes)
{
	int k;

	for (k = from; k < from + n; k++) {
		open_pair(e[k], source);
		put(&e[k][0], 0, bytes);
		CHECK(drain(e[k], all_got));
	}
}

static int
alive(struct end e[2])
{
	char c;

	return recv(e[0].fd, &c, 1, MSG_PEEK) == -1 && errno == EAGAIN;
}

/* Silent ones go first, then those of the source that holds the most; one
 * that talked and is alone never goes. */
static void
room_is_made_in_order(void)
{
	struct end e[24][2];
	int k;

	cfg.max_sessions = 23;
	cfg.idle_timeout = FOR_EVER;
	setup(SOCK_STREAM, "127.0.0.1");
	fill(e, 0, 1, "127.0.0.5", 1);
	fill(e, 1, 12, "127.0.0.6", 1);
	fill(e, 13, 9, "127.0.0.7", 1);
	fill(e, 22, 1, "127.0.0.8", 0);
	CHECK(r->n == 23);
	memset(e[23], 0, sizeof e[23]);
	e[23][0].fd = dial_relay(SOCK_STREAM, "127.0.0.9");
	calm();
	CHECK(r->guests == 1 && r->n == 24 && r->ended[WHY_LIMIT] == 0);
	CHECK(logged("must wait") == 1);
	now += ROOM_AGE + 1001;
	e[23][1].fd = target_accept();          /* instead of the silent one */
	CHECK(r->ended[WHY_LIMIT] == 1 && !alive(e[22]));
	CHECK(r->n == 23 && r->guests == 0);
	shut_pair(e[22]);
	fill(e, 22, 1, "127.0.0.9", 1);         /* .6 is cut down to eight */
	CHECK(r->ended[WHY_LIMIT] == 1 + 4);
	for (k = 1; k < 5; k++)
		CHECK(!alive(e[k]));
	for (k = 5; k < 22; k++)
		CHECK(alive(e[k]));
	CHECK(alive(e[0]));
	for (k = 0; k < 24; k++)
		shut_pair(e[k]);
	teardown();
}

/* A source whose hash is that of a lonely one cannot hide behind it. */
static void
a_crowd_behind_one_is_found(void)
{
	struct end e[11][2];
	union addr one = local("127.0.0.5"), many = one;
	char host[ADDR_TEXT];
	uint32_t k;

	cfg.max_sessions = 10;
	cfg.idle_timeout = FOR_EVER;
	setup(SOCK_STREAM, "127.0.0.1");
	r->seed = 2;		/* that of the first look for a crowd */
	for (k = 0; k < 1 << 16; k++) {
		many.in.sin_addr.s_addr = htonl(0x7f010000 + k);
		if (hash_of(r, &one, 0) == hash_of(r, &many, 0))
			break;
	}
	r->seed = 1;
	addr_host(&many, host);
	fill(e, 0, 1, "127.0.0.5", 1);
	fill(e, 1, 9, host, 1);
	cool();
	now += ROOM_AGE + 1;
	memset(e[10], 0, sizeof e[10]);
	e[10][0].fd = dial_relay(SOCK_STREAM, NULL);
	calm();
	now += ACCEPT_PAUSE;
	e[10][1].fd = target_accept();
	CHECK(e[10][1].fd != -1 && r->ended[WHY_LIMIT] == 1);
	CHECK(alive(e[0]) && !alive(e[1]));
	for (k = 0; k < 11; k++)
		shut_pair(e[k]);
	teardown();
}

/* What ends goes first when room is wanted. */
static void
what_ends_makes_room(void)
{
	static struct end e[3][2], last[2];

	cfg.max_sessions = 3;
	setup(SOCK_STREAM, "127.0.0.1");
	stall_and_break(e, 2);
	open_pair(e[2], NULL);
	CHECK(r->n == 3);
	open_pair(last, NULL);
	CHECK(r->n == 3 && r->ended[WHY_LIMIT] == 1 && alive(e[2]));
	put(&last[0], 0, 5);
	CHECK(drain(last, all_got));
	shut_pair(last);
	shut_pair(e[2]);
	close(e[0][0].fd);
	close(e[1][0].fd);
	teardown();
}

/* A source with more than a quarter, each a second idle, gives way to a client
 * of another, but not to one of its own; the other talks first. */
static void
a_quarter_makes_room(void)
{
	struct end e[12][2];
	int k;

	cfg.max_sessions = 8;
	setup(SOCK_STREAM, "0.0.0.0");
	fill(e, 0, 8, "127.0.0.5", 1);
	now += ROOM_IDLE + 1;
	memset(e + 8, 0, 4 * sizeof *e);
	for (k = 8; k < 11; k++)
		e[k][0].fd = dial_relay(SOCK_STREAM, "127.0.0.5");
	calm();
	now += 3 * ACCEPT_PAUSE;
	calm();
	CHECK(r->ended[WHY_LIMIT] == 0 && r->guests == 3);
	for (k = 0; k < 8; k++)
		CHECK(alive(e[k]));
	e[11][0].fd = dial_relay(SOCK_STREAM, "127.0.0.6");
	e[11][1].fd = target_accept();
	CHECK(r->ended[WHY_LIMIT] == 1 && !alive(e[0]) && alive(e[1]));
	put(&e[11][0], 0, 9);
	CHECK(drain(e[11], all_got));
	shut_pair(e[1]);		/* an end is for a guest */
	now += CHECK_ALL;
	e[8][1].fd = target_accept();
	CHECK(e[8][1].fd != -1 && r->guests == 2);
	for (k = 0; k < 12; k++)
		if (k != 1 && e[k][0].fd > 0)
			shut_pair(e[k]);
	teardown();
}

/* Sources that are not idle lose nothing, nor do those with a quarter. */
static void
no_more_than_a_quarter_is_safe(void)
{
	struct end e[9][2];
	char host[ADDR_TEXT];
	int k;

	cfg.max_sessions = 8;
	setup(SOCK_STREAM, "0.0.0.0");
	for (k = 0; k < 8; k++) {
		snprintf(host, sizeof host, "127.0.0.%d", 5 + k / 2);
		fill(e, k, 1, host, 1);
	}
	memset(e[8], 0, sizeof e[8]);
	e[8][0].fd = dial_relay(SOCK_STREAM, "127.0.0.99");
	for (k = 0; k < 50; k++, now += ACCEPT_PAUSE)
		calm();
	CHECK(r->guests == 1 && r->ended[WHY_LIMIT] == 0);
	shut_pair(e[0]);
	e[8][1].fd = target_accept();
	CHECK(e[8][1].fd != -1);
	for (k = 1; k < 9; k++)
		shut_pair(e[k]);
	teardown();
}

/* A crowd that has filled the queue too does not hide who is behind it. */
static void
behind_a_queue_of_the_crowd(void)
{
	struct end e[4][2], last[2];
	union addr any;
	int fd[40], k;

	cfg.max_sessions = 4;
	setup(SOCK_STREAM, "0.0.0.0");
	r->guests_max = 8;
	fill(e, 0, 4, "127.0.0.5", 1);
	for (k = 0; k < 40; k++)
		fd[k] = dial_relay(SOCK_STREAM, "127.0.0.5");
	memset(last, 0, sizeof last);
	last[0].fd = dial_relay(SOCK_STREAM, "127.0.0.6");
	last[1].fd = -1;
	for (k = 0; k < 200 && last[1].fd < 0; k++, now += 500) {
		calm();
		last[1].fd = end_accept(&any);
	}
	CHECK(last[1].fd != -1 && k > 20);
	CHECK(r->n <= 4 + 8);
	put(&last[0], 0, 9);
	CHECK(drain(last, all_got));
	for (k = 0; k < 40; k++)
		close(fd[k]);
	for (k = 0; k < 4; k++)
		shut_pair(e[k]);
	shut_pair(last);
	teardown();
}

/* All of a /64 are one source. */
static void
v6_sources_count_by_network(void)
{
	union addr a = local("2001:db8:0:1::1"), b = local("2001:db8:0:1:2::3");
	struct session s[3] = { { .pair.client = a }, { .pair.client = b },
	    { .pair.client = local("2001:db8:0:2::1") } };

	setup(SOCK_STREAM, "127.0.0.1");
	CHECK(source(&s[0]) == source(&s[1]) && source(&s[0]) != source(&s[2]));
	CHECK(hash_of(r, &a, 0) == hash_of(r, &b, 0));
	CHECK(hash_of(r, &a, 1) != hash_of(r, &b, 1));
	teardown();
}

/* Whatever the seed, an address is no key to the ports of one bucket. */
static void
the_hash_spreads(void)
{
	union addr a = local("127.0.0.1");
	unsigned char *p = (void *)&a.in.sin_addr;
	int count[BUCKETS], k, most, worst = 0;
	uint32_t seed;

	setup(SOCK_DGRAM, "127.0.0.1");
	for (seed = 0; seed < 1000; seed++) {
		random_bytes(&r->seed, sizeof r->seed);
		memset(count, 0, sizeof count);
		for (k = most = 0; k < 256; k++) {
			*p = (unsigned char)k;
			count[hash_of(r, &a, 1024 + (k ^ 0x55))]++;
		}
		for (k = 0; k < BUCKETS; k++)
			most = count[k] > most ? count[k] : most;
		worst = most > worst ? most : worst;
	}
	CHECK(worst <= 32);
	teardown();
}

static void
full_waits_for_an_end(void)
{
	struct end e[3][2];

	cfg.max_sessions = 2;
	cfg.idle_timeout = FOR_EVER;
	setup(SOCK_STREAM, "127.0.0.1");
	fill(e, 0, 2, NULL, 1);
	memset(e[2], 0, sizeof e[2]);
	e[2][0].fd = dial_relay(SOCK_STREAM, NULL);
	calm();
	cool();
	for (turns = 0; now < START + 100000; now += 10)
		turn(0);
	CHECK(turns <= 100000 / ACCEPT_PAUSE + 2);
	CHECK(r->n == 3 && r->guests == 1);
	shut(&e[0][0]);
	shut(&e[0][1]);
	e[2][1].fd = target_accept();
	CHECK(e[2][1].fd != -1);
	shut_pair(e[0]);
	shut_pair(e[1]);
	shut_pair(e[2]);
	teardown();
}

/* more: descriptors for clients, while there are none for the target */
static void
without_descriptors(int more)
{
	struct end e[2][2];
	struct rlimit old, low;
	int fd, k;

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e[0], NULL);
	memset(e[1], 0, sizeof e[1]);
	e[1][0].fd = dial_relay(SOCK_STREAM, NULL);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	fd = dup(0);
	close(fd);
	low.rlim_cur = (rlim_t)(fd + more);
	setrlimit(RLIMIT_NOFILE, &low);
	now += ACCEPT_PAUSE;
	calm();
	CHECK(r->ever == 1 + (uint64_t)more);
	for (turns = k = 0; k < 20 * ACCEPT_PAUSE; k += 10, now += 10)
		turn(0);
	CHECK((more || turns > 10) && turns <= 21);
	put(&e[0][0], 0, 10);
	put(&e[0][1], 1, 100000);
	CHECK(drain(e[0], all_got));
	setrlimit(RLIMIT_NOFILE, &old);
	CHECK(logged("must wait") >= 1 && logged("must wait") <= 6);
	now += CONNECT;
	e[1][1].fd = target_accept();
	CHECK(e[1][1].fd != -1);
	put(&e[1][0], 0, 10);
	CHECK(drain(e[1], all_got));
	shut_pair(e[0]);
	shut_pair(e[1]);
	teardown();
}

static void
without_descriptors_the_listener_lives(void)
{
	without_descriptors(0);
}

static void
without_descriptors_a_client_waits(void)
{
	without_descriptors(1);
}

static int
most_sessions(const struct config *limited)
{
	static struct relay it;

	it.cfg = limited;
	set_limits(&it);
	return it.max;
}

static void
the_limit_follows_the_machine(void)
{
	struct rlimit old, low;

	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = 40;
	setrlimit(RLIMIT_NOFILE, &low);
	CHECK(most_sessions(&cfg) == 4);
	low.rlim_cur = 20;
	setrlimit(RLIMIT_NOFILE, &low);
	CHECK(most_sessions(&cfg) == 1);
	setrlimit(RLIMIT_NOFILE, &old);
	CHECK(most_sessions(&cfg) <= SESSIONS);
	CHECK(ftruncate(fileno(log_file), 0) == 0);
	cfg.max_sessions = 5;
	CHECK(most_sessions(&cfg) == 5);
	low.rlim_cur = 256;
	setrlimit(RLIMIT_NOFILE, &low);
	cfg.max_sessions = 9999;
	CHECK(most_sessions(&cfg) == 112);
	CHECK(logged("-n 9999: the limit of open files allows 112") == 1);
	setrlimit(RLIMIT_NOFILE, &old);
	memset(&cfg, 0, sizeof cfg);
}

static void
totals_are_told(void)
{
	struct end e[2];

	setup(SOCK_STREAM, "127.0.0.1");
	open_pair(e, NULL);
	put(&e[0], 0, 1234);
	put(&e[1], 1, 55555);
	CHECK(drain(e, all_got));
	now += 12000;
	shut(&e[0]);
	shut(&e[1]);
	CHECK(drain(e, is_over));
	CHECK(logged("closed after 12 s, 1234 bytes in, 55555 out"));
	relay_report(r);
	CHECK(logged("0 sessions now, 1 ever, 1234 bytes in, "
	    "55555 out; closed 1,"));
	shut_pair(e);
	teardown();
}

/* UDP */

static ssize_t
udp_get(int fd, void *buf, size_t n, union addr *from)
{
	socklen_t len = sizeof *from;
	ssize_t got = -1;
	int k;

	for (k = 0; k < 200 && got == -1; k++) {
		got = recvfrom(fd, buf, n, 0, &from->sa, &len);
		if (got == -1)
			turn(1);
	}
	return got;
}

static unsigned char dgram[65507], back[65536];

/* Sends n bytes from a client and back; 1 when both arrived whole. */
static int
echo(int fd, size_t n)
{
	union addr from, any;
	size_t k;

	for (k = 0; k < n; k++)
		dgram[k] = pattern(k, (int)n);
	if (send(fd, dgram, n, 0) != (ssize_t)n ||
	    udp_get(target_fd, back, sizeof back, &from) != (ssize_t)n ||
	    memcmp(dgram, back, n) != 0)
		return 0;
	back[n] = 0;
	if (sendto(target_fd, back, n, 0, &from.sa, addr_len(&from)) == -1)
		return 0;
	memset(back, 0, n);
	return udp_get(fd, back, sizeof back, &any) == (ssize_t)n &&
	    memcmp(dgram, back, n) == 0;
}

static void
datagrams_of_all_sizes(const char *host)
{
	static const size_t size[] = { 0, 1, 1400, 9000, 65507 };
	int fd[2];
	size_t k;

	setup(SOCK_DGRAM, host);
	fd[0] = dial_relay(SOCK_DGRAM, NULL);
	fd[1] = dial_relay(SOCK_DGRAM, NULL);
	for (k = 0; k < 5; k++) {
		CHECK(echo(fd[0], size[k]));
		CHECK(echo(fd[1], size[k]));
	}
	CHECK(r->n == 2 && used == 2);
	CHECK(r->bytes[0] == 2 * (1 + 1400 + 9000 + 65507));
	CHECK(r->bytes[1] == r->bytes[0]);
	close(fd[0]);
	close(fd[1]);
	teardown();
}

static void
udp_datagrams_of_all_sizes(void)
{
	datagrams_of_all_sizes("127.0.0.1");
}

static void
udp_over_ipv6(void)
{
	union addr a;
	int fd = bound(SOCK_DGRAM, "::1", &a);

	if (fd == -1)
		return;		/* this machine has none */
	close(fd);
	datagrams_of_all_sizes("::1");
}

/* Many at once, runs of equal size between odd ones, both ways, in order. */
static void
udp_batches_keep_order_and_size(void)
{
	union addr from, any;
	int fd, k, n, i;

	setup(SOCK_DGRAM, "127.0.0.1");
	fd = dial_relay(SOCK_DGRAM, NULL);
	for (k = 0; k < 100; k++) {
		n = k % 10 < 6 ? 100 : k % 10 == 7 ? 0 : k * 3 + 1;
		memset(dgram, k, (size_t)n);
		CHECK(send(fd, dgram, (size_t)n, 0) == n);
	}
	for (i = 0; i < 2; i++)
		for (k = 0; k < 100; k++) {
			n = k % 10 < 6 ? 100 : k % 10 == 7 ? 0 : k * 3 + 1;
			CHECK(udp_get(i ? fd : target_fd, back, sizeof back,
			    i ? &any : &from) == n);
			CHECK(n == 0 || (back[0] == k && back[n - 1] == k));
			if (!i)
				sendto(target_fd, back, (size_t)n, 0,
				    &from.sa, addr_len(&from));
		}
#ifdef MSG_WAITFORONE
	CHECK(r->segment == SEGMENTED);
#endif
	close(fd);
	teardown();
}

static void
udp_runs_are_equal_but_for_the_last(void)
{
	static const struct { size_t len[5]; int run; } t[] = {
		{ { 5, 5, 5, 5, 5 }, 5 }, { { 5, 5, 4, 4, 4 }, 3 },
		{ { 5, 6, 6, 6, 6 }, 1 }, { { 0, 0, 0, 0, 0 }, 1 },
		{ { 5, 5, 0, 5, 5 }, 2 }, { { 20000, 20000, 20000, 20000, 1 },
		    3 }, { { 65500, 1, 1, 1, 1 }, 1 },
	};
	struct iovec iov[5];
	size_t k, i;

	for (k = 0; k < sizeof t / sizeof *t; k++) {
		for (i = 0; i < 5; i++)
			iov[i].iov_len = t[k].len[i];
		CHECK(run_end(SEGMENTED, iov, iov + 5) == iov + t[k].run);
		CHECK(run_end(SEGMENTED, iov, iov + 1) == iov + 1);
	}
	iov[0].iov_len = iov[1].iov_len = 5;
	CHECK(run_end(4, iov, iov + 2) == iov + 1);
}

/* Enters a network of its own, whose loopback has that MTU; returns the old
 * one, -1 where that is not allowed. */
static int
narrow_network(int mtu)
{
	struct ifreq lo;
	int fd, old = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	if (old == -1 || unshare(CLONE_NEWNET) == -1) {
		close(old);
		return -1;
	}
	fd = end_socket(AF_INET, SOCK_DGRAM);
	memset(&lo, 0, sizeof lo);
	strcpy(lo.ifr_name, "lo");
	lo.ifr_mtu = mtu;
	CHECK(ioctl(fd, SIOCSIFMTU, &lo) == 0);
	lo.ifr_flags = IFF_UP;
	CHECK(ioctl(fd, SIOCSIFFLAGS, &lo) == 0);
	close(fd);
	return old;
}

/* Segments must fit the path's MTU; datagrams that do not are sent as they
 * are, and others are still sent in segments. */
static void
udp_runs_wider_than_the_path(void)
{
	union addr from;
	int fd, k, old = narrow_network(1500);

	if (old == -1)
		return;
	setup(SOCK_DGRAM, "127.0.0.1");
	fd = dial_relay(SOCK_DGRAM, NULL);
	for (k = 0; k < 20; k++) {
		memset(dgram, k, 2000);
		CHECK(send(fd, dgram, 2000, 0) == 2000);
	}
	for (k = 0; k < 20; k++)
		CHECK(udp_get(target_fd, back, sizeof back, &from) == 2000 &&
		    back[0] == k && back[1999] == k);
#ifdef MSG_WAITFORONE
	CHECK(r->segment == SEGMENTED);
#endif
	close(fd);
	teardown();
	CHECK(setns(old, CLONE_NEWNET) == 0);
	close(old);
}

/* The answer comes from the address that was asked. */
static void
udp_answers_from_the_address_asked(void)
{
	union addr to, from;
	int fd, k;

	setup(SOCK_DGRAM, "0.0.0.0");
	for (k = 2; k < 5; k++) {
		to = r->local;
		to.in.sin_addr.s_addr = htonl(0x7f000000 + (uint32_t)k);
		fd = bound(SOCK_DGRAM, "127.0.0.1", &from);
		sendto(fd, "x", 1, 0, &to.sa, addr_len(&to));
		CHECK(udp_get(target_fd, back, 9, &from) == 1);
		sendto(target_fd, "y", 1, 0, &from.sa, addr_len(&from));
		CHECK(udp_get(fd, back, 9, &from) == 1);
#ifdef IP_PKTINFO
		CHECK(addr_same(&from, &to));
#endif
		close(fd);
	}
	CHECK(r->n == 3);
	teardown();
}

static void
udp_refusal_keeps_the_session(void)
{
	union addr a;
	int fd, k;

	setup(SOCK_DGRAM, "127.0.0.1");
	a = target.a[0];
	fd = dial_relay(SOCK_DGRAM, NULL);
	CHECK(echo(fd, 10));
	close(target_fd);
	for (k = 0; k < 3; k++) {
		send(fd, "x", 1, 0);
		calm();
	}
	CHECK(r->n == 1);
	for (turns = k = 0; k < 20; k++)
		turn(0);
	CHECK(turns == 0);
	target_fd = end_socket(AF_INET, SOCK_DGRAM);
	CHECK(bind(target_fd, &a.sa, addr_len(&a)) == 0);
	CHECK(echo(fd, 10));
	CHECK(r->ever == 1);
	close(fd);
	teardown();
}

/* A full table: who was never answered goes first, then the longest idle. */
static void
udp_room_is_made_in_order(void)
{
	int fd[6], k;

	cfg.max_sessions = 3;
	setup(SOCK_DGRAM, "127.0.0.1");
	for (k = 0; k < 6; k++)
		fd[k] = dial_relay(SOCK_DGRAM, NULL);
	CHECK(echo(fd[0], 1));
	now++;
	send(fd[1], "x", 1, 0);
	calm();
	now++;
	CHECK(udp_get(target_fd, back, 9, &target.a[7]) == 1);
	CHECK(echo(fd[2], 1));
	CHECK(r->n == 3 && r->ended[WHY_LIMIT] == 0);
	now += ROOM_UDP - 3;
	send(fd[3], "x", 1, 0);			/* all talked just now */
	calm();
	CHECK(r->n == 3 && r->ended[WHY_LIMIT] == 0);
	CHECK(logged("datagram dropped: session limit") == 1);
	now += 2;
	CHECK(echo(fd[3], 1));			/* fd[1] went */
	CHECK(r->n == 3 && r->ended[WHY_LIMIT] == 1);
	CHECK(r->ever == 4);
	now++;
	CHECK(echo(fd[0], 1));
	CHECK(r->ever == 4);
	now += ROOM_UDP - 1;
	CHECK(echo(fd[4], 1));			/* fd[2] went */
	CHECK(r->ended[WHY_LIMIT] == 2);
	CHECK(echo(fd[0], 1) && echo(fd[3], 1));
	CHECK(r->ever == 5);
	for (k = 0; k < 6; k++)
		close(fd[k]);
	teardown();
}

/* The port of each of many sessions, of which none lives for long: in turn, and
 * none again before five seconds. */
static void
udp_ports_rest(void)
{
	static int64_t ended[65536];
	union addr from;
	int fd, k, again = 0, early = 0;

	setup(SOCK_DGRAM, "127.0.0.1");
	r->limit[S_WAITING] = r->limit[S_OPEN] = 1;
	for (k = 0; k < 400; k++) {
		if (k == 150)		/* around to those of the start */
			r->port -= 150;
		fd = dial_relay(SOCK_DGRAM, NULL);
		send(fd, "x", 1, 0);
		if (udp_get(target_fd, back, 9, &from) == 1) {
			again += ended[addr_port(&from)] != 0;
			early += ended[addr_port(&from)] &&
			    now - ended[addr_port(&from)] < PORT_REST;
		}
		now += 2;
		turn_all();
		CHECK(r->n == 0);
		ended[addr_port(&from)] = now;
		close(fd);
		if (k == 250 || k == 260) {
			CHECK(again == 0);
			now += PORT_REST;
			r->port -= 100;
		}
	}
	CHECK(again > 0 && early == 0);
	r->now = now;
	memset(r->rest, (int)rest_mark(r), sizeof r->rest);     /* all rest */
	fd = dial_relay(SOCK_DGRAM, NULL);
	send(fd, "x", 1, 0);
	calm();
	CHECK(r->n == 0 && logged("datagram dropped: Resource") == 1);
	now += PORT_REST;
	CHECK(echo(fd, 1) == 0);		/* they may have begun late */
	now += PORT_REST;
	CHECK(echo(fd, 1));
	close(fd);
	teardown();
}

static void
udp_idle_and_cold(void)
{
	int fd;

	cfg.idle_timeout = 2;
	setup(SOCK_DGRAM, "127.0.0.1");
	fd = dial_relay(SOCK_DGRAM, NULL);
	CHECK(echo(fd, 3));
	cool();
	want();
	CHECK(r->sigfd == -1 || r->polled == 0);
	CHECK(pages() == 0);
	CHECK(echo(fd, 3));
	now += 1999;
	turn_all();
	CHECK(r->n == 1);
	now++;
	turn_all();
	CHECK(r->n == 0 && r->ended[WHY_IDLE] == 1);
	CHECK(echo(fd, 3));
	CHECK(r->ever == 2);
	close(fd);
	teardown();
}

static int claims;

static int
claim(void *arg, const union addr *from, const union addr *to,
    const unsigned char *p, size_t n)
{
	CHECK(arg == &claims);
	CHECK(addr_same_host(from, &r->local));
	CHECK(addr_same(to, &r->local));
	if (n < 4 || memcmp(p, "STUN", 4) != 0)
		return 0;
	claims++;
	return 1;
}

/* What natmap claims is not relayed, and does not hurt what is around it. */
static void
udp_claimed_datagrams_are_taken(void)
{
	union addr from;
	int fd, k;

	setup(SOCK_DGRAM, "127.0.0.1");
	r->calls.claim = claim;
	r->calls.arg = &claims;
	claims = 0;
	fd = dial_relay(SOCK_DGRAM, NULL);
	send(fd, "STUN", 4, 0);
	calm();
	CHECK(claims == 1 && r->ever == 0);
	send(fd, "a", 1, 0);
	send(fd, "STUN", 4, 0);
	send(fd, "b", 1, 0);
	for (k = 0; k < 2; k++) {
		CHECK(udp_get(target_fd, back, 9, &from) == 1);
		CHECK(back[0] == 'a' + k);
	}
	CHECK(claims == 2 && r->ever == 1);
	r->target.n = 0;                 /* STUN is heard without a target */
	send(fd, "STUN", 4, 0);
	calm();
	CHECK(claims == 3);
	close(fd);
	teardown();
}

static void
udp_target_that_is_the_mapped_port_is_refused(void)
{
	int fd;

	setup(SOCK_DGRAM, "0.0.0.0");
	target.a[0] = r->local;
	target.a[0].in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	relay_target(r, &target);
	fd = dial_relay(SOCK_DGRAM, NULL);
	send(fd, "x", 1, 0);
	send(fd, "x", 1, 0);
	calm();
	CHECK(r->ever == 0 && logged("itself, refused") == 1);
	close(fd);
	teardown();
}

/* A datagram that was forged to come from the target would go on for ever. */
static void
udp_client_that_is_the_target_is_refused(void)
{
	struct addrs two = target;
	union addr from;
	int fd;

	setup(SOCK_DGRAM, "127.0.0.1");
	CHECK(sendto(target_fd, "x", 1, 0, &r->local.sa,
	    addr_len(&r->local)) == 1);
	calm();
	CHECK(r->ever == 0);
	fd = bound(SOCK_DGRAM, "127.0.0.1", &from);
	two.a[0] = target.a[0];
	two.a[1] = from;
	two.n = 2;
	CHECK(connect(fd, &r->local.sa, addr_len(&r->local)) == 0);
	CHECK(echo(fd, 1));			/* same host, other port */
	relay_target(r, &two);                  /* the target moves there */
	CHECK(!echo(fd, 1));
	close(fd);
	teardown();
}

/* Once that it refuses, and once that it is there again. */
static void
a_target_that_refuses_is_said(void)
{
	struct end e[2];
	union addr a;
	int fd, k, udp;

	for (udp = 0; udp < 2; udp++) {
		setup(udp ? SOCK_DGRAM : SOCK_STREAM, "127.0.0.1");
		close(target_fd);
		for (k = 0; k < 3; k++) {
			fd = dial_relay(cfg.type, NULL);
			if (udp)
				send(fd, "x", 1, 0);
			calm();
			close(fd);
		}
		CHECK(logged(": Connection refused") == 1 + 3 * !udp);
		CHECK(logged("target 127.0.0.1:") == 1);
		a = target.a[0];
		target_fd = end_socket(AF_INET, cfg.type);
		fd_option(target_fd, SOL_SOCKET, SO_REUSEADDR, 1);
		CHECK(bind(target_fd, &a.sa, addr_len(&a)) == 0);
		for (k = 0; k < 3; k++) {
			if (udp) {
				fd = dial_relay(cfg.type, NULL);
				CHECK(echo(fd, 1));
				close(fd);
				continue;
			}
			listen(target_fd, 9);
			open_pair(e, NULL);
			shut_pair(e);
		}
		calm();
		CHECK(logged("answers again") == 1);
		CHECK(logged("target 127.0.0.1:") == 2);
		teardown();
	}
}

static void
udp_without_descriptors_drops(void)
{
	struct rlimit old, low;
	int fd, other;

	setup(SOCK_DGRAM, "127.0.0.1");
	fd = dial_relay(SOCK_DGRAM, NULL);
	CHECK(echo(fd, 1));
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	other = dial_relay(SOCK_DGRAM, NULL);
	low.rlim_cur = (rlim_t)other + 1;
	setrlimit(RLIMIT_NOFILE, &low);
	send(other, "x", 1, 0);
	calm();
	CHECK(r->ever == 1 && r->no_room == 1);
	CHECK(echo(fd, 1));
	setrlimit(RLIMIT_NOFILE, &old);
	CHECK(echo(other, 1));
	close(fd);
	close(other);
	teardown();
}

static void
tcp_sessions(void)
{
	RUN(a_session_is_small);
	if (!under_valgrind()) {
		RUN(bulk_without_descriptors);
		RUN(without_descriptors_the_listener_lives);
		RUN(without_descriptors_a_client_waits);
		RUN(udp_without_descriptors_drops);
	}
	RUN(two_descriptors_and_no_buffer_at_rest);
	RUN(nothing_at_rest_without_sessions);
	RUN(both_legs_are_tuned);
	RUN(every_order_of_three_events);
	RUN(half_close_is_carried_through);
	RUN(reset_follows_the_bytes);
	RUN(reset_waits_ten_seconds_at_most);
	RUN(proxy_header_of_both_families);
	RUN(two_dead_legs_end_at_once);
	RUN(what_ends_wakes_seldom);
#ifdef F_SETSIG
	RUN(quiet_when_nothing_moves);
#endif
}

static void
tcp_bytes_and_room(void)
{
	RUN(bulk_both_ways);
	RUN(the_pipe_is_empty_between_turns);
#ifdef SO_MEMINFO
	RUN(stalled_sessions_hold_little);
#endif
	RUN(a_paused_leg_that_hung_up_is_read_later);
	RUN(a_dead_leg_of_a_half_closed_session_is_seen);
	RUN(idle_expires_to_the_millisecond);
	RUN(what_is_not_taken_counts_as_idle);
	RUN(idle_limits_never_and_the_longest);
	RUN(all_idle_wakes_nothing);
	RUN(a_cold_session_is_served);
	RUN(bytes_before_arming_are_found);
	RUN(a_lost_signal_strands_nobody);
	RUN(an_overflow_strands_nobody);
	RUN(a_cold_paused_session_goes_on);
	RUN(a_cold_session_that_is_reset_ends);
	RUN(who_is_queued_is_accepted);
	RUN(a_refused_target_resets_the_client);
	RUN(all_addresses_are_tried);
	RUN(a_mute_address_has_ten_seconds);
	RUN(the_listener_waits_for_a_target);
	RUN(the_mapped_port_as_target_is_refused);
	RUN(the_same_port_elsewhere_is_no_self);
	RUN(room_is_made_in_order);
	RUN(a_crowd_behind_one_is_found);
	RUN(what_ends_makes_room);
	RUN(a_quarter_makes_room);
	RUN(no_more_than_a_quarter_is_safe);
	RUN(behind_a_queue_of_the_crowd);
	RUN(v6_sources_count_by_network);
	RUN(a_target_that_refuses_is_said);
	RUN(the_hash_spreads);
	RUN(full_waits_for_an_end);
	RUN(the_limit_follows_the_machine);
	RUN(totals_are_told);
}

static void
udp_sessions(void)
{
	RUN(udp_datagrams_of_all_sizes);
	RUN(udp_over_ipv6);
	RUN(udp_batches_keep_order_and_size);
	RUN(udp_runs_are_equal_but_for_the_last);
	RUN(udp_runs_wider_than_the_path);
	RUN(udp_answers_from_the_address_asked);
	RUN(udp_refusal_keeps_the_session);
	RUN(udp_room_is_made_in_order);
	RUN(udp_ports_rest);
	RUN(udp_client_that_is_the_target_is_refused);
	RUN(udp_idle_and_cold);
	RUN(udp_claimed_datagrams_are_taken);
	RUN(udp_target_that_is_the_mapped_port_is_refused);
}

int
main(int argc, char **argv)
{
	check_args(argc, argv);
	log_file = tmpfile();
	fcntl(fileno(log_file), F_SETFL, O_APPEND);
	log_fd = fileno(log_file);
	log_level = 1;
	signal(SIGPIPE, SIG_IGN);
	tcp_sessions();
	tcp_bytes_and_room();
	udp_sessions();
	return check_done();
}
