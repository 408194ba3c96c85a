"""Profiles for people's eyes. Pure: a profile and the time in, text out.

Names come from events, so they may hold anything: they never reach rich as markup, nor a terminal as control codes.
"""

from collections.abc import Iterable
from datetime import datetime

from rich.table import Table
from rich.text import Text

from streamer.cli.common import table
from streamer.profile import Activity, Change, Interest, ItemEvent, Profile
from streamer.tools.profiles import Published

BAR_CELLS = 20
EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
TOP = 3  # interests in a line of `watch`: what fits beside the changes
RECENT = 8  # items below a profile: about two lines
AGES = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"))


def profile_parts(profile: Profile, now_ms: int) -> Iterable[Text | Table]:
    """A profile as a heading, its interests as bars, its activity and its recent items."""
    yield Text.assemble(
        (plain(profile.user_id), "bold"),
        f"  version {profile.version}, newest event {age(profile.as_of, now_ms)}, ",
        f"published {age(profile.published_at, now_ms)}",
    )
    if profile.changed:
        yield Text("changed  ").append_text(_changes(profile.changed))
    yield _interests(profile.interests, now_ms) if profile.interests else Text("no interests yet")
    yield _activity(profile.activity, now_ms)
    recent = (f"{plain(item.item_id)} ({item.kind}, {age(item.ts, now_ms)})" for item in profile.recent_items[:RECENT])
    yield Text("recent   " + ", ".join(recent))


def change_line(published: Published) -> Text:
    """One line of `watch`: time, user, version, what changed, and the strongest interests."""
    at = datetime.fromtimestamp(published.at_ms / 1000).astimezone().strftime("%H:%M:%S")
    line = Text.assemble((at, "dim"), "  ", (plain(published.user_id), "bold"), "  ")
    if published.profile is None:
        return line.append("erased", "red")
    top = (f"{plain(interest.tag)} {_percent(interest.share)}" for interest in published.profile.interests[:TOP])
    line.append(f"v{published.profile.version}  ").append_text(_changes(published.profile.changed))
    return line.append("   " + " · ".join(top), "dim")


def age(then_ms: int, now_ms: int) -> str:
    """How long ago, in the largest unit that gives at least one.

    >>> age(0, 5_400_000)
    '1 h ago'
    """
    passed = now_ms - then_ms
    for unit_ms, name in AGES:
        if passed >= unit_ms:
            return f"{passed // unit_ms} {name} ago"
    return "just now"


def bar(share: float) -> str:
    """A bar of eighths of a cell, `BAR_CELLS` for all.

    >>> bar(0.1), bar(0.03)
    ('██', '▋')
    """
    eighths = round(share * BAR_CELLS * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8]


def _interests(interests: Iterable[Interest], now_ms: int) -> Table:
    rows = table("interest", "", "share", "recent", "lift", "events", "because of")
    for column in rows.columns[2:6]:
        column.justify = "right"
    for interest in interests:
        rows.add_row(
            Text(plain(interest.tag)),
            Text(bar(interest.share), "cyan"),
            _percent(interest.share),
            _percent(interest.recent),
            f"×{interest.lift:.1f}",
            f"{interest.events:.1f}",
            Text(_because(interest.because, now_ms)),
        )
    return rows


def _because(events: Iterable[ItemEvent], now_ms: int) -> str:
    return ", ".join(f"{plain(event.item_id)} ({event.kind}, {age(event.ts, now_ms)})" for event in events)


def _activity(activity: Activity, now_ms: int) -> Text:
    spend = ", ".join(f"{amount:,.2f} {plain(currency)}" for currency, amount in activity.spend.items())
    return Text(
        f"activity {activity.clicks:,} clicks, {activity.purchases:,} purchases{' of ' if spend else ''}{spend}, "
        f"first seen {age(activity.first_seen, now_ms)}"
    )


def _changes(changes: Iterable[Change]) -> Text:
    return Text(", ").join(_change(change) for change in changes)


def _change(change: Change) -> Text:
    tag, before, after = plain(change.tag or ""), change.before or 0.0, change.after or 0.0
    match change.what:
        case "interest_added":
            return Text(f"+{tag} {_percent(after)}", "green")
        case "interest_dropped":
            return Text(f"−{tag}", "red")
        case "interest_shifted":
            return Text(f"{tag} {_percent(before)} → {_percent(after)}", "green" if after > before else "yellow")
        case "vector_moved":
            return Text("taste moved")
        case what:
            return Text(what.replace("_", " "))


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def plain(name: str) -> str:
    """`name` with every character that a terminal might obey replaced."""
    return "".join(character if character.isprintable() else "�" for character in name)
