/* GET /metrics: the counters as Prometheus text, version 0.0.4. Names that begin with neosocksd_ are neosocksd's, for
 * dashboards that exist; sluice_ are ours, by worker. */
#ifndef SLUICE_API_METRICS_H
#define SLUICE_API_METRICS_H

#include "api/snapshot.h"
#include "api/text.h"

/* The count of lines of the ruleset's that were left out; in front of its lines. */
void metrics_write_dropped(struct text *out, uint64_t lines);
void metrics_write(struct text *out, const struct snapshot *now, const struct coordinator *c);

#endif
