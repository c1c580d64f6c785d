/* SPDX-License-Identifier: MIT */
/* Which flows there are and when they ask: schedules, failures, outages. */
#include "sim.h"

/*
 * Schedules.
 */

/* One of the few names is asked every k, each other at most once in 35 s: a NAT
 * has forgotten that flow by then, so that the answer is fresh. */
static void
udp_every_k(void)
{
	static const struct {
		const char *args;
		int64_t k;
		int others;
	} t[] = {
		{ "-u -s a,b,c", 10 SECONDS, 2 },
		{ "-u -s a,b", 10 SECONDS, 1 },
		{ "-u -s a,b,c,d", 10 SECONDS, 3 },
		{ "-u -s a", 10 SECONDS, 0 },
		{ "-u -s ab -k 25", 25 SECONDS, 0 },
		{ "-u -s a,b -k 30", 30 SECONDS, 1 },
		{ "-u -s a,b,c -k 1", 1 SECONDS, 2 },
		{ "-u -s a,b -h w", 10 SECONDS, 1 }
	};
	int64_t least, to;
	size_t i;
	int who, n, others;	/* who are asked, but not every k */

	for (i = 0; i < LEN(t); i++) {
		begin(t[i].args);
		to = 70 * t[i].k + 500;
		go_on(to);
		CHECK(longest(ASKED, 0, 500, to) <= t[i].k);
		CHECK(count(ASKED, 0, 500, to) <= 70 + t[i].others *
		    (int)(to / UDP_ONCE + 1));
		for (others = 0, who = 'a'; who <= 'd'; who++) {
			n = count(ASKED, who, 500, to);
			gaps(ASKED, who, 500, to, &least);
			if (n == 0 || n == 70 || !t[i].others)
				continue;
			others++;
			CHECK(least >= UDP_ONCE);
			CHECK(longest(ASKED, who, 500, to) < UDP_ONCE +
			    t[i].others * t[i].k + 100);
		}
		CHECK(others == t[i].others);
		CHECK(ever(OPENED, 'w') == 0 && ever(INDICATED, 0) == 0);
		end();
	}
}

static void
udp_takes_turns(void)
{
	int64_t least;
	int i;

	begin("-u -s a,b,c,d,e");
	go_on(13 MINUTES + 500);	/* of which the first are uneven */
	CHECK(count(ASKED, 0, 3 MINUTES, 13 MINUTES) == 60);
	for (i = 'a'; i <= 'e'; i++) {
		CHECK(gaps(ASKED, i, 3 MINUTES, 13 MINUTES, &least) <=
		    50 SECONDS);
		CHECK(least == 50 SECONDS);
	}
	end();
	begin("-u -s ab");	/* two addresses are as good as two servers */
	go_on(10 MINUTES + 500);
	CHECK(count(ASKED, 'a', 500, 10 MINUTES + 500) == 30);
	CHECK(count(ASKED, 'b', 500, 10 MINUTES + 500) == 30);
	end();
}

static void
udp_overtakes(void)
{
	begin("-u -s a,b,c,d");
	peer('a')->mode = peer('b')->mode = MUTE;
	go_on(1 MINUTES);
	CHECK(first(ASKED, 'c', 0) == 0 && first(ASKED, 'd', 0) == 3 SECONDS);
	CHECK(sim.ncalls == 1 && sim.call[0].at == 3 SECONDS + ANSWER_TIME);
	CHECK(logged("no answer (timed out) over UDP") == 2);
	end();
	begin("-u -s a,b");	/* a late answer still counts */
	peer('a')->delay = 3500;
	peer('b')->mode = MUTE;
	go_on(5 SECONDS);
	CHECK(sim.ncalls == 1 && sim.call[0].at == 3500 + ALONE);
	end();
	begin("-u -s a,b,c,d");	/* at once where that is known at once */
	peer('a')->mode = peer('b')->mode = NO_ROUTE;
	go_on(5 SECONDS);
	CHECK(sim.ncalls == 1 && sim.call[0].at == ANSWER_TIME);
	end();
}

static void
udp_mute_later(void)
{
	begin("-u -s a,b,c");
	go_on(1 MINUTES);
	peer('a')->mode = MUTE;
	go_on(10 MINUTES);
	CHECK(longest(ANSWERED, 0, 1 MINUTES, 11 MINUTES) <=
	    13 SECONDS + ANSWER_TIME);
	CHECK(count(ASKED, 'a', 1 MINUTES, 11 MINUTES) <= 25);
	CHECK(longest(ASKED, 0, 1 MINUTES, 11 MINUTES) <= 10 SECONDS);
	CHECK(sim.ncalls == 1);
	end();
	/* the one that waits for its answer does not hold: who answers does */
	begin("-u -s a,b -k 4");
	go_on(4500);
	peer('a')->mode = MUTE;
	go_on(5 MINUTES);
	CHECK(longest(ASKED, 0, 500, 5 MINUTES) <= 4 SECONDS);
	end();
}

static void
udp_indications(void)
{
	static const struct {
		const char *args;
		int asked, indicated;	/* in 10 minutes */
	} t[] = {
		{ "-u -s a -c 1", 60, 0 },
		{ "-u -s a -c 2", 30, 30 },
		{ "-u -s a,b -c 2", 30 + 15, 30 },	/* b is checked */
		{ "-u -s a,b -c 3", 20 + 10, 40 },
		{ "-u -s a,b -c 3 -t 192.0.2.5 -p 9", 20 + 10, 40 },
		{ "-u -s a,b -c 6", 10, 50 },
		{ "-u -s a -c 6 -k 5", 20, 100 }
	};
	size_t i;
	int n;

	for (i = 0; i < LEN(t); i++) {
		begin(t[i].args);
		go_on(11 MINUTES);
		n = count(ASKED, 0, 1 MINUTES, 11 MINUTES);
		CHECK(n == t[i].asked);
		n = count(INDICATED, 0, 1 MINUTES, 11 MINUTES);
		CHECK(n == t[i].indicated);
		end();
	}
}

/* Two flows to two hosts, asked on the same connection, and a check by a new
 * flow to another server. */
static void
tcp_without_http(void)
{
	int i;

	begin("-s a,b,c,d");
	go_on(21 MINUTES);
	CHECK(fewest_hosts(30 SECONDS + 100, 500, 21 MINUTES) >= 2);
	CHECK(longest(ASKED, 0, 500, 21 MINUTES) <= 30 SECONDS);
	CHECK(count(OPENED, 0, 1 MINUTES, 21 MINUTES) == 20);
	CHECK(longest(OPENED, 0, 1 MINUTES, 21 MINUTES) <=
	    60 SECONDS + ANSWER_TIME);
	for (i = 0; i < sim.nev; i++)
		if (sim.ev[i].what == OPENED)
			CHECK(sim.ev[i].others == 0);
	CHECK(sim.ncalls == 1 && sim.call[0].at == ANSWER_TIME);
	end();
	begin("-s a,b -k 10 -c 10000");
	go_on(20 MINUTES);
	CHECK(count(OPENED, 0, 1 SECONDS, 20 MINUTES) == 0);
	CHECK(fewest_hosts(10 SECONDS + 100, 500, 20 MINUTES) == 2);
	end();
}

static void
tcp_with_http(void)
{
	begin("-s a,b,c -h w,x");
	go_on(21 MINUTES);
	CHECK(fewest_hosts(30 SECONDS + 100, 500, 21 MINUTES) >= 2);
	CHECK(longest(ANSWERED, 'w', 500, 21 MINUTES) <=
	    30 SECONDS + 2 * ANSWER_TIME);
	CHECK(count(ASKED, 'w', 1 MINUTES, 21 MINUTES) <= 40);
	CHECK(ever(OPENED, 'w') == 1 && ever(OPENED, 'x') == 0);
	CHECK(count(OPENED, 0, 1 MINUTES, 21 MINUTES) == 20);
	end();
	begin("-s a,b,c -h w -c 10000");	/* one STUN flow */
	go_on(11 MINUTES);
	CHECK(count(ASKED, 'w', 1 MINUTES, 11 MINUTES) == 20);
	CHECK(count(ASKED, 0, 1 MINUTES, 11 MINUTES) == 40);
	CHECK(count(OPENED, 0, 1 MINUTES, 11 MINUTES) == 0);
	end();
}

/* With one server, its connection is aborted and opened again. */
static void
tcp_one_server_each(void)
{
	begin("-s a -h w -k 10 -c 3");
	go_on(10 MINUTES);
	CHECK(ever(OPENED, 'w') == 1);
	CHECK(count(OPENED, 'a', 1 MINUTES, 10 MINUTES) >= 17);
	CHECK(count(OPENED, 'a', 1 MINUTES, 10 MINUTES) <= 18);
	CHECK(longest(OPENED, 'a', 0, 10 MINUTES) <= 31 SECONDS);
	CHECK(longest(ANSWERED, 'a', 500, 10 MINUTES) <= 10 SECONDS +
	    2 * ANSWER_TIME);
	end();
	begin("-s a -k 10 -c 3");	/* the only flow is left in peace */
	go_on(10 MINUTES);
	CHECK(ever(OPENED, 0) == 1);
	CHECK(longest(ASKED, 'a', 0, 10 MINUTES) <= 10 SECONDS);
	end();
}

/* A server that closes soon is asked at its next -k, one that closes late is
 * replaced at once. */
static void
tcp_server_closes(void)
{
	int64_t least, end_at;

	begin("-s a -h w -c 10000");
	peer('a')->close_after = 3 SECONDS;
	go_on(10 MINUTES);
	CHECK(gaps(OPENED, 'a', 1 MINUTES, 10 MINUTES, &least) <=
	    30 SECONDS + ANSWER_TIME);
	CHECK(least >= 30 SECONDS);
	CHECK(ever(ASKED, 'a') == ever(OPENED, 'a'));
	CHECK(ever(OPENED, 'w') == 1 && sim.ncalls == 1);
	CHECK(logged("answers again") == 0 && logged("closed") == 0);
	end();
	begin("-s a -h w -c 10000");
	peer('a')->close_after = 16 SECONDS;
	go_on(10 MINUTES);
	end_at = first(ENDED, 'a', 0);
	CHECK(end_at == 16 SECONDS + ANSWER_TIME);
	CHECK(first(OPENED, 'a', 1) == end_at);
	CHECK(longest(OPENED, 'a', 0, 10 MINUTES) <= 17 SECONDS);
	end();
}

/* coturn's -S everywhere: two hosts all the same within each k. */
static void
tcp_all_close_soon(void)
{
	int i;

	begin("-s a,b,c,d");
	for (i = 'a'; i <= 'd'; i++)
		peer(i)->close_after = 3 SECONDS;
	go_on(20 MINUTES);
	CHECK(fewest_hosts(33 SECONDS, 1 MINUTES, 20 MINUTES) >= 2);
	CHECK(count(OPENED, 0, 1 MINUTES, 20 MINUTES) <= 19 * 2 * 2 + 19);
	CHECK(sim.ncalls == 1);
	end();
}

/* All flows are gone at once, and only one server is left. */
static void
nothing_else_holds(void)
{
	begin("-s a,b,c -h w -c 10000");
	peer('w')->mode = REFUSING;
	go_on(20 SECONDS);
	peer('a')->mode = peer('b')->mode = MUTE;
	cut('a');
	cut('b');
	cut('c');
	go_on(5 MINUTES);
	CHECK(first(ANSWERED, 'c', 20 SECONDS) <= 23 SECONDS);
	CHECK(longest(ANSWERED, 'c', 23 SECONDS, 5 MINUTES) <= 31 SECONDS);
	CHECK(sim.ncalls == 1);
	end();
}

/*
 * Failures.
 */

/* when a flow to who was opened for the i-th time */
static int64_t
nth_open(int who, int i)
{
	int64_t at = -1;

	while (i-- >= 0)
		at = first(OPENED, who, at + 1);
	return at;
}

static void
back_off(void)
{
	static const struct {
		const char *args;
		int who;
		int64_t cap;
	} t[] = {
		{ "-s a -h w -c 10000", 'a', 30 SECONDS },
		{ "-s a,b -h w -c 10000", 'w', 30 SECONDS },
		{ "-s a", 'a', 4 SECONDS },
		{ "-u -s a", 'a', 4 SECONDS }
	};
	int64_t wait, got;
	uint32_t seed;
	size_t i;
	int j;

	for (i = 0; i < LEN(t); i++)
		for (seed = 1; seed < 6; seed++) {
			begin(t[i].args);
			sim.random = seed * 99991;
			peer(t[i].who)->mode = REFUSING;
			go_on(10 MINUTES);
			for (wait = 1000, j = 0; j < 9; j++) {
				got = nth_open(t[i].who, j + 1) -
				    nth_open(t[i].who, j);
				CHECK(got >= wait - wait / 4);
				CHECK(got <= wait + ANSWER_TIME);
				wait = 2 * wait < t[i].cap ? 2 * wait :
				    t[i].cap;
			}
			CHECK(logged("refused over") == 1);
			end();
		}
}

/* Counted from the start of an attempt, which takes long here. */
static void
back_off_of_a_mute_server(void)
{
	int64_t least;

	begin("-s a -h w -c 10000");
	peer('a')->mode = MUTE;
	go_on(60 MINUTES);
	CHECK(gaps(OPENED, 'a', 5 MINUTES, 60 MINUTES, &least) <=
	    30 SECONDS);
	CHECK(least >= 22 SECONDS);
	end();
}

static void
back_off_is_each_servers_own(void)
{
	begin("-u -s a,b");
	peer('a')->mode = REFUSING;
	go_on(10 MINUTES);
	CHECK(longest(ANSWERED, 'b', 0, 10 MINUTES) <= 10 SECONDS +
	    2 * ANSWER_TIME);
	CHECK(ever(OPENED, 'a') >= 15 && ever(OPENED, 'a') <= 32);
	CHECK(logged("refused") == 1);
	peer('a')->mode = GOOD;
	go_on(2 MINUTES);
	CHECK(logged("answers again (failures: ") == 1);
	end();
}

/* SIGHUP: what failed before does not count any longer. */
static void
hup_forgives(void)
{
	static const char *const args[] = { "-s a -h w", "-s a,b", "-u -s a" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		all_peers(REFUSING);
		go_on(10 MINUTES + 100);
		all_peers(GOOD);
		recheck(&sim.m);
		go_on(ANSWER_TIME);
		CHECK(sim.ncalls == 1);
		CHECK(first(OPENED, 'a', 10 MINUTES + 100) ==
		    10 MINUTES + 100);
		end();
	}
	begin("-s a,b,c -h w -c 10000");
	go_on(5 MINUTES);
	recheck(&sim.m);	/* and a new flow checks at once */
	go_on(0);
	CHECK(count(OPENED, 0, 5 MINUTES - 1, 5 MINUTES) == 1);
	CHECK(ever(OPENED, 'w') == 1);
	end();
}

static void
dead_stun_leaves_http(void)
{
	size_t i;
	int who;

	for (i = 0; i < LEN(bad_modes); i++) {
		begin("-s a,b -h w");
		go_on(1 MINUTES);
		for (who = 'a'; who <= 'b'; who++) {
			peer(who)->mode = bad_modes[i];
			cut(who);
		}
		go_on(10 MINUTES);
		CHECK(ever(OPENED, 'w') == 1 && ever(STOPPED, 'w') == 0);
		CHECK(longest(ANSWERED, 'w', 500, 11 MINUTES) <=
		    30 SECONDS + 2 * ANSWER_TIME);
		CHECK(ever(OPENED, 'a') + ever(OPENED, 'b') <= 100);
		CHECK(sim.ncalls == 1);
		all_peers(GOOD);
		go_on(31 SECONDS);
		CHECK(count(ANSWERED, 0, 11 MINUTES, NEVER) >= 2);
		end();
	}
}

static void
dead_http_leaves_stun(void)
{
	size_t i;

	for (i = 0; i < LEN(bad_modes); i++) {
		begin("-s a,b,c -h w -c 10000");
		go_on(1 MINUTES);
		peer('w')->mode = bad_modes[i];
		cut('w');
		go_on(10 MINUTES);
		/* where a mute one is suspected, others take over */
		CHECK(count(STOPPED, 0, 1 SECONDS, since_start()) <=
		    (bad_modes[i] == MUTE ? 2 : 0));
		CHECK(ever(ENDED, 'a') + ever(ENDED, 'b') == 0);
		CHECK(fewest_hosts(30 SECONDS + 100, 90 SECONDS,
		    11 MINUTES) >= 2);
		CHECK(sim.ncalls == 1);
		peer('w')->mode = GOOD;
		go_on(31 SECONDS);
		CHECK(count(ANSWERED, 'w', 11 MINUTES, NEVER) >= 1);
		go_on(10 MINUTES);
		CHECK(count(OPENED, 'w', 11 MINUTES, NEVER) == 1);
		end();
	}
}

/* A keep-alive server that fails goes mute on an open connection. */
static void
mute_http_is_suspected(void)
{
	begin("-s a,b,c -h w,x -c 10000");
	go_on(65 SECONDS);
	peer('w')->mode = MUTE;
	go_on(5 MINUTES);
	CHECK(count(OPENED, 0, 90 SECONDS, 93 SECONDS) >= 1);
	CHECK(first(OPENED, 'x', 0) <= 101 SECONDS);
	CHECK(longest(ANSWERED, 'x', 101 SECONDS, 365 SECONDS) <=
	    31 SECONDS);
	CHECK(sim.ncalls == 1);
	end();
}

static void
http_that_closes_each_time(void)
{
	int says, after;

	for (says = 0; says < 2; says++)
		for (after = 0; after < 4; after++) {
			begin("-s a,b -h w");
			peer('w')->says_close = says;
			peer('w')->close_after = after SECONDS;
			go_on(10 MINUTES);
			CHECK(ever(OPENED, 'w') <= 21);
			CHECK(ever(ASKED, 'w') == ever(OPENED, 'w'));
			CHECK(longest(ANSWERED, 'w', 0, 10 MINUTES) <=
			    31 SECONDS);
			CHECK(fewest_hosts(31 SECONDS, 500, 10 MINUTES) >=
			    2);
			end();
		}
}

static void
two_http_that_close(void)
{
	begin("-s a,b -h w,x");
	peer('w')->says_close = peer('x')->says_close = 1;
	peer('w')->close_after = peer('x')->close_after = 1 SECONDS;
	go_on(10 MINUTES);
	CHECK(ever(OPENED, 'w') + ever(OPENED, 'x') <= 21);
	end();
}

/* With one server only the next connection waits for the end of the last. */
static void
one_http_that_closes_once(void)
{
	begin("-s a,b -h w");
	go_on(5 MINUTES - 1 SECONDS);
	peer('w')->says_close = 1;
	peer('w')->close_after = 2 SECONDS;
	go_on(10 SECONDS);
	CHECK(first(ENDED, 'w', 0) <= 5 MINUTES + 3 SECONDS);
	CHECK(first(OPENED, 'w', 1) <= first(ENDED, 'w', 0) + 1 SECONDS);
	end();
}

/* What still has the old mapping is replaced when a new one is known. */
static void
old_flows_are_renewed(void)
{
	struct contact *c;

	begin("-s a,b,c,d -h w,x -k 60");
	go_on(5 MINUTES - 7);
	moves_to("203.0.113.7", 40001);
	go_on(2 MINUTES);
	CHECK(sim.ncalls == 2);
	CHECK(first(OPENED, 'x', 0) <= sim.call[1].at + 2 SECONDS);
	for (c = sim.m.contact; c < sim.m.contact + CONTACTS; c++)
		CHECK(c->role != HOLDS || c->http ||
		    addr_port(&path_of(&c->f)->mapped) == 40001);
	end();
	begin("-s a,b -h w -k 60");
	go_on(5 MINUTES - 7);
	moves_to("203.0.113.7", 40001);
	go_on(2 MINUTES);
	CHECK(first(OPENED, 'w', 1) <= sim.call[1].at + 2 SECONDS);
	end();
}

/* However the server tells that it will close. */
static void
make_before_break(void)
{
	static const struct {
		int close, max, timeout;
	} t[] = { { 1, -1, -1 }, { 0, 0, -1 }, { 0, 0, 60 }, { 0, -1, 5 } };
	int64_t ended;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin("-s a,b -h w,x");
		go_on(5 MINUTES - 1 SECONDS);
		peer('w')->says_close = t[i].close;
		peer('w')->keep_max = t[i].max;
		peer('w')->keep_timeout = t[i].timeout;
		peer('w')->close_after = 2 SECONDS;
		go_on(1 MINUTES);
		ended = first(ENDED, 'w', 0);
		CHECK(first(OPENED, 'x', 0) < ended && ended < NEVER);
		CHECK(first(ANSWERED, 'x', 0) < ended);
		CHECK(ever(STOPPED, 'w') == 0);
		CHECK(ever(OPENED, 0) > 0 && sim.ncalls == 1);
		end();
	}
}

/* A server that does not want to wait for k is left at k, after the next one
 * was opened; it closes when it is asked to. */
static void
keep_alive_shorter_than_k(void)
{
	static const struct {
		int timeout, max, stays;
	} t[] = {
		{ -1, -1, 1 }, { 31, -1, 1 }, { 31, 1, 1 }, { 3600, 100, 1 },
		{ 30, -1, 0 }, { 20, -1, 0 }, { 20, 100, 0 }, { 0, -1, 0 },
		{ -1, 0, 0 }, { 3600, 0, 0 }
	};
	size_t i;
	int who, n;

	for (i = 0; i < LEN(t); i++) {
		begin("-s a,b -h w,x");
		for (who = 'w'; who <= 'x'; who++) {
			peer(who)->keep_timeout = t[i].timeout;
			peer(who)->keep_max = t[i].max;
		}
		go_on(10 MINUTES - 1 SECONDS);
		n = ever(OPENED, 'w') + ever(OPENED, 'x');
		CHECK(n == (t[i].stays ? 1 : 20));
		if (n > 1) {
			CHECK(first(OPENED, 'x', 0) == 30 SECONDS);
			CHECK(first(ENDED, 'w', 0) > 30 SECONDS);
		}
		CHECK(ever(STOPPED, 'w') + ever(STOPPED, 'x') == 0);
		end();
	}
}

/* After a reset the NAT forgets soon, after a FIN it does not. */
static void
reset_is_urgent(void)
{
	static const struct {
		int error;
		int64_t again;
	} t[] = {
		{ ECONNRESET, 6 SECONDS }, { ECLOSED, 30 SECONDS }
	};
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin("-s a,b");
		go_on(5 SECONDS);
		cut_by('a', t[i].error);
		cut_by('b', t[i].error);
		go_on(1 MINUTES);
		CHECK(first(OPENED, 0, 1 SECONDS) == t[i].again);
		end();
		begin("-s a,b -h w");	/* something else is open */
		go_on(5 SECONDS);
		cut_by('a', t[i].error);
		cut_by('b', t[i].error);
		go_on(1 MINUTES);
		CHECK(first(OPENED, 0, 1 SECONDS) == 30 SECONDS);
		end();
	}
}

/* The keep-alive connection is the last that was open. */
static void
reset_of_http_is_urgent(void)
{
	static const struct {
		int error;
		int64_t again;
	} t[] = {
		{ ECONNRESET, 7 SECONDS }, { ECLOSED, 30 SECONDS }
	};
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin("-s a -h w");
		go_on(5 SECONDS);
		cut('a');
		go_on(1 SECONDS);
		cut_by('w', t[i].error);
		go_on(1 MINUTES);
		CHECK(first(OPENED, 'a', 1 SECONDS) == t[i].again);
		end();
	}
}

/* A NAT remembers for some seconds a flow that the server reset, and would
 * give a new one to it the old mapping: another one checks.  After a FIN, or
 * our own reset, it does not. */
static void
reset_flows_do_not_check(void)
{
	static const struct {
		int error, after;	/* ms: the check, after the end */
		int checks;		/* b is asked */
	} t[] = {
		{ ECONNRESET, 2 SECONDS, 0 }, { ECONNRESET, 12900, 0 },
		{ ECONNRESET, 13100, 1 }, { ECLOSED, 2 SECONDS, 1 }
	};
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin("-s a,b -h w -c 10000");
		go_on(5 SECONDS);	/* b holds */
		cut_by('b', t[i].error);
		go_on(t[i].after);
		recheck(&sim.m);
		go_on(0);
		CHECK(count(OPENED, 'a', 1 SECONDS, since_start()) == 1);
		CHECK(count(OPENED, 'b', 1 SECONDS, since_start()) ==
		    t[i].checks);
		end();
	}
	begin("-s a -h w -c 10000");
	go_on(20 SECONDS);
	cut_by('a', ECONNRESET);
	go_on(2 SECONDS);
	recheck(&sim.m);
	go_on(0);
	CHECK(first(OPENED, 'a', 21 SECONDS) == 22 SECONDS);
	end();
}

/* The only STUN server is slow, the keep-alive connection well: nothing is
 * gained by asking anew, so the late answer is waited for. */
static void
late_answer_of_the_only_server(void)
{
	static const int delays[] = { 2600, 3500, 6000, 9500 };
	size_t i;

	for (i = 0; i < LEN(delays); i++) {
		begin("-s a -h w");
		peer('a')->delay = delays[i];
		go_on(5 MINUTES);
		CHECK(sim.ncalls == 1);
		CHECK(sim.call[0].at == delays[i] + (delays[i] < HARD_LIMIT ?
		    0 : HARD_LIMIT));
		CHECK(count(STOPPED, 'a', 0, sim.call[0].at) == 0);
		end();
	}
}


static void
long_outage(void)
{
	static const char *const args[] = { "-u -s a,b", "-s a,b",
	    "-s a,b -h w", "-s a,b -h w -k 10", "-u -s a -k 60" };
	size_t i, mode;
	int64_t back;

	for (i = 0; i < LEN(args); i++)
		for (mode = 0; mode < LEN(bad_modes) * 2; mode++) {
			begin(args[i]);
			go_on(90 SECONDS);
			all_peers(bad_modes[mode / 2]);
			cut('a');
			cut('b');
			cut('w');
			sim.dns_dead = mode % 2;
			go_on(10 MINUTES + 517);
			all_peers(GOOD);
			sim.dns_dead = 0;
			back = since_start();
			go_on(1 MINUTES);
			CHECK(first(ANSWERED, 0, back) <= back + 5 SECONDS +
			    ANSWER_TIME);
			CHECK(sim.ncalls == 1);
			end();
		}
}

/* All are back at once: an attempt that began too early does not keep its
 * server away for long. */
static void
back_together(void)
{
	int64_t back;
	int i;

	for (i = 0; i < 16; i++) {
		begin("-s a,b -k 3");
		go_on(5 SECONDS);
		all_peers(MUTE);
		go_on(2 MINUTES + i * 500);
		all_peers(GOOD);
		back = since_start();
		go_on(1 MINUTES);
		CHECK(first(ANSWERED, 'a', back) <= back + 8 SECONDS);
		CHECK(first(ANSWERED, 'b', back) <= back + 8 SECONDS);
		CHECK(logged("answers again") == 2);
		end();
	}
}

static void
dead_from_the_start(void)
{
	static const char *const args[] = { "-u -s a,b", "-s a,b",
	    "-s a,b -h w" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		all_peers(NO_ROUTE);
		sim.dns_dead = 1;
		sim.source.sa.sa_family = 0;
		go_on(10 MINUTES + 517);
		CHECK(sim.ncalls == 0);
		all_peers(GOOD);
		sim.dns_dead = 0;
		sim.source.sa.sa_family = AF_INET;
		go_on(5 SECONDS + ANSWER_TIME);
		CHECK(sim.ncalls == 1);
		end();
	}
}

/* A dead resolver costs nothing while the addresses are good. */
static void
dead_resolver(void)
{
	begin("-u -s a,b");
	go_on(1 MINUTES);
	sim.dns_dead = 1;
	go_on(60 MINUTES);
	CHECK(longest(ANSWERED, 0, 500, 61 MINUTES) <= 10 SECONDS +
	    2 * ANSWER_TIME);
	end();
}

/* No descriptors for the child that looks up: said once for each server. */
static void
no_look_up(void)
{
	static const struct {
		const char *args;
		int servers;
	} t[] = { { "-u -s a,b", 2 }, { "-s a,b,c", 3 }, { "-s a -h w", 2 } };
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin(t[i].args);
		sim.no_fds = 1;
		go_on(10 MINUTES);
		CHECK(logged("cannot look it up:") == t[i].servers);
		CHECK(logged("natmap: ") == t[i].servers + 1);
		CHECK(logged("no mapping yet: ") == 1);
		CHECK(sim.turns < 1000);
		sim.no_fds = 0;
		go_on(5 SECONDS);
		CHECK(sim.ncalls == 1);
		end();
	}
}

static void
second_address(void)
{
	begin("-s abc -h w");
	peer('a')->mode = REFUSING;
	peer('b')->mode = MUTE;
	go_on(30 SECONDS);
	CHECK(first(OPENED, 'b', 0) <= 1100 && first(OPENED, 'c', 0) <=
	    6 SECONDS);
	CHECK(sim.ncalls == 1);
	end();
}

/* One of a name's addresses is dead for an hour: that is said once, and it is
 * not asked twice in a row. */
static void
one_address_is_dead(void)
{
	static const char *const args[] = { "-u -s ab", "-s ab", "-s ab -h w",
	    "-s abc", "-s ab,c -h w" };
	size_t i, j;

	for (i = 0; i < LEN(args); i++)
		for (j = 0; j < LEN(bad_modes); j++) {
			begin(args[i]);
			peer('b')->mode = bad_modes[j];
			go_on(60 MINUTES);
			CHECK(logged("natmap:") == 1);
			CHECK(sim.ncalls == 1);
			end();
		}
}

/* Two names share an address, which one of them uses; the other's second one
 * is tried again some time after it has failed. */
static void
names_share_an_address(void)
{
	static const char *const args[] = { "-s a,ab", "-s ab,a" };
	size_t i, j;

	for (i = 0; i < LEN(args); i++)
		for (j = 0; j < LEN(bad_modes); j++) {
			begin(args[i]);
			go_on(5 MINUTES);
			peer('b')->mode = bad_modes[j];
			cut('b');
			go_on(3 MINUTES);
			CHECK(logged("closed") + logged("trying") <= 2);
			peer('b')->mode = GOOD;
			go_on(2 MINUTES);
			CHECK(fewest_hosts(31 SECONDS, 9 MINUTES,
			    since_start()) == 2);
			moves_to("203.0.113.7", 40001);
			go_on(64 SECONDS);
			CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
			end();
		}
}

/* What the servers are like, for long already, when the mapping is lost or
 * moves: which are mute, refuse, reset their flows soon, close them at once. */
static const struct state {
	const char *args, *mute, *refuse, *reset, *close;
	int unseen;		/* a move of the inbound side alone is */
} states[] = {
	{ "-s a", "", "", "", "", 1 },
	{ "-s a -h w", "", "", "", "", 0 },
	{ "-s a -h w", "w", "", "", "", 1 },
	{ "-s a -h w", "", "w", "", "", 1 },
	{ "-s a -h w", "", "", "", "w", 1 },
	{ "-s a -h w", "", "", "a", "", 0 },
	{ "-s ab", "", "", "", "", 0 },
	{ "-s a,b", "", "", "", "", 0 },
	{ "-s a,b", "b", "", "", "", 1 },
	{ "-s a,b", "", "b", "", "", 1 },
	{ "-s a,b", "", "", "a", "", 0 },
	{ "-s a,b", "", "", "ab", "", 0 },
	{ "-s a,b", "", "b", "a", "", 1 },
	{ "-s a,b -h w", "", "", "", "", 0 },
	{ "-s a,b -h w", "w", "", "", "", 0 },
	{ "-s a,b -h w", "", "w", "a", "", 0 },
	{ "-s a,b -h w", "", "w", "ab", "", 0 },
	{ "-s a,b -h w", "b", "", "", "", 0 },
	{ "-s a,b -h w", "", "b", "", "", 0 },
	{ "-s a,b -h w", "", "bw", "a", "", 1 },
	{ "-s a,b -h w", "b", "w", "", "", 1 },
	{ "-s a,b -h w", "", "b", "", "w", 1 },
	{ "-s a,b -h w", "b", "", "", "w", 1 },
	{ "-s a,b -h w", "", "", "ab", "w", 0 },
	{ "-s a,b -h w,x", "", "", "a", "wx", 0 },
	{ "-s a,b,c -h w,x", "", "", "abc", "wx", 0 },
	{ "-s a,b,c", "", "bc", "", "", 1 },
	{ "-s a,b,c", "b", "c", "a", "", 1 }
};

static void
begin_in(const struct state *s, int k)
{
	char args[64];
	struct peer *p;

	snprintf(args, sizeof args, "%s -k %d", s->args, k);
	begin(args);
	for (p = sim.peer; p < sim.peer + LEN(sim.peer); p++) {
		p->mode = strchr(s->mute, p->who) ? MUTE :
		    strchr(s->refuse, p->who) ? REFUSING : GOOD;
		p->resets = strchr(s->reset, p->who) != NULL;
		if (p->resets || strchr(s->close, p->who))
			p->close_after = p->resets ? 3 SECONDS : 0;
	}
}

/* The public port changes i eighths of k after five minutes; drop: the NAT has
 * forgotten the flows, without a word.  1 when it was told in that time. */
static int
told_in(const struct state *s, int k, int i, int drop, int64_t ms)
{
	int r;

	begin_in(s, k);
	go_on(5 MINUTES + i * (k SECONDS / 8));
	moves_to("203.0.113.7", 40001);
	if (drop)
		forgotten();
	go_on(ms);
	r = sim.ncalls == 2 && told(1, "203.0.113.7:40001");
	end();
	return r;
}

/* A flow that does not answer holds nothing, and is opened anew where no other
 * server can be asked; the inbound side's move is seen by a check. */
static void
lost_at_any_time(void)
{
	static const int ks[] = { 3, 10, 30 };
	const struct state *s;
	int i, k;

	for (s = states; s < states + LEN(states); s++)
		for (i = 0; i < 8 * (int)LEN(ks); i++) {
			k = ks[i / 8];
			CHECK(told_in(s, k, i % 8, 1, (k + 5) SECONDS));
			CHECK(s->unseen || told_in(s, k, i % 8 * 2, 0,
			    (TCP_CYCLE * k + 3) SECONDS));
		}
}

/* What one server does not tell another tells, once for each check. */
static void
check_of_a_dead_server(void)
{
	static const enum mode modes[] = { MUTE, REFUSING };
	size_t i;

	for (i = 0; i < LEN(modes); i++) {
		begin("-s a,b -h w");
		peer('b')->mode = modes[i];
		go_on(21 MINUTES + 5 SECONDS);
		CHECK(count(OPENED, 'a', 50 SECONDS, since_start()) == 21);
		CHECK(sim.ncalls == 1);
		end();
	}
}

/* The line stalls: the flow that is not opened anew answers late and lives. */
static void
stall(void)
{
	begin("-s a,b -c 10000");
	go_on(5 MINUTES - 1 SECONDS);
	peer('a')->delay = peer('b')->delay = 4 SECONDS;
	go_on(10 SECONDS);
	peer('a')->delay = peer('b')->delay = ANSWER_TIME;
	go_on(5 MINUTES);
	CHECK(count(OPENED, 0, 1 MINUTES, 5 MINUTES + 10 SECONDS) == 1);
	CHECK(ever(STOPPED, 0) == 1 && ever(ENDED, 0) == 0);
	CHECK(fewest_hosts(31 SECONDS, 5 MINUTES, 10 MINUTES) == 2);
	CHECK(sim.ncalls == 1);
	end();
}

int
main(int argc, char **argv)
{
	int fds = open_fds();

	check_args(argc, argv);
	RUN(udp_every_k);
	RUN(udp_takes_turns);
	RUN(udp_overtakes);
	RUN(udp_mute_later);
	RUN(udp_indications);
	RUN(tcp_without_http);
	RUN(tcp_with_http);
	RUN(tcp_one_server_each);
	RUN(tcp_server_closes);
	RUN(tcp_all_close_soon);
	RUN(nothing_else_holds);
	RUN(back_off);
	RUN(back_off_of_a_mute_server);
	RUN(back_off_is_each_servers_own);
	RUN(hup_forgives);
	RUN(dead_stun_leaves_http);
	RUN(dead_http_leaves_stun);
	RUN(mute_http_is_suspected);
	RUN(http_that_closes_each_time);
	RUN(two_http_that_close);
	RUN(one_http_that_closes_once);
	RUN(old_flows_are_renewed);
	RUN(make_before_break);
	RUN(keep_alive_shorter_than_k);
	RUN(reset_is_urgent);
	RUN(reset_of_http_is_urgent);
	RUN(reset_flows_do_not_check);
	RUN(late_answer_of_the_only_server);
	RUN(long_outage);
	RUN(back_together);
	RUN(dead_from_the_start);
	RUN(dead_resolver);
	RUN(no_look_up);
	RUN(second_address);
	RUN(one_address_is_dead);
	RUN(names_share_an_address);
	RUN(lost_at_any_time);
	RUN(check_of_a_dead_server);
	RUN(stall);
	return sim_done(fds);
}
