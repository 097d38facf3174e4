/* Entries: Lua runs only between engine_enter() and engine_leave(), or in engine_protect(), which is both. An entry has
 * the time budget, is measured, and is what other threads see as running (heartbeat.h). */
#ifndef SLUICE_LUA_ENGINE_ENTRY_H
#define SLUICE_LUA_ENGINE_ENTRY_H

#include <lua.h>
#include <stdbool.h>

#include "lua/engine/engine.h"

struct engine *engine_of(lua_State *L); /* of any of its threads */
struct coordinator *engine_coordinator(struct engine *e);
bool engine_is_closing(const struct engine *e); /* the process ends, and the loop turns for what is left only */

/* For events that call Lua otherwise than by coroutine_resume(). Entries of one state do not nest: what is entered
 * within one is part of it. */
void engine_enter(struct engine *e);
void engine_leave(struct engine *e);
/* Runs `function` in protected mode as an entry of its own, with `argument` as its light userdata. 0, or -1: the error
 * is in `error` (may be NULL) as text. */
int engine_protect(struct engine *e, lua_CFunction function, void *argument, struct engine_text *error);

/* A message handler: with --traceback, a string gets one. Everything else stays as it is. */
int engine_message(lua_State *L);
/* The text of the error object at `index`; never raises, lives as long as that value. */
const char *engine_error_text(lua_State *L, int index);
/* An error that nobody caught: becomes stats().lasterror. */
void engine_note_error(struct engine *e, const char *text);

#endif
