/* SPDX-License-Identifier: MIT */
/*
 * The ground floor: text and addresses, the log, the clock and the one poll(),
 * idle lists sorted by last activity, descriptors, signals through a pipe,
 * child processes, and the look-up of names in a child.
 */
#include "natmap.h"

#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if !defined SYS_close_range && defined SYS_pidfd_open
#define SYS_close_range	(SYS_pidfd_open + 2)	/* 436, mips 4436 */
#endif
#define CLOSE_AT_EXEC   4       /* CLOSE_RANGE_CLOEXEC, since Linux 5.11 */

#ifndef O_PATH
#define O_PATH		O_RDONLY
#endif

#define RUN_KILL        5000    /* ms, between TERM and KILL of the script */

static const char caught[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGUSR1 };

static int sigpipe[2] = { -1, -1 };
static struct rlimit files;	/* RLIMIT_NOFILE at start, for children */

/* text: a small part of printf, whose libc form weighs 12 KB when static */

/* Writes a number with so many digits at least, and a NUL, to the end of room;
 * returns where it begins. */
static char *
digits(char room[SERVER_TEXT], int64_t v, size_t least, unsigned base)
{
	char *end = room + SERVER_TEXT - 1, *p = end;
	uint64_t u = v < 0 ? -(uint64_t)v : (uint64_t)v;

	*end = '\0';
	for (; u != 0 || (size_t)(end - p) < least; u /= base)
		*--p = "0123456789abcdef"[u % base];
	if (v < 0)
		*--p = '-';
	return p;
}

/* The text of %pa, %ph, %pp, %ps or %pd, in buf. */
static NOINLINE const char *
text_of(int kind, const void *p, char buf[SERVER_TEXT])
{
	char text[ADDR_TEXT];

	if (kind == 'd' || kind == 'p')
		return digits(buf, kind == 'd' ? *(const int64_t *)p :
		    addr_port(p), kind == 'd', 10);
	if (kind == 'h')
		return addr_host(p, buf);
	struct host h = kind == 's' ? *(const struct host *)p :
	    (struct host){ addr_host(p, text), addr_port(p) };
	fmt(buf, SERVER_TEXT, strchr(h.name, ':') ? "[%.253s]:%d" :
	    "%.253s:%d", h.name, h.port);
	return buf;
}

static int
vfmt(char *buf, size_t size, const char *f, va_list ap)
{
	char room[SERVER_TEXT], *p = buf, *end = buf + size - 1;

	for (; *f; f++) {
		const char *s = f;
		size_t n = 1, least = 1;	/* bytes of s; 0: all */
		if (*f == '%' && *++f != '%') {
			n = 0;
			if (*f == '.')
				n = least = strtoul(f + 1, (char **)&f, 10);
			if (*f == 's' || *f == 'p') {
				s = va_arg(ap, const char *);
				if (*f == 'p')
					s = text_of(*++f, s, room);
			} else {
				int64_t v = va_arg(ap, int);
				n = 0;
				if (*f != 'd')
					v = (unsigned)v;
				s = digits(room, v, least, *f == 'x' ? 16 : 10);
			}
		}
		while (s && *s && p < end) {
			*p++ = *s++;
			if (--n == 0)
				break;
		}
	}
	*p = '\0';
	return (int)(p - buf);
}

int
fmt(char *buf, size_t size, const char *f, ...)
{
	va_list ap;

	va_start(ap, f);
	int n = vfmt(buf, size, f, ap);
	va_end(ap);
	return n;
}

/* the log */

int log_level;
int log_fd = STDERR_FILENO;	/* or a socket to /dev/log */

static struct {
	int syslog;             /* 1: to that socket; -1: it is not yet open */
	unsigned lost;		/* lines that would have blocked */
} out;

void
log_to_syslog(void)
{
	out.syslog = -1;
	out.lost = 0;
}

/* Opens a socket of our own: syslog(3) blocks while the log daemon hangs. */
static int
log_connect(void)
{
	static struct sockaddr_un un;
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	un.sun_family = AF_UNIX;
	strcpy(un.sun_path, "/dev/log");
	fd_setup(fd);
	if (connect(fd, (struct sockaddr *)&un, sizeof un) < 0) {
		close(fd);
		return -1;
	}
	if (out.syslog > 0)
		close(log_fd);
	log_fd = fd;
	out.syslog = 1;
	return 0;
}

/* 1 when the whole line was written */
static NOINLINE int
log_put(const char *line, int n)
{
	return write(log_fd, line, (size_t)n) == n;
}

void
warn(const char *f, ...)
{
	const char *error = strerror(errno);
	const char *missed = "<28>natmap: %u lines of the log were lost\n";
	int level = *f > *NOTE ? 1 : *f++ - 1;
	char line[736], lost[64];
	va_list ap;

	if (level > log_level + 1)
		return;
	if (out.syslog < 0)	/* /dev/log was not there yet */
		log_connect();
	int n = fmt(line, 32, out.syslog > 0 ? "<%d>natmap[%d]: " : "natmap: ",
	    27 + level, (int)getpid()); /* syslog's LOG_DAEMON | LOG_ERR */
	va_start(ap, f);
	n += vfmt(line + n, 600, f, ap);
	va_end(ap);
	n += fmt(line + n, 90, f[strlen(f) - 1] == ':' ? " %.80s\n" : "\n",
	    error);
	out.lost++;			/* unless it is written below */
	struct pollfd p = { log_fd, POLLOUT, 0 };
	poll(&p, 1, 0);
	if (!(p.revents & POLLOUT))	/* a write would block */
		return;
	if (out.lost > 1 && log_put(lost, fmt(lost, sizeof lost, out.syslog > 0
	    ? missed : missed + strlen("<28>"), out.lost - 1)))
		out.lost = 1;
	if (log_put(line, n) ||
	    (out.syslog > 0 && log_connect() == 0 && log_put(line, n)))
		out.lost--;
}

/* addresses */

socklen_t
addr_len(const union addr *a)
{
	return a->sa.sa_family == AF_INET6 ? sizeof a->in6 : sizeof a->in;
}

/* Both families have their port at the same place. */
int
addr_port(const union addr *a)
{
	return ntohs(a->in.sin_port);
}

void
addr_set_port(union addr *a, int port)
{
	a->in.sin_port = htons((uint16_t)port);
}

int
addr_same_host(const union addr *a, const union addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return 0;
	if (a->sa.sa_family == AF_INET6)
		return memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16) == 0;
	return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
}

int
addr_any(const union addr *a)
{
	return a->sa.sa_family == AF_INET6 ?
	    IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr) :
	    a->in.sin_addr.s_addr == INADDR_ANY;
}

int
addr_same(const union addr *a, const union addr *b)
{
	return addr_port(a) == addr_port(b) && addr_same_host(a, b);
}

enum addr_kind
addr_kind(const union addr *a)
{
	static const struct net {
		uint16_t net;		/* of the first 16 bits */
		unsigned char bits, kind;
	} known[] = {		/* of each family, the last one fits all */
		{ 0x0a00, 8, A_PRIVATE }, { 0x7f00, 8, A_LOOPBACK },
		{ 0xac10, 12, A_PRIVATE }, { 0xc0a8, 16, A_PRIVATE },
		{ 0x6440, 10, A_SHARED }, { 0xa9fe, 16, A_LINK_LOCAL },
		{ 0xc612, 15, A_FAKE }, { 0, 8, A_NEVER },
		{ 0xe000, 3, A_NEVER }, { 0, 0, A_PUBLIC },
#define KNOWN_V4	10
		{ 0, 16, A_NEVER }, { 0xff00, 8, A_NEVER },
		{ 0xfe80, 10, A_NEVER }, { 0xfc00, 7, A_PRIVATE },
		{ 0, 0, A_PUBLIC }
	};
	const struct net *k = known;
	const unsigned char *b = (const void *)&a->in.sin_addr;

	if (a->sa.sa_family == AF_INET6) {
		if (IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr))
			return A_LOOPBACK;
		b = a->in6.sin6_addr.s6_addr;
		k += KNOWN_V4;
	}
	while (((b[0] << 8 | b[1]) ^ k->net) >> (16 - k->bits))
		k++;
	return k->kind;
}

char *
addr_host(const union addr *a, char buf[ADDR_TEXT])
{
	const unsigned char *b = (const void *)&a->in.sin_addr;
	int run = 0, at = -1, longest = 1;
	char *p = buf;

	buf[0] = '\0';
	if (a->sa.sa_family == AF_INET)
		fmt(buf, ADDR_TEXT, "%d.%d.%d.%d", b[0], b[1], b[2], b[3]);
	if (a->sa.sa_family != AF_INET6)
		return buf;
	/* RFC 5952: the longest run of zero groups, two or more, is "::" */
	b = a->in6.sin6_addr.s6_addr;
	for (int i = 0; i < 8; i++) {
		run = b[2 * i] | b[2 * i + 1] ? 0 : run + 1;
		if (run > longest) {
			longest = run;
			at = i + 1 - run;
		}
	}
	for (int i = 0; i < 8; i++) {
		run = i == at;
		if (run)
			i += longest - 1;
		/* A run is a colon: the next group, if any, has the other. */
		p += fmt(p, 6, run ? &"::"[i < 7] : &":%x"[i == 0],
		    (unsigned)b[2 * i] << 8 | b[2 * i + 1]);
	}
	if (a->in6.sin6_scope_id)
		fmt(p, 12, "%%%u", (unsigned)a->in6.sin6_scope_id);
	return buf;
}

int
addr_parse(union addr *a, const char *host, int family)
{
	char text[ADDR_TEXT];

	memset(a, 0, sizeof *a);
	if (family != AF_INET6 &&
	    inet_pton(AF_INET, host, &a->in.sin_addr) == 1) {
		a->sa.sa_family = AF_INET;
		return 0;
	}
	fmt(text, sizeof text, "%s", host);
	char *scope = strchr(text, '%');
	if (scope)
		*scope++ = '\0';
	if (family == AF_INET ||
	    inet_pton(AF_INET6, text, &a->in6.sin6_addr) != 1)
		return -1;
	a->sa.sa_family = AF_INET6;
	if (scope && !(a->in6.sin6_scope_id = if_nametoindex(scope)))
		a->in6.sin6_scope_id = (uint32_t)strtoul(scope, NULL, 10);
	return 0;
}

/* the clock and poll() */

int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void
random_bytes(void *buf, size_t n)
{
	static uint32_t seed;
	unsigned char *p = buf;
	struct timespec ts;

	/* The last resort, should the kernel have no random numbers for us. */
	clock_gettime(CLOCK_REALTIME, &ts);
	uint32_t x = seed += (uint32_t)ts.tv_nsec ^ (uint32_t)getpid();
	for (size_t i = 0; i < n; i++) {
		x = x * 1664525 + 1013904223;
		p[i] = (unsigned char)(x >> 24);
	}
#ifdef SYS_getrandom
	if (syscall(SYS_getrandom, p, n, 1 /* GRND_NONBLOCK */) == (ssize_t)n)
		return;
#endif
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	(void)!read(fd, p, n);
	close(fd);
}

uint32_t
random_below(uint32_t n)
{
	uint32_t x;

	random_bytes(&x, sizeof x);
	return (uint32_t)((uint64_t)x * n >> 32);
}

void
wake_clear(struct wake *w)
{
	w->n = 0;
	w->deadline = NEVER;
}

int
wake_on(struct wake *w, int fd, int events)
{
	int cap = 2 * w->cap + 16;

	if (fd < 0)
		return -1;
	if (w->n == w->cap) {
		struct pollfd *p = realloc(w->fds, (size_t)cap * sizeof *p);
		if (!p)
			return -1;
		w->fds = p;
		w->cap = cap;
	}
	w->fds[w->n] = (struct pollfd){ fd, (short)events, 0 };
	return w->n++;
}

void
wake_at(struct wake *w, int64_t when)
{
	if (when < w->deadline)
		w->deadline = when;
}

int64_t
wake_wait(struct wake *w, int64_t now)
{
	int64_t left = w->deadline - now;
	int timeout = left < 0 ? 0 : left < INT_MAX ? (int)left : INT_MAX;

	/* Where it fails, wake_on() has said that nothing came. */
	poll(w->fds, (nfds_t)w->n, timeout);
	return now_ms();
}

int
woke(const struct wake *w, int slot)
{
	return slot < 0 ? 0 : w->fds[slot].revents;
}

/* idle lists */

void
idle_init(struct idle *head)
{
	head->prev = head->next = head;
}

void
idle_drop(struct idle *e)
{
	if (!e->prev)
		return;
	e->prev->next = e->next;
	e->next->prev = e->prev;
	e->prev = e->next = NULL;
}

void
idle_touch(struct idle *head, struct idle *e, int64_t now)
{
	e->last = now;
	idle_drop(e);
	e->prev = head->prev;
	e->next = head;
	e->prev->next = e;
	head->prev = e;
}

/* descriptors */

int
fd_again(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

int
fd_setup(int fd)
{
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fcntl(fd, F_SETFL, O_NONBLOCK);
}

int
fd_set_option(int fd, unsigned option, int value)
{
	return setsockopt(fd, (int)(option >> 16), (int)(option & 0xffff),
	    &value, sizeof value);
}

void
fd_probes(int fd, int idle, int every, int count)
{
	fd_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	fd_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	fd_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle);
	fd_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, every);
	fd_option(fd, IPPROTO_TCP, TCP_KEEPCNT, count);
}

void
fd_abortive(int fd, int on)
{
	struct linger l = { on, 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
}

void
fd_close(int fd)
{
	int e = errno;

	close(fd);
	errno = e;
}

int
fd_name(int fd, union addr *a)
{
	socklen_t len = sizeof *a;

	return getsockname(fd, &a->sa, &len);
}

int
fd_connect(int fd, const union addr *to)
{
	int r = connect(fd, &to->sa, addr_len(to));

	return errno == EINPROGRESS || errno == EINTR ? 0 : r;
}

/* Closes all descriptors from fd on, or with CLOSE_AT_EXEC then. */
static NOINLINE void
fd_close_from(int fd, int how)
{
	int most = files.rlim_max < 65536 ? (int)files.rlim_max : 65536;

#ifdef SYS_close_range
	if (syscall(SYS_close_range, fd, ~0U, how) == 0)
		return;
#endif
	for (; fd < most; fd++)
		if (how == CLOSE_AT_EXEC)
			fcntl(fd, F_SETFD, FD_CLOEXEC);
		else
			close(fd);
}

void
fd_inherited(void)
{
	int null;

	do {
		null = open("/dev/null", O_RDWR);
		if (null < 0)
			null = open("/", O_RDONLY);
	} while (null >= 0 && null < 3);
	close(null);
	fd_close_from(3, CLOSE_AT_EXEC);
}

int
pid_write(const char *path)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	char temp[4096], text[24];

	/* A lock for writing cannot be had by whoever may read the file. */
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	int n = fcntl(fd, F_GETLK, &lock);
	close(fd);
	if (n == 0 && lock.l_type == F_WRLCK)
		return 1;
	fmt(temp, sizeof temp, "%s.%x", path, random_below(UINT32_MAX));
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
	    0644);
	if (fd < 0)
		return -1;
	lock.l_type = F_WRLCK;
	fcntl(fd, F_SETLK, &lock);
	n = fmt(text, sizeof text, "%d\n", (int)getpid());
	if (write(fd, text, (size_t)n) == n && rename(temp, path) == 0)
		return 0;
	unlink(temp);
	return -1;
}

/* signals and children */

static void
caught_one(int sig)
{
	unsigned char c = (unsigned char)sig;
	int e = errno;

	(void)!write(sigpipe[1], &c, 1);	/* full, it tells of one */
	errno = e;
}

int
signals_open(void)
{
	sigset_t none;

	if (pipe(sigpipe) < 0)
		return -1;
	fd_setup(sigpipe[0]);
	fd_setup(sigpipe[1]);
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < sizeof caught; i++)
		signal(caught[i], caught_one);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	return sigpipe[0];
}

int
signals_next(void)
{
	char c = 0;

	(void)!read(sigpipe[0], &c, 1);
	return c;
}

int
files_now(void)
{
	struct rlimit now;

	if (getrlimit(RLIMIT_NOFILE, &now) < 0)
		return 256;
	return now.rlim_cur < INT_MAX ? (int)now.rlim_cur : INT_MAX;
}

void
files_raise(void)
{
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	struct rlimit most = { files.rlim_max, files.rlim_max };
	setrlimit(RLIMIT_NOFILE, &most);
}

/* Forks; in the child dispositions and mask are the defaults, RLIMIT_NOFILE is
 * as it was at start.  -1 with errno */
static pid_t
child_fork(void)
{
	sigset_t all, old;

	/* Until its handlers are gone, a signal for the child would be ours.
	 * What the relay blocks stays blocked: it would end us. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid_t pid = fork();
	if (pid == 0) {
		for (int i = 31; i > 0; i--)
			signal(i, SIG_DFL);
		if (files.rlim_max)
			setrlimit(RLIMIT_NOFILE, &files);
		sigemptyset(&old);
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
	return pid;
}

/* the script */

int
script_check(const char *path)
{
	if (access(path, X_OK) < 0)
		return -1;
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	close(fd);
	errno = EISDIR;
	return -1;
}

void
terminal_leave(void)
{
	setsid();
	close(STDIN_FILENO);
	fd_inherited();
}

int
script_start(struct script *s, const char *const argv[], char *env)
{
	char *const *av = (char *const *)(uintptr_t)argv;
	pid_t pid;

	if (script_check(av[1]) < 0 || (pid = child_fork()) < 0)
		return -1;
	if (pid == 0) {
		while (*env)
			putenv(strsep(&env, "\n"));
		terminal_leave();
		execv(av[1], av + 1);
		if (errno == ENOEXEC)	/* a script without #! */
			execv(av[0], av);
		_exit(errno == ENOENT ? 127 : 126);
	}
	s->pid = pid;
	s->sig = SIGTERM;
	s->limit = NEVER;
	return 0;
}

void
script_limit(struct script *s, int64_t when)
{
	if (!script_stopped(s))
		s->limit = when;
}

void
script_want(const struct script *s, struct wake *w)
{
	if (s->pid)
		wake_at(w, s->limit);
}

void
script_step(struct script *s, int64_t now)
{
	if (!s->pid || now < s->limit)
		return;
	warn("%s: a newer mapping waits, ending it", s->path);
	kill(-s->pid, s->sig);
	s->sig = SIGKILL;
	s->limit = now + RUN_KILL;
}

int
script_reap(struct script *s)
{
	pid_t pid;
	int status, ended = 0;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == s->pid) {
			s->pid = 0;
			s->status = status;
			ended = 1;
		}
	return ended;
}

/* look-up of names */

/* The child: gives up what a hostile name server's answer could make use of. */
static void
lookup_confine(void)
{
	static struct rlimit none;
#if defined __linux__ && !defined NATMAP_PORTABLE
	unsigned id = 65534;		/* a uid and gid without rights */

	if (geteuid() == 0) {
		setgroups(0, NULL);
		setresgid(id, id, 0);
		setresuid(id, id, 0);
		/* Android: such a uid may open no socket.  So root it is. */
		int fd = socket(AF_INET, SOCK_DGRAM, 0);
		if (fd < 0 || (access("/etc/resolv.conf", R_OK) < 0 &&
		    errno == EACCES))
			id = 0;
		close(fd);
		setresuid(id, id, id);
		setresgid(id, id, id);
	}
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#endif
	setrlimit(RLIMIT_FSIZE, &none);
	setrlimit(RLIMIT_NPROC, &none);
}

/* The child: writes what it got, in one piece.  After a failure its n is a
 * negative EAI_ code. */
static void
lookup_child(struct addrs *got, int fd, const char *host, int port, int family)
{
	static struct addrinfo hints;
	struct addrinfo *list;

	if (dup2(fd, 3) < 0)
		_exit(1);
	/* A session's socket here would keep the connection alive. */
	fd_close_from(4, 0);
	lookup_confine();
	/* glibc waits for a dead first name server as long as we do. */
	setenv("RES_OPTIONS", "timeout:1", 0);
	hints.ai_family = family;
	hints.ai_socktype = SOCK_STREAM;
	got->n = -abs(getaddrinfo(host, NULL, &hints, &list));
	for (struct addrinfo *ai = got->n ? NULL : list;
	    ai && got->n < MAX_ADDRS; ai = ai->ai_next) {
		if (ai->ai_addrlen > sizeof got->a[0])
			continue;
		union addr *a = &got->a[got->n++];
		memcpy(a, ai->ai_addr, ai->ai_addrlen);
		addr_set_port(a, port);
	}
	_exit(write(3, got, sizeof *got) != sizeof *got);
}

int
lookup_start(struct lookup *l, const char *host, int port, int family,
    int64_t deadline)
{
	int p[2];

	lookup_stop(l);
	l->got.n = addr_parse(&l->got.a[0], host, family) + 1;
	l->pid = -l->got.n;
	l->deadline = l->got.n ? 0 : deadline;
	addr_set_port(&l->got.a[0], port);
	if (l->got.n)
		return 0;
	if (pipe(p) < 0)
		return -1;
	fd_setup(p[0]);
	l->fd = p[0];
	l->pid = child_fork();
	if (l->pid == 0)
		lookup_child(&l->got, p[1], host, port, family);
	close(p[1]);
	if (l->pid > 0)
		return 0;
	lookup_stop(l);
	return -1;
}

void
lookup_want(struct lookup *l, struct wake *w)
{
	l->slot = wake_on(w, l->fd, POLLIN);
	if (l->pid)
		wake_at(w, l->deadline);
}

int
lookup_step(struct lookup *l, const struct wake *w, int64_t now)
{
	int answered = woke(w, l->slot);

	if (!l->pid || (!answered && now < l->deadline))
		return 0;
	if (answered) {
		(void)!read(l->fd, &l->got, sizeof l->got);
		l->pid = 0;	/* the child ends by itself */
	}
	lookup_stop(l);
	int n = l->got.n;
	if (n > 0 && n <= MAX_ADDRS)
		return 1;
	l->gai = n < 0 ? n : answered ? EAI_FAIL : EAI_AGAIN;
	return -1;
}

void
lookup_stop(struct lookup *l)
{
	if (l->fd >= 0)
		close(l->fd);
	/* A child that was reaped has left its pid to others. */
	if (l->pid > 0 && waitpid(l->pid, NULL, WNOHANG) == 0)
		kill(l->pid, SIGKILL);
	l->fd = l->slot = -1;
	l->pid = 0;
}
