/* SPDX-License-Identifier: MIT */
/*
 * What comes from outside: addresses and links of the network, the port, the
 * relay, the end; and faults at random.
 */
#include "sim.h"

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
	int fd = signals_open();

	CHECK(fd >= 0);
	begin("-s a,b -h w");
	go_on(95 SECONDS);
	raise(SIGHUP);			/* nothing has changed */
	signals(&sim.m);
	go_on(3 SECONDS);
	CHECK(logged("network changed") == 0);
	sim.index = 3;			/* dialled again */
	moves_to("203.0.113.7", 40001);
	raise(SIGHUP);
	signals(&sim.m);
	go_on(1 SECONDS);
	CHECK(logged("network changed") == 1);
	CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
	signal(SIGHUP, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	end();
	close(fd);
	close(fd + 1);		/* the pipe's other end */
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
	struct contact *c;
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
		for (c = sim.m.contact; c < sim.m.contact + CONTACTS; c++)
			CHECK(c->role == FREE || c->use.s || sim.m.udp);
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
/* A client came to the relay from that address. */
static void
came(const char *host)
{
	union addr a;

	addr_parse(&a, host, AF_UNSPEC);
	used(&sim.m, &a);
}

/* Only an address of the Internet that is not ours shows who reaches us. */
static void
the_first_from_outside(void)
{
	static const char *const inside[] = {
		"10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.9.9",
		"100.64.0.1", "100.127.9.9", "169.254.1.1", "127.0.0.2",
		"198.18.0.1", "fe80::1", "fd00::1", "fc00::1", "::1"
	};
	char public[ADDR_TEXT];
	size_t i;

	begin("-u -s b,c -t a -p 9");
	go_on(10 SECONDS);
	for (i = 0; i < sizeof inside / sizeof *inside; i++)
		came(inside[i]);
	came(addr_host(&sim.m.hook.next.mapped, public));
	CHECK(logged("from outside") == 0);
	came("8.8.4.4");
	CHECK(logged("8.8.4.4 came in from outside: the port is reachable")
	    == 1);
	came("8.8.8.8");
	came("8.8.4.4");
	CHECK(logged("from outside") == 1);
	end();
}

static void
target_is_not_found(void)
{
	int i, lookups;

	begin("-u -s b,c -t a -p 9");
	go_on(70 SECONDS);
	CHECK(sim.lookups == 1);
	sim.dns_fails = 1;
	for (i = 0; i < 3000; i++) {
		came("192.168.1.7");
		go_on(5);
	}
	lookups = sim.lookups;
	CHECK(lookups >= 4 && lookups <= 8);	/* 0, 1, 3, 7, 15 s */
	CHECK(logged("target a: ") == 1);
	CHECK(logged("the last good address serves on") == 1);
	sim.dns_fails = 0;
	go_on(30 SECONDS);
	came("192.168.1.7");
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
			map_end(&sim.m, SIGTERM);
			if (delay == 900)
				recheck(&sim.m);	/* HUP */
			CHECK(run(&sim.m, -1) == 0);
			CHECK(sim.turns - turns <= 5);
			CHECK(since_start() <= at + END_LIMIT);
			CHECK(count(OPENED, 0, at - 1, NEVER) == 0);
			CHECK(count(ENDED, 'w', at, NEVER) == (sim.c.nhttp >
			    0));
			CHECK(sim.m.relay || !sim.c.target.name);
			end();
		}
}

/* TERM while an answer is judged: nothing is announced, and a keep-alive server
 * that does not close is not waited for. */
static void
term_undecided(void)
{
	struct path *p;

	begin("-s a,b -h w");
	peer('b')->mode = MUTE;
	go_on(900);
	peer('w')->delay = 250;
	map_end(&sim.m, SIGTERM);
	for (p = sim.path; p < sim.path + FLOWS; p++)
		if (p->of && p->p == peer('w'))
			p->end = NEVER;
	go_on(END_LIMIT);
	CHECK(sim.m.now >= sim.m.end && !sim.m.known);
	end();
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
				recheck(&sim.m);
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
		recheck(&sim.m);
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
	const struct contact *c;
	char text[64];
	uint32_t seed;
	int i, n;

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
		/* no cone: a flow that lives has its own mapping */
		CHECK(told(sim.ncalls - 1, "203.0.113.8:41000") ||
		    sim.m.depends);
		for (n = i = 0; i < CONTACTS; i++) {
			c = &sim.m.contact[i];
			CHECK(c->role != CHECKS ||
			    c->f.born > sim.now - ANSWER_LIMIT);
			n += c->role == HOLDS && !c->http;
		}
		CHECK(n == wanted(&sim.m, 0));
		end();
	}
}

int
main(int argc, char **argv)
{
	int fds = open_fds();

	check_args(argc, argv);
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
	RUN(the_first_from_outside);
	RUN(target_is_not_found);
	RUN(term);
	RUN(term_undecided);
	RUN(wake_ups);
	RUN(chaos);
	RUN(storm);
	return sim_done(fds);
}
