"""The whole of it: built, running, asked, told, drained, stopped.

``proxy`` puts the rooms together and takes them apart in order; ``rules`` is what the options mean to each
part; ``process`` and ``supervisor`` are what is around it.
"""
