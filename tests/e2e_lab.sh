#!/bin/bash
# SPDX-License-Identifier: MIT
# The lab itself: its NATs do what the other tests trust them to do.
. "$(dirname "$0")/lab.sh"

t_cone_is_shifted_and_open() {
	lab_up
	nat r1 cone 5000:15000
	nat r2 cone host=100.64.0.2 host6=2001:db8:2::2 15000:40000
	coturn turn $S1 $S2 $S1V6 -S
	eq "$(net h1 binding udp $S1 3478 5000)" "$PUBLIC 40000" udp
	eq "$(net h1 binding tcp $S2 3478 5000)" "$PUBLIC 40000" tcp
	eq "$(net h1 binding udp $S1V6 3478 5000)" "$PUBLICV6 40000" udp6
	py h1 svc echo udp 0.0.0.0 5000
	py h1 svct echo tcp :: 5000
	probe udp $PUBLIC 40000 3 0
	probe tcp $PUBLICV6 40000 3 0
	unreached udp $PUBLIC 40001
}

t_learning_cone_forgets() {
	lab_up
	nat r1 cone 5000:15000
	nat r2 learn host=100.64.0.2 host6=2001:db8:2::2 timeout=2 15000:40000
	coturn turn $S1
	unreached udp $PUBLIC 40000
	eq "$(net h1 binding udp $S1 3478 5000)" "$PUBLIC 40000" shifted
	py h1 svc echo udp 0.0.0.0 5000
	probe udp $PUBLIC 40000
	sleep 2.3
	unreached udp $PUBLIC 40000
	eq "$(net h1 binding udp $S1 3478 6000)" "$PUBLIC 6000" kept
}

t_mapping_moves() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	eq "$(net h1 binding udp $S1 3478 5000)" "$PUBLIC 40000" before
	nat r2 cone 5000:40001
	eq "$(net h1 binding udp $S2 3478 5000)" "$PUBLIC 40001" new
	eq "$(net h1 binding udp $S1 3478 5000)" "$PUBLIC 40000" old
	need conntrack
	public 198.51.100.11
	nat r2 cone 5000:40002
	forget r2
	eq "$(net h1 binding udp $S1 3478 5000)" "198.51.100.11 40002" moved
}

t_not_cones() {
	lab_up
	coturn turn $S1 $S2
	nat r2 symmetric
	[ "$(net h1 binding udp $S1 3478 5000)" != \
	    "$(net h1 binding udp $S2 3478 5000)" ] || fail "symmetric is a cone"
	nat r2 restricted
	eq "$(net h1 binding udp $S2 3478 5001)" "$PUBLIC 5001" restricted
	py h1 svc echo udp 0.0.0.0 5001
	unreached udp $PUBLIC 5001
}

t_servers_and_faults() {
	lab_up
	nat r2 cone 2222:40022
	sshd h1 2222
	www www "keepalive_requests 3"
	py inet dns dns $DNS stun.test=$S1
	eq "$(ssh_to $PUBLIC 40022 'echo hello')" hello ssh
	eq "$(at h1 getent ahostsv4 stun.test | awk '{ print $1; exit }')" \
	    $S1 dns
	net h1 ask tcp $WWW 80 "HEAD / HTTP/1.1
Host: x

" > "$D/head"
	has "$D/head" '200 OK'
	coturn turn $S1
	mute $S1
	! net h1 binding udp $S1 3478 5000 2> /dev/null || fail "not mute"
	mute
	net h1 binding udp $S1 3478 5000
	loss r2 100
	! net h1 binding udp $S1 3478 5000 2> /dev/null || fail "no loss"
}

quick cone_is_shifted_and_open 30
quick learning_cone_forgets 30
quick mapping_moves 30
quick not_cones 30
quick servers_and_faults 40
lab_main "$@"
