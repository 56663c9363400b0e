"""How far two short texts say the same words: exact match and F1, as SQuAD counts them.

Case, ASCII punctuation, articles and spaces do not count.
"""

import collections
import re
import string

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def f1(said: list[str], right: list[str]) -> float:
    """2pr/(p + r) of the words that both have, each as often as both have it."""
    common = collections.Counter(said) & collections.Counter(right)
    return 2 * common.total() / max(len(said) + len(right), 1)
