"""How good recommendations are: protocols × models × seeds, every figure with its interval.

    protocols.py   the questions by name          beauty, kuairand, foursquare, movielens, cold: how each is split
    entries.py     the models by name             popularity, neighbours, places, next_item (sasrec, hstu)
    workshop.py    runs, kept as they end         evaluation -> measures, exposures -> statistics -> rows
    command.py     `nearfeed bench quality`

A model takes part with a class that has `name`, `fit` and `scores` (models.py) and an Entry in entries.py.
"""
