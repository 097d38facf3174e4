"""What /metrics and /stats?format=json show, sample by sample, as sums of what a test has counted itself.

A tally is a Counter of words. EXACT and JSON_EXACT say which words each sample is the sum of; a sample that is in no table is an error,
so that a family cannot be added without an expectation. One worker is assumed: what it counts and what the process counts is the same."""
import collections
import json
import math
import re
import time

import process
import wire

# Each label of a failure, and the contract's group that it belongs to.
FAILURES = {
    "peer": None, "version": None, "syntax": None, "too_large": None, "line_too_long": None, "head_too_large": None, "auth_method": None,
    "auth": "ruleset", "auth_busy": None, "command": None, "address_type": None, "rejected": "ruleset", "client_denied": None, "no_proxy": None,
    "proxy_header": None, "share": None, "half_open": None, "blocked": "upstream",
    "target_denied": "upstream", "self": "upstream",
    "loop": "upstream", "resolve": "upstream", "resolve_timeout": "upstream", "network_unreachable": "upstream",
    "host_unreachable": "upstream", "denied": "upstream", "egress": "upstream",
    "egress_family": "upstream", "refused": "upstream", "connect_timeout": "timeout", "handshake_timeout": "timeout",
    "connect": "upstream", "no_upstream": "upstream", "proxy_auth": "upstream", "proxy_rejected": "upstream", "proxy_refused": "upstream",
    "proxy_network": "upstream", "proxy_host": "upstream", "proxy_ttl": "upstream", "proxy_command": "upstream", "proxy_protocol": "upstream",
    "proxy_closed": "upstream", "resource": None, "resolve_share": None, "limit_connections": None, "limit_rate": None,
    "limit_resolving": None, "limit_keys": None, "quota": None, "upstream_response": "upstream",
    "response_too_large": "upstream", "response_incomplete": "upstream", "response_timeout": "timeout",
    "client_reset": None, "target_reset": None, "idle_timeout": None, "half_close_timeout": None, "killed": None, "drain": None}
REFUSALS = "refused_sessions + refused_startups + refused_share + refused_half_open + refused_pool"
NAMES = "names_asked + names_cached + names_joined + names_local"


def group(name):
    """The words of a contract's group of failures. What a ruleset has tried before it gave up is one of its own."""
    return " + ".join("fail_" + label for label, its in FAILURES.items() if its == name)


def table(text):
    return dict(re.split(r"  +", line.strip(), maxsplit=1) for line in text.strip().splitlines())


EXACT = table(f"""
    neosocksd_sessions_active                                                active
    neosocksd_sessions_peak                                                  peak
    neosocksd_halfopen_connections                                           half_open
    neosocksd_connections_accepted_total                                     accepted + {REFUSALS} + refused_resource
    neosocksd_connections_served_total                                       accepted
    neosocksd_requests_total                                                 requests
    neosocksd_requests_success_total                                         established
    neosocksd_rejects_ruleset_total                                          {group("ruleset")} + gave_up
    neosocksd_rejects_timeout_total                                          {group("timeout")}
    neosocksd_rejects_upstream_total                                         {group("upstream")} - gave_up
    neosocksd_dns_queries_total                                              {NAMES}
    neosocksd_dns_success_total                                              names_found
    neosocksd_api_requests_total                                             api_ok + api_failed + scrapes
    neosocksd_api_requests_success_total                                     api_ok
    neosocksd_uplink_bytes_total                                             up
    neosocksd_downlink_bytes_total                                           down
    neosocksd_protocol_bytes_total{{direction="rx",module="api_server"}}     api_in
    neosocksd_protocol_bytes_total{{direction="tx",module="api_server"}}     api_out
    neosocksd_protocol_bytes_total{{direction="rx",module="proxy_server"}}   handshake_in
    neosocksd_protocol_bytes_total{{direction="tx",module="proxy_server"}}   handshake_out
    neosocksd_protocol_bytes_total{{direction="rx",module="proxy_client"}}   hop_in
    neosocksd_protocol_bytes_total{{direction="tx",module="proxy_client"}}   hop_out
    neosocksd_protocol_bytes_total{{direction="rx",module="api_client"}}     call_in
    neosocksd_protocol_bytes_total{{direction="tx",module="api_client"}}     call_out
    neosocksd_api_client_requests_total                                      calls_answered + calls_failed
    neosocksd_connect_latency_seconds_count                                  connected
    neosocksd_lua_threads_active                                             coroutines
    sluice_lua_coroutines                                                    coroutines
    sluice_dns_mismatched_total                                              names_mismatched
    sluice_decisions_asked_total                                             decisions
    sluice_decisions_remembered_total                                        remembered
    sluice_upstreams_opened_total                                            conns_opened
    sluice_upstreams_reused_total                                            conns_reused
    sluice_upstreams_stale_total                                             conns_stale
    sluice_upstreams_evicted_total                                           conns_evicted
    sluice_upstreams_idle                                                    conns_idle
    sluice_ruleset_revision                                                  revision
    sluice_workers                                                           workers
    sluice_sessions{{state="established"}}                                   active
    sluice_sessions{{state="handshake"}}                                     half_open
    sluice_sessions_peak                                                     peak
    sluice_connections_accepted_total                                        accepted
    sluice_connections_refused_total{{reason="max_sessions"}}                refused_sessions
    sluice_connections_refused_total{{reason="max_startups"}}                refused_startups
    sluice_connections_refused_total{{reason="share"}}                       refused_share
    sluice_connections_refused_total{{reason="half_open"}}                   refused_half_open
    sluice_connections_refused_total{{reason="pool"}}                        refused_pool
    sluice_connections_refused_total{{reason="resource"}}                    refused_resource
    sluice_requests_total                                                    requests
    sluice_requests_established_total                                        established
    sluice_bytes_total{{direction="up"}}                                     up
    sluice_bytes_total{{direction="down"}}                                   down
    sluice_passwords_total{{outcome="remembered"}}                           passwords_remembered
    sluice_passwords_total{{outcome="right"}}                                passwords_right
    sluice_passwords_total{{outcome="wrong"}}                                passwords_wrong
    sluice_passwords_total{{outcome="unknown"}}                              passwords_unknown
    sluice_passwords_total{{outcome="busy"}}                                 passwords_busy
    sluice_names_total{{outcome="found"}}                                    names_found
    sluice_names_total{{outcome="failed"}}                                   names_failed
    sluice_api_requests_total{{outcome="success"}}                           api_ok
    sluice_api_requests_total{{outcome="error"}}                             api_failed
    sluice_api_connections_total                                             api_connections
    sluice_api_bytes_total{{direction="in"}}                                 api_in
    sluice_api_bytes_total{{direction="out"}}                                api_out
    sluice_calls_total{{outcome="failed"}}                                   calls_failed
    sluice_calls_total{{outcome="answered"}}                                 calls_answered
    sluice_connect_seconds_count                                             connected
    sluice_connect_seconds_bucket{{le="+Inf"}}                               connected
    sluice_decision_seconds_count                                            decided
    sluice_decision_seconds_bucket{{le="+Inf"}}                              decided
    sluice_drain_resets_total                                                drain_resets
    sluice_ring_overflows_total{{worker="0"}}                                overflows
    sluice_buffers_starved_total{{worker="0"}}                               starved
    sluice_pipes_in_use{{worker="0"}}                                        pipes_in_use
    sluice_pipes_missing_total{{worker="0"}}                                 pipes_missing
    sluice_worker_sessions{{worker="0"}}                                     active
    sluice_worker_halfopen{{worker="0"}}                                     half_open
    sluice_worker_accepted_total{{worker="0"}}                               accepted
    sluice_worker_refused_limit_total{{worker="0"}}                          {REFUSALS}
    sluice_worker_refused_resource_total{{worker="0"}}                       refused_resource
    sluice_to_splice_total{{worker="0"}}                                     to_splice
    sluice_to_copy_total{{worker="0"}}                                       to_copy
    sluice_queue_full_total{{worker="0"}}                                    queue_full
    sluice_egress_faults_total{{worker="0"}}                                 egress_faults
    sluice_egress_rests_total{{worker="0"}}                                  egress_rests
    sluice_datagrams_up_total{{worker="0"}}                                  datagrams_up
    sluice_datagrams_down_total{{worker="0"}}                                datagrams_down
    sluice_datagrams_dropped_total{{worker="0"}}                             datagrams_dropped
    sluice_relay_bytes_total{{worker="0",path="copy"}}                       up + down - splice
    sluice_relay_bytes_total{{worker="0",path="splice"}}                     splice
    sluice_queue_depth{{worker="0",to="coordinator"}}                        queued
    sluice_queue_depth{{worker="0",to="worker"}}                             queued
    sluice_ruleset_metrics_dropped_total                                     lines_dropped
""")
EXACT.update({f'sluice_failures_total{{reason="{label}"}}': "fail_" + label for label in FAILURES})

MEMBER = table("""
    sluice_group_sessions{%s}                             sessions
    sluice_group_chosen_total{%s}                         chosen
    sluice_group_connected_total{%s}                      connected
    sluice_group_failures_total{%s}                       failures
    sluice_group_ejected_total{%s}                        ejected
    sluice_group_checks_total{%s,outcome="passed"}        checks_passed
    sluice_group_checks_total{%s,outcome="failed"}        checks_failed
""")

JSON_EXACT = table(f"""
    sessions.active                   active
    sessions.half_open                half_open
    sessions.peak                     peak
    accepted                          accepted
    refused                           {REFUSALS} + refused_resource
    requests                          requests
    successes                         established
    rejects.ruleset                   {group("ruleset")} + gave_up
    rejects.timeout                   {group("timeout")}
    rejects.upstream                  {group("upstream")} - gave_up
    connect_latency.count             connected
    decision_latency.count            decided
    decisions.asked                   decisions
    decisions.remembered              remembered
    passwords.remembered              passwords_remembered
    passwords.right                   passwords_right
    passwords.wrong                   passwords_wrong
    passwords.unknown                 passwords_unknown
    passwords.busy                    passwords_busy
    upstreams.opened                  conns_opened
    upstreams.reused                  conns_reused
    upstreams.stale                   conns_stale
    upstreams.evicted                 conns_evicted
    upstreams.idle                    conns_idle
    bytes.up                          up
    bytes.down                        down
    bytes.copy                        up + down - splice
    bytes.splice                      splice
    handshake.in                      handshake_in
    handshake.out                     handshake_out
    hops.in                           hop_in
    hops.out                          hop_out
    refusals.max_sessions             refused_sessions
    refusals.max_startups             refused_startups
    refusals.share                    refused_share
    refusals.half_open                refused_half_open
    refusals.pool                     refused_pool
    refusals.resource                 refused_resource
    workers.0.index                   zero
    workers.0.queue_in                queued
    workers.0.queue_out               queued
    workers.0.active                  active
    workers.0.half_open               half_open
    workers.0.peak                    peak
    workers.0.accepted                accepted
    workers.0.refused_limit           {REFUSALS}
    workers.0.refused_sessions        refused_sessions
    workers.0.refused_startups        refused_startups
    workers.0.refused_resource        refused_resource
    workers.0.refused_share           refused_share
    workers.0.refused_half_open       refused_half_open
    workers.0.requests                requests
    workers.0.successes               established
    workers.0.bytes_up                up
    workers.0.bytes_down              down
    workers.0.bytes_copy              up + down - splice
    workers.0.bytes_splice            splice
    workers.0.to_splice               to_splice
    workers.0.to_copy                 to_copy
    workers.0.starved                 starved
    workers.0.pipes_in_use            pipes_in_use
    workers.0.pipes_missing           pipes_missing
    workers.0.queue_full              queue_full
    workers.0.routes_asked            decisions
    workers.0.routes_remembered       remembered
    workers.0.conns_opened            conns_opened
    workers.0.conns_reused            conns_reused
    workers.0.conns_stale             conns_stale
    workers.0.conns_evicted           conns_evicted
    workers.0.conns_idle              conns_idle
    workers.0.egress_faults           egress_faults
    workers.0.egress_rests            egress_rests
    workers.0.datagrams_up            datagrams_up
    workers.0.datagrams_down          datagrams_down
    workers.0.datagrams_dropped       datagrams_dropped
    workers.0.ring.overflows          overflows
    dns.queries                       names_asked
    dns.cache_hits                    names_cached
    dns.coalesced                     names_joined
    dns.local                         names_local
    dns.failures                      names_failed
    dns.timeouts                      names_timed_out
    dns.refused                       names_refused
    dns.mismatched                    names_mismatched
    ruleset.revision                  revision
    ruleset.threads                   coroutines
    api.connections                   api_connections
    api.requests                      api_ok + api_failed + scrapes
    api.errors                        api_failed
    api.bytes_in                      api_in
    api.bytes_out                     api_out
    calls.made                        calls_answered + calls_failed
    calls.failed                      calls_failed
    calls.bytes_in                    call_in
    calls.bytes_out                   call_out
""")
JSON_EXACT.update({f"failures.{label}": "fail_" + label for label in FAILURES})

# What has no value that could be foretold: what must hold for it, and for how it has changed since the last look.
def seconds(value, before):
    return 0 <= value < 1e5 and value >= before


def counts(value, before):
    return value >= before and value == int(value)


def size(value, _before):
    return value > 0 and value == int(value)


def latency(value, _before):
    return 0 <= value < 60 * process.SLOW


RULES = {  # by the name of the family
    "neosocksd_uptime_seconds": seconds, "neosocksd_process_cpu_seconds_total": seconds, "sluice_cpu_seconds_total": seconds,
    "neosocksd_connect_latency_seconds": latency, "neosocksd_connect_latency_seconds_sum": seconds, "sluice_connect_seconds_sum": seconds,
    "sluice_decision_seconds_sum": seconds, "sluice_connect_seconds_bucket": counts, "sluice_decision_seconds_bucket": counts,
    "sluice_ring_submissions_total": counts, "sluice_ring_completions_total": counts, "sluice_ring_enters_total": counts,
    "neosocksd_lua_memory_bytes": size, "sluice_lua_memory_bytes": size, "neosocksd_lua_objects": size,
    "neosocksd_lua_threads_peak": lambda value, before: value >= before,
    "sluice_start_time_seconds": lambda value, _: abs(value - time.time()) < 3600,
    "sluice_open_fds": size, "sluice_max_fds": size,
    "sluice_build_info": lambda value, _: value == 1, "sluice_ruleset_info": lambda value, _: value == 1}
JSON_RULES = {
    "uptime": seconds, "cpu": seconds, "time": lambda value, _: abs(value - time.time()) < 3600,
    "version": lambda value, _: re.fullmatch(r"[0-9].*", value), "ruleset.sha256": lambda value, _: re.fullmatch(r"([0-9a-f]{64})?", value),
    "ruleset.loaded": lambda value, _: isinstance(value, bool), "ruleset.memory_bytes": size, "ruleset.objects": size,
    "ruleset.threads_peak": lambda value, before: value >= before,
    "descriptors.open": size, "descriptors.limit": size,
    "workers.0.ring.submissions": counts, "workers.0.ring.completions": counts, "workers.0.ring.enters": counts,
    "last_minute.connect_latency.count": lambda value, _: value >= 0, "last_minute.decision_latency.count": lambda value, _: value >= 0,
    "dns.cached": lambda value, _: 0 <= value < 4096, "ruleset.event_latency.count": lambda value, _: value >= 0}
JSON_RULES.update({f"{head}.{tail}": latency for tail in ["p50", "p90", "p99", "max"] for head in [
    "connect_latency", "decision_latency", "last_minute.connect_latency", "last_minute.decision_latency", "ruleset.event_latency"]})


def family(sample):
    return sample.split("{")[0]


def evaluate(expression, tally):
    return sum((-1 if sign == "-" else 1) * tally[word] for sign, word in re.findall(r"([-+]?) ?(\w+)", expression))


def flatten(value, path=""):
    if isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, one in pairs for name, leaf in flatten(one, f"{path}.{key}" if path else str(key)).items()}
    return {path: value}


def read_metrics(text):
    """{name{labels}: value}; families are whole, and each is declared once, before its samples."""
    samples, families, current = {}, set(), None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split(" ")[2]
            assert current not in families, line
            families.add(current)
        elif not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert re.sub(r"_(bucket|sum|count)$", "", family(name)) in (current, family(name)) and family(name).startswith(current), line
            assert name not in samples, line
            samples[name] = float(value)
    return samples


class Meter:
    """Asks the API, counts what that costs, and compares everything with the tally of its test."""

    def __init__(self, proxy, address):
        self.proxy, self.address = proxy, address
        self.tally = collections.Counter(workers=1)
        self.seen = {}  # what has been looked at last, for what may only rise
        self.metrics = {}
        self.members = {}  # of groups: (group, member): the samples of each, and the words that these are the sums of

    def expect_member(self, group, member, at, state):
        """A member of a group, whose words end with its number, as in chosen_of_0; one sample alone says what it is at present."""
        labels = f'group="{group}",member="{member}"'
        self.members[group, member] = {name % labels: f"{word}_of_{at}" for name, word in MEMBER.items()}
        self.members[group, member][f'sluice_group_state{{{labels},state="{state}"}}'] = "workers"  # always 1

    def ask(self, method, path, body=b"", fields=b"", scrape=False):
        """(status, body); one connection for each, every octet counted. A scrape is under way when it looks."""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode() + fields
        head += (b"Content-Length: %d\r\n" % len(body) if body else b"") + b"\r\n"
        self.tally.update(api_connections=1, api_in=len(head) + len(body), scrapes=int(scrape))
        with wire.Client(self.address, timeout=30) as client:
            answer = client.send(head + body).read_all()
        head, _, content = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        looked = self.tally.copy()
        self.tally.update({"api_out": len(answer), "scrapes": -int(scrape), "api_ok" if status < 400 else "api_failed": 1})
        return status, content, looked

    def look(self):
        """All samples that differ from what they should be."""
        status, text, tally = self.ask("GET", "/metrics", scrape=True)
        assert status == 200
        self.metrics = read_metrics(text.decode())
        exact = {**EXACT, **{name: word for samples in self.members.values() for name, word in samples.items()}}
        wrong = self.compare(self.metrics, exact, {name: rule for name in self.metrics if (rule := RULES.get(family(name)))}, tally)
        status, text, tally = self.ask("GET", "/stats?format=json", scrape=True)
        assert status == 200
        leaves = flatten(json.loads(text))
        return wrong + self.compare(leaves, JSON_EXACT, JSON_RULES, tally)

    def compare(self, found, exact, rules, tally):
        optional = {"neosocksd_connect_latency_seconds_count"} if not tally["connected"] else set()
        wrong = [f"{name} is missing" for name in exact if name not in found and name not in optional]
        for name, value in found.items():
            if name in exact:
                if value != evaluate(exact[name], tally):
                    wrong.append(f"{name} is {value:g}, not {evaluate(exact[name], tally)}")
            elif name not in rules:
                wrong.append(f"{name} has no expectation")
            elif not rules[name](value, self.seen.get(name, -math.inf)):
                wrong.append(f"{name} is {value}, was {self.seen.get(name)}")
            self.seen[name] = value
        return wrong

    def check(self, **expected):
        """What has happened is counted, and nothing else; sessions end, and calls are counted, a moment later."""
        self.tally.update({name: value for name, value in expected.items() if name != "peak"})
        self.tally["peak"] = max(self.tally["peak"], expected.get("peak", 0))
        wrong = []

        def is_right():
            wrong[:] = self.look()
            return not wrong

        assert process.wait_until(is_right, 10, 0.05), "\n".join(wrong)
        self.check_histogram("sluice_connect_seconds")
        self.check_histogram("sluice_decision_seconds")

    def check_histogram(self, name):
        buckets = [value for sample, value in self.metrics.items() if sample.startswith(name + "_bucket")]
        assert buckets == sorted(buckets) and buckets[-1] == self.metrics[name + "_count"]
        assert (self.metrics[name + "_sum"] > 0) == (buckets[-1] > 0)

