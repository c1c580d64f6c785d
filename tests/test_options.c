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
	{ "--once", AT(once), 1 },
	{ "--daemon", AT(daemon), 1 },
	{ "-v", AT(level), 1 },
	{ "-q", AT(level), -1 },
	{ "-q --verbose", AT(level), 1 },
	{ "-v --quiet", AT(level), -1 },
	{ "-d", AT(nhttp), 0 },
	{ "-d", AT(nstun), 8 },
	{ "-u", AT(nstun), 11 },
	{ "-s a -s b,c", AT(nstun), 3 },
	{ "-h a,b --http c", AT(nhttp), 3 },
	{ "-u -h w", AT(nhttp), 0 },
	{ "-s a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p", AT(nstun), 16 },
	{ "-k 20 -c 3 -s a -h w -f 0 -b 5 -4 -i lo -t 1.2.3.4 -p 0 "
	    "-T 9 -C cubic -e x", AT(cycle), 3 }
};

static void
numbers(void)
{
	struct config c;
	size_t i;
	int got;

	for (i = 0; i < LEN(number_rows); i++) {
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
		{ "-t host -p 1", AT(target), "host" },
		{ "-t 192.0.2.1 -p 1", AT(target), "192.0.2.1" },
		{ "-t 2001:db8::1 -p 1", AT(target), "2001:db8::1" },
		{ "-t [2001:db8::1] -p 1", AT(target), "2001:db8::1" }
	};
	struct config c;
	const char *got;
	size_t i;

	for (i = 0; i < LEN(t); i++) {
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
	options(&c, "-d");
	CHECK(strcmp(c.stun[0].name, "turn.cloudflare.com") == 0);
	CHECK(c.stun[7].port == 3478);
	options(&c, "-u");
	CHECK(strcmp(c.stun[10].name, "stun.hitv.com") == 0);
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
	{ "-k @", "-k/--keepalive \"\"" },
	{ "-k -1", "-k/--keepalive \"-1\"" },
	{ "-k +1", "-k/--keepalive \"+1\"" },
	{ "-k 1s", "-k/--keepalive \"1s\"" },
	{ "-k 1.5", "-k/--keepalive \"1.5\"" },
	{ "-k 0x10", "-k/--keepalive \"0x10\"" },
	{ "-k 1e3", "-k/--keepalive \"1e3\"" },
	{ "-k 86401", "-k/--keepalive \"86401\"" },
	{ "-k 4294967297", "-k/--keepalive \"4294967297\"" },
	{ "-k 18446744073709551617", "\"18446744073709551617\"" },
	{ "--keepalive=x", "-k/--keepalive \"x\"" },
	{ "-k 5 -k x", "-k/--keepalive \"x\"" },
	{ "-k x -k 5", "-k/--keepalive \"x\"" },
	{ "-c 10001", "-c/--stun-cycle \"10001\"" },
	{ "-c a", "-c/--stun-cycle \"a\"" },
	{ "-c -5", "-c/--stun-cycle \"-5\"" },
	{ "-T 2678401", "-T/--forward-idle-timeout \"2678401\"" },
	{ "-T 4294968", "-T/--forward-idle-timeout \"4294968\"" },
	{ "-T -1", "-T/--forward-idle-timeout \"-1\"" },
	{ "-n 0", "-n/--max-sessions \"0\"" },
	{ "-n 1000001", "-n/--max-sessions \"1000001\"" },
	{ "-f 4294967296", "-f/--fwmark \"4294967296\"" },
	{ "-f -1", "-f/--fwmark \"-1\"" },
	{ "-f 0x", "-f/--fwmark \"0x\"" },
	{ "-f 08", "-f/--fwmark \"08\"" },
	{ "-f x", "-f/--fwmark \"x\"" },
	{ "-f @", "-f/--fwmark \"\"" },
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
	{ "-b @", "-b/--bind \"\"" },
	{ "-s @", "-s/--stun \"\"" },
	{ "-s a,,b", "-s/--stun" },
	{ "-s a,", "-s/--stun" },
	{ "-s ,a", "-s/--stun" },
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
	{ "-h @", "-h/--http \"\"" },
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
	{ "-i a-name-too-long-for-it", "-i/--interface" },
	{ "-i @", "-i/--interface \"\"" },
	{ "-e @", "-e/--script \"\"" },
	{ "-C @", "-C/--congestion \"\"" },
	{ "-t @ -p 1", "-t/--target \"\"" },
	{ "-t h", "-t/--target \"h\"" },
	{ "-p 22", "-p/--target-port \"22\"" },
	{ "-t h -p 65536", "-p/--target-port \"65536\"" },
	{ "-t h -p -1", "-p/--target-port \"-1\"" },
	{ "-t h -p 1x", "-p/--target-port \"1x\"" },
	{ "-t h -p @", "-p/--target-port \"\"" },
	{ "-t h -p +22", "-p/--target-port \"+22\"" },
	{ "-t h -p -65514", "-p/--target-port \"-65514\"" },
	{ "-t h -p no-such-service", "\"no-such-service\"" },
	{ "-t h:22 -p 22", "-t/--target \"h:22\"" },
	{ "--once -d", "-1/--once" },
	{ "-1 -t h -p 1", "--once" },
	{ "-k", "-k/--keepalive" },
	{ "--script", "-e/--script" },
	{ "-x", "\"-x\"" },
	{ "-uxd", "\"-x\"" },
	{ "--nothing", "\"--nothing\"" },
	{ "--nothing=5", "\"--nothing=5\"" },
	{ "--udp=5", "--udp" },
	{ "--help=5", "--help" },
	{ "word", "\"word\"" },
	{ "-u word -d", "\"word\"" }
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
		snprintf(left, sizeof left, o->letter < 256 ? "\n  -%c, --" :
		    "\n      --", o->letter);
		snprintf(line, sizeof line, "%s%s ", left, o->name);
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
	RUN(server_forms);
	RUN(mistakes);
	RUN(long_host);
	RUN(usage_and_version);
	return sim_done(fds);
}
