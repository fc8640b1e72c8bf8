# SPDX-License-Identifier: Apache-2.0
"""Closed word classes: English function words, numerals, and the keywords of Python.

A closed class has few members and takes no new ones, so that a list is its definition. The English
classes and their members are those of R. Quirk, S. Greenbaum, G. Leech and J. Svartvik, A
Comprehensive Grammar of the English Language (1985), chapter 2; the keywords are those of Python's
module `keyword`. Each word has one class: words of several classes, such as "that" and "before",
are left out, and a keyword that is also a function word, such as "for", counts as the latter.
"""

import keyword

ENGLISH = {
  'determiner': 'a an the this these every each any some no both another',
  'auxiliary': 'is are was were be been am can could may might must shall should will would has '
  'have had do does did',
  'preposition': 'of in for with from at into by on over under between during without through '
  'within about against among upon per',
  'pronoun': 'it you we they he she them us its your their our my me him himself itself',
  'conjunction': 'and or but if because unless although whereas whether when while than',
  'numeral': 'zero one two three four five six seven eight nine ten hundred thousand',
}


def word_classes() -> dict[str, str]:
  """The class of each word that has exactly one, in lower case."""
  found = {word: name for name, words in ENGLISH.items() for word in words.split()}
  excluded = {'as', 'not', 'else'}  # function words of several classes
  return found | {
    word: 'keyword'
    for word in keyword.kwlist
    if word.islower() and word not in found and word not in excluded
  }
