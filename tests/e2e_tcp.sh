#!/bin/bash
# SPDX-License-Identifier: MIT
# TCP mapping in bind mode, behind full-cone NATs.
. "$(dirname "$0")/lab.sh"

LINE_5000="$PUBLIC 40000 2001::9c40:c633:640a 5000 tcp $HOST"

double_cone() {
	nat r1 cone "$1:15000"
	nat r2 cone host=100.64.0.2 host6=2001:db8:2::2 15000:40000
}

# held K: behind a NAT that forgets sooner than in 2 x k, reached as long as
# natmap runs, not when it is stopped
held() {
	probe tcp $PUBLIC 40000 24 0.4
	lost_when_stopped n tcp $PUBLIC 40000 "$1"
}

t_ssh_from_outside() {
	[ -z "$NATMAP_WRAP" ] || skip "sshd shares its port by pidfd_getfd only"
	lab_up
	double_cone 2222
	coturn turn $S1 $S2
	www www
	sshd h1 2222
	nm n -s $S1 -h $WWW -b 2222 -k 3
	mapped n 1
	eq "$LINE" "$PUBLIC 40000 2001::9c40:c633:640a 2222 tcp $HOST" line
	# shellcheck disable=SC2016
	eq "$(ssh_to $PUBLIC 40000 'echo in $((6 * 7))')" "in 42" ssh
	ssh_to $PUBLIC 40000 'sleep 7; echo done' > "$D/session"
	eq "$(cat "$D/session")" 'done' "a session longer than two intervals"
	eq "$(lines "$D/n.out")" 1 lines
	nm_stop n
	eq $STATUS 143 "status after TERM"
	between 0 $TOOK $((1500 * SLOW)) "ms to end"
}

t_ipv6_shifted() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1V6
	www www
	py h1 svc echo tcp :: 5000
	nm n -6 -s "[$S1V6]:3478" -h "$WWWV6" -b 5000 -k 2
	mapped n 1
	eq "$LINE" "$PUBLICV6 40000  5000 tcp $HOSTV6" line
	reached tcp $PUBLICV6 40000
}

t_held_by_stun_and_http() {
	lab_up
	nat r2 learn timeout=3 5000:40000
	coturn turn $S1
	www www
	py h1 svc echo tcp 0.0.0.0 5000
	nm n -s $S1 -h $WWW -b 5000 -k 2
	mapped n 1
	eq "$LINE" "$LINE_5000" line
	held 2
}

t_held_by_stun_alone() {
	lab_up
	nat r2 learn timeout=3 5000:40000
	coturn turn $S1
	py h1 svc echo tcp 0.0.0.0 5000
	nm n -s $S1 -b 5000 -k 2
	mapped n 1
	held 2
	eq "$(lines "$D/n.out")" 1 lines
}

t_held_by_stun_that_closes() {
	lab_up
	nat r2 learn timeout=5 5000:40000
	coturn turn $S1 $S2 -S
	py h1 svc echo tcp 0.0.0.0 5000
	nm n -s $S1,$S2 -b 5000 -k 4
	mapped n 1
	held 4
	eq "$(lines "$D/n.out")" 1 lines
}

# the same connection as long as the server keeps it
t_stun_flow_is_kept() {
	lab_up
	nat r2 cone 5000:40000
	py inet turn stun good $S1 3478
	nm n -s $S1 -b 5000 -k 1 -c 100
	mapped n 1
	sleep 6
	between 4 "$(count "$D/turn.log" '^tcp')" 9 requests
	eq "$(grep '^tcp' "$D/turn.log" | sort -u | wc -l)" 1 connections
}

t_port_changes() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000 -k 2
	mapped n 1
	nat r2 cone 5000:40001
	forget r2
	mapped n 2 12
	eq "$LINE" "$PUBLIC 40001 2001::9c41:c633:640a 5000 tcp $HOST" port
	public 198.51.100.11
	nat r2 cone 5000:40001
	forget r2
	mapped n 3 12
	eq "$LINE" "198.51.100.11 40001 2001::9c41:c633:640b 5000 tcp $HOST" \
	    address
	sleep 3
	eq "$(lines "$D/n.out")" 3 "lines in all"
}

t_old_flow_silently_dropped() {
	lab_up
	nat r2 cone strict 5000:40000
	coturn turn $S1 $S2
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000 -k 3
	mapped n 1
	sleep 1
	nat r2 cone strict 5000:40001
	forget r2
	mapped n 2 9
	eq "$(echo "$LINE" | cut -d ' ' -f 1,2)" "$PUBLIC 40001" moved
}

t_only_inbound_moves() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000 -k 2 -c 2
	mapped n 1
	nat r2 cone 5000:40001
	mapped n 2 8
	eq "$(echo "$LINE" | cut -d ' ' -f 1,2)" "$PUBLIC 40001" moved
	sleep 9
	eq "$(lines "$D/n.out")" 2 "the old flow's mapping is not believed again"
}

# with one server and -h the STUN connection is opened anew for each check
t_only_inbound_moves_one_server() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1
	www www
	nm n -s $S1 -h $WWW -b 5000 -k 2 -c 2
	mapped n 1
	ct r2 tcp_timeout_close=1
	nat r2 cone 5000:40001
	mapped n 2 14
	eq "$(echo "$LINE" | cut -d ' ' -f 1,2)" "$PUBLIC 40001" moved
}

# a dead server among them does not keep the others from checking
t_only_inbound_moves_beside_a_dead_server() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000 -k 2 -c 2
	mapped n 1
	ct r2 tcp_timeout_close=1
	nat r2 cone 5000:40001
	mapped n 2 14
	eq "$(echo "$LINE" | cut -d ' ' -f 1,2)" "$PUBLIC 40001" moved
}

# restart SIGNAL: on the same port, one address of each server, no timestamps
restart() {
	local i t
	lab_up
	nat r2 cone strict 5000:40000
	coturn turn $S1
	www www
	for i in 1 2 3; do
		t=$(now)
		nm n -s $S1 -h $WWW -b 5000 -k 5
		mapped n 1 10
		between 0 $(($(now) - t)) $((3000 * SLOW)) "ms to map, run $i"
		eq "$LINE" "$LINE_5000" "line of run $i"
		sleep 1.2
		if [ "$1" = KILL ]; then
			stop n
		else
			nm_stop n "$1"
		fi
	done
	hasnt "$D/n.err" 'not available|EADDRNOTAVAIL|cannot be used' restart
}

t_restart_by_term() {
	restart TERM
}

t_restart_by_kill() {
	restart KILL
}

t_symmetric_is_named() {
	lab_up
	nat r2 symmetric
	coturn turn $S1
	coturn turn2 $S2
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000 -k 2
	mapped n 1
	said n 'depends on the destination' 25
	sleep 4
	eq "$(count "$D/n.err" 'depends on the destination')" 1 warnings
	between 1 "$(lines "$D/n.out")" 2 announcements
}

# the keep-alive server closes: nobody outside notices
closing_www() {
	lab_up
	nat r2 learn timeout=3 5000:40000
	coturn turn $S1
	www www "$@"
	py h1 svc echo tcp 0.0.0.0 5000
	nm n -s $S1 -h $WWW -b 5000 -k 2
	mapped n 1
	probe tcp $PUBLIC 40000 120 0.1
	eq "$(lines "$D/n.out")" 1 lines
}

t_www_closes_after_each_answer() {
	closing_www "keepalive_timeout 0"
}

t_www_closes_after_three() {
	closing_www "keepalive_requests 3"
}

t_www_closes_early() {
	closing_www "keepalive_timeout 1s"
}

t_make_before_break() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1
	py inet web http max $WWW 80 3
	nm n -s $S1 -h $WWW -b 5000 -k 1
	mapped n 1
	sleep 9
	# no more than one new connection for each interval
	between 2 "$(count "$D/web.log" '^open')" 10 connections
	# the next is open before the one that ends says good-bye
	eq "$(awk '$1 == "open" { n++ } $1 == "closed" { n-- }
	    n > 2 { bad = 1 } END { print bad + 0 }' "$D/web.log")" 0 surplus
	eq "$(at h1 ss -Hant state time-wait "( sport = :5000 )" |
	    grep -c "$WWW" || true)" 0 "TIME_WAIT here"
}

quick ssh_from_outside 60
quick ipv6_shifted 40
quick held_by_stun_and_http 60
quick held_by_stun_alone 60
quick held_by_stun_that_closes 60
quick stun_flow_is_kept 40
quick port_changes 60
quick old_flow_silently_dropped 40
quick only_inbound_moves 60
quick only_inbound_moves_one_server 60
quick only_inbound_moves_beside_a_dead_server 60
quick restart_by_term 60
quick restart_by_kill 60
quick symmetric_is_named 70
quick www_closes_after_each_answer 60
quick www_closes_after_three 60
quick www_closes_early 60
quick make_before_break 40
lab_main "$@"
