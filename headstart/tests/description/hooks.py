"""What schemathesis can not know of the formats that the description names, and of the server."""

import datetime
import itertools

import schemathesis
from hypothesis import strategies as st

ATTRIBUTES = st.sampled_from(["uid", "cn", "ou", "dc", "mailPrimaryAddress", "disabled", "x-1"])
TEXT = st.text("abcXYZ019 äßİ日._@-", min_size=1, max_size=12).map(str.strip).filter(bool)

# Distinguished names (RFC 4514).
rdn = st.tuples(ATTRIBUTES, TEXT | st.just("a\\2Cb") | st.just("\\#x")).map("=".join)
dns = st.lists(rdn, min_size=1, max_size=4).map(",".join)

# Search filters (RFC 4515).
leaf = st.one_of(
    st.tuples(ATTRIBUTES, st.sampled_from(["=", ">=", "<="]), TEXT | st.just("a\\2ab")).map("".join),
    ATTRIBUTES.map(lambda name: f"{name}=*"),
    st.tuples(ATTRIBUTES, TEXT, TEXT).map(lambda t: f"{t[0]}={t[1]}*{t[2]}"),
).map(lambda text: f"({text})")
filters = st.recursive(
    leaf,
    lambda inner: st.one_of(
        inner.map(lambda text: f"(!{text})"),
        st.tuples(st.sampled_from("&|"), st.lists(inner, max_size=3).map("".join)).map(lambda t: f"({t[0]}{t[1]})"),
    ),
    max_leaves=6,
)

# Regular expressions as RE2 takes them: no look-around, no back references.
words = st.sampled_from(["users", "groups", "user", "group", "computers", "[a-z]+", ".*", "(a|b)", "x{1,3}", "\\d"])
topics = st.one_of(
    st.tuples(words, words).map("/".join),
    st.lists(words, min_size=1, max_size=4).map("".join),
)

# Times as producers write them: with and without offset, seconds, time of day; or a number as text.
offsets = st.sampled_from(["", "Z", "z", "+00:00", "-03:30", "+0530", "+05"])
fractions = st.sampled_from(["", ":59", ":07.5", ":07,123456789"])
clocks = st.tuples(st.sampled_from("Tt _"), st.times().map(lambda t: t.strftime("%H:%M")), fractions, offsets).map("".join)
days = st.dates(datetime.date(2, 1, 1), datetime.date(9998, 12, 31)).map(datetime.date.isoformat)
numbers = st.integers(-62135596800000, 253402207200000).map(str) | st.just("1707296493.25")
timestamps = st.one_of(days, st.tuples(days, clocks).map("".join), numbers)

schemathesis.openapi.format("timestamp", timestamps)
schemathesis.openapi.format("ldap-dn", dns)
schemathesis.openapi.format("ldap-filter", filters)
schemathesis.openapi.format("re2", topics)

ADDRESSES = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Each request comes from another address: the server throttles those from which wrong passwords come."""
    number = next(ADDRESSES)
    headers = dict(case.headers or {})
    headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    if case.operation.definition.raw.get("operationId") == "streamMessages":
        # Of the two forms schemathesis reads the one that need not end.
        headers["Accept"] = "text/event-stream"
    case.headers = headers
