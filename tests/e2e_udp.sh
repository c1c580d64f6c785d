#!/bin/bash
# SPDX-License-Identifier: MIT
# UDP mapping in bind mode, behind full-cone NATs.
. "$(dirname "$0")/lab.sh"

# what the lab's NATs make of port 5000
LINE_5000="$PUBLIC 40000 2001::9c40:c633:640a 5000 udp $HOST"

double_cone() {
	nat r1 cone 5000:15000
	nat r2 cone host=100.64.0.2 host6=2001:db8:2::2 15000:40000
}

t_server_answers_outside_client() {
	lab_up
	double_cone
	coturn turn $S1 $S2
	py h1 svc whoami udp 0.0.0.0 5000
	nm n -u -s $S1 -b 5000 -k 2
	mapped n 1
	eq "$LINE" "$LINE_5000" line
	has <(net out ask udp $PUBLIC 40000) "^$OUT " "client's own address"
	sleep 2.5
	alive n
	eq "$(lines "$D/n.out")" 1 "lines while nothing changes"
	nm_stop n
	eq $STATUS 143 "status after TERM"
}

t_ip4p_is_padded() {
	lab_up
	nat r2 cone 5000:15
	py inet liar stun as=1.2.3.4:15 $S1 3478
	nm n -u -s $S1 -b 5000
	mapped n 1
	eq "$LINE" "1.2.3.4 15 2001::000f:0102:0304 5000 udp $HOST" line
}

t_any_port() {
	local port
	lab_up
	nat r2 learn timeout=10
	coturn turn $S1
	nm n -u -s $S1
	mapped n 1
	port=$(echo "$LINE" | cut -d ' ' -f 4)
	between 1024 "$port" 65535 "local port"
	eq "$(echo "$LINE" | cut -d ' ' -f 2)" "$port" "public port"
}

t_ipv6_shifted() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1V6
	py h1 svc echo udp :: 5000
	nm n -6 -u -s "[$S1V6]" -b 5000 -k 2
	mapped n 1
	eq "$LINE" "$PUBLICV6 40000  5000 udp $HOSTV6" line
	reached udp $PUBLICV6 40000
}

t_held() {
	lab_up
	nat r2 learn timeout=3 5000:40000
	coturn turn $S1 $S2
	ct r2 udp_timeout=2 udp_timeout_stream=2
	nm n -u -s $S1,$S2 -b 5000 -k 2
	mapped n 1
	py h1 svc echo udp 0.0.0.0 5000
	reached udp $PUBLIC 40000
	probe udp $PUBLIC 40000 24 0.4
	lost_when_stopped n udp $PUBLIC 40000 2
}

t_held_by_indications() {
	lab_up
	nat r2 learn timeout=3 5000:40000
	py inet turn stun good $S1 3478
	nm n -u -s $S1 -b 5000 -k 2 -c 3
	mapped n 1
	py h1 svc echo udp 0.0.0.0 5000
	probe udp $PUBLIC 40000 24 0.4
	has "$D/turn.log" 'indication' server
	lost_when_stopped n udp $PUBLIC 40000 2
}

t_port_changes() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	nm n -u -s $S1,$S2 -b 5000 -k 2
	mapped n 1
	nat r2 cone 5000:40001
	forget r2
	mapped n 2 5
	eq "$LINE" "$PUBLIC 40001 2001::9c41:c633:640a 5000 udp $HOST" port
	public 198.51.100.11
	nat r2 cone 5000:40001
	forget r2
	mapped n 3 5
	eq "$LINE" "198.51.100.11 40001 2001::9c41:c633:640b 5000 udp $HOST" \
	    address
	sleep 2.5
	eq "$(lines "$D/n.out")" 3 "lines in all"
}

# an old flow shows its old mapping: each server must be left alone for longer
# than the NAT remembers, so they are asked in turn
# Outgoing flows keep the old mapping while the NAT remembers them.  Of two
# servers one holds; the other one rests for 36 s, says the new address, and
# then the first must rest until its answer is fresh: 125 s.
t_only_inbound_moves() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	nm n -u -s $S1,$S2 -b 5000
	mapped n 1
	nat r2 cone 5000:40001
	mapped n 2 180
	eq "$(echo "$LINE" | cut -d ' ' -f 1,2)" "$PUBLIC 40001" moved
}

t_second_server_when_first_is_dead() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S2
	mute $S1
	nm n -u -s $S1,$S2 -b 5000 -k 2
	mapped n 1 8
	eq "$LINE" "$LINE_5000" line
	said n "$S1.*(no answer|timed out)" 12
}

t_server_dies_and_returns() {
	lab_up
	nat r2 learn timeout=7 5000:40000
	coturn turn $S1
	coturn turn2 $S2
	nm n -u -s $S1,$S2 -b 5000 -k 4
	mapped n 1
	py h1 svc echo udp 0.0.0.0 5000
	stop turn
	probe udp $PUBLIC 40000 20 0.4
	said n "$S1.*(refused|no answer|timed out)"
	mute $S2
	sleep 4
	# requests without an answer hold the mapping too
	probe udp $PUBLIC 40000 12 0.5
	coturn turn $S1
	mute
	said n 'answers again' 12
	probe udp $PUBLIC 40000
	eq "$(lines "$D/n.out")" 1 "calls for nothing"
}

t_symmetric_is_named() {
	lab_up
	nat r2 symmetric
	coturn turn $S1
	coturn turn2 $S2
	coturn turn3 $WWW
	nm n -u -s $S1,$S2,$WWW -b 5000 -k 1
	nm two -u -s $S1,$S2 -b 5001 -k 1
	mapped n 1
	mapped two 1
	said n 'depends on the destination' 6
	said two "says $PUBLIC:.*, but .* says $PUBLIC:.*not a cone" 6
	sleep 4
	eq "$(count "$D/n.err" 'depends on the destination')" 1 warnings
	eq "$(lines "$D/n.out")" 1 "announcements"
	eq "$(lines "$D/two.out")" 1 "announcements with two servers"
}

t_fake_address_is_named() {
	lab_up
	nat r2 cone 5000:40000
	at inet ip addr add 198.18.0.7/15 dev br0
	at r2 ip route add 198.18.0.0/15 dev wan
	py inet dns dns $DNS fake.test=198.18.0.7
	py inet turn stun good 198.18.0.7 3478
	nm n -u -s fake.test -b 5000 -k 1
	said n '198\.18\.' 8
	sleep 2.5
	eq "$(count "$D/n.err" '198\.18\.')" 1 warnings
}

t_mute_port_range_stays() {
	lab_up
	nat r2 cone 5000:40000 5001:40001
	coturn turn $S1
	nm n -u -s $S1 -b 5000-5001 -k 1
	mapped n 1
	eq "$LINE" "$LINE_5000" line
	mute $S1
	sleep 6
	mute
	sleep 3
	eq "$(lines "$D/n.out")" 1 "a port is kept as long as it can be used"
}

t_hup_checks_now() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	nm n -u -s $S1,$S2 -b 5000 -k 3600
	mapped n 1
	nat r2 cone 5000:40001
	forget r2
	kill -HUP "${PID[n]}"
	mapped n 2 5
	alive n
}

quick server_answers_outside_client 40
quick ip4p_is_padded 30
quick any_port 30
quick ipv6_shifted 30
quick held 60
quick held_by_indications 60
quick port_changes 60
long only_inbound_moves 240
quick second_server_when_first_is_dead 60
quick server_dies_and_returns 90
quick symmetric_is_named 60
quick fake_address_is_named 40
quick mute_port_range_stays 60
quick hup_checks_now 40
lab_main "$@"
