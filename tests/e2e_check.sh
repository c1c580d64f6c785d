#!/bin/bash
# SPDX-License-Identifier: MIT
# --check and --probe: what natmap says of every kind of NAT.
. "$(dirname "$0")/lab.sh"

# the second addresses of two servers that know RFC 5780
S1B=198.51.100.4 S2B=198.51.100.5
S1BV6=2001:db8:f::4 S2BV6=2001:db8:f::5
FAR=198.51.100.11

ROUTER='advice:    forward the port in the home router, by hand or UPnP; else see this host'\''s firewall, the provider'\''s NAT'
FIREWALL='advice:    open the port in this host'\''s firewall; else see the router, the provider'\''s NAT'
SYMMETRIC='advice:    the provider'\''s NAT is symmetric, nothing at home can change it: ask for a public or an IPv6 address'
SEVERAL='advice:    servers see several public addresses: choose a line (-i), or avoid the proxy (-f)'
FAKE='advice:    a proxy invents addresses (198.18.0.0/15): exclude natmap (-f)'
NOBODY='advice:    nobody listens on the port: start the service'
PROBE='advice:    STUN cannot test TCP: ask a service (--probe)'
MOBILE='advice:    try it from mobile data, not from inside'

# two servers that know RFC 5780, each on two addresses
lab() {
	lab_up
	addr inet br0 $S1B/24 $S2B/24 $S1BV6/64 $S2BV6/64
}

turns() {
	coturn one $S1 $S1B
	coturn two $S2 $S2B
}

# check ARGS: natmap --check on h1 (NM_NS: elsewhere), at port 5000
check() {
	local t
	t=$(now)
	STATUS=0
	# shellcheck disable=SC2086
	at "${NM_NS:-h1}" timeout -s KILL $((25 * SLOW)) $NATMAP_WRAP \
	    "$NATMAP" --check -b 5000 "$@" > "$D/c.out" 2> "$D/c.err" \
	    < /dev/null || STATUS=$?
	TOOK=$(($(now) - t))
	between 0 $TOOK $((20500 * SLOW)) "ms that it took"
}

# says STATUS LINE ...: that and nothing else
says() {
	local status=$1
	shift
	eq "$(cat "$D/c.out")" "$(printf '%s\n' "$@")" output
	eq "$(cat "$D/c.err")" '' stderr
	eq $STATUS "$status" status
}

# gone NAME: so that another one of that name is awaited
gone() {
	stop "$1"
	rm -f "$D/$1.log"
}

# service tcp|udp: on the port
service() {
	py "${NM_NS:-h1}" service echo "$1" 0.0.0.0 5000
}

LOCAL="local:     $HOST:5000 private"
SEEN1="public:    $PUBLIC:40000 $S1:3478"
SEEN2="public:    $PUBLIC:40000 $S2:3478"
KNOWS="mapping:   endpoint-independent"
OPEN="filtering: endpoint-independent"
NOFILTER="filtering: unknown"

t_full_cone() {
	lab
	nat r2 cone 5000:40000
	turns
	check -u -s $S1,$S2
	says 0 "$LOCAL" "$SEEN1" "$SEEN2" "$KNOWS" "$OPEN" 'reachable: yes' \
	    "$NOBODY" "$MOBILE"
	# as one of natmap's lines has it
	check -4 -u -s $S1 -s $S2 -i eth0 -f 7 -k 1 -c 2 -h $WWW -T 5 -q \
	    --pid-file "$D/pid"
	says 0 "$LOCAL" "$SEEN1" "$SEEN2" "$KNOWS" "$OPEN" 'reachable: yes' \
	    "$NOBODY" "$MOBILE"
	[ ! -e "$D/pid" ] || fail "a pid file was written"
}

# lets in who was asked before only
restrict() {
	at r2 nft -f - <<-EOF
	table ip restrict {
		set asked { type ipv4_addr; flags dynamic; size 99; }
		chain forwarded {
			type filter hook forward priority 10
			oifname wan add @asked { ip daddr }
			iifname wan ct state new $1 drop
		}
	}
	EOF
}

t_address_restricted() {
	lab
	nat r2 cone 5000:40000
	restrict 'ip saddr != @asked'
	turns
	check -u -s $S1,$S2
	says 3 "$LOCAL" "$SEEN1" "$SEEN2" "$KNOWS" \
	    'filtering: address-dependent' \
	    'reachable: no' "$ROUTER" "$NOBODY"
	# asked from this port before, it would have been let in
	check -u -s $S1,$S1B
	has "$D/c.out" '^filtering: address-dependent$'
}

t_port_restricted() {
	lab
	nat r2 restricted
	turns
	check -u -s $S1,$S2
	says 3 "$LOCAL" "${SEEN1/40000/5000}" "${SEEN2/40000/5000}" "$KNOWS" \
	    'filtering: address-and-port-dependent' \
	    'reachable: no' "$ROUTER" "$NOBODY"
}

t_symmetric() {
	local a b
	lab
	nat r2 symmetric
	turns
	check -u -s $S1,$S2
	a=$(sed -n 's/^public: *[0-9.]*:\([0-9]*\) .*/\1/p' "$D/c.out")
	b=${a#*$'\n'} a=${a%$'\n'*}
	says 3 "$LOCAL" "${SEEN1/40000/$a}" "${SEEN2/40000/$b}" \
	    'mapping:   destination-dependent' \
	    'filtering: address-and-port-dependent' \
	    'reachable: no' \
	    "$SYMMETRIC" "$NOBODY"
	check -s $S1,$S2
	eq $STATUS 3 "TCP status"
	has "$D/c.out" '^mapping:   destination-dependent$'
	has "$D/c.out" '^filtering: unknown$'
	has "$D/c.out" "^$SYMMETRIC\$"
}

t_no_nat() {
	lab
	turns
	NM_NS=out
	service udp
	check -u -s $S1,$S2
	says 0 "local:     $OUT:5000 public" "public:    $OUT:5000 $S1:3478" \
	    "public:    $OUT:5000 $S2:3478" 'mapping:   none' "$OPEN" \
	    'reachable: yes'
	gone service
	check -s $S1,$S2
	says 4 "local:     $OUT:5000 public" "public:    $OUT:5000 $S1:3478" \
	    "public:    $OUT:5000 $S2:3478" 'mapping:   none' "$NOFILTER" \
	    'reachable: unknown' "$NOBODY" "$PROBE"
}

t_double_nat() {
	lab
	nat r1 cone 5000:5001
	nat r2 cone host=100.64.0.2 5001:40000
	turns
	check -u -s $S1,$S2
	says 0 "$LOCAL" "$SEEN1" "$SEEN2" "$KNOWS" "$OPEN" 'reachable: yes' \
	    "$NOBODY" "$MOBILE"
	# the router at home does not forward
	nat r1 restricted
	nat r2 cone host=100.64.0.2 5000:40000
	forget r1
	forget r2
	check -u -s $S1,$S2
	says 3 "$LOCAL" "$SEEN1" "$SEEN2" "$KNOWS" \
	    'filtering: address-and-port-dependent' \
	    'reachable: no' "$ROUTER" "$NOBODY"
	# seen from a router with a shared address
	nat r2 cone host=100.64.0.2 5002:40000
	forget r2
	NM_NS=r1
	check -u -s $S1,$S2 -b 5002
	says 0 'local:     100.64.0.2:5002 shared' "$SEEN1" "$SEEN2" \
	    "$KNOWS" "$OPEN" 'reachable: yes' "$NOBODY" "$MOBILE"
}

t_ipv6() {
	lab
	nat r2 cone 5000:40000
	coturn one $S1V6 $S1BV6
	coturn two $S2V6 $S2BV6
	check -6 -u -s "[$S1V6],[$S2V6]"
	says 0 "local:     [$HOSTV6]:5000 public" \
	    "public:    [$PUBLICV6]:40000 [$S1V6]:3478" \
	    "public:    [$PUBLICV6]:40000 [$S2V6]:3478" \
	    "$KNOWS" "$OPEN" 'reachable: yes' "$NOBODY" "$MOBILE"
}

t_host_firewall() {
	lab
	turns
	at out nft -f - <<-EOF
	table inet host {
		chain in {
			type filter hook input priority 0
			ct state established accept
			meta l4proto udp drop
		}
	}
	EOF
	NM_NS=out
	check -u -s $S1,$S2
	says 3 "local:     $OUT:5000 public" "public:    $OUT:5000 $S1:3478" \
	    "public:    $OUT:5000 $S2:3478" 'mapping:   none' \
	    'filtering: address-and-port-dependent' \
	    'reachable: no' "$FIREWALL" "$NOBODY"
	# who opens this port only
	at out nft insert rule inet host in udp dport 5000 accept
	check -u -s $S1,$S2
	eq $STATUS 0 "status of the open port"
}

t_one_server() {
	lab
	nat r2 cone 5000:40000
	coturn one $S1 $S1B
	check -u -s $S1
	says 4 "$LOCAL" "$SEEN1" 'mapping:   unknown' "$OPEN" \
	    'reachable: unknown' "$ROUTER" \
	    "$NOBODY" "$MOBILE"
}

t_no_rfc5780() {
	lab
	nat r2 cone 5000:40000
	coturn one $S1
	py inet two stun good $S2 3478 udp
	check -u -s $S1,$S2
	says 4 "$LOCAL" "$SEEN1" "$SEEN2" "$KNOWS" "$NOFILTER" \
	    'reachable: unknown' "$ROUTER" "$NOBODY" "$MOBILE"
}

# servers whose other address means nothing, then one that knows RFC 5780
t_liars() {
	local m
	lab
	nat r2 cone 5000:40000
	coturn two $S2 $S2B
	for m in "same=$S1B:3479" "420=$S1B:3479" "silent=$S1B:3478" \
	    "silent=$S1:3479" silent=10.0.0.1:3479 silent=0.0.0.0:3479 \
	    silent=224.0.0.1:3479; do
		py inet one stun "$m" $S1 3478 udp
		check -u -s $S1,$S2
		says 0 "$LOCAL" "$SEEN1" "$SEEN2" "$KNOWS" "$OPEN" \
		    'reachable: yes' "$NOBODY" "$MOBILE"
		between 0 $TOOK $((3500 * SLOW)) "ms with $m"
		gone one
	done
}

# nothing comes from there: the next one is asked before a no
t_liar_before_a_no() {
	lab
	nat r2 cone 5000:40000
	py inet one stun silent=$S1B:3479 $S1 3478 udp
	coturn two $S2 $S2B
	check -u -s $S1,$S2
	says 0 "$LOCAL" "$SEEN1" "$SEEN2" "$KNOWS" "$OPEN" 'reachable: yes' \
	    "$NOBODY" "$MOBILE"
}

t_dead_servers() {
	lab
	nat r2 cone 5000:40000
	addr inet br0 198.51.100.21/24 198.51.100.22/24
	mute 198.51.100.21 198.51.100.22
	py inet dns dns $DNS stun.test=$S1
	turns
	check -u -s 198.51.100.21,nowhere.test,stun.test,$S2
	says 0 "$LOCAL" "${SEEN1/$S1/stun.test}" "$SEEN2" "$KNOWS" "$OPEN" \
	    'reachable: yes' "$NOBODY" "$MOBILE"
	check -s 198.51.100.21,nowhere.test,198.51.100.22
	eq $STATUS 1 status
	eq "$(cat "$D/c.out")" "$(printf '%s\n' "$LOCAL" \
	    'public:    none' 'mapping:   unknown' "$NOFILTER" \
	    'reachable: unknown')" output
	eq "$(cat "$D/c.err")" 'natmap: no server answered' stderr
}

t_no_route() {
	lab
	ip -n "$L-h1" route flush table main
	check -u -s $S1,$S2
	eq $STATUS 1 status
	eq "$(cat "$D/c.out")" "$(printf '%s\n' 'local:     none' \
	    'public:    none' 'mapping:   unknown' "$NOFILTER" \
	    'reachable: unknown')" output
}

# the service gets and loses nothing
t_beside_a_service() {
	local kind
	lab
	nat r2 cone 5000:40000
	turns
	py inet prober prober back $WWW 80
	for kind in udp tcp; do
		service $kind
		net out hold"${kind#tcp}" $PUBLIC 40000 8 0.2 > "$D/h.$kind" &
		PID[hold]=$!
		sleep 0.5
		if [ $kind = udp ]; then
			check -u -s $S1,$S2
			says 0 "$LOCAL" "$SEEN1" "$SEEN2" "$KNOWS" "$OPEN" \
			    'reachable: yes' "$MOBILE"
		else
			check -s $S1,$S2 --probe $WWW
			says 0 "$LOCAL" "$SEEN1" "$SEEN2" "$KNOWS" \
			    "$NOFILTER" "reachable: yes (as $WWW says)" \
			    "$MOBILE"
		fi
		wait "${PID[hold]}" || fail "the $kind service lost something"
		PID[hold]=
		gone service
	done
}

t_port_of_another_user() {
	lab
	nat r2 cone 5000:40000
	turns
	chmod 755 "$D"
	for kind in udp tcp; do
		service $kind
		STATUS=0
		udp=-u
		[ $kind = udp ] || udp=-4
		at h1 setpriv --reuid 65534 --clear-groups "$NATMAP" --check \
		    -q -b 5000 -s $S1 $udp > "$D/c.out" 2> "$D/c.err" ||
		    STATUS=$?
		eq $STATUS 1 "status with $kind"
		eq "$(cat "$D/c.out")" "$(printf '%s\n' "$LOCAL" \
		    'public:    none' 'mapping:   unknown' "$NOFILTER" \
		    'reachable: unknown')" output
		has "$D/c.err" 'port 5000: in use by .*sharing it needs root'
		gone service
	done
}

t_fake_addresses() {
	lab
	nat r2 cone 5000:40000
	turns
	addr inet br0 198.18.0.2/32
	route r2 198.18.0.0/15 dev wan
	py inet dns dns $DNS stun.test=198.18.0.2
	py inet fake stun good 198.18.0.2 3478
	check -s stun.test,$S2
	says 4 "$LOCAL" "public:    $PUBLIC:40000 stun.test:3478" "$SEEN2" \
	    "$KNOWS" "$NOFILTER" 'reachable: unknown' "$FAKE" "$ROUTER" \
	    "$NOBODY" "$PROBE" "$MOBILE"
}

t_two_uplinks() {
	lab
	addr r2 wan $FAR/24
	nat r2 cone 5000:40000
	at r2 nft insert rule ip nat post ip daddr $S2 meta l4proto \
	    '{ tcp, udp }' snat to $FAR:40000
	turns
	py inet prober prober 0 $WWW 80
	check -u -s $S1,$S2
	says 3 "$LOCAL" "$SEEN1" "${SEEN2/$PUBLIC/$FAR}" \
	    'mapping:   destination-dependent' "$OPEN" \
	    'reachable: no' \
	    "$SEVERAL" "$NOBODY"
	service tcp
	check -s $S1,$S2 --probe $WWW
	says 4 "$LOCAL" "$SEEN1" "${SEEN2/$PUBLIC/$FAR}" \
	    'mapping:   destination-dependent' "$NOFILTER" \
	    'reachable: unknown' \
	    "$SEVERAL" "$MOBILE"
}

# probed WHAT STATUS REACHABLE [ADVICE ...]: what that service leads to
probed() {
	local mode=$1 status=$2 word=$3
	shift 3
	py inet prober prober "$mode" $WWW 80
	check -s $S1,$S2 --probe $WWW
	says "$status" "$LOCAL" "$SEEN1" "$SEEN2" "$KNOWS" "$NOFILTER" \
	    "reachable: $word" "$@"
	gone prober
	forget r2
}

t_probe_listening() {
	lab
	nat r2 cone 5000:40000
	turns
	probed back 0 "yes ($WWW came in)" "$NOBODY" "$MOBILE"
	probed json 0 "yes ($WWW came in)" "$NOBODY" "$MOBILE"
	probed 1 4 "unknown ($WWW: yes, but nobody came in)" "$ROUTER" \
	    "$NOBODY" "$MOBILE"
	probed 0 3 "no (as $WWW says)" "$ROUTER" "$NOBODY"
	probed maybe 4 "unknown ($WWW: neither yes nor no)" "$ROUTER" \
	    "$NOBODY" "$MOBILE"
	probed 500 4 "unknown ($WWW: HTTP status 500)" "$ROUTER" \
	    "$NOBODY" "$MOBILE"
	probed 302 4 "unknown ($WWW: HTTP status 302)" "$ROUTER" \
	    "$NOBODY" "$MOBILE"
	probed close 4 "unknown ($WWW: closed the connection)" "$ROUTER" \
	    "$NOBODY" "$MOBILE"
	# nobody is there
	check -s $S1,$S2 --probe $WWW:81
	has "$D/c.out" "^reachable: unknown [(]$WWW: refused[)]"
	# a NAT that lets nobody in
	restrict ''
	probed back 3 "no (as $WWW says)" "$ROUTER" "$NOBODY"
}

t_probe_mute() {
	lab
	nat r2 cone 5000:40000
	turns
	probed mute 4 "unknown ($WWW: no answer (timed out))" "$ROUTER" \
	    "$NOBODY" "$MOBILE"
}

t_probe_service() {
	lab
	nat r2 cone 5000:40000
	turns
	service tcp
	probed back 0 "yes (as $WWW says)" "$MOBILE"
	probed '{"reachable":true}' 0 "yes (as $WWW says)" "$MOBILE"
	probed '{"reachable": false, "port": 1}' 3 "no (as $WWW says)" \
	    "$ROUTER"
	# names, paths and ports
	py inet dns dns $DNS probe.test=$WWW
	py inet prober prober back $WWW 8080
	check -s $S1,$S2 --probe probe.test:8080/a/port/
	eq $STATUS 0 "status"
	has "$D/prober.log" '^GET /a/port/40000 HTTP/1.0$'
	check -s $S1,$S2 --probe nowhere.test
	has "$D/c.out" '^reachable: unknown [(]nowhere.test: name not found[)]'
}

t_usage() {
	lab_up
	check -d
	eq $STATUS 2 "with -d"
	check --once
	eq $STATUS 2 "with --once"
}

quick full_cone 40
quick address_restricted 40
quick port_restricted 40
quick symmetric 40
quick no_nat 40
quick double_nat 60
quick ipv6 30
quick host_firewall 40
quick one_server 30
quick no_rfc5780 30
quick liars 60
quick liar_before_a_no 30
quick dead_servers 60
quick no_route 30
quick beside_a_service 60
quick port_of_another_user 30
quick fake_addresses 30
quick two_uplinks 40
quick probe_listening 90
quick probe_mute 40
quick probe_service 60
quick usage 20
lab_main "$@"
