/* SPDX-License-Identifier: MIT */
/*
 * What is told of the answers: the first ones, liars, moves, a NAT that is no
 * cone, addresses that cannot be ours, and which port -p 0 follows.
 */
#include "sim.h"

#define TRUTH	"203.0.113.7:40000"
#define MOVED	"203.0.113.7:40001"
#define LIE	"6.6.6.6"

/*
 * The verdict alone.  In a row each name is a letter: what it said by a fresh
 * flow, or in lower case by one that the NAT may remember; '?' is awaited, and
 * '-' is dead.  O is announced.
 */

static union addr said[16];
static struct voice voice[16];

static int
read_voices(const char *row)
{
	int n;

	memset(voice, 0, sizeof voice);
	for (n = 0; row[n]; n++) {
		set_addr(&said[n], LIE, row[n] & 31);
		voice[n].said = row[n] >= 'A' ? &said[n] : NULL;
		voice[n].fresh = row[n] >= 'A' && row[n] <= 'Z';
		voice[n].awaited = row[n] == '?';
	}
	return n;
}

static int
is_ruling(const struct verdict *r, enum ruling ruling, int letter)
{
	return r->ruling == ruling && (!letter ||
	    addr_port(r->addr) == (letter & 31));
}

static void
table_of_the_first(void)
{
	static const struct {
		const char *voices;
		int64_t age;
		enum ruling ruling;
		int addr;	/* 0: not looked at */
		int64_t ms;
	} t[] = {
		{ "???", 0, NOTHING, 0, 0 },
		{ "O", 0, ANNOUNCE, 'O', 0 },
		{ "O?O", 0, ANNOUNCE, 'O', 0 },
		{ "LOO", 0, ANNOUNCE, 'O', 0 },
		{ "OO-", 0, ANNOUNCE, 'O', 0 },
		{ "?O", 0, WAIT, 0, 1000 },	/* only two */
		{ "?O", 999, WAIT, 0, 1 },
		{ "?O", 1000, ANNOUNCE, 'O', 0 },
		{ "-O-", 0, WAIT, 0, 1000 },	/* nobody is awaited */
		{ "-O-", 1000, ANNOUNCE, 'O', 0 },
		{ "?O?", 1000, WAIT, 0, 3000 },
		{ "?O?", 4000, ANNOUNCE, 'O', 0 },
		{ "LO?", 0, WAIT, 0, 4000 },
		{ "LO?", 4000, UNPROVED, 0, 0 },
		{ "LO-", 0, UNPROVED, 0, 0 },
		{ "LO", 0, UNPROVED, 0, 0 },
		{ "LLOO?", 0, WAIT, 0, 4000 },
		{ "LLOO", 0, UNPROVED, 0, 0 },
		{ "ABC", 0, DIFFER, 0, 0 },
		{ "ABC?", 0, WAIT, 0, 4000 },
		{ "ABCA", 0, ANNOUNCE, 'A', 0 }
	};
	struct verdict r;
	size_t i;
	int n;

	for (i = 0; i < LEN(t); i++) {
		n = read_voices(t[i].voices);
		r = verdict(voice, n, NULL, t[i].age);
		CHECK(is_ruling(&r, t[i].ruling, t[i].addr));
		CHECK(r.ruling != WAIT || r.ms == t[i].ms);
	}
}

static const struct {
	const char *voices;
	int64_t age;
	enum ruling ruling;
	int addr;
} doubts[] = {
	{ "O--", 0, NOTHING, 0 },       /* who began it takes it back */
	{ "ooO", 0, NOTHING, 0 },
	{ "oo?", 0, WAIT, 0 },
	{ "???", 0, WAIT, 0 },
	{ "oo?", 10000, NOTHING, 0 },
	/* 1: two voices, more than any other and O's fresh ones */
	{ "XX", 0, ANNOUNCE, 'X' },
	{ "XXO?", 0, ANNOUNCE, 'X' },
	{ "XXooo?", 0, ANNOUNCE, 'X' },
	{ "XXL???", 0, ANNOUNCE, 'X' },
	{ "XXXOO", 0, ANNOUNCE, 'X' },
	{ "Xx-", 0, ANNOUNCE, 'X' },	/* nobody speaks for O */
	/* 2: O has two fresh ones, and no fewer */
	{ "LOO?", 0, OUTVOTED, 0 },
	{ "LLOO?", 0, OUTVOTED, 0 },
	{ "ABCOOoo", 0, OUTVOTED, 0 },
	/* 3: who can be heard is waited for */
	{ "XO?", 0, WAIT, 0 },
	{ "Xo?", 9999, WAIT, 0 },
	{ "X?", 0, WAIT, 0 },
	{ "XXAAO?", 0, WAIT, 0 },
	/* 4: one fresh voice for O */
	{ "XO", 0, UNPROVED, 0 },
	{ "XOo", 0, UNPROVED, 0 },
	{ "XO?", 10000, UNPROVED, 0 },
	{ "XXAAO", 0, UNPROVED, 0 },
	/* 5: only voices that the NAT may remember */
	{ "Xo", 0, RESTING, 0 },
	{ "Xooo", 0, RESTING, 0 },
	{ "Xxoo", 0, RESTING, 0 },	/* and it may remember X */
	{ "XAo", 0, RESTING, 0 },
	{ "Xo?", 10000, RESTING, 0 },
	/* 6: nobody else can be heard */
	{ "X", 0, ONE_OTHER, 'X' },
	{ "X--", 0, ONE_OTHER, 'X' },
	{ "X??", 10000, ONE_OTHER, 'X' },
	/* 7: no two agree */
	{ "XA", 0, DIFFER, 0 },
	{ "XAO", 0, DIFFER, 0 },
	{ "ABC", 0, DIFFER, 0 },
	{ "XAOo", 0, UNPROVED, 0 },
	{ "XXAA", 0, UNPROVED, 0 }
};

static void
table_of_doubts(void)
{
	struct verdict r;
	union addr o;
	size_t i;
	int n;

	set_addr(&o, LIE, 'O' & 31);
	for (i = 0; i < LEN(doubts); i++) {
		n = read_voices(doubts[i].voices);
		r = verdict(voice, n, &o, doubts[i].age);
		CHECK(is_ruling(&r, doubts[i].ruling, doubts[i].addr));
		CHECK(r.ruling != WAIT || r.ms == DOUBT_LIMIT - doubts[i].age);
	}
}

/*
 * Line-ups: a letter for each name: honest, slow, dead, refusing; a liar from
 * the start, one that lies Later, one that says another port each time.  The
 * NAT remembers UDP flows.
 */

static void
line_up(const char *options, const char *kinds)
{
	char args[128];
	struct peer *p;
	int i, n;

	n = snprintf(args, sizeof args, "%s -s a", options);
	for (i = 1; kinds[i]; i++)
		n += snprintf(args + n, sizeof args - (size_t)n, ",%c",
		    'a' + i);
	begin(args);
	sim.remembers = 1;
	for (i = 0; kinds[i]; i++) {
		p = peer('a' + i);
		p->mode = kinds[i] == 'd' ? MUTE :
		    kinds[i] == 'r' ? REFUSING : GOOD;
		p->delay = kinds[i] == 's' ? 550 : ANSWER_TIME;
		if (strchr("lLv", kinds[i])) {
			set_addr(&p->lie, LIE, kinds[i] == 'v' ?
			    1000 * (i + 1) : 666);
			p->delay = 20;
			p->honest = kinds[i] == 'L';
			p->varies = kinds[i] == 'v';
		}
	}
}

/* how many calls are no truth */
static int
lies(void)
{
	int i, n = 0;

	for (i = 0; i < sim.ncalls; i++)
		n += !told(i, TRUTH) && !told(i, MOVED);
	return n;
}

enum move { STAYS, FLUSHED, INBOUND };  /* the NAT forgets all flows, or gives
					   new ones another address */

/* how long a move at that time takes to be told, in ten minutes; -1 when
 * anything else was told */
static int64_t
time_to_tell(const char *options, const char *kinds, enum move move,
    int64_t at)
{
	int64_t ms = -1;

	line_up(options, kinds);
	go_on(at);
	if (move == FLUSHED)
		forgotten();
	if (move != STAYS)
		moves_to("203.0.113.7", 40001);
	go_on(10 MINUTES);
	if (lies() == 0 && told(0, TRUTH) && sim.ncalls == 1)
		ms = move == STAYS ? 0 : NEVER;
	if (lies() == 0 && sim.ncalls == 2 && told(1, MOVED))
		ms = sim.call[1].at - at;
	end();
	return ms;
}

static void
swap(char *a, char *b)
{
	char c = *a;

	*a = *b;
	*b = c;
}

/* calls f for every order of s from i on */
static void
orders(char *s, int i, void (*f)(const char *s))
{
	int k;

	if (!s[i])
		f(s);
	for (k = i; s[k]; k++) {
		swap(&s[i], &s[k]);
		orders(s, i + 1, f);
		swap(&s[i], &s[k]);
	}
}

/*
 * The first announcement.
 */

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

/* Several answers, an honest one among them: what is told, and when. */
static void
first_of_several(void)
{
	static const struct {
		const char *kinds;
		int64_t udp, tcp;	/* ms: told */
	} t[] = {
		{ "hhh", 30, 30 }, { "lhh", 30, 30 }, { "hlh", 30, 30 },
		{ "hhl", 30, 30 }, { "lhs", 550, 550 }, { "hs", 550, 550 },
		{ "hd", 1030, 1030 }, { "dh", 1030, 1030 },
		{ "rh", 1030, 1030 }, { "hdd", 3030, 4000 },
		{ "hdds", 3550, 3050 }, { "lddhh", 3030, 2530 },
		{ "ddlhhh", 3030, 2530 }, { "lhddh", 60, 60 },
		{ "lvhh", 50, 50 }, { "vhvh", 50, 50 }, { "lsssss", 550, 550 },
		{ "hrr", 1030, 1030 }, { "lrhrh", 60, 60 }
	};
	size_t i;
	int tcp;

	for (i = 0; i < LEN(t); i++)
		for (tcp = 0; tcp < 2; tcp++) {
			line_up(tcp ? "-1" : "-u -1", t[i].kinds);
			go_on(10 SECONDS);
			CHECK(sim.ncalls == 1 && told(0, TRUTH));
			CHECK(sim.call[0].at == (tcp ? t[i].tcp : t[i].udp));
			CHECK(!logged(", but ") == !strpbrk(t[i].kinds, "lv"));
			end();
		}
}

/* Three names are asked at first, and no more where two of them agree. */
static void
first_asks_three(void)
{
	static const char *const args[] = { "-u -s a,b,c,d,e,f",
	    "-s a,b,c,d,e,f" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		go_on(5 SECONDS);
		CHECK(ever(ASKED, 0) == 3);
		end();
		begin(args[i]);
		set_mapped(peer('a'), LIE, 666);
		set_mapped(peer('b'), LIE, 667);
		go_on(5 SECONDS);
		CHECK(count(ASKED, 'd', -1, 100) == 1);
		CHECK(count(ASKED, 'e', -1, 100) == 1);
		CHECK(count(ASKED, 'f', -1, 100) == 0);
		end();
	}
}

/*
 * Liars.
 */

static void
no_lie_in(const char *kinds)
{
	CHECK(time_to_tell("-u", kinds, STAYS, 0) == 0);
	CHECK(time_to_tell("", kinds, STAYS, 0) == 0);
	CHECK(time_to_tell("-h w", kinds, STAYS, 0) == 0);
}

static void
liar_in_each_place(void)
{
	static const char *const kinds[] = { "hhl", "hhL", "hhv", "hhhl",
	    "hhhv", "hhhL" };
	char s[8];
	size_t i;

	for (i = 0; i < LEN(kinds); i++) {
		strcpy(s, kinds[i]);
		orders(s, 0, no_lie_in);
	}
}

/* The line-ups by which the rule was made, in some orders. */
static void
many_servers_and_a_liar(void)
{
	static const char *const kinds[] = { "hhhLdhhhhhh", "ssssssssssl",
	    "hhhhv", "hlds", "ddlhdh" };
	char s[16];
	size_t i, k, n;
	int turns;

	for (i = 0; i < LEN(kinds); i++) {
		strcpy(s, kinds[i]);
		n = strlen(s);
		for (turns = 0; turns < 6; turns++) {
			/* nobody outside can be told from the first alone */
			if (strncmp(s, "lddd", 4))
				no_lie_in(s);
			for (k = 0; k < n; k++)
				swap(&s[k], &s[(k * 7 + 3) % n]);
		}
	}
}

/* A name has one voice, however many addresses it has. */
static void
liar_with_three_addresses(void)
{
	static const char *const args[] = { "-u -s abc,d,e", "-s abc,d,e",
	    "-u -s d,abc,e", "-s d,abc,e -h w", "-u -s d,e,abc -k 3",
	    "-u -s d,abc,e,f,g,h" };
	size_t i;
	int who;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		sim.remembers = 1;
		for (who = 'a'; who <= 'c'; who++)
			set_addr(&peer(who)->lie, LIE, 666);
		go_on(10 MINUTES);
		CHECK(sim.ncalls == 1 && told(0, TRUTH));
		end();
	}
}

/* Two names at one address are one voice. */
static void
liar_with_two_names(void)
{
	static const char *const args[] = { "-u -s a,a,b,c", "-s a,a,b,c",
	    "-u -s b,a,a,c", "-s b,a,a,c -h w" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		sim.remembers = 1;
		set_addr(&peer('a')->lie, LIE, 666);
		go_on(10 MINUTES);
		CHECK(sim.ncalls == 1 && told(0, TRUTH));
		end();
	}
}

/* An outvoted server is left alone for ten minutes, and said once. */
static void
outvoted(void)
{
	static const char *const options[] = { "-u", "", "-h w" };
	size_t i;
	int64_t least;

	for (i = 0; i < LEN(options); i++) {
		line_up(options[i], "hhhhhL");
		go_on(60 MINUTES);
		CHECK(sim.ncalls == 1);
		CHECK(logged("says 6.6.6.6:666, but ") == 1);
		CHECK(logged("outvoted, not asked for 10 minutes") == 1);
		gaps(ASKED, 'f', 5 MINUTES, 60 MINUTES, &least);
		CHECK(least >= 10 MINUTES);
		end();
	}
}

/* One word against one: the first stays, and both are named. */
static void
one_word_against_one(void)
{
	static const char *const args[] = { "-u", "" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		line_up(args[i], "hL");
		go_on(30 MINUTES);
		CHECK(sim.ncalls == 1 && told(0, TRUTH));
		CHECK(logged("b:3478 says 6.6.6.6:666, but a:3478 says "
		    TRUTH) == 1);
		CHECK(logged("outvoted") == 0);
		end();
	}
}

/* All honest servers are gone for some seconds when the liar speaks. */
static void
liar_alone_for_a_moment(void)
{
	static const char *const options[] = { "-u", "", "-h w" };
	size_t i;
	int ms, who;

	for (i = 0; i < LEN(options); i++)
		for (ms = 0; ms < 60 SECONDS; ms += 2500) {
			line_up(options[i], "hhhL");
			go_on(2 MINUTES + ms);
			for (who = 'a'; who <= 'c'; who++) {
				peer(who)->mode = MUTE;
				cut_by(who, ECLOSED);
			}
			go_on(3 SECONDS);
			for (who = 'a'; who <= 'c'; who++)
				peer(who)->mode = GOOD;
			go_on(5 MINUTES);
			CHECK(lies() == 0);
			end();
		}
}

/* Two honest servers, a liar, a slow and a dead one in every order: no lie is
 * told in ten minutes, and a move is, within the limits. */
static int order_number;

static void
in_this_order(const char *kinds)
{
	/* the moves come at any time of a cycle */
	int64_t at = 5 MINUTES + 97 + order_number++ * 517;
	int64_t ms;

	no_lie_in(kinds);
	/* k, and where a dead one is asked, its silence */
	ms = time_to_tell("-u", kinds, FLUSHED, at);
	CHECK(ms >= 0 && ms <= 13600);
	/* one of the few is left alone for 125 s, and before that a live one
	 * is asked once in 40 s */
	ms = time_to_tell("-u", kinds, INBOUND, at);
	CHECK(ms >= 0 && ms <= 175 SECONDS);
	ms = time_to_tell("", kinds, FLUSHED, at);
	CHECK(ms >= 0 && ms <= 36 SECONDS);
	ms = time_to_tell("-h w", kinds, FLUSHED, at);
	CHECK(ms >= 0 && ms <= 36 SECONDS);
	ms = time_to_tell("", kinds, INBOUND, at);
	CHECK(ms >= 0 && ms <= 64 SECONDS);
	ms = time_to_tell("-h w", kinds, INBOUND, at);
	CHECK(ms >= 0 && ms <= 64 SECONDS);
}

static void
every_order_of_five(void)
{
	char kinds[] = "hhlsd";

	order_number = 0;
	orders(kinds, 0, in_this_order);
}

/*
 * Moves.
 */

/* With every number of servers, at any time of a cycle. */
static void
moves_are_told(void)
{
	static const struct {
		const char *options, *kinds;
		enum move move;
		int64_t within;
	} t[] = {
		{ "-u", "h", FLUSHED, 10100 },
		{ "-u", "hh", FLUSHED, 10100 },
		{ "-u", "hd", FLUSHED, 13600 },
		{ "-u", "hhh", FLUSHED, 10100 },
		{ "-u", "hhhh", FLUSHED, 10100 },
		{ "-u", "hhhhh", FLUSHED, 10100 },
		{ "-u", "hhhhhhhhhhh", FLUSHED, 10100 },
		{ "-u", "hhhhdhdhhdh", FLUSHED, 10100 },
		{ "-u", "hhhl", FLUSHED, 25 SECONDS },
		{ "-u", "hhl", FLUSHED, 34 SECONDS },
		{ "-u", "hhhhlhhhhhh", FLUSHED, 10100 },
		{ "-u", "hh", INBOUND, 165 SECONDS },
		{ "-u", "hhh", INBOUND, 135 SECONDS },
		{ "-u", "hhd", INBOUND, 175 SECONDS },
		{ "-u", "hhhh", INBOUND, 10100 },
		{ "-u", "hhhhh", INBOUND, 10100 },
		{ "-u", "hhhhhhhhhhh", INBOUND, 10100 },
		{ "-u", "hhhhdhdhhdh", INBOUND, 10100 },
		{ "-u", "hhhhlhhhhhh", INBOUND, 10100 },
		{ "-u", "hhhl", INBOUND, 165 SECONDS },
		{ "-u", "hhl", INBOUND, 165 SECONDS },
		{ "", "h", FLUSHED, 36 SECONDS },
		{ "", "hh", FLUSHED, 36 SECONDS },
		{ "", "hdh", FLUSHED, 36 SECONDS },
		{ "", "hhhhhhhh", FLUSHED, 36 SECONDS },
		{ "-h w", "hhl", FLUSHED, 36 SECONDS },
		{ "", "hh", INBOUND, 64 SECONDS },
		{ "", "hhd", INBOUND, 64 SECONDS },
		{ "", "hhhh", INBOUND, 64 SECONDS },
		{ "-h w", "h", INBOUND, 64 SECONDS },
		{ "-h w", "hhhd", INBOUND, 64 SECONDS },
		{ "-h w", "hhl", INBOUND, 64 SECONDS }
	};
	int64_t ms;
	size_t i;
	int phase;

	for (i = 0; i < LEN(t); i++)
		for (phase = 0; phase < 12; phase++) {
			ms = time_to_tell(t[i].options, t[i].kinds, t[i].move,
			    400100 + phase * (t[i].options[0] == '-' &&
			    t[i].options[1] == 'u' ? 830 : 5170));
			CHECK(ms >= 0 && ms <= t[i].within);
		}
}

/* Where nobody else answers, new flows are never seen: the manual says so. */
static void
moves_that_cannot_be_seen(void)
{
	CHECK(time_to_tell("-u", "h", INBOUND, 400100) == NEVER);
	CHECK(time_to_tell("-u", "hd", INBOUND, 400100) == NEVER);
	CHECK(time_to_tell("", "h", INBOUND, 400100) == NEVER);
}

/* A move back to where it was is one. */
static void
moves_back(void)
{
	static const char *const options[] = { "-u", "", "-h w" };
	size_t i;

	for (i = 0; i < LEN(options); i++) {
		line_up(options[i], "hhhL");
		go_on(5 MINUTES);
		forgotten();
		moves_to("203.0.113.7", 40001);
		go_on(5 MINUTES);
		forgotten();
		moves_to("203.0.113.7", 40000);
		go_on(5 MINUTES);
		CHECK(sim.ncalls == 3 && told(1, MOVED) && told(2, TRUTH));
		end();
	}
}

/* A move is told even when all other servers have died. */
static void
the_last_one_is_believed(void)
{
	static const char *const options[] = { "-u", "" };
	size_t i;

	for (i = 0; i < LEN(options); i++) {
		line_up(options[i], "hhhh");
		go_on(5 MINUTES);
		peer('b')->mode = peer('c')->mode = peer('d')->mode = MUTE;
		cut('b');
		cut('c');
		cut('d');
		go_on(5 MINUTES);
		forgotten();
		moves_to("203.0.113.7", 40001);
		go_on(80 SECONDS);
		CHECK(sim.ncalls == 2 && told(1, MOVED));
		end();
	}
}

/* At most one announcement in two seconds, and the newest one. */
static void
flap_limit(void)
{
	int i, port = 40001;

	begin("-u -s a,b,c,d,e -k 1");
	go_on(20 SECONDS);
	for (i = 0; i < 600; i++) {
		moves_to("203.0.113.7", port++);
		go_on(200);
	}
	go_on(20 SECONDS);
	CHECK(sim.ncalls > 20);
	for (i = 1; i < sim.ncalls; i++)
		CHECK(sim.call[i].at - sim.call[i - 1].at >= 2 SECONDS);
	CHECK(told(sim.ncalls - 1, "203.0.113.7:40600"));
	end();
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
	CHECK(sim.call[1].at <= asked + 3 * ANSWER_TIME);
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
	CHECK(sim.call[1].at <= asked + ANSWER_TIME + LATE_UDP);
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

/*
 * A NAT that is no cone, and what is none.
 */

/* Every server sees another port: one warning, the first one's word. */
static void
depends_on_the_destination(void)
{
	static const char *const args[] = { "-u -s a,b,c", "-s a,b,c",
	    "-s a,b,c -h w", "-u -s a,b,c,d,e" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		set_mapped(peer('d'), "203.0.113.7", 40003);
		set_mapped(peer('e'), "203.0.113.7", 40004);
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

/* The NAT was a cone, and is none any longer: all are asked twice. */
static void
no_cone_any_longer(void)
{
	static const struct {
		const char *options;
		int64_t within;
	} t[] = {
		{ "-u", 11 SECONDS }, { "", 64 SECONDS }, { "-h w", 64 SECONDS }
	};
	size_t i;
	int n, who;

	for (i = 0; i < LEN(t); i++)
		for (n = 3; n <= 5; n++) {
			line_up(t[i].options, &"hhhhh"[5 - n]);
			go_on(61 SECONDS);
			forgotten();
			for (who = 'a'; who <= 'e'; who++)
				set_mapped(peer(who), "203.0.113.7",
				    41000 + who);
			go_on(t[i].within);
			CHECK(logged("depends on the destination: this") == 1);
			go_on(20 MINUTES);
			CHECK(logged("depends on the destination") == 1);
			CHECK(sim.ncalls <= 2);
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
	CHECK(sim.ncalls == 1 && logged("no cone") == 0);
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

/* A NAT that remembers b's flow for longer than any should: one word against
 * one, until b says the same. */
static void
one_remembers(void)
{
	static const char *const args[] = { "-u -s a,b", "-s a,b" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		go_on(1 MINUTES);
		set_mapped(peer('a'), "203.0.113.7", 40001);
		go_on(10 MINUTES);
		CHECK(sim.ncalls == 1);
		set_mapped(peer('b'), "203.0.113.7", 40001);
		go_on(3 MINUTES);
		CHECK(sim.ncalls == 2 && told(1, MOVED));
		CHECK(logged("one is wrong, or this NAT is not a cone") == 1);
		CHECK(logged("no cone") == 0);
		end();
	}
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
		CHECK(sim.call[1].at <= asked + 3 * ANSWER_TIME);
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

/*
 * Addresses that cannot be ours, and the port of -p 0.
 */

static void
plausible(void)
{
	static const struct {
		const char *mapped, *local;
		int port, ok;
	} t[] = {
		{ "203.0.113.7", "192.168.1.10", 1, 1 },
		{ "203.0.113.7", "192.168.1.10", 0, 0 },
		{ "10.0.0.1", "192.168.1.10", 1, 1 },
		{ "100.64.0.1", "192.168.1.10", 1, 1 },
		{ "1.0.0.1", "192.168.1.10", 1, 1 },
		{ "0.0.0.0", "192.168.1.10", 1, 0 },
		{ "0.1.2.3", "192.168.1.10", 1, 0 },
		{ "127.0.0.1", "192.168.1.10", 1, 0 },
		{ "127.0.0.1", "127.0.0.2", 1, 1 },
		{ "223.255.255.255", "192.168.1.10", 1, 1 },
		{ "224.0.0.1", "192.168.1.10", 1, 0 },
		{ "240.0.0.1", "192.168.1.10", 1, 0 },
		{ "255.255.255.255", "192.168.1.10", 1, 0 },
		{ "2001:db8::1", "192.168.1.10", 1, 0 },
		{ "203.0.113.7", "2001:db8::2", 1, 0 },
		{ "2001:db8::1", "2001:db8::2", 1, 1 },
		{ "2001:db8::1", "2001:db8::2", 0, 0 },
		{ "fd00::1", "fd00::2", 1, 1 },
		{ "::", "2001:db8::2", 1, 0 },
		{ "::1", "2001:db8::2", 1, 0 },
		{ "::1", "::1", 1, 1 },
		{ "::ffff:203.0.113.7", "2001:db8::2", 1, 0 },
		{ "fe80::1", "2001:db8::2", 1, 0 },
		{ "ff02::1", "2001:db8::2", 1, 0 }
	};
	union addr a, l;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		set_addr(&a, t[i].mapped, t[i].port);
		set_addr(&l, t[i].local, 50000);
		CHECK(is_plausible(&a, &l) == t[i].ok);
	}
}

/* A server that tells such an address has failed. */
static void
implausible_is_a_failure(void)
{
	static const char *const args[] = { "-u -s a,b", "-s a,b" };
	size_t i;

	for (i = 0; i < LEN(args); i++) {
		begin(args[i]);
		set_mapped(peer('a'), "0.0.0.0", 40000);
		go_on(5 MINUTES);
		CHECK(sim.ncalls == 1 && told(0, TRUTH));
		CHECK(logged("a:3478 (10.0.0.1): told an address that cannot "
		    "be ours") == 1);
		end();
	}
}

/* -p 0: the public port, where two names told it or there is only one; below
 * 1024 only the very port of -b, told by two. */
static void
port_of_the_target(void)
{
	static const struct {
		const char *args;
		int port, lie;		/* told by b; 0: it is dead */
		int target;		/* 0: the listener waits */
	} t[] = {
		{ "-s a", 40000, 0, 40000 },
		{ "-s a,b", 40000, 40000, 40000 },
		{ "-s a,b", 40000, 0, 0 },
		{ "-s a,b", 40000, 666, 0 },
		{ "-s a,b,c", 40000, 22, 40000 },
		{ "-s a,b,c", 40000, 0, 40000 },
		{ "-s a", 22, 0, 0 },
		{ "-s a,b", 22, 22, 0 },
		{ "-s a -b 443", 443, 0, 0 },
		{ "-s a,b -b 443", 443, 443, 443 },
		{ "-s a,b,c -b 443", 443, 443, 443 },
		{ "-s a,b -b 443", 443, 0, 0 },
		{ "-s a,b -b 443", 22, 22, 0 },
		{ "-s a,b -b 400-500", 443, 443, 0 },
		{ "-s a,b -b 0", 443, 443, 0 }
	};
	char args[64];
	size_t i;
	int udp, got;

	for (i = 0; i < LEN(t); i++)
		for (udp = 0; udp < 2; udp++) {
			snprintf(args, sizeof args, "%s %s -t 192.0.2.5 -p 0",
			    t[i].args, udp ? "-u" : "-4");
			begin(args);
			moves_to("203.0.113.7", t[i].port);
			if (t[i].lie)
				set_mapped(peer('b'), "203.0.113.7", t[i].lie);
			else
				peer('b')->mode = MUTE;
			go_on(5 MINUTES);
			got = sim.target.n ? addr_port(&sim.target.a[0]) : 0;
			CHECK(got == t[i].target);
			CHECK(logged("-p 0: waiting: ") == !t[i].target);
			end();
		}
}

int
main(int argc, char **argv)
{
	int fds = open_fds();

	check_args(argc, argv);
	RUN(table_of_the_first);
	RUN(table_of_doubts);
	RUN(first_answer);
	RUN(first_of_several);
	RUN(first_asks_three);
	RUN(liar_in_each_place);
	RUN(many_servers_and_a_liar);
	RUN(liar_with_three_addresses);
	RUN(liar_with_two_names);
	RUN(outvoted);
	RUN(one_word_against_one);
	RUN(liar_alone_for_a_moment);
	RUN(every_order_of_five);
	RUN(moves_are_told);
	RUN(moves_that_cannot_be_seen);
	RUN(moves_back);
	RUN(the_last_one_is_believed);
	RUN(flap_limit);
	RUN(changes_are_told);
	RUN(changes_are_told_beside_a_dead_server);
	RUN(second_say);
	RUN(second_say_is_silent);
	RUN(depends_on_the_destination);
	RUN(no_cone_any_longer);
	RUN(depends_no_longer);
	RUN(depends_and_the_first_fails);
	RUN(single_difference);
	RUN(stale_answer);
	RUN(one_remembers);
	RUN(moved_again_in_doubt);
	RUN(late_news);
	RUN(plausible);
	RUN(implausible_is_a_failure);
	RUN(port_of_the_target);
	return sim_done(fds);
}
