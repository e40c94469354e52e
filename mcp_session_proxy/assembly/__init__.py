"""The whole of it: built, running, asked, told, drained, stopped.

``proxy`` puts the rooms together and takes them apart in order; ``rules`` is what the options mean to each
part; ``snapshot`` is what can be seen, ``operator`` what can be done to it; ``process`` and ``supervisor``
are what is around it.
"""
