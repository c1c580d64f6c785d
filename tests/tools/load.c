/* SPDX-License-Identifier: MIT */
/*
 * Load for a relay, to measure it.  This program is both ends at once: the
 * clients, which connect to the relay's port, and the target, to which the
 * relay connects; with the same port for both there is no relay between.
 * A session's two ends are mostly in one process, so that a round trip costs
 * the machine the relay's work and four system calls, and nothing else.
 * It prints lines "name value".  tests/tools/bench.sh runs it.
 */
#define _GNU_SOURCE		/* sched_setaffinity, CLOCK_MONOTONIC */

#include <sys/types.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define US		1000LL			/* in ns */
#define MS		(1000 * US)
#define SECOND		(1000 * MS)
#define START_TIME      (5 * SECOND)    /* until the relay must be there */
#define ANSWER_TIME     5               /* s: of anything that is waited for */
#define WARM_UP         (300 * MS)      /* before bytes and packets count */
#define COLD_TIME	(1200 * MS)	/* idle for so long is cold */
#define HOT_PACE	(1 * MS)	/* hot session, while others are cold */
#define COLD_PACE	(4 * MS)	/* between the samples of cold ones */
#define COLD_SAMPLES	300
#define SLOW_PACE	(10 * MS)	/* "a round trip every 10 ms" */
#define WRITE_PAUSE	(250 * US)	/* between two writes (Nagle) */
#define DISCARD		(1 << 20)	/* bytes of bulk in one call */
#define PAYLOAD		64		/* bytes of a datagram */
#define AT_ONCE		256		/* connections, at most */

struct session {
	int c, t;		/* the client's end, the target's end */
};

static int port, target;	/* of the relay, of our listener */
static pid_t relay;		/* 0: none, its figures are left out */
static pid_t child;		/* ours; 0: none */
static char buf[128 * 1024];

static void
die(const char *what)
{
	perror(what);
	if (child > 0)
		kill(child, SIGKILL);
	_exit(1);
}

static int64_t
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SECOND + ts.tv_nsec;
}

static void
pause_for(int64_t ns)
{
	struct timespec ts;

	ts.tv_sec = (time_t)(ns / SECOND);
	ts.tv_nsec = (long)(ns % SECOND);
	nanosleep(&ts, NULL);
}

static void
show(const char *name, double value)
{
	printf("%s %.9g\n", name, value);
	fflush(stdout);
}

/* Figures of the relay: one of a process, and the sum over its tree. */

static double
file_field(const char *path, const char *key)
{
	char line[256];
	double value = 0;
	size_t n = strlen(key);
	FILE *f = fopen(path, "r");

	if (!f)
		return 0;
	while (fgets(line, sizeof line, f))
		if (!strncmp(line, key, n)) {
			value = strtod(line + n, NULL);
			break;
		}
	fclose(f);
	return value;
}

/* the sum of a field over the threads of a process */
static double
threads_field(pid_t pid, const char *file, const char *key)
{
	char path[512];
	double sum = 0;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		snprintf(path, sizeof path, "/proc/%d/task/%s/%s",
		    (int)pid, e->d_name, file);
		sum += file_field(path, key);
	}
	if (d)
		closedir(d);
	return sum;
}

static double
cpu_of(pid_t pid)		/* s */
{
	return threads_field(pid, "schedstat", "") / (double)SECOND;
}

static double
switches_of(pid_t pid)		/* times that it went to sleep */
{
	return threads_field(pid, "status", "voluntary_ctxt_switches:");
}

static double
private_of(pid_t pid)		/* bytes */
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
	return file_field(path, "Private_Dirty:") * 1024;
}

static double
files_of(pid_t pid)
{
	char path[64];
	double n = 0;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
	d = opendir(path);
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static double
tree(pid_t pid, double (*of)(pid_t))
{
	char path[64];
	double sum;
	int next;
	FILE *f;

	if (pid == 0)
		return 0;
	sum = of(pid);
	snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid,
	    (int)pid);
	f = fopen(path, "r");
	while (f && fscanf(f, "%d", &next) == 1)
		sum += tree(next, of);
	if (f)
		fclose(f);
	return sum;
}

static double
pin(pid_t pid)
{
	static cpu_set_t one;
	cpu_set_t all;
	size_t cpu = 0;

	if (CPU_COUNT(&one) == 0 &&
	    sched_getaffinity(0, sizeof all, &all) == 0) {
		while (!CPU_ISSET(cpu, &all))
			cpu++;
		CPU_SET(cpu, &one);
	}
	sched_setaffinity(pid, sizeof one, &one);
	return 0;
}

/*
 * Puts the relay and both ends on one processor, which many routers have: else
 * the costs of waking each other on another one, and the scheduler's whim who
 * shares one with whom, are most of what is measured, and double or halve it
 * from run to run.
 */
static void
share_processor(void)
{
	pin(0);
	tree(relay, pin);
}

/* Sockets. */

static struct sockaddr_in
loopback(int p)
{
	struct sockaddr_in a;

	memset(&a, 0, sizeof a);
	a.sin_family = AF_INET;
	a.sin_port = htons((uint16_t)p);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

static void
option(int fd, int level, int name, int value)
{
	setsockopt(fd, level, name, &value, sizeof value);
}

static void
limit_wait(int fd, int64_t ns)
{
	struct timeval tv;

	tv.tv_sec = (time_t)(ns / SECOND);
	tv.tv_usec = (suseconds_t)(ns % SECOND / US);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
}

static int
target_socket(int type)
{
	struct sockaddr_in a = loopback(target);
	int fd = socket(AF_INET, type, 0);

	option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	limit_wait(fd, ANSWER_TIME * SECOND);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) == -1)
		die("bind");
	if (type == SOCK_STREAM && listen(fd, 4096) == -1)
		die("listen");
	return fd;
}

/* connects to the relay, which may be about to start */
static int
client_socket(int type)
{
	static int64_t until;
	struct sockaddr_in a = loopback(port);
	int fd;

	if (until == 0)
		until = now() + START_TIME;
	for (;;) {
		fd = socket(AF_INET, type, 0);
		if (fd == -1)
			die("socket");
		limit_wait(fd, ANSWER_TIME * SECOND);
		if (type == SOCK_STREAM)
			option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
		if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
			return fd;
		if (errno != ECONNREFUSED || now() > until)
			die("connect");
		close(fd);
		pause_for(20 * MS);
	}
}

static void
pass(int from, int to)
{
	if (write(from, "x", 1) != 1)
		die("write");
	if (read(to, buf, 1) != 1)
		die("read");
}

static int64_t
round_trip(const struct session *s)
{
	int64_t start = now();

	pass(s->c, s->t);
	pass(s->t, s->c);
	return now() - start;
}

/* The target's end of the session that begins with these bytes.  Clients of
 * an earlier test, whom the relay serves late, are turned away. */
static int
target_end(int lfd, const char *begin, size_t n)
{
	char got[32];
	int fd;

	for (;;) {
		fd = accept(lfd, NULL, NULL);
		if (fd == -1)
			die("accept");
		limit_wait(fd, ANSWER_TIME * SECOND);
		option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
		if (recv(fd, got, n, MSG_WAITALL) == (ssize_t)n &&
		    !memcmp(got, begin, n))
			return fd;
		close(fd);
	}
}

/* a session that has carried something each way */
static struct session
session(int lfd)
{
	static int count;
	struct session s;
	char text[32];
	int n;

	n = snprintf(text, sizeof text, "%d.%d", (int)getpid(), ++count);
	s.c = client_socket(SOCK_STREAM);
	if (write(s.c, text, (size_t)n) != n)
		die("write");
	s.t = target_end(lfd, text, (size_t)n);
	pass(s.t, s.c);
	return s;
}

static void
nonblock(int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* forks; the child must not outlive what it serves */
static int
start_child(void)
{
	child = fork();
	if (child == -1)
		die("fork");
	if (child == 0)
		alarm(120);
	return child == 0;
}

static void
stop_child(void)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	child = 0;
}

/* Percentiles. */

static int
compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void
show_times(const char *name, int level, int64_t *times, int n)
{
	char text[64];
	double sum = 0;
	int i;

	qsort(times, (size_t)n, sizeof *times, compare);
	for (i = 0; i < n; i++)
		sum += (double)times[i];
	snprintf(text, sizeof text, "%s_p50_%d", name, level);
	show(text, (double)times[n / 2] / US);
	snprintf(text, sizeof text, "%s_p99_%d", name, level);
	show(text, (double)times[n * 99 / 100] / US);
	snprintf(text, sizeof text, "%s_mean_%d", name, level);
	show(text, sum / n / US);
}

/*
 * Bulk: the child fills the clients' ends, we empty the target's.  What comes
 * is discarded in the kernel, so that the relay is what is measured (tcp(7)).
 */

static struct pollfd *
poll_all(const struct session *s, int n, int events)
{
	struct pollfd *p = calloc((size_t)n, sizeof *p);
	int i;

	for (i = 0; i < n; i++) {
		p[i].fd = events == POLLIN ? s[i].t : s[i].c;
		p[i].events = (short)events;
		nonblock(p[i].fd);
	}
	return p;
}

static void
fill(struct pollfd *p, int n)
{
	int i;

	for (;;) {
		poll(p, (nfds_t)n, -1);
		for (i = 0; i < n; i++)
			if (p[i].revents && write(p[i].fd, buf, sizeof buf)
			    == -1 && errno != EAGAIN)
				die("write");
	}
}

/* returns the bytes that came until then */
static double
empty(struct pollfd *p, int n, int64_t until)
{
	double sum = 0;
	ssize_t got;
	int i;

	while (now() < until) {
		if (poll(p, (nfds_t)n, ANSWER_TIME * 1000) < 1)
			die("poll");
		for (i = 0; i < n; i++) {
			if (!p[i].revents)
				continue;
			got = recv(p[i].fd, NULL, DISCARD, MSG_TRUNC);
			if (got == 0 || (got == -1 && errno != EAGAIN))
				die("read");
			if (got > 0)
				sum += (double)got;
		}
	}
	return sum;
}

static void
bulk(int n, int64_t length)
{
	struct session *s = calloc((size_t)n, sizeof *s);
	struct pollfd *p;
	double gib, cpu;
	int64_t start;
	int i, lfd = target_socket(SOCK_STREAM);
	char name[32];

	share_processor();
	for (i = 0; i < n; i++)
		s[i] = session(lfd);
	if (start_child())
		fill(poll_all(s, n, POLLOUT), n);
	p = poll_all(s, n, POLLIN);
	empty(p, n, now() + WARM_UP);
	cpu = tree(relay, cpu_of);
	start = now();
	gib = empty(p, n, start + length) / (1 << 30);
	snprintf(name, sizeof name, "bulk_%d", n);
	show(name, gib * SECOND / (double)(now() - start));
	snprintf(name, sizeof name, "bulk_cpu_%d", n);
	if (relay)
		show(name, (tree(relay, cpu_of) - cpu) / gib);
	stop_child();
}

/* Connections: connect, one byte each way, the end carried through. */

/* the target's part; 1 when the session is over */
static int
serve(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT);

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n == 1)
		send(fd, &c, 1, MSG_NOSIGNAL);
	close(fd);
	return 1;
}

static void
serve_all(int lfd)
{
	struct pollfd p[1 + AT_ONCE];
	int fd, i, n = 1;

	nonblock(lfd);
	p[0].fd = lfd;
	for (;;) {
		p[0].events = n <= AT_ONCE ? POLLIN : 0;
		poll(p, (nfds_t)n, -1);
		for (i = n - 1; i > 0; i--)
			if (p[i].revents && serve(p[i].fd))
				p[i] = p[--n];
		while (n <= AT_ONCE && (fd = accept(lfd, NULL, NULL)) != -1)
			if (!serve(fd)) {
				p[n].fd = fd;
				p[n].revents = 0;
				p[n++].events = POLLIN;
			}
	}
}

static int
ask(void)
{
	int fd = client_socket(SOCK_STREAM);

	if (write(fd, "x", 1) != 1)
		die("write");
	return fd;
}

/* the client's part; 1 when the session is over */
static int
answered(int fd)
{
	char c[2];
	ssize_t n = recv(fd, c, sizeof c, MSG_DONTWAIT);

	if (n == -1 && errno != EAGAIN)
		die("recv");
	return n == 0;
}

static double
ask_all(struct pollfd *p, int n, int64_t until)
{
	double count = 0;
	int i;

	while (now() < until) {
		if (poll(p, (nfds_t)n, ANSWER_TIME * 1000) < 1)
			die("poll");
		for (i = 0; i < n; i++)
			if (p[i].revents && answered(p[i].fd)) {
				close(p[i].fd);
				p[i].fd = ask();
				count++;
			}
	}
	return count;
}

static void
connections(int n, int64_t length)
{
	struct pollfd p[AT_ONCE];
	char name[32];
	int64_t start;
	double count, cpu;
	int i, lfd = target_socket(SOCK_STREAM);

	share_processor();
	if (start_child())
		serve_all(lfd);
	close(lfd);
	for (i = 0; i < n; i++) {
		p[i].fd = ask();
		p[i].events = POLLIN;
	}
	ask_all(p, n, now() + WARM_UP);
	cpu = tree(relay, cpu_of);
	start = now();
	count = ask_all(p, n, start + length);
	snprintf(name, sizeof name, "conns_%d", n);
	show(name, count * SECOND / (double)(now() - start));
	snprintf(name, sizeof name, "conns_cpu_%d", n);
	if (relay)
		show(name, (tree(relay, cpu_of) - cpu) * 1e6 / count);
	stop_child();
}

/* Round trips while others are idle. */

static void
show_hot(const struct session *hot, int level, int64_t length)
{
	int max = (int)(length / (2 * US)), n = 0;
	int64_t *times = calloc((size_t)max, sizeof *times);
	int64_t until;

	until = now() + length / 4;
	while (now() < until)
		round_trip(hot);
	until = now() + length;
	while (n < max && now() < until)
		times[n++] = round_trip(hot);
	show_times("hot", level, times, n);
	free(times);
}

static void
keep_hot(const struct session *hot)
{
	for (;;) {
		round_trip(hot);
		pause_for(HOT_PACE);
	}
}

/* the first byte of sessions that were idle, while another is hot */
static void
show_cold(const struct session *hot, const struct session *s, int level)
{
	int64_t times[COLD_SAMPLES], start;
	int i, n = level < COLD_SAMPLES ? level : COLD_SAMPLES;

	if (start_child())
		keep_hot(hot);
	pause_for(100 * MS);
	for (i = 0; i < n; i++) {
		pause_for(COLD_PACE);
		start = now();
		pass(s[i * (level / n)].c, s[i * (level / n)].t);
		times[i] = now() - start;
	}
	stop_child();
	show_times("cold", level, times, n);
}

/* CPU of one round trip every 10 ms, and what happens when there is none */
static void
show_slow(const struct session *hot, int level, int64_t length)
{
	char name[32];
	double cpu, sleeps;
	int64_t start;

	if (!relay)
		return;
	pause_for(COLD_TIME);
	sleeps = tree(relay, switches_of);
	start = now();
	pause_for(length);
	sleeps = tree(relay, switches_of) - sleeps;
	snprintf(name, sizeof name, "idle_wakes_%d", level);
	show(name, sleeps * SECOND / (double)(now() - start));
	cpu = tree(relay, cpu_of);
	start = now();
	while (now() < start + length) {
		round_trip(hot);
		pause_for(SLOW_PACE);
	}
	cpu = tree(relay, cpu_of) - cpu;
	snprintf(name, sizeof name, "slow_cpu_%d", level);
	show(name, cpu * 100 * SECOND / (double)(now() - start));
}

static void
idle(char **levels, int64_t length)
{
	struct session hot, *s = NULL;
	double memory = 0, files = 0;
	int level, n = 0, lfd = target_socket(SOCK_STREAM);

	share_processor();
	hot = session(lfd);
	for (; *levels; levels++) {
		level = atoi(*levels);
		s = realloc(s, (size_t)(level + 1) * sizeof *s);
		while (n < level)
			s[n++] = session(lfd);
		show_hot(&hot, level, length);
		pause_for(COLD_TIME);
		if (n == 0) {
			memory = tree(relay, private_of);
			files = tree(relay, files_of);
			continue;
		}
		show_cold(&hot, s, level);
		if (level == 1000)
			show_slow(&hot, level, 2 * length);
	}
	if (!relay || n == 0)
		return;
	pause_for(COLD_TIME);
	show("session_bytes", (tree(relay, private_of) - memory) / n);
	show("session_files", (tree(relay, files_of) - files) / n);
}

/* Two writes, then a read: is a small write held back? */
static void
two_writes(int n)
{
	int64_t times[1000], start;
	struct session s = session(target_socket(SOCK_STREAM));
	int i;

	share_processor();
	for (i = 0; i < n; i++) {
		start = now();
		if (write(s.c, "x", 1) != 1)
			die("write");
		pause_for(WRITE_PAUSE);
		if (write(s.c, "y", 1) != 1)
			die("write");
		if (recv(s.t, buf, 2, MSG_WAITALL) != 2)
			die("recv");
		pass(s.t, s.c);
		times[i] = now() - start;
	}
	show_times("two_writes", 0, times, n);
}

/* Datagrams. */

static void
echo(int fd)
{
	struct sockaddr_in a;
	socklen_t len;
	ssize_t n;

	for (;;) {
		len = sizeof a;
		n = recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&a,
		    &len);
		if (n >= 0)
			sendto(fd, buf, (size_t)n, 0, (struct sockaddr *)&a,
			    len);
	}
}

/* the first answer tells that the relay is there */
static int
datagram_client(void)
{
	int64_t until = now() + START_TIME;
	int fd = client_socket(SOCK_DGRAM);

	limit_wait(fd, 50 * MS);
	for (;;) {
		if (send(fd, buf, PAYLOAD, 0) == PAYLOAD &&
		    recv(fd, buf, sizeof buf, 0) == PAYLOAD)
			return fd;
		if (now() > until)
			die("recv");
		pause_for(20 * MS);
	}
}

/* keeps n datagrams under way; the answers that came until then */
static double
exchange(int fd, int n, int64_t until)
{
	double count = 0;
	int out = 0;

	while (now() < until) {
		for (; out < n; out++)
			send(fd, buf, PAYLOAD, 0);
		while (out > 0 && recv(fd, buf, sizeof buf,
		    out < n ? MSG_DONTWAIT : 0) == PAYLOAD) {
			count++;
			out--;
		}
		if (out == n)	/* all were lost */
			out = 0;
	}
	return count;
}

static void
datagrams(int n, int64_t length)
{
	int64_t start;
	double count, cpu;
	int fd, tfd = target_socket(SOCK_DGRAM);

	share_processor();
	if (start_child())
		echo(tfd);
	fd = datagram_client();
	exchange(fd, n, now() + WARM_UP);
	cpu = tree(relay, cpu_of);
	start = now();
	count = exchange(fd, n, start + length);
	show("udp", count * SECOND / (double)(now() - start));
	if (relay)
		show("udp_cpu", (tree(relay, cpu_of) - cpu) * 1e6 / count);
	stop_child();
}

static double
receive(int fd, int64_t until)
{
	double count = 0;
	int i;

	while (now() < until)
		for (i = 0; i < 64; i++)
			if (recv(fd, buf, sizeof buf, 0) == PAYLOAD)
				count++;
			else
				die("recv");
	return count;
}

/* Who sends without a pause would leave no other his processor. */
static void
flood(int64_t length)
{
	int64_t start;
	double count, cpu;
	int fd, tfd = target_socket(SOCK_DGRAM);

	if (start_child())
		echo(tfd);
	fd = datagram_client();
	stop_child();
	if (start_child())
		for (;;)
			send(fd, buf, PAYLOAD, 0);
	receive(tfd, now() + WARM_UP);
	cpu = tree(relay, cpu_of);
	start = now();
	count = receive(tfd, start + length);
	show("flood", count * SECOND / (double)(now() - start));
	if (relay)
		show("flood_cpu", (tree(relay, cpu_of) - cpu) * 1e6 / count);
	stop_child();
}

int
main(int argc, char **argv)
{
	int64_t length;
	const char *test;
	int n;

	if (argc < 7) {
		fprintf(stderr, "usage: load PORT TARGET PID|0 TEST SECONDS "
		    "N...\n");
		return 2;
	}
	port = atoi(argv[1]);
	target = atoi(argv[2]);
	relay = atoi(argv[3]);
	test = argv[4];
	length = (int64_t)(atof(argv[5]) * (double)SECOND);
	n = atoi(argv[6]);
	alarm(100);
	if (!strcmp(test, "bulk"))
		bulk(n, length);
	else if (!strcmp(test, "conns") && n <= AT_ONCE)
		connections(n, length);
	else if (!strcmp(test, "idle"))
		idle(argv + 6, length);
	else if (!strcmp(test, "nagle") && n <= 1000)
		two_writes(n);
	else if (!strcmp(test, "udp"))
		datagrams(n, length);
	else if (!strcmp(test, "flood"))
		flood(length);
	else
		return 2;
	return 0;
}
