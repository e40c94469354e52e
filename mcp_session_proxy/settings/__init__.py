"""What can be configured: every option once, where its value may come from, and how it is written.

``config`` is the model, ``kinds`` the types that its options have, ``values`` the forms in which values are
written; ``sources`` are the flag, the variable and the file of an option, ``complaints`` what is said of
wrong ones; ``options`` is the model for people; ``effective`` tells what is in force, ``reloading`` what
a new configuration changes; ``tls`` and ``descriptors`` are what files and the system add.
"""
