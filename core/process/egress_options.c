#include "core/process/egress_options.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/process/kept_text.h"
#include "core/session/machine.h"

/* --- reading --- */

static int add_sources(struct option_parse *p, struct egress_sources *sources, const char *text)
{
    const char *wrong = egress_parse_sources(text, strlen(text), sources);
    return wrong ? option_complain(p, "\"%s\": %s", text, wrong) : 0;
}

/* Both in one: what the table of -c has, and --dump-config prints. NULL: no memory. */
static const char *joined(const char *before, const char *more)
{
    char text[2048];
    if (!before) return more;
    int size = snprintf(text, sizeof text, "%s,%s", before, more);
    return size > 0 && (size_t)size < sizeof text ? kept_text(text, (size_t)size) : NULL;
}

int option_add_source(struct option_parse *p, const char *operand)
{
    const char *before = p->config->source, *all = joined(before, operand);
    struct egress_sources sources = {0};

    if (before) egress_parse_sources(before, strlen(before), &sources);
    if (add_sources(p, &sources, operand) < 0) return -1;
    if (!all) return option_complain(p, "the list is too long, give networks, address/bits");
    p->config->source = all;
    return 0;
}

int option_set_mark(struct option_parse *p, const char *operand)
{
    if (egress_parse_mark(operand, strlen(operand), &p->config->mark)) return 0;
    return option_complain(p, "\"%s\" is no mark, give 0 to 4294967295, or 0x0 to 0xffffffff", operand);
}

int egress_options_source(struct option_parse *p, struct egress_terms *terms, const char *value)
{
    return add_sources(p, &terms->sources, value);
}

int egress_options_by(struct option_parse *p, struct egress_terms *terms, const char *value)
{
    char text[32];
    if (strlen(value) + strlen("by=") >= sizeof text)
        return option_complain(p, "give by=user, source, round or random");
    snprintf(text, sizeof text, "by=%s", value);
    return add_sources(p, &terms->sources, text);
}

int egress_options_mark(struct option_parse *p, struct egress_terms *terms, const char *value)
{
    terms->marked = egress_parse_mark(value, strlen(value), &terms->mark);
    if (terms->marked) return 0;
    return option_complain(p, "mark \"%s\" is none, give 0 to 4294967295, or 0x0 to 0xffffffff", value);
}

int egress_options_interface(struct option_parse *p, struct egress_terms *terms, const char *value)
{
    if (egress_parse_device(value, strlen(value), terms->device)) return 0;
    return option_complain(p, "\"%s\" is no interface name, give 1 to %u characters", value, EGRESS_DEVICE_SIZE - 1);
}

const char *egress_options_derive(struct config *config)
{
    struct egress_terms *terms = &config->egress;
    const char *wrong = NULL;

    *terms = (struct egress_terms){.marked = config->mark != 0, .mark = config->mark};
    if (config->netdev) egress_parse_device(config->netdev, strlen(config->netdev), terms->device);
    if (config->source) wrong = egress_parse_sources(config->source, strlen(config->source), &terms->sources);
    if (!wrong) wrong = egress_check_sources(&terms->sources);
    for (uint32_t i = 0; i < config->listener_count && !wrong; i++)
        wrong = egress_check_sources(&config->listeners[i].egress.sources);
    return wrong;
}

/* --- what the machine says --- */

static void warn_of_range(const struct egress_range *range, int machine)
{
    struct egress_sources alone = {.given = true, .count = 1, .ranges = {*range}};
    struct egress_place place;
    char text[ADDRESS_TEXT_SIZE];

    if (!egress_first(&alone, range->kind, 0, false, &place)) return;
    struct address first = egress_address(&alone, &place);
    if (machine_has(machine, &first)) return;
    bool single = range->bits == (range->kind == ADDRESS_IPV4 ? 32 : 128);
    address_format_host(&first, text, sizeof text);
    if (single)
        LOGW("--source: %s is no address of this machine at present, so that nothing can leave from it: ip address add "
             "%s dev INTERFACE",
             text, text);
    else
        LOGW("--source: %s, the first address of a network, does not lead to this machine at present: ip route add "
             "local NETWORK/%u dev lo",
             text, range->bits);
}

static void warn_of_terms(const struct egress_terms *terms, int machine)
{
    for (unsigned i = 0; i < terms->sources.count; i++) warn_of_range(&terms->sources.ranges[i], machine);
    if (terms->device[0] && if_nametoindex(terms->device) == 0)
        LOGW("--netdev: there is no interface \"%s\" at present, so that nothing can leave", terms->device);
}

void egress_options_warn(const struct config *config)
{
    int machine = machine_open();
    warn_of_terms(&config->egress, machine);
    for (uint32_t i = 0; i < config->listener_count; i++) warn_of_terms(&config->listeners[i].egress, machine);
    machine_close(machine);
}

bool egress_options_mark_packets(const struct config *config)
{
    bool marks = config->egress.marked;
    for (uint32_t i = 0; i < config->listener_count; i++) marks |= config->listeners[i].egress.marked;
    return marks;
}

/* What fails for another reason than rights may work later. */
static int check_terms(const struct egress_terms *terms, int fd)
{
    if (terms->marked && net_set_mark(fd, terms->mark) == -EPERM) {
        LOGE("--mark %u: marking packets takes CAP_NET_RAW or CAP_NET_ADMIN, which this process does not have: run it "
             "as "
             "root, or leave the mark out",
             terms->mark);
        return -1;
    }
    if (terms->device[0] && net_set_device(fd, terms->device) == -EPERM) {
        LOGE("--netdev %s: binding to an interface takes CAP_NET_RAW, which this process does not have: run it as "
             "root, or "
             "leave the interface out",
             terms->device);
        return -1;
    }
    return 0;
}

/* On a socket of its own each: what is bound to one interface takes rights to be bound to another. */
static int check_rights_of(const struct egress_terms *terms)
{
    if (!terms->marked && !terms->device[0]) return 0;
    int fd = net_socket(AF_INET, SOCK_DGRAM);
    if (fd < 0) return 0;
    int result = check_terms(terms, fd);
    net_close(fd);
    return result;
}

int egress_options_check_rights(const struct config *config)
{
    int result = check_rights_of(&config->egress);
    for (uint32_t i = 0; i < config->listener_count && result == 0; i++)
        result = check_rights_of(&config->listeners[i].egress);
    return result;
}
