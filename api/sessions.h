/* GET /sessions, DELETE /sessions/ID and POST /sessions/judge: what workers are asked, and how their answers are shown.
 */
#ifndef SLUICE_API_SESSIONS_H
#define SLUICE_API_SESSIONS_H

#include "api/call.h"

void sessions_list(struct call *call);
void sessions_end(struct call *call);
/* Resets those whose clients lists deny by now. */
void sessions_judge(struct call *call);
/* Reads `worker-slot-generation` in hexadecimal. False: it has no such form. */
bool sessions_parse_id(const char *text, uint32_t *worker, uint32_t *slot, uint32_t *generation);

#endif
