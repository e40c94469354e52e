"""Where records outlive the process: eleven verbs, and the engines behind them.

Everything that is stored belongs to a *shard*: what there is of one principal. A *member* is one process that
shares a store with others; it says that it is alive by a *lease*, and owns the shards that it has claimed.
A *fence* counts the owners of a shard. Every write names it, so one that has lost a shard can write nothing.
Nothing here knows what a record says.
"""
