/* Puts the process into the background, drops its privileges, and reads and raises its limits. Everything here runs on
 * the main thread, before the workers start or while they do. */
#ifndef SLUICE_CORE_PROCESS_PROCESS_H
#define SLUICE_CORE_PROCESS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Opens /dev/null in the place of each standard descriptor that is closed when the process starts: else a socket would
 * get its number, and the log, or what scripts print, would go to a client. */
void process_open_standard(void);

/* Goes to the background: the caller returns as a daemon with stdin from /dev/null and stderr still open, so that
 * start-up faults reach the terminal. The process that was started stays and waits for process_daemonize_ready(); it
 * never returns from here. Call it before any thread or ring exists. 0 or -errno.
 * The umask is kept: the operator's choice decides who may use the Unix listeners. */
int process_daemonize_begin(void);
/* Tells the waiting parent how the start went. Without a waiting parent nothing happens.
 * error  0: the parent exits with 0; stdout and stderr go to /dev/null, and the log to syslog. Else the parent prints
 *        `message` (one line; NULL: a log line has said it) and exits with 1. */
void process_daemonize_ready(int error, const char *message);

/* The user and group that `-u` names (contract section 1.7). */
struct process_identity {
    bool has_user, has_group; /* "user" alone keeps the group; ":group" alone keeps the user */
    uid_t user;
    gid_t group;
};

/* Looks up "user", "user:" (with the user's primary group), "user:group", ":group"; names or numbers. NULL, or a static
 * text that says what is wrong. */
const char *process_find_identity(const char *spec, struct process_identity *identity);
/* Changes to the user and group of `spec`, without supplementary groups and without a way back. marks  this thread, and
 * those that it makes, keep the right to mark packets if they have it (privilege.h). 0, or -1 after one log line. */
int process_drop_privileges(const char *spec, bool marks);

/* Gives a file to the user of `spec`, so that the process can remove it once privileges are dropped, also from a folder
 * with the sticky bit. NULL: the owner stays. A failure shows when the file is to be removed. */
void process_give_file(const char *spec, const char *path);
/* Removes the file of a Unix socket; one log line if it stays behind. */
void process_remove_socket(const char *path);

/* Raises the soft limit of open files to the hard one. Returns the limit that now holds. */
uint64_t process_raise_descriptors(void);
uint64_t process_descriptors(void); /* the soft limit as it is */

/* Whether the kernel's limits for ordinary users (pipe-user-pages-soft) do not apply. */
bool process_is_privileged(void);

#endif
