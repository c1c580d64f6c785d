#!/bin/bash
# SPDX-License-Identifier: MIT
# Other CPUs, under qemu-user: for each target the unit and step tests, and a
# mapping with a relay behind it, TCP and UDP, in the lab.
. "$(dirname "$0")/../lab.sh"
. "$(dirname "$0")/targets.sh"

# of glibc; those of musl are added
CPUS="mipsel mips arm aarch64 riscv64 powerpc"

# What qemu-user 7.2 cannot do: targets, test, reason.  These tests run, and
# that they fail is no news.
cannot() {
	cat <<-END
	mips,powerpc udp_batches_keep_order_and_size UDP_SEGMENT unswapped
	mips,mipsel,musl_mipsel a_target_that_refuses_is_said SO_ERROR: host's
	END
}

# excused TARGET TEST
excused() {
	cannot | awk -v cpu="$1" -v test="$2" '
	    ("," $1 ",") ~ ("," cpu ",") && $2 == test { found = 1 }
	    END { exit !found }'
}

# the program for TARGET, and how to run it
built_for() {
	local qemu
	qemu=qemu-$(of "$1" qemu)-static
	need "$(of "$1" cc)" "$qemu" make
	NATMAP_WRAP=$(command -v "$qemu")
	tree "$D/src"
}

# unit TARGET: -O2, since the tests' own work is what takes the time here
unit() {
	local file t status bad=0
	built_for "$1"
	mk "$D/src" variant V=x CC="$(of "$1" cc)" CFLAGS='-O2 -Wall -Wextra' \
	    LDFLAGS=-static
	for file in "$D/src/build/x"/test_*; do
		t=${file##*/}
		status=0
		(cd "$D" && "$NATMAP_WRAP" "$file") > "$D/$t.said" 2>&1 ||
		    status=$?
		grep -q '^ok ' "$D/$t.said" || fail "$t: printed no result"
		[ $status -le 1 ] ||
		    fail "$t: status $status: $(tail "$D/$t.said")"
		while read -r _ _ name; do
			excused "$1" "${name%%:*}" && continue
			echo "$t: not ok $name"
			bad=1
		done < <(grep -o 'not ok .*' "$D/$t.said")
		[ $status = 0 ] || grep -q 'not ok ' "$D/$t.said" ||
		    fail "$t: status $status"
		[ $bad = 0 ] || grep '^#' "$D/$t.said" | sort | uniq -c
	done
	[ $bad = 0 ] || fail "unit tests"
}

# e2e TARGET
e2e() {
	local ip4p=c633:640a
	built_for "$1"
	mk "$D/src" static CC="$(of "$1" cc)"
	NATMAP=$D/src/natmap
	lab_up
	nat r2 cone 5000:40000 5001:40001 5002:15 5003:65535
	coturn turn $S1 $S2 $S1V6
	www www
	py h2 echotcp echo tcp 192.168.1.20 7
	py h2 echoudp echo udp 192.168.1.20 7
	py h2 sink sink 192.168.1.20 9

	# relays; two of TCP, for small messages and for bulk
	nm tcp -s $S1,$S2 -h $WWW -b 5000 -t 192.168.1.20 -p 7 -k 3
	nm bulk -s $S1,$S2 -h $WWW -b 5001 -t 192.168.1.20 -p 9 -k 3
	nm udp -u -s $S1,$S2 -b 5000 -t 192.168.1.20 -p 7 -k 3
	# no relay: the smallest and the greatest port, a script, IPv6, once
	hook script
	nm small -u -s $S1 -b 5002 -k 3
	nm great -u -s $S1 -b 5003 -k 3 -e "$D/script"
	nm six -6 -u -s "[$S1V6]" -b 5000 -k 3
	mapped tcp 1
	eq "$LINE" "$PUBLIC 40000 2001::9c40:$ip4p 5000 tcp $HOST" tcp
	mapped bulk 1
	eq "$LINE" "$PUBLIC 40001 2001::9c41:$ip4p 5001 tcp $HOST" bulk
	mapped udp 1
	eq "$LINE" "$PUBLIC 40000 2001::9c40:$ip4p 5000 udp $HOST" udp
	mapped small 1
	eq "$LINE" "$PUBLIC 15 2001::000f:$ip4p 5002 udp $HOST" small
	mapped six 1
	eq "$LINE" "$PUBLICV6 40000  5000 udp $HOSTV6" six
	soon 10 "the script was not run" test -s "$D/script.log"
	eq "$(cat "$D/script.log")" \
	    "$PUBLIC 65535 2001::ffff:$ip4p 5003 udp $HOST" script

	probe tcp $PUBLIC 40000 3
	eq "$(net out bulk $PUBLIC 40001 8)" same bulk
	probe udp $PUBLIC 40000 3
	net out sizes $PUBLIC 40000 0 1 1400 9000 65507
	nm once -1 -u -s $S2 -b 5004
	nm_wait once
	eq $STATUS 0 once
	eq "$(cut -d ' ' -f 1,4- "$D/once.out")" "$PUBLIC 5004 udp $HOST" once

	# held over several intervals, not told again, and a clean end
	sleep 7
	probe tcp $PUBLIC 40000
	probe udp $PUBLIC 40000
	eq "$(lines "$D/tcp.out") $(lines "$D/udp.out")" "1 1" lines
	nm_stop tcp
	eq $STATUS 143 "status after TERM"
	nm_stop udp
	eq $STATUS 143 "status after TERM"
}

for cpu in $CPUS $(tried "${1:-}" | grep '^musl'); do
	eval "t_unit_$cpu() { unit $cpu; }; t_e2e_$cpu() { e2e $cpu; }"
	quick "unit_$cpu" 400
	quick "e2e_$cpu" 120
done
if [ $# = 0 ]; then
	cannot | while read -r cpus name why; do
		echo "# qemu-user cannot: $name on $cpus: $why"
	done
	exec bash "$TESTS/run" -j 3 "$0"
fi
lab_main "$@"
