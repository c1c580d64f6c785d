/* SPDX-License-Identifier: MIT */
/* libFuzzer target: the STUN decoder believes nothing. */
#include "../../stun.c"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static struct flow f;
	const union addr *mapped = &f.ends.mapped, *other = &f.ends.other;

	new_message(f.request, REQUEST);
	if (n >= STUN_HEADER)
		memcpy(f.request + 8, p + 8, STUN_ID);
	if (stun_decode(&f, p, n) == 1) {
		if (addr_port(mapped) == 0 ||
		    (mapped->sa.sa_family != AF_INET &&
		    mapped->sa.sa_family != AF_INET6))
			abort();
		if (other->sa.sa_family && addr_port(other) == 0)
			abort();
	} else if (errno != ENOTANSWER && (errno < EREFUSED + 300 ||
	    errno > EREFUSED + 699))
		abort();
	return 0;
}
