#!/bin/bash
# SPDX-License-Identifier: MIT
# STUN servers that tell another address than the others: nobody believes one
# name of three, and a move of the mapping is told beside a liar.
. "$(dirname "$0")/lab.sh"

LIAR=198.51.100.200
DEAD=198.51.100.201
LIE=6.6.6.6:666

# lab MODE: a cone, two good servers, and a third one of that mode
lab() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	addr inet br0 $LIAR/24
	py inet liar stun "$1" $LIAR 3478
}

# only N PORT: N lines were printed, and each has the public address
only() {
	alive n
	eq "$(lines "$D/n.out")" "$1" lines
	eq "$(grep -vc "^$PUBLIC 4000[01] " "$D/n.out")" 0 lies
}

# first OPT ...: the liar is the first of three
first() {
	lab "as=$LIE"
	nm n "$@" -s $LIAR,$S1,$S2 -b 5000 -k 1
	mapped n 1 3
	sleep 6
	only 1
}

t_first_is_a_liar_udp() {
	first -u
}

t_first_is_a_liar_tcp() {
	first
}

# once OPT ...: the same with --once
once() {
	lab "as=$LIE"
	nm n "$@" --once -s $LIAR,$S1,$S2 -b 5000
	nm_wait n
	eq "$STATUS" 0 status
	eq "$(cut -d ' ' -f 1,2 "$D/n.out")" "$PUBLIC 40000" line
}

t_once_udp() {
	once -u
}

t_once_tcp() {
	once
}

# one word against one: both are named
t_once_warns() {
	lab "as=$LIE"
	nm n -u --once -s $LIAR,$S1 -b 5000
	nm_wait n
	eq "$STATUS" 0 status
	said n ':3478 says .*, but .*:3478 says '
}

# later OPT ...: it begins to lie later, and the next server is dead
later() {
	lab good
	nm n "$@" -s $S1,$S2,$LIAR,$DEAD -b 5000 -k 1
	mapped n 1
	sleep 2
	stop liar
	py inet liar stun "as=$LIE" $LIAR 3478
	sleep 25
	only 1
}

t_later_a_liar_udp() {
	later -u
}

t_later_a_liar_tcp() {
	later
}

# moves SECONDS OPT ...: the mapping moves beside the liar
moves() {
	local within=$1
	shift
	lab "as=$LIE"
	nm n "$@" -s $LIAR,$S1,$S2 -b 5000 -k 2
	mapped n 1
	sleep 3
	nat r2 cone 5000:40001
	forget r2
	mapped n 2 "$within"
	sleep 3
	only 2
}

t_moves_beside_a_liar_udp() {
	moves 7 -u
}

t_moves_beside_a_liar_tcp() {
	moves 9
}

# a lone server chooses no service below 1024 of the target
t_port_0_follows_no_liar() {
	lab "as=$PUBLIC:22"
	nm n -s $LIAR -b 5000 -k 1 -t 192.168.1.20 -p 0
	mapped n 1
	said n '-p 0: waiting'
	py h2 ssh echo tcp 192.168.1.20 22
	unreached tcp $PUBLIC 40000
}

# nor does the first one of three any port
t_port_0_follows_the_others() {
	lab "as=$PUBLIC:40022"
	py h2 right echo udp 192.168.1.20 40000
	nm n -u -s $LIAR,$S1,$S2 -b 5000 -k 1 -t 192.168.1.20 -p 0
	mapped n 1
	sleep 3
	reached udp $PUBLIC 40000
	only 1
}

quick first_is_a_liar_udp 40
quick first_is_a_liar_tcp 40
quick once_udp 30
quick once_tcp 30
quick once_warns 30
quick later_a_liar_udp 60
quick later_a_liar_tcp 60
quick moves_beside_a_liar_udp 50
quick moves_beside_a_liar_tcp 50
quick port_0_follows_no_liar 40
quick port_0_follows_the_others 40
lab_main "$@"
