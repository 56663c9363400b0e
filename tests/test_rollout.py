"""Whole rollouts: what a row draws is its own affair, and is what the model says."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import (
    crossing,
    pool,
    prng,
    programs,
    rollout,
    scoring,
    selftest,
    sharding,
)
from grpo_jax.models import lora
from grpo_jax.models.settings import Lora, Numerics
from grpo_jax.pool import Question, Sampler
from grpo_jax.sampling.settings import Sampling
from grpo_jax.section import Refused
from tests.models import examples

SPEC = examples.SPECS["llama"]
STOPS = (3, 50, 61)
PLAIN = {"temperature": 1.0, "max_new": 16, "segment": 8, "rungs": 1}


def questions(n=8):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 20, n)
    return [
        Question(10 + i, rng.integers(0, 97, m).tolist()) for i, m in enumerate(lengths)
    ]


def sampler(
    spec=SPEC, group=4, stops=STOPS, numerics=Numerics(), mesh=None, **settings
):
    chosen = Sampling(**(PLAIN | settings))
    return Sampler(spec, chosen, group, stops, spec.vocab, numerics, mesh)


def step_key(step=0):
    return prng.step_key(prng.root(0), prng.Stream.SAMPLE, step)


@functools.cache
def baseline():
    return run()


def run(given=None, params=None, step=0, watch=None, asked=None, **settings):
    given = given or sampler(**settings)
    params = params or examples.params_of(given.spec)
    params = programs.publish(params, given.numerics.compute, given.mesh)
    asked = questions() if asked is None else asked
    key = step_key(step)
    with jax.transfer_guard("disallow"):
        groups = rollout.answers(given, params, asked, key, watch)
        return {group.number: group for group in groups}


def same(a, b, samples=None):
    """Bit-equal tokens, and log-probabilities that differ by rounding alone."""
    for number in b:
        one, other = a[number], b[number]
        C = min(one.tokens.shape[1], other.tokens.shape[1])
        one = jax.tree.map(lambda x: x[:samples, ...] if np.ndim(x) else x, one)
        np.testing.assert_array_equal(one.tokens[:, :C], other.tokens[:, :C])
        np.testing.assert_array_equal(one.length, other.length)
        np.testing.assert_array_equal(one.has_ended, other.has_ended)
        np.testing.assert_allclose(one.logp[:, :C], other.logp[:, :C], 0, 1e-4)


# A row is its own ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "settings",
    [
        {"segment": 16},
        {"segment": 4, "rungs": 3},
        {"rows": 4},
        {"rows": 12, "segment": 2, "rungs": 2},
    ],
)
def test_shapes_change_no_token(settings):
    same(baseline(), run(**settings))


def test_neighbours_change_no_token():
    all_of_them = baseline()
    for question in questions()[:3]:
        same(all_of_them, run(asked=[question]))
    same(all_of_them, run(asked=questions()[::-1]))
    same(run(group=8), run(group=1), samples=1)
    longer = [*questions(), Question(99, [5] * 60)]  # another bucket of questions
    same(run(asked=longer), all_of_them)


def test_precision_is_that_of_the_numbers(float64):
    """Padding, bucket and neighbours change rounding only: 1e-12 in float64."""
    exact = {"numerics": examples.DOUBLE, "cache": "float64"}
    params = examples.params_of(SPEC, "float64")
    a = run(params=params, **exact)
    b = run(params=params, rows=8, **exact)
    for number in a:
        np.testing.assert_allclose(a[number].plain, b[number].plain, 1e-12, 1e-12)


@pytest.mark.parametrize(
    ("shape", "rows"),
    [((4, 1, 1), None), ((2, 2, 1), 16), ((1, 2, 2), 16), ((1, 1, 4), None)],
)
def test_a_mesh_changes_no_token(shape, rows):
    mesh = sharding.mesh(*shape)
    params = examples.params_of(SPEC)
    trained = jax.device_put(params, sharding.of_params(params, mesh)[0])
    same(baseline(), run(params=trained, mesh=mesh, rows=rows))


@pytest.mark.parametrize("n", [1, 5])
def test_lanes_may_be_uneven_or_empty(n):
    mesh = sharding.mesh(4, 1, 1)
    params = examples.params_of(SPEC)
    same(baseline(), run(params=params, mesh=mesh, asked=questions()[:n]))


def test_samples_differ_steps_differ_and_a_step_repeats():
    first = baseline()
    for group in first.values():
        assert len({tuple(row) for row in group.tokens}) == 4
    same(first, run())
    second = run(step=1)
    assert all(np.any(first[n].tokens != second[n].tokens) for n in first)


# What the model says -------------------------------------------------------------------
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_recorded_log_probabilities_are_those_of_scoring(name, temperature):
    spec = examples.SPECS[name]
    asked, params = questions(), examples.params_of(spec)
    got = run(sampler(spec, temperature=temperature, rows=12), params)
    groups = [got[question.number] for question in asked]
    P = max(len(question.tokens) for question in asked)
    ids = np.zeros((len(asked), P), int)
    is_question = np.zeros(ids.shape, bool)
    for i, question in enumerate(asked):
        n = len(question.tokens)
        ids[i, -n:], is_question[i, -n:] = question.tokens, True
    tokens = np.stack([group.tokens for group in groups]).astype(int)
    length = np.stack([group.length for group in groups])
    is_completion = np.arange(tokens.shape[-1]) < length[:, :, None]
    texts = scoring.Texts(*map(jnp.asarray, (ids, is_question, tokens, is_completion)))
    for recorded, at in (("logp", temperature), ("plain", 1.0)):
        scored = programs.score(spec, params, texts, at).logp
        theirs = np.stack([getattr(group, recorded) for group in groups])
        np.testing.assert_allclose(
            theirs[is_completion], np.asarray(scored)[is_completion], 0, 1e-4
        )


def test_a_cache_of_bfloat16_is_near():
    exact, near = run(stops=()), run(stops=(), cache="bfloat16")
    gaps = []
    for number in exact:
        same_so_far = exact[number].tokens == near[number].tokens
        same_so_far = np.logical_and.accumulate(same_so_far, 1)
        gap = np.abs(exact[number].plain - near[number].plain)
        gaps.extend(gap[same_so_far].tolist())
    assert len(gaps) > 100 and 1e-4 < max(gaps) < 0.2 and np.mean(gaps) < 0.02


def test_greedy_answers_are_the_argmax_of_the_whole_forward():
    params = examples.params_of(SPEC)
    got = run(temperature=0.0, group=1, stops=(), max_new=6)
    for question in questions()[:3]:
        row = list(question.tokens)
        for token in got[question.number].tokens[0]:
            logits = examples.plain(SPEC, params, jnp.array([[row]]))[0, 0, -1]
            assert token == logits.argmax()
            row.append(int(token))
        assert np.all(got[question.number].logp == 0)


TINY = dataclasses.replace(SPEC, vocab=5)


def joint(params, question, length):
    """The chance of every sequence of that length, [5 ** length]."""
    every = list(itertools.product(range(5), repeat=length))
    rows = jnp.asarray([[question + list(sequence) for sequence in every]])
    logp = jax.nn.log_softmax(examples.plain(TINY, params, rows)[0])
    first = len(question) - 1
    at = np.asarray(logp)[:, first:-1]
    chosen = np.take_along_axis(at, np.asarray(every)[:, :, None], -1)[:, :, 0]
    return np.exp(chosen.sum(-1))


def test_whole_sequences_have_their_joint_distribution():
    """20,000 sequences of four tokens against all 625 of them enumerated."""
    params, question = examples.params_of(TINY), [2, 0, 4]
    p = joint(params, question, 4)
    np.testing.assert_allclose(p.sum(), 1, 1e-5)
    given = sampler(TINY, group=500, stops=(), max_new=4)
    asked = [Question(i, question) for i in range(4)]
    found = []
    for step in range(10):
        for group in run(given, params, step, asked=asked).values():
            found.extend(group.tokens @ 5 ** np.arange(3, -1, -1))
    verdict = selftest.verdict("sequences", np.asarray(found), p / p.sum())
    assert len(found) == 20_000 and verdict.is_right and verdict.bins == 16


# Ends ----------------------------------------------------------------------------------
def test_any_stop_ends_a_row_and_a_budget_cuts_it():
    asked = [q._replace(budgets=(2, 16, 7, 16)) for q in questions()]
    got, free = run(asked=asked), run(stops=())
    ended = 0
    for number, group in got.items():
        for row, n, has_ended, budget in zip(
            group.tokens, group.length, group.has_ended, (2, 16, 7, 16), strict=True
        ):
            assert (
                has_ended == (row[n - 1] in STOPS)
                and not np.isin(row[: n - 1], STOPS).any()
            )
            assert has_ended or n == budget
            assert not row[n:].any()
            ended += has_ended
        sample = group.tokens[1, : group.length[1]]
        np.testing.assert_array_equal(sample, free[number].tokens[1, : len(sample)])
    assert 3 < ended < 32


def test_no_stop_comes_before_the_least_length():
    got = run(min_new=7)
    for group in got.values():
        assert group.length.min() >= 7
        assert not np.isin(group.tokens[:, :6], STOPS).any()
    assert any(group.has_ended.any() for group in got.values())


def test_ids_that_only_fill_the_vocabulary_are_never_drawn():
    params = examples.params_of(SPEC)
    raised = params | {"unembed": params["unembed"].at[90:].multiply(3)}
    given = sampler(stops=())
    free = run(given, raised)
    assert max(group.tokens.max() for group in free.values()) >= 90
    asked = [Question(10 + i, [1, 2, i]) for i in range(4)]
    kept = run(given._replace(size=90), raised, asked=asked)
    assert max(group.tokens.max() for group in kept.values()) < 90


def letters(tokens):
    return "".join(chr(97 + i % 26) for i in tokens)


@pytest.mark.parametrize("segment", [1, 4, 16])
def test_a_stop_string_cuts_where_it_is_complete(segment):
    free = run(stops=(), segment=segment)
    strings = ("ab", "q", "zz")
    cut = run(stops=(), watch=rollout.stop_strings(strings, letters), segment=segment)
    found = 0
    for number, group in cut.items():
        for row, n, ended, whole in zip(
            group.tokens,
            group.length,
            group.has_ended,
            free[number].tokens,
            strict=True,
        ):
            text = letters(whole)
            ends = [text.index(s) + len(s) for s in strings if s in text]
            assert n == min(ends, default=16) and ended == bool(ends)
            np.testing.assert_array_equal(row[:n], whole[:n])
            assert not row[n:].any()
            found += bool(ends)
    assert 3 < found < 32


def test_the_least_length_holds_for_strings_as_well():
    strings = tuple("abcdefghijklm")
    got = run(stops=(), min_new=6, watch=rollout.stop_strings(strings, letters))
    assert {int(n) for group in got.values() for n in group.length} >= {6}
    assert min(group.length.min() for group in got.values()) == 6


def test_strings_without_a_text_and_cuts_without_a_sense_are_refused():
    with pytest.raises(Refused, match="stop_strings are texts, and sampling sees none"):
        run(stop_strings=("a",))
    for keep in (0, 17):
        with pytest.raises(Refused, match=f"row of 8 tokens was to keep {keep}"):
            run(watch=lambda *row, keep=keep: keep, stops=())


def test_a_watch_looks_at_new_tokens_only_and_at_any_rollout():
    """Rows of 200 letters, seen eight more at a time; the cut is that of one look."""
    rng, decoded = np.random.default_rng(0), []

    def counted(tokens):
        decoded.append(len(tokens))
        return letters(tokens)

    watch = rollout.stop_strings(("aab", "zq"), counted)
    for _ in range(20):  # the same row of other rollouts
        row = rng.integers(0, 26, 200) * (rng.random(200) < 0.9)
        looks = (watch(0, 0, row[:n]) for n in range(8, 201, 8))
        cut = next((keep for keep in looks if keep is not None), None)
        text = letters(row)
        ends = [text.find(s) + len(s) for s in ("aab", "zq") if s in text]
        assert cut == (min(ends) if ends else None)
    assert max(decoded) <= 8 + 3 + 4


def test_tokens_without_text_and_cut_characters_hide_no_string():
    """A token may have no text, and half a character makes its neighbours unreadable."""

    def silent(tokens):  # 26 has no text
        return letters([i for i in tokens if i != 26])

    row = np.array([23] * 7 + [0] + [26] * 16 + [1] + [23] * 7)  # x a ... b x
    faces = np.frombuffer("\U0001f642\U0001f642\U0001f600".encode(), np.uint8)

    def all_or_nothing(tokens):
        try:
            return bytes(tokens).decode()
        except UnicodeDecodeError:
            return rollout.LOST * len(tokens)

    for tokens, decode, string, end in (
        (row, silent, "ab", 25),
        (faces, all_or_nothing, "\U0001f600", 12),
    ):
        for step in (1, 2, 3, 5, 8):
            watch = rollout.stop_strings((string,), decode)
            looks = [*range(step, len(tokens), step), len(tokens)]
            cuts = [watch(0, 0, tokens[:n]) for n in looks]
            assert next(keep for keep in cuts if keep is not None) == end


def test_a_cache_that_grows_while_its_columns_go_round_keeps_their_order():
    """A window shows it: rows that leave and come while others stay."""
    spec = dataclasses.replace(examples.SPECS["gemma3"], vocab=97)
    budgets = (8, 8), (4, 4), (16, 16)
    asked = [q._replace(budgets=b) for q, b in zip(questions(3), budgets, strict=True)]
    given = functools.partial(sampler, spec, group=2, stops=())
    whole = run(given(segment=16), asked=asked)
    same(whole, run(given(segment=4, rows=2), asked=asked))


@pytest.mark.parametrize(
    ("asked", "rows", "lanes", "slots", "at_once"),
    [
        (5, None, 1, 6, 24),  # 5 questions stand as 6, of 4 samples
        (5, 20, 1, 5, 20),  # they fit exactly: none waits, and no row is too many
        (5, 12, 1, 6, 12),  # 3 at once, and what is left of others
        (64, 12, 1, 6, 12),
        (5, 20, 4, 2, 4),  # one in each lane, while a fifth waits
        (8, 32, 4, 2, 8),
    ],
)
def test_the_room_of_a_lane_by_hand(asked, rows, lanes, slots, at_once):
    mesh = sharding.mesh(lanes, 1, 1) if lanes > 1 else None
    room = pool.room(sampler(mesh=mesh, rows=rows), asked, 10)
    assert (room.slots, room.ladder[0].size) == (slots, at_once)
    assert rows is None or room.ladder[0].size * lanes <= rows


def test_adapters_are_published_with_what_they_adapt():
    params = examples.params_of(SPEC)
    chosen = Lora(rank=2)
    adapters = jax.tree.map(
        lambda x: x + 0.1, lora.init(params, chosen, jax.random.key(0))
    )
    joined = lora.join(params, adapters, chosen)
    changed = run(params=joined, rungs=1)
    same(run(params=lora.merge(params, adapters, chosen), rungs=1), changed)
    tokens = np.stack([group.tokens for group in changed.values()])
    base = np.stack([group.tokens for group in baseline().values()])
    assert tokens.shape != base.shape or np.any(tokens != base)


def test_a_copy_to_sample_with_spends_the_parameters_or_leaves_them():
    params = jax.tree.map(jnp.copy, examples.params_of(SPEC))
    kept = programs.publish(params, "float32")
    copy = programs.publish(params, "float32", spends=True)
    assert all(x.is_deleted() for x in jax.tree.leaves(params))
    for tree in (kept, copy):
        assert len(tree["layers"]) == SPEC.layers
        for i, layer in enumerate(tree["layers"]):
            for name, x in layer.items():
                expected = examples.params_of(SPEC)["layers"][name][i]
                np.testing.assert_array_equal(x, expected)
    with pytest.raises(Refused, match="such a copy already"):
        programs.publish(copy, "float32", spends=True)
    with pytest.raises(Refused, match="these parameters are for training"):
        rollout.warm_up(sampler(), examples.params_of(SPEC), 2, 4)


def test_a_stop_string_that_never_comes_changes_nothing():
    same(baseline(), run(watch=rollout.stop_strings(("not a letter: 7",), letters)))


# Cost ----------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [None, 16])
def test_nothing_compiles_after_warm_up(rows):
    """Questions of any length, a short last batch, rows that end at any time."""
    spec = dataclasses.replace(SPEC, max_length=500 + (rows or 0))  # its own programs
    given = sampler(spec, rungs=2, max_prompt=40, rows=rows)
    params, rng = examples.published(SPEC), np.random.default_rng(1)
    rollout.warm_up(given, params, 8, 16)
    # What transfers and slices compile, once in a process; not this spec's programs.
    list(rollout.answers(sampler(), params, questions(), step_key()))
    compiled = []

    def hear(event, seconds, **_):
        compiled.extend([event] if event.endswith("backend_compile_duration") else [])

    jax.monitoring.register_event_duration_secs_listener(hear)
    for step in range(8):
        asked = [
            Question(
                i,
                rng.integers(0, 97, rng.integers(1, 41)).tolist(),
                rng.integers(1, 17, 4).tolist(),
            )
            for i in range(8 - step % 2)
        ]
        list(rollout.answers(given, params, asked, step_key(step)))
    assert not compiled


def test_the_shape_follows_the_live_rows():
    budgets = [[16, 3, 3, 3]] * 8
    asked = [q._replace(budgets=b) for q, b in zip(questions(), budgets, strict=True)]
    sizes = []
    whole = pool.Pool.dispatch

    def dispatch(self):
        sizes.append(self.shape.size)
        return whole(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool.Pool, "dispatch", dispatch)
        run(asked=asked, stops=(), rungs=6, segment=4)
    assert sizes == [32, 13, 13, 13]  # of 32, 22, 13, 7 and 1, the least that holds 8


def test_waiting_questions_come_in_as_rows_leave():
    sizes, live = [], []
    whole = pool.Pool.dispatch

    def dispatch(self):
        sizes.append(self.shape.size)
        live.append(int(self.is_live.sum()))
        return whole(self)

    rng = np.random.default_rng(0)
    asked = [
        Question(i, [i], np.minimum(rng.geometric(1 / 5, 4), 16).tolist())
        for i in range(40)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool.Pool, "dispatch", dispatch)
        got = run(asked=asked, rows=16, stops=(), segment=2, rungs=2)
    assert len(got) == 40 and max(sizes) == 16
    middle = len(sizes) * 2 // 3
    assert np.mean(live[:middle]) > 10  # of 16, while questions wait


def test_a_question_stands_once_and_the_cache_grows_with_the_rows():
    made = []
    whole = pool.Pool.leave

    def leave(self):
        made.append((self.prefixes.key[0].nbytes, self.columns))
        return whole(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool.Pool, "leave", leave)
        run(group=1, stops=(), segment=4)
        alone, made[:] = made[0][0], []
        run(group=8, stops=(), segment=4)
    assert made[0][0] == alone
    assert [columns for _, columns in made] == [4, 8, 16, 16]


def test_host_and_device_meet_twice_a_segment(monkeypatch):
    counts = {"up": 0, "down": 0}
    for name in counts:
        function = getattr(crossing, name)

        def counted(*given, name=name, function=function):
            counts[name] += 1
            return function(*given)

        monkeypatch.setattr(crossing, name, counted)
    run(stops=(), segment=4)
    assert counts["down"] == 4  # segments
    assert counts["up"] <= 4 * 4 + 6


# Order, threads ------------------------------------------------------------------------
def test_groups_come_when_they_are_done():
    asked = [
        q._replace(budgets=[1 + 12 * (i < 2)] * 4) for i, q in enumerate(questions(4))
    ]
    given, params = sampler(stops=()), examples.published(SPEC)
    groups = rollout.answers(given, params, asked, step_key())
    assert [group.number for group in groups] == [12, 13, 10, 11]


def test_the_next_segment_runs_while_a_group_is_read(monkeypatch):
    events = []
    whole = pool.Pool.dispatch

    def dispatch(self):
        events.append("dispatch")
        return whole(self)

    monkeypatch.setattr(pool.Pool, "dispatch", dispatch)
    asked = [
        q._replace(budgets=[1 + 12 * (i == 0)] * 4) for i, q in enumerate(questions(4))
    ]
    for group in rollout.answers(
        sampler(stops=()), examples.published(SPEC), asked, step_key()
    ):
        events.append(group.number)
    assert events[:5] == ["dispatch", "dispatch", 11, 12, 13]


# Bad input -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "asked", "message"),
    [
        ({}, [Question(7, [])], "question 7 is empty"),
        ({}, [Question(7, [1] * 500)], "500 tokens; with sampling.max_new, 16"),
        ({}, [Question(7, [97])], "question 7 has ids outside the 97"),
        ({}, [Question(1, [1]), Question(1, [2])], "have the same number"),
        ({}, [Question(1, [1], (1, 2))], "one for each of 4 samples"),
        ({}, [Question(1, [1], (1, 2, 3, 17))], "samples, up to 16"),
        ({}, [Question(1, [1], (0, 0, 0, 0))], "and not all 0"),
        (
            {"max_prompt": 2},
            [Question(1, [1, 2, 3])],
            "3 tokens; sampling.max_prompt is 2",
        ),
        ({"group": 0}, [Question(1, [1])], "a group of 0 samples is empty"),
        ({"rows": 3}, [Question(1, [1])], "sampling.rows is 3; it must hold a whole"),
    ],
)
def test_what_cannot_be_answered_is_refused(settings, asked, message):
    with pytest.raises(Refused, match=message):
        run(asked=asked, **settings)


def test_no_questions_no_answers():
    assert not list(
        rollout.answers(sampler(), examples.published(SPEC), [], step_key())
    )


def test_logits_that_are_not_numbers_stop_the_rollout():
    params = examples.params_of(SPEC)
    broken = params | {"norm": params["norm"].at[0].set(jnp.nan)}
    with pytest.raises(Refused, match=r"question 10, sample 0: the logits of token 0"):
        run(params=broken)


def test_a_damage_that_comes_late_names_its_place():
    given, params = sampler(stops=()), examples.params_of(SPEC)
    clean = run(given, params)
    victim = int(clean[13].tokens[2, 5])
    assert not any(victim in question.tokens for question in questions())
    drawn = np.stack([group.tokens for group in clean.values()])
    first = int(np.nonzero(drawn == victim)[2].min())
    broken = params | {"embed": params["embed"].at[victim].set(jnp.nan)}
    place = rf"the logits of token {first + 1} are not numbers"
    with pytest.raises(Refused, match=place):
        run(given, broken)
