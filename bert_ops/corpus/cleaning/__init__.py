"""Cleaning of a text in named, ordered, counted steps: markup, characters, Unicode form, script, lines, filters.

:mod:`~bert_ops.corpus.cleaning.cleaner` holds the list of the steps; each step is a module of its own.
"""
