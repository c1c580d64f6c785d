/* SPDX-License-Identifier: MIT */
/*
 * What is told of the answers: the first, changes, doubts, a NAT that is no
 * cone, liars.
 */
#include "sim.h"

static void
first_answer(void)
{
	static const char *const args[] = { "-u -s a,b", "-s a,b", "-u -s a",
	    "-s a -h w", "-s a,b,c,d -h w,x" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		go_on(20 MINUTES);	/* and no call for the same values */
		CHECK(sim.ncalls == 1 && told(0, "203.0.113.7:40000"));
		CHECK(strcmp(sim.call[0].local, "192.168.1.10:50000") == 0);
		CHECK(sim.call[0].at == ANSWER_TIME);
		CHECK(logged("natmap:") == 0);
		end();
	}
}

static void
changes_are_told(void)
{
	static const struct {
		const char *args;
		int64_t within;
	} t[] = {
		{ "-u -s a,b", 11 SECONDS },
		{ "-u -s a", 11 SECONDS },
		{ "-u -s a,b,c -k 60", 61 SECONDS },
		{ "-s a,b,c -h w", 63 SECONDS },
		{ "-s a,b -h w", 63 SECONDS },
		{ "-s a -h w", 63 SECONDS },
		{ "-s a,b,c", 63 SECONDS },
		{ "-s a,b,c,d -k 10 -c 1", 12 SECONDS }
	};
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		begin(t[i].args);
		go_on(5 MINUTES - 7);
		moves_to("203.0.113.7", 40001);
		go_on(5 MINUTES);
		moves_to("198.51.100.9", 40001);
		go_on(5 MINUTES);
		/* Flows with an old mapping live on and say it. */
		CHECK(sim.ncalls == 3 && told(1, "203.0.113.7:40001"));
		CHECK(told(2, "198.51.100.9:40001"));
		CHECK(sim.call[1].at <= 5 MINUTES + t[i].within);
		CHECK(sim.call[2].at <= 10 MINUTES + t[i].within);
		CHECK(logged("depends") == 0);
		end();
	}
}

/* A dead server among them: the inbound side alone moves, and is seen all the
 * same, whenever the check comes. */
static void
changes_are_told_beside_a_dead_server(void)
{
	static const char *const args[] = { "-s a,b -h w", "-s ab -h w",
	    "-s ab,c -h w", "-s a,b,c -h w", "-s a,b,c,d -h w", "-s a,b,c" };
	size_t i, j;
	int when;

	for (i = 0; i < LEN(args) * LEN(bad_modes); i++)
		for (when = 0; when < 60; when += 7) {
			j = i / LEN(args);
			begin(args[i % LEN(args)]);
			peer('b')->mode = bad_modes[j];
			go_on(5 MINUTES + when SECONDS);
			moves_to("203.0.113.7", 40001);
			go_on(64 SECONDS);
			CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
			end();
		}
	begin("-s a,b -h w");		/* or one without an address */
	go_on(20);
	sim.dns_fails = 1;
	go_on(5 MINUTES);
	moves_to("203.0.113.7", 40001);
	go_on(64 SECONDS);
	CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
	end();
}

/* One server's new word is confirmed by a second one, or by its silence. */
static void
second_say(void)
{
	int64_t asked;

	begin("-u -s a,b,c");
	go_on(65 SECONDS);
	moves_to("203.0.113.7", 40001);
	go_on(30 SECONDS);
	asked = first(ASKED, 0, 65 SECONDS);
	CHECK(sim.call[1].at == asked + 2 * ANSWER_TIME);
	end();
}

static void
second_say_is_silent(void)
{
	int64_t asked;

	begin("-u -s a,b");
	go_on(69 SECONDS);
	asked = first(ASKED, 'a', 60 SECONDS) != NEVER ? 'b' : 'a';
	peer((int)asked ^ 'a' ^ 'b')->mode = MUTE;
	moves_to("203.0.113.7", 40001);
	go_on(5 SECONDS);
	asked = first(ASKED, (int)asked, 69 SECONDS);
	CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
	CHECK(sim.call[1].at == asked + ANSWER_TIME + 1000);
	end();
	begin("-u -s a");	/* no second server: at once */
	go_on(69 SECONDS);
	moves_to("203.0.113.7", 40001);
	go_on(5 SECONDS);
	asked = first(ASKED, 'a', 69 SECONDS);
	CHECK(sim.ncalls == 2 && sim.call[1].at <= asked + 1000 +
	    ANSWER_TIME);
	end();
}

/* Every server sees another port: one warning, the first one's word. */
static void
depends_on_the_destination(void)
{
	static const char *const args[] = { "-u -s a,b,c", "-s a,b,c",
	    "-s a,b,c -h w", "-u -s a,b", "-s a,b" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		set_mapped(peer('b'), "203.0.113.7", 40001);
		set_mapped(peer('c'), "203.0.113.7", 40002);
		go_on(4 * ANSWER_TIME);		/* two pairs, at once */
		CHECK(logged("depends on the destination") == 1);
		go_on(20 MINUTES);
		CHECK(told(0, "203.0.113.7:40000"));
		CHECK(sim.ncalls == 1);
		CHECK(logged("depends on the destination") == 1);
		set_mapped(peer('b'), "203.0.113.7", 41001);
		go_on(20 MINUTES);
		CHECK(sim.ncalls == 1);
		set_mapped(peer('a'), "203.0.113.7", 41000);
		cut('a');
		go_on(5 MINUTES);
		CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:41000"));
		CHECK(logged("depends on the destination") == 1);
		end();
	}
}

static void
begin_without_cone(const char *args)
{
	int i;

	begin(args);
	for (i = 'a'; i <= 'd'; i++)
		set_mapped(peer(i), "203.0.113.7", 40000 + i - 'a');
	go_on(3 MINUTES);
	CHECK(sim.m.depends && sim.ncalls == 1);
}

/* That was said of a NAT which is no longer ours. */
static void
depends_no_longer(void)
{
	static const char *const args[] = { "-u -s a,b,c,d", "-s a,b,c,d",
	    "-s a,b,c,d -h w" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin_without_cone(args[i]);
		peer('a')->mode = MUTE;
		moves_to("198.51.100.77", 42000);
		addr_parse(&sim.source, "192.168.9.9", AF_INET);
		sim.news = 1;
		go_on(6 SECONDS);
		CHECK(sim.ncalls == 2 && told(1, "198.51.100.77:42000"));
		CHECK(!sim.m.depends);
		moves_to("198.51.100.77", 42001);
		go_on(65 SECONDS);
		CHECK(sim.ncalls == 3 && told(2, "198.51.100.77:42001"));
		CHECK(logged("depends on the destination") == 1);
		end();
	}
}

/* The first server's word counts, another's while that one fails. */
static void
depends_and_the_first_fails(void)
{
	static const char *const args[] = { "-u -s a,b,c,d", "-s a,b,c,d",
	    "-s a,b,c,d -h w" };
	size_t i;
	int calls;

	for (i = 0; i < LEN(args); i++) {
		begin_without_cone(args[i]);
		peer('b')->mode = MUTE;         /* another one says nothing */
		cut('b');
		go_on(10 MINUTES);
		CHECK(sim.ncalls == 1);
		peer('a')->mode = MUTE;
		cut('a');
		peer('b')->mode = GOOD;
		moves_to("198.51.100.77", 42000);
		go_on(5 MINUTES);
		calls = sim.ncalls;
		CHECK(calls >= 2 && told(calls - 1, "198.51.100.77:42000"));
		peer('a')->mode = GOOD;
		set_mapped(peer('a'), "203.0.113.9", 43000);
		go_on(20 MINUTES);		/* and is the first now */
		CHECK(sim.ncalls == calls);
		end();
	}
}

/* One odd answer is neither a move nor a NAT that is no cone. */
static void
single_difference(void)
{
	begin("-u -s a,b,c");
	go_on(1 MINUTES);
	set_mapped(peer('b'), "203.0.113.7", 40001);
	go_on(first(ASKED, 0, 50 SECONDS) + 10 SECONDS - since_start());
	while (sim.ev[sim.nev - 1].who != 'b')
		go_on(10 SECONDS);
	set_mapped(peer('b'), "203.0.113.7", 40000);
	go_on(10 MINUTES);
	CHECK(sim.ncalls == 1 && logged("depends") == 0);
	CHECK(count(ASKED, 0, 60 SECONDS, 10 MINUTES) == 54 + 2);
	end();
}

/* One server that lies does not move the mapping. */
static void
one_liar(void)
{
	begin("-s a,b,c -h w -k 10 -c 1");
	go_on(1 MINUTES);
	set_mapped(peer('c'), "192.0.2.66", 666);
	go_on(10 MINUTES);
	CHECK(sim.ncalls == 1 || logged("depends on the destination") == 1);
	CHECK(strcmp(sim.call[sim.ncalls - 1].text, "203.0.113.7:40000") ==
	    0);
	end();
}

/* An answer that is late and old is not believed against newer ones. */
static void
stale_answer(void)
{
	int who;

	begin("-u -s a,b,c,d");
	go_on(61 SECONDS);
	for (who = 'a'; who <= 'd'; who++)
		peer(who)->delay = 4 SECONDS;
	go_on(9 SECONDS);		/* one asks under the old mapping */
	for (who = 'a'; who <= 'd'; who++)
		peer(who)->delay = ANSWER_TIME;
	moves_to("203.0.113.7", 40001);
	go_on(5 MINUTES);
	CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
	CHECK(logged("depends") == 0);
	end();
}

/* A NAT that remembers old flows: b still says what was true, which neither
 * undoes the news nor makes the NAT one without a cone. */
static void
one_remembers(void)
{
	begin("-u -s a,b");
	go_on(1 MINUTES);
	set_mapped(peer('a'), "203.0.113.7", 40001);
	go_on(10 MINUTES);
	CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
	set_mapped(peer('b'), "203.0.113.7", 40001);
	go_on(1 MINUTES);
	moves_to("203.0.113.7", 40002);
	go_on(21 SECONDS);
	CHECK(sim.ncalls == 3 && told(2, "203.0.113.7:40002"));
	CHECK(logged("depends") == 0);
	end();
}

/* until the next answer; who gave it, 0 when none comes */
static int
next_answer(void)
{
	int i, n = sim.nev;

	do
		for (i = n; i < sim.nev; i++)
			if (sim.ev[i].what == ANSWERED)
				return sim.ev[i].who;
	while (turn(sim.now + 1 MINUTES));
	return 0;
}

/* Who brought a doubt up, or spoke against it, is not heard twice: while a
 * says the new and b the old, each of them again decides nothing. */
static void
one_voice_each(void)
{
	static const enum mode b[] = { GOOD, MUTE };
	int64_t then;
	size_t i;
	int ms, who;

	for (i = 0; i < LEN(b); i++)
		for (ms = 50; ms < 900; ms += 50) {
			begin("-u -s a,b");
			go_on(1 MINUTES);
			peer('b')->mode = b[i];
			set_mapped(peer('a'), "203.0.113.7", 40001);
			do
				who = next_answer();
			while (who && who != 'a');
			then = since_start();
			go_on(ms);
			recheck(&sim.m, sim.now);
			go_on(5 SECONDS);
			CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40001"));
			CHECK(sim.call[1].at == then + 1000);
			end();
		}
}

/* The mapping moves on while it is in doubt: the newest word counts, and needs
 * a second one of its own. */
static void
moved_again_in_doubt(void)
{
	static const char *const args[] = { "-u -s a,b,c", "-u -s a,b,c,d,e" };
	int64_t asked;
	size_t i;
	int who;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		go_on(65 SECONDS);
		who = next_answer() - 'a' + 1;
		who = 'a' + who % sim.c.nstun;
		moves_to("203.0.113.7", 40002);
		set_mapped(peer(who), "203.0.113.7", 40001);
		asked = since_start();
		go_on(12 SECONDS);
		asked = first(ASKED, who, asked);
		CHECK(sim.ncalls == 2 && told(1, "203.0.113.7:40002"));
		CHECK(sim.call[1].at == asked + 3 * ANSWER_TIME);
		end();
	}
}

/* how many flows were stopped in the moment when they were opened */
static int
stillborn(void)
{
	int i, n = 0;

	for (i = 1; i < sim.nev; i++)
		n += sim.ev[i].what == STOPPED &&
		    sim.ev[i - 1].what == ASKED &&
		    sim.ev[i].who == sim.ev[i - 1].who &&
		    sim.ev[i].at == sim.ev[i - 1].at;
	return n;
}

/* A retired flow's late answer is news, and the probe that it causes takes its
 * place, since no other is free. */
static void
late_news(void)
{
	char args[32];
	int k, delay;

	for (k = 1; k <= 4; k++)
		for (delay = 3010; delay < 9900; delay += 250) {
			snprintf(args, sizeof args, "-u -s a,b -k %d", k);
			begin(args);
			go_on(20 SECONDS);
			peer('a')->delay = delay;
			set_mapped(peer('a'), "203.0.113.9", 45000);
			go_on(40 SECONDS);
			CHECK(stillborn() == 0);
			end();
		}
}

int
main(int argc, char **argv)
{
	int fds = open_fds();

	check_args(argc, argv);
	RUN(first_answer);
	RUN(changes_are_told);
	RUN(changes_are_told_beside_a_dead_server);
	RUN(second_say);
	RUN(second_say_is_silent);
	RUN(depends_on_the_destination);
	RUN(depends_no_longer);
	RUN(depends_and_the_first_fails);
	RUN(single_difference);
	RUN(one_liar);
	RUN(stale_answer);
	RUN(one_remembers);
	RUN(one_voice_each);
	RUN(moved_again_in_doubt);
	RUN(late_news);
	return sim_done(fds);
}
