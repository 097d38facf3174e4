/* What callers of the API send and its token file holds: judged without reading behind the end, and consistently. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/access.h"
#include "api/endpoints.h"
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
    const struct endpoint *e = endpoint_find(word, &rest);
    if (e && strncmp(word, e->path, strlen(e->path)) != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text) return 0;
    if (size > 0) memcpy(text, data, size);
    text[size] = '\0';
    check_words(text);
    char *exact = malloc(size > 0 ? size : 1);
    if (exact) {
        if (size > 0) memcpy(exact, data, size);
        check_tokens(exact, size);
    }
    free(exact);
    free(text);
    return 0;
}
