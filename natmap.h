/* SPDX-License-Identifier: MIT */
/*
 * natmap opens a TCP or UDP port behind a full-cone NAT to the Internet.
 *
 *   natmap.c   contacts, the verdict, announcing, --check, options, the loop
 *   stun.c     the mapped port's sockets, STUN and HTTP flows, servers, route
 *   relay.c    sessions between the mapped port and the target
 *   timer.c    text, log, clock, poll(), idle lists, signals, children
 *
 * Dependencies point one way: timer.c <- stun.c, relay.c <- natmap.c.  Every
 * thing that waits has the same four verbs:
 *
 *   start   take what it needs, reset the state, do the first action
 *   want    say what it waits for: fds and events, a deadline (before poll)
 *   step    look at what came and at now, move on (after poll): 1 done, 0 wait,
 *           -1 failed with errno; never block, never read the clock
 *   stop    close and forget; harmless twice
 *
 * A thing that is all zero bytes has not been started: give it to its init
 * function, or to start, first.  Times are ms of the monotonic clock.
 */
#ifndef NATMAP_H
#define NATMAP_H

#define _GNU_SOURCE		/* SPLICE_F_MOVE, in_pktinfo, recvmmsg */

#include <sys/types.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <net/if.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#define VERSION		"1.1.0"
#define NEVER		((int64_t)1 << 62) /* less code than INT64_MAX */
#define MAX_SERVERS	16	/* of each kind */
#define MAX_ADDRS	8	/* used of one name */
#define ADDR_TEXT	64	/* "[v6%scope]:port" and its NUL */
#define SERVER_TEXT	264	/* "host:port" and its NUL */
#define CONTACTS	(MAX_SERVERS + 4)	/* flows at a time */

/* errors of a peer that errno has no name for */
#define ECLOSED         ESHUTDOWN       /* the peer closed the connection */
#define ENOTANSWER      EBADMSG         /* what came is not an answer */
#define EFALSE          EDOM            /* an address that cannot be ours */
#define EREFUSED        1000            /* plus a STUN error, an HTTP status */
#define ELOOKUP(gai)    (-EREFUSED - (gai)) /* of an EAI_ code, and back */

union addr {			/* sa.sa_family is 0 while unset */
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

struct addrs {
	int n;
	union addr a[MAX_ADDRS];
};

struct host {
	const char *name;	/* never a bracketed literal */
	int port;		/* host order */
};

/* What the user asked for; const once the options are read. */
struct config {
	int family;		/* AF_INET or AF_INET6 */
	int type;		/* SOCK_STREAM or SOCK_DGRAM */
	int daemon, once;
	int check;		/* tell whether the port is reachable, end */
	int level;		/* of the log: -1 quiet, 0, 1 verbose */
	int keepalive;		/* s, at least 1 */
	int cycle;		/* keep-alive intervals between checks */
	int nstun, nhttp;	/* with --check http[0] shall connect to us */
	const char *script;	/* NULL: print the mapping */
	const char *interface;	/* of -i; NULL: any */
	const char *device;	/* to bind to, of any length; NULL: any */
	uint32_t mark;		/* 0: none */
	int port_lo, port_hi;	/* 0, 0: any */
	int port_random;
	const char *congestion;	/* NULL: the system's */
	int idle_timeout;	/* s without a byte; 0: never */
	struct host target;	/* name NULL: bind mode; port always 0 */
	int target_port;	/* host order; 0: the public port */
	int proxy_protocol;	/* TCP: tell it the client's address */
	int max_sessions;	/* 0: from the limits of the machine */
	const char *pid_file;
	/* last: near the start an access takes fewer bytes of code */
	union addr source;	/* to bind to; sa_family 0: any */
	const char *probe_path;	/* of http[0], without '/' at its ends */
	struct host stun[MAX_SERVERS], http[MAX_SERVERS];
};

#if defined __GNUC__
#define PRINTF(a, b)	__attribute__((format(printf, a, b)))
#define NORETURN	__attribute__((noreturn))
#define NOINLINE	__attribute__((noinline))	/* else longer */
#else
#define PRINTF(a, b)
#define NORETURN
#define NOINLINE
#endif

/* timer.c: text and addresses */
/* snprintf for %s %d %u %x, with a precision; %s of NULL is nothing; %pd is an
 * int64_t, %ph the numeric host of a union addr, %pp its port, nothing for 0,
 * %pa host:port of it, %ps of a struct host; IPv6 has brackets before a port.
 * Returns the length of what it wrote */
int fmt(char *buf, size_t size, const char *f, ...) PRINTF(3, 4);
socklen_t addr_len(const union addr *a);	/* of the sockaddr in it */
int addr_port(const union addr *a);		/* host order */
void addr_set_port(union addr *a, int port);
int addr_same(const union addr *a, const union addr *b);	/* and port */
int addr_same_host(const union addr *a, const union addr *b);
int addr_any(const union addr *a);		/* 1: 0.0.0.0 or :: */
/* what a host's address is for (RFC 1918, 6598, 3927, 4193, 4291, 2544); NEVER:
 * none that a NAT can have; the last two: of this network, or machine */
enum addr_kind {
	A_PUBLIC, A_SHARED, A_LINK_LOCAL, A_NEVER, A_FAKE, A_PRIVATE, A_LOOPBACK
};
enum addr_kind addr_kind(const union addr *a);
/* writes the numeric host; returns buf */
char *addr_host(const union addr *a, char buf[ADDR_TEXT]);
/* reads a numeric host of that family, AF_UNSPEC: either; -1 when it is none */
int addr_parse(union addr *a, const char *host, int family);

/* timer.c: the log */
extern int log_level;	/* -1: what is fatal, 0: warnings, 1: notes */
extern int log_fd;	/* where it goes, at first stderr */
void log_to_syslog(void);	/* from now on */
/* writes a line if that does not block, else counts it as lost; a format that
 * ends in ':' gets the text of errno.  It may begin with: */
void warn(const char *f, ...) PRINTF(1, 2);
#define FATAL		"\1"	/* -q does not hide it */
#define NOTE		"\3"	/* only for -v */
#define note(...)	warn(NOTE __VA_ARGS__)
/* logs why, and ends the program with that status */
#define quit(status, ...) (warn(FATAL __VA_ARGS__), exit(status))
#define die(...)	quit(1, __VA_ARGS__)

/* timer.c: random numbers, the clock and poll() */
struct wake {
	struct pollfd *fds;	/* slots, in the order of wake_on() */
	int n, cap;
	int64_t deadline;	/* ms, monotonic; NEVER: nobody waits for it */
};

void random_bytes(void *p, size_t n);		/* never blocks */
uint32_t random_below(uint32_t n);		/* 0 to n - 1 */
int64_t now_ms(void);
void wake_clear(struct wake *w);		/* no slots, no deadline */
/* asks for events of fd; returns its slot, -1 for an fd of -1 or no memory */
int wake_on(struct wake *w, int fd, int events);
void wake_at(struct wake *w, int64_t when);	/* not later than that */
/* polls until an event or the deadline, or 24 days; returns the time then */
int64_t wake_wait(struct wake *w, int64_t now);
int woke(const struct wake *w, int slot);	/* the events; 0 for slot -1 */

/* timer.c: sorted idle lists, oldest first */
struct idle {
	struct idle *prev, *next;
	int64_t last;		/* ms, monotonic: last activity */
};

void idle_init(struct idle *head);
/* puts e at the tail, from where it was, or from nowhere when prev is NULL */
void idle_touch(struct idle *head, struct idle *e, int64_t now);
void idle_drop(struct idle *e);	/* from its list; harmless twice */

/* timer.c: descriptors */
int fd_again(void);		/* 1: errno is no error, poll says when */
/* sets O_NONBLOCK and FD_CLOEXEC, or an option that is an int; -1 with errno */
int fd_setup(int fd);
int fd_set_option(int fd, unsigned option, int value);
/* level and name share an argument, as calls of it are many */
#define fd_option(fd, level, name, value) \
	fd_set_option(fd, (unsigned)(level) << 16 | (unsigned)(name), value)
/* TCP: small writes go at once; idle s after a byte the kernel asks, every so
 * many s and count times, whether the peer is there */
void fd_probes(int fd, int idle, int every, int count);
/* on: close sends a reset, and frees the 4-tuple at once */
void fd_abortive(int fd, int on);
void fd_close(int fd);		/* keeps errno */
int fd_name(int fd, union addr *a);	/* what it is bound to; or -1 */
int fd_connect(int fd, const union addr *to);	/* or begins to; or -1 */
/* after files_raise(): opens 0, 1 and 2 where they are closed; no program that
 * we run gets another descriptor that we inherited */
void fd_inherited(void);
/* Writes our pid to a file, never half of it, and locks it as long as we live;
 * follows no link.  1: a program that runs has locked it; -1 with errno, and a
 * descriptor may stay open, as we are to end then */
int pid_write(const char *path);

/* timer.c: signals and children */
/* catches TERM, INT, HUP, CHLD, USR1 into a pipe, whose fd it returns, and
 * ignores PIPE; -1 with errno */
int signals_open(void);
int signals_next(void);		/* that came; 0: none */
void files_raise(void);		/* RLIMIT_NOFILE, but not of children */
int files_now(void);		/* how many we may have */
/* a session of our own, with nothing to read: nobody would see a question */
void terminal_leave(void);

struct script {			/* run now and then; a run outlives us */
	const char *path;
	pid_t pid;		/* of the run; 0 none */
	int status;		/* of the last run, as waitpid tells it */
	int sig;		/* the signal due at limit: TERM, then KILL */
	int64_t limit;		/* ms: a run ends; NEVER: it may go on */
};

/* 0 when path can be run, -1 with errno: EISDIR a folder */
int script_check(const char *path);
/* runs argv[1] in a session of its own, without #! by the shell argv[0]; env:
 * lines of NAME=value for the environment.  0, or -1 with errno */
int script_start(struct script *s, const char *const argv[], char *env);
/* ends the run that is there at that time: TERM, then KILL, to its group;
 * changes nothing once TERM was sent, which script_stopped() tells */
void script_limit(struct script *s, int64_t when);
#define script_stopped(s)	((s)->sig == SIGKILL)
void script_want(const struct script *s, struct wake *w);
void script_step(struct script *s, int64_t now);
/* on SIGCHLD: reaps all children that have ended; 1 when the run has */
int script_reap(struct script *s);

struct lookup {			/* of one name, in a forked child */
	int fd, slot;           /* -1 at first, idle, and where no child is */
	pid_t pid;		/* the child's; 0: idle; -1: none is needed */
	int64_t deadline;
	int gai;		/* EAI_ code of a failure, 0: errno */
	struct addrs got;	/* the answer after step returned 1 */
};

/* looks host up; every address found gets that port.  Numeric hosts need no
 * child and are done at the first step.  0, or -1 with errno */
int lookup_start(struct lookup *l, const char *host, int port, int family,
    int64_t deadline);
void lookup_want(struct lookup *l, struct wake *w);
int lookup_step(struct lookup *l, const struct wake *w, int64_t now);
void lookup_stop(struct lookup *l);

/* stun.c: the mapped port's sockets */
struct local {
	const struct config *cfg;	/* with a target no port is shared */
	int port;		/* host order; 0 until one was chosen */
	uid_t uid;		/* the service's, whose port we share */
	int listener;           /* ours, if no flow can bind beside it; or 0 */
	struct holder *shared;  /* the service's sockets, and what we set */
	const char *why;	/* of local_socket(): what was in the way */
};

struct owner {			/* who holds a port */
	uid_t uid;
	pid_t pid;		/* 0: not found; a kernel socket has none */
#define PROCESS_NAME	32
	char name[PROCESS_NAME];	/* "sshd", empty when not found */
	int twin;		/* it is another process of our own name */
	int listening;		/* one listens, or has any UDP socket */
};

/* a flow to a server shares the port; a server listens, or is alone in UDP */
enum local_role { LOCAL_FLOW, LOCAL_SERVER };

/* A socket bound to the mapped port as l says; sets l->port when it was 0, and
 * makes the port of a service shareable (bind mode).  -1 with errno: EADDRINUSE
 * it cannot be shared, l->why is a constant sentence, or NULL; ENODEV there is
 * no such interface, EADDRNOTAVAIL no such source address */
int local_socket(struct local *l, enum local_role role);
/* at the end: takes back what was set on the service's sockets */
void local_release(struct local *l);
/* binds fd to the device again, for one that was created anew */
int local_rebind(const struct local *l, int fd);
/* 1 found, 0 nobody holds the port, -1 cannot tell */
int local_owner(const struct local *l, struct owner *o);

/* stun.c: flows to servers */
#define STUN_ID         12      /* bytes of a transaction id (RFC 8489) */
#define STUN_HEADER	20
/* 1 when p[n] can be a STUN message (RFC 8489 section 5) */
int stun_is_message(const unsigned char *p, size_t n);
/* sends a Binding indication (section 6.1) by UDP; fd is not connected */
void stun_indicate(int fd, const union addr *peer);

struct ends {			/* what a flow knows; family 0: not yet */
	union addr mapped;	/* the public address, after a STUN answer */
	union addr local;	/* our private address, after an answer */
	union addr peer;	/* the server's address; known from the start */
	union addr other;	/* UDP: the server's own other one; family 0 */
};

enum flow_kind { FLOW_UDP, FLOW_TCP, FLOW_HTTP };       /* STUN over UDP, TCP */

/*
 *   state       fd    slot  left     deadline   ends by
 *   CLOSED      -1    -1    -        -
 *   ASKING      open  yes   to send  set        an answer: OPEN, or BODY
 *   BODY        open  yes   to send  set        the server closes: OPEN
 *   OPEN        open  yes   0        NEVER      flow_ask(): ASKING
 *
 * A failure closes the flow.  So does whatever comes in OPEN, but over UDP and
 * but for 16 KiB after an HTTP answer.  A shared flow has no slot; in UDP left
 * is always 0.  Zeros are a CLOSED flow.
 */
enum flow_state { FLOW_CLOSED, FLOW_ASKING, FLOW_OPEN, FLOW_BODY };

struct flow {
	int fd, slot;		/* -1 when it was closed */
	enum flow_kind kind;
	enum flow_state state;
	int shared;             /* UDP: fd is the relay's: not connected, polled
				   or closed here; flow_claim() gets answers */
	int last;		/* as of flow_ask() */
	unsigned have;		/* TCP: bytes in buf */
	int64_t born;		/* ms: when the flow was opened */
	int64_t asked;		/* ms: when this transaction began */
	unsigned left;          /* TCP: bytes of the request not yet sent */
	int64_t resend;		/* ms: UDP, the next request; or NEVER */
	int64_t deadline;	/* ms: when the transaction has failed */
	const char *host;	/* HTTP; "host/path": GET, with buf the body */
	unsigned char request[STUN_HEADER];	/* STUN: its id at the end */
	int status;             /* HTTP: of the answer; 0: its line is next */
	int closes;             /* will it?  1 by version | 2 it said so */
	unsigned total;         /* bytes of it with its 1xx; then of its body */
	unsigned long timeout, max;     /* Keep-Alive's, s and requests left;
					   ULONG_MAX: unknown */
	struct ends ends;
	unsigned char buf[STUN_HEADER + 512];
};

/* Connects fd, which it takes, of local_socket(), to peer and asks; shared: fd
 * is the relay's UDP socket; deadline NEVER: does not ask, but waits for what
 * is asked for by another.  -1 with errno: f is closed, and knows peer. */
int flow_start(struct flow *f, enum flow_kind kind, int fd, int shared,
    const union addr *peer, const char *host, int64_t now, int64_t deadline);
/* asks again on an open flow; last: asks an HTTP server to close after it, and
 * a STUN server over UDP to answer from its other address and port, and from
 * its other port (RFC 5780 section 4.4, tests II and III) */
int flow_ask(struct flow *f, int last, int64_t now, int64_t deadline);
void flow_want(struct flow *f, struct wake *w);
/* 1: answered; -1: the flow failed, with errno (ETIMEDOUT: no answer, ECLOSED,
 * ENOTANSWER, EREFUSED ...), and is closed; in FLOW_OPEN too */
int flow_step(struct flow *f, const struct wake *w, int64_t now);
/* a datagram on a shared socket, to our own address: 1 it is the answer, 0 it
 * is not, -1 it is a STUN error, as of flow_step() */
int flow_claim(struct flow *f, const union addr *from, const union addr *to,
    const unsigned char *p, size_t n);
/* closes: STUN over TCP by a reset, HTTP by FIN, or by a reset on abort */
void flow_stop(struct flow *f, int abort);

/* stun.c: servers */
/* zeros at first, but for next, kind, host, and the -1 of lookup; what is used
 * most comes first */
struct server {
	struct server *next;
	enum flow_kind kind;	/* of the flows to it */
	int live;		/* its last request was answered */
	unsigned tried;         /* bits: addrs that failed since it answered */
	const struct host *host;
	int64_t asked;		/* ms: the last attempt; 0: never */
	int64_t retry;		/* ms: not before this, after a failure */
	int64_t rest;           /* ms: not before this, unless it is alone */
	int64_t said_at;	/* ms: since when the NAT may know the flow */
	int64_t looked;         /* ms: when addrs were found; 0: too old */
	int turn;		/* which of addrs comes next */
	int logged[2];		/* errors: the last failures */
	int fails;		/* rounds through all addrs that failed */
	int repeats;		/* failures since it answered */
	int fresh;		/* the NAT could not know it before */
	int warned;		/* that it says something else was logged */
	struct addrs addrs;	/* the last good ones */
	struct ends said;	/* its last answer */
	int64_t fresh_at[MAX_ADDRS];    /* ms: the NAT forgets flows to it */
	struct lookup lookup;
};

#define BACKOFF_MIN     1000    /* ms: after a failure, doubled each time */
#define BACKOFF_MAX	30000
#define UDP_ONCE        35000   /* ms: then a NAT has forgotten a UDP flow */
#define UDP_TWICE       125000  /* the same, where it was used more than once */

struct use {                    /* where a flow goes */
	struct use *next;
	struct server *s;	/* NULL: there is no flow */
	const union addr *a;	/* NULL: not known yet */
};

enum {				/* what server_choose() wants */
	FRESH = 1,		/* one that the NAT has forgotten */
	LIVE = 2,		/* one that answered last */
	RECENT = 4,		/* see there */
	SPARE = 8               /* not the next check's, if flows are reset */
};

/* looks the name up where the addresses are older than age or missing; limit:
 * when that has failed.  -1 with errno: no child could be made */
int server_resolve(struct server *s, int family, int64_t age, int64_t limit,
    int64_t now);
/* 1 addresses were found, -1 none (s->lookup.gai), 0 */
int server_step(struct server *list, struct server *s, const struct wake *w,
    int64_t now);
/* the next address that no flow uses, that did not fail since the server
 * answered, and where fresh is asked for, that the NAT has forgotten; or -1 */
int server_addr(const struct server *s, const struct use *use, int fresh,
    int64_t now);
/* The server that may be asked now: not asked for longest, or with RECENT the
 * one that says so and that the NAT remembers longest, rather one that no flow
 * goes to.  NULL: none; *soonest, when not NULL: when to ask again. */
struct server *server_choose(struct server *list, const struct use *use,
    int how, const union addr *says, int64_t now, int64_t *soonest);
/* a flow to address i of s begins: 1 when the NAT cannot know it */
int server_asked(struct server *list, struct server *s, int i, int64_t now);
/* the NAT remembers flows to a until then, ms, or as long as it did where that
 * is -1; returns until when it did, 0 for an address that is not there */
int64_t server_remembered(struct server *list, const union addr *a,
    int64_t until);
#define server_fresh_at(list, a) server_remembered(list, a, -1)
/* A request to peer failed by error; NULL and ELOOKUP(): the look-up failed.
 * Waits up to cap ms; 1 when that kind of failure is new. */
int server_failed(struct server *s, const union addr *peer, int error,
    int64_t cap);
/* it answered: forgets the failures before that; returns how many, or 0 where
 * not all of its addresses had failed */
int server_answered(struct server *s);
/* what went wrong, in words, until the next call */
const char *server_error(const struct server *s, int error);

/* stun.c: the route out of the machine */
struct route {			/* where the flows leave the machine */
	union addr source;	/* and the mapped port; family 0: no route */
	unsigned index;		/* of the interface; 0: unknown */
	unsigned flags;		/* IFF_UP | IFF_RUNNING */
};

/* the kernel's news of links, addresses and routes: a descriptor that becomes
 * readable, -1 where there is none; route_read drains it */
int route_open(void);
void route_read(int fd);
/* finds the route to an address from the mapped port's device and mark */
void route_find(const struct local *l, const union addr *to, struct route *r);

/* relay.c */
struct relay;

/* What the relay asks of the program around it. */
struct relay_calls {
	void *arg;
	/* is this datagram a STUN answer?  1: it is taken */
	int (*claim)(void *arg, const union addr *from, const union addr *to,
	    const unsigned char *p, size_t n);
	/* a client came: the target's name may be looked up again */
	void (*used)(void *arg, const union addr *client);
};

/* takes fd, of local_socket(LOCAL_SERVER); NULL with errno, fd is closed */
struct relay *relay_start(const struct config *cfg,
    const struct relay_calls *calls, int fd, int64_t now);
int relay_fd(const struct relay *r);	/* of relay_start() */
/* where new sessions go; the addresses carry the port */
void relay_target(struct relay *r, const struct addrs *to);
void relay_accept(struct relay *r);	/* what is queued */
void relay_want(struct relay *r, struct wake *w);
void relay_step(struct relay *r, struct wake *w, int64_t now);
/* says the totals: sessions now and ever, bytes, why they were closed */
void relay_report(const struct relay *r);
/* ends all sessions and frees r, which may be NULL */
void relay_stop(struct relay *r);

#endif
