/* A state from its making to its freeing. */
#ifndef SLUICE_LUA_ENGINE_INSTANCE_H
#define SLUICE_LUA_ENGINE_INSTANCE_H

#include "lua/engine/state.h"

/* A state of its own with all modules, for the process (root NULL) or for a script of it. who: see there; copied. NULL
 * after one log line. */
struct engine *engine_new(struct coordinator *c, struct engine *root, const struct engine_rooms *rooms,
                          const char *who);
void engine_free(struct engine *e); /* nothing of it waits any more */
void engine_set_who(struct engine *e, const char *who);
/* Takes over what of the settings concerns the state. 0, or -1 if there was no memory, or it is closing. */
int engine_obey(struct engine *e, const struct config *config);

#endif
