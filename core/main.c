/* The composition root: options, limits, listeners, privileges, threads, orderly stop. The order matters: ports are
 * bound before privileges drop, and a daemon's parent hears of success only when every worker accepts. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "coordinator.h"
#include "listen.h"
#include "log.h"
#include "process.h"

static struct config config;

/* One socket per worker and listener; a Unix socket is one file and therefore shared. */
static int main_open_listeners(int *fds)
{
    for (uint32_t i = 0; i < config.workers * config.listener_count; i++) {
        struct listener_config *listener = &config.listeners[i % config.listener_count];
        bool first = i < config.listener_count;
        if (!first && listener->address.kind == ADDRESS_UNIX)
            fds[i] = fds[i % config.listener_count];
        else
            fds[i] = listen_open(&config, listener, first);
        if (fds[i] < 0) return -1; /* the process ends, and with it what is open */
    }
    return 0;
}

static void main_close_listeners(const int *fds)
{
    for (uint32_t i = 0; i < config.listener_count; i++) {
        if (config.listeners[i].address.kind == ADDRESS_UNIX) close(fds[i]);
        listen_remove(&config.listeners[i]);
    }
}

static int main_serve(const int *fds)
{
    struct coordinator *coordinator = NULL;
    int error = coordinator_open(&coordinator, &config);
    if (error == 0) error = coordinator_start(coordinator, fds);
    if (error == 0) {
        if (config.daemonize) process_daemonize_ready(0, NULL);
        for (uint32_t i = 0; i < config.listener_count; i++) LOGN("listening on %s", config.listeners[i].text);
        error = coordinator_run(coordinator);
    }
    if (coordinator) coordinator_close(coordinator);
    return error;
}

/* With the ports bound: privileges, threads, traffic. */
static int main_run(void)
{
    int *fds = calloc((size_t)config.workers * config.listener_count, sizeof *fds);
    if (!fds) return -1;
    int error = main_open_listeners(fds);
    if (error == 0) {
        if (config.user) error = process_drop_privileges(config.user);
        if (error == 0) error = main_serve(fds);
        main_close_listeners(fds);
    }
    free(fds);
    return error;
}

int main(int argc, char **argv)
{
    config_defaults(&config);
    process_raise_descriptors();
    switch (config_parse(&config, argc, argv)) {
    case CONFIG_EXIT_SUCCESS: return EXIT_SUCCESS;
    case CONFIG_EXIT_FAILURE: return EXIT_FAILURE;
    case CONFIG_RUN: break;
    }
    signal(SIGPIPE, SIG_IGN);
    if (config_check(&config) < 0) return EXIT_FAILURE;
    if (config.daemonize && process_daemonize_begin() < 0) return EXIT_FAILURE;
    int error = main_run();
    if (error < 0 && config.daemonize) process_daemonize_ready(error, NULL); /* its log line has said why */
    return error < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
