/* Where lines go: each arrives in one piece or not at all, also over a rotation, or a reader that goes in the middle.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/io/sink.h"
#include "tests/support.h"

static char folder[] = "/tmp/sluice-sink-XXXXXX";
static char path[64], other[64];
static char big[SINK_LINE_MAX];

static int set_up(void **state)
{
    (void)state;
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/log", folder);
    snprintf(other, sizeof other, "%s/log.1", folder);
    memset(big, 'x', sizeof big);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    unlink(other);
    return rmdir(folder);
}

static struct sink *opened(enum sink_kind kind)
{
    struct sink *sink = NULL;
    assert_int_equal(sink_open(&sink, kind, path), 0);
    return sink;
}

static int bound_socket(int type)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    strcpy(at.sun_path, path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    if (type == SOCK_STREAM) assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static size_t read_file(const char *name, char *out, size_t size)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, out, size);
    close(fd);
    assert_true(n >= 0);
    return (size_t)n;
}

static void expect_file(const char *name, const char *wanted)
{
    char text[256];
    size_t size = read_file(name, text, sizeof text);
    assert_int_equal(size, strlen(wanted));
    assert_memory_equal(text, wanted, size);
}

static void test_file(void **state)
{
    struct sink *sink = opened(SINK_FILE);
    (void)state;
    assert_true(sink_put(sink, "one", 3) && sink_put(sink, "two", 3));
    assert_int_equal(sink_lines_held(sink), 2);
    assert_int_equal(sink_flush(sink, 0), 0);
    assert_int_equal(sink_lines_held(sink), 0);
    expect_file(path, "one\ntwo\n");
    assert_int_equal(truncate(path, 0), 0); /* copytruncate */
    assert_true(sink_put(sink, "three", 5));
    assert_int_equal(sink_flush(sink, 0), 0);
    expect_file(path, "three\n");
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0137, 0);
    sink_close(sink);
}

static void test_file_is_moved(void **state)
{
    struct sink *sink = opened(SINK_FILE);
    (void)state;
    assert_false(sink_was_moved(sink));
    assert_int_equal(rename(path, other), 0);
    assert_true(sink_was_moved(sink));
    assert_int_equal(mkdir(path, 0700), 0);
    assert_true(sink_was_moved(sink));
    assert_int_equal(sink_reopen(sink), -EISDIR);
    assert_true(sink_put(sink, "old", 3));
    assert_int_equal(sink_flush(sink, 0), 0);
    expect_file(other, "old\n");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(sink_reopen(sink), 0);
    assert_false(sink_was_moved(sink));
    assert_true(sink_put(sink, "new", 3));
    assert_int_equal(sink_flush(sink, 0), 0);
    expect_file(path, "new\n");
    sink_close(sink);
}

static void test_files_that_cannot_be(void **state)
{
    struct sink *sink = NULL;
    (void)state;
    assert_int_equal(sink_open(&sink, SINK_FILE, folder), -EISDIR);
    assert_int_equal(sink_open(&sink, SINK_FILE, "/nonexistent/log"), -ENOENT);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(sink_open(&sink, SINK_FILE, path), -ENXIO);
    assert_null(sink);
}

/* A full pipe holds a part of a line when its name has become a file: that has the line from its front. */
static void test_line_is_written_again_from_its_front(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct sink *sink = opened(SINK_FILE);
    assert_true(fcntl(reader, F_SETPIPE_SZ, 8192) > 0);
    assert_true(sink_put(sink, "first", 5) && sink_put(sink, big, 20000) && sink_put(sink, "last", 4));
    assert_int_equal(sink_flush(sink, 0), -EAGAIN);
    assert_int_equal(sink_lines_held(sink), 2);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(sink_reopen(sink), 0);
    assert_int_equal(sink_flush(sink, 0), 0);
    static char text[30000];
    size_t size = read_file(path, text, sizeof text);
    assert_int_equal(size, 20001 + 5);
    assert_memory_equal(text, big, 20000);
    assert_memory_equal(text + 20000, "\nlast\n", 6);
    close(reader);
    sink_close(sink);
}

static void test_no_more_than_it_holds(void **state)
{
    (void)state;
    struct sink *sink = opened(SINK_UNIX); /* nobody is there */
    unsigned count = 0;
    while (sink_put(sink, big, 1000)) count++;
    assert_int_equal(sink_lines_held(sink), count);
    assert_true(count > 100 && count < 200);
    assert_int_equal(sink_flush(sink, 0), -ENOENT);
    assert_int_equal(sink_flush(sink, 1), -ENOENT); /* it has not looked again yet */
    int reader = bound_socket(SOCK_STREAM);
    assert_int_equal(sink_flush(sink, 249), -ENOENT);
    assert_true(sink_flush(sink, 250) <= 0);
    assert_true(sink_lines_held(sink) < count);
    close(reader);
    sink_close(sink);
}

static void expect_datagram(int reader, const char *wanted, size_t size)
{
    static char text[SINK_LINE_MAX + 1];
    assert_int_equal(recv(reader, text, sizeof text, MSG_DONTWAIT), size);
    assert_memory_equal(text, wanted, size);
}

static void test_datagrams(void **state)
{
    (void)state;
    int reader = bound_socket(SOCK_DGRAM);
    struct sink *sink = opened(SINK_UNIX);
    assert_true(sink_put(sink, "one", 3) && sink_put(sink, "two", 3));
    assert_int_equal(sink_flush(sink, 0), 0);
    expect_datagram(reader, "one", 3);
    expect_datagram(reader, "two", 3);
    close(reader); /* restarted: another socket of the same name */
    unlink(path);
    reader = bound_socket(SOCK_DGRAM);
    assert_true(sink_put(sink, "three", 5));
    assert_int_equal(sink_flush(sink, 1), 0);
    expect_datagram(reader, "three", 5);
    while (sink_put(sink, big, 5000) && sink_flush(sink, 2) == 0) continue; /* it sleeps */
    assert_int_equal(sink_flush(sink, 2), -EAGAIN);
    assert_int_equal(sink_lines_held(sink), 1);
    expect_datagram(reader, big, 5000);
    assert_int_equal(sink_flush(sink, 3), 0);
    close(reader);
    sink_close(sink);
}

/* The reader has had a part of a line when it goes: the next one gets all of it. */
static void test_stream_from_the_front_of_a_line(void **state)
{
    static char text[SINK_LINE_MAX];
    (void)state;
    int listener = bound_socket(SOCK_STREAM);
    struct sink *sink = opened(SINK_UNIX);
    int reader = accept(listener, NULL, NULL), size = 4096;
    assert_int_equal(setsockopt(sink_poll_fd(sink), SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    assert_true(sink_put(sink, "one", 3) && sink_put(sink, big, 60000) && sink_put(sink, "two", 3));
    assert_int_equal(sink_flush(sink, 0), -EAGAIN);
    assert_true(recv(reader, text, 4, 0) == 4 && memcmp(text, "one\n", 4) == 0);
    close(reader);
    assert_true(sink_flush(sink, 1) <= 0);
    reader = accept(listener, NULL, NULL);
    for (size_t got = 0, wanted = 60001 + 4; got < wanted;) {
        ssize_t n = recv(reader, text, sizeof text, MSG_DONTWAIT);
        if (n < 0) {
            assert_true(sink_flush(sink, 2) <= 0);
            continue;
        }
        for (ssize_t i = 0; i < n; i++, got++) assert_int_equal(text[i], got < 60000 ? 'x' : "\ntwo\n"[got - 60000]);
    }
    assert_int_equal(sink_lines_held(sink), 0);
    close(reader);
    close(listener);
    sink_close(sink);
}

static void test_syslog_has_one_entry_at_a_time(void **state)
{
    (void)state;
    int reader = bound_socket(SOCK_DGRAM);
    struct sink *sink = opened(SINK_SYSLOG);
    assert_true(sink_put(sink, "<14>one\ntwo", 11)); /* no end is added, none is taken for one */
    assert_false(sink_put(sink, "<14>x", 5));
    assert_int_equal(sink_flush(sink, 0), 0);
    expect_datagram(reader, "<14>one\ntwo", 11);
    close(reader);
    sink_close(sink);
}

/* What no datagram can carry comes as a file that nobody can change any more. */
static void test_journald_takes_a_file(void **state)
{
    static char text[SINK_LINE_MAX];
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    int size = 4096, file;
    (void)state;
    int reader = bound_socket(SOCK_DGRAM);
    struct sink *sink = opened(SINK_JOURNALD);
    assert_int_equal(setsockopt(sink_poll_fd(sink), SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    assert_true(sink_put(sink, big, 60000));
    assert_int_equal(sink_flush(sink, 0), 0);
    struct iovec part = {.iov_base = text, .iov_len = sizeof text};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    assert_int_equal(recvmsg(reader, &message, MSG_DONTWAIT), 0);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    assert_non_null(head);
    memcpy(&file, CMSG_DATA(head), sizeof file);
    assert_int_equal(pread(file, text, sizeof text, 0), 60000);
    assert_memory_equal(text, big, 60000);
    assert_int_equal(fcntl(file, F_GET_SEALS), F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    close(file);
    close(reader);
    sink_close(sink);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_file_is_moved, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_files_that_cannot_be, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_line_is_written_again_from_its_front, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_more_than_it_holds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_datagrams, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stream_from_the_front_of_a_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_syslog_has_one_entry_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_journald_takes_a_file, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
