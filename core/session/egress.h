/* The way that traffic leaves this box by: the one place for all sockets towards targets, of DIAL, BIND and UDP. */
#ifndef SLUICE_CORE_SESSION_EGRESS_H
#define SLUICE_CORE_SESSION_EGRESS_H

#include "core/session/config.h"

/* Binds a socket that has no address yet to the interface of -i, if there is one. Where that fails, one warning is
 * logged and the socket is used as it is. */
void egress_prepare(const struct config *config, int fd);

#endif
