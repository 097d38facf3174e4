/* What the files of boot/ share: the way from nothing to a state that runs (start.c), the scripts of the command line
 * (boot.c), the table of settings (settings.c), SIGHUP (reload.c), and scripts that run by themselves (script.c). */
#ifndef SLUICE_LUA_BOOT_BOOT_H
#define SLUICE_LUA_BOOT_BOOT_H

#include "lua/engine/load.h"
#include "lua/engine/state.h"

/* One for the process, in struct engine of the root. */
struct boot {
    bool (*judge)(void *context, const struct config *fresh); /* boot.c; NULL: nobody */
    void *judge_context;
    struct script *scripts; /* script.c, in the order of their starts */
};

/* A script of the command line that is being read. */
struct boot_file {
    const char *path;
    const struct engine_text *text;
    struct config *config; /* a copy that is written to */
};

/* The coordinator's hooks, or those by which a test asks. */
struct coordinator_hooks boot_hooks(struct engine *root);

/* Reads and runs a file in a protected call of `function`, which gets a struct boot_file with `config`. 0, and its hash
 * is the engine's; or -1 and the reason. */
int boot_run_file(struct engine *e, const char *path, lua_CFunction function, struct config *config,
                  struct engine_text *error);
const char *boot_error_text(const struct engine_text *error); /* never NULL */

/* --- in protected calls; the argument is a light userdata --- */
int boot_run(lua_State *L); /* struct boot_file: a -c file; its table is taken, its ruleset becomes the global */
int boot_run_ruleset(
    lua_State *L); /* struct boot_file: a -r file, whose table becomes the global; reads `config` only */
int boot_has_ruleset(lua_State *L); /* bool: whether the global `ruleset` is a table */

void boot_reload(struct engine *e); /* SIGHUP */

/* --- settings.c --- */

/* Raises for what is wrong in the table on top of the stack; else its values are in file->config, and a copy of its own
 * fields stands in its place. */
void settings_take(lua_State *L, const struct boot_file *file);
int settings_push_all(lua_State *L); /* neosocksd.config() */
int settings_push_one(lua_State *L); /* neosocksd.setting(name) */

#endif
