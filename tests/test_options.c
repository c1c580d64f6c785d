/* SPDX-License-Identifier: MIT */
/* Options: their values, mistakes in them, --help. */
#include "sim.h"

static const struct {
	const char *args;
	size_t at;
	int want;
} number_rows[] = {
	{ "-4", AT(family), AF_INET },
	{ "-6", AT(family), AF_INET6 },
	{ "--ipv6 --ipv4", AT(family), AF_INET },
	{ "-46", AT(family), AF_INET6 },
	{ "-d", AT(type), SOCK_STREAM },
	{ "-u", AT(type), SOCK_DGRAM },
	{ "--udp", AT(type), SOCK_DGRAM },
	{ "-ud6k7", AT(keepalive), 7 },
	{ "-ud6k7", AT(daemon), 1 },
	{ "-ud6k7", AT(family), AF_INET6 },
	{ "-d", AT(keepalive), TCP_KEEPALIVE },
	{ "-d", AT(keepalive), 30 },
	{ "-u", AT(keepalive), 10 },
	{ "-k 0", AT(keepalive), 30 },
	{ "-u -k 0", AT(keepalive), 10 },
	{ "-k0 -u", AT(keepalive), 10 },
	{ "-k 1", AT(keepalive), 1 },
	{ "-k 0010", AT(keepalive), 10 },
	{ "-k 86400", AT(keepalive), 86400 },
	{ "--keepalive 5", AT(keepalive), 5 },
	{ "--keepalive=5", AT(keepalive), 5 },
	{ "-k 5 -k 6", AT(keepalive), 6 },
	{ "-d", AT(cycle), 2 },
	{ "-u", AT(cycle), 1 },
	{ "-c 0", AT(cycle), 2 },
	{ "-uc0", AT(cycle), 1 },
	{ "-c10000", AT(cycle), 10000 },
	{ "--stun-cycle 7", AT(cycle), 7 },
	{ "-f 0x1F", AT(mark), 31 },
	{ "-f 010", AT(mark), 8 },
	{ "-f 10", AT(mark), 10 },
	{ "-d", AT(mark), 0 },
	{ "-f 4294967295", AT(mark), -1 },
	{ "--fwmark 0xffffffff", AT(mark), -1 },
	{ "-d", AT(idle_timeout), 300 },
	{ "-T 0", AT(idle_timeout), 0 },
	{ "-T 2678400", AT(idle_timeout), 2678400 },
	{ "--forward-idle-timeout 1", AT(idle_timeout), 1 },
	{ "-n 1", AT(max_sessions), 1 },
	{ "--max-sessions 1000000", AT(max_sessions), 1000000 },
	{ "-d", AT(max_sessions), 0 },
	{ "-b 0", AT(port_lo), 0 },
	{ "-b 0", AT(port_hi), 0 },
	{ "-b 65535", AT(port_lo), 65535 },
	{ "-b 65535", AT(port_hi), 65535 },
	{ "--bind 1-65535", AT(port_lo), 1 },
	{ "-b1-65535", AT(port_hi), 65535 },
	{ "-b 5-9", AT(port_random), 0 },
	{ "-b 5~9", AT(port_random), 1 },
	{ "-b 5~9", AT(port_lo), 5 },
	{ "-b 5~9", AT(port_hi), 9 },
	{ "-b 7-7", AT(port_hi), 7 },
	{ "-b 5~9 -b 8", AT(port_random), 0 },
	{ "-b 5~9 -b 8", AT(port_hi), 8 },
	{ "-t h -p 22", AT(target_port), 22 },
	{ "-t h -p 0", AT(target_port), 0 },
	{ "-t h -p 65535", AT(target_port), 65535 },
	{ "--target h --target-port ssh", AT(target_port), 22 },
	{ "-t h -p domain -u", AT(target_port), 53 },
	{ "-1", AT(once), 1 },
	{ "--check", AT(check), 1 },
	{ "-d", AT(check), 0 },
	{ "--check -t h -p 1 -e x -k 5 -n 1", AT(check), 1 },
	{ "--check --probe h", AT(http[0].port), 80 },
	{ "--check --probe h:8080/p", AT(http[0].port), 8080 },
	{ "--check -u --probe h", AT(check), 1 },
	{ "-t h -p 1", AT(proxy_protocol), 0 },
	{ "--proxy-protocol -t h -p 1", AT(proxy_protocol), 1 },
	{ "--once", AT(once), 1 },
	{ "--daemon", AT(daemon), 1 },
	{ "-v", AT(level), 1 },
	{ "-q", AT(level), -1 },
	{ "-q --verbose", AT(level), 1 },
	{ "-v --quiet", AT(level), -1 },
	{ "-d", AT(nhttp), 0 },
	{ "-d", AT(nstun), 12 },
	{ "-u", AT(nstun), 14 },
	{ "-s a -s b,c", AT(nstun), 3 },
	{ "-h a,b --http c", AT(nhttp), 3 },
	{ "-u -h w", AT(nhttp), 0 },
	{ "-s a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p", AT(nstun), 16 },
	{ "-k 20 -c 3 -s a -h w -f 0 -b 5 -4 -i lo -t 1.2.3.4 -p 0 "
	    "-T 9 -C cubic -e x", AT(cycle), 3 }
};

/* A bare build root has no /etc/services, so no names of ports. */
static int
unreadable(const char *args)
{
	return !getservbyname("ssh", "tcp") &&
	    (strstr(args, "ssh") || strstr(args, "domain"));
}

static void
numbers(void)
{
	struct config c;
	size_t i;
	int got;

	for (i = 0; i < LEN(number_rows); i++) {
		if (unreadable(number_rows[i].args))
			continue;
		options(&c, number_rows[i].args);
		got = *(int *)(void *)((char *)&c + number_rows[i].at);
		CHECK(got == number_rows[i].want);
		if (got != number_rows[i].want)
			printf("# %s: %d\n", number_rows[i].args, got);
		options_free(&c);
	}
}

static void
texts(void)
{
	static const struct {
		const char *args;
		size_t at;
		const char *want;
	} t[] = {
		{ "-d", AT(script), NULL },
		{ "-e /x/y", AT(script), "/x/y" },
		{ "--script=/x/y", AT(script), "/x/y" },
		{ "-e/x -e/y", AT(script), "/y" },
		{ "-i eth0", AT(interface), "eth0" },
		{ "--interface 192.0.2.1", AT(interface), "192.0.2.1" },
		{ "-C bbr", AT(congestion), "bbr" },
		{ "--congestion bbr", AT(congestion), "bbr" },
		{ "--pid-file /p", AT(pid_file), "/p" },
		{ "-t host -p 1", AT(target.name), "host" },
		{ "-d", AT(http[0].name), NULL },
		{ "--check --probe h", AT(http[0].name), "h" },
		{ "--check --probe h", AT(probe_path), "" },
		{ "--check --probe h/", AT(probe_path), "" },
		{ "--check --probe h:1/p", AT(http[0].name), "h" },
		{ "--check --probe h:1/p", AT(probe_path), "p" },
		{ "--check --probe http://h/p/q//", AT(probe_path), "p/q" },
		{ "--check --probe 192.0.2.1/a:b", AT(probe_path), "a:b" },
		{ "--check -6 --probe [::1]/p", AT(http[0].name), "::1" },
		{ "-6 --check --probe ::1", AT(http[0].name), "::1" },
		{ "-t 192.0.2.1 -p 1", AT(target.name), "192.0.2.1" },
		{ "-t 2001:db8::1 -p 1", AT(target.name), "2001:db8::1" },
		{ "-t [2001:db8::1] -p 1", AT(target.name), "2001:db8::1" }
	};
	struct config c;
	const char *got;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		if (unreadable(t[i].args))
			continue;
		options(&c, t[i].args);
		got = *(const char **)(void *)((char *)&c + t[i].at);
		CHECK(got ? t[i].want && strcmp(got, t[i].want) == 0 :
		    !t[i].want);
		options_free(&c);
	}
}

static void
derived(void)
{
	struct config c;
	char text[ADDR_TEXT];

	options(&c, "-i eth0");
	CHECK(c.source.sa.sa_family == 0);
	options(&c, "-i 192.0.2.1");
	CHECK(strcmp(addr_host(&c.source, text), "192.0.2.1") == 0);
	options(&c, "-6 -i 2001:db8::1");
	CHECK(strcmp(addr_host(&c.source, text), "2001:db8::1") == 0);
}

/* All of them, in the order of the table from a random one on, for --check from
 * one that knows RFC 5780; never is the user's own list turned. */
static void
public_servers(void)
{
	static const struct {
		const char *args;
		int n;
		unsigned firsts;
	} t[] = {
		{ "-d", 12, 0xfff }, { "-u", 14, 0x3fff },
		{ "-u --check", 14, 0xff0 }
	};
	static const char *const filtering = " stun.nextcloud.com "
	    "stun.radiojar.com stun.mixvoip.com stun.voipgate.com "
	    "stun.m-online.net stun.dus.net stun.siptrunk.com "
	    "stun.pure-ip.com ";
	struct config c;
	char name[64];
	unsigned firsts;
	size_t i;
	int k, n, at;

	for (i = 0; i < LEN(t); i++) {
		for (firsts = 0, k = 0; k < 500; k++) {
			options(&c, t[i].args);
			CHECK(c.nstun == t[i].n);
			for (at = 0; nth(public_stun, at) != c.stun[0].name; )
				at++;
			firsts |= 1U << at;
			for (n = 0; n < c.nstun; n++, at++) {
				CHECK(c.stun[n].name ==
				    nth(public_stun, at % t[i].n));
				CHECK(c.stun[n].port == 3478);
			}
			snprintf(name, sizeof name, " %s ", c.stun[0].name);
			CHECK(!c.check || strstr(filtering, name));
			options_free(&c);
		}
		CHECK(firsts == t[i].firsts);
	}
	for (k = 0; k < 50; k++) {
		options(&c, "-s stun.nextcloud.com,b,c");
		CHECK(strcmp(c.stun[0].name, "stun.nextcloud.com") == 0 &&
		    strcmp(c.stun[2].name, "c") == 0);
		options_free(&c);
	}
}

static void
server_forms(void)
{
	static const struct {
		const char *args, *name;
		int port;
	} t[] = {
		{ "-s host", "host", 3478 },
		{ "-s host:1", "host", 1 },
		{ "-s host:65535", "host", 65535 },
		{ "-s 1.2.3.4", "1.2.3.4", 3478 },
		{ "-s 1.2.3.4:5", "1.2.3.4", 5 },
		{ "-6 -s ::1", "::1", 3478 },
		{ "-6 -s [::1]", "::1", 3478 },
		{ "-6 -s [::1]:5", "::1", 5 },
		{ "-s [1.2.3.4]:5", "1.2.3.4", 5 },
		{ "--stun=host:7", "host", 7 },
		{ "-shost:7", "host", 7 }
	};
	char args[600];
	struct config c;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
		options(&c, t[i].args);
		CHECK(c.nstun == 1 && strcmp(c.stun[0].name, t[i].name) == 0);
		CHECK(c.stun[0].port == t[i].port);
		options_free(&c);
	}
	options(&c, "-s a,b:2 -h x -s c:3 -h y:4,z");
	CHECK(c.nstun == 3 && c.nhttp == 3);
	CHECK(strcmp(c.stun[2].name, "c") == 0 && c.stun[2].port == 3);
	CHECK(c.stun[0].port == 3478 && c.stun[1].port == 2);
	CHECK(strcmp(c.http[1].name, "y") == 0 && c.http[1].port == 4);
	CHECK(c.http[0].port == 80 && c.http[2].port == 80);
	options_free(&c);
	memset(args, 'x', sizeof args);
	memcpy(args, "-s ", 3);
	strcpy(args + 3 + 253, ":5");
	options(&c, args);
	CHECK(strlen(c.stun[0].name) == 253 && c.stun[0].port == 5);
	options_free(&c);
}

static void
try_options(const char *args)
{
	struct config c;

	options(&c, args);
}

/* Each is refused with status 2 and one line that names option and value. */
static const struct {
	const char *args, *says;
} mistake_rows[] = {
	{ "-k x", "-k/--keepalive \"x\"" },
	{ "-k -1", "-k/--keepalive \"-1\"" },
	{ "-k +1", "-k/--keepalive \"+1\"" },
	{ "-k 1s", "-k/--keepalive \"1s\"" },
	{ "-k 1.5", "-k/--keepalive \"1.5\"" },
	{ "-k 0x10", "-k/--keepalive \"0x10\"" },
	{ "-k 1e3", "-k/--keepalive \"1e3\"" },
	{ "--keepalive=x", "-k/--keepalive \"x\"" },
	{ "-k 5 -k x", "-k/--keepalive \"x\"" },
	{ "-k x -k 5", "-k/--keepalive \"x\"" },
	{ "-c a", "-c/--stun-cycle \"a\"" },
	{ "-c -5", "-c/--stun-cycle \"-5\"" },
	{ "-T -1", "-T/--forward-idle-timeout \"-1\"" },
	{ "-n 0", "-n/--max-sessions \"0\"" },
	{ "-n 1000001", "-n/--max-sessions \"1000001\"" },
	{ "-f 4294967296", "-f/--fwmark \"4294967296\"" },
	{ "-f -1", "-f/--fwmark \"-1\"" },
	{ "-f 0x", "-f/--fwmark \"0x\"" },
	{ "-f 08", "-f/--fwmark \"08\"" },
	{ "-f x", "-f/--fwmark \"x\"" },
	{ "-b 65536", "-b/--bind \"65536\"" },
	{ "-b -5", "-b/--bind \"-5\"" },
	{ "-b 5-", "-b/--bind \"5-\"" },
	{ "-b 5~", "-b/--bind \"5~\"" },
	{ "-b 9-5", "-b/--bind \"9-5\"" },
	{ "-b 0-5", "-b/--bind \"0-5\"" },
	{ "-b 0~5", "-b/--bind \"0~5\"" },
	{ "-b 5-65536", "-b/--bind \"5-65536\"" },
	{ "-b 5-6-7", "-b/--bind \"5-6-7\"" },
	{ "-b x", "-b/--bind \"x\"" },
	{ "-s :5", "-s/--stun \":5\"" },
	{ "-s a:", "-s/--stun \"a:\"" },
	{ "-s a:0", "-s/--stun \"a:0\"" },
	{ "-s a:65536", "-s/--stun \"a:65536\"" },
	{ "-s a:x", "-s/--stun \"a:x\"" },
	{ "-s a:-1", "-s/--stun \"a:-1\"" },
	{ "-6 -s []", "-s/--stun \"[]\"" },
	{ "-6 -s [::1", "-s/--stun \"[::1\"" },
	{ "-6 -s [::1]5", "-s/--stun \"[::1]5\"" },
	{ "-6 -s [::1]:", "-s/--stun \"[::1]:\"" },
	{ "-h w:99999", "-h/--http \"w:99999\"" },
	{ "-s a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "-s/--stun" },
	{ "-s a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p -s q",
	    "-s/--stun \"q\"" },
	{ "-h a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "-h/--http" },
	{ "-4 -s ::1", "-s/--stun \"::1\"" },
	{ "-s [2001:db8::1]:5", "-s/--stun \"2001:db8::1\"" },
	{ "-6 -s 192.0.2.1", "-s/--stun \"192.0.2.1\"" },
	{ "-s 192.0.2.1 -6", "-s/--stun \"192.0.2.1\"" },
	{ "-6 -h 192.0.2.1:80", "-h/--http \"192.0.2.1\"" },
	{ "-i ::1", "-i/--interface \"::1\"" },
	{ "-6 -i 192.0.2.1", "-i/--interface \"192.0.2.1\"" },
	{ "-t h", "-t/--target: its port (-p) is missing" },
	{ "-p 22", "-p/--target-port \"22\": only with -t" },
	{ "-t h -p 65536", "-p/--target-port \"65536\"" },
	{ "-t h -p -1", "-p/--target-port \"-1\"" },
	{ "-t h -p 1x", "-p/--target-port \"1x\"" },
	{ "-t h -p +22", "-p/--target-port \"+22\"" },
	{ "-t h -p -65514", "-p/--target-port \"-65514\"" },
	{ "-t h -p no-such-service", "\"no-such-service\"" },
	{ "-t h:22 -p 22", "-t/--target \"h:22\"" },
	{ "--once -d", "-1/--once" },
	{ "-1 -t h -p 1", "--once" },
	{ "-t a^b -p 1", "-t/--target \"a b\": more than one host" },
	{ "-k", "-k/--keepalive: its value is missing" },
	{ "--script", "-e/--script: its value is missing" },
	{ "-u -t -b 22", "-t/--target: its value is missing (found -b)" },
	{ "-t -4 -p 1", "-t/--target: its value is missing (found -4)" },
	{ "-i --udp", "-i/--interface: its value is missing (found --udp)" },
	{ "-k -u", "-k/--keepalive: its value is missing (found -u)" },
	{ "-b -- -u", "-b/--bind: its value is missing (found --)" },
	{ "--check -d", "--check: not with -d or --once" },
	{ "-1 --check", "--check: not with -d or --once" },
	{ "--check=1", "--check: takes no value" },
	{ "--probe h", "--probe: only with --check" },
	{ "--check --probe", "--probe: its value is missing" },
	{ "--check --probe -u", "--probe: its value is missing (found -u)" },
	{ "--check --probe @", "--probe \"\"" },
	{ "--check --probe /p", "--probe \"\"" },
	{ "--check --probe :80", "--probe \":80\"" },
	{ "--check --probe h:0/p", "--probe \"h:0\"" },
	{ "--check --probe https://h/p", "--probe \"https:\"" },
	{ "--check --probe a^b", "--probe \"a b\": a blank in it" },
	{ "--check --probe ::1", "--probe \"::1\": the wrong IP version" },
	{ "--proxy-protocol", "--proxy-protocol: only with -t and in TCP" },
	{ "--proxy-protocol -u -t h -p 1",
	    "--proxy-protocol: only with -t and in TCP" },
	{ "--pid-file @", "--pid-file \"\": its value is missing" },
	{ "-x", "unknown option \"-x\", --help lists them" },
	{ "-uxd", "\"-x\"" },
	{ "-1x -t -b", "\"-x\"" },
	{ "--nothing", "unknown option \"--nothing\", --help lists them" },
	{ "--nothing=5", "\"--nothing=5\"" },
	{ "--udp=5", "--udp: takes no value" },
	{ "--help=5", "--help: takes no value" },
	{ "8080",
	    "\"8080\" is not an option; a port is given with -b (see --help)" },
	{ "-- 8080 22", "\"8080\" is not an option; a port is given with -b" }
};

static void
mistakes(void)
{
	const char *says;
	size_t i;

	for (i = 0; i < LEN(mistake_rows); i++) {
		says = mistake_rows[i].says;
		capture(try_options, mistake_rows[i].args);
		CHECK(ran.status == 2);
		CHECK(!ran.out[0] && strncmp(ran.err, "natmap: ", 8) == 0);
		CHECK(strstr(ran.err, says));
		CHECK(strchr(ran.err, '\n') == ran.err + strlen(ran.err) - 1);
		if (ran.status != 2 || !strstr(ran.err, says))
			printf("# %s: status %d\n", mistake_rows[i].args,
			    ran.status);
	}
}

/* Options as they were understood, a blank around each. */
static void
show_options(const char *args)
{
	struct config c;
	char source[ADDR_TEXT] = "any";
	int i;

	options(&c, args);
	if (c.source.sa.sa_family)
		addr_host(&c.source, source);
	printf(" k=%d c=%d T=%d f=%u b=%d-%d p=%d t=%s i=%s device=%s "
	    "source=%s e=%s C=%s", c.keepalive, c.cycle, c.idle_timeout,
	    (unsigned)c.mark, c.port_lo, c.port_hi, c.target_port,
	    c.target.name ? c.target.name : "-",
	    c.interface ? c.interface : "-",
	    c.device ? c.device : "-", source, c.script ? c.script : "-",
	    c.congestion ? c.congestion : "-");
	for (i = 0; i < c.nstun; i++)
		printf(" s=%s:%d", c.stun[i].name, c.stun[i].port);
	for (i = 0; i < c.nhttp; i++)
		printf(" h=%s:%d", c.http[i].name, c.http[i].port);
	printf(" . \n");
}

#define LONG	"a-name-of-an-interface-that-is-long"

/* What the peer forgives: it runs, with one warning, NULL: without. */
static const struct {
	const char *args, *says, *shows;
} forgiven_rows[] = {
	{ "-k @", "-k/--keepalive \"\": as if not given", " k=30 " },
	{ "-k 7 -k @", "-k/--keepalive \"\": as if not given", " k=7 " },
	{ "-k ^", "-k/--keepalive \" \": as if not given", " k=30 " },
	{ "-c @ -u", "-c/--stun-cycle \"\": as if not given", " c=1 " },
	{ "-b @", "-b/--bind \"\": as if not given", " b=0-0 " },
	{ "-f @", "-f/--fwmark \"\": as if not given", " f=0 " },
	{ "-T @", "-T/--forward-idle-timeout \"\": as if not given",
	    " T=300 " },
	{ "-i @", "-i/--interface \"\": as if not given",
	    " i=- device=- source=any " },
	{ "-e @", "-e/--script \"\": as if not given", " e=- " },
	{ "-C @", "-C/--congestion \"\": as if not given", " C=- " },
	{ "-s x -h @", "-h/--http \"\": as if not given", " s=x:3478 . " },
	{ "-s @ -s x", "-s/--stun \"\": as if not given", " s=x:3478 . " },
	{ "-t @", "-t/--target \"\": as if not given", " t=- " },
	{ "-t @ -p 22", "-t/--target \"\": as if not given", " t=- " },
	{ "-t @ -t h -p 1", "-t/--target \"\": as if not given", " t=h " },
	{ "-t h -t @ -p 1", "-t/--target \"\": as if not given", " t=h " },
	{ "-1 -t @", "-t/--target \"\": as if not given", " t=- " },
	{ "-t h -p @", "-p/--target-port \"\": used as \"0\"", " p=0 t=h " },
	{ "-p @", "-p/--target-port \"\": used as \"0\"", " t=- " },
	{ "-p 0", NULL, " t=- " },
	{ "-k 86401", "-k/--keepalive \"86401\": used as \"86400\"",
	    " k=86400 " },
	{ "-k 4294967297", "\"4294967297\": used as \"86400\"",
	    " k=86400 " },
	{ "-k 18446744073709551617",
	    "\"18446744073709551617\": used as \"86400\"", " k=86400 " },
	{ "-c 20000", "-c/--stun-cycle \"20000\": used as \"10000\"",
	    " c=10000 " },
	{ "-T 4294967", "-T/--forward-idle-timeout \"4294967\": "
	    "used as \"2678400\"", " T=2678400 " },
	{ "-k ^5^", "-k/--keepalive \" 5 \": used as \"5\"", " k=5 " },
	{ "-b 40000^", "-b/--bind \"40000 \": used as \"40000\"",
	    " b=40000-40000 " },
	{ "-t h -p ^22", "-p/--target-port \" 22\": used as \"22\"",
	    " p=22 " },
	{ "-f 0x10/0xff", "-f/--fwmark \"0x10/0xff\": used as \"0x10\"",
	    " f=16 " },
	{ "-s http://h/", "-s/--stun \"http://h/\": used as \"h\"",
	    " s=h:3478 . " },
	{ "-s stun:h:5", "\"stun:h:5\": used as \"h:5\"", " s=h:5 . " },
	{ "-s stun:h", "\"stun:h\": used as \"h\"", " s=h:3478 . " },
	{ "-s stun://h", "\"stun://h\": used as \"h\"", " s=h:3478 . " },
	{ "-s stun:5", NULL, " s=stun:5 . " },
	{ "-s stun:5,stun:h", "used as \"stun:5,h\"",
	    " s=stun:5 s=h:3478 . " },
	{ "-s h:5?transport=udp", "used as \"h:5\"", " s=h:5 . " },
	{ "-6 -s stun:[::1]:5?transport=udp", "used as \"[::1]:5\"",
	    " s=::1:5 . " },
	{ "-s x -h https://www.example.com/", "-h/--http "
	    "\"https://www.example.com/\": used as \"www.example.com\"",
	    " h=www.example.com:80 . " },
	{ "-s x -h h/path", "\"h/path\": used as \"h\"", " h=h:80 . " },
	{ "-s x -h h:80/", "\"h:80/\": used as \"h:80\"", " h=h:80 . " },
	{ "-s x -u -h https://www.example.com/", "-h/--http "
	    "\"https://www.example.com/\": used as \"www.example.com\"",
	    " s=x:3478 . " },
	{ "-t http://h/x -p 1", "-t/--target \"http://h/x\": used as \"h\"",
	    " t=h " },
	{ "-t h^ -p 1", "-t/--target \"h \": used as \"h\"", " t=h " },
	{ "-s a^b", "-s/--stun \"a b\": used as \"a,b\"",
	    " s=a:3478 s=b:3478 . " },
	{ "-s a,^b", "\"a, b\": used as \"a,b\"", " s=a:3478 s=b:3478 . " },
	{ "-s a^^^b:1\t", "used as \"a,b:1\"", " s=a:3478 s=b:1 . " },
	{ "-s a,", "\"a,\": used as \"a\"", " s=a:3478 . " },
	{ "-s ,a", "\",a\": used as \"a\"", " s=a:3478 . " },
	{ "-s a,,b", "\"a,,b\": used as \"a,b\"", " s=a:3478 s=b:3478 . " },
	{ "-s a^", "\"a \": used as \"a\"", " s=a:3478 . " },
	{ "-s x -h ,^,", "-h/--http \", ,\": as if not given",
	    " s=x:3478 . " },
	{ "-s http:///,/x,a", "used as \"a\"", " s=a:3478 . " },
	{ "-s a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p^", "used as \"a,b", " s=p:" },
	{ "-i 192.168.1.10/24", "-i/--interface \"192.168.1.10/24\": "
	    "used as \"192.168.1.10\"",
	    " i=192.168.1.10 device=- source=192.168.1.10 " },
	{ "-i eth0^", "\"eth0 \": used as \"eth0\"",
	    " i=eth0 device=eth0 source=any " },
	{ "-i " LONG, NULL, " i=" LONG " device=" LONG " source=any " },
	{ "-6 -i fe80::1%nosuch", NULL, " device=nosuch source=fe80::1 " },
	{ "-6 -i fe80::1%lo", NULL, " device=- source=fe80::1%1 " },
	{ "-6 -s [fe80::1%nosuch]", "-s/--stun \"fe80::1%nosuch\": there is "
	    "no such interface", " s=fe80::1%nosuch:3478 . " },
	{ "-6 -s [fe80::1%lo]", NULL, " s=fe80::1%lo:3478 . " },
	{ "-s x -u -h w:99999", NULL, " s=x:3478 . " },
	{ "-s x -u -h 2001:db8::1", NULL, " s=x:3478 . " },
	{ "-s x -h [x -u", NULL, " s=x:3478 . " },
	{ "-C no-such-thing -T 5", NULL, " C=no-such-thing " },
	{ "-u word", "\"word\" is not an option, ignored", " k=10 " },
	{ "word -u", "\"word\" is not an option, ignored", " k=10 " },
	{ "-k 5 -- -u", "\"-u\" is not an option, ignored", " k=5 " },
	{ "-q -k @ -b @ word", NULL, " k=30 " },
	{ "-k @ -q", NULL, " k=30 " }
};

static void
forgiven(void)
{
	const char *says, *line;
	size_t i;
	int good;

	for (i = 0; i < LEN(forgiven_rows); i++) {
		says = forgiven_rows[i].says;
		capture(show_options, forgiven_rows[i].args);
		good = ran.status == 0 &&
		    strstr(ran.out, forgiven_rows[i].shows);
		line = strchr(ran.err, '\n');
		if (!says)
			good = good && !ran.err[0];
		else
			good = good && strstr(ran.err, says) && line &&
			    line[1] == '\0' &&
			    strncmp(ran.err, "natmap: ", 8) == 0;
		CHECK(good);
		if (!good)
			printf("# %s: %s%s", forgiven_rows[i].args, ran.err,
			    ran.out);
	}
	capture(show_options, "-u a b");
	CHECK(strcmp(ran.err, "natmap: \"a\" is not an option, ignored\n"
	    "natmap: \"b\" is not an option, ignored\n") == 0);
}

static void
long_host(void)
{
	char args[300];

	memset(args, 'x', sizeof args);
	memcpy(args, "-s ", 3);
	args[3 + 254] = '\0';
	capture(try_options, args);
	CHECK(ran.status == 2 && !ran.out[0]);
	CHECK(strstr(ran.err, "-s/--stun \"xxx") && strstr(ran.err, "253"));
}

static void
program(const char *args)
{
	char text[256], *argv[16];
	int argc;

	strcpy(text, args);
	argc = split(text, argv);
	optind = 0;
	opt = NULL;
	exit(natmap_main(argc, argv));
}

/* 1 when every option has a line of its own, none longer than 80 */
static int
is_usage(const char *s)
{
	const struct option_row *o;
	char line[128], left[64];
	int i, lines = 0;
	size_t n;

	for (o = rows; o < rows + ROWS; o++) {
		snprintf(left, sizeof left, o->letter < LETTERS ? "\n      --" :
		    "\n  -%c, --", o->letter);
		snprintf(line, sizeof line, "%s%s ", left,
		    nth(words, 3 * (int)(o - rows)));
		if (!strstr(s, line))
			return 0;
	}
	for (i = 0; *s; s += n + 1, i++) {
		n = strcspn(s, "\n");
		if (n > 80 || !s[n])
			return 0;
		lines++;
	}
	return lines > ROWS;
}

static void
usage_and_version(void)
{
	capture(program, "");
	CHECK(ran.status == 2 && !ran.out[0]);
	CHECK(ends_with(ran.err, "\nVersion: " VERSION "\n"));
	CHECK(is_usage(ran.err));
	capture(program, "--help");
	CHECK(ran.status == 0 && !ran.err[0]);
	CHECK(ends_with(ran.out, "\nVersion: " VERSION "\n"));
	CHECK(is_usage(ran.out));
	capture(program, "-V");
	CHECK(ran.status == 0 && !ran.err[0]);
	CHECK(strcmp(ran.out, "natmap " VERSION "\n") == 0);
	capture(program, "--version");
	CHECK(strcmp(ran.out, "natmap " VERSION "\n") == 0);
	capture(program, "-k x");
	CHECK(ran.status == 2 && !ran.out[0]);
}

int
main(int argc, char **argv)
{
	int fds = open_fds();

	check_args(argc, argv);
	RUN(numbers);
	RUN(texts);
	RUN(derived);
	RUN(public_servers);
	RUN(server_forms);
	RUN(mistakes);
	RUN(forgiven);
	RUN(long_host);
	RUN(usage_and_version);
	return sim_done(fds);
}
