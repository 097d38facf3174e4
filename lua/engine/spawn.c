#include "lua/engine/spawn.h"

#include <errno.h>
#include <lauxlib.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lua/engine/limits.h"

/* How often spawn_wait() looks at the clock. */
#define WAIT_LOOK_MS 10
/* A child that was killed is gone by then, but where the kernel does not let it die. */
#define WAIT_KILLED_LOOKS 100

static int spawn_with(struct spawned *child, const char *command, posix_spawnattr_t *attributes,
                      posix_spawn_file_actions_t *actions, int fd, int as)
{
    char *argv[] = {"sh", "-c", (char *)command, NULL};
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(attributes, &none);
    posix_spawnattr_setsigdefault(attributes, &all);
    posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int error = fd >= 0 ? posix_spawn_file_actions_adddup2(actions, fd, as) : 0;
    if (error == 0) error = posix_spawn_file_actions_addclosefrom_np(actions, STDERR_FILENO + 1);
    return error != 0 ? error : posix_spawn(&child->pid, "/bin/sh", actions, attributes, argv, environ);
}

int spawn_shell(struct spawned *child, const char *command, int fd, int as)
{
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    int error = posix_spawnattr_init(&attributes);
    if (error != 0) return error;
    error = posix_spawn_file_actions_init(&actions);
    if (error == 0) {
        error = spawn_with(child, command, &attributes, &actions, fd, as);
        posix_spawn_file_actions_destroy(&actions);
    }
    posix_spawnattr_destroy(&attributes);
    if (error == 0) child->pidfd = pidfd_open(child->pid, 0);
    return error;
}

void spawn_kill(const struct spawned *child)
{
    kill(-child->pid, SIGKILL);
}

/* Whether it has ended. */
static bool spawn_look(const struct spawned *child, int *status)
{
    struct pollfd one = {.fd = child->pidfd, .events = POLLIN};
    poll(&one, child->pidfd >= 0, WAIT_LOOK_MS);
    pid_t reaped = waitpid(child->pid, status, WNOHANG);
    return reaped == child->pid || (reaped < 0 && errno != EINTR);
}

int spawn_wait(lua_State *L, struct spawned *child)
{
    int status = 0;
    bool killed = false;
    for (int looks = 0; !spawn_look(child, &status) && looks < WAIT_KILLED_LOOKS;) {
        if (killed) looks++;
        if (killed || !limits_look(limits_of(L))) continue;
        spawn_kill(child);
        killed = true;
    }
    if (child->pidfd >= 0) close(child->pidfd);
    return status;
}
