/* The thread's turn: take records as long as the sink takes lines; write; look after the file; rest.
 *
 *     much to do:   a pause of a few milliseconds between turns, so that workers need not wake it
 *     nothing:      asleep until a worker wakes it, or for half a second
 *     sink is full: until the sink has room, or a quarter of a second; the rings fill meanwhile */
#include "core/control/access_log.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/control/access_entry.h"
#include "core/io/counter.h"
#include "core/io/log.h"
#include "core/io/net.h"
#include "core/io/queue.h"
#include "core/io/record_ring.h"
#include "core/session/access.h"

/* Of each worker, resident as far as it was needed: half a second of 20,000 lines. */
#define RING_SIZE (4u << 20)
/* Records of one worker in a row, before it is another one's turn. */
#define RECORDS_MAX 256u
#define PAUSE_MS    5
#define SLEEP_MS    500 /* and how often the file's name is looked at: at least twice a second */
#define RETRY_MS    250
/* How long a stop waits for a sink that takes nothing: less than the supervisor does. */
#define STOP_MS 400u
/* What is lost is said so often. */
#define REPORT_MS 60000u
/* A line about connections that have none is written so often. */
#define TELL_MS 1000u
/* A record is a struct and its texts; a field of journald has a name and a length more. */
#define LINE_SIZE        SINK_LINE_MAX
#define LINE_SIZE_SYSLOG 8000u /* rsyslog takes 8 KiB */

struct access_log {
    struct sink *sink;
    enum sink_kind kind;
    enum access_format format;
    struct access_template template;
    char *place, *pattern; /* the settings' texts: a reload may take those away */
    uint32_t workers;
    struct access_feed *feeds;
    struct sleeper sleeper;
    int wake_fd;
    pthread_t thread;
    bool started;
    const char *(*name_of_rule)(const void *context, uint32_t tag);
    const void *context;
    _Atomic bool stopping, reopen;

    /* the thread's own, but for the counters' readers */
    counter lines, lost;
    _Atomic bool broken;
    bool reopen_failed;
    uint64_t broken_ms, looked_ms, reported_ms, stop_ms;
    uint64_t lost_said;
    uint64_t suppressed_told, told_ms;
    char line[LINE_SIZE];
};

/* --- what options mean --- */

const char *access_log_place(const char *text, enum sink_kind *kind, const char **path)
{
    *path = NULL;
    *kind = SINK_FILE;
    if (!*text) return "names nothing, give FILE, unix:/path, syslog, journald or stdout";
    if (strcmp(text, "stdout") == 0) *kind = SINK_STDOUT;
    if (strcmp(text, "syslog") == 0) *kind = SINK_SYSLOG;
    if (strcmp(text, "journald") == 0) *kind = SINK_JOURNALD;
    if (*kind != SINK_FILE) return NULL;
    *path = text;
    if (strncmp(text, "unix:", 5) != 0) return NULL;
    *kind = SINK_UNIX;
    *path = text + 5;
    bool fits = strlen(*path) < sizeof((struct sockaddr_un *)0)->sun_path;
    return **path == '/' && fits ? NULL
                                 : "is no path of a socket, give unix: and an absolute path of at most 107 octets";
}

const char *access_log_format(const char *text, enum access_format *format, struct access_template *template,
                              const char **bad, size_t *bad_size)
{
    static const char *const words[] = {[ACCESS_JSON] = "json", [ACCESS_LOGFMT] = "logfmt", [ACCESS_CLF] = "clf"};
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i]) != 0) continue;
        *format = (enum access_format)i;
        return NULL;
    }
    *format = ACCESS_TEMPLATE;
    return access_template_parse(text, template, bad, bad_size);
}

/* --- opening --- */

static int open_feeds(struct access_log *log, const struct config *config)
{
    log->feeds = calloc(config->workers, sizeof *log->feeds);
    if (!log->feeds) return -ENOMEM;
    for (; log->workers < config->workers; log->workers++) {
        struct access_feed *feed = &log->feeds[log->workers];
        *feed = (struct access_feed){.sleeper = &log->sleeper,
                                     .wake_fd = log->wake_fd,
                                     .starts = config->access_log_starts,
                                     .queries = config->access_log_queries};
        int error = record_ring_open(&feed->ring, RING_SIZE);
        if (error < 0) return error;
    }
    return 0;
}

static const char *remedy_of(int error)
{
    switch (error) {
    case -ENXIO: return "it is a FIFO that nobody reads; start its reader first";
    case -EACCES:
    case -EPERM:
    case -EROFS: return "let the user who starts sluice write there";
    case -ENOENT:
    case -ENOTDIR: return "make its folder first";
    case -EISDIR: return "name a file in it";
    default: return "name another file";
    }
}

static int open_parts(struct access_log *log, const struct config *config)
{
    const char *path, *bad;
    size_t bad_size;
    log->place = strdup(config->access_log);
    log->pattern = strdup(config->access_log_format);
    if (!log->place || !log->pattern) return -ENOMEM;
    const char *wrong = access_log_place(log->place, &log->kind, &path);
    assert(!wrong); /* the option's reader has asked */
    wrong = access_log_format(log->pattern, &log->format, &log->template, &bad, &bad_size);
    assert(!wrong);
    int error = sink_open(&log->sink, log->kind, path);
    if (error < 0) {
        LOGE("--access-log %s: %s; %s", config->access_log, strerror(-error), remedy_of(error));
        return error;
    }
    log->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    error = log->wake_fd < 0 ? -errno : open_feeds(log, config);
    if (error < 0) LOGE("--access-log: %s; raise ulimit -n, or lower --workers", strerror(-error));
    return error;
}

int access_log_open(struct access_log **out, const struct config *config)
{
    struct access_log *log = calloc(1, sizeof *log);
    if (!log) {
        LOGE("--access-log: no memory");
        return -ENOMEM;
    }
    log->wake_fd = -1;
    int error = open_parts(log, config);
    if (error == 0)
        *out = log;
    else
        access_log_close(log);
    return error;
}

void access_log_close(struct access_log *log)
{
    if (!log) return;
    assert(!log->started);
    for (uint32_t i = 0; i < log->workers; i++) record_ring_close(log->feeds[i].ring);
    free(log->feeds);
    free(log->place);
    free(log->pattern);
    sink_close(log->sink);
    if (log->wake_fd >= 0) close(log->wake_fd);
    free(log);
}

struct access_feed *access_log_feed(const struct access_log *log, uint32_t worker)
{
    assert(worker < log->workers);
    return &log->feeds[worker];
}

/* Each feed's counter is its worker's. */
static uint64_t count_lost(const struct access_log *log)
{
    uint64_t sum = counter_read(&log->lost);
    for (uint32_t i = 0; i < log->workers; i++) sum += counter_read(&log->feeds[i].dropped);
    return sum;
}

static uint64_t count_suppressed(const struct access_log *log)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < log->workers; i++) sum += counter_read(&log->feeds[i].suppressed);
    return sum;
}

struct access_log_stats access_log_stats(const struct access_log *log)
{
    return (struct access_log_stats){.lines = counter_read(&log->lines),
                                     .lost = count_lost(log),
                                     .suppressed = count_suppressed(log),
                                     .broken = atomic_load_explicit(&log->broken, memory_order_relaxed)};
}

void access_log_reopen(struct access_log *log)
{
    atomic_store(&log->reopen, true);
    net_signal(log->wake_fd);
}

/* --- the thread --- */

static uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static size_t write_entry(struct access_log *log, const struct access_record *record)
{
    size_t at = 0;
    switch (log->kind) {
    case SINK_SYSLOG:
        at = access_entry_syslog(log->line, record->time_us);
        return at + access_write(log->format, &log->template, record, log->line + at, LINE_SIZE_SYSLOG - at);
    case SINK_JOURNALD: return access_entry_journald(log->format, &log->template, record, log->line, sizeof log->line);
    default: return access_write(log->format, &log->template, record, log->line, sizeof log->line);
    }
}

/* A file that works again is said, too: whoever has read of the trouble learns that it is over. */
static void set_broken(struct access_log *log, int error, uint64_t now_ms)
{
    bool broken = error < 0 && error != -EAGAIN;
    if (broken && (!log->broken || now_ms - log->broken_ms >= REPORT_MS)) {
        LOGW("--access-log: %s: %s; lines wait, and are lost when there is no room for more", sink_name(log->sink),
             error == -ENOENT || error == -ECONNREFUSED ? "nobody reads there" : strerror(-error));
        log->broken_ms = now_ms;
    }
    if (!broken && error == 0 && log->broken) LOGN("--access-log: %s takes lines again", sink_name(log->sink));
    if (broken || error == 0) atomic_store_explicit(&log->broken, broken, memory_order_relaxed);
}

static int flush(struct access_log *log, uint64_t now_ms)
{
    uint64_t before = sink_lines_held(log->sink);
    int error = sink_flush(log->sink, now_ms);
    counter_add(&log->lines, before - sink_lines_held(log->sink));
    set_broken(log, error, now_ms);
    return error;
}

/* False: the sink takes no more, `error` says why. */
static bool put_record(struct access_log *log, const struct access_record *record, uint64_t now_ms, int *error)
{
    size_t size = write_entry(log, record);
    while (!sink_put(log->sink, log->line, size)) {
        *error = flush(log, now_ms);
        if (*error < 0) return false;
    }
    return true;
}

/* What it holds is in `line` of the sink, or still the ring's: no line is lost here. */
static int take_records(struct access_log *log, struct record_ring *ring, uint64_t now_ms, uint32_t *taken)
{
    struct access_record *record;
    for (uint32_t i = 0; i < RECORDS_MAX && (record = record_ring_peek(ring)) != NULL; i++) {
        const char *rule =
            record->rule_tag && log->name_of_rule ? log->name_of_rule(log->context, record->rule_tag) : NULL;
        if (rule) record->rule = (struct access_text){rule, (uint32_t)strlen(rule)};
        int error;
        if (!put_record(log, record, now_ms, &error)) return error;
        record_ring_pop(ring);
        ++*taken;
    }
    return 0;
}

/* So many connections have no line of their own. At a stop the workers count no more of them. */
static int tell_suppressed(struct access_log *log, uint64_t now_ms, bool stopping)
{
    uint64_t sum = count_suppressed(log);
    int error = 0;
    if (sum == log->suppressed_told || (!stopping && now_ms - log->told_ms < TELL_MS)) return 0;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct access_record record =
        access_record_of_nothing((uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u, "suppressed");
    record.suppressed = sum - log->suppressed_told;
    if (!put_record(log, &record, now_ms, &error)) return error;
    log->suppressed_told = sum;
    log->told_ms = now_ms;
    return 0;
}

/* 0: everything that was there is written. More: records were taken, there may be others. Less: -errno of the sink. */
static int turn(struct access_log *log, uint64_t now_ms, bool stopping)
{
    uint32_t taken = 0;
    int error = 0;
    for (uint32_t i = 0; i < log->workers && error == 0; i++)
        error = take_records(log, log->feeds[i].ring, now_ms, &taken);
    if (error == 0) error = tell_suppressed(log, now_ms, stopping);
    if (error == 0) error = flush(log, now_ms);
    return error < 0 ? error : (int)taken;
}

static void look_after_file(struct access_log *log, uint64_t now_ms)
{
    bool asked = atomic_exchange(&log->reopen, false);
    if (!asked && now_ms - log->looked_ms < SLEEP_MS) return;
    log->looked_ms = now_ms;
    if (!asked && !sink_was_moved(log->sink)) return;
    int error = sink_reopen(log->sink);
    if (error < 0 && log->kind == SINK_FILE && (asked || !log->reopen_failed))
        LOGW("--access-log: %s cannot be opened again: %s; the file that was open is still written to",
             sink_name(log->sink), strerror(-error));
    log->reopen_failed = error < 0;
}

static void report_losses(struct access_log *log, uint64_t now_ms, bool last)
{
    uint64_t lost = count_lost(log);
    if (lost == log->lost_said || (!last && now_ms - log->reported_ms < REPORT_MS && log->reported_ms > 0)) return;
    LOGW("--access-log: %llu lines are lost: %s takes them too slowly", (unsigned long long)(lost - log->lost_said),
         sink_name(log->sink));
    log->lost_said = lost;
    log->reported_ms = now_ms;
}

static bool has_records(const struct access_log *log)
{
    for (uint32_t i = 0; i < log->workers; i++)
        if (record_ring_peek(log->feeds[i].ring)) return true;
    return false;
}

static void nap(int fd, int wake_fd, int ms)
{
    struct pollfd all[2] = {{.fd = fd, .events = POLLOUT}, {.fd = wake_fd, .events = POLLIN}};
    uint64_t count;
    (void)poll(all, 2, ms);
    if (wake_fd >= 0 && all[1].revents) (void)!read(wake_fd, &count, sizeof count);
}

/* A sink that has failed says nothing that could be waited for. */
static void rest(struct access_log *log, int result)
{
    if (result == -EAGAIN) {
        nap(sink_poll_fd(log->sink), -1, RETRY_MS);
    } else if (result < 0) {
        nap(-1, log->wake_fd, RETRY_MS);
    } else if (result > 0) {
        nap(-1, -1, PAUSE_MS);
    } else {
        sleeper_announce(&log->sleeper);
        if (!has_records(log)) nap(-1, log->wake_fd, SLEEP_MS);
        sleeper_awake(&log->sleeper);
    }
}

/* The rest of a stop: what cannot be written is counted. */
static void abandon(struct access_log *log)
{
    uint64_t lost = sink_lines_held(log->sink);
    for (uint32_t i = 0; i < log->workers; i++)
        for (; record_ring_peek(log->feeds[i].ring); lost++) record_ring_pop(log->feeds[i].ring);
    counter_add(&log->lost, lost);
}

static void *access_log_main(void *argument)
{
    struct access_log *log = argument;
    log_attach();
    pthread_setname_np(pthread_self(), "access-log");
    for (;;) {
        bool stopping = atomic_load(&log->stopping);
        uint64_t now_ms = clock_ms();
        look_after_file(log, now_ms);
        int result = turn(log, now_ms, stopping);
        report_losses(log, now_ms, false);
        if (stopping && log->stop_ms == 0) log->stop_ms = now_ms + STOP_MS;
        if (stopping && (result == 0 || now_ms >= log->stop_ms)) break;
        if (stopping)
            nap(sink_poll_fd(log->sink), -1, result < 0 ? PAUSE_MS : 0);
        else
            rest(log, result);
    }
    abandon(log);
    report_losses(log, clock_ms(), true);
    log_detach();
    return NULL;
}

int access_log_start(struct access_log *log, const char *(*name_of_rule)(const void *context, uint32_t tag),
                     const void *context)
{
    log->name_of_rule = name_of_rule;
    log->context = context;
    int error = -pthread_create(&log->thread, NULL, access_log_main, log);
    log->started = error == 0;
    if (error < 0) LOGE("--access-log: its thread could not be started: %s; raise ulimit -u", strerror(-error));
    return error;
}

void access_log_stop(struct access_log *log)
{
    if (!log || !log->started) return;
    atomic_store(&log->stopping, true);
    net_signal(log->wake_fd);
    pthread_join(log->thread, NULL);
    log->started = false;
}
