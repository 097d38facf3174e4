/* Scripts that run by themselves: listed, started, ended. */
#ifndef SLUICE_API_SCRIPTS_H
#define SLUICE_API_SCRIPTS_H

#include "call.h"

void scripts_list(struct call *call);  /* GET /scripts */
void scripts_start(struct call *call); /* POST /scripts?name=N */
void scripts_end(struct call *call);   /* DELETE /scripts/N */

#endif
