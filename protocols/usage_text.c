#include "protocols/usage_text.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "protocols/url.h"

static bool begins_with(const char *text, size_t size, const char *scheme)
{
    size_t length = strlen(scheme);
    return size >= length && strncasecmp(text, scheme, length) == 0;
}

static const char *read_path(const char *text, size_t size, char out[USAGE_PATH_MAX + 1])
{
    if (size > USAGE_PATH_MAX) return "the path is longer than 1024 octets";
    for (size_t i = 0; i < size; i++)
        if (text[i] == '\0') return "the path has a zero in it";
    if (size > 0) memcpy(out, text, size);
    out[size] = '\0';
    return NULL;
}

static const char *read_db(const char *text, size_t size, uint32_t *db)
{
    *db = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9') return "behind the host there is no number of a database, such as /0";
        *db = *db * 10 + (uint32_t)(text[i] - '0');
        if (*db > USAGE_REDIS_DB) return "there is no database with so high a number";
    }
    return NULL;
}

static const char *read_query(const char *text, size_t size, struct usage_text *out)
{
    if (!out->tls || size < 4 || memcmp(text, "ca=", 3) != 0)
        return "behind the host there may be ?ca=FILE, of rediss:// alone";
    return read_path(text + 3, size - 3, out->ca);
}

static const char *read_redis(const char *text, size_t size, struct usage_text *out)
{
    struct proxy_uri uri;
    const char *wrong = NULL, *query = size > 0 ? memchr(text, '?', size) : NULL;
    if (query) wrong = read_query(query + 1, size - (size_t)(query - text) - 1, out);
    if (query) size = (size_t)(query - text);
    const char *slash = size > 0 ? memchr(text, '/', size) : NULL;
    size_t authority = slash ? (size_t)(slash - text) : size;
    if (slash && !wrong) wrong = read_db(slash + 1, size - authority - 1, &out->db);
    if (!wrong) wrong = url_authority_parse(text, authority, USAGE_REDIS_PORT, &uri);
    if (wrong) return wrong;
    out->address = uri.address;
    out->credentials = uri.credentials;
    return NULL;
}

const char *usage_text_parse(const char *text, size_t size, struct usage_text *out)
{
    struct usage_text usage = {0};
    const char *wrong = "give sqlite:PATH, redis://[user:password@]host[:port][/db] or rediss://";
    if (begins_with(text, size, "sqlite:")) {
        wrong = read_path(text + 7, size - 7, usage.path);
    } else if (begins_with(text, size, "redis://")) {
        usage.kind = USAGE_REDIS;
        wrong = read_redis(text + 8, size - 8, &usage);
    } else if (begins_with(text, size, "rediss://")) {
        usage.kind = USAGE_REDIS;
        usage.tls = true;
        wrong = read_redis(text + 9, size - 9, &usage);
    }
    if (!wrong) *out = usage;
    return wrong;
}

size_t usage_text_format(const struct usage_text *usage, char *out, size_t size)
{
    char address[ADDRESS_TEXT_SIZE];
    assert(size >= USAGE_TEXT_SIZE);
    if (usage->kind == USAGE_SQLITE) return (size_t)snprintf(out, size, "sqlite:%s", usage->path);
    address_format(&usage->address, address, sizeof address);
    return (size_t)snprintf(out, size, "redis%s://%s/%u", usage->tls ? "s" : "", address, usage->db);
}
