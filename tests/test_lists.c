/* protocols/list_text, core/session/lists and list_build: what is an entry, the longest match, ties, ports, forms of
 * addresses, both scopes, and random lists against a model that looks at every entry. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/session/lists.h"
#include "protocols/list_text.h"
#include "tests/support.h"

/* --- entries --- */

static void entry_is(const char *text, enum list_entry_kind kind, unsigned bits, unsigned from, unsigned to,
                     const char *name)
{
    struct list_entry entry;
    const char *wrong = list_parse_entry(text, strlen(text), true, &entry);
    if (wrong) printf("\"%s\": %s\n", text, wrong);
    assert_null(wrong);
    assert_int_equal(entry.kind, kind);
    assert_int_equal(entry.from, from);
    assert_int_equal(entry.to, to);
    if (kind == LIST_ENTRY_IPV4 || kind == LIST_ENTRY_IPV6) assert_int_equal(entry.bits, bits);
    if (!name) return;
    assert_int_equal(entry.name_size, strlen(name));
    assert_memory_equal(entry.name, name, entry.name_size);
}

static void entry_fails(const char *text, const char *part)
{
    struct list_entry entry;
    const char *wrong = list_parse_entry(text, strlen(text), true, &entry);
    if (!wrong || !strstr(wrong, part)) printf("\"%s\": %s\n", text, wrong ? wrong : "passes");
    assert_true(wrong && strstr(wrong, part));
}

static void test_entries(void **state)
{
    (void)state;
    entry_is("192.0.2.7", LIST_ENTRY_IPV4, 128, 0, 65535, NULL);
    entry_is("0.0.0.0/0", LIST_ENTRY_IPV4, 96, 0, 65535, NULL);
    entry_is("10.0.0.0/8:25", LIST_ENTRY_IPV4, 104, 25, 25, NULL);
    entry_is("10.0.0.0/8:1-65535", LIST_ENTRY_IPV4, 104, 1, 65535, NULL);
    entry_is("2001:db8::/32", LIST_ENTRY_IPV6, 32, 0, 65535, NULL);
    entry_is("[2001:db8::1]:443", LIST_ENTRY_IPV6, 128, 443, 443, NULL);
    entry_is("[2001:db8::/32]:8000-8999", LIST_ENTRY_IPV6, 32, 8000, 8999, NULL);
    entry_is("[::1]", LIST_ENTRY_IPV6, 128, 0, 65535, NULL);
    entry_is("::ffff:10.0.0.0/104", LIST_ENTRY_IPV4, 104, 0, 65535, NULL);
    entry_is("::/0", LIST_ENTRY_IPV6, 0, 0, 65535, NULL);
    entry_is("Example.COM.", LIST_ENTRY_NAME, 0, 0, 65535, "Example.COM");
    entry_is(".example.com", LIST_ENTRY_SUFFIX, 0, 0, 65535, "example.com");
    entry_is(".example.com.:80-90", LIST_ENTRY_SUFFIX, 0, 80, 90, "example.com");
    entry_is("_dns.1a", LIST_ENTRY_NAME, 0, 0, 65535, "_dns.1a");
    entry_is("*", LIST_ENTRY_ALL, 0, 0, 65535, NULL);
    entry_is("*:25", LIST_ENTRY_ALL, 0, 25, 25, NULL);
    entry_fails("10.0.0.1/8", "nothing but zeros behind the bits");
    entry_fails("10.0.0.0/33", "size of the network");
    entry_fails("10.0.0.0/", "size of the network");
    entry_fails("10.0.0/8", "no network");
    entry_fails("10.0.0", "no address");
    entry_fails("010.0.0.1", "no address");
    entry_fails("example.com/24", "no network");
    entry_fails("::1/129", "size of the network");
    entry_fails("[::1", "bracket is open");
    entry_fails("[::1]443", "give [address/bits]:port");
    entry_fails("[::1]:", "port is wrong");
    entry_fails("example.com:0", "port is wrong");
    entry_fails("example.com:65536", "port is wrong");
    entry_fails("example.com:http", "port is wrong");
    entry_fails("example.com:90-80", "upside down");
    entry_fails("example.com:80-", "port is wrong");
    entry_fails("*.example.com", "dot in front");
    entry_fails("..example.com", "1 to 63");
    entry_fails("a..b", "1 to 63");
    entry_fails(".", "1 to 253");
    entry_fails("a b", "neither");
    entry_fails("http://example.com", "port is wrong");
    entry_fails("", "empty");
    char long_label[80], long_entry[600];
    memset(long_label, 'a', sizeof long_label);
    long_label[63] = '\0';
    entry_is(long_label, LIST_ENTRY_NAME, 0, 0, 65535, long_label);
    long_label[63] = 'a', long_label[64] = '\0';
    entry_fails(long_label, "1 to 63");
    memset(long_entry, 'a', sizeof long_entry);
    long_entry[513] = '\0';
    entry_fails(long_entry, "longer than 512");
}

static void test_entries_of_clients(void **state)
{
    struct list_entry entry;
    (void)state;
    for (const char *const *good = (const char *const[]){"10.0.0.0/8", "::1", "[::1]", "*", NULL}; *good; good++)
        assert_null(list_parse_entry(*good, strlen(*good), false, &entry));
    for (const char *const *bad = (const char *const[]){"example.com", ".x", "10.0.0.1:80", "[::1]:80", "*:1", NULL};
         *bad; bad++)
        assert_non_null(list_parse_entry(*bad, strlen(*bad), false, &entry));
    assert_non_null(list_parse_entry("10.0.0.1\0", 9, false, &entry));
    assert_non_null(list_parse_entry("10.0.0.0/8\0", 11, false, &entry));
}

static void test_lines(void **state)
{
    static const char text[] = "a\r\n\n  b # c\n#\n\td\t";
    static const char *const expected[] = {"a", "", "b", "", "d"};
    const char *at = text, *end = text + sizeof text - 1, *line;
    size_t size, count = 0;
    (void)state;
    while ((line = list_next_line(&at, end, &size)) != NULL) {
        assert_in_range(count, 0, 4);
        assert_int_equal(size, strlen(expected[count]));
        assert_memory_equal(line, expected[count], size);
        count++;
    }
    assert_int_equal(count, 5);
}

/* --- lists of the process and of listener 0 --- */

static struct lists *lists;

static void put(enum list_subject subject, unsigned scope, const char *allow, const char *deny)
{
    struct list_part parts[2];
    size_t count = 0;
    struct list_fault fault = {.wrong = "none"};
    if (allow) parts[count++] = (struct list_part){.text = allow, .size = strlen(allow)};
    if (deny) parts[count++] = (struct list_part){.text = deny, .size = strlen(deny), .denies = true};
    list_side_release(lists->sides[subject][scope]);
    int error = list_side_build(subject, parts, count, &lists->sides[subject][scope], &fault);
    if (error < 0) printf("line %u: %s\n", fault.line, fault.wrong);
    assert_int_equal(error, 0);
}

static void targets(const char *allow, const char *deny)
{
    put(LIST_TARGETS, LIST_SCOPE_PROCESS, allow, deny);
}

static int open_lists(void **state)
{
    (void)state;
    lists = lists_new();
    return lists ? 0 : -1;
}

static int close_lists(void **state)
{
    (void)state;
    lists_release(lists);
    lists = NULL;
    return 0;
}

static struct address address_of(const char *text)
{
    struct address address;
    assert_true(address_parse(text, strlen(text), ADDRESS_PORT_DEFAULT, 443, &address));
    return address;
}

/* By itself, with nothing more to come. */
static bool passes(const char *text)
{
    struct address address = address_of(text);
    uint8_t allowed = 0;
    return lists_admit_target(lists, 0, &address, &allowed, true);
}

/* As a name that has this address. */
static bool leads_to(const char *name, const char *to)
{
    struct address asked = address_of(name), found = address_of(to);
    uint8_t allowed = 0;
    return lists_admit_target(lists, 0, &asked, &allowed, false) &&
           lists_admit_target(lists, 0, &found, &allowed, true);
}

static bool client_passes(const char *text)
{
    struct address address = address_of(text);
    return lists_admit_client(lists, 0, &address);
}

static void test_longest_match(void **state)
{
    (void)state;
    targets("10.1.0.0/16\n.b.test\nx.a.test", "10.0.0.0/8\n10.1.2.3\n.a.test\na.b.test\n192.0.2.0/24");
    assert_true(passes("10.1.9.9"));
    assert_false(passes("10.1.2.3"));
    assert_false(passes("10.2.0.0"));
    assert_false(passes("198.51.100.1")); /* no entry, and there is a list that allows */
    assert_false(passes("a.test"));
    assert_false(passes("y.a.test"));
    assert_true(passes("x.a.test"));
    assert_false(passes("w.x.a.test")); /* .a.test again */
    assert_true(passes("b.test"));
    assert_true(passes("c.b.test"));
    assert_false(passes("a.b.test")); /* the name alone is longer than what is below it */
    assert_true(passes("z.a.b.test"));
    assert_false(passes("xb.test"));
    targets(NULL, "*");
    assert_false(passes("10.0.0.1"));
    assert_false(passes("any.test"));
    targets("*", "10.0.0.0/8");
    assert_true(passes("192.0.2.1"));
    assert_false(passes("10.0.0.1"));
    assert_true(passes("[2001:db8::1]"));
}

static void test_ties(void **state)
{
    (void)state;
    targets("10.0.0.0/8\nname.test\n.sub.test\n*", "10.0.0.0/8\nname.test\n.sub.test\n");
    assert_false(passes("10.1.1.1"));
    assert_false(passes("name.test"));
    assert_false(passes("x.sub.test"));
    assert_true(passes("other.test"));
    targets("*", "*");
    assert_false(passes("other.test"));
    assert_false(passes("192.0.2.1"));
    targets(".same.test", "same.test");
    assert_false(passes("same.test"));
    assert_true(passes("x.same.test"));
}

static void test_ports(void **state)
{
    (void)state;
    targets(NULL, "*:25\n10.0.0.0/8:8000-8999\n.a.test:80\n10.0.0.0/8:8999-9001");
    assert_false(passes("192.0.2.1:25"));
    assert_false(passes("x.test:25"));
    assert_true(passes("192.0.2.1:26"));
    assert_false(passes("10.0.0.1:25"));
    assert_true(passes("10.0.0.1:7999"));
    for (unsigned port = 8000; port <= 9001; port++) {
        char text[32];
        snprintf(text, sizeof text, "10.0.0.1:%u", port);
        assert_false(passes(text));
    }
    assert_true(passes("10.0.0.1:9002"));
    assert_false(passes("x.a.test:80"));
    assert_true(passes("x.a.test:81"));
    /* What a longer entry does not say of this port, a shorter one does. */
    targets("10.0.0.0/8\n.test", "10.1.0.0/16:22\nssh.test:22");
    assert_true(passes("10.1.1.1:80"));
    assert_false(passes("10.1.1.1:22"));
    assert_true(passes("ssh.test:80"));
    assert_false(passes("ssh.test:22"));
    /* Of the same length: deny holds, whichever of both has the ports. */
    targets("10.0.0.0/8:1-100\n10.0.0.0/8:200-300", "10.0.0.0/8:50-250");
    assert_true(passes("10.0.0.1:49"));
    assert_false(passes("10.0.0.1:50"));
    assert_false(passes("10.0.0.1:250"));
    assert_true(passes("10.0.0.1:251"));
    assert_false(passes("10.0.0.1:301"));
    targets("10.0.0.0/8:443", "10.0.0.0/8");
    assert_false(passes("10.0.0.1:443"));
    targets("10.0.0.0/8", "10.0.0.0/8:443");
    assert_false(passes("10.0.0.1:443"));
    assert_true(passes("10.0.0.1:442"));
    targets("*:1-65535", "*:65535");
    assert_true(passes("10.0.0.1:65534"));
    assert_false(passes("10.0.0.1:65535"));
}

static void test_forms_of_addresses(void **state)
{
    static const char *const forms[] = {"[::ffff:10.1.2.3]",   "[64:ff9b::10.1.2.3]", "[::10.1.2.3]",
                                        "[2002:a01:203::1]",   "[::ffff:0:10.1.2.3]", "[2001::f5fe:fdfc]",
                                        "[64:ff9b:1::a01:203]"};
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        targets(NULL, "10.0.0.0/8");
        assert_false(passes(forms[i]));
        assert_true(passes("[2001:db8::10.1.2.3]"));
        targets("10.0.0.0/8", NULL);
        assert_true(passes(forms[i]));
        assert_false(passes("[2001:db8::10.1.2.3]"));
    }
    targets(NULL, "64:ff9b::/96");
    assert_false(passes("[64:ff9b::192.0.2.1]"));
    targets("64:ff9b::/96", "192.0.2.0/24"); /* a denial of either is one */
    assert_false(passes("[64:ff9b::192.0.2.1]"));
    assert_true(passes("[64:ff9b::192.0.3.1]"));
    targets(NULL, "::ffff:10.0.0.0/104");
    assert_false(passes("10.1.1.1"));
    targets(NULL, "::/0"); /* of IPv6 alone */
    assert_true(passes("10.1.1.1"));
    assert_true(passes("[::ffff:10.1.1.1]"));
    assert_false(passes("[2001:db8::1]"));
    targets(NULL, "0.0.0.1");
    assert_true(passes("[::1]")); /* is itself, and not what its last octets say */
}

static void test_forms_of_names(void **state)
{
    (void)state;
    targets(NULL, "MixeD.Test.\n.B\xc3\xbc"
                  "cher.example\nxn--strae-oqa.example");
    assert_false(passes("mixed.test"));
    assert_false(passes("MIXED.TEST."));
    assert_false(passes("xn--bcher-kva.example"));
    assert_false(passes("x.XN--BCHER-KVA.example"));
    assert_false(passes("b\xc3\xbc"
                        "cher.example"));
    assert_false(passes("B\xc3\x9c"
                        "CHER.example"));
    assert_false(passes("x.bu\xcc\x88"
                        "cher.example")); /* decomposed */
    assert_false(passes("stra\xc3\x9f"
                        "e.example"));
    assert_true(passes("bucher.example"));
    assert_true(passes("b\xff"
                       "cher.example")); /* no UTF-8 */
}

/* --- name and address --- */

static void test_name_and_address(void **state)
{
    (void)state;
    targets(".good.test", NULL);
    assert_true(leads_to("a.good.test", "192.0.2.1"));
    assert_false(leads_to("bad.test", "192.0.2.1"));
    targets(".good.test", "10.0.0.0/8"); /* a name that is allowed does not lead inside */
    assert_true(leads_to("a.good.test", "192.0.2.1"));
    assert_false(leads_to("a.good.test", "10.0.0.1"));
    targets("192.0.2.0/24", NULL);
    assert_true(leads_to("any.test", "192.0.2.1"));
    assert_false(leads_to("any.test", "192.0.3.1"));
    assert_false(passes("any.test")); /* nobody here will see its address */
    targets("192.0.2.0/24", "any.test");
    assert_false(leads_to("any.test", "192.0.2.1"));
    targets(NULL, "192.0.2.0/24:80");
    assert_true(leads_to("any.test", "192.0.2.1"));
    /* What no address can allow is refused before it is looked up. */
    struct address asked = address_of("bad.test");
    uint8_t allowed = 0;
    targets(".good.test", "10.0.0.0/8");
    assert_false(lists_admit_target(lists, 0, &asked, &allowed, false));
    targets(".good.test\n192.0.2.0/24", NULL);
    assert_true(lists_admit_target(lists, 0, &asked, &allowed, false));
}

static void test_scopes(void **state)
{
    (void)state;
    targets(NULL, "10.0.0.0/8");
    put(LIST_TARGETS, 0, ".inner.test\n10.0.0.0/8", NULL);
    assert_false(passes("10.0.0.1"));  /* of the process */
    assert_false(passes("192.0.2.1")); /* of the listener */
    assert_true(leads_to("x.inner.test", "192.0.2.1"));
    assert_false(leads_to("x.inner.test", "10.0.0.1"));
    struct address address = address_of("192.0.2.1");
    uint8_t allowed = 0;
    assert_true(lists_admit_target(lists, 1, &address, &allowed, true)); /* another listener */
    targets("10.0.0.0/8", NULL);
    put(LIST_TARGETS, 0, ".inner.test", NULL);
    assert_true(leads_to("x.inner.test", "10.0.0.1")); /* the one by name, the other by address */
    assert_false(leads_to("x.inner.test", "192.0.2.1"));
    assert_false(leads_to("x.outer.test", "10.0.0.1"));
    assert_true(lists_admit_target(NULL, 0, &address, &allowed, true));
}

static void test_clients(void **state)
{
    (void)state;
    put(LIST_CLIENTS, LIST_SCOPE_PROCESS, "10.0.0.0/8\n2001:db8::/32", "10.6.0.0/16");
    assert_true(client_passes("10.1.1.1"));
    assert_false(client_passes("10.6.1.1"));
    assert_false(client_passes("192.0.2.1"));
    assert_true(client_passes("[2001:db8::1]"));
    assert_true(client_passes("[::ffff:10.1.1.1]"));
    assert_false(client_passes("[2002:a01:101::1]")); /* is not 10.1.1.1 */
    assert_false(client_passes("[64:ff9b::10.1.1.1]"));
    put(LIST_CLIENTS, 0, NULL, "10.1.0.0/16");
    assert_false(client_passes("10.1.1.1"));
    assert_true(client_passes("10.2.1.1"));
    put(LIST_CLIENTS, LIST_SCOPE_PROCESS, "", NULL); /* a list that allows nobody */
    assert_false(client_passes("10.2.1.1"));
    put(LIST_CLIENTS, LIST_SCOPE_PROCESS, NULL, NULL);
    assert_true(client_passes("10.2.1.1"));
}

/* Each part knows how many entries it brought, and what was denied is counted on when other lists come. */
static void test_entries_and_denials(void **state)
{
    static const char text[] = "10.0.0.0/8\n\n# none\nevil.test\n";
    struct list_part parts[] = {{text, sizeof text - 1, true, 0}, {"*:25", 4, true, 0}};
    struct lists *first = lists_new(), *second = lists_new();
    struct list_side **side = &first->sides[LIST_TARGETS][LIST_SCOPE_PROCESS];
    struct list_fault fault;
    struct address inner = {.kind = ADDRESS_IPV4, .ipv4 = {10, 1, 1, 1}}, outer = {.kind = ADDRESS_IPV4, .ipv4 = {9}};
    uint8_t allowed = 0;
    (void)state;
    assert_int_equal(list_side_build(LIST_TARGETS, parts, 2, side, &fault), 0);
    assert_int_equal(parts[0].entries, 2);
    assert_int_equal(parts[1].entries, 1);
    for (unsigned i = 0; i < 3; i++) assert_false(lists_admit_target(first, 0, &inner, &allowed, true));
    assert_true(lists_admit_target(first, 0, &outer, &allowed, true));
    second->sides[LIST_TARGETS][1] = list_side_hold(*side);
    lists_follow(second, first);
    lists_release(first);
    assert_int_equal(second->revision, 2);
    assert_false(lists_admit_target(second, 1, &inner, &allowed, false));
    assert_true(lists_admit_target(second, 0, &inner, &allowed, false));
    assert_int_equal(second->meters->denied[LIST_TARGETS][LIST_SCOPE_PROCESS], 3);
    assert_int_equal(second->meters->denied[LIST_TARGETS][1], 1);
    assert_int_equal(second->meters->denied[LIST_TARGETS][0], 0);
    assert_int_equal(second->meters->denied[LIST_CLIENTS][LIST_SCOPE_PROCESS], 0);
    lists_release(second);
}

static void test_faults(void **state)
{
    static const char good[] = "10.0.0.0/8\n", bad[] = "# none\n\nexample.com\n10.0.0.1/8 # no\n";
    struct list_part parts[] = {{good, sizeof good - 1, false, 0}, {bad, sizeof bad - 1, true, 0}};
    struct list_side *side;
    struct list_fault fault;
    (void)state;
    assert_int_equal(list_side_build(LIST_TARGETS, parts, 2, &side, &fault), -EINVAL);
    assert_null(side);
    assert_int_equal(fault.part, 1);
    assert_int_equal(fault.line, 4);
    assert_int_equal(fault.entry_size, 10);
    assert_memory_equal(fault.entry, "10.0.0.1/8", 10);
    assert_int_equal(list_side_build(LIST_CLIENTS, parts, 2, &side, &fault), -EINVAL);
    assert_int_equal(fault.line, 3); /* clients have no names */
    struct list_part foreign = {"\xff.test", 6, false, 0};
    assert_int_equal(list_side_build(LIST_TARGETS, &foreign, 1, &side, &fault), -EINVAL);
    assert_non_null(strstr(fault.wrong, "IDNA"));
}

/* --- random lists --- */

#define MODEL_MAX 60u

struct model_entry {
    struct list_entry entry;
    bool denies;
    char text[64];
};

static uint32_t seed = 1;

static uint32_t draw(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(seed >> 8) * below >> 24);
}

/* Few hosts and labels, so that much of it meets. */
static void draw_entry(struct model_entry *e)
{
    static const char *const labels[] = {"a", "b", "c"};
    char host[48], ports[16] = "";
    unsigned bits = 24 + draw(9);
    uint32_t low = draw(256) & (bits == 24 ? 0u : 0xffu << (32 - bits));
    switch (draw(4)) {
    case 0: snprintf(host, sizeof host, "10.0.0.%u/%u", low, bits); break;
    case 1: snprintf(host, sizeof host, "%s%s.%s", draw(2) ? "." : "", labels[draw(3)], labels[draw(3)]); break;
    case 2: snprintf(host, sizeof host, "%s%s", draw(2) ? "." : "", labels[draw(3)]); break;
    default: snprintf(host, sizeof host, draw(4) ? "10.0.0.%u" : "*", draw(256)); break;
    }
    if (draw(2)) {
        unsigned from = 1 + draw(10);
        snprintf(ports, sizeof ports, ":%u-%u", from, from + draw(5));
    }
    snprintf(e->text, sizeof e->text, "%s%s", host, ports);
    e->denies = draw(2);
    assert_null(list_parse_entry(e->text, strlen(e->text), true, &e->entry));
}

/* How long the match is; 0: none. A name that is the whole one is longer than one that ends there. */
static unsigned model_match(const struct model_entry *e, const struct address *to, const char *name)
{
    const struct list_entry *entry = &e->entry;
    size_t size = name ? strlen(name) : 0;
    if (to->port < entry->from || to->port > entry->to) return 0;
    if (entry->kind == LIST_ENTRY_ALL) return 1;
    if (entry->kind == LIST_ENTRY_IPV4) {
        uint64_t address =
            (uint64_t)to->ipv4[0] << 24 | (uint64_t)to->ipv4[1] << 16 | (uint64_t)to->ipv4[2] << 8 | to->ipv4[3];
        return !name && (address ^ entry->first.low) >> (128 - entry->bits) == 0 ? entry->bits : 0;
    }
    if (!name || size < entry->name_size || strncmp(name + size - entry->name_size, entry->name, entry->name_size) != 0)
        return 0;
    bool whole = size == entry->name_size;
    if (entry->kind == LIST_ENTRY_NAME) return whole ? 2 * (unsigned)size + 3 : 0;
    return whole || name[size - entry->name_size - 1] == '.' ? 2 * (unsigned)entry->name_size + 2 : 0;
}

static bool model_passes(const struct model_entry *entries, unsigned count, const struct address *to, const char *name)
{
    unsigned longest = 0;
    bool denied = false, selects = false;
    for (unsigned i = 0; i < count; i++) {
        unsigned match = model_match(&entries[i], to, name);
        selects |= !entries[i].denies;
        if (match > 0 && match == longest) denied |= entries[i].denies;
        if (match > longest) longest = match, denied = entries[i].denies;
    }
    return longest > 0 ? !denied : !selects;
}

static void test_random(void **state)
{
    static struct model_entry entries[MODEL_MAX];
    static char texts[2][MODEL_MAX * 64];
    static const char *const names[] = {"a", "b.a", "c.b.a", "a.a", "d", "d.b", "a.b.c.a", "xa"};
    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        unsigned count = 1 + draw(MODEL_MAX);
        size_t used[2] = {0, 0};
        texts[0][0] = texts[1][0] = '\0';
        for (unsigned i = 0; i < count; i++) {
            struct model_entry *e = &entries[i];
            draw_entry(e);
            size_t *at = &used[e->denies];
            *at += (size_t)snprintf(texts[e->denies] + *at, sizeof texts[0] - *at, "%s\n", e->text);
        }
        targets(used[0] > 0 ? texts[0] : NULL, used[1] > 0 ? texts[1] : NULL);
        for (unsigned i = 0; i < 200; i++) {
            char text[32];
            const char *name = draw(2) ? names[draw(8)] : NULL;
            if (name)
                snprintf(text, sizeof text, "%s:%u", name, 1 + draw(16));
            else
                snprintf(text, sizeof text, "10.0.0.%u:%u", draw(256), 1 + draw(16));
            struct address to = address_of(text);
            uint8_t allowed = 0;
            bool expected = model_passes(entries, count, &to, name);
            if (lists_admit_target(lists, 0, &to, &allowed, true) == expected) continue;
            printf("%s should %s\nallow:\n%sdeny:\n%s", text, expected ? "pass" : "not pass", texts[0], texts[1]);
            fail();
        }
    }
}

/* --- large ones --- */

/* A million of entries of three kinds: each is found, and what stands beside them is not. */
static void test_million(void **state)
{
    enum { COUNT = 1000000 };
    char *text = malloc((size_t)COUNT * 40), *at = text;
    (void)state;
    assert_non_null(text);
    for (unsigned i = 0; i < COUNT; i++) {
        if (i % 3 == 0) at += sprintf(at, "%u.%u.%u.0/25\n", 1 + (i >> 16), i >> 8 & 255, i & 255);
        if (i % 3 == 1) at += sprintf(at, "host%u.example%u.test\n", i, i % 1000);
        if (i % 3 == 2) at += sprintf(at, "2001:db8:%x:%x::/64\n", i >> 16, i & 65535);
    }
    targets(NULL, text);
    free(text);
    assert_int_equal(list_side_entries(lists->sides[LIST_TARGETS][LIST_SCOPE_PROCESS]), COUNT);
    for (unsigned i = 0; i < COUNT; i += 997) {
        char inside[80], outside[80];
        if (i % 3 == 0) {
            snprintf(inside, sizeof inside, "%u.%u.%u.127", 1 + (i >> 16), i >> 8 & 255, i & 255);
            snprintf(outside, sizeof outside, "%u.%u.%u.128", 1 + (i >> 16), i >> 8 & 255, i & 255);
        } else if (i % 3 == 1) {
            snprintf(inside, sizeof inside, "host%u.example%u.test", i, i % 1000);
            snprintf(outside, sizeof outside, "host%u.example%u.test", i + 1, i % 1000);
        } else {
            snprintf(inside, sizeof inside, "[2001:db8:%x:%x:ffff:ffff:ffff:ffff]", i >> 16, i & 65535);
            snprintf(outside, sizeof outside, "[2001:db9:%x:%x::]", i >> 16, i & 65535);
        }
        assert_false(passes(inside));
        assert_true(passes(outside));
    }
}

#define WITH_LISTS(f) cmocka_unit_test_setup_teardown(f, open_lists, close_lists)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_entries_of_clients),
        cmocka_unit_test(test_lines),
        WITH_LISTS(test_longest_match),
        WITH_LISTS(test_ties),
        WITH_LISTS(test_ports),
        WITH_LISTS(test_forms_of_addresses),
        WITH_LISTS(test_forms_of_names),
        WITH_LISTS(test_name_and_address),
        WITH_LISTS(test_scopes),
        WITH_LISTS(test_clients),
        cmocka_unit_test(test_entries_and_denials),
        WITH_LISTS(test_faults),
        WITH_LISTS(test_random),
        WITH_LISTS(test_million),
    };
    return cmocka_run_group_tests_name("lists", tests, NULL, NULL);
}
