/* An option: its row in the table, the setting that it writes, and the functions that read the operands of most of
 * them.
 *
 *     option_table.c   the rows: everything that is known of an option stands there, once
 *     option_values.c  text to value
 *     option_listeners.c, option_readers.c   operands of single options
 *     option_help.c    --help                         config_dump.c         --dump-config
 *     options.c        the command line               lua/boot/settings.c   the fields of a -c table */
#ifndef SLUICE_CORE_PROCESS_OPTION_H
#define SLUICE_CORE_PROCESS_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/session/config.h"

/* Sections of the help, in its order. */
enum option_group {
    GROUP_LISTENERS,
    GROUP_OUTBOUND,
    GROUP_SCRIPTS,
    GROUP_LIMITS,
    GROUP_RELAY,
    GROUP_LOG,
    GROUP_PROCESS,
    GROUP_INFORMATION,
    GROUP_HIDDEN, /* accepted or refused, but not advertised */
};

/* What a setting is in struct config, and what it is in the table of a -c script. */
enum option_kind {
    OPTION_ACTION,      /* no setting of its own: its function says what it does */
    OPTION_FLAG,        /* bool; a boolean */
    OPTION_CLASS,       /* one class of addresses in config.blocked; a boolean */
    OPTION_NUMBER,      /* uint32_t, or an int that is never negative; an integer */
    OPTION_FAMILY,      /* int, AF_UNSPEC, AF_INET or AF_INET6; an integer */
    OPTION_SECONDS,     /* uint32_t, milliseconds; a number, seconds */
    OPTION_TEXT,        /* const char *; a string */
    OPTION_WORD,        /* int or enum, an index of `words`; a string, the word */
    OPTION_LISTEN,      /* listeners of every kind but LISTENER_HTTP; a string, separated by commas */
    OPTION_HTTP_LISTEN, /* the listeners of LISTENER_HTTP; likewise */
    OPTION_FORWARD,     /* what OPTION_LISTEN's listeners forward to, in the same order; likewise */
    OPTION_SCRIPTS,     /* paths of scripts; likewise, in their order */
    OPTION_LISTS,       /* members of config.lists_given of one enum list_kind; a string, separated by commas */
    OPTION_LIMITS,      /* config.limits; a string, separated by semicolons */
    OPTION_UPSTREAMS,   /* config.upstreams; likewise */
    OPTION_RULESET,     /* const char *, the path of a script; that path, or the ruleset itself as a table */
};

struct option_parse;

/* Reads the operand, which is NULL where none was given. 0, or -1 after option_complain(). */
typedef int option_function(struct option_parse *p, const char *operand);

struct option_row {
    char short_name;       /* 0: none */
    const char *long_name; /* NULL: none */
    const char *operand;   /* its name in the help; NULL: takes none; in brackets: may be left out */
    enum option_group group;
    const char *help; /* wrapped when printed; for obsolete ones: what to do instead */
    option_function *read;
    const char *key; /* the field of a -c table; NULL: the command line alone has it */
    enum option_kind kind;
    bool repeated;            /* OPTION_TEXT: what is given again is added; a -c table begins anew */
    bool negative_is_none;    /* a number below zero means no limit, as zero does (contract section 1.4) */
    size_t place;             /* offset in struct config */
    double least, most;       /* of numbers, and of seconds in seconds */
    const char *const *words; /* OPTION_WORD: index is the value, NULL ends */
    uint32_t class;           /* OPTION_CLASS: one of enum policy_class */
    uint8_t list;             /* OPTION_LISTS: enum list_kind */
};

enum option_request { OPTION_SETTINGS, OPTION_HELP, OPTION_VERSION, OPTION_HASH }; /* what the command line asks for */

/* A command line that is being read. */
struct option_parse {
    struct config *config;
    const struct option_row *row; /* the option that is being read */
    const char *name;             /* the option as typed, without "=value" */
    int name_size;
    const char *pending_forward;                      /* -f that waits for its -l; NULL: none */
    bool pending_http;                                /* bare --http that waits for its -l */
    const char *pending_proxies, *pending_send_proxy; /* --proxy-protocol, --send-proxy that wait likewise */
    int last_listen;                                  /* index of the latest -l, -1: none */
    enum option_request request;                      /* other than OPTION_SETTINGS: the words behind it are not read */
    char *why;                                        /* where complaints go, why_size octets; NULL: to stderr */
    size_t why_size;
};

/* Prints "sluice: --option: what is wrong, what to do" on stderr, or writes it to p->why without the program. Always
 * -1. */
int option_complain(const struct option_parse *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- the setting of a row; the row must be of the kind --- */

bool option_flag(const struct option_row *row, const struct config *config);        /* FLAG, CLASS */
uint32_t option_number(const struct option_row *row, const struct config *config);  /* NUMBER, FAMILY, SECONDS */
const char *option_text(const struct option_row *row, const struct config *config); /* TEXT, WORD, RULESET; or NULL */

void option_put_flag(const struct option_row *row, struct config *config, bool value);
void option_put_number(const struct option_row *row, struct config *config, uint32_t value);
/* Rounded up: what is above zero must not become zero, which means "never" or "at once". */
void option_put_seconds(const struct option_row *row, struct config *config, double seconds);
void option_put_text(const struct option_row *row, struct config *config, const char *text); /* TEXT, RULESET */

/* --- functions that serve several options --- */

option_function option_set_flag, option_clear_flag; /* FLAG */
option_function option_set_number;                  /* NUMBER */
option_function option_set_seconds;                 /* SECONDS */
option_function option_set_word;                    /* WORD */
option_function option_set_text;                    /* TEXT, RULESET: any that is not empty */

#endif
