/* SPDX-License-Identifier: MIT */
/*
 * Tests of natmap.c: options, output, log, and the policy of the mapping.
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
static int sim_news_open(void);
static void sim_news_read(int);
static unsigned sim_link_of(const char *, const union addr *, unsigned *);
static int sim_kill(pid_t, int);
int natmap_main(int, char **);

#define main		natmap_main
#define now_ms		sim_now_ms
#define wake_wait	sim_wake_wait
#define random_below	sim_random_below
#define lookup_start	sim_lookup_start
#define lookup_want	sim_lookup_want
#define lookup_step	sim_lookup_step
#define news_open	sim_news_open
#define news_read	sim_news_read
#define link_of		sim_link_of
#define kill		sim_kill
#include "../natmap.c"
#undef main

#include "check.h"

#define LEN(a)		(sizeof(a) / sizeof *(a))
#define START		1000000		/* of the clock, ms */
#define ANSWER_TIME	30		/* of a good server, ms */
#define MINUTES		* 60000
#define SECONDS		* 1000
#define NEWS_FD		1000000		/* never opened */
#define FLOWS		(ASKS + KEEPERS)

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
	int close_after;	/* ms after an answer; -1 never */
	int resets;		/* it closes so, which the NAT remembers */
	union addr old;		/* as what, and */
	int64_t remembered;	/* until when */
	int says_close;		/* HTTP: with Connection: close */
	int keep_timeout, keep_max;	/* of Keep-Alive:, or -1 */
};

struct flow {			/* a binding's or a keepalive's */
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
	struct flow flow[FLOWS];
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
	int killed;		/* the last signal to the script */
	FILE *log;
	int fds;		/* that were open at the start */
	int served;		/* relay_start() calls */
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
		e->others += sim.flow[i].of && sim.flow[i].p->who == who;
}

static struct flow *
flow_of(const void *of)
{
	int i;

	for (i = 0; i < FLOWS; i++)
		if (sim.flow[i].of == of)
			return &sim.flow[i];
	return NULL;
}

static void
flow_open(const void *of, const union addr *to, int shared)
{
	struct flow *f = flow_of(NULL);

	record(OPENED, peer_at(to)->who);
	f->of = of;
	f->p = peer_at(to);
	f->shared = shared;
	f->dropped = 0;
	f->mapped = sim.now < f->p->remembered ? f->p->old : f->p->mapped;
	f->answer = f->end = NEVER;
}

/* What the server will do with a request that comes now. */
static void
flow_ask(const void *of)
{
	struct flow *f = flow_of(of);
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
	    f->p->mode == ERRING ? EREFUSED : ENOTANSWER;
}

static void
flow_close(const void *of, enum what what)
{
	struct flow *f = flow_of(of);

	if (!f)
		return;
	f->of = NULL;
	f->p->old = f->mapped;
	f->p->remembered = what == ENDED && f->error == ECONNRESET &&
	    sim.now >= f->end ? sim.now + 10 SECONDS : 0;
	record(what, f->p->who);
}

/* 1 an answer is due, -1 the end with errno, 0 */
static int
flow_step(const void *of, int64_t deadline)
{
	struct flow *f = flow_of(of);

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
flow_want(const void *of, struct wake *w)
{
	wake_at(w, flow_of(of)->answer);
	wake_at(w, flow_of(of)->end);
}

/* The server ends all flows to it now, as error tells. */
static void
cut_by(int who, int error)
{
	int i;

	for (i = 0; i < FLOWS; i++)
		if (sim.flow[i].of && sim.flow[i].p->who == who &&
		    !sim.flow[i].shared) {
			sim.flow[i].end = sim.now;
			sim.flow[i].answer = NEVER;
			sim.flow[i].error = error;
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
		sim.flow[i].dropped = 1;
		sim.flow[i].answer = sim.flow[i].end = NEVER;
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
		if (sim.flow[i].of && (sim.flow[i].answer <= at ||
		    sim.flow[i].end <= at))
			return 1;
	return sim.news;
}

/*
 * Instead of stun.c.
 */

int
local_socket(struct local *l, enum local_role role, const char **why)
{
	(void)role;
	if (why)
		*why = NULL;
	if (sim.no_device) {
		errno = ENODEV;
		return -1;
	}
	if (l->port && l->port >= sim.busy_lo && l->port <= sim.busy_hi) {
		errno = EADDRINUSE;
		return -1;
	}
	if (!l->port)
		l->port = 50000;
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

int
local_rebind(const struct local *l, int fd)
{
	(void)l;
	(void)fd;
	return 0;
}

int
local_owner(const struct local *l, struct owner *o)
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

int
local_source(const struct local *l, const union addr *to, union addr *src)
{
	(void)l;
	*src = sim.source;
	errno = ENETUNREACH;
	if (sim.no_default && !find_peer(to))
		return -1;
	return sim.source.sa.sa_family ? 0 : -1;
}

int
stun_indicate(int fd, const union addr *to)
{
	CHECK(fd >= 0);
	record(INDICATED, peer_at(to)->who);
	return 0;
}

void
binding_init(struct binding *b)
{
	memset(b, 0, sizeof *b);
	b->fd = b->slot = -1;
}

static void
binding_close(struct binding *b, enum what what)
{
	int e = errno;

	flow_close(b, what);
	if (b->fd >= 0 && !b->shared)
		close(b->fd);
	b->fd = -1;
	b->state = B_CLOSED;
	errno = e;
}

void
binding_stop(struct binding *b)
{
	binding_close(b, STOPPED);
}

int
binding_start(struct binding *b, int fd, int shared, int udp,
    const union addr *to, int64_t now, int64_t deadline)
{
	CHECK(b->state == B_CLOSED && now == sim.now);
	binding_init(b);
	b->fd = fd;
	b->shared = shared;
	b->udp = udp;
	b->peer = *to;
	b->born = now;
	flow_open(b, to, shared);
	if (peer_at(to)->mode == NO_ROUTE) {
		errno = ENETUNREACH;
		binding_close(b, ENDED);
		return -1;
	}
	binding_ask(b, now, deadline);
	if (!udp)
		b->state = B_CONNECTING;
	return 0;
}

int
binding_ask(struct binding *b, int64_t now, int64_t deadline)
{
	CHECK(b->fd >= 0 && now == sim.now && deadline > now);
	b->state = B_ASKING;
	b->asked = now;
	b->deadline = deadline;
	flow_ask(b);
	return 0;
}

void
binding_want(struct binding *b, struct wake *w)
{
	if (b->state == B_CLOSED)
		return;
	wake_at(w, b->deadline);
	flow_want(b, w);
}

static int
binding_answered(struct binding *b)
{
	b->state = B_OPEN;
	b->deadline = NEVER;
	b->mapped = flow_of(b)->mapped;
	b->local = sim.source;
	addr_set_port(&b->local, sim.m.local.port);
	return 1;
}

int
binding_step(struct binding *b, const struct wake *w, int64_t now)
{
	int r;

	(void)w;
	CHECK(now == sim.now);
	if (b->state == B_CLOSED || (b->shared && now < b->deadline))
		return 0;
	r = flow_step(b, b->deadline);
	if (r > 0)
		return binding_answered(b);
	if (r < 0) {
		b->code = 420;
		binding_close(b, ENDED);
	}
	return r;
}

int
binding_claim(struct binding *b, const union addr *from,
    const union addr *to, const unsigned char *p, size_t n)
{
	int r;

	(void)to;
	(void)p;
	(void)n;
	if (b->state != B_ASKING || !addr_same(from, &b->peer))
		return 0;
	r = flow_step(b, NEVER);
	if (r > 0)
		return binding_answered(b);
	if (r < 0) {
		b->code = 420;
		binding_close(b, ENDED);
	}
	return r;
}

void
keepalive_init(struct keepalive *k)
{
	memset(k, 0, sizeof *k);
	k->fd = k->slot = -1;
}

static void
keepalive_close(struct keepalive *k, enum what what)
{
	int e = errno;

	flow_close(k, what);
	if (k->fd >= 0)
		close(k->fd);
	k->fd = -1;
	k->state = K_CLOSED;
	errno = e;
}

int
keepalive_start(struct keepalive *k, int fd, const union addr *to,
    const char *host, int64_t now, int64_t deadline)
{
	CHECK(k->state == K_CLOSED && now == sim.now && deadline > now);
	keepalive_init(k);
	k->fd = fd;
	k->peer = *to;
	k->host = host;
	k->born = k->asked = now;
	k->deadline = deadline;
	k->state = K_CONNECTING;
	flow_open(k, to, 0);
	if (peer_at(to)->mode == NO_ROUTE) {
		errno = ENETUNREACH;
		keepalive_close(k, ENDED);
		return -1;
	}
	flow_ask(k);
	return 0;
}

int
keepalive_ask(struct keepalive *k, int last, int64_t now, int64_t deadline)
{
	CHECK(k->fd >= 0 && now == sim.now && deadline > now);
	k->last = last;
	k->state = K_ASKING;
	k->asked = now;
	k->deadline = deadline;
	flow_ask(k);
	if (last && flow_of(k)->answer != NEVER)
		flow_of(k)->end = flow_of(k)->answer + 10;
	return 0;
}

void
keepalive_want(struct keepalive *k, struct wake *w)
{
	if (k->state == K_CLOSED)
		return;
	wake_at(w, k->deadline);
	flow_want(k, w);
}

int
keepalive_step(struct keepalive *k, const struct wake *w, int64_t now)
{
	int r;

	(void)w;
	CHECK(now == sim.now);
	if (k->state == K_CLOSED)
		return 0;
	r = flow_step(k, k->deadline);
	if (r > 0) {
		k->state = K_OPEN;
		k->deadline = NEVER;
		k->http.timeout = flow_of(k)->p->keep_timeout;
		k->http.max = flow_of(k)->p->keep_max;
		k->http.close = k->last || flow_of(k)->p->says_close ? 2 : 0;
	} else if (r < 0)
		keepalive_close(k, ENDED);
	return r;
}

void
keepalive_stop(struct keepalive *k, int abort)
{
	(void)abort;
	keepalive_close(k, STOPPED);
}

/*
 * Instead of relay.c: it takes STUN answers for the bindings that share its
 * port.
 */

int
relay_start(struct relay *r, const struct config *cfg,
    const struct relay_calls *calls, int fd, int64_t now)
{
	(void)now;
	r->cfg = cfg;
	r->calls = *calls;
	r->fd = fd;
	sim.served++;
	return 0;
}

void
relay_target(struct relay *r, const struct addrs *to)
{
	(void)r;
	sim.target = *to;
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
	struct flow *f;

	(void)w;
	for (f = sim.flow; f < sim.flow + FLOWS; f++)
		if (f->of && f->shared &&
		    (now >= f->answer || now >= f->end))
			CHECK(r->calls.claim(r->calls.arg, &f->p->addr,
			    &sim.source, NULL, 0, now) == 1);
}

void
relay_report(const struct relay *r)
{
	(void)r;
}

void
relay_stop(struct relay *r)
{
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
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

	sim.lookups += l == &sim.m.target->lookup;
	if (sim.no_fds) {
		errno = EMFILE;
		return -1;
	}
	l->busy = 1;
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
	if (l->busy)
		wake_at(w, is_done(l) ? 0 : l->deadline);
}

static int
sim_lookup_step(struct lookup *l, const struct wake *w, int64_t now)
{
	(void)w;
	if (!l->busy || (!is_done(l) && now < l->deadline))
		return 0;
	l->busy = 0;
	l->gai = EAI_AGAIN;
	errno = ETIMEDOUT;
	return is_found(l) ? 1 : -1;
}

static int
sim_news_open(void)
{
	return NEWS_FD;
}

static void
sim_news_read(int fd)
{
	CHECK(fd == NEWS_FD);
	sim.news = 0;
}

static unsigned
sim_link_of(const char *dev, const union addr *a, unsigned *flags)
{
	(void)dev;
	(void)a;
	*flags = sim.index ? IFF_UP | IFF_RUNNING : 0;
	return sim.index;
}

static int
sim_kill(pid_t pid, int sig)
{
	CHECK(pid == -99);
	sim.killed = sig;
	return 0;
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
	return sim.now = at;
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

/* Splits args at blanks; "@" is an empty argument. */
static int
split(char *args, char **argv)
{
	int n = 0;

	argv[n++] = (char *)(uintptr_t)"natmap";
	for (args = strtok(args, " "); args; args = strtok(NULL, " "))
		argv[n++] = strcmp(args, "@") ? args : args + 1;
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
	read_options(c, argc, argv);
}

static int
is_public(const char *name)
{
	size_t i;

	for (i = 0; i < LEN(public_stun); i++)
		if (public_stun[i] == name)
			return 1;
	return 0;
}

/* The program never frees its options. */
static void
options_free(struct config *c)
{
	int i;

	for (i = 0; i < c->nstun; i++)
		if (!is_public(c->stun[i].name))
			free((void *)(uintptr_t)c->stun[i].name);
	for (i = 0; i < MAX_SERVERS; i++)	/* nhttp is 0 in UDP */
		free((void *)(uintptr_t)c->http[i].name);
	free((void *)(uintptr_t)c->target);
	memset(c, 0, sizeof *c);
}

static void
set_mapped(struct peer *p, const char *host, int port)
{
	addr_parse(&p->mapped, host, AF_UNSPEC);
	addr_set_port(&p->mapped, port);
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
	out.fd = fileno(sim.log);
	out.lost = 0;
}

/* natmap is about to run in it. */
static void
start(const char *args)
{
	options(&sim.c, args);
	out.level = sim.c.level;
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
	struct flow *f;

	map_end(&sim.m, SIGTERM, sim.now);
	sim.m.news = -1;
	map_stop(&sim.m);
	wake_free(&sim.w);
	options_free(&sim.c);
	CHECK(!sim.spun);
	CHECK(!sim.unsound);
	for (f = sim.flow; f < sim.flow + FLOWS; f++)
		CHECK(!f->of);
	CHECK(open_fds() == sim.fds);
	fclose(sim.log);
	out.fd = STDERR_FILENO;
	out.level = 0;
}

/* Takes the call that the script would get. */
static void
take_call(void)
{
	struct hook *h = &sim.m.hook;

	if (!h->pending)
		return;
	h->pending = 0;
	h->last = h->next;
	if (sim.ncalls == (int)LEN(sim.call)) {
		sim.spun = 1;
		return;
	}
	sim.call[sim.ncalls].at = since_start();
	addr_text(&h->next.public, sim.call[sim.ncalls].text);
	addr_text(&h->next.local, sim.call[sim.ncalls].local);
	sim.ncalls++;
}

/* What holds after every turn: who has a server has a flow to it or waits for
 * its look-up, only a holder may be without, and somebody holds. */
static int
sound(void)
{
	const struct ask *a;
	const struct keeper *kp;
	int closed, busy = 0;

	for (a = sim.m.ask; a < sim.m.ask + ASKS; a++) {
		closed = a->b.state == B_CLOSED;
		if (a->s ? closed && !a->s->lookup.busy : !closed)
			return 0;
		if (a->role == R_FREE ? a->s != NULL :
		    a->role != R_HOLD && !a->s)
			return 0;
		busy += a->role == R_HOLD || a->role == R_PROBE;
	}
	for (kp = sim.m.keep; kp < sim.m.keep + KEEPERS; kp++) {
		closed = kp->k.state == K_CLOSED;
		if (kp->s ? closed && !kp->s->lookup.busy : !closed)
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
	map_want(&sim.m);
	if (!sim.news && sim.w.deadline > until)
		return 0;
	overdue = !sim.news && sim.w.deadline <= sim.now;
	memcpy(&before, &sim.m, overdue ? sizeof before : 0);
	sim_wake_wait(&sim.w, sim.now);
	map_step(&sim.m, sim.now);
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
	sim.now = until;
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
	ssize_t n = pread(out.fd, log, sizeof log - 1, 0);
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
 * Schedules.
 */

static void
udp_every_k(void)
{
	static const struct {
		const char *args;
		int64_t k;
	} t[] = {
		{ "-u -s a,b,c", 10 SECONDS },
		{ "-u -s a,b", 10 SECONDS },
		{ "-u -s a", 10 SECONDS },
		{ "-u -s ab -k 25", 25 SECONDS },
		{ "-u -s a,b,c -k 1", 1 SECONDS },
		{ "-u -s a,b -h w", 10 SECONDS }
	};
	int64_t least;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin(t[i].args);
		go_on(t[i].k + 60 * t[i].k + 500);
		CHECK(gaps(ASKED, 0, 500, 60 * t[i].k, &least) <= t[i].k);
		CHECK(least == t[i].k);
		CHECK(count(ASKED, 0, 500, 60 * t[i].k + 500) == 60);
		CHECK(ever(OPENED, 'w') == 0 && ever(INDICATED, 0) == 0);
		end();
	}
}

static void
udp_takes_turns(void)
{
	int64_t least;
	int i;

	begin("-u -s a,b,c");
	go_on(10 MINUTES + 500);
	for (i = 'a'; i <= 'c'; i++) {
		CHECK(count(ASKED, i, 500, 10 MINUTES + 500) == 20);
		CHECK(gaps(ASKED, i, 500, 10 MINUTES, &least) <= 30 SECONDS);
		CHECK(least == 30 SECONDS);
	}
	end();
	begin("-u -s ab");	/* two addresses are as good as two servers */
	go_on(10 MINUTES + 500);
	CHECK(count(ASKED, 'a', 500, 10 MINUTES + 500) == 30);
	CHECK(count(ASKED, 'b', 500, 10 MINUTES + 500) == 30);
	end();
}

static void
udp_overtakes(void)
{
	begin("-u -s a,b,c,d");
	peer('a')->mode = peer('b')->mode = MUTE;
	go_on(1 MINUTES);
	CHECK(first(ASKED, 'b', 0) == 3 SECONDS);
	CHECK(first(ASKED, 'c', 0) <= 6 SECONDS);
	CHECK(sim.ncalls == 1 && sim.call[0].at <= 6 SECONDS +
	    ANSWER_TIME);
	CHECK(logged("no answer (timed out) over UDP") == 2);
	end();
	begin("-u -s a,b");	/* a late answer still counts */
	peer('a')->delay = 3500;
	peer('b')->mode = MUTE;
	go_on(5 SECONDS);
	CHECK(sim.ncalls == 1 && sim.call[0].at == 3500);
	end();
	begin("-u -s a,b");	/* at once where that is known at once */
	peer('a')->mode = NO_ROUTE;
	go_on(5 SECONDS);
	CHECK(sim.ncalls == 1 && sim.call[0].at == ANSWER_TIME);
	end();
}

static void
udp_mute_later(void)
{
	begin("-u -s a,b,c");
	go_on(1 MINUTES);
	peer('a')->mode = MUTE;
	go_on(10 MINUTES);
	CHECK(longest(ANSWERED, 0, 1 MINUTES, 11 MINUTES) <=
	    13 SECONDS + ANSWER_TIME);
	CHECK(count(ASKED, 'a', 1 MINUTES, 11 MINUTES) <= 25);
	CHECK(sim.ncalls == 1);
	end();
}

static void
udp_indications(void)
{
	static const struct {
		const char *args;
		int asked, indicated;	/* in 10 minutes */
	} t[] = {
		{ "-u -s a,b -c 1", 60, 0 },
		{ "-u -s a,b -c 2", 30, 30 },
		{ "-u -s a,b -c 3", 20, 40 },
		{ "-u -s a,b -c 3 -t 192.0.2.5 -p 9", 20, 40 },
		{ "-u -s a,b -c 6 -k 5", 20, 100 }
	};
	size_t i;
	int n;

	for (i = 0; i < LEN(t); i++) {
		begin(t[i].args);
		go_on(11 MINUTES);
		n = count(ASKED, 0, 1 MINUTES, 11 MINUTES);
		CHECK(n == t[i].asked);
		n = count(INDICATED, 0, 1 MINUTES, 11 MINUTES);
		CHECK(n == t[i].indicated);
		end();
	}
}

/* Two flows to two hosts, asked on the same connection, and a check by a new
 * flow to another server. */
static void
tcp_without_http(void)
{
	int i;

	begin("-s a,b,c,d");
	go_on(21 MINUTES);
	CHECK(fewest_hosts(30 SECONDS + 100, 500, 21 MINUTES) >= 2);
	CHECK(longest(ASKED, 0, 500, 21 MINUTES) <= 30 SECONDS);
	CHECK(count(OPENED, 0, 1 MINUTES, 21 MINUTES) == 20);
	CHECK(longest(OPENED, 0, 1 MINUTES, 21 MINUTES) <=
	    60 SECONDS + ANSWER_TIME);
	for (i = 0; i < sim.nev; i++)
		if (sim.ev[i].what == OPENED)
			CHECK(sim.ev[i].others == 0);
	CHECK(sim.ncalls == 1 && sim.call[0].at == ANSWER_TIME);
	end();
	begin("-s a,b -k 10 -c 10000");
	go_on(20 MINUTES);
	CHECK(count(OPENED, 0, 1 SECONDS, 20 MINUTES) == 0);
	CHECK(fewest_hosts(10 SECONDS + 100, 500, 20 MINUTES) == 2);
	end();
}

static void
tcp_with_http(void)
{
	begin("-s a,b,c -h w,x");
	go_on(21 MINUTES);
	CHECK(fewest_hosts(30 SECONDS + 100, 500, 21 MINUTES) >= 2);
	CHECK(longest(ANSWERED, 'w', 500, 21 MINUTES) <=
	    30 SECONDS + 2 * ANSWER_TIME);
	CHECK(count(ASKED, 'w', 1 MINUTES, 21 MINUTES) <= 40);
	CHECK(ever(OPENED, 'w') == 1 && ever(OPENED, 'x') == 0);
	CHECK(count(OPENED, 0, 1 MINUTES, 21 MINUTES) == 20);
	end();
	begin("-s a,b,c -h w -c 10000");	/* one STUN flow */
	go_on(11 MINUTES);
	CHECK(count(ASKED, 'w', 1 MINUTES, 11 MINUTES) == 20);
	CHECK(count(ASKED, 0, 1 MINUTES, 11 MINUTES) == 40);
	CHECK(count(OPENED, 0, 1 MINUTES, 11 MINUTES) == 0);
	end();
}

/* With one server, its connection is aborted and opened again. */
static void
tcp_one_server_each(void)
{
	begin("-s a -h w -k 10 -c 3");
	go_on(10 MINUTES);
	CHECK(ever(OPENED, 'w') == 1);
	CHECK(count(OPENED, 'a', 1 MINUTES, 10 MINUTES) >= 17);
	CHECK(count(OPENED, 'a', 1 MINUTES, 10 MINUTES) <= 18);
	CHECK(longest(OPENED, 'a', 0, 10 MINUTES) <= 31 SECONDS);
	CHECK(longest(ANSWERED, 'a', 500, 10 MINUTES) <= 10 SECONDS +
	    2 * ANSWER_TIME);
	end();
	begin("-s a -k 10 -c 3");	/* the only flow is left in peace */
	go_on(10 MINUTES);
	CHECK(ever(OPENED, 0) == 1);
	CHECK(longest(ASKED, 'a', 0, 10 MINUTES) <= 10 SECONDS);
	end();
}

/* A server that closes soon is asked at its next -k, one that closes late is
 * replaced at once. */
static void
tcp_server_closes(void)
{
	int64_t least, end_at;

	begin("-s a -h w -c 10000");
	peer('a')->close_after = 3 SECONDS;
	go_on(10 MINUTES);
	CHECK(gaps(OPENED, 'a', 1 MINUTES, 10 MINUTES, &least) <=
	    30 SECONDS + ANSWER_TIME);
	CHECK(least >= 30 SECONDS);
	CHECK(ever(ASKED, 'a') == ever(OPENED, 'a'));
	CHECK(ever(OPENED, 'w') == 1 && sim.ncalls == 1);
	CHECK(logged("answers again") == 0 && logged("closed") == 0);
	end();
	begin("-s a -h w -c 10000");
	peer('a')->close_after = 16 SECONDS;
	go_on(10 MINUTES);
	end_at = first(ENDED, 'a', 0);
	CHECK(end_at == 16 SECONDS + ANSWER_TIME);
	CHECK(first(OPENED, 'a', 1) == end_at);
	CHECK(longest(OPENED, 'a', 0, 10 MINUTES) <= 17 SECONDS);
	end();
}

/* coturn's -S everywhere: two hosts all the same within each k. */
static void
tcp_all_close_soon(void)
{
	int i;

	begin("-s a,b,c,d");
	for (i = 'a'; i <= 'd'; i++)
		peer(i)->close_after = 3 SECONDS;
	go_on(20 MINUTES);
	CHECK(fewest_hosts(33 SECONDS, 1 MINUTES, 20 MINUTES) >= 2);
	CHECK(count(OPENED, 0, 1 MINUTES, 20 MINUTES) <= 19 * 2 * 2 + 19);
	CHECK(sim.ncalls == 1);
	end();
}

/* All flows are gone at once, and only one server is left. */
static void
nothing_else_holds(void)
{
	begin("-s a,b,c -h w -c 10000");
	peer('w')->mode = REFUSING;
	go_on(20 SECONDS);
	peer('a')->mode = peer('b')->mode = MUTE;
	cut('a');
	cut('b');
	cut('c');
	go_on(5 MINUTES);
	CHECK(first(ANSWERED, 'c', 20 SECONDS) <= 23 SECONDS);
	CHECK(longest(ANSWERED, 'c', 23 SECONDS, 5 MINUTES) <= 31 SECONDS);
	CHECK(sim.ncalls == 1);
	end();
}

/*
 * Failures.
 */

/* when a flow to who was opened for the i-th time */
static int64_t
nth_open(int who, int i)
{
	int64_t at = -1;

	while (i-- >= 0)
		at = first(OPENED, who, at + 1);
	return at;
}

static void
back_off(void)
{
	static const struct {
		const char *args;
		int who;
		int64_t cap;
	} t[] = {
		{ "-s a -h w -c 10000", 'a', 30 SECONDS },
		{ "-s a,b -h w -c 10000", 'w', 30 SECONDS },
		{ "-s a", 'a', 4 SECONDS },
		{ "-u -s a", 'a', 4 SECONDS }
	};
	int64_t wait, got;
	uint32_t seed;
	size_t i;
	int j;

	for (i = 0; i < LEN(t); i++)
		for (seed = 1; seed < 6; seed++) {
			begin(t[i].args);
			sim.random = seed * 99991;
			peer(t[i].who)->mode = REFUSING;
			go_on(10 MINUTES);
			for (wait = 1000, j = 0; j < 9; j++) {
				got = nth_open(t[i].who, j + 1) -
				    nth_open(t[i].who, j);
				CHECK(got >= wait - wait / 4);
				CHECK(got <= wait + ANSWER_TIME);
				wait = 2 * wait < t[i].cap ? 2 * wait :
				    t[i].cap;
			}
			CHECK(logged("refused") == 1);
			end();
		}
}

/* Counted from the start of an attempt, which takes long here. */
static void
back_off_of_a_mute_server(void)
{
	int64_t least;

	begin("-s a -h w -c 10000");
	peer('a')->mode = MUTE;
	go_on(60 MINUTES);
	CHECK(gaps(OPENED, 'a', 5 MINUTES, 60 MINUTES, &least) <=
	    30 SECONDS);
	CHECK(least >= 22 SECONDS);
	end();
}

static void
back_off_is_each_servers_own(void)
{
	begin("-u -s a,b");
	peer('a')->mode = REFUSING;
	go_on(10 MINUTES);
	CHECK(longest(ANSWERED, 'b', 0, 10 MINUTES) <= 10 SECONDS +
	    2 * ANSWER_TIME);
	CHECK(ever(OPENED, 'a') >= 18 && ever(OPENED, 'a') <= 32);
	CHECK(logged("refused") == 1);
	peer('a')->mode = GOOD;
	go_on(2 MINUTES);
	CHECK(logged("answers again (failures: ") == 1);
	end();
}

/* SIGHUP: what failed before does not count any longer. */
static void
hup_forgives(void)
{
	static const char *const args[] = { "-s a -h w", "-s a,b", "-u -s a" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		all_peers(REFUSING);
		go_on(10 MINUTES + 100);
		all_peers(GOOD);
		recheck(&sim.m, sim.now);
		go_on(ANSWER_TIME);
		CHECK(sim.ncalls == 1);
		CHECK(first(OPENED, 'a', 10 MINUTES + 100) ==
		    10 MINUTES + 100);
		end();
	}
	begin("-s a,b,c -h w -c 10000");
	go_on(5 MINUTES);
	recheck(&sim.m, sim.now);	/* and a new flow checks at once */
	go_on(0);
	CHECK(count(OPENED, 0, 5 MINUTES - 1, 5 MINUTES) == 1);
	CHECK(ever(OPENED, 'w') == 1);
	end();
}

static void
dead_stun_leaves_http(void)
{
	size_t i;
	int who;

	for (i = 0; i < LEN(bad_modes); i++) {
		begin("-s a,b -h w");
		go_on(1 MINUTES);
		for (who = 'a'; who <= 'b'; who++) {
			peer(who)->mode = bad_modes[i];
			cut(who);
		}
		go_on(10 MINUTES);
		CHECK(ever(OPENED, 'w') == 1 && ever(STOPPED, 'w') == 0);
		CHECK(longest(ANSWERED, 'w', 500, 11 MINUTES) <=
		    30 SECONDS + 2 * ANSWER_TIME);
		CHECK(ever(OPENED, 'a') + ever(OPENED, 'b') <= 100);
		CHECK(sim.ncalls == 1);
		all_peers(GOOD);
		go_on(31 SECONDS);
		CHECK(count(ANSWERED, 0, 11 MINUTES, NEVER) >= 2);
		end();
	}
}

static void
dead_http_leaves_stun(void)
{
	size_t i;

	for (i = 0; i < LEN(bad_modes); i++) {
		begin("-s a,b,c -h w -c 10000");
		go_on(1 MINUTES);
		peer('w')->mode = bad_modes[i];
		cut('w');
		go_on(10 MINUTES);
		CHECK(ever(STOPPED, 0) == 0 && ever(ENDED, 'a') == 0);
		CHECK(fewest_hosts(30 SECONDS + 100, 90 SECONDS,
		    11 MINUTES) >= 2);
		CHECK(sim.ncalls == 1);
		peer('w')->mode = GOOD;
		go_on(31 SECONDS);
		CHECK(count(ANSWERED, 'w', 11 MINUTES, NEVER) >= 1);
		go_on(10 MINUTES);
		CHECK(count(OPENED, 'w', 11 MINUTES, NEVER) == 1);
		end();
	}
}

/* A keep-alive server that fails goes mute on an open connection. */
static void
mute_http_is_suspected(void)
{
	begin("-s a,b,c -h w,x -c 10000");
	go_on(65 SECONDS);
	peer('w')->mode = MUTE;
	go_on(5 MINUTES);
	CHECK(count(OPENED, 0, 90 SECONDS, 93 SECONDS) >= 1);
	CHECK(first(OPENED, 'x', 0) <= 101 SECONDS);
	CHECK(longest(ANSWERED, 'x', 101 SECONDS, 365 SECONDS) <=
	    31 SECONDS);
	CHECK(sim.ncalls == 1);
	end();
}

static void
http_that_closes_each_time(void)
{
	int says, after;

	for (says = 0; says < 2; says++)
		for (after = 0; after < 4; after++) {
			begin("-s a,b -h w");
			peer('w')->says_close = says;
			peer('w')->close_after = after SECONDS;
			go_on(10 MINUTES);
			CHECK(ever(OPENED, 'w') <= 21);
			CHECK(ever(ASKED, 'w') == ever(OPENED, 'w'));
			CHECK(longest(ANSWERED, 'w', 0, 10 MINUTES) <=
			    31 SECONDS);
			CHECK(fewest_hosts(31 SECONDS, 500, 10 MINUTES) >=
			    2);
			end();
		}
}

static void
two_http_that_close(void)
{
	begin("-s a,b -h w,x");
	peer('w')->says_close = peer('x')->says_close = 1;
	peer('w')->close_after = peer('x')->close_after = 1 SECONDS;
	go_on(10 MINUTES);
	CHECK(ever(OPENED, 'w') + ever(OPENED, 'x') <= 21);
	end();
}

/* With one server only the next connection waits for the end of the last. */
static void
one_http_that_closes_once(void)
{
	begin("-s a,b -h w");
	go_on(5 MINUTES - 1 SECONDS);
	peer('w')->says_close = 1;
	peer('w')->close_after = 2 SECONDS;
	go_on(10 SECONDS);
	CHECK(first(ENDED, 'w', 0) <= 5 MINUTES + 3 SECONDS);
	CHECK(first(OPENED, 'w', 1) <= first(ENDED, 'w', 0) + 1 SECONDS);
	end();
}

/* What still has the old mapping is replaced when a new one is known. */
static void
old_flows_are_renewed(void)
{
	struct ask *a;

	begin("-s a,b,c,d -h w,x -k 60");
	go_on(5 MINUTES - 7);
	moves_to("203.0.113.7", 40001);
	go_on(2 MINUTES);
	CHECK(sim.ncalls == 2);
	CHECK(first(OPENED, 'x', 0) <= sim.call[1].at + 2 SECONDS);
	for (a = sim.m.ask; a < sim.m.ask + ASKS; a++)
		CHECK(a->role != R_HOLD ||
		    addr_port(&flow_of(&a->b)->mapped) == 40001);
	end();
	begin("-s a,b -h w -k 60");
	go_on(5 MINUTES - 7);
	moves_to("203.0.113.7", 40001);
	go_on(2 MINUTES);
	CHECK(first(OPENED, 'w', 1) <= sim.call[1].at + 2 SECONDS);
	end();
}

/* However the server tells that it will close. */
static void
make_before_break(void)
{
	static const struct {
		int close, max, timeout;
	} t[] = { { 1, -1, -1 }, { 0, 0, -1 }, { 0, 0, 60 }, { 0, -1, 5 } };
	int64_t ended;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin("-s a,b -h w,x");
		go_on(5 MINUTES - 1 SECONDS);
		peer('w')->says_close = t[i].close;
		peer('w')->keep_max = t[i].max;
		peer('w')->keep_timeout = t[i].timeout;
		peer('w')->close_after = 2 SECONDS;
		go_on(1 MINUTES);
		ended = first(ENDED, 'w', 0);
		CHECK(first(OPENED, 'x', 0) < ended && ended < NEVER);
		CHECK(first(ANSWERED, 'x', 0) < ended);
		CHECK(ever(STOPPED, 'w') == 0);
		CHECK(ever(OPENED, 0) > 0 && sim.ncalls == 1);
		end();
	}
}

/* A server that does not want to wait for k is left at k, after the next one
 * was opened; it closes when it is asked to. */
static void
keep_alive_shorter_than_k(void)
{
	static const struct {
		int timeout, max, stays;
	} t[] = {
		{ -1, -1, 1 }, { 31, -1, 1 }, { 31, 1, 1 }, { 3600, 100, 1 },
		{ 30, -1, 0 }, { 20, -1, 0 }, { 20, 100, 0 }, { 0, -1, 0 },
		{ -1, 0, 0 }, { 3600, 0, 0 }
	};
	size_t i;
	int who, n;

	for (i = 0; i < LEN(t); i++) {
		begin("-s a,b -h w,x");
		for (who = 'w'; who <= 'x'; who++) {
			peer(who)->keep_timeout = t[i].timeout;
			peer(who)->keep_max = t[i].max;
		}
		go_on(10 MINUTES - 1 SECONDS);
		n = ever(OPENED, 'w') + ever(OPENED, 'x');
		CHECK(n == (t[i].stays ? 1 : 20));
		if (n > 1) {
			CHECK(first(OPENED, 'x', 0) == 30 SECONDS);
			CHECK(first(ENDED, 'w', 0) > 30 SECONDS);
		}
		CHECK(ever(STOPPED, 'w') + ever(STOPPED, 'x') == 0);
		end();
	}
}

/* After a reset the NAT forgets soon, after a FIN it does not. */
static void
reset_is_urgent(void)
{
	static const struct {
		int error;
		int64_t again;
	} t[] = {
		{ ECONNRESET, 6 SECONDS }, { ECLOSED, 30 SECONDS }
	};
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin("-s a,b");
		go_on(5 SECONDS);
		cut_by('a', t[i].error);
		cut_by('b', t[i].error);
		go_on(1 MINUTES);
		CHECK(first(OPENED, 0, 1 SECONDS) == t[i].again);
		end();
		begin("-s a,b -h w");	/* something else is open */
		go_on(5 SECONDS);
		cut_by('a', t[i].error);
		cut_by('b', t[i].error);
		go_on(1 MINUTES);
		CHECK(first(OPENED, 0, 1 SECONDS) == 30 SECONDS +
		    ANSWER_TIME);
		end();
	}
}

/* The keep-alive connection is the last that was open. */
static void
reset_of_http_is_urgent(void)
{
	static const struct {
		int error;
		int64_t again;
	} t[] = {
		{ ECONNRESET, 7 SECONDS }, { ECLOSED, 30 SECONDS }
	};
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin("-s a -h w");
		go_on(5 SECONDS);
		cut('a');
		go_on(1 SECONDS);
		cut_by('w', t[i].error);
		go_on(1 MINUTES);
		CHECK(first(OPENED, 'a', 1 SECONDS) == t[i].again);
		end();
	}
}

/* A NAT remembers for some seconds a flow that the server reset, and would
 * give a new one to it the old mapping: another one checks.  After a FIN, or
 * our own reset, it does not. */
static void
reset_flows_do_not_check(void)
{
	static const struct {
		int error, after;	/* ms: the check, after the end */
		int who;		/* is asked */
	} t[] = {
		{ ECONNRESET, 2 SECONDS, 'b' }, { ECONNRESET, 9900, 'b' },
		{ ECONNRESET, 10100, 'a' }, { ECLOSED, 2 SECONDS, 'a' }
	};
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin("-s a,b -h w -c 10000");
		go_on(5 SECONDS);	/* b checked, and took a's place */
		cut_by('a', t[i].error);
		go_on(t[i].after);
		recheck(&sim.m, sim.now);
		go_on(0);
		CHECK(count(OPENED, t[i].who, 1 SECONDS, since_start()) == 1);
		end();
	}
	begin("-s a -h w -c 10000");
	go_on(20 SECONDS);
	cut_by('a', ECONNRESET);
	go_on(2 SECONDS);
	recheck(&sim.m, sim.now);
	go_on(0);
	CHECK(first(OPENED, 'a', 21 SECONDS) == 22 SECONDS);
	end();
}

/* The only STUN server is slow, the keep-alive connection well: nothing is
 * gained by asking anew, so the late answer is waited for. */
static void
late_answer_of_the_only_server(void)
{
	static const int delays[] = { 2600, 3500, 6000, 9500 };
	size_t i;

	for (i = 0; i < LEN(delays); i++) {
		begin("-s a -h w");
		peer('a')->delay = delays[i];
		go_on(5 MINUTES);
		CHECK(sim.ncalls == 1);
		CHECK(sim.call[0].at == delays[i] + (delays[i] < HARD_LIMIT ?
		    0 : HARD_LIMIT));
		CHECK(count(STOPPED, 'a', 0, sim.call[0].at) == 0);
		end();
	}
}


static void
long_outage(void)
{
	static const char *const args[] = { "-u -s a,b", "-s a,b",
	    "-s a,b -h w", "-s a,b -h w -k 10", "-u -s a -k 60" };
	size_t i, mode;
	int64_t back;

	for (i = 0; i < LEN(args); i++)
		for (mode = 0; mode < LEN(bad_modes) * 2; mode++) {
			begin(args[i]);
			go_on(90 SECONDS);
			all_peers(bad_modes[mode / 2]);
			cut('a');
			cut('b');
			cut('w');
			sim.dns_dead = mode % 2;
			go_on(10 MINUTES + 517);
			all_peers(GOOD);
			sim.dns_dead = 0;
			back = since_start();
			go_on(1 MINUTES);
			CHECK(first(ANSWERED, 0, back) <= back + 5 SECONDS +
			    ANSWER_TIME);
			CHECK(sim.ncalls == 1);
			end();
		}
}

/* All are back at once: an attempt that began too early does not keep its
 * server away for long. */
static void
back_together(void)
{
	int64_t back;
	int i;

	for (i = 0; i < 16; i++) {
		begin("-s a,b -k 3");
		go_on(5 SECONDS);
		all_peers(MUTE);
		go_on(2 MINUTES + i * 500);
		all_peers(GOOD);
		back = since_start();
		go_on(1 MINUTES);
		CHECK(first(ANSWERED, 'a', back) <= back + 8 SECONDS);
		CHECK(first(ANSWERED, 'b', back) <= back + 8 SECONDS);
		CHECK(logged("answers again") == 2);
		end();
	}
}

static void
dead_from_the_start(void)
{
	static const char *const args[] = { "-u -s a,b", "-s a,b",
	    "-s a,b -h w" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		all_peers(NO_ROUTE);
		sim.dns_dead = 1;
		sim.source.sa.sa_family = 0;
		go_on(10 MINUTES + 517);
		CHECK(sim.ncalls == 0);
		all_peers(GOOD);
		sim.dns_dead = 0;
		sim.source.sa.sa_family = AF_INET;
		go_on(5 SECONDS + ANSWER_TIME);
		CHECK(sim.ncalls == 1);
		end();
	}
}

/* A dead resolver costs nothing while the addresses are good. */
static void
dead_resolver(void)
{
	begin("-u -s a,b");
	go_on(1 MINUTES);
	sim.dns_dead = 1;
	go_on(60 MINUTES);
	CHECK(longest(ANSWERED, 0, 500, 61 MINUTES) <= 10 SECONDS +
	    2 * ANSWER_TIME);
	end();
}

/* No descriptors for the child that looks up: said once for each server. */
static void
no_look_up(void)
{
	static const struct {
		const char *args;
		int servers;
	} t[] = { { "-u -s a,b", 2 }, { "-s a,b,c", 3 }, { "-s a -h w", 2 } };
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin(t[i].args);
		sim.no_fds = 1;
		go_on(10 MINUTES);
		CHECK(logged("cannot look it up:") == t[i].servers);
		CHECK(logged("natmap: ") == t[i].servers);
		CHECK(sim.turns < 1000);
		sim.no_fds = 0;
		go_on(5 SECONDS);
		CHECK(sim.ncalls == 1);
		end();
	}
}

static void
second_address(void)
{
	begin("-s abc -h w");
	peer('a')->mode = REFUSING;
	peer('b')->mode = MUTE;
	go_on(30 SECONDS);
	CHECK(first(OPENED, 'b', 0) <= 1100 && first(OPENED, 'c', 0) <=
	    6 SECONDS);
	CHECK(sim.ncalls == 1);
	end();
}

/* One of a name's addresses is dead for an hour: that is said once, and it is
 * not asked twice in a row. */
static void
one_address_is_dead(void)
{
	static const char *const args[] = { "-u -s ab", "-s ab", "-s ab -h w",
	    "-s abc", "-s ab,c -h w" };
	size_t i, j;

	for (i = 0; i < LEN(args); i++)
		for (j = 0; j < LEN(bad_modes); j++) {
			begin(args[i]);
			peer('b')->mode = bad_modes[j];
			go_on(60 MINUTES);
			CHECK(logged("natmap:") == 1);
			CHECK(sim.ncalls == 1);
			end();
		}
}

/* Two names share an address, which one of them uses; the other's second one
 * is tried again some time after it has failed. */
static void
names_share_an_address(void)
{
	static const char *const args[] = { "-s a,ab", "-s ab,a" };
	size_t i, j;

	for (i = 0; i < LEN(args); i++)
		for (j = 0; j < LEN(bad_modes); j++) {
			begin(args[i]);
			go_on(5 MINUTES);
			peer('b')->mode = bad_modes[j];
			cut('b');
			go_on(3 MINUTES);
			CHECK(logged("closed") + logged("trying") <= 2);
			peer('b')->mode = GOOD;
			go_on(2 MINUTES);
			CHECK(fewest_hosts(31 SECONDS, 9 MINUTES,
			    since_start()) == 2);
			moves_to("203.0.113.7", 40001);
			go_on(64 SECONDS);
			CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
			end();
		}
}

/*
 * Announcing.
 */

static void
first_answer(void)
{
	static const char *const args[] = { "-u -s a,b", "-s a,b", "-u -s a",
	    "-s a -h w", "-s a,b,c,d -h w,x" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		go_on(20 MINUTES);	/* and no call for the same values */
		CHECK(sim.ncalls == 1 && told(0, "203.0.113.7:40000"));
		CHECK(strcmp(sim.call[0].local, "192.168.1.10:50000") == 0);
		CHECK(sim.call[0].at == ANSWER_TIME);
		CHECK(logged("natmap:") == 0);
		end();
	}
}

static void
changes_are_told(void)
{
	static const struct {
		const char *args;
		int64_t within;
	} t[] = {
		{ "-u -s a,b", 11 SECONDS },
		{ "-u -s a", 11 SECONDS },
		{ "-u -s a,b,c -k 60", 61 SECONDS },
		{ "-s a,b,c -h w", 63 SECONDS },
		{ "-s a,b -h w", 63 SECONDS },
		{ "-s a -h w", 63 SECONDS },
		{ "-s a,b,c", 63 SECONDS },
		{ "-s a,b,c,d -k 10 -c 1", 12 SECONDS }
	};
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin(t[i].args);
		go_on(5 MINUTES - 7);
		moves_to("203.0.113.7", 40001);
		go_on(5 MINUTES);
		moves_to("198.51.100.9", 40001);
		go_on(5 MINUTES);
		/* Flows with an old mapping live on and say it. */
		CHECK(sim.ncalls == 3 && told(1, "203.0.113.7:40001"));
		CHECK(told(2, "198.51.100.9:40001"));
		CHECK(sim.call[1].at <= 5 MINUTES + t[i].within);
		CHECK(sim.call[2].at <= 10 MINUTES + t[i].within);
		CHECK(logged("depends") == 0);
		end();
	}
}

/* A dead server among them: the inbound side alone moves, and is seen all the
 * same, whenever the check comes. */
static void
changes_are_told_beside_a_dead_server(void)
{
	static const char *const args[] = { "-s a,b -h w", "-s ab -h w",
	    "-s ab,c -h w", "-s a,b,c -h w", "-s a,b,c,d -h w", "-s a,b,c" };
	size_t i, j;
	int when;

	for (i = 0; i < LEN(args) * LEN(bad_modes); i++)
		for (when = 0; when < 60; when += 7) {
			j = i / LEN(args);
			begin(args[i % LEN(args)]);
			peer('b')->mode = bad_modes[j];
			go_on(5 MINUTES + when SECONDS);
			moves_to("203.0.113.7", 40001);
			go_on(64 SECONDS);
			CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
			end();
		}
	begin("-s a,b -h w");		/* or one without an address */
	go_on(20);
	sim.dns_fails = 1;
	go_on(5 MINUTES);
	moves_to("203.0.113.7", 40001);
	go_on(64 SECONDS);
	CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
	end();
}

/* One server's new word is confirmed by a second one, or by its silence. */
static void
second_say(void)
{
	int64_t asked;

	begin("-u -s a,b,c");
	go_on(65 SECONDS);
	moves_to("203.0.113.7", 40001);
	go_on(30 SECONDS);
	asked = first(ASKED, 0, 65 SECONDS);
	CHECK(sim.call[1].at == asked + 2 * ANSWER_TIME);
	end();
}

static void
second_say_is_silent(void)
{
	int64_t asked;

	begin("-u -s a,b");
	go_on(69 SECONDS);
	asked = first(ASKED, 'a', 60 SECONDS) != NEVER ? 'b' : 'a';
	peer((int)asked ^ 'a' ^ 'b')->mode = MUTE;
	moves_to("203.0.113.7", 40001);
	go_on(5 SECONDS);
	asked = first(ASKED, (int)asked, 69 SECONDS);
	CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
	CHECK(sim.call[1].at == asked + ANSWER_TIME + 1000);
	end();
	begin("-u -s a");	/* no second server: at once */
	go_on(69 SECONDS);
	moves_to("203.0.113.7", 40001);
	go_on(5 SECONDS);
	asked = first(ASKED, 'a', 69 SECONDS);
	CHECK(sim.ncalls == 2 && sim.call[1].at <= asked + 1000 +
	    ANSWER_TIME);
	end();
}

/* Every server sees another port: one warning, the first one's word. */
static void
depends_on_the_destination(void)
{
	static const char *const args[] = { "-u -s a,b,c", "-s a,b,c",
	    "-s a,b,c -h w", "-u -s a,b", "-s a,b" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		set_mapped(peer('b'), "203.0.113.7", 40001);
		set_mapped(peer('c'), "203.0.113.7", 40002);
		go_on(4 * ANSWER_TIME);		/* two pairs, at once */
		CHECK(logged("depends on the destination") == 1);
		go_on(20 MINUTES);
		CHECK(told(0, "203.0.113.7:40000"));
		CHECK(sim.ncalls == 1);
		CHECK(logged("depends on the destination") == 1);
		set_mapped(peer('b'), "203.0.113.7", 41001);
		go_on(20 MINUTES);
		CHECK(sim.ncalls == 1);
		set_mapped(peer('a'), "203.0.113.7", 41000);
		cut('a');
		go_on(5 MINUTES);
		CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:41000"));
		CHECK(logged("depends on the destination") == 1);
		end();
	}
}

static void
begin_without_cone(const char *args)
{
	int i;

	begin(args);
	for (i = 'a'; i <= 'd'; i++)
		set_mapped(peer(i), "203.0.113.7", 40000 + i - 'a');
	go_on(3 MINUTES);
	CHECK(sim.m.depends && sim.ncalls == 1);
}

/* That was said of a NAT which is no longer ours. */
static void
depends_no_longer(void)
{
	static const char *const args[] = { "-u -s a,b,c,d", "-s a,b,c,d",
	    "-s a,b,c,d -h w" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin_without_cone(args[i]);
		peer('a')->mode = MUTE;
		moves_to("198.51.100.77", 42000);
		addr_parse(&sim.source, "192.168.9.9", AF_INET);
		sim.news = 1;
		go_on(6 SECONDS);
		CHECK(sim.ncalls == 2 && told(1, "198.51.100.77:42000"));
		CHECK(!sim.m.depends);
		moves_to("198.51.100.77", 42001);
		go_on(65 SECONDS);
		CHECK(sim.ncalls == 3 && told(2, "198.51.100.77:42001"));
		CHECK(logged("depends on the destination") == 1);
		end();
	}
}

/* The first server's word counts, another's while that one fails. */
static void
depends_and_the_first_fails(void)
{
	static const char *const args[] = { "-u -s a,b,c,d", "-s a,b,c,d",
	    "-s a,b,c,d -h w" };
	size_t i;
	int calls;

	for (i = 0; i < LEN(args); i++) {
		begin_without_cone(args[i]);
		peer('b')->mode = MUTE;         /* another one says nothing */
		cut('b');
		go_on(10 MINUTES);
		CHECK(sim.ncalls == 1);
		peer('a')->mode = MUTE;
		cut('a');
		peer('b')->mode = GOOD;
		moves_to("198.51.100.77", 42000);
		go_on(5 MINUTES);
		calls = sim.ncalls;
		CHECK(calls >= 2 && told(calls - 1, "198.51.100.77:42000"));
		peer('a')->mode = GOOD;
		set_mapped(peer('a'), "203.0.113.9", 43000);
		go_on(20 MINUTES);		/* and is the first now */
		CHECK(sim.ncalls == calls);
		end();
	}
}

/* One odd answer is neither a move nor a NAT that is no cone. */
static void
single_difference(void)
{
	begin("-u -s a,b,c");
	go_on(1 MINUTES);
	set_mapped(peer('b'), "203.0.113.7", 40001);
	go_on(first(ASKED, 0, 50 SECONDS) + 10 SECONDS - since_start());
	while (sim.ev[sim.nev - 1].who != 'b')
		go_on(10 SECONDS);
	set_mapped(peer('b'), "203.0.113.7", 40000);
	go_on(10 MINUTES);
	CHECK(sim.ncalls == 1 && logged("depends") == 0);
	CHECK(count(ASKED, 0, 60 SECONDS, 10 MINUTES) == 54 + 2);
	end();
}

/* One server that lies does not move the mapping. */
static void
one_liar(void)
{
	begin("-s a,b,c -h w -k 10 -c 1");
	go_on(1 MINUTES);
	set_mapped(peer('c'), "192.0.2.66", 666);
	go_on(10 MINUTES);
	CHECK(sim.ncalls == 1 || logged("depends on the destination") == 1);
	CHECK(strcmp(sim.call[sim.ncalls - 1].text, "203.0.113.7:40000") ==
	    0);
	end();
}

/* An answer that is late and old is not believed against newer ones. */
static void
stale_answer(void)
{
	int who;

	begin("-u -s a,b,c,d");
	go_on(61 SECONDS);
	for (who = 'a'; who <= 'd'; who++)
		peer(who)->delay = 4 SECONDS;
	go_on(9 SECONDS);		/* one asks under the old mapping */
	for (who = 'a'; who <= 'd'; who++)
		peer(who)->delay = ANSWER_TIME;
	moves_to("203.0.113.7", 40001);
	go_on(5 MINUTES);
	CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
	CHECK(logged("depends") == 0);
	end();
}

/* A NAT that remembers old flows: b still says what was true, which neither
 * undoes the news nor makes the NAT one without a cone. */
static void
one_remembers(void)
{
	begin("-u -s a,b");
	go_on(1 MINUTES);
	set_mapped(peer('a'), "203.0.113.7", 40001);
	go_on(10 MINUTES);
	CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
	set_mapped(peer('b'), "203.0.113.7", 40001);
	go_on(1 MINUTES);
	moves_to("203.0.113.7", 40002);
	go_on(21 SECONDS);
	CHECK(sim.ncalls == 3 && told(2, "203.0.113.7:40002"));
	CHECK(logged("depends") == 0);
	end();
}

/* until the next answer; who gave it, 0 when none comes */
static int
next_answer(void)
{
	int i, n = sim.nev;

	do
		for (i = n; i < sim.nev; i++)
			if (sim.ev[i].what == ANSWERED)
				return sim.ev[i].who;
	while (turn(sim.now + 1 MINUTES));
	return 0;
}

/* Who brought a doubt up, or spoke against it, is not heard twice: while a
 * says the new and b the old, each of them again decides nothing. */
static void
one_voice_each(void)
{
	static const enum mode b[] = { GOOD, MUTE };
	int64_t then;
	size_t i;
	int ms, who;

	for (i = 0; i < LEN(b); i++)
		for (ms = 50; ms < 900; ms += 50) {
			begin("-u -s a,b");
			go_on(1 MINUTES);
			peer('b')->mode = b[i];
			set_mapped(peer('a'), "203.0.113.7", 40001);
			do
				who = next_answer();
			while (who && who != 'a');
			then = since_start();
			go_on(ms);
			recheck(&sim.m, sim.now);
			go_on(5 SECONDS);
			CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
			CHECK(sim.call[1].at == then + PAIR_LIMIT);
			end();
		}
}

/* The mapping moves on while it is in doubt: the newest word counts, and needs
 * a second one of its own. */
static void
moved_again_in_doubt(void)
{
	static const char *const args[] = { "-u -s a,b,c", "-u -s a,b,c,d,e" };
	int64_t asked;
	size_t i;
	int who;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		go_on(65 SECONDS);
		who = next_answer() - 'a' + 1;
		who = 'a' + who % sim.c.nstun;
		moves_to("203.0.113.7", 40002);
		set_mapped(peer(who), "203.0.113.7", 40001);
		asked = since_start();
		go_on(12 SECONDS);
		asked = first(ASKED, who, asked);
		CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40002"));
		CHECK(sim.call[1].at == asked + 3 * ANSWER_TIME);
		end();
	}
}

/* how many flows were stopped in the moment when they were opened */
static int
stillborn(void)
{
	int i, n = 0;

	for (i = 1; i < sim.nev; i++)
		n += sim.ev[i].what == STOPPED &&
		    sim.ev[i - 1].what == ASKED &&
		    sim.ev[i].who == sim.ev[i - 1].who &&
		    sim.ev[i].at == sim.ev[i - 1].at;
	return n;
}

/* A retired flow's late answer is news, and the probe that it causes takes its
 * place, since no other is free. */
static void
late_news(void)
{
	char args[32];
	int k, delay;

	for (k = 1; k <= 4; k++)
		for (delay = 3010; delay < 9900; delay += 250) {
			snprintf(args, sizeof args, "-u -s a,b -k %d", k);
			begin(args);
			go_on(20 SECONDS);
			peer('a')->delay = delay;
			set_mapped(peer('a'), "203.0.113.9", 45000);
			go_on(40 SECONDS);
			CHECK(stillborn() == 0);
			end();
		}
}

/* What the servers are like, for long already, when the mapping is lost or
 * moves: which are mute, refuse, reset their flows soon, close them at once. */
static const struct state {
	const char *args, *mute, *refuse, *reset, *close;
	int unseen;		/* a move of the inbound side alone is */
} states[] = {
	{ "-s a", "", "", "", "", 1 },
	{ "-s a -h w", "", "", "", "", 0 },
	{ "-s a -h w", "w", "", "", "", 1 },
	{ "-s a -h w", "", "w", "", "", 1 },
	{ "-s a -h w", "", "", "", "w", 1 },
	{ "-s a -h w", "", "", "a", "", 0 },
	{ "-s ab", "", "", "", "", 0 },
	{ "-s a,b", "", "", "", "", 0 },
	{ "-s a,b", "b", "", "", "", 1 },
	{ "-s a,b", "", "b", "", "", 1 },
	{ "-s a,b", "", "", "a", "", 0 },
	{ "-s a,b", "", "", "ab", "", 0 },
	{ "-s a,b", "", "b", "a", "", 1 },
	{ "-s a,b -h w", "", "", "", "", 0 },
	{ "-s a,b -h w", "w", "", "", "", 0 },
	{ "-s a,b -h w", "", "w", "a", "", 0 },
	{ "-s a,b -h w", "", "w", "ab", "", 0 },
	{ "-s a,b -h w", "b", "", "", "", 0 },
	{ "-s a,b -h w", "", "b", "", "", 0 },
	{ "-s a,b -h w", "", "bw", "a", "", 1 },
	{ "-s a,b -h w", "b", "w", "", "", 1 },
	{ "-s a,b -h w", "", "b", "", "w", 1 },
	{ "-s a,b -h w", "b", "", "", "w", 1 },
	{ "-s a,b -h w", "", "", "ab", "w", 0 },
	{ "-s a,b -h w,x", "", "", "a", "wx", 0 },
	{ "-s a,b,c -h w,x", "", "", "abc", "wx", 0 },
	{ "-s a,b,c", "", "bc", "", "", 1 },
	{ "-s a,b,c", "b", "c", "a", "", 1 }
};

static void
begin_in(const struct state *s, int k)
{
	char args[64];
	struct peer *p;

	snprintf(args, sizeof args, "%s -k %d", s->args, k);
	begin(args);
	for (p = sim.peer; p < sim.peer + LEN(sim.peer); p++) {
		p->mode = strchr(s->mute, p->who) ? MUTE :
		    strchr(s->refuse, p->who) ? REFUSING : GOOD;
		p->resets = strchr(s->reset, p->who) != NULL;
		if (p->resets || strchr(s->close, p->who))
			p->close_after = p->resets ? 3 SECONDS : 0;
	}
}

/* The public port changes i eighths of k after five minutes; drop: the NAT has
 * forgotten the flows, without a word.  1 when it was told in that time. */
static int
told_in(const struct state *s, int k, int i, int drop, int64_t ms)
{
	int r;

	begin_in(s, k);
	go_on(5 MINUTES + i * (k SECONDS / 8));
	moves_to("203.0.113.7", 40001);
	if (drop)
		forgotten();
	go_on(ms);
	r = sim.ncalls == 2 && told(1, "203.0.113.7:40001");
	end();
	return r;
}

/* A flow that does not answer holds nothing, and is opened anew where no other
 * server can be asked; the inbound side's move is seen by a check. */
static void
lost_at_any_time(void)
{
	static const int ks[] = { 3, 10, 30 };
	const struct state *s;
	int i, k;

	for (s = states; s < states + LEN(states); s++)
		for (i = 0; i < 8 * (int)LEN(ks); i++) {
			k = ks[i / 8];
			CHECK(told_in(s, k, i % 8, 1, (k + 5) SECONDS));
			CHECK(s->unseen || told_in(s, k, i % 8 * 2, 0,
			    (TCP_CYCLE * k + 3) SECONDS));
		}
}

/* What one server does not tell another tells, once for each check. */
static void
check_of_a_dead_server(void)
{
	static const enum mode modes[] = { MUTE, REFUSING };
	size_t i;

	for (i = 0; i < LEN(modes); i++) {
		begin("-s a,b -h w");
		peer('b')->mode = modes[i];
		go_on(21 MINUTES + 5 SECONDS);
		CHECK(count(OPENED, 'a', 50 SECONDS, since_start()) == 21);
		CHECK(sim.ncalls == 1);
		end();
	}
}

/* The line stalls: the flow that is not opened anew answers late and lives. */
static void
stall(void)
{
	begin("-s a,b -c 10000");
	go_on(5 MINUTES - 1 SECONDS);
	peer('a')->delay = peer('b')->delay = 4 SECONDS;
	go_on(10 SECONDS);
	peer('a')->delay = peer('b')->delay = ANSWER_TIME;
	go_on(5 MINUTES);
	CHECK(count(OPENED, 0, 1 MINUTES, 5 MINUTES + 10 SECONDS) == 1);
	CHECK(ever(STOPPED, 0) == 1 && ever(ENDED, 0) == 0);
	CHECK(fewest_hosts(31 SECONDS, 5 MINUTES, 10 MINUTES) == 2);
	CHECK(sim.ncalls == 1);
	end();
}

/* Another local address is news as well. */
static void
local_address_changes(void)
{
	begin("-u -s a,b");
	go_on(1 MINUTES);
	addr_parse(&sim.source, "192.168.1.11", AF_INET);
	go_on(15 SECONDS);
	CHECK(sim.ncalls == 2);
	CHECK(strcmp(sim.call[1].local, "192.168.1.11:50000") == 0);
	end();
}

static void
fake_addresses(void)
{
	begin("-u -s a,b");
	addr_parse(&sim.source, "198.19.255.1", AF_INET);
	go_on(1 MINUTES);
	CHECK(sim.ncalls == 1 && logged("198.18.0.0/15") == 1);
	end();
	begin("-u -s a,b");
	addr_parse(&sim.source, "198.20.0.1", AF_INET);
	go_on(1 MINUTES);
	CHECK(sim.ncalls == 1 && logged("198.18.0.0/15") == 0);
	end();
}

static void
nobody_listens(void)
{
	begin("-s a,b -h w");
	sim.nobody = 1;
	go_on(10 MINUTES);
	CHECK(logged("nobody listens") == 1);
	end();
}

/*
 * The network's news.
 */

static void
address_changes(void)
{
	static const char *const args[] = { "-u -s a,b", "-s a,b",
	    "-s a,b -h w", "-s a -h w" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		go_on(95 SECONDS);
		sim.news = 1;		/* nothing that concerns us */
		go_on(3 SECONDS);
		CHECK(logged("network changed") == 0);
		addr_parse(&sim.source, "192.168.1.11", AF_INET);
		moves_to("203.0.113.7", 40001);
		sim.news = 1;
		go_on(2 SECONDS);
		CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
		CHECK(logged("network changed") == 1);
		end();
	}
}

/* Where the kernel tells no news SIGHUP makes us look. */
static void
hup_stands_in_for_news(void)
{
	begin("-s a,b -h w");
	CHECK(signals_open() >= 0);
	go_on(95 SECONDS);
	raise(SIGHUP);			/* nothing has changed */
	signals(&sim.m, sim.now);
	go_on(3 SECONDS);
	CHECK(logged("network changed") == 0);
	sim.index = 3;			/* dialled again */
	moves_to("203.0.113.7", 40001);
	raise(SIGHUP);
	signals(&sim.m, sim.now);
	go_on(1 SECONDS);
	CHECK(logged("network changed") == 1);
	CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
	signals_close();
	end();
}

/* Down for a minute, then up with the same address: asked at once. */
static void
link_down_and_up(void)
{
	static const char *const args[] = { "-u -s a,b -k 60", "-s a,b,c -k 60",
	    "-s a,b,c -h w -k 60" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		go_on(95 SECONDS);
		sim.source.sa.sa_family = 0;
		sim.news = 1;
		all_peers(NO_ROUTE);
		go_on(1 MINUTES + 33);
		sim.source.sa.sa_family = AF_INET;
		all_peers(GOOD);
		moves_to("203.0.113.7", 40001);
		sim.news = 1;
		go_on(3 SECONDS);
		CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
		end();
	}
}

static void
some_news(int64_t ms)
{
	sim.news = 1;
	go_on(ms);
}

/* What leaves the machine is known for sure only once a server is: without a
 * default route there is no other place to ask for. */
static void
place_is_toward_the_first(void)
{
	static const char *const args[] = { "-u -s a,b -k 60",
	    "-s a,b -h w -k 60" };
	size_t i;
	int opened;

	for (i = 0; i < LEN(args); i++) {
		world();
		sim.no_default = 1;
		start(args[i]);
		go_on(10 SECONDS);
		opened = ever(OPENED, 0);
		some_news(5 SECONDS);
		sim.index = 0;		/* it cannot be told now */
		some_news(5 SECONDS);
		sim.index = 2;
		some_news(5 SECONDS);
		CHECK(logged("network changed") == 0);
		CHECK(ever(OPENED, 0) == opened);
		sim.index = 3;		/* the same address elsewhere */
		some_news(5 SECONDS);
		CHECK(logged("network changed") == 1);
		CHECK(ever(OPENED, 0) > opened && sim.ncalls == 1);
		end();
	}
}

/*
 * The port and the relay.
 */

static void
busy_port(void)
{
	begin("-s a,b -b 7000");
	sim.busy_lo = sim.busy_hi = 7000;
	go_on(1 MINUTES);
	CHECK(ever(OPENED, 0) == 0 && logged("natmap:") == 1);
	CHECK(logged("TCP port 7000: in use by httpd (pid 4711, uid 33)") ==
	    1);
	sim.busy_hi = 0;
	go_on(3 SECONDS + ANSWER_TIME);
	CHECK(sim.ncalls == 1 && logged("can be used now") == 1);
	CHECK(strcmp(sim.call[0].local, "192.168.1.10:7000") == 0);
	end();
}

/* The port is lost for a while: a check that could not be made then must not
 * take a place from those to come. */
static void
port_is_lost_and_found(void)
{
	static const char *const args[] = { "-s a,b,c,d -b 7000",
	    "-s a,b,c,d -h w -b 7000", "-u -s a,b,c,d -b 7000" };
	struct ask *a;
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		go_on(2 MINUTES);
		sim.busy_lo = sim.busy_hi = 7000;
		go_on(10 MINUTES);
		CHECK(logged("in use by httpd") == 1);
		sim.busy_hi = 0;
		go_on(3 MINUTES);
		CHECK(logged("can be used now") == 1);
		for (a = sim.m.ask; a < sim.m.ask + ASKS; a++)
			CHECK(a->role == R_FREE || a->s || is_udp(&sim.m));
		moves_to("203.0.113.8", 41000);
		go_on(63 SECONDS);
		CHECK(sim.ncalls == 2 && told(1, "203.0.113.8:41000"));
		end();
	}
}

static void
port_ranges(void)
{
	int i, port;

	begin("-s a,b -b 7000-7005");
	sim.busy_lo = 7000;
	sim.busy_hi = 7003;
	go_on(1 SECONDS);
	CHECK(strcmp(sim.call[0].local, "192.168.1.10:7004") == 0);
	sim.busy_hi = 0;
	go_on(10 MINUTES);		/* kept as long as it can be used */
	CHECK(sim.ncalls == 1 && sim.m.local.port == 7004);
	end();
	for (i = 0; i < 20; i++) {
		begin("-s a,b -b 7000~7003");
		sim.random = (uint32_t)i * 12345678;
		sim.busy_lo = sim.busy_hi = 7001;
		go_on(10 SECONDS);
		port = sim.m.local.port;
		CHECK(sim.ncalls == 1 && port >= 7000 && port <= 7003 &&
		    port != 7001);
		end();
	}
}

static void
relay_follows(void)
{
	static const char *const args[] = { "-u -s a,b -t 192.0.2.5 -p 0",
	    "-s a,b -h w -t 192.0.2.5 -p 0 -k 10" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		go_on(ANSWER_TIME - 1);
		CHECK(sim.served == 1 && sim.target.n == 0);
		go_on(1);
		CHECK(sim.target.n == 1);
		CHECK(addr_port(&sim.target.a[0]) == 40000);
		go_on(1 MINUTES);
		moves_to("203.0.113.7", 40001);
		go_on(1 MINUTES);
		CHECK(sim.ncalls == 2);
		CHECK(addr_port(&sim.target.a[0]) == 40001);
		CHECK(sim.served == 1);
		end();
	}
	begin("-s a,b -t 192.0.2.5 -p 22");
	go_on(0);
	CHECK(sim.target.n == 1 && addr_port(&sim.target.a[0]) == 22);
	end();
}

static void
relay_waits_for_port(void)
{
	begin("-s a,b -t 192.0.2.5 -p 22 -b 7000");
	sim.busy_lo = sim.busy_hi = 7000;
	go_on(10 SECONDS);
	CHECK(sim.served == 0 && logged("in use by httpd") == 1);
	sim.busy_hi = 0;
	go_on(3 SECONDS);
	CHECK(sim.served == 1 && logged("can be used now") == 1);
	end();
}

/* Clients come all the time while the target's name cannot be found. */
static void
target_is_not_found(void)
{
	int i, lookups;

	begin("-u -s b,c -t a -p 9");
	go_on(70 SECONDS);
	CHECK(sim.lookups == 1);
	sim.dns_fails = 1;
	for (i = 0; i < 3000; i++) {
		used(&sim.m, sim.now);
		go_on(5);
	}
	lookups = sim.lookups;
	CHECK(lookups >= 4 && lookups <= 8);	/* 0, 1, 3, 7, 15 s */
	CHECK(logged("target a: ") == 1);
	CHECK(logged("the last good address serves on") == 1);
	sim.dns_fails = 0;
	go_on(30 SECONDS);
	used(&sim.m, sim.now);
	go_on(0);
	CHECK(sim.lookups == lookups + 1 && logged("found again") == 1);
	end();
}

/*
 * The end.
 */

/* TERM: the keep-alive server has a moment to close; meanwhile no new flow is
 * opened and nothing spins. */
static void
term(void)
{
	static const char *const args[] = { "-s a,b -h w", "-s a -h w",
	    "-s a,b -h w -t 192.0.2.5 -p 22", "-s a,b", "-u -s a,b",
	    "-u -s a,b -t 192.0.2.5 -p 22" };
	int64_t at;
	size_t i;
	int turns, delay;

	for (i = 0; i < LEN(args); i++)
		for (delay = 100; delay < 1000; delay += 800) {
			begin(args[i]);
			go_on(45 SECONDS);
			peer('w')->delay = delay;
			at = since_start();
			turns = sim.turns;
			map_end(&sim.m, SIGTERM, sim.now);
			if (delay == 900)
				recheck(&sim.m, sim.now);	/* HUP */
			CHECK(run(&sim.m, -1) == 0);
			CHECK(sim.turns - turns <= 5);
			CHECK(since_start() <= at + END_LIMIT);
			CHECK(count(OPENED, 0, at - 1, NEVER) == 0);
			CHECK(count(ENDED, 'w', at, NEVER) == (sim.c.nhttp >
			    0));
			CHECK(sim.m.relay.fd >= 0 || !sim.c.target);
			end();
		}
}

/*
 * Economy.
 */

static void
wake_ups(void)
{
	static const struct {
		const char *args;
		int most;		/* own wake-ups in 10 minutes */
	} t[] = {
		{ "-u -s a,b", 60 },
		{ "-u -s a,b -k 60", 10 },
		{ "-s a,b -h w", 20 + 20 + 10 },
		{ "-s a -h w", 20 + 20 + 10 },
		{ "-s a,b,c", 40 + 10 },
		{ "-s a,b,c -h w -t 192.0.2.5 -p 22", 20 + 20 + 10 },
		{ "-s a,b -h w -k 600 -c 100", 4 }
	};
	int before;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin(t[i].args);
		go_on(20 SECONDS);
		before = sim.own;
		go_on(9 MINUTES);
		CHECK(sim.own - before <= t[i].most);
		CHECK(sim.turns < 4 * sim.own + 20);
		end();
	}
}

/* Random faults: no spin, no leak, no flood, and found again afterwards. */
static void
chaos(void)
{
	static const char *const args[] = { "-u -s a,b,c", "-s a,b,c",
	    "-s a,b -h w,x", "-s ab,c -h w -k 5 -c 1",
	    "-u -s a,bc -k 3 -t 192.0.2.5 -p 9" };
	uint32_t seed, x;
	int64_t back;
	int i, from;

	for (seed = 0; seed < 40; seed++) {
		begin(args[seed % LEN(args)]);
		sim.random = x = seed * 7919 + 1;
		for (i = 0; i < 150; i++) {
			x = x * 1664525 + 1013904223;
			peer("abcwx"[x >> 16 & 3])->mode =
			    (enum mode)((x >> 20) % 10 > 5 ? 0 : (x >> 20) %
			    6);
			peer("abcwx"[x >> 13 & 3])->close_after =
			    x >> 28 < 6 ? (int)(x >> 18) : -1;
			peer("abcwx"[x >> 11 & 3])->delay =
			    x >> 29 ? ANSWER_TIME : (int)(x >> 19);
			if (x >> 25 == 7)
				cut("abcw"[x >> 9 & 3]);
			if (x >> 26 == 7)
				recheck(&sim.m, sim.now);
			sim.dns_dead = (x >> 24 & 15) == 3;
			from = sim.nev;
			go_on((x >> 12 & 15) SECONDS + 1 SECONDS);
			CHECK(sim.nev - from < 400);
		}
		for (i = 'a'; i <= 'z'; i += i == 'c' ? 'w' - 'c' : 1) {
			peer(i)->close_after = -1;
			peer(i)->delay = ANSWER_TIME;
		}
		all_peers(GOOD);
		sim.dns_dead = 0;
		back = since_start();
		go_on(1 MINUTES);
		CHECK(first(ANSWERED, 0, back) <= back + sim.m.k +
		    11 SECONDS);
		CHECK(sim.ncalls == 1);
		end();
	}
}

/* One thing of the world of a storm changes, or another. */
static void
gust(void)
{
	struct peer *p = peer("abcw"[sim_random_below(4)]);
	static const char *const home[] = { "192.168.1.10", "192.168.9.9" };

	p->mode = sim_random_below(3) ? GOOD :
	    (enum mode)sim_random_below(NO_ROUTE + 1);
	p->delay = (int)(sim_random_below(2) ? 30 + sim_random_below(3000) :
	    3000 + sim_random_below(6500));
	p->close_after = sim_random_below(4) ? -1 :
	    (int)sim_random_below(20000);
	set_mapped(p, "203.0.113.9", 45000 + (int)sim_random_below(3));
	sim.busy_hi = sim_random_below(8) ? 0 : 65535;
	sim.dns_dead = !sim_random_below(8);
	switch (sim_random_below(16)) {
	case 0:
		cut_by(p->who, ECONNRESET);
		break;
	case 1:
		recheck(&sim.m, sim.now);
		break;
	case 2:
		addr_parse(&sim.source, home[sim_random_below(2)], AF_INET);
		sim.news = 1;
		break;
	case 3:
		sim.news = 1;
	}
}

/* Late answers under mappings that change, on a network that does: after each
 * turn all is sound, see sound(), and in the end the truth is told. */
static void
storm(void)
{
	static const char *const args[] = { "-u -s a,b,c", "-s a,b,c",
	    "-u -s a,b", "-s a,b -h w", "-u -s a,b,c -t 192.0.2.5 -p 9",
	    "-s a -h w", "-s a,b,c -t 192.0.2.5 -p 9" };
	char text[64];
	uint32_t seed;
	int i;

	for (seed = 0; seed < 20 * LEN(args); seed++) {
		snprintf(text, sizeof text, "%s -k %d -b 40000",
		    args[seed % LEN(args)], 1 + (int)seed % 6);
		begin(text);
		sim.random = seed * 2654435761U + 12345;
		go_on(10 SECONDS);
		for (i = 0; i < 40; i++) {
			gust();
			go_on(200 + sim_random_below(6000));
		}
		peers_init();
		all_peers(GOOD);
		sim.busy_hi = sim.dns_dead = 0;
		moves_to("203.0.113.8", 41000);
		go_on(10 MINUTES);
		CHECK(told(sim.ncalls - 1, "203.0.113.8:41000"));
		for (i = 0; i < ASKS; i++)
			CHECK(sim.m.ask[i].role != R_PROBE ||
			    sim.m.ask[i].b.born > sim.now - ANSWER_LIMIT);
		CHECK(holders(&sim.m) == wanted(&sim.m));
		end();
	}
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

/*
 * Options.
 */

static const struct {
	const char *args;
	size_t at;
	int want;
} number_rows[] = {
	{ "-4", AT(family), AF_INET },
	{ "-6", AT(family), AF_INET6 },
	{ "--ipv6 --ipv4", AT(family), AF_INET },
	{ "-46", AT(family), AF_INET6 },
	{ "-d", AT(type), SOCK_STREAM },
	{ "-u", AT(type), SOCK_DGRAM },
	{ "--udp", AT(type), SOCK_DGRAM },
	{ "-ud6k7", AT(keepalive), 7 },
	{ "-ud6k7", AT(daemon), 1 },
	{ "-ud6k7", AT(family), AF_INET6 },
	{ "-d", AT(keepalive), TCP_KEEPALIVE },
	{ "-d", AT(keepalive), 30 },
	{ "-u", AT(keepalive), 10 },
	{ "-k 0", AT(keepalive), 30 },
	{ "-u -k 0", AT(keepalive), 10 },
	{ "-k0 -u", AT(keepalive), 10 },
	{ "-k 1", AT(keepalive), 1 },
	{ "-k 0010", AT(keepalive), 10 },
	{ "-k 86400", AT(keepalive), 86400 },
	{ "--keepalive 5", AT(keepalive), 5 },
	{ "--keepalive=5", AT(keepalive), 5 },
	{ "-k 5 -k 6", AT(keepalive), 6 },
	{ "-d", AT(cycle), 2 },
	{ "-u", AT(cycle), 1 },
	{ "-c 0", AT(cycle), 2 },
	{ "-uc0", AT(cycle), 1 },
	{ "-c10000", AT(cycle), 10000 },
	{ "--stun-cycle 7", AT(cycle), 7 },
	{ "-f 0x1F", AT(mark), 31 },
	{ "-f 010", AT(mark), 8 },
	{ "-f 10", AT(mark), 10 },
	{ "-f 10", AT(marked), 1 },
	{ "-d", AT(marked), 0 },
	{ "-f 4294967295", AT(mark), -1 },
	{ "--fwmark 0xffffffff", AT(mark), -1 },
	{ "-d", AT(idle_timeout), 300 },
	{ "-T 0", AT(idle_timeout), 0 },
	{ "-T 2678400", AT(idle_timeout), 2678400 },
	{ "--forward-idle-timeout 1", AT(idle_timeout), 1 },
	{ "-n 1", AT(max_sessions), 1 },
	{ "--max-sessions 1000000", AT(max_sessions), 1000000 },
	{ "-d", AT(max_sessions), 0 },
	{ "-b 0", AT(port_lo), 0 },
	{ "-b 0", AT(port_hi), 0 },
	{ "-b 65535", AT(port_lo), 65535 },
	{ "-b 65535", AT(port_hi), 65535 },
	{ "--bind 1-65535", AT(port_lo), 1 },
	{ "-b1-65535", AT(port_hi), 65535 },
	{ "-b 5-9", AT(port_random), 0 },
	{ "-b 5~9", AT(port_random), 1 },
	{ "-b 5~9", AT(port_lo), 5 },
	{ "-b 5~9", AT(port_hi), 9 },
	{ "-b 7-7", AT(port_hi), 7 },
	{ "-b 5~9 -b 8", AT(port_random), 0 },
	{ "-b 5~9 -b 8", AT(port_hi), 8 },
	{ "-t h -p 22", AT(target_port), 22 },
	{ "-t h -p 0", AT(target_port), 0 },
	{ "-t h -p 65535", AT(target_port), 65535 },
	{ "--target h --target-port ssh", AT(target_port), 22 },
	{ "-t h -p domain -u", AT(target_port), 53 },
	{ "-1", AT(once), 1 },
	{ "--once", AT(once), 1 },
	{ "--daemon", AT(daemon), 1 },
	{ "-v", AT(level), 1 },
	{ "-q", AT(level), -1 },
	{ "-q --verbose", AT(level), 1 },
	{ "-v --quiet", AT(level), -1 },
	{ "-d", AT(nhttp), 0 },
	{ "-d", AT(nstun), 8 },
	{ "-u", AT(nstun), 11 },
	{ "-s a -s b,c", AT(nstun), 3 },
	{ "-h a,b --http c", AT(nhttp), 3 },
	{ "-u -h w", AT(nhttp), 0 },
	{ "-s a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p", AT(nstun), 16 },
	{ "-k 20 -c 3 -s a -h w -f 0 -b 5 -4 -i lo -t 1.2.3.4 -p 0 "
	    "-T 9 -C cubic -e x", AT(cycle), 3 }
};

static void
numbers(void)
{
	struct config c;
	size_t i;
	int got;

	for (i = 0; i < LEN(number_rows); i++) {
		options(&c, number_rows[i].args);
		got = *(int *)(void *)((char *)&c + number_rows[i].at);
		CHECK(got == number_rows[i].want);
		if (got != number_rows[i].want)
			printf("# %s: %d\n", number_rows[i].args, got);
		options_free(&c);
	}
}

static void
texts(void)
{
	static const struct {
		const char *args;
		size_t at;
		const char *want;
	} t[] = {
		{ "-d", AT(script), NULL },
		{ "-e /x/y", AT(script), "/x/y" },
		{ "--script=/x/y", AT(script), "/x/y" },
		{ "-e/x -e/y", AT(script), "/y" },
		{ "-i eth0", AT(interface), "eth0" },
		{ "--interface 192.0.2.1", AT(interface), "192.0.2.1" },
		{ "-C bbr", AT(congestion), "bbr" },
		{ "--congestion bbr", AT(congestion), "bbr" },
		{ "--pid-file /p", AT(pid_file), "/p" },
		{ "-t host -p 1", AT(target), "host" },
		{ "-t 192.0.2.1 -p 1", AT(target), "192.0.2.1" },
		{ "-t 2001:db8::1 -p 1", AT(target), "2001:db8::1" },
		{ "-t [2001:db8::1] -p 1", AT(target), "2001:db8::1" },
		{ "-t h -p ssh", AT(port_text), "ssh" }
	};
	struct config c;
	const char *got;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		options(&c, t[i].args);
		got = *(const char **)(void *)((char *)&c + t[i].at);
		CHECK(got ? t[i].want && strcmp(got, t[i].want) == 0 :
		    !t[i].want);
		options_free(&c);
	}
}

static void
derived(void)
{
	struct config c;
	char text[ADDR_TEXT];

	options(&c, "-T 0");
	CHECK(c.idle == NEVER);
	options(&c, "-d");
	CHECK(c.idle == 300000);
	options(&c, "-T 2678400");
	CHECK(c.idle == INT64_C(2678400000));
	options(&c, "-i eth0");
	CHECK(c.source.sa.sa_family == 0);
	options(&c, "-i 192.0.2.1");
	CHECK(strcmp(addr_host(&c.source, text), "192.0.2.1") == 0);
	options(&c, "-6 -i 2001:db8::1");
	CHECK(strcmp(addr_host(&c.source, text), "2001:db8::1") == 0);
	options(&c, "-d");
	CHECK(strcmp(c.stun[0].name, "turn.cloudflare.com") == 0);
	CHECK(c.stun[7].port == 3478);
	options(&c, "-u");
	CHECK(strcmp(c.stun[10].name, "stun.hitv.com") == 0);
}

static void
server_forms(void)
{
	static const struct {
		const char *args, *name;
		int port;
	} t[] = {
		{ "-s host", "host", 3478 },
		{ "-s host:1", "host", 1 },
		{ "-s host:65535", "host", 65535 },
		{ "-s 1.2.3.4", "1.2.3.4", 3478 },
		{ "-s 1.2.3.4:5", "1.2.3.4", 5 },
		{ "-6 -s ::1", "::1", 3478 },
		{ "-6 -s [::1]", "::1", 3478 },
		{ "-6 -s [::1]:5", "::1", 5 },
		{ "-s [1.2.3.4]:5", "1.2.3.4", 5 },
		{ "--stun=host:7", "host", 7 },
		{ "-shost:7", "host", 7 }
	};
	char args[600];
	struct config c;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		options(&c, t[i].args);
		CHECK(c.nstun == 1 && strcmp(c.stun[0].name, t[i].name) == 0);
		CHECK(c.stun[0].port == t[i].port);
		options_free(&c);
	}
	options(&c, "-s a,b:2 -h x -s c:3 -h y:4,z");
	CHECK(c.nstun == 3 && c.nhttp == 3);
	CHECK(strcmp(c.stun[2].name, "c") == 0 && c.stun[2].port == 3);
	CHECK(c.stun[0].port == 3478 && c.stun[1].port == 2);
	CHECK(strcmp(c.http[1].name, "y") == 0 && c.http[1].port == 4);
	CHECK(c.http[0].port == 80 && c.http[2].port == 80);
	options_free(&c);
	memset(args, 'x', sizeof args);
	memcpy(args, "-s ", 3);
	strcpy(args + 3 + 253, ":5");
	options(&c, args);
	CHECK(strlen(c.stun[0].name) == 253 && c.stun[0].port == 5);
	options_free(&c);
}

static void
try_options(const char *args)
{
	struct config c;

	options(&c, args);
}

/* Each is refused with status 2 and one line that names option and value. */
static const struct {
	const char *args, *says;
} mistake_rows[] = {
	{ "-k x", "-k/--keepalive \"x\"" },
	{ "-k @", "-k/--keepalive \"\"" },
	{ "-k -1", "-k/--keepalive \"-1\"" },
	{ "-k +1", "-k/--keepalive \"+1\"" },
	{ "-k 1s", "-k/--keepalive \"1s\"" },
	{ "-k 1.5", "-k/--keepalive \"1.5\"" },
	{ "-k 0x10", "-k/--keepalive \"0x10\"" },
	{ "-k 1e3", "-k/--keepalive \"1e3\"" },
	{ "-k 86401", "-k/--keepalive \"86401\"" },
	{ "-k 4294967297", "-k/--keepalive \"4294967297\"" },
	{ "-k 18446744073709551617", "\"18446744073709551617\"" },
	{ "--keepalive=x", "-k/--keepalive \"x\"" },
	{ "-k 5 -k x", "-k/--keepalive \"x\"" },
	{ "-k x -k 5", "-k/--keepalive \"x\"" },
	{ "-c 10001", "-c/--stun-cycle \"10001\"" },
	{ "-c a", "-c/--stun-cycle \"a\"" },
	{ "-c -5", "-c/--stun-cycle \"-5\"" },
	{ "-T 2678401", "-T/--forward-idle-timeout \"2678401\"" },
	{ "-T 4294968", "-T/--forward-idle-timeout \"4294968\"" },
	{ "-T -1", "-T/--forward-idle-timeout \"-1\"" },
	{ "-n 0", "-n/--max-sessions \"0\"" },
	{ "-n 1000001", "-n/--max-sessions \"1000001\"" },
	{ "-f 4294967296", "-f/--fwmark \"4294967296\"" },
	{ "-f -1", "-f/--fwmark \"-1\"" },
	{ "-f 0x", "-f/--fwmark \"0x\"" },
	{ "-f 08", "-f/--fwmark \"08\"" },
	{ "-f x", "-f/--fwmark \"x\"" },
	{ "-f @", "-f/--fwmark \"\"" },
	{ "-b 65536", "-b/--bind \"65536\"" },
	{ "-b -5", "-b/--bind \"-5\"" },
	{ "-b 5-", "-b/--bind \"5-\"" },
	{ "-b 5~", "-b/--bind \"5~\"" },
	{ "-b 9-5", "-b/--bind \"9-5\"" },
	{ "-b 0-5", "-b/--bind \"0-5\"" },
	{ "-b 0~5", "-b/--bind \"0~5\"" },
	{ "-b 5-65536", "-b/--bind \"5-65536\"" },
	{ "-b 5-6-7", "-b/--bind \"5-6-7\"" },
	{ "-b x", "-b/--bind \"x\"" },
	{ "-b @", "-b/--bind \"\"" },
	{ "-s @", "-s/--stun \"\"" },
	{ "-s a,,b", "-s/--stun" },
	{ "-s a,", "-s/--stun" },
	{ "-s ,a", "-s/--stun" },
	{ "-s :5", "-s/--stun \":5\"" },
	{ "-s a:", "-s/--stun \"a:\"" },
	{ "-s a:0", "-s/--stun \"a:0\"" },
	{ "-s a:65536", "-s/--stun \"a:65536\"" },
	{ "-s a:x", "-s/--stun \"a:x\"" },
	{ "-s a:-1", "-s/--stun \"a:-1\"" },
	{ "-6 -s []", "-s/--stun \"[]\"" },
	{ "-6 -s [::1", "-s/--stun \"[::1\"" },
	{ "-6 -s [::1]5", "-s/--stun \"[::1]5\"" },
	{ "-6 -s [::1]:", "-s/--stun \"[::1]:\"" },
	{ "-h w:99999", "-h/--http \"w:99999\"" },
	{ "-h @", "-h/--http \"\"" },
	{ "-s a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "-s/--stun" },
	{ "-s a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p -s q",
	    "-s/--stun \"q\"" },
	{ "-h a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "-h/--http" },
	{ "-4 -s ::1", "-s/--stun \"::1\"" },
	{ "-s [2001:db8::1]:5", "-s/--stun \"2001:db8::1\"" },
	{ "-6 -s 192.0.2.1", "-s/--stun \"192.0.2.1\"" },
	{ "-s 192.0.2.1 -6", "-s/--stun \"192.0.2.1\"" },
	{ "-6 -h 192.0.2.1:80", "-h/--http \"192.0.2.1\"" },
	{ "-i ::1", "-i/--interface \"::1\"" },
	{ "-6 -i 192.0.2.1", "-i/--interface \"192.0.2.1\"" },
	{ "-i a-name-too-long-for-it", "-i/--interface" },
	{ "-i @", "-i/--interface \"\"" },
	{ "-e @", "-e/--script \"\"" },
	{ "-C @", "-C/--congestion \"\"" },
	{ "-t @ -p 1", "-t/--target \"\"" },
	{ "-t h", "-t/--target \"h\"" },
	{ "-p 22", "-p/--target-port \"22\"" },
	{ "-t h -p 65536", "-p/--target-port \"65536\"" },
	{ "-t h -p -1", "-p/--target-port \"-1\"" },
	{ "-t h -p 1x", "-p/--target-port \"1x\"" },
	{ "-t h -p @", "-p/--target-port \"\"" },
	{ "-t h -p +22", "-p/--target-port \"+22\"" },
	{ "-t h -p -65514", "-p/--target-port \"-65514\"" },
	{ "-t h -p no-such-service", "\"no-such-service\"" },
	{ "-t h:22 -p 22", "-t/--target \"h:22\"" },
	{ "--once -d", "-1/--once" },
	{ "-1 -t h -p 1", "--once" },
	{ "-k", "-k/--keepalive" },
	{ "--script", "-e/--script" },
	{ "-x", "\"-x\"" },
	{ "-uxd", "\"-x\"" },
	{ "--nothing", "\"--nothing\"" },
	{ "--nothing=5", "\"--nothing=5\"" },
	{ "--udp=5", "--udp" },
	{ "--help=5", "--help" },
	{ "word", "\"word\"" },
	{ "-u word -d", "\"word\"" }
};

static void
mistakes(void)
{
	const char *says;
	size_t i;

	for (i = 0; i < LEN(mistake_rows); i++) {
		says = mistake_rows[i].says;
		capture(try_options, mistake_rows[i].args);
		CHECK(ran.status == 2);
		CHECK(!ran.out[0] && strncmp(ran.err, "natmap: ", 8) == 0);
		CHECK(strstr(ran.err, says));
		CHECK(strchr(ran.err, '\n') == ran.err + strlen(ran.err) - 1);
		if (ran.status != 2 || !strstr(ran.err, says))
			printf("# %s: status %d\n", mistake_rows[i].args,
			    ran.status);
	}
}

static void
long_host(void)
{
	char args[300];

	memset(args, 'x', sizeof args);
	memcpy(args, "-s ", 3);
	args[3 + 254] = '\0';
	capture(try_options, args);
	CHECK(ran.status == 2 && !ran.out[0]);
	CHECK(strstr(ran.err, "-s/--stun \"xxx") && strstr(ran.err, "253"));
}

static void
program(const char *args)
{
	char text[256], *argv[16];
	int argc;

	strcpy(text, args);
	argc = split(text, argv);
	optind = 0;
	exit(natmap_main(argc, argv));
}

/* 1 when every option has a line of its own, none longer than 80 */
static int
is_usage(const char *s)
{
	const struct option_row *o;
	char line[128], left[64];
	int i, lines = 0;
	size_t n;

	for (o = rows; o < rows + ROWS; o++) {
		snprintf(left, sizeof left, o->letter < 256 ? "\n  -%c, --" :
		    "\n      --", o->letter);
		snprintf(line, sizeof line, "%s%s ", left, o->name);
		if (!strstr(s, line))
			return 0;
	}
	for (i = 0; *s; s += n + 1, i++) {
		n = strcspn(s, "\n");
		if (n > 80 || !s[n])
			return 0;
		lines++;
	}
	return lines > ROWS;
}

static int
ends_with(const char *s, const char *tail)
{
	return strlen(s) >= strlen(tail) &&
	    strcmp(s + strlen(s) - strlen(tail), tail) == 0;
}

static void
usage_and_version(void)
{
	capture(program, "");
	CHECK(ran.status == 2 && !ran.out[0]);
	CHECK(ends_with(ran.err, "\nVersion: " VERSION "\n"));
	CHECK(is_usage(ran.err));
	capture(program, "--help");
	CHECK(ran.status == 0 && !ran.err[0]);
	CHECK(ends_with(ran.out, "\nVersion: " VERSION "\n"));
	CHECK(is_usage(ran.out));
	capture(program, "-V");
	CHECK(ran.status == 0 && !ran.err[0]);
	CHECK(strcmp(ran.out, "natmap " VERSION "\n") == 0);
	capture(program, "--version");
	CHECK(strcmp(ran.out, "natmap " VERSION "\n") == 0);
	capture(program, "-k x");
	CHECK(ran.status == 2 && !ran.out[0]);
}

/*
 * --once.
 */

static int once_dead;		/* the first so many servers are dead */
static enum mode once_mode;

static void
once(const char *args)
{
	int i, status;

	begin(args);
	out.fd = STDERR_FILENO;
	for (i = 0; i < once_dead; i++)
		peer('a' + i)->mode = once_mode;
	status = run(&sim.m, -1);
	fprintf(stderr, "%ld ms, started together: %d, asked: ",
	    (long)since_start(), count(OPENED, 0, -1, 0));
	for (i = 'a'; i <= 'p'; i++)
		if (ever(OPENED, i))
			fputc(i, stderr);
	fputc('\n', stderr);
	fclose(sim.log);
	map_stop(&sim.m);
	wake_free(&sim.w);
	options_free(&sim.c);
	fflush(stdout);
	_exit(status);
}

static void
once_maps(void)
{
	once_dead = 0;
	capture(once, "-1 -s a,b,c,d,e");
	CHECK(ran.status == 0);
	CHECK(strcmp(ran.out, "203.0.113.7 40000 2001::9c40:cb00:7107 50000 "
	    "tcp 192.168.1.10\n") == 0);
	CHECK(strstr(ran.err, "30 ms, started together: 3, asked: abc\n") ==
	    ran.err);
	capture(once, "--once -u -s a -k 20");
	CHECK(ran.status == 0);
	CHECK(strcmp(ran.out, "203.0.113.7 40000 2001::9c40:cb00:7107 50000 "
	    "udp 192.168.1.10\n") == 0);
}

static void
once_tries_all(void)
{
	static const char *const args[] = {
		"-1 -u -s a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p",
		"-1 -s a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p"
	};
	size_t i, mode;

	once_dead = 15;
	for (i = 0; i < LEN(args); i++)
		for (mode = 0; mode < LEN(bad_modes); mode++) {
			once_mode = bad_modes[mode];
			capture(once, args[i]);
			CHECK(ran.status == 0);
			CHECK(strncmp(ran.out, "203.0.113.7 40000 ", 18) ==
			    0);
			CHECK(strstr(ran.err, "asked: abcdefghijklmnop\n"));
		}
	once_dead = 16;
	for (i = 0; i < LEN(args); i++)
		for (mode = 0; mode < LEN(bad_modes); mode++) {
			once_mode = bad_modes[mode];
			capture(once, args[i]);
			CHECK(ran.status == 1 && !ran.out[0]);
			CHECK(strstr(ran.err,
			    "no STUN server answered within 30 s\n30000 ms"));
			CHECK(strstr(ran.err, "asked: abcdefghijklmnop\n"));
		}
}

/* Which runs the script passes its failure on. */
static void
once_script(const char *status)
{
	struct hook *h = &sim.m.hook;

	begin("-1 -u -s a -e /bin/sh");
	go_on(ANSWER_TIME);
	CHECK(sim.ncalls == 1);
	h->pid = 99;
	CHECK(!finished(&sim.m, sim.now));
	hook_reaped(h, 99, atoi(status) << 8);
	CHECK(finished(&sim.m, sim.now));
	_exit(run(&sim.m, -1));
}

static void
once_with_script(void)
{
	capture(once_script, "0");
	CHECK(ran.status == 0);
	capture(once_script, "7");
	CHECK(ran.status == 1);
}

/* -d beside a log that cannot be written: its errno is not the port's. */
static void
start_daemon(const char *args)
{
	int p[2];

	begin(args);
	if (pipe(p) == 0)
		out.fd = p[1];
	close(p[0]);
	signal(SIGPIPE, SIG_IGN);
	sim.no_device = sim.c.interface != NULL;
	sim.busy_hi = 65535;
	check_start(&sim.m);
	_exit(0);
}

static void
daemon_waits_for_interface(void)
{
	capture(start_daemon, "-d -u -s a -b 7000 -i nope0");
	CHECK(ran.status == 0);
	capture(start_daemon, "-d -s a -b 7000 -i nope0 -t b -p 9");
	CHECK(ran.status == 0);
	capture(start_daemon, "-d -u -s a -b 7000");
	CHECK(ran.status == 1);
}

/*
 * Output.
 */

static void
ip4p_table(void)
{
	static const struct {
		const char *host;
		int port;
		const char *want;
	} t[] = {
		{ "203.0.113.7", 40000, "2001::9c40:cb00:7107" },
		{ "0.0.0.0", 1, "2001::0001:0000:0000" },
		{ "1.2.3.4", 80, "2001::0050:0102:0304" },
		{ "255.255.255.255", 65535, "2001::ffff:ffff:ffff" },
		{ "10.0.171.1", 2748, "2001::0abc:0a00:ab01" },
		{ "2001:db8::1", 80, "" }
	};
	char text[ADDR_TEXT];
	union addr a;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		addr_parse(&a, t[i].host, AF_UNSPEC);
		addr_set_port(&a, t[i].port);
		ip4p(&a, text);
		CHECK(strcmp(text, t[i].want) == 0);
	}
}

static void
print_mapping(const char *v6)
{
	struct config c;
	struct hook h;

	options(&c, *v6 ? "-6u" : "-4");
	memset(&h, 0, sizeof h);
	h.cfg = &c;
	addr_parse(&h.next.public, *v6 ? "2001:db8::7" : "203.0.113.7",
	    AF_UNSPEC);
	addr_parse(&h.next.local, *v6 ? "2001:db8::1" : "192.168.1.10",
	    AF_UNSPEC);
	addr_set_port(&h.next.public, 40000);
	addr_set_port(&h.next.local, 22);
	h.pending = 1;
	hook_print(&h);
	_exit(h.pending || !hook_delivered(&h));
}

static void
output_line(void)
{
	capture(print_mapping, "");
	CHECK(ran.status == 0 && strcmp(ran.out, "203.0.113.7 40000 "
	    "2001::9c40:cb00:7107 22 tcp 192.168.1.10\n") == 0);
	capture(print_mapping, "6");
	CHECK(ran.status == 0 && strcmp(ran.out,
	    "2001:db8::7 40000  22 udp 2001:db8::1\n") == 0);
	CHECK(!ran.err[0]);
}

/* The script runs, with the first of three mappings. */
static void
hook_runs(struct hook *h, struct config *c, struct mapping m[3])
{
	int i;

	memset(c, 0, sizeof *c);
	memset(h, 0, sizeof *h);
	memset(m, 0, 3 * sizeof *m);
	c->script = "/bin/sh";
	h->cfg = c;
	for (i = 0; i < 3; i++) {
		addr_parse(&m[i].public, "203.0.113.7", AF_INET);
		addr_set_port(&m[i].public, 40000 + i);
	}
	h->last = m[0];
	h->pid = 99;
	h->kill_at = NEVER;
}

/* News during a run wait behind it, only the newest, and what has become
 * what it was is no news. */
static void
hook_coalesces(void)
{
	struct mapping m[3];
	struct config c;
	struct hook h;

	hook_runs(&h, &c, m);
	hook_news(&h, &m[1], 1000);
	hook_news(&h, &m[2], 2000);
	CHECK(h.pending && h.since == 1000 && !hook_delivered(&h));
	CHECK(addr_same(&h.next.public, &m[2].public));
	hook_news(&h, &m[0], 3000);
	CHECK(!h.pending);
	hook_news(&h, &m[1], 4000);
	CHECK(h.pending && h.since == 4000);
}

/* The signal that a step at that time sends to the run; 0 none. */
static int
hook_kills(struct hook *h, int64_t now)
{
	struct wake w = { NULL, 0, 0, NEVER };

	sim.killed = 0;
	hook_want(h, &w);
	hook_step(h, &w, now);
	CHECK((sim.killed != 0) == (now >= w.deadline));
	return sim.killed;
}

/* A run is ended when newer values have waited for long, and no sooner by an
 * earlier wait that came to nothing. */
static void
hook_limit(void)
{
	const int64_t later = RUN_LIMIT + 60000;
	struct mapping m[3];
	struct config c;
	struct hook h;

	out.level = -1;
	hook_runs(&h, &c, m);
	CHECK(hook_kills(&h, RUN_LIMIT) == 0);		/* none wait */
	hook_news(&h, &m[1], 0);
	CHECK(hook_kills(&h, RUN_LIMIT - 1) == 0);
	CHECK(hook_kills(&h, RUN_LIMIT) == SIGTERM);
	CHECK(hook_kills(&h, RUN_LIMIT + RUN_KILL - 1) == 0);
	CHECK(hook_kills(&h, RUN_LIMIT + RUN_KILL) == SIGKILL);
	hook_runs(&h, &c, m);
	hook_news(&h, &m[1], 0);
	CHECK(hook_kills(&h, RUN_LIMIT) == SIGTERM);
	hook_news(&h, &m[0], RUN_LIMIT + 1000);
	CHECK(hook_kills(&h, RUN_LIMIT + RUN_KILL) == 0);
	hook_news(&h, &m[2], later);
	CHECK(hook_kills(&h, later) == 0);
	CHECK(hook_kills(&h, later + RUN_LIMIT - 1) == 0);
	CHECK(hook_kills(&h, later + RUN_LIMIT) == SIGTERM);
	out.level = 0;
}

/*
 * Log.
 */

static void
log_lines(void)
{
	char line[900];
	FILE *f = tmpfile();
	static char text[4096];

	out.fd = fileno(f);
	out.level = 0;
	errno = ENOENT;
	warn("one:");
	errno = ENOENT;
	warn("two %d", 2);
	note("not said");
	memset(line, 'x', sizeof line);
	line[sizeof line - 1] = '\0';
	warn("%s", line);
	errno = ENOENT;
	warn("%s:", line);
	out.level = -1;
	warn("not said");
	out.level = 1;
	note("said");
	out.level = 0;
	out.fd = STDERR_FILENO;
	fetch(f, text, sizeof text);
	CHECK(strncmp(text, "natmap: one: No such file or directory\n"
	    "natmap: two 2\nnatmap: xxx", 64) == 0);
	CHECK(!strstr(text, "not said"));
	CHECK(ends_with(text, "x No such file or directory\n"
	    "natmap: said\n"));
	CHECK(strlen(text) > 1200 && strlen(text) < 1500);
	CHECK(out.lost == 0);
}

/* The log's reader is stuck: no line may wait for it. */
static void
log_never_blocks(void)
{
	static char text[1 << 20];
	unsigned written = 0;
	char last[64];
	ssize_t n;
	int p[2];

	CHECK(pipe(p) == 0);
	out.fd = p[1];
	out.level = 0;
	while (out.lost == 0 && written < 100000) {
		warn("line %u", written);
		written++;
	}
	CHECK(out.lost == 1);
	warn("lost");
	warn("lost");
	CHECK(out.lost == 3);
	n = read(p[0], text, sizeof text);
	CHECK(n > 0);
	text[n] = '\0';
	snprintf(last, sizeof last, "line %u\n", written - 2);
	CHECK(ends_with(text, last));
	warn("again");
	CHECK(out.lost == 0);
	n = read(p[0], text, sizeof text - 1);
	text[n > 0 ? n : 0] = '\0';
	CHECK(strcmp(text, "natmap: 3 lines of the log were lost\n"
	    "natmap: again\n") == 0);
	out.fd = STDERR_FILENO;
	close(p[0]);
	close(p[1]);
}

static void
run_schedules(void)
{
	RUN(udp_every_k);
	RUN(udp_takes_turns);
	RUN(udp_overtakes);
	RUN(udp_mute_later);
	RUN(udp_indications);
	RUN(tcp_without_http);
	RUN(tcp_with_http);
	RUN(tcp_one_server_each);
	RUN(tcp_server_closes);
	RUN(tcp_all_close_soon);
	RUN(nothing_else_holds);
	RUN(back_off);
	RUN(back_off_of_a_mute_server);
	RUN(back_off_is_each_servers_own);
	RUN(hup_forgives);
	RUN(dead_stun_leaves_http);
	RUN(dead_http_leaves_stun);
	RUN(mute_http_is_suspected);
	RUN(http_that_closes_each_time);
	RUN(two_http_that_close);
	RUN(one_http_that_closes_once);
	RUN(old_flows_are_renewed);
	RUN(make_before_break);
	RUN(keep_alive_shorter_than_k);
	RUN(reset_is_urgent);
	RUN(reset_of_http_is_urgent);
	RUN(reset_flows_do_not_check);
	RUN(late_answer_of_the_only_server);
	RUN(long_outage);
	RUN(back_together);
	RUN(dead_from_the_start);
	RUN(dead_resolver);
	RUN(no_look_up);
	RUN(second_address);
	RUN(one_address_is_dead);
	RUN(names_share_an_address);
}

static void
run_announcing(void)
{
	RUN(first_answer);
	RUN(changes_are_told);
	RUN(changes_are_told_beside_a_dead_server);
	RUN(second_say);
	RUN(second_say_is_silent);
	RUN(depends_on_the_destination);
	RUN(depends_no_longer);
	RUN(depends_and_the_first_fails);
	RUN(single_difference);
	RUN(one_liar);
	RUN(stale_answer);
	RUN(one_remembers);
	RUN(one_voice_each);
	RUN(moved_again_in_doubt);
	RUN(late_news);
	RUN(lost_at_any_time);
	RUN(check_of_a_dead_server);
	RUN(stall);
	RUN(local_address_changes);
	RUN(fake_addresses);
	RUN(nobody_listens);
	RUN(address_changes);
	RUN(hup_stands_in_for_news);
	RUN(link_down_and_up);
	RUN(place_is_toward_the_first);
	RUN(busy_port);
	RUN(port_is_lost_and_found);
	RUN(port_ranges);
	RUN(relay_follows);
	RUN(relay_waits_for_port);
	RUN(target_is_not_found);
	RUN(term);
	RUN(wake_ups);
	RUN(chaos);
	RUN(storm);
}

static void
run_program(void)
{
	RUN(numbers);
	RUN(texts);
	RUN(derived);
	RUN(server_forms);
	RUN(mistakes);
	RUN(long_host);
	RUN(usage_and_version);
	RUN(once_maps);
	RUN(once_tries_all);
	RUN(once_with_script);
	RUN(daemon_waits_for_interface);
	RUN(ip4p_table);
	RUN(output_line);
	RUN(hook_coalesces);
	RUN(hook_limit);
	RUN(log_lines);
	RUN(log_never_blocks);
}

int
main(void)
{
	int before = open_fds(), failed;

	run_schedules();
	run_announcing();
	run_program();
	failed = check_done();
	if (open_fds() != before) {
		printf("not ok descriptor leak\n");
		failed = 1;
	}
	return failed;
}
