/* SPDX-License-Identifier: MIT */
/*
 * The program: the script, contacts (which flows there shall be), the verdict
 * on what servers say, announcing, news of the network, the check of --check,
 * options, and the main loop.
 *
 * The mapping is held by flows from the mapped port to servers.  Each flow
 * belongs to a contact; enum role says what the contact does.  In TCP one
 * contact may be with an HTTP server.  In each turn contacts_step() first
 * handles what came, then judges what is in doubt.
 */
#include "natmap.h"

#include <sys/wait.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Defaults, in the units of the options. */
#define TCP_KEEPALIVE	30	/* s */
#define UDP_KEEPALIVE	10
#define TCP_CYCLE	2
#define UDP_CYCLE	1
#define IDLE_TIMEOUT	300	/* s */
#define STUN_PORT	3478
#define HTTP_PORT	80

/* The policy's times, ms. */
#define LATE_UDP	3000    /* unanswered: the next server is asked too */
#define LATE_TCP	2500
#define ANSWER_LIMIT	10000	/* unanswered: it has failed */
#define HARD_LIMIT      4000    /* the same while nothing holds the mapping */
#define LOOKUP_AGE      600000  /* older addresses are looked up again */
#define TARGET_AGE	60000
#define BACKOFF_HARD    4000    /* the cap while nothing holds the mapping */
#define RESET_MEMORY    13000   /* the NAT may know a flow that was reset */
#define KEPT            16000   /* the same, and what such a flow lives */
#define HOLD_GRACE	5000	/* k and this long an answer holds */
#define ALONE           1000    /* the first answer waits for a second one */
#define FIRST_LIMIT     4000    /* the same, while others are awaited */
#define DOUBT_LIMIT     10000   /* answers are awaited so long; all are asked
				   once more no earlier */
#define FLAP_GAP        2000    /* between two announcements */
#define OUTVOTED_REST   600000  /* an outvoted server is left alone */
#define SETTLE          500     /* the network's news settle this long */
#define NEWS_GAP        2000    /* and are acted on no more often than this */
#define SILENCE         30000   /* without a mapping: it is said */
#define FIRST_ASKED	3	/* servers asked at first */
#define PORT_TRIES	255	/* ports of a range tried at a time */
#define PORT_RETRY	3000	/* the port or the source is not usable */
#define LISTEN_CHECK    3000    /* after the first mapping: does one listen? */
#define ONCE_LIMIT	30000
#define ONCE_TEXT	"30 s"
#define END_LIMIT       700     /* a server may take so long to close at exit */
#define RUN_LIMIT       30000   /* newer values wait so long behind a run */
#define RUN_RETRY	5000	/* a script that cannot be run */
#define RUN_ONE         60      /* s, a script that has always ended with 1 */

/* s, until a run that failed is repeated; the last one again and again */
static const short run_again[] = { 5, 10, 30, 60, 120, 300, 600 };

/* Public servers, each name with its NUL: these answer over TCP and UDP, */
static const char public_stun[] = "turn.cloudflare.com\0stun.sipnet.com\0"
	"stun.sonetel.com\0stun.telnyx.com\0"
#define PUBLIC_RFC5780	4	/* and these know RFC 5780 over UDP, */
	"stun.nextcloud.com\0stun.radiojar.com\0stun.mixvoip.com\0"
	"stun.voipgate.com\0stun.m-online.net\0stun.dus.net\0"
	"stun.siptrunk.com\0stun.pure-ip.com\0"
#define PUBLIC_TCP	12	/* and these answer over UDP only. */
	"stun.miwifi.com\0stun.chat.bilibili.com";
#define PUBLIC_UDP	14

/* script and output */

/* Delivers the newest mapping: to the script, one run at a time, or to
 * stdout.  What changes during a run waits behind it, only the newest.  A
 * delivery that fails is repeated until it succeeds or the mapping changes. */
struct hook {
	const struct config *cfg;
	int pending;
	int slot;		/* of stdout */
	int said;		/* errno of what is in the way, said once */
	int fails;		/* deliveries of next that failed */
	int status;		/* of its last run that failed, or 0 */
	int ones;		/* 1: status 1 is success; -1: 0 was seen */
	int64_t retry;          /* ms: the delivery failed, not before this */
	struct script run;
	union addr last;	/* the public address that was delivered */
	const struct server *by;	/* who told next */
	struct ends next;	/* announced; to deliver, while pending */
	struct ends sent;	/* of the run, or delivered; unset: failed */
};

static int
mapping_same(const struct ends *a, const struct ends *b)
{
	return addr_same(&a->mapped, &b->mapped) &&
	    addr_same(&a->local, &b->local);
}

/* What the server said is announced. */
static void
hook_news(struct hook *h, const struct server *s, int64_t now)
{
	int pending = !mapping_same(&s->said, &h->sent);

	if (!mapping_same(&s->said, &h->next))
		h->retry = h->fails = h->status = 0;
	h->next = s->said;
	h->by = s;
	if (pending != h->pending)
		script_limit(&h->run, pending ? now + RUN_LIMIT : NEVER);
	h->pending = pending;
}

/* What was sent is delivered. */
static void
hook_done(struct hook *h)
{
	if (h->fails)
		warn("%s: succeeded after %d failures", h->run.path ?
		    h->run.path : "stdout", h->fails);
	h->last = h->sent.mapped;
	h->said = h->fails = h->status = 0;
}

/* Counts a failure.  Returns in how many s to deliver again; s 0: by turns. */
static NOINLINE int
hook_pause(struct hook *h, int s, int64_t now)
{
	const int last = sizeof run_again / sizeof *run_again - 1;

	if (!s)
		s = run_again[h->fails < last ? h->fails : last];
	h->fails++;
	h->retry = now + s * 1000;
	return s;
}

/* A run has ended: decides whether it is repeated, and when. */
static NOINLINE void
hook_ended(struct hook *h, int64_t now)
{
	int status = h->run.status, code = WEXITSTATUS(status), again = 0;
	const char *why = code == 126 ? "is not executable)" : code == 127 ?
	    "was not found; does that line end in CR?)" : NULL;

	if (status == 0)
		h->ones = -1;
	else if (status == 1 << 8 && h->ones >= 0 && !script_stopped(&h->run)) {
		again = RUN_ONE;
		if (h->status == status) {
			warn("%s: status 1 again, now taken as success",
			    h->run.path);
			h->ones = 1;
		}
	}
	if (status == 0 || (again && h->ones)) {
		hook_done(h);
		return;
	}
	if (!script_stopped(&h->run)) {
		again = h->cfg->once || h->pending ? 0 :
		    hook_pause(h, again, now);
		warn((again ? NOTE "%s: %s %d%s%s, trying again in %d s" :
		    NOTE "%s: %s %d%s%s") + (h->status != status), h->run.path,
		    code ? "failed with status" : "ended by signal",
		    code ? code : WTERMSIG(status), why ?
		    " (a command or the #! interpreter " : NULL, why, again);
		if (again)
			h->status = status;
	}
	h->pending = !h->cfg->once || script_stopped(&h->run);
	h->sent.mapped.sa.sa_family = 0;
}

/* Says once why there is no delivery, and ends the program where it must. */
static void
hook_complain(struct hook *h, int fatal)
{
	const char *path = h->run.path;

	if (h->said == errno)
		return;
	h->said = errno;
	if (!path)
		warn("stdout: cannot be written:");
	else
		warn("%s: cannot be run%s%s:", path,
		    errno == EACCES ? " (is it executable?)" :
		    errno == ENOENT && strchr(path, ' ') ?
		    " (-e takes a path, without arguments)" : NULL,
		    fatal || h->cfg->once ? NULL : ", trying again");
	if (fatal)
		exit(1);
}

/* Delivers the newest mapping, or begins to: the script gets the fields of the
 * line. */
static void
hook_deliver(struct hook *h, int64_t now)
{
	const struct config *c = h->cfg;
	const union addr *mapped = &h->next.mapped;
	const char *argv[9] = { "/bin/sh", h->run.path };
	char ip4p[ADDR_TEXT], line[4 * ADDR_TEXT], env[1024], *rest = line;
	uint32_t host = ntohl(mapped->in.sin_addr.s_addr);

	ip4p[0] = '\0';		/* of IPv6 there is none */
	if (mapped->sa.sa_family == AF_INET)
		fmt(ip4p, sizeof ip4p, "2001::%.4x:%.4x:%.4x",
		    (unsigned)addr_port(mapped), host >> 16, host & 0xffff);
	int n = fmt(line, sizeof line, "%ph %pp %s %d %s %ph\n", mapped,
	    mapped, ip4p, addr_port(&h->next.local),
	    c->type == SOCK_DGRAM ? "udp" : "tcp", &h->next.local);
	h->sent = h->next;
	h->pending = 0;
	if (h->run.path) {
		for (int i = 2; i < 8; i++)
			argv[i] = strsep(&rest, " \n");
		fmt(env, sizeof env, "NATMAP_OLD_ADDR=%ph\n"
		    "NATMAP_OLD_PORT=%pp\nNATMAP_STUN=%ps\n"
		    "NATMAP_INTERFACE=%.64s\nNATMAP_TARGET=%.255s\n"
		    "NATMAP_TARGET_PORT=%.0d\n", &h->last, &h->last,
		    h->by->host, c->interface, c->target.name,
		    !c->target.name ? 0 : c->target_port ? c->target_port :
		    addr_port(mapped));
		if (script_start(&h->run, argv, env) == 0)
			return;
		h->retry = now + RUN_RETRY;
	} else if (write(STDOUT_FILENO, line, (size_t)n) == n) {
		hook_done(h);
		return;
	} else
		hook_pause(h, 0, now);
	hook_complain(h, 0);
	h->pending = !c->once;
	h->sent.mapped.sa.sa_family = 0;
}

static void
hook_want(struct hook *h, struct wake *w, int64_t now)
{
	h->slot = -1;
	script_want(&h->run, w);
	if (!h->pending || h->run.pid)
		return;
	if (h->run.path || now < h->retry)
		wake_at(w, h->retry);
	else
		h->slot = wake_on(w, STDOUT_FILENO, POLLOUT);
}

static NOINLINE void
hook_step(struct hook *h, const struct wake *w, int64_t now)
{
	script_step(&h->run, now);
	if (h->pending && !h->run.pid && now >= h->retry &&
	    (h->run.path || woke(w, h->slot)))
		hook_deliver(h, now);
}

/* 1 when a mapping has been delivered, or given up */
static int
hook_delivered(const struct hook *h)
{
	return h->next.mapped.sa.sa_family && !h->pending && !h->run.pid;
}

/* contacts */

enum role {
	FREE,			/* unused */
	HOLDS,                  /* keeps the mapping alive: asks every k; at due
				   its flow is opened, or the next one is */
	CHECKS,                 /* asks by a new flow; answered, it holds, and
				   the worst holder leaves */
	LEAVING                 /* not needed; a late answer still counts, and
				   an HTTP server is asked to close first */
};

/* A flow with a role, or the wish for one. */
struct contact {
	struct use use;		/* no server: no flow; the flow is closed
				   while its server's name is looked up */
	enum role role;
	int http;		/* else STUN */
	int seen;		/* the flow has answered */
	int late;		/* no answer yet; others were asked too */
	int event;		/* to be handled: 1 answered, -errno failed */
	struct contact *next;
	int fresh;		/* the NAT did not know the flow before */
	int64_t due;		/* ms: when to ask, or to open a flow */
	struct flow f;
};

/* Servers are asked one by one until an answer differs from what was announced:
 * then there is a doubt, and all are asked.  Before the first announcement
 * everything is in doubt. */
struct doubt {
	int64_t began;          /* ms: older requests do not count; 0: none */
	struct server *resting; /* to be asked when its answer is fresh */
	const struct server *by;	/* its answer began it; or NULL */
	int64_t first;          /* ms: as began, before all were asked once
				   more: fresh answers since then stay so; at
				   first, when two more were asked */
	int64_t round;          /* ms: when somebody was asked again; at first,
				   of the first answer */
};

/* of the mapping, the filtering and who comes in; findings has the words */
enum finding {
	UNKNOWN, NONE, INDEPENDENT, DEPENDENT, BY_PORT, BY_ADDRESS, NO, YES
};

/* What --check is about: can strangers reach the port?  What was asked before
 * changes what a NAT lets in.  So in UDP one server after the other is asked
 * until one has tested the filtering, then up to four at once.  In TCP they
 * are asked at once, and the probe, whose service is the only HTTP server,
 * comes last.  Who answered first began the doubt. */
struct reach {
	int tests;		/* that did not show the best */
	enum finding filtering, seen;	/* at best; in this test */
	enum finding answer;	/* of the probe */
	int listener;		/* for who connects back; -1 */
	struct flow f[4];	/* of a test: the requests, the answers from
				   another port, address; the probe */
	char why[520];		/* the answer; before, the probe's URL;
				   empty: servers are still asked */
};

enum timer {
	SETTLED,		/* the news that came are acted on */
	SERVED,			/* is it, or does nobody listen? */
	UNHELD,			/* that nothing holds is logged */
	TIMERS
};

struct map {                    /* what is used most comes first: see size */
	int64_t now;		/* ms: of this step */
	const struct config *cfg;
	struct wake *w;
	struct server *stun;	/* the first of this kind */
	struct contact *contacts;	/* all of them */
	int udp;		/* else TCP */
	int known;              /* the mapping of this network was announced */
	int late;		/* so many more servers are to be asked; -1:
				   one that answers, beside one that failed */
	int quit;		/* the signal that ends us, 0: run on */
	struct relay *relay;	/* NULL: not started */
	int port_error;		/* errno logged of the port; 0: none */
	int waits;		/* that -p 0 waits was logged */
	int64_t check;		/* ms: the next check; NEVER */
	int64_t end;            /* ms: of --check, of --once, of map_end() */
	int64_t judge_at;	/* ms: the verdict may change then; NEVER */
	int64_t lost;		/* ms: the mapping is held until then */
	int64_t k;		/* ms between keep-alives */
	struct doubt doubt;
	struct server *http;	/* the first of that kind; NULL: none */
	struct server *target;  /* its name, to be looked up; NULL: none */
	struct server *last;	/* behind the last of all */
	int64_t serve_at;	/* ms: when the port may be tried again */
	const char *proto;	/* TCP or UDP */
	int depends;		/* the mapping depends on the destination */
	int differ;		/* doubts in a row without a majority */
	int again;		/* checks in a row that could not be */
	int reached;		/* a client came in from outside: said */
	int cycle;		/* UDP: packets since the last request */
	int spare;		/* a server socket not yet used, if any */
	int fake;		/* the warning of 198.18.0.0/15 was logged */
	int news, news_slot;	/* the kernel's news; -1: none */
	int moved;		/* the route was another while it settled */
	int64_t settled;	/* ms: when we last acted on news */
	int64_t period;		/* ms between checks, UDP: requests */
	int64_t age;            /* ms: an answer holds the mapping so long */
	int64_t at[TIMERS];	/* ms: when that is due; NEVER */
	int64_t calm_at;	/* ms: the next change is announced then */
	int64_t step_at;	/* ms: until then contacts wait for events only;
				   0: something else changed for them */
	int slots;              /* of contacts, and of who wanted before them */
	struct local local;
	struct hook hook;
	struct route route;
	struct contact contact[CONTACTS];
	/* last: the pages of unused entries are never allocated */
	struct server server[2 * MAX_SERVERS + 1];
	struct reach reach;
};

/* 1 while the last answer is young enough to hold the mapping */
static int
holds(struct map *m)
{
	return m->now < m->lost;
}

static int
is_open(const struct contact *c)
{
	return c->f.state != FLOW_CLOSED;
}

/* the event that a function of flows returned */
static int
event(int r)
{
	return r < 0 ? -errno : r;
}

/* 1 when e has the mapping that was announced */
static NOINLINE int
is_announced(struct map *m, const struct ends *e)
{
	return addr_same(&e->mapped, &m->hook.next.mapped);
}

/* the contact with that server, NULL when there is none */
static struct contact *
contact_with(struct map *m, const struct server *s)
{
	for (struct contact *c = m->contacts; c; c = c->next)
		if (c->use.s == s)
			return c;
	return NULL;
}

/* how many flows are up and have answered, but for that one */
static int
open_flows(struct map *m, const struct contact *but)
{
	int n = 0;

	for (const struct contact *c = m->contacts; c; c = c->next)
		n += c != but && is_open(c) && c->seen > c->late;
	return n;
}

/* the server that is asked next; *soonest as of server_choose() */
static struct server *
choose(struct map *m, int http, int how, int64_t *soonest)
{
	return server_choose(http ? m->http : m->stun, &m->contacts->use, how,
	    &m->hook.next.mapped, m->now, soonest);
}

static int port_owner(struct map *, int, const char *);

/* Logs a new kind of failure, of peer if not NULL, and what is tried next. */
static void
failed(struct map *m, struct server *s, const union addr *peer, int error)
{
	char next[SERVER_TEXT], host[ADDR_TEXT];
	int new = server_failed(s, peer, error, holds(m) ? BACKOFF_MAX :
	    BACKOFF_HARD);

	if (s == m->target) {
		if (s->fails == 1)
			warn("target %s: %s, %s", s->host->name,
			    server_error(s, error), s->addrs.n ?
			    "the last good address serves on" :
			    "trying again");
		return;
	}
	if (!new)
		return;
	if (error == EADDRNOTAVAIL || !holds(m))
		for (const struct server *o = m->stun; o; o = o->next)
			if (o != s && o->logged[0] == error)
				return;         /* another one failed so */
	if (error == EADDRNOTAVAIL && port_owner(m, 1, NULL))
		return;
	const struct server *o = choose(m, s->kind == FLOW_HTTP, 0, NULL);
	if (o && o != s)
		fmt(next, sizeof next, "%ps", o->host);
	else
		fmt(next, sizeof next, s->retry > m->now ? "again in %u s" :
		    "again", (unsigned)(s->retry - m->now + 999) / 1000);
	int other = peer && strcmp(addr_host(peer, host), s->host->name);
	warn("%ps%s%s%s: %s%s%s, trying %s", s->host, other ? " (" : NULL,
	    other ? host : NULL, other ? ")" : NULL, server_error(s, error),
	    peer ? " over " : NULL, peer ? m->proto : NULL, next);
}

/* What failed before says nothing of how the servers are now. */
static void
forgive(struct map *m)
{
	for (struct server *s = m->server; s < m->last; s++) {
		s->retry = 0;
		s->fails = s->fails > 0;	/* its return will be logged */
	}
}

/* the mapped port */

static NOINLINE void
port_says(struct map *m, const char *what)
{
	warn("%s port %d: %s", m->proto, m->local.port, what);
}

/* Logs who holds the port, maybe the target itself, and what the user can do;
 * twin: only where it is another natmap.  1: it was found. */
static int
port_owner(struct map *m, int twin, const char *why)
{
	const char *target = m->cfg->target.name;
	union addr a;
	struct owner o;
	const char *hint = why ?
	    "; map another port, forward it by -t or a firewall rule" : NULL;

	if (local_owner(&m->local, &o) != 1 || o.twin < twin)
		return 0;
	if (target && m->cfg->target_port == m->local.port &&
	    (addr_parse(&a, target, AF_UNSPEC) < 0 ?
	    !strcmp(target, "localhost") : addr_kind(&a) == A_LOOPBACK ||
	    addr_same_host(&a, &m->route.source)))
		hint = ", the target: without -t natmap shares its port";
	warn("%s port %d: in use by %s%s%.0d%suid %u%s%s%s%s", m->proto,
	    m->local.port, o.name[0] ? o.name : "a program",
	    o.pid ? " (pid " : " of ", (int)o.pid, o.pid ? ", " : NULL,
	    (unsigned)o.uid, o.pid ? ")" : NULL, why ? ": " : NULL, why, hint);
	return 1;
}

/* Logs once what is in the way of using the port. */
static void
port_trouble(struct map *m, const char *why)
{
	int error = errno;
	const struct config *c = m->cfg;

	m->serve_at = m->now + PORT_RETRY;
	if (m->port_error == error)
		return;
	m->port_error = error;
	if (error == ENODEV)
		warn("interface \"%s\": does not exist, waiting", c->interface);
	else if (error == EADDRNOTAVAIL && c->source.sa.sa_family)
		warn("source address %s: not on this machine, waiting",
		    c->interface);
	else if (error == EPERM && c->mark)
		warn("-f needs root or CAP_NET_ADMIN");
	else if (error == EACCES && m->local.port < 1024)
		port_says(m, "ports below 1024 need root or "
		    "CAP_NET_BIND_SERVICE");
	else if (error != EADDRINUSE || !port_owner(m, 0, why)) {
		errno = error;
		warn("%s port %d: cannot be used, trying again%s%s:",
		    m->proto, m->local.port, why ? ": " : NULL, why);
	}
}

/* the next port that the user allows */
static void
port_next(struct map *m)
{
	int lo = m->cfg->port_lo, hi = m->cfg->port_hi, p = m->local.port;

	if (m->cfg->port_random)
		m->local.port = lo + (int)random_below((uint32_t)(hi - lo + 1));
	else
		m->local.port = p < lo || p >= hi ? lo : p + 1;
}

/* A socket on the mapped port, for a UDP flow the relay's.  Moves on, in the
 * range or to any port, only when this one fails.  -1: the reason was said. */
static int
port_socket(struct map *m, enum local_role role)
{
	int fd, lo = m->cfg->port_lo, tries = m->cfg->port_hi - lo + !lo;

	if (role == LOCAL_FLOW && m->relay) {
		if (m->udp)
			return relay_fd(m->relay);
		tries = 0;		/* the listener has chosen */
		if (m->local.listener)  /* it does not listen for a moment */
			relay_accept(m->relay);
	}
	if (tries > PORT_TRIES)
		tries = PORT_TRIES;
	for (; (fd = local_socket(&m->local, role)) < 0; port_next(m))
		if (tries-- <= 0 || (errno != EADDRINUSE && errno != EACCES)) {
			port_trouble(m, m->local.why);
			return fd;
		}
	if (m->port_error)
		port_says(m, "can be used now");
	m->port_error = 0;
	return fd;
}

/* 198.18.0.0/15 is for benchmarks (RFC 2544), or a proxy has invented it. */
static void
check_fake(struct map *m, const union addr *a, const char *of)
{
	if (m->fake || addr_kind(a) != A_FAKE)
		return;
	m->fake = 1;
	warn("%s: %ph is in 198.18.0.0/15: a transparent proxy answers", of, a);
}

/* flows of contacts */

/* Ends the flow; a holder stays one, and opens another flow at due. */
static void
contact_stop(struct map *m, struct contact *c)
{
	/* our reset makes the NAT forget the flow */
	if (is_open(c) && c->f.kind == FLOW_TCP)
		server_remembered(m->stun, c->use.a, 0);
	flow_stop(&c->f, 0);
	c->use.s = NULL;
	c->use.a = NULL;
	c->seen = c->late = c->event = 0;
	if (c->role != HOLDS)
		c->role = FREE;
}

/* Its flow or look-up failed: when it is due again.  A check that failed is
 * made again at once, unless all are asked anyway. */
static NOINLINE void
contact_ended(struct map *m, struct contact *c, int64_t due)
{
	if (c->role == CHECKS && !c->late && !m->doubt.began)
		m->check = m->now;
	c->due = due;
	contact_stop(m, c);
}

static void
contact_leave(struct map *m, struct contact *c)
{
	c->role = LEAVING;
	c->due = m->now;
	if (!is_open(c) || (c->f.state == FLOW_OPEN && !c->http))
		contact_stop(m, c);
}

/* a free contact, else one that is not needed; NULL: there is none */
static struct contact *
contact_new(struct map *m, int http)
{
	struct contact *c, *best = NULL;

	for (c = m->contacts; c && c->role != FREE; c = c->next)
		if (!c->http && c->role + c->late > CHECKS) /* or a late one */
			best = c;
	if (c)
		best = c;
	if (best) {
		contact_stop(m, best);
		best->http = http;
	}
	return best;
}

/* when a flow that was born then is followed by another: at once where it
 * lived long, or a server that closes early would be asked all the time */
static int64_t
next_flow(struct map *m, int64_t born)
{
	return (m->now - born) * 2 < m->k ? born + m->k : m->now;
}

/* Opens a flow to the server's next address, once one is known. */
static void
contact_open(struct map *m, struct contact *c)
{
	struct server *s = c->use.s;

	if (!s->addrs.n && s->lookup.pid)
		return;
	int i = server_addr(s, &m->contacts->use, 1, m->now);
	if (i < 0)
		i = server_addr(s, &m->contacts->use, 0, m->now);
	/* below 0: not found, or another name has that address too */
	int fd = i < 0 ? i : port_socket(m, LOCAL_FLOW);
	if (fd < 0) {		/* was said */
		contact_ended(m, c, m->now);
		return;
	}
	c->use.a = &c->f.ends.peer;
	c->fresh = server_asked(m->stun, s, i, m->now);
	c->event = event(flow_start(&c->f, s->kind, fd,
	    m->udp & (m->relay != NULL), &s->addrs.a[i], s->host->name,
	    m->now, m->now + (holds(m) ? ANSWER_LIMIT : HARD_LIMIT)));
}

/* Looks up a name that may be asked, where its addresses are missing or old. */
static void
resolve(struct map *m, struct server *s)
{
	int target = s == m->target;
	int limit = holds(m) && !m->cfg->check ? ANSWER_LIMIT : HARD_LIMIT;

	if (m->now < s->retry || server_resolve(s, target ? AF_UNSPEC :
	    m->cfg->family, target ? TARGET_AGE : LOOKUP_AGE, m->now + limit,
	    m->now) == 0)
		return;
	if (!s->repeats++)
		warn("%s: cannot look it up:", s->host->name);
	s->retry = m->now + BACKOFF_HARD;
}

/* Opens a flow to s, a check where c is free, once its address is known.  Where
 * s failed last, a live one is asked as well, but for a TCP holder. */
static void
contact_start(struct map *m, struct contact *c, struct server *s)
{
	if (c->role == FREE)
		c->role = CHECKS;
	if ((m->udp || c->role == CHECKS) && !s->live && s->repeats && !m->late)
		m->late = -1;
	c->use.s = s;
	c->due = m->now + m->k;
	resolve(m, s);
	contact_open(m, c);
}

/* how many flows are to hold the mapping; TCP: two, one of them to an HTTP
 * server that answers */
static int
wanted(struct map *m, int http)
{
	int live = m->udp, n = m->cfg->nstun;

	if (http)
		return m->http != NULL;
	if (!m->known)
		return n < FIRST_ASKED ? n : FIRST_ASKED;
	for (const struct server *s = m->http; s; s = s->next)
		live |= s->live;
	return 2 - live;
}

/* the worst holder: one without a flow, one that is late (in UDP, where an
 * answer ends the flow, the reverse), one with an old mapping, the oldest;
 * answered: of those whose flow has answered */
static struct contact *
worst(struct map *m, int http, int answered)
{
	struct contact *bad = NULL;
	int most = -1;

	for (struct contact *c = m->contacts; c; c = c->next) {
		if (c->role != HOLDS || c->http != http ||
		    (answered && !(c->seen && is_open(c))))
			continue;
		int rank = c->late ? 2 + 2 * m->udp : !c->use.s ? 3 : c->seen &&
		    !http && m->known && !is_announced(m, &c->f.ends);
		if (rank > most || (rank == most && c->f.born < bad->f.born)) {
			most = rank;
			bad = c;
		}
	}
	return bad;
}

/* As many holders as are wanted.  A flow to an HTTP server that is about to
 * close gets its successor before that. */
static void
balance(struct map *m, int http)
{
	struct contact *c;
	int n = -wanted(m, http);
	int64_t due = m->now, next;

	for (c = m->contacts; c; c = c->next) {
		n += c->http == http && c->role == HOLDS;
		if ((c->http & http) && c->role == LEAVING &&
		    (next = next_flow(m, c->f.born)) > due)
			due = next;
	}
	for (; n > 0 && (c = worst(m, http, 0)); n--)
		contact_leave(m, c);
	for (; n < 0 && (c = contact_new(m, http)); n++) {
		c->role = HOLDS;
		c->due = due;
	}
}

/* checks */

/* Frees a server for a new flow: closes a flow that is leaving, else the worst,
 * the last open one only where it is late and nobody else is being asked. */
static int
make_room(struct map *m)
{
	struct contact *c;
	int alone = 1;

	for (c = m->contacts; c; c = c->next) {
		if (c->role == LEAVING && !c->http)
			break;
		if (c->use.s && !(c->http | c->late | c->seen))
			alone = 0;
	}
	if (!c) {
		c = worst(m, 0, 1);
		if (!c || !(open_flows(m, c) + (c->late & alone)))
			return 0;
	}
	c->role = FREE;
	contact_stop(m, c);
	return 1;
}

/* Asks a server by a new flow; 0 when none can be asked. */
static int
check_start(struct map *m, int how)
{
	struct server *s = choose(m, 0, how, NULL);
	struct contact *c;

	if (!s && how == FRESH && !m->udp && make_room(m))
		s = choose(m, 0, how, NULL);
	if (!s || (m->cfg->check && (s->said_at || s->fails)) ||
	    !(c = contact_new(m, 0)))
		return 0;	/* once is enough */
	contact_start(m, c, s);
	return 1;
}

static void
checks_step(struct map *m)
{
	if (m->now >= m->check) {
		m->check = NEVER;
		if (m->cfg->once || check_start(m, FRESH) || ++m->again > 3)
			m->again = 0;
		else if (!m->udp)	/* soon it may */
			m->check = m->now + BACKOFF_MIN;
	}
	for (int n = abs(m->late); n > 0; n--)
		if (!check_start(m, LIVE | FRESH) && m->late > 0 &&
		    !check_start(m, FRESH) && m->udp)
			check_start(m, 0);
	m->late = 0;
	/* in UDP every request is a new flow */
	if (m->check == NEVER && m->known && !(m->udp | m->cfg->once))
		m->check = m->now + m->period;
}

/* the verdict */

struct voice {			/* what one name said */
	const union addr *said; /* NULL: not heard, or an earlier name's twin */
	int fresh;		/* the NAT could not remember the flow */
	int awaited;		/* not heard, and an answer may come */
};

enum ruling {
	NOTHING,		/* nobody says anything else */
	WAIT,                   /* until more is heard, or for so many ms */
	ANNOUNCE,		/* the address */
	ONE_OTHER,		/* the same, if nobody else can be heard */
	OUTVOTED,		/* those who say something else are wrong */
	UNPROVED,		/* what was announced, or came first, stays */
	RESTING,		/* only the NAT's memory speaks for that */
	DIFFER			/* three or more, and no two agree */
};

struct verdict {
	enum ruling ruling;
	const union addr *addr; /* said most often of all others, or NULL */
	int votes;		/* for it */
	int most;               /* for all with as many: > votes when tied */
	int all, old;           /* votes for what was announced; fresh ones */
	int heard, awaited;	/* names */
	int64_t ms;
};

/* how many voices there are for a, which may be NULL; fresh: only those */
static int
votes(const struct voice *v, int n, const union addr *a, int fresh)
{
	int sum = 0;

	for (; a && n > 0; n--, v++)
		if (v->said && v->fresh >= fresh)
			sum += addr_same(v->said, a);
	return sum;
}

/*
 * Before the first announcement; age: ms since the first answer came.
 *
 *   an address has two voices, more than any other     announce it
 *   one server is configured                           announce it
 *   one of two was heard, or one and none is awaited   after 1 s announce it
 *   several were heard, and no other is awaited        announce the first
 *   else                                               the same after 4 s
 *
 * In a doubt; age: ms since somebody was asked again.  Where the old address
 * has a voice, only fresh voices for others count.  The first that holds:
 *
 *   nobody says another, and no answer may come        nothing
 *   another address has two voices or more, more than  announce it
 *     any other, and more than the old one has fresh
 *   the old one has two fresh voices or more, and as   the others are
 *     many as the best other                           outvoted
 *   an answer may come, and age is below 10 s          wait
 *   three or more addresses, and no two agree          they differ
 *   the old one has one fresh voice                    it stays
 *   the old one has others only                        let one of them rest
 *   one other address was said                         announce it, where
 *                                                       who failed fails again
 *   several were said                                  the old one stays
 */
static struct verdict
verdict(const struct voice *v, int n, const union addr *announced, int64_t age)
{
	struct verdict r = { .ruling = announced ? ONE_OTHER : ANNOUNCE,
	    .all = votes(v, n, announced, 0),
	    .old = votes(v, n, announced, 1),
	    .ms = (announced ? DOUBT_LIMIT : FIRST_LIMIT) - age };

	for (int i = 0; i < n; i++) {
		r.awaited += v[i].awaited;
		if (!v[i].said)
			continue;
		r.heard++;
		if (v[i].fresh < (r.all > 0) ||
		    (announced && addr_same(v[i].said, announced)))
			continue;
		int k = votes(v, n, v[i].said, r.all > 0);
		if (k > r.votes) {
			r.votes = k;
			r.most = 0;
			r.addr = v[i].said;
		}
		r.most += k == r.votes;
	}
	if (!announced && r.heard == 1) {
		if (!r.awaited || n == 2)
			r.ms = ALONE - age;
		r.awaited |= n > 1;     /* another one may still come */
	}
	if (!r.addr)		/* the one that began it says so no more */
		r.ruling = announced && r.awaited && r.ms > 0 ? WAIT : NOTHING;
	else if (r.votes > 1 && r.votes > r.old && r.most == r.votes)
		r.ruling = ANNOUNCE;
	else if (r.old > 1 && r.old >= r.votes)
		r.ruling = OUTVOTED;
	else if (r.awaited && r.ms > 0)
		r.ruling = WAIT;
	else if (r.votes == 1 && r.all < 2 &&
	    r.most + (announced && r.all == r.old) > 2)
		r.ruling = DIFFER;
	else if (r.all && !r.old)
		r.ruling = RESTING;
	else if (r.old || r.most > r.votes)
		r.ruling = UNPROVED;
	return r;
}

/* judging what servers said */

/* 1 when an earlier name that was heard is at the same address */
static int
is_twin(struct map *m, const struct server *s)
{
	for (const struct server *o = m->stun; o != s; o = o->next)
		if (o->said_at >= m->doubt.began &&
		    addr_same(&o->said.peer, &s->said.peer))
			return 1;
	return 0;
}

/* Collects what counts: answers to requests sent since the doubt began. */
static void
voices(struct map *m, struct voice v[MAX_SERVERS])
{
	for (const struct server *s = m->stun; s; s = s->next, v++) {
		const struct contact *c = contact_with(m, s);
		v->said = s->said_at >= m->doubt.began ? &s->said.mapped : NULL;
		v->fresh = s->fresh;
		if (s == m->doubt.resting) {	/* that is why it rests */
			v->said = &m->hook.next.mapped;
			v->fresh = 0;
		}
		v->awaited = !v->said && ((c && !(c->late | c->seen)) ||
		    (m->known & s->live & (m->now >= s->rest)));
		if (is_twin(m, s))
			v->said = NULL;
	}
}

/* who said a since the doubt began; NULL: nobody did */
static const struct server *
teller(struct map *m, const union addr *a)
{
	for (const struct server *s = m->stun; s; s = s->next)
		if (s->said_at >= m->doubt.began &&
		    addr_same(&s->said.mapped, a))
			return s;
	return NULL;
}

/* Tells the relay where new sessions go: to the target's port, with -p 0 to the
 * public one, where two servers told it, or the only one there is.  Below 1024
 * it must be that of -b: nobody outside shall choose the service that they
 * reach. */
static void
target_set(struct map *m)
{
	static struct addrs none;
	const struct config *c = m->cfg;
	struct addrs *to = &m->target->addrs;
	int n = 0, port = addr_port(&m->hook.next.mapped);

	for (const struct server *s = m->stun; s; s = s->next)
		n += is_announced(m, &s->said) && !is_twin(m, s);
	if (c->target_port || !port)
		port = c->target_port;
	else if (port < 1024 ? n > 1 && port == c->port_lo &&
	    port == c->port_hi : n > 1 || c->nstun == 1)
		m->waits = 0;
	else {
		if (!m->waits++)
			warn("-p 0: waiting: public port %d %s", port,
			    port < 1024 ? "is below 1024, and not told by two "
			    "servers and -b" : "was told by one server only");
		port = 0;
	}
	for (int i = 0; i < MAX_ADDRS; i++)
		addr_set_port(&to->a[i], port);
	relay_target(m->relay, port ? to : &none);
}

static void
announce(struct map *m, const struct server *s)
{
	int moved = !is_announced(m, &s->said);

	warn(&(NOTE "%pa is %pa from outside (%ps)")[m->cfg->script && moved],
	    &s->said.local, &s->said.mapped, s->host);
	check_fake(m, &s->said.local, "this machine");
	if (!m->hook.next.mapped.sa.sa_family) {
		route_find(&m->local, &s->said.peer, &m->route);
		m->at[SERVED] = m->now + LISTEN_CHECK;
		moved = 0;
	}
	hook_news(&m->hook, s, m->now);
	m->calm_at = m->now + FLAP_GAP;
	m->known = 1;
	m->end = NEVER;		/* of --once */
	if (m->relay)
		target_set(m);
	if (!moved || m->depends)
		return;
	/* it does not hold this one, or is HTTP, where nothing is mapped */
	for (struct contact *c = m->contacts; c; c = c->next)
		if (c->role == HOLDS && c->seen && !is_announced(m, &c->f.ends))
			contact_leave(m, c);
}

/* Because of s, whose answer since began counts; where something has been
 * announced, all are asked. */
static NOINLINE void
doubt(struct map *m, const struct server *s, int64_t began)
{
	if (!m->doubt.began)
		m->doubt.first = began;
	m->doubt.began = began;
	m->doubt.round = m->now;
	m->doubt.by = s;
}

/* Asks the names that were not asked since the doubt began, at once.  A TCP
 * server that holds a flow is asked by a new flow while another one holds. */
static void
ask_all(struct map *m)
{
	for (struct server *s = m->stun; s; s = s->next) {
		struct contact *c = contact_with(m, s);
		if (s->asked >= m->doubt.began || s->retry > m->now ||
		    m->now < s->rest || (c && (!c->seen || !open_flows(m, c))))
			continue;
		if (c)
			contact_stop(m, c);
		else if (!(c = contact_new(m, 0)))
			return;
		contact_start(m, c, s);
	}
}

/* Lets the server rest whose answer can be fresh first, of those that say what
 * was announced by the NAT's memory; then it is asked again.  An open TCP flow
 * is reset for that, where another one holds the mapping. */
static void
rest_one(struct map *m)
{
	for (struct server *s = m->stun; s; s = s->next) {
		if (s->said_at < m->doubt.began || !is_announced(m, &s->said))
			continue;
		struct contact *c = contact_with(m, s); /* UDP: not seen */
		int64_t at = m->now + RESET_MEMORY;
		if (!c || !c->seen || open_flows(m, c)) {
			if (c && c->seen)
				contact_stop(m, c);
			at = server_fresh_at(m->stun, &s->said.peer);
		}
		if (at < m->judge_at) {
			m->doubt.resting = s;
			m->judge_at = at;
		}
	}
	m->doubt.resting->rest = m->judge_at;
}

/* Logs once who says something else; outvoted: it is left alone for a while. */
static void
say_differ(struct map *m, int outvoted)
{
	const union addr *old = &m->hook.next.mapped;
	const struct server *by = teller(m, old);
	const char *why = outvoted ? "outvoted, not asked for 10 minutes" :
	    "one is wrong, or this NAT is not a cone; the second stays";

	if (!by)
		by = m->hook.by;
	for (struct server *s = m->stun; s; s = s->next) {
		if (s->said_at < m->doubt.began || is_announced(m, &s->said))
			continue;
		if (!s->warned++)
			warn("%ps says %pa, but %ps says %pa: %s", s->host,
			    &s->said.mapped, by->host, old, why);
		if (m->udp)	/* until all are fresh */
			s->rest = m->now + UDP_TWICE;
		if (outvoted) {
			s->rest = m->now + OUTVOTED_REST;
			struct contact *c = contact_with(m, s);
			if (c)
				contact_leave(m, c);
		}
	}
}

/* Before one of many is believed, those that failed in the doubt are asked
 * again for a while: the network may have been away for a moment. */
static int
ask_failed(struct map *m)
{
	int n = 0;

	if (m->cfg->nstun < 3 || m->now >= m->doubt.first + DOUBT_LIMIT)
		return 0;
	for (struct server *s = m->stun; s; s = s->next) {
		if (s->live || s->fails > 3 || m->now < s->rest ||
		    s->said_at >= m->doubt.began)
			continue;
		struct contact *c = contact_with(m, s);
		if (c)
			contact_stop(m, c);
		s->asked = 0;
		n++;
	}
	m->judge_at = m->now + BACKOFF_MIN;
	return n > 0;
}

/* Does what the verdict says.  When no two servers agree, once may be a move,
 * twice in a row is the NAT. */
static void
rule(struct map *m, const struct verdict *r)
{
	int first = !m->known;

	if (r->ruling == ANNOUNCE || first)
		announce(m, r->ruling == ANNOUNCE ? teller(m, r->addr) :
		    m->doubt.by);
	if (r->ruling == RESTING) {
		if (!m->doubt.resting)
			rest_one(m);
		m->judge_at = m->doubt.resting->rest;
		return;
	}
	if (r->ruling != DIFFER) {
		if (r->ruling + m->cfg->once > ANNOUNCE) /* --once: then, too */
			say_differ(m, r->ruling == OUTVOTED);
		m->differ = 0;
	} else if (!first && ++m->differ < 2) {
		doubt(m, NULL, m->now);
		m->judge_at = m->now;
		return;
	} else {
		m->depends = 1;
		warn("the mapping depends on the destination: this NAT is not "
		    "a cone, the port is not reachable");
	}
	if (m->doubt.resting)
		m->doubt.resting->rest = 0;
	m->doubt.resting = NULL;
	m->doubt.began = 0;
}

static void
judge(struct map *m)
{
	struct server *s, *resting = m->doubt.resting;
	static struct voice v[MAX_SERVERS];	/* else more code */
	int more = 0;

	m->judge_at = NEVER;
	if (!m->doubt.began)
		return;
	if (resting && m->now >= resting->rest) {
		resting->asked = resting->said_at = 0;
		m->doubt.resting = NULL;
		m->doubt.round = m->now;
	}
	if (m->known)
		ask_all(m);
	voices(m, v);
	struct verdict r = verdict(v, m->cfg->nstun,
	    m->known ? &m->hook.next.mapped : NULL, m->now - m->doubt.round);
	if (r.ruling == ONE_OTHER) {
		if (ask_failed(m))
			return;
		r.ruling = ANNOUNCE;
	}
	/* where the first answers differ, two more names are asked, once */
	if (!m->known && !m->doubt.first && r.heard > 1 &&
	    r.ruling != ANNOUNCE) {
		m->doubt.first = m->now;
		while (more < 2 && (s = choose(m, 0, 0, NULL)) &&
		    s->asked < m->doubt.began && check_start(m, 0))
			more++;
	}
	if (more || r.ruling == WAIT)
		m->judge_at = m->now + r.ms;
	else if (r.ruling == ANNOUNCE && m->known && m->now < m->calm_at)
		m->judge_at = m->calm_at;
	else if (m->known || r.ruling != NOTHING)
		rule(m, &r);
}

/* Notes what a server said, since when the NAT may know that flow, and what it
 * means. */
static void
heard(struct map *m, struct contact *c)
{
	struct doubt *d = &m->doubt;
	struct server *s = c->use.s;
	const struct server *told = teller(m, &c->f.ends.mapped);
	int same = addr_same(&s->said.mapped, &c->f.ends.mapped);
	struct route r;

	/* who says another address each time tells no more by that */
	if (s->said_at >= d->began && !is_announced(m, &s->said))
		told = s;
	if (c->f.born < s->said_at)	/* a newer flow was first */
		return;
	if (!d->began || s->said_at < d->first)
		s->fresh = 0;
	if (!same)
		s->fresh = addr_same(&s->said.peer, c->use.a);
	s->fresh |= c->fresh;
	s->said = c->f.ends;
	s->said_at = c->f.born;
	if (addr_any(&s->said.local)) {	/* IP_PKTINFO did not tell it */
		route_find(&m->local, &s->said.peer, &r);
		s->said.local = r.source;
	}
	int other = !is_announced(m, &s->said);
	if (!m->known) {
		if (!d->by)		/* the first answer */
			doubt(m, s, d->began);
	} else if (m->depends) {
		/* the server that was announced is followed, or another one
		 * while that one does not answer */
		if (other && (s == m->hook.by || !m->hook.by->live))
			announce(m, s);
	} else if (!other) {
		s->warned = 0;
		if (!addr_same(&s->said.local, &m->hook.next.local))
			announce(m, s);
		else if (m->waits)
			target_set(m);
	} else if (d->began ? !told & (m->now >= d->round + DOUBT_LIMIT) :
	    !same || c->fresh > c->seen)	/* new of s, or a new flow */
		doubt(m, s, s->said_at);
}

/* RFC 6890: can a NAT in front of us have that address?  We ask peer. */
static int
is_plausible(const union addr *a, const union addr *peer)
{
	enum addr_kind kind = addr_kind(a);

	return a->sa.sa_family == peer->sa.sa_family && addr_port(a) &&
	    kind != A_NEVER && (kind != A_LOOPBACK || addr_kind(peer) == kind);
}

/* stepping contacts */

/* A flow ended, or a request failed.  A server's reset makes the NAT forget us
 * within seconds: when nothing else is open, another server is asked soon. */
static void
contact_failed(struct map *m, struct contact *c)
{
	int error = -c->event;
	int lived = c->seen & (error != ETIMEDOUT);
	int reset = c->seen & (error == ECONNRESET);

	if (lived || (c->http && c->role == LEAVING))
		note("%s: %s", c->use.s->host->name,
		    server_error(c->use.s, error));
	else if (!c->late || (c->seen | c->http))	/* else it was said */
		failed(m, c->use.s, c->use.a, error);
	if (reset)
		server_remembered(m->stun, c->use.a, m->now + RESET_MEMORY);
	m->judge_at = 0;
	contact_ended(m, c, lived ? next_flow(m, c->f.born) : m->now);
	if (!reset || open_flows(m, c) || m->cfg->nstun + m->cfg->nhttp < 2)
		return;
	for (c = m->contacts; c; c = c->next)
		if (c->role == HOLDS && !c->http && !c->use.s &&
		    c->due > m->now + BACKOFF_MIN)
			c->due = m->now + BACKOFF_MIN;
}

static void
contact_answered(struct map *m, struct contact *c)
{
	const struct flow *f = &c->f;

	if (!c->http && !is_plausible(&c->f.ends.mapped, c->use.a)) {
		c->event = -EFALSE;
		return;
	}
	if (!holds(m))          /* the network is back: all may be asked */
		forgive(m);
	m->lost = m->now + m->age;
	m->at[UNHELD] = m->lost + SILENCE;
	int n = server_answered(c->use.s);
	if (n)
		warn("%ps: answers again (failures: %d)", c->use.s->host, n);
	m->judge_at = c->late = c->event = 0;
	c->due = c->f.asked + m->k;
	if (!c->http)
		heard(m, c);
	else if (f->closes || !f->max ||
	    f->timeout <= (unsigned)m->cfg->keepalive)
		c->role = LEAVING;      /* another may be up before it closes */
	c->seen = 1;
	if (c->role == CHECKS)
		c->role = HOLDS;
	if (!c->http && (m->udp || c->role == LEAVING))
		contact_stop(m, c);     /* in UDP each request has its socket */
}

/* A request waits long: others are asked, but a late answer still counts.  An
 * HTTP server that never answered tells nothing of the mapping. */
static void
overtake(struct map *m, struct contact *c)
{
	c->late = 1;
	if (!(c->seen | c->http))
		failed(m, c->use.s, c->use.a, ETIMEDOUT);
	if (m->known)
		m->judge_at = m->now;
	if (c->role == LEAVING || c->http > c->seen)
		return;
	if (m->late > 0)
		m->late += !m->known;
	else if ((m->udp & m->known) && m->lost >= c->f.asked + m->age)
		m->late = -1;           /* somebody else holds the mapping */
	else
		m->late = 1;
}

/* ms: when there is something to do for a contact, if nothing comes */
static int64_t
contact_next(struct map *m, const struct contact *c)
{
	if (c->event)
		return 0;
	if (c->f.state == FLOW_OPEN)
		return c->due;
	if (is_open(c))
		return c->late ? NEVER :
		    c->f.asked + (m->udp ? LATE_UDP : LATE_TCP);
	if (c->role == FREE || c->use.s)
		return NEVER;
	return c->due < m->serve_at ? m->serve_at : c->due;
}

/* Asks the next server, for a holder without a flow, again in k, or sooner.  In
 * UDP with few live names one of them is asked every k, so that the others rest
 * long enough for a fresh answer; with many all take turns. */
static void
hold(struct map *m, struct contact *c)
{
	struct server *s = NULL;
	int others = 0, how = c->http * RECENT; /* who serves goes on */

	if (m->udp && holds(m) && ++m->cycle < m->cfg->cycle) {
		/* between two requests: a packet that wants no answer */
		int fd = port_socket(m, LOCAL_FLOW);
		if (fd < 0)
			return;
		stun_indicate(fd, &c->f.ends.peer);
		if (!m->relay)
			close(fd);
		server_remembered(m->stun, &c->f.ends.peer, m->now + UDP_TWICE);
		return;
	}
	m->cycle = 0;
	if (!m->udp && !c->http && m->check <= m->now + KEPT)
		how = SPARE;
	if (m->udp && m->known) {
		for (s = m->stun; s; s = s->next)
			others += (s->live || !s->asked) && m->now >= s->rest;
		if (m->cfg->nstun > 1 && (others - 1) * m->period <= UDP_ONCE)
			m->check = m->now;
		else
			s = choose(m, 0, FRESH, NULL);
		how = RECENT;
	}
	if (c->http)
		c->due = NEVER;
	if (!s)
		s = choose(m, c->http, how, &c->due);
	if (s)
		contact_start(m, c, s);
	else if (c->due == NEVER)       /* the old connection is still open */
		c->due = m->now + BACKOFF_MIN;
}

/* look-ups */

static void
contacts_want(struct map *m)
{
	struct server *t = m->target;

	for (struct server *s = m->server; s < m->last; s++)
		lookup_want(&s->lookup, m->w);
	if (m->relay && !t->addrs.n && !t->lookup.pid)
		wake_at(m->w, t->retry);
	for (struct contact *c = m->contacts; c; c = c->next) {
		flow_want(&c->f, m->w);
		wake_at(m->w, contact_next(m, c));
	}
	wake_at(m->w, m->judge_at);
	wake_at(m->w, m->check < m->serve_at ? m->serve_at : m->check);
	m->step_at = m->w->deadline;
	m->slots = m->w->n;
}

/* Who waits for a look-up sees its end at the next step. */
static void
lookups_step(struct map *m)
{
	struct server *t = m->target;

	for (struct server *s = m->server; s < m->last; s++) {
		int r = server_step(m->stun, s, m->w, m->now);
		if (r < 0 && (s == t || !s->addrs.n))
			failed(m, s, NULL, ELOOKUP(s->lookup.gai));
		else if (r > 0 && s != t)
			check_fake(m, &s->addrs.a[0], s->host->name);
		else if (r > 0) {
			if (s->fails)
				warn("target %s: found again", s->host->name);
			s->fails = 0;
			target_set(m);
		}
	}
	if (m->relay && !t->addrs.n)
		resolve(m, t);
}

/* What came is handled, answers before failures, then judged: no step changes
 * what another one walks through. */
static void
contacts_step(struct map *m)
{
	int n = m->slots;

	while (--n >= 0 && !woke(m->w, n))
		;
	if (n < 0 && m->now < m->step_at)
		return;		/* most turns are the relay's */
	lookups_step(m);
	for (struct contact *c = m->contacts; c; c = c->next) {
		if (!c->event)
			c->event = event(flow_step(&c->f, m->w, m->now));
		if (c->event > 0)
			contact_answered(m, c);
		else if (!c->event && c->use.s && !is_open(c))
			contact_open(m, c);
		else if (c->f.state == FLOW_ASKING &&
		    m->now >= contact_next(m, c))
			overtake(m, c);
	}
	for (struct contact *c = m->contacts; c; c = c->next)
		if (c->event < 0)
			contact_failed(m, c);
	if (m->cfg->check) {
		m->check = m->judge_at = m->end;
		return;
	}
	if (m->now >= m->judge_at)
		judge(m);
	for (struct contact *c = m->contacts; c; c = c->next) {
		if (c->event || m->now < contact_next(m, c))
			continue;
		c->due = m->now + m->k;
		if (!is_open(c))
			hold(m, c);
		else if (c->f.last)	/* asked to close, it did not */
			contact_stop(m, c);
		else {
			c->late = 0;
			c->event = event(flow_ask(&c->f, c->role == LEAVING,
			    m->now, m->now + ANSWER_LIMIT));
		}
	}
	if (m->now < m->serve_at)
		return;
	checks_step(m);
	for (int http = 0; http < 2; http++)
		balance(m, http);
}

/* the relay */

/* 1 when an address of a STUN server that we know is the same as a */
static int
is_server(struct map *m, const union addr *a,
    int (*same)(const union addr *, const union addr *))
{
	for (const struct server *s = m->stun; s; s = s->next)
		for (int i = 0; i < s->addrs.n; i++)
			if (same(&s->addrs.a[i], a))
				return 1;
	return 0;
}

/* A datagram on the mapped port: is it of a STUN server?  A late answer, or a
 * second one, is no client's either. */
static int
claim(void *arg, const union addr *from, const union addr *to,
    const unsigned char *p, size_t n)
{
	struct map *m = arg;

	for (struct contact *c = m->contacts; c; c = c->next)
		if (!c->event) {
			c->event = event(flow_claim(&c->f, from, to, p, n));
			if (c->event)
				return 1;
		}
	return stun_is_message(p, n) && is_server(m, from, addr_same);
}

/* A client came: the target's address may have changed since.  A client at no
 * address of ours, nor of a network that we may be in, proves that others reach
 * the port. */
static void
used(void *arg, const union addr *client)
{
	struct map *m = arg;
	union addr own = *client;

	resolve(m, m->target);
	if (m->reached || addr_kind(&own) != A_PUBLIC ||
	    addr_same_host(&own, &m->hook.next.mapped) ||
	    (own.sa.sa_family == AF_INET6 && memcmp(&own.in6.sin6_addr,
	    &m->route.source.in6.sin6_addr, 8) == 0))
		return;
	int fd = socket(own.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	addr_set_port(&own, 0);
	m->reached = bind(fd, &own.sa, addr_len(&own)) < 0 &&
	    errno == EADDRNOTAVAIL;
	close(fd);
	if (m->reached)
		warn("%ph came in from outside: the port is reachable", client);
}

/* Opens the relay's port as soon as it can be had. */
static void
serve(struct map *m)
{
	struct relay_calls calls = { m, claim, used };

	if (!m->cfg->target.name || m->relay || m->now < m->serve_at)
		return;
	int fd = m->spare > 0 ? m->spare : port_socket(m, LOCAL_SERVER);
	m->spare = 0;
	if (fd < 0)
		return;
	m->step_at = 0;
	m->relay = relay_start(m->cfg, &calls, fd, m->now);
	if (!m->relay) {
		m->local.listener = 0;
		port_trouble(m, "the relay does not start");
	}
}

/* the network's news */

/* the route from the mapped port to a server that is known, or to anywhere */
static void
find_route(struct map *m, struct route *r)
{
	union addr to;

	addr_parse(&to, m->cfg->family == AF_INET ? "192.0.2.1" :
	    "2001:db8::1", m->cfg->family);
	addr_set_port(&to, STUN_PORT);
	route_find(&m->local, m->hook.by ? &m->hook.by->said.peer : &to, r);
	if (!r->index) {	/* cannot be told now */
		r->index = m->route.index;
		r->flags = m->route.flags;
	}
}

/* Asks at once if the mapping is still what it was; failures are forgiven. */
static void
recheck(struct map *m)
{
	if (m->quit)
		return;
	forgive(m);
	m->serve_at = m->check = m->step_at = m->now;
	for (struct contact *c = m->contacts; c; c = c->next)
		if (!c->http || !c->use.s)
			c->due = m->now;
}

/* Our address or interface is another: all flows are dead. */
static void
restart(struct map *m)
{
	warn("the network changed, mapping from %ph", &m->route.source);
	for (struct contact *c = m->contacts; c; c = c->next) {
		flow_stop(&c->f, 1);
		c->role = FREE;
		contact_stop(m, c);
	}
	for (struct server *s = m->stun; s; s = s->next)
		memset(s->fresh_at, 0, sizeof s->fresh_at);
	m->lost = m->now;
	m->known = m->depends = m->differ = 0;
	memset(&m->doubt, 0, sizeof m->doubt);
	m->doubt.began = m->now;
	if (m->relay && local_rebind(&m->local, relay_fd(m->relay)) < 0)
		warn("interface \"%s\":", m->cfg->interface);
	recheck(m);
	m->check = m->judge_at = NEVER;
}

/* Acts on news once they settle: was the route another one, or is it now? */
static void
news_step(struct map *m)
{
	struct route r;

	if (woke(m->w, m->news_slot))
		route_read(m->news);
	else if (m->now < m->at[SETTLED])
		return;
	find_route(m, &r);
	int other = r.index != m->route.index ||
	    !addr_same_host(&r.source, &m->route.source);
	m->moved |= other | (r.flags != m->route.flags);
	if (m->now < m->at[SETTLED]) {
		int64_t at = m->settled + NEWS_GAP;
		if (at < m->now + SETTLE)
			at = m->now + SETTLE;
		if (m->at[SETTLED] > at)
			m->at[SETTLED] = at;
		return;
	}
	m->at[SETTLED] = NEVER;
	m->settled = m->now;
	if (!r.source.sa.sa_family)
		return;		/* act when there is a way out again */
	m->route = r;
	if (other)
		restart(m);
	else if (m->moved || !holds(m))
		recheck(m);
	m->moved = 0;
}

/* the mapping as a whole */

/* Adds n servers; returns the first of them. */
static struct server *
servers_init(struct map *m, const struct host *host, int n, enum flow_kind kind)
{
	struct server *first = NULL;

	for (struct server *s = m->last += n; n-- > 0; first = s) {
		s--;
		s->host = &host[n];
		s->kind = kind;
		s->next = first;
		s->lookup.fd = s->lookup.slot = -1;
	}
	return first;
}

static void
map_init(struct map *m, const struct config *cfg, struct wake *w)
{
	m->now = now_ms();
	m->last = m->server;
	m->cfg = m->hook.cfg = m->local.cfg = cfg;
	m->hook.run.path = cfg->script;
	m->w = w;
	m->udp = cfg->type == SOCK_DGRAM;
	m->proto = m->udp ? "UDP" : "TCP";
	m->k = cfg->keepalive * (int64_t)1000;
	m->period = m->k * cfg->cycle;
	m->age = HOLD_GRACE + (m->udp ? m->period : m->k);
	m->stun = servers_init(m, cfg->stun, cfg->nstun, m->udp ? FLOW_UDP :
	    FLOW_TCP);
	m->http = servers_init(m, cfg->http, cfg->nhttp, FLOW_HTTP);
	m->target = servers_init(m, &cfg->target, cfg->target.name != NULL,
	    FLOW_TCP);
	m->check = m->at[SETTLED] = m->at[SERVED] = NEVER;
	m->doubt.began = m->lost = m->now;
	m->at[UNHELD] = m->now + SILENCE;
	for (struct contact *c = m->contact + CONTACTS; c-- > m->contact; ) {
		c->next = m->contacts;
		c->use.next = c->next ? &c->next->use : NULL;
		m->contacts = c;
	}
	m->news = route_open();
	port_next(m);
	find_route(m, &m->route);
}

/* 1 in bind mode, where nobody but us listens on the port */
static int
is_unserved(struct map *m)
{
	struct owner o;

	return !m->cfg->target.name && local_owner(&m->local, &o) >= 0 &&
	    !(o.listening && o.pid != getpid());
}

static void
map_want(struct map *m)
{
	m->news_slot = wake_on(m->w, m->news, POLLIN);
	for (int i = 0; i < TIMERS; i++)
		wake_at(m->w, m->at[i]);
	hook_want(&m->hook, m->w, m->now);
	if (m->relay)
		relay_want(m->relay, m->w);
	else if (m->cfg->target.name)
		wake_at(m->w, m->serve_at);
}

static void
map_step(struct map *m)
{
	const struct server *bad = NULL;
	int n = 0;

	news_step(m);
	serve(m);
	contacts_step(m);
	if (m->now >= m->at[SERVED]) {
		m->at[SERVED] = NEVER;
		if (is_unserved(m))
			port_says(m, "nobody listens on it (fine if a "
			    "firewall rule forwards it)");
	}
	if (m->now >= m->at[UNHELD]) {
		m->at[UNHELD] = NEVER;
		for (const struct server *s = m->stun; s; s = s->next)
			if (s->repeats) {
				n++;
				bad = s;
			}
		if (bad && !m->port_error)	/* which was said */
			warn("%s: %d server%s tried: %s", m->hook.by ?
			    "the mapping was lost" : "no mapping yet", n,
			    n > 1 ? "s" : NULL,
			    server_error(bad, bad->logged[0]));
	}
	if (m->relay)
		relay_step(m->relay, m->w, m->now);
	hook_step(&m->hook, m->w, m->now);
}

/* Ends the flows so that a restart finds their 4-tuples free and the NAT
 * still knows the port: the server is asked to close first. */
static void
map_end(struct map *m, int sig)
{
	int held = open_flows(m, NULL) > 1;

	if (m->quit)
		return;
	m->quit = sig;
	m->end = m->now + END_LIMIT;
	m->check = m->serve_at = NEVER;
	m->doubt.began = 0;	/* nothing is announced any more */
	for (struct contact *c = m->contacts; c; c = c->next) {
		c->role = LEAVING;
		if (c->http && c->f.state == FLOW_OPEN &&
		    flow_ask(&c->f, 1, m->now, m->end) == 0)
			continue;
		flow_stop(&c->f, !held);
		contact_stop(m, c);
	}
}

static void
map_stop(struct map *m)
{
	relay_stop(m->relay);
	for (struct contact *c = m->contacts; c; c = c->next)
		flow_stop(&c->f, 0);
	for (struct server *s = m->server; s < m->last; s++)
		lookup_stop(&s->lookup);
	local_release(&m->local);
}

/* text */

#define BLANKS	" \t\r\n"

/* the word of that number, from 0, each of which ends in a NUL */
static const char *
nth(const char *list, int n)
{
	while (n-- > 0)
		list += strlen(list) + 1;
	return list;
}

/* Prints, and gives up where that is impossible. */
static void
print(const char *f, const void *a, const void *b)
{
	char text[640];
	int n = fmt(text, sizeof text, f, a, b);

	if (write(STDOUT_FILENO, text, (size_t)n) < 0)
		exit(1);
}

/* check */

/* Times of --check, ms. */
#define REACH_LIMIT	19000	/* what is open then is unknown */
#define REACH_LAST      8000    /* before it: the last filtering test begins */
#define REACH_FILTER	4000	/* a filtering test */
#define REACH_ARRIVAL   1000    /* who connects back has come by then */
#define REACH_SERVERS	4	/* answers that are enough */

static const char findings[] = "unknown\0none\0endpoint-independent\0"
	"destination-dependent\0address-and-port-dependent\0"
	"address-dependent\0no\0yes";

/* Begins the filtering test (RFC 5780 section 4.4) with s, where s can answer
 * from a host and a port that were not asked. */
static void
filter_start(struct map *m, struct server *s)
{
	struct reach *r = &m->reach;
	const union addr *by = &s->said.peer;
	union addr to = s->said.other;
	int port = addr_port(&to);

	s->said.other.sa.sa_family = 0;
	if (!is_plausible(&to, by) || addr_kind(&to) != addr_kind(by) ||
	    port == addr_port(by) || is_server(m, &to, addr_same_host))
		return;
	for (int i = 2; i >= 0; i--) {	/* the one that asks last */
		flow_stop(&r->f[i], 0);
		if (flow_start(&r->f[i], FLOW_UDP, port_socket(m, LOCAL_FLOW),
		    0, &to, NULL, m->now, NEVER) < 0)
			return;
		to = *by;
		if (i == 2)
			addr_set_port(&to, port);
	}
	r->seen = BY_PORT;
	flow_ask(r->f, 1, m->now, m->now + REACH_FILTER);
	for (int i = 1; i < 3; i++)
		memcpy(r->f[i].request, r->f[0].request, STUN_HEADER);
}

/* Asks who is to be asked now; 0 when nobody is, and nobody is awaited. */
static int
reach_ask(struct map *m)
{
	struct reach *r = &m->reach;
	int missing = REACH_SERVERS, waiting = 0, seek = m->udp &&
	    r->tests < 2 && r->filtering != INDEPENDENT &&
	    m->now < m->end - REACH_LAST;

	for (struct server *s = m->stun; s; s = s->next) {
		if (!s->said_at)
			continue;
		missing--;
		if (seek && r->f[0].state != FLOW_ASKING)
			filter_start(m, s);
	}
	if (r->f[0].state == FLOW_ASKING)
		return 1;
	for (const struct contact *c = m->contacts; c; c = c->next)
		waiting += c->use.s && !c->seen && !c->late;
	while (waiting < (seek ? 1 : missing) && check_start(m, 0))
		waiting++;
	return (waiting && (seek || missing > 0)) ||
	    (m->http && m->http->lookup.pid);
}

/* 1 or 0, or "reachable": true or false */
static enum finding
read_body(const char *s)
{
	const char *json = strstr(s, "\"reachable\"");
	char yes = json ? 't' : '1', no = json ? 'f' : '0';

	if (json)
		s = json + 11;
	s += strspn(s, ":" BLANKS);
	if (!json && (!*s || s[1 + strspn(s + 1, BLANKS)]))
		return UNKNOWN;
	return *s == yes ? YES : *s == no ? NO : UNKNOWN;
}

/* got: 1 the service has answered, -1 it failed with errno.  Where natmap
 * listens, only who comes in is a yes. */
static void
probe_ended(struct map *m, int got)
{
	struct reach *r = &m->reach;
	const struct server *s = m->http;
	const char *what = NULL;
	int error = got < 0 ? errno : EREFUSED + r->f[3].status;
	enum finding answer;

	if (error != EREFUSED + 200)
		what = server_error(s, error);
	else if ((answer = read_body((char *)r->f[3].buf)) == UNKNOWN)
		what = "neither yes nor no";
	else if (answer == YES && r->listener >= 0)
		what = "yes, but nobody came in";
	else
		r->answer = answer;
	fmt(r->why, sizeof r->why, what ? " (%s: %s)" : " (as %s says)",
	    s->host->name, what);
	flow_stop(&r->f[3], 0);
	int64_t end = m->now + (r->listener < 0 ? 0 : REACH_ARRIVAL);
	if (m->end > end)
		m->end = end;
}

/* Asks the service from another port: the NAT shall not know it from here. */
static void
probe_start(struct map *m)
{
	struct reach *r = &m->reach;
	const struct server *s = m->http, *first = m->doubt.by;
	const char *path = m->cfg->probe_path;
	struct local l = m->local;

	if (!s || !first) {
		m->end = m->now;
		return;
	}
	r->listener = local_socket(&m->local, LOCAL_SERVER);
	fmt(r->why, sizeof r->why, *path ? "%s/%.200s/%pp" : "%s%s/%pp",
	    s->host->name, path, &first->said.mapped);
	l.port = 0;
	l.shared = NULL;
	errno = ELOOKUP(s->lookup.gai);
	if (!s->addrs.n || flow_start(&r->f[3], FLOW_HTTP, local_socket(&l,
	    LOCAL_FLOW), 0, &s->addrs.a[0], r->why, m->now, m->end) < 0)
		probe_ended(m, -1);
}

static void
reach_step(struct map *m)
{
	struct reach *r = &m->reach;
	union addr a;
	socklen_t len = sizeof a;

	contacts_step(m);
	/* who answers from where it was asked, or with an error, cannot tell */
	int end = flow_step(&r->f[0], m->w, m->now), error = errno;
	if (flow_step(&r->f[1], m->w, m->now) > 0)
		r->seen = BY_ADDRESS;
	if (flow_step(&r->f[2], m->w, m->now) > 0) {
		r->filtering = INDEPENDENT;
		flow_stop(&r->f[0], 0);
	} else if (end < 0 && error == ETIMEDOUT) {
		r->tests++;
		if (r->seen > r->filtering)
			r->filtering = r->seen;
	}
	if (!*r->why && !reach_ask(m))
		probe_start(m);
	for (int fd; (fd = accept(r->listener, &a.sa, &len)) >= 0; ) {
		close(fd);
		if (addr_kind(&a) != A_PUBLIC ||
		    is_server(m, &a, addr_same_host) ||
		    addr_same_host(&a, &m->doubt.by->said.mapped))
			continue;
		r->answer = YES;
		fmt(r->why, sizeof r->why, " (%ph came in)", &a);
		m->end = m->now;
		return;
	}
	int got = flow_step(&r->f[3], m->w, m->now);
	if (got)
		probe_ended(m, got);
}

static void
advise(const char *text)
{
	print("advice:    %s\n", text, NULL);
}

static void
reach_advise(struct map *m, enum finding mapping, int several,
    enum finding answer, enum addr_kind local)
{
	if (m->fake)
		advise("a proxy invents addresses (198.18.0.0/15): exclude "
		    "natmap (-f)");
	if (several)
		advise("servers see several public addresses: choose a line "
		    "(-i), or avoid the proxy (-f)");
	else if (mapping == DEPENDENT)
		advise("the provider's NAT is symmetric, nothing at home can "
		    "change it: ask for a public or an IPv6 address");
	else if (answer != YES && local >= A_PRIVATE)
		advise("forward the port in the home router, by hand or UPnP; "
		    "else see this host's firewall, the provider's NAT");
	else if (answer == NO)
		advise("open the port in this host's firewall; else see the "
		    "router, the provider's NAT");
	if (is_unserved(m))
		advise("nobody listens on the port: start the service");
	if (!m->udp && !m->cfg->nhttp)
		advise("STUN cannot test TCP: ask a service (--probe)");
	if (answer != NO && mapping != NONE)
		advise("try it from mobile data, not from inside");
}

/* Prints the result; returns the exit status. */
static int
reach_report(struct map *m)
{
	const struct reach *r = &m->reach;
	const struct server *first = m->doubt.by;
	const union addr *local = first ? &first->said.local : &m->route.source;
	enum finding answer = r->answer, mapping = first &&
	    addr_same(&first->said.mapped, local) ? NONE : UNKNOWN;
	int n = 0, several = 0;

	check_fake(m, local, "");
	print(local->sa.sa_family ? "local:     %pa %s\n" :
	    "local:     none\n", local,
	    nth("public\0shared\0link-local\0link-local\0private\0private\0"
	    "private", addr_kind(local)));
	for (const struct server *s = m->stun; s; s = s->next) {
		if (!s->said_at)
			continue;
		check_fake(m, &s->said.mapped, "");
		if (++n <= REACH_SERVERS)
			print("public:    %pa %ps\n", &s->said.mapped, s->host);
		if (!mapping &&
		    !addr_same_host(&s->said.peer, &first->said.peer))
			mapping = INDEPENDENT;
		if (!addr_same(&s->said.mapped, &first->said.mapped))
			mapping = DEPENDENT;
		several += !addr_same_host(&s->said.mapped,
		    &first->said.mapped);
	}
	if (!first)
		print("public:    none\n", NULL, NULL);
	if (r->filtering)
		answer = r->filtering == INDEPENDENT ? YES : NO;
	if ((several && r->answer == NO) || (answer == YES && !mapping))
		answer = UNKNOWN;
	else if (mapping == DEPENDENT)
		answer = NO;
	print("mapping:   %s\nfiltering: %s\n", nth(findings, mapping),
	    nth(findings, r->filtering));
	print("reachable: %s%s\n", nth(findings, answer),
	    answer == r->answer ? r->why : NULL);
	if (!first) {
		if (!m->port_error)
			warn(FATAL "no server answered");
		return 1;
	}
	reach_advise(m, mapping, several, answer, addr_kind(local));
	return answer == YES ? 0 : answer == NO ? 3 : 4;
}

/* options */

/* from NUMBER on a value is expected, from DEVICE on none that is a number */
enum kind {
	SET, HELP, RELEASE, NUMBER, SOME, PORTS, PORT, MARK, DEVICE, TEXT,
	SERVERS, TARGET, PROBE
};

enum {				/* instead of a letter: below LETTERS */
	OPT_PID = 1, OPT_HELP, OPT_CHECK, OPT_PROBE, OPT_PROXY, LETTERS
};

/* The one table: parser, checks and usage follow from it. */
#define OPTIONS(X) \
    X('4', SET, family, AF_INET, "ipv4", "", "IPv4 (default)") \
    X('6', SET, family, AF_INET6, "ipv6", "", "IPv6") \
    X('u', SET, type, SOCK_DGRAM, "udp", "", "UDP (default: TCP)") \
    X('i', DEVICE, interface, 0, \
	"interface", "NAME|ADDR", "interface or source address") \
    X('b', PORTS, port_lo, 0, \
	"bind", "PORT", "local port: 0 any, P, A-B, A~B random") \
    X('s', SERVERS, stun, STUN_PORT, \
	"stun", "HOST[:PORT],..", "STUN servers (default: public)") \
    X('h', SERVERS, http, HTTP_PORT, \
	"http", "HOST[:PORT],..", "HTTP keep-alive servers (TCP)") \
    X('k', NUMBER, keepalive, 864, \
	"keepalive", "SECONDS", "between keep-alives (TCP 30, UDP 10)") \
    X('c', NUMBER, cycle, 100, \
	"stun-cycle", "N", "keep-alives per check (TCP 2, UDP 1)") \
    X('e', TEXT, script, 0, "script", "PATH", "run for each new mapping") \
    X('f', MARK, mark, 0, "fwmark", "MARK", "SO_MARK of packets") \
    X('t', TARGET, target, 0, "target", "HOST", "relay to it (forward mode)") \
    X('p', PORT, target_port, 0, \
	"target-port", "PORT", "its port; 0: the public one") \
    X('T', NUMBER, idle_timeout, 26784, \
	"forward-idle-timeout", "SECONDS", "idle limit; 0: never (300)") \
    X('n', SOME, max_sessions, 10000, "max-sessions", "N", "sessions at most") \
    X('C', TEXT, congestion, 0, \
	"congestion", "NAME", "TCP congestion control") \
    X(OPT_PROXY, SET, proxy_protocol, 1, \
	"proxy-protocol", "", "tell -t the client's address") \
    X('1', SET, once, 1, "once", "", "map, print or run -e, exit") \
    X(OPT_CHECK, SET, check, 1, "check", "", "is the port reachable?") \
    X(OPT_PROBE, PROBE, http, HTTP_PORT, \
	"probe", "HOST[:PORT][/PATH]", "for --check: who connects") \
    X('d', SET, daemon, 1, "daemon", "", "detach") \
    X(OPT_PID, TEXT, pid_file, 0, "pid-file", "PATH", "for the process id") \
    X('v', SET, level, 1, "verbose", "", "log sessions and mappings") \
    X('q', SET, level, -1, "quiet", "", "log what is fatal") \
    X('V', RELEASE, level, 0, "version", "", "print the version") \
    X(OPT_HELP, HELP, level, 0, "help", "", "print this")

#define AT(member)	offsetof(struct config, member)
#define ROW(letter, kind, member, n, name, arg, help) \
	{ letter, kind, AT(member), n },
#define WORDS(letter, kind, member, n, name, arg, help) \
	name "\0" arg "\0" help "\0"

static const struct option_row {
	char letter;		/* below LETTERS: long only */
	unsigned char kind;
	short at;		/* the member of struct config */
	short n;		/* SET: the value; with a port: the default;
				   NUMBER, SOME (not 0): most, in hundreds */
} rows[] = { OPTIONS(ROW) };

/* name, argument and help of each, with their NULs: no pointer to relocate */
static const char words[] = OPTIONS(WORDS);

#define ROWS	((int)(sizeof rows / sizeof *rows))

static NORETURN void
usage(int status)
{
	const char *s = words;
	char left[37];		/* cuts off blanks that are too many */

	print("Usage: natmap [OPTION]...\n"
	    "Open a port behind a full-cone NAT to the Internet.\n\n",
	    NULL, NULL);
	for (int i = 0; i < ROWS; i++, s = nth(s, 3)) {
		fmt(left, sizeof left, "-%.1s, --%s %s             "
		    "             ", &rows[i].letter, s, nth(s, 1));
		if (rows[i].letter < LETTERS)
			memset(left, ' ', 4);
		print("  %s %s\n", left, nth(s, 2));
	}
	print("\nVersion: " VERSION "\n", NULL, NULL);
	exit(status);
}

static const struct option_row *opt;	/* read now, or bad; NULL: none */

/* for a message: the option, and the begin of its value, which may be NULL */
static const char *
named(const char *value)
{
	static char text[128];

	fmt(text, sizeof text, value ? "-%.1s/--%s \"%.80s\"" : "-%.1s/--%s",
	    &opt->letter, nth(words, 3 * (int)(opt - rows)), value);
	return opt->letter < LETTERS ? text + 3 : text;
}

static NORETURN void
bad(const char *value, const char *why)
{
	quit(2, "%s: %s", named(value), why);
}

static const struct option_row *
row(int letter)
{
	for (const struct option_row *o = rows; o < rows + ROWS; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

/* Reads the number at text, in value: digits, lo at least; -f in C's syntax. */
static int
number(const char *value, const char *text, unsigned lo)
{
	unsigned hi = opt->kind <= SOME ? opt->n * 100u :
	    opt->kind == MARK ? UINT32_MAX : UINT16_MAX;
	char *end;
	unsigned long long n = strtoull(text, &end,	/* wider than hi */
	    opt->kind == MARK ? 0 : 10);

	if (text[0] < '0' || text[0] > '9' || (*end && (opt->kind != PORTS ||
	    text != value || (*end != '-' && *end != '~'))))
		bad(value, "not a number");
	if (n >= lo && n <= hi)
		return (int)n;
	if (opt->kind != NUMBER)
		quit(2, "%s: out of range %u to %u", named(value), lo, hi);
	warn("%s: used as \"%u\"", named(value), hi);
	return (int)hi;
}

/* Reads an address of the family; -1 when value is a name.  The scope stays 0
 * where there is no such interface (yet). */
static int
read_literal(const struct config *c, const char *value, union addr *a)
{
	if (addr_parse(a, value, AF_UNSPEC) < 0)
		return -1;
	if (opt->kind != TARGET && a->sa.sa_family != c->family)
		bad(value, "the wrong IP version (-4, -6)");
	if (opt->kind != DEVICE && strchr(value, '%') && !a->in6.sin6_scope_id)
		warn("%s: there is no such interface", named(value));
	return 0;
}

/* HOST, HOST:PORT, ADDR:PORT, [V6]:PORT, [V6] or V6; h points into value */
static void
read_host(const struct config *c, char *value, struct host *h)
{
	const int bracket = value[0] == '[';
	char *name = value + bracket, *end = strchr(name, bracket ? ']' : ':');
	union addr a;

	if (!end || (!bracket && strchr(end + 1, ':')))
		end = value + strlen(value);
	char *port = end + bracket;
	if (bracket && (!*end || (*port && *port != ':')))
		bad(value, "no ']:' after the address");
	if (end == name)
		bad(value, "no host");
	if (end - name > 253)
		bad(value, "over 253 bytes");
	if (*port && opt->kind == TARGET)
		bad(value, "the port belongs to -p");
	h->port = *port ? number(value, port + 1, 1) : opt->n;
	*end = '\0';
	h->name = name;
	read_literal(c, name, &a);
}

/* a comma list; the option may be repeated */
static void
read_servers(struct config *c, char *value, struct host *list)
{
	int http = opt->letter == 'h', *count = http ? &c->nhttp : &c->nstun;
	char *host;

	if (http && (c->check || c->type == SOCK_DGRAM)) {
		free(value);	/* accepted and unused */
		return;
	}
	while ((host = strsep(&value, ","))) {
		if (*count == MAX_SERVERS)
			bad(host, "more than 16 servers");
		read_host(c, host, &list[(*count)++]);
	}
}

/* HOST[:PORT][/PATH]; http:// before it is fine */
static void
read_probe(struct config *c, char *value, struct host *at)
{
	if (!c->check)
		bad(NULL, "only with --check");
	if (value[strcspn(value, BLANKS)])
		bad(value, "a blank in it");
	if (strncmp(value, "http://", 7) == 0)
		value += 7;
	char *path = value + strcspn(value, "/");
	for (size_t n = strlen(path); n && path[n - 1] == '/'; )
		path[--n] = '\0';
	c->probe_path = path + 1;	/* the value ends in two NULs */
	*path = '\0';
	read_host(c, value, at);
	c->nhttp = c->type == SOCK_STREAM;
}

/* Makes a comma list of what people paste: items with blanks between, URLs. */
static NOINLINE void
tidy_list(char *list)
{
	char *to = list, *next = list, *p;

	while ((p = strsep(&next, BLANKS ","))) {
		char *host = strstr(p, "://");
		if (host)
			p = host + 3;
		else if (strncmp(p, "stun:", 5) == 0 &&
		    p[5 + strspn(p + 5, "0123456789")])
			p += 5;         /* stun:3478 is a host and its port */
		size_t n = strcspn(p, "/?");
		if (n && to > list)
			*to++ = ',';
		memmove(to, p, n);
		to += n;
	}
	*to = '\0';
}

/* the value in what the user gave; NULL: as if the option were not there */
static char *
value_of(struct config *c, const char *arg)
{
	const int kind = opt->kind;
	const char *blanks = kind == TEXT ? "" : BLANKS;
	const char *start = arg + strspn(arg, blanks);
	size_t n = strcspn(start, kind == DEVICE || kind == MARK ?
	    "/" : "");		/* a prefix, a mask */

	while (n && strchr(blanks, start[n - 1]))
		n--;
	char *value = calloc(1, n + 2);
	if (!value)
		die("no memory");
	memcpy(value, start, n);
	if (arg[0] == '-' && (arg[1] == '-' || (row(arg[1]) &&
	    (kind >= DEVICE || arg[1] > '9'))))
		quit(2, "%s: its value is missing (found %.60s)",
		    named(NULL), arg);
	if (kind == SERVERS || kind == TARGET)
		tidy_list(value);
	if (kind == TARGET && strchr(value, ','))
		bad(arg, "more than one host");
	if (kind == PORT && !*value)
		*value = '0';
	if (*value && strcmp(value, arg) != 0)
		warn("%s: used as \"%.80s\"", named(arg), value);
	if (*value || opt->letter < LETTERS)
		return value;
	if (kind == TARGET && !c->target.name)
		c->target.name = "";
	warn("%s: as if not given", named(arg));
	free(value);
	return NULL;
}

static NOINLINE void
read_option(struct config *c, const char *arg)
{
	void *at = (char *)c + opt->at;
	char *value = NULL, *last;
	int kind = opt->kind;

	if (arg && !(value = value_of(c, arg)))
		return;
	if (kind == SET)
		*(int *)at = opt->n;
	else if (kind == PORTS) {	/* P, A-B or A~B */
		last = value + strcspn(value, "-~");
		c->port_random = *last == '~';
		c->port_lo = number(value, value, *last != '\0');
		c->port_hi = *last ? number(value, last + 1,
		    (unsigned)c->port_lo) : c->port_lo;
	} else if (kind == PROBE)
		read_probe(c, value, at);
	else if (kind == SERVERS)
		read_servers(c, value, at);
	else if (kind == TARGET)
		read_host(c, value, at);
	else if (kind >= DEVICE) {
		if (!*value)
			bad(value, "its value is missing");
		/* the last one wins */
		free((void *)(uintptr_t)*(const char **)at);
		*(const char **)at = value;
		if (kind != DEVICE)
			return;
		/* an interface, or an address, maybe with its interface */
		c->device = value;
		last = strchr(value, '%');
		if (read_literal(c, value, &c->source) == 0)
			c->device = last && !c->source.in6.sin6_scope_id ?
			    last + 1 : NULL;
	} else if (kind == PORT && (*value < '0' || *value > '9')) {
		const struct servent *service = getservbyname(value,
		    c->type == SOCK_DGRAM ? "udp" : "tcp");
		if (!service)
			bad(value, "no port or known service");
		*(int *)at = ntohs((uint16_t)service->s_port);
	} else if (kind >= NUMBER)
		*(int *)at = number(value, value, kind == SOME);
	else if (kind == HELP)
		usage(0);
	else {
		print("natmap " VERSION "\n", NULL, NULL);
		exit(0);
	}
	if (kind < DEVICE)	/* a number has been read from it */
		free(value);
}

static NORETURN void
conflict(int letter, const char *why)
{
	opt = row(letter);
	bad(NULL, why);
}

/* What can be judged only when all options are known. */
static void
check_options(struct config *c)
{
	if (c->check && (c->once || c->daemon))
		conflict(OPT_CHECK, "not with -d or --once");
	if (!c->target.name && c->target_port > 0)
		quit(2, "-p/--target-port \"%d\": only with -t",
		    c->target_port);
	if (c->target.name && !*c->target.name)
		c->target.name = NULL;
	else if (c->target.name && c->target_port < 0)
		conflict('t', "its port (-p) is missing");
	if (c->once && (c->daemon || c->target.name))
		conflict('1', "not with -d or -t");
	if (c->proxy_protocol && (c->type == SOCK_DGRAM || !c->target.name))
		conflict(OPT_PROXY, "only with -t and in TCP");
	if (!c->keepalive)
		c->keepalive = c->type == SOCK_DGRAM ? UDP_KEEPALIVE :
		    TCP_KEEPALIVE;
	if (!c->cycle)
		c->cycle = c->type == SOCK_DGRAM ? UDP_CYCLE : TCP_CYCLE;
	if (c->nstun)
		return;
	/* Public ones, from a random one on: all installations together shall
	 * not ask the first one first. */
	int n = c->type == SOCK_DGRAM ? PUBLIC_UDP : PUBLIC_TCP;
	int at = c->check ? PUBLIC_RFC5780 : 0;
	at += (int)random_below((uint32_t)((at ? PUBLIC_TCP : n) - at));
	while (c->nstun < n)
		c->stun[c->nstun++] = (struct host){
		    nth(public_stun, at++ % n), STUN_PORT };
}

/* Fills c; a mistake of the user's is said and ends the program. */
static NOINLINE void
read_options(struct config *c, int argc, char **argv)
{
	static struct option longs[ROWS + 1];
	char keys[2 * ROWS + 2], *s = keys, letter[] = "-?";
	const char *name = words;
	int ch;

	*s++ = ':';             /* getopt_long() itself says nothing */
	for (int i = 0; i < ROWS; i++, name = nth(name, 3)) {
		int arg = rows[i].kind >= NUMBER;
		longs[i] = (struct option){ name, arg, NULL, rows[i].letter };
		*s++ = rows[i].letter;	/* or an OPT_, of no key */
		*s = ':';
		s += arg;
	}
	*s = '\0';
	memset(c, 0, sizeof *c);        /* an initialiser may leave unions */
	c->family = AF_INET;
	c->type = SOCK_STREAM;
	c->idle_timeout = IDLE_TIMEOUT;
	c->target_port = -1;
	/* Values are read the second time: they depend on -6, -u and -1. */
	for (int i = 0; i < 2; i++) {
		optind = 0;
		while ((ch = getopt_long(argc, argv, keys, longs, NULL)) > 0) {
			opt = row(ch);
			letter[1] = (char)optopt;
			if (!opt && i && row(optopt))
				conflict(optopt, ch == ':' ?
				    "its value is missing" : "takes no value");
			if (!opt && i)
				quit(2, "unknown option \"%s\", --help lists "
				    "them", optopt ? letter : argv[optind - 1]);
			if (i || (opt && opt->kind == SET))
				read_option(c, optarg);
		}
		log_level = c->level;
	}
	for (int i = optind; i < argc; i++) {
		if (!opt)
			quit(2, "\"%.80s\" is not an option; a port is given "
			    "with -b (see --help)", argv[i]);
		warn("\"%.80s\" is not an option, ignored", argv[i]);
	}
	check_options(c);
}

/* the program */

static void
signals(struct map *m)
{
	for (int sig; (sig = signals_next()) != 0; )
		if (sig == SIGHUP) {
			recheck(m);
			m->at[SETTLED] = m->now;	/* did we move? */
			m->hook.retry = 0;
		} else if (sig == SIGTERM || sig == SIGINT)
			map_end(m, sig);
		else if (sig == SIGUSR1 && m->relay)
			relay_report(m->relay);
		else if (sig == SIGCHLD && script_reap(&m->hook.run))
			hook_ended(&m->hook, m->now);
}

/* Runs until a signal, --once or --check ends it; 0 or the exit status. */
static NOINLINE int
run(struct map *m, int sigfd)
{
	struct reach *r = &m->reach;
	int check = m->cfg->check;

	m->end = m->cfg->once ? m->now + ONCE_LIMIT : NEVER;
	if (check) {
		m->end = m->now + (m->port_error ? 0 : REACH_LIMIT);
		r->listener = -1;
		m->k = m->age = REACH_LIMIT;	/* no flow asks again */
		m->lost = m->end;
		if (m->http)
			resolve(m, m->http);
		addr_set_port(&m->route.source, m->local.port);
		log_level = (m->cfg->level > 0) - 1;    /* -v: who fails */
	}
	for (;;) {
		if (m->now >= m->end || (m->quit ? !open_flows(m, NULL) :
		    m->cfg->once && hook_delivered(&m->hook)))
			break;
		wake_clear(m->w);
		int slot = wake_on(m->w, sigfd, POLLIN);
		wake_at(m->w, m->end);
		contacts_want(m);
		if (check) {
			for (struct flow *f = r->f; f < r->f + 4; f++)
				flow_want(f, m->w);
			wake_on(m->w, r->listener, POLLIN);
		} else
			map_want(m);
		m->now = wake_wait(m->w, m->now);
		if (woke(m->w, slot))
			signals(m);
		if (check)
			reach_step(m);
		else
			map_step(m);
	}
	if (m->quit)
		return 0;	/* main() knows more */
	if (check)
		return reach_report(m);
	if (m->now >= m->end)
		warn(FATAL "no STUN server answered within " ONCE_TEXT);
	return !m->hook.sent.mapped.sa.sa_family;
}

/* What -d and --once refuse to start without; --check says that it cannot. */
static void
startable(struct map *m)
{
	const struct config *c = m->cfg;
	int strict = c->daemon || c->once || c->check;

	log_level = strict ? 0 : c->level;	/* -q hides nothing fatal */
	if (c->script && script_check(c->script) < 0)
		hook_complain(&m->hook, strict);
	if (!strict)
		return;
	int fd = port_socket(m, c->target.name && !c->check ? LOCAL_SERVER :
	    LOCAL_FLOW);
	if (fd < 0 && !c->check && m->port_error != ENODEV &&
	    m->port_error != EADDRNOTAVAIL)
		exit(1);
	if (c->target.name && !c->check)
		m->spare = fd;
	else
		close(fd);
	log_level = c->level;
}

/* Detaches.  Returns a descriptor: the parent exits 0 when a byte is written
 * there, 1 when it is closed without. */
static int
detach(void)
{
	int p[2];
	char c;
	pid_t pid = pipe(p) < 0 ? -1 : fork();

	if (pid < 0)
		die("cannot detach:");
	if (pid > 0) {
		close(p[1]);
		_exit(read(p[0], &c, 1) != 1);
	}
	terminal_leave();
	close(p[0]);
	return p[1];
}

int
main(int argc, char **argv)
{
	struct config c;
	static struct map map;  /* zeros, and what stays unused costs no page */
	/* All functions are shorter where its address is not a constant. */
	struct map *volatile at = &map, *m = at;
	static struct wake w;

	if (argc < 2) {
		dup2(STDERR_FILENO, STDOUT_FILENO);
		usage(2);
	}
	read_options(&c, argc, argv);
	files_raise();
	fd_inherited();
	int sigfd = signals_open();
	if (sigfd < 0)
		die("cannot catch signals:");
	map_init(m, &c, &w);
	startable(m);
	int report = c.daemon ? detach() : 0;
	int busy = c.pid_file && !c.check ? pid_write(c.pid_file) : 0;
	if (busy < 0)
		die("%s: cannot be written:", c.pid_file);
	if (busy)
		die("%s: locked by another natmap", c.pid_file);
	if (c.daemon) {
		log_to_syslog();
		(void)!write(report, "", 1);	/* it may be gone */
		close(report);
	}
	int status = run(m, sigfd);
	map_stop(m);
	if (c.pid_file && !c.check)	/* else it is a running natmap's */
		unlink(c.pid_file);
	if (m->quit) {
		signal(m->quit, SIG_DFL);
		kill(getpid(), m->quit);
		status = 128 + m->quit;	/* no signal kills process 1 */
	}
	exit(status);
}
