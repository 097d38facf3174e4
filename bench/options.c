#include "bench/client.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: load origin --port P [--device NAME]\n"
    "       load names --listen A:P\n"
    "       load bulk|rtt|connect|idle|verify|http|udp --target A:P [--via WAY --proxy A:P] [option...]\n"
    "\n"
    "  --via WAY          none forward socks4 socks4a socks5 socks5-auth http http-plain  (none)\n"
    "  --flows N          connections at the same time (1)\n"
    "  --seconds D        length of the measurement (3); of verify: its limit (60)\n"
    "  --warmup D         before it, not counted (0.3)\n"
    "  --timeout D        limit for opening a connection, and for a whole one of connect (5)\n"
    "  --rate D           rtt, connect, http, udp: begin D operations a second, whatever becomes of earlier ones, and "
    "count\n"
    "                     each one's time from when it should have begun (as fast as the flows can)\n"
    "  --message N        rtt: octets each way (64); udp: of a payload (64); http: of a body (1024)\n"
    "  --idle-flows N     rtt: N more connections with one round trip each in --idle-every seconds (0)\n"
    "  --idle-every D     (10)\n"
    "  --in-flight N      udp: datagrams under way in each association (4)\n"
    "  --by-name          socks5: ask for the target by a name of `load names`\n"
    "  --fresh-names      and by one that nobody has asked for yet\n"
    "  --fill             idle: from the fill service, 1 MiB through each connection first\n"
    "  --check            bulk: compare every octet\n"
    "  --pace D           bulk: the paced source sends D Mbit/s to all flows together; 0: as fast as it can\n"
    "  --device NAME      origin: take what arrives over this alone, '' for any (lo)\n"
    "  --upload           bulk: send to the sink instead of reading from the source\n"
    "  --read             bulk: copy what arrives, as a real client does, instead of discarding it in the kernel\n"
    "  --close HOW        connect: reset or orderly (reset)\n"
    "  --no-echo          connect: close when the way is open, without a round trip of one octet\n"
    "  --bytes N          verify: length of each stream (16777216)\n"
    "  --targets N        spread connections over N addresses from --target upwards (1)\n"
    "  --source A         local address to connect from\n"
    "  --user U, --password W  for socks5-auth\n"
    "  --announce         one line of JSON when the measurement begins (idle always does)\n";

enum option_id {
    OPTION_VIA = 1,
    OPTION_PROXY,
    OPTION_TARGET,
    OPTION_FLOWS,
    OPTION_SECONDS,
    OPTION_WARMUP,
    OPTION_TIMEOUT,
    OPTION_UPLOAD,
    OPTION_READ,
    OPTION_CLOSE,
    OPTION_NO_ECHO,
    OPTION_BYTES,
    OPTION_TARGETS,
    OPTION_SOURCE,
    OPTION_USER,
    OPTION_PASSWORD,
    OPTION_ANNOUNCE,
    OPTION_PORT,
    OPTION_RATE,
    OPTION_MESSAGE,
    OPTION_IDLE_FLOWS,
    OPTION_IDLE_EVERY,
    OPTION_IN_FLIGHT,
    OPTION_BY_NAME,
    OPTION_FRESH_NAMES,
    OPTION_FILL,
    OPTION_CHECK,
    OPTION_PACE,
    OPTION_DEVICE,
    OPTION_LISTEN,
    OPTION_HELP
};

static const struct option long_options[] = {
    {"via", required_argument, NULL, OPTION_VIA},
    {"proxy", required_argument, NULL, OPTION_PROXY},
    {"target", required_argument, NULL, OPTION_TARGET},
    {"flows", required_argument, NULL, OPTION_FLOWS},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"upload", no_argument, NULL, OPTION_UPLOAD},
    {"read", no_argument, NULL, OPTION_READ},
    {"close", required_argument, NULL, OPTION_CLOSE},
    {"no-echo", no_argument, NULL, OPTION_NO_ECHO},
    {"bytes", required_argument, NULL, OPTION_BYTES},
    {"targets", required_argument, NULL, OPTION_TARGETS},
    {"source", required_argument, NULL, OPTION_SOURCE},
    {"user", required_argument, NULL, OPTION_USER},
    {"password", required_argument, NULL, OPTION_PASSWORD},
    {"announce", no_argument, NULL, OPTION_ANNOUNCE},
    {"port", required_argument, NULL, OPTION_PORT},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"message", required_argument, NULL, OPTION_MESSAGE},
    {"idle-flows", required_argument, NULL, OPTION_IDLE_FLOWS},
    {"idle-every", required_argument, NULL, OPTION_IDLE_EVERY},
    {"in-flight", required_argument, NULL, OPTION_IN_FLIGHT},
    {"by-name", no_argument, NULL, OPTION_BY_NAME},
    {"fresh-names", no_argument, NULL, OPTION_FRESH_NAMES},
    {"fill", no_argument, NULL, OPTION_FILL},
    {"check", no_argument, NULL, OPTION_CHECK},
    {"pace", required_argument, NULL, OPTION_PACE},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static double parse_number(const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        die("'%s' is not a number from %g to %g", text, low, high);
    return value;
}

static enum via parse_via(const char *text)
{
    for (enum via via = 0; via < VIA_COUNT; via++)
        if (strcmp(text, via_names[via]) == 0) return via;
    die("--via %s: not a way we know", text);
}

static struct sockaddr_in parse_source(const char *text)
{
    struct sockaddr_in source = {.sin_family = AF_INET};
    if (inet_pton(AF_INET, text, &source.sin_addr) != 1) die("--source %s: not an IPv4 address", text);
    return source;
}

static const char *parse_credential(const char *text)
{
    if (strlen(text) < 1 || strlen(text) > 255) die("user and password have 1 to 255 octets");
    return text;
}

static bool parse_close(const char *text)
{
    if (strcmp(text, "reset") != 0 && strcmp(text, "orderly") != 0) die("--close %s: reset or orderly", text);
    return text[0] == 'o';
}

/* Those without a value. */
static void parse_flag(struct options *o, int id)
{
    switch (id) {
    case OPTION_UPLOAD: o->upload = true; break;
    case OPTION_READ: o->read = true; break;
    case OPTION_NO_ECHO: o->echo = false; break;
    case OPTION_ANNOUNCE: o->announce = true; break;
    case OPTION_BY_NAME: o->by_name = true; break;
    case OPTION_FRESH_NAMES: o->by_name = o->fresh_names = true; break;
    case OPTION_FILL: o->fill = true; break;
    case OPTION_CHECK: o->check = o->read = true; break;
    case OPTION_HELP: fputs(usage, stdout); exit(0);
    default: exit(2); /* getopt has said why */
    }
}

static void parse_option(struct options *o, int id, const char *value)
{
    switch (id) {
    case OPTION_VIA: o->via = parse_via(value); break;
    case OPTION_PROXY: o->proxy = parse_address(value), o->have_proxy = true; break;
    case OPTION_TARGET: o->target = parse_address(value), o->have_target = true; break;
    case OPTION_FLOWS: o->flows = (unsigned)parse_number(value, 1, 1000000); break;
    case OPTION_SECONDS: o->seconds = parse_number(value, 0.01, 86400); break;
    case OPTION_WARMUP: o->warmup = parse_number(value, 0, 3600); break;
    case OPTION_TIMEOUT: o->timeout = parse_number(value, 0.01, 3600); break;
    case OPTION_CLOSE: o->orderly = parse_close(value); break;
    case OPTION_BYTES: o->bytes = (uint64_t)parse_number(value, 1, 1e15); break;
    case OPTION_TARGETS: o->targets = (unsigned)parse_number(value, 1, 250); break;
    case OPTION_SOURCE: o->source = parse_source(value); break;
    case OPTION_USER: o->user = parse_credential(value); break;
    case OPTION_PASSWORD: o->password = parse_credential(value); break;
    case OPTION_PORT: o->port = (uint16_t)parse_number(value, 1, 65535); break;
    case OPTION_PACE: o->pace = parse_number(value, 0, 1e6), o->paced = true; break;
    case OPTION_RATE: o->rate = parse_number(value, 1, 1e8); break;
    case OPTION_MESSAGE: o->message = (uint32_t)parse_number(value, 1, BLOCK_SIZE); break;
    case OPTION_IDLE_FLOWS: o->idle_flows = (unsigned)parse_number(value, 0, 1000000); break;
    case OPTION_IDLE_EVERY: o->idle_every = parse_number(value, 0.001, 3600); break;
    case OPTION_IN_FLIGHT: o->in_flight = (unsigned)parse_number(value, 1, 64); break;
    case OPTION_DEVICE: o->device = value; break;
    case OPTION_LISTEN: o->listen = parse_address(value); break;
    default: parse_flag(o, id);
    }
}

static const struct mode *parse_mode(const char *name)
{
    const struct mode *mode = mode_find(name);
    if (mode) return mode;
    fputs(usage, stderr);
    exit(2);
}

/* What goes with what. */
static void check_together(const struct options *o)
{
    bool paces = o->mode == &mode_rtt || o->mode == &mode_connect || o->mode == &mode_http || o->mode == &mode_udp;
    if (o->rate > 0 && !paces) die("--rate is for rtt, connect, http and udp");
    if (o->idle_flows > 0 && (o->mode != &mode_rtt || o->rate > 0)) die("--idle-flows is for rtt, without --rate");
    if (o->by_name && o->via != VIA_SOCKS5 && o->via != VIA_SOCKS5_AUTH) die("--by-name is for socks5");
    if (o->via == VIA_HTTP_PLAIN && o->mode != &mode_http) die("--via http-plain is for http");
    if (o->paced && (o->mode != &mode_bulk || o->upload)) die("--pace is for bulk from the paced source");
    if (o->check && (o->mode != &mode_bulk || o->upload)) die("--check is for bulk from the source");
    if (o->fill && o->mode != &mode_idle) die("--fill is for idle");
    if (o->mode != &mode_udp) return;
    if (o->via != VIA_SOCKS5 && o->via != VIA_SOCKS5_AUTH) die("udp goes through socks5");
    if (o->message < 16 || o->message > 1472) die("udp: --message has 16 to 1472 octets");
}

void parse_options(struct options *o, int count, char **arguments)
{
    *o = (struct options){.flows = 1,
                          .targets = 1,
                          .seconds = 0,
                          .warmup = 0.3,
                          .timeout = 5,
                          .bytes = 16 << 20,
                          .user = "user",
                          .password = "password",
                          .idle_every = 10,
                          .in_flight = 4,
                          .device = "lo",
                          .echo = true};
    for (int id; (id = getopt_long(count, arguments, "", long_options, NULL)) != -1;) parse_option(o, id, optarg);
    if (optind != count - 1) fputs(usage, stderr), exit(2);
    if (strcmp(arguments[optind], "origin") == 0) {
        if (!o->port) die("origin: --port is missing");
        o->role = ROLE_ORIGIN;
        return;
    }
    if (strcmp(arguments[optind], "names") == 0) {
        if (!o->listen.sin_port) die("names: --listen is missing");
        o->role = ROLE_NAMES;
        return;
    }
    o->mode = parse_mode(arguments[optind]);
    if (o->mode == &mode_idle) o->announce = true;
    if (o->seconds == 0) o->seconds = o->mode == &mode_verify ? 60 : 3;
    if (o->message == 0) o->message = o->mode == &mode_http ? 1024 : 64;
    check_together(o);
    if (!o->have_target && o->via != VIA_FORWARD) die("--target is missing");
    if (o->have_proxy != (o->via != VIA_NONE)) die("--proxy and --via go together");
}
