/* Opens the listening sockets: on the main thread, before privileges are dropped and workers start. */
#ifndef SLUICE_CORE_PROCESS_LISTEN_H
#define SLUICE_CORE_PROCESS_LISTEN_H

#include "core/session/config.h"

/* A listening socket for one listener of one worker: the workers' sockets share the port (SO_REUSEPORT). The
 * descriptor, or -1 after one log line that names cause and remedy. `first`: it is the first socket of this listener,
 * and fails if another process has the port. */
int listen_open(const struct config *config, const struct listener_config *listener, bool first);
/* If port 0 was asked for, writes the port that the kernel has chosen into the address and into the text of the
 * settings, which is then memory that lives as long as the process. 0, or -1 after one log line. */
int listen_learn_port(int fd, struct address *address, const char **text);
/* Removes the file of a Unix listener at the end; nothing for others. */
void listen_remove(const struct listener_config *listener);

/* What to do about an errno of bind() or listen() there: a static text, for the API's address as well.
 * shared: --reuseport would help. */
const char *listen_remedy(int error, const struct address *address, bool shared);

#endif
