/* What keys have used in periods that are not over yet, also before the process began: so that a quota goes on where it
 * was when its key comes into the table. Octets of every key are here, whether it has a quota or not, for a quota may
 * be given to it later.
 *
 * One thread writes (core/usage), any thread reads, without a lock. The writer may take a key out and give its record
 * to another one: a reader that has met that sees it by a count, and looks again. Memory is taken as keys come. */
#ifndef SLUICE_CORE_SESSION_PAST_H
#define SLUICE_CORE_SESSION_PAST_H

#include <stdbool.h>
#include <stdint.h>

#include "core/session/limit.h"

#define PAST_NONE UINT32_MAX

struct past;

/* Room for `keys` of them. 0 or -ENOMEM. */
int past_open(struct past **out, uint32_t keys);
void past_close(struct past *past);

/* --- any thread --- */

/* What that key has used in the periods around `time`. False: it is not known, and all sums are 0. */
bool past_read(const struct past *past, const struct limit_key *key, const struct limit_time *time,
               struct limit_sums *sums);
uint32_t past_count(const struct past *past); /* of keys */

/* --- one thread --- */

uint32_t past_find(const struct past *past, const struct limit_key *key); /* its index; PAST_NONE: it is not known */
/* The key's index, the lowest one that was never given away, else one of a key that was taken out. PAST_NONE: there is
 * no room. */
uint32_t past_make(struct past *past, const struct limit_key *key);
void past_remove(struct past *past, uint32_t index);
void past_key(const struct past *past, uint32_t index, struct limit_key *out);
/* As past_read(). */
void past_sums(const struct past *past, uint32_t index, const struct limit_time *time, struct limit_sums *sums);
/* More octets, up and down, in the periods around `time`. */
void past_add(struct past *past, uint32_t index, const uint64_t octets[2], const struct limit_time *time);
/* What it had used, of a key that nothing was added to yet. */
void past_set(struct past *past, uint32_t index, const struct limit_sums *sums, const struct limit_time *time);

#endif
