/* GET and POST /stats: for people, for neosocksd's scrapers, and as JSON for programs. */
#ifndef SLUICE_API_STATS_H
#define SLUICE_API_STATS_H

#include "api/snapshot.h"
#include "api/text.h"

/* The query of /stats (contract section 3.3). */
struct stats_query {
    bool nobanner, server, runtime;
};

/* The state of POST /stats: its rates are since the one before. */
struct stats_previous {
    bool any;
    struct snapshot snapshot;
    double dt_time; /* monotonic: of the last POST, whatever it showed */
};

void stats_write_banner(struct text *out);
void stats_write(struct text *out, const struct snapshot *now, const struct stats_query *query);
/* The lines that POST adds; dt: seconds since the last one, or since the start. */
void stats_write_rates(struct text *out, const struct snapshot *now, const struct stats_previous *previous, double dt);
/* The three lines about the Lua state, also of /ruleset/gc. */
void stats_write_memory(struct text *out, const struct engine_memory *memory);
struct history;
void stats_write_json(struct text *out, const struct snapshot *now, const struct coordinator *c,
                      const struct history *history);

#endif
