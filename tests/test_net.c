/* core/io/net on the real kernel: what the calls promise to those who know only the simulator's. */
#include "core/io/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support.h"

static struct net_address loopback(uint16_t port)
{
    struct net_address address = {.size = sizeof(struct sockaddr_in)};
    struct sockaddr_in ipv4 = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    memcpy(&address.storage, &ipv4, sizeof ipv4);
    return address;
}

static bool same_address(const struct net_address *a, const struct net_address *b)
{
    return a->size == b->size && memcmp(&a->storage, &b->storage, sizeof(struct sockaddr_in)) == 0;
}

static void wait_for(int fd, short events)
{
    struct pollfd poller = {.fd = fd, .events = events};
    assert_int_equal(poll(&poller, 1, 10000), 1);
}

static int listen_somewhere(struct net_address *at)
{
    struct net_address any = loopback(0);
    int fd = net_socket(AF_INET, SOCK_STREAM);
    assert_true(fd >= 0);
    assert_int_equal(net_bind(fd, &any), 0);
    assert_int_equal(net_listen(fd, 4), 0);
    assert_int_equal(net_local_address(fd, at), 0);
    return fd;
}

/* Two ends of one connection. */
static void connect_two(int ends[2])
{
    struct net_address at;
    int listener = listen_somewhere(&at);
    ends[0] = net_socket(AF_INET, SOCK_STREAM);
    int error = net_connect(ends[0], &at);
    assert_true(error == 0 || error == -EINPROGRESS);
    wait_for(listener, POLLIN);
    ends[1] = net_accept(listener);
    assert_true(ends[1] >= 0);
    wait_for(ends[0], POLLOUT);
    assert_int_equal(net_take_error(ends[0]), 0);
    net_close(listener);
}

static void close_two(int ends[2])
{
    net_close(ends[0]);
    net_close(ends[1]);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t size = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
    return value;
}

static void assert_flags(int fd)
{
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void test_sockets(void **state)
{
    int ends[2], udp = net_socket(AF_INET6, SOCK_DGRAM);
    (void)state;
    connect_two(ends);
    assert_flags(ends[0]);
    assert_flags(ends[1]);
    assert_flags(udp);
    assert_int_equal(net_type(ends[0]), SOCK_STREAM);
    assert_int_equal(net_type(udp), SOCK_DGRAM);
    assert_int_equal(net_type(-1), -EBADF);
    assert_false(net_is_ipv6_only(udp));
    assert_false(net_is_ipv6_only(ends[0]));
    assert_int_equal(setsockopt(udp, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, sizeof(int)), 0);
    assert_true(net_is_ipv6_only(udp));
    assert_int_equal(net_socket(AF_INET, 77), -EINVAL);
    assert_int_equal(net_accept(ends[0]), -EINVAL);
    net_close(udp);
    close_two(ends);
}

static void test_options(void **state)
{
    int ends[2];
    (void)state;
    connect_two(ends);
    assert_int_equal(option(ends[0], SOL_SOCKET, SO_KEEPALIVE), 0);
    net_set_keepalive(ends[0]);
    assert_int_equal(option(ends[0], SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option(ends[0], IPPROTO_TCP, TCP_KEEPIDLE), 60);
    assert_int_equal(option(ends[0], IPPROTO_TCP, TCP_KEEPINTVL), 15);
    assert_int_equal(option(ends[0], IPPROTO_TCP, TCP_KEEPCNT), 4);
    assert_int_equal(option(ends[0], IPPROTO_TCP, TCP_NODELAY), 0);
    net_set_nodelay(ends[0]);
    assert_int_equal(option(ends[0], IPPROTO_TCP, TCP_NODELAY), 1);
    int send = option(ends[0], SOL_SOCKET, SO_SNDBUF), receive = option(ends[0], SOL_SOCKET, SO_RCVBUF);
    net_set_buffers(ends[0], 0, 0);
    assert_int_equal(option(ends[0], SOL_SOCKET, SO_SNDBUF), send);
    assert_int_equal(option(ends[0], SOL_SOCKET, SO_RCVBUF), receive);
    net_set_buffers(ends[0], 20000, 30000); /* the kernel doubles them */
    assert_int_equal(option(ends[0], SOL_SOCKET, SO_SNDBUF), 40000);
    assert_int_equal(option(ends[0], SOL_SOCKET, SO_RCVBUF), 60000);
    int fresh = net_socket(AF_INET, SOCK_STREAM);
    net_set_fastopen_connect(fresh);
    assert_int_equal(option(fresh, IPPROTO_TCP, TCP_FASTOPEN_CONNECT), 1);
    net_close(fresh);
    close_two(ends);
}

static void test_device(void **state)
{
    char name[16] = "";
    socklen_t size = sizeof name;
    int fd = net_socket(AF_INET, SOCK_STREAM);
    (void)state;
    assert_int_equal(net_set_device(fd, "no-such-device"), -ENODEV);
    assert_int_equal(net_set_device(fd, "lo"), 0);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &size), 0);
    assert_string_equal(name, "lo");
    net_close(fd);
}

static void test_addresses(void **state)
{
    int ends[2];
    struct net_address local, peer, source, to = loopback(9), from = loopback(0);
    (void)state;
    connect_two(ends);
    assert_int_equal(net_local_address(ends[0], &local), 0);
    assert_int_equal(net_peer_address(ends[1], &peer), 0);
    assert_true(same_address(&local, &peer));
    assert_true(net_original_address(ends[1], &peer) < 0); /* no firewall has turned it */
    assert_int_equal(net_route_source(&to, NULL, 0, &source), 0);
    memcpy(&from.storage, &source.storage, sizeof(struct sockaddr_in));
    ((struct sockaddr_in *)&from.storage)->sin_port = 0;
    to = loopback(0);
    assert_true(same_address(&from, &to));
    assert_int_equal(net_local_address(-1, &source), -EBADF);
    assert_int_equal(net_peer_address(-1, &source), -EBADF);
    close_two(ends);
}

/* Its peer has gone with a reset: it is closed, and still known by its address. */
static void test_reset(void **state)
{
    int ends[2];
    struct net_address local, peer;
    char octet;
    (void)state;
    connect_two(ends);
    assert_int_equal(net_local_address(ends[0], &local), 0);
    assert_false(net_is_closed(ends[1]));
    net_reset_on_close(ends[0]);
    net_close(ends[0]);
    wait_for(ends[1], POLLIN);
    assert_int_equal(recv(ends[1], &octet, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    assert_true(net_is_closed(ends[1]));
    assert_int_equal(net_peer_address(ends[1], &peer), 0);
    assert_true(same_address(&local, &peer));
    net_close(ends[1]);
}

enum { READ_NOTHING, READ_OCTETS, READ_ALL };

/* Whether the peer's end is known, when it has sent `sent` octets, has ended in order or not, and then reset the
 * connection, and this side has read so much and been told of the error by a send. */
static bool end_is_known(int sent, bool ended, int read, bool told)
{
    int ends[2];
    char octet;
    connect_two(ends);
    for (int i = 0; i < sent; i++) net_send_octet(ends[0], 'x');
    if (ended) assert_int_equal(net_shutdown_write(ends[0]), 0);
    net_reset_on_close(ends[0]);
    net_close(ends[0]);
    wait_for(ends[1], 0);
    assert_true(net_is_closed(ends[1]));
    if (told) assert_int_equal(send(ends[1], "y", 1, MSG_NOSIGNAL), -1);
    for (int i = 0; read >= READ_OCTETS && i < sent; i++) assert_int_equal(recv(ends[1], &octet, 1, 0), 1);
    if (read == READ_ALL) (void)!recv(ends[1], &octet, 1, 0);
    bool known = net_has_ended(ends[1]);
    assert_int_equal(net_has_ended(ends[1]), known);
    assert_int_equal(net_was_cut(ends[1]), !known);
    net_close(ends[1]);
    return known;
}

static void test_end_before_a_reset(void **state)
{
    (void)state;
    for (int sent = 0; sent <= 2; sent++)
        for (int read = READ_NOTHING; read <= READ_ALL; read++)
            for (int told = 0; told <= 1; told++) {
                assert_true(end_is_known(sent, true, read, told));
                assert_false(end_is_known(sent, false, read, told));
            }
}

static void test_end_of_one_that_lives(void **state)
{
    int ends[2];
    char octet;
    (void)state;
    connect_two(ends);
    assert_false(net_has_ended(ends[1]));
    assert_int_equal(send(ends[0], "u", 1, MSG_OOB), 1); /* at which SIOCINQ stops */
    net_send_octet(ends[0], 'x');
    wait_for(ends[1], POLLIN);
    assert_false(net_has_ended(ends[1]));
    assert_int_equal(net_shutdown_write(ends[0]), 0);
    wait_for(ends[1], POLLRDHUP);
    assert_true(net_has_ended(ends[1]));
    assert_false(net_was_cut(ends[1]));
    assert_int_equal(recv(ends[1], &octet, 1, 0), 1); /* urgent data is apart, as before */
    assert_int_equal(octet, 'x');
    assert_int_equal(net_shutdown_write(ends[1]), 0); /* both have ended: it is closed, and was not cut */
    wait_for(ends[0], POLLRDHUP);
    assert_true(net_has_ended(ends[0]));
    assert_false(net_was_cut(ends[0]));
    assert_false(net_was_cut(ends[1]));
    close_two(ends);
}

/* Octets behind urgent data are there, though splice() says dry or ended; urgent data alone is nothing to receive. */
static void test_octets_behind_urgent_data(void **state)
{
    int ends[2], pipe[2];
    size_t size = 4096;
    char octet;
    (void)state;
    connect_two(ends);
    assert_int_equal(net_pipe(pipe, &size), 0);
    assert_false(net_holds_octets(ends[1]));
    assert_int_equal(send(ends[0], "u", 1, MSG_OOB), 1);
    wait_for(ends[1], POLLPRI);
    assert_false(net_holds_octets(ends[1]));
    net_send_octet(ends[0], 'x');
    wait_for(ends[1], POLLIN);
    assert_int_equal(net_splice(ends[1], pipe[1], 1, false), -EAGAIN);
    assert_true(net_holds_octets(ends[1]));
    assert_int_equal(net_shutdown_write(ends[0]), 0);
    wait_for(ends[1], POLLRDHUP);
    assert_int_equal(net_splice(ends[1], pipe[1], 1, false), 0);
    assert_true(net_holds_octets(ends[1]));
    assert_int_equal(recv(ends[1], &octet, 1, 0), 1);
    assert_int_equal(octet, 'x');
    assert_false(net_holds_octets(ends[1])); /* the end is none */
    close_two(pipe);
    close_two(ends);
}

/* Its receives tell. */
static void test_end_of_a_unix_socket(void **state)
{
    int ends[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_true(net_has_ended(ends[0]));
    assert_false(net_was_cut(ends[0]));
    close_two(ends);
}

static void test_ends(void **state)
{
    int ends[2];
    char octet = 0;
    (void)state;
    connect_two(ends);
    net_send_octet(ends[0], 'x');
    wait_for(ends[1], POLLIN);
    assert_int_equal(recv(ends[1], &octet, 1, 0), 1);
    assert_int_equal(octet, 'x');
    assert_int_equal(net_shutdown_write(ends[0]), 0);
    wait_for(ends[1], POLLIN);
    assert_int_equal(recv(ends[1], &octet, 1, 0), 0);
    net_send_octet(ends[0], 'y'); /* nobody takes it: neither a signal nor a wait */
    net_send_octet(ends[1], 'z'); /* the other direction is still open */
    wait_for(ends[0], POLLIN);
    assert_int_equal(recv(ends[0], &octet, 1, 0), 1);
    assert_false(net_is_closed(ends[0]));
    close_two(ends);
}

static void test_stop_listening(void **state)
{
    struct net_address at;
    int listener = listen_somewhere(&at), client = net_socket(AF_INET, SOCK_STREAM);
    (void)state;
    net_stop_listening(listener);
    int error = net_connect(client, &at);
    if (error == -EINPROGRESS) {
        wait_for(client, POLLOUT);
        error = net_take_error(client);
    }
    assert_int_equal(error, -ECONNREFUSED);
    net_close(client);
    net_close(listener);
}

/* Sends until nothing more is taken; octets that the first `room` promised were taken at once. */
static void check_room(int fd)
{
    static const char zeros[4096];
    uint32_t room = net_send_room(fd), least = room;
    size_t taken = 0;
    assert_in_range(room, 4096, (uint32_t)option(fd, SOL_SOCKET, SO_SNDBUF) / 4 * 3);
    for (;;) {
        ssize_t n = send(fd, zeros, sizeof zeros, MSG_DONTWAIT);
        if (n < 0) break;
        taken += (size_t)n;
        room = net_send_room(fd);
        least = room < least ? room : least;
    }
    assert_int_equal(errno, EAGAIN);
    assert_true(least < 4096);
    assert_true(taken > 4096);
}

static void test_room(void **state)
{
    int ends[2], files[2];
    size_t size = 4096;
    (void)state;
    connect_two(ends);
    net_set_buffers(ends[0], 65536, 0);
    check_room(ends[0]);
    assert_true(net_unacknowledged(ends[0]) > 0); /* the peer reads nothing */
    close_two(ends);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    check_room(ends[0]);
    assert_int_equal(net_unacknowledged(ends[0]), 0);
    close_two(ends);
    assert_int_equal(net_pipe(files, &size), 0);
    assert_int_equal(net_send_room(files[1]), UINT32_MAX);
    close_two(files);
}

static void test_splice(void **state)
{
    int ends[2], files[2];
    size_t size = 65536;
    char octets[8] = "";
    (void)state;
    connect_two(ends);
    assert_int_equal(net_pipe(files, &size), 0);
    assert_int_equal(size, 65536);
    assert_flags(files[0]);
    assert_flags(files[1]);
    assert_int_equal(net_splice(ends[1], files[1], size, false), -EAGAIN);
    assert_int_equal(send(ends[0], "abcdef", 6, 0), 6);
    wait_for(ends[1], POLLIN);
    assert_int_equal(net_splice(ends[1], files[1], 4, false), 4);
    assert_int_equal(read(files[0], octets, sizeof octets), 4);
    assert_memory_equal(octets, "abcd", 4);
    assert_int_equal(net_shutdown_write(ends[0]), 0);
    assert_int_equal(net_splice(ends[1], files[1], size, false), 2);
    assert_int_equal(net_splice(files[0], ends[1], 2, true), 2); /* held back until more comes */
    wait_for(ends[1], POLLIN);
    assert_int_equal(net_splice(ends[1], files[1], size, false), 0);
    assert_int_equal(net_splice(-1, files[1], 1, false), -EBADF);
    close_two(files);
    close_two(ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sockets),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_device),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_stop_listening),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_splice),
        cmocka_unit_test(test_end_before_a_reset),
        cmocka_unit_test(test_end_of_one_that_lives),
        cmocka_unit_test(test_octets_behind_urgent_data),
        cmocka_unit_test(test_end_of_a_unix_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
