/* Log lines and the way they take.
 *
 *     worker:      log_write > the backlog of its thread          (no lock, no system call but the clock)
 *     coordinator, supervisor: log_flush > all backlogs > write_line > stderr, stdout or syslog
 *     start-up and those two: log_write > write_line
 *
 * A line in a backlog holds the message as text, but time and place as values: turning seconds into local time takes a
 * lock inside libc, which is no business of a worker. */
#include "core/io/log.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG_LINES 256u /* a power of two: 128 KiB per worker, resident only when lines were logged */
static_assert((BACKLOG_LINES & (BACKLOG_LINES - 1)) == 0, "positions wrap by masking");

struct line {
    const char *file;
    int64_t unix_time;
    int line;
    int level;
    uint32_t size; /* octets of text */
    char text[LOG_TEXT_MAX + 1];
};

/* Positions grow without end and are masked on use. One writer each: `written` the thread, `flushed` whoever flushes.
 */
struct backlog {
    _Atomic uint32_t written;
    _Atomic uint32_t flushed;
    _Atomic uint64_t dropped;
    struct line lines[BACKLOG_LINES];
};

/* A place keeps its backlog when its thread has gone: the next thread takes over both. */
struct place {
    _Atomic bool taken;
    _Atomic(struct backlog *) backlog;
};

_Atomic int log_level_now = LOG_LEVEL_NOTICE;

static _Atomic int target_now = LOG_TO_STDERR;
static struct place places[LOG_THREADS_MAX];
static _Thread_local struct place *own_place;
static uint64_t dropped_reported;               /* behind `flushing` */
static atomic_flag flushing = ATOMIC_FLAG_INIT; /* one thread writes the backlogs out */

void log_open(enum log_target target, int level)
{
    assert(level >= LOG_LEVEL_SILENCE && level <= LOG_LEVEL_VERY_VERBOSE);
    if (target == LOG_TO_SYSLOG) openlog("sluice", LOG_PID | LOG_NDELAY, LOG_USER);
    atomic_store(&target_now, (int)target);
    atomic_store(&log_level_now, level);
}

static const char *basename_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Writes "2026-01-31T12:00:00+01:00"; size at least 32. */
static void format_time(char *out, size_t size, int64_t unix_time)
{
    time_t seconds = (time_t)unix_time;
    struct tm local;
    char zone[8] = "+0000";

    if (!localtime_r(&seconds, &local) || strftime(out, size, "%Y-%m-%dT%H:%M:%S", &local) == 0) {
        snprintf(out, size, "-");
        return;
    }
    strftime(zone, sizeof(zone), "%z", &local);
    size_t used = strlen(out);
    snprintf(out + used, size - used, "%.3s:%.2s", zone, zone + 3); /* RFC 3339 wants a colon, %z has none */
}

/* A line that cannot be written is lost: there is nobody left to tell. */
static void write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        data += n;
        size -= (size_t)n;
    }
}

static void write_descriptor(int fd, bool coloured, const struct line *e)
{
    static const char letters[] = "-FEWIIDVV";
    static const char *const colours[] = {"", "\033[1;31m", "\033[31m", "\033[33m", "\033[32m",
                                          "", "\033[36m",   "\033[2m",  "\033[2m"};
    char line[LOG_TEXT_MAX + 256], when[40];

    format_time(when, sizeof(when), e->unix_time);
    int n = snprintf(line, sizeof(line) - 1, "%s%c %s %.100s:%d %s%s", coloured ? colours[e->level] : "",
                     letters[e->level], when, basename_of(e->file), e->line, e->text, coloured ? "\033[0m" : "");
    assert(n > 0 && (size_t)n < sizeof(line) - 1);
    line[n] = '\n'; /* one write per line: lines of several processes on one file do not mix */
    write_all(fd, line, (size_t)n + 1);
}

static void write_syslog(const struct line *e)
{
    static const int severities[] = {LOG_ALERT, LOG_CRIT,  LOG_ERR,   LOG_WARNING, LOG_NOTICE,
                                     LOG_INFO,  LOG_DEBUG, LOG_DEBUG, LOG_DEBUG};
    syslog(severities[e->level], "%s:%d %s", basename_of(e->file), e->line, e->text);
}

static void write_line(const struct line *e)
{
    switch ((enum log_target)atomic_load_explicit(&target_now, memory_order_relaxed)) {
    case LOG_TO_STDERR: write_descriptor(STDERR_FILENO, false, e); return;
    case LOG_TO_STDOUT: write_descriptor(STDOUT_FILENO, false, e); return;
    case LOG_TO_TERMINAL: write_descriptor(STDERR_FILENO, true, e); return;
    case LOG_TO_SYSLOG: write_syslog(e); return;
    case LOG_DISCARD: return;
    }
}

/* Makes the message printable; one that was cut ends in dots. wanted  what vsnprintf() returned. */
static void finish_text(struct line *e, int wanted)
{
    if (wanted < 0) wanted = 0;
    e->size = (size_t)wanted > LOG_TEXT_MAX ? LOG_TEXT_MAX : (uint32_t)wanted;
    e->text[e->size] = '\0';
    if ((size_t)wanted > LOG_TEXT_MAX) memcpy(e->text + LOG_TEXT_MAX - 3, "...", 3);
    for (uint32_t i = 0; i < e->size; i++) {
        unsigned char c = (unsigned char)e->text[i];
        if (c < 0x20 || c == 0x7f) e->text[i] = '?';
    }
}

static void fill_line(struct line *e, int level, const char *file, int line, const char *format, va_list arguments)
    __attribute__((format(printf, 5, 0)));

static void fill_line(struct line *e, int level, const char *file, int line, const char *format, va_list arguments)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    e->file = file;
    e->unix_time = (int64_t)now.tv_sec;
    e->line = line;
    e->level = level;
    finish_text(e, vsnprintf(e->text, sizeof(e->text), format, arguments));
}

/* The next free line, or NULL after counting the loss. The calling thread is the backlog's only producer. */
static struct line *backlog_reserve(struct backlog *b)
{
    uint32_t written = atomic_load_explicit(&b->written, memory_order_relaxed);
    uint32_t flushed = atomic_load_explicit(&b->flushed, memory_order_acquire);

    assert(written - flushed <= BACKLOG_LINES);
    if (written - flushed < BACKLOG_LINES) return &b->lines[written & (BACKLOG_LINES - 1)];
    atomic_fetch_add_explicit(&b->dropped, 1, memory_order_relaxed);
    return NULL;
}

static void backlog_commit(struct backlog *b)
{
    uint32_t written = atomic_load_explicit(&b->written, memory_order_relaxed);
    atomic_store_explicit(&b->written, written + 1, memory_order_release);
}

void log_write(int level, const char *file, int line, const char *format, ...)
{
    assert(level > LOG_LEVEL_SILENCE && level <= LOG_LEVEL_VERY_VERBOSE);
    struct backlog *b = own_place ? atomic_load_explicit(&own_place->backlog, memory_order_relaxed) : NULL;
    struct line direct, *e = b ? backlog_reserve(b) : &direct;
    va_list arguments;
    int saved_errno = errno;

    if (!e) return;
    va_start(arguments, format);
    fill_line(e, level, file, line, format, arguments);
    va_end(arguments);
    if (b)
        backlog_commit(b);
    else
        write_line(e);
    errno = saved_errno; /* callers log first and look at errno later */
}

void log_write_lines(int level, const char *file, int line, const char *format, ...)
{
    char text[LOG_LINES_MAX + 1];
    va_list arguments;

    va_start(arguments, format);
    int wanted = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (wanted < 0) return;
    for (char *tab = text; (tab = strchr(tab, '\t')) != NULL;) *tab = ' ';
    for (char *at = text; *at;) {
        size_t size = strcspn(at, "\n");
        bool last = at[size] == '\0';
        at[size] = '\0';
        if (*at) log_write(level, file, line, "%s%s", at == text ? "" : "  ", at);
        at += size + (last ? 0 : 1);
    }
}

void log_quote(const char *text, char *out, size_t size)
{
    size_t used = 0, end = size - sizeof "...";
    for (; *text; text++) {
        bool plain = *text >= ' ' && *text < 0x7f && *text != '"' && *text != '\\';
        if (used + (plain ? 1 : 4) > end) {
            memcpy(out + used, "...", sizeof "...");
            return;
        }
        used += (size_t)snprintf(out + used, size - used, plain ? "%c" : "\\x%02x", (unsigned char)*text);
    }
    out[used] = '\0';
}

int log_attach(void)
{
    if (own_place) return 0;
    for (uint32_t i = 0; i < LOG_THREADS_MAX; i++) {
        bool taken = false;
        if (!atomic_compare_exchange_strong(&places[i].taken, &taken, true)) continue;
        struct backlog *b = atomic_load(&places[i].backlog);
        if (!b) b = calloc(1, sizeof(*b));
        if (!b) {
            atomic_store(&places[i].taken, false);
            return -ENOMEM;
        }
        atomic_store(&places[i].backlog, b);
        own_place = &places[i];
        return 0;
    }
    return -ENOMEM;
}

void log_detach(void)
{
    if (!own_place) return;
    atomic_store(&own_place->taken, false);
    own_place = NULL;
}

/* Goes as far as the thread had come when we looked: a thread that logs without end cannot keep the coordinator. */
static void backlog_flush(struct backlog *b)
{
    uint32_t written = atomic_load_explicit(&b->written, memory_order_acquire);
    uint32_t flushed = atomic_load_explicit(&b->flushed, memory_order_relaxed);

    while (flushed != written) {
        write_line(&b->lines[flushed & (BACKLOG_LINES - 1)]);
        atomic_store_explicit(&b->flushed, ++flushed, memory_order_release);
    }
}

void log_flush(void)
{
    assert(!own_place); /* its lines would wait for itself */
    if (atomic_flag_test_and_set_explicit(&flushing, memory_order_acquire)) return;
    for (uint32_t i = 0; i < LOG_THREADS_MAX; i++) {
        struct backlog *b = atomic_load_explicit(&places[i].backlog, memory_order_acquire);
        if (b) backlog_flush(b);
    }
    uint64_t dropped = log_dropped(), lost = dropped - dropped_reported;
    dropped_reported = dropped;
    atomic_flag_clear_explicit(&flushing, memory_order_release);
    if (lost > 0)
        LOGW("%llu log lines were dropped: workers logged faster than they could be written", (unsigned long long)lost);
}

uint64_t log_dropped(void)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < LOG_THREADS_MAX; i++) {
        struct backlog *b = atomic_load_explicit(&places[i].backlog, memory_order_acquire);
        if (b) sum += atomic_load_explicit(&b->dropped, memory_order_relaxed);
    }
    return sum;
}
