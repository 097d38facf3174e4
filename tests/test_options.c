/* core/process/options, option_*: each option in both spellings, each fault with its one line, the help, the table. */
#include "tests/command_line.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/io/log.h"
#include "core/process/option_table.h"
#include "core/session/policy.h"
#include "tests/support.h"

/* --- single options --- */

static void test_defaults(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:1");
    assert_int_equal(config.listener_count, 1);
    assert_int_equal(config.listeners[0].kind, LISTENER_AUTO);
    assert_int_equal(config.family, AF_UNSPEC);
    assert_int_equal(config.timeout_ms, 60000);
    assert_int_equal(config.idle_timeout_ms, 7440000);
    assert_int_equal(config.half_close_timeout_ms, 3600000);
    assert_int_equal(config.udp_timeout_ms, 300000);
    assert_int_equal(config.advertise.ipv4.kind, ADDRESS_NONE);
    assert_int_equal(config.drain_ms, 0);
    assert_int_equal(config.startup_start, 0);
    assert_int_equal(config.startup_rate, 30);
    assert_int_equal(config.startup_full, 0);
    assert_int_equal(config.max_sessions, 0);
    assert_int_equal(config.blocked, POLICY_MULTICAST);
    assert_int_equal(config.workers, 0);
    assert_int_equal(config.relay, RELAY_AUTO);
    assert_int_equal(config.log_level, LOG_LEVEL_NOTICE);
    assert_int_equal(config.log_target, LOG_TO_STDERR);
    assert_true(config.fastopen);
    assert_false(config.fastopen_connect || config.tproxy || config.daemonize || config.reuseport || config.pipe);
    assert_false(config.socks5_bind || config.socks5_udp);
    assert_null(config.user);
    assert_null(config.netdev);
    assert_null(config.nameservers);
    assert_null(config.proxy_text);
}

static void test_flags(void **state)
{
    (void)state;
    accepts("--tproxy --reuseport --pipe --no-fastopen --fastopen-connect -d --enable-socks5-bind --enable-socks5-udp");
    assert_true(config.tproxy && config.reuseport && config.pipe && config.fastopen_connect && config.daemonize);
    assert_true(config.socks5_bind && config.socks5_udp);
    assert_false(config.fastopen);
    assert_true(config.conn_cache);
    accepts("--no-conn-cache");
    assert_false(config.conn_cache);
    accepts("--daemonize -4");
    assert_true(config.daemonize);
    assert_int_equal(config.family, AF_INET);
    accepts("-6 -6");
    assert_int_equal(config.family, AF_INET6);
    refuses("-l 127.0.0.1:1 -4 -6", "-6: -4 and -6 exclude each other");
    refuses("-l 127.0.0.1:1 -6 -4", "-4: -4 and -6 exclude each other");
}

static void test_operands(void **state)
{
    static const char *const spellings[] = {
        "-t 7.5 -m 9 --max-startups 1:2:3 --workers 5 --relay copy --log stdout --loglevel 8 -u nobody: -i lo",
        "--timeout 7.5 --max-sessions 9 --max-startups=1:2:3 --workers=5 --relay=copy --log=stdout --loglevel=8 "
        "--user=nobody: --netdev=lo",
    };
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        accepts(spellings[i]);
        assert_int_equal(config.timeout_ms, 7500);
        assert_int_equal(config.max_sessions, 9);
        assert_int_equal(config.startup_start, 1);
        assert_int_equal(config.startup_rate, 2);
        assert_int_equal(config.startup_full, 3);
        assert_int_equal(config.workers, 5);
        assert_int_equal(config.relay, RELAY_COPY);
        assert_int_equal(config.log_target, LOG_TO_STDOUT);
        assert_int_equal(config.log_level, LOG_LEVEL_VERY_VERBOSE);
        assert_int_equal(log_level_now, LOG_LEVEL_VERY_VERBOSE);
        assert_string_equal(config.user, "nobody:");
        assert_string_equal(config.netdev, "lo");
    }
}

static void test_last_occurrence_wins(void **state)
{
    (void)state;
    accepts("-t 10 --relay copy --workers 3 -x socks5://a,socks5://b --block-outbound global --timeout=20 "
            "--relay=splice --workers auto -x http://c --block-outbound loopback,local");
    assert_int_equal(config.timeout_ms, 20000);
    assert_int_equal(config.relay, RELAY_SPLICE);
    assert_int_equal(config.workers, 0);
    assert_int_equal(config.hop_count, 1);
    assert_int_equal(config.hops[0].scheme, PROXY_HTTP);
    assert_int_equal(config.blocked, POLICY_LOOPBACK | POLICY_LOCAL);
    accepts("--block-outbound ''");
    assert_int_equal(config.blocked, 0);
}

static void test_seconds(void **state)
{
    (void)state;
    accepts("-t 5 --idle-timeout 0.0001 --drain 2.3");
    assert_int_equal(config.timeout_ms, 5000);
    assert_int_equal(config.idle_timeout_ms, 1); /* not 0, which is "never" */
    assert_int_equal(config.drain_ms, 2300);
    accepts("-t 86400 --idle-timeout 2592000 --drain 86400");
    assert_int_equal(config.timeout_ms, 86400000);
    assert_int_equal(config.idle_timeout_ms, 2592000000u);
    refuses("--timeout 4", "sluice: --timeout: \"4\" is out of range, give 5 to 86400 seconds");
    refuses("--timeout=4.999", "sluice: --timeout: \"4.999\" is out of range");
    refuses("-t 86400.1", "sluice: -t: \"86400.1\" is out of range");
    refuses("-t nan", "sluice: -t: \"nan\" is not a number, give 5 to 86400 seconds");
    refuses("-t inf", "\"inf\" is not a number");
    refuses("-t 1e2", "\"1e2\" is not a number");
    refuses("-t 0x10", "\"0x10\" is not a number");
    refuses("-t +10", "\"+10\" is not a number");
    refuses("-t \t10", "\"\t10\" is not a number");
    refuses("-t 10.", "\"10.\" is not a number");
    refuses("-t .5", "\".5\" is not a number");
    refuses("-t 1.2.3", "\"1.2.3\" is not a number");
    refuses("-t ''", "\"\" is not a number");
    refuses("-t 5s", "\"5s\" is not a number");
    refuses("--idle-timeout -1", "--idle-timeout: \"-1\" is out of range, give 0 to 2592000 seconds");
    refuses("--drain x", "--drain: \"x\" is not a number");
}

static void test_socket_buffer(void **state)
{
    (void)state;
    accepts("--socket-buffer 65536");
    assert_int_equal(config.tcp_sndbuf, 65536);
    assert_int_equal(config.tcp_rcvbuf, 65536);
    accepts("--socket-buffer=1024M");
    assert_int_equal(config.tcp_rcvbuf, 1 << 30);
    refuses("--socket-buffer 15K", "--socket-buffer: \"15K\" is out of range, give 16K to 1024M");
    refuses("--socket-buffer 1025M", "out of range");
    refuses("--socket-buffer 999999999999999M", "out of range");
    refuses("--socket-buffer K", "--socket-buffer: \"K\" is no size, give 16K to 1024M");
    refuses("--socket-buffer 64k", "\"64k\" is no size");
    refuses("--socket-buffer ''", "\"\" is no size");
}

static void test_numbers(void **state)
{
    (void)state;
    refuses("--loglevel 9", "--loglevel: \"9\" is out of range, give 0 to 8");
    refuses("--loglevel -1", "\"-1\" is not a number");
    refuses("--loglevel 4x", "\"4x\" is not a number");
    refuses("-m 100000001", "out of range");
    refuses("-m 18446744073709551617", "not a number");
    refuses("--workers 0", "--workers: \"0\" is out of range, give 1 to 256, or auto");
    refuses("--workers 257", "out of range");
    refuses("--workers many", "not a number");
    refuses("--max-startups 1:2", "give start:rate:full");
    refuses("--max-startups 1:2:3:4", "give start:rate:full");
    refuses("--max-startups 1::3", "give start:rate:full");
    refuses("--max-startups ''", "give start:rate:full");
    refuses("--max-startups 1:101:3", "rate \"101\" is out of range, give 0 to 100");
    refuses("--max-startups 1:2:99999999999", "give start:rate:full");
}

static void test_words(void **state)
{
    (void)state;
    refuses("--bogus", "sluice: \"--bogus\" is no option, \"sluice --help\" lists all");
    refuses("file", "\"file\" is no option");
    refuses("''", "\"\" is no option");
    refuses("-", "\"-\" is no option");
    refuses("-l:1", "\"-l:1\" is no option");
    refuses("--tim 5", "\"--tim\" is no option");
    refuses("-l", "sluice: -l: the operand is missing, give ADDRESS");
    refuses("--timeout", "--timeout: the operand is missing, give SECONDS");
    refuses("--pipe=1", "--pipe: takes no value");
    refuses("--relay fast", "--relay: \"fast\" is unknown, give one of auto, splice, copy");
    refuses("--log file", "give one of stderr, stdout, terminal, syslog, discard");
    refuses("--block-outbound local,world", "\"world\" is unknown");
    refuses("--block-outbound local,,global", "\"local,,global\" has an empty member");
    refuses("--block-outbound ,", "\",\" has an empty member");
    refuses("--nameserver 192.0.2.1,,192.0.2.2", "\"\" is no name server");
    refuses("-x socks5://a,,socks5://b", "-x: proxy 2: ");
    refuses("-u ''", "give user, user:, user:group or :group");
    refuses("-u :", "give user, user:, user:group or :group");
    refuses("-i interface-number1", "give 1 to 15 characters");
    refuses("-i ''", "give 1 to 15 characters");
}

static void test_end_of_options(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:1 -- --bogus -t 4");
    assert_int_equal(config.timeout_ms, 60000);
}

static void test_scripts_and_api(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:1 -r rules.lua --traceback --memlimit 7 --lua-budget 250 --auth-required");
    assert_string_equal(config.ruleset, "rules.lua");
    assert_null(config.boot);
    assert_true(config.traceback && config.auth_required);
    assert_int_equal(config.memlimit_mib, 7);
    assert_int_equal(config.lua_budget_ms, 250);
    accepts("-c - --api :9080 --api-token-file t --memlimit -1");
    assert_string_equal(config.boot, "-");
    assert_string_equal(config.api_text, ":9080");
    assert_string_equal(config.api_token_file, "t");
    assert_int_equal(config.memlimit_mib, 0);
    assert_int_equal(run("--api 127.0.0.1:9080", true), CONFIG_RUN);
    assert_int_equal(config.api.port, 9080);
    assert_int_equal(run("--api unix:/tmp/a", true), CONFIG_RUN);
    assert_int_equal(config.api.kind, ADDRESS_UNIX);
    assert_int_equal(run("--script one.lua --script - --script=one.lua", true), CONFIG_RUN); /* no listener is needed */
    assert_int_equal(config.script_count, 3);
    assert_string_equal(config.scripts[0], "one.lua");
    assert_string_equal(config.scripts[1], "-");
    assert_int_equal(run("--check --script one.lua", false), CONFIG_RUN); /* main looks at the file */
    refuses("--script ''", "the operand is empty, give FILE");
}

static void test_scripts_and_api_refused(void **state)
{
    static char many[CONFIG_SCRIPTS_MAX * 11 + 12];
    (void)state;
    for (unsigned i = 0; i <= CONFIG_SCRIPTS_MAX; i++) strcat(many, "--script=x ");
    refuses(many, "--script: too many scripts, give at most 64");
    refuses("--memlimit 2097152", "out of range");
    refuses("--memlimit -x", "is not a number");
    refuses("--lua-budget 5", "out of range, give 10 to 60000");
    refuses("-r ''", "the operand is empty, give FILE");
    refuses("--api 1", "has no port");
    refuses("--api :99999", "out of range");
    refuses("-l 127.0.0.1:1 -r a -c b", "--ruleset and --config exclude each other");
    refuses("-l 127.0.0.1:1 --auth-required", "authentication requires a ruleset");
    refuses("-l 127.0.0.1:1 -f a:1 -r x --auth-required", "forwarded and transparent clients cannot authenticate");
    refuses("-l 127.0.0.1:1 -f unix:/x -x socks5://192.0.2.1:1",
            "--forward unix:/x: no proxy can connect to a Unix socket");
    refuses("-l 127.0.0.1:1 -f unix:/x -r y -x http://a", "--forward unix:/x: no proxy can connect to a Unix socket");
    accepts("-l 127.0.0.1:1 -r x -x socks5://a,socks5://b --enable-socks5-udp --enable-socks5-bind");
    refuses("-l 127.0.0.1:1 --api 127.0.0.1:1", "--api and listener \"127.0.0.1:1\" are the same address");
}

/* As far as addresses tell. */
static void test_circles(void **state)
{
    (void)state;
    refuses("-l 127.0.0.1:9 -x socks5://127.0.0.1:9",
            "--proxy: socks5://127.0.0.1:9 is listener \"127.0.0.1:9\" of this");
    refuses("-l :9 -r x -x http://localhost:9,socks5://a", "--proxy: http://localhost:9 is listener \":9\" of this");
    refuses("-l 127.0.0.1:8 -l 0.0.0.0:9 -x socks5://[::ffff:127.1.2.3]:9", "is listener \"0.0.0.0:9\" of this");
    refuses("-l 127.0.0.1:8 -l 127.0.0.1:9 -f a:1 -x socks5://127.0.0.1:9", "is listener \"127.0.0.1:9\" of this");
    refuses("-l 127.0.0.1:9 -f 127.0.0.1:9", "what listener \"127.0.0.1:9\" takes would come back to it");
    refuses("-l 127.0.0.1:9 -f localhost:9", "what listener \"127.0.0.1:9\" takes would come back to it");
    refuses("-l unix:/x -f unix:/x", "what listener \"unix:/x\" takes would come back to it");
    assert_int_equal(run("-l 127.0.0.1:9 -x socks5://127.0.0.1:8,socks5://127.0.0.1:9", true), CONFIG_RUN);
    assert_int_equal(run("-l 127.0.0.1:9 -f 127.0.0.1:8 -l 127.0.0.1:8", true), CONFIG_RUN);
    assert_int_equal(run("-l 127.0.0.1:9 -x socks5://127.0.0.2:9", true), CONFIG_RUN);
}

/* What is open, and how to close it, in one line. */
static void test_open_listeners(void **state)
{
    (void)state;
    assert_int_equal(run("-l :9 -l :8", true), CONFIG_RUN);
    assert_int_equal(count_lines(err), 1);
    assert_non_null(strstr(err, "listener \":9\": whoever reaches it may use the proxy"));
    assert_non_null(strstr(err, "--block-outbound loopback,multicast,local"));
    static const char *const closed[] = {"-l 127.0.0.1:9",
                                         "-l unix:/x",
                                         "-l :9 --block-outbound local",
                                         "-l :9 -f a:1",
                                         "-l :9 -r x --auth-required",
                                         "-l :9 --block-outbound ''",
                                         "-l :9 --allow-client 10.0.0.0/8",
                                         "-l :9,allow-client=@x -l 127.0.0.1:8"};
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        assert_int_equal(run(closed[i], true), CONFIG_RUN);
        assert_string_equal(err, "");
    }
    assert_int_equal(run("-l :9,allow-client=10.0.0.0/8 -l :8 --deny-client 10.0.0.0/8", true), CONFIG_RUN);
    assert_non_null(strstr(err, "listener \":8\": whoever reaches it may use the proxy")); /* the other one */
}

static void test_api_wants_a_token(void **state)
{
    (void)state;
    for (const char *const *open = (const char *const[]){"0.0.0.0:9080", ":9080", "[::]:9080", "192.0.2.1:9080", NULL};
         *open; open++) {
        char line[64];
        snprintf(line, sizeof line, "--api %s", *open);
        refuses(line, "give --api-token-file, or a loopback address or unix:/path");
        snprintf(line, sizeof line, "--dump-config --api %s", *open);
        refuses(line, "give --api-token-file");
        snprintf(line, sizeof line, "--api-token-file t --api %s", *open);
        assert_int_equal(run(line, true), CONFIG_RUN);
    }
}

static void test_forward_left_to_a_ruleset(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:1 -f : -r x");
    assert_int_equal(config.listeners[0].kind, LISTENER_FORWARD);
    assert_int_equal(config.listeners[0].forward.kind, ADDRESS_NONE);
    refuses("-l 127.0.0.1:1 -f :", "a target that is left to a ruleset needs one");
    for (const char *const *host = (const char *const[]){"192.0.2.1:0", "192.0.2.1:", "name:0", "[::1]:", NULL}; *host;
         host++) {
        char line[64];
        snprintf(line, sizeof line, "-l 127.0.0.1:1 -f %s -r x", *host);
        accepts(line);
        assert_int_equal(config.listeners[0].forward.port, 0);
        snprintf(line, sizeof line, "-l 127.0.0.1:1 -f %s", *host);
        refuses(line, "a target that is left to a ruleset needs one");
    }
}

/* Options of a listener stand behind its address. */
static void test_listener_options(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:1,protocol=socks -l unix:/tmp/a,b,protocol=http -l 127.0.0.1:2,protocol=auto --http "
            "127.0.0.1:3,protocol=http");
    static const enum listener_kind kinds[] = {LISTENER_SOCKS, LISTENER_HTTP, LISTENER_AUTO, LISTENER_HTTP};
    static const char *const texts[] = {"127.0.0.1:1", "unix:/tmp/a,b", "127.0.0.1:2", "127.0.0.1:3"};
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(config.listeners[i].kind, kinds[i]);
        assert_string_equal(config.listeners[i].text, texts[i]);
    }
    assert_string_equal(config.listeners[0].options, "protocol=socks");
    accepts("-l 127.0.0.1:1,protocol=socks -l 127.0.0.1:2 --http"); /* the one that has no protocol yet */
    assert_int_equal(config.listeners[0].kind, LISTENER_SOCKS);
    assert_int_equal(config.listeners[1].kind, LISTENER_HTTP);
    accepts("--users all -l 127.0.0.1:1 -l 127.0.0.1:2,users=some,protocol=http -l 127.0.0.1:3,users=none -l "
            "127.0.0.1:4,users=some");
    assert_null(config.listeners[0].users);
    assert_string_equal(config.listeners[1].users, "some");
    refuses("-l 127.0.0.1:1,users=", "\"users=\" has no value");
    refuses("-l 127.0.0.1:1,protocol=ftp", "-l: protocol \"ftp\" is unknown, give one of auto, http, socks");
    refuses("-l 127.0.0.1:1,colour=red", "-l: \"colour\" is no option of a listener, give one of ");
    refuses("-l 127.0.0.1:1,protocol=", "-l: \"protocol=\" has no value");
    refuses("-l 127.0.0.1:1,protocol=socks,x", "\"x\" is no option of a listener");
    refuses("-l 127.0.0.1:1,protocol=socks,", "\"\" is no option of a listener");
    refuses("-l 127.0.0.1:1,2", "unknown service \"1,2\""); /* no option: all of it is the address */
    refuses("--http 127.0.0.1:1,protocol=socks", "contradicts --http");
    refuses("--http -l 127.0.0.1:1,protocol=socks", "contradicts --http");
    refuses("-f a:1 -l 127.0.0.1:1,protocol=socks", "a listener that forwards speaks no protocol");
    refuses("--tproxy -l 127.0.0.1:1,protocol=socks", "--tproxy cannot be combined with protocol=socks");
    refuses("-l 127.0.0.1:1,protocol=socks --api 127.0.0.1:2,protocol=http", "unknown service");
}

static bool is_network(const struct config_proxies *proxies, unsigned i, bool is_ipv6, uint8_t bits)
{
    return i < proxies->count && proxies->networks[i].is_ipv6 == is_ipv6 && proxies->networks[i].bits == bits;
}

/* --proxy-protocol and --send-proxy belong to the listener before them, or behind them, and are words of its own. */
static void test_proxy_headers(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:1 --proxy-protocol 10.0.0.0/8,2001:db8::/32,192.0.2.1,optional");
    const struct listener_config *l = &config.listeners[0];
    assert_int_equal(l->proxies.count, 3);
    assert_true(is_network(&l->proxies, 0, false, 104) && is_network(&l->proxies, 1, true, 32));
    assert_true(is_network(&l->proxies, 2, false, 128) && l->proxies.optional && !l->proxies.unix_sockets);
    assert_string_equal(l->options, "proxy-protocol=10.0.0.0/8,proxy-protocol=2001:db8::/32,proxy-protocol=192.0.2.1,"
                                    "proxy-protocol=optional");
    accepts("-l 127.0.0.1:1,protocol=http,proxy-protocol=* -l unix:/tmp/s --proxy-protocol unix");
    assert_true(is_network(&l[0].proxies, 0, false, 96) && is_network(&l[0].proxies, 1, true, 0));
    assert_true(l[1].proxies.unix_sockets && l[1].proxies.count == 0);
    accepts("--proxy-protocol 10.0.0.1 -l 127.0.0.1:1 -l 127.0.0.1:2 --http 127.0.0.1:3 --proxy-protocol 10.0.0.2");
    assert_true(config_has_proxies(&l[0].proxies) && !config_has_proxies(&l[1].proxies) &&
                config_has_proxies(&l[2].proxies));
    accepts("-l 127.0.0.1:1 -f a:1 --send-proxy v1 --send-proxy v2 -l 127.0.0.1:2 -f b:2 -l 127.0.0.1:3 -f c:3");
    assert_int_equal(l[0].send_proxy, 1);
    assert_int_equal(l[1].send_proxy, 2);
    assert_int_equal(l[2].send_proxy, 0);
    assert_string_equal(l[1].options, "send-proxy=v2");
    refuses("-l 127.0.0.1:1 --proxy-protocol example.com", "\"example.com\" is no proxy, give an address, a network");
    refuses("-l 127.0.0.1:1 --proxy-protocol 10.0.0.1/8", "\"10.0.0.1/8\" is no proxy");
    refuses("-l 127.0.0.1:1 --proxy-protocol 10.0.0.1,", "has no value");
    refuses("-l 127.0.0.1:1 --proxy-protocol optional", "has no proxies that would send headers");
    refuses("-l 127.0.0.1:1 --proxy-protocol unix", "is no Unix socket, give addresses of proxies");
    refuses("-l unix:/tmp/s --proxy-protocol 10.0.0.1", "has no address, give unix instead");
    refuses("--proxy-protocol 10.0.0.1", "--proxy-protocol: \"10.0.0.1\" has no listener");
    refuses("--proxy-protocol 10.0.0.1 --proxy-protocol 10.0.0.2 -l 127.0.0.1:1", "\"10.0.0.1\" has no listener");
    refuses("-l 127.0.0.1:1 -f a:1 --send-proxy v3", "\"v3\" is no version of the PROXY protocol, give v1 or v2");
    refuses("-l 127.0.0.1:1 --send-proxy v2", "forwards to no target");
    refuses("--send-proxy v2", "--send-proxy: \"v2\" has no listener");
}

/* By which way connections leave: what is repeated is added, and a listener's word is its own. */
static void test_ways_out(void **state)
{
    (void)state;
    assert_int_equal(run("-l 127.0.0.1:1", true), CONFIG_RUN);
    assert_false(config.egress.sources.given || config.egress.marked || config.egress.device[0]);
    assert_int_equal(
        run("-l 127.0.0.1:1,source=127.0.0.3,source=127.0.0.4,by=source,mark=0,interface=lo --source 127.0.0.2,::1 "
            "--source "
            "by=round --mark 0x10 -i lo",
            true),
        CONFIG_RUN);
    assert_string_equal(config.source, "127.0.0.2,::1,by=round");
    assert_int_equal(config.egress.sources.count, 2);
    assert_int_equal(config.egress.sources.by, EGRESS_BY_ROUND);
    assert_true(config.egress.marked && config.egress.mark == 16);
    assert_string_equal(config.egress.device, "lo");
    const struct egress_terms *own = &config.listeners[0].egress;
    assert_int_equal(own->sources.count, 2);
    assert_int_equal(own->sources.by, EGRESS_BY_SOURCE);
    assert_true(own->marked && own->mark == 0);
    assert_string_equal(own->device, "lo");
    refuses("-l 127.0.0.1:1 --source 192.0.2.1:80", "--source: \"192.0.2.1:80\": this is no address, give an address");
    refuses("-l 127.0.0.1:1 --source 192.0.2.1/24", "nothing but zeros behind the bits");
    refuses("-l 127.0.0.1:1 --source ::1 --source any", "any stands alone");
    refuses("-l 127.0.0.1:1 --source by=user", "--source: by= chooses among addresses, give some");
    refuses("-l 127.0.0.1:1,by=user", "--source: by= chooses among addresses, give some");
    refuses("-l 127.0.0.1:1,by=name,source=::1", "give by=user, by=source, by=round or by=random");
    refuses("-l 127.0.0.1:1,source=eth0", "\"eth0\": this is no address");
    refuses("-l 127.0.0.1:1,mark=-1", "mark \"-1\" is none");
    refuses("-l 127.0.0.1:1,interface=sixteen--letters", "\"sixteen--letters\" is no interface name");
    refuses("-l 127.0.0.1:1 --mark 4294967296", "--mark: \"4294967296\" is no mark");
    refuses("--tproxy -l 127.0.0.1:1 --source same", "--source same cannot be combined with --tproxy");
    assert_int_equal(run("--tproxy -l 127.0.0.1:1,source=127.0.0.3 --source same", true), CONFIG_RUN);
}

/* A target is as long as an address may be written at most, with zeros in front of its port. */
static void test_longest_target(void **state)
{
    char line[400];
    (void)state;
    snprintf(line, sizeof line, "-l 127.0.0.1:1 -f a:%0*d", (int)ADDRESS_TEXT_SIZE - 3, 80);
    accepts(line);
    assert_int_equal(config.listeners[0].forward.port, 80);
    snprintf(line, sizeof line, "-l 127.0.0.1:1 -f a:%0*d", (int)ADDRESS_TEXT_SIZE - 2, 80);
    refuses(line, "is no target");
}

/* Any port that is free: two that ask for it are no twins. */
static void test_port_zero(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:0 -l 127.0.0.1:0 --http 127.0.0.1:0 --api 127.0.0.1:0");
    assert_int_equal(config.listener_count, 3);
    assert_int_equal(config.listeners[0].address.port, 0);
    refuses("-l 127.0.0.1:1 -l 127.0.0.1:1", "are the same address");
}

static void test_words_from_elsewhere(void **state)
{
    char *words[] = {"", "--proxy", "socks5://192.0.2.1", "-t", "7", NULL};
    char *wrong[] = {"", "-t", "1", NULL};
    (void)state;
    config_defaults(&config);
    char why[200];
    assert_int_equal(config_read(&config, 5, words, why, sizeof why), 0);
    assert_int_equal(config.hop_count, 1);
    assert_int_equal(config.timeout_ms, 7000);
    int saved, file = redirect(STDERR_FILENO, stderr, &saved);
    int result = config_read(&config, 3, wrong, why, sizeof why);
    restore(STDERR_FILENO, stderr, saved, file, err, sizeof(err));
    assert_int_equal(result, -1);
    assert_string_equal(err, "");
    assert_string_equal(why, "-t: \"1\" is out of range, give 5 to 86400 seconds");
}

static void test_obsolete_options_warn(void **state)
{
    (void)state;
    accepts("--proto-timeout --bidir-timeout -C --color -v -s");
    assert_int_equal(count_lines(err), 6);
    assert_non_null(strstr(err, "sluice: -C: obsolete, ignored"));
    accepts("--ingress");
    assert_int_equal(config.blocked, POLICY_MULTICAST | POLICY_GLOBAL);
    assert_non_null(strstr(err, "--ingress: obsolete, taken as --block-outbound global"));
    accepts("--egress");
    assert_int_equal(config.blocked, POLICY_MULTICAST | POLICY_LOCAL);
    assert_int_equal(count_lines(err), 1);
}

static void test_name_servers(void **state)
{
    static const char *const good[] = {"1.2.3.4", "1.2.3.4:53", "::1",
                                       "[::1]",   "[::1]:5353", "1.1.1.1,[2001:db8::1]:1,::2"};
    static const char *const bad[] = {"''",
                                      "dns.example",
                                      "1.2.3.4:",
                                      "1.2.3.4:0",
                                      "1.2.3.4:65536",
                                      "1.2.3.4:x",
                                      "[::1",
                                      "[::1]x",
                                      "[::1]:",
                                      "[1.2.3.4]",
                                      "::1]",
                                      "1.1.1.1,",
                                      ",1.1.1.1",
                                      "[",
                                      "]",
                                      "[]",
                                      ":53",
                                      "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee"};
    char line[200];
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(line, sizeof(line), "--nameserver %s", good[i]);
        accepts(line);
        assert_string_equal(config.nameservers, good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(line, sizeof(line), "--nameserver %s", bad[i]);
        refuses(line, "--nameserver: \"");
    }
}

static void assert_advertised(const struct advertise *advertise, const char *ipv4, const char *ipv6)
{
    char text[ADDRESS_TEXT_SIZE];
    address_format_host(&advertise->ipv4, text, sizeof text);
    assert_string_equal(text, ipv4);
    address_format_host(&advertise->ipv6, text, sizeof text);
    assert_string_equal(text, ipv6);
}

static void test_advertised_addresses(void **state)
{
    (void)state;
    accepts("--udp-advertise 192.0.2.1,2001:db8::1");
    assert_advertised(&config.advertise, "192.0.2.1", "2001:db8::1");
    accepts("--udp-advertise 2001:db8::1 --udp-advertise 192.0.2.2"); /* the last one counts */
    assert_advertised(&config.advertise, "192.0.2.2", "");
    accepts("-l 127.0.0.1:1,udp-advertise=192.0.2.3,udp-advertise=2001:db8::3 -l 127.0.0.1:2");
    assert_advertised(&config.listeners[0].advertise, "192.0.2.3", "2001:db8::3");
    assert_advertised(&config.listeners[1].advertise, "", "");
    refuses("--udp-advertise box.example", "--udp-advertise: \"box.example\" is no address, give an IPv4 or IPv6");
    refuses("--udp-advertise ''", "\"\" is no address, give");
    refuses("--udp-advertise 192.0.2.1,", "\"\" is no address, give");
    refuses("--udp-advertise 192.0.2.1:1080", "\"192.0.2.1:1080\" is no address, give");
    refuses("--udp-advertise ::", "\"::\" is no address of a host, give the one that clients reach");
    refuses("--udp-advertise 224.0.0.1", "is no address of a host");
    refuses("--udp-advertise 192.0.2.1,192.0.2.2", "\"192.0.2.2\" is the second address of its family");
    refuses("-l 127.0.0.1:1,udp-advertise=2001:db8::1,udp-advertise=2001:db8::2",
            "\"2001:db8::2\" is the second address of its family");
}

static void test_chains(void **state)
{
    (void)state;
    accepts("-x socks5://user:pass@one:1,socks4a://two,HTTP://[::1]:3");
    assert_int_equal(config.hop_count, 3);
    assert_int_equal(config.hops[0].scheme, PROXY_SOCKS5);
    assert_int_equal(config.hops[1].address.port, 1080);
    assert_int_equal(config.hops[2].address.kind, ADDRESS_IPV6);
    assert_string_equal(config.proxy_text, "socks5://user:pass@one:1,socks4a://two,HTTP://[::1]:3");
    refuses("-x socks5://a,", "proxy 2: ");
    refuses("-x ''", "proxy 1: ");
    refuses("-x socks5://a,gopher://u:secret@b", "-x: proxy 2: ");
    assert_null(strstr(err, "secret"));
    accepts("-x socks5://1,socks5://2,socks5://3,socks5://4,socks5://5,socks5://6,socks5://7,socks5://8");
    refuses("-x socks5://1,socks5://2,socks5://3,socks5://4,socks5://5,socks5://6,socks5://7,socks5://8,socks5://9",
            "give at most 8");
}

/* --- help --- */

static void test_version(void **state)
{
    (void)state;
    assert_int_equal(run("--version", false), CONFIG_EXIT_SUCCESS);
    assert_string_equal(out, "sluice " SLUICE_VERSION " (needs Linux 6.1 or newer with io_uring)\n");
    assert_int_equal(run("-t 4 --version", false), CONFIG_EXIT_FAILURE);
    assert_int_equal(run("--version -t 4", false), CONFIG_EXIT_SUCCESS); /* what follows is not looked at */
}

static void test_help(void **state)
{
    static const char *const options[] = {"  -l, --listen ADDRESS ",
                                          "      --http [ADDRESS] ",
                                          "  -f, --forward TARGET ",
                                          "  -x, --proxy URI",
                                          "      --tproxy ",
                                          "  -4 ",
                                          "  -6 ",
                                          "      --nameserver LIST ",
                                          "  -i, --netdev NAME ",
                                          "      --reuseport ",
                                          "      --pipe ",
                                          "      --no-fastopen ",
                                          "      --fastopen-connect ",
                                          "      --no-conn-cache ",
                                          "  -t, --timeout SECONDS ",
                                          "  -m, --max-sessions N ",
                                          "      --max-startups S:R:F ",
                                          "      --block-outbound LIST ",
                                          "      --log WHERE ",
                                          "      --loglevel N ",
                                          "  -d, --daemonize ",
                                          "  -u, --user USER[:GROUP] ",
                                          "      --enable-socks5-bind ",
                                          "      --enable-socks5-udp ",
                                          "      --dump-config ",
                                          "      --workers N|auto ",
                                          "      --relay MODE ",
                                          "      --idle-timeout SECONDS ",
                                          "      --drain SECONDS ",
                                          "      --check ",
                                          "      --version ",
                                          "  -r, --ruleset FILE ",
                                          "  -c, --config FILE ",
                                          "      --script FILE ",
                                          "      --auth-required ",
                                          "      --lua-budget MS ",
                                          "      --memlimit MIB ",
                                          "      --traceback ",
                                          "      --api ADDRESS ",
                                          "      --api-token-file FILE ",
                                          "  -h, --help "};
    (void)state;
    assert_int_equal(run("-h", false), CONFIG_EXIT_SUCCESS);
    assert_string_equal(err, "");
    assert_memory_equal(out, "sluice " SLUICE_VERSION "\n", strlen("sluice " SLUICE_VERSION "\n"));
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        if (!strstr(out, options[i])) fail_msg("the help lacks \"%s\"", options[i]);
    assert_null(strstr(out, "ingress"));
    for (const char *line = out; *line; line += strcspn(line, "\n") + 1) {
        size_t size = strcspn(line, "\n");
        assert_true(size <= 80);
        assert_true(size == 0 || line[size - 1] != ' ');
    }
    static char first[sizeof(out)];
    strcpy(first, out);
    assert_int_equal(run("--help", false), CONFIG_EXIT_SUCCESS);
    assert_string_equal(out, first);
}

/* --- the table --- */

static bool same(const char *one, const char *other)
{
    return one && other && strcmp(one, other) == 0;
}

/* A key whose text is read as the operand of its option needs a name that has one; a key needs a kind. */
static void judge_row(const struct option_row *row)
{
    bool text = row->kind == OPTION_TEXT || row->kind == OPTION_WORD;

    if (row->key && row->kind == OPTION_ACTION) fail_msg("the key %s has no kind", row->key);
    if (row->key && text && !(row->long_name && row->operand)) fail_msg("the key %s has no option", row->key);
    if ((row->short_name || row->long_name) != (row->read != NULL)) fail_msg("%s: who reads it?", row->long_name);
    if (row->kind == OPTION_WORD && !row->words) fail_msg("%s: no words", row->long_name);
    if ((row->kind == OPTION_NUMBER || row->kind == OPTION_SECONDS) && !(row->least < row->most))
        fail_msg("%s: no range", row->key);
}

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < option_row_count; i++) {
        const struct option_row *row = &option_rows[i];
        judge_row(row);
        for (size_t j = 0; j < i; j++) {
            const struct option_row *other = &option_rows[j];
            if (same(row->key, other->key) || same(row->long_name, other->long_name) ||
                (row->short_name && row->short_name == other->short_name))
                fail_msg("rows %zu and %zu are called the same", j, i);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_operands),
        cmocka_unit_test(test_last_occurrence_wins),
        cmocka_unit_test(test_seconds),
        cmocka_unit_test(test_socket_buffer),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_end_of_options),
        cmocka_unit_test(test_scripts_and_api),
        cmocka_unit_test(test_scripts_and_api_refused),
        cmocka_unit_test(test_circles),
        cmocka_unit_test(test_open_listeners),
        cmocka_unit_test(test_api_wants_a_token),
        cmocka_unit_test(test_forward_left_to_a_ruleset),
        cmocka_unit_test(test_listener_options),
        cmocka_unit_test(test_proxy_headers),
        cmocka_unit_test(test_ways_out),
        cmocka_unit_test(test_longest_target),
        cmocka_unit_test(test_port_zero),
        cmocka_unit_test(test_words_from_elsewhere),
        cmocka_unit_test(test_obsolete_options_warn),
        cmocka_unit_test(test_name_servers),
        cmocka_unit_test(test_advertised_addresses),
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
