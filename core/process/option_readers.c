#include "core/process/option_readers.h"

#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/control/access_log.h"
#include "core/process/advertise_option.h"
#include "core/process/list_options.h"
#include "core/process/option_values.h"
#include "core/session/policy.h"
#include "protocols/group_text.h"
#include "protocols/limit_text.h"

#define URI_TEXT_MAX   1023u
#define CHAIN_TEXT_MAX 65535u

/* --- outgoing connections --- */

/* Messages name the hop by its number: the URI may hold a password. */
static int add_hop(struct option_parse *p, const char *text, size_t size)
{
    struct config *c = p->config;
    const char *wrong;

    if (c->hop_count == CONFIG_HOPS_MAX)
        return option_complain(p, "the chain is too long, give at most %u", CONFIG_HOPS_MAX);
    wrong = size > URI_TEXT_MAX ? "longer than 1023 octets" : group_hop_parse(text, size, &c->hops[c->hop_count]);
    if (wrong)
        return option_complain(p,
                               "proxy %u: %s, give socks5://, socks4a:// or http://[user[:password]@]host[:port], or "
                               "group:NAME",
                               c->hop_count + 1, wrong);
    c->hop_count++;
    return 0;
}

int option_set_proxy(struct option_parse *p, const char *operand)
{
    if (strlen(operand) > CHAIN_TEXT_MAX)
        return option_complain(p, "the chain is longer than %u octets", CHAIN_TEXT_MAX);
    p->config->hop_count = 0;
    p->config->proxy_text = operand;
    for (const char *next = operand;; next++) {
        size_t size = strcspn(next, ",");
        if (add_hop(p, next, size) < 0) return -1;
        next += size;
        if (!*next) return 0;
    }
}

int option_set_family(struct option_parse *p, const char *operand)
{
    int family = p->row->short_name == '4' ? AF_INET : AF_INET6;

    (void)operand;
    if (p->config->family != AF_UNSPEC && p->config->family != family)
        return option_complain(p, "-4 and -6 exclude each other, leave both out to use addresses of either family");
    p->config->family = family;
    return 0;
}

int option_set_nameserver(struct option_parse *p, const char *operand)
{
    for (const char *next = operand;; next++) {
        size_t size = strcspn(next, ",");
        if (!value_is_nameserver(next, size))
            return option_complain(p, "\"%.*s\" is no name server, give address[:port], IPv6 as [address]:port",
                                   (int)size, next);
        next += size;
        if (!*next) break;
    }
    p->config->nameservers = operand;
    return 0;
}

int option_set_netdev(struct option_parse *p, const char *operand)
{
    if (!*operand || strlen(operand) >= IF_NAMESIZE || strchr(operand, '/'))
        return option_complain(p, "\"%s\" is no interface name, give 1 to %d characters", operand, IF_NAMESIZE - 1);
    p->config->netdev = operand;
    return 0;
}

int option_set_blocked(struct option_parse *p, const char *operand)
{
    const char *bad;
    size_t bad_size;

    p->config->blocked_given = true;
    if (policy_parse(operand, &p->config->blocked, &bad, &bad_size)) return 0;
    if (bad_size == 0)
        return option_complain(p, "\"%s\" has an empty member, give a list of loopback, multicast, local, global",
                               operand);
    return option_complain(p, "\"%.*s\" is unknown, give a list of loopback, multicast, local, global", (int)bad_size,
                           bad);
}

/* --- listeners --- */

int option_set_udp_advertise(struct option_parse *p, const char *operand)
{
    p->config->advertise = (struct advertise){0};
    p->config->advertise_text = operand;
    for (const char *next = operand;; next++) {
        size_t size = strcspn(next, ",");
        if (advertise_option_add(p, &p->config->advertise, next, size) < 0) return -1;
        next += size;
        if (!*next) return 0;
    }
}

/* --- limits, threads --- */

int option_set_socket_buffer(struct option_parse *p, const char *operand)
{
    uint64_t size;

    if (!value_size(operand, &size)) return option_complain(p, "\"%s\" is no size, give 16K to 1024M", operand);
    if ((double)size < p->row->least || (double)size > p->row->most)
        return option_complain(p, "\"%s\" is out of range, give 16K to 1024M", operand);
    p->config->tcp_sndbuf = p->config->tcp_rcvbuf = (int)size;
    return 0;
}

/* start:rate:full, all three required. */
int option_set_startups(struct option_parse *p, const char *operand)
{
    uint32_t numbers[3];

    if (!value_triple(operand, numbers))
        return option_complain(p, "\"%s\" is malformed, give start:rate:full, such as 100:30:200", operand);
    if (numbers[1] > 100) return option_complain(p, "rate \"%u\" is out of range, give 0 to 100", numbers[1]);
    p->config->startup_start = numbers[0];
    p->config->startup_rate = numbers[1];
    p->config->startup_full = numbers[2];
    return 0;
}

int option_add_limit(struct option_parse *p, const char *operand)
{
    struct config *c = p->config;
    struct limit_key key;
    struct limit_terms terms;

    operand += strspn(operand, " ");
    const char *wrong = limit_parse(operand, strlen(operand), &key, &terms);
    if (wrong) return option_complain(p, "\"%s\": %s", operand, wrong);
    if (strchr(operand, ';')) return option_complain(p, "\"%s\" has a semicolon, write it as %%3B", operand);
    if (c->limit_count == CONFIG_LIMITS_MAX)
        return option_complain(p, "too many limits, give at most %u; PUT /limits/KEY of the API takes more",
                               CONFIG_LIMITS_MAX);
    c->limits[c->limit_count++] = operand;
    return 0;
}

/* Messages name the group and no member: a URI may hold a password. */
int option_add_upstream(struct option_parse *p, const char *operand)
{
    struct config *c = p->config;
    operand += strspn(operand, " ");
    struct group_plan *plan = malloc(sizeof *plan);
    if (!plan) return option_complain(p, "not enough memory");
    const char *wrong = group_parse(operand, strlen(operand), plan);
    if (!wrong && strchr(operand, ';')) wrong = "it has a semicolon, write it as %3B";
    free(plan);
    if (wrong) return option_complain(p, "\"%.*s\": %s", (int)strcspn(operand, "=:/,"), operand, wrong);
    if (c->upstream_count == CONFIG_UPSTREAMS_MAX)
        return option_complain(p, "too many groups, give at most %u; scripts may define more", CONFIG_UPSTREAMS_MAX);
    c->upstreams[c->upstream_count++] = operand;
    return 0;
}

int option_add_lists(struct option_parse *p, const char *operand)
{
    return list_options_add(p, (enum list_kind)p->row->list, LIST_SCOPE_PROCESS, operand);
}

int option_set_workers(struct option_parse *p, const char *operand)
{
    uint64_t value;

    p->config->workers = 0;
    if (strcmp(operand, "auto") == 0) return 0;
    if (!value_number(operand, strlen(operand), &value))
        return option_complain(p, "\"%s\" is not a number, give 1 to %u, or auto", operand, CONFIG_WORKERS_MAX);
    if (value < 1 || value > CONFIG_WORKERS_MAX)
        return option_complain(p, "\"%s\" is out of range, give 1 to %u, or auto", operand, CONFIG_WORKERS_MAX);
    p->config->workers = (uint32_t)value;
    return 0;
}

int option_set_access_log(struct option_parse *p, const char *operand)
{
    enum sink_kind kind;
    const char *path, *wrong = access_log_place(operand, &kind, &path);
    if (wrong) return option_complain(p, "\"%s\" %s", operand, wrong);
    p->config->access_log = operand;
    return 0;
}

int option_set_access_log_format(struct option_parse *p, const char *operand)
{
    static const char hint[] = "give json, logfmt, clf or a template: docs/access-log.md has the fields";
    enum access_format format;
    struct access_template template;
    const char *bad;
    size_t bad_size;

    const char *wrong = access_log_format(operand, &format, &template, &bad, &bad_size);
    if (wrong && bad_size > 0) return option_complain(p, "%s \"%.*s\", %s", wrong, (int)bad_size, bad, hint);
    if (!wrong && format == ACCESS_TEMPLATE && !strchr(operand, '{')) wrong = "no field stands in it";
    if (wrong) return option_complain(p, "\"%s\": %s, %s", operand, wrong, hint);
    p->config->access_log_format = operand;
    return 0;
}

/* --- process, scripts, information --- */

int option_set_user(struct option_parse *p, const char *operand)
{
    if (!*operand || strcmp(operand, ":") == 0)
        return option_complain(p, "\"%s\" names nobody, give user, user:, user:group or :group", operand);
    p->config->user = operand;
    return 0;
}

int option_add_script(struct option_parse *p, const char *operand)
{
    if (!*operand) return option_complain(p, "the operand is empty, give %s", p->row->operand);
    if (p->config->script_count == CONFIG_SCRIPTS_MAX)
        return option_complain(p, "too many scripts, give at most %u", CONFIG_SCRIPTS_MAX);
    p->config->scripts[p->config->script_count++] = operand;
    return 0;
}

int option_ask_help(struct option_parse *p, const char *operand)
{
    (void)operand;
    p->request = OPTION_HELP;
    return 0;
}

int option_ask_version(struct option_parse *p, const char *operand)
{
    (void)operand;
    p->request = OPTION_VERSION;
    return 0;
}

int option_ask_hash(struct option_parse *p, const char *operand)
{
    (void)operand;
    p->request = OPTION_HASH;
    return 0;
}

/* --- obsolete options --- */

int option_warn_obsolete(struct option_parse *p, const char *operand)
{
    (void)operand;
    option_complain(p, "obsolete, %s", p->row->help);
    return 0;
}

int option_block_ingress(struct option_parse *p, const char *operand)
{
    p->config->blocked |= POLICY_GLOBAL;
    p->config->blocked_given = true;
    return option_warn_obsolete(p, operand);
}

int option_block_egress(struct option_parse *p, const char *operand)
{
    p->config->blocked |= POLICY_LOCAL;
    p->config->blocked_given = true;
    return option_warn_obsolete(p, operand);
}
