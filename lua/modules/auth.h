/* Clients that must say who they are because the ruleset wants it: its field `auth = "required"`, which is for a script
 * what --auth-required is on the command line. */
#ifndef SLUICE_LUA_MODULES_AUTH_H
#define SLUICE_LUA_MODULES_AUTH_H

#include <lua.h>
#include <stdbool.h>

struct config;
struct engine;

/* The value at `ruleset` is about to become the ruleset, with these settings. Raises where nobody would judge the
 * credentials that clients then must give. asked: whether they were wanted when the script was loaded already. */
void auth_judge(lua_State *L, int ruleset, const struct config *config, bool asked);
/* Behind the installation: whether the ruleset in force wants credentials. Warns of secrets that nobody is asked for.
 * required: the settings want them. */
bool auth_read(struct engine *e, bool required);

#endif
