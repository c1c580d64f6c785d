/* SPDX-License-Identifier: MIT */
/*
 * The program: options, script, and the policy of the mapping, which is what
 * to try next and what to announce.
 *
 * The mapping is held by flows from the mapped port.  A flow to a STUN server
 * lives in a struct ask; its place in the policy is its role:
 *
 *   R_FREE     unused
 *   R_HOLD     holds the mapping: asked every k seconds, replaced at due when
 *              its flow has ended
 *   R_PROBE    a new flow that checks; once answered it takes a holder's place
 *   R_RETIRED  replaced; a late answer still counts, else it waits for the
 *              server to close it, since a reset would free the NAT's state
 *
 * In TCP one or two keepers, connections to HTTP servers, hold it as well.
 * What the answers say goes through judge(), which alone announces.
 */
#include "natmap.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
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
#define OVERTAKE_UDP    3000    /* unanswered: the next server is asked too */
#define OVERTAKE_TCP	2500
#define ANSWER_LIMIT	10000	/* unanswered: the flow has failed */
#define HARD_LIMIT      4000    /* the same while nothing holds the mapping */
#define LOOKUP_LIMIT	10000
#define LOOKUP_AGE      600000  /* older addresses are looked up again */
#define TARGET_AGE	60000
#define BACKOFF_MIN	1000	/* after a failure, doubled each time */
#define BACKOFF_MAX	30000
#define BACKOFF_HARD    4000    /* the cap while nothing holds the mapping */
#define PAIR_LIMIT      1000    /* two answers this close are comparable */
#define STALE           180000  /* an address that none confirms so long */
#define REMEMBERED      10000   /* by a NAT: a flow that its server reset */
#define RESTED          13000   /* the same, and what such a flow lives */
#define HOLD_GRACE	5000	/* k and this long an answer holds */
#define SETTLE          500     /* the network's news settle this long */
#define NEWS_GAP        2000    /* and are acted on no more often than this */
#define PORT_TRIES	255	/* ports of a range tried at a time */
#define PORT_RETRY	3000	/* the port or the source is not usable */
#define LISTEN_CHECK    3000    /* after the first mapping: does one listen? */
#define ONCE_LIMIT	30000
#define END_LIMIT       700     /* a server may take so long to close at exit */
#define RUN_LIMIT       300000  /* newer values wait so long behind a run */
#define RUN_KILL	5000	/* between TERM and KILL of that run */
#define RUN_RETRY	5000	/* a script that cannot be run */

#define ASKS		4	/* flows to STUN servers at a time */
#define KEEPERS		2

/* Public servers that answer over TCP and UDP; below the line UDP only. */
static const char *const public_stun[] = {
	"turn.cloudflare.com", "stun.nextcloud.com", "fwa.lifesizecloud.com",
	"global.turn.twilio.com", "stun.sipnet.com", "stun.radiojar.com",
	"stun.sonetel.com", "stun.telnyx.com",
#define PUBLIC_TCP	8
	"stun.miwifi.com", "stun.chat.bilibili.com", "stun.hitv.com",
#define PUBLIC_UDP	11
};

/* options */

enum kind { SET, NUMBER, TEXT, SERVERS, MARK, PORTS, PORT, HELP, RELEASE };

#define AT(member)	offsetof(struct config, member)

/* The one table: parser, checks and usage follow from it. */
static const struct option_row {
	int letter;		/* above 255: long only */
	enum kind kind;
	const char *name, *arg, *help;
	size_t at;		/* the member of struct config */
	long lo, hi;		/* SET: lo is the value */
} rows[] = {
	{ '4', SET, "ipv4", NULL, "use IPv4 (the default)",
	    AT(family), AF_INET, 0 },
	{ '6', SET, "ipv6", NULL, "use IPv6", AT(family), AF_INET6, 0 },
	{ 'u', SET, "udp", NULL, "map a UDP port (default: TCP)",
	    AT(type), SOCK_DGRAM, 0 },
	{ 'i', TEXT, "interface", "NAME|ADDR",
	    "interface, or source address",
	    AT(interface), 0, 0 },
	{ 'b', PORTS, "bind", "PORT",
	    "local port: 0 any, P, A-B, A~B random", 0, 0, 65535 },
	{ 's', SERVERS, "stun", "HOST[:PORT],..",
	    "STUN servers (default: public ones)", AT(stun), STUN_PORT, 0 },
	{ 'h', SERVERS, "http", "HOST[:PORT],..",
	    "HTTP servers to keep alive with (TCP)",
	    AT(http), HTTP_PORT, 0 },
	{ 'k', NUMBER, "keepalive", "SECONDS",
	    "between keep-alives (TCP 30, UDP 10)",
	    AT(keepalive), 0, 86400 },
	{ 'c', NUMBER, "stun-cycle", "COUNT",
	    "keep-alives per check (TCP 2, UDP 1)",
	    AT(cycle), 0, 10000 },
	{ 'e', TEXT, "script", "PATH", "run this when the mapping changed",
	    AT(script), 0, 0 },
	{ 'f', MARK, "fwmark", "MARK", "mark of the packets (SO_MARK)",
	    AT(mark), 0, 0 },
	{ 't', TEXT, "target", "HOST", "relay to this host (forward mode)",
	    AT(target), 0, 0 },
	{ 'p', PORT, "target-port", "PORT",
	    "its port; 0: the public port", AT(target_port),
	    0, 65535 },
	{ 'T', NUMBER, "forward-idle-timeout", "SECONDS",
	    "idle limit of a session; 0: never (300)",
	    AT(idle_timeout), 0, 2678400 },
	{ 'n', NUMBER, "max-sessions", "COUNT",
	    "relayed sessions at most",
	    AT(max_sessions), 1, 1000000 },
	{ 'C', TEXT, "congestion", "NAME",
	    "TCP congestion control",
	    AT(congestion), 0, 0 },
	{ '1', SET, "once", NULL, "map, print or run the script, exit",
	    AT(once), 1, 0 },
	{ 'd', SET, "daemon", NULL, "detach from the terminal",
	    AT(daemon), 1, 0 },
	{ 256, TEXT, "pid-file", "PATH", "write the process id there",
	    AT(pid_file), 0, 0 },
	{ 'v', SET, "verbose", NULL, "log sessions and mappings",
	    AT(level), 1, 0 },
	{ 'q', SET, "quiet", NULL, "log only what is fatal",
	    AT(level), -1, 0 },
	{ 'V', RELEASE, "version", NULL, "print the version", 0, 0, 0 },
	{ 257, HELP, "help", NULL, "print this", 0, 0, 0 }
};

#define ROWS	((int)(sizeof rows / sizeof *rows))

static void
put(int fd, const char *s)
{
	if (write(fd, s, strlen(s)) < 0)
		exit(1);
}

static void
usage(int fd)
{
	const struct option_row *o;
	char left[40], line[96];

	put(fd, "Usage: natmap [OPTION]...\n"
	    "Open a port behind a full-cone NAT to the Internet.\n\n");
	for (o = rows; o < rows + ROWS; o++) {
		fmt(left, sizeof left, "--%s %s", o->name,
		    o->arg ? o->arg : "");
		fmt(line, sizeof line, o->letter < 256 ? "  -%c, %-32s %s\n" :
		    "   %c  %-32s %s\n", o->letter < 256 ? o->letter : ' ',
		    left, o->help);
		put(fd, line);
	}
	put(fd, "\nVersion: " VERSION "\n");
}

/* A mistake in an option's value, NULL: in the option; ends the program. */
static NORETURN void
bad(const struct option_row *o, const char *value, const char *why)
{
	char letter[4] = "";

	if (o->letter < 256)
		fmt(letter, sizeof letter, "-%c/", o->letter);
	if (value)
		quit(2, "%s--%s \"%.80s%s\": %s", letter, o->name, value,
		    strlen(value) > 80 ? "..." : "", why);
	quit(2, "%s--%s: %s", letter, o->name, why);
}

/* Reads all of text as a number from lo to hi; digits only, but for base 0,
 * which is C's syntax. */
static long long
number(const struct option_row *o, const char *value, const char *text,
    int base, long long lo, long long hi)
{
	char *end, why[64];
	long long n;

	errno = 0;
	n = strtoll(text, &end, base);
	if (text[0] < '0' || text[0] > '9' || *end)
		bad(o, value, "not a number");
	if (errno || n < lo || n > hi) {
		fmt(why, sizeof why, "out of range %lld to %lld", lo, hi);
		bad(o, value, why);
	}
	return n;
}

static char *
copy(const char *s, size_t n)
{
	char *p = malloc(n + 1);

	if (!p)
		die("no memory");
	memcpy(p, s, n);
	p[n] = '\0';
	return p;
}

/* HOST, HOST:PORT, ADDR:PORT, [V6]:PORT, [V6] or a bare V6 */
static void
read_host(const struct option_row *o, const char *value, struct host *h)
{
	const char *port = NULL, *name = value;
	size_t n = strlen(value);

	if (value[0] == '[') {
		name++;
		n = strcspn(name, "]");
		port = name + n + 1;
		if (!name[n] || (*port && *port != ':'))
			bad(o, value, "no ']:' after the address");
		port = *port ? port + 1 : NULL;
	} else if (strchr(value, ':') == strrchr(value, ':')) {
		n = strcspn(value, ":");
		port = value[n] ? value + n + 1 : NULL;
	}
	if (n == 0)
		bad(o, value, "the host is empty");
	if (n > 253)
		bad(o, value, "the host is longer than 253 characters");
	if (port)
		h->port = (int)number(o, value, port, 10, 1, 65535);
	h->name = copy(name, n);
}

/* a comma list; the option may be repeated */
static void
read_servers(const struct option_row *o, struct config *c, const char *value)
{
	int *count = o->letter == 's' ? &c->nstun : &c->nhttp;
	struct host *list = (struct host *)(void *)((char *)c + o->at);
	const char *p = value;
	char *one;
	size_t n;

	do {
		n = strcspn(p, ",");
		if (*count == MAX_SERVERS)
			bad(o, value, "more than 16 servers");
		one = copy(p, n);
		list[*count].port = (int)o->lo;
		read_host(o, one, &list[(*count)++]);
		free(one);
		p += n;
	} while (*p++ == ',');
}

/* P, A-B or A~B */
static void
read_ports(const struct option_row *o, struct config *c, const char *value)
{
	size_t n = strcspn(value, "-~");
	char *first = copy(value, n);

	c->port_lo = (int)number(o, value, first, 10, 0, 65535);
	free(first);
	c->port_hi = c->port_lo;
	c->port_random = value[n] == '~';
	if (!value[n])
		return;
	c->port_hi = (int)number(o, value, value + n + 1, 10, 1, 65535);
	if (c->port_lo < 1 || c->port_lo > c->port_hi)
		bad(o, value, "a range goes upwards, from 1 or more");
}

/* a number or the name of a service */
static int
read_port(const struct option_row *o, const struct config *c,
    const char *value)
{
	struct addrinfo hints, *list;
	union addr a;

	if (value[0] >= '0' && value[0] <= '9')
		return (int)number(o, value, value, 10, o->lo, o->hi);
	memset(&hints, 0, sizeof hints);
	hints.ai_family = AF_INET;
	hints.ai_socktype = c->type;
	if ((value[0] | 32) < 'a' || getaddrinfo(NULL, value, &hints, &list))
		bad(o, value, "neither a port nor a known service");
	memcpy(&a, list->ai_addr, sizeof a.in);
	freeaddrinfo(list);
	return addr_port(&a);
}

static NOINLINE void
read_option(const struct option_row *o, struct config *c, const char *value)
{
	void *at = (char *)c + o->at;

	switch (o->kind) {
	case SET:
		*(int *)at = (int)o->lo;
		break;
	case NUMBER:
		*(int *)at = (int)number(o, value, value, 10, o->lo, o->hi);
		break;
	case TEXT:
		if (!*value)
			bad(o, value, "empty");
		*(const char **)at = value;
		break;
	case MARK:
		c->mark = (uint32_t)number(o, value, value, 0, 0, UINT32_MAX);
		break;
	case PORTS:
		read_ports(o, c, value);
		break;
	case PORT:
		c->port_text = value;	/* once -u is known */
		break;
	case SERVERS:
		read_servers(o, c, value);
		break;
	case RELEASE:
		put(STDOUT_FILENO, "natmap " VERSION "\n");
		exit(0);
	case HELP:
		usage(STDOUT_FILENO);
		exit(0);
	}
}

static const struct option_row *
row(int letter)
{
	const struct option_row *o = rows;

	while (o < rows + ROWS && o->letter != letter)
		o++;
	return o < rows + ROWS ? o : NULL;
}

/* A literal of the other family can never be reached. */
static void
check_family(const struct option_row *o, const struct config *c,
    const char *value)
{
	union addr a;

	if (addr_parse(&a, value, AF_UNSPEC) == 0 &&
	    a.sa.sa_family != c->family)
		bad(o, value, c->family == AF_INET ?
		    "an IPv6 address under -4" : "an IPv4 address under -6");
}

static void
check_target(struct config *c)
{
	const struct option_row *t = row('t'), *p = row('p');
	struct host h = { NULL, 0 };

	if (!c->target && c->port_text)
		bad(p, c->port_text, "there is no target (-t)");
	if (!c->target)
		return;
	if (!c->port_text)
		bad(t, c->target, "its port (-p) is missing");
	if (c->once)
		bad(t, c->target, "--once relays nothing");
	read_host(t, c->target, &h);
	if (h.port)
		bad(t, c->target, "the port belongs to -p");
	c->target = h.name;
	c->target_port = read_port(p, c, c->port_text);
}

/* What can be judged only when all options are known. */
static void
check_options(struct config *c)
{
	int i, udp = c->type == SOCK_DGRAM;

	for (i = 0; i < c->nstun; i++)
		check_family(row('s'), c, c->stun[i].name);
	for (i = 0; i < c->nhttp; i++)
		check_family(row('h'), c, c->http[i].name);
	if (udp)
		c->nhttp = 0;	/* accepted and unused */
	if (c->interface) {
		check_family(row('i'), c, c->interface);
		if (addr_parse(&c->source, c->interface, c->family) < 0 &&
		    strlen(c->interface) >= IF_NAMESIZE)
			bad(row('i'), c->interface,
			    "too long for an interface");
	}
	if (c->once && c->daemon)
		bad(row('1'), NULL, "not with -d");
	check_target(c);
	if (!c->keepalive)
		c->keepalive = udp ? UDP_KEEPALIVE : TCP_KEEPALIVE;
	if (!c->cycle)
		c->cycle = udp ? UDP_CYCLE : TCP_CYCLE;
	c->idle = c->idle_timeout ? c->idle_timeout * (int64_t)1000 : NEVER;
	for (i = 0; !c->nstun && i < (udp ? PUBLIC_UDP : PUBLIC_TCP); i++) {
		c->stun[i].name = public_stun[i];
		c->stun[i].port = STUN_PORT;
	}
	c->nstun += i * !c->nstun;
}

/* Fills c; a mistake of the user's is said and ends the program. */
static NOINLINE void
read_options(struct config *c, int argc, char **argv)
{
	struct option longs[ROWS + 1];
	char shorts[2 * ROWS + 2], *s = shorts;
	int i, ch;

	memset(longs, 0, sizeof longs);
	*s++ = ':';             /* a missing value is told from a bad option */
	for (i = 0; i < ROWS; i++) {
		longs[i].name = rows[i].name;
		longs[i].has_arg = rows[i].arg != NULL;
		longs[i].val = rows[i].letter;
		if (rows[i].letter < 256)
			*s++ = (char)rows[i].letter;
		if (rows[i].letter < 256 && rows[i].arg)
			*s++ = ':';
	}
	*s = '\0';
	memset(c, 0, sizeof *c);
	c->family = AF_INET;
	c->type = SOCK_STREAM;
	c->idle_timeout = IDLE_TIMEOUT;
	opterr = 0;
	while ((ch = getopt_long(argc, argv, shorts, longs, &i)) != -1) {
		if (ch == ':' && row(optopt))
			bad(row(optopt), NULL, "its value is missing");
		if ((ch == '?' || ch == ':') && row(optopt))
			bad(row(optopt), NULL, "takes no value");
		if (ch == '?' && optopt)
			quit(2, "unknown option \"-%c\"", optopt);
		if (ch == '?')
			quit(2, "unknown option \"%s\"",
			    argv[optind - 1]);
		read_option(row(ch), c, optarg);
	}
	if (optind < argc)
		quit(2, "\"%s\": not an option", argv[optind]);
	check_options(c);
}

/* script and output */

struct server {
	const struct host *host;
	const char *what;	/* of answers: "a STUN", "an HTTP" */
	int64_t looked;		/* ms: when addrs were found */
	int64_t started;	/* ms: the last attempt */
	int64_t retry;		/* ms: not before this */
	int64_t reset_at;	/* ms: when it reset a flow; 0: it did not */
	int turn;		/* which of addrs comes next */
	int tried;		/* addresses that failed in a row */
	int fails;		/* rounds through all of them that failed */
	int error, detail;	/* the last failure, with its code */
	uint32_t said;		/* a bit for each failure that was said */
	int repeats;		/* failures since it answered */
	union addr mapped;	/* what it said last; family 0: nothing */
	struct addrs addrs;	/* the last good ones */
	struct lookup lookup;
};

struct mapping {
	union addr public, local;	/* sa_family 0: none yet */
	const struct server *by;	/* who told it */
};

static const char *
server_name(const struct server *s, char buf[300])
{
	fmt(buf, 300, strchr(s->host->name, ':') ? "[%.253s]:%d" :
	    "%.253s:%d", s->host->name, s->host->port);
	return buf;
}

/* Delivers the newest mapping: to the script, one run at a time, or to
 * stdout.  What changes during a run waits behind it, only the newest. */
struct hook {
	const struct config *cfg;
	struct mapping next;	/* to deliver, while pending */
	struct mapping last;	/* delivered */
	int pending;
	int slot;		/* of stdout */
	pid_t pid;		/* of the run; 0 none */
	int64_t since;		/* ms: next has waited behind the run */
	int64_t retry;		/* ms: the script could not be run */
	int64_t kill_at;	/* ms: KILL follows TERM; NEVER before TERM */
	int said;		/* errno of what is in the way, said once */
	int status;		/* of the last run, as waitpid tells it */
};

/* IP4P of an IPv4 mapping, empty for IPv6 */
static void
ip4p(const union addr *a, char buf[ADDR_TEXT])
{
	unsigned char b[4];

	buf[0] = '\0';
	if (a->sa.sa_family != AF_INET)
		return;
	memcpy(b, &a->in.sin_addr, sizeof b);
	fmt(buf, ADDR_TEXT, "2001::%04x:%02x%02x:%02x%02x",
	    (unsigned)addr_port(a), b[0], b[1], b[2], b[3]);
}

/* The six fields of the output line, which are the script's arguments. */
struct fields {
	char text[6][ADDR_TEXT];
};

static void
fields_fill(struct fields *f, const struct mapping *m, int type)
{
	addr_host(&m->public, f->text[0]);
	fmt(f->text[1], ADDR_TEXT, "%d", addr_port(&m->public));
	ip4p(&m->public, f->text[2]);
	fmt(f->text[3], ADDR_TEXT, "%d", addr_port(&m->local));
	strcpy(f->text[4], type == SOCK_DGRAM ? "udp" : "tcp");
	addr_host(&m->local, f->text[5]);
}

static void
hook_news(struct hook *h, const struct mapping *m, int64_t now)
{
	int same = addr_same(&m->public, &h->last.public) &&
	    addr_same(&m->local, &h->last.local);

	h->next = *m;
	if (!h->pending) {
		h->since = now;
		h->kill_at = NEVER;
	}
	h->pending = !same;
}

/* In the child. */
static void
hook_exec(const struct hook *h, struct fields *f)
{
	const struct config *c = h->cfg;
	char stun[300];
	struct fields old;
	char *argv[9], **arg = argv;
	int i;

	fields_fill(&old, &h->last, c->type);
	setenv("NATMAP_OLD_ADDR", old.text[0], 1);
	setenv("NATMAP_OLD_PORT", old.text[0][0] ? old.text[1] : "", 1);
	setenv("NATMAP_STUN", server_name(h->next.by, stun), 1);
	setenv("NATMAP_INTERFACE", c->interface ? c->interface : "", 1);
	setpgid(0, 0);
	*arg++ = (char *)(uintptr_t)"/bin/sh";
	*arg++ = (char *)(uintptr_t)c->script;
	for (i = 0; i < 6; i++)
		*arg++ = f->text[i];
	*arg = NULL;
	execv(c->script, argv + 1);
	if (errno == ENOEXEC)	/* a script without #! */
		execv("/bin/sh", argv);
	_exit(errno == ENOENT ? 127 : 126);
}

static NOINLINE void
hook_done(struct hook *h)
{
	h->pending = 0;
	h->last = h->next;
}

/* Says once what is in the way of delivery; a new reason is said again. */
static void
hook_stuck(struct hook *h, int64_t now)
{
	if (h->said != errno)
		warn(h->cfg->once ? "%s: cannot be run:" :
		    "%s: cannot be run, trying again:", h->cfg->script);
	h->said = errno;
	h->retry = now + RUN_RETRY;
	if (h->cfg->once) {
		h->status = 1;
		hook_done(h);
	}
}

static void
hook_run(struct hook *h, int64_t now)
{
	struct fields f;

	if (access(h->cfg->script, X_OK) < 0) {
		hook_stuck(h, now);
		return;
	}
	fields_fill(&f, &h->next, h->cfg->type);
	h->pid = child_fork();
	if (h->pid == 0)
		hook_exec(h, &f);
	if (h->pid < 0) {
		h->pid = 0;
		hook_stuck(h, now);
		return;
	}
	h->said = 0;
	h->kill_at = NEVER;
	hook_done(h);
}

static void
hook_print(struct hook *h)
{
	struct fields f;
	char line[6 * ADDR_TEXT];
	size_t n = 0;
	int i;

	fields_fill(&f, &h->next, h->cfg->type);
	for (i = 0; i < 6; i++)
		n += (size_t)fmt(line + n, sizeof line - n, "%s%c", f.text[i],
		    i < 5 ? ' ' : '\n');
	if (write(STDOUT_FILENO, line, n) != (ssize_t)n) {
		if (h->said != errno)
			warn("stdout: cannot be written:");
		h->said = errno;
		h->status = 1;
	}
	hook_done(h);
}

/* Newer values have waited too long: ends the run with its children. */
static void
hook_end_run(struct hook *h, int64_t now)
{
	int force = h->kill_at != NEVER;

	if (now < (force ? h->kill_at : h->since + RUN_LIMIT))
		return;
	warn("%s: runs for too long while newer values wait, ending it",
	    h->cfg->script);
	kill(-h->pid, force ? SIGKILL : SIGTERM);
	h->kill_at = now + RUN_KILL;
}

static void
hook_want(struct hook *h, struct wake *w)
{
	h->slot = -1;
	if (!h->pending)
		return;
	if (!h->cfg->script)
		h->slot = wake_on(w, STDOUT_FILENO, POLLOUT);
	else if (!h->pid)
		wake_at(w, h->retry);
	else
		wake_at(w, h->kill_at != NEVER ? h->kill_at :
		    h->since + RUN_LIMIT);
}

static void
hook_step(struct hook *h, const struct wake *w, int64_t now)
{
	if (!h->pending)
		return;
	if (!h->cfg->script && woke(w, h->slot))
		hook_print(h);
	else if (h->cfg->script && h->pid)
		hook_end_run(h, now);
	else if (h->cfg->script && now >= h->retry)
		hook_run(h, now);
}

/* a child has ended; it may be the script */
static void
hook_reaped(struct hook *h, pid_t pid, int status)
{
	if (pid != h->pid)
		return;
	h->pid = 0;
	h->status = status;
	if (WIFSIGNALED(status))
		warn("%s: ended by signal %d", h->cfg->script,
		    WTERMSIG(status));
	else if (WEXITSTATUS(status))
		warn("%s: failed with status %d", h->cfg->script,
		    WEXITSTATUS(status));
}

/* 1 when the first mapping has been delivered and no run is under way */
static int
hook_delivered(const struct hook *h)
{
	return h->last.public.sa.sa_family && !h->pending && !h->pid;
}

/* servers */

enum role { R_FREE, R_HOLD, R_PROBE, R_RETIRED };

/* A flow to a STUN server, or the wish for one. */
struct ask {
	enum role role;
	int overtaken;          /* this request waits long; others are asked */
	struct server *s;	/* NULL: no flow; b closed: being looked up */
	int64_t due;		/* R_HOLD: when to ask or to start */
	union addr seen;	/* the flow's last answer; family 0: none, or
				   no flow */
	struct flow b;
};

/* The keep-alive connection. */
struct keeper {
	struct server *s;	/* NULL: none; k closed: being looked up */
	int64_t due;		/* ms: when to ask again */
	int answered;		/* an answer came on this connection */
	int ending;		/* it will be closed; another may start */
	int suspect;		/* the late answer has been acted on */
	struct flow k;
};

struct doubt {                  /* a new mapping that waits for a second say */
	struct mapping map;
	union addr peer;	/* who said it; family 0: no doubt */
	union addr other;	/* who said the old one since */
	int64_t until;
	int differ;             /* pairs of servers that disagreed in a row */
};

struct place {			/* where the flows leave the machine */
	union addr source;	/* family 0: no route */
	unsigned index;		/* of the interface; 0 unknown */
	unsigned flags;		/* IFF_UP | IFF_RUNNING */
};

struct map {                    /* what is used most comes first: see size */
	const struct config *cfg;
	struct wake *w;
	int64_t k;		/* ms between keep-alives */
	int64_t confirmed;      /* ms: when one last said what was announced */
	int64_t serve_at;	/* ms: when the port may be tried again */
	int64_t keep_due;	/* ms: when a keeper is to start */
	int64_t check;		/* ms: TCP, the next check; NEVER */
	int64_t settle;         /* ms: act on the news; NEVER: none came */
	struct server *stun;	/* in server[]; then http and target */
	struct server *http, *target;
	int udp;		/* else TCP */
	int probing;		/* a flow to check is being chosen */
	int again;		/* checks in a row that could not be */
	int cone;		/* two servers have said the same */
	int depends;		/* the mapping depends on the destination */
	int quit;		/* the signal that ends us, 0: run on */
	int stun_turn, http_turn;	/* which server comes next */
	struct ask ask[ASKS];
	struct mapping said;	/* what was announced; family 0: nothing */
	struct keeper keep[KEEPERS];
	int64_t held;		/* ms: when a flow last answered */
	const struct server *first;	/* who told the first mapping */
	struct doubt doubt;
	struct local local;
	struct hook hook;
	struct place place;
	int cycle;		/* UDP: packets since the last check */
	int http_down;		/* the keeper's last connection failed */
	int spare;		/* a server socket not yet used, or -1 */
	int port_error;		/* errno said of the port; 0 none */
	int fake;		/* the warning of 198.18.0.0/15 was said */
	int news, news_slot;	/* the kernel's news; -1 none */
	int moved;		/* the place was another while it settled */
	int64_t settled;	/* ms: when we last acted on news */
	int64_t listen_check;	/* ms: NEVER when done */
	int64_t end;		/* ms: limit for ending the flows */
	struct host target_host;
	struct relay relay;
	/* last: what is not named costs no page of memory */
	struct server server[2 * MAX_SERVERS + 1];
};

static int
is_udp(const struct map *m)
{
	return m->udp;
}

static NOINLINE const char *
proto(const struct map *m)
{
	return is_udp(m) ? "UDP" : "TCP";
}

/* 1 while the last answer is young enough to hold the mapping */
static int
holds(const struct map *m, int64_t now)
{
	int64_t age = is_udp(m) ? m->k * m->cfg->cycle : m->k;

	return m->held && now < m->held + age + HOLD_GRACE;
}

/* 1 when a flow of ours goes to that address */
static int
in_use(const struct map *m, const union addr *a)
{
	int i;

	for (i = 0; i < ASKS; i++)
		if (m->ask[i].b.state != FLOW_CLOSED &&
		    addr_same(&m->ask[i].b.peer, a))
			return 1;
	for (i = 0; i < KEEPERS; i++)
		if (m->keep[i].k.state != FLOW_CLOSED &&
		    addr_same(&m->keep[i].k.peer, a))
			return 1;
	return 0;
}

/* 1 when a flow of ours goes to that server, or waits for its look-up */
static NOINLINE int
server_busy(const struct map *m, const struct server *s)
{
	int i;

	for (i = 0; i < ASKS; i++)
		if (m->ask[i].s == s)
			return 1;
	for (i = 0; i < KEEPERS; i++)
		if (m->keep[i].s == s)
			return 1;
	return 0;
}

/* the server's next address that no flow uses and that did not fail since it
 * answered, or lately, NULL when there is none */
static const union addr *
server_addr(const struct map *m, struct server *s)
{
	const union addr *a;
	int i;

	for (i = s->turn; i < s->turn + s->addrs.n - s->tried; i++) {
		a = &s->addrs.a[i % s->addrs.n];
		if (!in_use(m, a)) {
			s->turn = i;
			return a;
		}
	}
	return NULL;
}

/* Shall s rest for a check to come?  Where all servers reset their flows soon,
 * those before it go to the one that did it last. */
static int
rests(const struct map *m, const struct server *s, int64_t now)
{
	const struct server *o;

	if (!s->reset_at || now < m->check - RESTED)
		return 0;
	for (o = m->stun; o < m->http; o++)
		if (o->reset_at > s->reset_at && o->retry <= now)
			return 1;
	return 0;
}

/* The next server that may be asked now: one that no flow goes to, else one
 * with another address.  NULL: none; *soonest, when not NULL, then tells when
 * to ask again. */
static struct server *
pick(struct map *m, struct server *list, int n, int turn, int64_t now,
    int64_t *soonest)
{
	struct server *s, *second = NULL;
	int64_t when = now + m->k;
	int i, busy;

	for (i = 0; i < n; i++) {
		s = &list[(turn + i) % n];
		busy = server_busy(m, s);
		if (now >= s->started + BACKOFF_MAX)
			s->tried = 0;	/* others may use the rest */
		if (m->probing ? s->reset_at && now < s->reset_at + REMEMBERED :
		    rests(m, s, now))
			continue;	/* would show the old mapping */
		if (s->retry > now) {
			if (!busy && s->retry < when)
				when = s->retry;
		} else if (s->addrs.n ? server_addr(m, s) != NULL : !busy) {
			if (!busy)
				return s;
			second = second ? second : s;
		}
	}
	if (soonest)
		*soonest = when;
	return second;
}

static struct server *
pick_stun(struct map *m, int64_t now, int64_t *soonest)
{
	return pick(m, m->stun, m->cfg->nstun, m->stun_turn, now, soonest);
}

static NOINLINE struct server *
pick_http(struct map *m, int64_t now, int64_t *soonest)
{
	return pick(m, m->http, m->cfg->nhttp, m->http_turn, now, soonest);
}

/* what went wrong, in words */
static const char *
failure(const struct server *s, int error, int detail, char buf[80])
{
	static const struct {
		int error, detail;
		const char *text;
	} known[] = {
		{ 0, EAI_NONAME, "name not found" },
		{ 0, EAI_AGAIN, "the name servers do not answer" },
		{ 0, EAI_NODATA, "no address of the family" },
		{ 0, EAI_ADDRFAMILY, "no address of the family" },
		{ ETIMEDOUT, 0, "no answer (timed out)" },
		{ ECONNREFUSED, 0, "refused" },
		{ ENETUNREACH, 0, "unreachable" },
		{ EHOSTUNREACH, 0, "unreachable" },
		{ ECLOSED, 0, "closed the connection" },
		{ ECONNRESET, 0, "closed the connection" },
		{ EADDRNOTAVAIL, 0, "the last connection has not ended yet" }
	};
	size_t i;

	for (i = 0; i < sizeof known / sizeof *known; i++)
		if (error == known[i].error &&
		    (error || detail == known[i].detail))
			return known[i].text;
	if (!error)
		fmt(buf, 80, "look-up failed (%d)", detail);
	else if (error == ENOTANSWER)
		fmt(buf, 80, "not %s answer", s->what);
	else if (error == EREFUSED)
		fmt(buf, 80, "STUN error %d", detail);
	else
		return strerror(error);
	return buf;
}

/* how long a server is left alone that failed n times, ms */
static int64_t
backoff(const struct map *m, int n, int64_t now)
{
	int64_t t = BACKOFF_MIN, cap = holds(m, now) ? BACKOFF_MAX :
	    BACKOFF_HARD;

	while (--n > 0 && t < cap)
		t *= 2;
	if (t > cap)
		t = cap;
	return t - random_below((uint32_t)t / 4);
}

/* Says a failure once, and what is tried next. */
static void
server_say(struct map *m, struct server *s, const union addr *peer,
    const struct server *next, int64_t now)
{
	char name[300], other[300], why[80], host[ADDR_TEXT] = "", in[24] = "";

	if (next == s)
		next = NULL;
	if (!next && s->retry > now)
		fmt(in, sizeof in, " in %d s",
		    (int)((s->retry - now + 999) / 1000));
	if (peer)
		addr_host(peer, host);
	if (!strcmp(host, s->host->name))
		host[0] = '\0';
	warn("%s%s%s%s: %s%s%s, trying %s%s", server_name(s, name),
	    host[0] ? " (" : "", host, host[0] ? ")" : "",
	    failure(s, s->error, s->detail, why), s->error ? " over " : "",
	    s->error ? proto(m) : "", next ? server_name(next, other) : "again",
	    in);
}

/* An attempt failed: the server's next address is tried, then it is left
 * alone for a while, counted from the attempt's start. */
static void
server_failed(struct map *m, struct server *s, const union addr *peer,
    int error, int detail, int64_t now)
{
	uint32_t bit = 1U << ((uint32_t)(error + 7 * detail) % 32);
	struct server *next;

	s->turn++;
	if (!peer || ++s->tried >= s->addrs.n) {
		s->tried = 0;
		s->looked = 0;	/* the addresses may be old */
		s->fails++;
		s->retry = s->started + backoff(m, s->fails, now);
	}
	s->error = error;
	s->detail = detail;
	s->repeats++;
	if (s->said & bit)
		return;
	s->said |= bit;
	next = s < m->http ? pick_stun(m, now, NULL) :
	    pick_http(m, now, NULL);
	server_say(m, s, peer, next, now);
}

/* What failed before says nothing of how they are now. */
static void
servers_forgive(struct map *m)
{
	struct server *s;

	for (s = m->server; s <= m->target; s++) {
		s->retry = 0;
		if (s->fails)		/* its return will be said */
			s->fails = 1;
	}
}

/* It answered, and a flow holds the mapping.  When none did the network is
 * back, and the others get their chance at once. */
static void
server_good(struct map *m, struct server *s, int64_t now)
{
	char name[300];

	if (!holds(m, now))
		servers_forgive(m);
	m->held = now;
	s->tried = 0;
	s->retry = 0;
	if (!s->fails)	/* one of its addresses may fail for long */
		return;
	warn("%s: answers again (failures: %d)", server_name(s, name),
	    s->repeats);
	s->fails = s->repeats = 0;
	s->said = 0;
}

/* the mapped port */

#define INSTEAD "; map another port, and forward it with -t or a firewall rule"

/* Says once what is in the way of using the port. */
static void
port_trouble(struct map *m, const char *why, int64_t now)
{
	struct owner o;
	int error = errno, found;

	m->serve_at = now + PORT_RETRY;
	if (m->port_error == error)
		return;
	m->port_error = error;
	if (error == ENODEV) {
		warn("interface \"%s\": does not exist, waiting for it",
		    m->cfg->interface);
		return;
	}
	if (error == EADDRNOTAVAIL && m->cfg->source.sa.sa_family) {
		warn("source address %s: not on this machine, waiting for it",
		    m->cfg->interface);
		return;
	}
	found = error == EADDRINUSE ? local_owner(&m->local, &o) : 0;
	errno = error;
	if (found == 1)
		warn("%s port %d: in use by %s (pid %ld, uid %ld)%s%s%s",
		    proto(m), m->local.port, o.name[0] ? o.name :
		    "an unknown program", (long)o.pid, (long)o.uid,
		    why ? ": " : "", why ? why : "", why ? INSTEAD : "");
	else
		warn("%s port %d: cannot be used, trying again%s%s%s:",
		    proto(m), m->local.port, why ? ": " : "", why ? why : "",
		    why ? INSTEAD : "");
}

/* the next port that the user allows */
static void
port_next(struct map *m)
{
	int lo = m->cfg->port_lo, hi = m->cfg->port_hi, p = m->local.port;

	if (m->cfg->port_random)
		m->local.port = lo +
		    (int)random_below((uint32_t)(hi - lo + 1));
	else
		m->local.port = p < lo || p >= hi ? lo : p + 1;
}

/* A socket on the mapped port.  Moves on in the range, or to any port, only
 * when the port cannot be used.  -1: said what is in the way. */
static int
port_socket(struct map *m, enum local_role role, int64_t now)
{
	const char *why;
	int fd, tries = m->cfg->port_hi - m->cfg->port_lo;

	if (role == LOCAL_FLOW && m->relay.fd >= 0)
		tries = -1;		/* the listener has chosen */
	else if (m->cfg->port_lo == 0)
		tries = 1;
	if (tries > PORT_TRIES)
		tries = PORT_TRIES;
	while ((fd = local_socket(&m->local, role, &why)) < 0 &&
	    tries-- > 0 && (errno == EADDRINUSE || errno == EACCES))
		port_next(m);
	if (fd < 0)
		port_trouble(m, why, now);
	else if (m->port_error)
		warn("%s port %d: can be used now", proto(m),
		    m->local.port);
	if (fd >= 0)
		m->port_error = 0;
	return fd;
}

/* 198.18.0.0/15 is for benchmarks; who meets it is behind a proxy that
 * invents addresses (RFC 2544). */
static void
check_fake(struct map *m, const union addr *a, const char *of)
{
	char host[ADDR_TEXT];

	if (m->fake || a->sa.sa_family != AF_INET ||
	    (ntohl(a->in.sin_addr.s_addr) & 0xfffe0000) != 0xc6120000)
		return;
	m->fake = 1;
	warn("%s: %s is in 198.18.0.0/15: a transparent proxy answers", of,
	    addr_host(a, host));
}

static void
place_find(const struct map *m, struct place *p)
{
	const char *any = m->cfg->family == AF_INET ? "192.0.2.1" :
	    "2001:db8::1";
	union addr to;

	memset(p, 0, sizeof *p);
	addr_parse(&to, any, m->cfg->family);
	addr_set_port(&to, STUN_PORT);
	if (m->first && m->first->addrs.n)
		to = m->first->addrs.a[0];
	if (local_source(&m->local, &to, &p->source) < 0) {
		p->source.sa.sa_family = 0;
		return;
	}
	p->index = link_of(m->cfg->source.sa.sa_family ? NULL :
	    m->cfg->interface, &p->source, &p->flags);
	if (!p->index) {	/* cannot be told now */
		p->index = m->place.index;
		p->flags = m->place.flags;
	}
}

/* announcing */

/* Ends the flow; a holder stays one, with the wish for another at due. */
static void
ask_end(struct ask *a)
{
	flow_stop(&a->b, 0);
	a->s = NULL;
	a->seen.sa.sa_family = 0;
	a->overtaken = 0;
	if (a->role != R_HOLD)
		a->role = R_FREE;
}

/* No longer needed: a late answer still counts, an open flow is left for the
 * server to close. */
static void
retire(struct ask *a)
{
	a->role = R_RETIRED;
	if (!a->s || a->b.state == FLOW_CLOSED)
		ask_end(a);
}

/* where the relay's new sessions go */
static void
target_set(struct map *m)
{
	struct addrs to = m->target->addrs;
	int i, port = m->cfg->target_port;

	if (!port && m->said.public.sa.sa_family)
		port = addr_port(&m->said.public);
	if (!port)
		to.n = 0;
	for (i = 0; i < to.n; i++)
		addr_set_port(&to.a[i], port);
	relay_target(&m->relay, &to);
}

/* A holder that still has an old mapping holds nothing: it is replaced. */
static void
renew(struct map *m, int64_t now)
{
	struct ask *a;
	struct keeper *kp;

	for (a = m->ask; a < m->ask + ASKS; a++)
		if (a->role == R_HOLD && a->b.state == FLOW_OPEN &&
		    !addr_same(&a->seen, &m->said.public))
			retire(a);
	for (kp = m->keep; kp < m->keep + KEEPERS; kp++)
		if (kp->answered) {
			kp->ending = 1;
			kp->due = m->keep_due = now;
		}
}

/* TCP: when a new flow is to check next; in UDP the holder's are new */
static NOINLINE int64_t
next_check(const struct map *m, int64_t now)
{
	return is_udp(m) || m->cfg->once ? NEVER : now + m->k * m->cfg->cycle;
}

static void
announce(struct map *m, const struct mapping *map, int64_t now)
{
	int first = !m->said.public.sa.sa_family;
	int moved = !addr_same(&m->said.public, &map->public);
	char pub[ADDR_TEXT], loc[ADDR_TEXT], name[300];

	note("%s: %s is %s from outside", server_name(map->by, name),
	    addr_text(&map->local, loc), addr_text(&map->public, pub));
	check_fake(m, &map->local, "this machine");
	m->said = *map;
	m->confirmed = now;
	m->doubt.peer.sa.sa_family = 0;
	hook_news(&m->hook, map, now);
	if (m->relay.fd >= 0 && !m->cfg->target_port)
		target_set(m);
	if (first) {
		place_find(m, &m->place);
		m->check = pick_stun(m, now, NULL) ? now : next_check(m, now);
		m->listen_check = now + LISTEN_CHECK;
	} else if (moved && !m->depends)
		renew(m, now);
}

/* asking STUN servers */

static void ask_failed(struct map *, struct ask *, int, int64_t);

/* how many flows are up and have answered */
static int
open_flows(const struct map *m)
{
	int i, n = 0;

	for (i = 0; i < KEEPERS; i++)
		n += m->keep[i].answered;
	for (i = 0; i < ASKS; i++)
		n += m->ask[i].b.state != FLOW_CLOSED && !m->ask[i].overtaken &&
		    m->ask[i].seen.sa.sa_family;
	return n;
}

/* when a flow that was born then is followed by another: one that lived long
 * is at once, or the server that closes early would be asked all the time */
static NOINLINE int64_t
next_flow(const struct map *m, int64_t born, int64_t now)
{
	return now - born < m->k / 2 ? born + m->k : now;
}

/* when an attempt that starts now has failed */
static NOINLINE int64_t
limit(const struct map *m, int64_t now)
{
	return now + (holds(m, now) ? ANSWER_LIMIT : HARD_LIMIT);
}

/* Opens the flow to the server's next address, which is known. */
static void
ask_open(struct map *m, struct ask *a, int64_t now)
{
	const union addr *peer = server_addr(m, a->s);
	int fd, shared = is_udp(m) && m->relay.fd >= 0;

	if (!peer)
		peer = &a->s->addrs.a[a->s->turn % a->s->addrs.n];
	fd = shared ? m->relay.fd : port_socket(m, LOCAL_FLOW, now);
	if (fd < 0) {
		ask_end(a);
		a->due = m->serve_at;
		return;
	}
	a->s->started = now;
	if (flow_start(&a->b, is_udp(m) ? FLOW_UDP : FLOW_TCP, fd, shared,
	    peer, NULL, now, limit(m, now)) < 0)
		ask_failed(m, a, errno, now);
}

/* Starts the look-up of a server whose addresses are missing or old. */
static void
server_look(struct map *m, struct server *s, int family, int64_t age,
    int64_t now)
{
	if (s->lookup.busy || (s->addrs.n && now < s->looked + age))
		return;
	if (!s->addrs.n)
		s->started = now;
	if (lookup_start(&s->lookup, s->host->name, s->host->port, family,
	    now + (holds(m, now) ? LOOKUP_LIMIT : HARD_LIMIT)) < 0) {
		if (!s->repeats++)
			warn("%s: cannot look it up:", s->host->name);
		s->retry = now + BACKOFF_HARD;
	}
}

/* A check that comes to nothing is made by another flow. */
static void
check_again(struct map *m, const struct ask *a, int64_t now)
{
	if (a->role == R_PROBE && !a->overtaken)
		m->check = now;
}

static void
ask_go_on(struct map *m, struct ask *a, int64_t now)
{
	if (a->s->addrs.n)
		ask_open(m, a, now);
	else if (!a->s->lookup.busy) {	/* not found, which was said */
		check_again(m, a, now);
		ask_end(a);
		a->due = now;
	}
}

/* Gives a the server s and a flow to it, as soon as its address is known. */
static void
ask_start(struct map *m, struct ask *a, struct server *s, int64_t now)
{
	m->stun_turn = (int)(s - m->stun) + 1;
	a->s = s;
	a->due = now + m->k;
	server_look(m, s, m->cfg->family, LOOKUP_AGE, now);
	ask_go_on(m, a, now);
}

/* A flow ended by error.  After a reset the NAT forgets us within seconds:
 * when nothing else is open, another server is asked soon. */
static void
flow_lost(struct map *m, int error, int64_t now)
{
	struct ask *a;

	if (error != ECONNRESET || open_flows(m) || m->target - m->stun < 2)
		return;
	for (a = m->ask; a < m->ask + ASKS; a++)
		if (a->role == R_HOLD && !a->s && a->due > now + BACKOFF_MIN)
			a->due = now + BACKOFF_MIN;
}

static void
ask_failed(struct map *m, struct ask *a, int error, int64_t now)
{
	struct server *s = a->s;
	int lived = a->seen.sa.sa_family != 0;

	if (lived && error != ETIMEDOUT)
		note("%s: closed the connection", s->host->name);
	else if (lived || !a->overtaken)	/* else it was said */
		server_failed(m, s, &a->b.peer, error, a->b.code, now);
	if (lived && error == ECONNRESET)
		s->reset_at = now;
	check_again(m, a, now);
	ask_end(a);
	a->due = lived ? next_flow(m, a->b.born, now) : now;
	flow_lost(m, error, now);
}

/* how many flows to STUN servers are to hold the mapping */
static int
wanted(const struct map *m)
{
	if (m->cfg->once)
		return 3;
	return is_udp(m) || (m->cfg->nhttp && !m->http_down) ? 1 : 2;
}

/* the holder that is worst, to be replaced: one without a flow, an overtaken
 * one, the oldest; answered: of those whose flow has answered */
static struct ask *
worst(struct map *m, int answered)
{
	struct ask *a, *bad = NULL;

	for (a = m->ask; a < m->ask + ASKS; a++) {
		if (a->role != R_HOLD ||
		    (answered && !a->seen.sa.sa_family))
			continue;
		if (!a->s)
			return a;
		if (!bad || a->overtaken > bad->overtaken ||
		    (a->overtaken == bad->overtaken &&
		    a->b.born < bad->b.born))
			bad = a;
	}
	return bad;
}

static NOINLINE int
holders(const struct map *m)
{
	int i, n = 0;

	for (i = 0; i < ASKS; i++)
		n += m->ask[i].role == R_HOLD;
	return n;
}

/* a free place, at worst that of a flow which is not needed */
static struct ask *
place_for(struct map *m)
{
	struct ask *a, *best = NULL;

	for (a = m->ask; a < m->ask + ASKS; a++)
		if (a->role == R_FREE)
			return a;
	for (a = m->ask; a < m->ask + ASKS; a++)
		if (a->role == R_RETIRED || (a->role == R_PROBE &&
		    a->overtaken && !best))
			best = a;
	if (best)
		ask_end(best);
	return best;
}

/* Frees a server for a new flow: ends what is retired, else the worst holder
 * where another flow is open.  Where it is overtaken and none is open it holds
 * nothing, and goes too, but one at a time. */
static int
make_room(struct map *m)
{
	struct ask *a;
	int alone = 1;		/* no new flow is under way */

	for (a = m->ask; a < m->ask + ASKS; a++) {
		if (a->role == R_RETIRED)
			break;
		if (a->s && !a->overtaken && !a->seen.sa.sa_family)
			alone = 0;
	}
	if (a == m->ask + ASKS) {
		a = worst(m, 1);
		if (is_udp(m) || !a || open_flows(m) - !a->overtaken +
		    (a->overtaken && alone) < 1)
			return 0;
	}
	a->s->reset_at = 0;	/* by our own reset the NAT forgets it */
	ask_end(a);
	a->role = R_FREE;
	return 1;
}

/* Asks by a new flow to another server or address than those that hold.
 * Returns 0 when there is none. */
static int
probe(struct map *m, int64_t now)
{
	struct server *s;
	struct ask *a;

	m->probing = 1;
	s = pick_stun(m, now, NULL);
	if (!s && make_room(m))
		s = pick_stun(m, now, NULL);
	a = s ? place_for(m) : NULL;
	if (a) {
		a->role = R_PROBE;
		ask_start(m, a, s, now);
	}
	m->probing = 0;
	return a && a->s;
}

/* judging what was answered */

static NOINLINE void
doubt(struct map *m, const struct mapping *map, const union addr *peer,
    int64_t now)
{
	m->doubt.map = *map;
	m->doubt.peer = *peer;
	m->doubt.until = now + PAIR_LIMIT;
}

/* Another server speaks while a new mapping is in doubt.  Where servers once
 * agreed the NAT is a cone: one that still says the old may be remembered by
 * the NAT, and only two of them outvote the doubt. */
static void
compare(struct map *m, const struct mapping *map, const union addr *peer,
    int64_t now)
{
	struct doubt *d = &m->doubt;

	if (addr_same(peer, &d->peer) || addr_same(peer, &d->other))
		return;
	if (addr_same(&map->public, &d->map.public)) {
		m->cone = 1;
		d->peer.sa.sa_family = 0;
		if (!addr_same(&map->public, &m->said.public))
			announce(m, map, now);
	} else if (++d->differ < 2) {
		if (m->cone && addr_same(&map->public, &m->said.public))
			d->other = *peer;
		else
			doubt(m, map, peer, now);
		probe(m, now);
	} else {
		d->peer.sa.sa_family = 0;
		m->depends = !m->cone;
		if (m->depends)
			warn("the mapping depends on the destination: this "
			    "NAT is not a cone, the port will not be "
			    "reachable");
	}
}

/* A flow's first answer, or one that differs from its last; it is news when
 * the server said something else before. */
static void
judge(struct map *m, struct ask *a, int news, int64_t now)
{
	struct mapping map;
	struct doubt *d = &m->doubt;

	map.public = a->b.mapped;
	map.local = a->b.local;
	map.by = a->s;
	if (addr_any(&map.local))	/* IP_PKTINFO did not tell it */
		local_source(&m->local, &a->b.peer, &map.local);
	if (m->depends && a->s != m->first && !m->first->fails)
		return;
	if (!m->said.public.sa.sa_family || m->depends)
		m->first = a->s;	/* or another, while that one fails */
	if (!m->said.public.sa.sa_family) {
		announce(m, &map, now);
	} else if (d->peer.sa.sa_family) {
		compare(m, &map, &a->b.peer, now);
	} else if (addr_same(&map.public, &m->said.public)) {
		m->confirmed = now;
		m->cone |= map.by != m->said.by;
		if (!addr_same(&map.local, &m->said.local))
			announce(m, &map, now);
	} else if (news || !m->cone || now >= m->confirmed + STALE) {
		memset(d, 0, sizeof *d);
		doubt(m, &map, &a->b.peer, now);
		if (m->depends || !probe(m, now))
			announce(m, &map, now);
	}
}

static void
ask_answered(struct map *m, struct ask *a, int64_t now)
{
	int fresh = !a->seen.sa.sa_family ||
	    !addr_same(&a->seen, &a->b.mapped);
	int news = !addr_same(&a->s->mapped, &a->b.mapped);
	struct ask *old;

	server_good(m, a->s, now);
	a->seen = a->s->mapped = a->b.mapped;
	a->overtaken = 0;
	if (a->role == R_PROBE) {
		old = worst(m, 0);
		a->role = R_HOLD;
		a->due = a->b.asked + m->k;
		if (old && holders(m) > wanted(m))
			retire(old);
	}
	if (is_udp(m))
		a->s->turn++;
	if (fresh)		/* it may give the place to a probe */
		judge(m, a, news, now);
	if (is_udp(m) && a->b.state == FLOW_OPEN)
		ask_end(a);	/* the port's socket is open for a moment */
}

/* A request waits long: others are asked, the late answer still counts. */
static void
overtake(struct map *m, struct ask *a, int64_t now)
{
	if (a->overtaken || now < a->b.asked +
	    (is_udp(m) ? OVERTAKE_UDP : OVERTAKE_TCP))
		return;
	a->overtaken = 1;
	if (a->role == R_RETIRED)
		return;
	if (!a->seen.sa.sa_family)
		server_failed(m, a->s, &a->b.peer, ETIMEDOUT, 0, now);
	probe(m, now);
}

/* UDP between two checks: a packet that wants no answer. */
static NOINLINE void
ask_indicate(struct map *m, struct ask *a, int64_t now)
{
	int fd, shared = m->relay.fd >= 0;

	a->due = now + m->k;
	fd = shared ? m->relay.fd : port_socket(m, LOCAL_FLOW, now);
	if (fd < 0)
		return;
	stun_indicate(fd, &a->b.peer);
	if (!shared)
		close(fd);
}

/* What a holder does when its time has come. */
static void
ask_due(struct map *m, struct ask *a, int64_t now)
{
	struct server *s;

	if (a->b.state == FLOW_OPEN) {
		a->due = now + m->k;
		a->overtaken = 0;
		if (flow_ask(&a->b, 0, now, now + ANSWER_LIMIT) < 0)
			ask_failed(m, a, errno, now);
	} else if (!a->s && is_udp(m) && holds(m, now) &&
	    ++m->cycle < m->cfg->cycle) {
		ask_indicate(m, a, now);
	} else if (!a->s) {
		m->cycle = 0;
		s = pick_stun(m, now, &a->due);
		if (s)
			ask_start(m, a, s, now);
	}
}

static void
ask_step(struct map *m, struct ask *a, int64_t now)
{
	int r = flow_step(&a->b, m->w, now);

	if (r > 0)
		ask_answered(m, a, now);
	else if (r < 0)
		ask_failed(m, a, errno, now);
	else if (a->s && a->b.state == FLOW_CLOSED)
		ask_go_on(m, a, now);
	if (a->s && (a->b.state == FLOW_CONNECTING ||
	    a->b.state == FLOW_ASKING))
		overtake(m, a, now);
	if (a->role == R_HOLD && now >= a->due && now >= m->serve_at)
		ask_due(m, a, now);
}

/* As many holders as are wanted. */
static void
asks_balance(struct map *m, int64_t now)
{
	struct ask *a;
	int n = holders(m) - wanted(m);

	for (; n > 0 && (a = worst(m, 0)); n--)
		retire(a);
	for (; n < 0 && (a = place_for(m)); n++) {
		a->role = R_HOLD;
		a->due = now;
	}
}

static void
asks_want(struct map *m)
{
	struct ask *a;

	for (a = m->ask; a < m->ask + ASKS; a++) {
		flow_want(&a->b, m->w);
		if (a->role == R_HOLD && !(a->s && a->b.state != FLOW_OPEN))
			wake_at(m->w, a->due > m->serve_at ? a->due :
			    m->serve_at);
		if ((a->b.state == FLOW_CONNECTING ||
		    a->b.state == FLOW_ASKING) && !a->overtaken)
			wake_at(m->w, a->b.asked + (is_udp(m) ?
			    OVERTAKE_UDP : OVERTAKE_TCP));
	}
	if (m->doubt.peer.sa.sa_family)
		wake_at(m->w, m->doubt.until);
	wake_at(m->w, m->check);
}

static void
asks_step(struct map *m, int64_t now)
{
	int i;

	for (i = 0; i < ASKS; i++)
		ask_step(m, &m->ask[i], now);
	if (m->doubt.peer.sa.sa_family && now >= m->doubt.until) {
		m->doubt.peer.sa.sa_family = 0;
		if (!addr_same(&m->doubt.map.public, &m->said.public))
			announce(m, &m->doubt.map, now);
	}
	if (now >= m->check) {
		m->check = next_check(m, now);
		m->again++;	/* one that cannot be now may be soon */
		if (m->cfg->once || probe(m, now) || m->again > 3)
			m->again = 0;
		else if (m->check != NEVER)
			m->check = now + BACKOFF_MIN;
	}
	if (now >= m->serve_at)
		asks_balance(m, now);
}

/* the keep-alive connection */

static void
keep_end(struct keeper *kp, int abort)
{
	flow_stop(&kp->k, abort);
	kp->s = NULL;
	kp->answered = kp->ending = kp->suspect = 0;
}

/* A keeper's connection ended.  One that lived is replaced soon, one that
 * never answered when its server's back-off, or another server, allows. */
static void
keep_failed(struct map *m, struct keeper *kp, int error, int64_t now)
{
	const struct keeper *other = &m->keep[kp == m->keep];
	int64_t born = kp->k.born;
	int planned = kp->ending || (kp->answered && error != ETIMEDOUT);

	if (planned)
		note("%s: closed the connection", kp->s->host->name);
	else
		server_failed(m, kp->s, &kp->k.peer, error, 0, now);
	if (!kp->answered)
		m->http_down = 1;
	m->http_turn += !planned;
	keep_end(kp, 0);
	if (!other->ending || other->k.born < born)
		m->keep_due = planned ? next_flow(m, born, now) : now;
	flow_lost(m, error, now);
}

static void
keep_open(struct map *m, struct keeper *kp, int64_t now)
{
	const union addr *peer = server_addr(m, kp->s);
	int fd;

	if (!peer) {		/* the ending connection has it */
		kp->s = NULL;
		m->keep_due = now + BACKOFF_MIN;
		return;
	}
	fd = port_socket(m, LOCAL_FLOW, now);
	if (fd < 0) {
		kp->s = NULL;
		m->keep_due = m->serve_at;
		return;
	}
	kp->s->started = now;
	if (flow_start(&kp->k, FLOW_HTTP, fd, 0, peer, kp->s->host->name, now,
	    limit(m, now)) < 0)
		keep_failed(m, kp, errno, now);
}

static void
keep_go_on(struct map *m, struct keeper *kp, int64_t now)
{
	if (kp->s->addrs.n)
		keep_open(m, kp, now);
	else if (!kp->s->lookup.busy) {
		keep_end(kp, 0);
		m->http_down = 1;
		m->keep_due = now;
	}
}

/* the keeper that is not being ended, NULL when there is none */
static struct keeper *
keep_active(struct map *m)
{
	int i;

	for (i = 0; i < KEEPERS; i++)
		if (m->keep[i].s && !m->keep[i].ending)
			return &m->keep[i];
	return NULL;
}

static void
keep_start(struct map *m, int64_t now)
{
	struct server *s = pick_http(m, now, &m->keep_due);
	struct keeper *kp = m->keep;

	if (!s)
		return;
	while (kp < m->keep + KEEPERS && kp->s)
		kp++;
	if (kp == m->keep + KEEPERS)
		keep_end(--kp, 0);
	m->http_turn = (int)(s - m->http);	/* the first that serves */
	kp->s = s;
	server_look(m, s, m->cfg->family, LOOKUP_AGE, now);
	keep_go_on(m, kp, now);
}

static void
keep_answered(struct map *m, struct keeper *kp, int64_t now)
{
	const struct http_reader *h = &kp->k.http;

	server_good(m, kp->s, now);
	m->http_down = 0;
	kp->answered = 1;
	kp->suspect = 0;
	kp->due = kp->k.asked + m->k;
	if (kp->ending || (!h->close && h->max &&
	    (h->timeout < 0 || h->timeout * (int64_t)1000 > m->k)))
		return;
	/* It will be closed: the next one may be up before that. */
	kp->ending = 1;
	m->keep_due = next_flow(m, kp->k.born, now);
}

static void
keep_step(struct map *m, struct keeper *kp, int64_t now)
{
	int r = flow_step(&kp->k, m->w, now);

	if (r > 0)
		keep_answered(m, kp, now);
	else if (r < 0)
		keep_failed(m, kp, errno, now);
	else if (kp->s && kp->k.state == FLOW_CLOSED)
		keep_go_on(m, kp, now);
	else if (kp->k.state == FLOW_ASKING && !kp->suspect &&
	    now >= kp->k.asked + OVERTAKE_TCP) {
		kp->suspect = 1;	/* is the mapping still there? */
		probe(m, now);
	} else if (kp->k.state == FLOW_OPEN && now >= kp->due) {
		if (kp->k.last)		/* asked to close, it did not */
			keep_end(kp, 0);
		else if (flow_ask(&kp->k, kp->ending, now,
		    now + ANSWER_LIMIT) < 0)
			keep_failed(m, kp, errno, now);
	}
}

static void
keeps_want(struct map *m)
{
	struct keeper *kp;

	for (kp = m->keep; kp < m->keep + KEEPERS; kp++) {
		flow_want(&kp->k, m->w);
		if (kp->k.state == FLOW_OPEN)
			wake_at(m->w, kp->due);
		else if (kp->k.state == FLOW_ASKING && !kp->suspect)
			wake_at(m->w, kp->k.asked + OVERTAKE_TCP);
	}
	if (m->cfg->nhttp && !keep_active(m))
		wake_at(m->w, m->keep_due > m->serve_at ? m->keep_due :
		    m->serve_at);
}

static void
keeps_step(struct map *m, int64_t now)
{
	int i;

	for (i = 0; i < KEEPERS; i++)
		keep_step(m, &m->keep[i], now);
	if (m->cfg->nhttp && !keep_active(m) && now >= m->keep_due &&
	    now >= m->serve_at)
		keep_start(m, now);
}

/* look-ups */

/* A server's look-up has ended; who waits for it sees that at its step. */
static void
server_looked(struct map *m, struct server *s, int found, int64_t now)
{
	if (found)
		check_fake(m, &s->addrs.a[0], s->host->name);
	else if (!s->addrs.n)
		server_failed(m, s, NULL, 0, s->lookup.gai, now);
}

static void
target_looked(struct map *m, int found, int64_t now)
{
	struct server *s = m->target;
	char why[80];

	if (found) {
		if (s->fails)
			warn("target %s: found again", s->host->name);
		s->fails = 0;
		target_set(m);
		return;
	}
	s->retry = now + backoff(m, ++s->fails, now);
	if (s->fails == 1)
		warn("target %s: %s, %s", s->host->name,
		    failure(s, 0, s->lookup.gai, why), s->addrs.n ?
		    "the last good address serves on" : "trying again");
}

static void
lookups_want(struct map *m)
{
	struct server *s;

	for (s = m->server; s <= m->target; s++)
		lookup_want(&s->lookup, m->w);
	if (m->relay.fd >= 0 && !m->target->addrs.n && !m->target->lookup.busy)
		wake_at(m->w, m->target->retry);
}

static void
lookups_step(struct map *m, int64_t now)
{
	struct server *s;
	int r;

	for (s = m->server; s <= m->target; s++) {
		r = lookup_step(&s->lookup, m->w, now);
		if (r > 0) {
			s->addrs = s->lookup.got;
			s->tried = 0;
			s->looked = now;
		}
		if (r && s == m->target)
			target_looked(m, r > 0, now);
		else if (r)
			server_looked(m, s, r > 0, now);
	}
	if (m->relay.fd >= 0 && !m->target->addrs.n && now >= m->target->retry)
		server_look(m, m->target, AF_UNSPEC, TARGET_AGE, now);
}

/* the relay */

/* a datagram on the mapped port: is it an answer of a STUN server? */
static int
claim(void *arg, const union addr *from, const union addr *to,
    const unsigned char *p, size_t n, int64_t now)
{
	struct map *m = arg;
	struct ask *a;
	int r = 0;

	for (a = m->ask; a < m->ask + ASKS && r == 0; a++) {
		r = flow_claim(&a->b, from, to, p, n);
		if (r > 0)
			ask_answered(m, a, now);
		else if (r < 0)
			ask_failed(m, a, errno, now);
	}
	return r != 0;
}

/* a session came: the target's address may have changed since */
static void
used(void *arg, int64_t now)
{
	struct map *m = arg;

	if (now >= m->target->retry)
		server_look(m, m->target, AF_UNSPEC, TARGET_AGE, now);
}

/* Opens the relay's port as soon as it can be had. */
static void
serve(struct map *m, int64_t now)
{
	struct relay_calls calls = { m, claim, used, log_line };
	int fd = m->spare;

	if (!m->cfg->target || m->relay.fd >= 0 || now < m->serve_at)
		return;
	m->spare = -1;
	if (fd < 0)
		fd = port_socket(m, LOCAL_SERVER, now);
	if (fd < 0)
		return;
	if (relay_start(&m->relay, m->cfg, &calls, fd, now) < 0) {
		port_trouble(m, "the relay does not start", now);
		return;
	}
	server_look(m, m->target, AF_UNSPEC, TARGET_AGE, now);
}

/* the network's news */

static int
place_same(const struct place *a, const struct place *b)
{
	return addr_same_host(&a->source, &b->source) &&
	    a->index == b->index && a->flags == b->flags;
}

/* Nothing that failed before counts any longer. */
static void
forgive(struct map *m, int64_t now)
{
	int i;

	servers_forgive(m);
	for (i = 0; i < ASKS; i++)
		if (m->ask[i].role == R_HOLD)
			m->ask[i].due = now;
	m->serve_at = m->quit ? NEVER : now;
	if (!keep_active(m))
		m->keep_due = now;
}

/* asks at once whether the mapping is still what it was */
static NOINLINE void
recheck(struct map *m, int64_t now)
{
	forgive(m, now);
	m->check = m->quit ? NEVER : now;
}

/* Our address or interface is another: all flows are dead. */
static NOINLINE void
restart(struct map *m, int64_t now)
{
	char host[ADDR_TEXT];
	int i;

	warn("the network changed, mapping again from %s",
	    addr_host(&m->place.source, host));
	for (i = 0; i < ASKS; i++)
		ask_end(&m->ask[i]);
	for (i = 0; i < KEEPERS; i++)
		keep_end(&m->keep[i], 1);
	m->held = 0;
	m->depends = m->cone = 0;
	m->doubt.peer.sa.sa_family = 0;
	m->keep_due = now;
	if (m->relay.fd >= 0 && local_rebind(&m->local, m->relay.fd) < 0)
		warn("interface \"%s\":", m->cfg->interface);
	forgive(m, now);
}

static void
news_settled(struct map *m, int64_t now)
{
	struct place p, old = m->place;

	m->settle = NEVER;
	m->settled = now;
	place_find(m, &p);
	if (!p.source.sa.sa_family) {
		m->moved = 1;	/* act when there is a way out again */
		return;
	}
	m->place = p;
	if ((old.index && old.index != p.index) ||
	    !addr_same_host(&old.source, &p.source))
		restart(m, now);
	else if (m->moved || old.flags != p.flags || !holds(m, now))
		recheck(m, now);
	m->moved = 0;
}

static void
news_want(struct map *m)
{
	m->news_slot = wake_on(m->w, m->news, POLLIN);
	wake_at(m->w, m->settle);
}

static void
news_step(struct map *m, int64_t now)
{
	struct place p;

	if (woke(m->w, m->news_slot)) {
		news_read(m->news);
		if (m->settle == NEVER) {
			place_find(m, &p);
			m->moved |= !place_same(&p, &m->place);
			m->settle = now + SETTLE > m->settled + NEWS_GAP ?
			    now + SETTLE : m->settled + NEWS_GAP;
		}
	}
	if (now >= m->settle)
		news_settled(m, now);
}

/* the mapping as a whole */

static NOINLINE void
map_init(struct map *m, const struct config *c, struct wake *w)
{
	struct server *s;
	int i;

	memset(m, 0, offsetof(struct map, server));
	m->cfg = m->hook.cfg = m->local.cfg = c;
	m->w = w;
	m->k = c->keepalive * (int64_t)1000;
	m->udp = c->type == SOCK_DGRAM;
	m->stun = m->server;
	m->http = m->stun + c->nstun;
	m->target = m->http + c->nhttp;
	m->target_host.name = c->target;
	for (i = 0, s = m->server; s <= m->target; i++, s++) {
		memset(s, 0, sizeof *s);
		s->host = i < c->nstun ? &c->stun[i] : &c->http[i - c->nstun];
		s->what = i < c->nstun ? "a STUN" : "an HTTP";
		lookup_init(&s->lookup);
	}
	m->target->host = &m->target_host;
	m->relay.fd = m->spare = -1;
	m->check = m->settle = m->listen_check = NEVER;
	m->news = news_open();
	for (i = 0; i < ASKS; i++)
		flow_init(&m->ask[i].b);
	for (i = 0; i < KEEPERS; i++)
		flow_init(&m->keep[i].k);
	port_next(m);
	if (!c->port_lo)
		m->local.port = 0;
	place_find(m, &m->place);
	asks_balance(m, 0);
}

/* In bind mode somebody should serve the port by now. */
static void
check_listener(struct map *m)
{
	struct owner o;

	m->listen_check = NEVER;
	if (m->cfg->target || local_owner(&m->local, &o) < 0 ||
	    (o.listening && o.pid != getpid()))
		return;
	warn("%s port %d: nobody listens on it, unless a firewall rule passes "
	    "it on", proto(m), m->local.port);
}

static NOINLINE void
map_want(struct map *m)
{
	lookups_want(m);
	asks_want(m);
	keeps_want(m);
	news_want(m);
	hook_want(&m->hook, m->w);
	wake_at(m->w, m->listen_check);
	if (m->relay.fd >= 0)
		relay_want(&m->relay, m->w);
	else if (m->cfg->target)
		wake_at(m->w, m->serve_at);
}

static void
map_step(struct map *m, int64_t now)
{
	news_step(m, now);
	serve(m, now);
	lookups_step(m, now);
	keeps_step(m, now);	/* it may take the last holder's place */
	asks_step(m, now);
	if (now >= m->listen_check)
		check_listener(m);
	if (m->relay.fd >= 0)
		relay_step(&m->relay, m->w, now);
	hook_step(&m->hook, m->w, now);
}

/* Ends the flows so that a restart finds their 4-tuples free and the NAT
 * still knows the port: the server is asked to close first. */
static void
map_end(struct map *m, int sig, int64_t now)
{
	struct keeper *kp;
	int i, held;

	if (m->quit)
		return;
	held = open_flows(m) > 1;
	m->quit = sig;
	m->end = now + END_LIMIT;
	m->check = m->serve_at = NEVER;
	for (i = 0; i < ASKS; i++) {
		m->ask[i].role = R_FREE;
		ask_end(&m->ask[i]);
	}
	for (kp = m->keep; kp < m->keep + KEEPERS; kp++) {
		kp->ending = 1;
		if (kp->k.state != FLOW_OPEN || flow_ask(&kp->k, 1, now,
		    m->end) < 0)
			keep_end(kp, !held);
	}
}

static void
map_stop(struct map *m)
{
	struct server *s;
	int i;

	relay_stop(&m->relay);
	for (i = 0; i < KEEPERS; i++)
		keep_end(&m->keep[i], 0);
	for (s = m->server; s <= m->target; s++)
		lookup_stop(&s->lookup);
	if (m->news >= 0)
		close(m->news);
}

/* the program */

static void
reap(struct map *m)
{
	pid_t pid;
	int status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		hook_reaped(&m->hook, pid, status);
}

static void
signals(struct map *m, int64_t now)
{
	int sig;

	while ((sig = signals_next()) != 0) {
		if (sig == SIGTERM || sig == SIGINT)
			map_end(m, sig, now);
		else if (sig == SIGHUP) {
			recheck(m, now);
			m->settle = now;	/* and whether we moved */
		} else if (sig == SIGCHLD)
			reap(m);
		else if (m->relay.fd >= 0)
			relay_report(&m->relay);
	}
}

/* 1 when there is nothing left to do */
static int
finished(struct map *m, int64_t now)
{
	int i, open = 0;

	for (i = 0; i < KEEPERS; i++)
		open += m->keep[i].k.state != FLOW_CLOSED;
	if (m->quit)
		return !open || now >= m->end;
	return m->cfg->once && hook_delivered(&m->hook);
}

/* Runs until a signal, or --once, ends it; 0 or the exit status. */
static NOINLINE int
run(struct map *m, int sigfd)
{
	int64_t now = now_ms(), limit_at = now + ONCE_LIMIT;
	int slot;

	while (!finished(m, now)) {
		wake_clear(m->w);
		slot = wake_on(m->w, sigfd, POLLIN);
		map_want(m);
		if (m->quit)
			wake_at(m->w, m->end);
		if (m->cfg->once && !m->said.public.sa.sa_family)
			wake_at(m->w, limit_at);
		now = wake_wait(m->w, now);
		if (woke(m->w, slot))
			signals(m, now);
		map_step(m, now);
		if (m->cfg->once && !m->said.public.sa.sa_family &&
		    now >= limit_at) {
			log_level(0);	/* -q does not hide what is fatal */
			warn("no STUN server answered within %d s",
			    ONCE_LIMIT / 1000);
			return 1;
		}
	}
	return m->cfg->once && m->hook.status != 0;
}

/* Descriptors that we inherited are not for our children; 0, 1 and 2 exist. */
static void
inherited(void)
{
	int fd, null, most = files_now();

	do {
		null = open("/dev/null", O_RDWR);
		if (null < 0)
			null = open("/", O_RDONLY);
	} while (null >= 0 && null < 3);
	if (null >= 3)
		close(null);
	for (fd = 3; fd < most && fd < 65536; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* what -d and --once refuse to start without */
static void
check_start(struct map *m)
{
	const struct config *c = m->cfg;
	int fd;

	if (c->script && access(c->script, X_OK) < 0) {
		if (c->daemon || c->once)
			die("%s: cannot be run:", c->script);
		hook_stuck(&m->hook, 0);
	}
	if (!c->daemon && !c->once)
		return;
	if (c->level < 0)	/* -q does not hide what is fatal */
		log_level(0);
	fd = port_socket(m, c->target ? LOCAL_SERVER : LOCAL_FLOW, 0);
	if (fd < 0 && m->port_error != ENODEV &&
	    m->port_error != EADDRNOTAVAIL)
		exit(1);
	if (c->target)
		m->spare = fd;
	else if (fd >= 0)
		close(fd);
	log_level(c->level);
}

/* Atomic, so that a reader never sees half of it; -1 with errno. */
static NOINLINE int
pid_write(const char *path)
{
	char temp[4096], text[24];
	int fd, n;

	n = fmt(temp, sizeof temp, "%s.%ld", path, (long)getpid());
	if (n >= (int)sizeof temp) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -1;
	n = fmt(text, sizeof text, "%ld\n", (long)getpid());
	if (write(fd, text, (size_t)n) == n && close(fd) == 0 &&
	    rename(temp, path) == 0)
		return 0;
	unlink(temp);
	return -1;
}

/* Detaches.  Returns a descriptor: the parent exits 0 when a byte is written
 * there, 1 when it is closed without. */
static int
detach(void)
{
	int p[2], null;
	char c;
	pid_t pid = -1;

	if (pipe(p) == 0)
		pid = fork();
	if (pid < 0)
		die("cannot detach:");
	if (pid > 0) {
		close(p[1]);
		_exit(read(p[0], &c, 1) != 1);
	}
	setsid();
	null = open("/dev/null", O_RDWR);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		close(null);
	}
	close(p[0]);
	fcntl(p[1], F_SETFD, FD_CLOEXEC);
	return p[1];
}

/* Everything was good: goes into the background where that was asked for. */
static void
settle_down(const struct config *c)
{
	int report = c->daemon ? detach() : -1;

	if (c->pid_file && pid_write(c->pid_file) < 0)
		die("%s: cannot be written:", c->pid_file);
	if (report < 0)
		return;
	log_to(LOG_TO_SYSLOG);
	if (write(report, "", 1) != 1)
		warn("the starting process is gone");
	close(report);
}

int
main(int argc, char **argv)
{
	struct config c;
	struct map m;
	struct wake w = { NULL, 0, 0, NEVER };
	int sigfd, status;

	if (argc < 2) {
		usage(STDERR_FILENO);
		return 2;
	}
	read_options(&c, argc, argv);
	log_level(c.level);
	inherited();
	files_raise();
	sigfd = signals_open();
	if (sigfd < 0)
		die("cannot catch signals:");
	map_init(&m, &c, &w);
	check_start(&m);
	settle_down(&c);
	status = run(&m, sigfd);
	map_stop(&m);
	wake_free(&w);
	if (c.pid_file)
		unlink(c.pid_file);
	signals_close();
	if (m.quit)
		raise(m.quit);
	exit(status);
}
