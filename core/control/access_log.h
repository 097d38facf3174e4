/* The access log: takes records from all workers and writes a line of each, on a thread of its own, so that a slow or
 * full disk, or a reader that sleeps, holds no worker. What finds no room on its way is lost, counted, and said once a
 * minute. At an orderly stop everything is written that the sink takes within a moment. */
#ifndef SLUICE_CORE_CONTROL_ACCESS_LOG_H
#define SLUICE_CORE_CONTROL_ACCESS_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "core/io/sink.h"
#include "core/session/config.h"
#include "protocols/access_text.h"

struct access_feed;
struct access_log;

/* --- what options mean --- */

/* FILE, unix:/path, syslog, journald or stdout. NULL, or what is wrong: a static text. path: points into `text`. */
const char *access_log_place(const char *text, enum sink_kind *kind, const char **path);
/* json, logfmt, clf, or a template. The same as access_template_parse(). */
const char *access_log_format(const char *text, enum access_format *format, struct access_template *template,
                              const char **bad, size_t *bad_size);

/* --- its life: all of it on the main thread --- */

/* Opens what config->access_log names, for config->workers. 0, or -errno after one log line. The settings have been
 * judged by the two above, and their texts live as long as the log. */
int access_log_open(struct access_log **out, const struct config *config);
/* Starts the thread. Later: a name for a rule's tag, asked on that thread; NULL: it has none. */
int access_log_start(struct access_log *log, const char *(*name_of_rule)(const void *context, uint32_t tag),
                     const void *context);
struct access_feed *access_log_feed(const struct access_log *log, uint32_t worker);
/* The workers have stopped: the rest is written, then the thread ends. */
void access_log_stop(struct access_log *log);
void access_log_close(struct access_log *log);

/* --- any thread --- */

void access_log_reopen(struct access_log *log); /* soon: a file by its name, a socket likewise */

struct access_log_stats {
    uint64_t lines;      /* written, or handed to the kernel */
    uint64_t lost;       /* found no room on the way, or were never written */
    uint64_t suppressed; /* connections that were refused and have no line: there were too many at a time */
    bool broken;         /* the last attempt to write has failed */
};
struct access_log_stats access_log_stats(const struct access_log *log);

#endif
