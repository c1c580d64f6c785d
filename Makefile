# SPDX-License-Identifier: MIT
# natmap: make CC=any-c99-compiler is all that a target needs.
# What the environment says of CC and CFLAGS, as a package's build does, counts.
CC ?= cc
CFLAGS ?= -Os -Wall -Wextra
PREFIX = /usr/local
SBINDIR = $(PREFIX)/sbin
BINDIR = $(SBINDIR)
MANDIR = $(PREFIX)/share/man
DATADIR = $(PREFIX)/share/natmap
UNITDIR = $(PREFIX)/lib/systemd/system
SYSCONFDIR = /etc
SIZE = size

# What C does not need; empty it for a compiler that knows no such option.
LEAN = -fno-asynchronous-unwind-tables -fno-optimize-sibling-calls
# A static link sets these where the linker has them.
SMALL = -s -Wl,--gc-sections -Wl,-z,norelro -Wl,-z,noseparate-code
SRC = natmap.c stun.c relay.c timer.c
OBJ = natmap.o stun.o relay.o timer.o
# What gcc does for speed, at the cost of size, where the compiler knows it all.
SLIM = -fno-thread-jumps -fno-caller-saves -fno-move-loop-invariants \
	-fno-if-conversion -fno-tree-tail-merge -fno-tree-slsr
KNOWN = $$($(CC) $(SLIM) -E -x c /dev/null >/dev/null 2>&1 && echo $(SLIM))
C99 = $(CC) -std=c99 $(LEAN) $(KNOWN) $(CPPFLAGS) $(CFLAGS)

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

# What needs neither root nor network: for who builds a package.
check: natmap variant
	sh tests/docs.sh
	for t in $(UNITS); do $$t || exit 1; done

test-long: natmap
	sh tests/tools/install-tools.sh long
	bash tests/long.sh

test-fresh:
	bash tests/tools/fresh.sh

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
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man8 \
	    $(DESTDIR)$(DATADIR)/hooks
	install -m 755 natmap $(DESTDIR)$(BINDIR)/natmap
	install -m 644 natmap.8 $(DESTDIR)$(MANDIR)/man8/natmap.8
	install -m 755 contrib/hooks/*.sh $(DESTDIR)$(DATADIR)/hooks

# The unit, its drop-ins to choose from, and a file to start with.
FILL = sed -e 's|=natmap |=$(BINDIR)/natmap |' \
	-e 's|/usr/local/share/natmap|$(DATADIR)|'
SAMPLE = $(SYSCONFDIR)/natmap/sample.conf
install-systemd: install
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(DATADIR)/systemd \
	    $(DESTDIR)$(SYSCONFDIR)/natmap
	$(FILL) contrib/systemd/natmap@.service \
	    >$(DESTDIR)$(UNITDIR)/natmap@.service
	for f in low-port share-port device firewall; do \
	    $(FILL) contrib/systemd/$$f.conf \
		>$(DESTDIR)$(DATADIR)/systemd/$$f.conf || exit; done
	test -e $(DESTDIR)$(SAMPLE) || \
	    install -m 644 contrib/systemd/sample.conf $(DESTDIR)$(SAMPLE)
	@echo 'To start natmap, now and at boot, with the options of a file:'
	@echo '    cp $(SAMPLE) $(SYSCONFDIR)/natmap/ssh.conf   # and edit it'
	@echo '    systemctl enable --now natmap@ssh'

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/natmap $(DESTDIR)$(MANDIR)/man8/natmap.8
	rm -rf $(DESTDIR)$(DATADIR) $(DESTDIR)$(UNITDIR)/natmap@.service

# The tarball of a version, of a clean tree.
NAME = natmap-$$(sed -n 's/^.define VERSION[^"]*"\(.*\)".*/\1/p' natmap.h)
dist:
	test -z "$$(git status --porcelain)"
	name=$(NAME) && git archive --prefix=$$name/ HEAD >$$name.tar && \
	    gzip -9nf $$name.tar && ls $$name.tar.gz

# Takes npm and qemu-user-static; the compiler is 150 MB.
release:
	sh contrib/release.sh build/release
	bash tests/tools/release.sh build/release

clean:
	rm -rf natmap $(OBJ) build natmap-*.tar.gz

.PHONY: all static size variant test-tools test check test-long test-fresh \
	test-cross fuzz bench soak demo install install-systemd uninstall \
	dist release clean
