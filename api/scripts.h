/* Scripts that run by themselves: listed, started, ended. */
#ifndef SLUICE_API_SCRIPTS_H
#define SLUICE_API_SCRIPTS_H

#include "api/call.h"

struct engine;

void scripts_list(struct call *call);  /* GET /scripts */
void scripts_start(struct call *call); /* POST /scripts?name=N */
void scripts_end(struct call *call);   /* DELETE /scripts/N */
/* Their part of /metrics; nothing if there is none. */
void scripts_write_metrics(struct text *out, struct engine *e);

#endif
