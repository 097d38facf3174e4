/* The log's thread: what eight threads send is there, each line whole, over rotations; and a reader that takes nothing
 * holds neither a sender nor the stop. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/control/access_log.h"
#include "core/io/log.h"
#include "core/io/net.h"
#include "core/io/queue.h"
#include "core/session/access.h"
#include "tests/support.h"

#define SENDERS 8u
#define EACH    125000u
#define FILES   6u

static char folder[] = "/tmp/sluice-access-XXXXXX";
static char path[64], place[80];
static struct config config = {.workers = SENDERS, .access_log = path, .access_log_format = "{status}:{up}:{rule}"};
static struct access_log *access_log;
static _Atomic uint32_t sent_in_all;

static int set_up(void **state)
{
    (void)state;
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/log", folder);
    snprintf(place, sizeof place, "unix:%s", path);
    log_open(LOG_DISCARD, LOG_LEVEL_SILENCE);
    sent_in_all = 0;
    return 0;
}

static int tear_down(void **state)
{
    char name[80];
    (void)state;
    access_log_close(access_log);
    access_log = NULL;
    unlink(path);
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%s.%u", path, i);
        unlink(name);
    }
    return rmdir(folder);
}

static const char *name_rule(const void *context, uint32_t tag)
{
    assert_ptr_equal(context, &config);
    return tag == 7 ? "seven" : NULL;
}

/* As a worker does. False: there is no room. */
static bool send_record(struct access_feed *feed, uint32_t worker, uint64_t number)
{
    struct access_record *record = record_ring_reserve(feed->ring, sizeof *record);
    if (!record) return false;
    *record = (struct access_record){.status = (uint16_t)(worker + 1), .up = number, .rule_tag = number % 2 ? 7 : 8};
    record_ring_commit(feed->ring);
    if (sleeper_must_wake(feed->sleeper)) net_signal(feed->wake_fd);
    return true;
}

static void *send_all(void *argument)
{
    uint32_t worker = *(const uint32_t *)argument;
    struct access_feed *feed = access_log_feed(access_log, worker);
    for (uint64_t number = 0; number < EACH;)
        if (send_record(feed, worker, number)) {
            number++;
            sent_in_all++;
        } else {
            sched_yield();
        }
    return NULL;
}

static void count_file(const char *name, uint64_t *next)
{
    char text[64], wanted[64];
    FILE *file = fopen(name, "r");
    assert_non_null(file);
    while (fgets(text, sizeof text, file)) {
        unsigned long worker = strtoul(text, NULL, 10);
        assert_true(worker >= 1 && worker <= SENDERS);
        uint64_t number = next[worker - 1]++;
        snprintf(wanted, sizeof wanted, "%lu:%llu:%s\n", worker, (unsigned long long)number,
                 number % 2 ? "seven" : "-");
        assert_string_equal(text, wanted);
    }
    fclose(file);
}

static void test_a_million_lines(void **state)
{
    pthread_t threads[SENDERS];
    uint32_t workers[SENDERS];
    uint64_t next[SENDERS] = {0};
    char name[80];
    (void)state;
    config.access_log = path;
    assert_int_equal(access_log_open(&access_log, &config), 0);
    assert_int_equal(access_log_start(access_log, name_rule, &config), 0);
    for (uint32_t i = 0; i < SENDERS; i++) {
        workers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &workers[i]), 0);
    }
    for (uint32_t i = 0; i < FILES; i++) { /* moved while it is written; every other time nobody says so */
        while (sent_in_all < (i + 1) * (SENDERS * EACH / (FILES + 1))) sched_yield();
        snprintf(name, sizeof name, "%s.%u", path, i);
        assert_int_equal(rename(path, name), 0);
        if (i % 2 == 0) access_log_reopen(access_log);
        while (access(path, F_OK) != 0) sched_yield();
    }
    for (uint32_t i = 0; i < SENDERS; i++) pthread_join(threads[i], NULL);
    struct access_log_stats stats;
    do { /* a stop waits for so long only, and a sanitizer may need more for what is left */
        sched_yield();
        stats = access_log_stats(access_log);
    } while (stats.lines + stats.lost < SENDERS * EACH);
    access_log_stop(access_log);
    for (uint32_t i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%s.%u", path, i);
        count_file(name, next);
    }
    count_file(path, next);
    for (uint32_t i = 0; i < SENDERS; i++) assert_int_equal(next[i], EACH);
    stats = access_log_stats(access_log);
    assert_int_equal(stats.lines, SENDERS * EACH);
    assert_int_equal(stats.lost, 0);
    assert_false(stats.broken);
}

/* What a reader has not read is lost at the stop, and counted to the last line. */
static void test_stop_without_a_reader(void **state)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct timespec before, after;
    uint64_t count = 0;
    (void)state;
    strcpy(at.sun_path, path);
    int reader = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(reader, (struct sockaddr *)&at, sizeof at), 0);
    config.access_log = place;
    assert_int_equal(access_log_open(&access_log, &config), 0);
    assert_int_equal(access_log_start(access_log, name_rule, &config), 0);
    while (send_record(access_log_feed(access_log, 0), 0, count)) count++; /* until the ring is full */
    clock_gettime(CLOCK_MONOTONIC, &before);
    access_log_stop(access_log);
    clock_gettime(CLOCK_MONOTONIC, &after);
    assert_true(after.tv_sec - before.tv_sec < 30);
    struct access_log_stats stats = access_log_stats(access_log);
    assert_int_equal(stats.lines + stats.lost, count);
    assert_true(stats.lost > 0);
    uint64_t read = 0;
    for (char text[64]; recv(reader, text, sizeof text, 0) > 0;) read++;
    assert_int_equal(read, stats.lines);
    close(reader);
}

/* Connections that have no line are told in sum: while they come, and what is left at the stop. */
static void test_suppressed_are_told(void **state)
{
    char text[64];
    unsigned long lines = 0, sum = 0;
    (void)state;
    config.access_log = path;
    config.access_log_format = "{event} {suppressed}";
    assert_int_equal(access_log_open(&access_log, &config), 0);
    config.access_log_format = "{status}:{up}:{rule}";
    assert_int_equal(access_log_start(access_log, name_rule, &config), 0);
    counter_add(&access_log_feed(access_log, 0)->suppressed, 5);
    counter_add(&access_log_feed(access_log, SENDERS - 1)->suppressed, 7);
    while (access_log_stats(access_log).lines == 0) sched_yield(); /* nobody wakes the log */
    counter_add(&access_log_feed(access_log, 1)->suppressed, 1000);
    access_log_stop(access_log);
    assert_int_equal(access_log_stats(access_log).suppressed, 1012);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (; fgets(text, sizeof text, file); lines++) {
        assert_memory_equal(text, "suppressed ", 11);
        sum += strtoul(text + 11, NULL, 10);
    }
    fclose(file);
    assert_int_equal(sum, 1012);
    assert_int_equal(lines, access_log_stats(access_log).lines);
    assert_in_range(lines, 2, 3); /* the log may have looked between the first two counts */
}

static void test_places(void **state)
{
    static const struct {
        const char *text, *path;
        enum sink_kind kind;
    } cases[] = {
        {"stdout", NULL, SINK_STDOUT},    {"syslog", NULL, SINK_SYSLOG},       {"journald", NULL, SINK_JOURNALD},
        {"unix:/a/b", "/a/b", SINK_UNIX}, {"./syslog", "./syslog", SINK_FILE}, {"unix", "unix", SINK_FILE},
    };
    enum sink_kind kind;
    const char *found;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(access_log_place(cases[i].text, &kind, &found));
        assert_int_equal(kind, cases[i].kind);
        if (cases[i].path)
            assert_string_equal(found, cases[i].path);
        else
            assert_null(found);
    }
    assert_non_null(access_log_place("", &kind, &found));
    assert_non_null(access_log_place("unix:", &kind, &found));
    assert_non_null(access_log_place("unix:a", &kind, &found));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_million_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stop_without_a_reader, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_suppressed_are_told, set_up, tear_down),
        cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
