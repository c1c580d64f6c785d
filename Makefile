# SPDX-License-Identifier: MIT
# natmap: make CC=any-c99-compiler is all that a target needs.
.POSIX:

CC = cc
CFLAGS = -Os -Wall -Wextra
PREFIX = /usr/local
SIZE = size

# What C does not need; empty it for a compiler that knows no such option.
LEAN = -fno-asynchronous-unwind-tables
# A static link sets these where the linker has them.
SMALL = -s -Wl,--gc-sections -Wl,-z,norelro -Wl,-z,noseparate-code
SRC = natmap.c stun.c relay.c timer.c
OBJ = natmap.o stun.o relay.o timer.o
C99 = $(CC) -std=c99 $(LEAN) $(CPPFLAGS) $(CFLAGS)

# One build for tests: V names it, its program and unit tests are in build/V.
V = plain
UNITS = build/$(V)/test_*
E2E = tests/e2e_*.sh tests/contrib.sh tests/hooks.sh tests/docs.sh

all: natmap

natmap: $(OBJ)
	$(CC) $(LDFLAGS) -o $@ $(OBJ) $(LDLIBS)

$(OBJ): natmap.h

.c.o:
	$(C99) -c -o $@ $<

static:
	$(C99) $(LDFLAGS) -static $(SMALL) -o natmap $(SRC) $(LDLIBS) || \
	    $(C99) $(LDFLAGS) -static -s -o natmap $(SRC) $(LDLIBS)

size: natmap
	$(SIZE) -t $(OBJ)
	$(SIZE) natmap
	wc -c natmap

# A unit test includes the file that it tests; of the others it needs timer.c.
variant:
	mkdir -p build/$(V)
	rm -f build/$(V)/*
	$(C99) $(LDFLAGS) -o build/$(V)/natmap $(SRC) $(LDLIBS)
	for t in tests/test_*.c; do \
	    case $$t in */test_timer.c) with= ;; *) with=timer.c ;; esac; \
	    $(C99) -I. $(LDFLAGS) -o build/$(V)/$$(basename $$t .c) $$t \
		$$with $(LDLIBS) || exit 1; done

test-tools:
	sh tests/tools/install-tools.sh

test: natmap variant
	bash tests/run $(UNITS) $(E2E)

test-long: natmap
	sh tests/tools/install-tools.sh long
	bash tests/long.sh

test-cross:
	bash tests/tools/cross.sh

fuzz:
	bash tests/tools/fuzz.sh

bench: natmap
	bash tests/tools/bench.sh

soak: natmap
	bash tests/tools/soak.sh

demo: natmap
	bash tests/tools/demo.sh

install: natmap
	mkdir -p $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/man/man8
	cp natmap $(DESTDIR)$(PREFIX)/sbin/natmap
	chmod 755 $(DESTDIR)$(PREFIX)/sbin/natmap
	cp natmap.8 $(DESTDIR)$(PREFIX)/share/man/man8/natmap.8
	chmod 644 $(DESTDIR)$(PREFIX)/share/man/man8/natmap.8

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/natmap
	rm -f $(DESTDIR)$(PREFIX)/share/man/man8/natmap.8

clean:
	rm -rf natmap $(OBJ) build

.PHONY: all static size variant test-tools test test-long test-cross fuzz \
	bench soak demo install uninstall clean
