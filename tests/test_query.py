"""The query language: what is understood, that printing it loses nothing, and its mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clipsearch.errors import QueryError
from clipsearch.query import (
    FIELDS,
    Filter,
    Like,
    Near,
    Period,
    Query,
    Span,
    Term,
    markdown_table,
    parse,
    print_pieces,
    words,
)
from clipsearch.query.fields import FILTERS, OPTIONS, TERMS, Kind
from clipsearch.query.folding import clean, folded_words
from clipsearch.query_arguments import joined

DOCS = Path(__file__).parents[1] / "docs" / "query.md"


def text(value: str, weight: float = 1.0) -> Term:
    return Term("text", value, weight)


def image(value: str | int, weight: float = 1.0) -> Term:
    return Term("image", value, weight)


UNDERSTOOD = {
    "sunset over water": Query((text("sunset over water"),)),
    'sunset over water -people 0.5:"warm light"': Query(
        (text("sunset over water"), text("people", -1), text("warm light", 0.5))
    ),
    "sunset -people over water": Query((text("sunset over water"), text("people", -1))),
    "image:./a.jpg +snow -image:#1234": Query((image("./a.jpg"), text("snow"), image(1234, -1))),
    "-0.5:image:#7 2:dog": Query((image(7, -0.5), text("dog", 2))),
    'image:"my, dog.jpg"': Query((image("my, dog.jpg"),)),
    "image:a,b.jpg": Query((image("a,b.jpg"),)),
    "after:2023-06 before:2024": Query(
        filters=(Filter("after", ("2023-06",)), Filter("before", ("2024",)))
    ),
    "date:2019..2021-03 since:2020/1/5": Query(
        filters=(Filter("date", (Period("2019", "2021-03"),)), Filter("after", ("2020-01-05",)))
    ),
    'camera:"Pixel 7" lens:50mm': Query(
        filters=(Filter("camera", ("Pixel 7",)), Filter("lens", ("50mm",)))
    ),
    "camera:canon,nikon -tag:work": Query(
        filters=(Filter("camera", ("canon", "nikon")), Filter("tag", ("work",), True))
    ),
    "rating:>=4 iso:>1600 width:<100 height:<=9": Query(
        filters=(
            Filter("rating", (Span(4, None),)),
            Filter("iso", (Span(1600, None, True),)),
            Filter("width", (Span(None, 100, True),)),
            Filter("height", (Span(None, 9),)),
        )
    ),
    "size:>2MB exposure:1/60..1s f:f/2.8 focal:24mm..70": Query(
        filters=(
            Filter("size", (Span(2e6, None, True),)),
            Filter("exposure", (Span(0.0166667, 1),)),
            Filter("aperture", (Span(2.8, 2.8),)),
            Filter("focal", (Span(24, 70),)),
        )
    ),
    "type:photo orientation:Portrait -has:gps": Query(
        filters=(
            Filter("type", ("picture",)),
            Filter("orientation", ("portrait",)),
            Filter("has", ("gps",), True),
        )
    ),
    "near:Lisbon near:Lisbon,500m near:38.7,-9.1,5km": Query(
        filters=(
            Filter("near", (Near("Lisbon", 20),)),
            Filter("near", (Near("Lisbon", 0.5),)),
            Filter("near", (Near((38.7, -9.1), 5),)),
        )
    ),
    'near:"Paris, France",3km': Query(filters=(Filter("near", (Near("Paris, France", 3),)),)),
    "similar:#12>0.8 similar:'a.jpg'<=0.2": Query(
        filters=(
            Filter("similar", (Like(12, Span(0.8, None, True)),)),
            Filter("similar", (Like("'a.jpg'", Span(None, 0.2)),)),
        )
    ),
    'similar:"a b>c.jpg">0.5': Query(
        filters=(Filter("similar", (Like("a b>c.jpg", Span(0.5, None, True)),)),)
    ),
    "in:Holidays/** in:~/Photos/": Query(
        filters=(Filter("in", ("Holidays/**",)), Filter("in", ("~/Photos",)))
    ),
    "dog sort:-date limit:5 cutoff:none duplicate:no": Query(
        (text("dog"),), order="-date", limit=5, cutoff="none", distinct=True
    ),
    "cutoff:0.27 sort:score limit:1 limit:2": Query(order="score", limit=2, cutoff=0.27),
    "": Query(),
    " \t\n": Query(),
}
LITERAL = {
    "what's this: a dog": None,
    "don't": None,
    "a 16:9 photo at 5:30 pm": None,
    "5:30": None,
    "C++ and C# :-) ;-) -> --- - +": None,
    "https://example.org/a?b=c mailto:someone@example.org": None,
    "Genesis:1": None,
    '"unbalanced quotes': None,
    'a 5" nail': None,
    "日本語 🐈 صورة": None,
    "🐈‍⬛ 👩‍👩‍👧": None,
    '"camera: -not a +field"': "camera: -not a +field",
    '"say \\"cheese\\" \\\\ \\n"': 'say "cheese" \\ \\n',
    "“typographic quotes” here": "typographic quotes here",
    '"a" "b"': "a b",
    "tab\tand\x00nul\x7f": "tab and nul",
    "  spaced \n out ": "spaced out",
    "x" * 10_000: None,
    "dog " * 2_500: ("dog " * 2_500).strip(),
}


@pytest.mark.parametrize("written", UNDERSTOOD, ids=lambda written: written[:40])
def test_the_language_is_understood(written: str) -> None:
    assert parse(written) == UNDERSTOOD[written]
    assert parse(str(parse(written))) == UNDERSTOOD[written]


@pytest.mark.parametrize("written", LITERAL, ids=lambda written: written[:30])
def test_plain_words_just_work(written: str) -> None:
    assert parse(written) == Query((text(LITERAL[written] or written),))
    assert parse(str(parse(written))) == parse(written)


def test_words_takes_nothing_as_language() -> None:
    for literal in ("-people", "camera:canon", '"', "0.5:x", "image:a.jpg", "\\"):
        assert words(literal) == Query((text(literal),))
        assert parse(str(words(literal))) == words(literal)
    assert words(" \x00 ") == Query()


@pytest.mark.parametrize(
    ("written", "marked", "said"),
    [
        ("sunset camra:canon", "camra:", "camera:"),
        ("日本語🐈 tga:beach", "tga:", "tag:"),
        ("dog oreintation:portrait", "oreintation:", "orientation:"),
        ('dog camera:"Pixel 7', '"', "never closed"),
        ("camera: canon", "camera:", 'camera:"Pixel 7"'),
        ("date:2023-13", "2023-13", "There is no date"),
        ("after:tomorrow", "tomorrow", "2023-06"),
        ("after:2023,2024", "2024", "one date"),
        ("date:2024..2023", "2024..2023", "is before"),
        ("iso:loud", "loud", ">="),
        ("iso:5..1", "5..1", "less than"),
        ("size:>2MP", ">2MP", "mb"),
        ("rating:>=4stars", ">=4stars", "no unit"),
        ("exposure:1/0", "1/0", "exposure"),
        ("type:pdf", "pdf", "picture, video"),
        ("tag:a,,b", "", "missing"),
        ("tag:a, b", "", "missing"),
        ("camera:...", "...", "letter"),
        ('camera:"a"b', '"a"b', "closing quote"),
        ("near:38.7", "38.7", "near:Lisbon,20km"),
        ("near:95,0,5km", "95", "Latitudes"),
        ("near:Lisbon,0km", "0km", "distance"),
        ("similar:#12", "#12", "similar:#1234>0.8"),
        ("similar:#12>8", "#12>8", "cosine"),
        ("image:#", "#", "#1234"),
        ("11:dog", "11:", "weight"),
        ("0:dog", "0:", "weight"),
        ('-""', '""', "nothing"),
        ("0.5:iso:100", "0.5:", "no weight"),
        ("+tag:x", "+", "no plus"),
        ("-sort:date", "-sort:", "minus"),
        ("limit:0", "0", "10,000"),
        ("aperture:<=2,8", "<=2,8", "aperture:<=2.8"),
        ("f:f/2,8", "f/2,8", "f/2.8"),
        ("iso:>=1,600", ">=1,600", "iso:>=1600"),
        ("size:>2,5MB", ">2,5MB", "size:>2.5MB"),
        ("focal:24,70mm", "24,70mm", "its own sign and unit"),
        ("focal:1,2..2,4", "1,2..2,4", "means or"),
        ("iso:>=1.600", ">=1.600", "write 1600"),
        ("altitude:>2.000m", ">2.000m", "write 2000"),
        ("cutoff:0,27", "27", "one value"),
        ('0,5:"warm light"', "0,5:", "0.5:"),
        ("limit:²", "²", "10,000"),
        ("cutoff:7", "7", "0.27"),
        ("sort:up,down", "down", "one value"),
    ],
)
def test_a_mistake_is_shown_with_a_caret_and_a_way_out(
    written: str, marked: str, said: str
) -> None:
    with pytest.raises(QueryError) as raised:
        parse(written)
    message, line, carets = str(raised.value).split("\n")
    assert said in message
    fields = raised.value.fields
    assert written[fields["start"] : fields["end"]][: len(marked)] == marked
    assert line.strip() == written
    assert set(carets.strip()) == {"^"}


def test_a_long_query_shows_the_place_alone() -> None:
    with pytest.raises(QueryError) as raised:
        parse("dog " * 2000 + "tga:beach " + "cat " * 2000)
    _, line, carets = str(raised.value).split("\n")
    assert len(line) < 80
    assert line[carets.index("^") :].startswith("tga:")
    with pytest.raises(QueryError, match="at most 20,000"):
        parse("x" * 30_000)


def test_the_caret_stands_under_wide_letters_and_past_hidden_ones() -> None:
    with pytest.raises(QueryError) as raised:
        parse("日本\x07 iso:x")
    _, line, carets = str(raised.value).split("\n")
    assert line == "    日本  iso:x"
    assert carets == "    " + " " * 10 + "^"  # two letters of two columns each


@given(st.text(max_size=200))
@example('image:"')
@example("similar:>")
@example("near:,")
@example("\ud800 -\udfff")
def test_any_text_is_a_query_or_a_shown_mistake(written: str) -> None:
    try:
        query = parse(written)
    except QueryError as error:
        assert len(str(error).split("\n")) == 3
    else:
        assert parse(str(query)) == query


TOKENS = st.sampled_from(
    ["dog", "-", "+", "0.5:", '"', "#12", ",", ":", ">=", "..", "\\", " ", "*", "2023", "\n", "é"]
    + [f"{name}:" for name in FIELDS]
    + [entry.example for entry in (*TERMS, *FILTERS, *OPTIONS)]
)


@given(st.lists(TOKENS, max_size=12).map("".join))
def test_any_mixture_of_the_language_is_a_query_or_a_shown_mistake(written: str) -> None:
    test_any_text_is_a_query_or_a_shown_mistake.hypothesis.inner_test(written)


# --- printing -------------------------------------------------------------------------------

READABLE = st.text(max_size=20).map(clean).filter(bool)
WORDY = READABLE.filter(lambda value: bool(folded_words(value)))
PATHS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda value: bool(value.strip())
)
NUMBERS = st.one_of(
    st.integers(0, 10**10).map(float), st.floats(0, 1e9).filter(lambda number: number < 1e9)
)


@st.composite
def spans(draw: st.DrawFn, numbers: st.SearchStrategy[float] = NUMBERS) -> Span:
    low, high = draw(st.none() | numbers), draw(st.none() | numbers)
    if low is None and high is None:
        low = draw(numbers)
    if low is not None and high is not None:
        return Span(min(low, high), max(low, high))
    return Span(low, high, draw(st.booleans()))


def dates() -> st.SearchStrategy[str]:
    return st.datetimes().flatmap(
        lambda moment: st.sampled_from([4, 7, 10, 16, 19]).map(
            lambda length: moment.isoformat(timespec="seconds")[:length]
        )
    )


PERIODS = st.tuples(dates(), dates()).map(sorted).map(lambda pair: Period(pair[0], pair[1]))
COSINES = st.floats(-1, 1)
ITEMS = st.integers(0, 10**12)
LIKES = st.builds(
    Like,
    ITEMS | PATHS,
    st.builds(lambda least, is_open: Span(low=least, open=is_open), COSINES, st.booleans()),
)
NEARS = st.builds(
    Near,
    READABLE.filter(lambda name: bool(folded_words(name)) and not name[0].isdigit())
    | st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
    st.floats(0.001, 20_000),
)


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    entry = draw(st.sampled_from(FILTERS))
    negated = draw(st.booleans())
    one: dict[Kind, st.SearchStrategy[object]] = {
        Kind.DATE: dates(),
        Kind.NEAR: NEARS,
    }
    several: dict[Kind, st.SearchStrategy[object]] = {
        Kind.PERIOD: PERIODS,
        Kind.NUMBER: spans(
            NUMBERS.map(lambda number: float(f"{number:.6g}"))
            if entry.name == "exposure"
            else NUMBERS
        ),
        Kind.TEXT: WORDY.map(lambda value: entry.choices.get(value.casefold(), value)),
        Kind.TAG: WORDY,
        Kind.PATH: PATHS,
        Kind.FOLDER: PATHS.map(lambda path: path.replace("\\", "/").rstrip("/") or "/**"),
        Kind.CHOICE: st.sampled_from(sorted(set(entry.choices.values()) or {"x"})),
        Kind.SIMILAR: LIKES,
    }
    if entry.kind in one:
        return Filter(entry.name, (draw(one[entry.kind]),), negated)  # type: ignore[arg-type]
    found = draw(st.lists(several[entry.kind], min_size=1, max_size=3, unique=True))
    return Filter(entry.name, tuple(found), negated)  # type: ignore[arg-type]


WEIGHTS = st.one_of(st.just(1.0), st.floats(0.001, 10)).flatmap(
    lambda weight: st.sampled_from([weight, -weight])
)
QUERIES = st.builds(
    Query,
    st.lists(
        st.builds(Term, st.just("text"), READABLE, WEIGHTS)
        | st.builds(Term, st.just("image"), ITEMS | PATHS, WEIGHTS),
        max_size=4,
    ).map(tuple),
    st.lists(filters(), max_size=4).map(tuple),
    st.sampled_from(["", "score", "date", "-date", "name", "-name"]),
    st.none() | st.integers(1, 10_000),
    st.sampled_from(["auto", "none"]) | COSINES,
    st.booleans(),
)


@settings(max_examples=300)
@given(QUERIES)
@example(Query((text("\u00ab"),), (Filter("in", ("\u00bb",)),)))
@example(Query((text("\u201c"),), (Filter("in", ("\u201d",)),)))
def test_what_is_printed_is_understood_as_the_same(query: Query) -> None:
    assert parse(str(query)) == query
    assert " ".join(print_pieces(query)) == str(query)


# --- one table for everything ---------------------------------------------------------------


@pytest.mark.parametrize("entry", [*TERMS, *FILTERS, *OPTIONS], ids=lambda entry: entry.name)
def test_every_example_is_right_and_uses_its_field(entry: object) -> None:
    query = parse(entry.example)  # type: ignore[attr-defined]
    assert parse(str(query)) == query
    name = entry.name  # type: ignore[attr-defined]
    used = {one.field for one in query.filters} | {term.kind for term in query.terms}
    assert name in used or query != Query()
    for alias in entry.aliases:  # type: ignore[attr-defined]
        assert FIELDS[alias] is entry


def test_the_docs_hold_the_table_as_it_is() -> None:
    assert markdown_table() in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("line", [
    line
    for block in DOCS.read_text(encoding="utf-8").split("```")[1::2]
    if block.startswith("query\n")
    for line in block.splitlines()[1:]
    if line.strip()
] if DOCS.exists() else [])  # fmt: skip
def test_every_query_of_the_docs_is_understood(line: str) -> None:
    query = line.split("   ", maxsplit=1)[0].strip()
    assert parse(str(parse(query))) == parse(query)


# --- the command line -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        (["sunset -people"], "sunset -people"),
        (["sunset", "-people", "after:2023"], "sunset -people after:2023"),
        (["dog", "camera:Pixel 7"], 'dog camera:"Pixel 7"'),
        (["dog", "-warm light", "0.5:deep snow"], 'dog -"warm light" 0.5:"deep snow"'),
        (["dog", "image:my cat.jpg"], 'dog image:"my cat.jpg"'),
        (["a dog", "on the beach"], "a dog on the beach"),
        (["after:2023 dog -cat", "limit:3"], "after:2023 dog -cat limit:3"),
        (["what's this: a dog", "x"], "what's this: a dog x"),
        (['camera:"Pixel 7"', "x"], 'camera:"Pixel 7" x'),
    ],
)
def test_what_a_shell_unquotes_is_quoted_again(arguments: list[str], query: str) -> None:
    assert joined(arguments) == query


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clipsearch", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_mistake_on_the_command_line_is_three_lines_and_code_50() -> None:
    done = cli("search", "sunset", "-people", "camra:canon", "--top", "3")
    assert done.returncode == QueryError.exit_code
    assert done.stderr.splitlines()[1:] == [
        "    sunset -people camra:canon",
        "                   ^^^^^^",
    ]
    assert done.stdout == ""


def test_query_help_names_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    from clipsearch.cli import main

    assert main(["query-help"]) == 0
    said = capsys.readouterr().out
    assert all(f"{entry.name}:" in said for entry in (*TERMS, *FILTERS, *OPTIONS))
    assert main(["query-help", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len((*TERMS, *FILTERS, *OPTIONS))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("iso:1,600", "iso:1600"),
        ("aperture:2,8", "aperture:2.8"),
        ("exposure:0,004", "exposure:0.004"),
        ("iso:>=1 600", "iso:>=1600"),
        ("width:>=1\u202f920", "width:>=1920"),
        ("size:>10 MB", "size:>10MB"),
        ("altitude:>1500 m lake", "altitude:>1500m"),
        ("exposure:1/60 s", "exposure:1/60s"),
    ],
)
def test_a_number_that_may_be_meant_otherwise_is_told(written: str, said: str) -> None:
    (note,) = parse(written).notes
    assert said in note


@pytest.mark.parametrize(
    "written", ["rating:1,2", "iso:100,200", "iso:400 dogs", "a 1,600 m run", "iso:400 m"]
)
def test_what_is_plain_is_told_nothing_about(written: str) -> None:
    assert parse(written).notes == ()


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        *((f"sunset {dash}people", "sunset -people") for dash in "\u2212\u2013\u2014\u2010\uff0d"),
        ("dog \u2212tag:work", "dog -tag:work"),
        ("dog \u20130.5:cat", "dog -0.5:cat"),
        ('dog \u2014"parked cars"', 'dog -"parked cars"'),
        ("tag\uff1abeach", "tag:beach"),
        ("iso:\u22651600", "iso:>=1600"),
        ("altitude:<\u22125", "altitude:<-5"),
        ("date:2019\u20262021", "date:2019..2021"),
        ("near:38.7,\u22129.1", "near:38.7,-9.1"),
        ('near:"38.7, -9.1"', "near:38.7,-9.1"),
        ('near:"38.7\u00b0 N, 9.1\u00b0 W",5km', "near:38.7,-9.1,5km"),
        ("tag:\u201dZo\u00eb Ann\u201d", 'tag:"Zo\u00eb Ann"'),
        ("tag:\u00abZo\u00eb Ann\u00bb", 'tag:"Zo\u00eb Ann"'),
        ("iso:>=1'600", "iso:>=1600"),
        ("width:1\u2019920..3\u2019840", "width:1920..3840"),
    ],
)
def test_what_phones_and_word_processors_type_means_the_same(written: str, typed: str) -> None:
    assert parse(written) == parse(typed) != words(written)


@pytest.mark.parametrize(
    "written", ["a dash \u2014 and words", "1914\u20131918", "well\u2014known"]
)
def test_a_dash_that_stands_before_no_word_is_only_a_dash(written: str) -> None:
    assert parse(written) == words(written)


def test_a_shell_takes_no_quotes_from_a_typed_dash() -> None:
    assert joined(["sunset", "\u2212parked cars"]) == 'sunset \u2212"parked cars"'
