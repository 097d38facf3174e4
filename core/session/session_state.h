/* The states of a connection; docs/states.md draws them, session.c knows who may follow whom. */
#ifndef SLUICE_CORE_SESSION_SESSION_STATE_H
#define SLUICE_CORE_SESSION_SESSION_STATE_H

enum session_state {
    SESSION_FREE,      /* in the pool; owns nothing */
    SESSION_ORIGIN,    /* client recv armed: the PROXY header of a proxy in front of us, see origin.h */
    SESSION_HELLO,     /* client recv armed: which protocol, which auth methods */
    SESSION_AUTH,      /* client recv armed: user and password, RFC 1929 section 2 */
    SESSION_VERIFY,    /* waiting for the checkers' word on user and password (--users) */
    SESSION_LOGIN,     /* waiting for the coordinator's word on user and password */
    SESSION_REQUEST,   /* client recv armed: the target, RFC 1928 section 4 */
    SESSION_ROUTE,     /* waiting for the coordinator's verdict */
    SESSION_RESOLVE,   /* waiting for DNS */
    SESSION_DIAL,      /* one or more connects in flight */
    SESSION_HOP,       /* handshake with a proxy of the chain */
    SESSION_ANNOUNCE,  /* the PROXY header for the target is being sent, see announce.h */
    SESSION_BIND,      /* SOCKS5 BIND: waiting for the peer to connect */
    SESSION_REPLY,     /* a refusal is being sent */
    SESSION_LINGER,    /* our side is shut down; the client may still read the refusal, what it sends is discarded */
    SESSION_RELAY,     /* two flows, see relay.h */
    SESSION_EXCHANGE,  /* a plain HTTP request and its response, see exchange.h */
    SESSION_IDLE,      /* between two plain HTTP requests of a client, see idle.h */
    SESSION_ASSOCIATE, /* SOCKS5 UDP, see udp.h */
    SESSION_PARTING,   /* established, and over; a peer has not acknowledged everything, see parting.h */
    SESSION_CLOSING,   /* sockets closed; waiting for inflight to reach zero */
    SESSION_STATE_COUNT,
};

const char *session_state_name(enum session_state state);

#endif
