"""Who is calling, and which upstream session serves them.

``identity`` tells callers apart, ``policy`` decides (pure), ``pool`` carries decisions out,
``directory`` remembers the ids that clients hold, ``binding`` joins the two.
"""
