#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2016	# what the README prints
# What README.md prints does what it says.  Commands are run as they stand, in
# the lab: all names lead to servers there, and the address of the lab's NAT is
# written as the README's.
. "$(dirname "$0")/lab.sh"

README=$TESTS/../README.md

# block WORDS: of the README, that has these words
block() {
	awk -v words="$1" '
	/^```/ {
		if (on && index(text, words))
			printf "%s", text
		on = !on
		text = ""
		next
	}
	on { text = text $0 "\n" }' "$README"
}

# the servers that natmap asks by itself
public_servers() {
	sed -n '/^static .* public_stun\[/,/";$/p' "$TESTS/../natmap.c" |
	    sed 's/\\0/ /g' | grep -oE '[a-z0-9-]+(\.[a-z0-9-]+)+'
}

# A host whose port 5000 is 40000 outside, names, and a natmap in PATH.
lab() {
	local n zone=''
	lab_up
	nat r2 cone 5000:40000 22:40022 40000:40001
	addr inet br0 198.51.100.4/24 198.51.100.5/24
	coturn one $S1 198.51.100.4
	coturn two $S2 198.51.100.5
	for n in $(public_servers); do
		zone="$zone $n=$([ $((${#zone} % 2)) = 0 ] && echo $S1 || echo $S2)"
	done
	# shellcheck disable=SC2086
	py inet dns dns $DNS $zone stun.example.org=$S1 example.com=$WWW
	mkdir "$D/bin"
	cat > "$D/bin/natmap" <<-END
	#!/bin/sh
	exec $NATMAP_WRAP "$(realpath "$NATMAP")" "\$@"
	END
	chmod +x "$D/bin/natmap"
	PATH=$D/bin:$PATH
}

# The addresses of the lab as the README has them.
readme() {
	sed "s/\\b$PUBLIC\\b/203.0.113.7/g; s/2001::9c40:c633:640a/2001::9c40:cb00:7107/"
}

t_first_check() {
	local command
	lab
	command=$(block '--check -u')
	at h1 sh -c "${command#./}" > "$D/out" 2> "$D/err" ||
	    fail "status $?: $(cat "$D/err")"
	# which four of the servers answer first is not told
	eq "$(readme < "$D/out" | sed 's/ [a-z0-9.-]*:3478$//')" \
	    "$(block 'filtering:' | sed 's/ [a-z0-9.-]*:3478$//')" output
}

t_first_line() {
	lab
	www www
	block 'natmap -h example.com -b 22' | grep '^natmap' > "$D/command"
	bg h1 line sh -c "exec $(cat "$D/command")"
	soon 10 "no line" grep -q ' tcp ' "$D/line.log"
	eq "$(sed 's/40022/40000/; s/:9c56:/:9c40:/' "$D/line.log" |
	    grep ' tcp ' | readme)" "$(block 2001::9c40)" line
}

# Each command that stays: the address is announced.
t_commands_map() {
	local n=0 line name
	lab
	www www
	mkdir "$D/run"
	block 'natmap ' | sed 's|^./natmap|natmap|' |
	    grep -v -e --check -e --once -e make | grep 'natmap -' > "$D/lines"
	[ "$(wc -l < "$D/lines")" -gt 6 ] || fail "few commands"
	while read -r line; do
		n=$((n + 1)) name=c$n
		line=$(echo "$line" |
		    sed "s|/var/run/|$D/run/|; s| natmap -| exec natmap -|")
		line="hooks=$TESTS/../contrib/hooks; ${line/#natmap -/exec natmap -}"
		bg h1 $name sh -c "$line"
		soon 10 "not mapped: $line: $(cat "$D/$name.log")" \
		    grep -Eq " (tcp|udp) $HOST\$| is $PUBLIC:" "$D/$name.log"
		case $line in
		*' -d '*) PID[$name]=$(cat "$D/run/natmap.pid") ;;
		esac
		stop $name TERM
		soon 5 "$line: does not end" gone
	done < "$D/lines"
}

gone() {
	! ip netns exec "$L-h1" sh -c 'cat /proc/net/tcp /proc/net/udp' |
	    grep -Eq ':(9C40|0016) [0-9A-F:]* (0A|07)'
}

# A command substitution that fails is seen.
once() {
	block 'natmap --once' > "$D/once.sh"
	STATUS=0
	at h1 sh "$D/once.sh" > "$D/out" 2> "$D/err" || STATUS=$?
}

t_once_prints() {
	lab
	once
	eq $STATUS 0 status
	eq "$(cat "$D/out")" "reachable at $PUBLIC, port 40001" output
}

t_once_without_a_server() {
	lab
	stop one
	once
	eq $STATUS 1 status
	eq "$(cat "$D/out")" '' output
	has "$D/err" 'no STUN server answered' log
}

# The port that the DNS tells is ssh's.
t_srv_names_the_port() {
	lab_up
	mkdir "$D/bin"
	printf '#!/bin/sh\necho 0 0 40000 home.example.org.\n' > "$D/bin/dig"
	printf '#!/bin/sh\necho "$@"\n' > "$D/bin/ssh"
	chmod +x "$D/bin/dig" "$D/bin/ssh"
	eq "$(PATH=$D/bin:$PATH sh -c "$(block dig | grep dig)")" \
	    "-p 40000 home.example.org" command
}

# Both rules for who has closed the firewall.
t_firewall_opens() {
	need iptables
	lab_up
	py h1 ssh whoami tcp 0.0.0.0 22
	py h1 relay whoami tcp 0.0.0.0 40000
	at h1 iptables -P INPUT DROP
	is_closed 40000
	at h1 sh -c "$(block 'iptables -I' | grep '^iptables')"
	is_open 40000
	at h1 iptables -P INPUT ACCEPT
	at h1 nft 'add table inet filter; add chain inet filter input {
		type filter hook input priority 0; policy drop; }'
	is_closed 22
	at h1 sh -c "$(grep -o 'nft insert [^`]*' "$README")"
	is_open 22
}

is_closed() {
	! at h2 timeout 1 bash -c "exec 3<> /dev/tcp/$HOST/$1" 2> /dev/null ||
	    fail "port $1 is open before"
}

is_open() {
	at h2 timeout $((5 * SLOW)) bash -c "exec 3<> /dev/tcp/$HOST/$1" ||
	    fail "port $1 is closed"
}

t_nginx_takes_it() {
	need nginx
	lab_up
	{
		echo "pid $D/nginx.pid; error_log $D/err; events { }"
		echo "http { access_log off; client_body_temp_path $D/cb;"
		echo "proxy_temp_path $D/pt; fastcgi_temp_path $D/ft;"
		echo "uwsgi_temp_path $D/ut; scgi_temp_path $D/st;"
		block 'listen 8080'
		echo "}"
	} > "$D/nginx.conf"
	grep -q proxy_protocol "$D/nginx.conf" || fail "no block"
	at h1 nginx -t -e "$D/err" -c "$D/nginx.conf" 2> "$D/out" ||
	    fail "$(cat "$D/out")"
}

t_hardened() {
	need gcc readelf make
	lab_up
	mkdir "$D/tree"
	cp "$TESTS"/../*.[ch] "$TESTS/../Makefile" "$D/tree"
	(cd "$D/tree" && sh -c "$(block static-pie)") > "$D/log" 2>&1 ||
	    fail "$(cat "$D/log")"
	readelf -hdl "$D/tree/natmap" > "$D/elf" 2>&1
	has "$D/elf" 'Type: *DYN' PIE
	has "$D/elf" GNU_RELRO RELRO
	has "$D/elf" BIND_NOW RELRO
	hasnt "$D/elf" INTERP static
	at h1 "$D/tree/natmap" --version > "$D/out" || fail "does not run"
}

quick first_check 40
quick first_line 30
quick commands_map 150
quick once_prints 30
quick once_without_a_server 60
quick srv_names_the_port 20
quick firewall_opens 30
quick nginx_takes_it 20
quick hardened 90
lab_main "$@"
