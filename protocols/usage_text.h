/* Where usage is kept, as --usage takes it: sqlite:PATH, redis://[user[:password]@]host[:port][/db], or rediss:// with
 * [?ca=FILE] behind that. */
#ifndef SLUICE_PROTOCOLS_USAGE_TEXT_H
#define SLUICE_PROTOCOLS_USAGE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/address.h"
#include "protocols/credentials.h"

#define USAGE_PATH_MAX   1024u
#define USAGE_REDIS_PORT 6379u
#define USAGE_REDIS_DB   1000000u /* the highest number of a database that is taken */

enum usage_kind {
    USAGE_SQLITE, /* a file of this machine */
    USAGE_REDIS,  /* that, and sums of several machines in Redis */
};

struct usage_text {
    enum usage_kind kind;
    char path[USAGE_PATH_MAX + 1]; /* SQLITE; "": below --state-dir */
    /* REDIS */
    bool tls;                       /* rediss:// */
    char ca[USAGE_PATH_MAX + 1];    /* of it: certificates to trust; "": those of the system */
    struct address address;         /* host and port */
    struct credentials credentials; /* a password alone has an empty user */
    uint32_t db;
};

/* User and password are percent-decoded; an octet that is zero, a bad escape, another query and a longer path are
 * refused.
 * NULL, or what is wrong, static text; then `out` is as it was. */
const char *usage_text_parse(const char *text, size_t size, struct usage_text *out);
/* Without user and password, terminated, for people. size: USAGE_TEXT_SIZE or more. Returns the length. */
#define USAGE_TEXT_SIZE (USAGE_PATH_MAX + 16u)
size_t usage_text_format(const struct usage_text *usage, char *out, size_t size);

#endif
