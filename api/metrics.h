/* GET /metrics: the counters as Prometheus text, version 0.0.4. Names that begin with neosocksd_ are neosocksd's, for
 * dashboards that exist; sluice_ are ours, by worker. */
#ifndef SLUICE_API_METRICS_H
#define SLUICE_API_METRICS_H

#include "snapshot.h"
#include "text.h"

void metrics_write(struct text *out, const struct snapshot *now, const struct coordinator *c);

#endif
