/* The composition root: options, limits, listeners, privileges, threads, orderly stop. The order matters: signals have
 * a reader before a script runs, ports are bound before privileges drop, and a daemon's parent hears of success only
 * when every worker accepts. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/listener.h"
#include "api/server.h"
#include "core/control/access_log.h"
#include "core/control/coordinator.h"
#include "core/control/list_load.h"
#include "core/control/supervisor.h"
#include "core/control/workers.h"
#include "core/io/log.h"
#include "core/process/config_check.h"
#include "core/process/config_dump.h"
#include "core/process/egress_options.h"
#include "core/process/listen.h"
#include "core/process/options.h"
#include "core/process/process.h"
#include "core/session/config.h"
#include "lua/engine/engine.h"

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
        if (first && listen_learn_port(fds[i], &listener->address, &listener->text) < 0) return -1;
    }
    return 0;
}

/* By the supervisor, if the process ends in the middle of something. */
static void main_remove_files(void)
{
    for (uint32_t i = 0; i < config.listener_count; i++) listen_remove(&config.listeners[i]);
    api_remove(&config);
}

static void main_close_listeners(const int *fds)
{
    for (uint32_t i = 0; i < config.listener_count; i++) {
        if (config.listeners[i].address.kind == ADDRESS_UNIX) close(fds[i]);
        listen_remove(&config.listeners[i]);
    }
}

/* Everything that exists at most once, in the order of its making. */
static struct {
    struct supervisor *supervisor;
    struct coordinator *coordinator;
    struct access_log *access_log;
    struct engine *engine;
    struct api *api;
    int *fds;       /* listening sockets, worker by worker */
    bool listening; /* all of them are open */
    bool said;      /* why it cannot start */
    int api_fd;
} parts = {.api_fd = -1};

/* What clients must not be led into. */
static void main_note_doors(const int *fds)
{
    struct own *own = coordinator_own(parts.coordinator);
    for (uint32_t i = 0; i < config.listener_count; i++) {
        enum listener_kind kind = config.listeners[i].kind;
        own_add(own, fds[i], (uint8_t)i, kind == LISTENER_FORWARD || kind == LISTENER_TPROXY);
    }
    if (parts.api_fd >= 0) own_add(own, parts.api_fd, OWN_NO_LISTENER, false);
}

static void main_reload_api(void *context)
{
    api_reload(context);
}

/* Settings that SIGHUP brings: what lua/ cannot judge. */
static bool main_judge(void *context, const struct config *fresh)
{
    (void)context;
    return api_check(fresh) == 0 && egress_options_check_rights(fresh) == 0;
}

/* What the check has to say is on stderr, whatever the log is. */
static int main_check_boot(void)
{
    int error = config_check(&config);
    parts.said = error < 0;
    return error;
}

/* Lua is there for scripts, and for the API, which answers for them. */
static int main_open_scripts(void)
{
    if (!config.ruleset && !config.boot && !config.api_text && config.script_count == 0) return 0;
    int error = engine_open(&parts.engine, parts.coordinator);
    if (error == 0) engine_set_judge(parts.engine, main_judge, NULL);
    if (error == 0) error = engine_boot(parts.engine, &config);
    if (error == 0 && config.boot) error = main_check_boot();
    if (error == 0 && config.boot && config.nameservers)
        error = coordinator_set_nameservers(parts.coordinator, config.nameservers);
    if (error == 0 && config.boot) error = coordinator_set_way(parts.coordinator, &config.egress, RESOLVER_AS_BEFORE);
    if (error == 0) error = engine_load_scripts(parts.engine, &config);
    return error;
}

/* SIGHUP reads these again, as the user that we are now. */
static void main_look_at_script(const char *option, const char *path)
{
    if (!path || strcmp(path, "-") == 0 || access(path, R_OK) == 0) return;
    LOGW("%s %s: %s for the user of -u, so that SIGHUP could not read it again; let that user read it", option, path,
         strerror(errno));
}

static int main_drop_privileges(void)
{
    bool marks = egress_options_mark_packets(&config);
    if (!config.user) return egress_options_check_rights(&config);
    int error = process_drop_privileges(config.user, marks);
    if (error == 0) error = egress_options_check_rights(&config);
    if (error == 0 && geteuid() != 0)
        error = coordinator_set_way(parts.coordinator, &config.egress, marks ? RESOLVER_MARKS : RESOLVER_NOTHING);
    if (error < 0) return error;
    main_look_at_script("--ruleset", config.ruleset);
    main_look_at_script("--config", config.boot);
    for (uint32_t i = 0; i < config.list_count; i++)
        if (config.lists_given[i].text[0] == '@') main_look_at_script("list", config.lists_given[i].text + 1);
    for (uint32_t i = 1; i <= config.user_file_count; i++) main_look_at_script("--users", config.user_files[i]);
    return 0;
}

/* As the user that starts us; SIGHUP reads the files again as the user that we are then. */
static int main_load_lists(void)
{
    char why[LIST_WHY_SIZE];
    int error = list_load(&config, &config.lists, why, sizeof why);
    if (error < 0) LOGE("%s", why);
    return error;
}

/* Whether it could be opened, and no trace of having tried. */
static int main_check_access_log(void)
{
    enum sink_kind kind;
    const char *path;
    if (!config.access_log) return 0;
    (void)access_log_place(config.access_log, &kind, &path);
    bool fresh = kind == SINK_FILE && access(path, F_OK) < 0;
    int error = access_log_open(&parts.access_log, &config);
    if (error == 0 && fresh) unlink(path);
    return error;
}

/* What a start would do next, but for the ports, which a process that is to be replaced may still have. */
static int main_check(void)
{
    int error = main_check_access_log();
    if (error == 0) error = main_drop_privileges();
    if (error == 0) error = api_check(&config);
    if (error == 0 && !engine_requires_auth(parts.engine)) config_warn_open(&config);
    if (error == 0) puts("configuration is valid");
    return error == 0 && fflush(stdout) == 0 ? 0 : -1;
}

/* The user that we become is to find it its own when it is opened again. What somebody else has written is not ours to
 * give away. */
static int main_open_access_log(void)
{
    enum sink_kind kind;
    const char *path;
    struct stat status;
    if (!config.access_log) return 0;
    int error = access_log_open(&parts.access_log, &config);
    if (error < 0) return error;
    coordinator_set_access_log(parts.coordinator, parts.access_log);
    (void)access_log_place(config.access_log, &kind, &path);
    if (config.user && kind == SINK_FILE && lstat(path, &status) == 0 && S_ISREG(status.st_mode) && status.st_size == 0)
        process_give_file(config.user, path);
    return 0;
}

static void main_look_at_access_log(void)
{
    enum sink_kind kind;
    const char *path;
    (void)access_log_place(config.access_log, &kind, &path);
    if (kind != SINK_FILE || access(path, W_OK) == 0) return;
    LOGW("--access-log %s: %s for the user of -u, so that it could not be opened again when it is rotated; let that "
         "user write to it and to its folder",
         path, strerror(errno));
}

static const char *main_name_rule(const void *context, uint32_t tag)
{
    return context ? engine_tag(context, tag) : NULL;
}

/* All ports, with the privileges that this may take; then these are given up. */
static int main_open_ports(void)
{
    parts.fds = calloc((size_t)config.workers * config.listener_count + 1, sizeof *parts.fds);
    if (!parts.fds) return -1;
    int error = main_open_listeners(parts.fds);
    parts.listening = error == 0; /* else a file of a Unix listener may be somebody else's */
    if (error == 0 && config.api_text) {
        parts.api_fd = api_listen(&config);
        error = parts.api_fd < 0 ? -1 : listen_learn_port(parts.api_fd, &config.api, &config.api_text);
    }
    if (error == 0) main_note_doors(parts.fds);
    if (error == 0) supervisor_set_last(parts.supervisor, main_remove_files);
    if (error == 0 && config.user) error = coordinator_make_pipes(parts.coordinator);
    if (error == 0) error = main_open_access_log();
    if (error == 0) error = main_drop_privileges();
    if (error == 0 && config.user && config.access_log) main_look_at_access_log();
    return error;
}

static int main_open_api(void)
{
    if (!config.api_text) return 0;
    int error = api_open(&parts.api, parts.supervisor, parts.coordinator, parts.engine, &config, parts.api_fd);
    if (error == 0) coordinator_set_reload(parts.coordinator, main_reload_api, parts.api);
    return error;
}

static int main_serve(void)
{
    int error = 0;
    if (parts.access_log) error = access_log_start(parts.access_log, main_name_rule, parts.engine);
    if (error == 0) error = coordinator_start(parts.coordinator, parts.fds);
    if (error < 0) return error;
    if (config.daemonize) process_daemonize_ready(0, NULL);
    if (!engine_requires_auth(parts.engine)) config_warn_open(&config);
    if (config.api_text) LOGN("API on %s", config.api_text);
    for (uint32_t i = 0; i < config.listener_count; i++) LOGN("listening on %s", config.listeners[i].text);
    engine_start_scripts(parts.engine);
    supervisor_set_serving(parts.supervisor);
    return coordinator_run(parts.coordinator);
}

/* The last line, when everything is done that it speaks of. */
static void main_say_end(void)
{
    unsigned long long resets = (unsigned long long)coordinator_drain_resets(parts.coordinator);
    if (resets == 0)
        LOGN("server shutdown gracefully");
    else
        LOGN("server stopped: %llu sessions were left when --drain was over, and reset", resets);
}

static void main_close(bool served)
{
    if (parts.coordinator) coordinator_set_reload(parts.coordinator, NULL, NULL);
    access_log_stop(parts.access_log); /* it asks the engine for names */
    api_close(parts.api);
    if (parts.listening) main_close_listeners(parts.fds);
    engine_close(parts.engine);
    supervisor_close(parts.supervisor);
    log_flush();
    if (served) main_say_end();
    if (parts.coordinator) coordinator_close(parts.coordinator);
    access_log_close(parts.access_log); /* workers had it to the last */
    free(parts.fds);
}

/* status: that a script has asked for, or -1. */
static int main_run(int *status)
{
    bool served = false;
    tzset(); /* now, while there is one thread: later the C library only looks whether TZ is another */
    int error = config.check_only || config.dump_only ? 0 : supervisor_open(&parts.supervisor);
    if (error == 0) error = coordinator_open(&parts.coordinator, &config);
    if (error == 0 && parts.supervisor) supervisor_attach(parts.supervisor, parts.coordinator);
    if (error == 0) error = main_open_scripts();
    if (error == 0 && coordinator_exit_status(parts.coordinator) >= 0) error = -1; /* a script has ended it */
    if (error == 0 && !config.dump_only) error = main_load_lists();
    if (error == 0 && !config.dump_only) error = coordinator_open_users(parts.coordinator, &config);
    if (error == 0 && config.dump_only) {
        error = config_dump(&config);
        parts.said = error < 0;
    } else if (error == 0 && config.check_only) {
        error = main_check();
    } else {
        if (error == 0) error = main_open_ports();
        if (error == 0) error = main_open_api();
        if (error == 0) {
            error = main_serve();
            served = error == 0;
        }
    }
    *status = parts.coordinator ? coordinator_exit_status(parts.coordinator) : -1;
    main_close(served);
    return error;
}

/* Whoever typed the command sees that it has failed, also when the log is silent. */
static void main_say_failure(void)
{
    bool silent = config.log_target == LOG_DISCARD || !LOG_ON(LOG_LEVEL_ERROR);
    if (silent && !parts.said)
        fputs("sluice: it cannot start; give --loglevel 4 and --log stderr to see why\n", stderr);
}

int main(int argc, char **argv)
{
    process_open_standard();
    config_defaults(&config);
    process_raise_descriptors();
    switch (config_parse(&config, argc, argv)) {
    case CONFIG_EXIT_SUCCESS: return EXIT_SUCCESS;
    case CONFIG_EXIT_FAILURE: return EXIT_FAILURE;
    case CONFIG_RUN: break;
    }
    signal(SIGPIPE, SIG_IGN);
    /* A -c script may bring what is missing: then the check comes behind it. */
    if (!config.boot && config_check(&config) < 0) return EXIT_FAILURE;
    if (config.daemonize && !config.check_only && !config.dump_only && process_daemonize_begin() < 0)
        return EXIT_FAILURE;
    int status, error = main_run(&status);
    if (error < 0 && status < 0) main_say_failure();
    if (error < 0 && config.daemonize) process_daemonize_ready(error, NULL); /* its log line has said why */
    if (status >= 0) return status;
    return error < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
