/* core/io/log: the format of a line, where lines go, and the rings of attached threads (run it under TSan as well). */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/io/log.h"
#include "tests/support.h"

static char text[1 << 20];

static int capture(int fd, int *saved)
{
    int file = memfd_create("captured", MFD_CLOEXEC);
    assert_true(file >= 0);
    *saved = dup(fd);
    assert_true(dup2(file, fd) == fd);
    return file;
}

static void release(int fd, int saved, int file)
{
    dup2(saved, fd);
    close(saved);
    ssize_t n = pread(file, text, sizeof(text) - 1, 0);
    assert_true(n >= 0);
    text[n] = '\0';
    close(file);
}

static bool matches(const char *pattern)
{
    regex_t compiled;
    assert_int_equal(regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool found = regexec(&compiled, text, 0, NULL, 0) == 0;
    regfree(&compiled);
    return found;
}

static int count_lines(void)
{
    int lines = 0;
    for (const char *at = text; *at; at++) lines += *at == '\n';
    return lines;
}

/* Logs one line at each level from 1 to 8 to `target`. */
static void log_all(enum log_target target, int level, int fd)
{
    int saved, file = capture(fd, &saved);
    log_open(target, level);
    for (int l = LOG_LEVEL_FATAL; l <= LOG_LEVEL_VERY_VERBOSE; l++) LOG(l, "level %d", l);
    release(fd, saved, file);
}

/* Tracebacks: each line is a line of the log, and none can be taken for the beginning of another message. */
static void test_lines(void **state)
{
    (void)state;
    setenv("TZ", "UTC0", 1);
    tzset();
    int saved, file = capture(STDERR_FILENO, &saved);
    log_open(LOG_TO_STDERR, LOG_LEVEL_NOTICE);
    LOG_LINES(LOG_LEVEL_ERROR, "%s", "first\nsecond\n\n\tthird\x01");
    LOG_LINES(LOG_LEVEL_INFO, "%s", "not at this level");
    release(STDERR_FILENO, saved, file);
    assert_true(matches("^E [^ ]+ test_log\\.c:[0-9]+ first\nE [^ ]+ test_log\\.c:[0-9]+   second\n"
                        "E [^ ]+ test_log\\.c:[0-9]+    third\\?\n$"));
}

static void test_format(void **state)
{
    (void)state;
    setenv("TZ", "XYZ-5:45", 1); /* east of Greenwich: +05:45 */
    tzset();
    int saved, file = capture(STDERR_FILENO, &saved);
    log_open(LOG_TO_STDERR, LOG_LEVEL_NOTICE);
    log_write(LOG_LEVEL_WARNING, "core/deep/place.c", 123, "hello %s", "world");
    release(STDERR_FILENO, saved, file);
    assert_true(matches(
        "^W [0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\+05:45 place\\.c:123 hello world\n$"));
    setenv("TZ", "UTC0", 1);
    tzset();
    file = capture(STDERR_FILENO, &saved);
    LOGE("x");
    release(STDERR_FILENO, saved, file);
    assert_true(matches("^E [^ ]{19}\\+00:00 test_log\\.c:[0-9]+ x\n$"));
}

static void test_letters_and_levels(void **state)
{
    static const char letters[] = "FEWIIDVV";
    (void)state;
    log_all(LOG_TO_STDERR, LOG_LEVEL_VERY_VERBOSE, STDERR_FILENO);
    assert_int_equal(count_lines(), 8);
    const char *line = text;
    for (int i = 0; i < 8; i++, line = strchr(line, '\n') + 1) assert_int_equal(line[0], letters[i]);
    for (int level = LOG_LEVEL_SILENCE; level <= LOG_LEVEL_VERY_VERBOSE; level++) {
        log_all(LOG_TO_STDERR, level, STDERR_FILENO);
        assert_int_equal(count_lines(), level);
    }
}

static void test_targets(void **state)
{
    (void)state;
    log_all(LOG_TO_STDOUT, LOG_LEVEL_ERROR, STDOUT_FILENO);
    assert_int_equal(count_lines(), 2);
    assert_false(matches("\033"));
    log_all(LOG_TO_TERMINAL, LOG_LEVEL_ERROR, STDERR_FILENO);
    assert_int_equal(count_lines(), 2);
    assert_true(matches("^\033\\[1;31mF [^\n]* level 1\033\\[0m\n\033\\[31mE "));
    log_all(LOG_DISCARD, LOG_LEVEL_VERY_VERBOSE, STDERR_FILENO);
    assert_string_equal(text, "");
}

static void test_hostile_text(void **state)
{
    char octets[600];
    (void)state;
    int saved, file = capture(STDERR_FILENO, &saved);
    log_open(LOG_TO_STDERR, LOG_LEVEL_NOTICE);
    LOGN("%s", "a\nF 2026 forged\r\033[31m\x7f\tend \xc3\xa4");
    release(STDERR_FILENO, saved, file);
    assert_non_null(strstr(text, " a?F 2026 forged??[31m??end \xc3\xa4\n"));
    for (size_t size = LOG_TEXT_MAX - 1; size <= LOG_TEXT_MAX + 1; size++) {
        memset(octets, 'x', size);
        octets[size] = '\0';
        file = capture(STDERR_FILENO, &saved);
        LOGN("%s", octets);
        release(STDERR_FILENO, saved, file);
        const char *message = strrchr(text, ' ') + 1;
        assert_int_equal(strlen(message), (size > LOG_TEXT_MAX ? LOG_TEXT_MAX : size) + 1);
        assert_int_equal(strstr(message, "xxx...\n") != NULL, size > LOG_TEXT_MAX);
    }
}

static void test_errno_survives(void **state)
{
    (void)state;
    int saved = dup(STDERR_FILENO);
    log_open(LOG_TO_STDERR, LOG_LEVEL_NOTICE);
    close(STDERR_FILENO); /* the write fails and would leave EBADF behind */
    errno = EXDEV;
    LOGN("x");
    int after = errno;
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_int_equal(after, EXDEV);
}

/* --- attached threads --- */

/* A thread that waits between its steps, so that the test can look at each. */
struct steps {
    pthread_barrier_t barrier;
    int lines;
    int attached;
};

static void *log_some(void *argument)
{
    struct steps *steps = argument;
    steps->attached = log_attach() == 0 && log_attach() == 0; /* twice is fine */
    for (int i = 0; i < steps->lines; i++) LOGN("line %d of a worker", i);
    pthread_barrier_wait(&steps->barrier); /* lines are in the ring */
    pthread_barrier_wait(&steps->barrier); /* the test has looked */
    LOGN("one more");
    log_detach();
    LOGN("direct again");
    return NULL;
}

static void run_steps(int lines)
{
    struct steps steps = {.lines = lines};
    pthread_t thread;
    int saved, file = capture(STDERR_FILENO, &saved);

    pthread_barrier_init(&steps.barrier, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, log_some, &steps), 0);
    pthread_barrier_wait(&steps.barrier);
    assert_int_equal(lseek(file, 0, SEEK_END), 0); /* the worker wrote nothing itself */
    log_flush();
    pthread_barrier_wait(&steps.barrier);
    pthread_join(thread, NULL);
    log_flush(); /* what it left behind */
    release(STDERR_FILENO, saved, file);
    pthread_barrier_destroy(&steps.barrier);
    assert_true(steps.attached);
}

static void test_rings(void **state)
{
    (void)state;
    run_steps(3);
    assert_int_equal(count_lines(), 5);
    assert_true(matches("line 0 of a worker\n.*line 1 of a worker\n.*line 2 of a worker\n"));
    /* After log_detach() a line needs no flush and overtakes the one that does. */
    assert_true(matches("direct again\n.*one more\n$"));
    assert_int_equal(log_dropped(), 0);
}

static void test_full_rings_drop(void **state)
{
    (void)state;
    uint64_t before = log_dropped();
    run_steps(1000);
    uint64_t lost = log_dropped() - before;
    assert_true(lost > 0 && lost < 1000);
    assert_int_equal((uint64_t)count_lines(), 1000 - lost + 1 + 2); /* a warning about the loss, two last lines */
    char warning[100];
    snprintf(warning, sizeof(warning), "log\\.c:[0-9]+ %llu log lines were dropped", (unsigned long long)lost);
    assert_true(matches(warning));
    int saved, file = capture(STDERR_FILENO, &saved);
    log_flush(); /* a loss is reported once */
    release(STDERR_FILENO, saved, file);
    assert_string_equal(text, "");
}

static void test_places_are_reused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LOG_THREADS_MAX + 20; i++) {
        struct steps steps = {.lines = 0};
        pthread_t thread;
        int saved, file = capture(STDERR_FILENO, &saved);
        pthread_barrier_init(&steps.barrier, NULL, 1);
        assert_int_equal(pthread_create(&thread, NULL, log_some, &steps), 0);
        pthread_join(thread, NULL);
        log_flush();
        release(STDERR_FILENO, saved, file);
        pthread_barrier_destroy(&steps.barrier);
        assert_true(steps.attached);
        assert_int_equal(count_lines(), 2);
    }
}

#define WRITERS      2
#define WRITER_LINES 20000

static _Atomic int writers_running;

static void *write_many(void *argument)
{
    const char *name = argument;
    if (log_attach() == 0)
        for (int i = 0; i < WRITER_LINES; i++) LOGN("%s %d", name, i);
    log_detach();
    writers_running--;
    return NULL;
}

/* Counts the lines of one writer and asserts that they come in order, each whole. */
static uint64_t check_writer(const char *name)
{
    char pattern[40];
    uint64_t lines = 0;
    long last = -1;

    int size = snprintf(pattern, sizeof(pattern), " %s ", name);
    for (const char *at = strstr(text, pattern); at; at = strstr(at + 1, pattern)) {
        char *end;
        long number = strtol(at + size, &end, 10);
        assert_int_equal(*end, '\n');
        assert_true(number > last);
        last = number;
        lines++;
    }
    return lines;
}

static void test_two_writers_and_a_reader(void **state)
{
    static char *const names[WRITERS] = {"alpha", "beta"};
    pthread_t threads[WRITERS];
    uint64_t before = log_dropped(), seen = 0;
    (void)state;

    writers_running = WRITERS;
    for (int i = 0; i < WRITERS; i++) assert_int_equal(pthread_create(&threads[i], NULL, write_many, names[i]), 0);
    for (bool running = true; running;) {
        running = writers_running > 0;
        int saved, file = capture(STDERR_FILENO, &saved);
        log_flush();
        release(STDERR_FILENO, saved, file);
        for (int i = 0; i < WRITERS; i++) seen += check_writer(names[i]);
    }
    for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(seen + log_dropped() - before, WRITERS * WRITER_LINES);
}

/* What others write stands between quotes, and cannot end them. */
static void test_quote(void **state)
{
    static const struct {
        const char *text, *quoted;
    } cases[] = {{"", ""},
                 {"alice", "alice"},
                 {"a b", "a b"},
                 {"\"", "\\x22"},
                 {"\\", "\\x5c"},
                 {"\n\r\t\x7f\x01", "\\x0a\\x0d\\x09\\x7f\\x01"},
                 {"\xc3\xa9\xff", "\\xc3\\xa9\\xff"}};
    char out[LOG_USER_SIZE], small[8], longest[300];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        log_quote(cases[i].text, out, sizeof out);
        assert_string_equal(out, cases[i].quoted);
    }
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    log_quote(longest, out, sizeof out);
    assert_int_equal(strlen(out), sizeof out - 1);
    assert_string_equal(out + sizeof out - 5, "x...");
    memset(longest, '\n', sizeof longest - 1);
    log_quote(longest, small, sizeof small);
    assert_string_equal(small, "\\x0a...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_letters_and_levels),
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_hostile_text),
        cmocka_unit_test(test_errno_survives),
        cmocka_unit_test(test_quote),
        cmocka_unit_test(test_rings),
        cmocka_unit_test(test_full_rings_drop),
        cmocka_unit_test(test_places_are_reused),
        cmocka_unit_test(test_two_writers_and_a_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
