"""The kernel behind `profile_json`: users' numbers to JSON, field by field. `_put_*` return where they ended."""

from typing import Final, get_args

import numpy as np

from streamer.events import KINDS
from streamer.model.compiled import leaf
from streamer.pipeline.json_bytes import (
    Quoted,
    literal,
    put,
    put_base64,
    put_decimal,
    put_integer,
    put_quoted,
    put_text,
)
from streamer.pipeline.layout import N_RECENT, N_SPEND, place
from streamer.profile import SCHEMA, What

WHATS: Final[tuple[What, ...]] = get_args(What)
ADDED, DROPPED, SHIFTED, MOVED, ACTIVITY, FIRST_PROFILE, HEARTBEAT = range(len(WHATS))

_KIND = Quoted(*(next((k.name for k in KINDS if k.code == code), "") for code in range(max(k.code for k in KINDS) + 1)))
_KIND_DATA, _KIND_AT = _KIND.data[: _KIND.at[len(_KIND)]].copy(), _KIND.at[: len(_KIND) + 1].copy()
_WHAT = Quoted(*WHATS)
_WHAT_DATA, _WHAT_AT = _WHAT.data[: _WHAT.at[len(_WHAT)]].copy(), _WHAT.at[: len(_WHAT) + 1].copy()

_USER_ID, _VERSION, _AS_OF = literal('{"user_id":'), literal(',"version":'), literal(',"as_of":')
_PUBLISHED_AT, _INTERESTS, _VECTOR = literal(',"published_at":'), literal(',"interests":['), literal('],"vector":')
_DIM, _MODEL, _CLICKS = literal(',"vector_dim":'), literal(',"model":'), literal(',"activity":{"clicks":')
_PURCHASES, _SPEND, _FIRST_SEEN = literal(',"purchases":'), literal(',"spend":{'), literal('},"first_seen":')
_LAST_SEEN, _BY_HOUR, _RECENT = literal(',"last_seen":'), literal(',"by_hour":['), literal(']},"recent_items":[')
_CHANGED, _CAUSE, _END = literal('],"changed":['), literal('],"cause":'), literal(f',"schema":{SCHEMA}}}')
_TAG, _WEIGHT, _SHARE, _LATELY = literal('{"tag":'), literal(',"weight":'), literal(',"share":'), literal(',"recent":')
_LIFT, _EVENTS, _LAST_TS = literal(',"lift":'), literal(',"events":'), literal(',"last_ts":')
_BECAUSE, _CLOSE = literal(',"because":['), literal("]}")
_ITEM, _TS, _KIND_IS = literal('{"item_id":'), literal(',"ts":'), literal(',"kind":')
_WHAT_IS, _OF_TAG, _FROM, _TO = literal('{"what":'), literal(',"tag":'), literal(',"from":'), literal(',"to":')


@leaf
def write_profiles(row, users, slots, page, items, tags, out, bound, ends):  # type: ignore[no-untyped-def]
    """Profiles from `row` on, as many as surely fit into `out`; returns the row behind the last."""
    at = 0
    while row < len(slots) and at + bound <= len(out):
        s = slots[row]
        head, recent = users.head[s], page.recent_name[page.recent_at[row] : page.recent_at[row + 1]]
        first = place(users, s, N_RECENT)
        recents = users.recents[first : first + len(recent)]
        at = put_text(out, put(out, at, _USER_ID), page.keys[page.key_at[row] : page.key_at[row + 1]])
        at = put_integer(out, put(out, at, _VERSION), head.version)
        at = put_integer(out, put(out, at, _AS_OF), head.as_of)
        at = put_integer(out, put(out, at, _PUBLISHED_AT), head.published_at)
        at = put(out, at, _INTERESTS)
        started = at
        for r in range(page.tag_name.shape[1]):
            if page.tag_name[row, r] != -1:
                at = _comma(out, at, started)
                at = _put_name(out, put(out, at, _TAG), tags, page.tag_name[row, r])
                at = _put_numbers(out, at, page.numbers[row, r], page.last_ts[row, r])
                at = _put_items(out, put(out, at, _BECAUSE), items, recents, recent, page.because[row, r])
                at = put(out, at, _CLOSE)
        at = put_base64(out, put(out, at, _VECTOR), page.vectors[row])
        at = put_integer(out, put(out, at, _DIM), page.vectors.shape[1] // 4)
        at = put_text(out, put(out, at, _MODEL), page.model)
        at = _put_counts(out, at, head)
        first = place(users, s, N_SPEND)
        at = _put_spend(out, put(out, at, _SPEND), users.spends[first : first + head.counts[N_SPEND]])
        at = _put_times(out, at, head)
        at = _put_items(out, put(out, at, _RECENT), items, recents, recent, page.places[: len(recent)])
        at = put(out, at, _CHANGED)
        started = at
        for m in range(page.move_at[row], page.move_at[row + 1]):
            at = put(out, _comma(out, at, started), _WHAT_IS)
            at = put_quoted(out, at, _WHAT_DATA, _WHAT_AT, page.what[m])
            if page.what_tag[m] != -1:
                at = _put_name(out, put(out, at, _OF_TAG), tags, page.what_tag[m])
            at = _put_from_to(out, at, page.before[m], page.after[m])
        at = put_text(out, put(out, at, _CAUSE), page.causes[page.cause_at[row] : page.cause_at[row + 1]])
        at = put(out, at, _END)
        row += 1
        ends[row] = at
    return row


@leaf
def _put_name(out, at, names, which):  # type: ignore[no-untyped-def]
    if which >= 0:
        return put_quoted(out, at, names.data, names.at, which)
    return put_quoted(out, at, names.more_data, names.more_at, -2 - which)


@leaf
def _comma(out, at, started):  # type: ignore[no-untyped-def]
    if at == started:
        return at
    out[at] = ord(",")
    return at + 1


@leaf
def _put_numbers(out, at, numbers, last_ts):  # type: ignore[no-untyped-def]
    at = put_decimal(out, put(out, at, _WEIGHT), numbers[0], 6)
    at = put_decimal(out, put(out, at, _SHARE), numbers[1], 6)
    at = put_decimal(out, put(out, at, _LATELY), numbers[2], 6)
    at = put_decimal(out, put(out, at, _LIFT), numbers[3], 3)
    at = put_decimal(out, put(out, at, _EVENTS), numbers[4], 4)
    return put_integer(out, put(out, at, _LAST_TS), last_ts)


@leaf
def _put_items(out, at, items, recents, names, places):  # type: ignore[no-untyped-def]
    """The recent items in `places` that have a name; -1 is none."""
    started = at
    for k in places:
        if k >= 0 and names[k] != -1:
            at = _put_item(out, _comma(out, at, started), items, recents[k].time, names[k])
    return at


@leaf
def _put_item(out, at, items, time, which):  # type: ignore[no-untyped-def]
    at = _put_name(out, put(out, at, _ITEM), items, which)
    at = put_integer(out, put(out, at, _TS), time >> 8)
    at = put_quoted(out, put(out, at, _KIND_IS), _KIND_DATA, _KIND_AT, time & 255)
    out[at] = ord("}")
    return at + 1


@leaf
def _put_counts(out, at, head):  # type: ignore[no-untyped-def]
    at = put_integer(out, put(out, at, _CLICKS), head.clicks)
    return put_integer(out, put(out, at, _PURCHASES), head.purchases)


@leaf
def _put_spend(out, at, spends):  # type: ignore[no-untyped-def]
    """Of a currency's three letters, the first is in the lowest byte."""
    started = at
    for j in range(len(spends)):
        at = _comma(out, at, started)
        out[at] = out[at + 4] = ord('"')
        for k in range(3):
            out[at + 1 + k] = (spends[j].currency >> (8 * k)) & 255
        out[at + 5] = ord(":")
        at = put_decimal(out, at + 6, spends[j].micros / 1e6, 6)
    return at


@leaf
def _put_times(out, at, head):  # type: ignore[no-untyped-def]
    at = put_integer(out, put(out, at, _FIRST_SEEN), head.first_seen)
    at = put_integer(out, put(out, at, _LAST_SEEN), head.as_of)
    at = put(out, at, _BY_HOUR)
    started = at
    for hour in range(24):
        at = put_integer(out, _comma(out, at, started), head.by_hour[hour])
    return at


@leaf
def _put_from_to(out, at, before, after):  # type: ignore[no-untyped-def]
    """Those that are not NaN, and the end of the entry."""
    if not np.isnan(before):
        at = put_decimal(out, put(out, at, _FROM), before, 4)
    if not np.isnan(after):
        at = put_decimal(out, put(out, at, _TO), after, 4)
    out[at] = ord("}")
    return at + 1
