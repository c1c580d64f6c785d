#!/bin/bash
# SPDX-License-Identifier: MIT
#
# fresh.sh [SUITE ...]
#
# What the README prints, in Debian roots that debootstrap makes, of what is
# committed: first `make check` as nobody, without a network; then the README's
# commands for a fresh Debian; that no service starts at the next boot; and a
# package by debhelper, which must be hardened.  Takes 20 minutes and 3 GB.

set -eu
cd "$(dirname "$0")/../.."
failed=0

verdict() {
	if [ "$2" = 0 ]; then
		echo "ok fresh.$suite.$1"
	else
		tail -n 40 "$dir/log" | sed 's/^/# /'
		echo "not ok fresh.$suite.$1"
		failed=1
	fi
}

# try NAME COMMAND: a shell's, in the root's copy of the tree
try() {
	local status=0
	# the mounts vanish with the name space
	# shellcheck disable=SC2016	# for the inner shell
	unshare -mpf bash -c '
	    cd "$0"
	    mount --bind . .
	    cd "$0"
	    mount -t proc proc proc
	    mount --rbind /sys sys
	    mount --rbind /dev dev
	    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
		${MAKEFLAGS:+"MAKEFLAGS=$MAKEFLAGS"} \
		chroot . sh -c "cd /srv/natmap && $1"' "$root" "$2" \
	    > "$dir/log" 2>&1 || status=$?
	verdict "$1" $status
}

# what the README prints and $1 begins
readme() {
	sed -n "/^\`\`\`sh/,/^\`\`\`/s/^\\($1.*\\)/\\1/p" README.md | head -n 1
}

starting() {
	(cd "$root" && find etc/systemd/system/*.wants etc/rc[2-5].d -type l \
	    -name '[!K]*' 2> /dev/null | sort)
}

# shellcheck disable=SC2016	# make's variables
package() {
	mkdir "$root/srv/natmap/debian" "$root/srv/natmap/debian/source"
	cd "$root/srv/natmap/debian"
	echo '3.0 (native)' > source/format
	cat > control <<-EOF
	Source: natmap
	Section: net
	Priority: optional
	Maintainer: Nobody <nobody@example.org>
	Build-Depends: debhelper-compat (= 13)

	Package: natmap
	Architecture: any
	Depends: \${shlibs:Depends}, \${misc:Depends}
	Description: opens a port behind a full-cone NAT
	EOF
	cat > changelog <<-EOF
	natmap (1) unstable; urgency=low

	  * A test.

	 -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 00:00:00 +0000
	EOF
	printf '%s\n' '#!/usr/bin/make -f' '%:' '	dh $@' \
	    'override_dh_auto_test:' '	make check' \
	    'override_dh_auto_install:' \
	    '	make install-systemd DESTDIR=$(CURDIR)/debian/natmap PREFIX=/usr' \
	    > rules
	chmod +x rules
	cd - > /dev/null
}

[ $# -gt 0 ] || set -- bookworm trixie
for suite; do
	dir=$(mktemp -d /var/tmp/natmap-fresh.XXXXXX)
	root=$dir/root
	trap 'rm -rf --one-file-system "$dir"' EXIT
	debootstrap --variant=minbase "$suite" "$root" > "$dir/log" 2>&1 || {
		verdict debootstrap 1
		continue
	}
	mkdir "$root/srv/natmap"
	git archive HEAD | tar -C "$root/srv/natmap" -xf -
	try compiler "apt-get -q update && apt-get -q -y install \
	    --no-install-recommends gcc libc6-dev make iproute2"
	try check 'cp -r . /tmp/check && chown -R nobody /tmp/check &&
	    cd /tmp/check && unshare -n sh -c "ip link set lo up &&
	    exec setpriv --reuid=65534 --clear-groups make check"'
	try first_command "$(readme apt-get)"
	starting > "$dir/before"
	try second_command "$(readme 'make test-tools')"
	tail -n 1 "$dir/log" | sed 's/^/# /'
	starting | diff "$dir/before" - > "$dir/log" && status=0 || status=1
	verdict no_new_services "$status"
	package
	try package 'make clean && apt-get -q -y install debhelper binutils &&
	    dpkg-buildpackage -us -uc -b > /tmp/log 2>&1 &&
	    grep "_FORTIFY_SOURCE=.* -c .*relay" /tmp/log &&
	    cd debian/natmap &&
	    readelf -sW usr/sbin/natmap | grep __stack_chk_fail &&
	    ls usr/share/natmap/hooks/nsupdate.sh'
	rm -rf --one-file-system "$dir"
done
exit $failed
