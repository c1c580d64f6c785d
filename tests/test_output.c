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
	log_to(STDERR_FILENO);
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
	h->run.pid = 99;
	CHECK(!finished(&sim.m, sim.now));
	h->run.pid = 0;
	h->run.status = atoi(status) << 8;
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
		log_to(p[1]);
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
	h->run.pid = 99;
	h->run.limit = NEVER;
}

/* News during a run wait behind it, only the newest, and what has become
 * what it was is no news.  The run's limit counts from the oldest that waits,
 * not from an earlier wait that came to nothing. */
static void
hook_coalesces(void)
{
	struct mapping m[3];
	struct config c;
	struct hook h;

	hook_runs(&h, &c, m);
	hook_news(&h, &m[1], 1000);
	hook_news(&h, &m[2], 2000);
	CHECK(h.pending && h.run.limit == 1000 + RUN_LIMIT && !hook_delivered(&h));
	CHECK(addr_same(&h.next.public, &m[2].public));
	hook_news(&h, &m[0], 3000);
	CHECK(!h.pending && h.run.limit == NEVER);
	hook_news(&h, &m[1], 4000);
	CHECK(h.pending && h.run.limit == 4000 + RUN_LIMIT);
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
	return sim_done(fds);
}
