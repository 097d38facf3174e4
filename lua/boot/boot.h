/* What boot.c, settings.c and reload.c share: scripts of the command line that are being read. */
#ifndef SLUICE_LUA_BOOT_BOOT_H
#define SLUICE_LUA_BOOT_BOOT_H

#include "lua/engine/load.h"
#include "lua/engine/state.h"

struct boot {
    const char *path;
    const struct load_text *text;
    struct config *config; /* a copy that is written to */
};

/* Reads and runs a file in a protected call of `function`, which gets a struct boot if there is `config`, else the text
 * (struct load_text). 0, and its hash is the engine's; or -1 and the reason. */
int boot_run_file(struct engine *e, const char *path, lua_CFunction function, struct config *config,
                  struct engine_text *error);
const char *boot_error_text(const struct engine_text *error); /* never NULL */

/* --- in protected calls; the argument is a light userdata --- */
int boot_run(lua_State *L);         /* struct boot: a -c file; its table is taken, its ruleset becomes the global */
int boot_run_ruleset(lua_State *L); /* struct load_text: a -r file; its table becomes the global */
int boot_has_ruleset(lua_State *L); /* bool: whether the global `ruleset` is a table */
int boot_obey(lua_State *L);        /* struct config: the limits of scripts follow it */

/* Raises for what is wrong in the table on top of the stack; else its values are in boot->config, and a copy of its own
 * fields stands in its place. */
void settings_take(lua_State *L, const struct boot *boot);

#endif
