/* SPDX-License-Identifier: MIT */
/*
 * Tests of timer.c.  poll(), getaddrinfo(), syscall(), kill() and socket() are
 * watched, and answer as the test says where it says so; the clock is the
 * test's wherever time counts.
 */
#define _FILE_OFFSET_BITS 64	/* readdir() of a 32-bit libc */
#include "../natmap.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

static int watched_poll(struct pollfd *, nfds_t, int);
static int watched_getaddrinfo(const char *, const char *,
    const struct addrinfo *, struct addrinfo **);
static long watched_syscall(long, ...);
static int watched_kill(pid_t, int);
static int watched_socket(int, int, int);

#define poll		watched_poll
#define getaddrinfo	watched_getaddrinfo
#define syscall		watched_syscall
#define kill		watched_kill
#define socket		watched_socket
#include "../timer.c"
#undef poll
#undef getaddrinfo
#undef syscall
#undef kill
#undef socket

#include "check.h"

#define LEN(a)		(sizeof(a) / sizeof *(a))
#define FDS_LOOKED_AT	256

static int
open_fds(int from)
{
	int fd, n = 0;

	for (fd = from; fd < FDS_LOOKED_AT; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

/* text */

/* The same as from libc's snprintf, for every size of the buffer; but it
 * returns what was written. */
#define SAME(...) do { \
	char a_[128], b_[128]; \
	size_t n_ = (size_t)snprintf(a_, sizeof a_, __VA_ARGS__), i_; \
	for (i_ = 1; i_ < n_ + 3; i_++) { \
		snprintf(a_, i_, __VA_ARGS__); \
		memset(b_, '#', sizeof b_); \
		CHECK(fmt(b_, i_, __VA_ARGS__) == (int)strlen(a_)); \
		CHECK(strcmp(a_, b_) == 0 && b_[i_] == '#'); \
	} \
} while (0)

static void
fmt_is_snprintf(void)
{
	SAME("%s", "");
	SAME("plain");
	SAME("%s and %s", "one", "two");
	SAME("100%% %s%%", "");
	SAME("%.2s %.9s %.3s", "abc", "abc", "abc");
	SAME("%d %d %d %d", 0, -1, INT_MAX, INT_MIN);
	SAME("%u %x", UINT_MAX, UINT_MAX);
	SAME("%.4x:%.2x%.2x %.1d %.5d| %.5u", 0xab, 1, 0xff, 42, -42, 42U);
	SAME("%.1d %.1x %.3u [%.0d] %.0d", 0, 0, 0U, 0, 7);
}

static void
fmt_of_our_own(void)
{
	const char *volatile none = NULL;
	int64_t zero = 0, large = INT64_C(1234567890123456789);
	union addr a = { .sa.sa_family = AF_UNSPEC };
	char text[64];

	CHECK(fmt(text, sizeof text, "[%pp]", &a) == 2);
	addr_parse(&a, "2001:db8::1", AF_INET6);
	CHECK(fmt(text, sizeof text, "[%pp]", &a) == 2);
	addr_set_port(&a, 65530);
	CHECK(fmt(text, sizeof text, "[%pp]", &a) == 7);
	CHECK(strcmp(text, "[65530]") == 0);
	CHECK(fmt(text, sizeof text, "%pd %pd", &zero, &large) == 21);
	CHECK(strcmp(text, "0 1234567890123456789") == 0);
	CHECK(fmt(text, sizeof text, "[%s]", none) == 2);
}

/* addresses */

static void
addr_tables(void)
{
	static const struct {
		const char *host;
		int family, want;	/* 0: not a number of that family */
		const char *text, *with_port;
	} t[] = {
		{ "192.0.2.1", AF_UNSPEC, AF_INET, "192.0.2.1",
		    "192.0.2.1:80" },
		{ "192.0.2.1", AF_INET, AF_INET, "192.0.2.1",
		    "192.0.2.1:80" },
		{ "::", AF_INET6, AF_INET6, "::", "[::]:80" },
		{ "1::", AF_INET6, AF_INET6, "1::", "[1::]:80" },
		{ "1:0:2:0:3:0:4:0", AF_INET6, AF_INET6, "1:0:2:0:3:0:4:0",
		    "[1:0:2:0:3:0:4:0]:80" },
		{ "1:0:0:2:0:0:0:3", AF_INET6, AF_INET6, "1:0:0:2::3",
		    "[1:0:0:2::3]:80" },
		{ "1:0:0:2:3:0:0:4", AF_INET6, AF_INET6, "1::2:3:0:0:4",
		    "[1::2:3:0:0:4]:80" },
		{ "255.255.255.255", AF_INET, AF_INET, "255.255.255.255",
		    "255.255.255.255:80" },
		{ "192.0.2.1", AF_INET6, 0, NULL, NULL },
		{ "::1", AF_UNSPEC, AF_INET6, "::1", "[::1]:80" },
		{ "2001:DB8::00ff", AF_INET6, AF_INET6, "2001:db8::ff",
		    "[2001:db8::ff]:80" },
		{ "64:ff9b::192.0.2.1", AF_INET6, AF_INET6,
		    "64:ff9b::c000:201", "[64:ff9b::c000:201]:80" },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", AF_INET6,
		    AF_INET6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:80" },
		{ "::1", AF_INET, 0, NULL, NULL },
		{ "", AF_UNSPEC, 0, NULL, NULL },
		{ "localhost", AF_UNSPEC, 0, NULL, NULL },
		{ "192.0.2", AF_UNSPEC, 0, NULL, NULL },
		{ "192.0.2.256", AF_UNSPEC, 0, NULL, NULL },
		{ "192.0.2.1 ", AF_UNSPEC, 0, NULL, NULL },
		{ "192.0.2.1%1", AF_UNSPEC, 0, NULL, NULL },
		{ "[::1]", AF_UNSPEC, 0, NULL, NULL },
		{ "1:2:3:4:5:6:7:8:9", AF_UNSPEC, 0, NULL, NULL },
		{ "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000",
		    AF_UNSPEC, 0, NULL, NULL }
	};
	char text[ADDR_TEXT];
	union addr a;
	size_t i;
	int r;

	for (i = 0; i < LEN(t); i++) {
		r = addr_parse(&a, t[i].host, t[i].family);
		CHECK(r == (t[i].want ? 0 : -1));
		if (r < 0)
			continue;
		CHECK(a.sa.sa_family == t[i].want && addr_port(&a) == 0);
		CHECK(strcmp(addr_host(&a, text), t[i].text) == 0);
		addr_set_port(&a, 80);
		CHECK(strcmp(addr_text(&a, text), t[i].with_port) == 0);
	}
}

static void
addr_scope(void)
{
	char name[IF_NAMESIZE + 16] = "fe80::1%", text[ADDR_TEXT], want[64];
	unsigned index = if_nametoindex("lo");
	union addr a;

	strcat(name, "lo");
	CHECK(addr_parse(&a, name, AF_INET6) == 0);
	CHECK(a.in6.sin6_scope_id == index);
	a.in6.sin6_scope_id = 7;
	addr_set_port(&a, 65535);
	CHECK(strcmp(addr_host(&a, text), "fe80::1%7") == 0);
	CHECK(strcmp(addr_text(&a, text), "[fe80::1%7]:65535") == 0);
	memset(&a.in6.sin6_addr, 0xff, sizeof a.in6.sin6_addr);
	a.in6.sin6_scope_id = UINT32_MAX;
	strcpy(want, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]"
	    ":65535");
	CHECK(strcmp(addr_text(&a, text), want) == 0);
	memset(&a, 0, sizeof a);
	CHECK(strcmp(addr_host(&a, text), "") == 0);
}

static void
addr_kinds(void)
{
	static const struct {
		const char *host;
		enum addr_kind kind;
	} t[] = {
		{ "8.8.8.8", A_PUBLIC }, { "9.255.255.255", A_PUBLIC },
		{ "10.0.0.0", A_PRIVATE }, { "10.255.255.255", A_PRIVATE },
		{ "11.0.0.0", A_PUBLIC }, { "127.0.0.1", A_LOOPBACK },
		{ "172.15.255.255", A_PUBLIC }, { "172.16.0.0", A_PRIVATE },
		{ "172.31.255.255", A_PRIVATE }, { "172.32.0.0", A_PUBLIC },
		{ "192.167.1.1", A_PUBLIC }, { "192.168.1.1", A_PRIVATE },
		{ "192.169.0.0", A_PUBLIC }, { "100.63.255.255", A_PUBLIC },
		{ "100.64.0.0", A_SHARED }, { "100.127.255.255", A_SHARED },
		{ "100.128.0.0", A_PUBLIC }, { "169.254.1.1", A_LINK_LOCAL },
		{ "198.17.255.255", A_PUBLIC }, { "198.18.0.0", A_FAKE },
		{ "198.19.255.255", A_FAKE }, { "198.20.0.0", A_PUBLIC },
		{ "2001:db8::1", A_PUBLIC }, { "::1", A_LOOPBACK },
		{ "fbff::1", A_PUBLIC }, { "fc00::1", A_PRIVATE },
		{ "fdff::1", A_PRIVATE }, { "fe00::1", A_PUBLIC },
		{ "fe80::1", A_NEVER }, { "febf::1", A_NEVER },
		{ "fec0::1", A_PUBLIC }, { "a00::1", A_PUBLIC },
		{ "0.255.255.255", A_NEVER }, { "1.0.0.0", A_PUBLIC },
		{ "126.0.0.1", A_PUBLIC }, { "128.0.0.1", A_PUBLIC },
		{ "223.255.255.255", A_PUBLIC }, { "224.0.0.0", A_NEVER },
		{ "255.255.255.255", A_NEVER }, { "::", A_NEVER },
		{ "::ffff:8.8.8.8", A_NEVER }, { "64:ff9b::1", A_PUBLIC },
		{ "ff02::1", A_NEVER }
	};
	union addr a;
	size_t i;

	for (i = 0; i < sizeof t / sizeof *t; i++) {
		addr_parse(&a, t[i].host, AF_UNSPEC);
		CHECK(addr_kind(&a) == t[i].kind);
	}
}

static void
addr_equality(void)
{
	static const struct {
		const char *a, *b;
		int port, host, same;
	} t[] = {
		{ "192.0.2.1", "192.0.2.1", 80, 1, 1 },
		{ "192.0.2.1", "192.0.2.1", 81, 1, 0 },
		{ "192.0.2.1", "192.0.2.2", 80, 0, 0 },
		{ "2001:db8::1", "2001:db8::1", 80, 1, 1 },
		{ "2001:db8::1", "2001:db8::1", 336, 1, 0 },
		{ "2001:db8::1", "2001:db8::2", 80, 0, 0 },
		{ "192.0.2.1", "::ffff:192.0.2.1", 80, 0, 0 }
	};
	union addr a, b;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		addr_parse(&a, t[i].a, AF_UNSPEC);
		addr_parse(&b, t[i].b, AF_UNSPEC);
		addr_set_port(&a, 80);
		addr_set_port(&b, t[i].port);
		CHECK(addr_port(&b) == t[i].port);
		CHECK(addr_same_host(&a, &b) == t[i].host);
		CHECK(addr_same(&a, &b) == t[i].same);
		CHECK(addr_same(&b, &a) == t[i].same);
		CHECK(addr_len(&a) == (a.sa.sa_family == AF_INET ?
		    sizeof a.in : sizeof a.in6));
	}
	a.in6.sin6_flowinfo = 5;
	a.in6.sin6_port = htons(0x1234);
	CHECK(addr_port(&a) == 0x1234);
}

/* system calls that an old kernel does not have */

static int old_kernel;

static long
watched_syscall(long which, ...)
{
	unsigned long arg[3];
	va_list ap;
	int i;

	if (old_kernel) {
		errno = ENOSYS;
		return -1;
	}
	va_start(ap, which);
	for (i = 0; i < 3; i++)
		arg[i] = va_arg(ap, unsigned long);
	va_end(ap);
	return syscall(which, arg[0], arg[1], arg[2]);
}

/* random numbers */

static void
random_range(void)
{
	static const uint32_t ns[] = { 1, 2, 10, 65536, 0x80000001,
	    UINT32_MAX };
	unsigned hit[10] = { 0 };
	uint32_t x;
	size_t i;
	int j;

	for (i = 0; i < LEN(ns); i++)
		for (j = 0; j < 200; j++)
			CHECK(random_below(ns[i]) < ns[i]);
	for (j = 0; j < 2000; j++)
		hit[random_below(10)]++;
	for (i = 0; i < 10; i++)
		CHECK(hit[i] > 100 && hit[i] < 300);
	for (x = 0, j = 0; j < 64; j++)
		x |= random_below(UINT32_MAX);
	CHECK(x == UINT32_MAX);
}

static void
random_differs(void)
{
	unsigned char a[16] = { 0 }, b[16] = { 0 }, edge[3] = { 1, 2, 3 };
	struct rlimit old, none;

	getrlimit(RLIMIT_NOFILE, &old);
	none = old;
	none.rlim_cur = 0;
	for (old_kernel = 0; old_kernel < 3; old_kernel++) {
		if (old_kernel == 2)	/* /dev/urandom cannot be opened */
			setrlimit(RLIMIT_NOFILE, &none);
		memset(a, 0, sizeof a);
		memset(b, 0, sizeof b);
		random_bytes(a, sizeof a);
		random_bytes(b, sizeof b);
		CHECK(memcmp(a, b, sizeof a) != 0);
	}
	old_kernel = 0;
	setrlimit(RLIMIT_NOFILE, &old);
	random_bytes(edge + 1, 0);
	CHECK(edge[0] == 1 && edge[1] == 2 && edge[2] == 3);
}

/* poll() */

static struct {
	int timeout;		/* of the last call */
	int fails;		/* the next call ends with EINTR */
	int blocks;		/* it may really wait */
} polled;

static int
watched_poll(struct pollfd *p, nfds_t n, int timeout)
{
	polled.timeout = timeout;
	if (polled.fails) {
		polled.fails = 0;
		errno = EINTR;
		return -1;
	}
	return poll(p, n, polled.blocks ? timeout : 0);
}

static void
wake_timeouts(void)
{
	static const struct {
		int64_t now, deadline;
		int timeout;
	} t[] = {
		{ 1000, NEVER, INT_MAX },
		{ 1000, 1000, 0 },
		{ 1000, 999, 0 },
		{ 1000, 0, 0 },
		{ 1000, -5, 0 },
		{ 1000, 1001, 1 },
		{ 1000, 31000, 30000 },
		{ 0, INT_MAX - (int64_t)1, INT_MAX - 1 },
		{ 0, INT_MAX, INT_MAX },
		{ 0, INT_MAX + (int64_t)1, INT_MAX },
		{ 5, INT64_C(4294967301), INT_MAX },
		{ 5, NEVER - 1, INT_MAX }
	};
	struct wake w = { NULL, 0, 0, NEVER };
	int64_t before;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		wake_clear(&w);
		wake_at(&w, NEVER);
		wake_at(&w, t[i].deadline);
		wake_at(&w, NEVER);
		before = now_ms();
		CHECK(wake_wait(&w, t[i].now) >= before);
		CHECK(polled.timeout == t[i].timeout);
	}
	wake_clear(&w);
	wake_at(&w, 7);
	wake_at(&w, 9);
	CHECK(w.deadline == 7);
	free(w.fds);
}

static void
wake_slots(void)
{
	struct wake w = { NULL, 0, 0, NEVER };
	int p[2], i;

	CHECK(pipe(p) == 0 && write(p[1], "x", 1) == 1);
	wake_clear(&w);
	CHECK(wake_on(&w, -1, POLLIN) == -1 && w.n == 0);
	CHECK(woke(&w, -1) == 0);
	for (i = 0; i < 100; i++)
		CHECK(wake_on(&w, p[i % 2], i % 2 ? 0 : POLLIN) == i);
	CHECK(w.n == 100 && w.cap >= 100);
	wake_wait(&w, 0);
	for (i = 0; i < 100; i++)
		CHECK(woke(&w, i) == (i % 2 ? 0 : POLLIN));
	wake_clear(&w);
	for (i = 0; i < 100; i++)
		wake_on(&w, p[0], POLLIN);
	polled.fails = 1;
	wake_wait(&w, 0);
	for (i = 0; i < 100; i++)
		CHECK(woke(&w, i) == 0);
	wake_clear(&w);
	CHECK(w.n == 0 && w.deadline == NEVER && w.cap >= 100);
	CHECK(wake_on(&w, p[0], POLLIN) == 0 && woke(&w, 0) == 0);
	free(w.fds);
	close(p[0]);
	close(p[1]);
}

/* the log */

/* Reads what the log wrote to the pipe into text[size]. */
static void
log_read(int fd, char *text, size_t size)
{
	ssize_t n = read(fd, text, size - 1);

	text[n > 0 ? n : 0] = '\0';
}

static void
log_lines(void)
{
	static char text[4096];
	char line[900];
	const char *rest;
	int p[2];

	CHECK(pipe(p) == 0);
	log_fd = p[1];
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
	log_level = -1;
	warn("not said");
	log_level = 1;
	note("said");
	log_level = 0;
	log_read(p[0], text, sizeof text);
	CHECK(strncmp(text, "natmap: one: No such file or directory\n"
	    "natmap: two 2\nnatmap: xxx", 64) == 0);
	CHECK(!strstr(text, "not said"));
	rest = strstr(text, "x No such file");
	CHECK(rest && strcmp(rest, "x No such file or directory\n"
	    "natmap: said\n") == 0);
	CHECK(strlen(text) > 1200 && strlen(text) < 1500);
	log_fd = STDERR_FILENO;
	close(p[0]);
	close(p[1]);
}

/* The log's reader is stuck: no line may wait for it. */
static void
log_never_blocks(void)
{
	static char text[1 << 20];
	unsigned written = 0;
	char last[64];
	int p[2];

	CHECK(pipe(p) == 0);
	log_fd = p[1];
	while (out.lost == 0 && written < 100000) {
		warn("line %u", written);
		written++;
	}
	CHECK(out.lost == 1);
	warn("lost");
	warn("lost");
	CHECK(out.lost == 3);
	log_read(p[0], text, sizeof text);
	snprintf(last, sizeof last, "line %u\n", written - 2);
	CHECK(strlen(text) > strlen(last) &&
	    strcmp(text + strlen(text) - strlen(last), last) == 0);
	warn("again");
	CHECK(out.lost == 0);
	log_read(p[0], text, sizeof text);
	CHECK(strcmp(text, "natmap: 3 lines of the log were lost\n"
	    "natmap: again\n") == 0);
	log_fd = STDERR_FILENO;
	close(p[0]);
	close(p[1]);
}

/* What is fatal is logged whatever the level, and ends the program. */
static void
log_quits(void)
{
	char text[256];
	int p[2], status = 0;
	pid_t pid;

	CHECK(pipe(p) == 0);
	pid = fork();
	if (pid == 0) {
		log_fd = p[1];
		log_level = -1;
		warn("not said");
		quit(7, "%s: is bad", "x");
	}
	waitpid(pid, &status, 0);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	log_read(p[0], text, sizeof text);
	CHECK(strcmp(text, "natmap: x: is bad\n") == 0);
	close(p[0]);
	close(p[1]);
}

/* idle lists */

#define ENTRIES	24

/* The model: what is in the list, oldest first. */
struct model {
	int n, order[ENTRIES];
	int64_t last[ENTRIES];
};

static void
model_drop(struct model *m, int e)
{
	int i;

	for (i = 0; i < m->n && m->order[i] != e; i++)
		;
	if (i == m->n)
		return;
	m->n--;
	memmove(m->order + i, m->order + i + 1,
	    (size_t)(m->n - i) * sizeof *m->order);
}

static void
model_touch(struct model *m, int e, int64_t now)
{
	model_drop(m, e);
	m->order[m->n++] = e;
	m->last[e] = now;
}

static int
model_same(const struct model *m, const struct idle *head,
    const struct idle *e)
{
	const struct idle *at = head->next, *back = head->prev;
	int i;

	for (i = 0; i < m->n; i++, at = at->next, back = back->prev)
		if (at != e + m->order[i] || at->last != m->last[at - e] ||
		    back != e + m->order[m->n - 1 - i])
			return 0;
	return at == head && back == head;
}

static void
idle_model(void)
{
	struct idle head, e[ENTRIES];
	struct model m = { 0, { 0 }, { 0 } };
	uint32_t x = 20240229;
	int64_t now = 0;
	int i, one;

	memset(e, 0, sizeof e);
	idle_init(&head);
	CHECK(head.next == &head);
	for (i = 0; i < 20000; i++) {
		x = x * 1664525 + 1013904223;
		one = (int)(x >> 8) % ENTRIES;
		now += x >> 30;
		if (x >> 28 < 6) {
			idle_drop(&e[one]);
			model_drop(&m, one);
			CHECK(!e[one].prev && !e[one].next);
		} else if (x >> 28 < 8 && m.n) {
			model_touch(&m, m.order[m.n - 1], now);
			idle_touch(&head, head.prev, now);
		} else {
			idle_touch(&head, &e[one], now);
			model_touch(&m, one, now);
		}
		CHECK(head.next == (m.n ? &e[m.order[0]] : &head));
		CHECK(model_same(&m, &head, e));
	}
	CHECK(m.n > 0);
}

static void
idle_moves_between_lists(void)
{
	struct idle a, b, e;

	memset(&e, 0, sizeof e);
	idle_init(&a);
	idle_init(&b);
	idle_touch(&a, &e, 5);
	idle_touch(&b, &e, 6);
	CHECK(a.next == &a && b.next == &e);
	CHECK(e.last == 6);
	idle_drop(&e);
	idle_drop(&e);
	CHECK(b.next == &b);
}

/* signals and children */

/* The set of signals that came, a bit each; *n how many. */
static unsigned
came(int *n)
{
	unsigned set = 0;
	int sig;

	for (*n = 0; (sig = signals_next()) != 0; ++*n)
		set |= 1U << sig;
	return set;
}

/* The defaults, and no pipe any more. */
static void
signals_close(void)
{
	size_t i;

	signal(SIGPIPE, SIG_DFL);
	for (i = 0; i < sizeof caught; i++)
		signal(caught[i], SIG_DFL);
	close(sigpipe[0]);
	close(sigpipe[1]);
	sigpipe[0] = sigpipe[1] = -1;
}

static int
readable(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };

	return poll(&p, 1, 0) == 1;
}

static void
signals_come(void)
{
	static const int all[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD,
	    SIGUSR1 };
	int fd = signals_open(), n;
	unsigned want = 0;
	sigset_t hup;
	size_t i;

	CHECK(fd >= 0 && signals_next() == 0 && !readable(fd));
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	for (i = 0; i < LEN(all); i++) {
		raise(all[i]);
		CHECK(readable(fd) && signals_next() == all[i]);
		CHECK(signals_next() == 0);
		want |= 1U << all[i];
	}
	for (i = 0; i < LEN(all); i++)
		raise(all[i]);
	CHECK(came(&n) == want && n == (int)LEN(all));
	sigemptyset(&hup);
	sigaddset(&hup, SIGHUP);
	sigprocmask(SIG_BLOCK, &hup, NULL);
	for (i = 0; i < 5; i++)
		raise(SIGHUP);
	raise(SIGUSR1);
	sigprocmask(SIG_UNBLOCK, &hup, NULL);
	CHECK(came(&n) == (1U << SIGHUP | 1U << SIGUSR1) && n == 2);
	signals_close();
}

/* With nobody reading, a handler must neither block nor change errno. */
static void
signals_full_pipe(void)
{
	int fd = signals_open(), i, n, most = 70000;

#ifdef F_SETPIPE_SZ
	if (fcntl(fd, F_SETPIPE_SZ, 4096) == 4096)
		most = 5000;
#endif
	for (i = 0; i < most; i++) {
		errno = ENOTTY;
		raise(SIGUSR1);
		CHECK(errno == ENOTTY);
	}
	CHECK(came(&n) == 1U << SIGUSR1 && n > 1000);
	signals_close();
}

static void
signals_dispositions(void)
{
	struct sigaction sa;
	int p[2];

	CHECK(signals_open() >= 0);
	CHECK(pipe(p) == 0);
	close(p[0]);
	CHECK(write(p[1], "x", 1) == -1 && errno == EPIPE);
	close(p[1]);
	sigaction(SIGTERM, NULL, &sa);
	CHECK(sa.sa_handler == caught_one && sa.sa_flags & SA_RESTART);
	signals_close();
}

/* A parent that had blocked signals must not make us deaf. */
static void
signals_unblock(void)
{
	sigset_t set;
	int n;

	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	signals_open();
	raise(SIGTERM);
	CHECK(came(&n) == 1U << SIGTERM);
	signals_close();
}

static int
ended(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* In the child: a bit for each thing that is not as it must be. */
static int
child_faults(const struct rlimit *at_start)
{
	struct sigaction sa;
	struct rlimit rl;
	sigset_t mask;
	int i, bad = 0;

	sigprocmask(SIG_SETMASK, NULL, &mask);
	for (i = 1; i < 32; i++) {
		if (i != SIGKILL && i != SIGSTOP &&
		    (sigaction(i, NULL, &sa) < 0 || sa.sa_handler != SIG_DFL))
			bad |= i == SIGPIPE ? 2 : 1;
		if (sigismember(&mask, i))
			bad |= 4;
	}
	if (getrlimit(RLIMIT_NOFILE, &rl) < 0 ||
	    rl.rlim_cur != at_start->rlim_cur ||
	    rl.rlim_max != at_start->rlim_max)
		bad |= 8;
	return bad;
}

static void
child_is_clean(void)
{
	struct rlimit old, low, now;
	sigset_t mask, after;
	struct sigaction sa;
	pid_t pid;

	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = old.rlim_max < 300 ? old.rlim_max - 1 : 300;
	CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
	CHECK(files_now() == (int)low.rlim_cur);
	files_raise();
	CHECK(files_now() == (int)(old.rlim_max < INT_MAX ? old.rlim_max :
	    INT_MAX));
	getrlimit(RLIMIT_NOFILE, &now);
	CHECK(now.rlim_cur == old.rlim_max);
	signals_open();
	signal(SIGUSR2, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGALRM);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	pid = child_fork();
	if (pid == 0)
		_exit(child_faults(&low));
	CHECK(pid > 0 && ended(pid) == 0);
	sigprocmask(SIG_SETMASK, NULL, &after);
	CHECK(sigismember(&after, SIGALRM) && !sigismember(&after, SIGTERM));
	sigaction(SIGTERM, NULL, &sa);
	CHECK(sa.sa_handler == caught_one);
	getrlimit(RLIMIT_NOFILE, &now);
	CHECK(now.rlim_cur == old.rlim_max);
	sigprocmask(SIG_UNBLOCK, &mask, NULL);
	signal(SIGUSR2, SIG_DFL);
	signals_close();
	memset(&files, 0, sizeof files);
	setrlimit(RLIMIT_NOFILE, &old);
}

/* A TERM for the child ends the child, and is not heard by us. */
static void
child_takes_its_signals(void)
{
	int fd = signals_open(), n, status;
	pid_t pid = child_fork();

	if (pid == 0) {
		raise(SIGTERM);
		_exit(0);
	}
	status = ended(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	CHECK((came(&n) & ~(1U << SIGCHLD)) == 0 && !readable(fd));
	signals_close();
}

static void
fd_flags(void)
{
	int p[2];

	CHECK(pipe(p) == 0);
	CHECK(fd_setup(p[0]) == 0);
	CHECK(fcntl(p[0], F_GETFL) & O_NONBLOCK);
	CHECK(fcntl(p[0], F_GETFD) & FD_CLOEXEC);
	CHECK(!(fcntl(p[1], F_GETFL) & O_NONBLOCK));
	close(p[0]);
	close(p[1]);
	CHECK(fd_setup(p[0]) == -1 && errno == EBADF);
}

/* In the child: what we inherited is not for the programs that we run. */
static void
inherited_child(void)
{
	static const int fds[] = { 3, 4, 90, 250 };
	struct rlimit low;
	size_t i;

	getrlimit(RLIMIT_NOFILE, &low);
	for (i = 0; i < LEN(fds); i++)
		dup2(STDERR_FILENO, fds[i]);
	low.rlim_cur = 64;	/* the last two are beyond it */
	setrlimit(RLIMIT_NOFILE, &low);
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	files_raise();
	fd_inherited();
	for (i = 0; i < LEN(fds); i++)
		if (!(fcntl(fds[i], F_GETFD) & FD_CLOEXEC))
			_exit(1);
	for (i = 0; i < 3; i++)
		if (fcntl((int)i, F_GETFD) != 0)
			_exit(2);
	if (open_fds(5) != 2)
		_exit(3);
	(void)!chroot("/proc");		/* there is no /dev/null */
	terminal_leave();
	_exit(fcntl(STDIN_FILENO, F_GETFD) != 0);
}

static void
fd_inherited_is_kept(void)
{
	pid_t pid;

	for (old_kernel = 0; old_kernel < 2; old_kernel++) {
		pid = fork();
		if (pid == 0) {
			files_raise();
			fd_close_from(5, 0);
			inherited_child();
		}
		CHECK(ended(pid) == 0);
	}
	old_kernel = 0;
}

/* the pid file */

static char pid_dir[] = "/tmp/natmap-pid.XXXXXX";
static char pid_path[64], victim[64];

/* what this file holds, in text[64] */
static char *
file_text(const char *path, char text[64])
{
	FILE *f = fopen(path, "r");

	text[f ? fread(text, 1, 63, f) : 0] = '\0';
	if (f)
		fclose(f);
	return text;
}

/* how many names there are in pid_dir */
static int
pid_names(void)
{
	DIR *d = opendir(pid_dir);
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

/* Forks a program that has the file locked so, or that writes its pid (-1);
 * returns when it has. */
static pid_t
pid_holder(int type)
{
	struct flock lock = { .l_type = (short)type, .l_whence = SEEK_SET };
	int p[2], r;
	char c;
	pid_t pid;

	CHECK(pipe(p) == 0);
	pid = fork();
	if (pid == 0) {
		r = type < 0 ? pid_write(pid_path) :
		    fcntl(open(pid_path, O_RDWR), F_SETLK, &lock);
		if (r == 0 && write(p[1], "", 1) == 1)
			for (;;)
				pause();
		_exit(1);
	}
	close(p[1]);
	CHECK(read(p[0], &c, 1) == 1);
	close(p[0]);
	return pid;
}

static void
pid_end(pid_t pid)
{
	kill(pid, SIGKILL);
	ended(pid);
}

/* Another program that writes its pid, and ends: pid_write() says so, with
 * that errno. */
static int
pid_other(const char *path, int want, int error)
{
	pid_t pid = fork();

	if (pid == 0) {
		errno = 0;
		signal(SIGXFSZ, SIG_IGN);
		_exit(pid_write(path) == want && (!error || errno == error));
	}
	return ended(pid) == 1 << 8 ? (int)pid : 0;
}

static void
pid_file_is_written(void)
{
	char text[64], want[64];
	struct stat st;

	snprintf(want, sizeof want, "%d\n", pid_other(pid_path, 0, 0));
	CHECK(strcmp(file_text(pid_path, text), want) == 0);
	CHECK(stat(pid_path, &st) == 0 && (st.st_mode & 0777) == 0644);
	/* A link that somebody planted is replaced, not followed. */
	unlink(pid_path);
	close(open(victim, O_CREAT | O_WRONLY, 0600));
	CHECK(symlink(victim, pid_path) == 0);
	CHECK(pid_other(pid_path, 0, 0));
	CHECK(lstat(pid_path, &st) == 0 && S_ISREG(st.st_mode));
	CHECK(!file_text(victim, text)[0] && pid_names() == 2);
}

/* A natmap that runs keeps another from its file; a file that was left, and a
 * reader's lock, keep nobody. */
static void
pid_file_is_locked(void)
{
	char text[64], want[64];
	pid_t pid = pid_holder(-1);

	snprintf(want, sizeof want, "%d\n", (int)pid);
	CHECK(pid_other(pid_path, 1, 0));
	/* A link that leads to a locked file is no such file. */
	CHECK(rename(pid_path, victim) == 0 && symlink(victim, pid_path) == 0);
	CHECK(pid_other(pid_path, 0, 0));
	CHECK(rename(victim, pid_path) == 0);
	close(open(victim, O_CREAT | O_WRONLY, 0600));
	CHECK(strcmp(file_text(pid_path, text), want) == 0);
	pid_end(pid);
	CHECK(strcmp(file_text(pid_path, text), want) == 0);
	CHECK(pid_other(pid_path, 0, 0));
	unlink(pid_path);
	close(open(pid_path, O_CREAT | O_WRONLY, 0644));
	pid = pid_holder(F_RDLCK);
	CHECK(pid_other(pid_path, 0, 0));
	pid_end(pid);
	CHECK(pid_names() == 2);
}

/* Nothing is left of a file that could not be written. */
static void
pid_file_fails(void)
{
	struct rlimit old, none;
	char longer[5000];

	CHECK(pid_other("/nowhere/at/all", -1, ENOENT));
	memset(longer, 'x', sizeof longer);
	longer[sizeof longer - 1] = '\0';
	CHECK(pid_other(longer, -1, ENAMETOOLONG));
	getrlimit(RLIMIT_FSIZE, &old);
	none = old;
	none.rlim_cur = 0;
	setrlimit(RLIMIT_FSIZE, &none);
	CHECK(pid_other(pid_path, -1, EFBIG));
	setrlimit(RLIMIT_FSIZE, &old);
	CHECK(pid_names() == 2);
	unlink(pid_path);
	unlink(victim);
	CHECK(rmdir(pid_dir) == 0);
}

/* the script */

#define NOBODY	99		/* a run that is none */

static int killed;		/* the last signal to NOBODY's group */
static int any_killed;		/* a signal was sent */

static int
watched_kill(pid_t pid, int sig)
{
	any_killed = 1;
	if (pid != -NOBODY)
		return kill(pid, sig);
	killed = sig;
	return 0;
}

/* The signal that a step at that time sends to the run; 0 none. */
static int
script_signal(struct script *s, int64_t now)
{
	struct wake w = { NULL, 0, 0, NEVER };

	killed = 0;
	script_want(s, &w);
	script_step(s, now);
	CHECK((killed != 0) == (now >= w.deadline));
	return killed;
}

static void
script_limits(void)
{
	struct script s = { "x", NOBODY, 0, SIGTERM, NEVER };

	log_level = -1;
	CHECK(script_signal(&s, NEVER - 1) == 0);
	script_limit(&s, 1000);
	CHECK(script_signal(&s, 999) == 0);
	CHECK(script_signal(&s, 1000) == SIGTERM);
	CHECK(script_signal(&s, 1000 + RUN_KILL - 1) == 0);
	CHECK(script_signal(&s, 1000 + RUN_KILL) == SIGKILL);
	s.sig = SIGTERM;		/* another run */
	s.limit = NEVER;
	script_limit(&s, 90000);
	script_limit(&s, NEVER);	/* nobody waits any more */
	CHECK(script_signal(&s, NEVER - 1) == 0);
	script_limit(&s, 90000);
	CHECK(script_signal(&s, 89999) == 0);
	CHECK(!script_stopped(&s));
	CHECK(script_signal(&s, 90000) == SIGTERM);
	script_limit(&s, NEVER);	/* too late */
	CHECK(script_stopped(&s));
	CHECK(script_signal(&s, 90000 + RUN_KILL) == SIGKILL);
	s.pid = 0;			/* it has ended */
	CHECK(script_signal(&s, 2000) == 0);
	log_level = 0;
}

static char script_path[] = "/tmp/natmap-script.XXXXXX";

/* Makes a script of that text. */
static void
script_write(const char *text, unsigned mode)
{
	int fd = open(script_path, O_WRONLY | O_TRUNC);

	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	CHECK(fchmod(fd, mode) == 0);
	close(fd);
}

/* Waits for the end of the run, which has all the time it wants. */
static void
script_wait(struct script *s)
{
	siginfo_t info;

	while (s->pid) {
		waitid(P_ALL, 0, &info, WEXITED | WNOWAIT);
		CHECK(script_reap(s) == !s->pid);
	}
}

/* Runs it as the script of two arguments; what it says on stdout and what
 * natmap logs go to text. */
static int
script_says(struct script *s, char *text, size_t size)
{
	const char *argv[] = { "/bin/sh", script_path, "a b", "", NULL };
	char env[] = "ONE=1 2\nTWO=\n";
	int p[2], saved = dup(STDOUT_FILENO), r, error;

	fflush(stdout);
	CHECK(pipe(p) == 0);
	log_fd = p[1];
	dup2(p[1], STDOUT_FILENO);
	s->path = script_path;
	r = script_start(s, argv, env);
	error = errno;
	dup2(saved, STDOUT_FILENO);
	script_wait(s);
	log_fd = STDERR_FILENO;
	close(p[1]);
	log_read(p[0], text, size);
	close(p[0]);
	close(saved);
	errno = error;
	return r;
}

static void
script_runs(void)
{
	static const struct {
		const char *text, *want;
		int status;
	} t[] = {
		{ "echo $# \"[$1][$2] $ONE,${TWO-unset}\"",
		    "2 [a b][] 1 2,\n", 0 },
		{ "#!/bin/sh\necho $0", "%s\n", 0 },
		/* a session of its own, no terminal, nothing to read */
		{ "read line; echo $?; cut -d ' ' -f 1,6 /proc/$$/stat |\n"
		    "sed \"s/$$/us/g\"", "1\nus us\n", 0 },
		{ "#!/bin/sh\nexit 3", "", 3 << 8 },
		{ "#!/bin/sh\nkill -9 $$", "", 9 },
		{ "#!/nowhere/sh", "", 127 << 8 },
		{ "#!/bin/sh\r\n", "", 127 << 8 },
		{ "#!/\n", "", 126 << 8 }
	};
	struct script s;
	char text[256], want[256];
	size_t i;

	close(mkstemp(script_path));
	memset(&s, 0, sizeof s);
	for (i = 0; i < LEN(t); i++) {
		/* valgrind's child dies where exec fails */
		if (t[i].status >> 8 >= 126 && getenv("NATMAP_VALGRIND"))
			continue;
		script_write(t[i].text, 0700);
		CHECK(script_says(&s, text, sizeof text) == 0);
		snprintf(want, sizeof want, t[i].want, script_path);
		CHECK(strcmp(text, want) == 0);
		CHECK(s.pid == 0 && s.status == t[i].status);
	}
	CHECK(!getenv("ONE"));
	script_write("", 0600);
	CHECK(script_says(&s, text, sizeof text) == -1 && errno == EACCES);
	unlink(script_path);
	mkdir(script_path, 0755);
	CHECK(script_says(&s, text, sizeof text) == -1 && errno == EISDIR);
	rmdir(script_path);
	CHECK(script_says(&s, text, sizeof text) == -1 && errno == ENOENT);
	CHECK(s.pid == 0 && !text[0]);
}

/* Other children are reaped beside the run, and leave it alone. */
static void
script_reaps_others(void)
{
	struct script s = { "x", 0, 5, 0, NEVER };
	pid_t pid = fork();
	siginfo_t info;

	if (pid == 0)
		_exit(3);
	waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
	CHECK(script_reap(&s) == 0 && s.status == 5);
	CHECK(waitpid(pid, NULL, 0) < 0 && errno == ECHILD);
}

/* look-ups */

static struct {
	enum { REAL, HANGS, FAILS, MANY, COUNTS_FDS, ODD, OPTIONS,
	    TELLS_RIGHTS } as;
	int no_socket;		/* for a uid without rights */
	int code;
	const char *options;	/* for OPTIONS: there must be these */
} resolver;

/* n answers 192.0.2.1 ..; ODD puts one of a strange length between. */
static int
answers(int n, struct addrinfo **list)
{
	static struct sockaddr_in in[20];
	static struct addrinfo ai[20];
	int i;

	for (i = 0; i < n; i++) {
		in[i].sin_family = AF_INET;
		in[i].sin_addr.s_addr = htonl(0xc0000201 + (uint32_t)i);
		ai[i].ai_addr = (struct sockaddr *)&in[i];
		ai[i].ai_addrlen = resolver.as == ODD && i == 1 ?
		    sizeof(struct sockaddr_storage) : sizeof in[i];
		ai[i].ai_next = i + 1 < n ? &ai[i + 1] : NULL;
	}
	*list = ai;
	return 0;
}

static int
watched_socket(int family, int type, int protocol)
{
	if (resolver.no_socket && geteuid() != 0) {
		errno = EACCES;
		return -1;
	}
	return socket(family, type, protocol);
}

/* In the child: 1, and a bit for each right that it still has. */
static int
rights(void)
{
	char path[] = "/tmp/natmap-rights.XXXXXX";
	struct rlimit files_size, processes;
	gid_t groups[8];
	int fd, bits = 1;

	if (getuid() == 0 || geteuid() == 0 || setuid(0) == 0 ||
	    setresuid(0, 0, 0) == 0)
		bits |= 2;
	if (getgid() == 0 || getegid() == 0 || setgid(0) == 0 ||
	    getgroups(8, groups) != 0)
		bits |= 4;
#if defined __linux__ && !defined NATMAP_PORTABLE
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		bits |= 8;
#endif
	getrlimit(RLIMIT_FSIZE, &files_size);
	getrlimit(RLIMIT_NPROC, &processes);
	if (files_size.rlim_max != 0 || processes.rlim_max != 0)
		bits |= 16;
	signal(SIGXFSZ, SIG_IGN);
	fd = mkstemp(path);
	if (fd >= 0 && write(fd, "x", 1) >= 0)
		bits |= 32;
	unlink(path);
	return bits;
}

/* In the child. */
static int
watched_getaddrinfo(const char *host, const char *service,
    const struct addrinfo *hints, struct addrinfo **list)
{
	switch (resolver.as) {
	case HANGS:
		for (;;)
			pause();
	case FAILS:
		return resolver.code;
	case MANY:
		return answers(20, list);
	case ODD:
		return answers(3, list);
	case COUNTS_FDS:
		return answers(1 + open_fds(4), list);
	case TELLS_RIGHTS:
		return answers(rights() == 1 ? 1 : rights() == 7 ? 2 : 3,
		    list);
	case OPTIONS:
		return getenv("RES_OPTIONS") && !strcmp(resolver.options,
		    getenv("RES_OPTIONS")) ? answers(1, list) : EAI_FAIL;
	default:
		return getaddrinfo(host, service, hints, list);
	}
}

static void
lookup_init(struct lookup *l)
{
	memset(l, 0, sizeof *l);
	l->fd = l->slot = -1;
}

/* Waits for the child's answer, which has all the time it wants. */
static int
looked_up(struct lookup *l)
{
	struct wake w = { NULL, 0, 0, NEVER };
	int64_t now = now_ms();
	pid_t pid = l->pid;
	int r;

	polled.blocks = 1;
	do {
		wake_clear(&w);
		lookup_want(l, &w);
		now = wake_wait(&w, now);
		r = lookup_step(l, &w, now);
	} while (r == 0 && l->pid);
	polled.blocks = 0;
	free(w.fds);
	if (pid > 0)
		CHECK(ended(pid) == 0);
	return r;
}

static void
lookup_numeric(void)
{
	struct wake w = { NULL, 0, 0, NEVER };
	struct lookup l;

	lookup_init(&l);
	CHECK(lookup_step(&l, &w, 0) == 0 && !l.pid);
	CHECK(lookup_start(&l, "192.0.2.9", 3478, AF_INET, 5000) == 0);
	CHECK(l.pid == -1 && l.fd == -1);
	wake_clear(&w);
	lookup_want(&l, &w);
	CHECK(w.n == 0 && w.deadline == 0);
	CHECK(lookup_step(&l, &w, 1) == 1 && !l.pid);
	CHECK(l.got.n == 1 && l.got.a[0].sa.sa_family == AF_INET);
	CHECK(addr_port(&l.got.a[0]) == 3478);
	wake_clear(&w);
	lookup_want(&l, &w);
	CHECK(w.deadline == NEVER && lookup_step(&l, &w, 9999) == 0);
	CHECK(lookup_start(&l, "2001:db8::9", 80, AF_UNSPEC, 5000) == 0);
	CHECK(lookup_step(&l, &w, 1) == 1);
	CHECK(l.got.a[0].sa.sa_family == AF_INET6);
	CHECK(addr_port(&l.got.a[0]) == 80);
	free(w.fds);
}

static void
lookup_localhost(void)
{
	struct lookup l;

	if (!gethostbyname("localhost"))	/* a bare build root */
		return;
	lookup_init(&l);
	CHECK(lookup_start(&l, "localhost", 99, AF_INET, NEVER) == 0);
	CHECK(l.fd >= 0 && l.pid > 0);
	CHECK(looked_up(&l) == 1 && l.got.n >= 1 && !l.pid && l.fd == -1);
	CHECK(l.got.a[0].sa.sa_family == AF_INET);
	CHECK(l.got.a[0].in.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
	CHECK(addr_port(&l.got.a[0]) == 99);
}

/* An empty label needs no server to be told that it cannot exist. */
static void
lookup_no_such_name(void)
{
	static const int codes[] = { EAI_NONAME, EAI_AGAIN, EAI_FAIL };
	struct lookup l;
	size_t i;

	lookup_init(&l);
	CHECK(lookup_start(&l, "no..name", 1, AF_INET, NEVER) == 0);
	CHECK(looked_up(&l) == -1 && l.gai != 0 && !l.pid && l.fd == -1);
	resolver.as = FAILS;
	for (i = 0; i < LEN(codes); i++) {
		resolver.code = codes[i];
		lookup_start(&l, "x.test", 1, AF_INET, NEVER);
		CHECK(looked_up(&l) == -1 && l.gai == codes[i]);
	}
	resolver.as = REAL;
}

static void
lookup_answers(void)
{
	struct lookup l;
	char text[ADDR_TEXT];

	lookup_init(&l);
	resolver.as = MANY;
	lookup_start(&l, "x.test", 7, AF_INET, NEVER);
	CHECK(looked_up(&l) == 1 && l.got.n == MAX_ADDRS);
	CHECK(strcmp(addr_text(&l.got.a[0], text), "192.0.2.1:7") == 0);
	CHECK(strcmp(addr_text(&l.got.a[MAX_ADDRS - 1], text),
	    "192.0.2.8:7") == 0);
	resolver.as = ODD;
	lookup_start(&l, "x.test", 7, AF_INET, NEVER);
	CHECK(looked_up(&l) == 1 && l.got.n == 2);
	CHECK(strcmp(addr_text(&l.got.a[1], text), "192.0.2.3:7") == 0);
	resolver.as = REAL;
}

/* A session's socket must not live on in the resolver. */
static void
lookup_child_holds_nothing(void)
{
	struct lookup l;
	int p[2];

	lookup_init(&l);
	CHECK(pipe(p) == 0);
	resolver.as = COUNTS_FDS;
	lookup_start(&l, "x.test", 7, AF_INET, NEVER);
	CHECK(looked_up(&l) == 1 && l.got.n == 1);
	resolver.as = REAL;
	close(p[0]);
	close(p[1]);
}

/* Nor on a kernel without close_range(), where the child's limit is lower than
 * the descriptors that it got from us. */
static void
lookup_child_closes_high_fds(void)
{
	struct rlimit old, low;
	struct lookup l;
	int fd;

	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = 64;
	CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
	files_raise();
	fd = fcntl(STDOUT_FILENO, F_DUPFD, FDS_LOOKED_AT - 10);
	CHECK(fd >= FDS_LOOKED_AT - 10 && fd < FDS_LOOKED_AT);
	lookup_init(&l);
	resolver.as = COUNTS_FDS;
	for (old_kernel = 0; old_kernel < 2; old_kernel++) {
		lookup_start(&l, "x.test", 7, AF_INET, NEVER);
		CHECK(looked_up(&l) == 1 && l.got.n == 1);
	}
	old_kernel = 0;
	resolver.as = REAL;
	close(fd);
	memset(&files, 0, sizeof files);
	setrlimit(RLIMIT_NOFILE, &old);
}

/* A dead first name server must leave time for the second; what the user says
 * counts more. */
static void
lookup_child_is_in_a_hurry(void)
{
	struct lookup l;

	lookup_init(&l);
	resolver.as = OPTIONS;
	resolver.options = "timeout:1";
	lookup_start(&l, "x.test", 7, AF_INET, NEVER);
	CHECK(looked_up(&l) == 1);
	CHECK(!getenv("RES_OPTIONS"));
	setenv("RES_OPTIONS", "timeout:9", 1);
	resolver.options = "timeout:9";
	lookup_start(&l, "x.test", 7, AF_INET, NEVER);
	CHECK(looked_up(&l) == 1);
	unsetenv("RES_OPTIONS");
	resolver.as = REAL;
}

/* What reads a hostile name server's answers has no rights; only where it then
 * may open no socket does it keep root's. */
static void
lookup_child_has_no_rights(void)
{
	struct lookup l;
	int root = 0;

#ifndef NATMAP_PORTABLE
	pid_t pid = fork();

	if (pid == 0)
		_exit(geteuid() == 0 && setuid(65534) == 0);
	root = ended(pid) != 0;
#endif
	lookup_init(&l);
	resolver.as = TELLS_RIGHTS;
	lookup_start(&l, "x.test", 7, AF_INET, NEVER);
	CHECK(looked_up(&l) == 1 && (l.got.n == 1 || !root));
	resolver.no_socket = 1;
	lookup_start(&l, "x.test", 7, AF_INET, NEVER);
	CHECK(looked_up(&l) == 1 && (l.got.n == 2 || !root));
	resolver.no_socket = 0;
	resolver.as = REAL;
}

/* A child that was taken over cannot make us read beyond the addresses. */
static void
lookup_counts(void)
{
	static const struct { int n, want, gai; } t[] = {
		{ MAX_ADDRS, 1, 0 }, { MAX_ADDRS + 1, -1, EAI_FAIL },
		{ INT_MAX, -1, EAI_FAIL }, { 0, -1, EAI_FAIL },
		{ EAI_AGAIN, -1, EAI_AGAIN }, { INT_MIN, -1, INT_MIN }
	};
	struct pollfd fds = { -1, POLLIN, POLLIN };
	struct wake w = { &fds, 1, 1, NEVER };
	struct lookup l;
	struct addrs got;
	int p[2], r;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		lookup_init(&l);
		memset(&got, 0, sizeof got);
		got.n = t[i].n;
		CHECK(pipe(p) == 0);
		CHECK(write(p[1], &got, sizeof got) == sizeof got);
		close(p[1]);
		l.fd = p[0];
		l.slot = 0;
		l.pid = -1;
		l.deadline = NEVER;
		r = lookup_step(&l, &w, 0);
		CHECK(r == t[i].want && !l.pid && l.fd == -1);
		CHECK(r == 1 || l.gai == t[i].gai);
	}
}

/* The pid of a child that ended, and was reaped, may be another program's. */
static void
lookup_leaves_reaped_pid(void)
{
	struct lookup l;
	struct script s = { "x", 0, 0, 0, NEVER };
	siginfo_t info;

	lookup_init(&l);
	resolver.as = MANY;
	lookup_start(&l, "x.test", 1, AF_INET, NEVER);
	CHECK(l.pid > 0);
	waitid(P_PID, (id_t)l.pid, &info, WEXITED | WNOWAIT);
	script_reap(&s);
	any_killed = 0;
	lookup_stop(&l);
	CHECK(!any_killed);
	resolver.as = REAL;
}

static void
lookup_deadline(void)
{
	struct wake w = { NULL, 0, 0, NEVER };
	struct lookup l;
	int status;
	pid_t pid;

	lookup_init(&l);
	resolver.as = HANGS;
	CHECK(lookup_start(&l, "x.test", 1, AF_INET, 5000) == 0);
	pid = l.pid;
	wake_clear(&w);
	lookup_want(&l, &w);
	CHECK(w.n == 1 && w.deadline == 5000);
	wake_wait(&w, 0);
	CHECK(lookup_step(&l, &w, 4999) == 0 && l.pid);
	errno = 0;
	CHECK(lookup_step(&l, &w, 5000) == -1);
	CHECK(l.gai == EAI_AGAIN && l.fd == -1 &&
	    l.pid == 0);
	status = ended(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	resolver.as = REAL;
	free(w.fds);
}

/* Stopping, twice, and starting over kill the child that is under way. */
static void
lookup_stops(void)
{
	struct lookup l;
	pid_t first, second;
	int status;

	lookup_init(&l);
	lookup_stop(&l);
	resolver.as = HANGS;
	lookup_start(&l, "x.test", 1, AF_INET, NEVER);
	first = l.pid;
	lookup_start(&l, "y.test", 1, AF_INET, NEVER);
	second = l.pid;
	status = ended(first);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	lookup_stop(&l);
	CHECK(!l.pid && l.fd == -1);
	lookup_stop(&l);
	status = ended(second);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	resolver.as = REAL;
}

int
main(int argc, char **argv)
{
	int before = open_fds(0), failed;

	check_args(argc, argv);
	RUN(fmt_is_snprintf);
	RUN(fmt_of_our_own);
	RUN(addr_tables);
	RUN(addr_scope);
	RUN(addr_kinds);
	RUN(addr_equality);
	RUN(random_range);
	RUN(random_differs);
	RUN(wake_timeouts);
	RUN(wake_slots);
	RUN(log_lines);
	RUN(log_never_blocks);
	RUN(log_quits);
	RUN(idle_model);
	RUN(idle_moves_between_lists);
	RUN(signals_come);
	RUN(signals_full_pipe);
	RUN(signals_dispositions);
	RUN(signals_unblock);
	RUN(child_is_clean);
	RUN(child_takes_its_signals);
	RUN(fd_flags);
	RUN(fd_inherited_is_kept);
	CHECK(mkdtemp(pid_dir) != NULL);
	snprintf(pid_path, sizeof pid_path, "%s/pid", pid_dir);
	snprintf(victim, sizeof victim, "%s/victim", pid_dir);
	RUN(pid_file_is_written);
	RUN(pid_file_is_locked);
	RUN(pid_file_fails);
	RUN(script_limits);
	RUN(script_runs);
	RUN(script_reaps_others);
	RUN(lookup_numeric);
	RUN(lookup_localhost);
	RUN(lookup_no_such_name);
	RUN(lookup_answers);
	RUN(lookup_child_holds_nothing);
	RUN(lookup_child_closes_high_fds);
	RUN(lookup_child_is_in_a_hurry);
	RUN(lookup_child_has_no_rights);
	RUN(lookup_counts);
	RUN(lookup_leaves_reaped_pid);
	RUN(lookup_deadline);
	RUN(lookup_stops);
	failed = check_done();
	if (open_fds(0) != before) {
		printf("not ok descriptor leak\n");
		failed = 1;
	}
	return failed;
}
