/* SPDX-License-Identifier: MIT */
/*
 * Tests of stun.c: the codec on bytes, the flows against a peer on loopback
 * that is this test itself, with a clock of its own, the port's sockets
 * against services in child processes.
 */
#include "../stun.c"

#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/wait.h>
#include <signal.h>

#include "check.h"

static const unsigned char rfc_id[STUN_ID] = {
	0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae
};

/* RFC 5769 section 2.2: 192.0.2.1:32853 */
static const unsigned char rfc_v4[] =
    "\x01\x01\x00\x3c\x21\x12\xa4\x42"
    "\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae"
    "\x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20"
    "\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43"
    "\x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9"
    "\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\x80\x28\x00\x04\xc0\x7d\x4c\x96";
#define RFC_V4	(sizeof rfc_v4 - 1)

/* RFC 5769 section 2.3: [2001:db8:1234:5678:11:2233:4455:6677]:32853 */
static const unsigned char rfc_v6[] =
    "\x01\x01\x00\x48\x21\x12\xa4\x42"
    "\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae"
    "\x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20"
    "\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79"
    "\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9"
    "\x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c"
    "\x82\x92\xc2\x75\xbf\xe3\xed\x41\x80\x28\x00\x04\xc8\xfb\x0b\x4c";
#define RFC_V6	(sizeof rfc_v6 - 1)

/*
 * The codec.
 */

static void
put16(unsigned char *p, unsigned int v)
{
	p[0] = (unsigned char)(v >> 8);
	p[1] = (unsigned char)v;
}

struct message {
	unsigned char p[1024];
	size_t n;
};

static void
message(struct message *m, unsigned int type, const unsigned char *id)
{
	memset(m, 0, sizeof *m);
	new_message(m->p, REQUEST);
	memcpy(m->p + 8, id, STUN_ID);
	put16(m->p, type);
	m->n = STUN_HEADER;
}

static void
add(struct message *m, unsigned int type, const void *p, size_t n)
{
	put16(m->p + m->n, type);
	put16(m->p + m->n + 2, (unsigned int)n);
	memset(m->p + m->n + 4, 1, (n + 3) & ~(size_t)3);
	memcpy(m->p + m->n + 4, p, n);
	m->n += 4 + ((n + 3) & ~(size_t)3);
	put16(m->p + 2, (unsigned int)(m->n - STUN_HEADER));
}

/* Adds an IPv4 address in one of the two attributes. */
static void
add_v4(struct message *m, unsigned int type, const char *host, int port)
{
	unsigned char v[8] = { 0, 1 };
	union addr a;
	size_t i;

	addr_parse(&a, host, AF_INET);
	put16(v + 2, (unsigned int)port);
	memcpy(v + 4, &a.in.sin_addr, 4);
	for (i = 2; type == XOR_MAPPED_ADDRESS && i < 8; i++)
		v[i] ^= m->p[i < 4 ? 2 + i : i];
	add(m, type, v, sizeof v);
}

/* Decodes from a block of exactly n bytes: 1, the code of EREFUSED, or the
 * negative errno.  *text gets the address. */
static int
decode(const unsigned char *p, size_t n, const unsigned char *id, char *text)
{
	unsigned char *copy = malloc(n + (n == 0));
	struct flow f;
	int r;

	memset(&f, 0, sizeof f);
	new_message(f.request, REQUEST);
	memcpy(f.request + 8, id, STUN_ID);
	memcpy(copy, p, n);
	r = stun_decode(&f, copy, n);
	if (r == 1 && text != NULL)
		(void)addr_text(&f.ends.mapped, text);
	else if (r == -1)
		r = errno > EREFUSED ? errno - EREFUSED : -errno;
	free(copy);
	return r;
}

static int
decodes_to(const unsigned char *p, size_t n, const unsigned char *id,
    const char *want)
{
	char text[ADDR_TEXT] = "";

	return decode(p, n, id, text) == 1 && strcmp(text, want) == 0;
}

static void
request_bytes(void)
{
	unsigned char buf[STUN_HEADER], next[STUN_HEADER];

	new_message(buf, REQUEST);
	CHECK(memcmp(buf, "\0\1\0\0\x21\x12\xa4\x42", 8) == 0);
	new_message(next, INDICATION);
	CHECK(memcmp(next, "\0\x11\0\0\x21\x12\xa4\x42", 8) == 0);
	CHECK(memcmp(next + 8, buf + 8, STUN_ID) != 0);
}

static void
rfc5769_samples(void)
{
	CHECK(decodes_to(rfc_v4, RFC_V4, rfc_id, "192.0.2.1:32853"));
	CHECK(decodes_to(rfc_v6, RFC_V6, rfc_id,
	    "[2001:db8:1234:5678:11:2233:4455:6677]:32853"));
}

/* With the length as it was, and with one that fits what is left. */
static void
truncations(void)
{
	unsigned char cut[sizeof rfc_v6];
	size_t n;
	int r;

	for (n = 0; n < RFC_V6; n++) {
		CHECK(decode(rfc_v6, n, rfc_id, NULL) == -ENOTANSWER);
		if (n < STUN_HEADER)
			continue;
		memcpy(cut, rfc_v6, n);
		put16(cut + 2, (unsigned int)n - STUN_HEADER);
		r = decode(cut, n, rfc_id, NULL);
		CHECK(r == (n == 60 || n == 84 ? 1 : -ENOTANSWER));
	}
	memcpy(cut, rfc_v6, sizeof cut);
	CHECK(decode(cut, sizeof cut, rfc_id, NULL) == -ENOTANSWER);
}

static void
header_corruption(void)
{
	unsigned char bad[RFC_V4];
	unsigned int x, i;

	for (i = 0; i < STUN_HEADER; i++)
		for (x = 1; x < 256; x++) {
			memcpy(bad, rfc_v4, RFC_V4);
			bad[i] = (unsigned char)(bad[i] ^ x);
			CHECK(decode(bad, RFC_V4, rfc_id, NULL) ==
			    -ENOTANSWER);
		}
}

static void
other_messages(void)
{
	static const unsigned int types[] = { 0x0001, 0x0011, 0x0003, 0x0103,
	    0x0113, 0x0102, 0x4101, 0x8101 };
	struct message m;
	size_t i;

	for (i = 0; i < sizeof types / sizeof *types; i++) {
		message(&m, types[i], rfc_id);
		add_v4(&m, XOR_MAPPED_ADDRESS, "192.0.2.1", 5);
		CHECK(decode(m.p, m.n, rfc_id, NULL) == -ENOTANSWER);
	}
	message(&m, SUCCESS, rfc_id);
	CHECK(decode(m.p, m.n, rfc_id, NULL) == -ENOTANSWER);
	add_v4(&m, XOR_MAPPED_ADDRESS, "192.0.2.1", 5);
	CHECK(decode(m.p, m.n, (const unsigned char *)"wrong id 123",
	    NULL) == -ENOTANSWER);
}

static void
attribute_order(void)
{
	struct message m;

	message(&m, SUCCESS, rfc_id);
	add_v4(&m, MAPPED_ADDRESS, "192.0.2.9", 9);
	CHECK(decodes_to(m.p, m.n, rfc_id, "192.0.2.9:9"));
	add_v4(&m, XOR_MAPPED_ADDRESS, "192.0.2.1", 8);
	CHECK(decodes_to(m.p, m.n, rfc_id, "192.0.2.1:8"));
	add_v4(&m, XOR_MAPPED_ADDRESS, "192.0.2.2", 7);
	CHECK(decodes_to(m.p, m.n, rfc_id, "192.0.2.1:8"));

	message(&m, SUCCESS, rfc_id);
	add_v4(&m, XOR_MAPPED_ADDRESS, "192.0.2.1", 8);
	add_v4(&m, MAPPED_ADDRESS, "192.0.2.9", 9);
	CHECK(decodes_to(m.p, m.n, rfc_id, "192.0.2.1:8"));
}

static void
attribute_padding(void)
{
	struct message m;
	size_t n;

	for (n = 0; n < 9; n++) {
		message(&m, SUCCESS, rfc_id);
		add(&m, 0x8022, "softwares", n);
		add(&m, 0x7ffe, "unknown!!", n);	/* required */
		add_v4(&m, XOR_MAPPED_ADDRESS, "192.0.2.1", 8);
		add(&m, 0x8022, "", 0);
		CHECK(decodes_to(m.p, m.n, rfc_id, "192.0.2.1:8"));
	}
}

/* The cookie is a part of its transaction id; SOURCE-ADDRESS and
 * CHANGED-ADDRESS are not in RFC 8489 any more. */
static void
rfc3489_server(void)
{
	struct message m;

	message(&m, SUCCESS, rfc_id);
	add_v4(&m, MAPPED_ADDRESS, "203.0.113.7", 40000);
	add_v4(&m, 0x0004, "198.51.100.2", 3478);
	add_v4(&m, 0x0005, "198.51.100.3", 3479);
	CHECK(decodes_to(m.p, m.n, rfc_id, "203.0.113.7:40000"));
}

static void
bad_addresses(void)
{
	static const unsigned char v6[20] = { 0, 2, 1, 1, 32, 1 };
	static const unsigned char v4[20] = { 0, 1, 1, 1, 192, 0, 2, 1 };
	unsigned char other[8] = { 0, 3, 1, 1, 192, 0, 2, 1 };
	struct message m;
	size_t n;

	for (n = 0; n <= 20; n++) {
		message(&m, SUCCESS, rfc_id);
		add(&m, MAPPED_ADDRESS, v6, n);
		CHECK((decode(m.p, m.n, rfc_id, NULL) == 1) == (n == 20));
		message(&m, SUCCESS, rfc_id);
		add(&m, XOR_MAPPED_ADDRESS, v4, n);
		CHECK((decode(m.p, m.n, rfc_id, NULL) == 1) == (n == 8));
	}
	for (n = 0; n < 256; n++) {
		other[1] = (unsigned char)n;
		message(&m, SUCCESS, rfc_id);
		add(&m, MAPPED_ADDRESS, other, sizeof other);
		CHECK((decode(m.p, m.n, rfc_id, NULL) == 1) == (n == 1));
	}
	message(&m, SUCCESS, rfc_id);
	add_v4(&m, XOR_MAPPED_ADDRESS, "192.0.2.1", 0);
	CHECK(decode(m.p, m.n, rfc_id, NULL) == -ENOTANSWER);
	message(&m, SUCCESS, rfc_id);
	add_v4(&m, MAPPED_ADDRESS, "192.0.2.1", 0);
	CHECK(decode(m.p, m.n, rfc_id, NULL) == -ENOTANSWER);
}

static void
error_responses(void)
{
	static const struct {
		unsigned char value[5];
		size_t n;
		int want;
	} t[] = {
		{ { 0, 0, 4, 1 }, 4, 401 },
		{ { 0, 0, 4, 20, 'x' }, 5, 420 },
		{ { 0, 0, 5, 0 }, 4, 500 },
		{ { 0, 0, 0xfb, 0 }, 4, 300 },	/* reserved bits */
		{ { 0, 0, 6, 99 }, 4, 699 },
		{ { 0, 0, 6, 100 }, 4, -ENOTANSWER },
		{ { 0, 0, 2, 0 }, 4, -ENOTANSWER },
		{ { 0, 0, 7, 0 }, 4, -ENOTANSWER },
		{ { 0, 0, 4, 1 }, 3, -ENOTANSWER },
		{ { 0, 0, 4, 1 }, 0, -ENOTANSWER },
	};
	struct message m;
	size_t i;

	for (i = 0; i < sizeof t / sizeof *t; i++) {
		message(&m, ERROR, rfc_id);
		add(&m, ERROR_CODE, t[i].value, t[i].n);
		CHECK(decode(m.p, m.n, rfc_id, NULL) == t[i].want);
		CHECK(decode(m.p, m.n - 4, rfc_id, NULL) == -ENOTANSWER);
	}
	message(&m, ERROR, rfc_id);
	add_v4(&m, XOR_MAPPED_ADDRESS, "192.0.2.1", 8);
	CHECK(decode(m.p, m.n, rfc_id, NULL) == -ENOTANSWER);
}

static uint32_t
lcg(uint32_t *seed)
{
	return (*seed = *seed * 1664525 + 1013904223) >> 8;
}

static void
random_corruption(void)
{
	unsigned char bad[RFC_V6];
	uint32_t seed = 5769;
	int i, k, r;

	for (i = 0; i < 20000; i++) {
		memcpy(bad, rfc_v6, RFC_V6);
		for (k = lcg(&seed) % 8; k >= 0; k--)
			bad[STUN_HEADER + lcg(&seed) % (RFC_V6 - STUN_HEADER)]
			    = (unsigned char)lcg(&seed);
		r = decode(bad, RFC_V6, rfc_id, NULL);
		CHECK(r == 1 || r == -ENOTANSWER);
	}
}

/*
 * Flows.  The peer is a socket of the test; turn() is one turn of the loop at
 * the given time, of which nothing but the kernel's events is real.
 */

static struct wake w;
static union addr peer;
static struct local ours;

/* A socket of the test on loopback, its address in peer. */
static int
server(int type)
{
	struct linger lg = { 0, 0 };
	int fd = socket(AF_INET, type, 0);

	addr_parse(&peer, "127.0.0.1", AF_INET);
	addr_set_port(&peer, 0);
	bind(fd, &peer.sa, addr_len(&peer));
	fd_name(fd, &peer);
	if (type == SOCK_STREAM)
		listen(fd, 8);
	else
		fcntl(fd, F_SETFL, O_NONBLOCK);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof lg);
	return fd;
}

static void
local_init(struct local *l, struct config *c, int family, int type, int port)
{
	memset(c, 0, sizeof *c);
	c->family = family;
	c->type = type;
	memset(l, 0, sizeof *l);
	l->cfg = c;
	l->port = port;
}

/* A socket of the mapped port; a port of its own for each test. */
static int
mapped_port(int type)
{
	static struct config c;

	local_init(&ours, &c, AF_INET, type, 0);
	return local_socket(&ours, LOCAL_FLOW);
}

/* Opens a flow from there to the peer. */
static int
open_flow(struct flow *f, enum flow_kind kind, const char *host, int64_t now,
    int64_t deadline)
{
	return flow_start(f, kind, mapped_port(kind == FLOW_UDP ? SOCK_DGRAM :
	    SOCK_STREAM), 0, &peer, host, now, deadline);
}

static int
turn(struct flow *b, int64_t now, int wait)
{
	wake_clear(&w);
	flow_want(b, &w);
	poll(w.fds, (nfds_t)w.n, wait);
	return flow_step(b, &w, now);
}

/* A turn that has something to do. */
#define SOON(b, now)	turn(b, now, 2000)

static int
datagrams(int fd, unsigned char *last)
{
	unsigned char buf[100];
	int n;

	for (n = 0; recv(fd, buf, sizeof buf, 0) == STUN_HEADER; n++)
		memcpy(last, buf, STUN_HEADER);
	return n;
}

static void
answer(struct message *m, const struct flow *b)
{
	message(m, SUCCESS, b->request + 8);
	add_v4(m, XOR_MAPPED_ADDRESS, "203.0.113.7", 40000);
}

static int
is_mapped(const struct flow *b)
{
	char text[ADDR_TEXT];

	return strcmp(addr_text(&b->ends.mapped, text),
	    "203.0.113.7:40000") == 0;
}

static void
send_to(int fd, const struct flow *b, const void *p, size_t n)
{
	union addr a;

	fd_name(b->fd, &a);
	addr_parse(&a, "127.0.0.1", AF_INET);
	addr_set_port(&a, ours.port);
	sendto(fd, p, n, 0, &a.sa, addr_len(&a));
}

static void
udp_schedule(void)
{
	static const struct {
		int64_t now;
		int want;
	} t[] = {
		{ 1000, 0 }, { 1499, 0 }, { 1500, 1 }, { 1501, 0 },
		{ 2499, 0 }, { 2500, 1 }, { 2501, 0 }, { 4000, 0 },
		{ 8999, 0 },
	};
	unsigned char req[STUN_HEADER];
	int s = server(SOCK_DGRAM);
	struct flow b;
	size_t i;

	CHECK(open_flow(&b, FLOW_UDP, NULL, 1000, 9000) == 0);
	CHECK(b.state == FLOW_ASKING && b.asked == 1000 && b.born == 1000);
	CHECK(datagrams(s, req) == 1);
	for (i = 0; i < sizeof t / sizeof *t; i++) {
		memset(req, 0, sizeof req);
		CHECK(turn(&b, t[i].now, 0) == 0);
		CHECK(datagrams(s, req) == t[i].want);
		CHECK(!t[i].want || memcmp(req, b.request, STUN_HEADER) == 0);
	}
	CHECK(w.deadline == 9000 && b.resend == NEVER);
	CHECK(turn(&b, 9000, 0) == -1 && errno == ETIMEDOUT);
	CHECK(b.fd == -1 && b.state == FLOW_CLOSED);
	CHECK(turn(&b, 9001, 0) == 0 && w.deadline == NEVER && w.n == 0);
	close(s);
}

static void
udp_wakes_for_the_next_request(void)
{
	int s = server(SOCK_DGRAM);
	struct flow b;

	open_flow(&b, FLOW_UDP, NULL, 1000, 9000);
	turn(&b, 1000, 0);
	CHECK(w.deadline == 1500);
	turn(&b, 1500, 0);
	turn(&b, 1500, 0);
	CHECK(w.deadline == 2500);
	flow_stop(&b, 0);
	flow_stop(&b, 0);
	CHECK(b.fd == -1 && b.slot == -1);
	close(s);
}

static void
udp_late_answer(void)
{
	unsigned char req[STUN_HEADER], first[STUN_ID];
	int s = server(SOCK_DGRAM);
	struct flow b;
	struct message m;
	char text[ADDR_TEXT];

	open_flow(&b, FLOW_UDP, NULL, 1000, 9000);
	turn(&b, 1500, 0);
	turn(&b, 2500, 0);
	answer(&m, &b);
	send_to(s, &b, m.p, m.n);
	CHECK(SOON(&b, 9000) == 1);
	CHECK(b.state == FLOW_OPEN && is_mapped(&b));
	CHECK(addr_port(&b.ends.local) == ours.port);
	CHECK(strcmp(addr_host(&b.ends.local, text), "127.0.0.1") == 0);
	CHECK(datagrams(s, req) == 3);

	/* the answers to the other two requests, and the next transaction */
	send_to(s, &b, m.p, m.n);
	CHECK(SOON(&b, 9001) == 0 && b.state == FLOW_OPEN);
	CHECK(w.deadline == NEVER);
	memcpy(first, b.request + 8, STUN_ID);
	CHECK(flow_ask(&b, 0, 11000, 14000) == 0);
	CHECK(memcmp(first, b.request + 8, STUN_ID) != 0 && b.asked == 11000);
	CHECK(datagrams(s, req) == 1);
	CHECK(memcmp(req, b.request, STUN_HEADER) == 0);
	send_to(s, &b, m.p, m.n);
	CHECK(SOON(&b, 11001) == 0 && b.state == FLOW_ASKING);
	answer(&m, &b);
	send_to(s, &b, m.p, m.n);
	CHECK(SOON(&b, 11002) == 1);
	flow_stop(&b, 0);
	close(s);
}

static void
udp_ignores_what_is_no_answer(void)
{
	unsigned char big[600];
	int s = server(SOCK_DGRAM);
	struct flow b;
	struct message m;

	open_flow(&b, FLOW_UDP, NULL, 0, 9000);
	send_to(s, &b, "", 0);
	send_to(s, &b, "x", 1);
	answer(&m, &b);
	send_to(s, &b, m.p, m.n - 4);
	memset(big, 0, sizeof big);
	memcpy(big, m.p, m.n);
	put16(big + 2, sizeof b.buf - STUN_HEADER);
	send_to(s, &b, big, sizeof big);
	m.p[19] ^= 1;
	send_to(s, &b, m.p, m.n);
	CHECK(SOON(&b, 1) == 0 && turn(&b, 1, 0) == 0 &&
	    b.state == FLOW_ASKING);
	m.p[19] ^= 1;
	send_to(s, &b, m.p, m.n);
	CHECK(SOON(&b, 2) == 1 && is_mapped(&b));
	flow_stop(&b, 0);
	close(s);
}

static void
udp_error_response(void)
{
	int s = server(SOCK_DGRAM);
	struct flow b;
	struct message m;

	open_flow(&b, FLOW_UDP, NULL, 0, 9000);
	message(&m, ERROR, b.request + 8);
	add(&m, ERROR_CODE, "\0\0\4\1", 4);
	send_to(s, &b, m.p, m.n);
	CHECK(SOON(&b, 1) == -1 && errno == EREFUSED + 401);
	CHECK(b.fd == -1);
	close(s);
}

/* An ICMP error can be forged: it is silence, and the next request goes out
 * even when it meets the error. */
static void
udp_errors_are_silence(void)
{
	unsigned char last[STUN_HEADER];
	int s = server(SOCK_DGRAM);
	struct pollfd p;
	struct flow b;

	close(s);
	open_flow(&b, FLOW_UDP, NULL, 0, 9000);
	CHECK(SOON(&b, 1) == 0 && b.state == FLOW_ASKING);
	CHECK(turn(&b, 500, 0) == 0 && b.resend == 1500);
	p.fd = b.fd;
	p.events = POLLIN;
	CHECK(poll(&p, 1, 2000) == 1);
	s = socket(AF_INET, SOCK_DGRAM, 0);
	CHECK(bind(s, &peer.sa, addr_len(&peer)) == 0);
	fcntl(s, F_SETFL, O_NONBLOCK);
	wake_clear(&w);
	b.slot = -1;
	CHECK(flow_step(&b, &w, 1500) == 0 && b.resend == NEVER);
	CHECK(datagrams(s, last) == 1);
	CHECK(memcmp(last, b.request, STUN_HEADER) == 0);
	close(s);
	CHECK(turn(&b, 9000, 0) == -1 && errno == ETIMEDOUT && b.fd == -1);
}

static void
shared_socket(void)
{
	unsigned char req[STUN_HEADER];
	int s = server(SOCK_DGRAM), fd = mapped_port(SOCK_DGRAM);
	union addr to, other;
	char text[ADDR_TEXT];
	struct flow b;
	struct message m;

	addr_parse(&to, "192.0.2.55", AF_INET);
	addr_set_port(&to, ours.port);
	CHECK(flow_start(&b, FLOW_UDP, fd, 1, &peer, NULL, 1000, 5000) == 0);
	CHECK(datagrams(s, req) == 1);
	CHECK(memcmp(req, b.request, STUN_HEADER) == 0);
	CHECK(turn(&b, 1500, 0) == 0 && w.n == 0 && w.deadline == 1500);
	CHECK(datagrams(s, req) == 1);

	answer(&m, &b);
	other = peer;
	addr_set_port(&other, addr_port(&peer) ^ 1);
	CHECK(flow_claim(&b, &other, &to, m.p, m.n) == 0);
	other = peer;
	addr_parse(&other, "127.0.0.2", AF_INET);
	addr_set_port(&other, addr_port(&peer));
	CHECK(flow_claim(&b, &other, &to, m.p, m.n) == 0);
	m.p[8] ^= 1;
	CHECK(flow_claim(&b, &peer, &to, m.p, m.n) == 0);
	m.p[8] ^= 1;
	CHECK(b.state == FLOW_ASKING);
	CHECK(flow_claim(&b, &peer, &to, m.p, m.n) == 1);
	CHECK(is_mapped(&b) && addr_port(&b.ends.local) == ours.port);
	CHECK(strcmp(addr_host(&b.ends.local, text), "192.0.2.55") == 0);
	CHECK(flow_claim(&b, &peer, &to, m.p, m.n) == 0);

	CHECK(flow_ask(&b, 0, 2000, 5000) == 0 && datagrams(s, req) == 1);
	message(&m, ERROR, b.request + 8);
	add(&m, ERROR_CODE, "\0\0\5\0", 4);
	CHECK(flow_claim(&b, &peer, &to, m.p, m.n) == -1);
	CHECK(errno == EREFUSED + 500 && b.fd == -1);
	stun_indicate(fd, &peer);
	CHECK(datagrams(s, req) == 1 && be16(req) == INDICATION);
	close(fd);
	close(s);
}

/* Opens a TCP flow up to where the request is out; returns the server's end
 * of it. */
static int
tcp_flow(struct flow *b, int64_t now)
{
	unsigned char req[STUN_HEADER];
	int s = server(SOCK_STREAM), fd, one = 1;

	CHECK(open_flow(b, FLOW_TCP, NULL, now, now + 9000) == 0);
	if (b->left > 0)
		CHECK(SOON(b, now) == 0);
	CHECK(b->state == FLOW_ASKING && b->left == 0);
	fd = accept(s, NULL, NULL);
	close(s);
	CHECK(recv(fd, req, sizeof req, MSG_WAITALL) == STUN_HEADER);
	CHECK(memcmp(req, b->request, STUN_HEADER) == 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

static void
tcp_byte_by_byte(void)
{
	struct flow b;
	struct message m;
	int fd = tcp_flow(&b, 1000);
	size_t i;

	answer(&m, &b);
	add(&m, 0x8022, "server", 6);
	for (i = 0; i < m.n - 1; i++) {
		CHECK(send(fd, m.p + i, 1, 0) == 1);
		CHECK(SOON(&b, 1000) == 0 && b.state == FLOW_ASKING);
		CHECK(b.have == i + 1);
	}
	send(fd, m.p + i, 1, 0);
	CHECK(SOON(&b, 1000) == 1 && is_mapped(&b));
	CHECK(addr_port(&b.ends.local) == ours.port);
	turn(&b, 1000, 0);
	CHECK(w.deadline == NEVER);
	flow_stop(&b, 0);
	close(fd);
}

static void
tcp_asks_again(void)
{
	unsigned char req[STUN_HEADER], first[STUN_ID];
	struct flow b;
	struct message m;
	int fd = tcp_flow(&b, 1000);

	answer(&m, &b);
	send(fd, m.p, m.n, 0);
	CHECK(SOON(&b, 1100) == 1);
	memcpy(first, b.request + 8, STUN_ID);
	CHECK(flow_ask(&b, 0, 31000, 33000) == 0 && b.born == 1000);
	CHECK(recv(fd, req, sizeof req, MSG_WAITALL) == STUN_HEADER);
	CHECK(memcmp(req, b.request, STUN_HEADER) == 0);
	CHECK(memcmp(first, b.request + 8, STUN_ID) != 0);
	answer(&m, &b);
	send(fd, m.p, m.n, 0);
	CHECK(SOON(&b, 31001) == 1 && b.state == FLOW_OPEN);

	/* an answer of before is an error on a stream */
	CHECK(flow_ask(&b, 0, 61000, 63000) == 0);
	send(fd, m.p, m.n, 0);
	CHECK(SOON(&b, 61001) == -1 && errno == ENOTANSWER && b.fd == -1);
	close(fd);
}

static void
tcp_two_answers_glued(void)
{
	struct flow b;
	struct message m;
	int fd = tcp_flow(&b, 0);

	answer(&m, &b);
	memcpy(m.p + m.n, m.p, m.n);
	send(fd, m.p, m.n * 2, 0);
	CHECK(SOON(&b, 1) == 1 && is_mapped(&b));
	CHECK(SOON(&b, 2) == -1 && errno == ENOTANSWER && b.fd == -1);
	close(fd);
}

static void
tcp_lengths(void)
{
	static const unsigned int lengths[] = { 0, 3, 513, 516, 65532, 65535 };
	static const char fill[512];
	struct flow b;
	struct message m;
	size_t i;
	int fd;

	for (i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		fd = tcp_flow(&b, 0);
		answer(&m, &b);
		put16(m.p + 2, lengths[i]);
		send(fd, m.p, STUN_HEADER + 4, 0);
		CHECK(SOON(&b, 1) == -1 && errno == ENOTANSWER);
		close(fd);
	}
	fd = tcp_flow(&b, 0);
	answer(&m, &b);
	add(&m, 0x8022, fill, 512 - 12 - 4);
	CHECK(m.n == sizeof b.buf);
	send(fd, m.p, m.n, 0);
	CHECK(SOON(&b, 1) == 1);
	flow_stop(&b, 0);
	close(fd);
}

static void
tcp_error_response(void)
{
	struct flow b;
	struct message m;
	int fd = tcp_flow(&b, 0);

	message(&m, ERROR, b.request + 8);
	add(&m, ERROR_CODE, "\0\0\4\x14", 4);
	send(fd, m.p, m.n, 0);
	CHECK(SOON(&b, 1) == -1 && errno == EREFUSED + 420);
	close(fd);
}

/* Closing after each byte; reset: by a reset. */
static void
tcp_closes(int reset)
{
	struct flow b;
	struct message m;
	size_t i;
	char c;
	int fd, r;

	for (i = 0; i <= 32; i++) {
		fd = tcp_flow(&b, 0);
		answer(&m, &b);
		if (i > 0)
			send(fd, m.p, i, 0);
		if (!reset)
			shutdown(fd, SHUT_WR);
		else if (i == 0 || SOON(&b, 1) == (i == 32)) {
			fd_abortive(fd, 1);
			close(fd);
		}
		r = SOON(&b, 1);
		if (i == 32 && !reset) {
			CHECK(r == 1);
			r = SOON(&b, 2);
		}
		CHECK(r == -1 && errno == (reset ? ECONNRESET : ECLOSED));
		CHECK(b.fd == -1);
		if (reset)
			continue;
		CHECK(recv(fd, &c, 1, 0) == 0);		/* no reset */
		close(fd);
	}
}

static void
tcp_end_at_each_byte(void)
{
	tcp_closes(0);
}

static void
tcp_reset_at_each_byte(void)
{
	tcp_closes(1);
}

/* Ours ends with a reset, and the same 4-tuple is free at once. */
static void
tcp_stop_resets(void)
{
	struct flow b;
	struct message m;
	int fd = tcp_flow(&b, 0);
	char c;

	answer(&m, &b);
	send(fd, m.p, m.n, 0);
	CHECK(SOON(&b, 1) == 1);
	flow_stop(&b, 0);
	CHECK(recv(fd, &c, 1, 0) == -1 && errno == ECONNRESET);
	close(fd);
}

static void
tcp_refused(void)
{
	struct flow b;
	int r;

	close(server(SOCK_STREAM));
	r = open_flow(&b, FLOW_TCP, NULL, 0, 9);
	if (r == 0)
		r = SOON(&b, 0);
	CHECK(r == -1 && errno == ECONNREFUSED && b.fd == -1);
}

static void
tcp_deadlines(void)
{
	struct flow b;
	int s = server(SOCK_STREAM), fd;

	open_flow(&b, FLOW_TCP, NULL, 1000, 5000);
	wake_clear(&w);
	flow_want(&b, &w);
	CHECK(w.deadline == 5000);
	CHECK(flow_step(&b, &w, 4999) == 0 && b.state == FLOW_ASKING);
	CHECK(flow_step(&b, &w, 5000) == -1 && errno == ETIMEDOUT);
	close(s);

	fd = tcp_flow(&b, 1000);
	CHECK(turn(&b, 9999, 0) == 0 && w.deadline == 10000);
	CHECK(turn(&b, 10000, 0) == -1 && errno == ETIMEDOUT && b.fd == -1);
	close(fd);
}

/* A request that the socket did not take is written when it can be. */
static void
tcp_request_waits(void)
{
	unsigned char buf[STUN_HEADER];
	static char fill[65536];
	struct flow b;
	int sv[2], n;

	socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
	fcntl(sv[0], F_SETFL, O_NONBLOCK);
	fcntl(sv[1], F_SETFL, O_NONBLOCK);
	while (send(sv[0], fill, sizeof fill, 0) > 0)
		;
	memset(&b, 0, sizeof b);
	b.kind = FLOW_TCP;
	b.fd = sv[0];
	CHECK(flow_ask(&b, 0, 0, 5000) == 0 && b.left == STUN_HEADER);
	CHECK(turn(&b, 1, 0) == 0 && (w.fds[0].events & POLLOUT));
	while (recv(sv[1], fill, sizeof fill, 0) > 0)
		;
	CHECK(SOON(&b, 2) == 0 && b.left == 0);
	CHECK(turn(&b, 2, 0) == 0 && w.fds[0].events == POLLIN);
	n = (int)recv(sv[1], buf, sizeof buf, 0);
	CHECK(n == STUN_HEADER && memcmp(buf, b.request, STUN_HEADER) == 0);
	flow_stop(&b, 0);
	close(sv[1]);
}

static void
writes_go_on_where_they_stopped(void)
{
	char want[512], got[512];
	struct flow f;
	unsigned n, left;
	int sv[2];

	socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
	memset(&f, 0, sizeof f);
	f.kind = FLOW_HTTP;
	f.fd = sv[0];
	f.host = "www.example.org";
	n = write_head(&f, want, sizeof want);
	for (left = 1; left <= n; left++) {
		f.left = left;
		CHECK(send_request(&f) == 0 && f.left == 0);
		CHECK(recv(sv[1], got, sizeof got, 0) == (ssize_t)left);
		CHECK(memcmp(got, want + n - left, left) == 0);
	}
	flow_stop(&f, 0);
	close(sv[1]);
}

static int
option(int fd, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof v;

	getsockopt(fd, level, name, &v, &len);
	return v;
}

static void
flow_options(void)
{
	struct linger lg = { 0, 9 };
	socklen_t len = sizeof lg;
	struct flow b;
	int fd = tcp_flow(&b, 0);

	getsockopt(b.fd, SOL_SOCKET, SO_LINGER, &lg, &len);
	CHECK(lg.l_onoff && lg.l_linger == 0);
	CHECK(option(b.fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
	CHECK(option(b.fd, IPPROTO_TCP, TCP_NODELAY) != 0);
	CHECK(option(b.fd, IPPROTO_TCP, TCP_KEEPIDLE) == 10);
	CHECK(option(b.fd, IPPROTO_TCP, TCP_KEEPINTVL) == 5);
	CHECK(option(b.fd, IPPROTO_TCP, TCP_KEEPCNT) == 5);
#if TCP_USER_TIMEOUT > 0
	CHECK(option(b.fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 30000);
#endif
	CHECK(fcntl(b.fd, F_GETFD) & FD_CLOEXEC);
	CHECK(fcntl(b.fd, F_GETFL) & O_NONBLOCK);
	flow_stop(&b, 0);
	close(fd);
}

/*
 * The HTTP reader.
 */

enum http_reply { HTTP_BAD = -1, HTTP_MORE, HTTP_DONE };

struct http_case {
	const char *text;
	enum http_reply reply;
	int status, close;
	unsigned long timeout, max;
	size_t rest;		/* bytes after the answer */
};

static const struct http_case http_cases[] = {
	{ "HTTP/1.1 200 OK\r\n\r\n", HTTP_DONE, 200, 0, -1, -1, 0 },
	{ "HTTP/1.1 200\n\n", HTTP_DONE, 200, 0, -1, -1, 0 },
	{ "HTTP/1.1 404 no\r\nServer: x\r\nConnection: close\r\n\r\n",
	    HTTP_DONE, 404, 2, -1, -1, 0 },
	{ "HTTP/1.1 301 x\nCONNECTION:\t foo ,ClOsE,keep-alive\n\nbody",
	    HTTP_DONE, 301, 2, -1, -1, 4 },
	{ "HTTP/1.1 200 OK\r\nConnection: closed, unclose, clos\r\n\r\n",
	    HTTP_DONE, 200, 0, -1, -1, 0 },
	{ "HTTP/1.1 200 OK\r\nX-Connection: close\r\nConnections: close\r\n"
	    "Connection : close\r\n\r\n", HTTP_DONE, 200, 0, -1, -1, 0 },
	{ "HTTP/1.0 200 OK\r\n\r\n", HTTP_DONE, 200, 1, -1, -1, 0 },
	{ "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", HTTP_DONE,
	    200, 0, -1, -1, 0 },
	{ "HTTP/1.0 200 OK\r\nConnection: Close\r\n"
	    "Connection: keep-alive\r\n\r\n", HTTP_DONE, 200, 2, -1, -1, 0 },
	{ "HTTP/1.1 200 OK\r\nkeep-alive: timeout=5, max=99\r\n\r\n",
	    HTTP_DONE, 200, 0, 5, 99, 0 },
	{ "HTTP/1.1 200 OK\r\nKeep-Alive: MAX=0,TIMEOUT=0\r\n\r\n",
	    HTTP_DONE, 200, 0, 0, 0, 0 },
	{ "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=-5, max=x, timeout=\r\n"
	    "\r\n", HTTP_DONE, 200, 0, -1, -1, 0 },
	{ "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1,"
	    "timeout=99999999999999999999999\r\n\r\n",
	    HTTP_DONE, 200, 0, ULONG_MAX, -1, 0 },
	{ "HTTP/1.1 100 Continue\r\nConnection: close\r\nKeep-Alive: max=1"
	    "\r\n\r\nHTTP/1.1 103\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	    HTTP_DONE, 200, 0, -1, -1, 0 },
	{ "HTTP/1.1 101 Switching\r\n", HTTP_BAD, 101, 0, -1, -1, 0 },
	{ "HTTP/1.1 099 x\r\n", HTTP_BAD, 99, 0, -1, -1, 0 },
	{ "HTTP/2 200\r\n", HTTP_BAD, 0, 0, -1, -1, 0 },
	{ "HTTP/1.1 20\r\n", HTTP_BAD, 0, 0, -1, -1, 0 },
	{ "HTTP/1.1 2000 x\r\n", HTTP_BAD, 0, 0, -1, -1, 0 },
	{ "HTTP/1.10 200 x\r\n", HTTP_BAD, 0, 0, -1, -1, 0 },
	{ "\r\n", HTTP_BAD, 0, 0, -1, -1, 0 },
	{ "SSH-2.0-OpenSSH_9.2\r\n", HTTP_BAD, 0, 0, -1, -1, 0 },
	{ "HTTP/1.1 200 OK\r\nServer: x\r\n", HTTP_MORE, 200, 0, -1, -1, 0 },
};

/* A GET, as its state tells where the header ended, and buf has the rest. */
static void
http_reset(struct flow *f)
{
	memset(f, 0, sizeof *f);
	f->state = FLOW_ASKING;
	f->host = "a/b";
	f->timeout = f->max = -1;
}

static enum http_reply
http_read(struct flow *f, const char *p, size_t n)
{
	CHECK(f->have + n < sizeof f->buf);
	memcpy(f->buf + f->have, p, n);
	return take_http(f, n) < 0 ? HTTP_BAD :
	    f->state == FLOW_BODY ? HTTP_DONE : HTTP_MORE;
}

static void
read_text(struct flow *f, const struct http_case *t, size_t piece)
{
	size_t n = strlen(t->text), at = 0, some;
	enum http_reply r = HTTP_MORE;

	http_reset(f);
	for (; at < n && r == HTTP_MORE; at += some) {
		some = piece < n - at ? piece : n - at;
		r = http_read(f, t->text + at, some);
	}
	CHECK(r == t->reply);
	CHECK(r != HTTP_DONE || (at - f->have == n - t->rest &&
	    memcmp(f->buf, t->text + n - t->rest, f->have) == 0));
	CHECK(f->status == t->status && f->closes == t->close);
	CHECK(f->timeout == t->timeout && f->max == t->max);
}

static void
http_answers_in_pieces(void)
{
	struct flow f;
	size_t i, piece;

	for (i = 0; i < sizeof http_cases / sizeof *http_cases; i++)
		for (piece = strlen(http_cases[i].text); piece > 0; piece--)
			read_text(&f, &http_cases[i], piece);
}

static void
http_split_anywhere(void)
{
	const char *s = http_cases[13].text;
	struct flow f;
	size_t n = strlen(s), at;

	for (at = 0; at <= n; at++) {
		http_reset(&f);
		CHECK(http_read(&f, s, at) == (at == n ? HTTP_DONE :
		    HTTP_MORE));
		if (at < n)
			CHECK(http_read(&f, s + at, n - at) == HTTP_DONE);
		CHECK(f.status == 200 && f.closes == 0 && f.have == 0);
	}
}

static void
http_long_lines(void)
{
	struct flow f;
	char buf[2000];
	size_t n;

	for (n = 100; n < 140; n++) {
		http_reset(&f);
		snprintf(buf, sizeof buf, "HTTP/1.1 200 %0*d\r\n"
		    "X: %0*d\r\nConnection: close\r\n\r\n", (int)n, 0,
		    (int)n, 0);
		CHECK(http_read(&f, buf, strlen(buf)) == HTTP_DONE);
		CHECK(f.closes == 2 && f.have == 0);
	}
}

/* What is beyond the 127th byte of a line does not count, in one piece or in
 * many. */
static void
http_lines_are_cut(void)
{
	struct flow f;
	char buf[500];
	size_t n, i, at, len, piece;
	enum http_reply r;

	for (n = 100; n < 120; n++) {
		snprintf(buf, sizeof buf, "HTTP/1.1 200 OK\r\nConnection:"
		    "%*sclose%*s\r\n\r\n", (int)n, "", (int)n, "");
		len = strlen(buf);
		for (piece = 1; piece <= len; piece++) {
			http_reset(&f);
			r = HTTP_MORE;
			for (at = 0; at < len; at += i) {
				i = piece < len - at ? piece : len - at;
				r = http_read(&f, buf + at, i);
			}
			CHECK(r == HTTP_DONE && f.have == 0);
			CHECK(f.closes == (n + 16 <= HTTP_LINE ? 2 : 0));
		}
	}
}

static void
http_nul_bytes(void)
{
	static const char s[] = "HTTP/1.1 200 OK\r\nX: \0 y\r\n\0\r\n"
	    "Connection: \0close\r\n\0Connection: close\r\n\r\n";
	struct flow f;

	http_reset(&f);
	CHECK(http_read(&f, s, sizeof s - 1) == HTTP_DONE);
	CHECK(f.have == 0 && f.closes == 0);
}

/* The limit holds for a line that never ends, for fields that never end, and
 * for answers of class 1xx that never end; and for a header that ends. */
static void
http_endless(void)
{
	static const char *const part[] = { "x", "HTTP/1.1 200 OK\r\nA: b\r\n",
	    "HTTP/1.1 100 x\r\n\r\n" };
	static const char end[] = "HTTP/1.1 200 OK\r\n\r\nbody";
	size_t i, k, n, over;
	struct flow f;
	enum http_reply r;

	for (i = 0; i < 3; i++) {
		http_reset(&f);
		n = strlen(part[i]);
		r = HTTP_MORE;
		for (k = 0; r == HTTP_MORE && k < 20000; k++)
			r = http_read(&f, part[i], n);
		CHECK(r == HTTP_BAD && k * n > HTTP_LIMIT &&
		    (k - 1) * n <= HTTP_LIMIT && f.total == k * n);
	}
	for (over = 0; over < 2; over++) {
		http_reset(&f);
		for (k = 0; k < (HTTP_LIMIT - 64) / n; k++)
			http_read(&f, part[2], n);
		http_read(&f, "HTTP/1.1 100 x", 14);
		while (f.total < HTTP_LIMIT - 19 - 4 + over)
			http_read(&f, " ", 1);
		CHECK(http_read(&f, "\r\n\r\n", 4) == HTTP_MORE);
		CHECK(f.total == HTTP_LIMIT - 19 + over);
		CHECK(http_read(&f, end, sizeof end - 1) ==
		    (over ? HTTP_BAD : HTTP_DONE));
	}
}

/*
 * The keep-alive connection.
 */

static int
kturn(struct flow *k, int64_t now, int wait)
{
	wake_clear(&w);
	flow_want(k, &w);
	poll(w.fds, (nfds_t)w.n, wait);
	return flow_step(k, &w, now);
}

/* The server's end of a keep-alive connection that has asked. */
static int
kflow(struct flow *k, const char *host, char *head, size_t size)
{
	int s = server(SOCK_STREAM), fd;
	ssize_t n;

	CHECK(open_flow(k, FLOW_HTTP, host, 1000, 4000) == 0);
	if (k->left > 0)
		CHECK(kturn(k, 1010, 2000) == 0);
	CHECK(k->state == FLOW_ASKING && k->left == 0);
	fd = accept(s, NULL, NULL);
	close(s);
	n = recv(fd, head, size - 1, 0);
	head[n > 0 ? n : 0] = '\0';
	return fd;
}

static int
kreply(struct flow *k, int fd, const char *text)
{
	send(fd, text, strlen(text), 0);
	return kturn(k, 1020, 2000);
}

static void
keepalive_heads(void)
{
	char head[600], want[600];
	struct flow k;
	int fd;

	fd = kflow(&k, "www.example.org", head, sizeof head);
	snprintf(want, sizeof want, "HEAD / HTTP/1.1\r\n"
	    "Host: www.example.org:%d\r\nUser-Agent: natmap/" VERSION "\r\n"
	    "Connection: keep-alive\r\n\r\n", addr_port(&peer));
	CHECK(strcmp(head, want) == 0);
	CHECK(k.born == 1000);
	CHECK(kreply(&k, fd, http_cases[0].text) == 1 && k.state == FLOW_OPEN);
	kturn(&k, 1030, 0);
	CHECK(w.deadline == NEVER);

	CHECK(flow_ask(&k, 1, 31000, 34000) == 0 && k.asked == 31000);
	head[recv(fd, head, sizeof head - 1, 0)] = '\0';
	CHECK(strstr(head, "\r\nConnection: close\r\n\r\n") != NULL);
	CHECK(kreply(&k, fd, http_cases[2].text) == 1 && k.closes);
	shutdown(fd, SHUT_WR);
	CHECK(kturn(&k, 31010, 2000) == -1 && errno == ECLOSED);
	CHECK(recv(fd, head, 1, 0) == 0 && k.fd == -1);
	close(fd);
}

static void
keepalive_host_field(void)
{
	static const struct {
		const char *host;
		int port;
		const char *want;
	} t[] = {
		{ "example.org", 80, "Host: example.org\r\n" },
		{ "example.org", 8080, "Host: example.org:8080\r\n" },
		{ "2001:db8::1", 80, "Host: [2001:db8::1]\r\n" },
		{ "2001:db8::1", 81, "Host: [2001:db8::1]:81\r\n" },
		{ "fe80::1%eth0", 65535, "Host: [fe80::1]:65535\r\n" },
	};
	char head[512], host[254];
	struct flow k;
	size_t i;

	memset(&k, 0, sizeof k);
	addr_parse(&k.ends.peer, "::1", AF_INET6);
	for (i = 0; i < sizeof t / sizeof *t; i++) {
		k.host = t[i].host;
		addr_set_port(&k.ends.peer, t[i].port);
		CHECK(write_head(&k, head, sizeof head) == strlen(head));
		CHECK(strstr(head, t[i].want) != NULL);
	}
	memset(host, 'h', sizeof host - 1);
	host[sizeof host - 1] = '\0';
	k.host = host;
	CHECK(write_head(&k, head, sizeof head) > sizeof host);
}

/* "host/path" is asked for by GET, and the body is kept, as much as fits. */
static void
bodies(void)
{
	static const struct {
		const char *answer, *body;
		int status;
	} t[] = {
		{ "HTTP/1.1 200 OK\r\nA: b\r\n\r\n1", "1", 200 },
		{ "HTTP/1.0 200\n\n{\"reachable\": true}\n",
		    "{\"reachable\": true}\n", 200 },
		{ "HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 404 No\r\n\r\nno",
		    "no", 404 },
		{ "HTTP/1.1 200 OK\r\n\r\n", "", 200 },
		{ "HTTP/1.1 200 OK\r\n", NULL, 0 },
		{ "1", NULL, 0 }, { "1\r\n", NULL, 0 }, { "", NULL, 0 }
	};
	char head[400], want[400];
	size_t i, k;
	struct flow f;
	int fd, r;

	for (i = 0; i < sizeof t / sizeof *t; i++) {
		fd = kflow(&f, "probe.test/port/40000", head, sizeof head);
		snprintf(want, sizeof want, "GET /port/40000 HTTP/1.0\r\n"
		    "Host: probe.test:%d\r\nUser-Agent: natmap/" VERSION
		    "\r\nConnection: close\r\n\r\n", addr_port(&f.ends.peer));
		CHECK(strcmp(head, want) == 0);
		for (k = r = 0; t[i].answer[k] && r == 0; k++) {
			send(fd, t[i].answer + k, 1, 0);
			r = kturn(&f, 0, 20);
		}
		shutdown(fd, SHUT_WR);
		if (r == 0)
			r = kturn(&f, 0, 2000);
		CHECK(r == (t[i].body ? 1 : -1));
		CHECK(!t[i].body || (strcmp((char *)f.buf, t[i].body) == 0 &&
		    f.status == t[i].status));
		flow_stop(&f, 0);
		close(fd);
	}
}

static void
body_without_end(void)
{
	char head[400], more[4096];
	struct flow f;
	int fd, i, r = 0;

	memset(more, '1', sizeof more);
	fd = kflow(&f, "probe.test/1", head, sizeof head);
	kreply(&f, fd, "HTTP/1.1 200 OK\r\n\r\n");
	for (i = 0; i < 8 && r == 0; i++) {
		send(fd, more, sizeof more, MSG_DONTWAIT);
		r = kturn(&f, 0, 2000);
	}
	CHECK(r == 1 && strlen((char *)f.buf) == sizeof f.buf - 1);
	flow_stop(&f, 1);
	close(fd);
}

static void
keepalive_split_anywhere(void)
{
	const char *s = http_cases[9].text;
	struct flow k;
	size_t at, n = strlen(s);
	char head[600];
	int fd;

	for (at = 1; at < n; at++) {
		fd = kflow(&k, "a", head, sizeof head);
		send(fd, s, at, 0);
		CHECK(kturn(&k, 1011, 2000) == 0 && k.state == FLOW_ASKING);
		send(fd, s + at, n - at, 0);
		CHECK(kturn(&k, 1012, 2000) == 1 && k.state == FLOW_OPEN);
		CHECK(k.timeout == 5 && k.max == 99);
		flow_stop(&k, at & 1);
		CHECK(recv(fd, head, 1, 0) == (at & 1 ? -1 : 0));
		close(fd);
	}
}

/* A body that comes with the answer, or after it, is dropped up to a limit. */
static void
keepalive_body(void)
{
	static const char ok[] = "HTTP/1.1 200 OK\r\n\r\n";
	char body[HTTP_LIMIT + 1], head[600];
	struct flow k;
	int fd, i, over;

	memset(body, 'b', sizeof body);
	body[0] = '\n';
	fd = kflow(&k, "a", head, sizeof head);
	for (i = 0; i < 3; i++) {
		CHECK(kreply(&k, fd, http_cases[3].text) == 1);
		CHECK(kreply(&k, fd, "\r\nHTTP/1.1 junk\n") == 0);
		CHECK(k.state == FLOW_OPEN);
		CHECK(flow_ask(&k, 0, 2000, 3000) == 0);
	}
	flow_stop(&k, 0);
	close(fd);
	for (over = 0; over < 2; over++) {
		fd = kflow(&k, "a", head, sizeof head);
		CHECK(kreply(&k, fd, ok) == 1);
		send(fd, body, HTTP_LIMIT + (size_t)over, 0);
		for (i = 0; i < 20 && k.fd != -1; i++)
			kturn(&k, 1020, 100);
		CHECK((k.fd == -1) == over);
		flow_stop(&k, 0);
		close(fd);
	}
	fd = kflow(&k, "a", head, sizeof head);
	CHECK(kreply(&k, fd, "220 mail ESMTP\r\n") == -1 &&
	    errno == ENOTANSWER);
	close(fd);
	/* A number of too many digits leaves an error of its own. */
	fd = kflow(&k, "a", head, sizeof head);
	CHECK(kreply(&k, fd, "HTTP/1.1 100 x\r\nKeep-Alive: "
	    "max=99999999999999999999999\r\n\r\njunk\r\n") == -1 &&
	    errno == ENOTANSWER);
	close(fd);
}

static void
keepalive_server_closes(void)
{
	struct flow k;
	char head[600];
	int fd, r;

	close(server(SOCK_STREAM));
	r = open_flow(&k, FLOW_HTTP, "a", 0, 9);
	if (r == 0)
		r = kturn(&k, 0, 2000);
	CHECK(r == -1 && errno == ECONNREFUSED && k.fd == -1);

	fd = kflow(&k, "a", head, sizeof head);
	CHECK(kreply(&k, fd, "HTTP/1.1 200 OK\r\n") == 0);
	shutdown(fd, SHUT_WR);
	CHECK(kturn(&k, 1030, 2000) == -1 && errno == ECLOSED);
	CHECK(recv(fd, head, 1, 0) == 0);		/* no reset */
	close(fd);

	fd = kflow(&k, "a", head, sizeof head);
	fd_abortive(fd, 1);
	close(fd);
	CHECK(kturn(&k, 1030, 2000) == -1 && errno == ECONNRESET);
	flow_stop(&k, 0);
	flow_stop(&k, 1);
}

static void
keepalive_deadlines(void)
{
	struct flow k;
	char head[600];
	int s = server(SOCK_STREAM), fd;

	open_flow(&k, FLOW_HTTP, "a", 1000, 4000);
	wake_clear(&w);
	flow_want(&k, &w);
	CHECK(w.deadline == 4000 && flow_step(&k, &w, 3999) == 0);
	CHECK(flow_step(&k, &w, 4000) == -1 && errno == ETIMEDOUT);
	close(s);

	fd = kflow(&k, "a", head, sizeof head);
	CHECK(kreply(&k, fd, "HTTP/1.1 200 OK\r\n") == 0);
	CHECK(kturn(&k, 3999, 0) == 0 && w.deadline == 4000);
	CHECK(kturn(&k, 4000, 0) == -1 && errno == ETIMEDOUT && k.fd == -1);
	close(fd);
}

/*
 * The port's sockets.
 */

static void
ports_of_ones_own(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	struct config c;
	struct local a, b;
	union addr at;
	int i, fd, again, one;

	for (i = 0; i < 2; i++) {
		local_init(&a, &c, AF_INET, types[i], 0);
		c.target.name = "t";
		fd = local_socket(&a, LOCAL_SERVER);
		CHECK(fd != -1 && a.why == NULL && a.port != 0);
		CHECK(fd_name(fd, &at) == 0 && addr_port(&at) == a.port);
		CHECK(option(fd, SOL_SOCKET, SO_REUSEADDR) == (i == 0));
		CHECK(option(fd, SOL_SOCKET, SO_REUSEPORT) == (i == 0));
		b = a;
		again = local_socket(&b, LOCAL_SERVER);
		CHECK(again == -1 && errno == EADDRINUSE && b.why == NULL);
		close(fd);
		one = local_socket(&b, LOCAL_SERVER);
		CHECK(one != -1 && b.port == a.port);
		close(one);
	}
}

/* The same port of both families. */
static void
families_apart(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	struct config c, d;
	struct local a, b;
	struct owner o;
	int i, k, four, six = -1;

	for (i = 0; i < 2; i++) {
		for (four = -1, k = 0; four == -1 && k < 20; k++) {
			local_init(&b, &d, AF_INET6, types[i], 0);
			six = local_socket(&b, LOCAL_SERVER);
			if (six == -1 && errno == EAFNOSUPPORT)
				return;
			local_init(&a, &c, AF_INET, types[i], b.port);
			four = local_socket(&a, LOCAL_SERVER);
			if (four == -1)		/* somebody else's */
				close(six);
		}
		CHECK(four != -1);
		CHECK(option(six, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
		CHECK(local_owner(&b, &o) == 1 && o.pid == getpid());
		close(six);
		CHECK(local_owner(&a, &o) == 1 && local_owner(&b, &o) == 0);
		close(four);
	}
}

/* Forward mode: our flows beside our listener. */
static void
flows_beside_ones_own_listener(void)
{
	struct config c;
	struct local l;
	int s, one, two;

	local_init(&l, &c, AF_INET, SOCK_STREAM, 0);
	c.target.name = "t";
	s = local_socket(&l, LOCAL_SERVER);
	one = local_socket(&l, LOCAL_FLOW);
	two = local_socket(&l, LOCAL_FLOW);
	CHECK(s != -1 && one != -1 && two != -1);
	close(one);
	close(two);
	close(s);
}

/* Forward mode on a kernel without SO_REUSEPORT: the listener makes room for a
 * moment and listens on, also after that has failed once. */
static void
flows_beside_an_old_listener(void)
{
	struct config c;
	struct local l;
	union addr at;
	int s, one, i;

	local_init(&l, &c, AF_INET, SOCK_STREAM, 0);
	c.target.name = "t";
	close(local_socket(&l, LOCAL_SERVER));
	s = local_socket(&l, LOCAL_SERVER);
	CHECK(s != -1 && l.listener == 0);
	fd_option(s, SOL_SOCKET, SO_REUSEPORT, 0);
	CHECK(local_socket(&l, LOCAL_FLOW) == -1 && errno == EADDRINUSE);
	l.listener = s;
	addr_parse(&at, "127.0.0.1", AF_INET);
	addr_set_port(&at, l.port);
	for (i = 0; i < 3; i++) {
		if (i == 2)
			shutdown(s, SHUT_RD);
		one = local_socket(&l, LOCAL_FLOW);
		CHECK(one != -1);
		close(one);
		one = socket(AF_INET, SOCK_STREAM, 0);
		CHECK(connect(one, &at.sa, addr_len(&at)) == 0);
		close(one);
		one = accept(s, NULL, NULL);
		CHECK(one != -1);
		close(one);
	}
	close(s);
}

static void
source_addresses(void)
{
	struct route r;
	struct config c;
	struct local l;
	union addr to, src;
	char text[ADDR_TEXT];
	int fd;

	local_init(&l, &c, AF_INET, SOCK_STREAM, 0);
	addr_parse(&c.source, "127.0.0.1", AF_INET);
	fd = local_socket(&l, LOCAL_FLOW);
	CHECK(fd != -1 && fd_name(fd, &src) == 0);
	CHECK(strcmp(addr_host(&src, text), "127.0.0.1") == 0);
	close(fd);
	addr_parse(&to, "127.0.0.9", AF_INET);
	addr_set_port(&to, 9);
	route_find(&l, &to, &r);
	src = r.source;
	CHECK(src.sa.sa_family != 0);
#ifndef NATMAP_PORTABLE
	CHECK(r.index == if_nametoindex("lo") && r.flags & IFF_UP);
#endif
	CHECK(strcmp(addr_host(&src, text), "127.0.0.1") == 0);
	CHECK(addr_port(&src) == l.port);
	addr_parse(&c.source, "192.0.2.250", AF_INET);
	CHECK(local_socket(&l, LOCAL_FLOW) == -1 &&
	    errno == EADDRNOTAVAIL);
	route_find(&l, &to, &r);
	CHECK(r.source.sa.sa_family == 0 && r.index == 0);
#if SO_BINDTODEVICE > 0
	local_init(&l, &c, AF_INET, SOCK_STREAM, 0);
	c.device = "nosuchdev0";
	CHECK(local_socket(&l, LOCAL_FLOW) == -1 && errno == ENODEV);
#endif
}

static void
news_does_not_block(void)
{
	struct pollfd p = { route_open(), POLLIN, 0 };

#ifdef NATMAP_PORTABLE
	CHECK(p.fd < 0);
#else
	CHECK(p.fd >= 0);
#endif
	if (p.fd >= 0) {
		CHECK(fcntl(p.fd, F_GETFL) & O_NONBLOCK);
		CHECK(fcntl(p.fd, F_GETFD) & FD_CLOEXEC);
		route_read(p.fd);
		CHECK(poll(&p, 1, 0) == 0);
		close(p.fd);
	}
	route_read(-1);
}

/* A TCP socket that is bound and no more stands in no table. */
static void
owner_is_found(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	char self[PROCESS_NAME];
	struct config c;
	struct local l;
	struct owner o;
	int i, s, fd;

	process_name(getpid(), self);
	for (i = 0; i < 2; i++) {
		local_init(&l, &c, AF_INET, types[i], 0);
		fd = local_socket(&l, LOCAL_FLOW);
		CHECK(local_owner(&l, &o) == (types[i] == SOCK_DGRAM));
		close(fd);
		CHECK(local_owner(&l, &o) == 0 && o.pid == 0);
		s = local_socket(&l, LOCAL_SERVER);
		CHECK(local_owner(&l, &o) == 1 && o.pid == getpid());
		CHECK(o.listening && o.uid == getuid() && !o.twin);
		CHECK(*o.name != '\0' && strcmp(o.name, self) == 0);
		close(s);
	}
}

static void
process_names_are_printable(void)
{
	char name[PROCESS_NAME];

#ifdef PR_SET_NAME
	CHECK(prctl(PR_SET_NAME, "\033]0;a b~\n\x7f\x9b\xc3\xa9") == 0);
	process_name(getpid(), name);
	CHECK(strcmp(name, "?]0;a b~?\?\?\?\?") == 0);
	prctl(PR_SET_NAME, "");
	process_name(getpid(), name);
	CHECK(*name == '\0');
	prctl(PR_SET_NAME, "test_stun");
#endif
	process_name(0, name);
	CHECK(*name == '\0');
}

struct service {
	int family, type;
	uid_t uid;
	int reuseaddr, reuseport;	/* the flags that it sets */
	int live;		/* it has accepted a connection */
	int port;
	pid_t pid;
	int quit[2];
};

/* The child: a server that knows nothing of sharing, which sends each that
 * comes one byte. */
static void
serve(const struct service *v, int port[2])
{
	struct config cfg;
	struct local l;
	union addr a = { .in6 = { 0 } };
	int fd, off = 0;
	char c;

	close(v->quit[1]);
	if (v->uid != 0 && setuid(v->uid) == -1)
		_exit(1);
	local_init(&l, &cfg, v->family, v->type, 0);
	fd = socket(v->family, v->type, 0);
	if (v->family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	fd_option(fd, SOL_SOCKET, SO_REUSEADDR, v->reuseaddr);
	fd_option(fd, SOL_SOCKET, SO_REUSEPORT, v->reuseport);
	if (bind_port(&l, fd, 0) == -1 || fd_name(fd, &a) == -1 ||
	    (v->type == SOCK_STREAM && listen(fd, 8) == -1) ||
	    write(port[1], &a, sizeof a) != sizeof a)
		_exit(1);
	if (v->live && (accept(fd, NULL, NULL) == -1 ||
	    write(port[1], "", 1) != 1))
		_exit(1);
	_exit(read(v->quit[0], &c, 1) == 0 ? 0 : 1);
}

/* Starts a service; returns a client's end where it has one. */
static int
service_start(struct service *v)
{
	union addr a, to;
	int port[2], fd = -1;
	char c;

	if (pipe(port) == -1 || pipe(v->quit) == -1)
		return -1;
	v->pid = fork();
	if (v->pid == 0)
		serve(v, port);
	close(port[1]);
	close(v->quit[0]);
	CHECK(read(port[0], &a, sizeof a) == sizeof a);
	v->port = addr_port(&a);
	if (v->live) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		addr_parse(&to, "127.0.0.1", AF_INET);
		addr_set_port(&to, v->port);
		CHECK(connect(fd, &to.sa, addr_len(&to)) == 0);
		CHECK(read(port[0], &c, 1) == 1);
	}
	close(port[0]);
	return fd;
}

static void
service_stop(struct service *v, int client)
{
	int status = -1;

	if (client != -1)
		close(client);
	close(v->quit[1]);
	waitpid(v->pid, &status, 0);
	CHECK(status == 0);
}

/* Whether this machine lets us: Linux 5.6, not under an emulator. */
static int
can_share(void)
{
	int fd = copy_fd(getpid(), 0);

	if (fd == -1)
		printf("# sharing is not possible here: its refusal is "
		    "tested\n");
	else
		close(fd);
	fflush(stdout);
	return fd != -1;
}

/* From the shared port to a server, which sees that port; and the service
 * takes connections as before. */
static void
use_shared(int fd, int port)
{
	int s = server(SOCK_STREAM), client, at;
	union addr a, service;
	socklen_t len = sizeof a;

	connect(fd, &peer.sa, addr_len(&peer));
	at = accept(s, &a.sa, &len);
	CHECK(at != -1 && addr_port(&a) == port);
	close(at);
	close(s);
	client = socket(AF_INET, SOCK_STREAM, 0);
	addr_parse(&service, "127.0.0.1", AF_INET);
	addr_set_port(&service, port);
	CHECK(connect(client, &service.sa, addr_len(&service)) == 0);
	close(client);
}

/* The flags of all sockets of the port are addr and port. */
static void
check_flags(const struct local *l, int addr, int port)
{
	struct holder *list, *h;
	int fd;

	CHECK(find_holders(&list, l) == 0 && list);
	for (h = list; h; h = h->next) {
		fd = copy_fd(h->o.pid, h->fd);
		CHECK(option(fd, SOL_SOCKET, SO_REUSEADDR) == addr);
		CHECK(option(fd, SOL_SOCKET, SO_REUSEPORT) == port);
		close(fd);
	}
	free_holders(list);
}

static void
share_with(struct service v, int possible)
{
	int client = service_start(&v), fd;
	struct config c;
	struct local l;
	struct owner o;

	local_init(&l, &c, AF_INET, v.type, v.port);
	c.target.name = "t";
	CHECK(local_socket(&l, LOCAL_FLOW) == -1 &&
	    errno == EADDRINUSE && l.why == NULL);
	CHECK(local_owner(&l, &o) == 1 && o.listening && o.twin);
	CHECK(o.uid == v.uid && o.pid == v.pid);
	c.target.name = NULL;
	fd = local_socket(&l, LOCAL_FLOW);
	if (possible || v.reuseport) {
		CHECK(fd != -1 && l.why == NULL);
		CHECK(l.uid == v.uid);
		if (v.type == SOCK_STREAM)
			use_shared(fd, v.port);
	} else
		CHECK(fd == -1 && errno == EADDRINUSE &&
		    strcmp(l.why, "sharing it needs Linux 5.6") == 0);
	if (fd != -1)
		close(fd);
	if (possible) {
		check_flags(&l, v.reuseaddr || v.type == SOCK_STREAM, 1);
		fd = local_socket(&l, LOCAL_FLOW);
		CHECK(fd != -1 && l.why == NULL);
		close(fd);
		local_release(&l);
		check_flags(&l, v.reuseaddr, v.reuseport);
	}
	local_release(&l);
	service_stop(&v, client);
}

static void
shared_with_services(void)
{
	static const struct service t[] = {
		{ .family = AF_INET, .type = SOCK_STREAM },
		{ .family = AF_INET, .type = SOCK_STREAM, .reuseaddr = 1 },
		{ .family = AF_INET, .type = SOCK_STREAM, .live = 1 },
		{ .family = AF_INET, .type = SOCK_STREAM, .uid = 65534 },
		{ .family = AF_INET, .type = SOCK_STREAM, .uid = 65534,
		    .live = 1, .reuseaddr = 1 },
		{ .family = AF_INET, .type = SOCK_STREAM, .uid = 65534,
		    .live = 1 },
		{ .family = AF_INET, .type = SOCK_DGRAM },
		{ .family = AF_INET, .type = SOCK_DGRAM, .uid = 65534 },
		{ .family = AF_INET, .type = SOCK_DGRAM, .reuseport = 1,
		    .uid = 65534 },
		{ .family = AF_INET6, .type = SOCK_STREAM, .uid = 65534,
		    .live = 1 },
		{ .family = AF_INET6, .type = SOCK_DGRAM, .uid = 65534 },
	};
	struct service v;
	int possible = can_share();
	size_t i;

	for (i = 0; i < sizeof t / sizeof *t; i++) {
		v = t[i];
		if (geteuid() != 0)
			v.uid = geteuid();
		/* with its own user such a service shares by itself */
		if (geteuid() == 0 || !v.reuseport)
			share_with(v, possible);
	}
}

/* As a plain user beside a service of root: run in a child. */
static void
sharing_needs_root(void)
{
	struct service v = { .family = AF_INET, .type = SOCK_STREAM };
	struct config c;
	struct local l;
	int status = -1;
	pid_t pid;

	if (geteuid() != 0)
		return;
	service_start(&v);
	local_init(&l, &c, AF_INET, v.type, v.port);
	pid = fork();
	if (pid == 0)
		_exit(setuid(65534) == -1 ||
		    local_socket(&l, LOCAL_FLOW) != -1 ||
		    errno != EADDRINUSE || !l.why ||
		    strcmp(l.why, "sharing it needs root") != 0);
	waitpid(pid, &status, 0);
	CHECK(status == 0);
	service_stop(&v, -1);
}

/* A socket that is on its way between processes has no process, like one of
 * the kernel or of another container; the kernel has UDP sockets of root. */
static void
unseen_socket(int type, uid_t uid, const char *want)
{
	union {
		struct cmsghdr c;
		char buf[CMSG_SPACE(sizeof(int))];
	} u;
	struct iovec io = { "", 1 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1,
	    .msg_control = u.buf, .msg_controllen = sizeof u.buf };
	struct config c;
	struct local l;
	struct owner o;
	int sv[2], fd;

	local_init(&l, &c, AF_INET, type, 0);
	l.uid = uid;
	fd = local_socket(&l, LOCAL_SERVER);
	fd_option(fd, SOL_SOCKET, SO_REUSEPORT, 0);
	socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
	memset(&u, 0, sizeof u);
	u.c.cmsg_level = SOL_SOCKET;
	u.c.cmsg_type = SCM_RIGHTS;
	u.c.cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(&u.c), &fd, sizeof fd);
	CHECK(sendmsg(sv[0], &m, 0) == 1);
	close(fd);
	CHECK(local_owner(&l, &o) == 1 && o.pid == 0 && *o.name == '\0');
	CHECK(local_socket(&l, LOCAL_FLOW) == -1 &&
	    errno == EADDRINUSE);
	CHECK(l.why && strcmp(l.why, geteuid() == 0 ? want :
	    "sharing it needs root") == 0);
	close(sv[0]);
	close(sv[1]);
	fd = local_socket(&l, LOCAL_FLOW);
	CHECK(fd != -1 && l.why == NULL);
	close(fd);
}

static void
socket_without_process(void)
{
	struct holder gone = { .o.listening = 0 };
	struct config c;
	struct local l;

	unseen_socket(SOCK_DGRAM, 0, kernel_socket);
	unseen_socket(SOCK_DGRAM, 65534, unseen);
	unseen_socket(SOCK_STREAM, 0, unseen);
	/* a connection that is no more */
	local_init(&l, &c, AF_INET, SOCK_STREAM, 0);
	share_holder(&l, &gone, 1);
	CHECK(l.why == NULL);
	CHECK(strncmp(unseen, "it cannot be seen", 17) == 0);
}

static void
proc_lines(void)
{
	static const struct {
		const char *line;
		int want;
	} t[] = {
		{ "  sl  local_address rem_address   st tx_queue rx_queue tr "
		    "tm->when retrnsmt   uid  timeout inode", 0 },
		{ "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 "
		    "00:00000000 00000000  1000        0 12345 1 0", 1 },
		{ "11111: 0100007F:0016 0100007F:D2F0 06 00000000:00000000 "
		    "03:00000C2C 00000000     0        0 0 3", 0 },
		{ "   0: 00000000:1600 00000000:0016 0A 00000000:00000000 "
		    "00:00000000 00000000  1000        0 12345 1 0", 0 },
		{ "", 0 }, { "   0: 00000000:0016", 0 }, { ":", 0 },
	};
	struct holder *h = NULL, *old;
	size_t i;

	for (i = 0; i < sizeof t / sizeof *t; i++) {
		old = h;
		add_holder(&h, t[i].line, 22, SOCK_STREAM);
		CHECK((h != old) == t[i].want);
	}
	CHECK(h->o.listening && h->o.uid == 1000 && h->inode == 12345 &&
	    !h->next);
	add_holder(&h, "0: 0:16 0:0 01 0:0 0:0 0 7 0 8", 22, SOCK_STREAM);
	CHECK(!h->o.listening && h->o.uid == 7 && h->inode == 8);
	add_holder(&h, "0: 0:16 0:0 01 0:0 0:0 0 7 0 8", 22, SOCK_DGRAM);
	CHECK(h->o.listening && h->next && h->next->next);
	free_holders(h);
}

/* Of a listener of ours and a connection of a child, or of two UDP sockets. */
static void
who_is_named(int type, int twin)
{
	struct local l, to;
	struct config c, d;
	struct owner o;
	union addr a;
	int p[2], s, fd, client = -1;
	char b = 'x';
	pid_t pid;

	local_init(&l, &c, AF_INET, type, 0);
	s = local_socket(&l, LOCAL_FLOW);
	if (type == SOCK_STREAM) {
		listen(s, 1);
		addr_parse(&a, "127.0.0.1", AF_INET);
		addr_set_port(&a, l.port);
		local_init(&to, &d, AF_INET, type, 0);
		client = local_socket(&to, LOCAL_FLOW);
		fcntl(client, F_SETFL, 0);
		fcntl(s, F_SETFL, 0);
		CHECK(connect(client, &a.sa, addr_len(&a)) == 0);
		fd = accept(s, NULL, NULL);
	} else
		fd = local_socket(&l, LOCAL_FLOW);
	CHECK(s != -1 && fd != -1 && socketpair(AF_UNIX, SOCK_STREAM, 0, p) ==
	    0);
	pid = fork();
	if (pid == 0) {
		close(s);
		close(p[1]);
#ifdef PR_SET_NAME
		if (!twin)
			prctl(PR_SET_NAME, "another");
#endif
		_exit(write(p[0], &b, 1) != 1 || read(p[0], &b, 1) != 0);
	}
	close(fd);
	close(p[0]);
	CHECK(read(p[1], &b, 1) == 1);
	CHECK(local_owner(&l, &o) == 1 && o.listening && o.twin == twin);
	CHECK(o.pid == (twin || type == SOCK_DGRAM ? pid : getpid()));
	close(s);
	CHECK(local_owner(&l, &o) == 1 && o.pid == pid && o.twin == twin);
	CHECK(o.listening == (type == SOCK_DGRAM));
	close(p[1]);
	waitpid(pid, &fd, 0);
	CHECK(fd == 0 && local_owner(&l, &o) == 0);
	close(client);
}

static void
holders_by_rank(void)
{
	int twin;

#ifndef PR_SET_NAME
	return;
#endif
	for (twin = 0; twin < 2; twin++) {
		who_is_named(SOCK_STREAM, twin);
		who_is_named(SOCK_DGRAM, twin);
	}
}

static void
inodes(void)
{
	struct holder h[100];
	size_t i;

	memset(h, 0, sizeof h);
	for (i = 0; i < 100; i++) {
		h[i].next = i == 0 ? NULL : &h[i - 1];
		h[i].inode = i;
	}
	CHECK(find_inode(&h[99], 50) == &h[50] && !find_inode(&h[99], 100));
}

/*
 * Answers from elsewhere (RFC 5780).
 */

static void
read_other(const struct message *m, union addr *a)
{
	a->sa.sa_family = 0;
	read_address(m->p, m->n, OTHER_ADDRESS, CHANGED_ADDRESS, a);
}

/* What an answer with these attributes says of another address. */
static const char *
other(unsigned int type, const char *host, unsigned int type2,
    const char *host2)
{
	static char text[ADDR_TEXT];
	struct message m;
	union addr a;

	message(&m, SUCCESS, rfc_id);
	add_v4(&m, XOR_MAPPED_ADDRESS, "203.0.113.7", 40000);
	if (type)
		add_v4(&m, type, host, 3479);
	if (type2)
		add_v4(&m, type2, host2, 3479);
	memset(&a, 0xff, sizeof a);
	read_other(&m, &a);
	return a.sa.sa_family ? addr_text(&a, text) : "none";
}

static void
other_addresses(void)
{
	unsigned char short_one[] = { 0, 1, 13, 151, 192, 0 };
	unsigned char six[20] = { 0, 2, 13, 151, 0x20, 1, 0x0d, 0xb8 };
	char text[ADDR_TEXT];
	struct message m;
	union addr a;

	CHECK(!strcmp(other(0, NULL, 0, NULL), "none"));
	CHECK(!strcmp(other(OTHER_ADDRESS, "192.0.2.9", 0, NULL),
	    "192.0.2.9:3479"));
	CHECK(!strcmp(other(CHANGED_ADDRESS, "192.0.2.8", 0, NULL),
	    "192.0.2.8:3479"));
	CHECK(!strcmp(other(CHANGED_ADDRESS, "192.0.2.8", OTHER_ADDRESS,
	    "192.0.2.9"), "192.0.2.9:3479"));
	message(&m, SUCCESS, rfc_id);
	add(&m, OTHER_ADDRESS, short_one, sizeof short_one);
	read_other(&m, &a);
	CHECK(!a.sa.sa_family);
	message(&m, SUCCESS, rfc_id);
	add(&m, OTHER_ADDRESS, six, sizeof six);
	read_other(&m, &a);
	CHECK(!strcmp(addr_text(&a, text), "[2001:db8::]:3479"));
}

/* Three sockets of the mapped port for the server at[0], its other address
 * at[1], and its other port at[2]. */
static void
expect_from(struct flow f[3], int at[3])
{
	static struct config c;
	int i;

	local_init(&ours, &c, AF_INET, SOCK_DGRAM, 0);
	for (i = 0; i < 3; i++) {
		at[i] = server(SOCK_DGRAM);
		CHECK(flow_start(&f[i], FLOW_UDP, local_socket(&ours,
		    LOCAL_FLOW), 0, &peer, NULL, 1000, NEVER) == 0);
		CHECK(f[i].state == FLOW_ASKING);
	}
}

/* The first one asks for what the others get. */
static int
ask_change(struct flow f[3])
{
	int i;

	if (flow_ask(&f[0], 1, 1000, 5000) < 0)
		return -1;
	for (i = 1; i < 3; i++)
		memcpy(f[i].request, f[0].request, STUN_HEADER);
	return 0;
}

static void
expect_end(struct flow f[3], int at[3])
{
	int i;

	for (i = 0; i < 3; i++) {
		flow_stop(&f[i], 0);
		close(at[i]);
	}
}

static void
change_requests(void)
{
	static const unsigned char want[2][12] = {
		{ 0, 1, 0, 8, 0, 3, 0, 4, 0, 0, 0, CHANGE_BOTH },
		{ 0, 1, 0, 8, 0, 3, 0, 4, 0, 0, 0, CHANGE_PORT }
	};
	static const int64_t when[] = { 1000, 1500, 2500 };
	unsigned char buf[100];
	struct flow f[3];
	int at[3], i, k;

	expect_from(f, at);
	CHECK(recv(at[0], buf, sizeof buf, 0) < 0);
	CHECK(ask_change(f) == 0);
	for (i = 0; i < 3; i++) {
		CHECK(turn(&f[0], when[i], 0) == 0);
		for (k = 0; k < 2; k++) {
			CHECK(recv(at[0], buf, sizeof buf, 0) == 28);
			CHECK(memcmp(buf, want[k], 4) == 0 &&
			    memcmp(buf + 4, f[0].request + 4, 16) == 0 &&
			    memcmp(buf + 20, want[k] + 4, 8) == 0);
		}
		CHECK(recv(at[0], buf, sizeof buf, 0) < 0);
	}
	/* who only waits sends nothing and has no deadline */
	CHECK(turn(&f[1], 4000, 0) == 0 && w.deadline == NEVER);
	CHECK(recv(at[1], buf, sizeof buf, 0) < 0);
	CHECK(turn(&f[0], 5000, 0) == -1 && errno == ETIMEDOUT);
	expect_end(f, at);
}

static void
answers_from_elsewhere(void)
{
	struct message m;
	struct flow f[3];
	int at[3], i;

	expect_from(f, at);
	CHECK(ask_change(f) == 0);
	answer(&m, &f[0]);
	for (i = 0; i < 3; i++) {
		send_to(at[i], &f[i], m.p, m.n);
		CHECK(SOON(&f[i], 1000) == 1 && is_mapped(&f[i]));
	}
	expect_end(f, at);
	/* another id is none of theirs; an error is one of the first */
	expect_from(f, at);
	CHECK(ask_change(f) == 0);
	message(&m, SUCCESS, rfc_id);
	add_v4(&m, XOR_MAPPED_ADDRESS, "203.0.113.7", 40000);
	send_to(at[1], &f[1], m.p, m.n);
	CHECK(SOON(&f[1], 1000) == 0 && f[1].state == FLOW_ASKING);
	message(&m, ERROR, f[0].request + 8);
	add(&m, ERROR_CODE, "\0\0\4\24", 4);
	send_to(at[0], &f[0], m.p, m.n);
	CHECK(SOON(&f[0], 1000) == -1 && errno == EREFUSED + 420);
	expect_end(f, at);
}

static void
run_flows(void)
{
	RUN(other_addresses);
	RUN(change_requests);
	RUN(answers_from_elsewhere);
	RUN(udp_schedule);
	RUN(udp_wakes_for_the_next_request);
	RUN(udp_late_answer);
	RUN(udp_ignores_what_is_no_answer);
	RUN(udp_error_response);
	RUN(udp_errors_are_silence);
	RUN(shared_socket);
	RUN(tcp_byte_by_byte);
	RUN(tcp_asks_again);
	RUN(tcp_two_answers_glued);
	RUN(tcp_lengths);
	RUN(tcp_error_response);
	RUN(tcp_end_at_each_byte);
	RUN(tcp_reset_at_each_byte);
	RUN(tcp_stop_resets);
	RUN(tcp_refused);
	RUN(tcp_deadlines);
	RUN(tcp_request_waits);
	RUN(writes_go_on_where_they_stopped);
	RUN(flow_options);
}

int
main(int argc, char **argv)
{
	check_args(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	RUN(request_bytes);
	RUN(rfc5769_samples);
	RUN(truncations);
	RUN(header_corruption);
	RUN(other_messages);
	RUN(attribute_order);
	RUN(attribute_padding);
	RUN(rfc3489_server);
	RUN(bad_addresses);
	RUN(error_responses);
	RUN(random_corruption);
	run_flows();
	RUN(http_answers_in_pieces);
	RUN(http_split_anywhere);
	RUN(http_long_lines);
	RUN(http_lines_are_cut);
	RUN(http_nul_bytes);
	RUN(http_endless);
	RUN(keepalive_heads);
	RUN(keepalive_host_field);
	RUN(bodies);
	RUN(body_without_end);
	RUN(keepalive_split_anywhere);
	RUN(keepalive_body);
	RUN(keepalive_server_closes);
	RUN(keepalive_deadlines);
	RUN(ports_of_ones_own);
	RUN(families_apart);
	RUN(flows_beside_ones_own_listener);
	RUN(flows_beside_an_old_listener);
	RUN(source_addresses);
	RUN(news_does_not_block);
	RUN(owner_is_found);
	RUN(process_names_are_printable);
	RUN(proc_lines);
	RUN(inodes);
	RUN(holders_by_rank);
	RUN(shared_with_services);
	RUN(sharing_needs_root);
	RUN(socket_without_process);
	free(w.fds);
	return check_done();
}
