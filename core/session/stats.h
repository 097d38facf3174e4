/* Counters of one worker: one writer, the worker; readers sum snapshots. Gauges are counters that also fall. */
#ifndef SLUICE_CORE_SESSION_STATS_H
#define SLUICE_CORE_SESSION_STATS_H

#include "core/io/counter.h"
#include "core/io/histogram.h"
#include "core/session/failure.h"

/* What has become of a user and a password (--users). */
enum password_outcome {
    PASSWORD_REMEMBERED, /* that pair was verified before: no hash was made */
    PASSWORD_RIGHT,
    PASSWORD_WRONG,
    PASSWORD_UNKNOWN, /* there is no such user, or nobody has its password */
    PASSWORD_BUSY,    /* too many wait already, of that source or in all */
    PASSWORD_OUTCOMES,
};

struct stats {
    counter accepted;                           /* connections taken in */
    counter refused_limit;                      /* reset at once: limits, or a pool was empty */
    counter refused_sessions, refused_startups; /* the part of these that is --max-sessions', and --max-startups' */
    counter refused_share;                      /* another part: its source has its share of the handshakes */
    counter refused_half_open;                  /* another one: a limit of its source, see newcomer.h */
    counter refused_resource;                   /* reset or postponed: no descriptor, no memory */
    counter half_open;                          /* gauge: sessions before their relay */
    counter established;                        /* gauge: sessions that relay, or any other established form */
    counter requests;                           /* requests understood */
    counter successes;                          /* relays begun */
    counter failures[FAIL_COUNT];
    counter gave_up; /* of those that are upstream: a ruleset tried, and then refused: rejected by it, too */
    counter bytes_up, bytes_down;     /* delivered, relays and exchanges */
    counter bytes_copy, bytes_splice; /* the same by path */
    counter datagrams_up, datagrams_down, datagrams_dropped;
    counter starved;                      /* receives that found the buffer group empty */
    counter pipes_missing;                /* bulk flows that found no pipe and went on copying */
    counter to_splice, to_copy;           /* changes of a flow's path */
    counter queue_full;                   /* attempts to send a message that found the queue full, so that it waits */
    counter pipes_in_use;                 /* gauge */
    counter drain_resets;                 /* sessions that were left when the drain of a stop was over */
    counter peak;                         /* most half-open and established sessions at a time */
    counter peak_of_all;                  /* the same of all workers together, when this one had more than before */
    counter internal;                     /* gauge: connections of the coordinator's own; counted nowhere else */
    counter routes_asked;                 /* questions to the ruleset */
    counter names_remembered;             /* names whose addresses the worker still knew */
    counter routes_remembered;            /* answered by a verdict that held still (sluice.cache) */
    counter passwords[PASSWORD_OUTCOMES]; /* by enum password_outcome; a client that did not wait has none */
    counter conns_opened;                 /* upstream connections made for plain HTTP requests */
    counter conns_reused;                 /* requests that took one which had carried others before, see conn_cache.h */
    counter conns_stale;                  /* of these connections: had ended, which their poll had not told yet */
    counter conns_evicted;                /* closed before their time: too many, no descriptor, a reload or a stop */
    counter conns_idle;                   /* gauge: those that wait */
    counter egress_faults; /* times that a source, a mark or an interface was not to be had, see egress.h */
    counter egress_rests;  /* source addresses that were left alone for a while */
    counter handshake_in, handshake_out; /* octets of clients' handshakes */
    counter hop_in, hop_out;             /* octets of handshakes with proxies of the chain */
    struct histogram connect;            /* from a request to its established connection */
    struct histogram decision;           /* from a question to the ruleset to its answer */
};

#endif
