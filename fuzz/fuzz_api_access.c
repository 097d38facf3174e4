/* What callers of the API send, field by field, and what its token file holds: judged without reading behind the end,
 * and consistently. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/access.h"
#include "api/endpoints.h"
#include "api/fields.h"
#include "api/sessions.h"

static void check_tokens(const char *text, size_t size)
{
    static struct access_tokens tokens;
    char authorization[ACCESS_TOKEN_SIZE_MAX + 8] = "Bearer ";
    unsigned line;
    if (access_parse_tokens(text, size, &tokens, &line) != NULL) return;
    if (tokens.count == 0 || tokens.count > ACCESS_TOKENS_MAX) abort();
    for (size_t i = 0; i < tokens.count; i++) { /* each opens the door */
        strcpy(authorization + 7, tokens.all[i].token);
        const struct access_token *found = access_find(&tokens, authorization);
        if (!found || strcmp(found->token, tokens.all[i].token) != 0) abort();
    }
}

static void check_words(const char *word)
{
    static const struct access_tokens none = {.count = 1, .all = {{.token = "secret", .scope = ACCESS_ADMIN}}};
    uint32_t worker, slot, generation;
    const char *rest;
    const struct access_token *found = access_find(&none, word);
    if (found && !strstr(word, "secret")) abort();
    if (access_host_is_ours(word, "192.0.2.1") && strstr(word, "evil")) abort();
    if (access_origin_is_host(word, "box") && strcasecmp(word + strlen(word) - 3, "box") != 0) abort();
    sessions_parse_id(word, &worker, &slot, &generation);
    const struct endpoint *e = endpoint_find(word, 4, &rest);
    if (e && strncmp(word, e->path, strlen(e->path)) != 0) abort();
}

/* What is put in front or behind changes what it must, and nothing else. */
static void check_codings(const char *word, size_t size)
{
    char *longer = malloc(size + 64);
    enum codec codec, plain = fields_choose_codec(word);
    if (!longer) return;
    if (plain != CODEC_NONE && !strcasestr(word, "deflate") && !strcasestr(word, "gzip") && !strchr(word, '*')) abort();
    if (!strchr(word, '"')) { /* an open quotation swallows what follows */
        sprintf(longer, "%s, deflate;q=0, gzip;q=0", word);
        if (fields_choose_codec(longer) != CODEC_NONE) abort();
        sprintf(longer, "%s , br", word);
        if (fields_choose_codec(longer) != plain) abort();
    }
    sprintf(longer, "br;q=0.1,%s", word);
    if (fields_choose_codec(longer) != plain) abort();
    free(longer);
    if (fields_read_codec(word, &codec) && strcspn(word, " ,;=") != size) abort();
    if (fields_is_rpc(word) && (!strcasestr(word, "version=") || !strchr(word, '1'))) abort();
}

/* The escapes read again, another way; and the parts of a URL are parts of it. */
static void check_url(const char *url)
{
    char authority[16];
    bool sound = true;
    for (const char *at = url; *at; at++) {
        unsigned value;
        char digits[3] = "";
        if (*at != '%') continue;
        memcpy(digits, at + 1, strnlen(at + 1, 2));
        sound &= strspn(digits, "0123456789abcdefABCDEF") == 2 && sscanf(digits, "%x", &value) == 1 && value != 0;
    }
    if (fields_url_is_sound(url) != sound) abort();
    const char *path = fields_split_url(url, authority, sizeof authority);
    if (*authority && (strncmp(url + 7, authority, strlen(authority)) != 0 || *path != '/')) abort();
    if (!*authority && path != url && strncasecmp(url, "http://", 7) != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text) return 0;
    if (size > 0) memcpy(text, data, size);
    text[size] = '\0';
    check_words(text);
    check_codings(text, strlen(text));
    check_url(text);
    char *exact = malloc(size > 0 ? size : 1);
    if (exact) {
        if (size > 0) memcpy(exact, data, size);
        check_tokens(exact, size);
    }
    free(exact);
    free(text);
    return 0;
}
