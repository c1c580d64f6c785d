#!/bin/bash
# SPDX-License-Identifier: MIT
# Servers that lie, flood, dribble or go away: they cost their connection and
# nothing else, and no lie of theirs is announced.
. "$(dirname "$0")/lab.sh"

LIES='badid badcookie badtype request error port0 cut long lielen wrongfamily
empty garbage html close mute'

# lies KIND OPT: with each liar first and a good server second only what the
# good one says is announced
lies() {
	local mode i=0
	lab_up
	nat r2 cone 5000:40000 5001:40001 5002:40002 5003:40003 5004:40004 \
	    5005:40005 5006:40006 5007:40007 5008:40008 5009:40009 \
	    5010:40010 5011:40011 5012:40012 5013:40013 5014:40014
	coturn good $S2
	for mode in $LIES; do
		addr inet br0 198.51.100.$((200 + i))/24
		py inet liar$i stun "$mode" 198.51.100.$((200 + i)) 3478 "$1"
		# shellcheck disable=SC2086
		nm n$i $2 -s 198.51.100.$((200 + i)),$S2 -b $((5000 + i)) -k 1
		i=$((i + 1))
	done
	i=0
	for mode in $LIES; do
		mapped n$i 1 15
		i=$((i + 1))
	done
	sleep 2
	i=0
	for mode in $LIES; do
		alive n$i
		eq "$(cut -d ' ' -f 1,2 "$D/n$i.out")" \
		    "$PUBLIC $((40000 + i))" "$mode"
		between 0 "$(cpu n$i)" $((500 * SLOW)) "ms of CPU, $mode"
		i=$((i + 1))
	done
}

t_udp_lies() {
	lies udp -u
}

t_tcp_lies() {
	lies tcp ''
}

# odd MODE ...: answers that are odd but right
odd() {
	local mode opt
	lab_up
	nat r2 cone 5000:40000
	for mode; do
		py inet odd stun "$mode" $S1 3478
		for opt in -u -v; do
			nm n $opt -s $S1 -b 5000 -k 1
			mapped n 1
			eq "$(echo "$LINE" | cut -d ' ' -f 1,2)" \
			    "$PUBLIC 40000" "$mode $opt"
			nm_stop n
		done
		stop odd
	done
}

t_odd_but_right() {
	odd mapped order
}

t_answer_byte_by_byte() {
	lab_up
	nat r2 cone 5000:40000
	py inet odd stun bytes $S1 3478 tcp
	nm n -s $S1 -b 5000 -k 1
	mapped n 1
	eq "$(echo "$LINE" | cut -d ' ' -f 1,2)" "$PUBLIC 40000" line
}

# an answer that comes after the next server was asked still counts
t_late_answer() {
	lab_up
	nat r2 cone 5000:40000
	py inet late stun late $S1 3478 udp
	nm n -u -s $S1 -b 5000 -k 5
	mapped n 1 8
}

# modest NAME: what the fault before may have cost it
modest() {
	between 0 "$(cpu "$1")" $((1000 * SLOW)) "ms of CPU"
	between 0 "$(kb "$1" VmHWM)" 8192 "kB of memory"
}

t_stun_floods_and_dribbles() {
	local mode opt
	lab_up
	nat r2 cone 5000:40000
	coturn good $S2
	for mode in flood dribble; do
		py inet bad stun $mode $S1 3478
		for opt in -u -v; do
			nm n $opt -s $S1,$S2 -b 5000 -k 1
			mapped n 1 15
			sleep 3
			eq "$(cut -d ' ' -f 1,2 "$D/n.out")" \
			    "$PUBLIC 40000" "$mode $opt"
			alive n
			modest n
			nm_stop n
			eq $STATUS 143 "status, $mode $opt"
		done
		stop bad
	done
}

# http MODE PORT: the mapping is there and stays, and the server costs little
http() {
	nat r2 cone "$2:$(($2 + 35000))"
	py inet web http "$1" $WWW 80
	py h1 svc echo tcp 0.0.0.0 "$2"
	nm n -s $S1 -h $WWW -b "$2" -k 1
	mapped n 1 15
	sleep 5
	eq "$(lines "$D/n.out")" 1 "lines, $1"
	alive n
	modest n
	# a new connection for each interval at most, and one at the start
	between 1 "$(count "$D/web.log" '^open')" 12 "connections, $1"
	reached tcp $PUBLIC $(($2 + 35000))
	nm_stop n
	stop web
	stop svc
}

t_http_misbehaves() {
	local mode port=5000
	lab_up
	coturn turn $S1
	for mode in endless flood dribble longline body garbage close mute; do
		http $mode $port
		port=$((port + 1))
	done
}

t_http_interim_answer() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1
	py inet web http continue $WWW 80
	nm n -s $S1 -h $WWW -b 5000 -k 1
	mapped n 1
	sleep 5
	eq "$(count "$D/web.log" '^open')" 1 connections
	between 3 "$(count "$D/web.log" '^head')" 8 requests
}

# many small servers answer HEAD with a body: the connection serves on
t_http_body() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1
	py inet web http body $WWW 80
	nm n -s $S1 -h $WWW -b 5000 -k 1
	mapped n 1
	sleep 5
	eq "$(count "$D/web.log" '^open')" 1 connections
	between 3 "$(count "$D/web.log" '^head')" 8 requests
	hasnt "$D/n.err" 'not an HTTP answer'
}

# junk for the mapped port from outside, while it is asked from there
t_junk_from_outside() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1
	nm n -u -s $S1 -b 5000 -k 1 -t 192.168.1.20 -p 9
	mapped n 1
	at out "$PY" -c "
import os, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(3000):
    s.sendto(os.urandom(i % 1400), ('$PUBLIC', 40000))
    s.sendto(b'\\1\\1\\0\\x0c\\x21\\x12\\xa4\\x42' + os.urandom(12) +
        b'\\0\\x20\\0\\x08\\0\\1\\1\\1\\1\\1\\1\\1', ('$PUBLIC', 40000))
    if i % 100 == 0: time.sleep(0.05)"
	sleep 2
	alive n
	eq "$(cut -d ' ' -f 1,2 "$D/n.out")" "$PUBLIC 40000" lines
}

quick udp_lies 60
quick tcp_lies 60
quick odd_but_right 40
quick answer_byte_by_byte 30
quick late_answer 30
quick stun_floods_and_dribbles 80
quick http_misbehaves 150
quick http_interim_answer 30
quick http_body 30
quick junk_from_outside 40
lab_main "$@"
