/* Shells of scripts: a session of their own, no descriptors but the standard ones, signals as a shell expects them. */
#ifndef SLUICE_LUA_ENGINE_SPAWN_H
#define SLUICE_LUA_ENGINE_SPAWN_H

#include <lua.h>
#include <sys/types.h>

struct spawned {
    pid_t pid; /* of the child, of its session and process group; not reaped, so that it is nobody else's */
    int pidfd; /* -1: none to be had */
};

/* Runs `sh -c command`. fd: becomes the child's descriptor `as`; -1: none does. 0 or an errno. */
int spawn_shell(struct spawned *child, const char *command, int fd, int as);
/* Ends it and what it has started in its process group. */
void spawn_kill(const struct spawned *child);
/* Waits for its end within the time budget; what lasts longer is killed. The wait status; the budget's end is raised
 * later, by whoever looks next. Closes the pidfd. */
int spawn_wait(lua_State *L, struct spawned *child);

#endif
