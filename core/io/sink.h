/* Where lines of a log of its own go: a file, standard output, a Unix socket, syslog or journald. For one thread, which
 * may wait for a disk; for everything else the sink says that it has no room now, and what to poll for.
 *
 * A line is kept until all of it is written. When a file is opened anew, or a reader comes back, in the middle of a
 * line, the line is written again from its front. */
#ifndef SLUICE_CORE_IO_SINK_H
#define SLUICE_CORE_IO_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sink_kind { SINK_FILE, SINK_STDOUT, SINK_UNIX, SINK_SYSLOG, SINK_JOURNALD };

#define SINK_LINE_MAX 65536u /* octets of a line, or of an entry of journald */

struct sink; /* opaque */

/* path  of a file or a socket, borrowed for the sink's life; NULL: the usual one, of syslog or journald. 0; -errno: a
 * file that cannot be opened. A socket need not be there yet. */
int sink_open(struct sink **out, enum sink_kind kind, const char *path);
void sink_close(struct sink *sink); /* what it holds is lost */
const char *sink_name(const struct sink *sink);

/* Takes a line without its end, or an entry; size  1 to SINK_LINE_MAX. False: no room, flush first. */
bool sink_put(struct sink *sink, const char *line, size_t size);
/* Writes what it can. 0: all is out. -EAGAIN: sink_poll_fd() tells when to go on, if it is no -1. Another -errno: what
 * is wrong; to be tried again in a while. now_ms  of a monotonic clock. */
int sink_flush(struct sink *sink, uint64_t now_ms);
int sink_poll_fd(const struct sink *sink);
uint64_t sink_lines_held(const struct sink *sink); /* taken, and not written in whole */

/* Opens a file again, by its name. 0; -errno: it could not be, the one that is open stays. Sockets: connects again. */
int sink_reopen(struct sink *sink);
/* Whether the file's name leads to another file by now, or to none. */
bool sink_was_moved(const struct sink *sink);

#endif
