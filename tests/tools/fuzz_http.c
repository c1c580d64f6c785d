/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: the reader of HTTP answers says the same however the
 * bytes are cut.  The first byte of the input is the size of the pieces.
 */
#include "../../stun.c"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* Returns what take_http() said at last; the rest is the body of a GET. */
static int
in_pieces(struct flow *f, const char *p, size_t n, size_t piece)
{
	size_t some, room;
	int r = 0;

	memset(f, 0, sizeof *f);
	f->state = FLOW_ASKING;
	f->host = "a/b";
	f->timeout = f->max = ULONG_MAX;
	for (; r == 0 && n > 0; n -= some, p += some) {
		room = sizeof f->buf - 1 - f->have;
		if (room == 0)
			break;
		some = piece < n ? piece : n;
		if (some > room)
			some = room;
		memcpy(f->buf + f->have, p, some);
		r = take_http(f, some);
		if (f->state == FLOW_ASKING && (f->have > HTTP_LINE ||
		    (r == 0 && f->total > HTTP_LIMIT)))
			abort();
	}
	return r;
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct flow a, b;
	const char *s;
	int r;

	if (n < 2)
		return 0;
	s = (const char *)p + 1;
	r = in_pieces(&a, s, n - 1, n - 1);
	if (r != in_pieces(&b, s, n - 1, p[0] % 32 + 1U))
		abort();
	if (r == 0 && (a.state != b.state || a.have != b.have ||
	    memcmp(a.buf, b.buf, a.have) != 0 || a.status != b.status ||
	    a.closes != b.closes || a.timeout != b.timeout || a.max != b.max))
		abort();
	return 0;
}
