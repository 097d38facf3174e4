/* The command line.
 *
 *     argv > read_words > row of the table > its function > struct config
 *
 * What options can get wrong together is config_check()'s part. */
#include "core/process/options.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/io/log.h"
#include "core/process/config_check.h"
#include "core/process/config_dump.h"
#include "core/process/hash_password.h"
#include "core/process/option_help.h"
#include "core/process/option_listeners.h"
#include "core/process/option_table.h"
#include "core/session/keys.h"
#include "core/session/policy.h"

/* Finds the operand of the option at argv[0]: behind "=", or the next word. Returns the number of words used up, or -1.
 * A required operand is taken blindly, also when it begins with a dash. */
static int take_operand(struct option_parse *p, int argc, char **argv, const char **operand)
{
    const struct option_row *row = p->row;
    const char *equals = argv[0][p->name_size] ? argv[0] + p->name_size + 1 : NULL;

    *operand = equals;
    if (!row->operand) return equals ? option_complain(p, "takes no value, give it alone") : 1;
    if (equals) return 1;
    if (row->operand[0] == '[') {
        if (argc < 2 || argv[1][0] == '-') return 1;
    } else if (argc < 2) {
        return option_complain(p, "the operand is missing, give %s", row->operand);
    }
    *operand = argv[1];
    return 2;
}

/* Reads one option with its operand. Returns the number of words used up, or -1. */
static int read_option(struct option_parse *p, int argc, char **argv)
{
    const char *operand;

    p->name = argv[0];
    p->name_size = (int)strcspn(argv[0], strncmp(argv[0], "--", 2) == 0 ? "=" : "");
    p->row = option_find(p->name, (size_t)p->name_size);
    if (!p->row) {
        fprintf(stderr, "sluice: \"%s\" is no option, \"sluice --help\" lists all\n", argv[0]);
        return -1;
    }
    int used = take_operand(p, argc, argv, &operand);
    if (used < 0 || p->row->read(p, operand) < 0) return -1;
    return used;
}

static int read_words(struct option_parse *p, int argc, char **argv)
{
    for (int i = 1; i < argc && p->request == OPTION_SETTINGS;) {
        if (strcmp(argv[i], "--") == 0) return 0; /* what follows is ignored, as the contract has it */
        int used = read_option(p, argc - i, argv + i);
        if (used < 0) return -1;
        i += used;
    }
    return 0;
}

void config_defaults(struct config *config)
{
    *config = (struct config){
        .family = AF_UNSPEC,
        .fastopen = true,
        .conn_cache = true,
        .relay = RELAY_AUTO,
        .timeout_ms = 60000,
        /* RFC 5382 section 5: what an application may expect of any box in its path. */
        .idle_timeout_ms = 7440000,
        .udp_timeout_ms = 300000, /* RFC 4787 section 4.3: five minutes are recommended */
        .half_close_timeout_ms = 3600000,
        .startup_rate = 30,
        .limit_keys = KEYS_DEFAULT,
        .access_log_format = "json",
        .blocked = POLICY_MULTICAST,
        .tcp_nodelay = true,
        .tcp_keepalive = true,
        .lua_budget_ms = 5000,
        .log_level = LOG_LEVEL_NOTICE,
        .log_target = LOG_TO_STDERR,
    };
}

static enum config_action tell(enum option_request request)
{
    if (request == OPTION_HASH && hash_password_run() < 0) return CONFIG_EXIT_FAILURE;
    if (request == OPTION_HELP) option_print_help();
    if (request == OPTION_VERSION) option_print_version();
    return fflush(stdout) == 0 ? CONFIG_EXIT_SUCCESS : CONFIG_EXIT_FAILURE;
}

static enum config_action check_and_dump(struct config *config)
{
    if (config_check(config) < 0 || config_dump(config) < 0) return CONFIG_EXIT_FAILURE;
    return CONFIG_EXIT_SUCCESS;
}

enum config_action config_parse(struct config *config, int argc, char **argv)
{
    struct option_parse p = {.config = config, .last_listen = -1};

    if (read_words(&p, argc, argv) < 0) return CONFIG_EXIT_FAILURE;
    if (p.request != OPTION_SETTINGS) return tell(p.request);
    if (option_finish_listeners(&p) < 0) return CONFIG_EXIT_FAILURE;
    if (config->ruleset && config->boot) {
        fputs("sluice: --ruleset and --config exclude each other, leave one of them out\n", stderr);
        return CONFIG_EXIT_FAILURE;
    }
    log_open((enum log_target)config->log_target, config->log_level);
    /* --check is main's, and the dump of what a -c script says: they begin as a start does. */
    return config->dump_only && !config->boot ? check_and_dump(config) : CONFIG_RUN;
}

int config_read(struct config *config, int argc, char **argv, char *why, size_t size)
{
    struct option_parse p = {.config = config, .last_listen = -1, .why = why, .why_size = size};

    return read_words(&p, argc, argv) < 0 || p.request != OPTION_SETTINGS || option_finish_listeners(&p) < 0 ? -1 : 0;
}
