#include "api/access.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/io/log.h"
#include "lua/engine/digest.h"
#include "protocols/address.h"

#define FILE_SIZE_MAX 131072u

void access_hash(const void *data, size_t size, char out[ACCESS_HASH_TEXT_SIZE])
{
    static_assert(ACCESS_HASH_TEXT_SIZE == DIGEST_TEXT_SIZE, "64 digits and the end");
    digest_sha256(data, size, out);
}

/* --- tokens --- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next word of a line; *at moves behind it. */
static size_t take_word(const char **at, const char *end, const char **word)
{
    while (*at < end && is_blank(**at)) (*at)++;
    *word = *at;
    while (*at < end && !is_blank(**at)) (*at)++;
    return (size_t)(*at - *word);
}

/* What a header can carry: visible characters. */
static bool is_token(const char *word, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (word[i] <= ' ' || word[i] > '~') return false;
    return size > 0;
}

static const char *parse_scope(const char *word, size_t size, enum access_scope *scope)
{
    *scope = ACCESS_ADMIN;
    if (size == 0 || (size == 5 && memcmp(word, "admin", 5) == 0)) return NULL;
    *scope = ACCESS_READ;
    return size == 4 && memcmp(word, "read", 4) == 0 ? NULL : "the scope is neither read nor admin";
}

static bool is_there(const struct access_tokens *tokens, const char *word, size_t size)
{
    for (size_t i = 0; i < tokens->count; i++)
        if (strlen(tokens->all[i].token) == size && memcmp(tokens->all[i].token, word, size) == 0) return true;
    return false;
}

static const char *parse_line(const char *at, const char *end, struct access_tokens *out)
{
    const char *word, *scope, *rest;
    char hash[ACCESS_HASH_TEXT_SIZE];
    size_t size = take_word(&at, end, &word);
    if (size == 0 || *word == '#') return NULL;
    size_t scope_size = take_word(&at, end, &scope);
    if (scope_size > 0 && *scope == '#') scope_size = 0, at = end;
    if (take_word(&at, end, &rest) > 0 && *rest != '#') return "there is more than a token and a scope";
    if (size > ACCESS_TOKEN_SIZE_MAX) return "the token is longer than 255 characters";
    if (!is_token(word, size)) return "the token has characters that no header can carry";
    if (out->count == ACCESS_TOKENS_MAX) return "there are more than 256 tokens";
    struct access_token *token = &out->all[out->count];
    const char *wrong = parse_scope(scope, scope_size, &token->scope);
    if (wrong) return wrong;
    if (is_there(out, word, size)) return "the same token stands in an earlier line";
    memcpy(token->token, word, size);
    token->token[size] = '\0';
    access_hash(word, size, hash);
    snprintf(token->name, sizeof token->name, "%.8s", hash);
    out->count++;
    return NULL;
}

const char *access_parse_tokens(const char *text, size_t size, struct access_tokens *out, unsigned *line)
{
    out->count = 0;
    *line = 0;
    for (const char *at = text, *end = text + size; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        ++*line;
        const char *wrong = parse_line(at, stop, out);
        if (wrong) return wrong;
        at = stop < end ? stop + 1 : end;
    }
    if (out->count > 0) return NULL;
    *line = 0;
    return "there is no token in it";
}

/* The file's contents, malloc'd, or NULL with errno. */
static char *read_file(const char *path, size_t *size, struct stat *info)
{
    FILE *file = fopen(path, "re");
    if (!file) return NULL;
    char *text = malloc(FILE_SIZE_MAX);
    if (text && fstat(fileno(file), info) == 0) *size = fread(text, 1, FILE_SIZE_MAX, file);
    int error = errno;
    if (text && ferror(file)) { /* a folder, for example */
        free(text);
        text = NULL;
    }
    fclose(file);
    errno = error;
    return text;
}

/* line 0: the whole file. */
static void log_fault(const char *path, unsigned line, const char *wrong)
{
    char where[24] = "";
    if (line > 0) snprintf(where, sizeof where, ", line %u", line);
    LOGE("--api-token-file %s%s: %s; give one token per line, and read or admin behind it", path, where, wrong);
}

int access_load_tokens(const char *path, struct access_tokens *out)
{
    struct stat info = {0};
    size_t size = 0;
    unsigned line = 0;
    char *text = read_file(path, &size, &info);
    struct access_tokens *fresh = calloc(1, sizeof *fresh);
    if (!text || !fresh) {
        LOGE("--api-token-file %s: %s; %s", path, strerror(errno),
             errno == EACCES ? "the user of -u has to be able to read it" : "give a file with one token per line");
        free(text);
        free(fresh);
        return -1;
    }
    const char *wrong =
        size == FILE_SIZE_MAX ? "it is longer than 128 KiB" : access_parse_tokens(text, size, fresh, &line);
    if (wrong) log_fault(path, size == FILE_SIZE_MAX ? 0 : line, wrong);
    if (!wrong && info.st_mode & (S_IRGRP | S_IROTH))
        LOGW("--api-token-file %s: others may read it; chmod 600 it", path);
    if (!wrong) *out = *fresh;
    explicit_bzero(text, size); /* no copy of a secret is left behind */
    explicit_bzero(fresh, sizeof *fresh);
    free(text);
    free(fresh);
    return wrong ? -1 : 0;
}

static bool equal_in_constant_time(const char *given, size_t given_size, const struct access_token *token)
{
    size_t size = strlen(token->token);
    volatile uint8_t differs = given_size != size;
    for (size_t i = 0; i < given_size; i++) differs |= (uint8_t)(given[i] ^ token->token[size > 0 ? i % size : 0]);
    return differs == 0;
}

const struct access_token *access_find(const struct access_tokens *tokens, const char *authorization)
{
    const struct access_token *found = NULL;
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0) return NULL;
    const char *given = authorization + 7;
    while (*given == ' ') given++;
    size_t size = strlen(given);
    for (size_t i = 0; i < tokens->count; i++)
        if (equal_in_constant_time(given, size, &tokens->all[i])) found = &tokens->all[i];
    return size > 0 ? found : NULL;
}

/* --- pages and programs --- */

/* The host of `host[:port]`, brackets taken off. False: it has no such form, `host:password@elsewhere` included. */
static bool split_host(const char *text, char *out, size_t room)
{
    bool bracketed = *text == '[';
    const char *start = bracketed ? text + 1 : text, *end = start + strcspn(start, bracketed ? "]" : ":");
    const char *port = bracketed && *end ? end + 1 : end;
    size_t size = (size_t)(end - start);
    if (bracketed && *end != ']') return false;
    if (*port && (*port != ':' || port[1 + strspn(port + 1, "0123456789")] != '\0')) return false;
    if (size == 0 || size >= room) return false;
    memcpy(out, start, size);
    out[size] = '\0';
    return true;
}

static bool is_loopback(const struct address *a)
{
    static const uint8_t one[16] = {[15] = 1};
    if (a->kind == ADDRESS_IPV4) return a->ipv4[0] == 127;
    return a->kind == ADDRESS_IPV6 && memcmp(a->ipv6, one, sizeof one) == 0;
}

bool access_host_is_ours(const char *host, const char *local)
{
    char name[256];
    struct address address, mine;
    if (!split_host(host, name, sizeof name)) return false;
    if (strcasecmp(name, "localhost") == 0) return true;
    if (!address_from_host(name, strlen(name), 0, &address) || address.kind == ADDRESS_NAME) return false;
    if (is_loopback(&address)) return true;
    return local && address_from_host(local, strlen(local), 0, &mine) && address_equal(&address, &mine);
}

bool access_origin_is_host(const char *origin, const char *host)
{
    const char *rest = strncasecmp(origin, "http://", 7) == 0    ? origin + 7
                       : strncasecmp(origin, "https://", 8) == 0 ? origin + 8
                                                                 : NULL;
    return rest && strcasecmp(rest, host) == 0;
}
