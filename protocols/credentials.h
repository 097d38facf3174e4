/* A user name and a password as the SOCKS5 and HTTP exchanges carry them. Plain values, no cleanup; NUL cannot occur.
 */
#ifndef SLUICE_PROTOCOLS_CREDENTIALS_H
#define SLUICE_PROTOCOLS_CREDENTIALS_H

#include <stdbool.h>

#define CREDENTIALS_PART_MAX 255u /* octets of each part, RFC 1929 section 2 */

struct credentials {
    bool present;                            /* the peer gave them, even if both are empty */
    bool user_only;                          /* SOCKS4, which knows no passwords */
    char user[CREDENTIALS_PART_MAX + 1];     /* terminated */
    char password[CREDENTIALS_PART_MAX + 1]; /* terminated */
};

#endif
