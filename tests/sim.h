/* SPDX-License-Identifier: MIT */
/*
 * The simulated world of the tests of natmap.c, which includes that file.
 *
 * The policy runs here without any socket.  All that it uses of stun.c and
 * relay.c is replaced by servers that are rows of a table and behave as the
 * test says, and so are the clock, the look-up of names and the random
 * numbers.  STUN servers are called a to p, HTTP servers w to z; a host "ab"
 * is a name with two addresses, those of a and b.  Every event is recorded
 * with its time, in ms since the start.
 */
#include "../natmap.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <ifaddrs.h>
#include <limits.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int64_t sim_now_ms(void);
static int64_t sim_wake_wait(struct wake *, int64_t);
static uint32_t sim_random_below(uint32_t);
static int sim_lookup_start(struct lookup *, const char *, int, int, int64_t);
static void sim_lookup_want(struct lookup *, struct wake *);
static int sim_lookup_step(struct lookup *, const struct wake *, int64_t);
static int sim_route_open(void);
static void sim_route_read(int);
static void sim_route_find(const struct local *, const union addr *,
    struct route *);
static int sim_local_socket(struct local *, enum local_role);
static void sim_local_release(struct local *);
static int sim_local_rebind(const struct local *, int);
static int sim_local_owner(const struct local *, struct owner *);
static void sim_stun_indicate(int, const union addr *);
static void sim_flow_stop(struct flow *, int);
static int sim_flow_start(struct flow *, enum flow_kind, int, int,
    const union addr *, const char *, int64_t, int64_t);
static int sim_flow_ask(struct flow *, int, int64_t, int64_t);
static void sim_flow_want(struct flow *, struct wake *);
static int sim_flow_step(struct flow *, const struct wake *, int64_t);
static int sim_flow_claim(struct flow *, const union addr *,
    const union addr *, const unsigned char *, size_t);
static void *sim_calloc(size_t, size_t);
static void sim_free(void *);
int natmap_main(int, char **);

#define main		natmap_main
#define now_ms		sim_now_ms
#define wake_wait	sim_wake_wait
#define random_below	sim_random_below
#define lookup_start	sim_lookup_start
#define lookup_want	sim_lookup_want
#define lookup_step	sim_lookup_step
#include "../stun.c"
#define route_open	sim_route_open
#define route_read	sim_route_read
#define route_find	sim_route_find
#define local_socket	sim_local_socket
#define local_release	sim_local_release
#define local_rebind	sim_local_rebind
#define local_owner	sim_local_owner
#define stun_indicate	sim_stun_indicate
#define flow_stop	sim_flow_stop
#define flow_start	sim_flow_start
#define flow_ask	sim_flow_ask
#define flow_want	sim_flow_want
#define flow_step	sim_flow_step
#define flow_claim	sim_flow_claim
#define calloc		sim_calloc
#define free		sim_free
#include "../natmap.c"
#undef calloc
#undef free
#undef main

#include "check.h"

/* No test program uses all of this. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"

#define LEN(a)		(sizeof(a) / sizeof *(a))
#define START		1000000		/* of the clock, ms */
#define ANSWER_TIME	30		/* of a good server, ms */
#define MINUTES		* 60000
#define SECONDS		* 1000
#define NEWS_FD		1000000		/* never opened */
#define FLOWS		(CONTACTS + 4)

/*
 * The simulated world.
 */

enum mode { GOOD, MUTE, REFUSING, ERRING, JUNK, NO_ROUTE };

static const enum mode bad_modes[] = { MUTE, REFUSING, ERRING, JUNK,
    NO_ROUTE };

struct peer {
	int who;
	union addr addr;
	enum mode mode;
	int delay;		/* ms until it answers */
	union addr mapped;	/* what it sees of new flows */
	union addr lie;		/* family 0: it tells what it sees */
	int honest;		/* so many times before it lies */
	int varies;		/* each lie has another port */
	int close_after;	/* ms after an answer; -1 never */
	int resets;		/* it closes so, which the NAT remembers */
	union addr old;		/* as what, and */
	int64_t remembered;	/* until when */
	int64_t born;		/* UDP: when the NAT met that flow */
	int says_close;		/* HTTP: with Connection: close */
	int keep_timeout, keep_max;	/* of Keep-Alive:, or -1 */
	union addr other;	/* where else it answers from; family 0 */
	enum change { HONEST, SAME, REFUSES, SILENT } change;   /* if asked */
};

struct path {			/* of a flow, through the NAT */
	const void *of;		/* NULL: unused */
	struct peer *p;
	int shared;		/* on the relay's socket */
	int dropped;		/* the NAT drops its packets */
	union addr mapped;	/* a flow keeps the mapping that it got */
	int64_t answer, end;	/* ms: when these come; or NEVER */
	int error;		/* of the end */
};

enum what { OPENED, ASKED, ANSWERED, ENDED, STOPPED, INDICATED };

struct event {
	int64_t at;
	enum what what;
	int who;
	int others;		/* OPENED: flows to who that were open */
};

static struct {
	struct config c;
	struct map m;
	struct wake w;
	int64_t now;
	struct peer peer[20];
	struct path path[FLOWS];
	struct event ev[40000];
	int nev;
	int ncalls;		/* of the script */
	struct { int64_t at; char text[ADDR_TEXT], local[ADDR_TEXT]; }
	    call[64];
	int turns;		/* wake-ups ... */
	int own;		/* ... for which nothing came from outside */
	int same;		/* turns at the same time, one after another */
	int spun;
	int unsound;		/* turns after which sound() did not hold */
	uint32_t random;
	int remembers;          /* the NAT knows UDP flows for 30 s, 120 s after
				   a packet 2 s after the first */
	int dns_dead;		/* no name server answers */
	int dns_fails;		/* they say no, at once */
	int no_fds;		/* for the look-up's child */
	int lookups;		/* of the target */
	int busy_lo, busy_hi;	/* ports that cannot be had */
	int nobody;		/* nobody listens on the port */
	int no_device;		/* that of -i does not exist */
	union addr source;	/* ours; family 0: no route */
	int no_default;		/* a route to the servers only */
	unsigned index;		/* of the interface; 0 cannot be told */
	int news;		/* the kernel has some */
	FILE *log;
	int fds;		/* that were open at the start */
	int served;		/* relay_start() calls */
	int filters;		/* the NAT: 1 addresses, 2 ports as well */
	int taken;		/* somebody else listens on the port */
	int status;		/* of HTTP, and the body */
	const char *body;
	struct addrs target;	/* of the relay */
} sim;

static int64_t
since_start(void)
{
	return sim.now - START;
}

static struct peer *
peer(int who)
{
	return &sim.peer[who >= 'w' ? 16 + who - 'w' : who - 'a'];
}

/* NULL when it is no server's */
static struct peer *
find_peer(const union addr *a)
{
	size_t i;

	for (i = 0; i < LEN(sim.peer); i++)
		if (addr_same(&sim.peer[i].addr, a))
			return &sim.peer[i];
	return NULL;
}

static struct peer *
peer_at(const union addr *a)
{
	struct peer *p = find_peer(a);

	CHECK(p);
	return p ? p : sim.peer;
}

static void
record(enum what what, int who)
{
	struct event *e = &sim.ev[sim.nev];
	int i;

	if (sim.nev == (int)LEN(sim.ev)) {
		sim.spun = 1;
		return;
	}
	sim.nev++;
	e->at = since_start();
	e->what = what;
	e->who = who;
	e->others = 0;
	for (i = 0; i < FLOWS; i++)
		e->others += sim.path[i].of && sim.path[i].p->who == who;
}

static struct path *
path_of(const void *of)
{
	int i;

	for (i = 0; i < FLOWS; i++)
		if (sim.path[i].of == of)
			return &sim.path[i];
	return NULL;
}

/* A packet of a UDP flow to p leaves: what the NAT makes of its address. */
static union addr
remember(struct peer *p)
{
	if (!sim.remembers)
		return p->mapped;
	if (sim.now >= p->remembered) {
		p->born = sim.now;
		p->old = p->mapped;
	}
	p->remembered = sim.now + (sim.now > p->born + 2 SECONDS ?
	    120 SECONDS : 30 SECONDS);
	return p->old;
}

static int
is_udp_flow(const void *of)
{
	return ((const struct flow *)of)->kind == FLOW_UDP;
}

static void
path_open(const void *of, const union addr *to, int shared)
{
	struct path *f = path_of(NULL);

	record(OPENED, peer_at(to)->who);
	f->of = of;
	f->p = peer_at(to);
	f->shared = shared;
	f->dropped = 0;
	f->mapped = is_udp_flow(of) ? remember(f->p) :
	    sim.now < f->p->remembered ? f->p->old : f->p->mapped;
	f->answer = f->end = NEVER;
}

/* What the server will do with a request that comes now. */
static void
path_ask(const void *of)
{
	struct path *f = path_of(of);
	int64_t then = sim.now + f->p->delay;

	record(ASKED, f->p->who);
	f->answer = f->end = NEVER;
	if (f->p->mode == MUTE || f->p->mode == NO_ROUTE || f->dropped)
		return;
	if (f->p->mode == GOOD) {
		f->answer = then;
		f->error = f->p->resets ? ECONNRESET : ECLOSED;
		if (f->p->close_after >= 0 && !f->shared)
			f->end = then + f->p->close_after;
		return;
	}
	if (f->shared && f->p->mode != ERRING)
		return;		/* the relay keeps such things from us */
	f->end = then;
	f->error = f->p->mode == REFUSING ? ECONNREFUSED :
	    f->p->mode == ERRING ? EREFUSED + 420 : ENOTANSWER;
}

static void
path_close(const void *of, enum what what)
{
	struct path *f = path_of(of);

	if (!f)
		return;
	f->of = NULL;
	record(what, f->p->who);
	if (is_udp_flow(of))
		return;
	f->p->old = f->mapped;
	f->p->remembered = what == ENDED && f->error == ECONNRESET &&
	    sim.now >= f->end ? sim.now + 10 SECONDS : 0;
}

/* 1 an answer is due, -1 the end with errno, 0 */
static int
path_step(const void *of, int64_t deadline)
{
	struct path *f = path_of(of);

	if (sim.now >= f->answer) {
		f->answer = NEVER;
		record(ANSWERED, f->p->who);
		return 1;
	}
	if (sim.now >= f->end || sim.now >= deadline) {
		errno = sim.now >= f->end ? f->error : ETIMEDOUT;
		return -1;
	}
	return 0;
}

static void
path_want(const void *of, struct wake *w)
{
	wake_at(w, path_of(of)->answer);
	wake_at(w, path_of(of)->end);
}

/* The server ends all flows to it now, as error tells. */
static void
cut_by(int who, int error)
{
	int i;

	for (i = 0; i < FLOWS; i++)
		if (sim.path[i].of && sim.path[i].p->who == who &&
		    !sim.path[i].shared) {
			sim.path[i].end = sim.now;
			sim.path[i].answer = NEVER;
			sim.path[i].error = error;
		}
}

static void
cut(int who)
{
	cut_by(who, ECLOSED);
}

/* The NAT forgets all flows, and drops their packets from now on. */
static void
forgotten(void)
{
	int i;

	for (i = 0; i < FLOWS; i++) {
		sim.path[i].dropped = 1;
		sim.path[i].answer = sim.path[i].end = NEVER;
	}
	for (i = 0; i < (int)LEN(sim.peer); i++)
		sim.peer[i].remembered = 0;
}

/* 1 when something comes from outside at that time */
static int
something_comes(int64_t at)
{
	int i;

	for (i = 0; i < FLOWS; i++)
		if (sim.path[i].of && (sim.path[i].answer <= at ||
		    sim.path[i].end <= at))
			return 1;
	return sim.news;
}

/*
 * Instead of stun.c.
 */

static int
sim_local_socket(struct local *l, enum local_role role)
{
	if (sim.no_device) {
		errno = ENODEV;
		return -1;
	}
	if ((l->port && l->port >= sim.busy_lo && l->port <= sim.busy_hi) ||
	    (role == LOCAL_SERVER && sim.taken)) {
		errno = EADDRINUSE;
		return -1;
	}
	if (!l->port)
		l->port = 50000;
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static void
sim_local_release(struct local *l)
{
	(void)l;
}

static int
sim_local_rebind(const struct local *l, int fd)
{
	(void)l;
	(void)fd;
	return 0;
}

static int
sim_local_owner(const struct local *l, struct owner *o)
{
	(void)l;
	memset(o, 0, sizeof *o);
	if (sim.nobody)
		return 0;
	strcpy(o->name, "httpd");
	o->pid = 4711;
	o->uid = 33;
	o->listening = 1;
	return 1;
}

static void
sim_route_find(const struct local *l, const union addr *to, struct route *r)
{
	memset(r, 0, sizeof *r);
	if (sim.no_default && !find_peer(to))
		return;
	r->source = sim.source;
	addr_set_port(&r->source, l->port);
	r->index = sim.index;
	r->flags = sim.index ? IFF_UP | IFF_RUNNING : 0;
}

static void
sim_stun_indicate(int fd, const union addr *to)
{
	CHECK(fd >= 0);
	record(INDICATED, peer_at(to)->who);
	remember(peer_at(to));
}

static void
flow_close(struct flow *f, enum what what)
{
	int e = errno;

	path_close(f, what);
	if (f->state != FLOW_CLOSED && !f->shared)
		close(f->fd);
	f->fd = -1;
	f->state = FLOW_CLOSED;
	errno = e;
}

static void
sim_flow_stop(struct flow *f, int abort)
{
	(void)abort;
	flow_close(f, STOPPED);
}

static int
sim_flow_start(struct flow *f, enum flow_kind kind, int fd, int shared,
    const union addr *to, const char *host, int64_t now, int64_t deadline)
{
	CHECK(f->state == FLOW_CLOSED);
	memset(f, 0, sizeof *f);
	f->kind = kind;
	f->fd = fd;
	f->state = FLOW_ASKING;
	f->shared = shared;
	f->ends.peer = *to;
	f->host = host;
	f->born = now;
	path_open(f, to, shared);
	if (peer_at(to)->mode == NO_ROUTE) {
		errno = ENETUNREACH;
		flow_close(f, ENDED);
		return -1;
	}
	if (deadline == NEVER) {
		f->deadline = deadline;
		return 0;
	}
	return sim_flow_ask(f, 0, now, deadline);
}

/* A server is asked to answer from its other address and its other port. */
static void
path_change(const struct flow *f)
{
	struct path *p = path_of(f), *q;
	int port = addr_port(&p->p->other);

	if (p->p->change == SAME)
		return;
	if (p->p->change == REFUSES) {
		p->end = p->answer;
		p->error = EREFUSED + 420;
	}
	for (q = sim.path; q < sim.path + FLOWS; q++)
		if (q->of && p->p->change == HONEST && sim.filters < 2 &&
		    addr_port(&q->p->addr) == port && (!sim.filters ||
		    addr_same_host(&q->p->addr, &p->p->addr)))
			q->answer = p->answer;
	p->answer = NEVER;
}

static int
sim_flow_ask(struct flow *f, int last, int64_t now, int64_t deadline)
{
	CHECK(f->fd >= 0 && now == sim.now && deadline > now);
	f->last = last;
	f->state = FLOW_ASKING;
	f->asked = now;
	f->deadline = deadline;
	path_ask(f);
	if (last && f->kind == FLOW_UDP)
		path_change(f);
	else if (last && path_of(f)->answer != NEVER)
		path_of(f)->end = path_of(f)->answer + 10;
	return 0;
}

static void
sim_flow_want(struct flow *f, struct wake *w)
{
	if (f->state == FLOW_CLOSED)
		return;
	wake_at(w, f->deadline);
	path_want(f, w);
}

static int
flow_result(struct flow *f, int r)
{
	struct path *p = path_of(f);

	if (r > 0) {
		f->state = FLOW_OPEN;
		f->deadline = NEVER;
		f->ends.mapped = p->mapped;
		if (p->p->lie.sa.sa_family && --p->p->honest < 0) {
			f->ends.mapped = p->p->lie;
			addr_set_port(&p->p->lie, addr_port(&p->p->lie) +
			    p->p->varies);
		}
		f->ends.other = p->p->other;
		f->status = sim.status;
		if (sim.body)
			strcpy((char *)f->buf, sim.body);
		f->ends.local = sim.source;
		addr_set_port(&f->ends.local, sim.m.local.port);
		f->timeout = p->p->keep_timeout;
		f->max = p->p->keep_max;
		f->closes = f->last || p->p->says_close ? 2 : 0;
	} else if (r < 0) {
		flow_close(f, ENDED);
	}
	return r;
}

static int
sim_flow_step(struct flow *f, const struct wake *w, int64_t now)
{
	(void)w;
	CHECK(now == sim.now);
	if (f->state == FLOW_CLOSED || (f->shared && now < f->deadline))
		return 0;
	return flow_result(f, path_step(f, f->deadline));
}

static int
sim_flow_claim(struct flow *f, const union addr *from, const union addr *to,
    const unsigned char *p, size_t n)
{
	(void)to;
	(void)p;
	(void)n;
	if (f->state != FLOW_ASKING || !addr_same(from, &f->ends.peer))
		return 0;
	return flow_result(f, path_step(f, NEVER));
}

/*
 * Instead of relay.c: it takes STUN answers for the flows that share its
 * port.
 */

static struct relay {
	struct relay_calls calls;
	int fd;
} the_relay;

struct relay *
relay_start(const struct config *cfg, const struct relay_calls *calls, int fd,
    int64_t now)
{
	(void)cfg;
	(void)now;
	the_relay.calls = *calls;
	the_relay.fd = fd;
	sim.served++;
	return &the_relay;
}

int
relay_fd(const struct relay *r)
{
	return r ? r->fd : -1;
}

void
relay_target(struct relay *r, const struct addrs *to)
{
	(void)r;
	sim.target = *to;
}

void
relay_accept(struct relay *r)
{
	(void)r;
}

void
relay_want(struct relay *r, struct wake *w)
{
	(void)r;
	(void)w;
}

void
relay_step(struct relay *r, struct wake *w, int64_t now)
{
	struct path *f;

	(void)w;
	for (f = sim.path; f < sim.path + FLOWS; f++)
		if (f->of && f->shared &&
		    (now >= f->answer || now >= f->end))
			CHECK(r->calls.claim(r->calls.arg, &f->p->addr,
			    &sim.source, NULL, 0) == 1);
}

void
relay_report(const struct relay *r)
{
	(void)r;
}

void
relay_stop(struct relay *r)
{
	if (r)
		close(r->fd);
}

/*
 * Instead of some of timer.c.
 */

static int64_t
sim_now_ms(void)
{
	return sim.now;
}

static uint32_t
sim_random_below(uint32_t n)
{
	sim.random = sim.random * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)sim.random * n >> 32);
}

/* A host is letters, one for each address; it is found at once. */
static int
sim_lookup_start(struct lookup *l, const char *host, int port, int family,
    int64_t deadline)
{
	const char *p;

	sim.lookups += sim.m.target && l == &sim.m.target->lookup;
	if (sim.no_fds) {
		errno = EMFILE;
		return -1;
	}
	l->pid = -1;
	l->deadline = deadline;
	l->got.n = 0;
	if (addr_parse(&l->got.a[0], host, family) == 0) {
		addr_set_port(&l->got.a[0], port);
		l->got.n = 1;
	}
	for (p = l->got.n ? "" : host; *p && l->got.n < MAX_ADDRS; p++)
		l->got.a[l->got.n++] = peer(*p)->addr;
	return 0;
}

static int
is_found(const struct lookup *l)
{
	return !sim.dns_dead && !sim.dns_fails && l->got.n > 0;
}

static int
is_done(const struct lookup *l)
{
	return is_found(l) || sim.dns_fails;
}

static void
sim_lookup_want(struct lookup *l, struct wake *w)
{
	if (l->pid)
		wake_at(w, is_done(l) ? 0 : l->deadline);
}

static int
sim_lookup_step(struct lookup *l, const struct wake *w, int64_t now)
{
	(void)w;
	if (!l->pid || (!is_done(l) && now < l->deadline))
		return 0;
	l->pid = 0;
	l->gai = EAI_AGAIN;
	errno = ETIMEDOUT;
	return is_found(l) ? 1 : -1;
}

static int
sim_route_open(void)
{
	return NEWS_FD;
}

static void
sim_route_read(int fd)
{
	CHECK(fd == NEWS_FD);
	sim.news = 0;
}

/* The time goes on to the deadline; stdout can always be written. */
static int64_t
sim_wake_wait(struct wake *w, int64_t now)
{
	int64_t at = w->deadline > now ? w->deadline : now;
	int i;

	for (i = 0; i < w->n; i++) {
		w->fds[i].revents = 0;
		if (w->fds[i].fd == STDOUT_FILENO)
			w->fds[i].revents = POLLOUT;
		else if (w->fds[i].fd == NEWS_FD && sim.news)
			w->fds[i].revents = POLLIN;
		if (w->fds[i].revents)
			at = now;
	}
	sim.turns++;
	sim.own += !something_comes(at);
	sim.same = at == now ? sim.same + 1 : 0;
	if (sim.same == 50 || at == NEVER) {
		sim.spun = 1;
		at = now + 1;
	}
	return sim.m.now = sim.now = at;
}

/*
 * Running a scenario.
 */

static int
open_fds(void)
{
	int fd, n = 0;

	for (fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

/* Splits args at blanks; "@" is an empty argument, ^ a blank in one. */
static int
split(char *args, char **argv)
{
	char *p;
	int n = 0;

	argv[n++] = (char *)(uintptr_t)"natmap";
	for (args = strtok(args, " "); args; args = strtok(NULL, " ")) {
		argv[n++] = strcmp(args, "@") ? args : args + 1;
		for (p = args; *p; p++)
			if (*p == '^')
				*p = ' ';
	}
	argv[n] = NULL;
	return n;
}

static void
options(struct config *c, const char *args)
{
	static char text[8192];
	char *argv[64];
	int argc;

	snprintf(text, sizeof text, "%s", args);
	argc = split(text, argv);
	optind = 0;		/* getopt starts anew */
	opt = NULL;
	read_options(c, argc, argv);
}

/* Values of options: the program never frees them. */
static char *kept[64];

static void *
sim_calloc(size_t n, size_t size)
{
	size_t i = 0;

	while (kept[i])
		i++;
	return kept[i] = calloc(n, size);
}

static void
sim_free(void *value)
{
	size_t i = 0, last = 0;

	while (kept[i] && kept[i] != value)
		i++;
	while (kept[last])
		last++;
	if (i < last) {
		kept[i] = kept[--last];
		kept[last] = NULL;
		free(value);
	}
}

static void
options_free(struct config *c)
{
	size_t i;

	for (i = 0; i < LEN(kept); i++) {
		free(kept[i]);
		kept[i] = NULL;
	}
	memset(c, 0, sizeof *c);
}

static void
set_addr(union addr *a, const char *host, int port)
{
	addr_parse(a, host, AF_UNSPEC);
	addr_set_port(a, port);
}

static void
set_mapped(struct peer *p, const char *host, int port)
{
	set_addr(&p->mapped, host, port);
}

static void
peers_init(void)
{
	char host[32];
	int i;

	for (i = 0; i < (int)LEN(sim.peer); i++) {
		sim.peer[i].who = i < 16 ? 'a' + i : 'w' + i - 16;
		snprintf(host, sizeof host, "10.0.0.%d", i + 1);
		addr_parse(&sim.peer[i].addr, host, AF_INET);
		addr_set_port(&sim.peer[i].addr, i < 16 ? 3478 : 80);
		set_mapped(&sim.peer[i], "203.0.113.7", 40000);
		sim.peer[i].delay = ANSWER_TIME;
		sim.peer[i].close_after = -1;
		sim.peer[i].keep_timeout = sim.peer[i].keep_max = -1;
	}
}

/* A world of good servers. */
static void
world(void)
{
	memset(&sim, 0, sizeof sim);
	sim.now = START;
	sim.random = 1;
	sim.busy_lo = 1;	/* to 0: none */
	sim.index = 2;
	peers_init();
	addr_parse(&sim.source, "192.168.1.10", AF_INET);
	sim.log = tmpfile();
	sim.fds = open_fds();
	log_fd = fileno(sim.log);
}

/* natmap is about to run in it. */
static void
start(const char *args)
{
	options(&sim.c, args);
	log_level = sim.c.level;
	wake_clear(&sim.w);
	map_init(&sim.m, &sim.c, &sim.w);
}

static void
begin(const char *args)
{
	world();
	start(args);
}

static void
end(void)
{
	struct path *f;

	map_end(&sim.m, SIGTERM);
	sim.m.news = -1;
	map_stop(&sim.m);
	free(sim.w.fds);
	memset(&sim.w, 0, sizeof sim.w);
	options_free(&sim.c);
	CHECK(!sim.spun);
	CHECK(!sim.unsound);
	for (f = sim.path; f < sim.path + FLOWS; f++)
		CHECK(!f->of);
	CHECK(open_fds() == sim.fds);
	fclose(sim.log);
	log_fd = STDERR_FILENO;
	log_level = 0;
}

/* As hook_deliver() does: the newest mapping is what the script is called
 * with. */
static void
hook_sent(struct hook *h)
{
	h->sent = h->next;
	h->pending = 0;
}

/* Takes the call that the script would get. */
static void
take_call(void)
{
	struct hook *h = &sim.m.hook;

	if (!h->pending)
		return;
	hook_sent(h);
	hook_done(h);
	if (sim.ncalls == (int)LEN(sim.call)) {
		sim.spun = 1;
		return;
	}
	sim.call[sim.ncalls].at = since_start();
	(void)addr_text(&h->next.mapped, sim.call[sim.ncalls].text);
	(void)addr_text(&h->next.local, sim.call[sim.ncalls].local);
	sim.ncalls++;
}

/* What holds after every turn: who has a server has a flow to it or waits for
 * its look-up, only a holder may be without, and somebody holds. */
static int
sound(void)
{
	const struct contact *c;
	int busy = 0;

	for (c = sim.m.contact; c < sim.m.contact + CONTACTS; c++) {
		busy += !c->http && (c->role == HOLDS || c->role == CHECKS);
		if (c->event)
			continue;
		if (c->use.s ? !is_open(c) && !c->use.s->lookup.pid :
		    is_open(c))
			return 0;
		if (c->role == FREE ? c->use.s != NULL :
		    c->role != HOLDS && !c->use.s)
			return 0;
	}
	return busy || sim.now < sim.m.serve_at;
}

/* One turn of the loop; 0 when nothing is to be done until then.  A turn that
 * does not wait must change something, or it is the first of many. */
static int
turn(int64_t until)
{
	static struct map before;
	int overdue;

	take_call();
	wake_clear(&sim.w);
	contacts_want(&sim.m);
	map_want(&sim.m);
	if (!sim.news && sim.w.deadline > until)
		return 0;
	overdue = !sim.news && sim.w.deadline <= sim.now;
	memcpy(&before, &sim.m, overdue ? sizeof before : 0);
	sim_wake_wait(&sim.w, sim.now);
	map_step(&sim.m);
	if (overdue && memcmp(&before, &sim.m, sizeof before) == 0)
		sim.spun = 1;
	sim.unsound += !sound();
	return !sim.spun;
}

static void
go_on(int64_t ms)
{
	int64_t until = sim.now + ms;

	while (turn(until))
		;
	sim.m.now = sim.now = until;
}

/* how many such events there were after from, until to; who 0: of all */
static int
count(enum what what, int who, int64_t from, int64_t to)
{
	int i, n = 0;

	for (i = 0; i < sim.nev; i++)
		n += sim.ev[i].what == what && sim.ev[i].at > from &&
		    sim.ev[i].at <= to && (!who || sim.ev[i].who == who);
	return n;
}

static int
ever(enum what what, int who)
{
	return count(what, who, -1, since_start());
}

/* when such an event came for the first time at or after from; NEVER */
static int64_t
first(enum what what, int who, int64_t from)
{
	int i;

	for (i = 0; i < sim.nev; i++)
		if (sim.ev[i].what == what && sim.ev[i].at >= from &&
		    (!who || sim.ev[i].who == who))
			return sim.ev[i].at;
	return NEVER;
}

/* the longest and, in *least, the shortest time between two such events */
static int64_t
gaps(enum what what, int who, int64_t from, int64_t to, int64_t *least)
{
	int64_t last = from, most = 0;
	int i, n = 0;

	*least = NEVER;
	for (i = 0; i < sim.nev; i++) {
		if (sim.ev[i].what != what || sim.ev[i].at <= from ||
		    sim.ev[i].at > to || (who && sim.ev[i].who != who))
			continue;
		if (sim.ev[i].at - last > most)
			most = sim.ev[i].at - last;
		if (n++ && sim.ev[i].at - last < *least)
			*least = sim.ev[i].at - last;
		last = sim.ev[i].at;
	}
	return to - last > most ? to - last : most;
}

static int64_t
longest(enum what what, int who, int64_t from, int64_t to)
{
	int64_t least;

	return gaps(what, who, from, to, &least);
}

/* The fewest hosts that answered within any window of that length. */
static int
fewest_hosts(int64_t window, int64_t from, int64_t to)
{
	int64_t t;
	int i, n, fewest = INT_MAX;

	for (t = from; t + window <= to; t += 500) {
		for (n = i = 0; i < (int)LEN(sim.peer); i++)
			n += count(ANSWERED, sim.peer[i].who, t, t + window) >
			    0;
		if (n < fewest)
			fewest = n;
	}
	return fewest;
}

/* how often the log has that text */
static int
logged(const char *text)
{
	static char log[1 << 16];
	ssize_t n = pread(fileno(sim.log), log, sizeof log - 1, 0);
	const char *p;
	int times = 0;

	log[n > 0 ? n : 0] = '\0';
	for (p = log; (p = strstr(p, text)); p++)
		times++;
	return times;
}

static void
all_peers(enum mode mode)
{
	size_t i;

	for (i = 0; i < LEN(sim.peer); i++)
		sim.peer[i].mode = mode;
}

/* The NAT gives new flows another public address. */
static void
moves_to(const char *host, int port)
{
	size_t i;

	for (i = 0; i < LEN(sim.peer); i++)
		set_mapped(&sim.peer[i], host, port);
}

static int
told(int i, const char *text)
{
	return i < sim.ncalls && strcmp(sim.call[i].text, text) == 0;
}

/*
 * What ends the process runs in a child, its output in files.
 */

static struct {
	int status;		/* of the exit; -1 by a signal */
	char out[16384], err[16384];
} ran;

static void
fetch(FILE *f, char *buf, size_t size)
{
	ssize_t n = pread(fileno(f), buf, size - 1, 0);

	buf[n > 0 ? n : 0] = '\0';
	fclose(f);
}

static void
capture(void (*f)(const char *), const char *arg)
{
	FILE *o = tmpfile(), *e = tmpfile();
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		dup2(fileno(o), STDOUT_FILENO);
		dup2(fileno(e), STDERR_FILENO);
		f(arg);
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	fetch(o, ran.out, sizeof ran.out);
	fetch(e, ran.err, sizeof ran.err);
}

static int
ends_with(const char *s, const char *tail)
{
	return strlen(s) >= strlen(tail) &&
	    strcmp(s + strlen(s) - strlen(tail), tail) == 0;
}

/* What main() returns: fds were open at its start, and are again. */
static int
sim_done(int fds)
{
	int failed = check_done();

	if (open_fds() != fds) {
		printf("not ok descriptor leak\n");
		failed = 1;
	}
	return failed;
}

#pragma GCC diagnostic pop
