/* The users of the process (--users): their files, the threads that check passwords, and the limits that users bring.
 */
#ifndef SLUICE_CORE_CONTROL_ACCOUNTS_H
#define SLUICE_CORE_CONTROL_ACCOUNTS_H

#include "core/control/users.h"

struct config;
struct coordinator;

/* Reads the files of `config`, before coordinator_start(). 0, also where there are none; -1 after one log line. */
int coordinator_open_users(struct coordinator *c, const struct config *config);
/* How many stores there are, and each of them, from 1 on. */
uint32_t coordinator_user_stores(const struct coordinator *c);
struct users *coordinator_users(struct coordinator *c, uint32_t store);

#endif
