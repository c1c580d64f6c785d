#!/bin/bash
# SPDX-License-Identifier: MIT
# Faults of servers and of the network.  What is said to be held is measured
# behind a NAT that learns its mappings and forgets them in less than 2 x k,
# from new source ports, and is lost when natmap is stopped.  The long cases
# are the same with the default intervals, and a fault lasts for ten minutes.
. "$(dirname "$0")/lab.sh"

# lab K: the forgetful NAT, a service, servers
lab() {
	lab_up
	nat r2 learn "timeout=$((2 * $1 - 1))" 5000:40000
	py h1 tcp echo tcp 0.0.0.0 5000
	py h1 udp echo udp 0.0.0.0 5000
	py inet dns dns $DNS one.test=$S1 two.test=$S2 www.test=$WWW
}

# watch tcp|udp SECONDS: probes every 100 ms from now on.  The kernel drops some
# datagrams of a busy machine, and one that comes while natmap opens a flow can
# be refused: a few are tried again.  While a mapping is lost all are refused, at
# once.
watch() {
	bg out "watch.$1" "$PY" "$NET" probe "$1" $PUBLIC 40000 \
	    $(($2 * 10)) 0.1 2 3
}

# none_lost tcp|udp SECONDS: until the watch has ended; a busy machine may be
# late
none_lost() {
	soon $(($2 + 60)) "the watch has not ended" \
	    grep -q answered "$D/watch.$1.log"
	has "$D/watch.$1.log" 'answered ([0-9]+) of \1,.* again [0-3]$' \
	    "while it was broken"
}

told_nothing() {
	eq "$(lines "$D/n.out")" 1 "lines"
	alive n
}

# ---- servers -------------------------------------------------------------

# http_closes K SECONDS MODE N
http_closes() {
	lab "$1"
	coturn turn $S1
	py inet web http "$3" $WWW 80 "$4"
	nm n -s $S1 -h $WWW -b 5000 -k "$1"
	mapped n 1
	watch tcp "$2"
	none_lost tcp "$2"
	between 2 "$(count "$D/web.log" '^open')" $(($2 / $1 + 3)) connections
	told_nothing
	lost_when_stopped n tcp $PUBLIC 40000 "$1"
}

t_http_says_it_closes() {
	http_closes 2 12 max 3
}

t_http_closes_unsaid() {
	http_closes 2 12 closes 3
}

t_http_closes_each_time() {
	http_closes 2 12 closes 1
}

t_http_says_it_closes_defaults() {
	http_closes 30 600 max 3
}

t_http_closes_unsaid_defaults() {
	http_closes 30 600 closes 3
}

t_http_closes_each_time_defaults() {
	http_closes 30 600 closes 1
}

# http_dead K SECONDS HOW [2]: the only one, or the first of two
http_dead() {
	local also=
	lab "$1"
	coturn turn $S1
	www www
	if [ "${4:-1}" = 2 ]; then
		addr inet br0 198.51.100.81/24
		py inet web2 http good 198.51.100.81 80
		also=,198.51.100.81
	fi
	nm n -s $S1 -h $WWW$also -b 5000 -k "$1"
	mapped n 1
	watch tcp "$2"
	sleep 1
	case $3 in
	mute) mute $WWW ;;
	refuse) stop www ;;
	esac
	none_lost tcp "$2"
	told_nothing
	said n "$WWW.*(refused|no answer|timed out|closed|reset)"
	lost_when_stopped n tcp $PUBLIC 40000 "$1"
}

t_http_dead() {
	http_dead 2 14 refuse
}

t_http_mute() {
	http_dead 2 14 mute
}

t_http_one_of_two_dead() {
	http_dead 2 14 refuse 2
	between 1 "$(count "$D/web2.log" '^head')" 99 "requests to the second"
}

t_http_dead_defaults() {
	http_dead 30 600 refuse
}

t_http_mute_defaults() {
	http_dead 30 600 mute
}

t_http_one_of_two_dead_defaults() {
	http_dead 30 600 refuse 2
}

# stun_dead KIND K SECONDS HOW SERVERS ARGS ...
stun_dead() {
	local kind=$1 k=$2 secs=$3 how=$4 servers=$5
	shift 5
	lab "$k"
	coturn turn $S1
	coturn turn2 $S2
	www www
	nm n -s "$servers" -b 5000 -k "$k" "$@"
	mapped n 1
	watch "$kind" "$secs"
	sleep 1
	case $how in
	mute) mute $S1 ;;
	refuse) stop turn ;;
	liar)
		stop turn
		py inet liar stun error $S1 3478
		;;
	esac
	none_lost "$kind" "$secs"
	told_nothing
	said n "$S1.*(refused|no answer|timed out|closed|420)"
	mute
	lost_when_stopped n "$kind" $PUBLIC 40000 "$k"
}

t_stun_dead_tcp() {
	stun_dead tcp 2 14 refuse $S1,$S2 -h $WWW
}

t_stun_mute_tcp() {
	stun_dead tcp 2 14 mute $S1,$S2 -h $WWW
}

t_stun_only_one_dead_tcp() {
	stun_dead tcp 2 14 refuse $S1 -h $WWW
}

t_stun_dead_tcp_no_http() {
	stun_dead tcp 4 16 refuse $S1,$S2
}

t_stun_mute_tcp_no_http() {
	stun_dead tcp 4 16 mute $S1,$S2
}

t_stun_error_tcp() {
	stun_dead tcp 2 14 liar $S1,$S2 -h $WWW
}

t_stun_dead_udp() {
	stun_dead udp 4 16 refuse $S1,$S2 -u
}

t_stun_mute_udp() {
	stun_dead udp 4 16 mute $S1,$S2 -u
}

t_stun_error_udp() {
	stun_dead udp 4 16 liar $S1,$S2 -u
}

t_stun_dead_tcp_defaults() {
	stun_dead tcp 30 600 refuse $S1,$S2 -h $WWW
}

t_stun_dead_udp_defaults() {
	stun_dead udp 10 600 refuse $S1,$S2 -u
}

t_stun_mute_tcp_defaults() {
	stun_dead tcp 30 600 mute $S1,$S2 -h $WWW
}

t_stun_mute_udp_defaults() {
	stun_dead udp 10 600 mute $S1,$S2 -u
}

# the first server is dead: the change is told by the second
t_new_server_takes_over() {
	lab 2
	coturn turn $S1
	coturn turn2 $S2
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000 -k 2
	nm u -u -s $S1,$S2 -b 5000 -k 2
	mapped n 1
	mapped u 1
	stop turn
	sleep 3
	nat r2 learn timeout=3 5000:40001
	forget r2
	mapped u 2 8
	mapped n 2 10
}

# all_dead KIND K SECONDS ARGS: all servers and DNS are gone, then back with
# another port
all_dead() {
	local kind=$1 k=$2 secs=$3
	shift 3
	lab "$k"
	coturn turn $S1 $S2
	www www
	nm n -s one.test,two.test -b 5000 -k "$k" "$@"
	mapped n 1
	mute $S1 $S2 $WWW $DNS
	watch "$kind" "$secs"
	none_lost "$kind" "$secs"
	told_nothing
	nat r2 learn "timeout=$((2 * k - 1))" 5000:40001
	forget r2
	sleep 1
	mute
	mapped n 2 7
	eq "$(echo "$LINE" | cut -d ' ' -f 2)" 40001 port
	reached "$kind" $PUBLIC 40001
}

t_all_dead_tcp() {
	all_dead tcp 5 20 -h www.test
}

t_all_dead_udp() {
	all_dead udp 5 20 -u
}

t_all_dead_tcp_defaults() {
	all_dead tcp 30 600 -h www.test
}

t_all_dead_udp_defaults() {
	all_dead udp 10 600 -u
}

# ---- the mapping moves ---------------------------------------------------

# with the default -k: the kernel's probes find the reset within 12 s
t_reset_flow_is_told_in_12_s() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000
	mapped n 1
	sleep 18
	nat r2 cone 5000:40001
	forget r2
	mapped n 2 13
}

t_silent_loss_defaults() {
	lab_up
	nat r2 cone strict 5000:40000
	coturn turn $S1 $S2
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000
	mapped n 1
	sleep 3
	nat r2 cone strict 5000:40001
	forget r2
	mapped n 2 36
}

# nothing else is open, and no server is free to be asked
t_silent_loss_of_all_flows() {
	lab_up
	nat r2 cone strict 5000:40000
	coturn turn $S1 $S2
	nm n -s $S1,$S2 -b 5000 -k 3
	mapped n 1
	sleep 4
	nat r2 cone strict 5000:40001
	forget r2
	mapped n 2 9
}

t_inbound_moves_defaults() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000
	mapped n 1
	nat r2 cone 5000:40001
	mapped n 2 64
	sleep 70
	eq "$(lines "$D/n.out")" 2 lines
}

t_udp_moves_defaults() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	nm n -u -s $S1,$S2 -b 5000
	mapped n 1
	sleep 2
	nat r2 cone 5000:40001
	forget r2
	mapped n 2 14
}

# ---- interfaces ----------------------------------------------------------

# readdress: eth0 of h1 is up again, as 192.168.1.11; the NAT knows it
readdress() {
	nat r2 learn host=192.168.1.11 timeout=3 5000:41000
	forget r2
	addr h1 eth0 192.168.1.11/24
	at h1 ip link set eth0 up
	route h1 default via 192.168.1.1
}

# remapped NAME KIND: within 3 s of that
remapped() {
	mapped "$1" 2 4
	eq "$(echo "$LINE" | cut -d ' ' -f 2,6)" "41000 192.168.1.11" "$1"
	reached "$2" $PUBLIC 41000
}

# flap ARGS: down, then up with another address
flap() {
	lab 2
	coturn turn $S1 $S2
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000 -k 20 "$@"
	nm u -u -s $S1,$S2 -b 5000 -k 20 "$@"
	mapped n 1
	mapped u 1
	sleep 1
	at h1 ip link set eth0 down
	at h1 ip addr del $HOST/24 dev eth0
	sleep 2
	readdress
	remapped n tcp
	remapped u udp
}

t_interface_flaps() {
	flap
}

t_interface_flaps_bound() {
	flap -i eth0
}

# redial ARGS: the interface is deleted and made again, as PPPoE does
redial() {
	lab 2
	coturn turn $S1 $S2
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000 -k 20 "$@"
	nm u -u -s $S1,$S2 -b 5000 -k 20 "$@"
	mapped n 1
	mapped u 1
	sleep 1
	at h1 ip link del eth0
	sleep 2
	link h1 eth0 r1 h1
	ip -n "$L-r1" link set h1 master lan
	readdress
	remapped n tcp
	remapped u udp
}

t_interface_is_made_again() {
	redial
}

t_interface_is_made_again_bound() {
	redial -i eth0
}

# the relay's listener is bound to the device: it must not stay deaf
t_relay_survives_redial() {
	lab 2
	coturn turn $S1 $S2
	www www
	py h2 svc echo tcp 192.168.1.20 9000
	py h2 svcu echo udp 192.168.1.20 9000
	stop tcp
	stop udp
	nm n -s $S1,$S2 -h $WWW -b 5000 -k 20 -i eth0 -t 192.168.1.20 -p 9000
	nm u -u -s $S1,$S2 -b 5000 -k 20 -i eth0 -t 192.168.1.20 -p 9000
	mapped n 1
	mapped u 1
	reached tcp $PUBLIC 40000
	reached udp $PUBLIC 40000
	at h1 ip link del eth0
	sleep 1
	link h1 eth0 r1 h1
	ip -n "$L-r1" link set h1 master lan
	readdress
	remapped n tcp
	remapped u udp
}

t_no_route_at_start() {
	lab 2
	coturn turn $S1 $S2
	www www
	at h1 ip route del default
	nm n -s $S1 -h $WWW -b 5000 -k 2
	nm u -u -s $S1 -b 5000 -k 2
	sleep 4
	alive n
	alive u
	route h1 default via 192.168.1.1
	mapped n 1 4
	mapped u 1 4
}

t_no_address_at_start() {
	lab 2
	coturn turn $S1 $S2
	www www
	at h1 ip addr del $HOST/24 dev eth0
	nm n -s $S1 -h $WWW -b 5000 -k 2
	nm u -u -s $S1 -b 5000 -k 2 -i $HOST
	sleep 4
	alive n
	alive u
	addr h1 eth0 $HOST/24
	route h1 default via 192.168.1.1
	mapped n 1 4
	mapped u 1 4
}

# an address of another interface, a refreshed lifetime: not our business
t_foreign_news_change_nothing() {
	lab 2
	coturn turn $S1 $S2
	www www
	nm n -s $S1,$S2 -h $WWW -b 5000 -k 2
	mapped n 1
	watch tcp 8
	for i in 1 2 3 4 5 6; do
		at h1 ip link add "x$i" type veth peer name "y$i"
		at h1 ip addr add 10.9.$i.1/24 dev "x$i"
		at h1 ip -6 addr change $HOSTV6/64 dev eth0 \
		    valid_lft $((9000 + i)) preferred_lft 8000
		sleep 0.5
		at h1 ip link del "x$i"
	done
	none_lost tcp 8
	told_nothing
}

# ---- loss ----------------------------------------------------------------

# loses KIND K PROBES PAUSE ARGS: 20 % both ways.  Of one TCP connection in a
# thousand so many packets are lost that it has no answer in 20 s: a probe that
# is not answered in 4 s tries again from another port, in 20 s as well.
loses() {
	local kind=$1 k=$2 probes=$3 pause=$4 wait=4 tries=5
	shift 4
	lab "$k"
	coturn turn $S1 $S2
	www www
	# an abort has both flags; the kernel's answer to what comes late has not
	at r1 nft -f - <<-EOF
	table ip rst {
		chain forwarded {
			type filter hook forward priority 0
			iifname lan tcp sport 5000 ip daddr { $WWW, $OUT } \
			    tcp flags & (rst | ack) == (rst | ack) counter
		}
	}
	EOF
	nm n -s $S1,$S2 -b 5000 -k "$k" "$@"
	mapped n 1
	loss r2 20
	[ "$kind" = tcp ] || wait=1 tries=1
	net out probe "$kind" $PUBLIC 40000 "$probes" "$pause" $wait $tries \
	    > "$D/probes" || true
	loss r2 0
	told_nothing
	at r1 nft list table ip rst > "$D/rst.log"
	has "$D/rst.log" 'counter packets 0 ' "resets sent"
	if [ "$kind" = tcp ]; then
		has "$D/probes" 'answered ([0-9]+) of \1,' probes
	else
		between $((probes * 3 / 10)) \
		    "$(awk '{ print $2 }' "$D/probes")" "$probes" \
		    "probes answered"
	fi
}

t_loss_tcp() {
	loses tcp 3 20 1 -h $WWW
}

t_loss_udp() {
	loses udp 3 20 1 -u
}

t_loss_tcp_defaults() {
	loses tcp 30 240 2.5 -h $WWW
}

t_loss_udp_defaults() {
	loses udp 10 240 2.5 -u
}

# a relayed session lives through an outage of a minute
t_outage_cuts_no_session() {
	lab 2
	stop tcp
	coturn turn $S1 $S2
	www www
	py h2 svc echo tcp 192.168.1.20 9000
	nm n -s $S1,$S2 -h $WWW -b 5000 -t 192.168.1.20 -p 9000
	mapped n 1
	bg out client "$PY" "$NET" hold $PUBLIC 40000 100
	soon 5 client grep -q up "$D/client.log"
	loss r2 100
	sleep 60
	loss r2 0
	soon 60 "the session was cut" grep -q alive "$D/client.log"
}

for c in http_says_it_closes http_closes_unsaid http_closes_each_time \
    http_dead http_mute http_one_of_two_dead stun_dead_tcp stun_mute_tcp \
    stun_only_one_dead_tcp stun_dead_tcp_no_http stun_mute_tcp_no_http \
    stun_error_tcp stun_dead_udp stun_mute_udp stun_error_udp \
    new_server_takes_over reset_flow_is_told_in_12_s \
    silent_loss_of_all_flows \
    interface_flaps interface_flaps_bound interface_is_made_again \
    interface_is_made_again_bound relay_survives_redial no_route_at_start \
    no_address_at_start foreign_news_change_nothing; do
	quick $c 60
done
quick all_dead_tcp 80
quick all_dead_udp 80
quick loss_tcp 100
quick loss_udp 100
for c in http_says_it_closes http_closes_unsaid http_closes_each_time \
    http_dead http_mute http_one_of_two_dead stun_dead_tcp stun_dead_udp \
    stun_mute_tcp stun_mute_udp all_dead_tcp all_dead_udp; do
	long "${c}_defaults" 800
done
long silent_loss_defaults 90
long inbound_moves_defaults 180
long udp_moves_defaults 60
long loss_tcp_defaults 900
long loss_udp_defaults 900
long outage_cuts_no_session 180
lab_main "$@"
