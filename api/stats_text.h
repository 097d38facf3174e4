/* Numbers as /stats shows them (contract section 3.3): octets, counts, durations. Pure. Each writes a terminated text
 * and returns `out`. */
#ifndef SLUICE_API_STATS_TEXT_H
#define SLUICE_API_STATS_TEXT_H

#include <stddef.h>
#include <stdint.h>

#define STATS_TEXT_SIZE 32u

char *stats_text_bytes(char out[STATS_TEXT_SIZE], double octets);     /* 0, 2047B, 2.00KiB, 31.4MiB */
char *stats_text_count(char out[STATS_TEXT_SIZE], double count);      /* three digits and k, M, G, T */
char *stats_text_duration(char out[STATS_TEXT_SIZE], double seconds); /* 253.8ms, 12.50s, 1:02:03 */

#endif
