/* SPDX-License-Identifier: MIT */
/*
 * Everything between the mapped port and the servers, for natmap.c: the port's
 * sockets and who else holds the port, the STUN codec, the reader of HTTP
 * answers, and flows (struct flow), which ask one server.
 */
#include "natmap.h"

#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Where an option has no number, setsockopt() fails with ENOPROTOOPT. */
#if !defined __linux__ || defined NATMAP_PORTABLE /* to test that on Linux */
#undef SO_BINDTODEVICE
#define SO_BINDTODEVICE	(-1)
#undef SO_MARK
#define SO_MARK		(-1)
#undef TCP_USER_TIMEOUT
#undef IPV6_ADDR_PREFERENCES
#define IPV6_ADDR_PREFERENCES	(-1)
#elif !defined IPV6_ADDR_PREFERENCES	/* not in glibc */
#define IPV6_ADDR_PREFERENCES	72
#endif
#ifndef TCP_USER_TIMEOUT
#define TCP_USER_TIMEOUT (-1)
#endif
#ifndef SO_REUSEPORT
#define SO_REUSEPORT	(-1)
#endif
#define PREFER_PUBLIC   0x0002  /* RFC 5014: not a temporary source address */

#define PROBE_IDLE	10	/* s without a byte: TCP probes begin */
#define PROBE_EVERY	5	/* s between probes */
#define PROBES		5	/* unanswered ones that end a flow */
#define UNSENT_MAX      30000   /* ms that data may stay unacknowledged */
#define READS		4	/* in a step; a TCP answer takes two */
#define HTTP_LIMIT      16384   /* bytes of one answer with its 1xx, and those
				   of a body */
#define HTTP_LINE       127     /* bytes of a line that count */

/* What follows name, in whatever case, at the start of s, or NULL. */
static char *
after(char *s, const char *name)
{
	size_t n = strlen(name);

	return strncasecmp(s, name, n) == 0 ? s + n : NULL;
}

static NOINLINE unsigned long
decimal(const char *s)
{
	return strtoul(s, NULL, 10);
}

/* the mapped port's sockets */

/* Lets sockets bind beside a listener; 1 where the kernel cannot (Linux before
 * 3.9). */
static int
set_reuseport(int fd)
{
	return fd_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) == 0 ? 0 :
	    errno == ENOPROTOOPT ? 1 : -1;
}

/* A socket with the device and the mark, of the uid that Linux compares when
 * listeners share a port. */
static int
new_socket(const struct local *l, int type)
{
	const struct config *c = l->cfg;
	uid_t me = geteuid();

	if (l->uid)
		(void)!seteuid(l->uid);
	int fd = socket(c->family, type, 0);
	if (l->uid && seteuid(me) < 0)
		abort();
	if (fd < 0)
		return -1;
	/* these fail where the socket is not an IPv6 one */
	fd_option(fd, IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, PREFER_PUBLIC);
	fd_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (fd_setup(fd) >= 0 && (c->mark == 0 ||
	    fd_option(fd, SOL_SOCKET, SO_MARK, (int)c->mark) >= 0) &&
	    local_rebind(l, fd) >= 0)
		return fd;
	fd_close(fd);
	return -1;
}

static int
bind_port(const struct local *l, int fd, int port)
{
	union addr a = l->cfg->source;

	a.sa.sa_family = (sa_family_t)l->cfg->family;
	addr_set_port(&a, port);
	return bind(fd, &a.sa, addr_len(&a));
}

/* The kernel chooses a port for a socket without flags, or it might be one that
 * others share; that one is closed, and the port is bound with them: two that
 * share it must have one in common.  Where the kernel cannot bind a flow beside
 * our listener, the listener does not listen meanwhile: three calls in which
 * clients are refused.  Nothing follows the bind of a UDP flow: until it is
 * connected it takes datagrams of the service. */
static int
bound_socket(struct local *l, enum local_role role)
{
	int type = l->cfg->type, fd = new_socket(l, type), r = 0;
	union addr a;

	if (fd < 0)
		return -1;
	if (l->port == 0) {
		if (bind_port(l, fd, 0) < 0 || fd_name(fd, &a) < 0)
			goto fail;
		l->port = addr_port(&a);
		close(fd);
		return bound_socket(l, role);
	}
	if (role == LOCAL_SERVER)
		l->listener = 0;
	else
		r = set_reuseport(fd);
	if (r >= 0 && (role == LOCAL_FLOW || type == SOCK_STREAM))
		r = fd_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (r < 0)
		goto fail;
	if (l->listener)
		shutdown(l->listener, SHUT_RD);
	r = bind_port(l, fd, l->port);
	if (l->listener)
		r |= listen(l->listener, SOMAXCONN);
	if (r == 0 && role == LOCAL_SERVER && type == SOCK_STREAM) {
		r = listen(fd, SOMAXCONN) < 0 ? -1 : set_reuseport(fd);
		if (r > 0)
			l->listener = fd;
	}
	if (r >= 0)
		return fd;
fail:
	fd_close(fd);
	return -1;
}

int
local_rebind(const struct local *l, int fd)
{
	const char *dev = l->cfg->device;

	if (!dev)
		return 0;
	if (strlen(dev) >= IF_NAMESIZE) {	/* Linux would cut it */
		errno = ENODEV;
		return -1;
	}
	return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, dev,
	    (socklen_t)strlen(dev) + 1);
}

/* who else holds the port: its sockets from /proc/net, the processes that have
 * them open from /proc/PID/fd */

struct holder {
	struct holder *next;	/* of the line before */
	unsigned long inode;
	struct owner o;
	int fd;			/* its number in that process */
	int set[2];		/* 1: that one of flags[] was set by us */
};

/*
 *   0: 00000000:0016 00000000:0000 0A 0:0 00:0 0   1000        0 12345 ...
 *  slot local address      remote state             uid          inode
 *
 * What has no inode is in TIME_WAIT, or closing, and nobody's any more.
 */
static void
add_holder(struct holder **list, const char *line, int port, int type)
{
	enum { PORT = 2, STATE = 5, UID = 11, INODE = 13, NUMBERS };
	char *s = (char *)(uintptr_t)line;
	unsigned long number[NUMBERS];

	for (int i = 0; i < NUMBERS; i++, s += *s == ':')
		number[i] = strtoul(s, &s, i < UID ? 16 : 10);
	struct holder *h = number[PORT] == (unsigned long)port &&
	    number[INODE] ? calloc(1, sizeof *h) : NULL;
	if (!h)
		return;
	h->o.listening = type == SOCK_DGRAM || number[STATE] == 0x0a;
	h->o.uid = (uid_t)number[UID];
	h->inode = number[INODE];
	h->next = *list;
	*list = h;
}

/* 0, or -1 where the table cannot be read */
static int
read_table(struct holder **list, const char *six, const struct local *l)
{
	char path[32], buf[4096], *line, *end;
	int type = l->cfg->type;
	size_t n = 0;
	ssize_t got;

	fmt(path, sizeof path, "/proc/net/%s%s", type == SOCK_STREAM ? "tcp" :
	    "udp", six);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	while ((got = read(fd, buf + n, sizeof buf - 1 - n)) > 0) {
		buf[n + (size_t)got] = '\0';
		for (line = buf; (end = strchr(line, '\n')); line = end + 1)
			add_holder(list, line, l->port, type);
		n = strlen(line);
		memmove(buf, line, n);
	}
	close(fd);
	return (int)got;
}

static void
free_holders(struct holder *h)
{
	struct holder *next;

	for (; h; h = next) {
		next = h->next;
		free(h);
	}
}

static struct holder *
find_inode(struct holder *h, unsigned long inode)
{
	while (h && h->inode != inode)
		h = h->next;
	return h;
}

/* Any user can name a process, in terminal escapes too. */
static void
process_name(pid_t pid, char name[PROCESS_NAME])
{
	char path[32];

	fmt(path, sizeof path, "/proc/%d/comm", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, name, PROCESS_NAME - 1);
	close(fd);
	name[n > 0 ? n - 1 : 0] = '\0';	/* without its newline */
	for (char *p = name; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
}

/* Finds who has the sockets open: pid, whose folder of descriptors that is, or
 * with pid 0 all processes of /proc. */
static void
search(struct holder *list, const char *folder, pid_t pid)
{
	char path[64], self[PROCESS_NAME];
	struct dirent *e;
	DIR *d = opendir(folder);

	if (!d)
		return;
	while ((e = readdir(d)) != NULL) {
		int number = (int)decimal(e->d_name);
		if (pid == 0) {
			fmt(path, sizeof path, "/proc/%d/fd", number);
			if (number > 0)
				search(list, path, number);
			continue;
		}
		ssize_t n = readlinkat(dirfd(d), e->d_name, path,
		    sizeof path - 1);
		path[n > 0 ? n : 0] = '\0';
		const char *s = after(path, "socket:[");
		struct holder *h = s ? find_inode(list, decimal(s)) : NULL;
		if (h && h->o.pid == 0) {
			h->o.pid = pid;
			h->fd = number;
			process_name(pid, h->o.name);
			process_name(getpid(), self);
			h->o.twin = pid != getpid() &&
			    strcmp(h->o.name, self) == 0;
		}
	}
	closedir(d);
}

/* An IPv6 listener may hold the IPv4 port as well, but not the reverse. */
static int
find_holders(struct holder **list, const struct local *l)
{
	const char *six = l->cfg->family == AF_INET ? "" : "6";

	*list = NULL;
	int r = read_table(list, six, l);
	if (!*six)
		read_table(list, "6", l);
	if (*list)
		search(*list, "/proc", 0);
	return r;
}

/* Named is another natmap, else a listener, else a program other than this one;
 * of equals the first in the tables, so the last here. */
int
local_owner(const struct local *l, struct owner *o)
{
	struct holder *list;
	int top = 0, listening = 0, r = find_holders(&list, l);

	memset(o, 0, sizeof *o);
	for (const struct holder *h = list; h; h = h->next) {
		int rank = h->o.twin * 4 + h->o.listening * 2 +
		    (h->o.pid != getpid());
		if (rank >= top) {
			top = rank;
			*o = h->o;
		}
		listening |= h->o.listening;
		r = 1;
	}
	o->listening = listening;
	free_holders(list);
	return r;
}

/* sharing the port of a running service: its sockets get the reuse flags from
 * outside, ours is created under its uid; what we set is taken back */

/* UDP goes without the first, which no uid guards there: any user of the
 * machine could take the service's datagrams. */
static const int flags[] = { SO_REUSEADDR, SO_REUSEPORT };

#define KERNEL	"the kernel itself (WireGuard?), or "
static const char kernel_socket[] = KERNEL "it cannot be seen (a container?): "
    "sharing it needs --pid=host and SYS_PTRACE";
static const char *const unseen = kernel_socket + sizeof KERNEL - 1;

/* Linux's numbers are the same everywhere, but for the base of mips. */
#if !defined SYS_pidfd_open && defined __mips__
#define SYS_pidfd_open  (_MIPS_SIM == 1 ? 4434 : _MIPS_SIM == 2 ? 6434 : 5434)
#elif !defined SYS_pidfd_open
#define SYS_pidfd_open	434
#endif
#define PIDFD_GETFD	(SYS_pidfd_open + 4)    /* SYS_pidfd_getfd, newer */

/* Our own descriptor of what fd is in another process. */
static int
copy_fd(pid_t pid, int fd)
{
#if defined __linux__ && !defined NATMAP_PORTABLE
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return -1;
	int copy = (int)syscall(PIDFD_GETFD, pidfd, fd, 0);
	fd_close(pidfd);
	return copy;
#else
	(void)(pid + fd);
	errno = ENOSYS;
	return -1;
#endif
}

/* Makes one socket shareable: sets the flags that it has not; or as it was:
 * takes back what we set.  Sockets of the kernel have no process, and are
 * root's; a connection without a process has been closed since the table was
 * read. */
static void
share_holder(struct local *l, struct holder *h, int on)
{
	const int type = l->cfg->type;
	socklen_t len = sizeof(int);

	errno = h->o.listening ? EPERM : EBADF;
	int fd = h->o.pid == 0 ? -1 : copy_fd(h->o.pid, h->fd);
	if (fd >= 0) {
		for (int i = type == SOCK_DGRAM; i < 2; i++) {
			int is_on = 1;
			if (on)
				getsockopt(fd, SOL_SOCKET, flags[i], &is_on,
				    &len);
			h->set[i] |= !is_on;
			if (h->set[i])
				fd_option(fd, SOL_SOCKET, flags[i], on);
		}
		close(fd);
	} else if (errno == ENOSYS)
		l->why = "sharing it needs Linux 5.6";
	else if (errno == EPERM || errno == EACCES)
		l->why = geteuid() != 0 ? "sharing it needs root" :
		    h->o.pid || h->o.uid || type == SOCK_STREAM ? unseen :
		    kernel_socket;
}

/* Every socket of the port, or the kernel refuses: live connections too.  They
 * may be another process's than at the last call. */
static void
share_port(struct local *l, int on)
{
	struct holder *list;

	if (find_holders(&list, l) < 0)
		l->why = "sharing it needs /proc";
	for (struct holder *h = list; h; h = h->next) {
		struct holder *old = find_inode(l->shared, h->inode);
		if (old)
			memcpy(h->set, old->set, sizeof h->set);
		share_holder(l, h, on);
		if (h == list || (h->o.listening && h->o.pid != getpid()))
			l->uid = h->o.uid;
	}
	free_holders(l->shared);
	l->shared = list;
}

void
local_release(struct local *l)
{
	int error = errno;

	if (l->shared)
		share_port(l, 0);
	free_holders(l->shared);
	l->shared = NULL;
	errno = error;
}

int
local_socket(struct local *l, enum local_role role)
{
	int port = l->port;

	l->why = NULL;
	int fd = bound_socket(l, role);
	if (fd < 0 && errno == EADDRINUSE && role == LOCAL_FLOW && port &&
	    !l->cfg->target.name) {
		share_port(l, 1);
		fd = bound_socket(l, role);
		if (fd < 0)
			local_release(l);
		else
			l->why = NULL;
	}
	if (fd < 0)
		l->port = port;	/* one chosen now is another's */
	return fd;
}

/*
 * STUN messages (RFC 8489 section 5), and their attributes (section 14):
 *
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *   |0 0|      message type         |  length of all attributes     |
 *   |                 magic cookie  0x2112a442                      |
 *   |                 transaction id, 96 bits                       |
 *   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *   |        attribute type         |  length of the value          |
 *   |                 value, padded to 4 bytes                  ... |
 */
#define REQUEST			0x01	/* the high byte is 0 */
#define INDICATION		0x11
#define SUCCESS			0x0101
#define ERROR			0x0111
#define MAPPED_ADDRESS		0x0001
#define CHANGE_REQUEST		0x0003	/* RFC 5780 section 7 */
#define CHANGE_PORT		2
#define CHANGE_BOTH		6	/* address and port */
#define CHANGED_ADDRESS		0x0005	/* RFC 3489 */
#define ERROR_CODE		0x0009
#define XOR_MAPPED_ADDRESS	0x0020
#define OTHER_ADDRESS		0x802c

/* of a message without attributes: type, length and cookie */
static const unsigned char header[] = { 0, 0, 0, 0, 0x21, 0x12, 0xa4, 0x42 };

static unsigned int
be16(const unsigned char *p)
{
	return (unsigned int)p[0] << 8 | p[1];
}

/* Writes a Binding request, or an indication, with a new id. */
static NOINLINE void
new_message(unsigned char buf[STUN_HEADER], unsigned char type)
{
	memcpy(buf, header, sizeof header);
	buf[1] = type;
	random_bytes(buf + sizeof header, STUN_ID);
}

int
stun_is_message(const unsigned char *p, size_t n)
{
	return n >= STUN_HEADER && p[0] < 0x40 &&
	    memcmp(p + 4, header + 4, 4) == 0;
}

/* The first attribute of that type in the message p[n], whose length is right;
 * NULL when there is none, or when the length of any attribute is wrong.
 * Attributes that we do not know are passed over, the required ones of old
 * servers too. */
static const unsigned char *
attribute(const unsigned char *p, size_t n, unsigned int type)
{
	const unsigned char *found = NULL, *end = p + n;

	for (p += STUN_HEADER; p < end; p += n) {
		n = 4 + ((be16(p + 2) + 3U) & ~3U);
		if (n > (size_t)(end - p))
			return NULL;
		if (!found && be16(p) == type)
			found = p;
	}
	return found;
}

/* Sections 14.1 and 14.2: reads the first attribute of that type, or else of
 * the second one, in the message p[n].  -1 when it is no address, and a has no
 * family. */
static int
read_address(const unsigned char *p, size_t n, unsigned int type,
    unsigned int second, union addr *a)
{
	static unsigned char zeros[16];
	const unsigned char *found = attribute(p, n, type), *mask = zeros;
	unsigned char *host = (unsigned char *)&a->in.sin_addr;
	sa_family_t family = AF_INET;

	memset(a, 0, sizeof *a);
	if (!found)
		found = attribute(p, n, second);
	if (!found)
		return -1;
	if (be16(found) == XOR_MAPPED_ADDRESS)
		mask = p + 4;   /* the cookie and the transaction id */
	n = be16(found + 2) - 4U;
	if (n == 16 && found[5] == 2) {
		family = AF_INET6;
		host = a->in6.sin6_addr.s6_addr;
	} else if (n != 4 || found[5] != 1)
		return -1;
	for (size_t i = 0; i < n; i++)
		host[i] = found[8 + i] ^ mask[i];
	int port = (int)(be16(found + 6) ^ be16(mask));
	if (port == 0)
		return -1;
	addr_set_port(a, port);
	a->sa.sa_family = family;
	return 1;
}

/* Reads the answer to f's request from p[n] (sections 6.3 and 14.8; a server
 * of RFC 3489 takes the cookie for a part of the id and sends it back as well).
 * 1: f->ends has what it told; -1 with errno: ENOTANSWER not an answer to it,
 * EREFUSED and the code, 300 to 699, of an error response. */
static int
stun_decode(struct flow *f, const unsigned char *p, size_t n)
{
	errno = ENOTANSWER;
	if (n < STUN_HEADER || n % 4 != 0 || be16(p + 2) != n - STUN_HEADER ||
	    memcmp(p + 4, f->request + 4, STUN_HEADER - 4) != 0)
		return -1;
	if (be16(p) == SUCCESS) {
		read_address(p, n, OTHER_ADDRESS, CHANGED_ADDRESS,
		    &f->ends.other);
		return read_address(p, n, XOR_MAPPED_ADDRESS, MAPPED_ADDRESS,
		    &f->ends.mapped);
	}
	const unsigned char *e = attribute(p, n, ERROR_CODE);
	if (be16(p) != ERROR || !e || be16(e + 2) < 4 || e[7] > 99)
		return -1;
	int class = e[6] & 7;
	if (class >= 3 && class <= 6)
		errno = EREFUSED + class * 100 + e[7];
	return -1;
}

/* the reader of HTTP answers (RFC 9112): a status line, fields, and an empty
 * line, each ending in LF or CR LF; answers of class 1xx come before the one
 * that counts */

/* The number after name in a token. */
static void
parameter(char *token, const char *name, unsigned long *value)
{
	const char *s = after(token, name);

	if (s && *s >= '0' && *s <= '9')
		*value = decimal(s);
}

/* Reads the line s[len], whose newline it overwrites: 1 it ends the header of
 * the answer that counts, 0 it does not, -1 this is no HTTP. */
static NOINLINE int
end_of_line(struct flow *f, char *s, size_t len)
{
	if (len > HTTP_LINE)
		len = HTTP_LINE;
	if (len > 0 && s[len - 1] == '\r')
		len--;
	s[len] = '\0';
	if (f->status && len > 0) {     /* a field */
		char *token, *conn = after(s, "Connection:");
		char *at = conn ? conn : after(s, "Keep-Alive:");
		while ((token = strsep(&at, " \t,")) != NULL)
			if (!conn) {
				parameter(token, "timeout=", &f->timeout);
				parameter(token, "max=", &f->max);
			} else if (strcasecmp(token, "close") == 0)
				f->closes |= 2; /* it wins: section 9.3 */
			else if (strcasecmp(token, "keep-alive") == 0)
				f->closes &= 2;
	} else if (f->status >= 200)
		return 1;
	else if (f->status)
		f->status = 0;
	else {          /* HTTP/1.0 200, then a space or the end */
		if (strncmp(s, "HTTP/1.", 7) != 0 ||
		    strspn(s + 7, "0123456789") != 1 || s[8] != ' ' ||
		    strspn(s + 9, "0123456789") != 3 ||
		    (s[12] != ' ' && s[12] != '\0'))
			return -1;
		f->status = (int)decimal(s + 9);
		f->closes = s[7] == '0';
		f->timeout = f->max = ULONG_MAX;
		if (f->status < 100 || f->status == 101)
			return -1;
	}
	return 0;
}

/* flows to servers; the functions that are not flow_*() return -1 with errno
 * and leave the flow open */

void
flow_stop(struct flow *f, int abort)
{
	if (f->state != FLOW_CLOSED && !f->shared) {
		if (abort)
			fd_abortive(f->fd, 1);
		fd_close(f->fd);
	}
	f->fd = f->slot = -1;
	f->state = FLOW_CLOSED;
}

/* Where the server closed first, a reset would come too late to free the
 * NAT's entry. */
static int
flow_fail(struct flow *f)
{
	if (errno == ECLOSED)
		fd_abortive(f->fd, 0);
	flow_stop(f, 0);
	return -1;
}

/* The Host field (RFC 9110 section 7.2): an IPv6 literal in brackets, without
 * its scope, and a port only where it is not HTTP's. */
static unsigned
write_head(const struct flow *f, char *buf, size_t size)
{
	const char *path = strchr(f->host, '/');
	struct host at = { buf, addr_port(&f->ends.peer) };
	char host[SERVER_TEXT];

	fmt(buf, size, "%s", f->host);
	buf[strcspn(buf, "%/")] = '\0';
	int n = fmt(host, sizeof host, "%ps", &at);
	if (at.port == 80)
		host[n - (int)strlen(":80")] = '\0';
	return (unsigned)fmt(buf, size, "%s%s HTTP/1.%d\r\nHost: %s\r\n"
	    "User-Agent: natmap/" VERSION "\r\nConnection: %s\r\n\r\n",
	    path ? "GET " : "HEAD /", path, !path, host,
	    path || f->last ? "close" : "keep-alive");
}

/* Sends the request, or the rest of it; over UDP, sends it again after 500 and
 * 1500 ms (RFC 8489 section 6.2.1, RTO 500 ms). */
static int
send_request(struct flow *f)
{
	const union addr *peer = &f->ends.peer;
	static const char change[] = { 0, CHANGE_REQUEST, 0, 4, 0, 0, 0,
	    CHANGE_BOTH };
	char buf[1024], *at = buf;
	ssize_t sent;
	int tries = 0;

	memcpy(buf, f->request, STUN_HEADER);
	unsigned n = f->kind == FLOW_HTTP ?
	    write_head(f, buf, sizeof buf) : STUN_HEADER;
	if (f->kind == FLOW_UDP) {
		int64_t since = f->resend - f->asked;
		f->resend = since < 1500 ? f->resend + since + 500 : NEVER;
		if (f->last) {		/* add a CHANGE-REQUEST */
			memcpy(buf + n, change, sizeof change);
			buf[3] = sizeof change;
			n += sizeof change;
			send(f->fd, buf, n, 0);
			buf[n - 1] = CHANGE_PORT;
		}
	} else {
		if (f->left > n)
			f->left = n;
		at += n - f->left;
		n = f->left;
	}
	do                      /* the first error may be of an ICMP message */
		sent = sendto(f->fd, at, n, 0, f->shared ? &peer->sa : NULL,
		    addr_len(peer));
	while (sent < 0 && f->kind == FLOW_UDP && tries++ == 0);
	if (sent < 0)
		return fd_again() || errno == ENOBUFS || errno == ENOTCONN ?
		    0 : -1;
	f->left = n - (unsigned)sent;
	return 0;
}

void
stun_indicate(int fd, const union addr *peer)
{
	unsigned char buf[STUN_HEADER];

	new_message(buf, INDICATION);
	sendto(fd, buf, sizeof buf, 0, &peer->sa, addr_len(peer));
}

int
flow_start(struct flow *f, enum flow_kind kind, int fd, int shared,
    const union addr *peer, const char *host, int64_t now, int64_t deadline)
{
	memset(f, 0, sizeof *f);
	f->fd = fd;
	f->slot = -1;
	f->kind = kind;
	f->state = FLOW_ASKING;		/* flow_stop() is to close it */
	f->shared = shared;
	f->ends.peer = *peer;
	f->host = host;
	f->born = now;
	if (kind != FLOW_UDP) {	/* the kernel finds dead peers */
		fd_probes(fd, PROBE_IDLE, PROBE_EVERY, PROBES);
		fd_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, UNSENT_MAX);
	}
	if (kind == FLOW_TCP)
		fd_abortive(fd, 1);
	if (!shared && fd_connect(fd, peer) < 0)
		return flow_fail(f);
	return flow_ask(f, 0, now, deadline);
}

int
flow_ask(struct flow *f, int last, int64_t now, int64_t deadline)
{
	new_message(f->request, REQUEST);
	f->status = 0;
	f->have = f->total = 0;
	f->state = FLOW_ASKING;
	f->last = last;
	f->asked = now;
	f->deadline = deadline;
	f->resend = f->kind == FLOW_UDP && deadline != NEVER ? now : NEVER;
	f->left = f->kind == FLOW_UDP ? 0 : UINT_MAX;
	return deadline != NEVER && send_request(f) < 0 ? flow_fail(f) : 0;
}

void
flow_want(struct flow *f, struct wake *w)
{
	if (f->state == FLOW_CLOSED)
		return;
	f->slot = wake_on(w, f->shared ? -1 : f->fd,
	    f->left > 0 ? POLLIN | POLLOUT : POLLIN);
	wake_at(w, f->resend);
	wake_at(w, f->deadline);
}

static NOINLINE int
answered(struct flow *f)
{
	f->state = FLOW_OPEN;
	f->resend = f->deadline = NEVER;
	f->left = f->have = 0;
	fd_name(f->fd, &f->ends.local);
	return 1;
}

/* 1 our answer, -1 an error response to us, 0 something else: a datagram is
 * then ignored, anybody can send one. */
static int
take_message(struct flow *f, const unsigned char *p, size_t n)
{
	if (f->state != FLOW_ASKING)
		return 0;
	if (stun_decode(f, p, n) == 1)
		return answered(f);
	return errno > EREFUSED ? -1 : 0;
}

/* Takes n bytes more, in buf.  The answer to HEAD has no body (RFC 9110 section
 * 9.3.2), but many servers send one: it is dropped. */
static int
take_http(struct flow *f, size_t n)
{
	char *line = (char *)f->buf, *stop = line + f->have + n, *end;
	int r = 0;

	f->total += (unsigned)n;
	while (f->state == FLOW_ASKING && r == 0 &&
	    (end = memchr(line, '\n', (size_t)(stop - line))) != NULL) {
		r = end_of_line(f, line, (size_t)(end - line));
		line = end + 1;
	}
	f->have = (unsigned)(stop - line);
	memmove(f->buf, line, f->have);
	if (r > 0 && f->total - f->have <= HTTP_LIMIT) {
		f->total = f->have;
		f->state = FLOW_BODY;
	}
	if (f->state == FLOW_BODY)
		return strchr(f->host, '/') ? 0 : answered(f);
	if (f->have > HTTP_LINE)
		f->have = HTTP_LINE;
	errno = ENOTANSWER;	/* not what a number in it left there */
	return r < 0 || f->total > HTTP_LIMIT ? -1 : 0;
}

/* Reads once: 1 answered, 0 not yet, -1.  Over UDP an error is an ICMP message,
 * which anybody can forge.  A datagram that was cut has an odd length. */
static NOINLINE int
read_once(struct flow *f)
{
	size_t want = f->kind != FLOW_TCP ? sizeof f->buf - 1 : STUN_HEADER +
	    (f->have < STUN_HEADER ? 0 : be16(f->buf + 2));
	ssize_t n = recv(f->fd, f->buf + f->have, want - f->have, 0);

	if (n < 0)
		return fd_again() || f->kind == FLOW_UDP ? 0 : -1;
	if (f->kind == FLOW_UDP)
		return take_message(f, f->buf, (size_t)n);
	if (n == 0) {
		errno = ECLOSED;
		f->buf[f->have] = '\0';
		return f->state == FLOW_BODY ? answered(f) : -1;
	}
	errno = ENOTANSWER;
	if (f->kind == FLOW_HTTP)
		return take_http(f, (size_t)n);
	f->have += (unsigned)n;
	if (f->have == STUN_HEADER)     /* RFC 8489 section 6.2.2 */
		want += be16(f->buf + 2);
	if (f->state == FLOW_OPEN || want > sizeof f->buf)
		return -1;
	if (f->have < want)
		return 0;
	return take_message(f, f->buf, f->have) > 0 ? 1 : -1;
}

int
flow_step(struct flow *f, const struct wake *w, int64_t now)
{
	int r = 0;

	if (f->state == FLOW_CLOSED)
		return 0;
	if (woke(w, f->slot)) {
		/* the first write that can be tells how the connect ended */
		if (f->left > 0)
			r = send_request(f);
		for (int i = 0; i < READS && r == 0; i++)
			r = read_once(f);
	}
	if (r == 0 && now >= f->deadline) {
		errno = ETIMEDOUT;
		r = -1;
	}
	if (r == 0 && now >= f->resend)
		r = send_request(f);
	return r < 0 ? flow_fail(f) : r;
}

int
flow_claim(struct flow *f, const union addr *from, const union addr *to,
    const unsigned char *p, size_t n)
{
	if (!addr_same(from, &f->ends.peer))
		return 0;
	int r = take_message(f, p, n);
	if (r < 0)
		return flow_fail(f);
	if (r > 0)
		f->ends.local = *to;
	return r;
}

/* servers: a name, its addresses in turn, when it may be asked again, and what
 * it said last; choosing one changes nothing */

int
server_resolve(struct server *s, int family, int64_t age, int64_t limit,
    int64_t now)
{
	if (s->lookup.pid || (s->addrs.n && now < s->looked + age))
		return 0;
	s->asked = now;
	return lookup_start(&s->lookup, s->host->name, s->host->port, family,
	    limit);
}

/* All entries of one address have the same fresh_at. */
int64_t
server_remembered(struct server *list, const union addr *a, int64_t until)
{
	int64_t was = 0;

	for (struct server *s = list; s; s = s->next)
		for (int i = s->addrs.n; i-- > 0;)
			if (addr_same(&s->addrs.a[i], a)) {
				was = s->fresh_at[i];
				if (until >= 0)
					s->fresh_at[i] = until;
			}
	return was;
}

int
server_step(struct server *list, struct server *s, const struct wake *w,
    int64_t now)
{
	int64_t at[MAX_ADDRS];
	int r = lookup_step(&s->lookup, w, now);

	if (r <= 0)
		return r;
	for (int i = 0; i < MAX_ADDRS; i++) /* beyond got.n: no harm */
		at[i] = server_fresh_at(list, &s->lookup.got.a[i]);
	memcpy(s->fresh_at, at, sizeof at);
	s->addrs = s->lookup.got;
	s->tried = 0;
	s->looked = now;
	return r;
}

int
server_asked(struct server *list, struct server *s, int i, int64_t now)
{
	int fresh = now >= s->fresh_at[i];

	if (now >= s->asked + BACKOFF_MAX)
		s->tried = 0;
	s->turn = i + 1;
	s->asked = now;
	if (s->kind == FLOW_UDP)
		server_remembered(list, &s->addrs.a[i],
		    now + (fresh ? UDP_ONCE : UDP_TWICE));
	return fresh;
}

int
server_addr(const struct server *s, const struct use *use, int fresh,
    int64_t now)
{
	/* after a while the addresses that failed are tried again */
	unsigned tried = now >= s->asked + BACKOFF_MAX ? 0 : s->tried;
	const struct use *u;

	for (int k = 0; k < s->addrs.n; k++) {
		int i = (s->turn + k) % s->addrs.n;
		if ((tried >> i & 1) || (fresh && now < s->fresh_at[i]))
			continue;
		for (u = use; u; u = u->next)
			if (u->a && addr_same(u->a, &s->addrs.a[i]))
				break;
		if (!u)
			return i;
	}
	return -1;
}

/* when the NAT forgets, or forgot, the last flow to s */
static NOINLINE int64_t
forgotten_at(const struct server *s)
{
	int64_t at = 0;

	for (int i = 0; i < s->addrs.n; i++)
		if (s->fresh_at[i] > at)
			at = s->fresh_at[i];
	return at;
}

struct server *
server_choose(struct server *list, const struct use *use, int how,
    const union addr *says, int64_t now, int64_t *soonest)
{
	struct server *best = NULL;
	const struct server *o;
	int64_t top = 0;
	const struct use *u;

	for (struct server *s = list; s; s = s->next) {
		for (u = use; u && u->s != s; u = u->next)
			;
		int busy = u != NULL;
		if (s->retry > now) {
			if (soonest && !busy && s->retry < *soonest)
				*soonest = s->retry;
			continue;
		}
		/* Where all servers reset their flows soon, flows before a
		 * check go to the one that did so last; others are kept. */
		int64_t at = forgotten_at(s);
		for (o = list; o; o = o->next)
			if ((now < s->rest && o->live && now >= o->rest) ||
			    ((how & SPARE) && at && now >= o->retry &&
			    forgotten_at(o) > at))
				break;
		if (o || ((how & LIVE) && !s->live) || (s->addrs.n ?
		    server_addr(s, use, (how & FRESH) && (s->live ||
		    !s->repeats), now) < 0 : busy))
			continue;
		/* what weighs more than any time */
		int64_t rank = (how & RECENT) && s->live ? 1 + at + ((int64_t)
		    addr_same(&s->said.mapped, says) << 61) : -s->asked;
		rank += (int64_t)!busy << 62;
		if (!best || rank > top) {
			top = rank;
			best = s;
		}
	}
	return best;
}

int
server_failed(struct server *s, const union addr *peer, int error, int64_t cap)
{
	s->live = 0;
	s->repeats++;
	for (int i = 0; peer && i < s->addrs.n; i++)
		s->tried |= (unsigned)addr_same(&s->addrs.a[i], peer) << i;
	if (!peer || (s->tried + 1) >> s->addrs.n) {
		s->tried = 0;
		s->looked = 0;		/* the addresses may be old */
		int i = s->fails++;
		int64_t wait = i < 16 ? BACKOFF_MIN << i : cap;
		if (wait > cap)
			wait = cap;
		s->retry = s->asked + wait - random_below((uint32_t)wait / 4);
	}
	if (error == s->logged[0] || error == s->logged[1])
		return 0;
	s->logged[1] = s->logged[0];
	s->logged[0] = error;
	return 1;
}

int
server_answered(struct server *s)
{
	int repeats = s->fails ? s->repeats : 0;

	s->live = 1;
	s->tried = 0;
	s->retry = 0;
	if (!repeats)           /* one of its addresses may fail for long */
		return 0;
	s->fails = s->repeats = 0;
	memset(s->logged, 0, sizeof s->logged);
	return repeats;
}

const char *
server_error(const struct server *s, int error)
{
	static char buf[80];
	/* in pairs, of which each has one text */
	static const short known[] = {
		ELOOKUP(EAI_NONAME), ELOOKUP(EAI_NONAME),
		ELOOKUP(EAI_AGAIN), ELOOKUP(EAI_AGAIN),
		ELOOKUP(EAI_NODATA), ELOOKUP(EAI_ADDRFAMILY),
		ETIMEDOUT, ETIMEDOUT, ECONNREFUSED, ECONNREFUSED,
		ENETUNREACH, EHOSTUNREACH, ECLOSED, ECONNRESET,
		EFALSE, EFALSE, EADDRNOTAVAIL, EADDRNOTAVAIL
	};
	const char *text = "name not found\0the name servers do not answer\0"
	    "no address of the family\0no answer (timed out)\0refused\0"
	    "unreachable\0closed the connection\0"
	    "told an address that cannot be ours\0"
	    "the last connection has not ended yet\0";
	int http = s->kind == FLOW_HTTP;
	const short *k;

	for (k = known; *text; k += 2) {
		if (error == k[0] || error == k[1])
			return text;
		while (*text++)
			;
	}
	if (error == ENOTANSWER)
		return http ? "not an HTTP answer" : "not a STUN answer";
	if (error > 0 && error < EREFUSED)
		return strerror(error);
	fmt(buf, sizeof buf, error < 0 ? "look-up failed (%d)" : http ?
	    "HTTP status %d" : "STUN error %d", abs(error) - EREFUSED);
	return buf;
}

/* the route out of the machine, and the kernel's news of routes */

int
route_open(void)
{
#if defined AF_NETLINK && !defined NATMAP_PORTABLE
	/* a sockaddr_nl, and RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE,
	 * IPV6_IFADDR and IPV6_ROUTE: not every toolchain has
	 * <linux/rtnetlink.h> */
	static const struct {
		sa_family_t family;
		unsigned short pad;
		uint32_t pid, groups;
	} nl = { AF_NETLINK, 0, 0, 0x1 | 0x10 | 0x40 | 0x100 | 0x400 };
	int fd = socket(AF_NETLINK, SOCK_RAW, 0);

	if (fd_setup(fd) >= 0 && bind(fd, (const struct sockaddr *)
	    (const void *)&nl, sizeof nl) == 0)
		return fd;
	close(fd);
#endif
	return -1;
}

void
route_read(int fd)
{
	char buf[256];

	/* Too much news (ENOBUFS) is news as well; the rest is cut. */
	while (recv(fd, buf, sizeof buf, 0) >= 0 || errno == ENOBUFS)
		;
}

/* Finds the device, or the interface with the IPv4 source address. */
static void
find_link(int fd, const char *dev, struct route *r)
{
#if defined SIOCGIFCONF && !defined NATMAP_PORTABLE
	struct ifreq list[64], *link = list;
	struct ifconf conf = { .ifc_len = sizeof list, .ifc_req = list };
	struct sockaddr_in in;

	if (dev)
		fmt(link->ifr_name, sizeof link->ifr_name, "%s", dev);
	else if (r->source.sa.sa_family != AF_INET ||
	    ioctl(fd, SIOCGIFCONF, &conf) < 0)
		return;
	else
		for (;; link++) {
			if ((char *)link >= (char *)list + conf.ifc_len)
				return;
			memcpy(&in, &link->ifr_addr, sizeof in);
			if (in.sin_addr.s_addr == r->source.in.sin_addr.s_addr)
				break;
		}
	/* without the number of an alias */
	link->ifr_name[strcspn(link->ifr_name, ":")] = '\0';
	if (ioctl(fd, SIOCGIFFLAGS, link) == 0) {
		r->flags = (unsigned)link->ifr_flags & (IFF_UP | IFF_RUNNING);
		r->index = if_nametoindex(link->ifr_name);
	}
#else
	(void)fd;
	r->index = dev ? if_nametoindex(dev) : 0;
#endif
}

void
route_find(const struct local *l, const union addr *to, struct route *r)
{
	int fd = new_socket(l, SOCK_DGRAM);

	memset(r, 0, sizeof *r);
	if (bind_port(l, fd, 0) == 0 && fd_connect(fd, to) == 0 &&
	    fd_name(fd, &r->source) == 0)
		find_link(fd, l->cfg->device, r);
	addr_set_port(&r->source, l->port);
	close(fd);
}
