/* Groups of upstreams: GET /upstreams, PUT /upstreams/NAME/MEMBER. */
#ifndef SLUICE_API_UPSTREAMS_H
#define SLUICE_API_UPSTREAMS_H

#include "api/call.h"

struct coordinator;

void upstreams_list(struct call *call);
void upstreams_put(struct call *call);
void upstreams_write_metrics(struct text *out, const struct coordinator *c);

#endif
