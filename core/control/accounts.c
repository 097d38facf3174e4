#include "core/control/accounts.h"

#include <string.h>

#include "core/control/coordinator_private.h"
#include "core/control/limiting.h"
#include "core/io/log.h"

/* --- limits --- */

/* A limit of --limit that names the user comes into force again when the file has none for it. */
static bool find_own_limit(const struct coordinator *c, const struct limit_key *key, struct limit_terms *terms)
{
    struct limit_key other;
    for (uint32_t i = 0; i < c->config->limit_count; i++)
        if (!limit_parse(c->config->limits[i], strlen(c->config->limits[i]), &other, terms) &&
            limit_key_equal(key, &other))
            return true;
    return false;
}

static void accounts_on_limit(void *context, const char *name, const struct limit_terms *terms)
{
    struct coordinator *c = context;
    struct limit_key key;
    struct limit_terms own;
    if (!c->keys) return; /* accounts_start() comes for all of them */
    limit_key_text(LIMIT_USER, name, strlen(name), &key);
    if (!terms && find_own_limit(c, &key, &own)) terms = &own;
    enum keys_change change = KEYS_CHANGED;
    if (terms)
        change = coordinator_put_limit(c, &key, terms);
    else
        coordinator_remove_limit(c, &key);
    c->user_limits_left_out += change == KEYS_NO_ROOM || change == KEYS_TOO_MANY;
}

static void say_left_out(struct coordinator *c, const struct users *users)
{
    if (c->user_limits_left_out > 0)
        LOGE("--users %s: %u users are without their limits, for which the table of keys has no room; give more "
             "--limit-keys, or fewer kinds of --limit",
             users_path(users), c->user_limits_left_out);
    c->user_limits_left_out = 0;
}

static void put_limits(struct coordinator *c, struct users *users)
{
    struct users_row row = {.locked = false};
    for (const char *after = NULL; users_next(users, after, &row); after = row.name)
        if (row.has_limit) accounts_on_limit(c, row.name, &row.limit);
    say_left_out(c, users);
}

/* --- the files --- */

static int read_users(struct users *users, bool again)
{
    char why[512];
    if (users_load(users, why, sizeof why) < 0) {
        LOGE("--users %s%s", why, again ? "; the users of before stay in force" : "");
        return -1;
    }
    if (users_count(users) == 0)
        LOGW("--users %s has no users: nobody can use its listeners", users_path(users));
    else
        LOGN("%u users of %s", users_count(users), users_path(users));
    return 0;
}

int coordinator_open_users(struct coordinator *c, const struct config *config)
{
    if (config->user_file_count == 0) return 0;
    int error = checkers_open(&c->checkers, config);
    if (error < 0) LOGE("--users: start-up failed: %s", strerror(-error));
    for (uint32_t i = 1; i <= config->user_file_count && error == 0; i++) {
        users_watch_limits(checkers_users(c->checkers, i), accounts_on_limit, c);
        error = read_users(checkers_users(c->checkers, i), false);
    }
    if (error == 0) c->user_stores = config->user_file_count;
    return error;
}

uint32_t coordinator_user_stores(const struct coordinator *c)
{
    return c->user_stores;
}

struct users *coordinator_users(struct coordinator *c, uint32_t store)
{
    return checkers_users(c->checkers, store);
}

int accounts_start(struct coordinator *c)
{
    for (uint32_t i = 1; i <= c->user_stores; i++) put_limits(c, coordinator_users(c, i));
    return c->checkers ? checkers_start(c->checkers) : 0;
}

void accounts_reload(struct coordinator *c)
{
    for (uint32_t i = 1; i <= c->user_stores; i++) {
        read_users(coordinator_users(c, i), true);
        say_left_out(c, coordinator_users(c, i));
    }
}

void accounts_stop(struct coordinator *c)
{
    if (c->checkers) checkers_stop(c->checkers);
}

void accounts_end(struct coordinator *c)
{
    if (c->checkers) checkers_end(c->checkers);
}

void accounts_close(struct coordinator *c)
{
    checkers_close(c->checkers);
    c->checkers = NULL;
}
