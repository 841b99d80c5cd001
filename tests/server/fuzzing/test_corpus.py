"""Replay of the fuzzer's corpus: each case has a valid reply or a documented rejection."""

from __future__ import annotations

from collections import Counter

from pooling_engine import PoolingError
from tests.server.fuzzing.calls import KINDS, check
from tests.server.fuzzing.corpus import read


def test_every_case_is_answered_or_rejected() -> None:
    for name, case in read().items():
        try:
            check(case)
        except Exception as error:
            raise AssertionError(f"case {name}") from error


def test_the_corpus_has_replies_and_rejections_of_every_protocol() -> None:
    outcomes: Counter[tuple[str, bool]] = Counter()
    for case in read().values():
        if case:
            kind = KINDS[case[0] % len(KINDS)]
            outcomes[kind.name, isinstance(kind.answer(case[1:]), PoolingError)] += 1
    for name in ("Forward", "Backward", "Forward in JSON", "ModelInfer", "infer"):
        assert min(outcomes[name, False], outcomes[name, True]) >= 3, name
