/* core/session/group: which member is next, and what decides it. Pure but for atomics: the clock is a number. */
#include "core/session/group.h"

#include <stdlib.h>
#include <string.h>

#include "core/session/failure.h"
#include "tests/support.h"

#define START UINT64_C(1000000) /* ms */

/* As the coordinator makes it. */
static struct upstream_group *group_of(const char *text)
{
    struct group_plan *plan = malloc(sizeof *plan);
    static uint32_t ids;
    assert_non_null(plan);
    const char *wrong = group_parse(text, strlen(text), plan);
    if (wrong) fail_msg("%s: %s", text, wrong);
    struct upstream_group *group = calloc(1, sizeof *group + plan->count * sizeof *group->seats);
    assert_non_null(group);
    group->policy = plan->policy;
    group->check = plan->check;
    group->fails = plan->fails;
    group->rise = plan->rise;
    group->fall = plan->fall;
    group->window_ms = plan->window_ms;
    group->eject_ms = plan->eject_ms;
    for (unsigned i = 0; i < plan->count; i++) {
        struct group_member *member = calloc(1, sizeof *member);
        assert_non_null(member);
        member_hold(member);
        member->id = ++ids;
        member->checked = plan->check == GROUP_CHECK_NONE ? MEMBER_CHECKED_UP : MEMBER_CHECKED_UNKNOWN;
        group->seats[group->count++] = (struct seat){.member = member,
                                                     .weight = plan->members[i].weight,
                                                     .backup = plan->members[i].backup,
                                                     .most = plan->members[i].most};
    }
    free(plan);
    return group;
}

static void group_end(struct upstream_group *group)
{
    for (unsigned i = 0; i < group->count; i++) {
        assert_int_equal(group->seats[i].member->sessions, 0);
        assert_int_equal(group->seats[i].member->holders, 1);
        member_release(group->seats[i].member);
    }
    free(group);
}

static struct group_member *member_at(const struct upstream_group *group, unsigned i)
{
    return group->seats[i].member;
}

/* The index of the member that is chosen, or -1. The choice is kept in `choice`, or given back. */
static int choose_kept(struct upstream_group *group, uint64_t now_ms, struct group_choice *choice)
{
    *choice = (struct group_choice){0};
    if (!group_choose(group, now_ms, 0, NULL, 0, choice)) return -1;
    for (unsigned i = 0; i < group->count; i++)
        if (member_at(group, i) == choice->member) return (int)i;
    abort();
}

static int choose(struct upstream_group *group, uint64_t now_ms)
{
    struct group_choice choice;
    int index = choose_kept(group, now_ms, &choice);
    group_leave(&choice);
    return index;
}

/* How often each of the first three is chosen in so many choices. */
static void count_choices(struct upstream_group *group, uint64_t now_ms, unsigned choices, unsigned out[3])
{
    out[0] = out[1] = out[2] = 0;
    for (unsigned i = 0; i < choices; i++) {
        int index = choose(group, now_ms);
        assert_in_range(index, 0, 2);
        out[index]++;
    }
}

static void fail_often(struct upstream_group *group, unsigned index, unsigned times, uint64_t now_ms)
{
    for (unsigned i = 0; i < times; i++) member_blame(member_at(group, index), group, now_ms, FAIL_REFUSED, false);
}

/* --- policies --- */

static void test_round_goes_by_weight(void **state)
{
    unsigned counts[3];
    struct upstream_group *group = group_of("p=a:1,weight=3,a:2,a:3,weight=2");
    (void)state;
    count_choices(group, START, 600, counts);
    assert_int_equal(counts[0], 300);
    assert_int_equal(counts[1], 100);
    assert_int_equal(counts[2], 200);
    group_end(group);
}

static void test_least_goes_by_sessions_for_their_weight(void **state)
{
    struct group_choice kept[12];
    unsigned counts[2] = {0, 0};
    struct upstream_group *group = group_of("p=a:1,weight=3,a:2,policy=least");
    (void)state;
    for (unsigned i = 0; i < 12; i++) counts[choose_kept(group, START, &kept[i])]++;
    assert_int_equal(counts[0], 9);
    assert_int_equal(counts[1], 3);
    for (unsigned i = 0; i < 12; i++)
        if (kept[i].member == member_at(group, 1)) group_leave(&kept[i]);
    assert_int_equal(choose(group, START), 1);
    for (unsigned i = 0; i < 12; i++) group_leave(&kept[i]);
    group_end(group);
}

/* What belongs to a member that goes is spread, and all else stays where it was. */
static void test_hash_moves_no_more_than_it_must(void **state)
{
    struct seat_view views[4];
    unsigned counts[4] = {0}, moved = 0;
    (void)state;
    for (unsigned i = 0; i < 4; i++) views[i] = (struct seat_view){.weight = i == 3 ? 3 : 1, .id = 100 + i};
    for (uint64_t hash = 1; hash <= 6000; hash++) {
        uint64_t mixed = hash * UINT64_C(0x9e3779b97f4a7c15);
        int before = group_pick(views, 4, GROUP_HASH, (uint32_t)hash, mixed);
        assert_int_equal(before, group_pick(views, 4, GROUP_HASH, 0, mixed));
        counts[before]++;
        views[1].rank = SEAT_NEVER;
        int after = group_pick(views, 4, GROUP_HASH, 0, mixed);
        views[1].rank = 0;
        assert_int_not_equal(after, 1);
        if (after != before) {
            assert_int_equal(before, 1);
            moved++;
        }
    }
    assert_int_equal(moved, counts[1]);
    for (unsigned i = 0; i < 3; i++) assert_in_range(counts[i], 850, 1150); /* a sixth each, within five sigmas */
    assert_in_range(counts[3], 2800, 3200);
}

/* --- the three verdicts --- */

/* The table of the header, cell by cell: by what class a seat is chosen. */
static void test_no_verdict_overwrites_another(void **state)
{
    struct upstream_group *group = group_of("p=a:1,a:2,backup=yes,check=tcp");
    struct group_member *member = member_at(group, 0);
    (void)state;
    for (unsigned order = MEMBER_UP; order <= MEMBER_DOWN; order++) {
        for (unsigned checked = MEMBER_CHECKED_UNKNOWN; checked <= MEMBER_CHECKED_DOWN; checked++) {
            for (unsigned passive = 0; passive < 4; passive++) { /* IN, OUT, TRIAL, TRIAL and taken */
                bool never = order != MEMBER_UP || checked == MEMBER_CHECKED_DOWN, out = passive == 1 || passive == 3;
                uint8_t expected = out ? 4 : checked == MEMBER_CHECKED_UNKNOWN ? 2 : 0;
                member->order = (uint8_t)order;
                member->checked = (uint8_t)checked;
                member->out_until_ms = passive == 0 ? 0 : passive == 1 ? START + 1 : START;
                member->tried = passive == 3;
                assert_int_equal(seat_rank(&group->seats[0], START), never ? SEAT_NEVER : expected);
                assert_int_equal(member->order, order);
                assert_int_equal(member->checked, checked);
            }
        }
    }
    member->tried = false;
    member_at(group, 1)->checked = MEMBER_CHECKED_UP;
    assert_int_equal(seat_rank(&group->seats[1], START), 1);
    group_end(group);
}

static void test_the_first_check_decides_then_rise_and_fall(void **state)
{
    struct upstream_group *group = group_of("p=a:1,check=tcp,rise=2,fall=3");
    struct group_member *member = member_at(group, 0);
    int streak = 0;
    (void)state;
    assert_true(member_on_check(member, group, false, FAIL_REFUSED, &streak));
    assert_int_equal(member->checked, MEMBER_CHECKED_DOWN);
    assert_int_equal(choose(group, START), -1);
    fail_often(group, 0, 3, START); /* sessions of before */
    assert_false(member_on_check(member, group, true, 0, &streak));
    assert_false(member_on_check(member, group, false, FAIL_REFUSED, &streak));
    assert_false(member_on_check(member, group, true, 0, &streak));
    assert_true(member_on_check(member, group, true, 0, &streak));
    assert_int_equal(member->checked, MEMBER_CHECKED_UP);
    assert_int_equal(member_passive(member, START), MEMBER_IN); /* it has begun anew */
    for (unsigned i = 0; i < 2; i++) assert_false(member_on_check(member, group, false, FAIL_REFUSED, &streak));
    assert_int_equal(choose(group, START), 0);
    assert_true(member_on_check(member, group, false, FAIL_REFUSED, &streak));
    assert_int_equal(choose(group, START), -1);
    assert_int_equal(member->checks_failed, 5);
    group_end(group);
}

/* --- what sessions meet --- */

static void test_failures_in_a_row_take_a_member_out(void **state)
{
    struct upstream_group *group = group_of("p=a:1,a:2,fails=3,eject=10");
    struct group_member *member = member_at(group, 0);
    (void)state;
    fail_often(group, 0, 2, START);
    member_clear(member); /* a success in between */
    fail_often(group, 0, 2, START);
    assert_int_equal(member_passive(member, START), MEMBER_IN);
    assert_true(member_blame(member, group, START, FAIL_REFUSED, false));
    for (unsigned i = 0; i < 10; i++) assert_int_equal(choose(group, START + 9999), 1);
    assert_int_equal(member->ejected, 1);
    assert_int_equal(member->failed, 5);
    group_end(group);
}

/* One failure each 5 s, and a limit of 3 in 8 s: for ten minutes nothing happens. */
static void test_failures_that_are_far_apart_do_not_count(void **state)
{
    struct upstream_group *group = group_of("p=a:1,a:2,fails=3,window=8");
    (void)state;
    for (uint64_t now = START; now < START + 600000; now += 5000)
        assert_false(member_blame(member_at(group, 0), group, now, FAIL_REFUSED, false));
    assert_int_equal(member_at(group, 0)->ejected, 0);
    group_end(group);
}

static void test_one_session_at_a_time_tries_it(void **state)
{
    struct upstream_group *group = group_of("p=a:1,a:2,fails=1,eject=10");
    struct group_member *member = member_at(group, 0);
    struct group_choice choices[8];
    unsigned first = 0;
    (void)state;
    fail_often(group, 0, 1, START);
    uint64_t now = START + 10000;
    for (unsigned i = 0; i < 8; i++) first += choose_kept(group, now, &choices[i]) == 0;
    assert_int_equal(first, 1);
    for (unsigned i = 0; i < 8; i++) {
        if (choices[i].member == member) {
            assert_true(choices[i].trial);
            assert_true(member_blame(member, group, now, FAIL_REFUSED, true)); /* at once, and for twice as long */
        }
        group_leave(&choices[i]);
    }
    assert_int_equal(member_out_until_ms(member), now + 20000);
    now += 20000;
    for (unsigned i = 0; i < 2; i++) { /* a trial that ends without a verdict leaves it to another one */
        int index = -1;
        for (unsigned n = 0; n < 2 && index != 0; n++) {
            if (n > 0) group_leave(&choices[0]);
            index = choose_kept(group, now, &choices[0]);
        }
        assert_int_equal(index, 0);
        assert_true(choices[0].trial);
        group_leave(&choices[0]);
    }
    assert_true(member_clear(member));
    assert_int_equal(member_passive(member, now), MEMBER_IN);
    fail_often(group, 0, 1, now);
    assert_int_equal(member_out_until_ms(member), now + 10000); /* from the beginning */
    group_end(group);
}

static void test_it_is_never_out_for_more_than_32_times_as_long(void **state)
{
    struct upstream_group *group = group_of("p=a:1,a:2,fails=1,eject=10");
    struct group_member *member = member_at(group, 0);
    (void)state;
    for (unsigned i = 0; i < 40; i++) member_blame(member, group, START, FAIL_REFUSED, true);
    assert_int_equal(member_out_until_ms(member), START + 320000);
    group_end(group);
}

/* The rule where all fail: who is out only for what sessions have met is used as if nothing had been. */
static void all_fail(const char *text, unsigned members)
{
    struct upstream_group *group = group_of(text);
    bool seen[3] = {false};
    for (unsigned i = 0; i < members; i++) fail_often(group, i, 3, START);
    for (unsigned i = 0; i < 12; i++) {
        int index = choose(group, START + 1);
        assert_in_range(index, 0, members - 1);
        seen[index] = true;
    }
    for (unsigned i = 0; i < members; i++) assert_true(seen[i]);
    group_end(group);
}

static void test_groups_of_which_all_members_fail(void **state)
{
    (void)state;
    all_fail("p=a:1", 1);
    all_fail("p=a:1,a:2", 2);
    all_fail("p=a:1,a:2,a:3", 3);
}

static void test_a_second_member_that_is_down_changes_nothing_of_it(void **state)
{
    struct upstream_group *group = group_of("p=a:1,a:2");
    (void)state;
    member_at(group, 1)->order = MEMBER_DOWN;
    fail_often(group, 0, 100, START);
    for (unsigned i = 0; i < 10; i++) assert_int_equal(choose(group, START + 1), 0);
    group_end(group);
}

static void test_backups_come_last_of_those_that_can_be_used(void **state)
{
    struct upstream_group *group = group_of("p=a:1,a:2,backup=yes");
    (void)state;
    for (unsigned i = 0; i < 10; i++) assert_int_equal(choose(group, START), 0);
    fail_often(group, 0, 3, START);
    for (unsigned i = 0; i < 10; i++) assert_int_equal(choose(group, START), 1);
    fail_often(group, 1, 3, START);
    for (unsigned i = 0; i < 10; i++) assert_int_equal(choose(group, START), 0);
    group_end(group);
}

static void test_a_member_has_no_more_sessions_than_it_may(void **state)
{
    struct group_choice choices[4];
    struct upstream_group *group = group_of("p=a:1,max=2,a:2,max=1");
    (void)state;
    for (unsigned i = 0; i < 3; i++) assert_int_not_equal(choose_kept(group, START, &choices[i]), -1);
    assert_int_equal(member_at(group, 0)->sessions, 2);
    assert_int_equal(member_at(group, 1)->sessions, 1);
    assert_int_equal(choose(group, START), -1);
    assert_false(group_has_another(group, START, NULL, 0));
    group_leave(&choices[0]);
    assert_true(group_has_another(group, START, NULL, 0));
    for (unsigned i = 1; i < 3; i++) group_leave(&choices[i]);
    group_end(group);
}

static void test_who_was_tried_is_not_chosen_again(void **state)
{
    struct upstream_group *group = group_of("p=a:1,a:2");
    uint32_t tried[2] = {member_at(group, 0)->id, member_at(group, 1)->id};
    struct group_choice choice;
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        assert_true(group_choose(group, START, 0, tried, 1, &choice));
        assert_ptr_equal(choice.member, member_at(group, 1));
        group_leave(&choice);
    }
    assert_false(group_choose(group, START, 0, tried, 2, &choice));
    group_end(group);
}

static void test_a_member_outlives_its_group_while_a_session_has_it(void **state)
{
    struct upstream_group *group = group_of("p=a:1");
    struct group_choice choice;
    (void)state;
    assert_int_equal(choose_kept(group, START, &choice), 0);
    member_release(choice.member); /* the group's hold */
    free(group);
    assert_int_equal(choice.member->sessions, 1);
    group_leave(&choice); /* LeakSanitizer counts */
    assert_null(choice.member);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_goes_by_weight),
        cmocka_unit_test(test_least_goes_by_sessions_for_their_weight),
        cmocka_unit_test(test_hash_moves_no_more_than_it_must),
        cmocka_unit_test(test_no_verdict_overwrites_another),
        cmocka_unit_test(test_the_first_check_decides_then_rise_and_fall),
        cmocka_unit_test(test_failures_in_a_row_take_a_member_out),
        cmocka_unit_test(test_failures_that_are_far_apart_do_not_count),
        cmocka_unit_test(test_one_session_at_a_time_tries_it),
        cmocka_unit_test(test_it_is_never_out_for_more_than_32_times_as_long),
        cmocka_unit_test(test_groups_of_which_all_members_fail),
        cmocka_unit_test(test_a_second_member_that_is_down_changes_nothing_of_it),
        cmocka_unit_test(test_backups_come_last_of_those_that_can_be_used),
        cmocka_unit_test(test_a_member_has_no_more_sessions_than_it_may),
        cmocka_unit_test(test_who_was_tried_is_not_chosen_again),
        cmocka_unit_test(test_a_member_outlives_its_group_while_a_session_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
