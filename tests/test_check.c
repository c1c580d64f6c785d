/* SPDX-License-Identifier: MIT */
/*
 * Tests of --check in a simulated world: who is asked when, how long that
 * takes, and what is said of what was learned.
 */
#include "sim.h"

static void
anew(void)
{
	if (sim.log)
		fclose(sim.log);
	world();
}

/* Runs --check; the events, as "a0 b30": who was asked at which ms, and "end"
 * with the time, are the errors. */
static void
check_now(const char *args)
{
	int i, status;

	start(args);
	startable(&sim.m);
	status = run(&sim.m, -1);
	for (i = 0; i < sim.nev; i++)
		if (sim.ev[i].what == ASKED)
			fprintf(stderr, "%c%d ", sim.ev[i].who,
			    (int)sim.ev[i].at);
	fprintf(stderr, "end%d", (int)since_start());
	if (sim.spun)
		fprintf(stderr, " spun");
	fflush(stderr);
	_exit(status);
}

static void
check(const char *args)
{
	char text[200];

	snprintf(text, sizeof text, "--check -b 5000 %s", args);
	capture(check_now, text);
}

/* The server who can answer from another address and port, which is that of
 * the row elsewhere; the row beside is its own address with that port. */
static void
capable(int who, int elsewhere, int beside)
{
	addr_set_port(&peer(elsewhere)->addr, 3479);
	peer(beside)->addr = peer(who)->addr;
	addr_set_port(&peer(beside)->addr, 3479);
	peer(who)->other = peer(elsewhere)->addr;
}

static int
said(const char *line)
{
	return strstr(ran.out, line) != NULL;
}

/* the ms at which the check ended */
static int
ended(void)
{
	return atoi(strstr(ran.err, "end") + 3);
}

static void
one_by_one_until_filtering_is_known(void)
{
	anew();
	capable('b', 'p', 'o');
	check("-u -s a,b,c,d,e");
	CHECK(strcmp(ran.err, "a0 b30 b60 c90 d90 end120") == 0);
	CHECK(ran.status == 0);
	CHECK(strcmp(ran.out, "local:     192.168.1.10:5000 private\n"
	    "public:    203.0.113.7:40000 a:3478\n"
	    "public:    203.0.113.7:40000 b:3478\n"
	    "public:    203.0.113.7:40000 c:3478\n"
	    "public:    203.0.113.7:40000 d:3478\n"
	    "mapping:   endpoint-independent\n"
	    "filtering: endpoint-independent\n"
	    "reachable: yes\n"
	    "advice:    try it from mobile data, not from inside\n") == 0);
}

static void
four_at_once_in_tcp(void)
{
	anew();
	check("-s a,b,c,d,e,f");
	CHECK(strcmp(ran.err, "a0 b0 c0 d0 end30") == 0 && ran.status == 4);
	anew();
	peer('a')->mode = REFUSING;
	peer('b')->mode = MUTE;
	check("-s a,b,c,d,e,f");
	CHECK(strcmp(ran.err, "a0 b0 c0 d0 e30 f2500 end2530") == 0);
}

/* Two answers suffice for a verdict, and nobody is asked twice. */
static void
dead_servers_cost_seconds(void)
{
	anew();
	all_peers(MUTE);
	check("-u -s a,b,c,d,e,f,g,h");
	CHECK(strcmp(ran.err, "a0 b3000 c6000 d9000 e12000 f12000 g12000 "
	    "h12000 end15000") == 0);
	CHECK(ran.status == 1 && said("public:    none\n"));
	anew();
	all_peers(MUTE);
	check("-s a,b,c,d,e,f,g,h,i,j,k,l");
	CHECK(ran.status == 1 && ended() <= 19000);
	anew();
	sim.dns_dead = 1;
	check("-u -s a,b,c,d,e,f,g,h");
	CHECK(ran.status == 1 && ended() <= 19000);
	CHECK(strcmp(strstr(ran.out, "public:"), "public:    none\n"
	    "mapping:   unknown\nfiltering: unknown\nreachable: unknown\n")
	    == 0);
	anew();
	peer('a')->mode = MUTE;
	capable('b', 'p', 'o');
	check("-u -s a,b,c");
	CHECK(strcmp(ran.err, "a0 b3000 b3030 c3060 end3090") == 0 &&
	    ran.status == 0);
}

/* what the NAT lets in, what servers see of it, and what that means */
static void
verdicts(void)
{
	static const struct {
		int filters, mapping;   /* 1: another port, 2: another host */
		const char *filtering, *words, *reachable, *advice;
		int status;
	} t[] = {
		{ 0, 0, "endpoint-independent", "endpoint-independent", "yes",
		    "try it", 0 },
		{ 1, 0, "address-dependent", "endpoint-independent", "no",
		    "forward", 3 },
		{ 2, 0, "address-and-port-dependent", "endpoint-independent",
		    "no", "forward", 3 },
		{ 0, 1, "endpoint-independent", "destination-dependent", "no",
		    "the provider's NAT is symmetric", 3 },
		{ 2, 1, "address-and-port-dependent", "destination-dependent",
		    "no", "the provider's NAT is symmetric", 3 },
		{ 0, 2, "endpoint-independent", "destination-dependent", "no",
		    "servers see several public addresses", 3 },
		{ 0, 3, "endpoint-independent", "none", "yes", NULL, 0 },
		{ 1, 3, "address-dependent", "none", "no", "open", 3 }
	};
	char want[200];
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		anew();
		capable('a', 'p', 'o');
		sim.filters = t[i].filters;
		if (t[i].mapping == 1)
			set_mapped(peer('b'), "203.0.113.7", 40001);
		if (t[i].mapping == 2)
			set_mapped(peer('b'), "203.0.113.8", 40000);
		if (t[i].mapping == 3) {
			addr_parse(&sim.source, "203.0.113.9", AF_INET);
			moves_to("203.0.113.9", 5000);
		}
		check("-u -s a,b");
		CHECK(ran.status == t[i].status);
		snprintf(want, sizeof want, "mapping:   %s\nfiltering: %s\n"
		    "reachable: %s\n%s%s", t[i].words, t[i].filtering,
		    t[i].reachable, t[i].advice ? "advice:    " : "",
		    t[i].advice ? t[i].advice : "");
		CHECK(said(want));
		CHECK(t[i].advice || !said("advice:"));
	}
}

/* Who does not answer from elsewhere as asked tells nothing. */
static void
servers_that_cannot_tell(void)
{
	static const enum change t[] = { SAME, REFUSES };
	static const char *const odd[] = { "10.0.0.1:3479", "10.0.0.16:3478",
	    "10.0.0.2:3479", "203.0.113.9:3479", "0.0.0.0:3479",
	    "224.0.0.1:3479" };
	char host[32];
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		anew();
		capable('a', 'p', 'o');
		capable('b', 'n', 'm');
		peer('a')->change = t[i];
		check("-u -s a,b,c");
		CHECK(strcmp(ran.err, "a0 a30 b60 b90 c120 end150") == 0);
		CHECK(ran.status == 0);
		check("-u -s a,c");
		CHECK(said("filtering: unknown\nreachable: unknown\n") &&
		    ran.status == 4);
	}
	for (i = 0; i < LEN(odd); i++) {
		anew();
		snprintf(host, sizeof host, "%s", odd[i]);
		addr_set_port(&peer('a')->addr, 3478);
		*strchr(host, ':') = '\0';
		addr_parse(&peer('a')->other, host, AF_INET);
		addr_set_port(&peer('a')->other, atoi(strchr(odd[i], ':') + 1));
		check("-u -s a,b");
		/* b's host is asked only after a */
		CHECK(said("filtering: unknown\n") || i == 2);
		CHECK(i == 2 || strcmp(ran.err, "a0 b30 end60") == 0);
	}
}

/* A liar's other address never answers: the next server is asked before a
 * no; a third one is not. */
static void
two_tests_before_a_no(void)
{
	anew();
	capable('a', 'p', 'o');
	capable('b', 'n', 'm');
	peer('a')->change = SILENT;
	check("-u -s a,b,c");
	CHECK(strcmp(ran.err, "a0 a30 b4030 b4060 c4090 end4120") == 0);
	CHECK(ran.status == 0 && said("filtering: endpoint-independent\n"));
	anew();
	sim.filters = 2;
	capable('a', 'p', 'o');
	capable('b', 'n', 'm');
	capable('c', 'l', 'k');
	check("-u -s a,b,c");
	CHECK(strcmp(ran.err, "a0 a30 b4030 b4060 c8060 end8090") == 0);
	CHECK(ran.status == 3);
	/* the better of two counts: what came in proves */
	anew();
	sim.filters = 1;
	capable('a', 'p', 'o');
	capable('b', 'n', 'm');
	peer('a')->change = SILENT;
	check("-u -s a,b");
	CHECK(said("filtering: address-dependent\n") && ran.status == 3);
}

static void
one_server_says_little(void)
{
	anew();
	capable('a', 'p', 'o');
	check("-u -s a");
	CHECK(said("mapping:   unknown\nfiltering: endpoint-independent\n"
	    "reachable: unknown\n") && ran.status == 4);
	/* two names, one address */
	check("-u -s a,a");
	CHECK(said("mapping:   unknown\n") && ran.status == 4);
}

static void
implausible_answers(void)
{
	anew();
	set_mapped(peer('a'), "127.0.0.1", 40000);
	set_mapped(peer('b'), "203.0.113.7", 0);
	check("-s a,b,c");
	CHECK(said("public:    203.0.113.7:40000 c:3478\n"
	    "mapping:   unknown\n"));
}

static void
unusable_ports(void)
{
	anew();
	sim.busy_lo = sim.busy_hi = 5000;
	check("-s a");
	CHECK(ran.status == 1 && strcmp(ran.err, "end0") == 0);
	CHECK(said("public:    none\n") && said("reachable: unknown\n"));
}

static void
probes(void)
{
	static const struct {
		int taken, status;
		const char *body, *reachable;
		int result;
	} t[] = {
		{ 1, 200, "1", "yes (as w says)", 0 },
		{ 1, 200, " 1\r\n", "yes (as w says)", 0 },
		{ 1, 200, "0\n", "no (as w says)", 3 },
		{ 1, 200, "{\"reachable\": true}", "yes (as w says)", 0 },
		{ 1, 200, "{\"a\":1,\"reachable\":false}",
		    "no (as w says)", 3 },
		{ 1, 200, "{\"reachable\": 7}",
		    "unknown (w: neither yes nor no)", 4 },
		{ 1, 200, "{\"reachable\"", "unknown (w: neither yes nor no)",
		    4 },
		{ 1, 200, "10", "unknown (w: neither yes nor no)", 4 },
		{ 1, 200, "1 0", "unknown (w: neither yes nor no)", 4 },
		{ 1, 200, "", "unknown (w: neither yes nor no)", 4 },
		{ 1, 200, "<html>1</html>", "unknown (w: neither yes nor no)",
		    4 },
		{ 1, 500, "1", "unknown (w: HTTP status 500)", 4 },
		{ 1, 302, "1", "unknown (w: HTTP status 302)", 4 },
		{ 0, 200, "1", "unknown (w: yes, but nobody came in)", 4 },
		{ 0, 200, "0", "no (as w says)", 3 }
	};
	char want[100];
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		anew();
		sim.taken = t[i].taken;
		sim.status = t[i].status;
		sim.body = t[i].body;
		check("-s a,b --probe w/p");
		CHECK(ran.status == t[i].result);
		snprintf(want, sizeof want, "reachable: %s\n", t[i].reachable);
		CHECK(said(want));
		/* who connects back may be slower than the answer */
		CHECK(ended() == (t[i].taken ? 60 : 1060));
	}
}

static void
probes_that_fail(void)
{
	anew();
	peer('w')->mode = MUTE;
	check("-s a,b --probe w");
	CHECK(said("reachable: unknown (w: no answer (timed out))\n") &&
	    ran.status == 4 && ended() == 19000);
	anew();
	peer('w')->mode = REFUSING;
	check("-s a,b --probe w");
	CHECK(said("reachable: unknown (w: refused)\n") && ended() == 1060);
	/* two addresses: a no is for one of them only */
	anew();
	sim.status = 200;
	sim.body = "0";
	sim.taken = 1;
	set_mapped(peer('b'), "203.0.113.8", 40000);
	check("-s a,b --probe w");
	CHECK(said("mapping:   destination-dependent\nfiltering: unknown\n"
	    "reachable: unknown\n") && ran.status == 4);
	/* unused in UDP, and where no server answered */
	check("-u -s a,b --probe w");
	CHECK(!strchr(ran.err, 'w'));
	all_peers(MUTE);
	check("-s a,b --probe w");
	CHECK(!strchr(ran.err, 'w') && ran.status == 1);
}

int
main(int argc, char **argv)
{
	int fds = open_fds();

	check_args(argc, argv);
	RUN(one_by_one_until_filtering_is_known);
	RUN(four_at_once_in_tcp);
	RUN(dead_servers_cost_seconds);
	RUN(verdicts);
	RUN(servers_that_cannot_tell);
	RUN(two_tests_before_a_no);
	RUN(one_server_says_little);
	RUN(implausible_answers);
	RUN(unusable_ports);
	RUN(probes);
	RUN(probes_that_fail);
	if (sim.log)
		fclose(sim.log);
	return sim_done(fds);
}
