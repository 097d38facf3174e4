/* Levelled lines: `L TIME FILE:LINE MESSAGE` (contract section 1.8). Never blocks a worker.
 *
 * Before log_attach() a line is written at once. A worker thread calls log_attach() once; from then on its lines go
 * into a ring of its own (lock-free, single producer), and the coordinator writes them out with log_flush(). A full
 * ring drops the line and counts it. */
#ifndef SLUICE_CORE_LOG_H
#define SLUICE_CORE_LOG_H

#include <stdbool.h>
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

extern int log_level_now; /* read by every thread; written by main only */

void log_open(enum log_target target, int level);
void log_write(int level, const char *file, int line, const char *format, ...) __attribute__((format(printf, 4, 5)));
int log_attach(void);       /* 0 or -ENOMEM */
void log_flush(void);       /* coordinator: writes out what the workers have queued */
uint64_t log_dropped(void); /* lines lost to full rings */

#define LOG_ON(level) ((level) <= log_level_now)
#define LOG(level, ...)                                                                                                \
    do {                                                                                                               \
        if (LOG_ON(level)) log_write((level), __FILE__, __LINE__, __VA_ARGS__);                                        \
    } while (0)
#define LOGF(...) LOG(LOG_LEVEL_FATAL, __VA_ARGS__)
#define LOGE(...) LOG(LOG_LEVEL_ERROR, __VA_ARGS__)
#define LOGW(...) LOG(LOG_LEVEL_WARNING, __VA_ARGS__)
#define LOGN(...) LOG(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define LOGI(...) LOG(LOG_LEVEL_INFO, __VA_ARGS__)
#define LOGD(...) LOG(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define LOGV(...) LOG(LOG_LEVEL_VERBOSE, __VA_ARGS__)

#endif
