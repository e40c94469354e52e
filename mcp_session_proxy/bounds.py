"""Every fixed number that a client, a caller or a server can make something grow to. No option changes them.

Options have their numbers in ``settings/config.py``. ``docs/security.md`` tells where growth ends, and a test
compares it with these. Who keeps to a number imports it from here; units are in the names.
"""

from typing import Final

# -- A client, by its connections and heads --------------------------------------------------------

# A new connection is not made to make room for so long: a handshake over a slow line takes about as much.
TIME_TO_SPEAK_SECONDS: Final = 2.0
# Until the first request of a connection has begun.
FIRST_REQUEST_SECONDS: Final = 30.0
# For a TLS handshake, from the connection on.
TLS_HANDSHAKE_SECONDS: Final = 10.0
# Handshakes under way, in hundredths of --max-connections.
HANDSHAKES_PERCENT: Final = 50
# But not fewer.
LEAST_HANDSHAKES: Final = 32
# Header fields in one head, trailers included.
HEAD_FIELDS: Final = 128
# The name of one of them: of names it is remembered what they mean.
HEAD_NAME_BYTES: Final = 256
# All fields of a head may have so many times --max-header-bytes.
HEAD_TIMES_A_FIELD: Final = 4
# Heads that are known, of connections which carry those of many: each has 4 KiB at most.
KNOWN_HEADS: Final = 4096
# Until a body has arrived.
BODY_SECONDS: Final = 60.0
# Of one that nobody reads: what is taken in before its connection is read no more.
BODY_HELD_BYTES: Final = 768 * 1024
# Of a page beside the endpoint, what the operating system holds on its way in, and again on its way out.
PAGE_HELD_BYTES: Final = 128 * 1024
# Until a stream is given up of which its client takes nothing.
UNREAD_SECONDS: Final = 60.0
# Connections to the admin listener; its descriptors are the proxy's.
ADMIN_CONNECTIONS: Final = 64
# Until the first request of a connection to it has arrived.
ADMIN_FIRST_REQUEST_SECONDS: Final = 10.0
# Of one head there.
ADMIN_HEAD_FIELDS: Final = 64
# What clients there have not taken of their pages, all together.
ADMIN_UNREAD_BYTES: Final = 8 * 1024 * 1024
# Sessions of each kind on one page there.
ADMIN_ROWS: Final = 10_000
# A body at the admin listener.
ADMIN_BODY_BYTES: Final = 4096
# Until such a body has arrived.
ADMIN_BODY_SECONDS: Final = 5.0

# -- A client, by what it says ---------------------------------------------------------------------

# Messages in one batch: each is a request of its own.
BATCH_MESSAGES: Final = 100
# Members of a client's parameters, and of their `_meta`: each costs an object.
PARAMS_MEMBERS: Final = 1000
# The id of a message, which is kept and repeated.
ID_BYTES: Final = 1024
# Capabilities and clientInfo, which are kept with each session; the largest seen have 2 KiB.
PROFILE_BYTES: Final = 64 * 1024
# Those that travel in a session id; in it, they may have so many characters.
CARRIED_PROFILE_BYTES: Final = 4096
CARRIED_PROFILE_DEPTH: Final = 32
PACKED_PROFILE_CHARS: Final = 600
# Profiles of modern clients that are looked up instead of read.
REMEMBERED_PROFILES: Final = 1024
# A profile that is remembered, or may take the last quarter of its share.
REMEMBERED_PROFILE_BYTES: Final = 4096
# Names of headers of which is known what they are.
CACHED_HEADER_NAMES: Final = 2048
# `Accept` headers of which is known what they say.
CACHED_ACCEPTS: Final = 256
# Claims of a token are read up to this size, and this deep; a larger token counts by its bytes.
TOKEN_BYTES: Final = 16 * 1024
TOKEN_DEPTH: Final = 16
# Tokens of which is known who they count as; those that were made up displace none that was accepted.
KNOWN_TOKENS: Final = 20_000
# Callers of whom is known which other proxy serves them.
KNOWN_PLACES: Final = 100_000
# Callers that another proxy has taken from this one, of whom is known which ids may be under way.
LOST_FENCES: Final = 10_000
# Callers who are known by the claims of their tokens.
KNOWN_CLAIMANTS: Final = 20_000
# Issuers of which is known whether a server checks their tokens.
KNOWN_ISSUERS: Final = 256
# New tokens that the server is being asked about, all together, and those with one claim.
NEW_TOKENS: Final = 1000
NEW_TOKENS_A_CLAIMANT: Final = 250
# Handshakes for them at once, likewise.
TOKEN_HANDSHAKES: Final = 32
TOKEN_HANDSHAKES_A_CLAIMANT: Final = 16
# Keys of the issuer of tokens.
ISSUER_KEYS: Final = 100
# Resources that one client session wants to be told of.
SUBSCRIPTIONS: Final = 1000
# What it said of them.
SUBSCRIPTIONS_BYTES: Final = 256 * 1024
# A log level that is set.
LOG_LEVEL_BYTES: Final = 100
# Resources of one `subscriptions/listen`.
LISTENED_URIS: Final = 1000
# One of them.
LISTENED_URI_CHARS: Final = 8192
# `subscriptions/listen` of one principal at the same time.
LISTENERS_A_PRINCIPAL: Final = 2000
# Messages that wait for one of them.
LISTENER_MESSAGES: Final = 1000
# Streams of a client session that can be taken up again.
KEPT_STREAMS: Final = 16
# Events that are kept for one of them, beside --max-buffered-events.
KEPT_STREAM_BYTES: Final = 1024 * 1024
# Events that wait for a client that reads slowly: what it has not read yet goes only over these.
UNREAD_EVENTS: Final = 10_000
# The same, in bytes.
UNREAD_BYTES: Final = 16 * 1024 * 1024

# -- A server --------------------------------------------------------------------------------------

# One event or answer of a server.
SERVER_EVENT_BYTES: Final = 64 * 1024 * 1024
# Messages in one JSON text of a server, which answers one request.
SERVER_MESSAGES: Final = 1000
# The id of an event; a longer one could not be sent back, for servers refuse heads of more than 8 KiB or so.
EVENT_ID_BYTES: Final = 4096
# Looking for an answer in later streams ends after so much of failing in a row: a server that is away for
# longer has most likely lost it, and its callers should hear so in time.
FAILING_SECONDS: Final = 120.0
# The same, of 500: most often no moment's trouble, for servers without an event store crash over the id.
CRASHING_SECONDS: Final = 15.0
# A server's `retry` is followed up to here; a longer one is taken for a mistake.
RETRY_SECONDS: Final = 30.0
# A server that says nothing about a request but keeps its stream alive, by comments say, has so many times
# --request-timeout: many do so for as long as a tool works, and some for ever.
WORDLESS_TIMES: Final = 10
# Header fields of its answer: cookies, policies and tokens grow fat.
SERVER_FIELDS: Final = 512
# The whole head, interim answers included; on other paths than the endpoint's, one field of it.
SERVER_HEAD_BYTES: Final = 64 * 1024
# Connections to it that are kept for a moment because another request may come.
KEPT_CONNECTIONS: Final = 1000
# What it says of itself in a handshake, kept as long as a session lives.
INITIALIZE_RESULT_BYTES: Final = 1024 * 1024
# Cookies that it sets on one session. Browsers keep more, but for many sites.
COOKIES: Final = 50
# All of them: many servers refuse a header of more than 8 KiB.
COOKIES_BYTES: Final = 8000
# What it says on a session before anybody is there to hear it.
UNHEARD_MESSAGES: Final = 100
# The same, in bytes.
UNHEARD_BYTES: Final = 256 * 1024
# The same: for how long it is kept. Nothing waits longer for somebody who may never come.
UNHEARD_SECONDS: Final = 600.0
# What it has said in one call and its client has not read, where all calls of a session share one way: then
# it is slowed down, or progress is dropped if others wait for it there.
CALL_UNREAD_BYTES: Final = 1024 * 1024
# Refusals of its questions that are on their way to it; they leave room for answers to pings.
REFUSALS_AT_ONCE: Final = 50
# Those that wait for their turn.
WAITING_REFUSALS: Final = 20_000
# One of them.
REFUSAL_BYTES: Final = 1000
# Questions, or URLs to visit, of one call that wait for its client.
QUESTIONS_A_CALL: Final = 100
# What a parked call has to tell its client.
PARKED_MESSAGES: Final = 256
# Questions of a client session that its client has not answered.
UNANSWERED_QUESTIONS: Final = 100
# Ids of elicitations that a session is known by.
ELICITATIONS: Final = 100
# Ids of elicitations that were completed before their call asked.
COMPLETED_ELICITATIONS: Final = 100
# One of them.
ELICITATION_ID_CHARS: Final = 1024
# A kept list.
LIST_BYTES: Final = 4 * 1024 * 1024
# Callers of whose tools it is known which have marked parameters.
MARKING_CALLERS: Final = 10_000
# Pages of one list that are looked at for marked parameters.
LIST_PAGES: Final = 100
# Tools with marked parameters, of one caller.
MARKED_TOOLS: Final = 10_000
# A tool in which marked parameters are looked for; of larger ones a modern client does not hear.
TOOL_BYTES: Final = 1024 * 1024
# Lists that are kept as modern clients get them.
LIFTED_LISTS: Final = 100
# The id of a task at its server, and what that says of how it stands.
TASK_ID_CHARS: Final = 1024
TASK_MESSAGE_CHARS: Final = 4096
# What a server may ask in the course of one task: no key of a question is used twice.
QUESTIONS_A_TASK: Final = 1000
# Tasks of a session that it has told of before it said that they were begun.
UNKNOWN_TASKS: Final = 16
# Tasks of a session whose progress is followed.
TASKS: Final = 100
# For how long, whatever their ttl says.
TASK_SECONDS: Final = 24 * 3600.0
# Callers of whom the server has not said whether it speaks modern to them.
UNDECIDED_CALLERS: Final = 1000
# Callers whose handshakes have failed, while others decide.
FAILED_CALLERS: Final = 10_000
# Callers of whom a ping has told whether the server takes them.
PINGED_CALLERS: Final = 10_000
# A document about signing in that is rewritten, and what tells of an issuer's keys.
METADATA_BYTES: Final = 1024 * 1024
# Events of one kind that are kept for the status page.
SHOWN_EVENTS_OF_A_KIND: Final = 50
# A text in one of them.
SHOWN_EVENT_CHARS: Final = 300
# Kinds of trouble that it tells of: a few reasons come from outside, as a server's statuses.
SHOWN_TROUBLES: Final = 200

# -- What is stored --------------------------------------------------------------------------------

# A record that is read again; the largest that are written have a few megabytes.
RECORD_BYTES: Final = 16 * 1024 * 1024

# -- A child, which is a server that speaks over its standard input and output ---------------------

# What it was told and has not read. One message alone may be as large as --max-body-bytes allows.
CHILD_UNREAD_BYTES: Final = 16 * 1024 * 1024
# A line on its standard error; the rest of it is the next one.
STDERR_LINE_CHARS: Final = 1000
# Lines of its standard error that are logged; the others are counted.
STDERR_LINES_A_SECOND: Final = 50
# Of a line on its standard output that is no message, what is logged (at debug).
NOISE_CHARS: Final = 80
# How long it may take to leave once its standard input is closed, and again once it got SIGTERM.
CHILD_LEAVES_SECONDS: Final = 2.0
CHILD_TERMINATES_SECONDS: Final = 3.0

# -- Other members of a cluster, which send on what clients have sent to them ----------------------

# A connection to another member may take so long: one that is too busy to take it is as good as away.
PEER_CONNECT_SECONDS: Final = 2.0
# A question that members ask each other is answered within this, or was not answered.
PEER_ANSWER_SECONDS: Final = 1.0
# A connection to another member is kept for so long when nothing is under way on it.
PEER_KEPT_SECONDS: Final = 30.0
# What was sent to another member is confirmed by its system within this, whatever it is busy with, or there
# is no way to it any more.
PEER_SILENCE_SECONDS: Final = 5.0
# What the clocks of two members may differ by, the time of the way included.
PEER_SKEW_SECONDS: Final = 30.0
# Of each member, so many of its newest requests are known, so that none is taken twice.
PEER_WINDOW: Final = 131_072
# Members of which that is known: some 16 KiB for each.
PEER_SENDERS: Final = 1024
# Clients' connections at other members of which is known what their requests say: as with one of our own.
PEER_CLIENTS: Final = 4096
# What members say to each other for themselves.
PEER_BODY_BYTES: Final = 1024 * 1024

# -- The budget of memory, in hundredths by share (`memory.py`) ------------------------------------

# Heads of requests that have not ended.
HEADS_PERCENT: Final = 5
# Bodies of requests, unless --max-inflight-bytes says otherwise.
BODIES_PERCENT: Final = 25
# Large answers on their way.
ANSWERS_PERCENT: Final = 30
# Events kept for clients, and what waits for listeners.
EVENTS_PERCENT: Final = 15
# Kept lists, and what was read of them.
LISTS_PERCENT: Final = 10
# What clients and servers say of themselves.
PROFILES_PERCENT: Final = 5
# What clients want to be told of.
SUBSCRIPTIONS_PERCENT: Final = 5
# Servers' questions, and what parked calls hold.
QUESTIONS_PERCENT: Final = 5
# Of a share, what is kept for those who need little.
SMALL_PERCENT: Final = 25
# That is, at most so much: a few large things must not keep ordinary calls out.
SMALL_BYTES: Final = 64 * 1024
