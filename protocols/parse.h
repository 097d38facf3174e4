/* What every incremental parser of this folder answers.
 *
 * A parser is called with all octets received so far, from the first one on. It keeps no state of its own, so that
 * the answer depends on the octets alone and never on how the network happened to cut them. */
#ifndef SLUICE_PROTOCOLS_PARSE_H
#define SLUICE_PROTOCOLS_PARSE_H

enum parse_result {
    PARSE_OK,          /* complete: the output is written, `used` octets belong to it */
    PARSE_MORE,        /* a valid beginning, shorter than the format's maximum: receive more and call again */
    PARSE_BAD,         /* no continuation can make it valid: answer with the protocol's error and close */
    PARSE_UNSUPPORTED, /* well formed, but of a kind that is not known here, such as another address type */
    PARSE_TOO_LARGE,   /* longer than this parser is willing to hold */
};

#endif
