"""Report pages: safe, self-contained, well-formed."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from bert_ops.page import cards, page, table


class Reader(HTMLParser):
    """Collects tags, addresses and text; fails on tags that do not nest."""

    VOID = frozenset({"meta", "br", "img"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.addresses, self.text, self.open = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


HOSTILE = "<script>alert(\"x\")</script> & '文'"


def test_texts_are_escaped():
    html = page(HOSTILE, cards([(HOSTILE, HOSTILE)]), subtitle=HOSTILE)
    assert "<script" not in html
    reader = Reader(html)
    assert reader.text.count(HOSTILE) == 5, "title, heading, subtitle, figure, caption"


@given(st.text(), st.text())
def test_any_text_leaves_a_well_formed_page(title, figure):
    tags = Reader(page(title, cards([(figure, title)]), subtitle=figure)).tags
    assert tags.count("h1") == 1 and "script" not in tags


def test_page_fetches_nothing():
    html = page("t", table(["a"], [["1"]]) + cards([("1", "b")]))
    assert Reader(html).addresses == []
    assert "http" not in html and "@import" not in html and "url(" not in html
    assert html.startswith("<!doctype html>") and '<meta charset="utf-8">' in html


def test_subtitle_is_left_out_when_empty():
    assert 'class="sub"' not in page("t", "")


def test_table_has_its_rows_and_aligns_numbers():
    html = table(["name", "n"], [["<b>a</b>", "1"], ["b", "2"]], numeric=[1])
    reader = Reader(html)
    assert reader.tags.count("tr") == 3 and reader.tags.count("td") == 4 and reader.tags.count("b") == 1
    assert html.count("class=n") == 3
    assert Reader(table(["a"], [])).tags.count("td") == 0


def test_equal_input_gives_equal_bytes():
    assert page("t", "b", subtitle="s") == page("t", "b", subtitle="s")
