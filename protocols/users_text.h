/* A file of users: `name:hash[:groups[:limit]]`, a line each.
 *
 *     # who may come
 *     alice:$y$j9T$...:staff,eu:down=100Mbit/s quota=50GiB/month
 *     bob:$2b$10$...
 *     carol:!$6$...                 locked: a hash that begins with ! or * is nobody's
 *
 * Hashes are those of crypt(5): yescrypt, gost-yescrypt, bcrypt, sha512crypt and sha256crypt. Others are refused,
 * because they are cheap to try. So are hashes that cost more than about a second: whoever asks for one keeps a thread
 * busy with it. Plain values; nothing points into a line after the call but the spans that are given back. */
#ifndef SLUICE_PROTOCOLS_USERS_TEXT_H
#define SLUICE_PROTOCOLS_USERS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define USERS_LINE_MAX   2048u /* octets, without its end */
#define USERS_NAME_MAX   255u  /* RFC 1929 section 2 */
#define USERS_HASH_MAX   255u
#define USERS_GROUPS_MAX 16u
#define USERS_GROUP_MAX  63u /* octets of one group's name */

struct users_span {
    const char *text; /* not terminated */
    size_t size;
};

struct users_line {
    struct users_span name;   /* empty: the line is blank, or a comment */
    struct users_span hash;   /* as it stands */
    struct users_span groups; /* separated by commas; may be empty */
    struct users_span limit;  /* terms of limit_text.h; may be empty */
};

/* line: without its line feed; a carriage return and blanks at the end do not count. NULL, or what is wrong and what
 * to give, static text; then `out` is undefined. */
const char *users_parse_line(const char *line, size_t size, struct users_line *out);

/* The parts by themselves, for those that come by another way. NULL, or what is wrong, static text. */
const char *users_judge_name(const char *text, size_t size);
const char *users_judge_hash(const char *text, size_t size);
const char *users_judge_groups(const char *text, size_t size);
const char *users_judge_limit(const char *text, size_t size);
/* Nobody has the password of such a hash. */
bool users_hash_is_locked(const char *text, size_t size);

#endif
