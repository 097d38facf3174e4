/* A name server of our own in a thread, on loopback: a name's first label says what it answers (see server_decide()),
 * and it counts the questions per name. */
#ifndef SLUICE_TESTS_DNS_DOUBLE_H
#define SLUICE_TESTS_DNS_DOUBLE_H

#include <stdint.h>

#define DNS_A    1u
#define DNS_AAAA 28u

int dns_start(void **state); /* for cmocka's groups: there is one */
int dns_stop(void **state);
const char *dns_address(void); /* for --nameserver */
unsigned dns_questions(const char *name, uint16_t type);
unsigned dns_tcp_questions(void);
unsigned dns_ports(void); /* different source ports of questions over UDP, as far as they are remembered */

#endif
