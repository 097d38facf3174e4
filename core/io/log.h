/* Levelled lines: `L TIME FILE:LINE MESSAGE` (contract section 1.8). Never blocks a worker.
 *
 * Before log_attach() a line is written at once. A worker thread calls log_attach() once; from then on its lines go
 * into a backlog of its own (lock-free, single producer), and the coordinator or the supervisor writes them out with
 * log_flush(). A full backlog drops the line and counts it. Time is taken when a line is logged, so that lines of
 * several threads may appear slightly out of order, but never with a wrong time. */
#ifndef SLUICE_CORE_IO_LOG_H
#define SLUICE_CORE_IO_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level {
    LOG_LEVEL_SILENCE,
    LOG_LEVEL_FATAL,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_NOTICE,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_VERBOSE,
    LOG_LEVEL_VERY_VERBOSE
};
enum log_target { LOG_TO_STDERR, LOG_TO_STDOUT, LOG_TO_TERMINAL, LOG_TO_SYSLOG, LOG_DISCARD };

#define LOG_THREADS_MAX 320u /* that may be attached at the same time */
#define LOG_TEXT_MAX    479u /* octets of a message; longer ones end in "..." */

extern _Atomic int log_level_now; /* read by every thread; written by main only */

/* Chooses where lines go; may be called again, also while workers run. level  0 to 8. */
void log_open(enum log_target target, int level);
/* file  a string that lives as long as the process (__FILE__); its basename is printed. Control characters in the
 * message are replaced, so that no peer can forge a line. */
void log_write(int level, const char *file, int line, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The same for a message of several lines, a traceback: each becomes a line of its own, those behind the first one
 * begin with two blanks, tabs are blanks. At most LOG_LINES_MAX octets. */
void log_write_lines(int level, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Quotes a text that a peer has chosen: `"`, `\` and all that is not printable ASCII become \xHH; a text that does not
 * fit ends in "...". size  of `out`, at least 8. */
#define LOG_USER_SIZE 132u
void log_quote(const char *text, char *out, size_t size);
int log_attach(void);       /* 0 or -ENOMEM */
void log_detach(void);      /* before a thread ends: its backlog is still flushed, then free for the next thread */
void log_flush(void);       /* writes out what the workers have queued, unless another thread is doing so */
uint64_t log_dropped(void); /* lines lost to full backlogs */

#define LOG_LINES_MAX 8191u

#define LOG_ON(level) ((level) <= atomic_load_explicit(&log_level_now, memory_order_relaxed))
#define LOG(level, ...)                                                                                                \
    do {                                                                                                               \
        if (LOG_ON(level)) log_write((level), __FILE__, __LINE__, __VA_ARGS__);                                        \
    } while (0)
#define LOG_LINES(level, ...)                                                                                          \
    do {                                                                                                               \
        if (LOG_ON(level)) log_write_lines((level), __FILE__, __LINE__, __VA_ARGS__);                                  \
    } while (0)
#define LOGF(...) LOG(LOG_LEVEL_FATAL, __VA_ARGS__)
#define LOGE(...) LOG(LOG_LEVEL_ERROR, __VA_ARGS__)
#define LOGW(...) LOG(LOG_LEVEL_WARNING, __VA_ARGS__)
#define LOGN(...) LOG(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define LOGI(...) LOG(LOG_LEVEL_INFO, __VA_ARGS__)
#define LOGD(...) LOG(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define LOGV(...) LOG(LOG_LEVEL_VERBOSE, __VA_ARGS__)

#endif
