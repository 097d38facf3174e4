/* The API's listening socket. */
#ifndef SLUICE_API_LISTENER_H
#define SLUICE_API_LISTENER_H

#include "core/session/config.h"

/* Opens the listening socket, while privileges last: the descriptor, or -1 after one log line. */
int api_listen(const struct config *config);
/* Removes the file of a Unix socket; any thread. */
void api_remove(const struct config *config);

#endif
