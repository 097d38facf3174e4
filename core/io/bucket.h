/* A rate that threads share without a lock: so many pieces (octets, connections) a second, and a burst beyond that.
 *
 * A bucket is one word: the moment from which on the rate allows the next piece. Each piece moves it by the time that a
 * piece takes; a bucket that was left alone lags behind the clock, by the length of the burst at most. So nothing is
 * refilled: no interval can be credited twice or lost between two threads, no fraction gets lost however often it is
 * asked, and a long time of idleness is worth no more than the burst. Whatever threads do, at any moment t no more than
 * rate * t + burst is allowed (the generic cell rate algorithm, ITU-T I.371).
 *
 * Pieces are taken at once or not at all, or booked: then they are allowed at a moment that is told, behind all that
 * were booked before. Bookings of equal size get equal shares, whoever makes them. */
#ifndef SLUICE_CORE_IO_BUCKET_H
#define SLUICE_CORE_IO_BUCKET_H

#include <stdatomic.h>
#include <stdint.h>

struct bucket {
    _Atomic uint64_t next; /* in units of 1/64 ns of the clock that callers give */
};

struct bucket_rate {
    uint64_t pieces; /* in `seconds`; more than 0 */
    uint32_t seconds;
    uint64_t burst; /* pieces; more than 0 */
};

/* A full one, whatever its rate. now_us: of a monotonic clock, whose readings may differ a little between threads. */
void bucket_open(struct bucket *bucket, uint64_t now_us);
/* Forgets what was booked; what was saved stays: for a rate that has changed. */
void bucket_reset(struct bucket *bucket, uint64_t now_us);
/* Takes `pieces` at once: 0; or takes nothing, and says in how many microseconds it could. UINT64_MAX: never, the burst
 * is smaller. */
uint64_t bucket_take(struct bucket *bucket, const struct bucket_rate *rate, uint64_t pieces, uint64_t now_us);
/* Books `pieces`: they may move from the returned moment on, which is now_us or later. More than the burst is fine: it
 * takes its time. */
uint64_t bucket_book(struct bucket *bucket, const struct bucket_rate *rate, uint64_t pieces, uint64_t now_us);
/* Taken or booked at that rate, and not used. */
void bucket_give_back(struct bucket *bucket, const struct bucket_rate *rate, uint64_t pieces);
/* How long the last booking still waits, in microseconds; 0: nothing waits. For whoever shows it. */
uint64_t bucket_wait_us(const struct bucket *bucket, uint64_t now_us);

#endif
