#include "server.h"

#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "call.h"
#include "core/log.h"
#include "core/net.h"
#include "core/process.h"
#include "endpoints.h"
#include "fields.h"
#include "judge.h"
#include "lua/codec.h"
#include "peers.h"

#define COMPRESS_MIN 256u /* octets: shorter answers are not worth it */
#define BACKLOG      128
#define REST_MS      100u /* before we look again whether there is a descriptor */

enum api_op { API_OP_EPOLL };

struct api {
    struct api_parts parts;
    const char *token_file;
    struct access_tokens tokens;
    struct MHD_Daemon *daemon;
    struct waiter waiter, sweeper;
    struct peers peers;
    struct call *calls;
    struct address address;
    int epoll_fd;
    bool polling, closing;
    bool run_again;   /* a connection has ended, so that there is room for another one */
    bool resting;     /* there is no descriptor for who knocks */
    uint64_t entered; /* connections so far */
};

struct api_parts *call_parts(struct call *call)
{
    return &call->api->parts;
}

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
    if (call->method != CALL_HEAD) call->api->parts.counters.bytes_out += call->answer.size;
    call->answer = (struct text){0};
    if (plain_size >= COMPRESS_MIN) add_header(response, MHD_HTTP_HEADER_VARY, MHD_HTTP_HEADER_ACCEPT_ENCODING);
    if (codec != CODEC_NONE)
        add_header(response, MHD_HTTP_HEADER_CONTENT_ENCODING, codec == CODEC_GZIP ? "gzip" : "deflate");
    return response;
}

static enum MHD_Result call_queue(struct call *call)
{
    struct MHD_Response *response = make_response(call);
    if (!response) return MHD_NO;
    if (call->status != 204) add_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, call->type);
    add_policy(call, response);
    add_allow(call, response);
    if (call->status >= 400) add_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    enum MHD_Result result = MHD_queue_response(call->connection, call->status, response);
    MHD_destroy_response(response);
    call->succeeded = call->status < 400;
    if (call->succeeded) call->api->parts.counters.successes++;
    return result;
}

static void call_enter(struct call *call, enum peer_state state)
{
    peers_enter(call->peer, state, coordinator_now_ms(call->api->parts.coordinator));
}

static void call_clear_time(struct call *call)
{
    if (call->timed) coordinator_detach(call->api->parts.coordinator, &call->waiter);
    call->timed = false;
}

/* --- the log of changes --- */

/* Who asks on a Unix socket, as the kernel knows it. */
static void local_peer_text(struct call *call, char *out, size_t size)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info && getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0)
        snprintf(out, size, "uid %u, pid %d", (unsigned)peer.uid, (int)peer.pid);
    else
        snprintf(out, size, "a local process");
}

/* The address as it was at accept(): the client may have gone since. */
static void peer_text(struct call *call, char *out, size_t size)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *from = info ? info->client_addr : NULL;
    struct net_address peer = {0};
    struct address address;
    if (!from || (from->sa_family != AF_INET && from->sa_family != AF_INET6)) {
        local_peer_text(call, out, size);
        return;
    }
    peer.size = from->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    memcpy(&peer.storage, from, peer.size);
    snprintf(out, size, "?");
    if (net_address_to(&peer, &address)) address_format(&address, out, size);
}

/* failed: the status of the answer; 0: the change is about to be made. */
static void log_change(struct call *call, unsigned failed)
{
    char line[LOG_TEXT_MAX], peer[ADDRESS_TEXT_SIZE], hash[ACCESS_HASH_TEXT_SIZE];
    peer_text(call, peer, sizeof peer);
    access_hash(call->body.data ? call->body.data : "", call->body.size, hash);
    snprintf(line, sizeof line, "api: %s%s%s: %s %s, sha256 %s", peer, *call->token_name ? ", token " : "",
             call->token_name, call->endpoint->path, call->change, hash);
    if (failed)
        LOGW("%s: failed with %u", line, failed);
    else
        LOGN("%s", line);
}

void call_log_change(struct call *call, const char *what)
{
    int size = snprintf(call->change, sizeof call->change, "%s", what);
    if (size >= (int)sizeof call->change) memcpy(call->change + sizeof call->change - 4, "...", 4);
    log_change(call, 0);
}

/* --- answering --- */

void call_reply(struct call *call, unsigned status, const char *type, struct text *text)
{
    assert(!call->answered);
    call->answered = true;
    call->status = text->failed ? 500 : status;
    call->type = text->failed ? CALL_TEXT : type;
    if (text->failed) text_free(text);
    call->answer = *text;
    call_clear_time(call);
    if (*call->change && call->status >= 400) log_change(call, call->status);
    if (!call->suspended) return;
    call->suspended = false;
    call_enter(call, PEER_BUSY);
    MHD_resume_connection(call->connection);
    struct coordinator *c = call->api->parts.coordinator; /* a later turn runs it: we may be in the middle of one */
    coordinator_set_deadline(c, &call->api->waiter, coordinator_now_ms(c));
}

void call_reply_octets(struct call *call, unsigned status, const char *type, const char *data, size_t size)
{
    struct text text = {0};
    text_add(&text, data, size);
    call_reply(call, status, type, &text);
}

void call_reply_text(struct call *call, unsigned status, const char *message)
{
    call_reply_octets(call, status, CALL_TEXT, message, strlen(message));
}

/* --- what was asked --- */

const char *call_header(struct call *call, const char *name)
{
    return MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND, name);
}

const char *call_query(struct call *call, const char *name)
{
    return MHD_lookup_connection_value(call->connection, MHD_GET_ARGUMENT_KIND, name);
}

bool call_query_given(struct call *call, const char *name, const char **value)
{
    size_t size = 0;
    *value = NULL;
    return MHD_lookup_connection_value_n(call->connection, MHD_GET_ARGUMENT_KIND, name, strlen(name), value, &size) !=
               MHD_YES ||
           (*value && **value);
}

bool call_query_flag(struct call *call, const char *name, bool otherwise)
{
    static const char *const yes[] = {"1", "y", "yes", "on", "t", "true"};
    const char *value = NULL;
    size_t size = 0;
    if (MHD_lookup_connection_value_n(call->connection, MHD_GET_ARGUMENT_KIND, name, strlen(name), &value, &size) !=
        MHD_YES)
        return otherwise;
    for (size_t i = 0; value && i < sizeof yes / sizeof *yes; i++)
        if (strcmp(value, yes[i]) == 0) return true;
    return false;
}

/* --- a call's life --- */

static struct peer *peer_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static struct call *call_open(struct api *api, struct MHD_Connection *connection)
{
    struct call *call = calloc(1, sizeof *call);
    if (!call) return NULL;
    call->api = api;
    call->connection = connection;
    call->path_rest = "";
    call->peer = peer_of(connection);
    call_enter(call, PEER_BUSY);
    call->next = api->calls;
    if (api->calls) api->calls->previous = call;
    api->calls = call;
    api->parts.counters.requests++;
    return call;
}

static void call_close(struct call *call)
{
    if (call->pending) engine_call_cancel(call->pending);
    if (!call->succeeded) call->api->parts.counters.errors++; /* whoever has answered it, if anybody */
    call_clear_time(call);
    call_enter(call, PEER_IDLE);
    if (call->previous)
        call->previous->next = call->next;
    else
        call->api->calls = call->next;
    if (call->next) call->next->previous = call->previous;
    text_free(&call->body);
    text_free(&call->answer);
    free(call);
}

static void call_on_time(struct waiter *waiter)
{
    struct call *call = (struct call *)((char *)waiter - offsetof(struct call, waiter));
    if (call->pending) engine_call_cancel(call->pending);
    call->pending = NULL;
    call_reply_text(call, 504, "the script did not answer in time");
}

static void no_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    (void)waiter, (void)op, (void)completion;
    assert(0 && "it waits for time alone");
}

/* Waits for what the handler has begun. */
static enum MHD_Result call_suspend(struct call *call)
{
    struct coordinator *c = call->api->parts.coordinator;
    call->waiter = (struct waiter){.on_completion = no_completion, .on_time = call_on_time};
    call->timed = call->pending && coordinator_attach(c, &call->waiter);
    if (call->timed)
        coordinator_set_deadline(c, &call->waiter,
                                 coordinator_now_ms(c) + coordinator_config(c)->timeout_ms + call->patience_ms);
    call->suspended = true;
    call_enter(call, PEER_WAITS);
    MHD_suspend_connection(call->connection);
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

static enum MHD_Result call_dispatch(struct call *call)
{
    unsigned refused = judge_again(call);
    call->dispatched = true;
    if (refused) {
        judge_refuse(call, refused);
        return call_queue(call);
    }
    engine_set_api_counters(
        call->api->parts.engine,
        &(struct engine_api_counters){call->api->parts.counters.requests, call->api->parts.counters.successes});
    if (!call->body.data) text_add(&call->body, "", 0);
    if (call->body.failed)
        call_reply_text(call, 500, "not enough memory");
    else if (decode_body(call))
        call->endpoint->handle(call);
    return call->answered ? call_queue(call) : call_suspend(call);
}

static void count_head(struct call *call)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    if (info) call->api->parts.counters.bytes_in += info->header_size;
}

/* The head is there. */
static enum MHD_Result call_begin(struct call *call, const char *url, const char *method, const char *version)
{
    call->begun = true;
    count_head(call);
    unsigned refused = judge_head(call, url, method, version);
    if (!refused) return MHD_YES;
    call->dispatched = true;
    judge_refuse(call, refused);
    return judge_drops_body(call, refused) ? MHD_YES : call_queue(call);
}

/* The first that is heard of a request, and the only time that its URL is as it was sent. */
static void *on_url(void *context, const char *url, struct MHD_Connection *connection)
{
    struct call *call = call_open(context, connection);
    if (!call) return NULL;
    call->sound = fields_url_is_sound(url);
    call->url_end = url + strlen(url);
    return call;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **state)
{
    struct api *api = context;
    struct call *call = *state;
    (void)connection;
    if (!call) return MHD_NO; /* there was no memory for it */
    if (!call->begun) return call_begin(call, url, method, version);
    if (*size > 0) {
        api->parts.counters.bytes_in += *size;
        if (!call->dispatched && call->body.size + *size <= CALL_BODY_MAX) text_add(&call->body, data, *size);
        *size = 0;
        return MHD_YES;
    }
    if (call->dispatched) return call->answered ? call_queue(call) : MHD_NO;
    return call_dispatch(call);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)context, (void)connection, (void)code;
    if (*state) call_close(*state);
    *state = NULL;
}

static void api_arm_sweeper(struct api *api)
{
    struct coordinator *c = api->parts.coordinator;
    if (api->peers.count > 0 && !api->closing)
        coordinator_set_deadline(c, &api->sweeper, coordinator_now_ms(c) + PEERS_SWEEP_MS);
}

static void on_connection(void *context, struct MHD_Connection *connection, void **state,
                          enum MHD_ConnectionNotificationCode code)
{
    struct api *api = context;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*state) peers_give(&api->peers, *state);
        *state = NULL;
        api->run_again = true;
        return;
    }
    bool first = api->peers.count == 0;
    api->entered++;
    *state = info ? peers_take(&api->peers, info->connect_fd, coordinator_now_ms(api->parts.coordinator)) : NULL;
    if (first) api_arm_sweeper(api);
}

static void api_on_sweep(struct waiter *waiter)
{
    struct api *api = (struct api *)((char *)waiter - offsetof(struct api, sweeper));
    struct coordinator *c = api->parts.coordinator;
    peers_sweep(&api->peers, coordinator_now_ms(c), coordinator_config(c)->timeout_ms);
    api_arm_sweeper(api);
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

/* --- on the ring --- */

static void api_arm(struct api *api)
{
    struct coordinator *c = api->parts.coordinator;
    MHD_UNSIGNED_LONG_LONG wait;
    if (!api->polling && !api->closing && !api->resting) {
        api->polling = true;
        ring_poll(coordinator_ring(c), api->epoll_fd, POLLIN, coordinator_tag(c, &api->waiter, API_OP_EPOLL));
    }
    /* At its limit of connections or of descriptors libmicrohttpd takes its listener out of its epoll, and puts it back
     * when it runs for the first time after there is room again. Nobody else would ask for that run. */
    if (api->run_again || api->resting)
        coordinator_set_deadline(c, &api->waiter, coordinator_now_ms(c) + (api->resting ? REST_MS : 0));
    else if (MHD_get_timeout(api->daemon, &wait) == MHD_YES)
        coordinator_set_deadline(c, &api->waiter, coordinator_now_ms(c) + wait);
    else
        coordinator_clear_deadline(c, &api->waiter);
}

/* Somebody knocks, nobody was here, and nobody has come in: accept() has failed. libmicrohttpd goes on listening then,
 * which would wake us for ever. */
static void api_on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    struct api *api = (struct api *)((char *)waiter - offsetof(struct api, waiter));
    bool empty = api->peers.count == 0;
    uint64_t entered = api->entered;
    (void)op, (void)completion;
    api->polling = false;
    if (api->closing) return;
    api->run_again = false;
    MHD_run(api->daemon);
    api->resting = empty && entered == api->entered;
    api_arm(api);
}

static void api_on_time(struct waiter *waiter)
{
    struct api *api = (struct api *)((char *)waiter - offsetof(struct api, waiter));
    if (api->closing) return;
    api->run_again = api->resting = false;
    MHD_run(api->daemon);
    api_arm(api);
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

static int listen_fail(const struct config *config, const char *call, int error, int fd)
{
    LOGE("--api %s: %s: %s; %s", config->api_text, call, strerror(error),
         error == EADDRINUSE ? "another process listens there, stop it or choose another port" : "check the address");
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
    if (fd < 0) return listen_fail(config, "socket", -fd, -1);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int error = bind_closed(fd, &address);
    if (error < 0) return listen_fail(config, "bind", -error, fd);
    if (config->api.kind == ADDRESS_UNIX) process_give_file(config->user, config->api.name);
    error = net_listen(fd, BACKLOG);
    return error < 0 ? listen_fail(config, "listen", -error, fd) : fd;
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
    api->epoll_fd = info ? info->epoll_fd : -1;
    return api->epoll_fd >= 0;
}

/* Undoes what api_open() has begun. */
static void api_dispose(struct api *api)
{
    if (api->daemon) MHD_stop_daemon(api->daemon);
    if (api->address.kind == ADDRESS_UNIX) process_remove_socket(api->address.name);
    explicit_bzero(&api->tokens, sizeof api->tokens);
    free(api);
}

int api_open(struct api **out, struct coordinator *c, struct engine *e, const struct config *config, int listen_fd)
{
    struct api *api = calloc(1, sizeof *api);
    if (!api) return -ENOMEM;
    api->parts =
        (struct api_parts){.coordinator = c, .engine = e, .tokens = &api->tokens, .started = snapshot_monotonic()};
    api->waiter = (struct waiter){.on_completion = api_on_completion, .on_time = api_on_time};
    api->sweeper = (struct waiter){.on_completion = no_completion, .on_time = api_on_sweep};
    api->token_file = config->api_token_file;
    api->address = config->api;
    bool good = !api->token_file || access_load_tokens(api->token_file, &api->tokens) == 0;
    if (good && !api_start(api, listen_fd)) {
        LOGE("--api %s: the HTTP server could not be started; raise ulimit -n", config->api_text);
        good = false;
    }
    if (!good || !coordinator_attach(c, &api->waiter)) {
        api_dispose(api);
        return -EINVAL;
    }
    if (!coordinator_attach(c, &api->sweeper)) {
        coordinator_detach(c, &api->waiter);
        api_dispose(api);
        return -EINVAL;
    }
    api_arm(api);
    *out = api;
    return 0;
}

void api_reload(struct api *api)
{
    api->token_file = coordinator_config(api->parts.coordinator)->api_token_file; /* a -c script may name another one */
    if (api->token_file && access_load_tokens(api->token_file, &api->tokens) == 0)
        LOGN("api: %zu tokens in force", api->tokens.count);
}

void api_close(struct api *api)
{
    if (!api) return;
    struct coordinator *c = api->parts.coordinator;
    api->closing = true;
    for (struct call *call = api->calls; call; call = call->next) {
        if (!call->suspended) continue;
        if (call->pending) engine_call_cancel(call->pending);
        call->pending = NULL;
        call_reply_text(call, 503, "the server stops");
    }
    MHD_run(api->daemon);
    if (api->polling) ring_cancel(coordinator_ring(c), coordinator_tag(c, &api->waiter, API_OP_EPOLL));
    while (api->polling && coordinator_turn(c) == 0) {
    }
    coordinator_detach(c, &api->waiter);
    coordinator_detach(c, &api->sweeper);
    api_dispose(api);
}
