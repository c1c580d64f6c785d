#!/bin/sh
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2317	# check() calls the functions
# README.md, natmap.8, --help and the code must say the same.
#
# NATMAP is the program, ./natmap when it is not set.

if [ "$1" = --list ]; then
	echo "docs 30"
	exit 0
fi
cd "$(dirname "$0")/.." || exit
natmap=${NATMAP:-./natmap}
dir=$(mktemp -d) || exit
trap 'rm -rf "$dir"' EXIT
. tests/check.sh

# What is wrong comes on stdin, a line for each; fails when there is any.
none() {
	sed 's/^/# /' >"$dir/wrong"
	cat "$dir/wrong"
	[ ! -s "$dir/wrong" ]
}

# FILE NAME: the value of a constant
constant() {
	awk -v name="$2" '$1 == "#define" && $2 == name { print $3 }' "$1"
}

# LETTER: what the man page says of an option, in one line
item() {
	awk -v letter="$1" '
	/^\.(It|El)/ { on = 0 }
	/^\.It Fl/ && $3 == letter { on = 1 }
	on' natmap.8 | tr '\n' ' '
}

# The options of --help: a letter, or - where there is none, and a name.
options() {
	sed -n 's/^  -\(.\), --\([a-z0-9-]*\) .*/\1 \2/p
		s/^      --\([a-z0-9-]*\) .*/- \1/p' "$dir/help"
}

usage_is_verbatim() {
	awk '/^<!-- usage -->$/ { on = !on; next } on && !/^```/' README.md |
	    diff - "$dir/help" | none
}

usage_fits() {
	[ -s "$dir/help" ] &&
	    awk 'length > 80 || /\t/ { print length ": " $0 }' "$dir/help" |
	    none
}

options_have_items() {
	[ "$(options | wc -l)" -gt 20 ] || return
	options | while read -r letter name; do
		case $letter in
		-)	first=-$name last= ;;
		*)	first=$letter last=-$name ;;
		esac
		awk -v first="$first" -v last="$last" '
		/^\.It Fl/ && $3 == first {
			for (i = 4; i < NF && !found; i++)
				found = $i == "Fl" && $(i + 1) == last
			found = found || last == ""
		}
		END { exit !found }' natmap.8 ||
		    echo "no item in natmap.8: $letter $name"
	done | none
}

# The words after each Fl, up to the next macro.
flags_exist() {
	options | tr ' ' '\n' >"$dir/known"
	awk '/^\./ {
		on = 0
		for (i = 1; i <= NF; i++) {
			w = $i
			sub(/^\./, "", w)
			if (w ~ /^[A-Z][a-z]$/)
				on = w == "Fl"
			else if (on && w ~ /^-/)
				print substr(w, 2)
			else if (on && w ~ /^[A-Za-z0-9]+$/)
				while (w != "") {
					print substr(w, 1, 1)
					w = substr(w, 2)
				}
		}
	}' natmap.8 | sort -u | while read -r flag; do
		grep -qxF -e "$flag" "$dir/known" ||
		    echo "in natmap.8, not in --help: $flag"
	done | none
}

# LETTER TEXT: the man page says so of that option
says() {
	case $(item "$1") in
	*"$2"*) ;;
	*)	echo "natmap.8, -$1: does not say \"$2\"" ;;
	esac
}

# FILE TEXT: the page says so, wherever its lines break
tells() {
	tr '\n\t' '  ' <"$1" | tr -s ' ' | grep -qF -e "$2" ||
	    echo "$1: does not say \"$2\""
}

defaults_agree() {
	servers=$(constant natmap.h MAX_SERVERS)
	kept=$(both KEEPALIVE)
	cycle=$(both CYCLE)
	idle=$(constant natmap.c IDLE_TIMEOUT)
	{
		for text in "($kept)" "($cycle)" "never ($idle)"; do
			grep -qF -e "$text" "$dir/help" ||
			    echo "--help: does not say \"$text\""
		done
		says k "is $(spoken "$kept")."
		says c "is $(spoken "$cycle")."
		says T "default is $idle; 0 is never"
		says s "at most $servers;"
		says h "at most $servers,"
		says s "defaults to $(constant natmap.c STUN_PORT)."
		says h "defaults to $(constant natmap.c HTTP_PORT)."
		says 1 "$(seconds natmap.c ONCE_LIMIT) seconds in all"
		says n "less $(constant relay.c RESERVED),"
		says n "$(($(constant relay.c SESSION_RAM) / 1024)) KiB"
		says n "at most $(constant relay.c SESSIONS)."
		tells README.md "$idle s unless told otherwise"
	} | none
}

# NAME: a default that TCP and UDP have each
both() {
	echo "TCP $(constant natmap.c "TCP_$1")," \
	    "UDP $(constant natmap.c "UDP_$1")"
}

# TCP A, UDP B: the same as the man page has it
spoken() {
	set -- "${1%,*}" "${1#*, }"
	echo "${1#TCP } in TCP and ${2#UDP } in UDP"
}

seconds() {
	echo $(($(constant "$1" "$2") / 1000))
}

times_agree() {
	{
		tells natmap.8 \
		    "waited for $(seconds natmap.c RUN_LIMIT) seconds"
		tells natmap.8 \
		    "after $(constant natmap.c RUN_ONE) seconds; when"
		again=$(sed -n 's/.*run_again.*{ \(.*\) };/\1/p' natmap.c)
		tells natmap.8 "after ${again%, *, *} and"
		tells natmap.8 "then every ${again##*, } seconds"
		tells natmap.8 "$(seconds timer.c RUN_KILL) seconds later"
		tells natmap.8 \
		    "again every $(seconds natmap.c RUN_RETRY) seconds"
		tells natmap.8 \
		    "port $(seconds natmap.c LISTEN_CHECK) seconds after"
		tells natmap.8 "within $(seconds natmap.c ONCE_LIMIT) seconds"
		tells natmap.8 "tried, $(seconds relay.c CONNECT) seconds each"
		tells natmap.8 "more than $(constant relay.c ROOM_SHARE)."
		tells README.md \
		    "waited for $(seconds natmap.c RUN_LIMIT) seconds"
		tells README.md "within $(seconds natmap.c ONCE_LIMIT) s"
	} | none
}

# The program itself tells what is in range.
ranges_agree() {
	for letter in b k c f p T n; do
		range=$("$natmap" -t host -p 1 "-$letter" 99999999999999 \
		    --help 2>&1 >/dev/null | sed -n \
		    's/.*out of range //p; s/.*used as "\(.*\)"/0 to \1/p')
		[ -n "$range" ] || echo "-$letter: no range told"
		says "$letter" "$range"
	done | none
}

public_servers_named() {
	sed -n '/^static .* public_stun\[/,/";$/p' natmap.c |
	    sed 's/\\0/ /g' | grep -oE '[a-z0-9-]+(\.[a-z0-9-]+)+' >"$dir/servers"
	[ -s "$dir/servers" ] || return
	sed -n '/^\.Ss Public servers/,/^\.Sh/p' natmap.8 |
	    sed -n 's/^\([a-z0-9.-]*\.[a-z]*\)[,.]$/\1/p' |
	    diff - "$dir/servers" | none
}

lint_clean() {
	mandoc -T lint -W warning natmap.8 2>&1 | none
}

# Links, and what looks like a path or a file of the tree.
files_exist() {
	{
		grep -oE '\]\([^)#]+\)' README.md | sed 's/^](//; s/)$//' |
		    grep -v '^https\{0,1\}:'
		grep -oE '(contrib|tests)/[A-Za-z0-9@_./-]+' README.md |
		    sed 's/[.,]*$//'
		# shellcheck disable=SC2016	# backquotes of Markdown
		grep -oE '`[a-z]+\.[ch8]`|`LICENSE`' README.md | tr -d '`'
	} | sort -u >"$dir/files"
	[ "$(wc -l <"$dir/files")" -gt 10 ] || return
	while read -r file; do
		[ -e "$file" ] || echo "README.md names $file, not there"
	done <"$dir/files" | none
}

# The unit tests of tests/README.md are those that there are.
tests_listed() {
	grep -o 'test_[a-z]*\.c' tests/README.md | sort -u >"$dir/listed"
	printf '%s\n' tests/test_*.c | sed 's|.*/||' | diff - "$dir/listed" |
	    none
}

targets_exist() {
	grep -oE '(`|^|&& )make [a-z][a-z -]*' README.md |
	    sed 's/.*make //' | tr -s ' ' '\n' | sort -u >"$dir/targets"
	[ "$(wc -l <"$dir/targets")" -gt 5 ] || return
	while read -r target; do
		case $target in
		menuconfig | package) ;;	# the buildroot's
		*)	grep -q "^$target:" Makefile ||
			    echo "README.md names make $target, not there" ;;
		esac
	done <"$dir/targets" | none
}

# Each command line in a block, up to --help, which ends the program when all
# options before it were good.
# shellcheck disable=SC2016	# a command substitution of the README's
examples_parse() {
	sed -n 's|^\(\./\)\{0,1\}natmap \(.*\)|\2|p
		s/^[A-Z_]*=.* natmap //p
		s/^.*\$(natmap \([^)]*\)).*/\1/p' README.md >"$dir/examples"
	[ "$(wc -l <"$dir/examples")" -gt 5 ] || return
	while read -r line; do
		set -f
		# shellcheck disable=SC2086	# words of a command line
		"$natmap" $line --help >"$dir/out" 2>&1 </dev/null &&
		    cmp -s "$dir/out" "$dir/help" || echo "natmap $line"
	done <"$dir/examples" | none
}

# The text of all messages: what C joins is joined here, what \0 or \n ends is
# a text of its own.
messages() {
	cat natmap.c stun.c relay.c timer.c | tr -d '\n\t' |
	    sed 's/" *"//g; s/\\"/"/g; s/\\[0n]/"/g'
}

# What the table about those who cannot connect, and the manual, quote of
# messages and of --check.
messages_exist() {
	messages >"$dir/messages"
	{
		# shellcheck disable=SC2016	# backquotes of Markdown
		sed -n '/^| sign/,/^$/s/^| \([^|]*\) | .*/\1/p' README.md |
		    grep -o '`[^`]*`' | tr -d '`'
		sed -n '/^These lines ask/,/^\.El/s/^\.It //p' natmap.8 | sed \
		    's/^Em [A-Z]* .* Em [A-Z] No says Em [A-Z] //
		    s/^Em [A-Z]* : Em [A-Z]* No //; s/^Em .* No //' |
		    tr ',' '\n' | sed 's/^ *\(: \)\{0,1\}//; s/ *$//'
	} >"$dir/quoted"
	[ "$(wc -l <"$dir/quoted")" -gt 12 ] || return
	while read -r text; do
		case $text in
		mapping:*|filtering:*)	text=${text#*:}
			text=${text##* } ;;
		-*)	text=${text#"${text%%[!-]*}"} ;;
		esac
		grep -qF -e "${text%:}" "$dir/messages" ||
		    echo "no message: $text"
	done <"$dir/quoted" | none
}

# natmap.c's times of the verdict, and those that test_verdict.c holds it to.
verdict_agrees() {
	{
		tells natmap.8 "for $(($(seconds natmap.c OUTVOTED_REST) / 60)) \
minutes"
		tells natmap.8 "$(seconds natmap.c FIRST_LIMIT) seconds after it"
		tells natmap.8 "$(seconds natmap.c DOUBT_LIMIT) seconds later"
		tells natmap.8 "$(seconds natmap.c FLAP_GAP) seconds apart"
		tells natmap.8 \
		    "mapping for $(seconds natmap.c SILENCE) seconds"
		while read -r servers udp tcp said; do
			tells natmap.8 ".It \"$said\" Ta \"$(moved '"-u"' \
			    "$udp")\" Ta \"$(moved '""' "$tcp")\""
			[ "$servers" = 3 ] || continue
			tells README.md "$(moved '"-u"' hhh | cut -d ' ' -f 1) s \
with three, $(moved '"-u"' hh | cut -d ' ' -f 1) s with two"
		done <<-END
		4 hhhh hhhh four or more
		3 hhh hhd three
		2 hh hh two
		2 hhd hhd two of three
		END
	} | none
}

# OPTIONS SERVERS: when test_verdict.c wants an inbound move told
moved() {
	awk -v options="$1" -v kinds="\"$2\"" '
	$2 == options "," && $3 == kinds "," && $4 == "INBOUND," {
		ms = $5 + 0
		print (ms > 1000 ? int(ms / 1000) : ms) " seconds"
	}' tests/test_verdict.c
}

# README's table names all hooks, and what each takes.
hooks_told() {
	# shellcheck disable=SC2016	# backquotes of Markdown
	sed -n '/^| in `contrib/,/^$/s/^| \(`.*\)/\1/p' README.md >"$dir/table"
	for file in contrib/hooks/*.sh; do
		row=$(grep -F "\`${file##*/}\`" "$dir/table") ||
		    echo "README.md: does not tell ${file##*/}"
		for name in $(grep -oE '\$\{?[A-Z]+_[A-Z]+' "$file" |
		    tr -cd "A-Z_\n" | sort -u); do
			case $file:$name in
			*:RUNTIME_DIRECTORY | *ntfy*:HTTP_* | \
			    *bittorrent*:DNAT_*) continue ;;
			esac
			echo "$row" | grep -qF "\`$name\`" ||
			    echo "README.md: ${file##*/} takes $name"
		done
		for name in $(echo "$row" | cut -d '|' -f 3 |
		    grep -oE '[A-Z]+[A-Z_]+'); do
			grep -q "$name" "$file" ||
			    echo "README.md: ${file##*/} does not take $name"
		done
	done | none
}

# What the script gets, and when it is run again.
script_told() {
	{
		grep -oE '"NATMAP_[A-Z_]+' natmap.c | tr -d '"' | sort -u |
		    while read -r name; do
			tells README.md "\`$name\`"
			tells natmap.8 "$name"
		done
		again=$(sed -n 's/.*run_again.*{ \(.*\) };/\1/p' natmap.c)
		tells README.md \
		    "after ${again%, *} and then every ${again##*, } seconds"
	} | none
}

# Commands that a file of the tree says too.
starts_told() {
	{
		make -n install-systemd | sed -n "s/^echo '    \(.*\)'\$/\1/p"
		sed -n 's/^#	\(.*\)/\1/p' contrib/openwrt/Makefile
	} | tr -s '\t ' ' ' | while read -r line; do
		tells README.md "$line"
	done | none
}

# The words of --check, which scripts read.
check_told() {
	messages >"$dir/messages"
	for word in local: public: mapping: filtering: reachable: advice: \
	    public private shared link-local none unknown yes no \
	    endpoint-independent destination-dependent address-dependent \
	    address-and-port-dependent; do
		grep -qF "\"$word" "$dir/messages" ||
		    echo "not of --check: $word"
		tells natmap.8 "${word%:}"
	done | none
}

"$natmap" --help >"$dir/help"
check docs-usage-is-verbatim usage_is_verbatim
check docs-usage-fits-80-columns usage_fits
check docs-options-have-items options_have_items
check docs-flags-exist flags_exist
check docs-defaults-agree defaults_agree
check docs-times-agree times_agree
check docs-ranges-agree ranges_agree
check docs-public-servers-named public_servers_named
check docs-files-exist files_exist
check docs-tests-listed tests_listed
check docs-targets-exist targets_exist
check docs-examples-parse examples_parse
check docs-messages-exist messages_exist
check docs-check-told check_told
check docs-verdict-agrees verdict_agrees
check docs-hooks-told hooks_told
check docs-script-told script_told
check docs-starts-told starts_told
if command -v mandoc >/dev/null; then
	check docs-man-page-lint lint_clean
else
	echo "skip docs-man-page-lint: mandoc is not installed"
fi
exit $failed
