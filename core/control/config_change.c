#include "core/control/config_change.h"

#include <stdio.h>
#include <string.h>

static bool is_same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* The sockets: where they listen and what for, but not where they forward to, nor options of their own. */
static bool has_same_listeners(const struct config *a, const struct config *b)
{
    if (a->listener_count != b->listener_count) return false;
    for (uint32_t i = 0; i < a->listener_count; i++) {
        if (a->listeners[i].kind != b->listeners[i].kind) return false;
        if (!is_same_text(a->listeners[i].text, b->listeners[i].text)) return false;
    }
    return true;
}

static bool has_same_scripts(const struct config *a, const struct config *b)
{
    if (a->script_count != b->script_count) return false;
    for (uint32_t i = 0; i < a->script_count; i++)
        if (!is_same_text(a->scripts[i], b->scripts[i])) return false;
    return true;
}

/* Behind has_same_listeners(). */
static bool has_same_users(const struct config *a, const struct config *b)
{
    for (uint32_t i = 0; i < a->listener_count; i++)
        if (!is_same_text(a->listeners[i].users, b->listeners[i].users)) return false;
    return is_same_text(a->users, b->users);
}

/* The name in a -c file of a setting whose sockets, threads, states or rights are made at the start, or NULL. */
static const char *find_fixed(const struct config *now, const struct config *fresh)
{
    if (!has_same_listeners(now, fresh)) return "listen', `forward', `http_listen' or `transparent";
    if (!is_same_text(now->api_text, fresh->api_text)) return "restapi";
    if (!is_same_text(now->user, fresh->user)) return "user_name";
    if (!has_same_scripts(now, fresh)) return "scripts";
    if (now->reuseport != fresh->reuseport) return "reuseport";
    if (now->fastopen != fresh->fastopen) return "tcp_fastopen";
    if (!has_same_users(now, fresh)) return "users";
    if (now->limit_keys != fresh->limit_keys) return "limit_keys";
    if (!is_same_text(now->usage, fresh->usage)) return "usage";
    if (!is_same_text(now->state_dir, fresh->state_dir)) return "state_dir";
    if (!is_same_text(now->access_log, fresh->access_log)) return "access_log";
    if (!is_same_text(now->access_log_format, fresh->access_log_format)) return "access_log_format";
    if (now->access_log_starts != fresh->access_log_starts) return "access_log_start";
    if (now->access_log_queries != fresh->access_log_queries) return "access_log_query";
    if (fresh->workers != 0 && now->workers != fresh->workers) return "workers";
    return NULL;
}

bool config_can_change(const struct config *now, const struct config *fresh, uint32_t sessions, char *why, size_t size)
{
    const char *fixed = find_fixed(now, fresh);
    if (fixed) {
        snprintf(why, size, "`%s' has changed, which is fixed at the start: restart to apply it", fixed);
        return false;
    }
    if (fresh->conn_cache && !now->conn_cache && now->conns == 0) {
        snprintf(why, size, "`conn_cache' has been switched on, but the start has made no room: restart to apply it");
        return false;
    }
    if (now->max_sessions != fresh->max_sessions && sessions > now->sessions) {
        snprintf(why, size, "`max_sessions' has changed, but the start has made room for %u only: restart to apply it",
                 now->sessions);
        return false;
    }
    return true;
}

void config_take_fixed(struct config *fresh, const struct config *now)
{
    if (!has_same_listeners(now, fresh)) {
        memcpy(fresh->listeners, now->listeners, sizeof fresh->listeners);
        fresh->listener_count = now->listener_count;
    }
    for (uint32_t i = 0; i < now->listener_count; i++) {
        fresh->listeners[i].text = now->listeners[i].text;
        fresh->listeners[i].address = now->listeners[i].address;
        fresh->listeners[i].users = now->listeners[i].users;
        fresh->listeners[i].user_file = now->listeners[i].user_file;
    }
    fresh->user_file_count = now->user_file_count;
    memcpy(fresh->user_files, now->user_files, sizeof fresh->user_files);
    fresh->workers = now->workers;
    fresh->sessions = now->sessions;
    fresh->setups = now->setups;
    fresh->buffers = now->buffers;
    fresh->buffers_lent = now->buffers_lent;
    fresh->buffer_size = now->buffer_size;
    fresh->bulk_turn = now->bulk_turn;
    fresh->pipes = now->pipes;
    fresh->pipe_size = now->pipe_size;
    fresh->ring_entries = now->ring_entries;
    fresh->queue_capacity = now->queue_capacity;
    fresh->name_sockets = now->name_sockets;
    fresh->associations = now->associations;
    fresh->udp_peers = now->udp_peers;
    fresh->exchanges = now->exchanges;
    fresh->heads = now->heads;
    fresh->conns = now->conns;
}
