/* Who may call the API: bearer tokens, and what tells a browser's page from a program. Pure but for reading the file.
 */
#ifndef SLUICE_API_ACCESS_H
#define SLUICE_API_ACCESS_H

#include <stdbool.h>
#include <stddef.h>

#define ACCESS_TOKENS_MAX     256u
#define ACCESS_TOKEN_SIZE_MAX 255u
#define ACCESS_NAME_SIZE      9u
#define ACCESS_HASH_TEXT_SIZE 65u

enum access_scope { ACCESS_NONE, ACCESS_READ, ACCESS_ADMIN };

struct access_token {
    char token[ACCESS_TOKEN_SIZE_MAX + 1];
    char name[ACCESS_NAME_SIZE]; /* the beginning of its hash, for the log */
    enum access_scope scope;
};
struct access_tokens {
    size_t count;
    struct access_token all[ACCESS_TOKENS_MAX];
};

/* One token a line, optionally followed by `read` or `admin` (the default); # begins a comment. NULL and `out` written,
 * or a static text that says what is wrong, with its line in *line; 0: the whole file. A token stands there once. */
const char *access_parse_tokens(const char *text, size_t size, struct access_tokens *out, unsigned *line);
/* Reads the file. 0, or -1 after one log line that names cause and remedy; then `out` is as it was. Warns if others may
 * read it. */
int access_load_tokens(const char *path, struct access_tokens *out);
/* The token of an Authorization field (NULL: absent), or NULL if it is none of ours. Takes the same time for every
 * wrong one of the same length. */
const struct access_token *access_find(const struct access_tokens *tokens, const char *authorization);

/* Whether a Host field means this machine itself: localhost, a loopback literal, or `local`, the address that the
 * client has connected to, as text without port (NULL: none). A name could be anybody's by DNS rebinding. */
bool access_host_is_ours(const char *host, const char *local);
/* Whether an Origin field belongs to a page that this Host has served. */
bool access_origin_is_host(const char *origin, const char *host);

/* SHA-256 as 64 hexadecimal digits. */
void access_hash(const void *data, size_t size, char out[ACCESS_HASH_TEXT_SIZE]);

#endif
