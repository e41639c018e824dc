"""The documentation uses the field's and the framework's terms, not the private words of earlier releases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MIGRATION = "docs/moving.md"  # lists the old names

# Pattern of a word, what to write, and a sample that it finds. Names of former attributes and files are searched as
# code or as calls; words of ordinary English only in the sense that they had.
WORDS = [
    (r"\bplacements?\b", "stage", "the placement of a block"),
    (r"`(take|enter|send|leave)(\(\))?`|\.(take|enter|leave)\(", "recv_forward, send_forward", "calls `enter()`"),
    (r"\bsettl(e[ds]?|ing)\b", "flush, synchronize", "values settle at the end"),
    (r"\b(meet|meets|meeting|meetings)\b", "synchronize", "processes meet at a log interval"),
    (r"`(agree|tell|hear)(\(\))?`|\b(tells?|hears?) (the )?others?\b", "all_gather, poll", "tell the others"),
    (r"\bfacade\.inner\b|`(inner|learned|latest)`", "optimizers.by_block", "in `facade.inner`"),
    (r"`(come|begin)(\(\))?`|\bwhat (comes|has come)\b", "received", "reads what comes"),
    (r"\b(stirred|stirs)\b|`waiting`", "in_train_mode, untrained", "blocks in `waiting`"),
    (r"`(join|view)\(|\bhanded_over\b|\bhand(s|ed)? over\b", "combine, neutral_view", "hands over the activation"),
    (r"\blifelines?\b", "failure detector", "a lifeline to the others"),
    (r"\b(posts?|bells?|desks?)\b|\bletters? (is|are) (sent|opened)\b", "p2p, stop sync", "letters are opened"),
    (r"\bkinds\.(kind|whole|number|sizes|own)\b|`(kind|whole|sizes|own)\(", "check_type", "`kind(value)`"),
    (r"\bnobody waits?\b|\bnobody has to wait\b", "non-blocking", "so that nobody waits"),
    (r"\ba word between processes\b|\bwithout a word\b", "notification, without an error", "skipped without a word"),
    (r"\bso many\b|\bas many as (it|they) (is|are) told\b", "N", "steps of so many batches"),
    (r"\bplaces of\b", "indices", "places of blocks"),
    (r"\bblocks? answers?\b", "outputs or scores", "the block answers"),
    (r"\brandom\.py\b", "hashing.py", "in random.py"),
]

PAGES = sorted(
    file.relative_to(ROOT).as_posix()
    for file in [*(ROOT / "docs").rglob("*"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
    if file.suffix in (".md", ".py", ".yaml") and file.relative_to(ROOT).as_posix() != MIGRATION
)


@pytest.mark.parametrize("page", PAGES)
def test_pages_use_standard_terms(page: str) -> None:
    found = []
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        for pattern, standard, _ in WORDS:
            if match := re.search(pattern, line, re.IGNORECASE):
                found.append(f"{page}:{number}: {match[0]!r}: write {standard}")
    assert found == []


@pytest.mark.parametrize(("pattern", "standard", "sample"), WORDS, ids=lambda value: value[:20])
def test_patterns_find_their_word(pattern: str, standard: str, sample: str) -> None:
    assert re.search(pattern, sample, re.IGNORECASE)
    assert not any(re.search(pattern, word) for word in standard.split(", "))


def test_the_migration_page_lists_old_names() -> None:
    text = (ROOT / MIGRATION).read_text(encoding="utf-8")
    assert sum(bool(re.search(pattern, text, re.IGNORECASE)) for pattern, _, _ in WORDS) >= 5
