/* SPDX-License-Identifier: MIT */
/*
 * A test is a function; RUN(f) runs f and prints "ok f" or "not ok f".  Main
 * calls check_args() first and returns check_done().  Several CHECKs in one
 * test count as one.  The program runs all its tests; with the name of a test
 * as its argument only that test, and --list prints the names.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_bad, check_failed, check_ran;
static const char *check_only;	/* NULL: run all */

#define CHECK(x) ((x) ? (void)0 : check_fail(__FILE__, __LINE__, #x))
#define RUN(f) check_run(#f, f)
#define addr_text(a, buf) (fmt(buf, ADDR_TEXT, "%pa", (const void *)(a)), buf)

static void
check_args(int argc, char **argv)
{
	check_only = argc > 1 ? argv[1] : NULL;
}

static void
check_fail(const char *file, int line, const char *what)
{
	check_bad++;
	printf("# %s:%d: %s\n", file, line, what);
}

static void
check_run(const char *name, void (*f)(void))
{
	int list = check_only && strcmp(check_only, "--list") == 0;

	if (check_only && !list && strcmp(check_only, name) != 0)
		return;
	check_ran++;
	if (list) {
		puts(name);
		return;
	}
	check_bad = 0;
	f();
	printf("%s %s\n", check_bad ? "not ok" : "ok", name);
	check_failed += check_bad != 0;
	fflush(stdout);
}

static int
check_done(void)
{
	if (check_ran == 0)
		printf("not ok %s: no such test\n", check_only);
	return check_failed != 0 || check_ran == 0;
}
