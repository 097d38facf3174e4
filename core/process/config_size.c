#include "core/process/config_size.h"

#include <assert.h>
#include <stdio.h>
#include <unistd.h>

#include "core/process/process.h"
#include "core/resolver/resolve.h"

#define SETUPS_MAX 16384u

/* Flows hold a pipe only while something is in it; two workers and 20,000 descriptors leave 9,000 sessions. */
#define PIPES_WANTED 224u

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t read_setting(const char *path, uint64_t fallback)
{
    unsigned long long value;
    FILE *file = fopen(path, "re");

    if (!file) return fallback;
    if (fscanf(file, "%llu", &value) != 1) value = fallback;
    fclose(file);
    return value;
}

static void size_pipes(struct config *c, uint64_t descriptors)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    /* 1 MiB: the size from which on splice(2) was no longer bound by wake-ups. The kernel allows ordinary users
     * pipe-max-size, 1 MiB by default. */
    c->pipe_size = (uint32_t)smaller(1u << 20, read_setting("/proc/sys/fs/pipe-max-size", 1u << 20));
    /* All pipes of one user share pipe-user-pages-soft pages (16384 by default: 64 pipes of 256 pages), 0 is no limit;
     * what goes beyond gets pipes of two pages, which are worse than copying. With -u they are made before privileges
     * are dropped. */
    uint64_t soft = read_setting("/proc/sys/fs/pipe-user-pages-soft", 16384);
    bool unlimited = soft == 0 || process_is_privileged();
    uint64_t pipes = unlimited ? PIPES_WANTED : smaller(64, soft / ((c->pipe_size + page - 1) / page) / c->workers);
    /* At most an eighth of all descriptors, two per pipe: sessions matter more. Names have another eighth. */
    pipes = smaller(pipes, descriptors / 16 / c->workers);
    c->pipes = c->relay == RELAY_COPY ? 0 : (uint32_t)pipes;
}

/* Upstream connections that wait for another request: 1024 of the process and 256 of a worker, so that many workers
 * do not multiply them, and a thirty-second of all descriptors, since sessions matter more. 14 KiB of address space
 * each, twice. */
static void size_conns(struct config *c, uint64_t descriptors)
{
    uint64_t conns = smaller(1024, descriptors / 32) / c->workers;
    c->conns = c->conn_cache ? (uint32_t)smaller(256, conns) : 0;
}

/* Gives everything but sessions its part of `limit` descriptors: how many that are, which may be more than there are.
 */
static uint64_t size_reserve(struct config *c, uint64_t limit)
{
    size_pipes(c, limit);
    /* Each question over UDP that is under way has a socket of its own (dns_udp.h). With fewer of them a name server
     * has less time to answer before its question makes room for a newer one: 128, of 1024 descriptors, give it 64 ms
     * at 2,000 questions a second. */
    c->name_sockets = (uint32_t)smaller(RESOLVE_SOCKETS_MAX, limit / 8 + 1);
    /* 64 for standard streams, log, signals, what else names need and connections that wait for their refusal; each
     * worker has its listeners, ring, wake-up and spare descriptors (4), and two for each pipe. */
    uint64_t reserve = 64 + c->name_sockets + (uint64_t)c->workers * (c->listener_count + 4 + 2 * (uint64_t)c->pipes);
    size_conns(c, limit);
    reserve += (uint64_t)c->workers * c->conns;
    uint64_t left = limit > reserve ? limit - reserve : 0;
    /* UDP associations take four descriptors (control, client side, IPv4 and IPv6 targets) and datagram buffers. */
    c->associations = (uint32_t)smaller(256, left / 4 / c->workers);
    if (c->socks5_udp) reserve += 2 * (uint64_t)c->associations * c->workers; /* two of the four are a session's */
    return reserve;
}

/* What is reserved grows with the limit, but by less: this ends where both fit. */
uint64_t config_descriptors(const struct config *config, uint32_t sessions)
{
    struct config c = *config;
    uint64_t limit = 0, needed = 2 * (uint64_t)sessions;
    while (needed > limit) {
        limit = needed;
        needed = 2 * (uint64_t)sessions + size_reserve(&c, limit);
    }
    return limit;
}

void config_size(struct config *config)
{
    struct config *c = config;
    assert(c->workers > 0 && c->workers <= CONFIG_WORKERS_MAX);
    uint64_t limit = process_descriptors(), reserve = size_reserve(c, limit);
    uint64_t descriptors = limit > reserve ? limit - reserve : 0;

    /* Addresses that clients of associations have sent to, 40 octets each: 256 for each association, 2.5 MiB, and one
     * association may have 1,024 (UDP_PEERS_MAX) while others have fewer. */
    c->udp_peers = c->associations < 4 ? 1024 : c->associations * 256;
    /* A relayed session is two sockets. SO_REUSEPORT may send all of them to one worker, so that each has slots for
     * the whole process; slots that were never used are never resident. */
    uint64_t sessions = smaller(descriptors / 2, CONFIG_SESSIONS_MAX);
    if (c->max_sessions > 0) sessions = smaller(sessions, c->max_sessions);
    c->sessions = (uint32_t)sessions;
    /* A handshake holds its received head: some 20 KiB of address space, of which SOCKS touches two pages. */
    c->setups = (uint32_t)smaller(sessions, SETUPS_MAX - c->associations);
    /* 16 KiB is what a bulk flow fills at once. 16384 of them are 256 MiB of address space: what peers that read slowly
     * may hold, one each; when they hold three quarters, octets are read only where they can be sent at once
     * (scarcity.h). Only those become resident that have been needed at the same time (buffers.h), 16 MiB in normal
     * service: one turn may complete a receive on each of 1024 connections before replacements are given. */
    c->buffers = 16384;
    c->buffers_lent = 1024;
    c->buffer_size = 16384;
    /* A third of a millisecond's work: so long an interactive session waits for its turn beside bulk flows. One more
     * system call in so many octets is nothing. */
    c->bulk_turn = 1u << 20;
    /* Submissions between two waits: one batch of completions causes about two each; a full queue is submitted early.
     */
    c->ring_entries = 1024;
    /* To the coordinator: each setup slot may have a question under way, a word about it (CANCEL), and a word of the
     * session that had the slot before (ROUTED), an association the first two: three quarters, for setup slots and
     * associations are 16384 together; errands that go back take one, see errand_return(). To the worker: an answer to
     * each question, and errands as far as a quarter. Neither overflows. */
    c->queue_capacity = 65536;
    /* Plain HTTP keeps two heads per message in transit, which tunnels do not need. */
    c->exchanges = (uint32_t)smaller(1024, sessions);
    /* HTTP heads that do not fit into a setup slot (8 KiB, 4 KiB from a proxy) or an exchange (16 KiB), while they
     * pass: 68 KiB of address space each, 34 MiB in all, resident as far as they are filled. One for a request, two for
     * a plain HTTP head that is written anew; half of them for requests at most. */
    c->heads = (uint32_t)smaller(512, 2 * sessions);
}
