/* Limits as operators, scripts and the API write them: `source: connections=200 rate=50/s down=100Mbit/s`.
 *
 * A key says whose limit it is, terms say what it bounds. Both are plain values, copied by assignment. */
#ifndef SLUICE_PROTOCOLS_LIMIT_TEXT_H
#define SLUICE_PROTOCOLS_LIMIT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/address.h"

/* --- keys --- */

enum limit_kind {
    LIMIT_SOURCE,   /* the client's address, or the network that it is in */
    LIMIT_USER,     /* the name that the client gives */
    LIMIT_RULE,     /* the tag of the rule that lets it in (sluice.tag) */
    LIMIT_TARGET,   /* the host that it asks for */
    LIMIT_LISTENER, /* where it came in, as -l has it */
    LIMIT_TOTAL,    /* everybody together */
    LIMIT_NAMED,    /* a name that a ruleset gives */
    LIMIT_KINDS,
};

#define LIMIT_NAME_MAX      255u /* octets: the longest user name (RFC 1929), the longest host */
#define LIMIT_KEY_TEXT_SIZE 784u /* a buffer for limit_key_format(): every octet escaped, the kind, a zero */

/* One key, or, when `every` is set, each key of its kind: `source` is the limit of each source, `source:192.0.2.7` that
 * of one. TOTAL is one key. */
struct limit_key {
    uint8_t kind; /* enum limit_kind */
    bool every;
    uint8_t bits[2]; /* SOURCE with `every`: of an IPv4 and of an IPv6 address, those that tell sources apart */
    uint8_t size;    /* octets of `name` */
    /* SOURCE: 4 or 6, the number of bits, and the address, its other bits zero. All others: text. */
    uint8_t name[LIMIT_NAME_MAX];
};

#define LIMIT_SOURCE_BITS_IPV4 32u
#define LIMIT_SOURCE_BITS_IPV6 64u /* one customer has all addresses of such a network */

/* `source`, `source/24/56`, `source:192.0.2.0/24`, `user:alice`, `total`, `gold`. %XX is the octet with that number;
 * blanks and controls must be written so. Hosts are taken in lower case. A name that is a kind but for one letter
 * (`sourc:1.2.3.4`) is wrong. NULL, or what is wrong, static text; then
 * `key` is as it was. */
const char *limit_key_parse(const char *text, size_t size, struct limit_key *key);
/* The same back, terminated; returns the length. size: LIMIT_KEY_TEXT_SIZE or more. */
size_t limit_key_format(const struct limit_key *key, char *out, size_t size);
bool limit_key_equal(const struct limit_key *a, const struct limit_key *b);
/* The key of a client with that address (IPV4 or IPV6, mapped addresses made plain before). */
void limit_key_source(const struct address *client, const uint8_t bits[2], struct limit_key *key);
/* The key of that kind with a text, cut at LIMIT_NAME_MAX; of TARGET in lower case. */
void limit_key_text(enum limit_kind kind, const char *text, size_t size, struct limit_key *key);
const char *limit_kind_name(enum limit_kind kind);

/* --- terms --- */

enum limit_direction {
    LIMIT_UP,   /* from the client */
    LIMIT_DOWN, /* to the client */
    LIMIT_BOTH, /* their sum */
    LIMIT_DIRECTIONS,
};

enum limit_period { LIMIT_HOUR, LIMIT_DAY, LIMIT_WEEK, LIMIT_MONTH, LIMIT_EVER, LIMIT_PERIODS };

#define LIMIT_CONNECTIONS_NONE UINT32_MAX /* no bound */
#define LIMIT_QUOTA_NONE       UINT64_MAX
#define LIMIT_SPEED_MAX        UINT64_C(125000000000) /* octets per second: 1 Tbit/s */
#define LIMIT_QUOTA_MAX        (UINT64_C(1) << 60)
#define LIMIT_COUNT_MAX        1000000000u
#define LIMIT_TERMS_TEXT_SIZE  512u

struct limit_terms {
    uint32_t connections;                   /* at a time; 0: none may come */
    uint32_t half_open;                     /* SOURCE: handshakes at a time; LIMIT_CONNECTIONS_NONE: no bound */
    uint32_t resolving;                     /* SOURCE: questions to the resolver at a time; the same */
    uint32_t rate;                          /* new ones in `rate_seconds`; 0: no bound */
    uint32_t rate_seconds;                  /* 1, 60 or 3600 */
    uint32_t burst;                         /* of them at once; 0: the default, as many as `rate` */
    uint64_t speed[LIMIT_DIRECTIONS];       /* octets per second; 0: no bound */
    uint64_t speed_burst[LIMIT_DIRECTIONS]; /* octets beyond that at once; 0: the default, 100 ms of `speed` */
    uint64_t quota[LIMIT_DIRECTIONS];       /* octets per period; 0: none may move */
    uint8_t period[LIMIT_DIRECTIONS];       /* enum limit_period */
    uint16_t given;                         /* which of them limit_terms_set() has set: each may be given once */
};

/* Terms that bound nothing. */
void limit_terms_init(struct limit_terms *terms);
bool limit_terms_are_empty(const struct limit_terms *terms);
bool limit_terms_equal(const struct limit_terms *a, const struct limit_terms *b);
/* Sets one term by its name (connections, half-open, resolving, rate, burst, up, down, both, up-burst ..., quota,
 * quota-up, quota-down; `_` is as good as `-`) from a text such as 50/s, 100Mbit/s, 2.5MiB/s, 100GiB/month. NULL, or
 * what is wrong with it and what to give, static text; then nothing has changed. A term that was set already is wrong,
 * too. */
const char *limit_terms_set(struct limit_terms *terms, const char *name, size_t name_size, const char *value,
                            size_t value_size);
/* Terms that depend on each other: call when all are set. NULL, or what is wrong, static text. */
const char *limit_terms_check(const struct limit_terms *terms);
/* Terms that this key cannot have; the same. */
const char *limit_check(const struct limit_key *key, const struct limit_terms *terms);
/* `connections=200 rate=50/s`: blanks between terms. NULL, or what is wrong; then `terms` is as it was. */
const char *limit_terms_parse(const char *text, size_t size, struct limit_terms *terms);
/* The same back, terminated, defaults left out; returns the length. size: LIMIT_TERMS_TEXT_SIZE or more. */
size_t limit_terms_format(const struct limit_terms *terms, char *out, size_t size);
const char *limit_period_name(enum limit_period period); /* "hour" ...; "" for EVER */

/* `KEY: TERMS`, as --limit takes it. NULL, or what is wrong; then both are as they were. */
const char *limit_parse(const char *text, size_t size, struct limit_key *key, struct limit_terms *terms);

#endif
