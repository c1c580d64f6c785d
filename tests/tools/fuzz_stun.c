/* SPDX-License-Identifier: MIT */
/* libFuzzer target: the STUN decoder believes nothing. */
#include "../../stun.c"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	unsigned char id[STUN_ID] = "fuzzfuzzfuz";
	union addr mapped, other;
	int code = 0;

	if (n >= STUN_HEADER)
		memcpy(id, p + 8, sizeof id);
	if (stun_decode(p, n, id, &mapped, &code) == 1) {
		if (addr_port(&mapped) == 0 ||
		    (mapped.sa.sa_family != AF_INET &&
		    mapped.sa.sa_family != AF_INET6))
			abort();
		other.sa.sa_family = 0;
		read_address(p, n, OTHER_ADDRESS, CHANGED_ADDRESS, &other);
		if (other.sa.sa_family && addr_port(&other) == 0)
			abort();
	} else if (errno == EREFUSED ? code < 300 || code > 699 :
	    errno != ENOTANSWER)
		abort();
	return 0;
}
