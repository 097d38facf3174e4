/* A user name and a password as the SOCKS5 and HTTP exchanges carry them. Plain values, no cleanup; NUL cannot occur.
 */
#ifndef SLUICE_PROTOCOLS_CREDENTIALS_H
#define SLUICE_PROTOCOLS_CREDENTIALS_H

#include <stdbool.h>
#include <string.h>

#define CREDENTIALS_PART_MAX 255u /* octets of each part, RFC 1929 section 2 */

struct credentials {
    bool present;                            /* the peer gave them, even if both are empty */
    bool user_only;                          /* SOCKS4, which knows no passwords */
    char user[CREDENTIALS_PART_MAX + 1];     /* terminated */
    char password[CREDENTIALS_PART_MAX + 1]; /* terminated */
};

/* Whether both are the same in every octet, or both absent. The time that it takes tells who calls how much was right:
 * for keys of tables, not for passwords that are to be proven. */
static inline bool credentials_equal(const struct credentials *a, const struct credentials *b)
{
    if (a->present != b->present || !a->present) return a->present == b->present;
    return a->user_only == b->user_only && strcmp(a->user, b->user) == 0 && strcmp(a->password, b->password) == 0;
}

#endif
