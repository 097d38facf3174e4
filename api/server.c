#include "api/server.h"

#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/fields.h"
#include "api/listener.h"
#include "api/listing.h"
#include "api/recorder.h"
#include "api/visit.h"
#include "core/control/supervisor.h"
#include "core/io/log.h"

#define REST_MS 100u /* before we look again whether there is a descriptor */

/* All of it is the supervisor's, but what visits.lending gives to the coordinator. */
struct api {
    struct guest guest;
    struct api_parts parts;
    struct access_tokens tokens;
    struct recorder *recorder; /* the coordinator's */
    struct MHD_Daemon *daemon;
    struct peers peers;
    struct visits visits;
    const struct config *config;
    const char *token_file;
    uint64_t sweep_ms; /* the next one */
    uint64_t rest_ms;  /* until then no connection is taken, for want of a descriptor; 0: all are */
    uint64_t due_ms;   /* when libmicrohttpd wants to run; UINT64_MAX: not */
    uint64_t entered;  /* connections so far */
};

/* --- what libmicrohttpd calls --- */

/* The first that is heard of a request, and the only time that its URL is as it was sent. */
static void *on_url(void *context, const char *url, struct MHD_Connection *connection)
{
    struct api *api = context;
    struct visit *visit = visit_open(&api->visits, connection);
    if (!visit) return NULL;
    visit->call->sound = fields_url_is_sound(url);
    visit->call->url_end = url + strlen(url);
    return visit;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **state)
{
    struct api *api = context;
    struct visit *visit = *state;
    (void)connection;
    if (!visit || !visit->call) return MHD_NO; /* there was no memory for it */
    struct call *call = visit->call;
    if (!visit->begun) return visit_begin(visit, url, method, version);
    if (*size > 0) {
        counter_add(&api->visits.lending.bytes_in, *size);
        if (!visit->dispatched && call->body.size + *size <= CALL_BODY_MAX) text_add(&call->body, data, *size);
        *size = 0;
        return MHD_YES;
    }
    if (visit->dispatched) return call->answered ? visit_answer(visit) : MHD_NO;
    return visit_dispatch(visit);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)context, (void)connection, (void)code;
    if (*state) visit_close(*state);
    *state = NULL;
}

static void log_connection(struct MHD_Connection *connection)
{
    char peer[ADDRESS_TEXT_SIZE];
    call_peer_text(connection, peer, sizeof peer);
    LOGI("api: connection from %s", peer);
}

static void on_connection(void *context, struct MHD_Connection *connection, void **state,
                          enum MHD_ConnectionNotificationCode code)
{
    struct api *api = context;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    uint64_t now = supervisor_now_ms(api->parts.supervisor);
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*state) peers_give(&api->peers, *state);
        *state = NULL;
        api->visits.run_again = true;
        return;
    }
    if (api->peers.count == 0) api->sweep_ms = now + PEERS_SWEEP_MS;
    api->entered++;
    counter_add(&api->visits.lending.connections, 1);
    if (LOG_ON(LOG_LEVEL_INFO)) log_connection(connection);
    *state = info ? peers_take(&api->peers, info->connect_fd, now) : NULL;
}

static void on_log(void *context, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));
static void on_log(void *context, const char *format, va_list arguments)
{
    char line[LOG_TEXT_MAX];
    (void)context;
    int size = vsnprintf(line, sizeof line, format, arguments);
    if (size > 0 && (size_t)size < sizeof line && line[size - 1] == '\n') line[size - 1] = '\0';
    LOGD("api: %s", line);
}

/* --- on the supervisor's thread --- */

static uint64_t api_sweep(struct api *api, uint64_t now_ms)
{
    if (api->peers.count == 0) return UINT64_MAX;
    if (now_ms < api->sweep_ms) return api->sweep_ms;
    peers_sweep(&api->peers, now_ms, coordinator_timeout_ms(api->parts.coordinator));
    visits_drop_gone(&api->visits);
    api->sweep_ms = now_ms + PEERS_SWEEP_MS;
    return api->sweep_ms;
}

/* Somebody knocks, nobody was here, and nobody has come in: accept() has failed. libmicrohttpd goes on listening then,
 * which would wake us for ever. */
static void api_run(struct api *api, uint64_t now_ms, bool ready)
{
    bool empty = api->peers.count == 0;
    uint64_t entered = api->entered;
    api->visits.run_again = false;
    MHD_run(api->daemon);
    api->rest_ms = ready && empty && entered == api->entered ? now_ms + REST_MS : 0;
    api->guest.paused = api->rest_ms > 0;
}

/* At its limit of connections or of descriptors libmicrohttpd takes its listener out of its epoll, and puts it back
 * when it runs for the first time after there is room again. Nobody else would ask for that run. */
static uint64_t api_turn(struct guest *guest, uint64_t now_ms, bool ready)
{
    struct api *api = (struct api *)guest;
    MHD_UNSIGNED_LONG_LONG wait;
    uint64_t next_ms = visits_expire(&api->visits, now_ms), sweep_ms = api_sweep(api, now_ms);
    bool rested = api->rest_ms > 0 && now_ms >= api->rest_ms;
    if (ready || api->visits.run_again || rested || now_ms >= api->due_ms) api_run(api, now_ms, ready);
    if (api->visits.run_again) return 0;
    if (sweep_ms < next_ms) next_ms = sweep_ms;
    if (api->rest_ms > 0 && api->rest_ms < next_ms) next_ms = api->rest_ms;
    api->due_ms = !api->rest_ms && MHD_get_timeout(api->daemon, &wait) == MHD_YES ? now_ms + wait : UINT64_MAX;
    if (api->due_ms < next_ms) next_ms = api->due_ms;
    return next_ms > now_ms ? next_ms - now_ms : 0;
}

/* --- opening and closing --- */

int api_check(const struct config *config)
{
    static struct access_tokens tokens;
    if (!config->api_text || !config->api_token_file) return 0;
    int error = access_load_tokens(config->api_token_file, &tokens);
    explicit_bzero(&tokens, sizeof tokens);
    return error;
}

static bool api_start(struct api *api, int listen_fd)
{
    /* STRICT_FOR_CLIENT -1: HTTP/1.1 without Host, which neosocksd sends, is served. */
    api->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, api,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_CONNECTION_LIMIT,
        PEERS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)65536, MHD_OPTION_URI_LOG_CALLBACK, on_url, api,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, api, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
        MHD_OPTION_STRICT_FOR_CLIENT, -1, MHD_OPTION_END);
    if (!api->daemon) return false;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(api->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    api->guest.fd = info ? info->epoll_fd : -1;
    return api->guest.fd >= 0;
}

/* Undoes what api_open() has begun. */
static void api_dispose(struct api *api)
{
    if (api->daemon) MHD_stop_daemon(api->daemon);
    api_remove(api->config);
    explicit_bzero(&api->tokens, sizeof api->tokens);
    free(api);
}

static void api_move_in(void *context)
{
    struct api *api = context;
    supervisor_set_guest(api->parts.supervisor, &api->guest);
}

int api_open(struct api **out, struct supervisor *s, struct coordinator *c, struct engine *e,
             const struct config *config, int listen_fd)
{
    struct api *api = calloc(1, sizeof *api);
    if (!api) return -ENOMEM;
    api->parts = (struct api_parts){
        .coordinator = c, .supervisor = s, .engine = e, .tokens = &api->tokens, .started = snapshot_monotonic()};
    api->guest.turn = api_turn;
    api->due_ms = UINT64_MAX;
    visits_open(&api->visits, &api->parts);
    api->token_file = config->api_token_file;
    api->config = config;
    bool good = !api->token_file || access_load_tokens(api->token_file, &api->tokens) == 0;
    if (good && !api_start(api, listen_fd)) {
        LOGE("--api %s: the HTTP server could not be started; raise ulimit -n", config->api_text);
        good = false;
    }
    if (!good) {
        api_dispose(api);
        return -EINVAL;
    }
    api->parts.listings = listings_open(c);
    api->recorder = api->parts.listings ? recorder_open(&api->parts) : NULL;
    if (!api->recorder) {
        LOGE("--api %s: there is no memory for its history", config->api_text);
        listings_close(api->parts.listings);
        api_dispose(api);
        return -ENOMEM;
    }
    engine_set_api_reader(e, lend_read_counters, &api->visits.lending);
    supervisor_do(s, api_move_in, api);
    *out = api;
    return 0;
}

struct api_reloading {
    struct api *api;
    const struct access_tokens *fresh;
};

static void api_take_tokens(void *context)
{
    const struct api_reloading *reloading = context;
    reloading->api->tokens = *reloading->fresh;
}

/* The file is read here, on the coordinator's thread: it may be a pipe, or on a server that does not answer, and
 * nothing may hold the supervisor. */
void api_reload(struct api *api)
{
    api->token_file = coordinator_config(api->parts.coordinator)->api_token_file; /* a -c script may name another one */
    if (!api->token_file) return;
    struct access_tokens *fresh = calloc(1, sizeof *fresh);
    if (!fresh) {
        LOGE("--api-token-file %s: %s; the old tokens stay", api->token_file, strerror(ENOMEM));
        return;
    }
    if (access_load_tokens(api->token_file, fresh) == 0) {
        supervisor_do(api->parts.supervisor, api_take_tokens, &(struct api_reloading){api, fresh});
        LOGN("api: %zu %s in force", fresh->count, fresh->count == 1 ? "token" : "tokens");
    }
    explicit_bzero(fresh, sizeof *fresh);
    free(fresh);
}

/* Whoever waits is answered; then there is no connection any more. */
static void api_move_out(void *context)
{
    struct api *api = context;
    visits_end(&api->visits);
    for (int i = 0; i < 2; i++) MHD_run(api->daemon); /* what has been resumed is written */
    supervisor_set_guest(api->parts.supervisor, NULL);
    MHD_stop_daemon(api->daemon);
    api->daemon = NULL;
}

static void nothing(void *context)
{
    (void)context;
}

/* On the coordinator's thread. Calls that are on their way in either direction are met before their memory goes. */
void api_close(struct api *api)
{
    if (!api) return;
    lend_close(&api->visits.lending);
    listings_close(api->parts.listings);
    recorder_close(api->recorder);
    engine_set_api_reader(api->parts.engine, NULL, NULL);
    supervisor_do(api->parts.supervisor, api_move_out, api);
    coordinator_deliver(api->parts.coordinator);
    supervisor_do(api->parts.supervisor, nothing, NULL);
    if (!api->visits.lending.held)
        api_dispose(api); /* else a worker has kept an errand: its ring broke, the process ends */
}
