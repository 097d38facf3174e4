#include "api/server.h"

#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/answer_size.h"
#include "api/call.h"
#include "api/endpoints.h"
#include "api/fields.h"
#include "api/health.h"
#include "api/judge.h"
#include "api/lend.h"
#include "api/peers.h"
#include "api/recorder.h"
#include "core/control/supervisor.h"
#include "core/io/log.h"
#include "core/io/net.h"
#include "core/process/listen.h"
#include "core/process/process.h"
#include "lua/engine/codec.h"

#define COMPRESS_MIN 256u /* octets: shorter answers are not worth it */
#define BACKLOG      128
#define REST_MS      100u /* before we look again whether there is a descriptor */
/* Calls that wait for scripts as long as these want. The rest of the connections stays for the others. */
#define WAITING_MAX 128u
static_assert(WAITING_MAX < PEERS_MAX, "some connections are always for those that do not wait");

/* A request on its connection, as long as that has to do with it. */
struct visit {
    struct api *api;
    struct MHD_Connection *connection;
    struct call *call;
    struct visit *next, *previous; /* of all */
    struct peer *peer;             /* its connection; NULL: not known */
    uint64_t serial;               /* of the call that is lent */
    uint64_t since_ms, end_ms;     /* suspended: since when, and when it is answered by ourselves */
    bool begun, dispatched, succeeded;
    bool suspended; /* its call is lent */
};

/* All of it is the supervisor's, but what struct lending gives to the coordinator. */
struct api {
    struct guest guest;
    struct api_parts parts;
    struct lending lending;
    struct access_tokens tokens;
    struct recorder *recorder; /* the coordinator's */
    struct MHD_Daemon *daemon;
    struct peers peers;
    struct visit *visits;
    const struct config *config;
    const char *token_file;
    uint64_t sweep_ms; /* the next one */
    bool closing;
    bool run_again;   /* a call is answered; or a connection has ended, so that there is room for another one */
    uint64_t rest_ms; /* until then there is no descriptor for who knocks; 0: it does not rest */
    uint64_t due_ms;  /* when libmicrohttpd wants to run; UINT64_MAX: not */
    uint64_t entered; /* connections so far */
};

/* --- answers --- */

static enum codec choose_coding(struct call *call)
{
    if (call->answer.size < COMPRESS_MIN) return CODEC_NONE;
    return fields_choose_codec(call_header(call, MHD_HTTP_HEADER_ACCEPT_ENCODING));
}

static void add_header(struct MHD_Response *response, const char *name, const char *value)
{
    MHD_add_response_header(response, name, value);
}

static void add_policy(struct call *call, struct MHD_Response *response)
{
    add_header(response, "X-Content-Type-Options", "nosniff");
    add_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, call->page ? "no-cache" : "no-store");
    if (call->status == 401) add_header(response, "WWW-Authenticate", "Bearer realm=\"sluice\"");
    if (!call->page) return;
    add_header(response, "Content-Security-Policy",
               "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
               "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    add_header(response, "Referrer-Policy", "no-referrer");
}

static void add_allow(struct call *call, struct MHD_Response *response)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "DELETE"};
    char allow[32] = "";
    if (call->status != 405) return;
    unsigned methods = endpoint_methods(call->endpoint);
    for (unsigned i = 0; i < 4; i++) {
        size_t used = strlen(allow);
        if (methods & 1u << i) snprintf(allow + used, sizeof allow - used, "%s%s", used ? ", " : "", names[i]);
    }
    add_header(response, MHD_HTTP_HEADER_ALLOW, allow);
}

/* The body as it goes out; takes it from the call. */
static struct MHD_Response *make_response(struct call *call)
{
    char *packed;
    size_t packed_size, plain_size = call->answer.size;
    enum codec codec = choose_coding(call);
    if (codec != CODEC_NONE &&
        codec_encode(codec, call->answer.data, call->answer.size, &packed, &packed_size) == CODEC_OK) {
        text_free(&call->answer);
        call->answer = (struct text){.data = packed, .size = packed_size};
    } else {
        codec = CODEC_NONE;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(call->answer.size, call->answer.data ? call->answer.data : "",
                                        call->answer.data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!response) return NULL;
    MHD_set_response_options(response, MHD_RF_SEND_KEEP_ALIVE_HEADER, MHD_RO_END); /* as neosocksd says it */
    if (call->method != CALL_HEAD) counter_add(&call->visit->api->lending.bytes_out, call->answer.size);
    call->answer_size = call->answer.size;
    call->answer = (struct text){0};
    if (plain_size >= COMPRESS_MIN) add_header(response, MHD_HTTP_HEADER_VARY, MHD_HTTP_HEADER_ACCEPT_ENCODING);
    if (codec != CODEC_NONE)
        add_header(response, MHD_HTTP_HEADER_CONTENT_ENCODING, codec == CODEC_GZIP ? "gzip" : "deflate");
    return response;
}

/* The call has the connection again. */
static enum MHD_Result visit_answer(struct visit *visit)
{
    struct call *call = visit->call;
    call->connection = visit->connection;
    struct MHD_Response *response = make_response(call);
    if (!response) return MHD_NO;
    if (call->status != 204) add_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, call->type);
    add_policy(call, response);
    add_allow(call, response);
    if (call->status >= 400) add_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    counter_add(&visit->api->lending.bytes_out,
                answer_head_size(response, call->status, call->persists, call->answer_size));
    enum MHD_Result result = MHD_queue_response(call->connection, call->status, response);
    MHD_destroy_response(response);
    visit->succeeded = call->status < 400;
    if (visit->succeeded) counter_add(&visit->api->lending.successes, 1);
    return result;
}

static void visit_enter(struct visit *visit, enum peer_state state)
{
    peers_enter(visit->peer, state, supervisor_now_ms(visit->api->parts.supervisor));
}

/* --- a visit's life --- */

static struct peer *peer_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static struct visit *visit_open(struct api *api, struct MHD_Connection *connection)
{
    struct visit *visit = calloc(1, sizeof *visit);
    struct call *call = visit ? call_new(&api->parts, visit, connection) : NULL;
    if (!call) {
        free(visit);
        return NULL;
    }
    *visit = (struct visit){
        .api = api, .connection = connection, .call = call, .peer = peer_of(connection), .next = api->visits};
    visit_enter(visit, PEER_BUSY);
    if (api->visits) api->visits->previous = visit;
    api->visits = visit;
    counter_add(&api->lending.requests, 1);
    return visit;
}

/* The coordinator keeps what it has, for nobody. */
static void visit_leave_call(struct visit *visit)
{
    visit->call->visit = NULL;
    visit->call = NULL;
    visit->suspended = false;
    lend_withdraw(&visit->api->lending, visit->serial);
}

static void visit_close(struct visit *visit)
{
    struct api *api = visit->api;
    if (!visit->succeeded) counter_add(&api->lending.errors, 1); /* whoever has answered it, if anybody */
    visit_enter(visit, PEER_IDLE);
    if (visit->suspended) visit_leave_call(visit);
    if (visit->call) call_free(visit->call);
    if (visit->previous)
        visit->previous->next = visit->next;
    else
        api->visits = visit->next;
    if (visit->next) visit->next->previous = visit->previous;
    free(visit);
}

static void visit_resume(struct visit *visit)
{
    visit->suspended = false;
    visit_enter(visit, PEER_BUSY);
    MHD_resume_connection(visit->connection);
    visit->api->run_again = true;
}

static void on_returned(struct call *call)
{
    struct visit *visit = call->visit;
    if (visit)
        visit_resume(visit);
    else
        call_free(call);
}

/* Answers what the coordinator has not, or not in time. */
static void visit_give_up(struct visit *visit, unsigned status, const char *message)
{
    struct call *own = call_new(&visit->api->parts, visit, visit->connection);
    if (own) {
        own->endpoint = visit->call->endpoint;
        own->method = visit->call->method;
        call_reply_text(own, status, message);
    }
    visit_leave_call(visit);
    visit->call = own; /* NULL: the connection is closed without an answer */
    visit_resume(visit);
}

/* Its time is over. */
static void visit_expire(struct visit *visit)
{
    char message[HEALTH_TEXT_SIZE] = "the script did not answer in time";
    health_is_stuck(&visit->api->parts, message, sizeof message);
    visit_give_up(visit, visit->call->endpoint->limit_ms > 0 ? 503 : 504, message);
}

static bool visit_waits(const struct visit *visit)
{
    return visit->suspended && visit->call->endpoint->waits;
}

/* A client that has only ended its own side still gets its answer, as long as others need not wait for that: most have
 * simply gone. The one that has waited longest. */
static struct visit *find_half_closed(struct api *api)
{
    struct visit *found = NULL;
    for (struct visit *v = api->visits; v; v = v->next)
        if (visit_waits(v) && (!found || v->since_ms < found->since_ms) && v->peer &&
            peers_look(v->peer) == PEER_HALF_CLOSED)
            found = v;
    return found;
}

/* Whether another call may wait for a script: as one of a few, or in the place of one whose client has most likely
 * gone. */
static bool visits_make_room(struct api *api)
{
    unsigned waiting = 0;
    for (struct visit *v = api->visits; v; v = v->next) waiting += visit_waits(v);
    if (waiting < WAITING_MAX) return true;
    struct visit *other = find_half_closed(api);
    if (other) visit_give_up(other, 503, "others wait, and your side of the connection is closed");
    return other != NULL;
}

static void visits_drop_gone(struct api *api)
{
    for (struct visit *v = api->visits; v; v = v->next)
        if (v->suspended && v->peer && peers_look(v->peer) == PEER_GONE) visit_give_up(v, 503, "nobody is there");
}

/* The next moment at which one's time is over. */
static uint64_t visits_expire(struct api *api, uint64_t now_ms)
{
    uint64_t next = UINT64_MAX;
    for (struct visit *v = api->visits; v; v = v->next) {
        if (!v->suspended) continue;
        uint64_t end_ms = v->end_ms + atomic_load_explicit(&v->call->patience_ms, memory_order_relaxed);
        if (end_ms <= now_ms)
            visit_expire(v);
        else if (end_ms < next)
            next = end_ms;
    }
    return next;
}

/* Lends the call to the coordinator, and waits. */
static enum MHD_Result visit_lend(struct visit *visit)
{
    struct api *api = visit->api;
    struct call *call = visit->call;
    uint64_t now = supervisor_now_ms(api->parts.supervisor);
    uint32_t limit_ms = call->endpoint->limit_ms;
    if (limit_ms == 0) limit_ms = coordinator_timeout_ms(api->parts.coordinator);
    if (lend_is_full(&api->lending, call->endpoint) || (call->endpoint->waits && !visits_make_room(api))) {
        call_reply_text(call, 503, "too many calls wait already, try again later");
        return visit_answer(visit);
    }
    if (!call_copy(call)) {
        call_reply_text(call, 500, "not enough memory");
        return visit_answer(visit);
    }
    visit->since_ms = now;
    visit->end_ms = now + limit_ms;
    visit->suspended = true;
    visit_enter(visit, PEER_WAITS);
    MHD_suspend_connection(visit->connection);
    visit->serial = lend_call(&api->lending, call);
    return MHD_YES;
}

/* The body is whole: what it is coded in is taken off. */
static bool decode_body(struct call *call)
{
    enum codec codec;
    char *plain;
    size_t size;
    if (!fields_read_codec(call_header(call, MHD_HTTP_HEADER_CONTENT_ENCODING), &codec)) {
        judge_refuse(call, 415);
        return false;
    }
    if (codec == CODEC_NONE) return true;
    enum codec_result result =
        codec_decode(codec, call->body.data ? call->body.data : "", call->body.size, CODEC_OUTPUT_MAX, &plain, &size);
    if (result != CODEC_OK) {
        call_reply_text(call, result == CODEC_TOO_LARGE ? 413 : 400, codec_result_text(result));
        return false;
    }
    text_free(&call->body);
    call->body = (struct text){.data = plain, .size = size, .room = size + 1};
    return true;
}

static enum MHD_Result visit_dispatch(struct visit *visit)
{
    struct call *call = visit->call;
    unsigned refused = judge_again(call);
    visit->dispatched = true;
    if (!call->body.data) text_add(&call->body, "", 0);
    if (refused)
        judge_refuse(call, refused);
    else if (call->body.failed)
        call_reply_text(call, 500, "not enough memory");
    else if (visit->api->closing)
        call_reply_text(call, 503, "the server stops");
    else if (decode_body(call) && call->endpoint->outside)
        call->endpoint->outside(call);
    return call->answered ? visit_answer(visit) : visit_lend(visit);
}

static void count_head(struct visit *visit)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(visit->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    if (info) counter_add(&visit->api->lending.bytes_in, info->header_size);
}

/* HTTP/1.1 persists unless the client says otherwise, HTTP/1.0 only if it says so. */
static bool client_persists(struct call *call, const char *version)
{
    const char *connection = call_header(call, MHD_HTTP_HEADER_CONNECTION);
    if (strcmp(version, MHD_HTTP_VERSION_1_1) != 0) return connection && strcasecmp(connection, "keep-alive") == 0;
    return !connection || strcasecmp(connection, "close") != 0;
}

/* The head is there. */
static enum MHD_Result visit_begin(struct visit *visit, const char *url, const char *method, const char *version)
{
    struct call *call = visit->call;
    visit->begun = true;
    count_head(visit);
    call->persists = client_persists(call, version);
    unsigned refused = judge_head(call, url, method, version);
    if (!refused) return MHD_YES;
    visit->dispatched = true;
    judge_refuse(call, refused);
    return judge_drops_body(call, refused) ? MHD_YES : visit_answer(visit);
}

/* The first that is heard of a request, and the only time that its URL is as it was sent. */
static void *on_url(void *context, const char *url, struct MHD_Connection *connection)
{
    struct visit *visit = visit_open(context, connection);
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
        counter_add(&api->lending.bytes_in, *size);
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
        api->run_again = true;
        return;
    }
    if (api->peers.count == 0) api->sweep_ms = now + PEERS_SWEEP_MS;
    api->entered++;
    counter_add(&api->lending.connections, 1);
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
    visits_drop_gone(api);
    api->sweep_ms = now_ms + PEERS_SWEEP_MS;
    return api->sweep_ms;
}

/* Somebody knocks, nobody was here, and nobody has come in: accept() has failed. libmicrohttpd goes on listening then,
 * which would wake us for ever. */
static void api_run(struct api *api, uint64_t now_ms, bool ready)
{
    bool empty = api->peers.count == 0;
    uint64_t entered = api->entered;
    api->run_again = false;
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
    uint64_t next_ms = visits_expire(api, now_ms), sweep_ms = api_sweep(api, now_ms);
    bool rested = api->rest_ms > 0 && now_ms >= api->rest_ms;
    if (ready || api->run_again || rested || now_ms >= api->due_ms) api_run(api, now_ms, ready);
    if (api->run_again) return 0;
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

static int api_listen_fail(const struct config *config, const char *call, int error, int fd)
{
    LOGE("--api %s: %s: %s; %s", config->api_text, call, strerror(error), listen_remedy(error, &config->api, false));
    if (fd >= 0) close(fd);
    return -1;
}

/* A file that a process left behind, which nobody listens on any more. */
static void remove_stale(const struct net_address *address)
{
    const char *path = ((const struct sockaddr_un *)&address->storage)->sun_path;
    struct stat info;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    bool dead = connect(fd, &address->any, address->size) < 0 && errno == ECONNREFUSED;
    close(fd);
    if (dead && stat(path, &info) == 0 && S_ISSOCK(info.st_mode)) unlink(path);
}

/* A Unix socket is open to its owner and, as far as the umask says so, to its group; never to others: whoever can
 * connect can run code here. */
static int bind_closed(int fd, const struct net_address *address)
{
    mode_t mask = umask(S_IRWXO);
    umask(mask | S_IRWXO);
    int error = net_bind(fd, address);
    umask(mask);
    return error;
}

int api_listen(const struct config *config)
{
    struct net_address address;
    int on = 1;
    net_address_from(&config->api, &address);
    if (config->api.kind == ADDRESS_UNIX) remove_stale(&address);
    int fd = net_socket(address.any.sa_family, SOCK_STREAM);
    if (fd < 0) return api_listen_fail(config, "socket", -fd, -1);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int error = bind_closed(fd, &address);
    if (error < 0) return api_listen_fail(config, "bind", -error, fd);
    if (config->api.kind == ADDRESS_UNIX) process_give_file(config->user, config->api.name);
    error = net_listen(fd, BACKLOG);
    return error < 0 ? api_listen_fail(config, "listen", -error, fd) : fd;
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

void api_remove(const struct config *config)
{
    if (config->api_text && config->api.kind == ADDRESS_UNIX) process_remove_socket(config->api.name);
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
    api->lending.parts = &api->parts;
    api->lending.returned = on_returned;
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
    api->recorder = recorder_open(&api->parts);
    if (!api->recorder) {
        LOGE("--api %s: there is no memory for its history", config->api_text);
        api_dispose(api);
        return -ENOMEM;
    }
    engine_set_api_reader(e, lend_read_counters, &api->lending);
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
    api->closing = true;
    for (struct visit *v = api->visits; v; v = v->next)
        if (v->suspended) visit_give_up(v, 503, "the server stops");
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
    lend_close(&api->lending);
    recorder_close(api->recorder);
    engine_set_api_reader(api->parts.engine, NULL, NULL);
    supervisor_do(api->parts.supervisor, api_move_out, api);
    coordinator_deliver(api->parts.coordinator);
    supervisor_do(api->parts.supervisor, nothing, NULL);
    if (!api->lending.held) api_dispose(api); /* else a worker has kept an errand: its ring broke, the process ends */
}
