/* Samples of the recent past: one every second for ten minutes, and one every minute for two hours. The dashboard
 * begins its charts with it. Counters are kept as they stood, so that rates come out right across any gap: while a
 * script holds the coordinator's thread there are no samples. */
#ifndef SLUICE_API_HISTORY_H
#define SLUICE_API_HISTORY_H

#include "api/snapshot.h"
#include "api/text.h"

#define HISTORY_SECONDS 600u
#define HISTORY_MINUTES 120u
#define HISTORY_SLOTS   13u /* of five seconds: a minute of latencies, and the one that is being left */

/* Quantiles of the last minute in seconds; count 0: there was nothing. */
struct history_latency {
    uint64_t count;
    float p50, p90, p99, max;
};
struct history_sample {
    double uptime; /* when, seconds since the start */
    uint64_t bytes_up, bytes_down, bytes_copy, bytes_splice;
    uint64_t accepted, requests, successes, failures;
    uint32_t active, half_open, revision;
    struct history_latency connect, decision;
};
struct history_ring {
    struct history_sample *all;
    uint32_t room, count, next; /* next: where the next one goes */
};
/* The histograms as they stood. */
struct history_slot {
    double uptime;
    struct histogram_sum connect, decision;
};
struct history {
    struct history_ring seconds, minutes;
    struct history_sample second_samples[HISTORY_SECONDS], minute_samples[HISTORY_MINUTES];
    struct history_slot slots[HISTORY_SLOTS];
    uint32_t slot_count, slot_next;
    double minute_end; /* when the next sample of a minute is due */
};

void history_init(struct history *h);
/* Keeps what `now` says; about once a second. */
void history_add(struct history *h, const struct snapshot *now);
/* What has been measured within the last minute (60 to 65 seconds), or since the start if that is less. */
void history_last_minute(const struct history *h, const struct snapshot *now, struct histogram_sum *connect,
                         struct histogram_sum *decision);
/* All of it as JSON, in columns, oldest first; now: for its clocks. */
void history_write_json(const struct history *h, const struct snapshot *now, struct text *out);

#endif
