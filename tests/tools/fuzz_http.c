/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: the reader of HTTP answers says the same however the
 * bytes are cut.  The first byte of the input is the size of the pieces.
 */
#include "../../stun.c"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static enum http_reply
in_pieces(struct http_reader *h, const char *p, size_t n, size_t piece,
    size_t *used)
{
	enum http_reply r = HTTP_MORE;
	size_t some;

	memset(h, 0, sizeof *h);
	h->timeout = h->max = -1;
	for (*used = 0; r == HTTP_MORE && *used < n; *used += some)
		r = http_read(h, p + *used,
		    piece < n - *used ? piece : n - *used, &some);
	return r;
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct http_reader a, b;
	size_t used_a, used_b;
	const char *s;

	if (n < 2)
		return 0;
	s = (const char *)p + 1;
	if (in_pieces(&a, s, n - 1, n - 1, &used_a) !=
	    in_pieces(&b, s, n - 1, p[0] % 32 + 1U, &used_b) ||
	    used_a != used_b || a.total != b.total ||
	    a.status != b.status || a.close != b.close ||
	    a.timeout != b.timeout || a.max != b.max)
		abort();
	if (a.total > HTTP_LIMIT + 1 || a.len >= sizeof a.line)
		abort();
	return 0;
}
