/* The REST API: libmicrohttpd without threads of its own, run by the supervisor; what needs Lua or the workers is lent
 * to the coordinator. */
#ifndef SLUICE_API_SERVER_H
#define SLUICE_API_SERVER_H

#include "core/control/coordinator.h"
#include "core/control/supervisor.h"
#include "core/session/config.h"
#include "lua/engine/engine.h"

struct api;

/* --check: whether the token file could be read by who we are now. 0, or -1 after one log line that says why. */
int api_check(const struct config *config);
/* Serves from now on; takes over listen_fd. 0 or -errno after one log line. */
int api_open(struct api **out, struct supervisor *s, struct coordinator *c, struct engine *e,
             const struct config *config, int listen_fd);
/* Reads the tokens again (SIGHUP); what fails changes nothing. Called by the coordinator, as api_close(). */
void api_reload(struct api *api);
/* Ends what waits; before engine_close(). Removes the file of a Unix socket. NULL is fine. */
void api_close(struct api *api);

#endif
