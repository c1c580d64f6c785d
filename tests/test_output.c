/* SPDX-License-Identifier: MIT */
/* What the program prints: --once, the line, the script, the log. */
#include "sim.h"

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
	log_fd = STDERR_FILENO;
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
	free(sim.w.fds);
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
	h->run.pid = 99;
	CHECK(!hook_delivered(h));
	h->run.pid = 0;
	h->run.status = atoi(status) << 8;
	hook_ended(h, sim.now);
	CHECK(hook_delivered(h));
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
		log_fd = p[1];
	close(p[0]);
	signal(SIGPIPE, SIG_IGN);
	sim.no_device = sim.c.interface != NULL;
	sim.busy_hi = 65535;
	startable(&sim.m);
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

/* The line of a mapping: host and port. */
static void
print_ip4p(const char *mapping)
{
	char text[ADDR_TEXT], *port;
	struct config c;
	struct hook h;

	strcpy(text, mapping);
	port = strchr(text, ' ');
	*port++ = '\0';
	options(&c, "-4");
	memset(&h, 0, sizeof h);
	h.cfg = &c;
	set_addr(&h.next.mapped, text, atoi(port));
	hook_deliver(&h, 0);
	_exit(!hook_delivered(&h));
}

static void
ip4p_table(void)
{
	static const struct {
		const char *mapping, *want;
	} t[] = {
		{ "203.0.113.7 40000", "2001::9c40:cb00:7107" },
		{ "1.0.0.0 1", "2001::0001:0100:0000" },
		{ "0.0.0.0 1", "2001::0001:0000:0000" },
		{ "1.2.3.4 80", "2001::0050:0102:0304" },
		{ "255.255.255.255 65535", "2001::ffff:ffff:ffff" },
		{ "10.0.171.1 2748", "2001::0abc:0a00:ab01" },
		{ "2001:db8::1 80", "" }
	};
	char want[200];
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		capture(print_ip4p, t[i].mapping);
		snprintf(want, sizeof want, "%s %s 0 tcp \n", t[i].mapping,
		    t[i].want);
		CHECK(ran.status == 0 && strcmp(ran.out, want) == 0);
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
	addr_parse(&h.next.mapped, *v6 ? "2001:db8::7" : "203.0.113.7",
	    AF_UNSPEC);
	addr_parse(&h.next.local, *v6 ? "2001:db8::1" : "192.168.1.10",
	    AF_UNSPEC);
	addr_set_port(&h.next.mapped, 40000);
	addr_set_port(&h.next.local, 22);
	h.pending = 1;
	hook_deliver(&h, 0);
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
hook_runs(struct hook *h, struct config *c, struct server m[3])
{
	int i;

	memset(c, 0, sizeof *c);
	memset(h, 0, sizeof *h);
	memset(m, 0, 3 * sizeof *m);
	c->script = h->run.path = "/bin/sh";
	h->cfg = c;
	for (i = 0; i < 3; i++) {
		addr_parse(&m[i].said.mapped, "203.0.113.7", AF_INET);
		addr_set_port(&m[i].said.mapped, 40000 + i);
	}
	h->next = h->sent = m[0].said;
	h->by = m;
	h->run.pid = 99;
	h->run.sig = SIGTERM;
	h->run.limit = NEVER;
}

/* News during a run wait behind it, only the newest, and what has become
 * what it was is no news.  The run's limit counts from the oldest that waits,
 * not from an earlier wait that came to nothing. */
static void
hook_coalesces(void)
{
	struct server m[3];
	struct config c;
	struct hook h;

	hook_runs(&h, &c, m);
	hook_news(&h, &m[1], 1000);
	hook_news(&h, &m[2], 2000);
	CHECK(h.pending && h.run.limit == 1000 + RUN_LIMIT &&
	    !hook_delivered(&h));
	CHECK(addr_same(&h.next.mapped, &m[2].said.mapped));
	hook_news(&h, &m[0], 3000);
	CHECK(!h.pending && h.run.limit == NEVER);
	hook_news(&h, &m[1], 4000);
	CHECK(h.pending && h.run.limit == 4000 + RUN_LIMIT);
}

/* The run ends so at that time.  Returns in how many s another is due, 0 at
 * once, -1 when the mapping is delivered or given up; then that one runs. */
static int
hook_ends(struct hook *h, int status, int64_t now)
{
	struct wake w = { NULL, 0, 0, NEVER };

	h->run.pid = 0;
	h->run.status = status;
	hook_ended(h, now);
	hook_want(h, &w, now);
	CHECK(h->pending == (w.deadline != NEVER));
	if (h->pending && w.deadline > now) {
		hook_step(h, &w, w.deadline - 1);
		CHECK(h->pending && !h->run.pid);
	}
	h->run.pid = 99;
	h->run.sig = SIGTERM;
	if (!h->pending)
		return -1;
	hook_sent(h);
	return w.deadline > now ? (int)(w.deadline - now) / 1000 : 0;
}

#define EXITS(n)	((n) << 8)

static void
hook_repeats(const char *unused)
{
	static const int pause[] = { 5, 10, 30, 60, 120, 300, 600, 600, 600 };
	struct server m[3];
	struct config c;
	struct hook h;
	size_t i;

	(void)unused;
	hook_runs(&h, &c, m);
	CHECK(hook_ends(&h, 0, 0) == -1);
	for (i = 0; i < LEN(pause); i++)
		CHECK(hook_ends(&h, i ? EXITS(1) : SIGSEGV, 1000) == pause[i]);
	/* The values change during the run: no pause, and a new schedule. */
	hook_news(&h, &m[1], 2000);
	CHECK(hook_ends(&h, EXITS(1), 2000) == 0);
	CHECK(addr_same(&h.sent.mapped, &m[1].said.mapped));
	CHECK(addr_same(&h.last, &m[0].said.mapped));
	CHECK(hook_ends(&h, EXITS(1), 3000) == 5);
	CHECK(hook_ends(&h, EXITS(126), 3000) == 10);
	CHECK(hook_ends(&h, EXITS(127), 3000) == 30);
	CHECK(hook_ends(&h, 0, 4000) == -1 &&
	    addr_same(&h.sent.mapped, &h.next.mapped));
	CHECK(addr_same(&h.last, &m[1].said.mapped));
	/* They change while the repetition is awaited. */
	h.run.pid = 0;
	h.run.status = EXITS(2);
	hook_ended(&h, 5000);
	hook_news(&h, &m[2], 6000);
	CHECK(h.pending && h.retry <= 6000 && h.fails == 0);
	/* And what failed is repeated when the mapping is that again. */
	hook_news(&h, &m[1], 7000);
	CHECK(h.pending);
	_exit(check_bad);
}

static void
hook_repeats_failures(void)
{
	capture(hook_repeats, "");
	CHECK(ran.status == 0 && !ran.out[0]);
	CHECK(strcmp(ran.err,
	    "natmap: /bin/sh: ended by signal 11, trying again in 5 s\n"
	    "natmap: /bin/sh: failed with status 1, trying again in 10 s\n"
	    "natmap: /bin/sh: failed with status 1\n"
	    "natmap: /bin/sh: failed with status 1, trying again in 5 s\n"
	    "natmap: /bin/sh: failed with status 126 (a command or the #! "
	    "interpreter is not executable), trying again in 10 s\n"
	    "natmap: /bin/sh: failed with status 127 (a command or the #! "
	    "interpreter was not found; does that line end in CR?), trying "
	    "again in 30 s\n"
	    "natmap: /bin/sh: succeeded after 3 failures\n"
	    "natmap: /bin/sh: failed with status 2, trying again in 5 s\n")
	    == 0);
}

/* A script that has never ended with 0: how many scripts end with 1 when all
 * is well. */
static void
hook_ones(const char *unused)
{
	struct server m[3];
	struct config c;
	struct hook h;

	(void)unused;
	hook_runs(&h, &c, m);
	CHECK(hook_ends(&h, EXITS(1), 0) == 60);
	/* New values after a failure: that it ends so says nothing yet. */
	h.run.pid = 0;
	hook_news(&h, &m[1], 0);
	hook_sent(&h);
	CHECK(hook_ends(&h, EXITS(1), 0) == 60);
	CHECK(hook_ends(&h, EXITS(1), 60000) == -1);
	CHECK(hook_ends(&h, EXITS(1), 60000) == -1);
	CHECK(hook_ends(&h, EXITS(3), 60000) == 5);
	CHECK(hook_ends(&h, EXITS(1), 60000) == -1);
	CHECK(hook_ends(&h, EXITS(0), 60000) == -1);
	CHECK(hook_ends(&h, EXITS(1), 60000) == 5);
	CHECK(hook_ends(&h, EXITS(1), 60000) == 10);
	_exit(check_bad);
}

static void
hook_status_one(void)
{
	capture(hook_ones, "");
	CHECK(ran.status == 0);
	CHECK(strcmp(ran.err,
	    "natmap: /bin/sh: failed with status 1, trying again in 60 s\n"
	    "natmap: /bin/sh: failed with status 1, trying again in 60 s\n"
	    "natmap: /bin/sh: status 1 again, now taken as success\n"
	    "natmap: /bin/sh: succeeded after 1 failures\n"
	    "natmap: /bin/sh: failed with status 3, trying again in 5 s\n"
	    "natmap: /bin/sh: succeeded after 1 failures\n"
	    "natmap: /bin/sh: failed with status 1, trying again in 5 s\n")
	    == 0);
}

/* A run that natmap ended has not failed; its values are not delivered. */
static void
hook_stopped(const char *how)
{
	struct server m[3];
	struct config c;
	struct hook h;

	hook_runs(&h, &c, m);
	c.once = *how == '1';
	hook_news(&h, &m[1], 0);
	hook_news(&h, &m[0], 1000);	/* and is what it was, too late */
	h.run.sig = SIGKILL;
	CHECK(hook_ends(&h, *how == 'e' ? 1 << 8 : SIGTERM, 2000) == 0);
	CHECK(addr_same(&h.sent.mapped, &m[0].said.mapped));
	CHECK(h.fails == 0);
	CHECK(!hook_delivered(&h));
	_exit(check_bad);
}

static void
hook_stopped_is_no_failure(void)
{
	capture(hook_stopped, "");
	CHECK(ran.status == 0 && !ran.err[0]);
	capture(hook_stopped, "1");
	CHECK(ran.status == 0 && !ran.err[0]);
	capture(hook_stopped, "e");	/* it exits with 1 on TERM */
	CHECK(ran.status == 0 && !ran.err[0]);
}

/* The pause before stdout is tried again, which fails or not. */
static int64_t
print_again(struct hook *h, int64_t now)
{
	struct wake w = { NULL, 0, 0, NEVER };

	hook_want(h, &w, now);
	CHECK(w.n == 0 && w.deadline > now);
	now = w.deadline;
	hook_step(h, &w, now);
	wake_clear(&w);
	hook_want(h, &w, now);
	CHECK(w.n == 1 && w.deadline == NEVER);
	w.fds[0].revents = POLLOUT;
	hook_step(h, &w, now);
	free(w.fds);
	return now;
}

/* A line that could not be written is written later. */
static void
print_fails(const char *unused)
{
	struct server m[3];
	struct config c;
	struct hook h;
	int p[2], out = dup(STDOUT_FILENO);

	(void)unused;
	signal(SIGPIPE, SIG_IGN);
	hook_runs(&h, &c, m);
	c.script = h.run.path = NULL;
	h.run.pid = 0;
	CHECK(pipe(p) == 0);
	dup2(p[1], STDOUT_FILENO);
	close(p[0]);
	hook_deliver(&h, 1000);
	CHECK(print_again(&h, 1000) == 6000 && h.pending);
	dup2(out, STDOUT_FILENO);
	CHECK(print_again(&h, 6000) == 16000 && !h.pending);
	CHECK(hook_delivered(&h));
	_exit(check_bad);
}

static void
output_is_repeated(void)
{
	capture(print_fails, "");
	CHECK(ran.status == 0);
	CHECK(strcmp(ran.out, "203.0.113.7 40000 2001::9c40:cb00:7107 0 tcp "
	    "\n") == 0);
	CHECK(strcmp(ran.err, "natmap: stdout: cannot be written: "
	    "Broken pipe\nnatmap: stdout: succeeded after 2 failures\n") == 0);
}

int
main(int argc, char **argv)
{
	int fds = open_fds();

	check_args(argc, argv);
	RUN(once_maps);
	RUN(once_tries_all);
	RUN(once_with_script);
	RUN(daemon_waits_for_interface);
	RUN(ip4p_table);
	RUN(output_line);
	RUN(hook_coalesces);
	RUN(hook_repeats_failures);
	RUN(hook_status_one);
	RUN(hook_stopped_is_no_failure);
	RUN(output_is_repeated);
	return sim_done(fds);
}
