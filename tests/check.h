/* SPDX-License-Identifier: MIT */
/*
 * A test is a function; run() prints "ok name" or "not ok name" for it, and
 * main returns done().  Several CHECKs in one test count as one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_bad, check_failed;

#define CHECK(x) ((x) ? (void)0 : check_fail(__FILE__, __LINE__, #x))
#define RUN(f) check_run(#f, f)

static void
check_fail(const char *file, int line, const char *what)
{
	check_bad++;
	printf("# %s:%d: %s\n", file, line, what);
}

static void
check_run(const char *name, void (*f)(void))
{
	check_bad = 0;
	f();
	printf("%s %s\n", check_bad ? "not ok" : "ok", name);
	check_failed += check_bad != 0;
	fflush(stdout);
}

static int
check_done(void)
{
	return check_failed != 0;
}
